"""Cases of docs/scenarios.md that concern a quota, over several processes that share a ledger.

Those of one process stand in test_quota.py; what a fleet does otherwise, in test_fleet.py.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
from collections.abc import Sequence
from typing import Any

import pytest

from aiotwhelp import Limiter, MemoryLedger, QuotaKey
from aiotwhelp.dialects import GITHUB
from aiotwhelp.headers import FIFTEEN_MINUTES, WindowReading
from aiotwhelp.permits import Permit
from aiotwhelp.testing import VirtualTimeLoop, run
from tests.fleet import Wire, sailed
from tests.simulation import KEY, Faults, Server, caller, headers, in_virtual_time

USER = "u:1"
READS = QuotaKey("GET /2/tweets", "x", USER, "app")
WRITES = QuotaKey("POST /2/tweets", "x", USER, "app")


def processes(count: int, **options: Any) -> list[Limiter]:
    """Return the limiters of so many processes that share a ledger in virtual time."""
    loop = asyncio.get_running_loop()
    ledger = MemoryLedger(clock=loop.time)
    return [Limiter(ledger=Wire(ledger, seed=at), **options) for at in range(count)]


async def close(limiters: Sequence[Limiter]) -> None:
    for each in limiters:
        await each.close()


async def warmed(limiters: Sequence[Limiter], remaining: int, key: QuotaKey = KEY) -> None:
    """Have so many left for ten minutes of a quota that all know, past its slow start."""
    for left, reset_in in ((14, 5), (remaining, 600)):
        for _ in range(70):
            (await limiters[0].acquire(key)).observed(headers(left, reset_in))
        await asyncio.sleep(7 if left == 14 else 1)
    for each in limiters[1:]:
        (await each.acquire(key)).observed(headers(remaining, 598))
        await asyncio.sleep(1)


async def granted(limiters: Sequence[Limiter], seconds: float, key: QuotaKey = KEY) -> list[Permit]:
    """Return what processes get in so many seconds if each wants more than there is."""
    asked = [asyncio.ensure_future(each.acquire(key)) for each in limiters for _ in range(20)]
    await asyncio.sleep(seconds)
    for each in asked:
        each.cancel()
    done = await asyncio.gather(*asked, return_exceptions=True)
    return [each for each in done if isinstance(each, Permit)]


# 13: an answer out of a cache ------------------------------------------------------------------


@in_virtual_time
async def test_case_13_what_a_cache_answered_in_one_process_teaches_the_others_nothing() -> None:
    limiters = processes(3)
    await warmed(limiters, 9)
    cached = headers(900, 500, limit=900) | {"age": "4"}
    (await limiters[0].acquire(KEY)).observed(cached)
    await asyncio.sleep(1)
    assert limiters[1].quota(KEY).limit == 15
    # It may or may not have reached the server: eight are surely left, and one goes to see.
    taken = await granted(limiters, 1)
    assert len(taken) == 8
    for each in taken:
        each.observed(headers(1, 500))
    await close(limiters)


@pytest.mark.parametrize("count", [1, 3])
def test_case_13_a_cached_answer_to_a_probe_has_the_next_one_go_and_opens_nothing(
    count: int,
) -> None:
    async def main() -> None:
        limiters = processes(count)
        probe = await limiters[0].acquire(KEY)
        waiting = [asyncio.ensure_future(each.acquire(KEY)) for each in limiters for _ in range(5)]
        await asyncio.sleep(1)
        probe.observed(headers(14, 600) | {"x-from-cache": "1"})
        await asyncio.sleep(1)
        gone = [each for each in waiting if each.done()]
        assert len(gone) == 1
        gone[0].result().observed(headers(14, 600))
        await asyncio.sleep(1)
        assert sum(each.done() for each in waiting) > 1
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await close(limiters)

    run(main(), debug=False)


# 21, 24: a refusal that holds for every route ---------------------------------------------------


def of_github(remaining: int, **more: str) -> dict[str, str]:
    loop: Any = asyncio.get_running_loop()
    told = {
        "x-ratelimit-limit": "5000",
        "x-ratelimit-remaining": str(remaining),
        "x-ratelimit-reset": str(int(loop.wall_time() + 3000)),
        "x-ratelimit-resource": "core",
    }
    return told | {name.replace("_", "-"): value for name, value in more.items()}


async def calls_of_github(
    refusals: Sequence[tuple[float, float]], seconds: float, **more: str
) -> list[float]:
    """Have three processes call three routes for so long; return when each call went.

    Those sent between two instants of ``refusals`` are refused, with tokens left and ``more``.
    """
    loop = asyncio.get_running_loop()
    limiters = processes(3)
    routes = [QuotaKey(f"GET /{name}", "github", USER) for name in "abc"]
    # An answer that names what it counts has all routes be one quota.
    for limiter in limiters:
        for route in routes:
            permit = await limiter.acquire(route, dialect=GITHUB)
            permit.observed(of_github(4900))
    await asyncio.sleep(3)
    began = loop.time()
    sent: list[float] = []

    async def one(limiter: Limiter, route: QuotaKey) -> None:
        ticket = limiter.ticket()
        while loop.time() < began + seconds:
            permit = await limiter.acquire(route, ticket=ticket, dialect=GITHUB)
            sent.append(loop.time() - began)
            is_refused = any(start <= sent[-1] < end for start, end in refusals)
            await asyncio.sleep(0.05)
            if is_refused:
                permit.observed(of_github(4000, **more), status=429)
            else:
                permit.observed(of_github(4000))
            await asyncio.sleep(1.0)

    async with asyncio.timeout(seconds + 200):
        await asyncio.gather(*(one(each, route) for each in limiters for route in routes))
    await close(limiters)
    return sent


def between(sent: Sequence[float], start: float, end: float) -> int:
    return sum(start <= at < end for at in sent)


@in_virtual_time
async def test_case_24_a_retry_after_for_every_route_holds_every_process() -> None:
    sent = await calls_of_github([(5.0, 5.4)], 100.0, retry_after="40")
    assert between(sent, 0.0, 5.0) > 20
    # What was leased by then may go for as long as its lease holds.
    assert between(sent, 7.0, 45.0) == 0
    assert between(sent, 45.0, 48.0) > 5
    assert between(sent, 90.0, 100.0) > 20


@in_virtual_time
async def test_case_21_a_pause_that_says_no_time_is_one_for_all_processes_and_doubles_for_all() -> (
    None
):
    sent = await calls_of_github([(5.0, 5.4), (64.0, 65.9)], 300.0)
    assert between(sent, 7.0, 65.0) == 0
    again = min(at for at in sent if at > 64.0)
    assert again == pytest.approx(65.5, abs=1)
    assert between(sent, again + 2, again + 120) == 0, "it is twice as long"
    assert between(sent, again + 120, 300.0) > 20


# 46: a state of an earlier run -----------------------------------------------------------------


@in_virtual_time
async def test_case_46_what_a_ledger_knows_of_a_window_that_is_over_is_worth_one_call() -> None:
    first, *others = processes(4)
    (await first.acquire(KEY)).observed(headers(0, 20))
    await first.close()
    await asyncio.sleep(30)
    waiting = [asyncio.ensure_future(each.acquire(KEY)) for each in others for _ in range(5)]
    await asyncio.sleep(1)
    gone = [each for each in waiting if each.done()]
    assert len(gone) == 1
    gone[0].result().observed(headers(14, 60))
    await asyncio.sleep(1)
    assert sum(each.done() for each in waiting) > 1
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await close(others)


@in_virtual_time
async def test_case_46_what_one_process_restores_lets_nobody_go_that_the_ledger_holds() -> None:
    loop: Any = asyncio.get_running_loop()
    limiters = processes(2)
    await warmed(limiters[:1], 0)
    restored = [WindowReading(FIFTEEN_MINUTES, 9, 15, loop.wall_time() + 500)]
    limiters[1].restore(KEY, restored)
    assert await granted(limiters, 30) == []
    await close(limiters)


# 47: nothing left, and nobody knows until when -------------------------------------------------


def probes_of_nothing(limiters: Sequence[Limiter]) -> Any:
    """Call a server that says for 300 s that nothing is left, and never until when."""

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        began, sent = loop.time(), []

        async def one(limiter: Limiter) -> None:
            ticket = limiter.ticket()
            while True:
                permit = await limiter.acquire(KEY, ticket=ticket)
                at = loop.time() - began
                sent.append(at)
                await asyncio.sleep(0.05)
                if at > 300:
                    permit.observed(headers(100, 600, limit=100))
                    return
                permit.observed(headers(0, None), status=429)

        async with asyncio.timeout(500):
            await asyncio.gather(*(one(each) for each in limiters for _ in range(20)))
        return [at for at in sent if at <= 300]

    return main()


@pytest.mark.parametrize("count", [2, 5])
def test_case_47_a_spent_quota_without_a_reset_is_asked_about_once_for_all(count: int) -> None:
    async def together() -> list[float]:
        limiters = processes(count)
        sent: list[float] = await probes_of_nothing(limiters)
        await close(limiters)
        return sent

    async def by_one() -> list[float]:
        sent: list[float] = await probes_of_nothing([Limiter()])
        return sent

    sent, alone = run(together(), debug=False), run(by_one(), debug=False)
    assert len(sent) <= len(alone) + 1
    pauses = [after - before for before, after in itertools.pairwise(sent)]
    assert max(pauses) > 55
    assert max(pauses) < 65


# 48: two back ends -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("length", [5.0, 20.0, 60.0])
def test_case_48_two_back_ends_with_different_resets_cost_a_fleet_no_refusal(
    length: float, seed: int
) -> None:
    fleet = sailed(3, 30, server={"length": length}, faults={"backends": (0.0, 3.0)}, seed=seed)
    assert (fleet.served, fleet.refused) == (90, 0)
    assert fleet.makespan < 5 * (length + 3) + 3


# 50: rate_limit_status is behind ---------------------------------------------------------------


@in_virtual_time
async def test_case_50_what_one_process_is_told_second_hand_lets_nobody_go() -> None:
    limiters = processes(3)
    second_hand = [WindowReading(FIFTEEN_MINUTES, 14, 15, None)]
    for limiter in limiters:
        limiter.prime(KEY, second_hand)
    waiting = [asyncio.ensure_future(each.acquire(KEY)) for each in limiters for _ in range(5)]
    await asyncio.sleep(1)
    gone = [each for each in waiting if each.done()]
    assert len(gone) == 1, "it replaces no probe"
    for limiter in limiters:
        limiter.prime(KEY, second_hand)
    gone[0].result().observed(headers(2, 600))
    await asyncio.sleep(1)
    for limiter in limiters:
        limiter.prime(KEY, [WindowReading(FIFTEEN_MINUTES, 14, 15, reset_of(limiter))])
    for left in (1, 0, 0):
        await asyncio.sleep(5)
        for each in waiting:
            if each.done() and not each.result().is_settled:
                each.result().observed(headers(left, 590))
    assert sum(each.done() for each in waiting) == 1 + 2, "it raises no floor"
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await close(limiters)


def reset_of(limiter: Limiter) -> float:
    loop: Any = asyncio.get_running_loop()
    return float(int(loop.wall_time() + (limiter.quota(KEY).resets_in or 0.0)))


# 51: the server was late once ------------------------------------------------------------------


def test_case_51_a_lateness_that_all_have_learned_is_forgotten_by_all() -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        server = Server(limit=6, length=10.0, faults=Faults(late=4.0))
        limiters = processes(3)
        calls = [
            asyncio.ensure_future(caller(server, each)) for each in limiters for _ in range(40)
        ]
        while server.periods < 3:  # noqa: ASYNC110 - the server counts, it does not tell
            await asyncio.sleep(0.1)
        server.faults.late = 0.0
        await asyncio.gather(*calls)
        await close(limiters)
        windows = server.history
        return [after.ends - 10.0 - before.ends for before, after in itertools.pairwise(windows)]

    logging.getLogger("aiotwhelp").setLevel(logging.ERROR)
    idle = run(main(), seed=5, debug=False)
    logging.getLogger("aiotwhelp").setLevel(logging.NOTSET)
    assert idle[:2] == [7.0, 7.0]
    assert idle[2] >= 1.0, "it was learned"
    assert len(idle) > 16
    assert max(idle[12:]) == 0.0


# 52: very many ---------------------------------------------------------------------------------


@in_virtual_time
async def test_case_52_ten_thousand_leased_tokens_are_granted_in_slices() -> None:
    (limiter, other) = processes(2)
    loop = asyncio.get_running_loop()
    (await limiter.acquire(KEY)).observed(headers(0, 60, limit=20_000))
    waiting = [
        asyncio.ensure_future(each.acquire(KEY)) for each in (limiter, other) for _ in range(10_000)
    ]
    await asyncio.sleep(50)
    grants, pump = [], limiter._turns._pump

    def counted(line: Any) -> None:
        before = limiter.stats().granted
        pump(line)
        grants.append(limiter.stats().granted - before)

    limiter._turns._pump = counted  # type: ignore[method-assign]
    while not any(each.done() for each in waiting):  # noqa: ASYNC110 - the reset, and a probe
        await asyncio.sleep(0.1)
    gc.disable()
    try:
        while not all(each.done() for each in waiting):
            for each in waiting:
                if each.done() and not each.result().is_settled:
                    each.result().observed(headers(20_000, 600, limit=20_000))
            await asyncio.sleep(0.01)
    finally:
        gc.enable()
    assert sum(grants) > 9000
    assert max(grants) <= 512, "a few milliseconds of work"
    assert loop.time() < 1000 + 75
    await close([limiter, other])


# 53: a window that some routes alone show ------------------------------------------------------


def of_day(remaining: int, day: int) -> dict[str, str]:
    loop: Any = asyncio.get_running_loop()
    return headers(remaining, 600) | {
        "x-user-limit-24hour-limit": "100",
        "x-user-limit-24hour-remaining": str(day),
        "x-user-limit-24hour-reset": str(int(loop.wall_time() + 80_000)),
    }


@in_virtual_time
async def test_case_53_a_window_that_only_some_routes_show_is_spent_by_those_in_any_process() -> (
    None
):
    limiters = processes(2)
    writes, reads = limiters
    await warmed([reads], 9, READS)
    (await writes.acquire(WRITES)).observed(of_day(14, 2))
    await asyncio.sleep(1)
    # Reads of any process go on, though nothing of the day will be left.
    for left in (8, 7, 6, 5):
        for each in limiters:
            (await each.acquire(READS, max_wait=3)).observed(headers(left, 590))
    (await writes.acquire(WRITES, max_wait=3)).observed(of_day(13, 1))
    await asyncio.sleep(1)
    (await reads.acquire(WRITES, max_wait=3)).observed(of_day(12, 0))
    await asyncio.sleep(1)
    assert await granted(limiters, 60, WRITES) == []
    (await writes.acquire(READS, max_wait=3)).observed(headers(4, 500))
    await close(limiters)


# 54: a call that cost more ---------------------------------------------------------------------


@in_virtual_time
async def test_case_54_a_debt_holds_its_calls_cost_in_every_process() -> None:
    limiters = processes(3)
    await warmed(limiters, 14)
    for limiter, cost, settle in (
        (limiters[0], 5, Permit.lost),
        (limiters[1], 4, lambda permit: permit.observed({})),
    ):
        settle(await limiter.acquire(KEY, cost=cost, max_wait=3))
        await asyncio.sleep(2)  # what it got besides has gone back
    taken = await granted([limiters[2]], 0.5)
    assert len(taken) == 14 - 5 - 4
    for each in taken:
        each.unsent()
    await asyncio.sleep(3)
    # Whoever asks next finds out that the server had counted none of it.
    (await limiters[1].acquire(KEY, max_wait=3)).observed(headers(13, 590))
    await asyncio.sleep(1)
    taken = await granted(limiters, 5)
    assert len(taken) == 13
    await close(limiters)
