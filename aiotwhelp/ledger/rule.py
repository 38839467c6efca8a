"""THE RULE over all processes: one record, one report, one instant -> the record's next state.

The same arithmetic as within a process (`aiotwhelp.quota`), where tokens that a process holds take
the place of calls in flight:

    available = floor - held by all - unread - ghosts

Pure: ``now`` is an argument, in milliseconds of the ledger's own clock. SQLite applies this very
function in a transaction; ``exchange.lua`` says the same on a server, and a test holds the two
against each other, operation by operation. So it is written with numbers, lists and tables only.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, fields
from typing import Any, Self

from aiotwhelp.ledger.port import BACK, LEASE, Counts, Lease, Note, Outcome, Report

#: A record is kept for so long after its window, or after the last news.
_KEPT = 60_000

#: A refused or lost probe is followed by another after 1 s, doubling to at most this.
_LONGEST_BACKOFF = 60_000

#: A refusal that holds for all routes shuts them for no longer than this.
_LONGEST_PAUSE = 3_600_000

#: Resets within this of each other are one reset; later by more than the other is another window.
_SAME_RESET = 2000
_OTHER_BACK_END = 4000

#: Seconds until a reset are rounded, by most servers up.
_ROUNDING = 1000

_LEAST_LATENESS = 100
_FOUND_SOON = 1000
_MOST_RELAPSES = 6
_DOUBTS = 8
_LONGEST_ROUND_TRIP = 30_000

#: Debts that are told apart; older ones are put together.
_MOST_DEBTS = 64

#: Header-less answers in a row that are counted.
_MOST_BLANK = 65_536

#: A key that has shown its windows opens as TCP does, until so many calls were answered.
_SLOW_START = 64

#: Who asked in vain asks again after so long at first, doubling to half a lease.
_FIRST_WAIT = 250

#: Processes that are remembered, those that hold nothing included.
_MOST_CLIENTS = 256

#: Who was told when to ask again, and has not for so long after, does not ask any more.
_OVERDUE = 300

#: The share of a window of who does not ask for it is left to it for so long.
_AWAITED = 1000

#: So many windows in a row it is awaited in vain: in the first it may have waited for the reset.
_MOST_VAIN = 2

#: So many tokens for each who asks are enough to divide them fairly.
_ENOUGH = 4

#: While a probe is out, others look after a round trip; before one is known, after this.
_UNKNOWN_ROUND_TRIP = 100

#: Others may use a quota, too: their calls for each thousand of ours. So many are presumed of a
#: quota until a whole window has told, and at most so many are reckoned with.
_PRESUMED_FOREIGN = 250
_MOST_FOREIGN = 4000

#: The learned pace: its first gap, for how long a refused gap is remembered, and the gap below
#: which there is none.
_FIRST_GAP = 250
_GAP_MEMORY = 600_000
_SMALLEST_GAP = 10

#: Slots of a rate are leased for so long ahead, and one always.
_AHEAD = 100_000


@dataclass(slots=True)
class Client:
    """What one process holds."""

    held: int = 0
    #: Without news until then its tokens become ghosts.
    expires: int = 0
    sequence: int = 0
    #: The last note that was taken in.
    noted: int = 0
    #: Until when it counts as one that asks: it got fewer tokens than it can use.
    asks: int = 0
    #: What it was granted, as fair queueing counts: who begins to ask is as far as the others.
    taken: int = 0
    #: Probes of this turn that it has out, and when the last one was leased.
    probes: int = 0
    probed: int = 0
    #: The number as of which it has found out by itself that nobody is there.
    tried: int = 0
    #: When it died holding something, or was awaited in vain, else 0: it may as well be cut off,
    #: and go on for itself.
    gone: int = 0
    #: Until when its share of this window is left to it: it was about to ask, or was gone.
    awaited: int = 0
    #: Windows in a row in which it was awaited, and nobody else used its share either.
    vain: int = 0

    @property
    def is_awaited(self) -> bool:
        """Whether its share is left to it now."""
        return bool(self.awaited) and not self.gone


@dataclass(slots=True)
class Record:
    """What all processes together know of one window, or of what takes its place."""

    number: int = 0
    #: When the first report came, of all since it was emptied.
    began: int = 0
    limit: int | None = None
    epoch: int | None = None
    #: The latest instant at which the reset may come.
    reset: int | None = None
    reset_number: int = 0
    confirmed: bool = False
    seen: int = 0
    ceiling: int = 960_000
    span: int = 0
    late: int = 0
    relapses: int = 0
    clean: int = 0
    doubts: int = 0
    #: [number, remaining], both rising: the first is the floor.
    floor: list[list[int]] = field(default_factory=list)
    #: [number, cost], by rising number.
    unread: list[list[int]] = field(default_factory=list)
    #: The same, of readings that told no reset of this window: of no effect while it goes on, and
    #: missing once another has begun that may have counted those calls instead.
    unplaced: list[list[int]] = field(default_factory=list)
    #: [clear_after, number, cost].
    ghosts: list[list[int]] = field(default_factory=list)
    shut: int = 0
    #: Until when nothing of its identity may go, on any route, and refusals that told so, in a row.
    paused: int = 0
    pauses: int = 0
    answered: int = 0
    round_trip: int = 0
    turn: int = 1
    misses: int = 0
    refusals: int = 0
    hold: int = 0
    #: The number of the back-off, if it is since nobody was there: no call was counted, so each
    #: process may try once in it. 0 for a back-off that holds for all.
    absent: int = 0
    #: Answers in a row without headers, of a key that has shown none.
    blank: int = 0
    shown: list[str] = field(default_factory=list)
    #: When the next slot of a rate is, in microseconds.
    slot: int = 0
    #: A learned gap, and [when, gap] of those that were refused.
    gap: int = 0
    paced_until: int = 0
    gaps: list[list[int]] = field(default_factory=list)
    #: The lowest remaining that calls of ours explain; calls of others, and of ours, in this
    #: window, and their ratio in those before; all ratios are per thousand.
    explained: int = 0
    others: int = 0
    own: int = 0
    #: What was left when the window opened.
    size: int = 0
    before: int = 0
    presumed: int = _PRESUMED_FOREIGN
    #: Processes that are yet to come back after an outage, of how many, and when all surely have.
    missing: int = 0
    crew: int = 1
    back: int = 0
    clients: dict[str, Client] = field(default_factory=dict)

    def dumps(self) -> str:
        """Write it down."""
        state = {each.name: getattr(self, each.name) for each in fields(self)}
        state["clients"] = {
            name: [getattr(client, each.name) for each in fields(Client)]
            for name, client in self.clients.items()
        }
        return json.dumps(state, separators=(",", ":"))

    @classmethod
    def loads(cls, text: str) -> Self:
        """Read what `dumps` has written; raises ValueError for anything else."""
        try:
            state: dict[str, Any] = json.loads(text)
            record = cls(**state)
            record.clients = {name: Client(*held) for name, held in state["clients"].items()}
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError("this is no record of a quota") from error
        return record


def exchange(record: Record, report: Report, now: int) -> Lease:
    """Take one report in, changing the record, and return the lease."""
    _pass(record, now)
    _expire(record, now)
    client, crew = _client(record, report, now)
    if report.sequence <= client.sequence:
        return _lease(record, now, stale=True)
    if crew:
        _come_back(record, crew, now)
    _hear(record, client, report, now)
    void = max(0, -_left(record)) if crew and record.confirmed else 0
    granted, wait, probe, starts_in = 0, None, 0, 0
    if report.want:
        if client.asks < now:
            client.taken = max(client.taken, min(_taken(record, now), default=0))
        client.asks = now
        if report.counts is Counts.RATE:
            granted, wait, starts_in = _slots(record, report, now)
        else:
            granted, wait, probe = _grant(record, client, report, now)
        client.taken += granted
        if report.counts is not Counts.RATE:
            client.held += granted
            _use(record, granted)
        client.asks = now + _OVERDUE + (wait or 0) if granted < report.want else 0
    elif report.idle:
        client.asks = 0
    client.expires = now + LEASE
    if not client.held and not client.probes:
        # It is one of those that share for as long as it was told to wait, and for a window.
        client.expires += max(wait or 0, record.span)
        if report.leaves:
            del record.clients[report.client]
    return _lease(
        record, now, granted=granted, wait=wait, probe=probe, starts_in=starts_in, void=void
    )


def _client(record: Record, report: Report, now: int) -> tuple[Client, int]:
    """Return what is known of a process; and of how many it is one that come back, or 0."""
    client = record.clients.get(report.client)
    if client is not None:
        return client, report.crew
    crew = report.crew or _emptied(record, report, now)
    _make_room(record)
    client = record.clients[report.client] = Client()
    return client, crew


def _emptied(record: Record, report: Report, now: int) -> int:
    """Return how many had a lease of what was a record before this one, or 0."""
    peers = min(report.peers, _MOST_CLIENTS)
    if now >= record.began + LEASE or len(record.clients) >= peers:
        return 0
    if not (record.seen or record.reset_number):
        # What others have read since, and told it, nobody will tell again.
        record.reset_number = record.number
    return peers


def _hear(record: Record, client: Client, report: Report, now: int) -> None:
    """Believe what a process says of itself, and take in what it has seen."""
    record.ceiling = report.ceiling
    if report.shut:
        record.shut = max(record.shut, now + min(report.shut, report.ceiling))
    if report.paused:
        record.paused = max(record.paused, now + min(report.paused, _LONGEST_PAUSE))
        record.pauses = report.pauses
    client.sequence = report.sequence
    notes = [note for note in report.notes if note.number > client.noted]
    spent = sum(note.cost for note in notes if note.outcome is not Outcome.UNSENT)
    # Fewer than were leased if some went back unused; more if the ledger was away.
    _use(record, report.held + spent - client.held)
    client.held = report.held
    for note in notes:
        client.noted = note.number
        if report.counts is Counts.PACE:
            _take_pace(record, note, now)
        else:
            _take_in(record, client, note, now, is_cold=report.counts is Counts.COLD)
    client.gone = client.awaited = client.vain = 0
    # Never more than were leased in this turn: it may still wait for those of an earlier one.
    client.probes = min(client.probes, report.probes)
    if report.shown:
        record.shown = list(report.shown)


def _come_back(record: Record, crew: int, now: int) -> None:
    """After an outage the first to come back tells how many are to follow, each of them once."""
    if now >= record.back:
        record.missing = record.crew = crew
        record.back = now + BACK
    record.missing = max(0, record.missing - 1)


def lifetime(record: Record, now: int) -> int:
    """Return for how long a record is worth keeping without news."""
    ends = max(record.reset or 0, record.shut, record.paused, record.hold, record.slot // 1000)
    return max(4 * LEASE, ends - now) + _KEPT


# Asking --------------------------------------------------------------------------------------


def _grant(record: Record, client: Client, report: Report, now: int) -> tuple[int, int | None, int]:
    """Return the tokens, or the wait, and the turn if it is a probe."""
    if report.counts is Counts.COLD and record.shown:
        return 0, None, 0
    if report.counts is Counts.PACE:
        return _grant_pace(record, client, report, now)
    backs_off = record.hold > now and not record.confirmed and client.tried >= record.absent
    shut = max(record.shut, record.paused)
    if backs_off or shut > now:
        return 0, max(shut, record.hold) - now, 0
    if report.counts is Counts.CONCURRENCY:
        left = max(report.limit, report.need) - _held(record)
    elif report.counts is Counts.COLD and record.blank:
        # One call always, whatever it costs.
        left = max(record.blank + 1, report.need) - _held(record)
    elif record.confirmed:
        left = _left(record) - report.keep - _margin(record)
        if record.answered < _SLOW_START:
            left = min(left, (record.answered + 1) * report.need - _held(record))
    else:
        return _grant_probe(record, client, report, now)
    return _grant_from(record, client, report, left, now)


def _grant_from(
    record: Record, client: Client, report: Report, left: int, now: int
) -> tuple[int, int | None, int]:
    if record.confirmed and (claimed := _claimed(record, now)) > 0:
        if left - claimed < report.need <= left:
            wait = record.back - now if now < record.back else _patience(report)
            return 0, max(1, min(wait, _ends(record) - now)), 0
        left -= claimed
    if left >= report.need:
        return _share(record, client, report, left, now)
    return _grant_when_spent(record, client, report, now)


def _share(
    record: Record, client: Client, report: Report, left: int, now: int
) -> tuple[int, int | None, int]:
    """What is left, divided among those who ask; nobody runs far ahead of another.

    Where there is enough for all, nobody has more of it than another by more than the equal share
    of one of all processes, or half of that of one who asks: who does not ask yet may be about to.
    Where there is not, one call goes at a time; where others use the quota, too, half is divided.
    """
    taken = _taken(record, now)
    behind = min(_taken(record, now, client), default=math.inf)
    most, stride = left, 0
    if record.size >= _ENOUGH * len(taken):
        least = min(taken)
        stride = -(-record.size // min(2 * len(taken), max(2, len(record.clients))))
        most = least + stride - client.taken
        if client.taken > least and most < report.need:
            return 0, _patience(report), 0
        taken = [each for each in taken if each <= least + stride - min(stride, _ENOUGH)]
    share = left // len(taken)
    if record.presumed or _foreign(record):
        share //= 2
    elif stride:
        share = max(-(-left // len(taken)), min(left, _ENOUGH))
    elif share < _ENOUGH:
        share = report.need
    granted = min(report.want, max(report.need, min(share, most)))
    ahead = client.taken + granted - behind
    is_last = left - granted < report.need and _held(record) > client.held
    is_ahead = stride and ahead > max(0, stride - max(report.need, _ENOUGH))
    if granted < report.want and (is_last or is_ahead):
        # Who asks again at once would be told so then, or given next to nothing.
        return granted, _FIRST_WAIT, 0
    return granted, None, 0


def _taken(record: Record, now: int, but: Client | None = None) -> list[int]:
    """Return what each of those was granted that ask, but for one."""
    clients = record.clients.values()
    return [each.taken for each in clients if each.asks >= now and each is not but]


def _grant_probe(
    record: Record, client: Client, report: Report, now: int
) -> tuple[int, int | None, int]:
    """One call finds out; a second one if the first is silent. Never a third."""
    probing = [each for each in record.clients.values() if each.probes]
    out = sum(each.probes for each in probing)
    last = max((each.probed for each in probing), default=now)
    round_trip = record.round_trip or _UNKNOWN_ROUND_TRIP
    answered = last + round_trip + round_trip // 4
    wait = max(answered - now, 0) + (20 << min(report.vain, 5))
    if out > 1 or (out and now < last + max(2000, 3 * record.round_trip)):
        return 0, wait, 0
    _lease_probe(client, now)
    return report.need, wait if report.want > report.need else None, record.turn


def _lease_probe(client: Client, now: int) -> None:
    client.probes += 1
    client.probed = now


def _grant_pace(
    record: Record, client: Client, report: Report, now: int
) -> tuple[int, int | None, int]:
    """Single file, with a gap from grant to grant."""
    if not record.gap:
        return 0, None, 0
    if record.hold > now:
        return 0, record.hold - now, 0
    if _held(record) > client.held:
        return 0, _patience(report), 0
    if client.held:
        return 0, None, 0  # until its own call is settled
    record.hold = now + record.gap
    return 1, None, 0


def _patience(report: Report) -> int:
    return min(LEASE // 2, _FIRST_WAIT << min(report.vain, 3))


def _grant_when_spent(
    record: Record, client: Client, report: Report, now: int
) -> tuple[int, int | None, int]:
    """At the reset; or if only calls without an answer block, one goes to see before."""
    held = _held(record)
    is_told = record.confirmed and record.reset is not None
    if is_told and record.floor[0][1] - report.keep < report.need:
        return 0, _until_reset(record, now), 0  # whatever others hold
    if held > client.held:
        # What others hold may come back, or turn out to be in the numbers already.
        wait = _patience(report)
        ends = record.reset if record.confirmed and record.reset else now + wait
        return 0, max(1, min(wait, ends + record.late - now)), 0
    if held:
        return 0, None, 0
    ghosts = sum(ghost[2] for ghost in record.ghosts)
    left = _left(record) - report.keep
    if left < report.need <= left + ghosts:
        at = max(record.hold, max(ghost[0] for ghost in record.ghosts))
        if at <= now:
            record.hold = now + 1000
            _lease_probe(client, now)
            return report.need, None, record.turn
        return 0, min(at - now, _until_reset(record, now)), 0
    if record.reset is None:
        # Spent, and nobody knows until when.
        _doubt(record)
        _back_off_refused(record, now)
        return 0, record.hold - now, 0
    return 0, _until_reset(record, now), 0


def _until_reset(record: Record, now: int) -> int:
    return max(1, _ends(record) - now)


def _slots(record: Record, report: Report, now: int) -> tuple[int, int | None, int]:
    """Lease slots of a schedule: those of the next moments, and one always."""
    gap, now = report.gap, 1000 * now
    slot = max(record.slot, now)
    opens = slot - (report.limit - report.need) * gap
    early = opens - now - max(_AHEAD, 2 * gap)
    if early > 0:
        return 0, early // 1000 + 1, 0
    ahead = (now + _AHEAD - slot) // gap + report.limit
    granted = min(report.want, max(report.need, ahead // (2 * len(_taken(record, now // 1000)))))
    record.slot = slot + granted * gap
    return granted, None, -((now - slot) // 1000)


def _use(record: Record, tokens: int) -> None:
    """Count tokens as calls of ours, until they come back unused."""
    record.explained -= tokens
    record.own += tokens


def _foreign(record: Record) -> int:
    seen = max(1000 * record.others // max(1, record.own), record.before)
    return min(_MOST_FOREIGN, seen)


def _margin(record: Record) -> int:
    """Tokens that others may take while so many of ours are on their way: see `Foreign`."""
    expected = max(_foreign(record), record.presumed) * _held(record)
    return -(-(expected + math.isqrt(4_000 * expected)) // 1000)


def _claimed(record: Record, now: int) -> int:
    """Tokens of this window that may be with processes which are yet to come, or come back."""
    limit = record.size if record.limit is None else record.limit
    claimed = record.missing * limit // record.crew if now < record.back else 0
    # Where there are many, a share is kept for each who is about to ask in any case.
    are_few = record.size < _ENOUGH * len(record.clients)
    awaited = [each for each in record.clients.values() if each.is_awaited]
    kept = sum(are_few or now > each.asks for each in awaited)
    return claimed + kept * _share_of_each(record)


def _share_of_each(record: Record) -> int:
    """What each process may take of a window for itself: the call that saw it begin is in it."""
    return -(-max(0, record.size) // max(1, len(record.clients)))


def _held(record: Record) -> int:
    return sum(client.held for client in record.clients.values())


def _left(record: Record) -> int:
    left = record.floor[0][1] - _held(record)
    left -= sum(cost for _, cost in record.unread)
    return left - sum(ghost[2] for ghost in record.ghosts)


def _lease(
    record: Record,
    now: int,
    *,
    granted: int = 0,
    wait: int | None = None,
    probe: int = 0,
    starts_in: int = 0,
    void: int = 0,
    stale: bool = False,
) -> Lease:
    return Lease(
        granted=granted,
        wait=wait,
        number=record.number,
        probe=probe,
        confirmed=record.confirmed,
        limit=record.limit,
        remaining=max(0, _left(record)) if record.confirmed else 0,
        resets_in=None if record.reset is None else _ends(record) - now,
        epoch=record.epoch,
        clients=len(record.clients),
        shown=tuple(record.shown),
        starts_in=starts_in,
        gap=max(record.gap, record.paced_until - now),
        misses=record.misses,
        paused=max(0, record.paused - now),
        pauses=record.pauses if record.paused > now else 0,
        void=void,
        stale=stale,
        span=record.span,
    )


# Time passes ---------------------------------------------------------------------------------


def _ends(record: Record) -> int:
    latest = record.seen + record.ceiling
    return latest if record.reset is None else min(record.reset + record.late, latest)


def _pass(record: Record, now: int) -> None:
    """Nothing is known at first, and after the reset, until a probe has answered."""
    if not record.number:
        # An engine may lose its data: what processes know of an earlier record is older than this.
        record.number = record.began = now
    if record.confirmed and now >= _ends(record):
        _doubt(record)


def _doubt(record: Record) -> None:
    record.confirmed = False
    record.number += 1
    record.reset_number = record.number
    record.turn += 1
    for client in record.clients.values():
        client.probes = 0


def _expire(record: Record, now: int) -> None:
    """Processes without news are dead, or stopped: what they held may have been sent."""
    # Of all who are given up at one instant, as it was left to each of them until then.
    share = _share_of_each(record)
    for name, client in list(record.clients.items()):
        if client.is_awaited and now >= client.awaited:
            _give_up(record, client, share, now)
        elif client.expires and now >= client.expires:
            if client.held:
                record.number += 1
                _add_ghost(record, now + max(1000, 2 * record.round_trip), client.held)
            if client.probes:
                _missed(record, now)
            if client.held and record.span:
                client.held = client.probes = client.asks = 0
                client.gone = 0 if client.is_awaited else now
                client.expires = now + LEASE + record.span
            else:
                del record.clients[name]


def _give_up(record: Record, client: Client, share: int, now: int) -> None:
    """Await a process no longer: what it may have made calls for, a call of another one tells."""
    if record.confirmed:
        record.number += 1
        _add_ghost(record, now, share)
    client.gone, client.asks = now, 0
    if not client.held | client.probes:
        client.expires = max(client.expires, now + LEASE + record.span)


def _make_room(record: Record) -> None:
    """Forget who has held nothing for longest, where many processes come and go."""
    if len(record.clients) >= _MOST_CLIENTS:
        idle = [name for name, each in record.clients.items() if not each.held | each.probes]
        if idle:
            del record.clients[min(idle, key=lambda name: record.clients[name].expires)]


# Notes ---------------------------------------------------------------------------------------


def _take_in(record: Record, client: Client, note: Note, now: int, *, is_cold: bool) -> None:
    record.number += 1
    is_probe = note.probe == record.turn
    if note.outcome is Outcome.READ:
        _read(record, note, now, is_probe=is_probe)
    elif note.outcome is Outcome.UNREAD:
        record.misses = 0
        if is_cold:
            record.blank = min(record.blank + note.times, _MOST_BLANK)
            _confirmed(record)
        else:
            _owe(record, record.unread, note.cost)
    elif note.outcome is Outcome.REFUSED:
        record.blank //= 2
        _owe(record, record.unread, note.cost)
        if is_probe:
            record.misses = 0
            _back_off_refused(record, now)
    elif note.outcome is Outcome.UNSENT:
        if is_probe:
            _found_nobody(record, client, now)
    elif note.outcome is Outcome.CACHED:
        _add_ghost(record, now - note.ago, note.cost)
    else:
        record.blank //= 2
        span = 0 if note.outcome is Outcome.FAILED else max(1000, 2 * record.round_trip)
        _add_ghost(record, now - note.ago + span, note.cost)
        if is_probe:
            _missed(record, now)


def _take_pace(record: Record, note: Note, now: int) -> None:
    """Grow with a refusal, unless the call went before the last growth; shrink by 5 % else."""
    if note.outcome is Outcome.REFUSED and note.known >= record.reset_number:
        while record.gaps and record.gaps[-1][1] <= record.gap:
            record.gaps.pop()
        record.gaps.append([now, record.gap])
        record.gap = min(_LONGEST_BACKOFF, max(_FIRST_GAP, 2 * record.gap))
        record.number += 1
        record.reset_number = record.number
        record.hold = max(record.hold, now + record.gap)
    elif note.outcome is Outcome.READ and record.gap:
        record.gaps = [each for each in record.gaps if each[0] >= now - _GAP_MEMORY]
        least = min(_LONGEST_BACKOFF, record.gaps[0][1] * 11 // 10) if record.gaps else 0
        record.gap = max(record.gap * 95 // 100, least)
        if record.gap < _SMALLEST_GAP:
            record.gap = 0


def _read(record: Record, note: Note, now: int, *, is_probe: bool) -> None:
    if note.limit is not None:
        record.limit = note.limit
    if note.refused:
        _use(record, -note.cost)
        if note.remaining >= note.cost:
            # A limit that no header shows: whoever asks next is to keep a pace with the others.
            record.paced_until = now + LEASE
    record.answered = min(record.answered + note.times, _SLOW_START)
    took = min(note.took, _LONGEST_ROUND_TRIP)
    record.round_trip = max(took, record.round_trip + (took - record.round_trip) // 16)
    if record.confirmed:
        _fold(record, note, now)
    else:
        _answer_probe(record, note, now, is_probe=is_probe)


def _fold(record: Record, note: Note, now: int) -> None:
    """Before the reset every answer speaks of the current window, or of an older one."""
    usable = _is_usable(record, note)
    if _is_earlier(record, note, now) and note.known < record.reset_number:
        if not usable:
            return  # of a window that has passed
        if note.remaining < record.floor[0][1]:
            # Not surely older: back ends disagree. Until a later call tells, it counts.
            _owe(record, record.unread, note.cost)
            return
    _clear_debts(record, note, now)
    if usable and note.remaining > record.floor[0][1] and _is_of_next(record, note, now):
        _open(record, note, now)
        return
    while record.floor and record.floor[0][0] <= note.known:
        record.floor.pop(0)
    _observe(record, note.remaining)
    if not _is_placed(record, note, now):
        _owe(record, record.unplaced, note.cost)
    _confirmed(record)
    record.others = max(record.others, record.explained - note.remaining)
    if usable:
        _move_reset(record, note, now)
    record.seen = now


def _answer_probe(record: Record, note: Note, now: int, *, is_probe: bool) -> None:
    """After the reset only a later one opens the window; the old one means: not yet."""
    told = note.resets_in is not None
    if record.reset is None and note.known < record.reset_number and note.remaining > 0:
        _owe(record, record.unread, note.cost)
    elif (
        _is_usable(record, note)
        and not _is_same(record, note, now)
        and not _is_earlier(record, note, now)
    ):
        if is_probe and not note.refused:
            _learn_lateness(record, now - note.ago - note.took)
        _clear_debts(record, note, now)
        _open(record, note, now)
    elif note.known < record.reset_number:
        # A slow answer of the window before, or one that cannot be placed.
        if not told:
            _owe(record, record.unread, note.cost)
        elif _is_same(record, note, now):
            # It counts if that window turns out to go on: a probe may have been ahead of it.
            _observe(record, note.remaining)
    else:
        _clear_debts(record, note, now)
        if note.refused or note.remaining <= 0:
            record.misses = 0
            _back_off_refused(record, now)
        else:
            # The old window goes on, or no reset is told. Its tokens are real.
            if told:
                note = note._replace(remaining=_least(record, note))
            _open(record, note, now, is_placed=False)


def _least(record: Record, note: Note) -> int:
    """Return what is left by a probe, or by calls that told of that window since it went."""
    since = [left for number, left in record.floor if number > note.known]
    return min([note.remaining, *since])


def _open(record: Record, note: Note, now: int, *, is_placed: bool = True) -> None:
    for _, cost in record.unplaced:
        _add_ghost(record, now, cost)
    record.floor, record.unplaced = [], []
    _observe(record, note.remaining)
    if record.seen:
        record.presumed = 0
        record.before //= 2
        record.before = _foreign(record)
    _await_again(record, now)
    record.others = record.own = 0
    record.explained = record.size = _left(record)
    record.confirmed = True
    _confirmed(record)
    record.doubts = 0
    if is_placed and note.resets_in is not None:
        # Seen from its very start only after a rollover; else the longest seen counts.
        record.span = _lasts(note) if record.reset is not None else max(record.span, _lasts(note))
        record.reset, record.epoch = now + note.resets_in, note.epoch
        record.reset_number = record.number
    else:
        record.reset = record.epoch = None
    record.seen = now


def _await_again(record: Record, now: int) -> None:
    """Leave its share of the next window to each that may be cut off, until it seems to be dead.

    It is there as long as others than ours use about a share for each that does not come.
    """
    share, used = _share_of_each(record), record.others
    for name, client in list(record.clients.items()):
        client.taken = 0
        if client.awaited and client.gone:
            is_there = used > 0 and 2 * used >= share
            used -= share
            client.vain = 0 if is_there else client.vain + 1
            if client.vain >= _MOST_VAIN:
                del record.clients[name]
        if client.gone or client.asks:
            client.gone, client.awaited = 0, now + _AWAITED


def _observe(record: Record, remaining: int) -> None:
    record.number += 1
    while record.floor and record.floor[-1][1] >= remaining:
        record.floor.pop()
    record.floor.append([record.number, remaining])


def _move_reset(record: Record, note: Note, now: int) -> None:
    """Of two resets the later stands, unless answer after answer says otherwise.

    Of one reset the earliest bound stands: each is one that the reset comes before.
    """
    at = now + (note.resets_in or 0)
    if record.reset is None:
        record.span = max(record.span, _lasts(note))
        record.reset, record.epoch = at, note.epoch
        record.reset_number = record.number
        return
    apart = _apart(record, note, now)
    if apart == 0 or (note.epoch is None and abs(apart) <= _ROUNDING):
        record.reset = min(record.reset, at)
        record.doubts = 0
    elif apart > 0:
        if not _is_same(record, note, now):
            record.reset_number = record.number
        record.reset, record.epoch = at, note.epoch
        record.doubts = 0
    elif _is_same(record, note, now):
        record.doubts = 0
    else:
        record.doubts += 1
        if record.doubts >= _DOUBTS:
            record.reset, record.epoch, record.doubts = at, note.epoch, 0


def _lasts(note: Note) -> int:
    """Return how long a window is that an answer has begun: no longer than by its own Date."""
    return (note.resets_in or 0) if note.lasts is None else note.lasts


def _apart(record: Record, note: Note, now: int) -> int:
    """Return by how much a told reset is later than the one that is known."""
    if note.epoch is not None and record.epoch is not None:
        return note.epoch - record.epoch
    return now + (note.resets_in or 0) - (record.reset or 0)


def _is_usable(record: Record, note: Note) -> bool:
    return note.resets_in is not None and 0 < note.resets_in <= record.ceiling


def _is_placed(record: Record, note: Note, now: int) -> bool:
    """Whether an answer surely tells of the window that goes on, or of one before it."""
    if note.resets_in is None:
        return False
    return _is_usable(record, note) or _apart(record, note, now) <= _SAME_RESET


def _is_same(record: Record, note: Note, now: int) -> bool:
    if note.resets_in is None or record.reset is None:
        return False
    return abs(_apart(record, note, now)) <= min(_SAME_RESET, record.span // 2)


def _is_earlier(record: Record, note: Note, now: int) -> bool:
    if note.resets_in is None or record.reset is None or _is_same(record, note, now):
        return False
    return _apart(record, note, now) < 0


def _is_of_next(record: Record, note: Note, now: int) -> bool:
    if record.reset is None:
        return False
    return _apart(record, note, now) > max(_OTHER_BACK_END, record.span // 2)


def _learn_lateness(record: Record, sent: int) -> None:
    """A server that refused at its own reset will do so again; clean rollovers forget it."""
    if record.reset is None:
        return
    if record.refusals:
        found = min(sent, record.hold + _FOUND_SOON)
        record.relapses = min(record.relapses + 1, _MOST_RELAPSES) if record.late else 0
        record.clean = 0
        record.late = max(0, found - record.reset)
    else:
        record.clean += 1
        if record.clean >= 1 << record.relapses:
            record.clean = 0
            record.late //= 2
    if record.late < _LEAST_LATENESS:
        record.late = 0


# Debts and back-off --------------------------------------------------------------------------


def _owe(record: Record, debts: list[list[int]], cost: int) -> None:
    if len(debts) >= _MOST_DEBTS:
        cost += debts.pop()[1]
    debts.append([record.number, cost])


def _add_ghost(record: Record, after: int, cost: int) -> None:
    if len(record.ghosts) >= _MOST_DEBTS:
        latest, _, others = record.ghosts.pop()
        after, cost = max(latest, after), cost + others
    record.ghosts.append([after, record.number, cost])


def _clear_debts(record: Record, note: Note, now: int) -> None:
    """Forget what a reading has in it: of a call sent then, knowing that number."""
    sent = now - note.ago - note.took
    record.unread = [each for each in record.unread if each[0] > note.known]
    record.unplaced = [each for each in record.unplaced if each[0] > note.known]
    record.ghosts = [each for each in record.ghosts if each[0] > sent or each[1] > note.known]


def _backoff(times: int) -> int:
    return min(_LONGEST_BACKOFF, 1000 << min(times, 6))


def _missed(record: Record, now: int) -> None:
    """Back off after a probe without an answer: the next at once, then 1, 2, 4 ... 60 s."""
    record.misses += 1
    record.absent = 0
    if record.misses > 1:
        record.hold = max(record.hold, now + _backoff(record.misses - 2))


def _found_nobody(record: Record, client: Client, now: int) -> None:
    """Back off likewise, once for all who find nobody there before the back-off is over."""
    if record.hold <= now:
        _missed(record, now)
        record.absent = record.number
    elif not record.absent:
        _missed(record, now)
    client.tried = record.number


def _back_off_refused(record: Record, now: int) -> None:
    record.hold = max(record.hold, now + _backoff(record.refusals))
    record.refusals += 1
    record.absent = 0


def _confirmed(record: Record) -> None:
    record.misses = record.refusals = record.hold = record.absent = 0
