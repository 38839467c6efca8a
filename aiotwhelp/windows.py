"""What we believe of one window that a server announces.

Part of the rule, and as pure: see `aiotwhelp.quota`, which asks every window of a call.

What is short is a list, also where it is taken from the front: an empty deque takes 760 bytes, and
a limiter keeps 100 000 quotas.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, Self

from aiotwhelp.clock import ServerClock
from aiotwhelp.headers import Frame, WindowKind, WindowReading
from aiotwhelp.heaps import Heap
from aiotwhelp.refills import OTHER_BACK_END, Refill

if TYPE_CHECKING:
    from aiotwhelp.quota import Bucket, Granted

INF = math.inf

#: One object for all: each quota has a dozen instants that never were.
LONG_AGO = -INF

#: A refused or lost probe is followed by another after 1 s, doubling to at most this.
LONGEST_BACKOFF = 60.0

#: After so many lost probes in a row, callers that waited longer than the back-off are failed.
MISSES_BEFORE_FAILING = 5

#: Resets within this of each other are one reset: servers round, and back ends disagree.
_SAME_RESET = 2.0

#: A lateness below this is a round trip, not a late rollover.
_LEAST_LATENESS = 0.1

#: So many answers in a row must say an earlier reset before a later one is disbelieved.
_DOUBTS = 8

#: A round trip counts at most this much, so that one slow upload does not stretch every span.
LONGEST_ROUND_TRIP = 30.0

#: Separate debts that are remembered; older ones are put together, at the later instant.
_MOST_DEBTS = 256

#: Others may use a quota, too: at most so many of their calls for each of ours are reckoned with.
_MOST_FOREIGN = 4.0

#: What is presumed of a quota that is new to us: that others take a fifth of it.
_PRESUMED_FOREIGN = 0.25

#: The quickest of so many round trips tells how quick one can be.
_ENOUGH_ANSWERS = 4

#: So many instants are remembered of what was sent until then.
_MOST_MARKS = 8

#: They are this many seconds apart, or more. A server that is so near that this makes no difference
#: needs none: it is read sooner than anyone plans.
_LEAST_MARK = 0.001

#: So many calls are foreseen at once: the rest of what is left may be others' by then.
_FORESEEN = 64

#: So many plain answers are taken in at one go, at most.
MOST_ANSWERS = 64

#: So many windows keep some at once, of all that are numbered together.
_MOST_NOTED = 256

#: More than any server says is left (15 digits are read): no answer is plain.
_NONE_IS_PLAIN = 10**15

#: Who waits for the next probe sends it within a second of the instant at which it may go.
_FOUND_SOON = 1.0

#: So many answers in a row that tell of other windows where this one should be told of end it: a
#: header that was garbled once must not have every call be a probe for ever.
_MOST_SILENCES = 3

#: Of seconds that are told as a whole number, up to one was added or taken off; of others, the
#: second decimal may be the last.
_ROUNDING = 1.0
_FINE_ROUNDING = 0.01

#: A lateness that was found again so often halves after 2 to that power of clean rollovers.
_MOST_RELAPSES = 6

#: The unit of windows that count calls in flight (the IETF's draft, quota units).
_IN_FLIGHT = "concurrent-requests"

#: Timers are late by a millisecond or more. A schedule with gaps below this goes on from its
#: last slot, catching up by at most `_CATCH_UP`; a coarser one never goes faster than its gap.
_FINE_GAP = 0.02
_CATCH_UP = 0.05


#: The earliest and the latest reset that an answer allows for.
Edges = tuple[float, float]

#: An answer that is yet to be taken in: the newest number that its call knew, when that was sent
#: and answered, what is left, the answer's own number, and what was foreseen then.
Answer = tuple[int, float, float, int, int, int]

#: In place of the answers of a window that is yet to have a plain one.
_NO_ANSWERS: list[Answer] = []


def _backoff(times: int) -> float:
    """1, 2, 4 ... 60 seconds; the exponent is capped as well."""
    return min(LONGEST_BACKOFF, 2.0 ** min(times, 6))


def ghost_span(round_trip: float) -> float:
    """Return for how many seconds after its loss a call may still be counted."""
    return max(1.0, 2.0 * round_trip)


def _rounding(seconds: float) -> float:
    """Return by how much seconds that were told may be off."""
    return _ROUNDING if seconds == int(seconds) else _FINE_ROUNDING


def next_slot(slot: float, gap: float, now: float, since: float) -> float:
    """Advance a schedule by one grant to a caller that has waited since then."""
    if gap >= _FINE_GAP:
        return max(slot, now) + gap
    return max(slot, since, now - _CATCH_UP) + gap


class NeverFitsError(ValueError):
    """A call costs more than some window can ever hold."""


class Cost(int):
    """What a call takes: so many requests, and other units of windows that count those."""

    units: Mapping[str, int]

    def __new__(cls, units: Mapping[str, int]) -> Self:
        """Make one; a call is one request unless ``units`` has another number."""
        cost = super().__new__(cls, units.get("requests", 1))
        cost.units = units
        return cost

    def __repr__(self) -> str:
        return f"Cost({dict(self.units)})"


def cost_in(unit: str, cost: int) -> int:
    """Return what a call takes of a window that counts a unit; a plain number is for all."""
    return cost.units.get(unit, 1) if isinstance(cost, Cost) else cost


class Numbering:
    """Numbers whatever becomes known, in one order over all windows."""

    __slots__ = ("_noted", "last")

    def __init__(self) -> None:
        self.last = 0
        #: Windows that have answers to take in, or had some a moment ago; a dict keeps their order.
        self._noted: dict[Window, None] = {}

    def note(self, window: Window) -> None:
        """Note that a window begins to keep answers: of many windows the first takes its own in.

        A quota that nobody calls any more must not keep them: each takes 240 bytes.
        """
        noted = self._noted
        noted.pop(window, None)
        noted[window] = None
        if len(noted) > _MOST_NOTED:
            first = next(iter(noted))
            del noted[first]
            first.take_in()

    def forget(self, window: Window) -> None:
        """Keep a window no more that nobody uses, nor its API's clock."""
        self._noted.pop(window, None)

    def next(self) -> int:
        """Return the next number."""
        self.last += 1
        return self.last


