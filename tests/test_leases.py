"""A process's side of a shared quota, as films without a ledger: what it holds, tells and asks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from aiotwhelp import quota
from aiotwhelp.clock import ServerClock
from aiotwhelp.errors import LedgerError
from aiotwhelp.headers import DAY_OF_APP, FIFTEEN_MINUTES, WindowKind, WindowReading
from aiotwhelp.leases import (
    ColdGate,
    Health,
    LeasedConcurrency,
    LeasedRate,
    LeasedWindow,
    PaceGate,
    Share,
    dumps,
    loads,
)
from aiotwhelp.ledger.port import Counts, Lease, Outcome, Report
from aiotwhelp.quota import Granted, Household
from aiotwhelp.rates import Concurrency, Rate
from aiotwhelp.windows import INF, Numbering, Probing

NAME = ("api.example", "app", "GET /")
NOW = 1000.0
EPOCH = 1_700_000_000.0


class Bucket:
    """What a gate looks at of a bucket, or has it do."""

    def __init__(self) -> None:
        self.in_flight = self.calls = 4
        self.shown = False
        self.pace = SimpleNamespace(gap=0.0)
        self.paces = self.upsets = 0
        self.joined: list[list[WindowReading]] = []
        self.household = Household()

    def upset(self) -> None:
        self.upsets += 1

    def join_pace(self) -> None:
        self.paces += 1

    def join_known(self, readings: Iterable[WindowReading]) -> None:
        self.joined.append(list(readings))


class Process:
    """A gate of some kind, and what this process's share of it tells and is told."""

    def __init__(self, gate: Any = None, health: Health | None = None) -> None:
        self.health = health or Health()
        self.numbering = Numbering()
        self.gate = gate or LeasedConcurrency(Concurrency(50), NAME, self.numbering, self.health)

    @classmethod
    def of_window(cls, kind: WindowKind = FIFTEEN_MINUTES) -> Process:
        process = cls(object())
        clock = ServerClock()
        process.gate = LeasedWindow(kind, clock, process.numbering, "key", NAME, process.health)
        return process

    @classmethod
    def of_rate(cls, rate: Rate) -> Process:
        process = cls(object())
        process.gate = LeasedRate(rate, NAME, process.numbering, process.health)
        return process

    @property
    def share(self) -> Share:
        return self.gate.share

    def report(self, at: float = 0.0, want: int = 0, **more: Any) -> Report:
        return self.share.report("me", "record", NOW + at, want, **more)

    def told(self, at: float = 0.0, want: int = 0, took: float = 0.0, **lease: Any) -> Report:
        """Report, and be answered so many seconds later."""
        report = self.report(at, want)
        self.share.apply(Lease(**lease), NOW + at, NOW + at + took, jitter=0.5)
        return report

    def leased(self, granted: int, at: float = 0.0, **lease: Any) -> Report:
        """Ask for tokens, and get them."""
        self.share.asks = True
        return self.told(at, granted, granted=granted, **lease)

    def call(self, at: float = 0.0, cost: int = 1) -> Granted:
        """Take tokens that are there."""
        bucket: Any = SimpleNamespace(numbering=self.numbering)
        granted = Granted(bucket, NOW + at, cost, None)
        if isinstance(self.gate, LeasedWindow):
            probe = self.gate.take(NOW + at, cost, NOW + at, False)
            granted.probes = None if probe is None else [probe]
        else:
            self.gate.take(NOW + at, cost, NOW + at)
        return granted

    def unsent(self, granted: Granted, at: float, *, failed: bool = False) -> None:
        """Settle a call that never left, as its bucket does."""
        self.gate.give_back(granted.cost)
        for probing, turn in granted.probes or ():
            probing.ended(turn)
        self.gate.unsent(granted, NOW + at, failed=failed)

    def say(
        self, granted: Granted, at: float, outcome: Outcome = Outcome.READ, **said: Any
    ) -> None:
        self.gate.give_back(granted.cost)
        self.share.say(granted, NOW + at, outcome, granted.cost, **said)


def test_at_first_nothing_is_held_wanted_or_told():
    process = Process()
    share, health = process.share, process.health
    assert (share.left, share.held, share.taken, share.use, share.turn) == (0, 0, 0, 0, 0)
    assert (share.need, share.keep, share.vain) == (1, 0, 0)
    assert (share.is_short, share.is_claim) == (False, False)
    assert (share.until, share.ask_at, share.shut_until) == (-INF, -INF, -INF)
    assert (share.due, share.rank, share.place) == (INF, INF, -1)
    flags = (share.asks, share.hopes, share.is_out, share.leaves, share.missed, health.is_away)
    assert flags == (False,) * 6
    assert all(type(flag) is bool for flag in flags)
    assert (health.is_reachable, health.failure, health.clients) == (True, None, 0)
    report = process.report()
    assert (report.sequence, report.want, report.held, report.notes) == (1, 0, 0, ())
    assert report.crew == 0


# Notes -----------------------------------------------------------------------------------------


def test_a_note_tells_how_a_call_ended_and_how_long_ago():
    process = Process()
    process.leased(5, number=17)
    granted = process.call(0.1, cost=2)
    process.say(
        granted, 0.35, remaining=7, limit=15, epoch=99_000, refused=True, resets_at=NOW + 60.0
    )
    (note,) = process.report(0.4).notes
    assert (note.number, note.outcome, note.cost, note.known) == (1, Outcome.READ, 2, 17)
    assert (note.took, note.ago, note.times, note.probe) == (250, 50, 1, 0)
    assert (note.remaining, note.limit, note.epoch, note.refused) == (7, 15, 99_000, True)
    assert note.resets_in == 59_600
    process = Process()
    process.say(process.call(), 0.0, Outcome.UNREAD)
    (note,) = process.report(-0.1).notes
    assert (note.took, note.ago, note.resets_in, note.refused) == (0, 0, None, False)
    assert (note.limit, note.epoch, note.remaining, note.known) == (None, None, 0, 0)


def test_calls_that_tell_the_same_are_told_of_together():
    process = Process()
    for _ in range(2):
        process.say(process.call(), 0.0)
    assert [note.times for note in process.report().notes] == [2], "before the first report, too"
    process = Process()
    process.leased(9)
    first, second, third = (process.call(at, cost) for at, cost in ((0.0, 1), (-0.1, 2), (0.2, 3)))
    process.say(first, 0.1, remaining=7, resets_at=NOW + 60.0, lasts=59.5)
    process.say(second, 0.3, remaining=8, resets_at=NOW + 59.5, lasts=59.8)
    process.say(third, 0.2, remaining=9, resets_at=NOW + 60.5)
    (note,) = process.report(0.4).notes
    assert (note.cost, note.times, note.remaining) == (6, 3, 7)
    assert (note.took, note.ago) == (400, 100), "the longest, and the last answer"
    assert note.resets_in == 59_100, "of one reset the earliest bound stands"
    assert note.lasts == 59_500, "it may have begun with the first of them"


@pytest.mark.parametrize(
    ("first", "second", "notes"),
    [
        ({}, {}, 1),
        ({"limit": 15}, {"limit": 15}, 1),
        ({"limit": 15}, {"limit": 16}, 2),
        ({"epoch": 1}, {"epoch": 2}, 2),
        ({"refused": True}, {"refused": False}, 2),
        ({"outcome": Outcome.UNREAD}, {"outcome": Outcome.FAILED}, 2),
        ({"outcome": Outcome.UNREAD}, {"outcome": Outcome.UNREAD}, 1),
        ({"outcome": Outcome.LOST}, {"outcome": Outcome.LOST}, 2),
        ({"resets_at": 60.0}, {}, 2),
        ({}, {"resets_at": 60.0}, 2),
        ({"resets_at": 60.0}, {"resets_at": 61.0}, 1),
        ({"resets_at": 60.0}, {"resets_at": 61.5}, 2),
        ({"resets_at": 61.5}, {"resets_at": 60.0}, 2),
    ],
)
def test_calls_that_tell_different_things_are_told_apart(
    first: dict[str, Any], second: dict[str, Any], notes: int
):
    process = Process()
    process.leased(9)
    for said in (first, second):
        process.say(process.call(), 0.1, **said)
    assert len(process.report(0.2).notes) == notes


@pytest.mark.parametrize(
    ("outcome", "known"), [(Outcome.READ, [2]), (Outcome.UNREAD, [1, 2]), (Outcome.FAILED, [1, 2])]
)
@pytest.mark.parametrize("in_turn", [True, False])
def test_of_readings_the_newest_number_that_one_knew_is_told(
    outcome: Outcome, known: list[int], in_turn: bool
):
    """The ledger has seen none of them: their lowest number stands, whatever each of them knew."""
    process = Process()
    process.leased(9, number=1)
    old = process.call()
    process.leased(9, 0.1, number=2)
    new = process.call(0.2)
    for granted in (old, new) if in_turn else (new, old):
        process.say(granted, 0.2, outcome, remaining=5 if granted is old else 7)
    notes = process.report(0.3).notes
    assert sorted(note.known for note in notes) == known
    assert min(note.remaining for note in notes) == 5


def test_a_probe_is_told_apart():
    window = Process.of_window()
    window.leased(1, number=1, probe=4)
    probe = window.call()
    for granted in (probe, window.call(), window.call()):
        window.say(granted, 0.1, Outcome.UNREAD)
    assert [(note.probe, note.times) for note in window.report(0.2).notes] == [(4, 1), (0, 2)]


def test_what_was_reported_is_told_again_as_it_was_until_it_is_answered():
    process = Process()
    process.leased(9)
    process.say(process.call(), 0.1)
    assert process.report(0.2).sequence == 2
    process.share.failed()
    process.say(process.call(), 0.3)
    report = process.told(0.4)
    assert [(note.number, note.times) for note in report.notes] == [(1, 1), (2, 1)]
    assert report.sequence == 3
    process.say(process.call(), 0.5)
    assert [note.number for note in process.told(0.6).notes] == [3]
    assert process.told(0.7).notes == ()


