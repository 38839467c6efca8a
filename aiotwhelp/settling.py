"""How a call ended: what is learned from it, and who goes next."""

from __future__ import annotations

import warnings
from contextlib import suppress
from functools import partial

from aiotwhelp import events
from aiotwhelp.headers import Frame, Reading
from aiotwhelp.home import Home
from aiotwhelp.queues import Line
from aiotwhelp.quota import Granted
from aiotwhelp.telling import Telling
from aiotwhelp.turns import Turns
from aiotwhelp.windows import Window


class Settling:
    """What the permits of one limiter are settled with."""

    def __init__(self, home: Home, turns: Turns, telling: Telling) -> None:
        self._home = home
        self._turns = turns
        self._telling = telling
        self._handlers = telling.handlers
        self._is_shared = turns.sharing is not None
        #: How many calls were refused, and lost.
        self.refused = 0
        self.lost_calls = 0

    def observed_again(
        self, line: Line, granted: Granted, window: Window, frame: Frame, remaining: int
    ) -> None:
        """Learn from an answer that says what the one before did, but what is left."""
        time, clock = self._home.now, window.clock
        now = time()
        if (
            granted.sent >= clock.news_from
            or window.clock_changes != clock.changes
            or self._is_shared
            or not line.bucket.answered_plainly(granted, now, remaining, frame.resets_in)
        ):
            self._learn(line, granted, frame.reading(remaining), 200, None, now)
        line.trouble = ""
        if self._handlers:
            self._telling.observed(line, frame.reading(remaining), now)
        turns = self._turns
        if turns.waiting or self._is_shared:  # a ledger is to hear of it in time
            turns.settled(line, granted.room)
        else:
            turns.ended += 1

    def observed(
        self, line: Line, granted: Granted, reading: Reading, status: int, cost: int | None
    ) -> None:
        """Learn from an answer."""
        now = self._home.now()
        self._learn(line, granted, reading, status, cost, now)
        line.trouble = f"it was answered with {status}" if status >= 500 else ""
        if self._telling.handlers:
            self._telling.observed(line, reading, now)
            if reading.refused:
                self._telling.refused(line, status, now)
        if status >= 500 and not reading.windows:
            self._found_nothing(line)
        self._turns.settled(line, granted.room, gave_back=cost is not None)

    def _learn(
        self,
        line: Line,
        granted: Granted,
        reading: Reading,
        status: int,
        cost: int | None,
        now: float,
    ) -> None:
        if reading.date is None or reading.cached:
            self._presume_time(line, now, reading)
        else:
            line.clock.observe(reading.date, granted.sent, now)
        line.bucket.observed(granted, now, reading, status=status, cost=cost)
        if reading.refused:
            self.refused += 1
        if reading.dialect:
            self._telling.recognized(line, reading.dialect)

    def refused_after_all(
        self, line: Line, granted: Granted, reading: Reading, status: int
    ) -> None:
        """Learn that the body of an answer refused the call."""
        now = self._home.now()
        line.bucket.refused_after_all(granted, now, reading)
        self.refused += 1
        if self._telling.handlers:
            self._telling.refused(line, status, now)

    def unsent(self, line: Line, granted: Granted, *, failed: bool, reason: str) -> None:
        """Give back the token of a call that never left; ``failed`` if nobody was there."""
        line.bucket.unsent(granted, self._home.now(), failed=failed)
        if failed:
            line.trouble = reason
            self._found_nothing(line)
        self._turns.settled(line, granted.room, gave_back=True)

    def lost(self, line: Line, granted: Granted, *, reason: str) -> None:
        """Note that a call may have been counted, and will not be answered."""
        line.bucket.lost(granted, self._home.now())
        line.trouble = reason
        self.lost_calls += 1
        if self._telling.handlers:
            self._telling.tell(events.Lost(str(line.key), line.key.identity))
        self._found_nothing(line)
        self._turns.settled(line, granted.room)

    def dropped(self, line: Line, granted: Granted) -> None:
        """Count a call whose permit nobody has any more as lost, and warn.

        May be called in any thread, as garbage is collected in any.
        """
        if not self._home.is_open:
            return
        warnings.warn(
            f"a permit for {line.key} was dropped, which counts its call as lost: settle it, or"
            " hold it by `async with limiter.permit(...)`",
            ResourceWarning,
            source=granted,
            stacklevel=3,
        )
        lose = partial(self.lost, line, granted, reason="its permit was dropped")
        with suppress(RuntimeError):  # another thread has closed the loop by now
            self._home.loop.call_soon_threadsafe(lose)

    def _found_nothing(self, line: Line) -> None:
        """A call has ended in vain; a ledger will tell what the calls of all processes have."""
        sharing = self._turns.sharing
        if sharing is None or sharing.health.is_away:
            self._turns.patience.found_nothing(line)

    def _presume_time(self, line: Line, now: float, reading: Reading) -> None:
        """Take the local wall clock for the server's, where that tells no time."""
        clock = line.clock
        if not clock.is_known and any(each.reset is not None for each in reading.windows):
            clock.assume(self._home.wall() - now)
            self._telling.assumed(line)
