"""Engines of ledgers under one clock that a test moves, and processes that share a quota there.

Another engine is another class in `ENGINES`; every test of test_ledgers.py then runs on it.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from aiotwhelp import MemoryLedger, SQLiteLedger
from aiotwhelp.ledger import Lease, Ledger, Note, Report
from aiotwhelp.ledger.hosts import Clocks
from aiotwhelp.ledger.port import Outcome

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
        return ledger


ENGINES: dict[str, Callable[[Path], Engine]] = {"memory": Memory, "sqlite": SQLite}


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
        said = {"held": self.held, "is_probing": bool(self.turn), **self.always, **told}
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