def test_what_a_stale_answer_was_to_take_in_is_told_again():
    process = Process()
    process.leased(9)
    process.say(process.call(), 0.1)
    process.told(0.2, stale=True)
    assert (process.share.ask_at, process.share.is_out) == (NOW + 0.2, False)
    assert [note.number for note in process.told(0.3).notes] == [1]


def test_beyond_the_most_notes_calls_are_told_of_as_lost():
    process = Process()
    process.leased(900)
    for limit in range(70):
        process.say(process.call(cost=2), 0.1, limit=limit)
    notes = process.report(0.2).notes
    assert [note.limit for note in notes[:-1]] == list(range(63))
    assert [note.outcome for note in notes[-2:]] == [Outcome.READ, Outcome.LOST]
    assert notes[-1].cost == 2 * 7
    assert sum(note.cost for note in notes) == 140


def test_a_call_knows_what_the_ledger_had_told_before_it_went():
    process = Process()
    early = process.call()
    process.leased(9, number=5)
    granted = [process.call()]
    process.leased(9, 0.1, number=5)
    granted.append(process.call())
    process.leased(9, 0.2, number=8)
    granted.append(process.call())
    assert [process.share._known(each.known) for each in (early, *granted)] == [0, 5, 5, 8]
    for number in range(9, 109):
        process.leased(9, 0.3, number=number)
    assert process.share._known(granted[-1].known) == 0, "too long ago: it knows nothing"
    assert process.share._known(process.call().known) == 108
    assert len(process.share._marks) == 64


def told_plainly(process: Process, granted: Granted, at: float, remaining: int) -> bool:
    """Settle a call with an answer that tells of the reset that is known."""
    reading = WindowReading(FIFTEEN_MINUTES, remaining, 100, 1_700_000_060.0)
    process.gate.foresee(NOW + at, 0.0)
    if not process.gate.tells_the_same(reading):
        return False
    assert answered_plainly(process, granted, at, remaining)
    process.gate.heard(granted, NOW + at, reading)
    return True


def answered_plainly(
    process: Process, granted: Granted, at: float, remaining: int, resets_in: float | None = None
) -> bool:
    """Settle a call with an answer that tells what the one before did, but for what is left."""
    bucket = quota.Bucket(lambda *_: process.gate, process.numbering)
    bucket.plain = process.gate
    return bucket.answered_plainly(granted, NOW + at, remaining, resets_in)


def told_in_full(process: Process, granted: Granted, at: float, remaining: int) -> bool:
    """Do the same, step by step."""
    reading = WindowReading(FIFTEEN_MINUTES, remaining, 100, 1_700_000_060.0)
    process.gate.give_back(1)
    process.gate.observe(granted, NOW + at, reading, refused=False)
    return True


KNOWN = {"confirmed": True, "remaining": 90, "limit": 100}
KNOWN |= {"resets_in": 60_000, "epoch": 1_700_000_060_000}


def as_known(**lease: Any) -> Process:
    """Return one that holds tokens of a window whose reset is known as the server tells it."""
    process = Process.of_window()
    process.gate.clock.observe(1_700_000_000.0, NOW, NOW)
    process.leased(9, number=1, **{**KNOWN, **lease})
    return process


def test_answers_that_tell_what_is_known_are_told_of_as_any_others() -> None:
    said = []
    for settle in (told_plainly, told_in_full):
        process = as_known()
        first, second, third, fourth = (process.call(at) for at in (0.0, 0.1, 0.2, 0.3))
        process.leased(3, 0.35, number=7, **KNOWN)
        fifth, sixth = (process.call(at) for at in (0.4, 0.42))
        assert all(
            settle(process, granted, at, remaining)
            for granted, at, remaining in (
                (second, 0.5, 80),
                (first, 0.6, 79),
                (fifth, 0.7, 82),
                (third, 0.71, 81),
            )
        )
        report = process.report(0.75)
        assert settle(process, sixth, 0.8, 70)
        process.share.failed()
        again = process.report(0.85)
        assert settle(process, fourth, 0.9, 69)
        process.share.apply(Lease(number=9, **KNOWN), NOW + 0.85, NOW + 0.9, jitter=0.5)
        last = process.report(0.95)
        said.append((report.notes, again.notes, last.notes, last.held, process.share.due))
    plainly, in_full = said
    assert plainly == in_full
    (note,) = plainly[0]
    assert (note.cost, note.times, note.known, note.took, note.ago) == (4, 4, 7, 600, 40)
    assert (note.remaining, note.resets_in, len(plainly[1]), len(plainly[2])) == (79, 59_256, 2, 1)


def test_where_the_reset_comes_late_the_best_known_one_is_told_of_many_answers() -> None:
    for settle in (told_plainly, told_in_full):
        process = as_known()
        process.gate.late = 0.4
        calls = [process.call() for _ in range(3)]
        assert settle(process, calls.pop(), 0.1, 80)
        assert settle(process, calls.pop(), 0.2, 79)
        process.gate.clock.observe(EPOCH + 1.0, NOW + 0.7, NOW + 0.7)
        assert settle(process, calls.pop(), 0.7, 78)
        (note,) = process.report(0.7).notes
        assert (note.times, note.resets_in) == (3, 59_006), "and not with what it is late by"


def test_what_was_reported_or_answered_meanwhile_is_added_to_no_more() -> None:
    process = as_known()
    calls = [process.call() for _ in range(6)]
    assert process.share.again is None
    told_plainly(process, calls[0], 0.1, 50)
    assert process.share.again is process.share.notes[-1]
    assert process.share.say_again(calls[1], NOW + 0.1, 49, NOW + 61.0)
    process.report(0.2)
    assert process.share.again is None
    told_plainly(process, calls[2], 0.3, 48)
    process.share.apply(Lease(number=9, **KNOWN), NOW + 0.2, NOW + 0.3, jitter=0.5)
    assert process.share.again is None, "another reset may be known now"
    assert [said.times for said in process.share.notes] == [1]
    told_plainly(process, calls[3], 0.4, 47)
    process.say(calls[4], 0.5, Outcome.LOST)
    assert process.share.again is None, "what comes after a loss is told after it"
    told_plainly(process, calls[5], 0.6, 46)
    assert [note.outcome for note in process.report(0.7).notes] == [
        Outcome.READ,
        Outcome.LOST,
        Outcome.READ,
    ]


@pytest.mark.parametrize(
    ("apart", "counts"), [(0.0, True), (1.0, True), (-1.0, True), (1.01, False), (-1.01, False)]
)
def test_a_reset_that_has_become_another_is_told_apart(apart: float, counts: bool) -> None:
    process = as_known()
    first, second = process.call(), process.call()
    told_plainly(process, first, 0.1, 50)
    before = process.share.notes[-1].resets_at
    assert before is not None
    process.share.notes[-1].resets_at = NOW
    assert process.share.say_again(second, NOW, 40, NOW + apart) is counts
    assert process.share.notes[-1].resets_at == NOW + (min(apart, 0.0) if counts else 0.0)
    process.share.notes[-1].resets_at = None
    assert not process.share.say_again(second, NOW, 40, NOW)


def test_calls_are_counted_in_with_no_probe_and_with_none_that_are_too_many() -> None:
    process = Process.of_window()
    process.leased(1, probe=4)
    assert process.share.say(process.call(), NOW, Outcome.READ, 1) is None
    process.leased(900)
    for limit in range(70):
        said = process.share.say(process.call(), NOW, Outcome.READ, 1, limit=limit)
        assert (said is None) is (limit >= 64)
    assert said is None
    share = Process().share
    first = share.say(process.call(), NOW, Outcome.READ, 1)
    assert share.say(process.call(), NOW, Outcome.READ, 1) is first is share.notes[0]


# Asking ----------------------------------------------------------------------------------------


def test_who_finds_no_tokens_asks_once_and_waits_for_the_answer():
    process = Process()
    share = process.share
    assert share.opens(NOW, 2, 3) == INF
    assert (share.asks, share.need, share.keep) == (True, 2, 3)
    assert share.opens(NOW, 2) == INF
    assert share.keep == 0
    share.opens(NOW, 2, 3)
    report = process.report(want=5)
    assert (report.want, report.need, report.keep, report.held) == (5, 2, 3, 0)
    share.asks = False
    assert (share.opens(NOW, 1), share.asks) == (INF, False), "one report at a time"
    share.asks = True
    share.apply(Lease(granted=2), NOW, NOW + 0.1, jitter=0.0)
    assert share.asks is False
    assert share.opens(NOW + 0.1, 2) == -INF
    assert (share.opens(NOW + 0.1, 3), share.asks) == (INF, True)


def test_after_a_failed_report_it_may_be_asked_again():
    process = Process()
    assert process.share.opens(NOW, 1) == INF
    process.report(want=1)
    process.share.failed()
    assert (process.share.is_out, process.share.asks) == (False, False)
    assert (process.share.opens(NOW, 1), process.share.asks) == (INF, True)


def test_tokens_may_be_used_for_less_long_than_they_are_leased():
    process = Process()
    process.leased(2)
    assert [process.share.opens(NOW + at, 1) for at in (1.79, 1.8)] == [-INF, INF]
    process = Process()
    process.leased(2, resets_in=500, confirmed=True)
    assert [process.share.opens(NOW + at, 1) for at in (0.4999, 0.5)] == [-INF, INF]
    process = Process()
    process.leased(2, resets_in=500, confirmed=False)
    assert process.share.opens(NOW + 0.5, 1) == -INF


