"""Windows that are not fixed: calls leave, or come back, one by one instead of all at a reset.

Pure, as `windows`: every instant is an argument. Other than fixed ones these have no end; one
that has nothing left to forget after its length becomes a past one, and the next call begins
another.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from .windows import Rule, Shape, Window

#: Instants near 2e9 are 2.4e-7 s apart: a call that comes just when it may is not too early.
_TOO_EARLY = 1e-6


@dataclass(slots=True)
class SlidingWindow(Window):
    """The calls of the last ``length`` seconds; it resets when the oldest of them leaves."""

    _calls: deque[tuple[float, float]] = field(default_factory=deque)
    _at: float = 0.0
    _shift: float = 0.0

    @classmethod
    def opened(cls, rule: Rule, now: float, shape: Shape) -> Self:
        """Return one without calls."""
        window = cls(rule, now, now)
        window.look(now, shape)
        return window

    def look(self, now: float, shape: Shape) -> None:
        """Let the calls go that are old enough."""
        self._at, self._shift = now, shape.shift
        while self._calls and self._calls[0][0] + self.rule.length <= now:
            self.used -= self._calls.popleft()[1]
        self._announce()

    def has_ended(self, now: float, shape: Shape) -> bool:
        """Tell whether every call has left."""
        last = self._calls[-1][0] if self._calls else self.opened_at
        return last + self.rule.length <= now

    def take(self, number: float, others: float, now: float) -> None:
        """Add a call to the log."""
        before = self.used
        self.used = min(before + number + others, max(self.rule.limit, before + number))
        self._calls.append((now, self.used - before))
        self._announce()

    def put_back(self) -> None:
        """Strike the last call from the log."""
        self.used -= self._calls.pop()[1]
        self._announce()

    def spend(self, number: float, now: float) -> None:
        """Take calls for somebody else, who is refused as everybody is."""
        self.take(min(number, self.remaining), 0, now)

    def free_at(self, number: float) -> float:
        """Return when that many more may be taken, if they ever may."""
        missing = self.used + number - self.rule.limit
        for at, taken in self._calls:
            missing -= taken
            if missing <= 0:
                return at + self.rule.length + self._shift
        return self._at + self.rule.length + self._shift

    def _announce(self) -> None:
        oldest = self._calls[0][0] + self.rule.length if self._calls else self._at
        self.resets_at = oldest + self._shift


@dataclass(slots=True)
class TokenBucket(Window):
    """Holds up to ``limit`` calls, refills at limit/length a second; it resets when it is full.

    ``_debt`` is the seconds until then, at the instant ``_at``. A small number keeps its
    decimals where an instant would lose them.
    """

    _at: float = 0.0
    _debt: float = 0.0
    _shift: float = 0.0

    @classmethod
    def opened(cls, rule: Rule, now: float, shape: Shape) -> Self:
        """Return a full one."""
        window = cls(rule, now, now, _at=now)
        window.look(now, shape)
        return window

    @property
    def remaining(self) -> int:
        """Whole calls that are in it."""
        if not self.rule.limit:
            return 0
        left = (self.rule.length - self._debt + _TOO_EARLY) / self._step
        return min(self.rule.limit, max(0, math.floor(left)))

    def look(self, now: float, shape: Shape) -> None:
        """Fill in what has come since."""
        self._debt = max(0.0, self._debt - max(0.0, now - self._at))
        self._at, self._shift = now, shape.shift
        self._announce()

    def has_ended(self, now: float, shape: Shape) -> bool:
        """Tell whether it is full."""
        return max(self._at + self._debt, self.opened_at + self.rule.length) <= now

    def take(self, number: float, others: float, now: float) -> None:
        """Take calls out."""
        self._before = self._debt
        own = self._debt + number * self._step
        self._debt = min(own + others * self._step, max(self.rule.length, own))
        self._announce()

    def put_back(self) -> None:
        """Undo the last `take`."""
        self._debt = self._before
        self._announce()

    def spend(self, number: float, now: float) -> None:
        """Take calls for somebody else, who is refused as everybody is."""
        self.take(min(number, self.remaining), 0, now)

    def free_at(self, number: float) -> float:
        """Return when that many may be taken, or when it is full if that is too few."""
        number = min(number, self.rule.limit)
        delay = self._debt - self.rule.length + number * self._step
        return self._at + max(0.0, delay) + self._shift

    def _announce(self) -> None:
        self.resets_at = self._at + self._debt + self._shift

    @property
    def _step(self) -> float:
        """Seconds in which one call comes back."""
        return self.rule.length / max(1, self.rule.limit)


@dataclass(slots=True)
class LeakyBucket(TokenBucket):
    """GCRA, one call in length/limit seconds with a burst of ``limit``.

    It lets the same calls through as a token bucket. When it is spent it resets when one more
    call is there, else when it is full.
    """

    def _announce(self) -> None:
        if self.remaining:
            self.resets_at = self._at + self._debt + self._shift
        else:
            self.resets_at = self.free_at(1)


KINDS: Mapping[str, type[Window]] = {
    "fixed": Window,
    "sliding": SlidingWindow,
    "token-bucket": TokenBucket,
    "leaky": LeakyBucket,
}