class Probing:
    """One call finds out while the rest wait; its failures share one back-off."""

    __slots__ = ("hold", "misses", "out", "refusals", "sent", "turn")

    def __init__(self) -> None:
        self.turn = 0
        self.out = 0
        self.sent = LONG_AGO
        self.misses = 0
        self.refusals = 0
        self.hold = LONG_AGO

    def opens(self, round_trip: float) -> float:
        """Return the instant from which a probe may go."""
        if self.out == 0:
            return self.hold
        if self.out == 1:
            # A second one, since the first may be a slow upload or lost. Never a third.
            return max(self.hold, self.sent + max(2.0, 3.0 * round_trip))
        return INF

    def start(self, now: float) -> tuple[Probing, int]:
        """Note that a probe goes."""
        self.out += 1
        self.sent = now
        return self, self.turn

    def ended(self, turn: int) -> None:
        """Note that a probe of that turn has been settled, one way or another."""
        if turn == self.turn:
            self.out -= 1

    def missed(self, now: float) -> None:
        """Back off after a probe without an answer: the next at once, then 1, 2, 4 ... 60 s."""
        self.misses += 1
        if self.misses > 1:
            self.hold = max(self.hold, now + _backoff(self.misses - 2))

    def refused(self, now: float) -> None:
        """Back off after a refused probe: 1, 2, 4 ... 60 s."""
        self.hold = max(self.hold, now + _backoff(self.refusals))
        self.refusals += 1

    def answered(self) -> None:
        """End the back-off of lost probes: somebody is there."""
        self.misses = 0

    def confirmed(self) -> None:
        """End every back-off: a reading has come."""
        self.misses = self.refusals = 0
        self.hold = LONG_AGO

    def restart(self) -> None:
        """Begin a turn of its own; probes of earlier turns no longer count."""
        self.turn += 1
        self.out = 0

    @property
    def is_at_rest(self) -> bool:
        """Whether no probe is out, and none has failed."""
        return not (self.out or self.misses or self.refusals) and self.hold == -INF

    @property
    def patience(self) -> float:
        """Seconds that a caller may have waited without being failed by the next loss."""
        return _backoff(self.misses - 2) if self.misses > MISSES_BEFORE_FAILING else INF


class Debts:
    """Calls that the server may have counted and whose reading is missing, with their costs.

    At most ``most`` of each kind are told apart; the newest are put together, at the later
    instant and number. *Unplaced* are those whose reading told no reset: it holds for the window
    that goes on, and is missing once another has begun that may have counted them instead.
    """

    __slots__ = ("_ghosts", "_most", "_unplaced", "_unread", "ghosts", "unread")

    def __init__(self, most: int = _MOST_DEBTS) -> None:
        self._most = most
        #: (number, cost), by rising number.
        self._unread: list[tuple[int, int]] = []
        #: (clear_after, number, cost).
        self._ghosts: list[tuple[float, int, int]] = []
        #: (number, cost), by rising number; of no effect while the same window goes on.
        self._unplaced: list[tuple[int, int]] = []
        self.unread = 0
        self.ghosts = 0

    def add_unread(self, number: int, cost: int) -> None:
        """Note an answer without a usable reading, with its own number."""
        self.unread += cost
        self._add(self._unread, number, cost)

    def add_unplaced(self, number: int, cost: int) -> None:
        """Note a reading that told no reset, with its own number."""
        self._add(self._unplaced, number, cost)

    def _add(self, debts: list[tuple[int, int]], number: int, cost: int) -> None:
        if len(debts) >= self._most:
            cost += debts.pop()[1]
        debts.append((number, cost))

    def begin(self, now: float) -> None:
        """Owe what is unplaced: another window has begun, and the next call will tell."""
        for number, cost in self._unplaced:
            self.add_ghost(now, number, cost)
        self._unplaced.clear()

    def add_ghost(self, clear_after: float, number: int, cost: int) -> None:
        """Note a call without an answer; one sent from then on, knowing that number, will tell."""
        self.ghosts += cost
        if len(self._ghosts) >= self._most:
            latest, newest, others = self._ghosts.pop()
            clear_after, number, cost = max(latest, clear_after), max(newest, number), others + cost
        self._ghosts.append((clear_after, number, cost))

    def clear(self, known: int, sent: float) -> None:
        """Forget what a reading of a call sent then, knowing that number, has in it."""
        while self._unread and self._unread[0][0] <= known:
            self.unread -= self._unread.pop(0)[1]
        while self._unplaced and self._unplaced[0][0] <= known:
            self._unplaced.pop(0)
        if self.ghosts:
            self._ghosts = [ghost for ghost in self._ghosts if ghost[0] > sent or ghost[1] > known]
            self.ghosts = sum(ghost[-1] for ghost in self._ghosts)

    @property
    def are_none(self) -> bool:
        """Whether there is nothing that a reading would clear."""
        return not (self._unread or self._ghosts or self._unplaced)

    @property
    def newest_ghost(self) -> float:
        """The instant from which a call clears every ghost; minus infinity without any."""
        return max((ghost[0] for ghost in self._ghosts), default=-INF)

    def absorb(self, other: Debts) -> None:
        """Take over what another key owes."""
        self._unread = sorted([*self._unread, *other._unread])
        self._unplaced = sorted([*self._unplaced, *other._unplaced])
        self._ghosts += other._ghosts
        self.unread += other.unread
        self.ghosts += other.ghosts


