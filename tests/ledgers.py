"""Engines of ledgers under one clock that a test moves, and processes that share a quota there.

Another engine is another class in `ENGINES`; every test of test_ledgers.py then runs on it.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self

import pytest
import redis

from aiotwhelp import MemoryLedger, SQLiteLedger
from aiotwhelp.ledger import Lease, Ledger, Note, Report
from aiotwhelp.ledger.hosts import Clocks
from aiotwhelp.ledger.port import Outcome
from aiotwhelp.ledger.redis import RedisLedger
from aiotwhelp.ledger.rule import Client, Record, lifetime
from tests.servers import engines

RECORD = "app/quota"

#: About what a server's clock says, in milliseconds.
START = 1_800_000_000_000


class Engine:
    """Where records are kept, with a clock that stands still until a test moves it."""

    #: Whether state outlives all its processes.
    is_kept = True
    #: Whether it works on a loop of virtual time, whose network is in memory.
    is_virtual = True

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        #: Milliseconds.
        self.now = START
        self._opened: list[Ledger] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.restart()

    def open(self) -> Ledger:
        """Return another ledger on this engine, as another process would have."""
        ledger = self._made()
        self._opened.append(ledger)
        return ledger

    async def restart(self) -> None:
        """Close all ledgers."""
        opened, self._opened = self._opened, []
        for ledger in opened:
            await ledger.close()

    def _made(self) -> Ledger:
        raise NotImplementedError


class Memory(Engine):
    """Within the process: all share one ledger."""

    is_kept = False

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._ledger = MemoryLedger(clock=lambda: self.now / 1000)

    def _made(self) -> Ledger:
        return self._ledger


class SQLite(Engine):
    """A file."""

    def _made(self) -> Ledger:
        ledger = SQLiteLedger(self.directory / "quota.db")
        ledger._database.clocks = lambda: Clocks("boot", self.now, self.now)
        # How busy the machine is just then is not what is tested.
        ledger._database.file.patience = 30.0
        return ledger


class Server(Engine):
    """Redis or Valkey: a program of its own, which a test needs."""

    is_virtual = False

    def __init__(self, directory: Path, engine: engines.Engine) -> None:
        super().__init__(directory)
        self._stack = ExitStack()
        self._engine = engine
        self.ends: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        self._server = self._stack.enter_context(engines.running(self._engine))
        self.client = self._stack.enter_context(redis.Redis(port=self._server.port))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.restart()
        self._stack.close()

    def _made(self) -> Ledger:
        # How busy the machine is just then is not what is tested.
        return OnClock(f"{self._server.url}?socket_connect_timeout=30", self)


class OnClock(RedisLedger):
    """Tells the script what the time is, and has keys expire by that clock."""

    def __init__(self, url: str, engine: Server) -> None:
        super().__init__(url)
        self._engine = engine

    def _said(self, reports: Sequence[Report]) -> tuple[int | str, ...]:
        return *super()._said(reports), self._engine.now

    async def _run(self, reports: Sequence[Report]) -> list[Lease]:
        engine = self._engine
        for key in [key for key, ends in engine.ends.items() if ends <= engine.now]:
            engine.client.delete(key)
            del engine.ends[key]
        leases = await super()._run(reports)
        for key in {self._key(report.record) for report in reports}:
            record = record_of(engine.client.get(key))
            engine.client.persist(key)
            engine.ends[key] = engine.now + lifetime(record, engine.now)
        return leases


def record_of(text: bytes) -> Record:
    """Read what the script has written."""
    state = json.loads(text)
    state["clients"] = {name: Client(*held) for name, *held in state.get("clients", ())}
    return Record(**{**state, "slot": int(state["slot"])})


ENGINES: dict[str, Callable[[Path], Engine]] = {
    "memory": Memory,
    "sqlite": SQLite,
    **{name: functools.partial(Server, engine=each) for name, each in engines.ENGINES.items()},
}


def on_every_engine(test: Callable[[Engine], Awaitable[None]]) -> Callable[[str, Path], None]:
    """Run a test on each engine, in real time, which it does not look at."""

    @pytest.mark.parametrize("kind", ENGINES)
    @functools.wraps(test)
    def runs(kind: str, tmp_path: Path) -> None:
        async def main() -> None:
            async with ENGINES[kind](tmp_path) as engine:
                await test(engine)

        asyncio.run(main())

    # What pytest is to pass, in place of the test's own argument.
    del runs.__wrapped__  # type: ignore[attr-defined]
    return runs


class Process:
    """What a process says of one record: its reports are numbered, what it holds is absolute."""

    def __init__(self, ledger: Ledger, name: str, **always: Any) -> None:
        self.ledger = ledger
        self.name = name
        self.always = {"record": RECORD, "client": name, **always}
        self.sequence = 0
        self.held = 0
        self.turn = 0
        self.known = 0
        self.notes = 0
        self.last: Report | None = None

    async def report(self, *notes: Note, **told: Any) -> Lease:
        """Exchange one report."""
        self.sequence += 1
        said = {"held": self.held, "probes": int(self.turn > 0), **self.always, **told}
        self.last = Report(sequence=self.sequence, notes=notes, **said)
        (lease,) = await self.ledger.exchange([self.last])
        self.held += lease.granted
        self.turn = lease.probe or self.turn
        self.known = lease.number
        return lease

    async def ask(self, want: int = 1, **told: Any) -> Lease:
        """Ask for tokens."""
        return await self.report(want=want, **told)

    def note(self, outcome: Outcome = Outcome.READ, **told: Any) -> Note:
        """Settle one call, or several, of those that were leased."""
        self.notes += 1
        said = {"known": self.known, "took": 20, "probe": self.turn, "cost": 1, **told}
        self.held -= said["cost"]
        self.turn = 0
        return Note(self.notes, outcome, **said)

    async def read(self, remaining: int, resets_in: int | None = 900_000, **told: Any) -> Lease:
        """Report an answer with headers."""
        told = {"limit": 100, **told}
        return await self.report(self.note(remaining=remaining, resets_in=resets_in, **told))

    async def saw(self, outcome: Outcome, **told: Any) -> Lease:
        """Report another end of a call."""
        return await self.report(self.note(outcome, **told))


async def crew(engine: Engine, count: int, **always: Any) -> list[Process]:
    """Return so many processes, each with a ledger of its own."""
    return [Process(engine.open(), f"process {number}", **always) for number in range(count)]


async def opened(engine: Engine, count: int, remaining: int, **told: Any) -> list[Process]:
    """Return so many processes that know a window, past the slow start, of nobody else's."""
    processes = await crew(engine, count)
    first = processes[0]
    assert (await first.ask()).probe
    # One answer ends a window of one token, the next opens the one that is looked at.
    await first.read(1, resets_in=1000, times=64)
    engine.now += 1000
    assert (await first.ask()).probe
    await first.read(remaining, **told)
    return processes


@asynccontextmanager
async def engine_of(kind: str, directory: Path) -> AsyncIterator[Engine]:
    """Use an engine in a test of another kind."""
    async with ENGINES[kind](directory) as engine:
        yield engine
