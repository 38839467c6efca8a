"""Survivors that no test has to notice, and why."""

from __future__ import annotations

#: The function, the line as it is, and the line that is no worse.
Change = tuple[str, str, str]

_NOT_STRICT = ("strict=None):", "):", "strict=False):")

_NAMED = "  # type: ignore[arg-type] # the name of a route is not found"
_AS_TCP_OPENS = (
    "if cost is ONE and plain is not None and self.calls > self.answered and now < plain.ends:"
)

_LOOKED_UP = "line, turns = self._lines.get(key), self._turns  # type: ignore[arg-type] # as above"
_PRIORITY = "if type(priority) is not Priority:"
_OPTIONS = "if type(dialect) is not Dialect or type(room) not in _ROOM_OR_NONE"
_AT_ONCE = "self.at_once(key, cost, priority, dialect, room, HeldPermit)"
_REVIEWS = "while left > 0 and (self._reviewed is not None or self._reviews):"

_PLAINLY = "plain = self._read_plainly(fields) if status == 200 else None"

_NAMES = (
    'limit, remaining, reset = (f"{prefix}-{name}" for name in ("limit", "remaining", "reset"))'
)

_FIELDS = "fields = headers if isinstance(headers, _CASELESS) else caseless(headers)"
_NO_CASELESS = "(isinstance(headers, _CASELESS)) and False"

_LONG = "if now + WORTH_A_WARNING < line.timer < INF and line.timer != line.warned:"

_ENDS = (
    "ends = max(record.reset or 0, record.shut, record.paused, record.hold, record.slot // 1000)"
)

_ROOT = "root = math.sqrt(_MOST_FOREIGN + (most + 1.0) * max(0, self.observations[0][1] - kept))"