def test_who_asks_and_who_is_to_report_earlier_is_listed_for_all_shares():
    process = Process()
    share, health = process.share, process.health
    share.opens(NOW, 1)
    assert health.asking == [share]
    assert health.news == []
    for at in (5.0, 5.0, 6.0, 4.0):
        share.report_by(NOW + at)
    assert (health.news, share.due) == ([share, share], NOW + 4.0)


def test_a_pause_of_every_route_is_told_by_who_was_asked_for_it_and_held_by_who_hears_of_it():
    first, second = Process.of_window(), Process.of_window()
    bucket, other = Bucket(), Bucket()
    first.gate.buckets, second.gate.buckets = {bucket: None}, {other: None}
    assert (first.report().paused, first.report().pauses) == (0, 0)
    bucket.household.pause(first.call(), NOW, 60.0)
    report = first.report(1.5)
    assert (report.paused, report.pauses) == (58_500, 1)
    second.told(2.0, took=0.5, paused=58_000, pauses=1)
    assert (other.household.shut, other.household.pauses) == (NOW + 60.5, 1)
    assert second.report(3.0).paused == 0, "it is no news of its own"
    second.told(3.0, paused=10, pauses=0)
    assert (other.household.shut, other.household.pauses) == (NOW + 60.5, 1)
    # Who is refused after the pause has the next one double, wherever the last one came from.
    other.household.pause(second.call(61.0), NOW + 61.0, 60.0)
    report = second.report(61.0)
    assert (report.paused, report.pauses) == (120_000, 2)
    second.told(62.0)
    assert other.household.shut == NOW + 181.0
    assert first.report(70.0).paused == 0, "it is over"


def test_a_pause_is_told_and_heard_of_one_identity_alone():
    app = Process.of_window(DAY_OF_APP)
    bucket: Any = Bucket()
    app.gate.buckets = {bucket: None}
    cold = Process(ColdGate(bucket, NAME, Numbering(), Health()))
    local = Process.of_rate(Rate(10, per=1.0))
    nobodys = Process.of_window()
    for process, tells in ((app, False), (Process(), False), (local, False), (cold, True)):
        bucket.household = Household()
        bucket.household.keep_shut(NOW, 9.0)
        bucket.household.pauses = 2
        report = process.report()
        assert (report.paused, report.pauses) == ((9000, 2) if tells else (0, 0))
        bucket.household = Household()
        process.told(1.0, paused=5000, pauses=3)
        heard = (NOW + 6.0, 3) if tells else (-INF, 0)
        assert (bucket.household.shut, bucket.household.pauses) == heard
    assert nobodys.gate.household is None


def test_what_is_held_is_used_though_callers_are_to_fail_without_the_ledger():
    process = Process.of_window()
    process.leased(2, confirmed=True, remaining=9, resets_in=60_000)
    away(process)
    process.health.failure = LedgerError("away")
    process.call()
    assert (process.share.left, process.share.taken) == (1, 1)


def test_what_all_have_found_out_in_vain_is_news_once_and_holds_without_the_ledger_for_none():
    process = Process.of_window()
    missed = []
    for misses in (0, 9, 9, 0):
        process.told(misses=misses)
        missed.append(process.share.missed)
    assert missed == [False, True, False, False]
    assert process.gate.patience == INF
    process.told(misses=9)
    assert process.gate.patience == process.share.probing.patience < INF
    away(process)
    assert process.gate.patience == INF
    process.gate.probing.misses = 6
    assert process.gate.patience == process.gate.probing.patience < process.share.probing.patience


def test_a_probe_of_another_window_is_none_of_this_one():
    process = Process.of_window()
    process.leased(2, probe=3)
    process.call()
    granted = process.call()
    granted.probes = [(Probing(), 0)]
    process.say(granted, 0.1)
    assert [note.probe for note in process.report(0.1).notes] == [0]


def test_a_ledger_that_is_away_fails_its_callers_if_they_want_it_so():
    process = Process()
    process.leased(1)
    process.health.failure = LedgerError("away")
    assert process.share.opens(NOW, 1) == -INF, "what is held is held"
    with pytest.raises(LedgerError, match="away"):
        process.share.opens(NOW, 2)


def test_who_is_told_to_wait_asks_again_a_little_later_than_that():
    process = Process()
    share = process.share
    vain = 0
    for wait, clients, spread, then in (
        (40, 2, 0.01, 1),
        (250, 2, 0.0625, 2),
        (2000, 1, 0.0, 3),  # nobody else comes then
        (2001, 2, 0.1, 0),  # the reset: it begins anew
        (250, 2, 0.0625, 1),
        (900, 2, 0.1, 0),  # that of a window which lasts no longer
    ):
        share.asks = True
        share.hopes = True
        resets_in = 900 if wait == 900 else 9000
        lease = {"clients": clients, "confirmed": True, "resets_in": resets_in}
        said = process.told(want=1, took=0.5, wait=wait, **lease)
        assert said.vain == vain
        assert not share.may_ask_sooner(NOW + 0.5), "what it waits for is up to others"
        assert share.ask_at == pytest.approx(NOW + 0.5 + wait / 1000 + spread / 2, abs=1e-9)
        assert (share.vain, share.hopes) == (then, False)
        vain = then
    process.leased(1, wait=250)
    assert (share.vain, share.left, share.ask_at) == (1, 1, NOW + 0.25)
    share.left = 0
    assert share.opens(NOW, 1) == share.ask_at
    assert not share.asks
    process.leased(1, 5.0)
    assert (share.vain, share.ask_at, share.hopes) == (0, NOW + 5.0, False)


def test_who_waits_for_the_probe_of_another_has_asked_in_vain_each_time():
    process = Process()
    for at in range(4):
        process.share.asks = True
        said = process.told(at, want=1, wait=145, confirmed=False, resets_in=-20 - 1000 * at)
        assert said.vain == at


def test_who_stands_in_its_own_way_asks_again_when_its_calls_are_settled_or_at_the_reset():
    process = Process()
    share = process.share
    process.leased(1)
    process.call()
    for lease, ask_at in (
        ({}, INF),
        ({"resets_in": 30_000}, INF),
        ({"resets_in": 30_000, "confirmed": True}, NOW + 30.5),
    ):
        share.asks = True
        process.told(want=1, took=0.5, **lease)
        assert (share.ask_at, share.hopes) == (ask_at, True)
        assert share.may_ask_sooner(NOW + 30.0)
    assert not share.may_ask_sooner(NOW + 30.5), "it is time"
    process.told(1.0)
    assert share.ask_at == NOW + 1.0, "a report without a question: its calls may be over"
    share.asks = True
    process.gate.give_back(1)
    process.told(2.0, want=1, took=0.5)
    assert share.ask_at == NOW + 2.5, "nothing is held: the calls have been settled by now"


def test_what_was_answered_to_a_question_outlives_reports_without_one():
    process = Process()
    process.share.asks = True
    process.told(want=1, wait=4000)
    before = process.share.ask_at
    process.told(1.0, want=0)
    process.told(1.0, want=1)
    assert process.share.ask_at == before
    assert process.report(1.0, want=1).want == 0, "it is not time yet"


@pytest.mark.parametrize(
    ("asks", "hopes", "at", "want", "asked"),
    [
        (True, False, 0.0, 0, 3),
        (True, False, 0.0, 5, 5),
        (False, False, 4.0, 5, 0),
        (False, False, 5.0, 5, 5),
        (False, False, 5.0, 1, 3),
        (False, False, 5.0, 0, 0),
        (False, True, 4.0, 5, 5),
        (False, True, 4.0, 0, 0),
    ],
)
def test_a_report_asks_for_what_is_wanted_if_it_is_time(
    asks: bool, hopes: bool, at: float, want: int, asked: int
):
    process = Process()
    share = process.share
    share.asks, share.hopes, share.ask_at, share.need = asks, hopes, NOW + 5.0, 3
    assert process.report(at, want).want == asked


@pytest.mark.parametrize(
    ("asks", "want", "idle"),
    [(False, 0, True), (False, 4, False), (True, 0, False), (True, 4, False)],
)
def test_who_has_callers_tells_so_though_it_does_not_ask_for_them_yet(
    asks: bool, want: int, idle: bool
):
    """Else its share of the next window would be left to nobody."""
    process = Process()
    process.share.asks, process.share.ask_at = asks, NOW + 5.0
    assert process.report(0.0, want).idle is idle


def test_what_is_asked_for_follows_what_is_used():
    process = Process()
    process.leased(9)
    for _ in range(6):
        process.call()
    uses = []
    for _ in range(4):
        process.report()
        uses.append((process.share.use, process.share.taken))
    assert uses == [(6, 0), (3, 0), (1, 0), (0, 0)]
    for _ in range(3):
        process.call()
    process.report()
    process.share.left = 0
    process.report(want=1)
    assert process.share.use == 3, "it waits for more"
    process.report()
    assert process.share.use == 1


# Reporting -------------------------------------------------------------------------------------


def test_what_was_read_is_reported_with_what_is_asked_next_if_that_is_soon():
    for settle in (told_plainly, told_in_full):
        process = as_known(wait=300)
        share = process.share
        calls = [process.call() for _ in range(3)]
        assert settle(process, calls.pop(), 0.01, 80)
        assert settle(process, calls.pop(), 0.02, 1)
        assert share.due == share.ask_at == NOW + 0.3
        assert settle(process, calls.pop(), 0.03, 0)
        assert share.due == NOW + 0.03 + 0.05, "others wait for what is spent already"
    process = as_known(wait=400)
    assert told_in_full(process, process.call(), 0.0, 1)
    assert process.share.due == NOW + 0.4, "the last one, and what is soon at the latest"


@pytest.mark.parametrize("wait", [None, 40, 500])
def test_what_was_read_is_reported_soon_if_nothing_is_asked_then(wait: int | None):
    process = as_known(wait=wait)
    assert told_in_full(process, process.call(), 0.01, 80)
    assert process.share.due == NOW + 0.01 + 0.05