class Foreign:
    """Calls that others make of the same quota, learned from what `remaining` falls too fast by.

    A sole consumer can explain every number that it reads by calls of its own. What it cannot
    explain is what others use, and tells how many tokens may be gone before a call arrives.
    """

    __slots__ = (
        "_answers",
        "_at_first",
        "_before",
        "_marks",
        "_others",
        "_presumed",
        "_quickest",
        "_under_way",
        "next_mark",
        "own",
    )

    def __init__(self, presumed: float = _PRESUMED_FOREIGN) -> None:
        #: Calls of others, and of ours, in this window; and their ratio in those before.
        self._others = 0
        self.own = 0
        self._before = 0.0
        #: What that ratio is taken for until a whole window has told.
        self._presumed = presumed
        #: What was left before the first of ours.
        self._at_first = 0
        self._quickest = INF
        self._answers = 0
        #: No call is in a number that is read within so many seconds of its sending: an eighth of
        #: the quickest round trip, since all so far may have had to connect.
        self._under_way = 0.0
        #: (instant, what calls sent until then explain), a few for that time.
        self._marks: list[tuple[float, int]] = []
        #: When the next of those is due, at a call of ours.
        self.next_mark = LONG_AGO

    @property
    def explained(self) -> int:
        """The lowest remaining that calls of ours explain."""
        return self._at_first - self.own

    @property
    def is_seen(self) -> bool:
        """Whether any were seen."""
        return self._others > 0 or self._before > 0

    @property
    def rate(self) -> float:
        """Calls of others for each of ours."""
        return max(self._seen, self._presumed)

    @property
    def _seen(self) -> float:
        return min(_MOST_FOREIGN, max(self._others / max(1, self.own), self._before))

    def begin(self, explained: int) -> None:
        """Begin a window; what was learned in the last one halves."""
        if self._answers:
            self._presumed = 0.0
        if self.own:
            self._before /= 2
            self._before = self._seen
        self._others = self.own = 0
        self._at_first = explained
        self._marks.clear()

    def take(self, now: float, cost: int) -> None:
        """Note a call of ours."""
        if now >= self.next_mark:
            self.mark(now)
        self.own += cost

    def mark(self, now: float) -> None:
        """Remember what calls of ours that were sent until now explain."""
        self._marks.append((now, self.explained))
        del self._marks[:-_MOST_MARKS]
        self.next_mark = now + max(_LEAST_MARK, self._under_way / 4)

    def give_back(self, cost: int) -> None:
        """Note that a call of ours was not counted: it never left, or was refused."""
        self.own -= cost
        self._marks.clear()

    def observe(
        self, now: float, remaining: int, round_trip: float, explained: int | None = None
    ) -> None:
        """Learn from a reading; if others have gone since, of when ours explained so much."""
        if self._answers < _ENOUGH_ANSWERS or round_trip < self._quickest:
            self._time(round_trip)
        if marks := self._marks:
            told = now - self._under_way
            while marks and marks[0][0] <= told:
                del marks[0]
        if marks:
            explained = marks[0][1]
        elif explained is None:
            explained = self.explained
        others = explained - remaining
        if others > self._others:
            self._others = others

    @property
    def is_near(self) -> bool:
        """Whether no mark is needed: calls are read as soon as they are sent."""
        return self.next_mark == INF

    def observe_all(self, unexplained: int) -> None:
        """Learn from readings of a server that is near, at one go.

        ``unexplained`` is the most that one of them fell short of what `explained` says.
        """
        self._others = max(self._others, unexplained)

    def _time(self, round_trip: float) -> None:
        self._answers += 1
        self._quickest = min(self._quickest, round_trip)
        if self._answers >= _ENOUGH_ANSWERS:
            self._under_way = self._quickest / 8
            if self._under_way < _LEAST_MARK:
                self._marks.clear()
                self.next_mark = INF

    def margin(self, in_flight: int) -> float:
        """Tokens that others may take while so many calls of ours are on their way.

        What is expected and twice its spread: so the last tokens are asked for one at a time.
        """
        expected = self.rate * in_flight
        return expected + 2.0 * math.sqrt(expected)


#: What a window of which nothing was known takes over from one that turned out to be it.
_BELIEF = (
    *("observations", "is_confirmed", "limit", "counts_down", "reset", "low"),
    *("reset_number", "ends", "seen", "span", "late", "relapses", "clean", "doubts"),
)


