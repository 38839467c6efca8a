"""A limiter that checks itself after each step, against what the server knows."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

from aiotwhelp.headers import FIFTEEN_MINUTES, Frame, Reading, WindowKind
from aiotwhelp.limiter import Limiter
from aiotwhelp.local import RateWindow, Room
from aiotwhelp.queues import Line, Priority, Waiter
from aiotwhelp.quota import Bucket, Granted, NotUntil
from aiotwhelp.views import QuotaKey
from aiotwhelp.windows import INF, Probing, Window
from tests.chaos.plan import LIES, LOSSES, Plan
from tests.chaos.world import Count, World

#: The longest that a window without a reset, and a back-off, keep anyone waiting.
LONGEST_BACKOFF = 60.0

#: More callers than this in one callback of the loop are no slice.
SLICE = 128

#: After so many of them a window holds nobody.
SILENCES = 3

#: So many answers in a row that tell of one reset end the belief in a later one.
DOUBTS = 8

#: A server may tell of another window each time; so many are heard.
MOST_WINDOWS = 16

#: So many seconds a refused gap is remembered.
GAP_MEMORY = 600.0

#: After so many probes in a row that nobody answered, each more fails those who waited for long.
MISSES = 5

#: What we call the window of those fields.
OWN_KINDS = {"x-rate-limit-{}": FIFTEEN_MINUTES.name, "x-ratelimit-{}-requests": "requests"}

#: So many calls of others in a window that is spent cannot be overlooked.
SEEN_OTHERS = 5


#: The method of a limiter's part that is checked.
Plain = Callable[..., Any]


class CheckedLimiter(Limiter):
    """Knows the server's counts, and the invariants by their numbers in the messages."""

    def __init__(self, plan: Plan, world: World, **options: Any) -> None:
        super().__init__(**options)
        self.plan = plan
        self.world = world
        self.rings = 0
        #: The names by which the server knows whom we know by their identities.
        self.names: dict[str, str] = {}
        self._answers: WeakKeyDictionary[Bucket, int] = WeakKeyDictionary()
        self._shut_until: WeakKeyDictionary[Bucket, float] = WeakKeyDictionary()
        #: By identity: what was refused for all routes.
        self._all_shut_until: dict[str, float] = {}
        #: The last reset that was told of a window, and how often in a row.
        self._told: dict[Window, tuple[float, int]] = {}
        #: What quotas owed when they were forgotten, by the names of their windows.
        self._forgotten: Counter[object] = Counter()
        #: Calls that an app's window was not told of, with the instants of their answers.
        self._left_out: dict[object, list[tuple[float, int]]] = {}
        #: Answers in a row to a window's probes that told of others only.
        self._silences: Counter[tuple[object, Window]] = Counter()
        #: Probes in a row that nobody answered.
        self._misses: Counter[Probing] = Counter()
        #: Gaps that a limit nobody tells of has refused, with the instants.
        self._refused_gaps: WeakKeyDictionary[Bucket, list[tuple[float, float]]] = (
            WeakKeyDictionary()
        )
        #: Of a window whose calls come back one by one: of the reading with the fewest missing how
        #: many, and when they will be back; and whether one with more has told of later.
        self._missing: dict[Window, tuple[int, float, bool]] = {}
        #: When calls were sent, the first of those that were answered in one instant, by that.
        self._asked: dict[tuple[Line, float], float] = {}
        #: How many answers have shown another window in a window's turn, since it was shown.
        self._passed: Counter[Window] = Counter()
        self._rated: dict[RateWindow, list[float]] = {}
        self._idle: dict[Line, tuple[float, float]] = {}
        self._in_this_callback = 0
        turns, settling = self._turns, self._settling
        for part, name, checked in (
            (turns, "_grant_next", self._grant_next),
            (turns, "settled", self._settled),
            (turns, "_park", self._park),
            (turns, "_expire", self._expire),
            (turns, "fail", self._fail),
            (turns.patience, "_fail", self._fail),
            (turns.alarm, "_ring", self._ring),
            (settling, "observed", self._observed),
            (settling, "observed_again", self._observed_again),
            (settling, "lost", self._lost),
            (settling, "unsent", self._unsent),
            (self._registry, "_forget_bucket", self._forget_bucket),
        ):
            setattr(part, name, partial(checked, getattr(part, name)))

    # Grants ------------------------------------------------------------------------------------

    def at_once(self, key: Any, cost: Any, priority: Any, *options: Any) -> Any:
        """Look at what is granted at once."""
        permit = super().at_once(key, cost, priority, *options)
        if permit is not None:
            line = permit._line
            ahead = line.queues[: priority + 1]
            assert not any(queue.head() for queue in ahead), "I5: a newcomer overtook a waiter"
            self._check_grant(line, permit, priority, None)
        return permit

    def _grant_next(
        self, plain: Plain, line: Line, waiter: Waiter, now: float
    ) -> Granted | NotUntil:
        answer = plain(line, waiter, now)
        if isinstance(answer, NotUntil):
            self._check_wait(line, answer, now)
        else:
            queue = line.queues[waiter.priority]
            first = min(each.ticket for each in queue if not each.future.done())
            assert waiter.ticket == first, "I5: out of order"
            self._check_grant(line, answer, waiter.priority, waiter.ticket)
            self._count_work()
        return answer

    def _check_wait(self, line: Line, answer: NotUntil, now: float) -> None:
        wait, window = answer.at - now, answer.by
        assert wait > 0, "I7: a wait without a floor"
        if not isinstance(window, Window):
            return
        first = window.blocked.first
        is_behind = first is not None and first.line is not line
        if not (window.is_confirmed or window.shut > now or is_behind):
            assert self._silences_of(line, window) < SILENCES, f"nobody tells of {window} any more"
        if wait < INF:
            is_blind = window.reset is None and not (window.in_flight or is_behind)
            is_blind = is_blind and window.shut < now
            longest = LONGEST_BACKOFF if is_blind else window.kind.ceiling
            assert wait <= longest + 0.01, f"I7: {wait:.0f} s are too long for {window}"
            if not (window.in_flight or window.shut > now or is_behind):
                self._check_it_waits_for_one(line, window, wait)

    def _check_it_waits_for_one(self, line: Line, window: Window, wait: float) -> None:
        """Nobody waits until all calls are back, or for a window that is gone, and it was told."""
        count = self.world.counts.get(self.name_of(line.key, window.kind))
        if count is None:
            return
        if self._passed[window] and self.world.is_lifted(count.key):
            assert wait <= LONGEST_BACKOFF + 0.01, f"{wait:.0f} s for {window}, which is gone"
        *_, is_known = self._missing.get(window, (False,))
        # Of three, two that a reserve asks for are as good as all.
        few = self.plan.reserve and self.plan.limit <= 3
        if is_known and not (few or window.debts.unread or window.debts.ghosts):
            count.look(self.world.clock())
            back = count.limit - count.used + wait / count.gap
            assert back < count.limit - 0.5, f"{back:.1f} will be back, and one would do"

    def _check_grant(self, line: Line, granted: Granted, priority: int, ticket: int | None) -> None:
        self._idle.pop(line, None)
        bucket, now = line.bucket, self._home.now()
        if bucket.shown:
            assert bucket.calls <= self._answers.get(bucket, 0) + 1, "case 1: no slow start"
        assert now >= self._shut_until.get(bucket, -INF), "case 24: before the Retry-After"
        shut = self._all_shut_until.get(line.key.identity, -INF)
        assert now >= shut, "a refusal that holds for every route was forgotten"
        app = self._app_of(line)
        if app is not None and self._leaves_out(line, app):
            self._note_unknown(app)
        for gate in bucket.gates:
            first = gate.blocked.first
            if first is not None and first.line is not line:
                older = first.rank < (priority, ticket or INF)
                assert not older, "I5: another line's caller was overtaken"
            if isinstance(gate, RateWindow):
                self._check_rate(gate, now)
            else:
                self._check_taken(line, gate, granted, priority)

    def _check_taken(self, line: Line, window: Window, granted: Granted, priority: int) -> None:
        if not window.is_confirmed and self._silences_of(line, window) < SILENCES:
            assert granted.is_probe_of(window.probing), "case 14: more than the probes"
            assert window.probing.out <= 2, "case 14: a third probe"
        has_ended = window.is_confirmed and self._home.now() >= window.ends
        assert not has_ended, "case 14: granted from a window that has ended"
        assert window.foreseen <= window.available, "more is foreseen than there is"
        is_foreseen_too_long = window.foreseen > 0 and window.foreseen_until > window.ends
        assert not is_foreseen_too_long, "case 14: more is foreseen than the window holds for"
        if not granted.is_probe_of(window.probing):
            self._check_last(line, window, granted)
            # One that answers tell of no more, such as a garbled header's, is not there.
            if window.is_confirmed and window.limit and priority != Priority.INTERACTIVE:
                kept = min(int(self._turns._reserve * window.limit), window.limit - 1)
                left = max(window.available, self._come_back(line, window, kept))
                assert left >= kept, "the reserve was spent"
        elif window.is_confirmed and self.plan.seconds and not self.plan.lies:
            may_go = window.debts.ghosts or self.plan.has("retry_after", "steps")
            assert may_go, "early, as if calls came back one by one"
        elif not window.is_confirmed and window.reset is not None and self.plan.has_one_clock:
            clock = self.world.clock()
            assert clock >= window.reset - 1e-6, f"case 17: {window.reset - clock:.3f} s too early"

    def _come_back(self, line: Line, window: Window, kept: int) -> int:
        """Return how many calls are left where they come back one by one, since it was told.

        Those that did not, as the clock was set back since the last answer, nobody could miss.
        """
        count = self.world.counts.get(self.name_of(line.key, window.kind))
        if count is None or not count.gap:
            return 0
        count.look(self.world.clock())
        asked = self._asked.get((line, window.seen), window.seen)
        missed = self.world.set_back_since(asked) / count.gap
        return kept if self.plan.lies else count.left_but_for(missed) - window.in_flight

    def _check_last(self, line: Line, window: Window, granted: Granted) -> None:
        """Whoever takes the last token is alone, since another consumer may have taken it."""
        count = self.world.counts.get(self.name_of(line.key, window.kind))
        if count is None or window.available or self.plan.blurs_windows:
            return
        if count.gap or self.world.is_lifted(count.key):
            return
        if not self.plan.is_of(window.reset or 0.0, count.ends) or self.world.clock() > count.ends:
            return
        # Until a window has ended, others are presumed.
        expects_others = count.number == 1 or (
            count.others_before >= SEEN_OTHERS and not self.plan.has(*LOSSES)
        )
        is_alone = window.in_flight == granted.cost
        assert is_alone or not expects_others, "case 11: the last, and not alone"

    def _check_rate(self, rate: RateWindow, now: float) -> None:
        grants = self._rated.setdefault(rate, [])
        assert not grants or now >= grants[-1] + rate.rate.gap - 1e-6, "a rate was exceeded"
        grants.append(now)

    # Settling ----------------------------------------------------------------------------------

    def _observed(
        self,
        plain: Plain,
        line: Line,
        granted: Granted,
        reading: Reading,
        status: int,
        *others: Any,
    ) -> None:
        self._check_probes(line, granted)
        answered = (line, self._home.now())
        self._asked[answered] = min(self._asked.get(answered, INF), granted.sent)
        self._note_answer(line, granted, reading, status)
        pace = line.bucket.pace
        gap, grown = pace.gap, pace.grown
        knew = [each for each in line.bucket.windows if granted.known >= each.reset_number]
        unread = {each.kind: each.debts.unread for each in line.bucket.windows}
        self._note_turns(line, granted, reading)
        self._note_missing(line, granted, reading)
        plain(line, granted, reading, status, *others)
        self._note_left_out(line, granted, reading)
        if gap or pace.gap:
            is_success = not (reading.refused or reading.cached or status >= 500)
            self._check_pace(granted, gap, grew=pace.grown > grown, success=is_success)
        if not self.plan.has("adversarial", "steps"):
            self._check_doubts(line, knew, reading)
        if self.plan.is_understood:
            self._check_understood(line, reading, unread)
        if not self.plan.has("drift", "steps", *LIES, *LOSSES):
            self._check_lateness(line)

    def _observed_again(
        self,
        plain: Plain,
        line: Line,
        granted: Granted,
        window: Window,
        frame: Frame,
        remaining: int,
    ) -> None:
        def settle(*_: object) -> None:
            plain(line, granted, window, frame, remaining)

        self._observed(settle, line, granted, frame.reading(remaining), 200)
        self._look_after(line)

    def _note_answer(self, line: Line, granted: Granted, reading: Reading, status: int) -> None:
        bucket = line.bucket
        if reading.windows:
            self._answers[bucket] = self._answers.get(bucket, 0) + 1
        if not reading.cached or status == 429:
            self._count_silences(line, granted, reading, status)
        if status == 429 and reading.retry_after:
            self._shut_until[bucket] = self._home.now() + min(reading.retry_after, 960.0)
            if reading.everywhere:
                self._all_shut_until[line.key.identity] = self._shut_until[bucket]
        if status >= 500 and not reading.windows:
            self._note_misses(line, granted)
        else:
            for probing in (bucket.probing, *(window.probing for window in bucket.windows)):
                self._misses[probing] = 0

    def _check_pace(self, granted: Granted, before: float, *, grew: bool, success: bool) -> None:
        """A gap that was refused is not tried again for a while; a wider one shrinks."""
        bucket, now = granted.bucket, self._home.now()
        refused = self._refused_gaps.setdefault(bucket, [])
        if grew:
            is_new = not refused or granted.sent >= refused[-1][0]
            assert is_new, "case 22: calls in flight together were refused more than once"
            refused.append((now, before))
        latest = (gap for at, gap in refused if at >= now - GAP_MEMORY)
        least = min(LONGEST_BACKOFF, 1.1 * max(latest, default=0.0))
        assert bucket.pace.gap >= least - 1e-6, "case 22: what was refused is tried again"
        if success:
            most = max(least, 0.95 * before)
            assert bucket.pace.gap <= most + 1e-6, "case 22: a success, and no faster"
        if before and not bucket.pace.gap:
            self._answers[bucket] = 1  # how many at once do is to be found out again

    def _note_misses(self, line: Line, granted: Granted) -> None:
        for probing, turn in granted.probes or ():
            if probing.turn != turn:
                continue
            self._misses[probing] += 1
            if self._misses[probing] > MISSES:
                # 1, 2, 4 ... seconds after the second of them: so far apart the probes are now.
                patience = min(LONGEST_BACKOFF, 2.0 ** (self._misses[probing] - 2))
                waiting = [
                    each for each in line.everyone() if self._home.now() - each.since > patience
                ]
                asyncio.get_running_loop().call_later(0.01, self._check_patience, waiting)

    def _check_patience(self, waiters: Iterable[Waiter]) -> None:
        assert all(each.future.done() for each in waiters), "case 49: nobody answers, and they wait"

    def restore(self, key: Any, readings: Any) -> None:
        super().restore(key, readings)
        bucket = self._registry.line(key).bucket
        if any(window.is_confirmed for window in bucket.windows):
            self._answers[bucket] = 1

    def _note_left_out(self, line: Line, granted: Granted, reading: Reading) -> None:
        """Count the calls that a window cannot know, until a later call has read it.

        A newcomer whose first answer does not tell of it is not held by it. If that header was
        garbled, he is, from the next answer on.
        """
        told = {self.name_of(line.key, each.kind) for each in reading.windows}
        app = self._app_of(line)
        for name in (app, self._own_name(line.key)):
            calls = self._left_out.setdefault(name, [])
            if name in told:
                calls[:] = [each for each in calls if each[0] > granted.sent]
            elif name is not None and self._leaves_out(line, name):
                calls.append((self._home.now(), granted.cost))
                if name is app and self._answers.get(line.bucket) == 1:
                    self._note_unknown(name)

    def _app_of(self, line: Line) -> object:
        """Return the name of the app's window that the server counts a line's calls in."""
        method, _, path = line.key.route.partition(" ")
        return ("app", path) if self.plan.app_limit and method == "GET" else None

    def _leaves_out(self, line: Line, name: object) -> bool:
        known = [self.name_of(line.key, each.kind) for each in line.bucket.windows]
        return line.bucket.shown and name not in known

    def _note_unknown(self, name: object) -> None:
        """Allow a window one refusal more."""
        if name in self.world.counts:
            self.world.counts[name].unknown += 1

    def _unknown_to(self, name: object) -> int:
        """Return the cost of calls that a window may not know of, through nobody's fault."""
        answered = sum(cost for _, cost in self._left_out.get(name, ()))
        elsewhere = sum(
            line.bucket.in_flight + line.bucket.debts.ghosts
            for line in self._lines.values()
            if self._app_of(line) == name and self._leaves_out(line, name)
        )
        return self._forgotten[name] + answered + elsewhere

    def _count_silences(self, line: Line, granted: Granted, reading: Reading, status: int) -> None:
        told = {self.name_of(line.key, each.kind) for each in reading.windows}
        for place in [each for each in self._silences if each[0] in told]:
            del self._silences[place]
        # What was presumed of a newcomer is dropped by his first answer: that is no silence.
        if told and status < 429 and line.bucket.shown:
            for window in line.bucket.windows:
                place = (self.name_of(line.key, window.kind), window)
                if place[0] not in told and granted.is_probe_of(window.probing):
                    self._silences[place] += 1
                    if self._silences[place] == SILENCES and not window.kind.turns:
                        self._answers[line.bucket] = 1  # how many at once go without it?

    def _note_turns(self, line: Line, granted: Granted, reading: Reading) -> None:
        """Count what is shown in a window's turn by calls that were sent since it was shown."""
        if self.plan.has("hidden"):
            return  # a window that only refusals have shown need not be shown in time
        told = [each.kind for each in reading.windows]
        for window in line.bucket.windows:
            mates = [each for each in reading.windows if each.kind.turns == window.kind.turns]
            if window.kind in told or not window.is_confirmed:
                self._passed[window] = 0
            elif window.kind.turns and mates and not reading.refused:
                knew = granted.known >= window.observations[-1][0]
                self._passed[window] += knew and mates[0].remaining > window.floor

    def _note_missing(self, line: Line, granted: Granted, reading: Reading) -> None:
        """Note what tells that calls come back one by one."""
        if not self.plan.has_one_clock or self.plan.lies or self.plan.has("garbled"):
            return
        now, told = self._home.now(), {each.kind: each for each in reading.windows}
        for window in line.bucket.windows if self.plan.refills else ():
            each = told.get(window.kind)
            if each is None or each.limit is None or each.resets_in is None:
                continue
            missing, ends = each.limit - each.remaining, now + each.resets_in
            if reading.refused or not window.is_confirmed or now >= window.ends:
                self._missing[window] = (missing, ends, False)
            fewest, then, is_known = self._missing.get(window, (missing, ends, False))
            # By more than back ends disagree, to the second, and within the time that it took.
            is_later = ends - (now - granted.sent) - 7.0 > then
            is_known = is_known or (missing > fewest and is_later)
            fewest, then = min((fewest, then), (missing, ends))
            self._missing[window] = (fewest, then, is_known)

    def _silences_of(self, line: Line, window: Window) -> int:
        probes = self._silences[self.name_of(line.key, window.kind), window]
        # One that takes turns is missed where another was shown in its place, too.
        return max(probes, window.silences) if window.kind.turns else probes

    def _check_understood(
        self, line: Line, reading: Reading, unread: dict[WindowKind, int]
    ) -> None:
        told = [each.kind for each in reading.windows if each.reset is not None]
        for window in line.bucket.windows:
            if window.kind in told and window.kind in unread:
                more = window.debts.unread > unread[window.kind]
                assert not more, "case 48: an answer that tells all was not understood"

    def _check_doubts(self, line: Line, knew: list[Window], reading: Reading) -> None:
        """A reset is believed, however late another was told, once many answers have told it."""
        told = {each.kind: each.reset for each in reading.windows if each.reset is not None}
        for window in line.bucket.windows:
            reset = told.get(window.kind)
            if reset is None or reset < self.world.clock() + 2.0:
                continue  # one that has passed is no news
            last, times = self._told.get(window, (reset, 0))
            times = (times if reset == last else 0) + (window in knew)
            self._told[window] = (reset, times)
            if times > DOUBTS and window.is_confirmed and window.reset is not None:
                apart = abs(window.reset - reset)
                assert apart <= 3.0, f"{times} answers say {reset}, and {window.reset} is believed"

    def _check_lateness(self, line: Line) -> None:
        """It is found out by a probe that was not held back for longer than it was late."""
        for window in line.bucket.windows:
            most = self.plan.late + 5.0 + 8 * self.plan.latency[1]
            assert window.late <= most, f"case 15: {window.late:.1f} s were learned"

    def _lost(self, plain: Plain, line: Line, granted: Granted, *, reason: str) -> None:
        self._check_probes(line, granted)
        for window in line.bucket.windows:
            count = self.world.counts.get(self.name_of(line.key, window.kind))
            if count is not None:
                count.unknown += 1
        self._note_misses(line, granted)
        app = self._app_of(line)
        if app is not None and self._leaves_out(line, app):
            self._left_out.setdefault(app, []).append((self._home.now() + 1.0, granted.cost))
        plain(line, granted, reason=reason)

    def _unsent(
        self, plain: Plain, line: Line, granted: Granted, *, failed: bool, reason: str
    ) -> None:
        for gate in line.bucket.local:
            grants = self._rated.get(gate, [])
            if granted.sent in grants and self._home.now() < granted.sent + gate.rate.gap:
                grants.remove(granted.sent)
        if failed:
            self._note_misses(line, granted)
        plain(line, granted, failed=failed, reason=reason)

    def _check_probes(self, line: Line, granted: Granted) -> None:
        """A probe that was silent for long must have been followed by another."""
        waiter, now = line.head(), self._home.now()
        if waiter is None or self.plan.has(
            "app", "hidden", "retry_after", "outcry", "rated", "closing"
        ):
            return
        bucket = line.bucket
        if bucket.pace.gap:
            return  # single file, probes too
        cold = [] if bucket.shown or bucket.blank else [(bucket.probing, bucket.round_trip)]
        # Nor is it the probe that stalls those who wait for another window.
        gate = line.parked.gate if line.parked is not None else None
        unknown = [(w.probing, w.round_trip) for w in bucket.windows if w.is_in_doubt and w is gate]
        for probing, trip in [*cold, *unknown]:
            alone = granted.is_probe_of(probing) and probing.out == 1
            # One that was sent since, and never left, was the other.
            silent = now - max(probing.sent, waiter.since, probing.hold)
            due = silent > max(2.0, 3.0 * trip) + 1.0 and bucket.next < now - 3.0
            assert not (alone and due), "case 2: a slow probe stalled everybody"

    def _settled(
        self, plain: Plain, line: Line, room: Room | None, *, gave_back: bool = False
    ) -> None:
        plain(line, room, gave_back=gave_back)
        self._look_after(line)

    def _look_after(self, line: Line) -> None:
        for window in line.bucket.windows:
            self._note_spent(window)
        self.check(line)
        self.check_sums()

    def _ring(self, plain: Plain) -> None:
        self.rings += 1
        first, now = self._turns.alarm.lines.first, self._home.now()
        plain()
        # Most rings only look whether the machine slept, and change nothing.
        if first is not None and first.timer <= now:
            self.check_all()

    def _forget_bucket(self, plain: Plain, key: QuotaKey, bucket: Bucket) -> None:
        for debts in (bucket.debts, *(window.debts for window in bucket.windows)):
            for name in self._own_names(key):
                self._forgotten[name] += debts.ghosts + debts.unread
        # To know it again costs a probe.
        for name in self._own_names(key):
            self._note_unknown(name)
        plain(key, bucket)

    # Waiting -----------------------------------------------------------------------------------

    def _park(self, plain: Plain, line: Line, waiter: Waiter, answer: NotUntil, now: float) -> None:
        plain(line, waiter, answer, now)
        # More urgent callers, who may spend the reserve or cost less, may find out what lost calls
        # have taken.
        are_others = self._turns._reserve or self.plan.costly
        may_open = are_others and any(w.debts.ghosts for w in line.bucket.windows)
        if line.bucket.calls or answer.by.in_flight or answer.at == INF or may_open:
            self._idle.pop(line, None)
        elif self._idle.get(line, (None,))[0] != answer.at:
            self._idle[line] = (answer.at, now)

    def _note_spent(self, window: Window) -> None:
        """Everyone who waits for a window that is surely spent knows for how long."""
        unsure = window.in_flight or window.debts.ghosts or window.available
        if unsure or not window.is_confirmed or window.reset is None:
            return
        for parked in window.blocked:
            line = parked.line
            if not line.bucket.calls and line not in self._idle:
                self._idle[line] = (window.ends, self._home.now())

    def _expire(self, plain: Plain, line: Line, waiter: Waiter) -> None:
        at, since = self._idle.get(line, (-INF, 0.0))
        # How much longer than for the first of those that come back, nobody says before.
        is_known = since < self._home.now() - 0.01 and not self.plan.refills
        if not waiter.future.done() and is_known:
            assert at <= waiter.deadline + 1.0, "case 36: it was known to be too late"
        if not waiter.future.done():
            self._check_those_ahead(line, waiter)
        plain(line, waiter)

    def _check_those_ahead(self, line: Line, waiter: Waiter) -> None:
        """Nobody is left waiting behind more callers than calls can come back in time."""
        queues = line.queues[: waiter.priority + 1]
        ahead = sum(
            not each.future.done()
            and (each.priority, each.ticket) < (waiter.priority, waiter.ticket)
            for each in chain.from_iterable(queues)
        )
        for window in line.bucket.windows:
            count = self.world.counts.get(self.name_of(line.key, window.kind))
            *_, is_known = self._missing.get(window, (False,))
            if is_known and count is not None:
                # How fast they come back is believed too high by a half at most.
                at = window.seen - 2 * window.round_trip + (ahead - 1) * count.gap / 2
                assert at <= waiter.deadline + 1.0, f"case 36: {ahead} were ahead, as was known"

    def _fail(self, plain: Plain, line: Line, waiter: Waiter, error: Exception) -> None:
        plain(line, waiter, error)
        self._count_work()

    def _count_work(self) -> None:
        if not self._in_this_callback:
            asyncio.get_running_loop().call_soon(self._begin_callback)
        self._in_this_callback += 1
        assert self._in_this_callback <= SLICE, "case 52: the loop is held"

    def _begin_callback(self) -> None:
        self._in_this_callback = 0

    # After each step ---------------------------------------------------------------------------

    def check_all(self) -> None:
        for line in self._lines.values():
            self.check(line)
        self.check_sums()

    def check_sums(self) -> None:
        lines, stats = self._lines.values(), self.stats()
        assert stats.waiting == sum(map(len, lines)), "I8: a waiter was not counted"
        assert stats.in_flight == sum(each.bucket.calls for each in lines), "I8: nor a call"

    def check(self, line: Line) -> None:
        bucket = line.bucket
        assert bucket.calls >= 0, "I2"
        assert bucket.in_flight >= 0, "I2"
        assert len(bucket.windows) <= MOST_WINDOWS, "a server makes us remember what it likes"
        for window in bucket.windows:
            self._check_window(line, window)
        if line.head() is not None and not line.pumping:
            assert self._can_wake(line), f"I3: nobody will wake {line.key}"
        if self.plan.has_only_a_hidden_limit:
            # A middleware that dawdles, for a second at most, changes the gaps; and a server whose
            # clock is set back refuses for as much longer.
            back = -min((by for _, by in self.plan.steps), default=0.0)
            longest = self.plan.hidden_gap + self.plan.latency[1] + max(0.0, back)
            most = 4 * (longest + bool(self.plan.dawdling))
            assert bucket.pace.gap <= max(0.5, most), f"case 22: a gap of {bucket.pace.gap} s"

    def _check_window(self, line: Line, window: Window) -> None:
        assert window.in_flight >= 0, "I2"
        assert window.debts.unread >= 0, "I2"
        assert window.debts.ghosts >= 0, "I2"
        if not window.is_confirmed or self._home.now() >= window.ends or self.plan.lies:
            return
        assert window.observations, "a window that is confirmed was read"
        count = self.world.counts.get(self.name_of(line.key, window.kind))
        if count is None or self.world.is_lifted(count.key):
            return
        count.look(self.world.clock())
        if not count.gap and not self.plan.is_of(window.reset or 0.0, count.ends):
            return
        if self.plan.has("backends") and self.world.clock() >= count.ends:
            # One of two resets has passed, and the window goes on, late: what tells that reset
            # looks like an answer of a window that is no more.
            return
        left = count.limit - count.used + 1e-9  # as the server rounds
        coming = self.world.under_way[count.key] - self.world.forgotten(count.key)
        forgotten = self._unknown_to(count.key)
        assert window.available <= max(0, left - coming) + forgotten, (
            f"I1: believed {window.available}, {left} are left, {coming} are coming"
        )
        unsure = window.in_flight or window.debts.unread or window.debts.ghosts or coming
        if not (unsure or forgotten):
            self._check_at_rest(window, count)

    def _check_at_rest(self, window: Window, count: Count) -> None:
        if self.plan.has("garbled") or self.plan.has_near_windows or count.gap:
            return
        if not self.world.under_way[count.key]:
            left = max(0, count.limit - count.used)
            assert window.floor == left, f"I4: believed {window.floor} at rest, {left} are left"

    def name_of(self, key: QuotaKey, kind: WindowKind) -> object:
        if kind.scope == "app":
            method, _, path = key.route.partition(" ")
            return ("app", path) if method == "GET" else ("app", path, method)
        own = self._own_name(key)
        if kind.turns and kind.name.endswith(f" of {self.plan.narrow}"):
            return ("narrow", *own)
        is_plain = self.plan.fields == "x-ratelimit-{}" and kind.turns
        is_own = is_plain or kind.name == OWN_KINDS.get(self.plan.fields)
        return own if is_own else (own, kind.name)

    def _own_name(self, key: QuotaKey) -> tuple[object, ...]:
        method, _, path = key.route.partition(" ")
        return (self.names.get(key.identity), method, path)

    def _own_names(self, key: QuotaKey) -> Iterable[object]:
        own = self._own_name(key)
        return (own, ("narrow", *own)) if self.plan.narrow else (own,)

    def _can_wake(self, line: Line) -> bool:
        if self._home.is_closed or line.bucket.calls:
            return True
        if line.timer < INF:
            return self._turns.alarm.is_armed
        parked = line.parked
        return parked is not None and (
            parked.gate.in_flight > 0 or parked.gate.blocked.first.line is not line
        )
