"""The rule over all processes, clause by clause: films of (at, process, report, lease)."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from typing import Any

import pytest

from aiotwhelp.ledger import Lease, Note, Report, rule
from aiotwhelp.ledger.port import LEASE, Counts, Outcome
from aiotwhelp.ledger.rule import Client, Record

#: Milliseconds; and what is believed of the first window of `known`.
START = 1_800_000_000_000
NUMBER, TURN, SPAN = 1000, 5, 60_000
ENDS = START + SPAN

#: At (milliseconds after START), who, what it reports, what the lease has to say.
Row = tuple[int, str, dict[str, Any], dict[str, Any]]


def film(record: Record, *rows: Row, **always: Any) -> Record:
    """Play reports on a record; sequences and numbers of notes go on by themselves."""
    told: dict[str, int] = {}
    noted: dict[str, int] = {}
    for at, name, said, expected in rows:
        told[name] = told.get(name, 0) + 1
        notes = []
        for note in said.get("notes", ()):
            noted[name] = noted.get(name, 0) + 1
            notes.append(Note(**{"number": noted[name], **note}))
        fields = {"sequence": told[name], **always, **said, "notes": tuple(notes)}
        lease = rule.exchange(record, Report("record", name, **fields), START + at)
        shown = {field: getattr(lease, field) for field in expected}
        assert shown == expected, f"{name} at {at}"
        assert lease.granted or (lease.probe, lease.starts_in) == (0, 0), f"{name} at {at}"
        assert_whole(lease, f"{name} at {at}")
        assert_whole(record, f"{name} at {at}")
    return record


def assert_whole(said: Lease | Record, where: str) -> None:
    """A server's script, and a file, hold whole numbers; only some may be unknown."""
    names = Lease._fields if isinstance(said, Lease) else [f.name for f in dataclasses.fields(said)]
    for name in names:
        value = getattr(said, name)
        kind = type(getattr(type(said)(), name))
        if name in {"wait", "limit", "epoch", "reset", "resets_in"}:
            assert value is None or type(value) is int, (where, name, value)
        else:
            assert type(value) is kind, (where, name, value)
    if isinstance(said, Record):
        told = [*said.floor, *said.unread, *said.unplaced, *said.ghosts, *said.gaps]
        told += [[getattr(c, f.name) for f in dataclasses.fields(c)] for c in said.clients.values()]
        assert all(type(number) is int for row in told for number in row), (where, told)


def known(remaining: int, **more: Any) -> Record:
    """A window of 100 that ends after a minute, well known, and spent by nobody else."""
    said: dict[str, Any] = {
        "number": NUMBER,
        "limit": 100,
        "epoch": None,
        "reset": ENDS,
        "reset_number": NUMBER,
        "confirmed": True,
        "seen": START,
        "span": SPAN,
        "floor": [[NUMBER, remaining]],
        "answered": 64,
        "round_trip": 40,
        "turn": TURN,
        "explained": remaining,
        "size": remaining,
        "presumed": 0,
    }
    return Record(**said | more)


def read(remaining: int, **more: Any) -> dict[str, Any]:
    """A note of an answer: of the newest call, a moment ago, of the window that is known."""
    said = {"outcome": Outcome.READ, "known": NUMBER, "took": 20, "remaining": remaining}
    return said | {"limit": 100} | more


def ended(outcome: Outcome, **more: Any) -> dict[str, Any]:
    return {"outcome": outcome, "known": NUMBER, "took": 20} | more


def asks(want: int = 1, **more: Any) -> dict[str, Any]:
    return {"want": want, **more}


def tells(*notes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"notes": notes, **more}


# Messages --------------------------------------------------------------------------------------


def test_a_report_that_is_not_newer_is_stale_and_changes_nothing() -> None:
    record = known(10)
    film(record, (0, "a", asks(sequence=5, held=0), {"granted": 1, "stale": False}))
    before = record.dumps()
    for sequence in (5, 4, 1):
        film(
            record,
            (
                1,
                "a",
                asks(sequence=sequence, held=9, shut=900),
                {"granted": 0, "void": 0, "stale": True, "remaining": 9},
            ),
        )
    assert record.dumps() == before


def test_what_a_process_holds_is_what_it_says_it_holds() -> None:
    film(
        known(10),
        (0, "a", asks(2), {"granted": 2, "remaining": 8}),
        (1, "a", {"held": 1}, {"remaining": 9}),
        (2, "a", {"held": 6}, {"remaining": 4}),
        (3, "a", {"held": 0}, {"remaining": 10}),
    )


def test_a_note_is_taken_in_once() -> None:
    film(
        known(10),
        (0, "a", tells(ended(Outcome.UNREAD, number=1), held=1), {"remaining": 8}),
        (1, "a", tells(ended(Outcome.UNREAD, number=1), held=1), {"remaining": 8}),
        (2, "a", tells(ended(Outcome.UNREAD, number=2), held=1), {"remaining": 7}),
        (3, "a", tells(ended(Outcome.UNREAD, number=2), held=1), {"remaining": 7}),
    )


def test_a_process_that_leaves_is_counted_no_more() -> None:
    film(
        known(10),
        (0, "a", {"held": 1}, {"clients": 1}),
        (0, "b", {}, {"clients": 2}),
        (1, "b", {"leaves": True}, {"clients": 1}),
        (2, "a", {"held": 1, "leaves": True}, {"clients": 1}),
    )


def test_a_process_that_holds_nothing_is_one_of_those_who_share_for_a_window() -> None:
    film(
        known(10),
        (0, "a", {}, {"clients": 1}),
        (LEASE + SPAN - 1, "b", {}, {"clients": 2}),
        (LEASE + SPAN, "b", {}, {"clients": 1}),
    )


def test_of_many_processes_that_come_and_go_the_longest_idle_is_forgotten() -> None:
    record = film(known(900), (0, "holds", {"held": 1}, {}))
    film(record, *((at, f"p{999 - at}", {}, {}) for at in range(300)))
    assert len(record.clients) == 256
    assert "holds" in record.clients
    assert "p999" not in record.clients
    assert "p700" in record.clients


def test_who_waits_is_counted_for_as_long_as_it_was_told_to_wait() -> None:
    film(
        known(0, reset=START + 2 * SPAN),
        (0, "a", asks(), {"wait": 2 * SPAN}),
        (2 * SPAN + LEASE - 1, "b", {}, {"clients": 2}),
        (2 * SPAN + LEASE, "b", {}, {"clients": 1}),
    )


def test_a_record_is_written_down_and_read_again() -> None:
    record = film(
        known(10),
        (0, "a", asks(2), {}),
        (1, "a", tells(read(8), ended(Outcome.LOST), held=0, shown=("ä",)), {}),
    )
    assert Record.loads(record.dumps()) == record
    for text in ("", "[]", "{}", '{"clients": 1}', json.dumps({"nothing": 1, "clients": {}})):
        with pytest.raises(ValueError, match=r"^this is no record of a quota$|^Expecting"):
            Record.loads(text)
    assert " " not in record.dumps()


@pytest.mark.parametrize(
    ("record", "kept"),
    [
        (Record(), 4 * LEASE + 60_000),
        (known(1), SPAN + 60_000),
        (Record(shut=START + 90_000), 150_000),
        (Record(hold=START + 90_000), 150_000),
        (Record(paused=START + 90_000), 150_000),
        (Record(slot=1000 * (START + 90_000) + 999), 150_000),
        (known(1, reset=START - 90_000), 4 * LEASE + 60_000),
    ],
)
def test_a_record_is_kept_for_a_minute_after_all_it_knows_of(record: Record, kept: int) -> None:
    assert rule.lifetime(record, START) == kept


# Tokens ----------------------------------------------------------------------------------------


def test_nobody_is_granted_what_others_hold() -> None:
    film(
        known(3),
        (0, "a", asks(3), {"granted": 1}),
        (0, "b", asks(3), {"granted": 1}),
        (0, "c", asks(3), {"granted": 1, "remaining": 0}),
        (0, "d", asks(3), {"granted": 0}),
    )


def waits(taken: int = 0, **more: Any) -> Client:
    return Client(**{"asks": START + 300, "expires": START + LEASE, "taken": taken} | more)


def test_what_is_left_is_divided_among_those_who_ask() -> None:
    """Four at a time once there are fewer for each."""
    film(
        known(80),
        (0, "a", asks(99), {"granted": 40}),
        (0, "b", asks(99), {"granted": 20}),
        (0, "c", asks(99), {"granted": 7}),
        (0, "d", asks(99), {"granted": 5}),
        (0, "e", asks(99), {"granted": 4}),
    )


@pytest.mark.parametrize("others", [{"before": 1}, {"others": 1, "own": 50}, {"presumed": 1}])
def test_half_is_left_where_others_may_use_it_too(others: dict[str, int]) -> None:
    record = known(80, clients={"b": Client(asks=START + 300, expires=START + LEASE, taken=9)})
    for name, value in others.items():
        setattr(record, name, value)
    film(record, (0, "a", asks(99), {"granted": 20}))


@pytest.mark.parametrize("counts", [Counts.WINDOW, Counts.COLD])
def test_a_pause_of_every_route_holds_all_and_is_told_to_all_until_it_is_over(
    counts: Counts,
) -> None:
    record = film(
        known(50),
        (0, "a", tells(paused=60_000, pauses=2), {"paused": 60_000, "pauses": 2}),
        (10, "b", asks(), {"granted": 0, "wait": 59_990, "paused": 59_990, "pauses": 2}),
        (20, "a", tells(paused=9, pauses=3), {"paused": 59_980, "pauses": 3}),
        (59_999, "b", asks(), {"granted": 0, "paused": 1, "pauses": 3}),
        (60_000, "b", {}, {"paused": 0, "pauses": 0}),
        counts=counts,
    )
    assert record.paused == START + 60_000
    film(
        record,
        (60_001, "c", tells(paused=10**9), {"paused": 3_600_000}),
        counts=counts,
    )


def test_of_a_pause_and_what_holds_a_record_besides_the_later_is_waited_for() -> None:
    film(known(50, shut=START + 900), (0, "a", asks(paused=500), {"wait": 900}))
    film(known(50, shut=START + 500), (0, "a", asks(paused=900), {"wait": 900}))
    film(
        known(50, hold=START + 950, confirmed=False),
        (0, "a", asks(paused=900), {"wait": 950}),
    )


def test_nobody_gets_more_than_it_wants_or_less_than_it_needs() -> None:
    film(
        known(80),
        (0, "a", asks(3), {"granted": 3}),
        (0, "a", asks(70, need=60, held=3), {"granted": 60}),
        (0, "b", asks(70, need=60), {"granted": 0}),
    )