class Window:
    """What we believe of one window that a server announces."""

    __slots__ = (
        "answers",
        "blocked",
        "bucket",
        "buckets",
        "clean",
        "clock",
        "clock_changes",
        "counts_down",
        "debts",
        "doubts",
        "ends",
        "foreign",
        "foreseen",
        "foreseen_until",
        "frame",
        "in_flight",
        "is_confirmed",
        "is_plain",
        "is_shown_in_time",
        "is_untold",
        "key",
        "kind",
        "late",
        "least",
        "limit",
        "low",
        "numbering",
        "observations",
        "probing",
        "promised",
        "refill",
        "relapses",
        "reserve",
        "reset",
        "reset_number",
        "round_trip",
        "seen",
        "shut",
        "silences",
        "slot",
        "span",
    )

    def __init__(
        self, kind: WindowKind, clock: ServerClock, numbering: Numbering, key: Hashable
    ) -> None:
        self.kind = kind
        #: Where its keeper finds it again.
        self.key = key
        self.clock = clock
        self.numbering = numbering
        #: (number, remaining), both rising: the first is the floor.
        self.observations: list[tuple[int, int]] = []
        self.is_confirmed = False
        self.limit: int | None = None
        #: The server's own name for what it counts, if it told one.
        self.bucket = ""
        #: Whether resets are told as seconds from the answer: then they are instants of our own
        #: clock, at the latest ``reset`` and at the earliest ``low``. Else both are the epoch that
        #: was told.
        self.counts_down = False
        self.reset: float | None = None
        self.low = LONG_AGO
        self.reset_number = 0
        self.ends = LONG_AGO
        self.seen = LONG_AGO
        #: The length, as far as it was seen: never more than it is, for estimates.
        self.span = 0.0
        self.late = 0.0
        #: How often a lateness was found again before it was forgotten, and rollovers since.
        self.relapses = 0
        self.clean = 0
        self.doubts = 0
        #: Answers in a row that told of other windows only, to its probes or in its turn; and
        #: whether, since there were too many, only refusals have told of it.
        self.silences = 0
        self.is_untold = False
        #: Of one that takes turns: whether it is shown before it is spent. None if nobody knows:
        #: servers that always show the same limit show another one when that refuses a call.
        self.is_shown_in_time: bool | None = None
        #: Whether all goes as it should. Then so many plain calls may go until then without asking,
        #: of those that were promised to callers who spare so much, for as long as no answer says
        #: that less than `least` is left.
        self.is_plain = False
        self.foreseen = self.promised = 0
        self.reserve = 0.0
        self.foreseen_until = LONG_AGO
        self.least = _NONE_IS_PLAIN
        #: What they were answered, until somebody wants to know: `take_in`.
        self.answers = _NO_ANSWERS
        #: What the clock was like when its end was looked at last.
        self.clock_changes = -1
        #: What its last answer has in common with those that are plain.
        self.frame: Frame | None = None
        self.shut = LONG_AGO
        self.refill = Refill() if kind.refills else None
        self.slot = LONG_AGO
        self.round_trip = 0.0
        self.in_flight = 0
        self.debts = Debts()
        self.foreign = Foreign(0.0 if kind.unit == _IN_FLIGHT else _PRESUMED_FOREIGN)
        self.probing = Probing()
        #: A dict, as thousands of users may share a window, and each may be forgotten.
        self.buckets: dict[Bucket, None] = {}
        #: For whoever keeps the waiters: who waits for this window.
        self.blocked: Heap[Any] = Heap()

    def __repr__(self) -> str:
        left = self.floor if self.is_confirmed else "?"
        limit = "?" if self.limit is None else self.limit
        return f"<Window {self.kind.name} {left}/{limit}, {self.in_flight} in flight>"

    @property
    def floor(self) -> int:
        """The lowest remaining that still speaks."""
        self.take_in()
        return self.observations[0][1]

    @property
    def available(self) -> int:
        """Tokens that may be taken; never below 0, and 0 while the window is unconfirmed."""
        if not self.is_confirmed:
            return 0
        return max(0, self.floor - self.in_flight - self.debts.unread - self.debts.ghosts)

    @property
    def unit(self) -> str:
        """What it counts."""
        return self.kind.unit

    def cost_of(self, granted: Granted) -> int:
        """Return what a call takes of this window."""
        return cost_in(self.unit, granted.cost)

    # Asking ------------------------------------------------------------------------------------

    def opens(self, now: float, cost: int, reserve: float, even: bool) -> float:
        """Return the instant from which a call may go: now or earlier means at once."""
        return max(self._opens(now, cost, reserve, even), self.shut)

    def take(self, now: float, cost: int, since: float, even: bool) -> tuple[Probing, int] | None:
        """Take tokens that `opens` said are there; return the probe if the call is one."""
        left = self.available
        self.in_flight += cost
        self.foreign.take(now, cost)
        if left < cost:
            # One that nobody tells of any more has no probes.
            return self.probing.start(now) if self.is_confirmed or self.is_in_doubt else None
        if even and cost and self.reset is not None:
            self.slot = next_slot(self.slot, cost * (self.ends - now) / left, now, since)
        return None

    def _spared(self, reserve: float) -> float:
        """Tokens that a call must leave: for interactive ones, and for other consumers."""
        spared: float = self._kept(reserve) if reserve else 0
        if self.in_flight and self.foreign.rate:
            spared += self.foreign.margin(self.in_flight)
        return spared

    def _kept(self, reserve: float) -> int:
        """Tokens kept for interactive calls; one is always left for the others."""
        return min(int(reserve * self.limit), self.limit - 1) if self.limit else 0

    @property
    def is_in_doubt(self) -> bool:
        """Whether a probe has to tell what is left."""
        return not self.is_confirmed and self.silences < _MOST_SILENCES

    @property
    def _is_passed_over(self) -> bool:
        """Whether it may be gone: the last answer showed another window in its turn."""
        return self.silences > 0 and bool(self.kind.turns)

    def _opens(self, now: float, cost: int, reserve: float, even: bool) -> float:
        if self.is_confirmed:
            left = self.observations[0][1] - self.in_flight - self.debts.unread - self.debts.ghosts
            is_there = left >= cost + self._spared(reserve)
            if not is_there or now >= self.ends:
                self._pass(now)
            if self.is_confirmed:
                if is_there:
                    return self.slot if even else -INF
                return self._opens_when_spent(now, cost, left, reserve)
        return self._opens_in_doubt()

    def _opens_in_doubt(self) -> float:
        """When a probe may go; anyone may, where nobody tells of the window any more."""
        return self.probing.opens(self.round_trip) if self.is_in_doubt else -INF

    def _opens_when_spent(self, now: float, cost: int, left: int, reserve: float) -> float:
        """At the reset; or if only calls without an answer block, one goes to see before."""
        if self.in_flight:
            return self.ends
        if left < cost <= left + self.debts.ghosts:
            return self._next_probe_of_ghosts()
        if self._is_passed_over:
            # It has had its turn, and another window was shown: who goes now will tell.
            self._doubt()
            self.reset = None
            return self._opens_in_doubt()
        if self.reset is None:
            # Spent, and nobody knows until when: probe after 1 s, doubling to 60 s.
            self._doubt()
            self.probing.refused(now)
            return self.probing.hold
        return self._refilled(cost + self._kept(reserve) - left)

    def _refilled(self, missing: int) -> float:
        """When so many tokens have come back: at the reset, or one by one before."""
        if self.refill is None:
            return self.ends
        # Who goes early is a probe: after one that was lost the next waits its time.
        early = max(self.refill.opens(self.seen, missing), self.probing.hold)
        if early < self.ends - OTHER_BACK_END:
            return early
        # What is rounded, or one back end's, is no other instant. Where each call has a reset of
        # its own, one that is rounded down would have each refused.
        return max(early, self.ends) if self.refill.is_proven and early < INF else self.ends

    def expect(self, now: float, ahead: int, reserve: float) -> float:
        """Return the earliest instant for a caller behind so many tokens; a lower bound."""
        self.take_in()
        at = max(now, self.shut)
        ahead += self._kept(reserve)
        if self.is_confirmed and self._is_passed_over:
            return at
        if self.is_confirmed and now < self.ends:
            # Calls in flight and ghosts may be in the floor already: then it is all there.
            # Not if even without the ghosts nobody may go to see.
            may_see = self.debts.ghosts and self.floor > self.debts.unread
            doubtful = self.in_flight or may_see
            ahead -= self.floor if doubtful else self.available
            if ahead < 0:
                only_ghosts = not (self.available or self.in_flight) and self.debts.ghosts
                return max(at, self._next_probe_of_ghosts()) if only_ghosts else at
            at = max(at, self._refilled(1))
        elif not self.is_confirmed and not self.in_flight:
            at = max(at, self.probing.hold)
        if not self.limit:
            return at
        if self.refill is not None and self.refill.is_known:
            # One by one, for those ahead as well: since what was seen, or from all tokens on.
            if not self.is_confirmed:
                return self.refill.soonest(at, ahead + 1 - self.limit)
            return max(at, self.refill.soonest(self.seen - 2 * self.round_trip, ahead + 1))
        return at + ahead // self.limit * self.span  # of 0 s, where nobody has told it

    def _next_probe_of_ghosts(self) -> float:
        """When one goes to see what calls without an answer have taken."""
        return min(self.ends, max(self.debts.newest_ghost, self.probing.hold))

    # What goes as it should --------------------------------------------------------------------

    def foresee(self, now: float, reserve: float) -> None:
        """Find out how many plain calls may go without asking, if nothing is in doubt."""
        self.take_in()
        if not self._goes_well(now):
            self.upset()
            return
        self.is_plain = True
        if self.answers is _NO_ANSWERS:
            self.answers = []
        self.clock_changes = -1  # the reset may be another
        self.expect_as(self.frame)
        self.reserve = reserve
        self.promised = self.foreseen = self._foresees()
        self.foreseen_until = self.foreseen_to()

    def upset(self) -> None:
        """All is to be asked anew."""
        self.take_in()
        self.is_plain = False
        self.promised = self.foreseen = 0
        self.least = _NONE_IS_PLAIN

    def _goes_well(self, now: float) -> bool:
        """Whether nothing but a number and a reset is known of it, and nothing is in doubt."""
        return (
            self.is_confirmed
            and now < self.ends
            and self.reset is not None
            and (self.counts_down or self.low == self.reset)
            and self.shut <= now
            and self.refill is None
            and not (self.silences or self.doubts or self.is_untold)
            and self.debts.are_none
            and not self.kind.turns
            and self.kind.unit != _IN_FLIGHT
            and self.probing.is_at_rest
            and (len(self.buckets) == 1 or not self.blocked)
        )

    def _foresees(self) -> int:
        """Return how many plain calls may surely go, whatever others take meanwhile.

        With so much left as `least` says the rule lets all of them go, and those that are in flight
        be without an answer, even where others take the most that is reckoned with.
        """
        kept, most = self._kept(self.reserve), 1.0 + _MOST_FOREIGN
        # Of m calls, m + rate * m + 2 * sqrt(rate * m) is what is to be left, and they take m.
        root = math.sqrt(_MOST_FOREIGN + (most + 1.0) * max(0, self.observations[0][1] - kept))
        calls = int(((root - math.sqrt(_MOST_FOREIGN)) / (most + 1.0)) ** 2)
        calls = max(0, min(_FORESEEN, calls - self.in_flight))
        out = self.in_flight + calls
        self.least = kept + math.ceil(most * out + 2.0 * math.sqrt(_MOST_FOREIGN * out))
        return calls

    def foreseen_to(self) -> float:
        """Return the instant until which what is foreseen holds without another look."""
        return min(self.ends, self.foreign.next_mark)

    def take_plainly(self, now: float) -> bool:
        """Take a token if any can be foreseen now: what was is used up, or too old."""
        if not self.is_plain or now >= self.ends:
            return False
        self.take_in()
        if now >= self.foreign.next_mark:
            self.foreign.mark(now)
        if self.foreseen <= 0:
            self.promised = self.foreseen = self._foresees()
        self.foreseen_until = self.foreseen_to()
        if self.foreseen <= 0:
            return False
        self.foreseen -= 1
        self.in_flight += 1
        return True

    def tells_the_same(self, reading: WindowReading) -> bool:
        """Whether an answer tells of the same limit and the same reset as the ones before."""
        if reading.kind is not self.kind or reading.limit != self.limit:
            return False
        if reading.bucket != self.bucket or (reading.resets_in is None) is self.counts_down:
            return False
        return self.counts_down or reading.reset == self.reset

    def take_in(self) -> None:
        """Learn what plain calls have taken, and from their answers, as `observe` would have.

        Between two calls of one caller a processor has to fetch anew whatever looks at each answer;
        of many at one go it is there.
        """
        foreign, answers = self.foreign, self.answers
        if self.promised > self.foreseen:
            foreign.own += self.promised - self.foreseen
            self.promised = self.foreseen
        if answers:
            self._take_all_in(answers)

    def _take_all_in(self, answers: list[Answer]) -> None:
        foreign, round_trip = self.foreign, self.round_trip
        explained = foreign.explained - self.foreseen
        newest, unexplained = 0, -_NONE_IS_PLAIN
        for known, sent, now, remaining, _, then in answers:
            took = now - sent
            if took > round_trip:  # as `time` has it
                round_trip = min(took, LONGEST_ROUND_TRIP)
            else:
                round_trip += (took - round_trip) / 16
            if known > newest:
                newest = known
            # What has gone since, of what was foreseen then, explains nothing.
            if then - remaining > unexplained:
                unexplained = then - remaining
        self.round_trip = round_trip
        self.seen = answers[-1][2]
        if foreign.is_near:
            foreign.observe_all(explained + unexplained)
        else:
            for _, sent, now, remaining, _, then in answers:
                foreign.observe(now, remaining, now - sent, explained + then)
        self._fold_all(answers, newest)
        answers.clear()

    def _fold_all(self, answers: list[Answer], newest: int) -> None:
        """Fold answers of calls of which one knew the number ``newest``, and none a newer one."""
        self._retire(newest)
        lowest, speak = _NONE_IS_PLAIN, []
        for _, _, _, remaining, number, _ in reversed(answers):
            if number <= newest:
                break
            if remaining < lowest:  # than what all later ones say
                lowest = remaining
                speak.append((number, remaining))
        self._outdo(lowest)
        self.observations += reversed(speak)

    def goes_on(self, sent: float, now: float, resets_in: float | None) -> bool:
        """Take in what a plain answer tells of the end: the same, or seconds that may mean it."""
        reset, low, ceiling = self.reset, self.low, self.kind.ceiling
        if reset is None:
            return False
        if resets_in is not None:
            earliest, latest = sent + resets_in - _rounding(resets_in), now + resets_in
            if not 0.0 < resets_in <= ceiling or earliest > reset or low > latest:
                return False
            reset, low = min(reset, latest), max(low, earliest)
        ends = self._local(reset) + self.late
        if not now < ends <= self.seen + ceiling:
            return False
        self.reset, self.low, self.ends = reset, low, ends
        self.foreseen_until = min(self.foreseen_until, ends)
        self.clock_changes = self.clock.changes
        if self.frame is not None and self.frame.date != self.clock.date:
            self.frame = None
        return True

    def expect_as(self, frame: Frame | None) -> None:
        """Remember how an answer put it, for as long as the next ones put it so."""
        self.frame = frame if frame is not None and self.tells_the_same(frame.window) else None

    def heard(self, granted: Granted, now: float, reading: WindowReading) -> None:
        """Note a reading that was taken in plainly; for those who tell it others."""

    @property
    def frees(self) -> bool:
        """Whether a call that was answered plainly may have set another one free."""
        return True

    # Settling ----------------------------------------------------------------------------------

    def give_back(self, cost: int) -> None:
        """Note that a call is no longer in flight."""
        self.in_flight -= cost

    def observe(
        self, granted: Granted, now: float, reading: WindowReading, *, refused: bool
    ) -> None:
        """Learn from a call's answer."""
        if not refused:
            self.is_untold = False
            self.is_shown_in_time = self.is_shown_in_time is not False
        elif self.silences:
            self.is_shown_in_time = False
        self.silences = 0
        if reading.limit is not None:
            self.limit = reading.limit
        if refused:
            self.foreign.give_back(self.cost_of(granted))
        if self.is_confirmed:
            self._pass(now)
        if self.kind.unit == _IN_FLIGHT:
            reading = self._with_ours(0 if refused else self.cost_of(granted), reading)
        told = self._told(reading, granted.sent, now)
        is_early = self.is_confirmed and granted.is_probe_of(self.probing)
        if self.is_confirmed:
            self._fold(granted, now, reading, told)
        else:
            self._answer_probe(granted, now, reading, told, refused=refused)
        if self.refill is not None:
            self.refill.answered(early=is_early, refused=refused)
            self._learn_refill(self.refill, granted, now, reading)

    def _learn_refill(
        self, refill: Refill, granted: Granted, now: float, reading: WindowReading
    ) -> None:
        if reading.resets_in is not None:
            rounding = _rounding(reading.resets_in)  # either way
            low, high = reading.resets_in - rounding, reading.resets_in + rounding
        elif reading.reset is not None:
            rounding = _rounding(reading.reset)
            low = self.clock.soonest(reading.reset) - rounding - now
            high = self.clock.local(reading.reset) + rounding - granted.sent
        else:
            return
        if reading.limit is not None:
            missing = reading.limit - reading.remaining
            refill.observe(granted.sent, now, missing, low, high)
        if not reading.remaining and 0 < high <= self.kind.ceiling:
            refill.tell(now + high)

    def _with_ours(self, ended: int, reading: WindowReading) -> WindowReading:
        """Add what our own calls take of calls in flight: they will give it back, as one has."""
        ours = self.in_flight + ended
        most = reading.limit if reading.limit is not None else reading.remaining + ours
        return reading._replace(remaining=min(most, reading.remaining + ours))

    def unread(
        self, granted: Granted, number: int, now: float, *, refused: bool, failed: bool
    ) -> None:
        """Note an answer that says nothing of this window.

        One that failed was perhaps not counted: the next call will tell, as after a loss.
        """
        is_probe = granted.is_probe_of(self.probing)
        if self.refill is not None and self.is_confirmed and is_probe and refused:
            self.refill.answered(early=True, refused=True)
        if failed and not (refused and is_probe):
            self.debts.add_ghost(now, number, self.cost_of(granted))
        else:
            self.debts.add_unread(number, self.cost_of(granted))
        if is_probe and refused:
            self.probing.refused(now)
        elif is_probe and failed:
            self.probing.missed(now)
        elif is_probe:
            self.probing.answered()

    def cached(self, granted: Granted, number: int, now: float) -> None:
        """Note a call that a cache answered: it may have reached the server, or not."""
        self.debts.add_ghost(now, number, self.cost_of(granted))

    def unsent(self, granted: Granted, now: float, *, failed: bool) -> None:
        """Note a call that never left; ``failed``: since nobody was there."""
        self.foreign.give_back(self.cost_of(granted))
        if failed and granted.is_probe_of(self.probing):
            self.probing.missed(now)

    def holds(self, now: float, granted: Granted) -> bool:
        """Whether calls like this one, which was refused, will wait for this window now.

        Not for one that only refusals tell of: it is as good as unannounced.
        """
        is_short = self.available < max(1, self.cost_of(granted))
        is_shut = self.shut > now or self.probing.hold > now or is_short
        return is_shut and not self.is_untold

    def passed_over(self, granted: Granted, remaining: int) -> None:
        """Note that a window was shown in its place that has so much left, by an accepted call.

        If this one had less, as was told before that call went, it would have been shown.
        """
        if not (self.is_confirmed and self.is_shown_in_time):
            return
        if remaining > self.floor and granted.known >= self.observations[-1][0]:
            self.left_out()

    @property
    def patience(self) -> float:
        """Seconds that a caller may have waited without being failed by the next loss."""
        return self.probing.patience

    def is_probe(self, granted: Granted) -> bool:
        """Whether a call was to find out what is left now."""
        return granted.is_probe_of(self.probing)

    def left_out(self) -> None:
        """Note that an answer that should have told of it told of other windows only."""
        self.silences += 1
        self.is_untold = self.silences >= _MOST_SILENCES

    def lost(self, granted: Granted, number: int, now: float) -> None:
        """Note a call that may have been counted and will never be answered."""
        self.debts.add_ghost(now + ghost_span(self.round_trip), number, self.cost_of(granted))
        if granted.is_probe_of(self.probing):
            self.probing.missed(now)

    def keep_shut(self, now: float, delay: float) -> None:
        """Let nothing go for so many seconds, or the ceiling of this kind of window."""
        until = now + min(delay, self.kind.ceiling)
        self.shut = max(self.shut, until)
        if self.refill is not None:
            self.refill.tell(until)

    def time(self, round_trip: float) -> None:
        """Remember the slowest round trip; it fades."""
        measured = min(LONGEST_ROUND_TRIP, round_trip)
        faded = self.round_trip + (measured - self.round_trip) / 16
        self.round_trip = max(faded, measured)

    def prime(self, reading: WindowReading) -> None:
        """Take a second-hand number: it may lower the floor, and replaces no probe."""
        if self.limit is None:
            self.limit = reading.limit
        told = None if reading.reset is None else (reading.reset, reading.reset)
        if self.is_confirmed and not self.counts_down and self._is_same(told):
            self._note(reading.remaining)

    def restore(self, now: float, reading: WindowReading) -> None:
        """Start from a state of an earlier run; one whose reset has passed says nothing."""
        self.limit = reading.limit
        told = self._told(reading, now, now)
        if told is not None and self._is_usable(told, now):
            self._open(now, reading.remaining, told)

    def absorb(self, other: Window) -> None:
        """Become one with another window that turned out to be this one."""
        self.upset()
        for bucket in other.buckets:
            bucket.replace(other, self)
        while (parked := other.blocked.first) is not None:
            other.blocked.discard(parked)
            parked.gate = self
            self.blocked.add(parked)
        self.debts.absorb(other.debts)
        self.round_trip = max(self.round_trip, other.round_trip)
        self.shut = max(self.shut, other.shut)
        if other.is_confirmed and self.seen == -INF:
            for name in _BELIEF:
                setattr(self, name, getattr(other, name))
        elif other.is_confirmed and self.is_confirmed:
            if other.counts_down is self.counts_down and other.reset is not None:
                self.reset = max(self.reset or -INF, other.reset)
                self.low = min(self.reset, max(self.low, other.low))
            merged = sorted([*self.observations, *other.observations])
            self.observations.clear()
            for number, remaining in merged:
                self._append(number, remaining)
            self._set_end()

    def _told(self, reading: WindowReading, sent: float, now: float) -> Edges | None:
        """Return the earliest and the latest reset that an answer allows for, None for neither.

        Seconds from the answer were written between sending and now, and are rounded, by most
        servers up. A server that changes the way it tells is believed from the next window on.
        """
        counts_down = reading.resets_in is not None
        if reading.resets_in is not None and reading.resets_in > self.kind.ceiling:
            # Nobody waits for so long; but it is no reason to ask every minute either.
            latest = now + self.kind.ceiling
            told = (latest, latest)
        elif reading.resets_in is not None:
            rounding = _rounding(reading.resets_in)
            told = (sent + reading.resets_in - rounding, now + reading.resets_in)
        elif reading.reset is not None:
            told = (reading.reset, reading.reset)
        else:
            return None
        if counts_down is not self.counts_down:
            if self.is_confirmed:
                return None
            self.counts_down = counts_down
            self.reset, self.low = None, -INF
        return told

    def _local(self, reset: float) -> float:
        """Return the latest instant of our clock at which the server may reach a reset."""
        return reset if self.counts_down else self.clock.local(reset)

    def _left(self, reset: float, now: float) -> float:
        """Return the seconds that are surely left until a reset that an answer has told of now."""
        return reset - now if self.counts_down else self.clock.left(reset, now)

    def _is_usable(self, told: Edges, now: float) -> bool:
        """Only a reset that lies ahead, and no further than this kind of window can reach."""
        return 0.0 < self._local(told[1]) - now <= self.kind.ceiling

    def _is_same(self, told: Edges | None) -> bool:
        """Whether two resets are one: within 2 s, or half of the window if that is less."""
        if told is None or self.reset is None:
            return False
        apart = max(told[0] - self.reset, self.low - told[1])
        return apart <= min(_SAME_RESET, self.span / 2)

    def _is_earlier(self, told: Edges) -> bool:
        return self.reset is not None and told[1] < self.low and not self._is_same(told)

    @property
    def _last_reset(self) -> float:
        """The reset, or the one that has passed if the server goes on beyond it."""
        return self.low if self.reset is None else self.reset

    def _is_of_next(self, told: Edges) -> bool:
        """Whether a reset is so late that the server has begun the next window meanwhile.

        It is, if it is later by more than half a window, and by more than back ends disagree.
        """
        if self._last_reset == -INF or (self.refill is not None and self.refill.is_known):
            return False  # where tokens come back one by one, each call that goes well moves it
        return told[0] - self._last_reset > max(OTHER_BACK_END, self.span / 2)

    def _fold(
        self, granted: Granted, now: float, reading: WindowReading, told: Edges | None
    ) -> None:
        """Before the reset every answer speaks of the current window, or of an older one."""
        knew_this_reset = granted.known >= self.reset_number
        is_usable = told is not None and self._is_usable(told, now)
        if told is not None and self._is_earlier(told) and not knew_this_reset:
            if not is_usable:
                return  # of a window that has passed
            if reading.remaining < self.floor:
                # Not surely older: back ends disagree. Until a later call tells, it counts.
                self.debts.add_unread(self.numbering.next(), self.cost_of(granted))
                return
        self.debts.clear(granted.known, granted.sent)
        has_risen = reading.remaining > self.floor
        if told is not None and is_usable and has_risen and self._is_of_next(told):
            self._open(now, reading.remaining, told)
            return
        self._retire(granted.known)
        self._note(reading.remaining)
        if told is None or not (is_usable or told[0] <= self._last_reset + _SAME_RESET):
            self.debts.add_unplaced(self.numbering.last, self.cost_of(granted))
        self.foreign.observe(now, reading.remaining, now - granted.sent)
        self.probing.confirmed()
        if told is not None and is_usable:
            self._move_reset(now, told)
        self.seen = now
        self._set_end()

    def _answer_probe(
        self,
        granted: Granted,
        now: float,
        reading: WindowReading,
        told: Edges | None,
        *,
        refused: bool,
    ) -> None:
        """After the reset only a later one opens the window; the old one means: not yet."""
        ahead = told if told is not None and self._is_usable(told, now) else None
        if ahead is not None and self._is_later(ahead):
            if granted.is_probe_of(self.probing) and not refused:
                self._learn_lateness(granted.sent)
            self.debts.clear(granted.known, granted.sent)
            self._open(now, reading.remaining, ahead)
        elif granted.known < self.reset_number:
            # A slow answer of the window before, or one that cannot be placed.
            if told is None:
                self.debts.add_unread(self.numbering.next(), self.cost_of(granted))
            elif self._is_same(told):
                # It counts if that window turns out to go on: a probe may have been ahead of it.
                self._note(reading.remaining)
        else:
            self.debts.clear(granted.known, granted.sent)
            if reading.remaining > 0 and not refused:
                # The old window goes on, or no reset is told. Its tokens are real.
                goes_on = told is not None and told[0] <= self._last_reset + _SAME_RESET
                self._retire(granted.known if goes_on else self.numbering.last)
                since = [left for _, left in self.observations]
                self._open(now, min([reading.remaining, *since]), None)
                self.low = self.low if goes_on else -INF
            elif ahead is not None and not refused:
                # This call got the last token, and the next one comes soon after the old reset.
                self._open(now, 0, ahead)
            else:
                self.probing.answered()
                self.probing.refused(now)

    def _is_later(self, told: Edges) -> bool:
        return not self._is_same(told) and not self._is_earlier(told)

    def _open(self, now: float, remaining: int, told: Edges | None) -> None:
        """Begin a window with a first reading."""
        self.debts.begin(now)
        self.observations.clear()
        self._note(remaining)
        self.foreign.begin(remaining - self.in_flight - self.debts.unread - self.debts.ghosts)
        self.is_confirmed = True
        self.probing.confirmed()
        self.seen = now
        self.doubts = 0
        self.slot = LONG_AGO
        if self.refill is not None:
            self.refill.forget()
        if told is not None:
            low, reset = told
            span = self._left(low, now)
            # Seen from its very start only after a rollover; else the longest seen counts.
            self.span = max(0.0, span if self.reset is not None else max(self.span, span))
            self.reset, self.low = reset, low
            self.reset_number = self.numbering.last
        else:
            self.reset = None
        self._set_end()

    def _pass(self, now: float) -> None:
        """The reset has passed: nothing is known until a probe has answered."""
        self._set_end()
        if now >= self.ends:
            self._doubt()

    def _doubt(self) -> None:
        self.upset()
        self.is_confirmed = False
        self.reset_number = self.numbering.next()
        self.probing.restart()

    def _retire(self, known: int) -> None:
        while self.observations and self.observations[0][0] <= known:
            self.observations.pop(0)

    def _note(self, remaining: int) -> None:
        self._append(self.numbering.next(), remaining)

    def _append(self, number: int, remaining: int) -> None:
        self._outdo(remaining)
        self.observations.append((number, remaining))

    def _outdo(self, remaining: int) -> None:
        while self.observations and self.observations[-1][1] >= remaining:
            self.observations.pop()

    def _move_reset(self, now: float, told: Edges) -> None:
        """Of two resets the later stands, unless answer after answer says otherwise.

        If they may be one instant, that instant is within the bounds of both.
        """
        low, reset = told
        if self.reset is None:
            self.reset, self.low = reset, low
            self.span = max(self.span, self._left(low, now))
            self.reset_number = self.numbering.last
        elif low <= self.reset and self.low <= reset:
            self.reset, self.low = min(self.reset, reset), max(self.low, low)
            self.doubts = 0
        elif reset > self.reset:
            if not self._is_same(told):
                self.reset_number = self.numbering.last
            self.reset, self.low = reset, low
            self.doubts = 0
        elif self._is_same(told):
            self.doubts = 0
        else:
            self.doubts += 1
            if self.doubts >= _DOUBTS:
                self.reset, self.low, self.doubts = reset, low, 0

    def _set_end(self) -> None:
        """A reset is in the server's clock, which becomes better known while we wait."""
        latest = self.seen + self.kind.ceiling
        if self.reset is None:
            self.ends = latest
        else:
            self.ends = min(self._local(self.reset) + self.late, latest)
        self.foreseen_until = min(self.foreseen_until, self.ends)

    def _learn_lateness(self, sent: float) -> None:
        """A server that refused at its own reset will do so again; clean rollovers forget it.

        The more slowly, the more often it was found again: a server that is always late, or that
        cuts its seconds off, would else refuse a call at every second reset.
        """
        if self.reset is None:
            return
        if self.probing.refusals:
            # Long after the last refusal, when nobody asked before, a call tells nothing.
            found = min(sent, self.probing.hold + _FOUND_SOON)
            self.relapses = min(self.relapses + 1, _MOST_RELAPSES) if self.late else 0
            self.clean = 0
            self.late = max(0.0, found - self._local(self.reset))
        else:
            self.clean += 1
            if self.clean >= 2**self.relapses:
                self.clean = 0
                self.late /= 2
        if self.late < _LEAST_LATENESS:
            self.late = 0.0