def test_what_was_not_read_is_reported_soon():
    process = as_known(wait=300)
    process.gate.lost(process.call(), 0, NOW + 0.01)
    assert process.share.due == NOW + 0.01 + 0.05


def test_tokens_are_added_to_those_that_are_left():
    process = Process()
    process.leased(3)
    process.call()
    process.leased(2, 0.1)
    assert (process.share.left, process.share.held) == (4, 5)
    assert process.share.due == NOW + 0.1 + 0.9, "there is nothing to report"


def test_unused_tokens_go_back_once_nobody_wants_them():
    process = Process()
    process.leased(5)
    process.call()
    assert process.told(0.1).held == 5, "some were taken since the last report"
    assert process.told(0.2, want=1).held == 5, "somebody waits"
    assert process.told(0.3).held == 1
    process.leased(5, 0.4)
    process.call(0.4)
    process.share.until = NOW + 2.0
    assert process.told(2.0).held == 2, "they may not be used any more"


def test_a_probe_that_nobody_takes_goes_back_before_others_have_waited_for_long():
    process = Process.of_window()
    share = process.share
    process.leased(1, probe=3)
    share.keep_probe(NOW)
    assert share.due == NOW + 0.25
    assert (process.report(0.2).held, share.turn) == (1, 3)
    back = process.report(0.25)
    assert (back.held, back.probes, share.turn) == (0, 0, 0)


def test_a_probe_that_never_left_is_there_for_whoever_is_next():
    process = Process.of_window()
    share = process.share
    process.leased(1, probe=3)
    for at in (0.1, 0.2):
        process.unsent(process.call(at), at)
        report = process.report(at)
        assert (share.left, share.turn, report.held, report.probes) == (1, 3, 1, 1)
    back = process.report(0.45)
    assert (back.held, back.probes, back.notes) == (0, 0, ()), "nobody came for a quarter second"


@pytest.mark.parametrize("why", ["failed", "away", "late", "no probe"])
def test_a_probe_that_never_left_goes_back_if_it_could_not_go_from_here(why: str):
    process = Process.of_window()
    process.leased(1, probe=0 if why == "no probe" else 3)
    granted = process.call()
    process.health.is_away = why == "away"
    at = 1.8 if why == "late" else 0.1
    process.unsent(granted, at, failed=why == "failed")
    assert (process.share.left, process.share.turn) == (0, 0)
    assert process.share.held == 0
    assert process.share.due <= NOW + at + 0.05


def test_a_report_tells_of_a_probe_until_it_has_ended():
    process = Process.of_window()
    assert process.report().probes == 0
    process.leased(1, probe=3)
    assert process.report(0.1).probes == 1
    granted = process.call(0.2)
    assert granted.is_probe_of(process.share.probing)
    assert (process.share.turn, process.share.probing.turn) == (0, 3)
    assert process.share.probing.sent == NOW + 0.2
    assert process.gate.is_probe(granted)
    assert process.report(0.3).probes == 1
    assert not process.gate.is_probe(process.call(0.3))
    process.share.probing.ended(3)
    assert process.report(0.4).probes == 0
    process.leased(1, 0.5)
    assert not process.call(0.5).is_probe_of(process.share.probing)


def test_a_second_probe_of_a_turn_is_one_more_and_a_new_turn_begins_anew():
    process = Process.of_window()
    share = process.share
    process.leased(1, probe=3)
    first = process.call()
    process.leased(1, 2.0, probe=3)
    assert process.report(2.0).probes == 2
    process.call(2.0)
    assert process.report(2.1).probes == 2
    share.probing.ended(3)
    assert process.report(2.2).probes == 1
    assert first.is_probe_of(share.probing)
    process.leased(1, 3.0, probe=4)
    assert process.report(3.0).probes == 1
    process.call(3.0)
    assert not first.is_probe_of(share.probing)
    share.probing.ended(3)
    assert process.report(3.1).probes == 1


def test_a_probe_goes_alone_though_it_costs_less_than_was_leased():
    process = Process.of_window()
    process.leased(5, probe=3)
    assert process.call(cost=1).is_probe_of(process.share.probing)
    assert (process.share.left, process.share.due) == (0, NOW + 0.05)
    assert process.report(0.05).held == 1


def test_a_probe_that_has_not_gone_goes_back_before_another_is_asked_for():
    process = Process.of_window()
    process.leased(1, probe=3)
    waits = process.report(1.0, want=5)
    assert (waits.held, waits.probes, waits.want) == (1, 1, 0)
    process.share.apply(Lease(number=1, wait=20), NOW + 1.0, NOW + 1.0, 0.0)
    process.share.opens(NOW + 1.1, 2)
    again = process.report(1.1, want=5)
    assert (again.held, again.probes, again.want, again.need) == (0, 0, 5, 2)


def test_a_report_is_of_its_gate():
    report = Process().report(leaves=True)
    assert (report.client, report.record, report.leaves) == ("me", "record", True)
    assert (report.counts, report.limit, report.gap) == (Counts.CONCURRENCY, 50, 0)
    assert (report.ceiling, report.shut, report.shown) == (960_000, 0, ())
    report = Process.of_window(DAY_OF_APP).report()
    assert (report.counts, report.ceiling) == (Counts.WINDOW, 90_000_000)
    assert (report.limit, report.gap, report.leaves) == (0, 0, False)
    report = Process.of_rate(Rate(3, per=1.0, burst=2)).report()
    assert (report.counts, report.limit, report.gap) == (Counts.RATE, 2, 333_333)
    assert Process.of_rate(Rate(10**9, per=1.0)).report().gap == 1
    process = Process.of_window()
    process.gate.keep_shut(NOW, 7.0)
    assert [process.report(at).shut for at in (0.0, 6.5, 7.0)] == [7000, 500, 0]


def test_a_share_is_told_from_an_earlier_one_of_the_same_record():
    process = Process()
    for each in (process, Process.of_window(), Process.of_rate(Rate(1, per=1.0))):
        assert each.share.name == NAME
    another = LeasedConcurrency(Concurrency(50), NAME, process.numbering, process.health)
    assert another.share.serial != process.share.serial
    process.leased(3, remaining=8)
    assert repr(process.share) == "<Share of GET /: 3 left, 8 with others>"


def test_what_was_settled_is_reported_soon_and_what_is_held_before_its_lease_ends():
    process = Process.of_window()
    share = process.share
    assert share.due == INF
    process.told()
    assert share.due == INF, "nothing is held"
    process.leased(2)
    assert share.due == NOW + 0.9
    granted = process.call(0.1)
    process.told(0.2)
    assert share.due == pytest.approx(NOW + 0.2 + 0.9)
    process.say(granted, 0.3)
    assert share.due == pytest.approx(NOW + 0.35)
    process.say(process.call(0.3), 0.4)
    assert share.due == pytest.approx(NOW + 0.35), "with those before it"
    process.report(0.35)
    process.say(process.call(0.36), 0.4)
    share.apply(Lease(), NOW + 0.35, NOW + 0.5, jitter=0.0)
    assert share.due == pytest.approx(NOW + 0.55), "more was settled meanwhile"


def test_tokens_that_came_back_meanwhile_are_reported_soon():
    process = Process.of_window()
    process.leased(2)
    process.call()
    process.report(0.1, want=1)
    process.gate.give_back(1)
    process.share.apply(Lease(), NOW + 0.1, NOW + 0.2, jitter=0.0)
    assert process.share.due == pytest.approx(NOW + 0.25)


# Without the ledger ----------------------------------------------------------------------------


def away(process: Process) -> None:
    process.health.is_away, process.health.is_reachable = True, False
    process.health.outages += 1


def back(process: Process) -> None:
    """The ledger has answered again; a while later all are in touch with it."""
    process.health.is_reachable = True


def goes(process: Process, at: float = 0.0, cost: int = 1) -> bool:
    return process.gate.opens(NOW + at, cost, 0.0, False) <= NOW + at


def answered(process: Process, granted: Granted, remaining: int, at: float = 0.0) -> None:
    process.gate.give_back(granted.cost)
    reading = WindowReading(FIFTEEN_MINUTES, remaining, 100, None, 60.0 - at)
    process.gate.observe(granted, NOW + at, reading, refused=False)


def test_processes_are_as_many_as_shared_it_last_or_as_shared_anything():
    health = Health()
    process, another = Process(health=health), Process(health=health)
    assert process.share.clients == 4, "as long as nobody has told"
    process.told(number=3, clients=7)
    process.told(number=4, clients=5)
    assert (process.share.clients, another.share.clients) == (5, 7)
    process.told(number=5, clients=0)
    assert process.share.clients == 1
    for clients in (0, 1):
        health = Health()
        process, another = Process(health=health), Process(health=health)
        process.told(number=3, clients=clients)
        assert another.share.clients == 1, "who is told so is the only one, or was the last"


#: A window of 100 that four processes share, and of which nobody holds so many.
SHARED: dict[str, Any] = {
    "number": 1,
    "clients": 4,
    "confirmed": True,
    "remaining": 80,
    "limit": 100,
    "resets_in": 60_000,
}


def test_in_an_outage_what_is_leased_is_used_for_as_long_as_it_is_leased():
    process = Process.of_window()
    process.leased(3, **SHARED | {"remaining": 0})
    process.gate.shut = NOW
    away(process)
    assert process.share.is_away
    assert goes(process, 1.7, cost=3), "though it leaves nothing for the others"
    process.call(1.7)
    process.call(1.7)
    assert (process.share.left, process.share.taken, process.gate.in_flight) == (1, 2, 2)
    process.gate.slot = NOW + 1.75
    assert goes(process, 1.7)
    assert process.gate.opens(NOW + 1.7, 1, 0.0, True) == NOW + 1.75, "at its pace"
    assert process.gate.opens(NOW + 1.8, 1, 0.0, False) == NOW + 60.0, "as others may have it now"
    assert not goes(process, 1.7, cost=2)
    process.health.failure = LedgerError("away")
    assert not process.share.is_away, "callers fail instead"