def test_nobody_runs_far_ahead_of_another_who_asks() -> None:
    """Of 80 tokens for two, by 40; of those for three of whom one does not ask, by 27."""
    film(
        known(80, clients={"b": waits()}),
        (0, "a", asks(99), {"granted": 40, "wait": 250}),
        (1, "a", asks(99, held=40), {"granted": 0, "wait": 250}),
        (2, "b", asks(20), {"granted": 20, "wait": None}),
        (3, "b", asks(99, held=20), {"granted": 10, "wait": None}),
    )
    film(
        known(80, clients={"b": waits(), "c": waits(asks=0)}),
        (0, "a", asks(99), {"granted": 27, "wait": 250}),
        (1, "a", asks(99, held=27), {"granted": 0, "wait": 250}),
        (2, "b", asks(99), {"granted": 27, "wait": None}),
    )


def test_who_waits_at_the_reset_gets_its_share_of_the_window_at_once() -> None:
    """All of it is leased by one question of each: the ones more go to those who are first."""
    film(
        known(899, clients={name: waits() for name in "abcdefgh"}),
        *((0, name, asks(999), {"granted": 113, "wait": 250}) for name in "abc"),
        *((0, name, asks(999), {"granted": 112, "wait": 250}) for name in "defg"),
        (0, "h", asks(999), {"granted": 112, "wait": 250, "remaining": 0}),
    )


def test_what_the_server_has_counted_comes_back_from_nobody() -> None:
    """Others have reported only some of their calls; the answer of one says that none is left."""
    film(
        known(40, clients={"b": waits(held=40)}),
        (5, "a", asks(9), {"granted": 0, "wait": 250}),
        (9, "a", tells(read(1, resets_in=SPAN - 9), want=9), {"granted": 0, "wait": 250}),
        (9, "a", asks(9, need=2), {"granted": 0, "wait": SPAN - 9}),
        (9, "a", asks(9, keep=1), {"granted": 0, "wait": SPAN - 9}),
    )


def test_who_tells_of_calls_while_it_waits_as_it_was_told_still_asks() -> None:
    record = known(80, clients={"b": Client(asks=START + 300, expires=START + LEASE)})
    film(
        record,
        (0, "a", asks(20), {"granted": 20}),
        (1, "a", asks(99, held=20), {"granted": 20, "wait": 250}),
        (2, "a", tells(held=40), {}),
        (3, "b", asks(99), {"granted": 40}),
    )


def test_who_gets_the_last_tokens_is_told_when_to_ask_again() -> None:
    """Unless it is its own calls that are in the way, or it has what it wants."""
    film(
        known(3),
        (0, "a", asks(3), {"granted": 1, "wait": None}),
        (0, "b", asks(1), {"granted": 1, "wait": None}),
        (0, "c", asks(3), {"granted": 1, "wait": 250}),
    )
    film(known(1), (0, "a", asks(3), {"granted": 1, "wait": None}))


def test_who_begins_to_ask_is_as_far_as_the_others() -> None:
    film(
        known(80),
        (0, "a", asks(99), {"granted": 40}),
        (0, "b", asks(99), {"granted": 20}),
        (1, "a", asks(99, held=40), {"granted": 10}),
    )


@pytest.mark.parametrize(
    ("left", "clients", "asked", "granted", "wait"),
    [
        # There are four for each; not four for each.
        ({"remaining": 4, "size": 80}, {}, {}, 4, None),
        ({"remaining": 7}, {"b": waits()}, {}, 1, None),
        ({"remaining": 7}, {"b": waits()}, {"need": 3}, 3, None),
        ({"remaining": 8, "size": 7}, {"b": waits()}, {}, 4, None),
        # What others hold is all that may come yet; one more is there; nobody wants more.
        ({"remaining": 6, "size": 80}, {"b": waits(asks=0, held=2)}, {}, 4, 250),
        ({"remaining": 7, "size": 80}, {"b": waits(asks=0, held=2)}, {"want": 4}, 4, None),
        ({"remaining": 7, "size": 80}, {"b": waits(held=2)}, {}, 4, None),
        ({"remaining": 3, "size": 80}, {"b": waits(asks=0, held=2)}, {"want": 1}, 1, None),
        # As far ahead as is worth a question; one less; far ahead of who was before it.
        ({"remaining": 74, "size": 80}, {"b": waits()}, {}, 37, 250),
        ({"remaining": 72, "size": 80}, {"b": waits()}, {}, 36, None),
        ({"remaining": 80}, {"a": waits(), "b": waits(1)}, {"need": 40}, 40, 250),
        # Its last one before it is as far ahead as it may be; there are so few that one is enough.
        ({"remaining": 80}, {"a": waits(39), "b": waits()}, {}, 1, 250),
        ({"remaining": 1, "size": 8}, {"b": waits()}, {}, 1, 250),
    ],
)
def test_who_would_be_told_to_wait_next_is_told_at_once(
    left: dict[str, int],
    clients: dict[str, Client],
    asked: dict[str, int],
    granted: int,
    wait: int | None,
) -> None:
    record = known(**left, clients={name: replace(each) for name, each in clients.items()})
    said = {"want": 99} | asked
    film(record, (0, "a", said, {"granted": granted, "wait": wait, "probe": 0}))


def test_who_wants_more_than_a_probe_is_told_when_to_ask_for_it() -> None:
    film(Record(), (0, "a", asks(1), {"probe": 1, "wait": None}))
    film(Record(), (0, "a", asks(2), {"probe": 1, "wait": 125 + 20}))


@pytest.mark.parametrize(("at", "granted"), [(300, 20), (301, 40)])
def test_who_did_not_get_all_it_wants_asks_for_as_long_as_it_takes(at: int, granted: int) -> None:
    film(
        known(80),
        (0, "b", asks(99), {"granted": 40, "wait": None}),
        (at, "c", asks(99), {"granted": granted}),
    )


@pytest.mark.parametrize(("at", "granted"), [(550, 20), (551, 40)])
def test_who_has_not_asked_again_in_time_holds_nobody_back(at: int, granted: int) -> None:
    film(
        known(80, clients={"b": waits()}),
        (0, "a", asks(99), {"granted": 40, "wait": 250}),
        (at, "c", asks(99), {"granted": granted}),
    )


def test_what_is_granted_adds_to_what_is_held() -> None:
    record = film(known(20), (0, "a", asks(3, held=3), {"granted": 3, "remaining": 14}))
    assert record.clients["a"].taken == 3


def test_who_got_all_it_wants_shares_no_more() -> None:
    film(known(80), (0, "a", asks(2), {"granted": 2}), (0, "b", asks(99), {"granted": 40}))


def test_who_was_told_to_wait_is_one_of_those_who_ask_for_as_long() -> None:
    record = known(80, clients={"b": Client(asks=START + 300, expires=START + LEASE)})
    film(
        record,
        (0, "a", asks(99), {"granted": 40}),
        (1, "a", asks(99, held=40), {"granted": 0, "wait": 250}),
        (500, "b", asks(99), {"granted": 20}),
    )


def test_four_tokens_for_each_who_asks_are_enough_to_be_fair_with() -> None:
    """Of 8 tokens for two, by 4."""
    other = {"b": Client(asks=START + 300, expires=START + LEASE)}
    film(
        known(8, clients=dict(other)),
        (0, "a", asks(1), {"granted": 1}),
        (1, "a", asks(9, held=1), {"granted": 3, "wait": 250}),
        (2, "a", asks(1, held=4), {"granted": 0, "wait": 250}),
    )
    film(known(7, clients=dict(other)), (0, "a", asks(99, need=3), {"granted": 3}))


def test_a_back_off_of_probes_holds_nobody_whose_window_is_known() -> None:
    record = known(50, hold=START + 500, shut=START)
    film(record, (0, "a", asks(), {"granted": 1}))


def test_a_reserve_stays() -> None:
    film(
        known(5),
        (0, "a", asks(2, keep=4), {"granted": 1}),
        (0, "a", asks(2, keep=4, held=1), {"granted": 0}),
        (0, "b", asks(1), {"granted": 1}),
    )


def test_a_new_window_opens_slowly() -> None:
    film(
        known(90, answered=1),
        (0, "a", asks(1), {"granted": 1}),
        (0, "b", asks(50), {"granted": 1}),
        (0, "c", asks(50), {"granted": 0}),
        (1, "a", tells(read(89, times=29), want=50), {"granted": 10}),
    )


def test_a_new_window_opens_by_calls_whatever_they_cost() -> None:
    film(
        known(90, answered=1),
        (0, "a", asks(20, need=20), {"granted": 20}),
        (0, "b", asks(20, need=20), {"granted": 20}),
        (0, "c", asks(20, need=20), {"granted": 0, "wait": 250}),
    )


def test_a_reserve_does_not_keep_a_new_window_shut() -> None:
    film(
        known(90, answered=1),
        (0, "a", asks(1, keep=20), {"granted": 1}),
        (0, "b", asks(50, keep=20), {"granted": 1}),
        (0, "c", asks(50, keep=20), {"granted": 0, "wait": 250}),
    )


def test_tokens_are_left_to_others_who_use_the_quota_too() -> None:
    """A thousand of others' calls for each thousand of ours: as many again, and a margin."""
    film(
        known(12, before=1000),
        (0, "a", asks(), {"granted": 1}),
        (0, "b", asks(), {"granted": 1}),
        (0, "c", asks(), {"granted": 1}),
        (0, "d", asks(), {"granted": 1}),
        (0, "e", asks(), {"granted": 0, "remaining": 8}),
    )


@pytest.mark.parametrize(
    ("others", "held", "margin"),
    [
        ({"before": 4000}, 9, 48),
        ({"before": 3000}, 37, 133),
        ({"others": 1, "own": 1}, 1, 3),
    ],
)
def test_so_many_are_left_to_others_as_they_take_meanwhile_and_twice_its_spread(
    others: dict[str, int], held: int, margin: int
) -> None:
    """For a call and those on their way: ``expected + 2 * sqrt(expected)``, rounded up."""
    for spare, granted in ((0, 0), (1, 1)):
        holds = {"a": Client(held=held, expires=START + LEASE)}
        film(
            known(held + margin + spare, clients=holds, **others),
            (0, "b", asks(), {"granted": granted}),
        )


def test_after_an_outage_nobody_gets_what_the_missing_may_have_claimed() -> None:
    record = film(
        known(90),
        (0, "a", tells(crew=4, held=10), {"remaining": 80, "void": 0}),
        (1, "a", asks(9, held=10), {"granted": 5, "wait": None}),
        (2, "b", asks(9), {"granted": 0, "wait": 2498}),
        (3, "b", tells(crew=4, want=30), {"granted": 13}),
        (4, "c", tells(crew=4, want=30), {"granted": 13}),
        (5, "a", tells(crew=4, want=30, held=15), {"granted": 17}),
    )
    assert (record.missing, record.crew, record.back) == (0, 4, START + 2500)


def test_who_comes_back_last_is_back_in_time_and_tells_of_another_outage_later() -> None:
    record = film(
        known(50),
        (0, "a", tells(crew=2), {}),
        (2499, "b", asks(), {"granted": 0, "wait": 1}),
        (2500, "b", asks(), {"granted": 1}),
        (2500, "a", tells(crew=3), {}),
    )
    assert (record.missing, record.crew, record.back) == (2, 3, START + 5000)
    for _ in range(3):
        rule._come_back(record, 3, START + 2501)
    assert record.missing == 0


