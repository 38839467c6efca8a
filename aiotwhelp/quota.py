"""THE RULE: who may go, and when. Pure: no I/O, no clock; ``now`` is an argument.

A *window* counts calls against a limit until its reset. A *bucket* is the set of windows that one
call needs: it takes a token from each, all or none. What may be taken is

    available = floor - in_flight - debts

``floor``
    The lowest ``remaining`` among the observations that still speak. Observations are numbered;
    a call remembers the newest number at its grant, and its answer retires every observation it
    already knew. So answers of calls that were in flight together fold by minimum, in any order,
    and a later call's answer replaces, upwards too.
``in_flight``
    Granted and not yet settled. Each may or may not be counted in ``floor``; counting all of them
    is always safe and corrects itself.
``debts``
    Calls that may have been counted and whose reading is missing.

A window that nobody has confirmed, because it is new or because its reset has passed, lets one
probe through, and the rest wait for its answer.

All instants are seconds of one monotonic clock; a ``reset`` is in the server's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from random import random as uniform
from typing import NamedTuple, TypeVar

from aiotwhelp.headers import Reading, WindowReading
from aiotwhelp.leases import BucketGate, ColdGate, LeasedWindow, PaceGate
from aiotwhelp.ledger.port import Outcome
from aiotwhelp.local import ConcurrencyWindow, LocalWindow, RateWindow, Room
from aiotwhelp.windows import (
    INF,
    LONG_AGO,
    LONGEST_BACKOFF,
    LONGEST_ROUND_TRIP,
    MOST_ANSWERS,
    Cost,
    Debts,
    NeverFitsError,
    Numbering,
    Probing,
    Window,
    cost_in,
    ghost_span,
)

#: Header-less answers in a row that are counted: so many may be in flight then, and one more.
_MOST_BLANK = 2**16

#: Windows that a server may announce for one call. Those that it tells of no more make room.
_MOST_WINDOWS = 16

#: A refusal that holds for all routes shuts them for no longer than this.
_LONGEST_SHUT = 3600.0

#: The pause after a refusal that says no time doubles so often: of a minute, that is an hour.
_MOST_PAUSES = 6

#: What a key owes before it shows a window is told apart less finely: most never show one.
_FEW_DEBTS = 4

#: The learned pace: its first gap, for how long a refused gap is remembered, and the gap below
#: which there is none. All in seconds.
_FIRST_GAP = 0.25
_GAP_MEMORY = 600.0
_SMALLEST_GAP = 0.01


G = TypeVar("G", bound=BucketGate)


class NotUntil(NamedTuple):
    """Not now. ``at`` is when to ask again; infinity if only an answer in flight can tell.

    ``by`` is what blocks: settling a call of it may open it earlier.
    """

    at: float
    by: Gate


_new = object.__new__

#: What a plain call costs. CPython has one object for it; another one of the same value goes a
#: longer way, to the same end.
ONE = 1


class Granted:
    """One call may go. It is settled exactly once, by the bucket that granted it."""

    __slots__ = ("bucket", "cost", "is_settled", "known", "probes", "room", "sent")

    def __init__(self, bucket: Bucket, now: float, cost: int, room: Room | None) -> None:
        self.bucket = bucket
        self.room = room
        self.sent = now
        self.cost = cost
        self.known = bucket.numbering.last
        self.probes: list[tuple[Probing, int]] | None = None
        self.is_settled = False

    def is_probe_of(self, probing: Probing) -> bool:
        """Whether this call is a probe of the current turn of ``probing``."""
        return self.probes is not None and (probing, probing.turn) in self.probes


class Pace:
    """A gap from grant to grant, learned from refusals by a limit that no header shows."""

    __slots__ = ("_refused", "gap", "grown")

    def __init__(self) -> None:
        self.gap = 0.0
        #: The number of its last growth.
        self.grown = 0
        self._refused: list[tuple[float, float]] = []

    @property
    def least(self) -> float:
        """What the gap does not shrink below: more than what was refused, within the longest."""
        return min(LONGEST_BACKOFF, 1.1 * self._refused[0][1]) if self._refused else 0.0

    def refused(self, granted: Granted, now: float) -> bool:
        """Grow, unless the call was granted before the last growth; say whether it grew."""
        if granted.known < self.grown:
            return False
        while self._refused and self._refused[-1][1] <= self.gap:
            self._refused.pop()
        self._refused.append((now, self.gap))
        self.gap = min(LONGEST_BACKOFF, max(_FIRST_GAP, 2.0 * self.gap))
        self.grown = granted.bucket.numbering.next()
        return True

    def accepted(self, now: float) -> None:
        """Shrink by 5 %, but stay above what was refused in the last ten minutes."""
        while self._refused and self._refused[0][0] < now - _GAP_MEMORY:
            self._refused.pop(0)
        self.gap = max(0.95 * self.gap, self.least)
        if self.gap < _SMALLEST_GAP:
            self.gap = 0.0


#: In place of the buckets of an identity of which no calls are foreseen.
_NO_BUCKETS: list[Bucket] = []


class Household:
    """What all quotas of one identity have in common: a refusal may hold for every route."""

    __slots__ = ("__weakref__", "local", "pauses", "plain", "refused_until", "shut")

    def __init__(self, local: Iterable[tuple[str, LocalWindow]] = ()) -> None:
        self.shut = LONG_AGO
        #: The same, as far as calls of this process were told so: others are to hear of that.
        self.refused_until = LONG_AGO
        #: Refusals in a row that said no time.
        self.pauses = 0
        #: Limits of its own, by the routes that they are for.
        self.local = tuple(local)
        #: Buckets of which calls are foreseen; each knows its place, as there may be thousands.
        self.plain = _NO_BUCKETS

    def keep_shut(self, now: float, delay: float) -> None:
        """Let nothing go for so many seconds, or an hour."""
        self._upset()
        self.refused_until = self.shut = max(self.shut, now + min(delay, _LONGEST_SHUT))

    def hear(self, now: float, delay: float, pauses: int) -> None:
        """Let nothing go for so many seconds, as calls of another process were told."""
        self._upset()
        self.shut = max(self.shut, now + delay)
        self.pauses = max(self.pauses, pauses)

    def pause(self, granted: Granted, now: float, delay: float) -> None:
        """Let nothing go for a while, twice as long for a call that was sent after the last one."""
        if granted.sent >= self.shut:
            self.pauses += 1
        self.keep_shut(now, delay * 2.0 ** min(self.pauses - 1, _MOST_PAUSES))

    def foresees(self, bucket: Bucket) -> None:
        """Note that calls of a bucket are foreseen, for as long as nothing here says otherwise."""
        if bucket.place < 0:
            plain = self.plain = self.plain or []
            bucket.place = len(plain)
            plain.append(bucket)

    def forget(self, bucket: Bucket) -> None:
        """Keep a bucket no more; the last of them takes its place."""
        place, bucket.place = bucket.place, -1
        if place >= 0:
            last = self.plain.pop()
            if last is not bucket:
                self.plain[place], last.place = last, place

    def _upset(self) -> None:
        plain, self.plain = self.plain, _NO_BUCKETS
        for bucket in plain:
            bucket.place = -1
            bucket.upset()

    def accepted(self, granted: Granted) -> None:
        """End what doubles: a call that was sent after the last pause went well."""
        if granted.sent >= self.shut:
            self.pauses = 0


class Bucket:
    """The windows that one call needs, and what is known of a key before it shows any."""

    __slots__ = (
        "__weakref__",
        "answered",
        "blank",
        "calls",
        "cold",
        "debts",
        "extra",
        "find_window",
        "forget_window",
        "grants",
        "household",
        "key",
        "local",
        "next",
        "numbering",
        "pace",
        "paced",
        "place",
        "plain",
        "probing",
        "random",
        "round_trip",
        "shown",
        "units",
        "windows",
    )

    def __init__(
        self,
        find_window: FindWindow,
        numbering: Numbering,
        *,
        key: str = "",
        rates: Iterable[LocalWindow] = (),
        forget_window: Callable[[Window], None] | None = None,
        household: Household | None = None,
        random: Callable[[], float] = uniform,
        grants: type[Granted] = Granted,
    ) -> None:
        self.key = key
        #: What is handed out: whoever keeps the waiters may have a kind of its own.
        self.grants = grants
        self.find_window = find_window
        #: Is told of a window that nobody uses any more.
        self.forget_window = forget_window
        self.household = household if household is not None else Household()
        self.numbering = numbering
        self.random = random
        #: Windows that one of this bucket's own answers has shown. Until there is one, those
        #: that it probably shares: 2000 users of an app do not each find out that it is spent.
        self.windows: list[Window] = []
        #: Whether an own answer has shown windows, or a ledger has.
        self.shown = False
        #: What takes the place of windows until then, if a ledger shares the quota.
        self.cold: ColdGate | None = None
        #: A pace that all processes keep, then.
        self.paced: PaceGate | None = None
        self.local: tuple[LocalWindow, ...] = tuple(rates)
        for rate in self.local:
            rate.buckets[self] = None
        self.calls = 0
        #: What calls in flight take beyond one request each.
        self.extra = 0
        #: What calls in flight take of other units, beyond what they are in requests.
        self.units: dict[str, int] | None = None
        self.answered = 0
        self.blank = 0
        self.next = LONG_AGO
        #: The slowest, until windows are shown, which know their own.
        self.round_trip = 0.0
        self.pace = Pace()
        self.probing = Probing()
        #: What windows that are yet to be shown may have counted.
        self.debts = Debts(_FEW_DEBTS)
        #: The only window, for as long as nothing else is in the way of plain calls, of cost 1.
        self.plain: Window | None = None
        #: Its place among those of its household of which calls are foreseen; -1 if it has none.
        self.place = -1

    @property
    def in_flight(self) -> int:
        """What calls in flight take, in requests."""
        return self.calls + self.extra

    def __repr__(self) -> str:
        windows = ", ".join(map(repr, (*self.windows, *self.local))) or "nothing known"
        return f"<Bucket {self.key}: {windows}>"

    # Asking ------------------------------------------------------------------------------------

    def ask(
        self,
        now: float,
        cost: int = 1,
        *,
        since: float | None = None,
        reserve: float = 0.0,
        even: bool = False,
        room: Room | None = None,
    ) -> Granted | NotUntil:
        """Take a token from every window, or say when to ask again.

        ``since`` is when the caller began to wait; ``reserve`` is the share of each limit that
        this caller must leave; ``room`` bounds the calls in flight of whoever sends them. Raises
        NeverFitsError for a cost that no window can ever hold.
        """
        if room is not None and room.in_flight >= room.limit:
            return NotUntil(INF, room)
        plain = self.plain
        if cost is ONE and plain is not None and self.calls > self.answered and now < plain.ends:
            return NotUntil(INF, self)  # as TCP opens: one more in flight than has been answered
        at, by = self._opens(now, cost, reserve, even)
        if at > now:
            return NotUntil(at, by)
        return self._grant(now, cost, now if since is None else since, even, room)

    # Where all goes as it should ---------------------------------------------------------------

    def foresee(self, now: float, reserve: float) -> None:
        """Find out how many plain calls may surely go without asking again.

        Anything but grants of those, and answers that tell of the same reset, ends it.
        """
        if len(self.windows) != 1 or self.local or not self.shown:
            return
        owes = self.debts.unread or self.debts.ghosts
        if self.pace.gap or self.next > now or owes:
            return
        if self.household.shut > now or self.household.pauses:
            return
        window = self.windows[0]
        window.foresee(now, reserve)
        if window.is_plain:
            self.plain = window
            self.household.foresees(self)

    def take_foreseen(
        self, now: float, room: Room | None, grants: type[Granted] | None = None
    ) -> Granted | None:
        """Take a token for a plain call that was foreseen; None if there is none."""
        window = self.plain
        if window is None or self.calls > self.answered:
            return None
        if room is not None and room.in_flight >= room.limit:
            return None
        if window.foreseen > 0 and now < window.foreseen_until:
            window.foreseen -= 1
            window.in_flight += 1
        elif not window.take_plainly(now):
            return None
        if room is not None:
            room.in_flight += 1
        self.calls += 1
        # As `Granted.__init__` has it, which would take as long as all the rest.
        granted = _new(grants or self.grants)
        granted.bucket = self
        granted.cost = 1
        granted.is_settled = False
        granted.known = self.numbering.last
        granted.probes = None
        granted.room = room
        granted.sent = now
        return granted

    def answered_plainly(
        self, granted: Granted, now: float, remaining: int, resets_in: float | None
    ) -> bool:
        """Settle a call whose answer tells what the one before did, but for what is left.

        False if anything about it is not plain: then nothing was done.
        """
        window = self.plain
        if (
            window is None
            or granted.cost is not ONE
            or granted.probes is not None
            or granted.is_settled
            or remaining < window.least
            or now >= window.ends
            or (
                (resets_in is not None or window.clock_changes != window.clock.changes)
                and not window.goes_on(granted.sent, now, resets_in)
            )
        ):
            return False
        granted.is_settled = True
        if granted.room is not None:
            granted.room.in_flight -= 1
        self.calls -= 1
        self.answered += 1
        window.in_flight -= 1
        numbering, answers = self.numbering, window.answers
        if not answers:
            numbering.note(window)
        numbering.last = number = numbering.last + 1
        answers.append((granted.known, granted.sent, now, remaining, number, window.foreseen))
        if len(answers) >= MOST_ANSWERS:
            window.take_in()
        return True

    def upset(self) -> None:
        """All is to be asked anew."""
        self.plain = None
        for window in self.windows:
            window.upset()

    def expect(self, now: float, ahead: int, reserve: float = 0.0, cost: int = 1) -> float:
        """Return the earliest instant for a caller of that cost behind others; a lower bound.

        ``ahead`` is what those take in requests; what they take of other units is not known.
        """
        at = max(self.next, self.household.shut) + ahead * self.pace.least
        if not self.shown and not self.calls:
            at = max(at, self.probing.hold)
        for window in self.windows:
            if takes := cost_in(window.unit, cost):
                others = _ahead_of(cost, window.unit, ahead)
                at = max(at, window.expect(now, others + takes - 1, reserve))
        for rate in self.local:
            if takes := cost_in(rate.unit, cost):
                at = max(at, rate.expect(_ahead_of(cost, rate.unit, ahead) + takes - 1))
        return max(now, at)

    def _opens(self, now: float, cost: int, reserve: float, even: bool) -> tuple[float, Gate]:
        for window in self.windows:
            window.take_in()
        at: float = max(self.next, self.household.shut)
        by: Gate = self
        if self.pace.gap or not self.shown or self.calls > self.answered:
            for opens, gate in self._opens_itself(now, cost):
                if opens > at:
                    at, by = opens, gate
        for window in self.windows:
            takes = cost_in(window.unit, cost)
            if window.limit is not None and takes > window.limit:
                raise NeverFitsError(f"a call of cost {takes} never fits into {window!r}")
            opens = window.opens(now, takes, reserve, even)
            if opens > at:
                at, by = opens, window
        for rate in self.local:
            opens = rate.opens(now, cost_in(rate.unit, cost))
            if opens > at:
                at, by = opens, rate
        return at, by

    def _opens_itself(self, now: float, cost: int) -> Iterator[tuple[float, Gate]]:
        """Say when it opens beyond what windows allow, and what of it blocks until then."""
        if self.pace.gap:
            if (paced := _in_touch(self.paced)) is not None:
                yield paced.share.opens(now, 1), paced
            elif self.calls:
                yield INF, self  # single file
        if not self.shown:
            yield self._opens_cold(now, cost), self.cold or self
        elif self.calls > self.answered:
            yield INF, self  # as TCP opens

    def _opens_cold(self, now: float, cost: int) -> float:
        """Nothing is known of this key: one probe, or k + 1 after k answers without headers."""
        if (cold := _in_touch(self.cold)) is not None:
            return cold.share.opens(now, cost)
        if self.blank:
            return INF if self.calls > self.blank else -INF
        return self.probing.opens(self.round_trip)

    def _grant(self, now: float, cost: int, since: float, even: bool, room: Room | None) -> Granted:
        self.upset()
        granted = self.grants(self, now, cost, room)
        if room is not None:
            room.in_flight += 1
        self.calls += 1
        self.extra += cost - 1
        if isinstance(cost, Cost):
            self._count_units(cost, 1)
        for window in self.windows:
            takes = cost_in(window.unit, cost)
            probe = window.take(now, takes, since, even)
            if probe is not None:
                granted.probes = [*(granted.probes or ()), probe]
        for rate in self.local:
            rate.take(now, cost_in(rate.unit, cost), since)
        if not self.shown:
            probe = self._take_cold(now, cost)
            if probe is not None:
                granted.probes = [*(granted.probes or ()), probe]
        if self.pace.gap:
            if (paced := _in_touch(self.paced)) is not None:
                paced.share.take(now, 1)
            else:
                self.next = now + self.pace.gap
        return granted

    def _take_cold(self, now: float, cost: int) -> tuple[Probing, int] | None:
        if (cold := _in_touch(self.cold)) is not None:
            return cold.share.take(now, cost)
        return None if self.blank else self.probing.start(now)

    def _count_units(self, cost: Cost, sign: int) -> None:
        if self.units is None:
            self.units = {}
        for unit, amount in cost.units.items():
            self.units[unit] = self.units.get(unit, 0) + sign * (amount - cost)

    def _in_flight_of(self, window: Window | LocalWindow) -> int:
        """What this bucket's calls in flight take of a window."""
        return self.in_flight + (self.units.get(window.unit, 0) if self.units else 0)

    # Settling ----------------------------------------------------------------------------------

    def observed(
        self,
        granted: Granted,
        now: float,
        reading: Reading,
        *,
        status: int = 200,
        cost: int | None = None,
    ) -> None:
        """Settle a call with its answer, and with what it took if that became known by now.

        Raises RuntimeError if it is settled already.
        """
        plain, shown = self.plain, reading.windows
        if (
            plain is not None
            and status < 400
            and cost is None
            and len(shown) == 1
            and not (reading.refused or reading.cached)
            and plain.tells_the_same(told := shown[0])
            and self.answered_plainly(granted, now, told.remaining, told.resets_in)
        ):
            plain.heard(granted, now, told)
            return
        self._settle(granted)
        self._time(now - granted.sent)
        if cost is not None:
            for rate in self.local:
                rate.correct(cost_in(rate.unit, cost) - cost_in(rate.unit, granted.cost))
        refused = reading.refused
        number = self.numbering.next()
        if reading.cached and not refused:
            self._answered_by_cache(granted, number, now)
            return
        if shown:
            self._join_shown(shown)
            self.debts.clear(granted.known, granted.sent)
            self.answered += 1
            if self.cold is not None:
                self.cold.show(shown)
        # A refusal without headers right after a reset speaks of the reset.
        is_late = not shown and any(each.is_probe(granted) for each in self.windows)
        self._tell_windows(granted, number, now, shown, refused=refused, failed=status >= 500)
        if not self.shown:
            self.debts.add_ghost(now, number, granted.cost)
            self._answered_cold(granted, now, refused=refused, failed=status >= 500)
        if refused or status == 503:
            self._obey(granted, now, reading, hidden=refused and not is_late)
        else:
            self._go_on(granted, now, status)

    def refused_after_all(self, granted: Granted, now: float, reading: Reading) -> None:
        """Act on a refusal of a settled call that only the body of its answer told of."""
        self.upset()
        self._obey(granted, now, reading, hidden=True)

    def unsent(self, granted: Granted, now: float, *, failed: bool = False) -> None:
        """Settle a call that surely never left: its tokens go back.

        ``failed`` says that it was tried, and nobody was there.
        """
        self._settle(granted)
        for window in self.windows:
            window.unsent(granted, now, failed=failed)
        for rate in self.local:
            rate.returned(cost_in(rate.unit, granted.cost), granted.sent, now)
        if failed and granted.is_probe_of(self.probing):
            self.probing.missed(now)
        if failed:
            self._say_cold(granted, now, Outcome.UNSENT)
        elif self.cold is not None and not self.shown:
            self.cold.share.go_again(granted, now, granted.cost)

    def lost(self, granted: Granted, now: float) -> None:
        """Settle a call that may have been counted and whose answer will not come."""
        self._settle(granted)
        number = self.numbering.next()
        if not self.shown:
            self.blank //= 2
            self.debts.add_ghost(now + ghost_span(self.round_trip), number, granted.cost)
            if granted.is_probe_of(self.probing):
                self.probing.missed(now)
            self._say_cold(granted, now, Outcome.LOST)
        for window in self.windows:
            window.lost(granted, number, now)

    @property
    def patience(self) -> float:
        """Seconds that a caller may have waited without being failed, now that a call was lost."""
        itself = INF
        if not self.shown:
            cold = _in_touch(self.cold)
            itself = (self if cold is None else cold.share).probing.patience
        return min(itself, *(window.patience for window in self.windows), INF)

    @property
    def gates(self) -> tuple[Window | LocalWindow, ...]:
        """Every window, announced or local."""
        return (*self.windows, *self.local)

    def prime(self, readings: Iterable[WindowReading]) -> None:
        """Take second-hand numbers (``rate_limit_status``): they never raise a floor."""
        self.upset()
        for reading in readings:
            for window in self.windows:
                if window.kind == reading.kind:
                    window.prime(reading)

    def restore(self, now: float, readings: Iterable[WindowReading]) -> None:
        """Start from the state of an earlier run, as far as it still holds."""
        self.upset()
        known = tuple(readings)
        if known:
            self._join_shown(known)
        for reading in known:
            for window in self.windows:
                if window.kind == reading.kind:
                    window.restore(now, reading)
        if any(window.is_confirmed for window in self.windows):
            self.answered = max(self.answered, 1)

    def share(self, cold: ColdGate, paced: PaceGate) -> None:
        """Share this quota beyond the process; how it opens is for all to decide together."""
        self.upset()
        self.cold, self.paced = cold, paced
        self.answered = _MOST_BLANK

    def join_known(self, known: Iterable[WindowReading]) -> None:
        """Count in the windows that answers have shown elsewhere."""
        if not self.shown:
            self._join_shown(tuple(known))

    def replace(self, old: Window, new: Window) -> None:
        """Use ``new`` from now on where ``old`` was: they turned out to be one."""
        self.upset()
        self.windows.remove(old)
        self.numbering.forget(old)
        self._add_new(new)

    def _join_shown(self, shown: Iterable[WindowReading]) -> None:
        """Count this bucket's calls in the windows that its own answer has shown."""
        for reading in shown:
            window = self._window(reading.kind.name)
            if window is None:
                if len(self.windows) < _MOST_WINDOWS or self._make_room():
                    self._add_new(self.find_window(reading, None))
            elif reading.bucket != window.bucket and reading.bucket:
                found = self.find_window(reading, window)
                if found is not window and window in self.windows:
                    self._drop(window)
                self._add_new(found)
        if not self.shown:
            self.shown = True
            names = [reading.kind.name for reading in shown]
            for window in [each for each in self.windows if each.kind.name not in names]:
                self._drop(window)

    def _window(self, name: str) -> Window | None:
        for window in self.windows:
            if window.kind.name == name:
                return window
        return None

    def _make_room(self) -> bool:
        """Drop a window of which the server tells no more, if there is one."""
        for window in self.windows:
            if not window.is_confirmed and not window.is_in_doubt:
                self._drop(window)
                return True
        return False

    def _add_new(self, window: Window) -> None:
        if window not in self.windows:
            self._add(window)

    def presume(self, window: Window) -> None:
        """Share a window that others have shown, until an own answer tells whether it is so."""
        if not self.shown:
            self._add_new(window)

    def _add(self, window: Window) -> None:
        """What is in flight or owed may be counted there, too.

        Settling takes a call from every window, whichever it was granted from.
        """
        self.windows.append(window)
        self.upset()
        window.buckets[self] = None
        in_flight = self._in_flight_of(window)
        window.in_flight += in_flight
        window.foreign.give_back(-in_flight)
        window.debts.absorb(self.debts)
        window.round_trip = max(self.round_trip, *(each.round_trip for each in self.windows))

    def _drop(self, window: Window) -> None:
        """Leave a window that was presumed in vain."""
        self.upset()
        self.windows.remove(window)
        del window.buckets[self]
        window.in_flight -= self._in_flight_of(window)
        if not window.buckets:
            self.numbering.forget(window)
            if self.forget_window is not None:
                self.forget_window(window)

    def hold(self, rates: Iterable[LocalWindow]) -> None:
        """Hold more limits that no server announces, calls in flight counted."""
        self.upset()
        for rate in rates:
            self.local = (*self.local, rate)
            rate.buckets[self] = None
            rate.in_flight += self._in_flight_of(rate)

    def may_be_counted(self, now: float) -> bool:
        """Whether the server may be yet to count a call that was lost."""
        debts = (self.debts, *(window.debts for window in self.windows))
        return any(each.newest_ghost > now for each in debts)

    def leave(self) -> list[Window]:
        """Take this bucket out of its windows, for good; return those that nobody uses now."""
        self.upset()
        self.household.forget(self)
        for window in self.gates:
            del window.buckets[self]
        unused = [window for window in self.windows if not window.buckets]
        for window in unused:
            self.numbering.forget(window)
        return unused

    def _settle(self, granted: Granted) -> None:
        if granted.is_settled:
            raise RuntimeError("this permit is settled already: settle each permit exactly once")
        self.upset()
        granted.is_settled = True
        if granted.room is not None:
            granted.room.in_flight -= 1
        self.calls -= 1
        self.extra -= granted.cost - 1
        if isinstance(granted.cost, Cost):
            self._count_units(granted.cost, -1)
        for window in self.windows:
            window.give_back(window.cost_of(granted))
        for rate in self.local:
            rate.give_back(cost_in(rate.unit, granted.cost))
        for probing, turn in granted.probes or ():
            probing.ended(turn)

    def _time(self, round_trip: float) -> None:
        if not self.shown:
            self.round_trip = max(self.round_trip, min(round_trip, LONGEST_ROUND_TRIP))
        for window in self.windows:
            window.time(round_trip)

    def _tell_windows(
        self,
        granted: Granted,
        number: int,
        now: float,
        shown: Iterable[WindowReading],
        *,
        refused: bool,
        failed: bool,
    ) -> None:
        readings = {reading.kind.name: reading for reading in shown}
        for window in self.windows:
            reading = readings.get(window.kind.name)
            if reading is not None:
                window.observe(granted, now, reading, refused=refused)
            else:
                window.unread(granted, number, now, refused=refused, failed=failed)
                if readings and not (failed or refused):
                    was_probe = window.is_probe(granted)
                    _note_silence(window, granted, shown)
                    if was_probe and window.is_untold and not window.kind.turns:
                        # How many may go at once without it is to be found out again.
                        self.answered = 1

    def _answered_by_cache(self, granted: Granted, number: int, now: float) -> None:
        """It says nothing, and may or may not have reached the server: the next call will tell."""
        if not self.shown:
            self.debts.add_ghost(now, number, granted.cost)
            self._say_cold(granted, now, Outcome.CACHED)
        for window in self.windows:
            window.cached(granted, number, now)

    def _answered_cold(self, granted: Granted, now: float, *, refused: bool, failed: bool) -> None:
        """An answer without headers, from a key that never showed any."""
        outcome = Outcome.FAILED if failed else Outcome.REFUSED if refused else Outcome.UNREAD
        self._say_cold(granted, now, outcome)
        if not refused and not failed:
            self.blank = min(self.blank + 1, _MOST_BLANK)
            self.probing.confirmed()
            return
        self.blank //= 2
        if failed and granted.is_probe_of(self.probing):
            self.probing.missed(now)
        else:
            self.probing.answered()

    def _say_cold(self, granted: Granted, now: float, outcome: Outcome) -> None:
        if self.cold is not None and not self.shown:
            self.cold.share.say(granted, now, outcome, granted.cost)

    def _obey(self, granted: Granted, now: float, reading: Reading, *, hidden: bool) -> None:
        """Act on a refusal: shut the windows that are spent, or slow down for a hidden limit."""
        delay = reading.retry_after or 0.0
        if reading.pause:
            self.household.pause(granted, now, reading.pause)
        elif reading.everywhere:
            self.household.keep_shut(now, delay)
        if reading.everywhere and self.cold is not None:
            self._tell_pause(now)
        spent = [told.kind.name for told in reading.windows if self._is_short(told, granted)]
        explained = False
        for window in self.windows:
            if window.kind.name in spent:
                if delay:
                    window.keep_shut(now, delay)
                explained = explained or window.holds(now, granted)
        if explained:
            return
        ceiling = min((window.kind.ceiling for window in self.windows), default=960.0)
        self.next = max(self.next, now + min(delay, ceiling))
        # A server that says for how long nobody may come needs no pace.
        if hidden and (reading.pause or not reading.everywhere):
            self._slow_down(granted, now)

    def _tell_pause(self, now: float) -> None:
        """Have other processes hear that nothing of this identity may go, on any route."""
        for gate in (self.cold, *self.windows):
            if isinstance(gate, ColdGate | LeasedWindow):
                gate.share.report_by(now)

    def _go_on(self, granted: Granted, now: float, status: int) -> None:
        """Nobody was refused: end a pause, and speed up."""
        if self.household.pauses and status < 400:  # what a 403 means, its body may tell
            self.household.accepted(granted)
        if self.pace.gap and status < 500:
            self._speed_up(granted, now)

    def join_pace(self) -> None:
        """Keep the pace that others keep: a limit that nobody announces has shown there."""
        self.upset()
        if self.paced is not None and not self.pace.gap:
            self.pace.gap = _FIRST_GAP

    def _slow_down(self, granted: Granted, now: float) -> None:
        if (paced := _in_touch(self.paced)) is not None:
            paced.share.say(granted, now, Outcome.REFUSED, 1)
            self.pace.gap = max(self.pace.gap, _FIRST_GAP)
        elif self.pace.refused(granted, now):
            # Jitter, since other processes may have been refused at the same moment.
            self.next = max(self.next, now + self.pace.gap * (1.0 + 0.1 * self.random()))

    def _speed_up(self, granted: Granted, now: float) -> None:
        if (paced := _in_touch(self.paced)) is not None:
            paced.share.say(granted, now, Outcome.READ, 1)
            return
        self.pace.accepted(now)
        if not self.pace.gap:
            # One at a time went well; how many at once do is to be found out again.
            self.answered = self.blank = 1

    def _is_short(self, told: WindowReading, granted: Granted) -> bool:
        """Whether what is left of a window explains that a call was refused."""
        return told.remaining < max(1, cost_in(told.kind.unit, granted.cost))


def _note_silence(window: Window, granted: Granted, shown: Iterable[WindowReading]) -> None:
    """An accepted call was told of other windows only."""
    turns = window.kind.turns
    if window.is_probe(granted):
        window.left_out()
    elif turns:
        left = [told.remaining for told in shown if told.kind.turns == turns]
        window.passed_over(granted, max(left, default=0))


def _in_touch(gate: G | None) -> G | None:
    """Return what is shared beyond the process, unless the ledger is away."""
    return gate if gate is not None and not gate.share.is_away else None


def _ahead_of(cost: int, unit: str, ahead: int) -> int:
    return 0 if isinstance(cost, Cost) and unit != "requests" else ahead


#: What may block a caller.
Gate = Window | RateWindow | ConcurrencyWindow | Room | BucketGate | Bucket

#: Returns the window that a reading is of; given the one that was used so far, if the server turns
#: out to have a name of its own for it.
FindWindow = Callable[[WindowReading, Window | None], Window]
