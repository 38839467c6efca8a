"""Survivors that no test has to notice, and why."""

from __future__ import annotations

#: The function, the line as it is, and the line that is no worse.
Change = tuple[str, str, str]

EXPLAINED: dict[str, list[Change]] = {
    "None, or an empty text, is as false as False": [
        ("limiter.Limiter.__init__", "self._is_closed = False", "self._is_closed = None"),
        ("limiter.Limiter._pump", "line.pumping = False", "line.pumping = None"),
        ("clock.ServerClock.observe", "met = False", "met = None"),
        ("windows.Window.__init__", "self.is_confirmed = False", "self.is_confirmed = None"),
        ("windows.Window._doubt", "self.is_confirmed = False", "self.is_confirmed = None"),
        ("quota.Granted.__init__", "self.is_settled = False", "self.is_settled = None"),
        ("quota.Bucket.__init__", "self.shown = False", "self.shown = None"),
    ],
    "a dict serves as an ordered set: its values say nothing": [
        ("limiter._Siblings.join", "self.buckets[bucket] = None", 'self.buckets[bucket] = ""'),
        ("quota.Bucket.__init__", "rate.buckets[self] = None", 'rate.buckets[self] = ""'),
        ("quota.Bucket._add", "window.buckets[self] = None", 'window.buckets[self] = ""'),
    ],
    "runs while the module is imported, before mutmut chooses a mutant; tried by hand": [
        ("headers._family", "*", "*"),
    ],
    "a short cut: the way around it comes to the same": [
        ("limiter.Limiter._unpark", "if line.timer < INF:", "if line.timer <= INF:"),
        ("limiter.Limiter._arm", "if self._timer_at <= at:", "if self._timer_at < at:"),
        (
            "limiter.Limiter._in_vain",
            "needed = line.timer - now if now < line.timer < INF else 0.0",
            "needed = line.timer - now if now <= line.timer < INF else 0.0",
        ),
        ("limiter.Limiter._review_slice", "continue", "break"),
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
            "elif reset > self.reset:",
            "elif reset >= self.reset:",
        ),
    ],
    "of two that open at the same instant either may be named": [
        ("quota.Bucket._opens", "if opens > at:", "if opens >= at:"),
    ],
    "a number, or a turn, is only told apart from those before": [
        ("limiter.Limiter.__init__", "self._tickets = 0", "self._tickets = 1"),
        ("limiter.Limiter.ticket", "self._tickets += 1", "self._tickets += 2"),
        ("windows.Numbering.__init__", "self.last = 0", "self.last = 1"),
        ("windows.Numbering.next", "self.last += 1", "self.last += 2"),
        ("windows.Probing.__init__", "self.turn = 0", "self.turn = 1"),
        ("windows.Probing.restart", "self.turn += 1", "self.turn -= 1"),
        ("windows.Probing.restart", "self.turn += 1", "self.turn += 2"),
    ],
    "is set before it is read": [
        ("limiter.Limiter.__init__", "self._wall: Callable[[], float] = time.time", "*"),
        ("limiter.Limiter.__init__", "self._suspended = 0.0", "*"),
        ("limiter.Limiter.__init__", "self._timer_at = INF", "*"),
        ("windows.Probing.__init__", "self.sent = -INF", "*"),
        ("windows.Foreign.__init__", "self._own = 0", "self._own = 1"),
        ("windows.Foreign.__init__", "self._explained = 0", "self._explained = 1"),
        ("windows.Window.__init__", "self.slot = -INF", "*"),
        ("windows.Window.__init__", "self.ends = -INF", "*"),
        ("windows.Window.__init__", "self.seen = -INF", "*"),
        ("windows.Window.__init__", "self.doubts = 0", "*"),
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
            "limiter.Limiter._count_suspend",
            "if abs(suspended - self._suspended) > 0.5:",
            "if abs(suspended - self._suspended) >= 0.5:",
        ),
        (
            "limiter.Limiter._check_deadlines",
            "is_news = answer.at > line.checked + 0.5 or (line.was_busy and not busy)",
            "is_news = answer.at >= line.checked + 0.5 or (line.was_busy and not busy)",
        ),
        (
            "limiter.Limiter._announce",
            "if not callers or not _WORTH_A_WARNING < wait < INF or self._is_announced(line):",
            "if not callers or not _WORTH_A_WARNING <= wait < INF or self._is_announced(line):",
        ),
        (
            "limiter.Limiter._is_announced",
            "return line.warned is not None and abs(line.timer - line.warned) < _WORTH_A_WARNING",
            "return line.warned is not None and abs(line.timer - line.warned) <= _WORTH_A_WARNING",
        ),
        ("limiter.Limiter._give_up_early", "if at > waiter.deadline:", "if at >= waiter.deadline:"),
        (
            "limiter.Limiter._judge_deadline",
            "if expected <= waiter.deadline:",
            "if expected < waiter.deadline:",
        ),
        (
            "limiter.Limiter._fail_impatient",
            "return self._nobody_answers(line, waited) if waited > patience else None",
            "return self._nobody_answers(line, waited) if waited >= patience else None",
        ),
        (
            "limiter.Limiter._worth",
            "shut = any(w.shut > now for w in line.bucket.windows) or line.bucket.next > now",
            "shut = any(w.shut >= now for w in line.bucket.windows) or line.bucket.next > now",
        ),
        (
            "limiter.Limiter._worth",
            "shut = any(w.shut > now for w in line.bucket.windows) or line.bucket.next > now",
            "shut = any(w.shut > now for w in line.bucket.windows) or line.bucket.next >= now",
        ),
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
            "limiter.Permit.observed",
            "def observed(self, headers: Mapping[str, str], *, status: int = 200) -> Reading:",
            "def observed(self, headers: Mapping[str, str], *, status: int = 201) -> Reading:",
        ),
        (
            "quota.Bucket.observed",
            "status: int = 200,",
            "status: int = 201,",
        ),
    ],
    "about so many": [
        ("limiter.Limiter.__init__", "max_quotas: int = 100_000,", "*"),
        (
            "limiter.Limiter._line",
            "if len(self._lines) >= min(_FEW_QUOTAS, self._max_quotas):",
            "if len(self._lines) > min(_FEW_QUOTAS, self._max_quotas):",
        ),
    ],
    "nothing is worth more than 2": [
        (
            "limiter.Limiter._forget_some",
            "needless = 0 if excess < 1.0 else 1 if excess < 1.25 else 2",
            "needless = 0 if excess < 1.0 else 1 if excess < 1.25 else 3",
        ),
    ],
    "a look at the deadlines that was not needed fails nobody": [
        (
            "limiter.Limiter._check_deadlines",
            "is_news = answer.at > line.checked + 0.5 or (line.was_busy and not busy)",
            "is_news = answer.at > line.checked - 0.5 or (line.was_busy and not busy)",
        ),
        (
            "limiter.Limiter._check_deadlines",
            "is_news = answer.at > line.checked + 0.5 or (line.was_busy and not busy)",
            "is_news = answer.at > line.checked + 0.5 or (line.was_busy or not busy)",
        ),
    ],
    "no two callers hold one ticket": [
        (
            "limiter.Limiter._ask",
            "and first.rank < (waiter.priority, waiter.ticket)",
            "and first.rank <= (waiter.priority, waiter.ticket)",
        ),
    ],
    "what has no turn has no place among the turns": [
        (
            "limiter.Limiter._set_timer",
            "def _set_timer(self, line: Line, at: float, ticket: int = 0) -> None:",
            "def _set_timer(self, line: Line, at: float, ticket: int = 1) -> None:",
        ),
    ],
    "whether a wait is worth a warning is looked at again when it is announced": [
        (
            "limiter.Limiter._announce_soon",
            "and line.timer != line.warned and (line.timer - self._now() > _WORTH_A_WARNING)",
            "and line.timer != line.warned or (line.timer - self._now() > _WORTH_A_WARNING)",
        ),
        (
            "limiter.Limiter._announce_soon",
            "line.timer < INF and line.timer != line.warned",
            "line.timer < INF or line.timer != line.warned",
        ),
        ("limiter.Limiter._announce_soon", "line.timer < INF", "line.timer <= INF"),
        (
            "limiter.Limiter._announce_soon",
            "and (line.timer - self._now() > _WORTH_A_WARNING)",
            "*",
        ),
    ],
    "a route has a single space, after its method": [
        (
            "limiter.Limiter._new_bucket",
            'rates = self._rates.get(route) or self._rates.get(route.partition(" ")[2]) or ()',
            'rates = self._rates.get(route) or self._rates.get(route.rpartition(" ")[2]) or ()',
        ),
    ],
    "a line that is looked at twice in a tick gets no more than there is": [
        ("limiter.Limiter._pump", "line.pumping = True", "line.pumping = None"),
        ("limiter.Limiter._pump", "line.pumping = True", "line.pumping = False"),
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
