"""Gates whose tokens a ledger leases: the process's side of a quota shared beyond it.

Part of the rule, and as pure. A gate keeps a belief of its own up to date meanwhile: that is what
a share is taken of while the ledger is away.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from aiotwhelp.clock import ServerClock
from aiotwhelp.crowd import Crowd
from aiotwhelp.headers import WindowKind, WindowReading
from aiotwhelp.heaps import Entry, Heap
from aiotwhelp.ledger.port import LEASE, Counts, Lease, Note, Outcome, Report
from aiotwhelp.local import ConcurrencyWindow, RateWindow
from aiotwhelp.rates import Concurrency, LocalLimit, Rate
from aiotwhelp.windows import (
    INF,
    Edges,
    Numbering,
    Probing,
    Window,
    next_slot,
)

if TYPE_CHECKING:
    from aiotwhelp.quota import Bucket, Granted, Household

#: A lease is counted from before the call was sent, and for less long than the ledger counts it.
_TRUSTED = 0.9 * LEASE / 1000

#: Processes that share a quota, as long as no ledger has told how many there are: of what is left
#: so many calls may be gone before one's own is there.
_PRESUMED = 4

#: What is held is reported again before half of a lease has passed; unused tokens go back then.
_RENEWED = 0.45 * LEASE / 1000

#: A probe that nobody takes goes back after so many seconds: as long as others wait at first.
_UNTAKEN = 0.25

#: Settled calls are reported together, after so many seconds; with what is asked for next, if that
#: is not much later, and nothing is in them that others wait for.
_SETTLED = 0.05
_TOGETHER = 0.4

#: Processes that are to ask at one instant come within so many seconds of it.
_SPREAD = 0.1

#: A slot of a rate that was not used so many seconds after its time is void.
_SLOT_KEPT = 0.1

#: A Date has whole seconds: by it a window may be so much longer than is known, and a round trip.
_ROUNDING = 1.0

#: Notes that are told apart before they are reported; one more becomes calls without an answer.
_MOST_NOTES = 64

#: Exchanges whose numbers are told apart: a call in flight for longer knows less than it might.
_MOST_MARKS = 64


@dataclass(slots=True)
class _Said:
    """A note to be; its instants are of this process's clock."""

    number: int
    outcome: Outcome
    cost: int
    known: int
    took: float
    at: float
    probe: int
    refused: bool
    remaining: int
    limit: int | None
    epoch: int | None
    resets_at: float | None
    #: How long the window surely goes on from the first answer that is counted in.
    lasts: float | None
    times: int = 1

    def is_same(
        self,
        outcome: Outcome,
        known: int,
        refused: bool,
        limit: int | None,
        epoch: int | None,
        resets_at: float | None,
    ) -> bool:
        """Whether one more call of which this is to be said may be counted in here."""
        if (
            outcome is not self.outcome
            or refused is not self.refused
            or epoch != self.epoch
            or limit != self.limit
            or self.probe
            or outcome is Outcome.LOST
        ):
            return False
        # Of readings that are told together the ledger is to know the lowest, and that the newest
        # number was known: it has not seen any of them before.
        if known != self.known and outcome is not Outcome.READ:
            return False
        if resets_at is None or self.resets_at is None:
            return resets_at is self.resets_at
        return abs(resets_at - self.resets_at) <= 1.0

    def count(
        self,
        now: float,
        cost: int,
        known: int,
        took: float,
        remaining: int,
        resets_at: float | None,
    ) -> None:
        """Count one more call in, whose answer came just now."""
        self.at = max(self.at, now)
        self.cost += cost
        self.times += 1
        self.known = max(self.known, known)
        self.took = max(self.took, took)
        self.remaining = min(self.remaining, remaining)
        if resets_at is not None and self.resets_at is not None:
            self.resets_at = min(self.resets_at, resets_at)

    def note(self, now: float) -> Note:
        """Write it down for a ledger."""
        return Note(
            number=self.number,
            outcome=self.outcome,
            cost=self.cost,
            known=self.known,
            took=_ms(self.took),
            ago=_ms(now - self.at),
            probe=self.probe,
            refused=self.refused,
            times=self.times,
            remaining=self.remaining,
            limit=self.limit,
            epoch=self.epoch,
            resets_in=None if self.resets_at is None else round((self.resets_at - now) * 1000),
            lasts=None if self.lasts is None else _ms(self.lasts),
        )


def _ms(seconds: float) -> int:
    return round(1000 * max(0.0, seconds))


