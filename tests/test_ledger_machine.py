"""Every ledger answers as the pure rule does: the same operations, and their leases compared."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from aiotwhelp.ledger import Lease, Ledger, Note, Report
from aiotwhelp.ledger.port import Counts, Outcome
from aiotwhelp.ledger.rule import Record, exchange, lifetime
from tests.ledgers import ENGINES, Engine, engine_of

CLIENTS = ["a", "b", "c"]
RECORDS = {
    "app/window": {"counts": Counts.WINDOW},
    "app/cold": {"counts": Counts.COLD},
    "app/rate": {"counts": Counts.RATE, "limit": 3, "gap": 40_000},
    "app/room": {"counts": Counts.CONCURRENCY, "limit": 4},
    "another/pace": {"counts": Counts.PACE},
}

SPANS = st.sampled_from([0, 1, 20, 250, 1000, 1999, 2000, 2001, 4001, 15_000, 60_000, 900_000])

NOTES = st.fixed_dictionaries(
    {
        "outcome": st.sampled_from([*Outcome, *4 * [Outcome.READ]]),
        "cost": st.integers(1, 3),
        "took": SPANS,
        "ago": st.integers(0, 1200),
        "refused": st.booleans(),
        "times": st.integers(1, 70),
        "remaining": st.integers(0, 20),
        "limit": st.sampled_from([None, 15, 900]),
        "epoch": st.one_of(
            st.none(), st.integers(0, 5).map(lambda n: 1_800_000_000_000 + n * 3000)
        ),
        "resets_in": st.one_of(st.none(), st.integers(-2000, 20_000), SPANS),
        "lasts": st.one_of(st.none(), st.integers(0, 20_000), SPANS),
        # Before the newest number and turn, and after the last number of a note.
        "known": st.integers(0, 5),
        "probe": st.integers(0, 1),
        "number": st.integers(0, 3),
    }
)

ASKS = st.fixed_dictionaries(
    {
        "client": st.sampled_from(CLIENTS),
        "record": st.sampled_from([*RECORDS, *4 * ["app/window"]]),
        "held": st.integers(0, 12),
        "want": st.integers(0, 30),
        "need": st.integers(1, 3),
        "keep": st.sampled_from([0, 0, 2]),
        "vain": st.integers(0, 6),
        "probes": st.integers(0, 3),
        "crew": st.sampled_from([0, 0, 0, 2, 5]),
        "peers": st.sampled_from([0, 0, 1, 3]),
        "shut": st.sampled_from([0, 0, 0, 700]),
        "paused": st.sampled_from([0, 0, 0, 0, 900]),
        "pauses": st.integers(0, 3),
        "shown": st.sampled_from([(), (), (), ('["requests", "é"]',)]),
        "notes": st.lists(NOTES, max_size=3),
        # Rarely one that arrives twice, or too late.
        "ahead": st.sampled_from([1, 1, 1, 1, 2, 0, -1]),
    }
)


class Reference:
    """The rule itself, and how long a record is kept."""

    def __init__(self) -> None:
        self.records: dict[str, tuple[Record, int]] = {}

    def record(self, name: str, now: int) -> Record:
        record, ends = self.records.get(name, (Record(), now + 1))
        return record if now < ends else Record()

    def exchange(self, report: Report, now: int) -> Lease:
        record = self.record(report.record, now)
        lease = exchange(record, report, now)
        self.records[report.record] = record, now + lifetime(record, now)
        return lease


class Agreement(RuleBasedStateMachine):
    """Random operations on an engine and on the rule."""

    made: Callable[[Path], Engine]

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.engine = type(self).made(Path(self.directory.name))
        self.wait(self.engine.__aenter__())
        self.reference = Reference()
        self.sequences: dict[tuple[str, str], int] = {}
        self.noted: dict[tuple[str, str], int] = {}
        self.ledgers: list[Ledger] = []
        self.begin()

    def wait(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(awaitable)

    def begin(self) -> None:
        self.ledgers = [self.engine.open(), self.engine.open()]

    def teardown(self) -> None:
        self.wait(self.engine.__aexit__(None, None, None))
        self.loop.close()
        self.directory.cleanup()

    def report(self, asked: dict[str, Any], record: Record) -> Report:
        """Make a report of what it says relative to what is known."""
        told = dict(asked)
        name = told["record"], told["client"]
        sequence = max(1, self.sequences.get(name, 0) + told.pop("ahead"))
        self.sequences[name] = max(sequence, self.sequences.get(name, 0))
        notes = []
        for said in told.pop("notes"):
            number = max(1, self.noted.get(name, 0) + said["number"])
            self.noted[name] = number
            known = max(0, record.number - said["known"])
            probe = record.turn if said["probe"] else 0
            notes.append(Note(**{**said, "number": number, "known": known, "probe": probe}))
        return Report(sequence=sequence, notes=tuple(notes), **RECORDS[told["record"]], **told)

    @rule(by=st.integers(0, 1), asks=st.lists(ASKS, min_size=1, max_size=4), passed=SPANS)
    def exchange(self, by: int, asks: list[dict[str, Any]], passed: int) -> None:
        self.engine.now += passed
        now = self.engine.now
        known = {each["record"]: self.reference.record(each["record"], now) for each in asks}
        reports = [self.report(each, known[each["record"]]) for each in asks]
        leases = list(self.wait(self.ledgers[by].exchange(reports)))
        assert leases == [self.reference.exchange(report, now) for report in reports]

    @rule()
    def restart(self) -> None:
        if self.engine.is_kept:
            self.wait(self.engine.restart())
            self.begin()


async def is_here(kind: str, directory: Path) -> None:
    """Skip the test, before a machine begins, if there is no such engine."""
    async with engine_of(kind, directory):
        pass


@pytest.mark.parametrize("kind", ENGINES)
def test_a_ledger_answers_as_the_rule_does(kind: str, tmp_path: Path) -> None:
    asyncio.run(is_here(kind, tmp_path))
    machine = type(kind, (Agreement,), {"made": staticmethod(ENGINES[kind])})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=30,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
