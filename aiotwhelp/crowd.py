"""How many processes share a window, by what the calls of one of them read.

Part of the rule, and as pure: for a process that nobody tells of the others. Where each makes one
call at a time, and goes on as long as one is left for each of the others, they spend a window to
its last token and none is refused. Too many are reckoned with rather than too few; what is left
then is for the one whose call began the window: there is no other such one, and it knows.
"""

from __future__ import annotations

import math

#: Others, as long as no window has told.
_PRESUMED = 3.0

#: What is reckoned with is what was seen and twice its spread.
_SPREAD = 2.0

#: Fewer others than in the window before are believed slowly.
_KEPT = 0.8

#: A Date has whole seconds, so the last of all processes learns of a reset so much later; until
#: then so much of the limit is left to those who are late, but for no more than a part of a window.
_LATE = 1.0
_LATE_PART = 0.25
_LEFT_TO_THE_LATE = 2 / 3

#: Others go on until each of their calls has told them not to: so many of the slowest round trips.
_QUIET = 4.0


class Crowd:
    """What one process has seen of others in this window, and in those before."""

    __slots__ = (
        "_at",
        "_before",
        "_calls",
        "_is_cold",
        "_is_quiet",
        "_is_seen",
        "_late",
        "_leads",
        "_left",
        "_opened",
        "_others",
    )

    def __init__(self) -> None:
        #: Others, in the windows before; and whether no window was seen yet.
        self._before = _PRESUMED
        self._is_cold = True
        self._begin(-math.inf)

    def _begin(self, now: float) -> None:
        self._opened = self._at = now
        #: What the last call read; calls of others between two of ours, and how often that was.
        self._left: int | None = None
        self._others = self._calls = 0.0
        #: The others that came while those who were early waited for them.
        self._late = 0.0
        #: Whether it was seen to begin, by whoever was ready at the reset; whether a call of ours
        #: began it; and whether nobody else made one between the last two of ours.
        self._is_seen = self._leads = self._is_quiet = False

    def begin(self, now: float, *, is_seen: bool) -> None:
        """Begin a window; ``is_seen`` if its first call here went at the reset."""
        if self._left is not None:
            known = 0.0 if self._is_cold else _KEPT * self._before
            self._before, self._is_cold = max(self._beside, self._late, known), False
        self._begin(now)
        self._is_seen = is_seen

    def lose_track(self) -> None:
        """Go on in a window that calls were made of which are not counted here."""
        self._left = None
        self._is_seen = self._leads = False

    def read(
        self, now: float, remaining: int, cost: int, limit: int | None, *, refused: bool
    ) -> None:
        """Learn from the answer to a call that was the only one of ours."""
        took = 0 if refused else cost
        if self._left is not None:
            others = max(0, self._left - remaining - took) / cost
            self._is_quiet = not others
            if self._at < self._opened + _LATE <= now:
                self._late = others
            self._others += others
            self._calls += 1.0
        elif limit is not None:
            others = max(0, limit - remaining - took) / cost
            self._leads = not (others or refused)
            if self._is_seen:
                # Of those who go at the reset half are there before, at a mean; but some may have
                # been there for longer, and have made more than one call.
                self._others = others
                self._calls = max(0.5, others / (2 * self._before + 1))
        self._left, self._at = remaining, now

    @property
    def _beside(self) -> float:
        """Calls of others for each of ours: as many as there are, if each makes one at a time."""
        return (self._others + self._before) / (self._calls + 1)

    @property
    def size(self) -> int:
        """How many to reckon with, this process included."""
        beside = self._beside
        beside += _SPREAD * math.sqrt(beside / (self._calls + 1))
        if self._is_cold:
            beside = max(beside, _PRESUMED)
        return math.ceil(1 + max(beside, self._late))

    def opens(self, left: int, limit: int | None, span: float) -> float:
        """Return when a call may go that leaves enough: not before those who are late have come."""
        if limit is None or left >= limit * _LEFT_TO_THE_LATE:
            return -math.inf
        return self._opened + min(_LATE, span * _LATE_PART)

    def looks(self, round_trip: float) -> float:
        """Return when a call may go that leaves less: for one process, after all others."""
        if self._is_cold or not self._leads:
            return math.inf
        return self._at + (0.0 if self._is_quiet else _QUIET * round_trip)
