"""Numbers as they are read."""


def short_number(value: float | None, digits: int = 4) -> str:
    """Four digits; nothing for nothing."""
    return "" if value is None else f"{value:.{digits}g}"


def si(value: float | None) -> str:
    """Three digits and a unit's prefix: `81.9k`."""
    if value is None:
        return ""
    for size, unit in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever has few digits."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.3g} h"
