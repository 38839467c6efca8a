"""One clock for all processes of a host, which goes on over its restarts.

A wall clock is stepped, and an uptime begins anew. So instants are counted by the uptime from an
anchor that is kept in a file; only from one start of the machine to the next, what the wall clock
says has passed. Where the system does not name its starts (other than Linux), one is noticed by an
uptime that is shorter than it was.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple, Self

_BOOT = Path("/proc/sys/kernel/random/boot_id")

#: It goes on while the machine sleeps, where there is such a clock.
_UPTIME: int | None = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))

#: An anchor is renewed after so many milliseconds: so much of a clock's step may count.
RENEWED = 1000


class Clocks(NamedTuple):
    """What the clocks of this host show, in milliseconds, and which start of it this is."""

    boot: str
    uptime: int
    wall: int

    @classmethod
    def read(cls) -> Self:
        """Look at the clocks."""
        uptime = time.monotonic() if _UPTIME is None else time.clock_gettime(_UPTIME)
        return cls(_boot(), round(uptime * 1000), round(time.time() * 1000))


class Anchor(NamedTuple):
    """An instant of the common clock, and what the clocks showed then."""

    clocks: Clocks
    at: int

    def now(self, clocks: Clocks) -> int:
        """Return the instant at which the clocks show that; never before the anchor's own."""
        passed = clocks.uptime - self.clocks.uptime
        if clocks.boot != self.clocks.boot or passed < 0:
            passed = max(0, clocks.wall - self.clocks.wall)
        return self.at + passed

    def is_old(self, clocks: Clocks) -> bool:
        """Whether another should take its place."""
        passed = clocks.uptime - self.clocks.uptime
        return clocks.boot != self.clocks.boot or not 0 <= passed < RENEWED


_known: list[str] = []


def _boot() -> str:
    if not _known:
        try:
            _known.append(_BOOT.read_text("ascii").strip())
        except (OSError, ValueError):
            _known.append("")
    return _known[0]