def test_a_record_that_was_emptied_leaves_to_those_who_had_a_lease_what_they_may_hold() -> None:
    """Until they have come, once each; what one of them has read before is not the newest."""
    old = read(60, known=NUMBER, resets_in=50_000)
    record = film(
        Record(answered=64, presumed=0),
        (0, "a", tells(old, peers=3, held=5, want=9), {"granted": 1, "probe": 1}),
        (1, "b", tells(old, peers=3, held=8, want=9), {"granted": 0, "probe": 0}),
        (
            100,
            "a",
            tells(read(40, known=START + 1, probe=1, resets_in=50_000), held=5, want=9, peers=3),
            {"granted": 0, "remaining": 26, "wait": 2400},
        ),
        (101, "b", asks(9, peers=3, held=8), {"granted": 0}),
        (102, "c", tells(peers=3, held=2), {"remaining": 24, "void": 0}),
        (103, "b", asks(9, held=8), {"granted": 9}),
    )
    assert (record.missing, record.crew, record.back) == (0, 3, START + 2500)


def test_a_probe_that_went_after_a_record_was_emptied_is_believed_whoever_comes_meanwhile() -> None:
    rows: list[Row] = [
        (0, "a", asks(peers=3), {"granted": 1, "probe": 1, "number": START}),
        (10, "a", tells(ended(Outcome.FAILED), held=1, probes=1), {"number": START + 1}),
        (20, "b", tells(peers=3), {"confirmed": False}),
    ]
    probe = tells(read(40, known=START, probe=1, resets_in=50_000))
    film(Record(), *rows, (100, "a", probe, {"confirmed": True, "remaining": 39}))
    film(Record(), rows[0], (100, "a", probe, {"confirmed": True, "remaining": 40}))


@pytest.mark.parametrize(
    ("remaining", "lease"),
    [
        (0, {"confirmed": True, "granted": 0, "wait": 50_000}),
        (1, {"confirmed": False, "granted": 1, "probe": 1}),
    ],
)
def test_what_was_read_before_a_record_was_emptied_counts_if_nothing_was_left(
    remaining: int, lease: dict[str, Any]
) -> None:
    old = read(remaining, known=NUMBER, resets_in=50_000)
    film(Record(), (0, "a", tells(old, peers=3, want=1), lease))


def test_who_comes_last_to_a_record_that_was_emptied_gives_up_what_others_got() -> None:
    record = known(10, began=START - LEASE + 1, clients={"a": Client(held=8)})
    film(record, (0, "b", tells(peers=2, held=5), {"void": 3}))


@pytest.mark.parametrize(("peers", "age"), [(0, 0), (2, LEASE - 1), (9, LEASE)])
def test_a_record_has_lost_nothing_that_knows_as_many_or_is_older_than_a_lease(
    peers: int, age: int
) -> None:
    """Who has left, or was awaited in vain, is not known to it either."""
    holds = {name: Client(expires=START + LEASE) for name in "ab"}
    record = known(20, began=START - age, clients=holds)
    assert film(record, (0, "c", asks(1, peers=peers), {"granted": 1})).crew == 1


def test_a_record_that_was_emptied_waits_for_as_many_as_it_can_remember() -> None:
    assert film(Record(), (0, "a", tells(peers=10**9), {})).crew == 256


def test_claims_are_waited_for_no_longer_than_the_window_lasts() -> None:
    film(
        known(50, reset=START + 700),
        (0, "a", tells(crew=2), {}),
        (1, "b", asks(), {"granted": 0, "wait": 699}),
        (700, "b", asks(), {"granted": 1, "probe": TURN + 1}),
    )
    film(
        known(50, reset=START + 700, late=300),
        (1, "b", tells(crew=2, want=1), {"granted": 0, "wait": 999}),
    )


def test_where_no_limit_is_told_shares_are_those_of_what_was_left_at_first() -> None:
    film(
        known(45, limit=None, size=60),
        (0, "a", tells(crew=4, want=1), {"granted": 0, "wait": 2500}),
    )
    film(known(46, limit=None, size=60), (0, "a", tells(crew=4, want=1), {"granted": 1}))


def test_what_is_claimed_and_not_there_is_given_up_by_who_comes_back() -> None:
    """Once, as it comes back: what it holds beside is leased, or under way."""
    film(
        known(20),
        (0, "a", {"held": 15}, {"void": 0, "remaining": 5}),
        (1, "b", tells(crew=2, held=9), {"void": 4, "remaining": 0}),
        (2, "b", tells(held=9), {"void": 0}),
        (3, "b", tells(crew=2, held=5), {"void": 0}),
    )
    film(
        known(20, confirmed=False, hold=ENDS),
        (0, "a", tells(crew=2, held=30), {"void": 0}),
    )


def test_others_are_seen_in_what_our_calls_do_not_explain() -> None:
    record = film(
        known(50),
        (0, "a", asks(1), {"granted": 1}),
        (1, "a", tells(read(47), want=1), {"granted": 1, "remaining": 46}),
    )
    assert (record.others, record.own) == (2, 2)


# Who knows nothing -----------------------------------------------------------------------------


def test_one_probe_goes_and_a_second_after_its_silence_and_no_third() -> None:
    alive = {"probes": 1, "held": 1}
    film(
        Record(),
        (0, "a", asks(50), {"granted": 1, "probe": 1, "confirmed": False, "wait": 125 + 20}),
        (0, "b", asks(50), {"granted": 0, "probe": 0, "wait": 125 + 20}),
        (1500, "a", alive, {}),
        (1999, "b", asks(50), {"granted": 0}),
        (2000, "b", asks(50), {"granted": 1, "probe": 1}),
        (3400, "a", alive, {}),
        (3900, "b", alive, {}),
        (5000, "a", alive, {}),
        (5001, "c", asks(50), {"granted": 0}),
    )


def test_both_probes_may_be_of_one_process_and_there_is_no_third() -> None:
    one, both = {"probes": 1, "held": 1}, {"probes": 2, "held": 2}
    film(
        Record(),
        (0, "a", asks(), {"probe": 1}),
        (1999, "a", asks(**one), {"granted": 0}),
        (2000, "a", asks(**one), {"granted": 1, "probe": 1}),
        (3500, "a", both, {}),
        (4000, "a", asks(**both), {"granted": 0}),
        (4000, "b", asks(), {"granted": 0}),
        (4001, "a", one, {}),
        (4001, "b", asks(), {"granted": 1, "probe": 1}),
        (5500, "a", one, {}),
        (5500, "b", one, {}),
        (6001, "a", asks(**one), {"granted": 0}),
        (6001, "b", asks(**one), {"granted": 0}),
    )


def test_a_process_has_no_more_probes_out_than_it_was_leased() -> None:
    film(
        Record(),
        (0, "a", {"probes": 2, "held": 2}, {}),
        (0, "b", asks(), {"granted": 1, "probe": 1}),
        (1000, "b", {"probes": 2, "held": 1}, {}),
        (2000, "a", asks(probes=2, held=2), {"granted": 1, "probe": 1}),
        (2001, "a", {"probes": 0, "held": 0}, {}),
        (2001, "c", asks(), {"granted": 1, "probe": 1}),
    )


def test_a_second_probe_goes_later_where_answers_take_longer() -> None:
    alive = {"probes": 1, "held": 1}
    film(
        Record(round_trip=1000),
        (0, "a", asks(), {"probe": 1}),
        (1500, "a", alive, {}),
        (2999, "b", asks(), {"granted": 0}),
        (3000, "b", asks(), {"probe": 1}),
    )


def test_others_look_a_round_trip_after_the_probe_and_less_often_in_vain() -> None:
    film(
        Record(round_trip=400),
        (0, "a", asks(), {"probe": 1}),
        (100, "b", asks(), {"wait": 400 + 20}),
        (100, "c", asks(vain=3), {"wait": 400 + 160}),
        (700, "c", asks(vain=99), {"wait": 640}),
    )


def test_a_probe_that_its_process_speaks_of_no_more_is_over() -> None:
    film(
        Record(),
        (0, "a", asks(), {"probe": 1}),
        (10, "a", {"held": 0, "probes": 0}, {}),
        (10, "b", asks(), {"probe": 1}),
    )


def test_the_answer_to_a_probe_opens_the_window_for_all() -> None:
    film(
        Record(answered=64, presumed=0),
        (0, "a", asks(), {"probe": 1}),
        (
            20,
            "a",
            tells(read(40, probe=1, resets_in=50_000, epoch=4711)),
            {
                "confirmed": True,
                "limit": 100,
                "remaining": 40,
                "resets_in": 50_000,
                "epoch": 4711,
                "clients": 1,
            },
        ),
        (20, "b", asks(99), {"granted": 20}),
    )


def test_a_window_without_a_reset_that_is_spent_is_asked_about_ever_less_often() -> None:
    record = film(
        Record(answered=64, presumed=0),
        (0, "a", asks(), {"probe": 1}),
        (20, "a", tells(read(0, probe=1, known=START)), {"confirmed": False}),
        (20, "a", asks(), {"granted": 0, "wait": 1000}),
    )
    at = 20
    for wait in (1000, 2000, 4000):
        at += wait
        turn = record.turn
        film(
            record,
            (at, f"p{at}", asks(), {"probe": turn}),
            (
                at,
                f"p{at}",
                tells(read(0, probe=turn, known=2 * START), sequence=2),
                {"confirmed": False},
            ),
        )
        assert record.hold - START - at == 2 * wait


def test_answers_without_headers_let_one_more_go_than_there_were() -> None:
    film(
        Record(),
        (0, "a", asks(), {"probe": 1}),
        (0, "b", asks(), {"granted": 0}),
        (20, "a", tells(ended(Outcome.UNREAD, times=7)), {}),
        (20, "a", asks(99), {"granted": 2}),
        (20, "b", asks(99), {"granted": 1}),
        (30, "a", tells(ended(Outcome.REFUSED), held=0), {}),
        (40, "b", asks(99, held=0), {"granted": 1}),
        (41, "b", asks(99, held=1), {"granted": 1}),
        counts=Counts.COLD,
    )


def test_one_more_may_go_than_were_answered_without_headers() -> None:
    film(
        Record(blank=1),
        (0, "a", asks(99), {"granted": 1}),
        (0, "b", asks(99), {"granted": 1}),
        (0, "c", asks(99), {"granted": 0, "wait": 250}),
        counts=Counts.COLD,
    )


@pytest.mark.parametrize(
    ("outcome", "left"),
    [
        (Outcome.REFUSED, 4),
        (Outcome.LOST, 4),
        (Outcome.FAILED, 4),
        (Outcome.CACHED, 9),
        (Outcome.UNSENT, 9),
    ],
)
def test_what_fails_without_headers_halves_how_many_may_go(outcome: Outcome, left: int) -> None:
    record = film(Record(blank=9), (0, "a", tells(ended(outcome)), {}), counts=Counts.COLD)
    assert record.blank == left


