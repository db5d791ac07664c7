"""The drivers that share one search, and which of them are alive."""

import fcntl
import logging
import os
import threading
import time
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna import Study

log = logging.getLogger(__name__)

BEAT_SECONDS = 20.0
DEAD_AFTER_SECONDS = 90.0
"""How long a driver elsewhere is silent before its trials are taken up."""


class Drivers:
    """Tells whether a driver of the same search is alive.

    In one directory each driver holds a lock, which dies with it, so that a resumed sweep goes on
    at once. Where the study is shared by several directories, maybe on several hosts, each driver
    also leaves a beat in the study every few seconds. Only whether it changes is looked at, so the
    hosts' clocks need not agree.

    Args:
        directory: The sweep's directory.
        study: The search's study.
        shared: Whether drivers of other directories work on it.
    """

    def __init__(self, directory: Path, study: "Study", shared: bool) -> None:
        self.me = uuid.uuid4().hex[:12]
        self._study = study
        self._shared = shared
        self._locks = directory / ".drivers"
        self._locks.mkdir(exist_ok=True)
        self._seen: dict[str, tuple[float, float]] = {}
        descriptor = os.open(self._lock(self.me), os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        weakref.finalize(self, os.close, descriptor)
        if shared:
            threading.Thread(target=self._beat, daemon=True).start()

    def alive(self, driver: str) -> bool:
        """Whether a driver lives, as far as can be known here."""
        if driver == self.me:
            return True
        if self._lock(driver).exists():
            return _is_held(self._lock(driver))
        return self._shared and self._beats(driver)

    def others(self) -> bool:
        """Whether any other driver lives."""
        here = {file.name for file in self._locks.iterdir()}
        far = {k.removeprefix(_PREFIX) for k in self._study.user_attrs if k.startswith(_PREFIX)}
        return any(driver != self.me and self.alive(driver) for driver in here | far)

    @contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """Keep this directory's other drivers from doing the same meanwhile."""
        descriptor = os.open(f"{self._locks}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def is_near(self, driver: str) -> bool:
        """Whether a driver worked in this directory, so that its death is known for certain."""
        return self._lock(driver).exists()

    def _lock(self, driver: str) -> Path:
        return self._locks / driver

    def _beat(self) -> None:
        while True:
            try:
                self._study.set_user_attr(_PREFIX + self.me, time.time())
            except Exception as error:  # the storage may be away for a while
                log.warning("the search's storage cannot be written to: %s", error)
            time.sleep(BEAT_SECONDS)

    def _beats(self, driver: str) -> bool:
        beat = float(self._study.user_attrs.get(_PREFIX + driver, 0.0))
        now = time.monotonic()
        last, since = self._seen.setdefault(driver, (beat, now))
        if last != beat:
            self._seen[driver] = (beat, now)
            return True
        return now - since < DEAD_AFTER_SECONDS


_PREFIX = "driver "


def _is_held(lock: Path) -> bool:
    descriptor = os.open(lock, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
