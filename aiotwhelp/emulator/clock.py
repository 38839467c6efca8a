"""The server's own clock, which may be wrong and may step."""

from __future__ import annotations

import asyncio
import math
import time
from email.utils import formatdate

from . import checks


class ServerClock:
    """POSIX time as the emulated server believes it, derived from the event loop's time.

    The wall clock is looked at once, when the server starts; from then on only the loop's time
    counts, so a virtual-time loop moves this clock as well. A loop with a ``wall_time()`` method
    gives the first reading itself.
    """

    def __init__(self, skew: float = 0.0) -> None:
        self.skew = skew
        self._loop: asyncio.AbstractEventLoop | None = None
        self._epoch = 0.0

    def start(self) -> None:
        """Take the running loop's time as the pace, and the wall clock as the origin."""
        loop = asyncio.get_running_loop()
        wall_time = getattr(loop, "wall_time", time.time)
        self._loop = loop
        self._epoch = wall_time() - loop.time()

    @property
    def skew(self) -> float:
        """Seconds by which this clock is ahead of the true time; may be set at any moment."""
        return self._skew

    @skew.setter
    def skew(self, seconds: float) -> None:
        checks.seconds("skew", seconds, signed=True)
        self._skew = seconds

    def step(self, seconds: float) -> None:
        """Move the clock at once, as a time daemon does; windows keep their announced resets."""
        checks.seconds("a step", seconds, signed=True)
        self._skew += seconds

    def now(self) -> float:
        """Return the server's POSIX time in seconds."""
        return self._epoch + self.steady() + self._skew

    def steady(self) -> float:
        """Return seconds that no step touches, for lifetimes and rates."""
        if self._loop is None:
            raise RuntimeError("the emulator's clock runs only while the emulator does")
        return self._loop.time()


def http_date(at: float) -> str:
    """Return POSIX time as an HTTP-date (RFC 9110, 5.6.7), which has whole seconds only."""
    return formatdate(math.floor(at), usegmt=True)