def test_a_window_that_was_shown_ends_the_cold_start_for_all() -> None:
    film(
        Record(),
        (0, "a", asks(), {"probe": 1}),
        (0, "b", asks(), {"granted": 0}),
        (20, "a", {"shown": ("window",)}, {"shown": ("window",)}),
        (21, "b", asks(9), {"granted": 0, "wait": None, "shown": ("window",)}),
        counts=Counts.COLD,
    )


# Answers ---------------------------------------------------------------------------------------


def test_answers_fold_by_their_minimum_until_a_later_call_tells() -> None:
    film(
        known(10),
        (0, "a", asks(3), {"granted": 3}),
        (20, "a", tells(read(7), held=2), {"remaining": 5}),
        (21, "a", tells(read(9), held=1), {"remaining": 6}),
        (22, "a", tells(read(8), held=0), {"remaining": 7}),
        # Sent when all those were known.
        (40, "a", tells(read(9, known=2 * START)), {"remaining": 9}),
    )


def test_an_answer_retires_what_its_call_knew_and_no_more() -> None:
    record = film(known(10), (0, "a", tells(read(7)), {"remaining": 7}))
    newest = record.number
    film(
        record,
        (1, "a", tells(read(9, known=newest - 1)), {"remaining": 7}),
        (2, "b", tells(read(9, known=newest)), {"remaining": 9}),
    )


def test_a_round_trip_is_the_slowest_and_is_forgotten_slowly() -> None:
    record = known(50, round_trip=400)
    for took, believed in ((80, 380), (500, 500), (60_000, 30_000)):
        film(record, (0, f"a{took}", tells(read(50, took=took)), {}))
        assert record.round_trip == believed


def test_a_refused_call_took_nothing() -> None:
    record = film(
        known(50),
        (0, "a", asks(), {"granted": 1}),
        (1, "a", tells(read(50, refused=True)), {"remaining": 50}),
    )
    assert (record.explained, record.own, record.others) == (50, 0, 0)


def test_a_call_costs_what_it_costs() -> None:
    film(
        known(10),
        (0, "a", tells(ended(Outcome.UNREAD, cost=3)), {"remaining": 7}),
        (1, "a", tells(ended(Outcome.LOST, cost=4)), {"remaining": 3}),
    )


def test_an_answer_without_headers_is_owed_until_one_that_knows_of_it_is_read() -> None:
    record = film(
        known(10), (0, "a", tells(ended(Outcome.UNREAD), ended(Outcome.REFUSED)), {"remaining": 8})
    )
    newest = record.number
    film(
        record,
        (1, "b", tells(read(10, known=newest - 2)), {"remaining": 8}),
        (2, "b", tells(read(10, known=newest - 1)), {"remaining": 9}),
        (3, "b", tells(read(10, known=newest)), {"remaining": 10}),
    )


def test_answers_without_headers_may_have_taken_the_last_token_until_the_reset() -> None:
    film(
        known(2),
        (0, "a", tells(ended(Outcome.UNREAD), ended(Outcome.UNREAD)), {"remaining": 0}),
        (1, "a", asks(), {"granted": 0, "wait": SPAN - 1, "probe": 0}),
        (1, "b", asks(), {"granted": 0, "wait": SPAN - 1}),
    )


@pytest.mark.parametrize(
    ("outcome", "span"),
    [(Outcome.LOST, 1000), (Outcome.FAILED, 0), (Outcome.CACHED, 0), (Outcome.UNSENT, None)],
)
def test_a_lost_call_is_a_ghost_for_its_span(outcome: Outcome, span: int | None) -> None:
    record = film(
        known(10),
        (100, "a", tells(ended(outcome, ago=30)), {"remaining": 10 if span is None else 9}),
    )
    if span is None:
        assert not record.ghosts
        return
    clear = 100 - 30 + span
    later = {"known": 2 * START, "took": 5}
    film(
        record,
        (clear + 4, "b", tells(read(10, **later)), {"remaining": 9}),
        (clear + 5, "b", tells(read(10, **later | {"known": NUMBER})), {"remaining": 9}),
        (clear + 7, "b", tells(read(10, **later, ago=3)), {"remaining": 9}),
        (clear + 8, "b", tells(read(10, **later, ago=3)), {"remaining": 10}),
    )


def test_a_probe_that_a_cache_answered_is_followed_by_another_at_once() -> None:
    """It is none in vain: somebody answered, though not the server."""
    record = film(
        known(50),
        (SPAN, "a", asks(), {"probe": TURN + 1}),
        (SPAN + 5, "a", tells(ended(Outcome.CACHED, probe=TURN + 1)), {"misses": 0}),
        (SPAN + 6, "b", asks(), {"probe": TURN + 1}),
    )
    assert (record.misses, record.hold, record.confirmed) == (0, 0, False)


def test_a_ghosts_span_grows_with_the_round_trip() -> None:
    record = film(known(10, round_trip=3000), (0, "a", tells(ended(Outcome.LOST)), {}))
    assert record.ghosts == [[START + 6000, record.number, 1]]


def test_calls_in_flight_at_a_late_rollover_may_be_counted_after_the_probe() -> None:
    """Their readings count if the old window goes on, and not if another one has begun."""
    late = read(5, cost=2, resets_in=-100)
    rows: list[Row] = [
        (0, "a", asks(2), {"granted": 2}),
        (150, "b", asks(1), {"probe": TURN + 1}),
        (200, "a", tells(late), {"confirmed": False}),
    ]
    probe = {"known": NUMBER + 1, "probe": TURN + 1}
    on, over = read(7, resets_in=-150, **probe), read(7, resets_in=SPAN, **probe)
    film(known(9, reset=START + 100), *rows, (250, "b", tells(on), {"remaining": 5}))
    film(known(9, reset=START + 100), *rows, (250, "b", tells(over), {"remaining": 7}))
    untold = read(7, **probe)
    film(known(9, reset=START + 100), *rows, (250, "b", tells(untold), {"remaining": 7}))


def test_what_was_read_before_the_probe_went_is_in_what_it_reads() -> None:
    probe = read(7, resets_in=-150, known=NUMBER + 3, probe=TURN + 1)
    film(
        known(9, reset=START + 100),
        (0, "a", asks(2), {"granted": 2}),
        (140, "a", tells(read(5, cost=2, resets_in=-40)), {"confirmed": False}),
        (150, "b", asks(1), {"probe": TURN + 1, "number": NUMBER + 3}),
        (250, "b", tells(probe), {"remaining": 7}),
    )


def test_debts_beyond_the_most_are_put_together() -> None:
    record = known(900)
    for _ in range(200):
        film(
            record,
            (0, f"a{record.number}", tells(ended(Outcome.LOST)), {}),
            (0, f"b{record.number}", tells(ended(Outcome.UNREAD)), {}),
        )
    assert len(record.ghosts) == len(record.unread) == 64
    film(record, (0, "c", {"held": 1}, {"remaining": 900 - 400 - 1}))


# The dead --------------------------------------------------------------------------------------


def test_where_nothing_is_known_who_says_no_more_is_forgotten_after_a_lease() -> None:
    film(
        Record(),
        (0, "a", {}, {"clients": 1, "remaining": 0}),
        (LEASE - 1, "b", {}, {"clients": 2}),
        (LEASE, "b", {}, {"clients": 1}),
    )


def test_what_the_dead_held_is_owed_for_longer_where_answers_take_longer() -> None:
    record = film(
        known(10, round_trip=3000),
        (0, "a", asks(4), {"granted": 4}),
        (LEASE, "b", {}, {"remaining": 6}),
    )
    assert record.ghosts == [[START + LEASE + 6000, NUMBER + 1, 4]]


def test_what_the_dead_held_becomes_ghosts() -> None:
    record = film(
        known(10),
        (0, "a", asks(4), {"granted": 4}),
        (LEASE - 1, "b", {"held": 1}, {"remaining": 5}),
        (LEASE, "b", {"held": 1}, {"remaining": 5}),
    )
    assert record.ghosts == [[START + LEASE + 1000, NUMBER + 1, 4]]


def next_window(remaining: int = 100) -> dict[str, Any]:
    """Tell what the first call of the window after that of `known` read, and ask for all of it."""
    told = {"remaining": remaining, "resets_in": SPAN, "probe": TURN + 1, "known": NUMBER + 10}
    return asks(500, notes=({"outcome": Outcome.READ, **told},))


def test_whoever_dies_holding_something_may_go_on_alone_and_has_its_share_of_the_next_window() -> (
    None
):
    """For so long as it may take to be seen in what the others read; then one call goes to see."""
    used = read(50, known=NUMBER + 100, cost=50)
    record = film(
        known(10),
        (0, "a", asks(4), {"granted": 4}),
        (LEASE, "b", {}, {"clients": 2}),
        (SPAN, "b", asks(), {"probe": TURN + 1, "granted": 1}),
        (SPAN + 10, "b", next_window(), {"granted": 50, "remaining": 50}),
        (SPAN + 1000, "b", asks(500, notes=(used,)), {"granted": 0, "wait": 250, "clients": 2}),
        (SPAN + 1010, "b", asks(500), {"granted": 1, "probe": TURN + 1, "clients": 2}),
    )
    assert [ghost[2] for ghost in record.ghosts if ghost[0] == START + SPAN + 1010] == [50]


def test_whoever_does_not_come_as_it_was_told_to_has_its_share_until_it_does() -> None:
    used = read(50, known=NUMBER + 100, cost=50)
    film(
        known(2),
        (0, "a", asks(4), {"granted": 1}),
        (0, "b", asks(4), {"granted": 1}),
        (10, "a", asks(held=0), {"granted": 1}),
        (10, "b", {"held": 0}, {}),
        (SPAN, "b", asks(), {"probe": TURN + 1, "granted": 1}),
        (SPAN + 10, "b", next_window(), {"granted": 49}),
        (SPAN + 500, "b", asks(500, notes=(used,)), {"granted": 0, "wait": 250}),
        (SPAN + 510, "a", asks(500), {"granted": 25}),
    )


@pytest.mark.parametrize(("wanted", "idle"), [(4, True), (1, False)], ids=["idle", "served"])
def test_for_whoever_wants_nothing_any_more_nothing_is_kept(wanted: int, idle: bool) -> None:
    film(
        known(2),
        (0, "a", asks(wanted), {"granted": 1}),
        (10, "a", {"held": 0, "idle": idle}, {}),
        (SPAN, "b", asks(), {"probe": TURN + 1, "granted": 1}),
        (SPAN + 10, "b", next_window(), {"granted": 50}),
        (SPAN + 20, "b", asks(500, held=50), {"granted": 50}),
    )


