"""Real processes that are killed, stopped and started again, on one quota; a server counts."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from aiotwhelp.emulator import Emulator
from tests.processes import PATH, Worker, refused_by_window
from tests.servers.engines import ENGINES, running

LIMIT = 30

#: Calls of a process that stood still: they were about to go, and are late by more than a window.
LATE = LIMIT // 3

#: More calls than a process makes before it is killed.
MANY = 10_000


@pytest.fixture(params=["sqlite", "redis", "valkey-9.1"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'quota.db'}"
    else:
        with running(ENGINES[request.param]) as engine:
            yield engine.url


def emulator(**options: object) -> Emulator:
    return Emulator(window=3.0, limits={PATH: LIMIT}, jitter=0.02, **options)  # type: ignore[arg-type]


@asynccontextmanager
async def crew(
    ledger: str, api: Emulator, *calls: int, is_hurried: bool = False
) -> AsyncIterator[list[Worker]]:
    """Processes that begin at once and make so many calls each; none of them outlives its test."""
    workers = [await Worker.start(ledger, each, api.env, is_hurried=is_hurried) for each in calls]
    try:
        for worker in workers:
            await worker.is_ready.wait()
        for worker in workers:
            worker.go()
        yield workers
    finally:
        for worker in workers:
            if worker.is_running:
                worker.send(signal.SIGKILL)
        await asyncio.gather(*(worker.ended() for worker in workers))


async def seen(api: Emulator, requests: int) -> None:
    while len(api.requests) < requests:  # noqa: ASYNC110 - the server counts, it does not tell
        await asyncio.sleep(0.05)


def assert_used_in_full(api: Emulator, spare: int) -> None:
    """In no more windows than the calls needed, and a few."""
    counted = [request for request in api.requests if request.counted]
    took = counted[-1].at - counted[0].at
    assert took <= 3.0 * (len(counted) / LIMIT + spare)


def held_up(workers: list[Worker], stopped: int = 0) -> int:
    """Return how often the machine, and not we who have stopped some, let one stand still."""
    return max(0, sum(each.stood_still for each in workers) - stopped)


def test_eight_processes_spend_one_quota_and_none_is_refused(ledger: str) -> None:
    async def play() -> None:
        async with emulator() as api, crew(ledger, api, *[15] * 8) as workers:
            assert [await each.ended() for each in workers] == [0] * 8
            assert [each.served for each in workers] == [15] * 8
            assert len(api.requests) - api.refused == 120
            assert api.refused <= LATE * held_up(workers)
            assert_used_in_full(api, spare=3 + held_up(workers))

    asyncio.run(play())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_processes_that_are_forked_with_a_limiter_are_as_many_as_they_are(ledger: str) -> None:
    async def play() -> None:
        async with emulator() as api:
            worker = await Worker.start(ledger, 20, api.env, forks=3)
            await worker.is_ready.wait()
            worker.go()
            assert await worker.ended() == 0
            assert worker.served == 80
            assert len(api.requests) - api.refused == 80
            assert api.refused <= LATE * held_up([worker]), worker.said

    asyncio.run(play())


@pytest.mark.parametrize("seed", [1, 2])
def test_processes_that_are_killed_cost_one_refusal_each_at_most(ledger: str, seed: int) -> None:
    async def play() -> None:
        dice = random.Random(seed)
        async with emulator() as api, crew(ledger, api, *[MANY] * 3, *[30] * 3) as workers:
            await seen(api, 1)
            victims = workers[:3]
            for victim in victims:
                await asyncio.sleep(dice.uniform(0.3, 2.0))
                victim.send(signal.SIGKILL)
            assert [await each.ended() for each in workers[3:]] == [0] * 3
            assert [each.served for each in workers[3:]] == [30] * 3
            await asyncio.gather(*(each.ended() for each in victims))
            refused = refused_by_window(api.requests, LIMIT)
            assert api.refused <= len(victims) + LATE * held_up(workers), refused
            assert_used_in_full(api, spare=4 + held_up(workers))

    asyncio.run(play())


def test_a_process_that_stands_still_for_longer_than_its_lease_does_little_harm(
    ledger: str,
) -> None:
    async def play() -> None:
        async with emulator() as api, crew(ledger, api, *[40] * 4) as workers:
            await seen(api, 5)
            for stopped in workers[:2]:
                stopped.send(signal.SIGSTOP)
            await asyncio.sleep(4.0)
            for stopped in workers[:2]:
                stopped.send(signal.SIGCONT)
            assert [await each.ended() for each in workers] == [0] * 4
            assert sum(each.served for each in workers) == 160
            assert api.refused <= LATE * (1 + held_up(workers, stopped=2))
            assert_used_in_full(api, spare=4 + held_up(workers, stopped=2))

    asyncio.run(play())


@pytest.mark.parametrize(
    ("options", "how"),
    [
        ((), "restart"),
        (("--appendonly", "yes", "--appendfsync", "always"), "restart"),
        ((), "pause"),
    ],
    ids=["empty", "with its data", "paused"],
)
def test_an_engine_that_goes_away_and_comes_back_is_used_again(
    options: tuple[str, ...], how: str
) -> None:
    async def play() -> None:
        with running(ENGINES["redis"], *options) as engine:
            async with (
                emulator() as api,
                crew(engine.url, api, *[40] * 4, is_hurried=True) as workers,
            ):
                await seen(api, LIMIT + 15)  # all have taken part
                if how == "pause":
                    engine.pause()
                else:
                    engine.kill()
                await asyncio.sleep(4.0)
                if how == "pause":
                    engine.go_on()
                else:
                    await asyncio.to_thread(engine.start)
                assert [await each.ended() for each in workers] == [0] * 4
                assert [each.served for each in workers] == [40] * 4
                # They went on with what they knew, each with its share; a probe may be refused.
                refused = refused_by_window(api.requests, LIMIT)
                assert max(refused.values(), default=0) <= 1 + LATE * held_up(workers), refused
                for worker in workers:
                    told = [line.split()[0] for line in worker.said]
                    assert told.count("LedgerAway") <= told.count("LedgerBack") + 1
                assert any("LedgerBack" in line for each in workers for line in each.said)
                assert_used_in_full(api, spare=5 + held_up(workers))

    asyncio.run(play())


def test_a_script_that_is_started_again_knows_what_is_left(ledger: str) -> None:
    async def play() -> None:
        async with emulator() as api:
            for _ in range(6):  # one after another, as a cron job, each a third of a window
                async with crew(ledger, api, 10) as (worker,):
                    assert await worker.ended() == 0
                    assert worker.served == 10
            assert (len(api.requests), api.refused) == (60, 0)

    asyncio.run(play())
