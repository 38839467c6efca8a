"""Windows that count calls: what is left, when it resets, who was refused.

Pure: every instant is an argument, in seconds of the server's clock. A window begins with the
first call that it counts, as the API's do; an untouched one has no reset of its own.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, Self

#: Resets in seconds of the server's clock: cut off, rounded up, or with the decimals they have.
Rounding = Literal["down", "up", "exact"]

#: Ended windows are swept when this many are held, so that many users do not pile up.
_SWEEP_AT = 4096

#: Unit to what a call takes of it.
Cost = Callable[[str], int]


def one(_: str) -> int:
    """Return the cost of a call that is one of everything."""
    return 1


@dataclass(frozen=True, slots=True)
class Rule:
    """One limit that a call is under: ``limit`` calls per ``length`` seconds.

    ``header`` is the prefix of the three headers by which X announces it, None for a limit that
    is never announced. ``pool`` names whose calls are counted together. ``code`` is the v1.1
    error code of a refusal: 88 is a 429, every other one a 403. ``unit`` is what is counted.
    """

    pool: str
    limit: int
    length: float
    header: str | None = "x-rate-limit"
    code: int = 88
    unit: str = "requests"


@dataclass(frozen=True, slots=True)
class Shape:
    """How windows begin and end; see `Faults` for what each field means."""

    whole_seconds: bool = True
    late: float = 0.0
    early: float = 0.0

    @property
    def shift(self) -> float:
        """Seconds from what is true to what is announced."""
        return self.early - self.late


@dataclass(frozen=True, slots=True)
class WindowReport:
    """One window as it stands: what it counted, calls or tokens, and the calls it refused."""

    pool: str
    header: str | None
    limit: int
    opened_at: float
    resets_at: float
    counted: int
    refused: int


@dataclass(slots=True)
class Window:
    """A window that has begun and ends at its reset; ``used`` includes what others took.

    The other kinds derive from it: see `kinds`.
    """

    rule: Rule
    opened_at: float
    resets_at: float
    used: float = 0.0
    counted: int = 0
    refused: int = 0
    _before: float = 0.0

    @classmethod
    def opened(cls, rule: Rule, now: float, shape: Shape) -> Self:
        """Return one that begins now."""
        # Cutting the start of a window shorter than a second could end it before it begins.
        if shape.whole_seconds and rule.length >= 1:
            return cls(rule, now, math.floor(now) + rule.length)
        return cls(rule, now, now + rule.length)

    @property
    def remaining(self) -> int:
        """Calls left, never negative."""
        return max(0, self.rule.limit - math.floor(self.used))

    def look(self, now: float, shape: Shape) -> None:
        """Bring it up to an instant; a fixed one changes at its end alone."""

    def has_ended(self, now: float, shape: Shape) -> bool:
        """Tell whether another one takes its place."""
        return now >= self.resets_at - shape.shift

    def take(self, number: float, others: float, now: float) -> None:
        """Take calls, and so many more for others as far as they last."""
        self._before = self.used
        used = self.used + number
        self.used = min(used + others, max(self.rule.limit, used))

    def put_back(self) -> None:
        """Undo a `take` of this instant."""
        self.used = self._before

    def spend(self, number: float, now: float) -> None:
        """Take calls for somebody else."""
        self.used += number

    def free_at(self, number: float) -> float:
        """Return the instant from which that many calls are said to be there."""
        return self.resets_at

    def report(self) -> WindowReport:
        """Return the window as a fact that no longer changes."""
        return WindowReport(
            self.rule.pool,
            self.rule.header,
            self.rule.limit,
            self.opened_at,
            self.resets_at,
            self.counted,
            self.refused,
        )


@dataclass(slots=True)
class Book:
    """Every window of the server, all of one kind; past ones as far as ``keep`` reaches."""

    keep: int = 1000
    kind: type[Window] = Window
    shape: Shape = field(default_factory=Shape)
    most_refused: int = 0
    past: deque[WindowReport] = field(init=False)
    _open: dict[tuple[str, str | None], Window] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.past = deque(maxlen=self.keep)

    def find(self, rule: Rule, now: float) -> Window:
        """Return the rule's running window, or a fresh one that has not begun to count."""
        window = self._open.get((rule.pool, rule.header))
        if window is None or window.has_ended(now, self.shape):
            return self.kind.opened(rule, now, self.shape)
        window.rule = rule
        window.look(now, self.shape)
        return window

    def count(
        self, windows: Iterable[Window], now: float, others: float = 0.0, cost: Cost = one
    ) -> None:
        """Take one call from each window, and ``others`` calls of somebody else."""
        for window in windows:
            self._begin(window, now)
            number = cost(window.rule.unit)
            window.counted += number
            window.take(number, others, now)

    def give_back(self, windows: Iterable[Window], cost: Cost = one) -> None:
        """Undo a `count` of this instant."""
        for window in windows:
            window.counted -= cost(window.rule.unit)
            window.put_back()

    def refuse(self, window: Window, now: float) -> None:
        """Note that the window turned a call away."""
        self._begin(window, now)
        window.refused += 1
        self.most_refused = max(self.most_refused, window.refused)

    def spend(self, rule: Rule, number: int, now: float) -> None:
        """Take calls from a window as another consumer of the same quota would."""
        window = self.find(rule, now)
        self._begin(window, now)
        window.spend(number, now)

    def forget(self) -> None:
        """End every window at once."""
        self.past.extend(window.report() for window in self._open.values())
        self._open.clear()

    def reports(self) -> list[WindowReport]:
        """Return the past windows that are still kept, then the current ones."""
        return [*self.past, *(window.report() for window in self._open.values())]

    def _begin(self, window: Window, now: float) -> None:
        key = (window.rule.pool, window.rule.header)
        before = self._open.get(key)
        if before is window:
            return
        if before is not None:
            self.past.append(before.report())
        self._open[key] = window
        if len(self._open) % _SWEEP_AT == 0:
            self._sweep(now)

    def _sweep(self, now: float) -> None:
        for key, window in list(self._open.items()):
            if window.has_ended(now, self.shape):
                self.past.append(self._open.pop(key).report())


@dataclass(slots=True)
class Pace:
    """A limit on any ``span`` seconds, not on windows: the last calls are remembered."""

    limit: int
    span: float
    _calls: deque[float] = field(default_factory=deque)

    def is_free(self, at: float) -> bool:
        """Tell whether a call would be let through at that steady instant."""
        while self._calls and self._calls[0] <= at - self.span:
            self._calls.popleft()
        return len(self._calls) < self.limit

    def count(self, at: float) -> None:
        """Remember a call."""
        self._calls.append(at)

    def give_back(self) -> None:
        """Forget the last call."""
        self._calls.pop()


def announced(reset: float, rounding: Rounding) -> str:
    """Return a reset as its header says it."""
    if rounding == "down":
        return str(math.floor(reset))
    if rounding == "up":
        return str(math.ceil(reset))
    return str(int(reset)) if reset == int(reset) else f"{reset:.3f}"