@pytest.mark.parametrize(
    ("left", "awaited", "granted", "wait"),
    [
        # Of few tokens its share is left to it; of four for each, unless it asks now itself.
        ({"remaining": 3, "size": 7}, {}, 0, 250),
        ({"remaining": 4, "size": 7}, {}, 0, 250),
        ({"remaining": 5, "size": 7}, {}, 1, None),
        ({"remaining": 4, "size": 8}, {}, 4, 250),
        ({"remaining": 4, "size": 8}, {"asks": START}, 4, 250),
        ({"remaining": 4, "size": 8}, {"asks": START - 1}, 0, 250),
        # One may be all of it; it is waited for no longer than others are who come back.
        ({"remaining": 1, "size": 3}, {}, 0, 250),
        ({"remaining": 1, "size": 3, "back": START + 40}, {}, 0, 40),
        ({"remaining": 1, "size": 3, "back": START}, {}, 0, 250),
        ({"remaining": 1, "size": 1}, {}, 0, 250),
        ({"remaining": 1, "size": 0}, {}, 1, None),
    ],
)
def test_what_is_left_to_whoever_is_awaited_nobody_else_gets(
    left: dict[str, int], awaited: dict[str, int], granted: int, wait: int | None
) -> None:
    record = known(**left, clients={"b": waits(**{"awaited": START + 500} | awaited)})
    film(record, (0, "a", asks(99), {"granted": granted, "wait": wait}))


def test_what_the_awaited_may_have_used_no_call_tells_that_went_before() -> None:
    film(
        known(10, clients={"b": waits(held=3, awaited=START + 10)}),
        (9, "a", {}, {"clients": 2, "remaining": 7, "number": NUMBER}),
        (10, "a", {}, {"clients": 2, "remaining": 2, "number": NUMBER + 1}),
        (10, "a", tells(read(9, took=0, resets_in=SPAN - 10)), {"remaining": 1}),
        (10, "a", tells(read(8, took=0, resets_in=SPAN - 10, known=NUMBER + 1)), {"remaining": 5}),
    )
    film(
        known(10, size=0, clients={"b": waits(awaited=START)}),
        (0, "a", {}, {"clients": 2, "remaining": 10}),
    )
    film(
        known(10, size=4, clients={"b": waits(awaited=START)}),
        (0, "a", {}, {"clients": 2, "remaining": 6}),
    )


def test_of_several_who_were_awaited_in_vain_each_may_have_used_an_equal_share() -> None:
    """It grew with each that was given up: of 90 tokens 30 were owed, and then 45."""
    record = film(
        known(90, clients={"b": waits(awaited=START + 10), "c": waits(awaited=START + 10)}),
        (0, "a", asks(500), {"granted": 30, "wait": 250, "clients": 3}),
        (10, "a", {"held": 30}, {"clients": 3, "remaining": 0}),
    )
    assert record.ghosts == [[START + 10, NUMBER + 1, 30], [START + 10, NUMBER + 2, 30]]
    assert [each.asks for each in record.clients.values()][:2] == [0, 0], "nor do they ask any more"


def windows(*used: int) -> Record:
    """Windows of 100 calls for two processes, one of which asked and does not come any more.

    Each window is spent by the other one, but for so many calls. Returns the record as it is at
    the beginning of another window.
    """
    record = known(10, reset=START + 100, clients={"b": waits(asks=START + 50)})
    rows: list[Row] = []
    for number, by_others in enumerate([*used, None]):
        at, turn = 5000 * number + 100, TURN + 1 + number
        first = read(100, resets_in=4990, probe=turn, known=NUMBER + 1000)
        rows.append((at, "a", asks(), {"granted": 1, "probe": turn}))
        rows.append((at + 10, "a", tells(first), {"confirmed": True}))
        if by_others is not None:
            last = read(0, resets_in=2000, cost=100 - by_others, known=NUMBER + 1000)
            rows.append((at + 2000, "a", {"held": 100 - by_others}, {}))
            rows.append((at + 3000, "a", tells(last), {"remaining": 0}))
    return film(record, *rows)


@pytest.mark.parametrize(
    ("used", "awaited"),
    [
        ((), True),
        ((0,), True),  # it may have waited for the reset, since others were to find out
        ((0, 0), False),
        ((24, 24), False),
        ((25,), True),
        ((0, 25), True),  # half of its share, and of one of two processes
        ((25, 0), True),
        ((25, 0, 0), False),
        ((0, 25, 0, 25), True),
    ],
)
def test_who_does_not_come_is_awaited_until_nobody_used_its_share_in_two_windows(
    used: tuple[int, ...], awaited: bool
) -> None:
    """It goes on for itself: others are refused for each call of it, 15 in one window of 100."""
    record = windows(*used)
    assert ("b" in record.clients) is awaited
    if awaited:
        assert record.clients["b"].is_awaited


def test_as_many_are_awaited_as_others_may_be() -> None:
    """Three do not come in two windows; somebody has used the shares of about two."""
    gone = {name: waits(gone=START, awaited=START, vain=1, asks=0) for name in "bcd"}
    record = known(100, reset=START + 100, others=40, clients=gone)
    film(
        record,
        (100, "a", asks(), {"granted": 1, "probe": TURN + 1, "clients": 4}),
        (110, "a", tells(read(99, resets_in=SPAN, probe=TURN + 1, known=NUMBER + 10)), {}),
    )
    assert [(name, each.vain) for name, each in record.clients.items()] == [
        ("b", 0),
        ("c", 0),
        ("a", 0),
    ]


def test_who_was_awaited_in_vain_holds_what_it_has_until_its_lease_ends() -> None:
    def opens(turn: int) -> dict[str, Any]:
        note = read(100, resets_in=1100, probe=turn, known=NUMBER + 100)
        return asks(500, notes=(note,))

    record = film(
        known(10, reset=START + 100, span=1000, clients={"b": waits(held=3, asks=START + 50)}),
        (100, "a", asks(), {"granted": 1, "probe": TURN + 1}),
        (110, "a", opens(TURN + 1), {"granted": 48, "remaining": 49}),
        (1109, "a", asks(500, held=48), {"granted": 0, "wait": 101}),
        (1110, "a", asks(500, held=48), {"granted": 0, "clients": 2, "remaining": 0}),
        (1210, "a", asks(), {"granted": 1, "probe": TURN + 2}),
        (1999, "a", {"held": 1}, {"clients": 2}),
        (2000, "a", {"held": 1}, {"clients": 2}),
    )
    assert record.ghosts[-1][0::2] == [START + LEASE + 1000, 3]


def test_who_dies_while_it_is_awaited_is_awaited_as_long_as_others() -> None:
    dies = waits(held=3, asks=0, awaited=START + 500, expires=START + 100)
    record = film(
        known(10, clients={"b": dies}),
        (100, "a", asks(99), {"granted": 2, "clients": 2}),
        (499, "a", asks(99, held=2), {"granted": 0}),
        (500, "a", asks(99, held=2), {"granted": 0}),
    )
    assert [ghost[0::2] for ghost in record.ghosts] == [[START + 1100, 3], [START + 500, 5]]


@pytest.mark.parametrize(
    ("size", "others", "vain"), [(100, 25, 0), (100, 24, 1), (2, 1, 0), (0, 0, 1)]
)
def test_others_are_there_if_they_used_half_of_a_share(size: int, others: int, vain: int) -> None:
    gone = waits(gone=START, awaited=START, asks=0)
    opening = tells(read(99, resets_in=SPAN, probe=TURN, known=NUMBER + 10))
    record = known(100, size=size, others=others, confirmed=False, clients={"b": gone})
    film(record, (100, "a", opening, {"confirmed": True}))
    assert gone.vain == vain


def test_who_was_not_awaited_yet_was_not_awaited_in_vain() -> None:
    """It died in this window, or is awaited since another answer told of it a moment ago."""
    for said in ({"gone": START}, {"awaited": START + 500}):
        client = waits(asks=0, **said)
        opening = tells(read(99, resets_in=SPAN, probe=TURN, known=NUMBER + 10))
        record = known(100, confirmed=False, reset=START - 1, clients={"b": client})
        film(record, (100, "a", opening, {"confirmed": True}))
        assert client.vain == 0


def test_whoever_comes_after_all_is_awaited_no_more() -> None:
    gone = waits(gone=START, awaited=START, vain=1, asks=0)
    record = known(10, clients={"b": gone})
    film(record, (0, "b", asks(1), {"granted": 1, "clients": 1}))
    assert (gone.gone, gone.awaited, gone.vain) == (0, 0, 0)


def test_a_dead_process_missed_its_probe() -> None:
    record = film(Record(), (0, "a", asks(), {"probe": 1}), (LEASE, "b", asks(), {"probe": 1}))
    assert record.misses == 1
    film(record, (2 * LEASE, "c", asks(), {"granted": 0, "wait": 1000}))


def test_if_only_ghosts_block_one_goes_to_see_and_the_others_wait() -> None:
    film(
        known(2, ghosts=[[START + 700, NUMBER, 2]]),
        (0, "a", asks(), {"granted": 0, "wait": 700}),
        (700, "a", asks(), {"granted": 1, "probe": TURN}),
        (701, "b", asks(), {"granted": 0}),
        (720, "a", tells(read(1, known=NUMBER)), {"remaining": 1}),
        (720, "b", asks(), {"granted": 1, "probe": 0}),
    )


def test_a_reserve_is_left_by_who_goes_to_see_what_was_lost() -> None:
    film(
        known(5, ghosts=[[START, NUMBER, 3]]),
        (0, "a", asks(keep=2), {"granted": 1, "probe": TURN}),
    )


def test_who_went_to_see_and_never_left_is_followed_by_another_a_second_later() -> None:
    film(
        known(1, ghosts=[[START, NUMBER, 1]]),
        (0, "a", asks(), {"granted": 1, "probe": TURN}),
        (10, "a", {"held": 0}, {}),
        (20, "b", asks(), {"granted": 0, "wait": 980}),
        (1000, "b", asks(), {"granted": 1, "probe": TURN}),
    )


def test_who_waits_for_what_others_hold_waits_for_the_reset_at_most() -> None:
    for more, wait in (
        ({"reset": START + 100}, 100),
        ({"reset": START + 100, "late": 50}, 150),
        ({"reset": START + 1}, 1),
        ({"reset": None}, 250),
    ):
        film(
            known(1, **more),
            (0, "a", asks(), {"granted": 1}),
            (0, "b", asks(), {"granted": 0, "wait": wait}),
        )


def test_who_waits_for_what_others_hold_asks_ever_less_often() -> None:
    film(
        known(1),
        (0, "a", asks(), {"granted": 1}),
        (0, "b", asks(vain=0), {"wait": 250}),
        (250, "b", asks(vain=1), {"wait": 500}),
        (750, "b", asks(vain=2), {"wait": 1000}),
        (1750, "b", asks(vain=9), {"wait": 1000}),
    )


def test_who_waits_for_itself_is_told_to_ask_when_its_own_call_has_ended() -> None:
    film(known(1), (0, "a", asks(), {"granted": 1}), (1, "a", asks(held=1), {"wait": None}))


# Resets ----------------------------------------------------------------------------------------


def test_when_all_is_spent_everybody_waits_for_the_reset() -> None:
    film(
        known(0, late=300),
        (0, "a", asks(), {"granted": 0, "wait": SPAN + 300, "resets_in": SPAN + 300}),
    )


