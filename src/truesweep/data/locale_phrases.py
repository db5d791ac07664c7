"""Dates, numbers and names as many languages write them, from the locale data of Babel (CLDR)."""

from collections.abc import Callable
from datetime import date, time, timedelta
from functools import partial
from random import Random

from babel import Locale, UnknownLocaleError, dates, lists, numbers, units
from babel.localedata import locale_identifiers

from truesweep.errors import ConfigError, nearest

Phrase = Callable[[Locale], str | None]  # writes itself in a language; None: it has no word for it

_NAMES = ("territories", "languages", "currencies")
_CURRENCIES = ("USD", "EUR", "GBP", "JPY", "CHF", "SEK", "PLN", "CAD", "INR", "BRL")
_UNITS = (
    *("length-kilometer", "length-meter", "length-centimeter", "length-mile", "mass-kilogram"),
    *("mass-gram", "mass-tonne", "volume-liter", "area-square-meter", "area-hectare"),
    *("duration-year", "duration-month", "duration-week", "duration-day", "duration-hour"),
    *("duration-minute", "duration-second", "temperature-celsius", "power-kilowatt"),
    *("speed-kilometer-per-hour", "digital-megabyte", "digital-gigabyte", "energy-kilowatt-hour"),
)


def parse(language: str) -> Locale:
    """The locale of a code such as `de` or `pt-BR`.

    Raises:
        ConfigError: Babel does not know it.
    """
    try:
        return Locale.parse(language.replace("-", "_"))
    except (UnknownLocaleError, ValueError) as error:
        known = locale_identifiers()
        close = nearest(language, known, most=3) or ["de", "en", "fr"]
        raise ConfigError(
            f"Language {language!r} is none that Babel knows. Use a code such as "
            f"{', '.join(close)}."
        ) from error


def names() -> list[Phrase]:
    """Names of countries and regions, languages, currencies, months, days of the week."""
    english = Locale("en")
    coded = [(table, code) for table in _NAMES for code in sorted(getattr(english, table))]
    calendar = [("months", n) for n in range(1, 13)] + [("days", n) for n in range(7)]
    return [partial(_name, *of) for of in coded] + [partial(_calendar, *of) for of in calendar]


def compositions(count: int) -> list[Phrase]:
    """`count` phrases of numbers, dates, amounts and lists, always the same; some may be equal."""
    random = Random(0)
    makers = random.choices(list(_MAKERS), weights=list(_MAKERS.values()), k=count)
    return [maker(random) for maker in makers]


def _name(table: str, code: str, locale: Locale) -> str | None:
    name: str | None = getattr(locale, table).get(code)
    return name


def _calendar(table: str, number: int, locale: Locale) -> str:
    name: str = getattr(locale, table)["stand-alone"]["wide"][number]
    return name


def _quantity(random: Random) -> float:
    """A number of one to seven digits before the point, none to two after it."""
    return round(10 ** (7 * random.random()), int(3 * random.random()))


def _date(random: Random) -> Phrase:
    day = date(1900, 1, 1) + timedelta(days=int(73_000 * random.random()))
    style = random.choice(["full", "long", "medium"])
    return lambda locale: dates.format_date(day, style, locale)


def _month(random: Random) -> Phrase:
    day = date(1900 + int(200 * random.random()), 1 + int(12 * random.random()), 1)
    return lambda locale: dates.format_skeleton("yMMMM", day, locale=locale)


def _time(random: Random) -> Phrase:
    moment = time(int(24 * random.random()), int(60 * random.random()))
    return lambda locale: dates.format_time(moment, "short", locale=locale)


def _span(random: Random) -> Phrase:
    """Such as "in 3 weeks" and "2 years ago"."""
    days = int(10 ** (3.5 * random.random())) * random.choice([1, -1])
    return lambda locale: dates.format_timedelta(
        timedelta(days=days), add_direction=True, locale=locale
    )


def _number(random: Random) -> Phrase:
    number = _quantity(random)
    return lambda locale: numbers.format_decimal(number, locale=locale)


def _round_number(random: Random) -> Phrase:
    """Such as "1.2 million"."""
    number = 10 ** (3 + 9 * random.random())
    return lambda locale: numbers.format_compact_decimal(
        number, format_type="long", locale=locale, fraction_digits=1
    )


def _percentage(random: Random) -> Phrase:
    share = int(1000 * random.random()) / 100
    return lambda locale: numbers.format_percent(share, locale=locale)


def _amount(random: Random) -> Phrase:
    amount, currency = _quantity(random), random.choice(_CURRENCIES)
    return lambda locale: numbers.format_currency(
        amount, currency, locale=locale, format_type="name"
    )


def _measure(random: Random) -> Phrase:
    value, unit = _quantity(random), random.choice(_UNITS)
    return lambda locale: units.format_unit(value, unit, "long", locale=locale)


def _enumeration(random: Random) -> Phrase:
    codes = [code for code in sorted(Locale("en").territories) if len(code) == 2]
    chosen = random.choices(codes, k=2 + int(2 * random.random()))
    return lambda locale: lists.format_list(
        [locale.territories.get(code, code) for code in chosen], locale=locale
    )


_MAKERS: dict[Callable[[Random], Phrase], int] = {
    _date: 8,
    _month: 2,
    _time: 1,
    _span: 2,
    _number: 2,
    _round_number: 2,
    _percentage: 1,
    _amount: 5,
    _measure: 5,
    _enumeration: 5,
}