class Health:
    """What all shares of a ledger have in common: whether it answers, and who needs it now."""

    __slots__ = ("asking", "clients", "failure", "is_away", "is_reachable", "news", "outages")

    def __init__(self) -> None:
        self.is_reachable = True
        #: Whether calls go without it: for a while after it is back, too, until all have reported.
        self.is_away = False
        self.outages = 0
        #: The most processes that any record was shared by; 0 before the ledger has told, when all
        #: that there are could have reported.
        self.clients = 0
        #: Why nobody may go while it is away, if that is to be an error.
        self.failure: Exception | None = None
        #: Shares that the rule has found wanting, and those that are to report earlier than before.
        self.asking: list[Share] = []
        self.news: list[Share] = []


class Share(Entry):
    """What this process holds of one record, and what it has yet to report.

    As an entry of a heap it stands by the instant at which it is to report.
    """

    __slots__ = (
        "_asked",
        "_holds_until",
        "_known_by",
        "_marks",
        "_outage",
        "_reported",
        "_returns",
        "_said",
        "_sequence",
        "_since",
        "_told",
        "again",
        "ask_at",
        "asks",
        "ceiling",
        "counts",
        "due",
        "gate",
        "health",
        "hopes",
        "is_claim",
        "is_out",
        "is_short",
        "keep",
        "lease",
        "leaves",
        "left",
        "limit",
        "missed",
        "name",
        "need",
        "notes",
        "numbering",
        "probing",
        "serial",
        "shown",
        "shut_until",
        "taken",
        "turn",
        "until",
        "use",
        "vain",
    )

    def __init__(
        self,
        gate: Gate,
        counts: Counts,
        name: tuple[str, ...],
        numbering: Numbering,
        health: Health,
        *,
        ceiling: float = 960.0,
        limit: LocalLimit | None = None,
    ) -> None:
        super().__init__(INF)
        self.health = health
        self.gate = gate
        self.counts = counts
        #: What the record is of; only a digest of it is shown to a ledger.
        self.name = name
        self.numbering = numbering
        #: Tells it from an earlier share of the same record, which counted its reports itself.
        self.serial = numbering.next()
        #: Whether its gate is forgotten: what an answer tells is of no use to it any more.
        self.leaves = False
        self.ceiling = _ms(ceiling)
        #: Of a local rate or concurrency.
        self.limit = limit
        #: Unused tokens, and until when they may be used.
        self.left = 0
        self.until = -INF
        #: Whether somebody wants to ask, for how much, and from when on it makes sense.
        self.asks = False
        self.need = 1
        self.keep = 0
        self.ask_at = -INF
        self.vain = 0
        #: Whether settling calls of its own may bring tokens.
        self.hopes = False
        #: Tokens taken since the last report, and about so many between two.
        self.taken = 0
        self.use = 0
        #: Whether a report is on its way, and when the next one is due at the latest.
        self.is_out = False
        self.due = INF
        self.notes: list[_Said] = []
        #: The last of them, if calls that go as they should may be counted in.
        self.again: _Said | None = None
        self._said = 0
        self._reported = 0
        self._sequence = 0
        #: What the last report said is held; with what was granted since, that is what it knows.
        self._told = 0
        #: Tokens that were asked for, 0 if none.
        self._asked = 0
        #: Until when the ledger surely knows of this process.
        self._holds_until = -INF
        #: (own number, the ledger's), both rising.
        self._marks: list[tuple[int, int]] = []
        #: The turn of a probe that was leased and has not gone yet.
        self.turn = 0
        #: What all processes have found out in vain, and whether the last answer told of more.
        self.probing = Probing()
        self.missed = False
        self.shut_until = -INF
        #: Windows that own answers have shown, for others.
        self.shown: tuple[str, ...] = ()
        #: What the ledger answered last, and whether that was less than was asked for.
        self.lease = Lease()
        self.is_short = False
        #: The last outage that it took part in, the number as of which it did, and by how many
        #: processes it was shared until then; whether the ledger has yet to hear of it.
        self._outage = 0
        self._since = 0
        self._known_by = 1
        self._returns = False
        #: Whether what is left was claimed without the ledger.
        self.is_claim = False

    def __repr__(self) -> str:
        return f"<Share of {self.name[-1]}: {self.left} left, {self.lease.remaining} with others>"

    @property
    def held(self) -> int:
        """Tokens that were leased and are not settled."""
        return self.left + self.gate.in_flight

    @property
    def probes(self) -> int:
        """Probes of one turn that were leased and are not settled."""
        if not self.turn:
            return self.probing.out
        return 1 + (self.probing.out if self.probing.turn == self.turn else 0)

    # Asking ------------------------------------------------------------------------------------

    def may_ask_sooner(self, now: float) -> bool:
        """Whether it waits for the reset only if no call of its own ends before."""
        return self.hopes and now < self.ask_at

    def opens(self, now: float, cost: int, keep: int = 0) -> float:
        """Return the instant from which a call may go, or may ask; raises what went wrong."""
        if self.left >= cost and now < self.until:
            return -INF
        if self.health.failure is not None:
            raise self.health.failure
        self.need, self.keep = cost, keep
        if self.is_out:
            return INF
        if now < self.ask_at:
            return self.ask_at
        self.asks = True
        self.health.asking.append(self)
        return INF

    def take(self, now: float, cost: int) -> tuple[Probing, int] | None:
        """Take tokens that `opens` said are there; return the probe if the call is one."""
        self.left -= cost
        self.taken += cost
        if not self.turn:
            return None
        if self.probing.turn != self.turn:
            self.probing.turn, self.probing.out = self.turn, 0
        self.turn = 0
        if self.left:
            # It goes alone: what was leased for a costlier call goes back.
            self.left = 0
            self.report_by(now + _SETTLED)
        return self.probing.start(now)

    def go_again(self, granted: Granted, now: float, cost: int) -> None:
        """Have a probe that never left be there for whoever is next here."""
        is_lasting = now < self.until and not self.health.is_away
        if is_lasting and not self.turn and granted.is_probe_of(self.probing):
            self.left, self.turn = cost, self.probing.turn
            self.keep_probe(now)

    def keep_probe(self, now: float) -> None:
        """Keep a probe that nobody has taken for a moment: others may have a call to make."""
        self.until = min(self.until, now + _UNTAKEN)
        self.report_by(self.until)

    # Reporting ---------------------------------------------------------------------------------

    def report_by(self, at: float) -> None:
        """Have a report made at that instant, or before."""
        if at < self.due:
            self.due = at
            self.health.news.append(self)

    def say(
        self,
        granted: Granted,
        now: float,
        outcome: Outcome,
        cost: int,
        *,
        refused: bool = False,
        remaining: int = 0,
        limit: int | None = None,
        epoch: int | None = None,
        resets_at: float | None = None,
        lasts: float | None = None,
    ) -> _Said | None:
        """Remember how a call ended until it is reported; return what more calls may count in."""
        self.again = None
        is_plain = outcome is Outcome.READ and not refused and remaining > 0
        self.report_by(self._in_time(now) if is_plain else now + _SETTLED)
        probe = 0
        if granted.probes is not None and granted.is_probe_of(self.probing):
            # All wait for what it tells.
            probe, self.ask_at = self.probing.turn, min(self.ask_at, now)
            self.report_by(now)
        known = self._known(granted.known)
        took = now - granted.sent
        last = self.notes[-1] if self.notes else None
        if last is not None and last.number > self._reported:
            if not probe and last.is_same(outcome, known, refused, limit, epoch, resets_at):
                last.count(now, cost, known, took, remaining, resets_at)
                return last
            if len(self.notes) >= _MOST_NOTES:
                last.outcome, last.cost = Outcome.LOST, last.cost + cost
                return None
        said = (outcome, cost, known, took, now, probe, refused, remaining, limit, epoch, resets_at)
        self._said += 1
        self.notes.append(_Said(self._said, *said, lasts))
        return None if probe else self.notes[-1]

    def say_again(self, granted: Granted, now: float, remaining: int, resets_at: float) -> bool:
        """Count a call of cost 1 in with those of `again`, as `say` would; False if it may not."""
        last = self.again
        if last is None or last.resets_at is None or abs(last.resets_at - resets_at) > 1.0:
            return False
        last.at = now
        last.cost += 1
        last.times += 1
        took, known = now - granted.sent, self._known(granted.known)
        if known > last.known:
            last.known = known
        if took > last.took:
            last.took = took
        if remaining < last.remaining:
            last.remaining = remaining
            if remaining <= 0:
                self.report_by(now + _SETTLED)
        if resets_at < last.resets_at:
            last.resets_at = resets_at
        return True

    def _in_time(self, now: float) -> float:
        """Return when to report what may wait for the next question."""
        soon = now + _SETTLED
        return self.ask_at if soon < self.ask_at <= now + _TOGETHER else soon

    def _known(self, own: int) -> int:
        """Return the ledger's newest number as of a number of ours."""
        for mine, number in reversed(self._marks):
            if mine <= own:
                return number
        return 0

    def report(
        self,
        client: str,
        record: str,
        now: float,
        want: int,
        *,
        ample: int = 1,
        leaves: bool = False,
    ) -> Report:
        """Write a report; its answer, or the next report, settles what becomes of it.

        ``ample`` times what callers want is asked for; who gets what they want is not short.
        """
        # Who has spent all, and waits for more, uses no less than before.
        self.use = max(self.taken, self.use if want and not self.left else self.use // 2)
        if self.left and not self.turn and (not (self.taken or want) or now >= self.until):
            self.left = 0
        if self.turn and (self.asks or now >= self.until):
            self.left = self.turn = 0  # it is of no use to whoever is first, or nobody is here
        may_ask = not self.turn and (self.hopes or now >= self.ask_at)
        self._asked = max(want, self.need) if self.asks or (want > 0 and may_ask) else 0
        self._sequence += 1
        self._reported = self._said
        self.again = None
        self._told = self.held
        self.taken = 0
        self.is_out = True
        rate = self.limit if isinstance(self.limit, Rate) else None
        most = self.limit.limit if isinstance(self.limit, Concurrency) else 0
        household = self.gate.household
        return Report(
            record=record,
            client=client,
            sequence=self._sequence,
            counts=self.counts,
            held=0 if self.counts is Counts.RATE else self.held,
            notes=tuple(said.note(now) for said in self.notes),
            want=self._asked * ample,
            need=self.need,
            keep=self.keep,
            vain=self.vain,
            probes=self.probes,
            leaves=leaves,
            crew=self._known_by if self._returns else 0,
            ceiling=self.ceiling,
            shut=_ms(self.shut_until - now),
            paused=0 if household is None else _ms(household.refused_until - now),
            pauses=0 if household is None else household.pauses,
            shown=self.shown,
            limit=rate.burst if rate is not None else most,
            gap=max(1, round(rate.gap * 1e6)) if rate is not None else 0,
            idle=not (want or self.asks),
            peers=self.lease.clients if now < self._holds_until else 0,
        )

    def apply(self, lease: Lease, sent: float, now: float, jitter: float) -> None:
        """Take an answer to a report that was sent then; ``jitter`` is from 0 to 1."""
        self.is_out = False
        self.asks = False
        self.again = None
        self.missed = lease.misses > self.probing.misses
        self.probing.misses = lease.misses
        if lease.stale:
            self.ask_at = now
            return
        self.notes = [said for said in self.notes if said.number > self._reported]
        if not self._marks or self._marks[-1][1] != lease.number:
            self._marks.append((self.numbering.next(), lease.number))
            del self._marks[:-_MOST_MARKS]
        self.lease = lease
        self._holds_until = sent + _TRUSTED
        if not self.health.is_away:  # else some of them are yet to come back
            self.health.clients = max(1, self.health.clients, lease.clients)
        self._hold(lease, sent)
        if not self._asked:
            # What was answered to those who asked still holds, unless own calls were in the way.
            self.ask_at = now if self.hopes else self.ask_at
        elif lease.granted:
            self.hopes = False
            self.left += lease.granted
            self._told += lease.granted
            self.turn = lease.probe
            self.vain, self.ask_at = 0, now
            if lease.wait is not None:
                self._wait(lease.wait, now, jitter)
        elif lease.wait is None:
            # Calls of its own stand in the way, until they are settled or the window ends.
            resets_in = lease.resets_in if lease.confirmed else None
            self.ask_at = INF if resets_in is None else now + resets_in / 1000
            if not self.held:
                self.ask_at = now  # they have been by now, or there was nothing to ask for
            self.hopes = True
        else:
            self.hopes = False
            self._wait(lease.wait, now, jitter)
        self.due = self._next_due(sent, now)
        if lease.paused and (household := self.gate.household) is not None:
            household.hear(now, lease.paused / 1000, lease.pauses)
        self.gate.leased(now)

    def _hold(self, lease: Lease, sent: float) -> None:
        """Have what is left be leased from now on, also what was claimed without the ledger."""
        ends = self.until if self.is_claim else INF
        if lease.resets_in is not None and lease.confirmed:
            ends = sent + lease.resets_in / 1000
        self.until, self.is_claim = min(ends, sent + _TRUSTED), False
        self.left = max(0, self.left - lease.void)
        self._returns = False
        if not self.health.is_away:
            self._known_by = 1
        if self._asked:
            self.is_short = lease.granted < self._asked

    def _wait(self, wait: int, now: float, jitter: float) -> None:
        """Ask again after so many milliseconds."""
        resets_in = self.lease.resets_in if self.lease.confirmed else None
        # After the reset it begins anew, whatever was in vain before.
        begins_anew = wait > LEASE or (resets_in is not None and wait >= resets_in)
        self.vain = 0 if begins_anew else self.vain + 1
        # Others were told the same: whoever comes a little later finds a probe under way, or back.
        spread = min(_SPREAD, wait / 4000) if self.lease.clients > 1 else 0.0
        self.ask_at = now + wait / 1000 + spread * jitter

    def _next_due(self, sent: float, now: float) -> float:
        """Return when to report again: soon if something has ended since the last report."""
        if self.counts is Counts.RATE:
            return INF
        if self.notes or self.held != self._told:
            return self._in_time(now)
        return sent + _RENEWED if self.held else INF

    def failed(self) -> None:
        """Note that a report may or may not have arrived: the next one sets it right."""
        self.is_out = False
        self.asks = False

    # Without the ledger ------------------------------------------------------------------------

    @property
    def clients(self) -> int:
        """Processes that shared it when the ledger was last heard of, as far as is known.

        Of those that come back to a ledger some may be yet to come.
        """
        told = self.lease.clients if self.lease.number else self.health.clients or _PRESUMED
        return max(told, self._known_by)

    @property
    def is_away(self) -> bool:
        """Whether this process goes on without the ledger, with a share of what it knew last.

        Windows are asked for again as soon as it is back; what is not counted in numbers, when
        all others are back as well.
        """
        health = self.health
        if not health.is_away or health.failure is not None:
            return False
        if self.counts is Counts.WINDOW and health.is_reachable:
            return False
        if self._outage != health.outages:
            self._known_by = self.clients
            self._outage, self._returns = health.outages, True
            self._since = self.numbering.next()
            self.ask_at = -INF
            self.is_claim = False
            if self.turn or self.counts is not Counts.WINDOW:
                self.left = self.turn = 0
            if isinstance(self.gate, LeasedWindow):
                self.gate.go_alone()
        return True

    def claim(self, tokens: int, until: float) -> None:
        """Have so many tokens be this process's until then: each of the others does the same.

        Before anybody has told how many these are, it has none: each call sees what they leave.
        """
        if self.health.clients:
            self.left, self.until, self.is_claim = max(0, tokens), until, True

    def has_seen(self, granted: Granted) -> bool:
        """Whether a call was made without the ledger: what it tells is what is left now."""
        return granted.known >= self._since


class LeasedWindow(Window):
    """A window that a server announces, whose tokens are shared with other processes."""

    __slots__ = ("crowd", "share")

    def __init__(
        self,
        kind: WindowKind,
        clock: ServerClock,
        numbering: Numbering,
        key: Hashable,
        name: tuple[str, ...],
        health: Health,
    ) -> None:
        super().__init__(kind, clock, numbering, key)
        self.share = Share(self, Counts.WINDOW, name, numbering, health, ceiling=kind.ceiling)
        #: The others, as long as no ledger has told how many they are.
        self.crowd = Crowd()

    def opens(self, now: float, cost: int, reserve: float, even: bool) -> float:
        """Return the instant from which a call may go: now or earlier means at once."""
        share = self.share
        if share.health.is_away and share.is_away:
            return self._opens_alone(now, cost, reserve, even)
        if not self.is_confirmed and self.holds_nobody:
            return self.shut
        at = share.opens(now, cost, self._kept(reserve) if reserve else 0)
        if even and at <= now:
            at = self.slot
        return max(at, self.shut)

    def go_alone(self) -> None:
        """Begin to go without the ledger: what others were about to find out is theirs."""
        self.crowd.lose_track()
        lease = self.share.lease
        others_probe = lease.wait is not None and not (lease.confirmed or lease.misses)
        if others_probe and lease.resets_in is not None:
            latest = self.ends + self.span + _ROUNDING + self.round_trip
            self.probing.hold = max(self.probing.hold, latest)

    def _opens_alone(self, now: float, cost: int, reserve: float, even: bool) -> float:
        """Without the ledger what was leased may go, and then what a call has seen a share of."""
        share = self.share
        has_left = share.left >= cost and now < share.until
        if has_left and not share.is_claim:
            return max(self.slot if even else -INF, self.shut)
        # What is left is for as many calls of each of the others.
        is_told = share.health.clients > 0
        crew = share.clients if is_told else self.crowd.size
        at = super().opens(now, cost * crew, reserve, even)
        if has_left or not self.is_confirmed:
            return at
        may_see = not (share.is_claim or share.is_short or self.in_flight)
        if not (may_see or at > now):
            return self.ends
        return at if is_told or not may_see else self._opens_untold(at, now, cost, reserve, even)

    def _opens_untold(self, at: float, now: float, cost: int, reserve: float, even: bool) -> float:
        """Nobody has told how many there are: leave some to who is late, and look after all."""
        left = self.available - self._kept(reserve)
        if at <= now:
            return max(at, self.crowd.opens(left, self.limit, self.span))
        if left < cost:
            return at
        looks = max(self.crowd.looks(self.round_trip), self.shut)
        return min(at, max(looks, self.slot) if even else looks)

    @property
    def household(self) -> Household | None:
        """What all routes of an identity have in common, if it is of one identity only."""
        for bucket in self.buckets:
            return None if self.kind.scope == "app" else bucket.household
        return None

    @property
    def holds_nobody(self) -> bool:
        """Whether it has ended, and probe after probe was answered without a word of it."""
        return not self.is_confirmed and not self.is_in_doubt

    def is_probe(self, granted: Granted) -> bool:
        """Whether a call was to find out what is left now, for all processes or this one."""
        return granted.is_probe_of(self.share.probing) or super().is_probe(granted)

    @property
    def patience(self) -> float:
        """Seconds that a caller may have waited without being failed by the next loss."""
        return super().patience if self.share.is_away else self.share.probing.patience

    @property
    def spare(self) -> int:
        """Tokens that nobody holds, as far as this process knows."""
        return max(0, min(self.share.lease.remaining, self.available - self.share.left))

    def take(self, now: float, cost: int, since: float, even: bool) -> tuple[Probing, int] | None:
        """Take tokens that `opens` said are there; return the probe if the call is one."""
        share = self.share
        if share.health.is_away and share.is_away:
            if share.left >= cost:
                share.left -= cost
                share.taken += cost
            return super().take(now, cost, since, even)
        if not self.is_confirmed and self.holds_nobody:
            self.in_flight += cost
            return None
        if even and cost and self.is_confirmed and self.reset is not None:
            # What is leased is this process's alone; what nobody has leased is for all of them.
            left = max(1.0, share.left + share.lease.remaining / share.clients)
            gap = cost * max(0.0, self.ends - now) / left
            self.slot = next_slot(self.slot, gap, now, since)
        self.in_flight += cost
        return share.take(now, cost)

    def _goes_well(self, now: float) -> bool:
        """Whether tokens that were leased may be spent, and nothing is in doubt."""
        share = self.share
        is_at_rest = not share.turn and share.probing.is_at_rest
        return is_at_rest and not share.health.is_away and super()._goes_well(now)

    def _foresees(self) -> int:
        """Return 0: `take_plainly` looks at what was leased, which stands whatever others take."""
        self.least = 0
        return 0

    def foreseen_to(self) -> float:
        """Return the instant until which what is foreseen holds."""
        return min(self.ends, self.share.until)

    def take_plainly(self, now: float) -> bool:
        """Take a token that was leased; False if it went back meanwhile."""
        share = self.share
        if not self.is_plain or now >= self.foreseen_until:
            return False
        if share.left <= 0 or share.health.is_away:
            return False
        self.in_flight += 1
        share.left -= 1
        share.taken += 1
        return True

    def heard(self, granted: Granted, now: float, reading: WindowReading) -> None:
        """Have others learn from a plain answer."""
        self.take_in()
        share, resets_at = self.share, self.ends - self.late
        if self.counts_down or not share.say_again(granted, now, reading.remaining, resets_at):
            share.again = self._say_read(granted, now, reading)

    def expect(self, now: float, ahead: int, reserve: float) -> float:
        """Return the earliest instant for a caller behind so many tokens; a lower bound."""
        share = self.share
        if share.is_away:
            return super().expect(now, ahead, reserve)
        at = max(now, self.shut)
        # What others hold may be in the numbers already: then it is all there.
        ahead += self._kept(reserve) - (self.floor if self.is_confirmed else 0)
        if ahead < 0 or not self.is_confirmed or now >= self.ends:
            return at
        at = max(at, self.ends)
        if not self.limit or self.span <= 0:
            return at
        return at + ahead // self.limit * self.span

    def observe(
        self, granted: Granted, now: float, reading: WindowReading, *, refused: bool
    ) -> None:
        """Learn from a call's answer, and have others learn from it."""
        if reading.kind == self.kind:
            self.kind = reading.kind  # that of its answers, if a ledger had told of it before
        super().observe(granted, now, reading, refused=refused)
        self._say_read(granted, now, reading, refused=refused)
        share = self.share
        if not share.is_away or share.is_claim:
            return
        cost = self.cost_of(granted)
        is_alone = share.has_seen(granted) or not share.lease.number
        if cost and is_alone:
            self.crowd.read(now, reading.remaining, cost, self.limit, refused=refused)
        if share.has_seen(granted):
            share.claim(self.available // (2 * share.clients), self.ends)

    def _say_read(
        self, granted: Granted, now: float, reading: WindowReading, *, refused: bool = False
    ) -> _Said | None:
        epoch, resets_at, lasts = None, None, None
        if reading.resets_in is not None:
            resets_at = now + min(reading.resets_in, self.kind.ceiling)
        elif reading.reset is not None:
            resets_at, epoch = self.clock.local(reading.reset), round(reading.reset * 1000)
            lasts = self.clock.left(reading.reset, now)
        return self.share.say(
            granted,
            now,
            Outcome.READ,
            self.cost_of(granted),
            refused=refused,
            remaining=reading.remaining,
            limit=reading.limit,
            epoch=epoch,
            resets_at=resets_at,
            lasts=lasts,
        )

    def unread(
        self, granted: Granted, number: int, now: float, *, refused: bool, failed: bool
    ) -> None:
        """Note an answer that says nothing of this window."""
        super().unread(granted, number, now, refused=refused, failed=failed)
        if not self.holds_nobody:
            outcome = Outcome.FAILED if failed else Outcome.REFUSED if refused else Outcome.UNREAD
            self.share.say(granted, now, outcome, self.cost_of(granted))

    def cached(self, granted: Granted, number: int, now: float) -> None:
        """Note a call that a cache answered: it may have reached the server, or not."""
        super().cached(granted, number, now)
        self.share.say(granted, now, Outcome.CACHED, self.cost_of(granted))

    def lost(self, granted: Granted, number: int, now: float) -> None:
        """Note a call that may have been counted and will never be answered."""
        super().lost(granted, number, now)
        self.share.say(granted, now, Outcome.LOST, self.cost_of(granted))

    def unsent(self, granted: Granted, now: float, *, failed: bool) -> None:
        """Note a call that never left."""
        super().unsent(granted, now, failed=failed)
        if not failed:
            self.share.go_again(granted, now, self.cost_of(granted))
        elif granted.is_probe_of(self.share.probing):
            self.share.say(granted, now, Outcome.UNSENT, self.cost_of(granted))
        self.share.report_by(now + _SETTLED)

    def keep_shut(self, now: float, delay: float) -> None:
        """Let nothing go for so many seconds, anywhere."""
        super().keep_shut(now, delay)
        self.share.shut_until = self.shut

    def leased(self, now: float) -> None:
        """Believe what the ledger knows."""
        lease = self.share.lease
        was_plain = self.is_plain
        self.upset()
        if self.share.is_away:
            return
        if lease.limit is not None:
            self.limit = lease.limit
        if lease.gap:
            for bucket in self.buckets:
                bucket.join_pace()
        self.is_confirmed = lease.confirmed
        if not lease.confirmed:
            return
        self.seen = now
        self.observations = [(self.numbering.last, lease.remaining + self.share.held)]
        self.debts.clear(self.numbering.last, now)
        if lease.resets_in is None:
            self.reset, self.ends = None, now + self.kind.ceiling
        else:
            self._believe_reset(now + lease.resets_in / 1000, lease.epoch)
            self.span = lease.span / 1000
        if was_plain:
            self.foresee(now, 0.0)

    def _believe_reset(self, ends: float, epoch: int | None) -> None:
        self.ends = ends
        if epoch is not None and self.clock.tells:
            self.counts_down, self.reset = False, epoch / 1000
        else:
            self.counts_down, self.reset = True, ends
        self.low = self.reset

    @property
    def frees(self) -> bool:
        """Whether a call that was answered plainly may have set another free: no lease, no more."""
        return self.share.left > 0 or self.share.health.is_away

    def absorb(self, other: Window) -> None:
        """Become one with another window that turned out to be this one."""
        super().absorb(other)
        if isinstance(other, LeasedWindow):
            other.in_flight = other.share.left = 0
            other.share.report_by(-INF)

    def _open(self, now: float, remaining: int, told: Edges | None) -> None:
        self.crowd.begin(now, is_seen=now <= self.ends + 3 * self.round_trip)
        super()._open(now, remaining, told)
        if self.share.is_away and told is not None:
            # Each of the others does the same with the next window, after a probe of its own.
            self.share.is_short = False
            self.share.claim((self.limit or remaining) // self.share.clients - 1, self.ends)


class LeasedRate(RateWindow):
    """A local rate whose slots are shared with other processes."""

    __slots__ = ("share",)

    #: Nothing is kept for a time without the ledger: this process goes at its share of the rate.
    spare = 0
    household = None

    def __init__(
        self, rate: Rate, name: tuple[str, ...], numbering: Numbering, health: Health
    ) -> None:
        super().__init__(rate)
        self.share = Share(self, Counts.RATE, name, numbering, health, limit=rate)

    def opens(self, now: float, cost: int) -> float:
        """Return the instant from which a call may go."""
        at = super().opens(now, cost)
        if self.share.is_away or not cost:
            return at
        return max(at, self.share.opens(now, cost))

    def take(self, now: float, cost: int, since: float) -> None:
        """Take the tokens; without the ledger this process goes at its share of the rate."""
        super().take(now, cost, since)
        if self.share.is_away:
            self.slot += (self.share.clients - 1) * cost * self.rate.gap
        elif cost:
            self.share.take(now, cost)

    def leased(self, now: float) -> None:
        """Go on with the slots that were leased."""
        share = self.share
        if share.lease.granted:
            share.left = share.lease.granted
            self.slot = now + share.lease.starts_in / 1000
            ends = self.slot + share.left * self.rate.gap
            share.until = max(now, ends) + _SLOT_KEPT


class LeasedConcurrency(ConcurrencyWindow):
    """A local limit on calls in flight, over all processes."""

    __slots__ = ("share",)

    spare = 0
    household = None

    def __init__(
        self, concurrency: Concurrency, name: tuple[str, ...], numbering: Numbering, health: Health
    ) -> None:
        super().__init__(concurrency)
        self.share = Share(self, Counts.CONCURRENCY, name, numbering, health, limit=concurrency)

    def opens(self, now: float, cost: int) -> float:
        """Return whether a call may go: at once, or when others have ended."""
        at = super().opens(now, cost)
        if self.share.is_away:
            share = max(1, self.concurrency.limit // self.share.clients)
            return at if self.in_flight + cost <= share else INF
        return max(at, self.share.opens(now, cost)) if cost else at

    def take(self, now: float, cost: int, since: float) -> None:
        """Take room for a call."""
        super().take(now, cost, since)
        if not self.share.is_away and cost:
            self.share.take(now, cost)

    def give_back(self, cost: int) -> None:
        """Note that a call is no longer in flight."""
        super().give_back(cost)
        self.share.report_by(-INF)

    def leased(self, now: float) -> None:
        """Nothing is believed beyond what is held."""


class BucketGate:
    """Something of a bucket itself that is shared, beside its windows."""

    __slots__ = ("blocked", "bucket", "share", "unit")

    counts: ClassVar[Counts]
    spare = 0

    def __init__(
        self, bucket: Bucket, name: tuple[str, ...], numbering: Numbering, health: Health
    ) -> None:
        self.bucket = bucket
        self.unit = "requests"
        self.blocked: Heap[Any] = Heap()
        self.share = Share(self, self.counts, name, numbering, health)

    @property
    def household(self) -> Household:
        """What all routes of its identity have in common."""
        return self.bucket.household

    @property
    def in_flight(self) -> int:
        """Calls in flight that count here."""
        raise NotImplementedError

    def leased(self, now: float) -> None:
        """Believe what the ledger knows."""
        raise NotImplementedError


class ColdGate(BucketGate):
    """Calls of a quota that has shown no window yet, in whatever process."""

    __slots__ = ()

    counts = Counts.COLD

    @property
    def in_flight(self) -> int:
        """Calls in flight of a bucket that has shown no windows: from then on those count them."""
        return 0 if self.bucket.shown else self.bucket.in_flight

    def show(self, shown: Iterable[WindowReading]) -> None:
        """Have others learn what windows a first answer has shown."""
        if self.share.shown:
            return
        self.share.shown = tuple(dumps(reading) for reading in shown)
        self.share.left = self.share.turn = 0
        self.share.notes.clear()
        self.share.report_by(-INF)

    def leased(self, now: float) -> None:
        """Count in the windows that others were shown."""
        known = [loads(each) for each in self.share.lease.shown]
        if known and None not in known and not self.share.leaves:
            self.bucket.join_known(each for each in known if each is not None)


class PaceGate(BucketGate):
    """A learned pace that all processes keep: one call at a time, over all of them."""

    __slots__ = ()

    counts = Counts.PACE

    @property
    def in_flight(self) -> int:
        """Calls in flight while there is a pace."""
        return self.bucket.calls if self.bucket.pace.gap else 0

    def leased(self, now: float) -> None:
        """Keep the pace that all keep."""
        gap = self.share.lease.gap / 1000
        if gap != self.bucket.pace.gap and not self.share.is_away:
            self.bucket.upset()
            self.bucket.pace.gap = gap


def dumps(reading: WindowReading) -> str:
    """Write down what window a reading is of, for processes that have seen none."""
    return json.dumps([*astuple(reading.kind), reading.bucket])


def loads(text: str) -> WindowReading | None:
    """Read what `dumps` has written, as a reading that tells of no number; None for else."""
    try:
        *kind, bucket = json.loads(text)
        return WindowReading(WindowKind(*kind), 0, None, None, bucket=str(bucket))
    except (TypeError, ValueError):
        return None


#: What a ledger shares.
Gate = LeasedWindow | LeasedRate | LeasedConcurrency | BucketGate