def test_at_the_reset_nothing_is_known_until_one_probe_is_answered() -> None:
    later = {"resets_in": SPAN, "probe": TURN + 1, "known": 2 * START}
    film(
        known(90),
        (SPAN - 1, "a", asks(9), {"granted": 9, "confirmed": True}),
        (SPAN, "a", asks(9, held=0), {"granted": 1, "probe": TURN + 1, "confirmed": False}),
        (SPAN, "b", asks(9), {"granted": 0}),
        (SPAN + 20, "a", tells(read(99, **later)), {"confirmed": True, "remaining": 99}),
        (SPAN + 20, "b", asks(9), {"granted": 9}),
    )


def test_the_last_millisecond_before_a_reset_is_waited_for() -> None:
    film(known(0, reset=START + 1), (0, "a", asks(), {"granted": 0, "wait": 1}))


def test_probes_of_the_window_before_are_none_of_the_next() -> None:
    probing = Client(probes=1, probed=START + SPAN - 10, held=1, expires=START + 9 * SPAN)
    film(
        known(5, clients={"a": probing}),
        (SPAN, "b", asks(), {"granted": 1, "probe": TURN + 1}),
        (SPAN, "c", asks(), {"granted": 0}),
        (SPAN + 1500, "b", {"probes": 1, "held": 1}, {}),
        (SPAN + 2000, "c", asks(), {"granted": 1, "probe": TURN + 1}),
    )


def test_what_a_probe_knows_is_the_number_of_its_own_turn() -> None:
    """Refused, it is followed by another a second later; with one left, by one more at once."""
    said = {"resets_in": -20, "probe": TURN + 1, "known": NUMBER + 1}
    film(
        known(0),
        (SPAN, "a", asks(), {"probe": TURN + 1, "number": NUMBER + 1}),
        (SPAN + 20, "a", tells(read(0, **said)), {"confirmed": False}),
        (SPAN + 20, "b", asks(), {"granted": 0, "wait": 1000}),
    )
    film(
        known(0),
        (SPAN, "a", asks(), {"probe": TURN + 1}),
        (SPAN + 20, "a", tells(read(1, **said)), {"confirmed": True, "remaining": 1}),
        (SPAN + 20, "b", asks(), {"granted": 1, "probe": 0}),
    )


def rolled_over(record: Record, **more: Any) -> Record:
    """Have the window of `known` end, and a probe open the next one a moment after."""
    told = {"resets_in": SPAN, "probe": TURN + 1, "known": 2 * START}
    return film(
        record,
        (SPAN + record.late, "z", asks(), {"probe": TURN + 1}),
        (SPAN + record.late + 20, "z", tells(read(**{"remaining": 99} | told | more)), {}),
    )


def test_a_whole_window_tells_whether_others_use_the_quota_too() -> None:
    record = rolled_over(known(0, others=30, own=9, presumed=250), remaining=2)
    assert (record.presumed, record.before, record.others, record.own) == (0, 3000, 0, 0)
    record = rolled_over(known(0, before=1000, presumed=250), remaining=2)
    assert (record.presumed, record.before) == (0, 500)
    record = rolled_over(known(0, presumed=250), remaining=2)
    film(
        record,
        (SPAN + 30, "a", asks(), {"granted": 1}),
        (SPAN + 30, "b", asks(), {"granted": 1, "remaining": 0}),
    )


def test_in_a_new_window_nobody_is_ahead_of_another() -> None:
    ahead = Client(taken=70, expires=START + 2 * SPAN)
    record = rolled_over(known(0, clients={"a": ahead}, doubts=5))
    assert (record.clients["a"].taken, record.doubts, record.size) == (0, 0, 99)


def test_a_length_is_what_a_rollover_shows_and_else_the_longest_seen() -> None:
    assert rolled_over(known(0), resets_in=20_000).span == 20_000
    assert rolled_over(known(0, reset=None, seen=START - 900_000), resets_in=20_000).span == SPAN
    record = known(50, reset=None, span=5000)
    film(
        record,
        (0, "a", tells(read(50, resets_in=9000)), {"resets_in": 9000, "span": 9000}),
        (0, "a", tells(read(50, resets_in=30_000, lasts=29_000)), {"span": 9000}),
    )
    film(known(50, reset=None), (0, "a", tells(read(50, resets_in=9000)), {"span": SPAN}))


@pytest.mark.parametrize(("lasts", "left"), [(SPAN, 14), (None, 0)])
def test_a_window_is_no_longer_than_the_answer_that_begins_it_surely_allows_for(
    lasts: int | None, left: int
) -> None:
    """By a clock that was stepped while nobody asked, its reset seems to be twice as far away."""
    epoch = START + 2 * SPAN
    record = rolled_over(known(0), resets_in=2 * SPAN, epoch=epoch, lasts=lasts)
    early = read(14, known=record.number, resets_in=SPAN, epoch=epoch + 40_000)
    film(
        record,
        (80_000, "a", tells(read(0, known=2 * START, resets_in=40_000, epoch=epoch)), {}),
        (100_000, "b", tells(early), {"resets_in": SPAN, "remaining": left}),
    )


def test_the_old_window_at_the_reset_means_not_yet() -> None:
    told = {"resets_in": -20, "probe": TURN + 1, "known": 2 * START}
    film(
        known(0),
        (SPAN, "a", asks(), {"probe": TURN + 1}),
        (SPAN + 20, "a", tells(read(0, refused=True, **told)), {"confirmed": False}),
        (SPAN + 20, "b", asks(), {"granted": 0, "wait": 1000}),
        (SPAN + 1020, "b", asks(), {"probe": TURN + 1}),
    )


def test_a_server_that_is_late_at_its_reset_is_expected_to_be_late_again() -> None:
    record = known(0, epoch=START)
    late = {"refused": True, "resets_in": -20, "epoch": START}
    opens = {"resets_in": SPAN, "epoch": START + 61_000}
    film(
        record,
        (SPAN, "a", asks(), {"probe": TURN + 1}),
        (SPAN + 20, "a", tells(read(0, probe=TURN + 1, known=2 * START, **late)), {}),
        (SPAN + 1020, "a", asks(), {"probe": TURN + 1}),
        (SPAN + 1040, "a", tells(read(99, probe=TURN + 1, known=2 * START, **opens)), {}),
    )
    assert record.late == 1020
    clean = {"resets_in": SPAN, "epoch": START + 122_000}
    film(
        record,
        (2 * SPAN + 2060, "b", asks(), {"probe": TURN + 2}),
        (2 * SPAN + 2080, "b", tells(read(99, probe=TURN + 2, known=3 * START, **clean)), {}),
    )
    assert record.late == 510


def test_only_a_probe_that_was_not_refused_tells_how_late_a_server_is() -> None:
    for more in ({"probe": 0}, {"refused": True}):
        assert rolled_over(known(0, late=400), **more).late == 400
    assert rolled_over(known(0, late=400)).late == 200


def test_lateness_is_told_by_when_the_probe_was_sent() -> None:
    refused = {"late": 400, "refusals": 1}
    record = rolled_over(known(0, hold=ENDS, **refused), ago=7, took=5)
    assert record.late == 400 + 20 - 7 - 5
    record = rolled_over(known(0, hold=ENDS - 700, **refused))
    assert record.late == 300, "nobody came for long: it was open a second after the back-off"


@pytest.mark.parametrize(
    ("late", "relapses", "clean", "refusals", "expected"),
    [
        (0, 3, 0, 1, (0, 0, 0)),
        (400, 0, 0, 1, (420, 1, 0)),
        (400, 5, 3, 1, (420, 6, 0)),
        (400, 6, 0, 1, (420, 6, 0)),
        (400, 0, 0, 0, (200, 0, 0)),
        (400, 2, 0, 0, (400, 2, 1)),
        (400, 2, 2, 0, (400, 2, 3)),
        (400, 2, 3, 0, (200, 2, 0)),
        (200, 0, 0, 0, (100, 0, 0)),
        (199, 0, 0, 0, (0, 0, 0)),
    ],
)
def test_a_lateness_that_comes_back_is_forgotten_more_slowly(
    late: int, relapses: int, clean: int, refusals: int, expected: tuple[int, int, int]
) -> None:
    before = {"late": late, "relapses": relapses, "clean": clean, "refusals": refusals}
    record = rolled_over(known(0, hold=ENDS, **before), took=0)
    assert (record.late, record.relapses, record.clean) == expected


def test_a_slow_answer_of_the_old_window_does_not_open_the_next() -> None:
    record = film(
        known(50),
        (SPAN, "a", asks(), {"probe": TURN + 1}),
        (SPAN + 5, "b", tells(read(49, known=NUMBER, resets_in=-5)), {"confirmed": False}),
    )
    assert record.unread == []


def test_a_later_reset_with_more_left_is_an_early_rollover() -> None:
    film(
        known(3),
        (
            0,
            "a",
            tells(read(99, known=NUMBER - 1, resets_in=2 * SPAN)),
            {"remaining": 99, "resets_in": 2 * SPAN},
        ),
    )


@pytest.mark.parametrize(
    ("told", "owed"),
    [
        ({}, 2),
        # Neither this window's reset nor one before it, and beyond what can be believed.
        ({"resets_in": 960_001}, 2),
        ({"resets_in": SPAN}, 0),
        ({"resets_in": -1}, 0),
        ({"resets_in": SPAN + 9000}, 0),
    ],
)
def test_what_told_no_reset_of_this_window_is_owed_by_another_that_begins(
    told: dict[str, int], owed: int
) -> None:
    later = {"known": NUMBER, "resets_in": 3 * SPAN}
    record = film(
        known(8),
        (0, "a", asks(2, need=2), {"granted": 2}),
        (0, "b", asks(), {"granted": 1}),
        (300, "a", tells(read(13, cost=2, **told), held=0), {}),
        (400, "b", tells(read(14, **later), held=0), {"remaining": 14 - owed}),
        # A call that was on its way by then need not have them in its reading.
        (410, "b", tells(read(14, **later | {"took": 5, "known": NUMBER + 1})), {}),
    )
    assert sum(ghost[2] for ghost in record.ghosts) == owed
    assert record.unplaced == []
    newest = {"known": record.number, "resets_in": 3 * SPAN, "took": 9}
    film(record, (500, "c", tells(read(12, **newest)), {"remaining": 12}))
    assert record.ghosts == []


@pytest.mark.parametrize(
    ("resets_in", "is_placed"), [(1000, True), (1001, True), (4500, True), (4501, False)]
)
def test_a_reset_that_cannot_be_believed_is_no_other_windows_if_it_is_no_later(
    resets_in: int, is_placed: bool
) -> None:
    record = known(8, reset=START + 2500, ceiling=1000)
    note = Note(1, Outcome.READ, remaining=7, resets_in=resets_in)
    assert rule._is_placed(record, note, START) is is_placed


