"""exchange.lua answers as rule.py does, and leaves the same record, operation by operation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiotwhelp.ledger.port import Counts, Lease, Note, Outcome, Report
from aiotwhelp.ledger.redis import _dumps, _leases, _script
from aiotwhelp.ledger.rule import Record, exchange, lifetime
from tests.ledgers import record_of
from tests.servers import engines

KEY = "{aiotwhelp:app}:quota"
#: About what a server's clock says, in milliseconds.
START = 1_764_000_000_000


@pytest.fixture(scope="module", params=engines.ENGINES)
def server(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    engine = engines.ENGINES[request.param]
    with engines.running(engine) as running, redis.Redis(port=running.port) as client:
        client.script_load(_script()[0])
        yield client


# What is random ----------------------------------------------------------------------------------

SPANS = st.sampled_from([0, 1, 20, 99, 250, 1000, 1999, 2000, 2001, 4001, 15_000, 60_000, 900_000])
PASSED = st.one_of(st.integers(0, 300), SPANS)
#: Resets are a few, so that the same one is told again, or one close by.
EPOCHS = st.sampled_from([START + reset for reset in (1000, 3000, 3500, 8000, 20_000, 900_000)])

NOTES = st.builds(
    Note,
    number=st.integers(0, 3),  # after the last one; 0 repeats it
    outcome=st.sampled_from([*Outcome, Outcome.READ, Outcome.READ, Outcome.READ]),
    cost=st.integers(1, 3),
    known=st.integers(0, 6),  # before the newest
    took=st.one_of(st.integers(0, 400), SPANS),
    ago=st.integers(0, 1200),
    probe=st.integers(0, 2),  # before this turn
    refused=st.booleans(),
    times=st.integers(1, 70),
    remaining=st.integers(-1, 20),
    limit=st.sampled_from([None, 15, 900]),
    epoch=st.one_of(st.none(), EPOCHS),
    resets_in=st.one_of(st.none(), st.integers(-2000, 20_000), SPANS),
    lasts=st.one_of(st.none(), st.integers(0, 20_000), SPANS),
)


@dataclass(frozen=True, slots=True)
class Operation:
    """A report to be: what depends on the record is told as a difference."""

    passed: int
    client: str
    later: int
    #: What was granted and is not settled, if it is None.
    held: int | None
    report: Report


OPERATIONS = st.builds(
    Operation,
    passed=PASSED,
    client=st.sampled_from("abcd"),
    later=st.sampled_from([1, 1, 1, 1, 1, 1, 5, 0, -1]),
    held=st.one_of(st.none(), st.integers(0, 20)),
    report=st.builds(
        Report,
        record=st.just("app/quota"),
        client=st.just(""),
        sequence=st.just(0),
        notes=st.lists(NOTES, max_size=3).map(tuple),
        want=st.integers(0, 40),
        need=st.integers(1, 3),
        keep=st.sampled_from([0, 0, 1, 5]),
        vain=st.integers(0, 9),
        probes=st.integers(0, 3),
        leaves=st.booleans(),
        crew=st.sampled_from([0, 0, 0, 2, 5]),
        peers=st.sampled_from([0, 0, 1, 3, 10_000]),
        paused=st.sampled_from([0, 0, 0, 0, 700, 4_000_000]),
        pauses=st.integers(0, 3),
        ceiling=st.sampled_from([960_000, 960_000, 960_000, 5000]),
        shut=st.sampled_from([0, 0, 0, 0, 300, 5000, 2_000_000]),
        shown=st.sampled_from([(), (), (), ('["window","user"]',), ("a", "b")]),
        limit=st.integers(1, 12),
        gap=st.sampled_from([1, 333, 10_000, 66_667, 1_000_000, 60_000_000]),
        idle=st.booleans(),
    ),
)


class Model:
    """The pure function, and a record that is forgotten when its time is over."""

    def __init__(self) -> None:
        self.now = START
        self.record = Record()
        self.ends = 0
        self.is_forgotten = True
        self.sequences: dict[str, int] = {}
        self.noted: dict[str, int] = {}
        self.held: dict[str, int] = {}

    def place(self, operation: Operation, counts: Counts) -> Report:
        """Let time pass, and make of an operation a report on the record as it is then."""
        self.now += operation.passed
        self.is_forgotten = self.now >= self.ends
        if self.is_forgotten:
            self.record = Record()
        client = operation.client
        sequence = self.sequences.get(client, 0) + operation.later
        self.sequences[client] = max(sequence, self.sequences.get(client, 0))
        notes = tuple(self.placed(note, client) for note in operation.report.notes)
        settled = sum(note.cost for note in notes)
        as_granted = max(0, self.held.get(client, 0) - settled)
        held = as_granted if operation.held is None else operation.held
        return operation.report._replace(
            client=client,
            sequence=max(0, sequence),
            counts=counts,
            held=0 if counts is Counts.RATE else held,
            notes=notes,
        )

    def placed(self, note: Note, client: str) -> Note:
        self.noted[client] = number = self.noted.get(client, 0) + note.number
        known = max(0, self.record.number - note.known)
        return note._replace(
            number=number, known=known, probe=max(0, self.record.turn - note.probe)
        )

    def exchange(self, report: Report) -> Lease:
        lease = exchange(self.record, report, self.now)
        self.ends = self.now + lifetime(self.record, self.now)
        if not lease.stale:
            self.held[report.client] = report.held + lease.granted
        return lease


def tell(pipeline: Any, reports: list[Report], now: int) -> None:
    """Have the script exchange a batch of reports at an instant of ours."""
    keys = ["{aiotwhelp:app}:" + report.record.partition("/")[2] for report in reports]
    pipeline.execute_command("EVALSHA", _script()[1], len(keys), *keys, _dumps(reports), now)


def leases_of(answer: bytes) -> list[Lease]:
    return _leases(answer)[0]


# The two agree -----------------------------------------------------------------------------------


@pytest.mark.parametrize("server", ["redis"], indirect=True)
@pytest.mark.parametrize("counts", Counts)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(operations=st.lists(OPERATIONS, min_size=1, max_size=60))
def test_the_script_does_what_the_rule_says(
    server: redis.Redis, counts: Counts, operations: list[Operation]
) -> None:
    assert_they_agree(server, counts, operations)


def assert_they_agree(server: redis.Redis, counts: Counts, operations: Iterable[Operation]) -> None:
    model = Model()
    said = []
    pipeline = server.pipeline(transaction=False)
    for operation in operations:
        report = model.place(operation, counts)
        pipeline.delete(KEY if model.is_forgotten else "nothing")
        lease = model.exchange(report)
        tell(pipeline, [report], model.now)
        pipeline.get(KEY)
        pipeline.pttl(KEY)
        said.append((report, lease, Record.loads(model.record.dumps()), model.ends - model.now))
    answers = pipeline.execute()
    for place, (report, lease, record, kept) in enumerate(said):
        _, answered, text, left = answers[4 * place : 4 * place + 4]
        assert leases_of(answered) == [lease], report
        assert record_of(text) == record, report
        assert abs(kept - left) < 10_000


@pytest.mark.parametrize("counts", Counts)
@pytest.mark.parametrize("seed", range(8))
def test_the_script_follows_the_rule_through_long_conversations(
    server: redis.Redis, counts: Counts, seed: int
) -> None:
    assert_they_agree(server, counts, conversation(Random(seed), 500))


def conversation(random: Random, length: int) -> Iterator[Operation]:
    """Report after report of processes that mostly keep to a habit, so that rare states last."""
    clients = "abcd"[: random.randint(1, 4)]
    outcome, how_often = random.choice(list(Outcome)), random.choice([0.01, 0.2, 0.5, 0.99])
    resets = random.choice([None, 20_000, 900_000])
    returned = random.choice([0.0, 0.5])
    strangeness = random.choice([0.0, 0.0, 0.02, 0.2])
    pace = random.choice([5, 100, 1500])
    most_left = random.choice([2, 20, 900])
    ends = START

    def note() -> Note:
        told = None if resets is None else max(1, ends - now)
        surely = None if told is None else max(0, told - random.randint(0, 1000))
        return Note(
            number=1,
            outcome=outcome if random.random() < how_often else Outcome.READ,
            cost=random.choice([1, 1, 2]),
            known=random.choice([0, 0, 0, 1, 5]),
            took=random.randint(0, 200),
            ago=random.randint(0, 50),
            probe=random.choice([0, 0, 1]),
            refused=random.random() < 0.1,
            remaining=random.randint(0, most_left),
            limit=random.choice([None, most_left]),
            epoch=None if resets is None or random.random() < strangeness else ends,
            resets_in=random.randint(1, 30_000) if random.random() < strangeness else told,
            lasts=told if random.random() < strangeness else surely,
        )

    now = START
    for _ in range(length):
        passed = random.randint(0, pace)
        if random.random() < 0.01:
            passed += random.choice([2500, 20_000, 200_000])
        now += passed
        if resets is not None and now >= ends:
            ends = now + resets
        held = 0 if random.random() < returned else None
        yield Operation(
            passed=passed,
            client=random.choice(clients),
            later=0 if random.random() < strangeness else 1,
            held=random.randint(0, 5) if random.random() < strangeness else held,
            report=Report(
                record="app/quota",
                client="",
                sequence=0,
                notes=tuple(note() for _ in range(random.choice([0, 0, 1, 1, 2]))),
                want=random.choice([0, 1, 1, 5, 60]),
                vain=random.choice([0, 0, 1, 6]),
                probes=random.choice([0, 0, 0, 0, 1, 2]),
                leaves=random.random() < 0.2,
                crew=random.choice([0, 0, 0, 0, 2, 3]),
                peers=random.choice([0, 0, 0, 2, 4]),
                shut=1000 if random.random() < strangeness / 4 else 0,
                paused=700 if random.random() < strangeness / 8 else 0,
                pauses=2,
                limit=4,
                gap=50_000,
            ),
        )


def asked(client: str, passed: int, want: int, *left: int) -> Operation:
    """One who wants so many tokens; its probe was answered that so many are left."""
    notes = tuple(Note(1, Outcome.READ, took=10, remaining=each, resets_in=5000) for each in left)
    return Operation(passed, client, 1, None, Report("app/quota", "", 0, notes=notes, want=want))


def test_the_script_gives_up_several_at_one_instant_as_the_rule_does(server: redis.Redis) -> None:
    """Three ask, and one of them is there in the next window."""
    window = [asked("a", 0, 1), asked("a", 10, 500, 90), asked("b", 10, 500), asked("c", 10, 500)]
    the_next = [asked("a", 5000, 1), asked("a", 10, 500, 90), asked("a", 1000, 500)]
    assert_they_agree(server, Counts.WINDOW, [*window, *the_next])


@pytest.mark.parametrize(
    ("name", "fields"),
    [("NOTE", Note._fields), ("REPORT", Report._fields), ("LEASED", (*Lease._fields, "fresh"))],
)
def test_the_script_reads_and_writes_fields_in_their_order(name: str, fields: tuple[str, ...]):
    (listed,) = re.findall(rf"local {name} = {{(.*?)}}", _script()[0].decode(), re.DOTALL)
    assert tuple(re.findall(r'"(\w+)"', listed)) == fields
