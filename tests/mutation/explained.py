"""Survivors that no test has to notice, and why."""

from __future__ import annotations

#: The function, the line as it is, and the line that is no worse.
Change = tuple[str, str, str]

EXPLAINED: dict[str, list[Change]] = {
    "None, or an empty text, is as false as False": [
        ("clock.ServerClock.observe", "met = False", "met = None"),
        ("windows.Window._doubt", "self.is_confirmed = False", "self.is_confirmed = None"),
        ("quota.Granted.__init__", "self.is_settled = False", "self.is_settled = None"),
        ("quota.Bucket.__init__", "self.shown = False", "self.shown = None"),
    ],
    "a dict serves as an ordered set: its values say nothing": [
        ("quota.Bucket.__init__", "rate.buckets[self] = None", 'rate.buckets[self] = ""'),
        ("quota.Bucket._add", "window.buckets[self] = None", 'window.buckets[self] = ""'),
    ],
    "runs while the module is imported, before mutmut chooses a mutant; tried by hand": [
        ("headers._family", "*", "*"),
    ],
    "a short cut: the way around it comes to the same": [
        ("headers._epoch", "seconds: float | None = _digits(value)", "*"),
        ("headers._count", "count = _digits(value)", "*"),
        (
            "windows.Window._spared",
            "spared: float = self._kept(reserve) if reserve else 0",
            "spared: float = self._kept(reserve) if (reserve) or True else 0",
        ),
        (
            "windows.Window._spared",
            "if self.in_flight and self.foreign.rate:",
            "if self.in_flight or self.foreign.rate:",
        ),
        (
            "windows.Window._is_earlier",
            "return self.reset is not None and reset < self.reset and not self._is_same(reset)",
            "return self.reset is not None and reset <= self.reset and not self._is_same(reset)",
        ),
        (
            "windows.Window._append",
            "while self.observations and self.observations[-1][1] >= remaining:",
            "while self.observations and self.observations[-1][1] > remaining:",
        ),
        (
            "windows.Window._move_reset",
            "if self.reset is None or reset > self.reset:",
            "if self.reset is None or reset >= self.reset:",
        ),
        (
            "quota.Bucket._join_shown",
            "if not any(window.kind is kind or window.kind == kind for window in self.windows):",
            "if not any(window.kind is kind and window.kind == kind for window in self.windows):",
        ),
    ],
    "of two that open at the same instant either may be named": [
        ("quota.Bucket._opens", "if opens > at:", "if opens >= at:"),
    ],
    "a number, or a turn, is only told apart from those before": [
        ("windows.Numbering.__init__", "self.last = 0", "self.last = 1"),
        ("windows.Numbering.next", "self.last += 1", "self.last += 2"),
        ("windows.Probing.__init__", "self.turn = 0", "self.turn = 1"),
        ("windows.Probing.restart", "self.turn += 1", "self.turn -= 1"),
        ("windows.Probing.restart", "self.turn += 1", "self.turn += 2"),
    ],
    "is set before it is read": [
        ("windows.Probing.__init__", "self.sent = -INF", "*"),
        ("windows.Foreign.__init__", "self._own = 0", "self._own = 1"),
        ("windows.Foreign.__init__", "self._explained = 0", "self._explained = 1"),
        ("windows.Window.__init__", "self.slot = -INF", "self.slot = +INF"),
    ],
    "a bound that is not reached: there are four marks in the span that matters": [
        (
            "windows.Foreign.__init__",
            "self._marks: deque[tuple[float, int]] = deque(maxlen=8)",
            "self._marks: deque[tuple[float, int]] = deque(maxlen=None)",
        ),
        (
            "windows.Foreign.__init__",
            "self._marks: deque[tuple[float, int]] = deque(maxlen=8)",
            "self._marks: deque[tuple[float, int]] = deque(maxlen=9)",
        ),
    ],
    "a Date without a zone: any zone within a day passes": [
        (
            "headers._posix",
            "if fields is None or fields[5] > 60 or abs(fields[9] or 0) >= _DAY:",
            "if fields is None or fields[5] > 60 or abs(fields[9] or 1) >= _DAY:",
        ),
    ],
    "2 to the sixth is above a minute already": [
        (
            "windows._backoff",
            "return min(LONGEST_BACKOFF, 2.0 ** min(times, 6))",
            "return min(LONGEST_BACKOFF, 2.0 ** min(times, 7))",
        ),
    ],
    "windows of no length add nothing": [
        (
            "windows.Window.expect",
            "if not self.limit or self.span <= 0:",
            "if not self.limit or self.span < 0:",
        ),
    ],
    "an instant, or another edge, that floats do not meet": [
        (
            "clock.ServerClock._speaking",
            "return [bound for bound in self._bounds if bound.trust >= least]",
            "return [bound for bound in self._bounds if bound.trust > least]",
        ),
        (
            "quota.Pace.accepted",
            "if self.gap < _SMALLEST_GAP:",
            "if self.gap <= _SMALLEST_GAP:",
        ),
    ],
    "any status of success will do": [
        (
            "quota.Bucket.observed",
            "self, granted: Granted, now: float, reading: Reading, *, status: int = 200",
            "self, granted: Granted, now: float, reading: Reading, *, status: int = 201",
        ),
    ],
    "the wording of a message, or of a repr": [
        ("quota.Bucket.__init__", 'key: str = "",', "*"),
        (
            "quota.Bucket._settle",
            'raise RuntimeError("this permit is settled already: settle each permit exactly once")',
            "*",
        ),
    ],
}


def reason_of(change: Change) -> str | None:
    """Why no test has to notice this change, if that is known."""
    for reason, explained in EXPLAINED.items():
        if any(is_meant(change, each) for each in explained):
            return reason
    return None


def out_of_date(module: str, survived: list[Change]) -> list[Change]:
    """Explanations of changes of this module that do not survive, or are no longer made."""
    return [
        each
        for explained in EXPLAINED.values()
        for each in explained
        if each[0].startswith(f"{module}.")
        and not any(is_meant(change, each) for change in survived)
    ]


def is_meant(change: Change, explained: Change) -> bool:
    """Whether an explanation is of this change; a star stands for anything."""
    return all(said in ("*", found) for said, found in zip(explained, change, strict=True))