def test_what_a_later_call_has_in_its_reading_is_owed_by_no_window_that_begins() -> None:
    record = film(known(8), (300, "a", tells(read(7, cost=3)), {}))
    assert record.unplaced == [[record.number, 3]]
    before = {"known": record.number - 1, "resets_in": SPAN}
    film(record, (310, "b", tells(read(7, **before)), {}))
    assert [cost for _, cost in record.unplaced] == [3]
    after = {"known": record.unplaced[0][0], "resets_in": SPAN}
    film(record, (320, "c", tells(read(6, **after)), {}))
    assert record.unplaced == []


def test_a_window_that_a_probe_opens_owes_what_told_no_reset_meanwhile() -> None:
    film(
        known(8),
        (SPAN - 300, "b", asks(), {"granted": 1}),
        (SPAN - 10, "b", tells(read(7), held=0), {"remaining": 7}),
        (SPAN, "a", asks(), {"probe": TURN + 1}),
        (SPAN + 9, "a", tells(read(14, probe=TURN + 1, resets_in=SPAN)), {"remaining": 13}),
    )


@pytest.mark.parametrize(("resets_in", "left"), [(SPAN + 30_000, 3), (SPAN + 30_001, 99)])
def test_a_reset_that_is_later_by_less_than_half_a_window_is_no_rollover(
    resets_in: int, left: int
) -> None:
    film(
        known(3),
        (0, "a", tells(read(99, known=NUMBER - 1, resets_in=resets_in)), {"remaining": left}),
    )


def test_a_later_reset_with_as_many_left_is_no_rollover() -> None:
    ahead = Client(taken=70, expires=START + SPAN)
    record = film(
        known(3, clients={"b": ahead}),
        (
            0,
            "a",
            tells(read(3, known=NUMBER - 1, resets_in=2 * SPAN)),
            {"remaining": 3, "resets_in": 2 * SPAN},
        ),
    )
    assert record.clients["b"].taken == 70


@pytest.mark.parametrize(
    "said",
    [
        {"known": NUMBER, "resets_in": SPAN},
        {"known": NUMBER},
        {"known": NUMBER + 5, "resets_in": 20_000},
    ],
    ids=["the same reset", "no reset", "an earlier reset, of a later call"],
)
def test_an_answer_that_is_not_surely_older_lowers_the_floor(said: dict[str, Any]) -> None:
    record = known(50, number=NUMBER + 5, reset_number=NUMBER + 5)
    film(record, (0, "a", tells(read(40, **said)), {"remaining": 40}))


def test_an_earlier_reset_with_as_many_left_is_owed_nothing() -> None:
    film(
        known(50),
        (0, "a", tells(read(50, known=NUMBER - 1, resets_in=20_000)), {"remaining": 50}),
    )


def test_an_answer_of_a_window_that_has_passed_is_ignored() -> None:
    film(
        known(50),
        (0, "a", tells(read(3, known=NUMBER - 1, resets_in=-30_000)), {"remaining": 50}),
    )


def test_an_earlier_reset_that_is_not_surely_older_counts_until_a_later_call_tells() -> None:
    film(
        known(50),
        (0, "a", tells(read(3, known=NUMBER - 1, resets_in=20_000)), {"remaining": 49}),
        (1, "a", tells(read(49, known=2 * START)), {"remaining": 49}),
    )


def test_of_two_resets_the_later_stands_until_many_answers_say_otherwise() -> None:
    record = known(50)
    for number in range(7):
        film(
            record,
            (0, f"p{number}", tells(read(50, resets_in=20_000)), {"resets_in": SPAN}),
        )
    film(record, (0, "a", tells(read(50, resets_in=20_000)), {"resets_in": 20_000}))


def test_of_one_reset_the_earliest_bound_stands() -> None:
    film(
        known(50),
        (0, "a", tells(read(50, resets_in=SPAN - 300)), {"resets_in": SPAN - 300}),
        (0, "a", tells(read(50, resets_in=SPAN)), {"resets_in": SPAN - 300}),
    )


def test_a_reset_that_is_nearly_the_same_ends_the_doubt() -> None:
    record = known(50, epoch=START, doubts=5)
    film(record, (0, "a", tells(read(50, resets_in=SPAN, epoch=START - 1500)), {"epoch": START}))
    assert record.doubts == 0
    film(record, (0, "b", tells(read(50, resets_in=SPAN, epoch=START + 1500)), {}))
    assert (record.epoch, record.reset_number) == (START + 1500, NUMBER)


def told(resets_in: int, epoch: int | None = None) -> dict[str, Any]:
    return tells(read(50, resets_in=resets_in, epoch=None if epoch is None else START + epoch))


@pytest.mark.parametrize(
    ("record", "said", "resets_in", "doubts"),
    [
        ({}, told(SPAN), SPAN, 0),
        ({}, told(SPAN - 1000), SPAN - 1000, 0),
        ({}, told(SPAN - 1001), SPAN, 0),
        ({}, told(SPAN - 2000), SPAN, 0),
        ({}, told(SPAN - 2001), SPAN, 6),
        ({}, told(SPAN + 1000), SPAN, 0),
        ({}, told(SPAN + 1001), SPAN + 1001, 0),
        ({}, told(SPAN + 9000), SPAN + 9000, 0),
        ({"span": 3000}, told(SPAN - 1500), SPAN, 0),
        ({"span": 3000}, told(SPAN - 1501), SPAN, 6),
        ({"doubts": 7}, told(20_000), 20_000, 0),
        ({"epoch": START}, told(SPAN - 300, 0), SPAN - 300, 0),
        ({"epoch": START}, told(SPAN + 1, 1), SPAN + 1, 0),
        ({"epoch": START}, told(SPAN - 500, -500), SPAN, 0),
        ({"epoch": START}, told(SPAN - 3000, -2001), SPAN, 6),
        ({"epoch": START}, told(SPAN - 500), SPAN - 500, 0),
    ],
)
def test_a_reset_moves_later_and_sooner_only_by_a_rounding(
    record: dict[str, Any], said: dict[str, Any], resets_in: int, doubts: int
) -> None:
    after = known(50, **{"doubts": 5} | record)
    film(after, (0, "a", said, {"resets_in": resets_in}))
    assert after.doubts == doubts


def test_only_another_reset_tells_newer_answers_from_older_ones() -> None:
    record = film(known(50), (0, "a", told(SPAN + 1500), {}))
    assert record.reset_number == NUMBER
    film(record, (0, "b", told(SPAN + 9000), {}))
    assert record.reset_number == record.number > NUMBER


def test_a_reset_is_learned_from_whichever_answer_tells_one() -> None:
    film(
        known(50, reset=None),
        (0, "a", tells(read(50)), {"resets_in": None}),
        (0, "a", tells(read(50, resets_in=9000)), {"resets_in": 9000}),
    )


def test_more_left_without_a_reset_is_no_early_rollover() -> None:
    film(
        known(3, reset=None),
        (0, "a", tells(read(9, known=NUMBER - 1, resets_in=9000)), {"remaining": 3}),
    )


def test_a_window_that_is_spent_and_tells_no_reset_is_asked_about_with_a_back_off() -> None:
    film(
        known(0, reset=None),
        (0, "a", asks(), {"granted": 0, "wait": 1000}),
        (1000, "a", asks(), {"granted": 1, "probe": TURN + 1}),
    )


def test_a_slow_answer_that_cannot_be_placed_is_owed_by_the_next_window() -> None:
    film(
        known(50),
        (SPAN, "a", asks(), {"probe": TURN + 1}),
        (SPAN + 5, "b", tells(read(49, known=NUMBER)), {"confirmed": False}),
        (
            SPAN + 9,
            "a",
            tells(read(99, resets_in=SPAN, probe=TURN + 1, known=NUMBER + 1)),
            {"confirmed": True, "remaining": 98},
        ),
    )


def test_a_probe_that_is_refused_without_headers_is_followed_by_another_later() -> None:
    film(
        known(0),
        (SPAN, "a", asks(), {"probe": TURN + 1}),
        (SPAN + 20, "a", tells(ended(Outcome.REFUSED, probe=TURN + 1)), {"confirmed": False}),
        (SPAN + 20, "b", asks(), {"granted": 0, "wait": 1000}),
    )


def test_no_reset_beyond_the_ceiling_is_believed() -> None:
    film(
        Record(),
        (0, "a", asks(), {"probe": 1}),
        (9, "a", tells(read(5, probe=1, resets_in=20_001)), {"confirmed": True, "resets_in": None}),
        (9, "a", tells(read(5, resets_in=20_000)), {"resets_in": 20_000}),
        ceiling=20_000,
    )
    for resets_in, believed in ((0, None), (1, 1)):
        film(
            Record(),
            (0, "a", asks(), {"probe": 1}),
            (9, "a", tells(read(5, probe=1, resets_in=resets_in)), {"resets_in": believed}),
        )


def test_what_was_seen_long_ago_is_believed_no_longer_than_the_ceiling() -> None:
    film(
        known(50, reset=START + 10**9, ceiling=20_000),
        (20_000, "a", asks(), {"confirmed": False, "probe": TURN + 1}),
        ceiling=20_000,
    )


def test_what_a_server_asked_for_holds_all_back() -> None:
    film(
        known(50),
        (0, "a", {"shut": 5000}, {}),
        (1000, "b", asks(), {"granted": 0, "wait": 4000}),
        (5000, "b", asks(), {"granted": 1}),
        (5001, "a", {"shut": 10**9}, {}),
        (5002, "b", asks(held=1), {"granted": 0, "wait": 19_999}),
        ceiling=20_000,
    )


def test_lost_probes_are_followed_by_others_ever_later() -> None:
    record = Record()
    at, holds = 0, []
    for number in range(9):
        film(
            record,
            (at, f"p{number}", asks(), {"probe": 1}),
            (
                at,
                f"p{number}",
                tells(ended(Outcome.LOST, probe=1, cost=0), sequence=2),
                {"granted": 0},
            ),
        )
        holds.append(max(0, record.hold - START - at))
        at += holds[-1]
    assert holds == [0, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]


@pytest.mark.parametrize("outcome", [Outcome.UNREAD, Outcome.REFUSED])
def test_an_answer_without_headers_shows_that_somebody_is_there(outcome: Outcome) -> None:
    record = film(Record(misses=3), (0, "a", tells(ended(outcome, probe=1)), {}))
    assert record.misses == 0


def test_a_probe_that_is_refused_shows_that_somebody_is_there() -> None:
    record = film(Record(misses=3), (0, "a", tells(read(0, probe=1)), {}))
    assert record.misses == 0


def test_who_finds_nobody_as_the_back_off_ends_is_the_first_of_the_next() -> None:
    record = film(
        Record(misses=2, hold=START + 10),
        (10, "a", tells(ended(Outcome.UNSENT, probe=1)), {}),
    )
    assert (record.misses, record.absent) == (3, record.number)


def test_a_probe_that_never_left_counts_for_nothing_but_the_back_off() -> None:
    record = film(
        Record(),
        (0, "a", asks(), {"probe": 1}),
        (9, "a", tells(ended(Outcome.UNSENT, probe=1)), {}),
    )
    assert (record.ghosts, record.unread, record.misses) == ([], [], 1)


def found_nobody(turn: int = 1) -> dict[str, Any]:
    return tells(ended(Outcome.UNSENT, probe=turn))


