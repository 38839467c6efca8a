"""How fast tokens come back, where they do so one by one and the reset is when all are back.

Part of the rule, and as pure. Nothing is believed until readings agree that it is so: a server that
counts in fixed windows resets at the same instant however many calls were made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_INF = math.inf

#: Back ends disagree by a few seconds: what is later by more than this is another instant.
OTHER_BACK_END = 4.0

#: So many calls in a row may be refused that went early, as they were told; then none goes.
_MOST_VAIN = 3


@dataclass(slots=True)
class Refill:
    """What is known of when one window has tokens before its reset.

    Each reading bounds the rate at which they come back: so many are missing until the reset.
    """

    #: Tokens per second, at least and at most.
    _slowest: float = 0.0
    _quickest: float = _INF
    #: Of the reading with the fewest missing: how many, and its latest reset.
    _fewest: float = _INF
    _ends: float = _INF
    #: Whether one with more missing was to end later.
    _is_seen: bool = False
    #: When the last answer said that one will be there.
    _told: float = _INF
    _vain: int = 0
    #: Whether a call that went before the reset was accepted since the last one that was not.
    is_proven: bool = False

    def observe(self, sent: float, now: float, missing: int, low: float, high: float) -> None:
        """Learn from the answer to a call: the reset is so many seconds ahead, low to high.

        It was written between ``sent`` and ``now``. ``missing`` is a whole number: up to one token
        less may be.
        """
        if missing <= 0 or high <= 0:
            return
        slowest = (missing - 1) / high
        quickest = missing / low if low > 0 else _INF
        if slowest > self._quickest or quickest < self._slowest:
            self.forget()  # it is no such window, or has another limit by now
        self._slowest = max(self._slowest, slowest)
        self._quickest = min(self._quickest, quickest)
        if missing < self._fewest:
            self._fewest, self._ends = missing, now + high
        elif missing > self._fewest:
            # What is less than a third of the time that so many take may be another back end's.
            least = min(OTHER_BACK_END, (missing - self._fewest) / self._quickest / 3)
            self._is_seen = self._is_seen or sent + low > self._ends + least

    def tell(self, at: float) -> None:
        """Take the word of an answer that a token will be there then."""
        self._told = at if self._vain < _MOST_VAIN else _INF

    def answered(self, *, early: bool, refused: bool) -> None:
        """End what the last answer said; ``early`` for a call that went before the reset."""
        self._told = _INF
        if early and refused:
            self._vain += 1
            self.forget()
        elif early:
            self._vain = 0
        self.is_proven = not refused if early else self.is_proven

    @property
    def is_known(self) -> bool:
        """Whether readings agree that tokens come back one by one, and tell how fast."""
        return self._is_seen

    def opens(self, seen: float, missing: int) -> float:
        """Return when so many tokens are there that were missing then; infinity for unknown."""
        comes = seen + missing / self._slowest if self.is_known else _INF
        return min(self._told, comes)

    def soonest(self, seen: float, missing: int) -> float:
        """Return the earliest instant at which so many may be there that were missing then.

        One less may be enough: what is left is told in whole numbers, rounded down.
        """
        return seen + max(0, missing - 1) / self._quickest

    def forget(self) -> None:
        """Know nothing of the rate: another window has begun."""
        self._slowest, self._quickest = 0.0, _INF
        self._fewest = self._ends = _INF
        self._is_seen = False
