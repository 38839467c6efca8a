"""Several limiters, as in so many processes, that share one ledger in virtual time."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aiotwhelp import Limiter, MemoryLedger, events
from aiotwhelp.errors import LedgerError
from aiotwhelp.ledger import Lease, Ledger, Report
from aiotwhelp.testing import VirtualTimeLoop, run
from tests.simulation import Faults, Outcome, Seen, Server, at_rest, crowd


class Wire:
    """The way to a ledger: it takes time, loses messages, and is cut at times."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        seed: int = 0,
        latency: tuple[float, float] = (0.0002, 0.002),
        loses: float = 0.0,
        cuts: Sequence[tuple[float, float, str]] = (),
        loses_its_data: bool = False,
        emptied: Sequence[float] = (),
    ) -> None:
        self.ledger = ledger
        self.random = random.Random(seed)
        self.latency = latency
        self.loses = loses
        #: From when until when, and how: "raise" or "hang"; whether the ledger is empty after each.
        self.cuts = cuts
        self.loses_its_data = loses_its_data
        #: When it is emptied while everybody reaches it.
        self.emptied = emptied
        self._emptied = 0
        self.exchanges = 0
        self.reports: list[Report] = []
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        self._loop = loop

    async def exchange(self, reports: Sequence[Report]) -> Sequence[Lease]:
        self.exchanges += 1
        self.reports += reports
        self._empty()
        for start, end, how in self.cuts:
            if start <= self._loop.elapsed < end:
                if how == "hang":
                    await asyncio.sleep(3600)
                raise LedgerError("cut off")
        await self._pass()
        leases = await self.ledger.exchange(reports)
        await self._pass()
        return leases

    def _empty(self) -> None:
        starts = [start for start, *_ in self.cuts] if self.loses_its_data else []
        times = sum(at <= self._loop.elapsed for at in (*starts, *self.emptied))
        if times > self._emptied and isinstance(self.ledger, MemoryLedger):
            self._emptied = times
            self.ledger._records.clear()

    async def _pass(self) -> None:
        lost = self.random.random() < self.loses
        await asyncio.sleep(3600 if lost else self.random.uniform(*self.latency))

    async def secret(self) -> bytes:
        return await self.ledger.secret()

    async def close(self) -> None:
        await self.ledger.close()


@dataclass
class Fleet(Seen):
    """What became of a fleet; ``dead`` are those that were killed."""

    server: Server
    wire: Wire
    limiters: list[Limiter]
    outcomes: list[Outcome | BaseException] = field(default_factory=list)
    dead: set[int] = field(default_factory=set)
    told: list[events.Event] = field(default_factory=list)
    makespan: float = 0.0

    @property
    def served(self) -> int:
        return sum(each.served for each in self.outcomes if isinstance(each, Outcome))

    @property
    def are_at_rest(self) -> bool:
        living = (each for at, each in enumerate(self.limiters) if at not in self.dead)
        return all(at_rest(each) and not each._sharing._known for each in living)


def kill(limiter: Limiter) -> None:
    """Stop a process between two instructions: nothing is settled any more, nothing reported."""
    sharing = limiter._sharing
    assert sharing is not None
    sharing._is_closed = limiter._home.is_closed = True
    sharing._disarm()
    if sharing._exchange is not None:
        sharing._exchange.cancel()
    for each in ("observed", "observed_again", "lost", "unsent"):
        setattr(limiter._settling, each, lambda *_, **__: None)


async def fleet(
    processes: int,
    callers: int,
    *,
    seed: int = 0,
    kills: int = 0,
    server: dict[str, Any] | None = None,
    faults: dict[str, Any] | None = None,
    wire: dict[str, Any] | None = None,
    limiter: dict[str, Any] | None = None,
    cut_off: Sequence[tuple[float, float, str]] = (),
    **options: Any,
) -> Fleet:
    """Let so many processes of so many callers play; every one of them ends in minutes.

    ``cut_off``: when and how the first of them is cut off from the ledger, and the others not.
    """
    loop = asyncio.get_running_loop()
    model = Server(seed=seed, faults=Faults(**(faults or {})), **(server or {}))
    way = Wire(MemoryLedger(clock=loop.time), seed=seed, **(wire or {}))
    ways = [Wire(way.ledger, seed=seed, cuts=cut_off) if cut_off else way] + [way] * processes
    limiters = [Limiter(ledger=each, **(limiter or {})) for each in ways[:processes]]
    played = Fleet(model, way, limiters)
    for each in limiters:
        each.listen(played.told.append)
    began = loop.time()
    crowds = [asyncio.ensure_future(crowd(callers, model, each, **options)) for each in limiters]

    async def kill_some() -> None:
        for victim in way.random.sample(range(processes), kills):
            await asyncio.sleep(way.random.uniform(0.1, 1.5) * model.length)
            played.dead.add(victim)
            kill(limiters[victim])
            crowds[victim].cancel()

    killer = asyncio.ensure_future(kill_some())
    async with asyncio.timeout(20 * 3600):
        played.outcomes = list(await asyncio.gather(*crowds, return_exceptions=True))
        played.makespan = loop.time() - began
        await killer
    await asyncio.sleep(3)
    return played


def sailed(*args: Any, seed: int = 0, **options: Any) -> Fleet:
    """Play a fleet in virtual time and return what became of it."""
    logging.getLogger("aiotwhelp").setLevel(logging.ERROR)
    try:
        return run(fleet(*args, seed=seed, **options), seed=seed, debug=False)
    finally:
        logging.getLogger("aiotwhelp").setLevel(logging.NOTSET)