def test_in_an_outage_one_call_goes_to_see_what_is_left_and_a_share_of_it_is_claimed():
    process = Process.of_window()
    share = process.share
    process.leased(1, **SHARED)
    early = process.call()
    away(process)
    answered(process, early, 70)
    assert not share.is_claim, "what it tells of is not what is left now"
    assert goes(process)
    sees = process.call()
    assert share.left == 0
    assert process.gate.opens(NOW, 1, 0.0, False) == NOW + 60.0, "one at a time"
    answered(process, sees, 49)
    assert (share.left, share.until, share.is_claim) == (49 // 8, NOW + 60.0, True)
    another = process.call(30.0)
    assert share.left == 5
    answered(process, another, 48, 30.0)
    assert share.left == 5, "once for each window"
    process.call(30.0, cost=5)
    assert process.gate.opens(NOW + 30.0, 1, 0.0, False) == NOW + 60.0
    process.gate.keep_shut(NOW, 30.0)
    assert process.gate.opens(NOW + 30.0, 1, 0.0, False) == NOW + 60.0, "a pause adds none"


def test_who_gets_what_it_wants_is_not_short_though_it_has_asked_for_more():
    for granted, is_short in ((2, True), (3, False), (5, False)):
        process = Process.of_window()
        process.share.asks = True
        assert process.report(want=3, ample=2).want == 6
        process.share.apply(Lease(granted=granted), NOW, NOW, jitter=0.5)
        assert process.share.is_short is is_short
    assert process.report(0.1, ample=2).want == 0, "nobody wants any"


def test_who_was_short_of_tokens_as_an_outage_began_does_not_go_to_see():
    for granted, is_short in ((2, True), (3, False)):
        process = Process.of_window()
        process.share.asks = True
        process.told(want=3, granted=granted, **SHARED)
        assert process.share.is_short is is_short
        process.told(0.1, number=2, clients=4, confirmed=True, limit=100, resets_in=60_000)
        assert process.share.is_short is is_short, "it was not asked for more"
        process.leased(0, **SHARED) if is_short else None
        process.call(cost=granted)
        process.gate.give_back(granted)
        process.share.left = 0
        process.gate.observations = [(0, 80)]
        away(process)
        assert goes(process) is not is_short


def test_a_claim_is_reported_as_held_and_ends_with_its_window():
    for lease, until in (
        ({}, 1.8),
        ({"confirmed": True, "resets_in": 900}, 0.9),
        ({"confirmed": True, "resets_in": 60_000}, 1.8),
    ):
        process = Process.of_window()
        process.told(number=1, clients=4)
        away(process)
        answered(process, process.call(), 90)
        share = process.share
        assert (share.left, share.is_claim) == (100 // 4 - 1, True)
        process.call()
        back(process)
        assert not share.is_away, "a window is asked for at once"
        report = process.report(1.0, want=5)
        assert (report.held, report.crew, report.want) == (24, 4, 5)
        share.apply(Lease(number=2, clients=1, **lease), NOW + 1.0, NOW + 1.0, jitter=0.0)
        assert (share.left, share.is_claim) == (23, False)
        assert share.until == pytest.approx(NOW + 1.0 + until)
        assert share.clients == 4, "three of them are yet to come back"
        assert process.report(1.1, want=5).crew == 0, "it is told once"
        process.health.is_away = False
        process.told(1.2, number=3, clients=1)
        assert share.clients == 1
    process.gate.share.claim(7, NOW + 2.5)
    process.told(2.0, want=1)
    assert share.until == NOW + 2.5, "an answer that knows no window makes it no longer"


def test_as_soon_as_the_ledger_is_back_a_probe_is_one_for_all():
    process = Process.of_window()
    process.leased(1, **SHARED)
    away(process)
    assert process.share.is_away
    back(process)
    process.leased(1, 60.0, number=2, probe=3)
    assert process.call(60.0).is_probe_of(process.share.probing)
    assert process.report(60.1).probes == 1


def test_a_claim_of_which_the_others_have_some_is_given_up_for_as_much():
    process = Process.of_window()
    process.share.claim(9, NOW + 60.0)
    assert process.share.left == 0, "nobody has told how many the others are"
    process.health.clients = 1
    process.share.claim(9, NOW + 60.0)
    process.told(want=1, void=5)
    assert process.share.left == 4
    process.told(want=1, void=5)
    assert process.share.left == 0
    process.share.claim(-1, NOW + 60.0)
    assert process.share.left == 0


def test_a_report_that_nobody_answered_tells_of_the_outage_again():
    process = Process.of_window()
    process.leased(1, **SHARED)
    away(process)
    assert process.share.is_away
    assert process.report().crew == 4
    process.share.failed()
    process.told(stale=True)
    assert process.report().crew == 4
    process.told(number=2, clients=2)
    away(process)
    assert process.share.is_away
    assert process.report().crew == 4, "the other outage has not ended for all"
    process.health.is_away = False
    process.told(number=3, clients=2)
    away(process)
    assert process.share.is_away
    assert process.report().crew == 2


def test_a_ledger_hears_how_many_there_are_for_as_long_as_it_surely_knows_this_process():
    process = Process.of_window()
    assert process.report().peers == 0
    process.told(number=1, clients=4)
    assert [process.report(after).peers for after in (0.0, 1.79, 1.8)] == [4, 4, 0]
    process.told(2.0, number=2, clients=3)
    assert process.report(3.7).peers == 3


def test_what_counts_in_no_numbers_is_shared_again_when_all_are_back():
    for process in (Process(), Process.of_rate(Rate(10, per=1.0))):
        process.leased(2, number=1, clients=4)
        away(process)
        back(process)
        assert process.share.is_away
        assert (process.share.left, process.share.ask_at) == (0, -INF)


def test_a_probe_of_others_is_left_to_them_when_the_ledger_goes_away():
    waits = {"clients": 4, "confirmed": False, "resets_in": -20, "wait": 200}
    for more, at in (
        ({}, 121.25),
        ({"misses": 1}, 60.0),
        ({"wait": None}, 60.0),
        ({"resets_in": None}, 60.0),
        ({"confirmed": True, "resets_in": 0}, 60.0),
    ):
        process = Process.of_window()
        process.told(**SHARED, span=60_000)
        process.gate.round_trip = 0.25
        process.told(60.0, number=2, **waits | more)
        away(process)
        at_last = process.gate.opens(NOW + 60.0, 1, 0.0, False)
        assert max(at_last, NOW + 60.0) == NOW + at, more


def test_a_probe_that_did_not_go_before_an_outage_is_void():
    process = Process.of_window()
    process.leased(1, probe=3)
    away(process)
    assert process.share.is_away
    assert (process.share.left, process.share.turn) == (0, 0)


def test_without_the_ledger_a_call_leaves_as_much_for_each_of_the_others():
    process = Process.of_window()
    process.told(**SHARED)
    away(process)
    process.gate.observations = [(0, 3)]
    assert process.gate.opens(NOW, 1, 0.0, False) == NOW + 60.0, "three are left, for four"
    process = Process.of_window()
    process.told(**SHARED | {"clients": 2, "remaining": 16, "resets_in": 100})
    away(process)
    assert process.gate.opens(NOW, 1, 0.2, False) == NOW + 0.1, "a reserve is kept"
    assert process.gate.opens(NOW, 1, 0.0, True) == -INF
    assert process.gate.take(NOW, 1, NOW, True) is None
    assert process.gate.slot == pytest.approx(NOW + 0.1 / 16)
    process.share.claim(9, NOW + 0.1)
    assert process.gate.opens(NOW, 1, 0.0, True) == process.gate.slot
    assert process.gate.expect(NOW, 99, 0.0) >= NOW + 0.1
    process.gate.slot = -INF
    process.gate.keep_shut(NOW - 5.0, 5.0)
    assert process.gate.opens(NOW, 1, 0.0, False) == NOW
    before = process.gate.available
    process.leased(9, 0.01, confirmed=True, remaining=99, resets_in=60_000)
    assert process.gate.available == before, "what the ledger says counts when it is back"


@pytest.mark.parametrize(("clients", "goes_on"), [(0, False), (2, True)])
def test_who_was_never_told_how_many_share_leaves_one_for_each_that_it_sees(
    clients: int, goes_on: bool
):
    """Others have made 20 calls for one of its own, and 17 are left."""
    process = Process.of_window()
    process.health.clients = clients
    away(process)
    for at, remaining in ((0.0, 80), (0.1, 59), (1.0, 38), (1.1, 17)):
        assert goes(process, at)
        answered(process, process.call(at), remaining, at)
        process.share.left, process.share.is_claim = 0, False
    assert goes(process, 1.1) is goes_on


def untold(*readings: int) -> Process:
    """A process that was never told of others; calls in its second window were answered so."""
    process = Process.of_window()
    away(process)
    answered(process, process.call(), 99)
    for number, remaining in enumerate(readings):
        at = 60.0 + 0.1 * number
        granted = process.call(at)
        process.gate.give_back(1)
        reading = WindowReading(FIFTEEN_MINUTES, remaining, 100, None, 120.0 - at)
        process.gate.observe(granted, NOW + at + 0.05, reading, refused=False)
    return process


def test_without_the_ledger_two_thirds_are_left_to_who_is_late_at_the_reset():
    process = untold(99)
    gate = process.gate
    assert gate.opens(NOW + 60.1, 1, 0.0, False) == -INF
    gate.observations = [(0, 66)]
    assert gate.opens(NOW + 60.1, 1, 0.0, False) == NOW + 60.05 + 1.0
    assert goes(process, 61.06)
    gate.slot = NOW + 60.1
    assert gate.opens(NOW + 60.1, 1, 0.0, True) == NOW + 60.05 + 1.0, "though its turn is now"
    process.health.clients = 1
    assert goes(process, 60.1), "a ledger has told how many there are"


def test_without_the_ledger_whose_call_began_a_window_takes_what_others_leave():
    for began, leads in ((99, True), (98, False)):
        process = untold(began, 96)
        gate, crowd = process.gate, process.gate.crowd
        gate.round_trip = 0.25
        gate.observations = [(0, crowd.size - 1)]
        looks = gate.opens(NOW + 62.0, 1, 0.0, False)
        assert (looks == pytest.approx(NOW + 60.15 + 4 * 0.25)) is leads
        assert (looks == gate.ends) is not leads
        gate.slot = NOW + 63.0
        assert gate.opens(NOW + 62.0, 1, 0.0, True) == (NOW + 63.0 if leads else gate.ends)
        assert gate.opens(NOW + 62.0, 1, 0.0, False) == looks
        gate.observations = [(0, 1)]
        assert gate.opens(NOW + 62.0, 1, 0.0, False) == looks, "to the last one"
        gate.observations = [(0, crowd.size - 1)]
        assert gate.opens(NOW + 62.0, crowd.size, 0.0, False) == gate.ends, "it costs too much"
        assert gate.opens(NOW + 62.0, 1, 0.9, False) == gate.ends, "they are kept"
        gate.keep_shut(NOW + 60.0, 5.0)
        assert gate.opens(NOW + 62.0, 1, 0.0, False) == (NOW + 65.0 if leads else gate.ends)
        gate.shut = -INF
        process.call(62.0)
        assert gate.opens(NOW + 62.0, 1, 0.0, False) == gate.ends, "one at a time"


@pytest.mark.parametrize(
    ("late", "refused", "size"),
    # Five came before, or six if it was refused; or somebody, long before this one.
    [(0.75, False, 9), (0.751, False, 8), (0.75, True, 10)],
)
def test_calls_of_others_at_the_reset_are_counted_by_who_was_ready(
    late: float, refused: bool, size: int
):
    process = untold()
    process.gate.round_trip = 0.25
    granted = process.call(60.0)
    process.gate.give_back(1)
    reading = WindowReading(FIFTEEN_MINUTES, 94, 100, None, 60.0)
    process.gate.observe(granted, NOW + 60.0 + late, reading, refused=refused)
    assert process.gate.crowd.size == size


def test_what_a_ledger_leased_meanwhile_is_not_counted_as_calls_of_others():
    process = untold(99, 98)
    seen = process.gate.crowd.size
    back(process)
    process.health.is_away = False
    process.leased(20, 60.5, number=1, clients=1, confirmed=True, limit=100, resets_in=59_500)
    early = [process.call(60.6) for _ in range(20)]
    process.health.clients = 0
    away(process)
    for granted in early:
        answered(process, granted, 78, 60.7)
    assert goes(process, 63.0)
    answered(process, process.call(63.0), 77, 63.0)
    assert process.gate.crowd.size == seen


def test_without_the_ledger_a_window_has_probes_of_its_own():
    process = Process.of_window()
    gate = process.gate
    away(process)
    assert gate.opens(NOW, 1, 0.0, False) <= NOW
    probe = process.call()
    assert gate.is_probe(probe)
    gate.unread(probe, 1, NOW, refused=True, failed=False)
    assert (gate.probing.refusals, gate.probing.hold) == (1, NOW + 1.0)
    for misses in (1, 2):
        gate.probing.restart()
        gate.unsent(process.call(), NOW + 9.0, failed=True)
        assert gate.probing.misses == misses
    assert gate.probing.hold == NOW + 10.0


def test_without_the_ledger_the_next_window_is_divided_after_a_probe():
    process = Process.of_window()
    process.told(number=1, clients=4, confirmed=True, limit=90, resets_in=1000)
    away(process)
    assert process.gate.opens(NOW + 1.5, 1, 0.0, False) <= NOW + 1.5
    granted = process.call(1.5)
    reading = WindowReading(FIFTEEN_MINUTES, 70, 90, None, 900.0)
    process.gate.observe(granted, NOW + 1.6, reading, refused=False)
    assert (process.share.left, process.share.is_claim) == (90 // 4 - 1, True)
    assert process.share.until == process.gate.ends == pytest.approx(NOW + 901.6)


def test_who_was_short_before_is_not_short_of_the_next_window_without_the_ledger():
    """It was told so by a ledger that came back for a moment, before all others had."""
    process = Process.of_window()
    away(process)
    back(process)
    process.leased(0, number=1, clients=1, confirmed=True, limit=90, resets_in=1000, wait=250)
    assert (process.share.is_short, process.health.clients) == (True, 0)
    away(process)
    assert not goes(process, 0.5)
    assert goes(process, 1.5)
    granted = process.call(1.5)
    process.gate.give_back(1)
    reading = WindowReading(FIFTEEN_MINUTES, 70, 90, None, 900.0)
    process.gate.observe(granted, NOW + 1.6, reading, refused=False)
    assert not process.share.is_claim, "nobody has told how many there are"
    assert goes(process, 1.7), "each call sees what the others leave"


def test_without_the_ledger_the_old_window_is_divided_as_it_goes_on():
    process = Process.of_window()
    process.told(number=1, clients=4, confirmed=True, limit=90, resets_in=1000)
    away(process)
    process.gate.opens(NOW + 1.5, 1, 0.0, False)
    granted = process.call(1.5)
    process.gate.give_back(1)
    reading = WindowReading(FIFTEEN_MINUTES, 17, 90, None, 0.0)
    process.gate.observe(granted, NOW + 1.6, reading, refused=False)
    assert (process.share.left, process.share.is_claim) == (17 // 8, True)


def test_without_the_ledger_a_rate_goes_at_its_share():
    process = Process.of_rate(Rate(10, per=1.0))
    process.told(number=1, clients=4)
    away(process)
    assert process.gate.opens(NOW, 1) <= NOW
    process.call()
    assert process.gate.slot == pytest.approx(NOW + 0.4)
    process.call(cost=2)
    assert process.gate.slot == pytest.approx(NOW + 0.4 + 0.8)
    assert not process.share.asks


def test_without_the_ledger_there_is_room_for_a_share():
    process = Process()
    process.told(number=1, clients=20)
    away(process)
    assert process.gate.opens(NOW, 2) == -INF
    assert process.gate.opens(NOW, 3) == INF
    process.call()
    process.call()
    assert (process.gate.opens(NOW, 1), process.share.left) == (INF, 0)
    process.told(number=2, clients=99)
    process.gate.give_back(2)
    assert process.gate.opens(NOW, 1) == -INF, "for one at least"
    assert process.gate.opens(NOW, 2) == INF


# Gates -----------------------------------------------------------------------------------------


def test_a_window_takes_from_what_is_leased():
    process = Process.of_window()
    gate, share = process.gate, process.share
    assert (gate.opens(NOW, 2, 0.0, False), share.asks, share.need) == (INF, True, 2)
    process.leased(3, confirmed=True, remaining=10, limit=100, resets_in=60_000)
    assert gate.opens(NOW, 3, 0.0, False) == -INF
    assert gate.opens(NOW, 4, 0.2, False) == INF
    assert (share.need, share.keep) == (4, 20)
    gate.opens(NOW, 4, 0.0, False)
    assert share.keep == 0
    process.call(cost=2)
    assert (share.left, share.taken, gate.in_flight, share.held) == (1, 2, 2, 3)
    gate.keep_shut(NOW, 5.0)
    assert gate.opens(NOW, 1, 0.0, False) == NOW + 5.0
    process.call()
    assert (share.left, share.taken, gate.in_flight, share.held, gate.key) == (0, 3, 3, 3, "key")


def test_a_window_believes_what_the_ledger_knows():
    process = Process.of_window()
    gate = process.gate
    process.leased(3, confirmed=True, remaining=10, limit=100, resets_in=60_000, span=900_000)
    assert (gate.is_confirmed, gate.limit, gate.floor, gate.available) == (True, 100, 13, 13)
    assert (gate.seen, gate.ends, gate.reset, gate.low) == (NOW, NOW + 60, NOW + 60, NOW + 60)
    assert gate.span == 900.0
    assert gate.counts_down
    assert gate.spare == 10
    reading = WindowReading(FIFTEEN_MINUTES, 5, 100, None, 60.0)
    granted = process.call()
    gate.give_back(1)
    gate.observe(granted, NOW, reading, refused=False)
    assert gate.spare == 3, "five, and two of them are held"
    process.told(0.5, confirmed=True, resets_in=60_000, span=600_000)
    assert (gate.spare, gate.span) == (0, 600.0), "it was begun by a clock that had changed"
    process.leased(2, 1.0, confirmed=True, remaining=4)
    assert (gate.limit, gate.reset, gate.ends) == (100, None, NOW + 1.0 + 960.0)
    process.told(2.0, confirmed=False, remaining=90)
    assert (gate.is_confirmed, gate.seen) == (False, NOW + 1.0)
    assert gate.available == 0


def test_a_reset_in_the_servers_words_is_kept_where_its_clock_is_known():
    process = Process.of_window()
    gate = process.gate
    known = {"confirmed": True, "resets_in": 60_000, "epoch": 1_700_000_060_000}
    process.told(**known)
    assert (gate.counts_down, gate.reset) == (True, NOW + 60.0)
    gate.clock.observe(1_700_000_000.0, NOW, NOW)
    process.told(**known)
    assert (gate.counts_down, gate.reset, gate.low) == (False, 1_700_000_060.0, 1_700_000_060.0)
    process = Process.of_window()
    process.gate.clock.assume(1_700_000_000.0 - NOW)
    process.told(**known)
    assert (process.gate.counts_down, process.gate.reset) == (False, 1_700_000_060.0)


def test_what_was_foreseen_is_foreseen_anew_with_every_lease():
    process = as_known()
    gate = process.gate
    assert not gate.is_plain, "nobody has asked yet"
    gate.foresee(NOW, 0.0)
    assert (gate.is_plain, gate.least) == (True, 0), "what is leased may go, whatever is left"
    process.leased(2, 0.5, **KNOWN)
    assert gate.is_plain
    assert gate.take_plainly(NOW + 0.5)
    process.told(0.6, confirmed=False)
    assert not gate.is_plain, "a probe is to tell"
    assert not gate.take_plainly(NOW + 0.6)
    process.told(0.6, **KNOWN)
    gate.foresee(NOW + 0.6, 0.0)
    away(process)
    process.told(0.7, **KNOWN)
    assert not gate.is_plain


def test_an_answer_frees_nobody_who_waits_for_a_lease():
    process = as_known()
    process.share.left = 1
    assert process.gate.frees
    process.share.left = 0
    assert not process.gate.frees
    process.health.is_away = True
    assert process.gate.frees


def test_the_kind_that_a_ledger_told_of_becomes_that_of_the_answers():
    process = Process.of_window(replace(FIFTEEN_MINUTES))
    process.gate.clock.observe(1_700_000_000.0, NOW, NOW)
    process.leased(9, number=1, **KNOWN)
    assert not told_plainly(process, process.call(), 0.1, 50), "nothing was done"
    told_in_full(process, process.call(), 0.1, 50)
    assert process.gate.kind is FIFTEEN_MINUTES
    assert told_plainly(process, process.call(), 0.2, 48)
    other = Process.of_window(DAY_OF_APP)
    told_in_full(other, other.call(), 0.1, 50)
    assert other.gate.kind is DAY_OF_APP


def test_debts_are_the_ledgers_once_it_has_been_told_of_them():
    process = Process.of_window()
    gate = process.gate
    process.leased(2, confirmed=True, remaining=10, resets_in=60_000)
    process.gate.unread(process.call(), 1, NOW, refused=False, failed=False)
    assert gate.debts.unread == 1
    process.told(0.1, confirmed=True, remaining=9, resets_in=60_000)
    assert gate.debts.unread == 0


def test_a_limit_that_no_header_shows_has_all_keep_a_pace():
    process = Process.of_window()
    bucket = Bucket()
    process.gate.buckets = {bucket: None}
    process.told(confirmed=True, remaining=9)
    assert bucket.paces == 0
    process.gate.is_plain, process.gate.foreseen = True, 5
    process.told(confirmed=True, remaining=9, gap=1500)
    assert bucket.paces == 1
    assert not process.gate.is_plain, "what was foreseen of it is foreseen anew"
    assert process.gate.foreseen == 0


@pytest.mark.parametrize(
    ("settle", "said"),
    [
        (lambda w, g: w.unread(g, 1, NOW, refused=False, failed=False), Outcome.UNREAD),
        (lambda w, g: w.unread(g, 1, NOW, refused=True, failed=False), Outcome.REFUSED),
        (lambda w, g: w.unread(g, 1, NOW, refused=False, failed=True), Outcome.FAILED),
        (lambda w, g: w.unread(g, 1, NOW, refused=True, failed=True), Outcome.FAILED),
        (lambda w, g: w.cached(g, 1, NOW), Outcome.CACHED),
        (lambda w, g: w.lost(g, 1, NOW), Outcome.LOST),
        (lambda w, g: w.unsent(g, NOW, failed=False), None),
        (lambda w, g: w.unsent(g, NOW, failed=True), None),
    ],
)
def test_what_becomes_of_a_call_is_told(settle: Any, said: Outcome | None):
    process = Process.of_window()
    process.leased(5)
    granted = process.call(cost=2)
    process.share.due = INF
    settle(process.gate, granted)
    debts = process.gate.debts
    owed = {None: (0, 0), Outcome.FAILED: (0, 2), Outcome.CACHED: (0, 2), Outcome.LOST: (0, 2)}
    assert (debts.unread, debts.ghosts) == owed.get(said, (2, 0)), "its own belief knows as well"
    assert process.share.due == NOW + 0.05
    assert [(n.outcome, n.cost) for n in process.report().notes] == ([(said, 2)] if said else [])
    process.numbering.next()
    process.told(9.0, confirmed=True)
    assert (debts.unread, debts.ghosts) == (0, 0), "the ledger's numbers have it in them"


def test_a_probe_that_never_left_is_told_of_if_nobody_was_there():
    process = Process.of_window()
    for failed, said in ((False, []), (True, [(Outcome.UNSENT, 3, 1)])):
        process.leased(1, probe=3)
        process.gate.unsent(process.call(), NOW, failed=failed)
        assert [(n.outcome, n.probe, n.cost) for n in process.told().notes] == said


@pytest.mark.parametrize(
    ("reading", "epoch", "resets_in", "lasts"),
    [
        (WindowReading(FIFTEEN_MINUTES, 7, 15, 1_700_000_060.0), 1_700_000_060_000, 58_900, 59_000),
        (WindowReading(FIFTEEN_MINUTES, 7, 15, None, 60.0), None, 59_900, None),
        (WindowReading(FIFTEEN_MINUTES, 7, 15, None, 99_999.0), None, 959_900, None),
        (WindowReading(FIFTEEN_MINUTES, 7, None, None), None, None, None),
    ],
)
def test_what_an_answer_tells_is_told(
    reading: WindowReading, epoch: int | None, resets_in: int | None, lasts: int | None
):
    process = Process.of_window()
    process.gate.clock.assume(1_700_000_000.0 - NOW)
    process.leased(5)
    granted = process.call(cost=2)
    process.gate.observe(granted, NOW + 1.0, reading, refused=True)
    (note,) = process.report(1.1).notes
    assert (note.cost, note.outcome, note.remaining, note.limit) == (
        2,
        Outcome.READ,
        7,
        reading.limit,
    )
    assert (note.refused, note.epoch, note.took) == (True, epoch, 1000)
    assert (note.resets_in, note.lasts) == (resets_in, lasts)
    assert process.gate.limit == reading.limit, "its own belief is kept up to date"


@pytest.mark.parametrize(
    ("offset", "resets_in", "lasts"), [(0, 61_000, 60_000), (60, 121_000, 60_000)]
)
def test_a_window_lasts_no_longer_than_by_the_date_of_the_answer_that_tells_of_it(
    offset: int, resets_in: int, lasts: int
):
    """Though its reset may be as far away as by the clock that was known."""
    process = Process.of_window()
    clock = process.gate.clock
    for _ in range(3):
        clock.observe(EPOCH, NOW, NOW)
    clock.observe(EPOCH + offset, NOW, NOW)
    process.leased(5)
    reading = WindowReading(FIFTEEN_MINUTES, 7, 15, EPOCH + offset + 61.0)
    process.gate.observe(process.call(), NOW, reading, refused=False)
    (note,) = process.report().notes
    assert (note.resets_in, note.lasts) == (pytest.approx(resets_in, abs=20), lasts)


def plain() -> Process:
    """A window of one bucket, with two tokens that are leased, of which nothing is in doubt."""
    process = Process.of_window()
    process.gate.clock.observe(EPOCH, NOW, NOW)
    bucket: Any = Bucket()
    process.gate.buckets = {bucket: None}
    process.leased(
        2,
        confirmed=True,
        remaining=10,
        limit=15,
        resets_in=60_000,
        epoch=round((EPOCH + 60.0) * 1000),
    )
    process.gate.foresee(NOW, 0.5)
    assert process.gate.is_plain
    return process


def test_what_is_leased_may_surely_go_until_it_goes_back_or_the_window_ends():
    process = plain()
    gate, share = process.gate, process.share
    assert gate.foreseen_until == NOW + 1.8
    gate.ends = NOW + 1.0
    gate.foresee(NOW, 0.5)
    assert gate.foreseen_until == NOW + 1.0
    assert not gate.take_plainly(NOW + 1.0)
    assert gate.take_plainly(NOW)
    gate.upset()
    assert not gate.take_plainly(NOW), "all is to be asked anew"
    gate.foresee(NOW, 0.5)
    assert gate.take_plainly(NOW)
    assert (share.left, share.taken, gate.in_flight, share.held) == (0, 2, 2, 2)
    assert not gate.take_plainly(NOW), "they are used up, or went back meanwhile"
    assert (share.left, share.taken, gate.in_flight) == (0, 2, 2)
    share.left = -1
    gate.foresee(NOW, 0.0)
    assert not gate.take_plainly(NOW)
    assert gate.foreseen == 0, "what is leased is looked at for each call"


def test_a_probe_or_an_outage_is_not_plain():
    process = plain()
    process.gate.ends = NOW
    assert not process.gate._goes_well(NOW)
    process = plain()
    process.share.turn = 3
    assert not process.gate._goes_well(NOW), "a probe may go"
    process = plain()
    process.share.probing.start(NOW)
    assert not process.gate._goes_well(NOW), "a probe is out"
    process = plain()
    away(process)
    assert not process.gate._goes_well(NOW)
    assert not process.gate.take_plainly(NOW)
    assert (process.share.left, process.gate.in_flight) == (2, 0)


def test_a_plain_answer_is_told_to_the_others_and_leaves_what_is_leased():
    process = plain()
    gate, share = process.gate, process.share
    bucket: Any = SimpleNamespace(numbering=process.numbering)
    assert gate.take_plainly(NOW)
    assert not gate.tells_the_same(WindowReading(FIFTEEN_MINUTES, 3, 15, EPOCH + 90.0))
    for remaining in (11, 3):
        reading = WindowReading(FIFTEEN_MINUTES, remaining, 15, EPOCH + 60.0)
        assert gate.tells_the_same(reading)
        granted = Granted(bucket, NOW, 1, None)
        assert answered_plainly(process, granted, 0.5, remaining)
        gate.heard(granted, NOW + 0.5, reading)
        assert not gate.answers, "what others are told is known here"
        assert share.left == 1
        assert (gate.floor, share.notes[-1].remaining) == (remaining, remaining)
    (note,) = process.report(0.5).notes
    assert (note.outcome, note.times, note.refused, note.took) == (Outcome.READ, 2, False, 500)
    assert (note.remaining, note.limit, note.epoch) == (3, 15, round((EPOCH + 60.0) * 1000))


def test_an_answer_that_counts_down_to_another_reset_is_not_plain():
    process = Process.of_window()
    process.leased(2, confirmed=True, remaining=10, limit=15, resets_in=60_000)
    bucket: Any = Bucket()
    process.gate.buckets = {bucket: None}
    process.gate.foresee(NOW, 0.0)
    granted = process.call()
    assert not answered_plainly(process, granted, 0.5, 9, 80.0)
    assert answered_plainly(process, granted, 0.5, 9, 59.5)


def test_a_window_that_nobody_tells_of_any_more_holds_nobody():
    process = Process.of_window()
    gate = process.gate
    process.leased(1)
    assert not gate.holds_nobody
    for _ in range(3):
        gate.left_out()
    assert gate.holds_nobody
    gate.keep_shut(NOW, 5.0)
    assert gate.opens(NOW, 5, 0.0, False) == NOW + 5.0
    process.share.asks = False
    granted = process.call(cost=5)
    assert (gate.in_flight, process.share.left, granted.probes) == (5, 1, None)
    process.call()
    assert (gate.in_flight, process.share.left) == (6, 1)
    gate.unread(granted, 1, NOW, refused=False, failed=False)
    assert process.report().notes == ()
    told = WindowReading(FIFTEEN_MINUTES, 7, 15, None, 60.0)
    for refused in (True, False):
        gate.observe(granted, NOW, told, refused=refused)
        assert gate.is_untold is refused, "only refusals have told of it"


def test_at_an_even_pace_what_is_leased_is_ones_own_and_what_is_left_is_for_all():
    """Two leased, four left for two processes, for a minute: one in 15 seconds."""
    process = Process.of_window()
    gate = process.gate
    process.leased(2, number=1, clients=2, confirmed=True, remaining=4, resets_in=60_000)
    assert gate.opens(NOW, 1, 0.0, True) == -INF
    gate.take(NOW, 1, NOW, True)
    assert gate.slot == pytest.approx(NOW + 15.0)
    assert gate.opens(NOW, 1, 0.0, True) == gate.slot
    assert gate.opens(NOW, 1, 0.0, False) == -INF
    process = Process.of_window()
    process.leased(1, number=1, clients=2, confirmed=True, resets_in=60_000)
    process.gate.take(NOW, 1, NOW, True)
    assert process.gate.slot == pytest.approx(NOW + 60.0), "the only one"
    process = Process.of_window()
    process.leased(1, number=1, clients=2, confirmed=True, resets_in=60_000)
    process.gate.take(NOW + 90.0, 1, NOW, True)
    assert process.gate.slot == pytest.approx(NOW + 90.0, abs=0.1), "its end has passed"
    process = Process.of_window()
    process.leased(1, number=1, clients=2, confirmed=True)
    process.gate.take(NOW, 1, NOW, True)
    assert process.gate.slot == -INF, "nobody knows its end"


@pytest.mark.parametrize(
    ("ahead", "reserve", "at"),
    [(0, 0.0, 0.0), (12, 0.0, 0.0), (13, 0.0, 60.0), (112, 0.0, 60.0), (113, 0.0, 960.0),
     (2, 0.1, 0.0), (3, 0.1, 60.0), (313, 0.0, 2760.0)],
)  # fmt: skip
def test_who_waits_behind_others_is_told_the_earliest_instant(
    ahead: int, reserve: float, at: float
):
    process = Process.of_window()
    process.leased(3, confirmed=True, remaining=10, limit=100, resets_in=60_000)
    process.gate.span = 900.0
    assert process.gate.expect(NOW, ahead, reserve) == NOW + at


def test_of_a_window_that_is_over_or_unknown_nothing_is_expected():
    process = Process.of_window()
    assert process.gate.expect(NOW, 99, 0.0) == NOW
    process.leased(3, confirmed=True, remaining=10, limit=100, resets_in=60_000)
    process.gate.span = 0.0
    assert process.gate.expect(NOW, 999, 0.0) == NOW + 60.0
    process.gate.span = 1.0
    assert process.gate.expect(NOW, 999, 0.0) == NOW + 60.0 + 9.0
    assert process.gate.expect(NOW + 60.0, 999, 0.0) == NOW + 60.0
    process.gate.limit = None
    assert process.gate.expect(NOW, 999, 0.0) == NOW + 60.0
    process.gate.limit, process.gate.is_confirmed = 100, False
    assert process.gate.expect(NOW, 999, 0.0) == NOW, "a probe may go at once"
    process.gate.is_confirmed = True
    process.gate.keep_shut(NOW, 90.0)
    assert process.gate.expect(NOW, 0, 0.0) == NOW + 90.0
    assert process.gate.expect(NOW, 99, 0.0) == NOW + 90.0


def test_of_two_windows_that_are_one_the_other_gives_back_what_it_holds():
    process, other = Process.of_window(), Process.of_window()
    other.leased(3)
    other.call()
    process.gate.absorb(other.gate)
    assert (other.share.left, other.gate.in_flight, other.share.due) == (0, 0, -INF)
    assert other.report().held == 0


def test_slots_of_a_rate_are_leased():
    process = Process.of_rate(Rate(10, per=1.0))
    gate, share = process.gate, process.share
    assert (gate.opens(NOW, 1), share.asks) == (INF, True)
    assert gate.opens(NOW, 0) == -INF
    process.leased(3, starts_in=500)
    assert (share.left, gate.slot, share.held) == (3, NOW + 0.5, 3)
    assert gate.opens(NOW, 1) == NOW + 0.5
    assert process.report(want=1).held == 0, "slots pass by themselves"
    process.call(0.5)
    assert (share.left, gate.slot) == (2, pytest.approx(NOW + 0.6))
    assert share.due == INF
    assert [share.opens(NOW + at, 1) for at in (0.89, 0.91)] == [-INF, INF]
    process.share.asks = True
    process.told(0.7, wait=100)
    assert gate.slot == pytest.approx(NOW + 0.6), "none were leased"
    process.leased(3, 5.0, starts_in=-4000)
    assert share.until == NOW + 5.0 + 0.1, "slots that have passed are used at once or not"
    gate.take(NOW, 0, NOW)
    assert share.left == 3


def test_room_is_leased():
    process = Process()
    gate, share = process.gate, process.share
    assert (gate.opens(NOW, 1), share.asks) == (INF, True)
    share.asks = False
    assert (gate.opens(NOW, 0), share.asks) == (-INF, False)
    process.leased(2)
    assert gate.opens(NOW, 2) == -INF
    gate.take(NOW, 0, NOW)
    process.call()
    assert (share.left, gate.in_flight) == (1, 1)
    share.due = INF
    gate.give_back(1)
    assert (gate.in_flight, share.due) == (0, -INF)


def test_calls_of_a_quota_that_has_shown_no_window_count_where_none_is_shown():
    bucket: Any = Bucket()
    gate = ColdGate(bucket, NAME, Numbering(), Health())
    process = Process(gate)
    assert (gate.in_flight, gate.unit, gate.spare, len(gate.blocked)) == (4, "requests", 0, 0)
    process.leased(3)
    assert bucket.joined == []
    reading = WindowReading(FIFTEEN_MINUTES, 7, 15, 900.0)
    gate.show([reading])
    bucket.shown = True
    assert (gate.in_flight, process.share.left, process.share.due) == (0, 0, -INF)
    assert process.report().shown == (dumps(reading),)
    gate.show([WindowReading(DAY_OF_APP, 7, 15, 900.0)])
    assert process.report().shown == (dumps(reading),), "the first answer tells"
    process.told(shown=(dumps(reading), "garbage"))
    assert bucket.joined == [], "of another version: it knows windows that this one does not"
    process.told(shown=(dumps(reading),))
    assert bucket.joined == [[WindowReading(FIFTEEN_MINUTES, 0, None, None)]]
    process.share.leaves = True
    process.told(shown=(dumps(reading),))
    assert len(bucket.joined) == 1


def test_a_learned_pace_is_everybodys():
    bucket: Any = Bucket()
    process = Process(PaceGate(bucket, NAME, Numbering(), Health()))
    process.share.gate = process.gate
    assert (process.gate.in_flight, process.share.counts) == (0, Counts.PACE)
    assert process.share.name == NAME
    process.told(gap=0)
    assert bucket.upsets == 0
    process.told(gap=250)
    assert (bucket.pace.gap, process.gate.in_flight) == (0.25, 4)
    assert bucket.upsets == 1, "what was foreseen knew of no pace"
    process.share.health.is_away = True
    process.share.health.outages += 1
    process.told(gap=0)
    assert bucket.pace.gap == 0.25


# What others are shown -------------------------------------------------------------------------


def test_what_others_are_shown_tells_what_window_it_is_and_no_number():
    for kind in (FIFTEEN_MINUTES, DAY_OF_APP):
        reading = WindowReading(kind, 7, 15, 900.0, bucket="search")
        assert loads(dumps(reading)) == WindowReading(kind, 0, None, None, bucket="search")
    for text in ("", "[]", "{}", "7", "[1]", dumps(reading)[:-1] + ", 1, 2]"):
        assert loads(text) is None, text