EXPLAINED: dict[str, list[Change]] = {
    "where a warning is said to come from, which a test looks at that such copies cannot pass": [
        ("settling.Settling.dropped", "stacklevel=3, )", ")"),
        ("settling.Settling.dropped", "stacklevel=3,", "stacklevel=4,"),
    ],
    "None, an empty text and False are as false as each other": [
        ("windows.Window.upset", "self.is_plain = False", "self.is_plain = None"),
        (
            "crowd.Crowd._begin",
            "self._is_seen = self._leads = self._is_quiet = False",
            "self._is_seen = self._leads = self._is_quiet = None",
        ),
        (
            "crowd.Crowd.lose_track",
            "self._is_seen = self._leads = False",
            "self._is_seen = self._leads = None",
        ),
        ("windows.Window.observe", "self.is_untold = False", "self.is_untold = None"),
        (
            "headers.Dialect.__post_init__",
            'places = tuple((getattr(each, "sign", ""), each.read) for each in self.families)',
            'places = tuple((getattr(each, "sign", None), each.read) for each in self.families)',
        ),
        ("windows.Window.__init__", "self.is_plain = False", "self.is_plain = None"),
        (
            "windows.Window.__init__",
            "self.is_shown_in_time: bool | None = None",
            'self.is_shown_in_time: bool | None = ""',
        ),
        ("quota.Bucket._obey", "explained = False", "explained = None"),
        ("quota.Bucket.take_foreseen", "granted.is_settled = False", "granted.is_settled = None"),
        (
            "patience.Patience.__init__",
            "self._reviewed: _Review | None = None",
            'self._reviewed: _Review | None = ""',
        ),
        ("home.Home.__init__", "self.is_closed = False", "self.is_closed = None"),
        ("settling.Settling.observed_again", 'line.trouble = ""', "line.trouble = None"),
        ("turns.Turns._pump", "line.pumping = False", "line.pumping = None"),
        ("clock.ServerClock.observe", "met = False", "met = None"),
        ("windows.Window.__init__", "self.is_confirmed = False", "self.is_confirmed = None"),
        ("windows.Window._doubt", "self.is_confirmed = False", "self.is_confirmed = None"),
        ("quota.Granted.__init__", "self.is_settled = False", "self.is_settled = None"),
        ("quota.Bucket.__init__", "self.shown = False", "self.shown = None"),
        ("refills.Refill.forget", "self._is_seen = False", "self._is_seen = None"),
        ("leases.Share.__init__", "self._returns = False", "self._returns = None"),
        ("leases.Share._hold", "self._returns = False", "self._returns = None"),
        ("leases.LeasedWindow._open", "self.share.is_short = False", "self.share.is_short = None"),
        ("leases.Share.is_away", "self.is_claim = False", "self.is_claim = None"),
        (
            "ledger.rule._answer_probe",
            "_open(record, note, now, is_placed=False)",
            "_open(record, note, now, is_placed=None)",
        ),
    ],
    "a dict serves as an ordered set: its values say nothing": [
        ("quota.Bucket.hold", "rate.buckets[self] = None", 'rate.buckets[self] = ""'),
        ("windows.Numbering.note", "noted[window] = None", 'noted[window] = ""'),
        (
            "patience.Patience._review",
            "self._reviews[line, judge] = None",
            'self._reviews[line, judge] = ""',
        ),
        ("registry._Siblings.join", "self.buckets[bucket] = None", 'self.buckets[bucket] = ""'),
        ("quota.Bucket.__init__", "rate.buckets[self] = None", 'rate.buckets[self] = ""'),
        ("quota.Bucket._add", "window.buckets[self] = None", 'window.buckets[self] = ""'),
    ],
    "what is remembered: our copy has no caches, and test_dialects.py looks at those that are": [
        (
            "dialects._spoken",
            "is_short = len(names) <= _MOST_NAMES and sum(map(len, names)) <= _LONGEST_NAMES",
            "*",
        ),
        (
            "dialects._spoken",
            "spoken = (_spoken_by if is_short else _spoken_by.__wrapped__)(names)",
            "*",
        ),
    ],
    "a short cut: the way around it comes to the same": [
        (
            "permits.Permit.observed",
            "if headers.__class__ is not CIMultiDictProxy and not isinstance(headers, Mapping):",
            "if headers.__class__ is not CIMultiDictProxy or not isinstance(headers, Mapping):",
        ),
        (
            "ledger.rule._grant_from",
            "if record.confirmed and (claimed := _claimed(record, now)) > 0:",
            "if record.confirmed and (claimed := _claimed(record, now)) >= 0:",
        ),
        ("turns.Turns.settled", "plain = line.bucket.plain", "plain = None"),
        (
            "turns.Turns.settled",
            "if line.waiting and (plain.frees or line.parked is None):",
            "if line.waiting or (plain.frees or line.parked is None):",
        ),
        *(
            (
                f"headers.Dialect.{function}",
                _FIELDS,
                _FIELDS.replace("isinstance(headers, _CASELESS)", _NO_CASELESS),
            )
            for function in ("read", "frame")
        ),
        (
            "headers.Frame.left",
            "if type(headers) is CIMultiDictProxy:  # as aiohttp's are",
            "if type(None) is CIMultiDictProxy:  # as aiohttp's are",
        ),
        (
            "headers.Dialect.understand",
            "retry_after = None if said is None else parse_retry_after(said, date)",
            "retry_after = None if (said is None) and False else parse_retry_after(said, date)",
        ),
        (
            "headers.Dialect.understand",
            "windows = (*windows, *found) if windows else tuple(found)",
            "windows = (*windows, *found) if (windows) or True else tuple(found)",
        ),
        ("headers.Dialect.understand", "if len(windows) > 1:", "if len(windows) >= 1:"),
        (
            "windows.Window.take_in",
            "if self.promised > self.foreseen:",
            "if self.promised >= self.foreseen:",
        ),
        (
            "windows.Window._take_all_in",
            "if took > round_trip:  # as `time` has it",
            "if took >= round_trip:  # as `time` has it",
        ),
        *(
            ("headers.Dialect.read", _PLAINLY, other)
            for other in (
                "plain = None",
                _PLAINLY.replace("if status == 200", "if (status == 200) and False"),
                _PLAINLY.replace("200", "201"),
            )
        ),
        (
            "headers.Dialect.read",
            "return self.understand(fields, status) if plain is None else plain",
            "return self.understand(fields, status) if (plain is None) or True else plain",
        ),
        (
            "windows.Window.foresee",
            "self.clock_changes = -1  # the reset may be another",
            "*",
        ),
        (
            "windows.Window.goes_on",
            "self.clock_changes = self.clock.changes",
            "self.clock_changes = None",
        ),
        (
            "windows.Foreign.observe",
            "if self._answers < _ENOUGH_ANSWERS or round_trip < self._quickest:",
            "if self._answers < _ENOUGH_ANSWERS or round_trip <= self._quickest:",
        ),
        ("quota.Bucket.ask", "plain = self.plain", "plain = None"),
        (
            "quota.Bucket.ask",
            _AS_TCP_OPENS,
            _AS_TCP_OPENS.replace("now <", "now <="),
        ),
        (
            "quota.Bucket._opens",
            "if self.pace.gap or not self.shown or self.calls > self.answered:",
            "if self.pace.gap or not self.shown or self.calls >= self.answered:",
        ),
        (
            "quota.Bucket.take_foreseen",
            "if window.foreseen > 0 and now < window.foreseen_until:",
            "if window.foreseen > 1 and now < window.foreseen_until:",
        ),
        ("quota.Bucket.observed", "and status < 400", "and status <= 400"),
        ("quota.Bucket.observed", "and status < 400", "and status < 401"),
        (
            "quota.Bucket._opens_itself",
            "elif self.calls > self.answered:",
            "elif self.calls >= self.answered:",
        ),
        *(
            ("limiter.Limiter.at_once", "line = self._lines.get(key)" + _NAMED, line + _NAMED)
            for line in ("line = None", "line = self._lines.get(None)")
        ),
        (
            "limiter.Limiter.acquire",
            _LOOKED_UP,
            _LOOKED_UP.replace("key", "None"),
        ),
        *(
            (f"limiter.Limiter.{function}", line, line.replace(f"type({option})", "type(None)"))
            for function, line, option in (
                ("acquire", _PRIORITY, "priority"),
                ("acquire", f"{_OPTIONS} or ticket is not None:", "dialect"),
                ("try_acquire", _PRIORITY, "priority"),
                ("try_acquire", f"{_OPTIONS}:", "dialect"),
            )
        ),
        *(
            (f"limiter.Limiter.{function}", line, line.replace("HeldPermit", "None"))
            for function, line in (
                ("acquire", f"permit = {_AT_ONCE}"),
                ("try_acquire", f"return {_AT_ONCE}"),
            )
        ),
        (
            "patience.Patience._fail_impatient",
            "if line.bucket.patience < INF:",
            "if line.bucket.patience <= INF:",
        ),
        (
            "patience.Patience.found_nothing",
            "if window.patience < INF:",
            "if window.patience <= INF:",
        ),
        (
            "dialects._Auto.read",
            "names = spoken[0].name if len(spoken) == 1 else _joined(spoken)",
            "names = spoken[0].name if (len(spoken) == 1) and False else _joined(spoken)",
        ),
        (
            "leases.LeasedWindow.opens",
            "at = share.opens(now, cost, self._kept(reserve) if reserve else 0)",
            "at = share.opens(now, cost, self._kept(reserve) if (reserve) or True else 0)",
        ),
        (
            "leases.LeasedWindow.expect",
            "ahead += self._kept(reserve) - (self.floor if self.is_confirmed else 0)",
            "ahead += self._kept(reserve) - (self.floor if self.is_confirmed else 1)",
        ),
        (
            "leases.LeasedWindow.expect",
            "if not self.limit or self.span <= 0:",
            "if not self.limit or self.span < 0:",
        ),
        ("alarm.Alarm.clear", "if line.timer < INF:", "if line.timer <= INF:"),
        ("alarm.Alarm._arm", "if self._timer_at <= at:", "if self._timer_at < at:"),
        (
            "patience.Patience.in_vain",
            "needed = line.timer - now if now < line.timer < INF else 0.0",
            "needed = line.timer - now if now <= line.timer < INF else 0.0",
        ),
        ("patience.Patience._review_some", "continue", "break"),
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
            "windows.Window._move_reset",
            "elif reset > self.reset:",
            "elif reset >= self.reset:",
        ),
    ],
    "two lists that have as many entries: strict says so to the reader": [
        (
            "dialects._told_apart",
            "for dialect, reading in zip(spoken, readings, strict=True):",
            f"for dialect, reading in zip(spoken, readings, {end}",
        )
        for end in _NOT_STRICT
    ]
    + [
        (
            "ietf.SeparateFields._several",
            "for said, limit, reset in zip(remaining, limits, resets, strict=True):",
            f"for said, limit, reset in zip(remaining, limits, resets, {end}",
        )
        for end in _NOT_STRICT
    ],
    "what is no number says as little as nothing": [
        (
            "ietf.SeparateFields.read",
            'limit = f"{first.value}" if first is not None else ""',
            'limit = f"{first.value}" if first is not None else "XXXX"',
        ),
        (
            "ietf.SeparateFields._several",
            'resets = resets or [""] * places',
            'resets = resets or ["XXXX"] * places',
        ),
    ],
    "names of fields are found in any case": [
        (
            "headers.family",
            _NAMES,
            _NAMES.replace(f'"{name}"', f'"{name.upper()}"'),
        )
        for name in ("limit", "remaining", "reset")
    ],
    "no field has an empty name": [
        (
            "ietf.SeparateFields.read",
            'bucket = (fields.get(self.bucket) or "")[:_LONGEST_NAME] if self.bucket else ""',
            "*",
        ),
    ],
    "one of the groups has matched": [
        (
            "ietf._bare_item",
            "return found[found.lastgroup or 0], found.end()",
            "return found[found.lastgroup or 1], found.end()",
        ),
    ],
    "no window is shorter than a second": [
        (
            "ietf._kind_of",
            "span = next((each for each in spans if each >= (resets_in or 0)), spans[-1])",
            "span = next((each for each in spans if each >= (resets_in or 1)), spans[-1])",
        ),
    ],
    "what stands there is not looked at: windows alone have probes, and a time": [
        (
            "quota.Bucket._opens",
            "opens = rate.opens(now, cost_in(rate.unit, cost))",
            "opens = rate.opens(None, cost_in(rate.unit, cost))",
        ),
        ("leases.LeasedRate.opens", "at = super().opens(now, cost)", "*"),
        ("leases.LeasedRate.take", "self.share.take(now, cost)", "self.share.take(None, cost)"),
        ("leases.LeasedConcurrency.opens", "at = super().opens(now, cost)", "*"),
        ("leases.LeasedConcurrency.take", "super().take(now, cost, since)", "*"),
        (
            "leases.LeasedConcurrency.take",
            "self.share.take(now, cost)",
            "self.share.take(None, cost)",
        ),
    ],
    "both tell a reset, or neither; the type checker does not know": [
        (
            "leases._Said.count",
            "if resets_at is not None and self.resets_at is not None:",
            "if resets_at is not None or self.resets_at is not None:",
        ),
    ],
    "of two that are the same either may be written down": [
        ("windows.Foreign.observe", "if others > self._others:", "if others >= self._others:"),
        ("windows.Window._take_all_in", "if known > newest:", "if known >= newest:"),
        (
            "windows.Window._take_all_in",
            "if then - remaining > unexplained:",
            "if then - remaining >= unexplained:",
        ),
        *(
            ("leases.Share.say_again", line, line.replace(one, f"{one}="))
            for line, one in (
                ("if known > last.known:", ">"),
                ("if took > last.took:", ">"),
                ("if remaining < last.remaining:", "<"),
                ("if resets_at < last.resets_at:", "<"),
            )
        ),
        (
            "leases.Share._in_time",
            "return self.ask_at if soon < self.ask_at <= now + _TOGETHER else soon",
            "return self.ask_at if soon <= self.ask_at <= now + _TOGETHER else soon",
        ),
    ],
    "what is leased has left a reserve already": [
        ("leases.LeasedWindow.leased", "self.foresee(now, 0.0)", "self.foresee(now, None)"),
        ("leases.LeasedWindow.leased", "self.foresee(now, 0.0)", "self.foresee(now, 1.0)"),
    ],
    "is asked for where there is one; the type checker does not know": [
        (
            "ledger.rule._move_reset",
            "at = now + (note.resets_in or 0)",
            "at = now + (note.resets_in or 1)",
        ),
        (
            "ledger.rule._lasts",
            "return (note.resets_in or 0) if note.lasts is None else note.lasts",
            "return (note.resets_in or 1) if note.lasts is None else note.lasts",
        ),
        (
            "ledger.rule._apart",
            "return now + (note.resets_in or 0) - (record.reset or 0)",
            "return now + (note.resets_in or 1) - (record.reset or 0)",
        ),
        (
            "ledger.rule._apart",
            "return now + (note.resets_in or 0) - (record.reset or 0)",
            "return now + (note.resets_in or 0) - (record.reset or 1)",
        ),
    ],
    "whole numbers, which half a one is not between": [
        (
            "leases.LeasedConcurrency.opens",
            "share = max(1, self.concurrency.limit // self.share.clients)",
            "share = max(1, self.concurrency.limit / self.share.clients)",
        ),
        (
            "ledger.rule._is_same",
            "return abs(_apart(record, note, now)) <= min(_SAME_RESET, record.span // 2)",
            "return abs(_apart(record, note, now)) <= min(_SAME_RESET, record.span / 2)",
        ),
        (
            "ledger.rule._is_of_next",
            "return _apart(record, note, now) > max(_OTHER_BACK_END, record.span // 2)",
            "return _apart(record, note, now) > max(_OTHER_BACK_END, record.span / 2)",
        ),
    ],
    "resets that are not the same are apart": [
        (
            "windows.Window._is_earlier",
            "return self.reset is not None and told[1] < self.low and not self._is_same(told)",
            "return self.reset is not None and told[1] <= self.low and not self._is_same(told)",
        ),
        (
            "ledger.rule._is_earlier",
            "return _apart(record, note, now) < 0",
            "return _apart(record, note, now) <= 0",
        ),
        (
            "ledger.rule._is_earlier",
            "return _apart(record, note, now) < 0",
            "return _apart(record, note, now) < 1",
        ),
        ("ledger.rule._move_reset", "elif apart > 0:", "elif apart >= 0:"),
    ],
    "what is plain has a reset; the type checker does not know": [
        ("windows.Window.goes_on", "return False", "return True"),
    ],
    "any reset is later than one that nobody knows": [
        (
            "ledger.rule._is_same",
            "if note.resets_in is None or record.reset is None:",
            "if note.resets_in is None and record.reset is None:",
        ),
        (
            "ledger.rule._is_earlier",
            "if note.resets_in is None or record.reset is None or _is_same(record, note, now):",
            "if note.resets_in is None or record.reset is None and _is_same(record, note, now):",
        ),
    ],
    "long past is as good as never": [
        (
            "ledger.rule.lifetime",
            _ENDS,
            _ENDS.replace("or 0", "or 1"),
        ),
    ],
    "so little is none": [
        (
            "windows.Window._foresees",
            _ROOT,
            _ROOT.replace("max(0,", "max(1,"),
        ),
        (
            "ledger.rule._take_pace",
            ("least = min(_LONGEST_BACKOFF, record.gaps[0][1] * 11 // 10) if record.gaps else 0"),
            "*",
        ),
        (
            "ledger.rule._learn_lateness",
            "record.late = max(0, found - record.reset)",
            "record.late = max(1, found - record.reset)",
        ),
    ],
    "what is granted is the same; test_ledger_script.py notices that the record is not": [
        (
            "ledger.rule._take_pace",
            "while record.gaps and record.gaps[-1][1] <= record.gap:",
            "while record.gaps and record.gaps[-1][1] < record.gap:",
        ),
        (
            "ledger.rule._observe",
            "while record.floor and record.floor[-1][1] >= remaining:",
            "while record.floor and record.floor[-1][1] > remaining:",
        ),
    ],
    "is the least of those who ask itself": [
        ("ledger.rule.exchange", "if client.asks < now:", "if client.asks <= now:"),
    ],
    "half a lease comes first": [
        (
            "ledger.rule._patience",
            "return min(LEASE // 2, _FIRST_WAIT << min(report.vain, 3))",
            "return min(LEASE // 2, _FIRST_WAIT << min(report.vain, 4))",
        ),
    ],
    "who holds nothing has less than it needs here": [
        (
            "ledger.rule._grant_when_spent",
            "if left < report.need <= left + ghosts:",
            "if left <= report.need <= left + ghosts:",
        ),
    ],
    "of two that open at the same instant either may be named": [
        ("quota.Bucket._opens", "if opens > at:", "if opens >= at:"),
    ],
    "a number, or a turn, is only told apart from those before": [
        ("windows.Numbering.next", "self.last += 1", "self.last += 2"),
        ("windows.Numbering.__init__", "self.last = 0", "self.last = 1"),
        ("leases.Health.__init__", "self.outages = 0", "self.outages = 1"),
        ("leases.Share.__init__", "self._outage = 0", "self._outage = None"),
        ("windows.Probing.__init__", "self.turn = 0", "self.turn = 1"),
        ("windows.Probing.restart", "self.turn += 1", "self.turn -= 1"),
        ("windows.Probing.restart", "self.turn += 1", "self.turn += 2"),
    ],
    "is set before it is read": [
        ("windows.Window.__init__", "self.low = LONG_AGO", "*"),
        ("windows.Window.__init__", "self.clock_changes = -1", "*"),
        ("windows.Window.__init__", "self.reserve = 0.0", "*"),
        ("windows.Window.__init__", "self.least = _NONE_IS_PLAIN", "*"),
        ("windows.Window.__init__", "self.is_plain = False", "self.is_plain = True"),
        ("clock.ServerClock.__init__", "self.date = 0.0", "*"),
        ("home.Home.__init__", "self.wall: Callable[[], float] = time.time", "*"),
        ("leases.Share.__init__", "self._told = 0", "*"),
        ("leases.Share.__init__", "self._asked = 0", "*"),
        ("leases.Share.__init__", "self._since = 0", "*"),
        ("leases.Share.__init__", "self.again: _Said | None = None", "*"),
        ("alarm.Alarm.__init__", "self._timer_at = INF", "*"),
        ("windows.Probing.__init__", "self.sent = LONG_AGO", "*"),
        ("windows.Foreign.__init__", "self.own = 0", "self.own = 1"),
        ("windows.Foreign.__init__", "self._at_first = 0", "self._at_first = 1"),
        ("windows.Window.__init__", "self.slot = LONG_AGO", "*"),
        ("windows.Window.__init__", "self.ends = LONG_AGO", "*"),
        ("windows.Window.__init__", "self.doubts = 0", "*"),
    ],
    "a Date without a zone: any zone within a day passes": [
        (
            "values._posix",
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
        (
            "ledger.rule._backoff",
            "return min(_LONGEST_BACKOFF, 1000 << min(times, 6))",
            "return min(_LONGEST_BACKOFF, 1000 << min(times, 7))",
        ),
    ],
    "an instant, or another edge, that floats do not meet": [
        (
            "clock._Bound.latest",
            "return at + DRIFT * left if left > 0.0 else at",
            "return at + DRIFT * left if left >= 0.0 else at",
        ),
        ("leases.LeasedWindow.opens", "if even and at <= now:", "if even and at < now:"),
        (
            "patience.Patience.look_again",
            "is_news = answer.at > line.checked + 0.5 or (line.was_busy and not busy)",
            "is_news = answer.at >= line.checked + 0.5 or (line.was_busy and not busy)",
        ),
        (
            "settling.Settling.observed_again",
            "granted.sent >= clock.news_from",
            "granted.sent > clock.news_from",
        ),
        (
            "telling.Telling.announce",
            "if not callers or not WORTH_A_WARNING < wait < INF or self._is_announced(line):",
            "if not callers or not WORTH_A_WARNING <= wait < INF or self._is_announced(line):",
        ),
        (
            "telling.Telling._is_announced",
            "return line.timer < line.warned + span",
            "return line.timer <= line.warned + span",
        ),
        (
            "patience.Patience.give_up_early",
            "if at > waiter.deadline:",
            "if at >= waiter.deadline:",
        ),
        ("patience.Patience._review_later", "if rest > 0:", "if rest >= 0:"),
        (
            "patience.Patience._judge_deadline",
            "if expected <= waiter.deadline:",
            "if expected < waiter.deadline:",
        ),
        (
            "patience.Patience._judge_patience",
            "return self._nobody_answers(line, waited, patience) if waited > patience else None",
            "return self._nobody_answers(line, waited, patience) if waited >= patience else None",
        ),
        (
            "registry.Registry._worth",
            "shut = any(w.shut > now for w in line.bucket.windows) or line.bucket.next > now",
            "shut = any(w.shut >= now for w in line.bucket.windows) or line.bucket.next > now",
        ),
        (
            "registry.Registry._worth",
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
            "headers.Dialect.read",
            "def read(self, headers: Mapping[str, str], status: int = 200) -> Reading:",
            "def read(self, headers: Mapping[str, str], status: int = 201) -> Reading:",
        ),
        (
            "dialects._Auto.read",
            "def read(self, headers: Mapping[str, str], status: int = 200) -> Reading:",
            "def read(self, headers: Mapping[str, str], status: int = 201) -> Reading:",
        ),
        (
            "settling.Settling.observed_again",
            "self._learn(line, granted, frame.reading(remaining), 200, None, now)",
            "self._learn(line, granted, frame.reading(remaining), 201, None, now)",
        ),
        (
            "quota.Bucket.observed",
            "status: int = 200,",
            "status: int = 201,",
        ),
    ],
    "about so many": [
        (
            "windows.Foreign.observe",
            "if self._answers < _ENOUGH_ANSWERS or round_trip < self._quickest:",
            "if self._answers <= _ENOUGH_ANSWERS or round_trip < self._quickest:",
        ),
        (
            "registry.Registry.digest",
            "if len(self._materials) > _MATERIALS * max(self._max_quotas, _FEW_QUOTAS):",
            "if len(self._materials) >= _MATERIALS * max(self._max_quotas, _FEW_QUOTAS):",
        ),
        *(
            ("patience.Patience._review_slice", slice_, other)
            for slice_, other in (
                (_REVIEWS, _REVIEWS.replace("left > 0", "left >= 0")),
                (_REVIEWS, _REVIEWS.replace("left > 0", "left > 1")),
                ("left -= most or 1", "left -= most or 2"),
            )
        ),
        ("limiter.Limiter.__init__", "max_quotas: int = 100_000,", "*"),
        (
            "registry.Registry.line",
            "if len(self.lines) >= min(_FEW_QUOTAS, self._max_quotas):",
            "if len(self.lines) > min(_FEW_QUOTAS, self._max_quotas):",
        ),
    ],
    "nothing is worth more than 2": [
        (
            "registry.Registry._forget_some",
            "needless = 0 if excess < 1.0 else 1 if excess < 1.25 else 2",
            "needless = 0 if excess < 1.0 else 1 if excess < 1.25 else 3",
        ),
    ],
    "a look at the deadlines that was not needed fails nobody": [
        (
            "patience.Patience.tell_others",
            "if gate.in_flight or not isinstance(gate, Window):",
            "if gate.in_flight and not isinstance(gate, Window):",
        ),
        (
            "patience.Patience.tell_others",
            "if line.deadlines and line is not first:",
            "if line.deadlines or line is not first:",
        ),
        (
            "turns.Turns.wake",
            "self.patience.tell_others(gate, line)",
            "self.patience.tell_others(gate, None)",
        ),
        (
            "patience.Patience.look_again",
            "is_news = answer.at > line.checked + 0.5 or (line.was_busy and not busy)",
            "is_news = answer.at > line.checked - 0.5 or (line.was_busy and not busy)",
        ),
        (
            "patience.Patience.look_again",
            "is_news = answer.at > line.checked + 0.5 or (line.was_busy and not busy)",
            "is_news = answer.at > line.checked + 0.5 or (line.was_busy or not busy)",
        ),
    ],
    "whoever goes plainly knows of a reading, which has a number": [
        (
            "windows.Window._take_all_in",
            "newest, unexplained = 0, -_NONE_IS_PLAIN",
            "newest, unexplained = 1, -_NONE_IS_PLAIN",
        ),
    ],
    "any number below 0 is no place": [
        ("quota.Bucket.__init__", "self.place = -1", "self.place = -2"),
    ],
    "no two callers hold one ticket": [
        (
            "turns.Turns._ask",
            "and first.rank < (waiter.priority, waiter.ticket)",
            "and first.rank <= (waiter.priority, waiter.ticket)",
        ),
    ],
    "what has no turn has no place among the turns": [
        (
            "alarm.Alarm._note",
            "def _note(self, line: Line, at: float, ticket: int = 0) -> None:",
            "def _note(self, line: Line, at: float, ticket: int = 1) -> None:",
        ),
    ],
    "whether a wait is worth a warning is looked at again when it is announced": [
        *(
            ("turns.Turns.join", _LONG, _LONG.replace(one, other))
            for one, other in (
                ("now +", "now -"),
                ("G <", "G <="),
            )
        ),
        (
            "telling.Telling.announce_soon",
            "and line.timer != line.warned and (line.timer - self._home.now() > WORTH_A_WARNING)",
            "and line.timer != line.warned or (line.timer - self._home.now() > WORTH_A_WARNING)",
        ),
        (
            "telling.Telling.announce_soon",
            "line.timer < INF and line.timer != line.warned",
            "line.timer < INF or line.timer != line.warned",
        ),
        ("telling.Telling.announce_soon", "line.timer < INF", "line.timer <= INF"),
        (
            "telling.Telling.announce_soon",
            "and (line.timer - self._home.now() > WORTH_A_WARNING)",
            "*",
        ),
    ],
    "a wait that is announced lasts for more than a second": [
        (
            "telling.Telling.announce",
            "line.warned = max(line.timer, now + (quota.resets_in or 0.0))",
            "line.warned = max(line.timer, now + (quota.resets_in or 1.0))",
        ),
    ],
    "a limit of many routes has a single blank, after its method": [
        (
            "matching.covers",
            'return pattern == "*" or pattern.partition(" ")[0] == route.partition(" ")[0]',
            'return pattern == "*" or pattern.rpartition(" ")[0] == route.partition(" ")[0]',
        ),
    ],
    "any number from 1 on will do where none is named": [
        (
            "costs.as_cost",
            'if units.get("requests", 1) < 1:',
            'if units.get("requests", 2) < 1:',
        ),
    ],
    "nothing is foreseen, or until no instant: one of them is enough": [
        (
            "windows.Window.__init__",
            "self.foreseen = self.promised = 0",
            "self.foreseen = self.promised = 1",
        ),
    ],
    "who may go knows of one token at least": [
        (
            "quota._note_silence",
            "window.passed_over(granted, max(left, default=0))",
            "window.passed_over(granted, max(left, default=1))",
        ),
    ],
    "a window that is known is remembered": [
        (
            "registry.Registry._named_window",
            "self.windows.pop(known.key, None)",
            "self.windows.pop(known.key, )",
        ),
        (
            "registry.Registry._forget_window",
            "self.windows.pop(window.key, None)",
            "self.windows.pop(window.key, )",
        ),
    ],
    "a look that is too early finds the same as the one before": [
        (
            "turns.Turns._ask",
            "at = line.bucket.expect(now, 0, cost=waiter.cost)",
            "at = line.bucket.expect(now, 0, )",
        ),
    ],
    "a line that is looked at twice in a tick gets no more than there is": [
        ("turns.Turns._pump", "line.pumping = True", "line.pumping = None"),
        ("turns.Turns._pump", "line.pumping = True", "line.pumping = False"),
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