def test_every_process_is_told_what_all_have_found_out_in_vain() -> None:
    record = Record(misses=4)
    film(
        record,
        (0, "a", asks(), {"probe": 1, "misses": 4}),
        (1, "b", asks(), {"granted": 0, "misses": 4}),
        (9, "a", tells(ended(Outcome.LOST, probe=1)), {"misses": 5}),
        (10, "b", asks(), {"granted": 0, "wait": 7999, "misses": 5}),
        (10, "b", asks(sequence=1), {"stale": True, "misses": 5}),
        (8010, "b", asks(), {"probe": 1, "misses": 5}),
        (8020, "b", tells(read(7, probe=1, resets_in=SPAN)), {"confirmed": True, "misses": 0}),
    )


def test_where_nobody_is_each_process_tries_once_in_a_back_off_which_is_one_for_all() -> None:
    record = film(
        Record(misses=3),
        (0, "a", asks(), {"probe": 1}),
        (9, "a", found_nobody() | asks(), {"granted": 0, "wait": 4000, "misses": 4}),
        (10, "b", asks(), {"granted": 1, "probe": 1}),
        (11, "c", asks(), {"granted": 0}),  # one at a time
        (12, "b", found_nobody() | asks(), {"granted": 0, "wait": 3997, "misses": 4}),
        (13, "c", asks(), {"granted": 1, "probe": 1}),
        (14, "c", found_nobody() | asks(), {"granted": 0, "wait": 3995, "misses": 4}),
        (15, "a", asks(), {"granted": 0, "wait": 3994}),
        (4009, "b", asks(), {"granted": 1, "probe": 1}),
        (4010, "b", found_nobody() | asks(), {"granted": 0, "wait": 8000, "misses": 5}),
        (4011, "a", asks(), {"granted": 1, "probe": 1}),
    )
    assert record.ghosts == []


def test_a_back_off_after_a_loss_is_one_for_all_whatever_else_was_found() -> None:
    lost = tells(ended(Outcome.LOST, probe=1))
    film(
        Record(misses=3),
        (0, "a", asks(), {"probe": 1}),
        (9, "a", found_nobody(), {"misses": 4}),
        (10, "b", asks(), {"granted": 1, "probe": 1}),
        (20, "b", lost | asks(), {"granted": 0, "wait": 8000, "misses": 5}),
        (21, "c", asks(), {"granted": 0, "wait": 7999}),
    )
    film(
        Record(misses=3),
        (0, "a", asks(), {"probe": 1}),
        (500, "a", {"probes": 1, "held": 1}, {}),
        (2000, "b", asks(), {"granted": 1, "probe": 1}),
        (2009, "a", lost, {"misses": 4}),
        (2010, "b", found_nobody() | asks(), {"granted": 0, "wait": 8000, "misses": 5}),
        (2011, "c", asks(), {"granted": 0, "wait": 7999}),
    )


def test_a_refusal_is_of_somebody_and_its_back_off_is_one_for_all() -> None:
    film(
        Record(misses=3),
        (0, "a", asks(), {"probe": 1}),
        (9, "a", found_nobody(), {"misses": 4}),
        (10, "b", asks(), {"granted": 1, "probe": 1}),
        (20, "b", tells(ended(Outcome.REFUSED, probe=1)), {"misses": 0}),
        (21, "c", asks(), {"granted": 0, "wait": 3988}),
    )


def test_who_finds_nobody_after_a_confirmed_window_backs_off_anew() -> None:
    record = film(
        Record(misses=3),
        (0, "a", asks(), {"probe": 1}),
        (9, "a", found_nobody(), {"misses": 4}),
        (10, "b", asks(), {"probe": 1}),
        (20, "b", tells(read(7, probe=1, resets_in=1000)), {"confirmed": True, "misses": 0}),
    )
    assert record.absent == 0
    film(
        record,
        (1020, "c", asks(), {"probe": 2}),
        (1021, "c", found_nobody(2) | asks(), {"probe": 2, "misses": 1}),
        (1022, "c", found_nobody(2) | asks(), {"granted": 0, "wait": 1000, "misses": 2}),
        (1023, "d", asks(), {"probe": 2}),
    )


def test_of_calls_that_go_to_see_and_never_leave_each_is_a_miss() -> None:
    film(
        known(2, ghosts=[[START, NUMBER, 2]], misses=3),
        (0, "a", asks(), {"granted": 1, "probe": TURN}),
        (1, "a", found_nobody(TURN) | asks(), {"granted": 0, "wait": 4000, "misses": 4}),
        (2, "b", asks(), {"granted": 0, "wait": 3999}),
    )


# Limits of one's own ---------------------------------------------------------------------------


def test_slots_of_a_rate_follow_each_other_whoever_takes_them() -> None:
    film(
        Record(),
        (0, "a", asks(3), {"granted": 1, "starts_in": 0}),
        (0, "b", asks(3), {"granted": 1, "starts_in": 60}),
        (0, "c", asks(3), {"granted": 1, "starts_in": 120}),
        (0, "a", asks(3), {"granted": 0, "wait": 61}),
        (61, "a", asks(3), {"granted": 1, "starts_in": 119}),
        counts=Counts.RATE,
        limit=1,
        gap=60_000,
    )


def test_a_rate_that_was_idle_has_its_burst_and_no_more() -> None:
    film(
        Record(slot=1),
        (0, "a", asks(99, need=10), {"granted": 10, "starts_in": 0}),
        (0, "a", asks(99, need=10), {"granted": 0, "wait": 8001}),
        counts=Counts.RATE,
        limit=10,
        gap=1_000_000,
    )


def test_a_burst_is_divided_and_then_goes_on_at_its_rate() -> None:
    """Ten at once, then one a second; slots are leased two ahead."""
    record, leased = Record(), []
    for number in range(8):
        report = Report("record", f"p{number}", 1, counts=Counts.RATE, want=9, limit=10, gap=10**6)
        lease = rule.exchange(record, report, START)
        record.clients.clear()
        leased.append((lease.granted, lease.starts_in, lease.wait))
        assert_whole(lease, f"lease {number}")
    assert leased == [
        (5, 0, None),
        (2, 5000, None),
        (1, 7000, None),
        (1, 8000, None),
        (1, 9000, None),
        (1, 10_000, None),
        (1, 11_000, None),
        (0, 0, 1001),
    ]


def test_a_slot_that_is_further_ahead_by_the_least_is_waited_for() -> None:
    film(
        Record(slot=1000 * START + 100_001),
        (0, "a", asks(), {"granted": 0, "wait": 1}),
        (1, "a", asks(), {"granted": 1}),
        counts=Counts.RATE,
        limit=1,
        gap=1,
    )


def test_room_is_for_all_together() -> None:
    film(
        Record(),
        (0, "a", asks(2), {"granted": 1}),
        (0, "b", asks(2), {"granted": 1}),
        (0, "c", asks(2), {"granted": 0, "wait": 250}),
        (1, "a", {"held": 0}, {}),
        (2, "c", asks(2), {"granted": 1}),
        counts=Counts.CONCURRENCY,
        limit=2,
    )


def test_where_a_call_needs_more_room_than_there_is_one_goes_alone() -> None:
    film(
        Record(),
        (0, "a", asks(2, need=2), {"granted": 2}),
        (0, "b", asks(2, need=2), {"granted": 0, "wait": 250}),
        (1, "a", {"held": 0}, {}),
        (2, "b", asks(2, need=2), {"granted": 2}),
        counts=Counts.CONCURRENCY,
        limit=1,
    )


def test_a_learned_pace_is_single_file_with_a_gap() -> None:
    film(
        Record(),
        (0, "a", asks(), {"granted": 0, "wait": None, "gap": 0}),
        (0, "a", tells(ended(Outcome.REFUSED, known=START)), {"gap": 250}),
        (100, "b", asks(), {"granted": 0, "wait": 150}),
        (250, "b", asks(), {"granted": 1}),
        (600, "a", asks(), {"granted": 0, "wait": 250}),
        (600, "b", asks(held=1), {"granted": 0, "wait": None}),
        (700, "b", tells(ended(Outcome.READ)), {"gap": 237}),
        (700, "a", asks(), {"granted": 1}),
        counts=Counts.PACE,
    )


def test_a_learned_gap_doubles_once_for_all_who_were_refused_together() -> None:
    refused = ended(Outcome.REFUSED)
    film(
        Record(number=NUMBER),
        (0, "a", tells(refused), {"gap": 250, "number": NUMBER + 1}),
        (1, "b", tells(refused), {"gap": 250}),
        (2, "b", tells(refused | {"known": NUMBER + 1}), {"gap": 500}),
        counts=Counts.PACE,
    )


def test_a_gap_is_kept_from_grant_to_grant() -> None:
    film(
        Record(gap=1000),
        (0, "a", asks(), {"granted": 1, "probe": 0}),
        (10, "a", {"held": 0}, {}),
        (20, "b", asks(), {"granted": 0, "wait": 980}),
        (1000, "b", asks(), {"granted": 1}),
        counts=Counts.PACE,
    )


def test_a_gap_of_less_than_ten_milliseconds_is_none() -> None:
    record = Record(gap=11)
    for number, gap in enumerate((10, 0)):
        film(
            record,
            (0, f"p{number}", tells(ended(Outcome.READ)), {"gap": gap}),
            counts=Counts.PACE,
        )


def test_a_gap_shrinks_with_what_is_served_but_not_below_what_was_refused() -> None:
    record = Record(gap=1000, gaps=[[START, 800]])
    for number in range(9):
        film(record, (number, f"p{number}", tells(ended(Outcome.READ)), {}), counts=Counts.PACE)
    assert record.gap == 880
    film(record, (600_000, "r", tells(ended(Outcome.READ)), {"gap": 880}), counts=Counts.PACE)
    later = 600_000 + 1
    for number in range(200):
        film(
            record,
            (later, f"q{number}", tells(ended(Outcome.READ)), {}),
            counts=Counts.PACE,
        )
    assert record.gap == 0


def test_a_refusal_with_tokens_left_is_told_to_all_as_a_pace() -> None:
    film(
        known(50),
        (0, "a", tells(read(50, refused=True)), {"gap": LEASE}),
        (500, "b", asks(), {"gap": LEASE - 500}),
        (LEASE, "b", asks(held=1), {"gap": 0}),
    )
    film(known(50), (0, "a", tells(read(1, refused=True)), {"gap": LEASE}))
    film(known(50), (0, "a", tells(read(0, refused=True)), {"gap": 0}))


def test_a_lease_tells_what_is_known() -> None:
    record = known(50, epoch=4711, shown=["window"])
    record.clients["a"] = Client(held=3, expires=ENDS, sequence=1)
    lease = rule.exchange(record, Report("record", "a", 2, held=3), START)
    assert lease == Lease(
        number=NUMBER,
        confirmed=True,
        limit=100,
        remaining=47,
        resets_in=SPAN,
        epoch=4711,
        clients=1,
        shown=("window",),
        span=SPAN,
    )
