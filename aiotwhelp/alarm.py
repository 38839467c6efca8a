"""One timer for many lines, each with an instant at which the rule is to be asked again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiotwhelp.heaps import Heap
from aiotwhelp.home import Home
from aiotwhelp.queues import Line
from aiotwhelp.windows import INF

#: A timer looks again after at most this, against the clock that counts suspend.
_LONGEST_TIMER = 30.0

#: asyncio's clock has a resolution of its own; a timer below this would spin.
_SHORTEST_TIMER = 0.001


class Alarm:
    """Rings for each line at its instant; of several of one instant, in the order of tickets."""

    def __init__(self, home: Home, ring: Callable[[Line], object]) -> None:
        self._home = home
        self._ring_for = ring
        #: By the instant at which the rule is to be asked again.
        self.lines: Heap[Line] = Heap()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = INF

    @property
    def is_armed(self) -> bool:
        """Whether a timer runs."""
        return self._timer is not None

    def set(self, line: Line, at: float, ticket: int, now: float) -> None:
        """Have a line's turn come at an instant, or never, in place of the one before."""
        self._note(line, at, ticket)
        self._arm(now)

    def clear(self, line: Line) -> None:
        """Ring for a line no more."""
        if line.timer < INF:
            self._note(line, INF)
            self._arm(self._home.now())

    def _note(self, line: Line, at: float, ticket: int = 0) -> None:
        self.lines.discard(line)
        line.timer = at
        if at < INF:
            line.rank = (at, ticket)
            self.lines.add(line)

    def _arm(self, now: float) -> None:
        """Have the one timer ring for the earliest instant."""
        first = self.lines.first
        if first is None:
            self.disarm()
            return
        at = min(first.timer, now + _LONGEST_TIMER)
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        delay = max(at - now, _SHORTEST_TIMER)
        self._timer = self._home.loop.call_later(delay, self._ring)

    def disarm(self) -> None:
        """Ring no more, until an instant is set."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = None, INF

    def _ring(self) -> None:
        """Ask again for the lines whose instant has come, in ticket order, a slice at a time."""
        self.disarm()
        now = self._home.now()
        for _ in range(self._home.SLICE):
            line = self.lines.first
            if line is None or line.timer > now:
                break
            self._note(line, INF)
            self._ring_for(line)
        if self.lines:
            self._arm(now)
