"""One quota, several processes: what holds of a bucket holds over all of them."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from aiotwhelp import (
    Concurrency,
    LedgerError,
    Limiter,
    MemoryLedger,
    QuotaKey,
    QuotaTimeoutError,
    Rate,
    SQLiteLedger,
    events,
    leases,
)
from aiotwhelp.dialects import AUTO
from aiotwhelp.ledger import Lease, Ledger, Report
from aiotwhelp.permits import Permit
from aiotwhelp.sharing import shares_of
from aiotwhelp.testing import VirtualTimeLoop, run
from tests.fleet import Wire, fleet, sailed
from tests.simulation import KEY, Faults, Server, caller, headers, in_virtual_time, played, settle

pytestmark = pytest.mark.usefixtures("calls_in_flight")

#: How a call ends.
Ending = Callable[[Permit], None]

#: Windows that so many calls need, without the last; each of 5 s.
FULL = {"limit": 15, "length": 5.0}


def ideal(calls: int, limit: int = 15, length: float = 5.0) -> float:
    return (-(-calls // limit) - 1) * length


async def warmed(limiter: Limiter, remaining: int) -> None:
    """Have so many left of a quota that was used before: opened, and for two windows alone."""
    for left in (14, remaining):
        for _ in range(70):
            (await limiter.acquire(KEY)).observed(headers(left, 5 if left == 14 else 600))
        await asyncio.sleep(7 if left == 14 else 1)


# Bound and full use --------------------------------------------------------------------------


@pytest.mark.parametrize(("processes", "callers"), [(1, 100), (2, 50), (4, 50), (8, 20)])
def test_nobody_is_refused_and_every_window_is_spent(processes: int, callers: int) -> None:
    played = sailed(processes, callers, server=FULL)
    calls = processes * callers
    assert (played.served, played.server.requests, played.refused) == (calls, calls, 0)
    assert played.makespan < ideal(calls) + 1.5
    assert played.are_at_rest


def test_a_large_quota_costs_a_sixth_of_a_round_trip_a_permit() -> None:
    played = sailed(8, 500, server={"limit": 900, "length": 15.0})
    assert (played.served, played.refused) == (4000, 0)
    assert played.wire.exchanges <= 4000 / 6
    # Answers that come between two reports are one number, whatever their calls knew.
    assert max(len(report.notes) for report in played.wire.reports) <= 3
    assert played.makespan < ideal(4000, 900, 15.0) + 3


async def steadily(processes: int, callers: int, limit: int, windows: int) -> tuple[Wire, Server]:
    """Let callers ask again and again, for so many windows of 60 s."""
    loop = asyncio.get_running_loop()
    server = Server(limit=limit, length=60.0, faults=Faults(latency=(0.01, 0.01)))
    wire = Wire(MemoryLedger(clock=loop.time))
    limiters = [Limiter(ledger=wire) for _ in range(processes)]

    async def asks(limiter: Limiter) -> None:
        while True:
            await caller(server, limiter)

    tasks = [asyncio.ensure_future(asks(each)) for each in limiters for _ in range(callers)]
    await asyncio.sleep(120.0)
    wire.exchanges = 0
    await asyncio.sleep(60.0 * windows)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for limiter in limiters:
        await limiter.close()
    return wire, server


@pytest.mark.parametrize(("limit", "processes"), [(900, 8), (900, 16), (100, 8)])
def test_who_asks_all_the_time_comes_about_twice_in_a_window(limit: int, processes: int) -> None:
    """Once for its share of the window, and once to tell of it and hear when the next begins."""
    wire, server = run(steadily(processes, 50, limit, 4), debug=False)
    assert server.refused == []
    assert wire.exchanges <= 3 * 4 * processes


@pytest.mark.parametrize("processes", [1, 2, 4, 8])
@pytest.mark.parametrize("limit", [15, 100])
def test_at_an_even_pace_every_window_is_spent(processes: int, limit: int) -> None:
    """What each process has leased it goes through at a pace of its own."""
    calls = 3 * limit // processes * processes
    server = {"limit": limit, "length": 60.0}
    played = sailed(processes, calls // processes, server=server, limiter={"pace": "even"})
    assert (played.served, played.refused) == (calls, 0)
    assert played.makespan <= 3 * 60.0 + 1.5


def test_a_small_quota_costs_two_and_a_half_round_trips_a_permit() -> None:
    played = sailed(8, 40, server=FULL)
    assert (played.served, played.refused) == (320, 0)
    assert played.wire.exchanges <= 2.5 * 320


@in_virtual_time
async def test_what_a_probe_has_found_out_is_told_at_once() -> None:
    """Nobody waits for a moment that was guessed before."""
    loop = asyncio.get_running_loop()
    limiter = Limiter(ledger=Wire(MemoryLedger(clock=loop.time)))
    probe = await limiter.acquire(KEY)
    probe.observed(headers(14, 2))
    await asyncio.sleep(3)
    probe = await limiter.acquire(KEY)
    waits = asyncio.create_task(limiter.acquire(KEY))
    await asyncio.sleep(0.01)
    probe.observed(headers(14, 600))
    async with asyncio.timeout(0.01):
        (await waits).unsent()
    await limiter.close()


def test_a_cold_start_of_many_processes_sends_one_call_until_its_answer() -> None:
    played = sailed(8, 20, server=FULL, faults={"latency": (0.5, 0.5)})
    first = played.server.starts[0]
    assert sum(start < first + 1.0 for start in played.server.starts) == 1
    assert played.refused == 0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("faults", "most"),
    [
        ({"skew": 3.0}, 0),
        ({"skew": -300.0}, 0),
        ({"backends": (0.0, 3.0)}, 0),
        ({"drop_after": 0.1}, 2),
        ({"drop_before": 0.1}, 2),
        ({"headerless": 0.1}, 2),
        ({"late": 0.7}, 2),
        ({"late": 2.5}, 3),
        ({"server_error": 0.1}, 1),
        ({"cancelled": 0.3}, 0),
        ({"no_date": True}, 0),
    ],
    ids=str,
)
def test_faults_cost_no_more_than_in_one_process(
    faults: dict[str, Any], most: int, seed: int
) -> None:
    played = sailed(4, 40, server=FULL, faults=faults, seed=seed)
    gone = sum(each != "served" for one in played.outcomes for each in one.results)
    assert played.served + gone == 160
    assert "cancelled" in faults or not gone
    assert played.most_refused_in_a_window <= most
    assert played.are_at_rest


@pytest.mark.parametrize("seed", range(3))
def test_a_consumer_that_nobody_sees_costs_few_refusals(seed: int) -> None:
    played = sailed(4, 75, server=FULL, faults={"foreign": 0.2}, seed=seed)
    assert played.served == 300
    assert played.refused <= 10


def test_all_processes_keep_the_pace_of_a_limit_that_nobody_announces() -> None:
    played = sailed(
        4, 25, server={"limit": 300, "length": 900.0}, faults={"hidden_gap": 1.0}, seed=1
    )
    assert played.served == 100
    assert played.refused <= 15
    assert played.makespan < 150


def test_with_equal_demand_every_process_gets_its_share_within_a_quarter() -> None:
    async def main() -> list[int]:
        server = Server(limit=64, length=10.0, whole_seconds=False)
        loop = asyncio.get_running_loop()
        ledger = MemoryLedger(clock=loop.time)
        limiters = [Limiter(ledger=Wire(ledger, seed=at)) for at in range(8)]
        served = [0] * 8

        async def one(at: int) -> None:
            permit = await limiters[at].acquire(KEY)
            status, told = await server.call(KEY)
            permit.observed(told, status=status)
            if server.periods > 1:  # at first, nobody knows who else there is
                served[at] += 1

        tasks = [asyncio.ensure_future(one(at)) for at in range(8) for _ in range(40)]
        await asyncio.sleep(28)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return served

    from aiotwhelp.testing import run

    served = run(main(), seed=3, debug=False)
    assert sum(served) == 128
    assert 12 <= min(served) <= max(served) <= 20


# Processes that die --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_processes_that_are_killed_cost_one_refusal_each_at_most(seed: int) -> None:
    played = sailed(6, 50, server=FULL, kills=4, seed=seed)
    assert played.served == 2 * 50
    assert played.refused <= len(played.dead)
    # What the dead sent was counted, too.
    assert played.makespan < ideal(played.server.requests) + 6
    assert played.are_at_rest


async def granted(limiters: list[Limiter], seconds: float) -> list[Permit]:
    """Return what so many processes get in so many seconds if each wants more than there is."""
    asked = [asyncio.ensure_future(each.acquire(KEY)) for each in limiters for _ in range(20)]
    await asyncio.sleep(seconds)
    for each in asked:
        each.cancel()
    done = await asyncio.gather(*asked, return_exceptions=True)
    return [each for each in done if isinstance(each, Permit)]


@pytest.mark.parametrize("garbled", [None, 100_000.0])
@in_virtual_time
async def test_case_16_a_reading_without_a_reset_may_be_of_the_window_that_began_early(
    garbled: float | None,
) -> None:
    """What one process read is owed in the window that another one's answer opens."""
    loop = asyncio.get_running_loop()
    wire = Wire(MemoryLedger(clock=loop.time))
    limiters = [Limiter(ledger=wire) for _ in range(3)]
    await warmed(limiters[0], 9)
    a, b, c = [await each.acquire(KEY) for each in limiters]
    # The server begins a window, counts c in it, and then b.
    b.observed(headers(13, garbled))
    await asyncio.sleep(0.2)
    c.observed(headers(14, 950))
    await asyncio.sleep(1.2)
    taken = await granted(limiters, 5)
    assert len(taken) == 13 - 1, "a is on its way still"
    for each in taken:
        each.unsent()
    await asyncio.sleep(1)
    # Whoever goes next finds out; nothing is lost for good.
    (await limiters[1].acquire(KEY)).observed(headers(12, 940))
    a.observed(headers(11, 940))
    await asyncio.sleep(1)
    assert len(await granted(limiters, 5)) == 11
    for each in limiters:
        await each.close()


@in_virtual_time
async def test_a_window_that_begins_early_is_seen_though_a_clock_was_stepped_before() -> None:
    """It was set ahead by a minute while nobody asked: the next window seemed to be so long."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    ledger = MemoryLedger(clock=loop.time)
    first, second = Limiter(ledger=ledger), Limiter(ledger=ledger)
    ahead = 0.0

    def told(remaining: int, ends: float) -> dict[str, str]:
        date = formatdate(int(loop.wall_time() + ahead), usegmt=True)
        return headers(remaining) | {"date": date, "x-rate-limit-reset": str(int(ends))}

    ends = loop.wall_time() + 15.0
    for left in range(14, 4, -1):
        (await first.acquire(KEY)).observed(told(left, ends))
        await asyncio.sleep(1.0)
    await asyncio.sleep(20.0)
    ahead = 60.0
    ends = loop.wall_time() + ahead + 15.0
    (await first.acquire(KEY)).observed(told(14, ends))
    await asyncio.sleep(0.1)
    for left in (12, 10, 8):
        (await second.acquire(KEY)).observed(told(left + 1, ends))
        (await first.acquire(KEY)).observed(told(left, ends))
        await asyncio.sleep(0.5)
    slow = await second.acquire(KEY)
    last = await first.acquire(KEY)
    await asyncio.sleep(8.0)
    last.observed(told(0, ends))
    await asyncio.sleep(0.2)
    slow.observed(told(14, loop.wall_time() + ahead + 15.0))
    await asyncio.sleep(0.2)
    for limiter in (first, second):
        async with asyncio.timeout(0.5):
            (await limiter.acquire(KEY)).unsent()
        await limiter.close()


@in_virtual_time
async def test_what_an_idle_process_does_not_use_goes_back_within_a_second() -> None:
    loop = asyncio.get_running_loop()
    wire = Wire(MemoryLedger(clock=loop.time))
    greedy, other = Limiter(ledger=wire), Limiter(ledger=wire)
    await warmed(greedy, 9)
    held = [await greedy.acquire(KEY) for _ in range(3)]
    # It has some more that nobody there wants.
    began = loop.time()
    taken = [await other.acquire(KEY) for _ in range(6)]
    assert loop.time() - began < 4
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(other.acquire(KEY), 10)
    for each in (*held, *taken):
        each.unsent()
    await greedy.close()
    await other.close()


@in_virtual_time
async def test_closing_gives_back_at_once() -> None:
    loop = asyncio.get_running_loop()
    wire = Wire(MemoryLedger(clock=loop.time))
    first, second = Limiter(ledger=wire), Limiter(ledger=wire)
    await warmed(first, 8)
    (await first.acquire(KEY)).unsent()
    await first.close()
    before = loop.time()
    permits = [await second.acquire(KEY) for _ in range(8)]
    assert loop.time() - before < 0.5
    for each in permits:
        each.unsent()
    await second.close()


def test_a_ledger_is_closed_by_the_limiter_that_made_it_and_by_no_other(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "quotas"
        ledger = SQLiteLedger(path)
        await Limiter(ledger=ledger).close()
        assert list(await ledger.exchange([])) == []
        await ledger.close()
        limiter = Limiter(ledger=f"sqlite:///{path}")
        await limiter.close()
        assert limiter._sharing is not None
        with pytest.raises(LedgerError, match="closed here"):
            await limiter._sharing._ledger.exchange([])

    asyncio.run(main())


# The ledger away -----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["raise", "hang"])
@pytest.mark.parametrize("seed", range(4))
def test_without_the_ledger_a_share_is_used_and_it_comes_back_by_itself(
    how: str, seed: int
) -> None:
    played = sailed(4, 50, server=FULL, wire={"cuts": [(7.0, 17.0, how)]}, seed=seed)
    assert played.served == 200
    assert played.refused == 0
    assert played.makespan < ideal(200) + 6
    told = [type(event) for event in played.told if "Ledger" in type(event).__name__]
    assert told.count(events.LedgerAway) == told.count(events.LedgerBack) == 4
    assert played.are_at_rest


class Garbled(MemoryLedger):
    """A ledger whose answers are changed on the way, or that has none."""

    def __init__(self, garble: Callable[[Lease], Any]) -> None:
        super().__init__(clock=asyncio.get_running_loop().time)
        self.garble = garble

    async def exchange(self, reports: Sequence[Report]) -> Sequence[Lease]:
        return [self.garble(each) for each in await super().exchange(reports)]


def cancels_itself(_: Lease) -> Lease:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    "garble",
    [
        cancels_itself,
        lambda _: 5,
        lambda lease: tuple(lease),
        lambda lease: lease._replace(granted=-1),
        lambda lease: lease._replace(granted=None),
        lambda lease: lease._replace(granted=float("nan")),
        lambda lease: lease._replace(number="7"),
        lambda lease: lease._replace(wait=float("inf")),
        lambda lease: lease._replace(limit=[]),
        lambda lease: lease._replace(shown=5),
    ],
)
def test_a_ledger_that_answers_what_is_no_lease_is_away(
    garble: Callable[[Lease], Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        loop, told = asyncio.get_running_loop(), list[events.Event]()
        limiter = Limiter(ledger=Garbled(garble), on_event=told.append)
        for _ in range(20):
            async with asyncio.timeout(5), limiter.permit(KEY) as permit:
                permit.observed(headers(14, 600))
            await asyncio.sleep(1)
        assert loop.time() < 1100
        assert [type(each) for each in told].count(events.LedgerAway) == 1
        await limiter.close()

    run(main())
    assert sum("ledger" in each.message for each in caplog.records) <= 2


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("loses_its_data", [False, True], ids=["with its data", "empty"])
@pytest.mark.parametrize("how", ["raise", "hang"])
@pytest.mark.parametrize(
    ("processes", "callers", "limit", "length"),
    [(4, 40, 30, 3.0), (8, 40, 100, 3.0), (2, 80, 30, 3.0), (4, 40, 15, 5.0), (4, 40, 30, 30.0)],
)
def test_an_outage_costs_one_refusal_at_most(
    processes: int,
    callers: int,
    limit: int,
    length: float,
    how: str,
    loses_its_data: bool,
    seed: int,
) -> None:
    """Whenever it begins, and however long it lasts: who is without the ledger takes its share."""
    dice = random.Random(100 * limit + seed)
    calls = processes * callers
    begins = dice.uniform(1, max(3, ideal(calls, limit, length) - 5))
    played = sailed(
        processes,
        callers,
        server={"limit": limit, "length": length},
        wire={
            "cuts": [(begins, begins + dice.uniform(1, 6), how)],
            "loses_its_data": loses_its_data,
        },
        seed=seed,
    )
    assert played.served == calls
    assert played.refused <= 1
    assert played.makespan < ideal(calls, limit, length) + 7
    assert played.are_at_rest


@pytest.mark.parametrize(
    ("seed", "processes", "length", "emptied"),
    [
        (90, 2, 5.0, (10.28, 11.56)),
        (148, 4, 5.0, (5.01, 17.12)),
        (189, 4, 15.0, (30.27,)),
        (212, 4, 5.0, (5.29,)),
        *((seed, 8, 6.0, (0.4 + 0.7 * seed, 7.0 + seed)) for seed in range(8)),
    ],
)
def test_a_ledger_that_is_emptied_unnoticed_costs_one_refusal_at_most(
    seed: int, processes: int, length: float, emptied: tuple[float, ...]
) -> None:
    """What others hold, and have told, is unknown then: 34, 24, 16 and 3 calls were refused."""
    played = sailed(
        processes,
        400 // processes,
        server={"limit": 100, "length": length},
        wire={"emptied": emptied},
        seed=seed,
    )
    assert played.served == 400
    assert max(played.server.refused_in.values(), default=0) <= 1
    assert played.makespan < ideal(400, 100, length) + length * len(emptied) + 1
    assert played.are_at_rest


@pytest.mark.parametrize("length", [9.0, 900.0])
@pytest.mark.parametrize("how", ["raise", "hang"])
@pytest.mark.parametrize("processes", [2, 4])
def test_a_ledger_that_is_away_from_the_start_keeps_nobody(
    processes: int, how: str, length: float
) -> None:
    """Nor does anybody take for his own what others may take as well: 46 were refused of four."""
    played = sailed(processes, 25, server=FULL, wire={"cuts": [(0.0, length, how)]})
    assert played.served == 25 * processes
    assert played.server.starts[0] < 1000 + 0.3  # where the loop's clock begins
    assert played.refused == 0
    assert played.makespan < ideal(25 * processes) + 6
    assert played.are_at_rest or length == 900, "there is yet to be told what was called meanwhile"


@pytest.mark.parametrize("how", ["raise", "hang"])
@pytest.mark.parametrize("back", [(900.0, 900.0), (3.1, 5.2)], ids=["never", "for a moment"])
@pytest.mark.parametrize("processes", [8, 16])
def test_processes_that_hardly_had_the_ledger_see_for_themselves_how_many_they_are(
    processes: int, back: tuple[float, float], how: str
) -> None:
    """Of eight 4 were refused in each window, and 12 of sixteen.

    Who came back first had been told that there were few, and took their shares: 23 were refused.
    """
    away, away_again = back
    played = sailed(
        processes,
        240 // processes,
        server={"limit": 100, "length": 20.0},
        wire={"cuts": [(0.0, away, how), (away_again, 900.0, how)]},
    )
    assert played.served == 240
    assert played.refused <= 1
    assert played.makespan < ideal(240, 100, 20.0) + 6


@pytest.mark.parametrize("limit", [15, 30, 100])
@pytest.mark.parametrize("processes", [1, 2, 4, 8])
def test_processes_that_never_had_the_ledger_spend_each_window_and_one_is_refused_at_most(
    processes: int, limit: int
) -> None:
    """Eight had up to four refused in every second window of 15; one alone left a fifth of it."""
    refused, used = [], []
    for seed in range(6):
        played = sailed(
            processes,
            12 * limit // processes,
            server={"limit": limit, "length": 5.0 if limit < 100 else 20.0},
            wire={"cuts": [(0.0, 9000.0, "raise" if seed % 2 else "hang")]},
            seed=seed,
        )
        refused += [played.server.refused_in[window] for window in range(1, 5)]
        used += [window.used / limit for window in played.server.history[1:3]]
    assert sum(each > 1 for each in refused) <= 1, "of 24 windows"
    assert max(refused) <= 2
    assert sum(used) / len(used) > 0.985


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("processes", "limit"), [(2, 30), (4, 30), (4, 100)])
def test_a_process_that_is_cut_off_alone_finds_its_share_of_the_next_window(
    processes: int, limit: int, seed: int
) -> None:
    """The others took it as well: all of the share was refused in one window, up to 24."""
    calls = 4 * limit
    played = sailed(
        processes,
        calls // processes,
        server={"limit": limit, "length": 5.0},
        cut_off=[(random.Random(seed).uniform(1, 12), 900.0, "raise")],
        seed=seed,
    )
    assert played.served == calls // processes * processes
    assert played.most_refused_in_a_window <= 2
    # One that is cut off alone makes as many calls as it has a share of: it may end late.
    assert played.makespan < ideal(calls, limit) + 3 * 5.0


@pytest.mark.parametrize(
    ("processes", "at", "seed"),
    [(4, 4.42, 13), (4, 2.72, 25), (4, 1.69, 28), (4, 1.21, 59), (8, 4.998, 37)],
)
def test_a_process_that_stays_cut_off_has_its_share_of_each_window(
    processes: int, at: float, seed: int
) -> None:
    """It was left to it once, when it waited for the reset: 7 to 15 were refused of a window."""
    played = sailed(
        processes,
        400 // processes,
        server={"limit": 100, "length": 5.0},
        cut_off=[(at, 900.0, "raise")],
        seed=seed,
    )
    assert played.served == 400
    assert played.most_refused_in_a_window <= 1


@pytest.mark.asyncio
async def test_a_process_that_is_held_up_itself_does_not_take_the_ledger_for_away() -> None:
    told: list[object] = []

    class Slow(MemoryLedger):
        async def exchange(self, reports: Sequence[Report]) -> Sequence[Lease]:
            await asyncio.sleep(0.05)
            asyncio.get_running_loop().call_soon(time.sleep, 0.4)  # whatever else this loop does
            await asyncio.sleep(0.05)
            return await super().exchange(reports)

    limiter = Limiter(ledger=Slow(), on_event=told.append)
    (await limiter.acquire(KEY)).unsent()
    assert not [event for event in told if isinstance(event, events.LedgerAway)]
    await limiter.close()


@pytest.mark.asyncio
async def test_a_ledger_that_hangs_is_given_up_by_a_process_that_is_held_up_all_the_time() -> None:
    told: list[object] = []
    loop = asyncio.get_running_loop()

    class Hanging(MemoryLedger):
        async def exchange(self, reports: Sequence[Report]) -> Sequence[Lease]:
            while True:
                time.sleep(0.05)  # noqa: ASYNC251 - this is what is to be lived through
                await asyncio.sleep(0.001)

    limiter = Limiter(ledger=Hanging(), on_event=told.append)
    began = loop.time()
    (await limiter.acquire(KEY)).unsent()
    assert loop.time() - began > 0.24
    assert [event for event in told if isinstance(event, events.LedgerAway)]
    await limiter.close()


@in_virtual_time
async def test_calls_of_a_process_that_began_without_the_ledger_are_told_when_it_is_back() -> None:
    loop = asyncio.get_running_loop()
    wire = Wire(MemoryLedger(clock=loop.time), cuts=[(0.0, 5.0, "raise")])
    limiter = Limiter(ledger=wire)
    (await limiter.acquire(KEY)).observed(headers(12, 600))
    on_the_way = [await limiter.acquire(KEY) for _ in range(2)]
    await asyncio.sleep(20)
    another = Limiter(ledger=wire)
    with pytest.raises(TimeoutError):
        # One more than was answered may be on its way.
        await asyncio.wait_for(another.acquire(KEY), 5)
    assert another.quota(KEY).limit == 15
    for each in on_the_way:
        each.observed(headers(10, 580))
    (await another.acquire(KEY, max_wait=2)).unsent()
    await limiter.close()
    await another.close()


@in_virtual_time
async def test_a_hung_ledger_costs_a_call_300_ms_at_most() -> None:
    loop = asyncio.get_running_loop()
    wire = Wire(MemoryLedger(clock=loop.time))
    limiter = Limiter(ledger=wire)
    (await limiter.acquire(KEY)).observed(headers(14, 600))
    await asyncio.sleep(30)
    wire.cuts = [(0.0, 1e9, "hang")]
    before = loop.time()
    permit = await limiter.acquire(KEY)
    assert loop.time() - before < 0.3
    permit.unsent()
    # From then on nobody waits for it.
    before = loop.time()
    (await limiter.acquire(KEY)).unsent()
    assert loop.time() == before
    await limiter.close()


@in_virtual_time
async def test_a_ledger_that_is_away_is_an_error_for_those_who_want_one() -> None:
    loop = asyncio.get_running_loop()
    wire = Wire(MemoryLedger(clock=loop.time), cuts=[(0.0, 5.0, "raise")])
    limiter = Limiter(ledger=wire, on_ledger_failure="fail")
    with pytest.raises(LedgerError, match="cut off"):
        await limiter.acquire(KEY)
    with pytest.raises(LedgerError):
        await limiter.acquire(KEY)
    await asyncio.sleep(20)
    (await limiter.acquire(KEY)).unsent()
    await limiter.close()


@in_virtual_time
async def test_all_who_wait_are_told_that_the_ledger_is_away() -> None:
    loop = asyncio.get_running_loop()
    wire = Wire(MemoryLedger(clock=loop.time), cuts=[(5.0, 600.0, "raise")])
    limiter = Limiter(ledger=wire, on_ledger_failure="fail")
    (await limiter.acquire(KEY)).observed(headers(0, 60))
    tasks = [asyncio.ensure_future(limiter.acquire(KEY)) for _ in range(3)]
    await asyncio.wait(tasks, timeout=100, return_when=asyncio.FIRST_COMPLETED)
    await settle()
    assert {type(task.exception()) for task in tasks} == {LedgerError}
    await limiter.close()


@in_virtual_time
async def test_case_49_nobody_waits_for_ever_when_neither_server_nor_ledger_answers() -> None:
    loop = asyncio.get_running_loop()
    wire = Wire(MemoryLedger(clock=loop.time), cuts=[(0.0, 1e9, "raise")])
    limiter, lost = Limiter(ledger=wire), []

    async def one() -> None:
        permit = await limiter.acquire(KEY)
        lost.append(permit)
        await asyncio.sleep(0.1)
        permit.lost()

    async with asyncio.timeout(1000):
        ends = await asyncio.gather(*(one() for _ in range(50)), return_exceptions=True)
    assert len(lost) < 20
    assert [type(end) for end in ends if end].count(QuotaTimeoutError) == 50 - len(lost)
    await limiter.close()


@in_virtual_time
async def test_who_comes_while_the_ledger_is_away_goes_when_it_is_back() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    wire = Wire(MemoryLedger(clock=loop.time))
    limiter, other = Limiter(ledger=wire), Limiter(ledger=wire)
    await warmed(limiter, 14)
    for each in (other, limiter):
        (await each.acquire(KEY)).observed(headers(14, 590))
    await asyncio.sleep(5)
    began = loop.elapsed
    wire.cuts = [(began, began + 30, "raise")]
    # Of this quota nothing is told to the ledger meanwhile: another one finds out.
    (await limiter.acquire(QuotaKey("GET /other", "x"))).unsent()
    await asyncio.sleep(3)
    async with asyncio.timeout(100):
        for left in range(13, -1, -1):
            (await limiter.acquire(KEY)).observed(headers(left, 590))
    assert 30 < loop.elapsed - began < 45, (
        "a share of them at once, and the others not at the reset"
    )
    await limiter.close()
    await other.close()


@in_virtual_time
async def test_a_ledger_that_was_emptied_names_its_records_anew() -> None:
    loop = asyncio.get_running_loop()
    wire = Wire(MemoryLedger(clock=loop.time))
    limiters = [Limiter(ledger=wire) for _ in range(2)]
    (await limiters[0].acquire(KEY)).unsent()
    await asyncio.sleep(1)
    wire.ledger = MemoryLedger(clock=loop.time)
    wire.cuts = [(0.0, 3.0, "raise")]
    (await limiters[0].acquire(KEY)).unsent()
    await asyncio.sleep(10)
    del wire.reports[:]
    for each in limiters:
        (await each.acquire(KEY)).unsent()
    assert len({report.record for report in wire.reports}) == 1
    for each in limiters:
        await each.close()


class Odd:
    """A ledger of somebody's own that is broken."""

    async def exchange(self, reports: Any) -> Any:
        raise KeyError("of its own")

    async def secret(self) -> bytes:
        return b"odd"

    async def close(self) -> None:
        """Nothing to close."""


@in_virtual_time
async def test_a_broken_ledger_is_one_that_is_away() -> None:
    ledger: Ledger = Odd()
    limiter = Limiter(ledger=ledger)
    began = asyncio.get_running_loop().time()
    for remaining in (14, 13, 12):
        (await limiter.acquire(KEY)).observed(headers(remaining, 600))
    assert asyncio.get_running_loop().time() == began
    await limiter.close()


class Silent(Odd):
    """One that answers nothing of what it is asked."""

    async def exchange(self, reports: Any) -> Any:
        return []


@in_virtual_time
async def test_a_ledger_that_leaves_reports_unanswered_is_one_that_is_away() -> None:
    limiter = Limiter(ledger=Silent(), on_ledger_failure="fail")
    async with asyncio.timeout(5):
        with pytest.raises(LedgerError, match="answered 0 of 1 reports"):
            await limiter.acquire(KEY)
    await limiter.close()


@pytest.mark.parametrize("text", ["", "7", "[]", '["15min"]', "[[]]", "nonsense"])
def test_what_others_are_said_to_have_been_shown_is_read_with_care(text: str) -> None:
    assert leases.loads(text) is None


@pytest.mark.parametrize("seed", range(4))
def test_messages_that_are_lost_do_no_harm_that_lasts(seed: int) -> None:
    played = sailed(4, 50, server=FULL, wire={"loses": 0.03}, seed=seed)
    assert played.served == 200
    assert played.most_refused_in_a_window <= 5
    assert played.makespan < ideal(200) + 6


# Other windows -------------------------------------------------------------------------------


async def calls_by(
    limiters: list[Limiter], n: int, seconds: float, key: QuotaKey = KEY
) -> tuple[list[float], int]:
    """Have calls of so many seconds made, n per limiter: when each went, and the most at once."""
    loop = asyncio.get_running_loop()
    starts: list[float] = []
    at_once, most = 0, 0

    async def one(limiter: Limiter) -> None:
        nonlocal at_once, most
        permit = await limiter.acquire(key)
        starts.append(loop.time())
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(seconds)
        at_once -= 1
        permit.observed({})

    await asyncio.gather(*(one(limiter) for limiter in limiters for _ in range(n)))
    return sorted(starts), most


@in_virtual_time
async def test_a_local_rate_is_one_rate_over_all_processes() -> None:
    loop = asyncio.get_running_loop()
    wire = Wire(MemoryLedger(clock=loop.time))
    rates = {KEY.route: Rate(5, per=1)}
    limiters = [Limiter(ledger=wire, rates=rates) for _ in range(4)]
    for limiter in limiters:
        (await limiter.acquire(KEY)).observed(headers(10**6, 800))
    await asyncio.sleep(1)
    starts, _ = await calls_by(limiters, 10, 0.01)
    gaps = [after - before for before, after in itertools.pairwise(starts)]
    assert min(gaps) > 0.2 - 0.01
    assert starts[-1] - starts[0] < 1.5 * 40 / 5
    for limiter in limiters:
        await limiter.close()


@in_virtual_time
async def test_a_local_concurrency_is_one_over_all_processes() -> None:
    loop = asyncio.get_running_loop()
    wire = Wire(MemoryLedger(clock=loop.time))
    rates = {"*": Concurrency(3)}
    limiters = [Limiter(ledger=wire, rates=rates) for _ in range(4)]
    for limiter in limiters:
        (await limiter.acquire(KEY)).observed(headers(10**6, 800))
    starts, most = await calls_by(limiters, 10, 1.0)
    assert most == 3
    assert starts[-1] - starts[0] < 1.6 * 40 / 3
    for limiter in limiters:
        await limiter.close()


def day(remaining: int) -> dict[str, str]:
    loop: Any = asyncio.get_running_loop()
    return headers(15, 600) | {
        "x-app-limit-24hour-limit": "100",
        "x-app-limit-24hour-remaining": str(remaining),
        "x-app-limit-24hour-reset": str(int(loop.wall_time() + 80_000)),
    }


@in_virtual_time
async def test_the_users_of_an_app_share_its_window_whatever_process_they_are_in() -> None:
    loop = asyncio.get_running_loop()
    wire = Wire(MemoryLedger(clock=loop.time))
    users = [QuotaKey("POST /2/tweets", "x", f"user {at}", "app") for at in range(4)]
    limiters = [Limiter(ledger=wire) for _ in users]
    for left, (limiter, user) in enumerate(zip(limiters, users, strict=True)):
        (await limiter.acquire(user)).observed(day(3 - left))
        await asyncio.sleep(0.2)
    for limiter, user in zip(limiters, users, strict=True):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(limiter.acquire(user), 60)
    for limiter in limiters:
        await limiter.close()


@in_virtual_time
async def test_a_window_that_is_told_of_once_and_never_again_holds_nobody_for_long() -> None:
    loop: Any = asyncio.get_running_loop()
    wire = Wire(MemoryLedger(clock=loop.time))
    limiter = Limiter(ledger=wire)
    phantom = {
        "x-app-limit-24hour-limit": "100",
        "x-app-limit-24hour-remaining": "9",
        "x-app-limit-24hour-reset": str(int(loop.wall_time() + 60)),
    }
    (await limiter.acquire(KEY)).observed(headers(900, 800, limit=900) | phantom)
    await asyncio.sleep(70)
    for _ in range(80):
        (await limiter.acquire(KEY)).observed(headers(800, 730, limit=900))
    async with asyncio.timeout(1):
        permits = await asyncio.gather(*(limiter.acquire(KEY) for _ in range(20)))
    for permit in permits:
        permit.observed(headers(700, 730, limit=900))
    await limiter.close()


@in_virtual_time
async def test_names_of_users_and_routes_never_leave_the_process() -> None:
    loop = asyncio.get_running_loop()
    wire = Wire(MemoryLedger(clock=loop.time))
    limiter = Limiter(ledger=wire, rates={KEY.route: Rate(5, per=1)})
    (await limiter.acquire(KEY)).observed(headers(14, 600))
    (await limiter.acquire(KEY)).observed(headers(13, 600))
    await limiter.close()
    assert wire.reports
    said = repr(wire.reports)
    for secret in (KEY.identity, KEY.route, "privacy", "app'"):
        assert secret not in said


@in_virtual_time
async def test_digests_of_a_credential_are_the_same_in_every_process() -> None:
    loop = asyncio.get_running_loop()
    wire = Wire(MemoryLedger(clock=loop.time))
    for _ in range(2):
        limiter = Limiter(ledger=wire)
        key = QuotaKey("GET /x", "x", limiter.digest("token of u:42"), limiter.digest("app"))
        (await limiter.acquire(key)).observed(headers(14, 600))
        await limiter.close()
    windows = {report.record for report in wire.reports if report.notes}
    assert len(windows) == 1


@in_virtual_time
async def test_a_ledger_in_memory_follows_virtual_time_by_itself() -> None:
    ledger = MemoryLedger()
    first, second = Limiter(ledger=ledger), Limiter(ledger=ledger)
    (await first.acquire(KEY)).observed(headers(0, 600))
    permit = await second.acquire(KEY, max_wait=700)
    assert permit.waited == pytest.approx(600, abs=2)
    permit.unsent()
    await first.close()
    await second.close()


@in_virtual_time
async def test_every_process_names_alike_what_is_counted_together() -> None:
    rates = {"GET /x": Rate(1, per=1), "GET *": Concurrency(3)}
    limiter = Limiter(ledger=MemoryLedger(), rates=rates)
    user, app = limiter.digest("token of u:42"), limiter.digest("the app")
    fields = headers(14, 600) | {
        "x-app-limit-24hour-remaining": "9",
        "x-app-limit-24hour-reset": headers(9, 6000)["x-rate-limit-reset"],
    }
    (await limiter.acquire(QuotaKey("GET /x", "api", user, app))).observed(fields)
    named = {"limit": "9", "remaining": "5", "reset": "9.5", "reset-after": "60", "bucket": "b"}
    permit = await limiter.acquire(QuotaKey("POST /y", "api", "u:7", "mine"), dialect=AUTO)
    permit.observed({f"x-ratelimit-{name}": value for name, value in named.items()})
    limiter.adopt("api", {"POST *": Concurrency(2)})
    buckets = [line.bucket for line in limiter._lines.values()]
    assert {share.name for bucket in buckets for share in shares_of(bucket)} == {
        ("api", "the app", "identity", "token of u:42", "GET /x"),
        ("api", "the app", "identity", "token of u:42", "GET /x", "pace"),
        ("api", "the app", "identity", "token of u:42", "GET /x", "15min"),
        ("api", "the app", "app", "the app", "GET /x", "24h-app"),
        ("api", "", "identity", "token of u:42", "GET /x", repr(rates["GET /x"])),
        ("api", "", "identity", "token of u:42", "GET *", repr(rates["GET *"])),
        ("api", "", "identity", "u:7", "POST *", repr(Concurrency(2))),
        ("api", "mine", "identity", "u:7", "POST /y"),
        ("api", "mine", "identity", "u:7", "POST /y", "pace"),
        ("api", "mine", "identity", "u:7", "b", "bucket"),
    }
    await limiter.close()


def test_names_of_credentials_that_nobody_uses_any_more_are_forgotten() -> None:
    limiter = Limiter(ledger=MemoryLedger(), max_quotas=1)
    used = limiter.digest("used")
    for number in range(10_000):
        limiter.digest(str(number))
        assert used in limiter._registry._materials
        limiter.digest("used")
    assert len(limiter._registry._materials) < 5000
    assert limiter._registry._materials[used] == "used"


@in_virtual_time
async def test_a_process_that_is_started_again_knows_what_is_left() -> None:
    loop = asyncio.get_running_loop()
    wire = Wire(MemoryLedger(clock=loop.time))
    first = Limiter(ledger=wire)
    (await first.acquire(KEY)).observed(headers(1, 600))
    await first.close()
    again = Limiter(ledger=wire)
    (await again.acquire(KEY)).observed(headers(0, 600))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(again.acquire(KEY), 60)
    assert again.quota(KEY).remaining == 0
    await again.close()


@in_virtual_time
async def test_a_wait_that_is_known_not_to_fit_fails_at_once_in_every_process() -> None:
    from aiotwhelp import QuotaTimeoutError

    loop = asyncio.get_running_loop()
    wire = Wire(MemoryLedger(clock=loop.time))
    first, second = Limiter(ledger=wire), Limiter(ledger=wire)
    (await first.acquire(KEY)).observed(headers(0, 600))
    await asyncio.sleep(0.2)
    before = loop.time()
    with pytest.raises(QuotaTimeoutError):
        await second.acquire(KEY, max_wait=60)
    assert loop.time() - before < 0.3
    await first.close()
    await second.close()


@in_virtual_time
async def test_interactive_callers_find_what_is_kept_for_them_in_any_process() -> None:
    from aiotwhelp import Priority

    loop = asyncio.get_running_loop()
    wire = Wire(MemoryLedger(clock=loop.time))
    first, second = (Limiter(ledger=wire, reserve=0.2) for _ in range(2))
    await warmed(first, 5)
    taken = [await first.acquire(KEY) for _ in range(2)]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(first.acquire(KEY), 20)
    kept = [await second.acquire(KEY, priority=Priority.INTERACTIVE) for _ in range(3)]
    for each in (*taken, *kept):
        each.unsent()
    await first.close()
    await second.close()


@in_virtual_time
async def test_with_a_reserve_nobody_waits_for_the_reset_of_a_new_window() -> None:
    loop = asyncio.get_running_loop()
    limiter = Limiter(ledger=Wire(MemoryLedger(clock=loop.time)), reserve=0.2)
    for left in range(99, 90, -1):
        permit = await limiter.acquire(KEY, max_wait=5)
        permit.observed(headers(left, 600, limit=100))
    await limiter.close()


@in_virtual_time
async def test_a_call_of_great_cost_gets_all_of_its_tokens_together() -> None:
    loop = asyncio.get_running_loop()
    wire = Wire(MemoryLedger(clock=loop.time))
    first, second = Limiter(ledger=wire), Limiter(ledger=wire)
    (await first.acquire(KEY)).observed(headers(100, 600, limit=100))
    for left in range(99, 60, -1):
        (await second.acquire(KEY)).observed(headers(left, 600, limit=100))
    permit = await first.acquire(KEY, cost=40, max_wait=30)
    permit.observed(headers(20, 600, limit=100))
    with pytest.raises(ValueError, match="never fits"):
        await first.acquire(KEY, cost=101)
    await first.close()
    await second.close()


@in_virtual_time
async def test_calls_of_great_cost_do_not_wait_for_the_reset_of_a_new_window() -> None:
    loop = asyncio.get_running_loop()
    limiter = Limiter(ledger=Wire(MemoryLedger(clock=loop.time)))
    for left in (1000, 950, 900):
        permit = await limiter.acquire(KEY, cost=50, max_wait=5)
        permit.observed(headers(left, 600, limit=1000))
    await limiter.close()


def test_waiters_that_leave_delay_nobody() -> None:
    played = sailed(4, 40, server=FULL, faults={"cancelled": 0.5}, seed=4)
    gone = sum(each != "served" for one in played.outcomes for each in one.results)
    assert played.served + gone == 160
    assert played.refused == 0
    assert played.makespan < ideal(160) + 1.5


@in_virtual_time
async def test_a_crowd_leaves_no_timer_and_no_task_behind() -> None:
    before = asyncio.all_tasks()
    played = await fleet(3, 20, server=FULL)
    for limiter in played.limiters:
        assert limiter._sharing is not None
        assert limiter._sharing._timer is None
        await limiter.close()
    await settle()
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("wrong", ["", "mysql://x", "privacy.db", "redis:/:a-pass@x"])
def test_what_is_no_ledger_is_told_so(wrong: str) -> None:
    with pytest.raises(ValueError, match="sqlite:///") as caught:
        Limiter(ledger=wrong)
    assert "a-pass" not in str(caught.value)


def test_a_failure_is_handled_in_one_of_two_ways() -> None:
    with pytest.raises(ValueError, match="degrade"):
        Limiter(on_ledger_failure="open")  # type: ignore[arg-type]


@pytest.mark.parametrize("processes", [1, 4])
def test_windows_are_spent_in_spite_of_losses(processes: int) -> None:
    faults = {"drop_after": 0.05, "headerless": 0.05}
    unused = []
    for seed in range(6):
        played = sailed(processes, 96 // processes, server=FULL, faults=faults, seed=seed)
        assert played.served == 96
        unused += [window.limit - window.used for window in played.server.history[:-1]]
    assert sum(unused) <= 0.03 * 15 * len(unused)


# What waits is asked again -------------------------------------------------------------------


@in_virtual_time
async def test_a_pace_that_has_ended_keeps_nobody_who_is_told_of_it_again() -> None:
    loop = asyncio.get_running_loop()
    limiter = Limiter(ledger=Wire(MemoryLedger(clock=loop.time)))
    (await limiter.acquire(KEY)).observed(headers(14, 600))
    for left in (13, 12):
        limiter._lines[KEY].bucket.join_pace()
        (await limiter.acquire(KEY, max_wait=5)).observed(headers(left, 600))
        await asyncio.sleep(3)
    await limiter.close()


@in_virtual_time
async def test_calls_that_end_while_the_ledger_is_asked_keep_nobody() -> None:
    loop = asyncio.get_running_loop()
    wire = Wire(MemoryLedger(clock=loop.time), latency=(0.05, 0.05))
    limiter = Limiter(ledger=wire)
    (await limiter.acquire(KEY)).observed({})
    await asyncio.sleep(3)
    in_flight = [await limiter.acquire(KEY) for _ in range(2)]
    waits = asyncio.create_task(limiter.acquire(KEY))
    await asyncio.sleep(0.01)
    for each in in_flight:
        each.unsent()
    async with asyncio.timeout(0.5):
        (await waits).unsent()
    await limiter.close()


@in_virtual_time
async def test_room_that_is_left_while_the_ledger_is_asked_is_given_back() -> None:
    loop = asyncio.get_running_loop()
    wire = Wire(MemoryLedger(clock=loop.time), latency=(0.05, 0.05))
    limiter, another = (Limiter(ledger=wire, rates={"*": Concurrency(1)}) for _ in range(2))
    permit = await limiter.acquire(KEY)
    waits = asyncio.create_task(limiter.acquire(KEY))
    await asyncio.sleep(0.01)
    permit.observed({})
    waits.cancel()
    await asyncio.sleep(0.5)
    (await another.acquire(KEY, max_wait=1)).unsent()
    await limiter.close()
    await another.close()


@pytest.mark.parametrize("seed", range(4))
@in_virtual_time
async def test_of_several_limits_each_is_asked_for_again(seed: int) -> None:
    loop = asyncio.get_running_loop()
    wire = Wire(MemoryLedger(clock=loop.time), seed=seed)
    rates = {"*": [Rate(3, per=1), Rate(20, per=10, burst=20)], "/0": Concurrency(1)}
    limiter = Limiter(ledger=wire, rates=rates)

    async def call(number: int) -> None:
        await asyncio.sleep(wire.random.uniform(0, 5))
        async with limiter.permit(QuotaKey(f"GET /{number % 3}", "x", "u")) as permit:
            await asyncio.sleep(wire.random.choice([0.05, 0.2, 5]))
            permit.observed({})

    async with asyncio.timeout(200):
        await asyncio.gather(*(call(number) for number in range(40)))
    await limiter.close()


@in_virtual_time
async def test_a_probe_whose_caller_has_left_keeps_no_other_process_for_long() -> None:
    loop = asyncio.get_running_loop()
    wire = Wire(MemoryLedger(clock=loop.time), latency=(0.01, 0.01))
    first, second = Limiter(ledger=wire), Limiter(ledger=wire)
    leaves = asyncio.ensure_future(first.acquire(KEY))
    await asyncio.sleep(0.015)
    leaves.cancel()
    began = loop.time()
    (await second.acquire(KEY)).observed(headers(14, 60))
    assert loop.time() - began < 0.5
    await first.close()
    await second.close()


@in_virtual_time
@pytest.mark.parametrize("known", [False, True])
async def test_calls_that_never_leave_are_followed_at_once_by_the_next(known: bool) -> None:
    """Each of many callers is told at once that there is no token to sign its call with."""
    loop = asyncio.get_running_loop()
    wire = Wire(MemoryLedger(clock=loop.time), latency=(0.01, 0.01))
    limiters = [Limiter(ledger=wire) for _ in range(4)]
    if known:  # of a window that has ended since
        (await limiters[0].acquire(KEY)).observed(headers(14, 5))
        await asyncio.sleep(10)
    began = loop.time()

    async def in_vain(limiter: Limiter) -> None:
        (await limiter.acquire(KEY)).unsent()

    await asyncio.gather(*(in_vain(each) for each in limiters for _ in range(50)))
    assert loop.time() - began < 4
    (await limiters[0].acquire(KEY)).observed(headers(14, 60))
    for each in limiters:
        await each.close()


@in_virtual_time
async def test_who_never_waits_finds_tokens_when_the_ledger_has_been_asked() -> None:
    loop = asyncio.get_running_loop()
    limiter = Limiter(ledger=Wire(MemoryLedger(clock=loop.time)))
    for left in (14, 13, 12):
        assert limiter.try_acquire(KEY) is None
        await asyncio.sleep(0.1)
        permit = limiter.try_acquire(KEY)
        assert permit is not None
        permit.observed(headers(left, 600))
        await asyncio.sleep(3)
    await limiter.close()


# Quotas that are forgotten -------------------------------------------------------------------


async def pushed_out(limiter: Limiter, key: QuotaKey) -> None:
    """Have others take a quota's place."""
    others = (QuotaKey(f"GET /{number}", "another API") for number in itertools.count())
    while key in limiter._lines:
        (await limiter.acquire(next(others))).observed({})
    await asyncio.sleep(1)


@in_virtual_time
async def test_a_quota_that_was_forgotten_and_comes_back_is_heard_at_once() -> None:
    loop = asyncio.get_running_loop()
    wire = Wire(MemoryLedger(clock=loop.time))
    limiter = Limiter(ledger=wire, max_quotas=1)
    for left in range(99, 79, -1):
        (await limiter.acquire(KEY)).observed(headers(left, 600, limit=100))
        await asyncio.sleep(0.2)
    await pushed_out(limiter, KEY)
    before = wire.exchanges
    (await limiter.acquire(KEY)).observed(headers(30, 600, limit=100))
    await asyncio.sleep(0.2)
    assert wire.exchanges - before <= 5
    another = Limiter(ledger=wire)
    (await another.acquire(KEY)).unsent()
    assert (another.quota(KEY).remaining or 0) <= 30, "what it was told is known to all"
    assert another._sharing is not None
    assert another._sharing.health.clients == 2, "a quota that came back counts once"
    await limiter.close()
    await another.close()


@in_virtual_time
async def test_what_others_show_of_a_quota_that_was_forgotten_is_of_no_matter() -> None:
    loop = asyncio.get_running_loop()
    wire = Wire(MemoryLedger(clock=loop.time))
    limiter, another = Limiter(ledger=wire, max_quotas=1), Limiter(ledger=wire)
    key = QuotaKey("GET /2/users/me", "x", "u", "app")
    (await limiter.acquire(key)).observed({})
    of_app = {
        name.replace("x-rate-limit", "x-app-limit-24hour"): value
        for name, value in headers(9, 600).items()
        if name.startswith("x-rate-limit")
    }
    (await another.acquire(key)).observed(headers(9, 600) | of_app)
    await asyncio.sleep(0.2)
    await pushed_out(limiter, key)
    assert not limiter._registry.windows
    await limiter.close()
    await another.close()


def test_loops_of_several_threads_take_turns_at_a_memory_ledger() -> None:
    inside = most = 0

    def clock() -> float:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.02)  # really: another thread has to have its chance
        inside -= 1
        return 1.0

    ledger = MemoryLedger(clock=clock)

    def exchange(client: int) -> None:
        asyncio.run(ledger.exchange([Report("record", str(client), 1)]))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(exchange, range(8)))
    assert most == 1


# Where nobody answers --------------------------------------------------------------------------


def ends(processes: int, ending: Ending, *, is_shared: bool = True) -> list[list[float]]:
    """Have 12 callers in each process try five times each; when they have ended, by process."""

    async def main() -> list[list[float]]:
        loop = asyncio.get_running_loop()
        ledger = MemoryLedger(clock=loop.time) if is_shared else None
        limiters = [
            Limiter(ledger=None if ledger is None else Wire(ledger, seed=at))
            for at in range(processes)
        ]
        began = loop.time()

        async def one(limiter: Limiter) -> float:
            ticket = limiter.ticket()
            with suppress(QuotaTimeoutError):
                for _ in range(5):
                    permit = await limiter.acquire(KEY, ticket=ticket)
                    await asyncio.sleep(0.001)
                    ending(permit)
            return loop.time() - began

        crowds = (asyncio.gather(*(one(each) for _ in range(12))) for each in limiters)
        ended = await asyncio.gather(*crowds)
        for each in limiters:
            await each.close()
        return ended

    return run(main(), debug=False)


def never_left(permit: Permit) -> None:
    permit.unsent(failed=True, reason="nobody is there")


def sent_in_silence(processes: int, *, seed: int, opened: bool) -> int:
    """Have 20 callers in each process call a server that accepts all and answers none for 30 s.

    ``opened`` are processes that were answered in the window before.
    """

    async def main() -> int:
        loop = asyncio.get_running_loop()
        ledger = MemoryLedger(clock=loop.time)
        limiters = [Limiter(ledger=Wire(ledger, seed=10 * seed + at)) for at in range(processes)]
        if opened:
            for each in limiters:
                (await each.acquire(KEY)).observed(headers(9, 5))
            await asyncio.sleep(7)
        sent: list[Permit] = []

        async def one(limiter: Limiter) -> None:
            async with limiter.permit(KEY) as permit:
                sent.append(permit)
                await asyncio.sleep(3600)

        calls = [asyncio.ensure_future(one(each)) for each in limiters for _ in range(20)]
        await asyncio.sleep(30)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        for each in limiters:
            await each.close()
        return len(sent)

    return run(main(), seed=seed, debug=False)


@pytest.mark.parametrize("opened", [False, True], ids=["at first", "at a reset"])
@pytest.mark.parametrize("processes", [1, 3])
def test_a_silent_server_sees_two_probes_and_never_a_third(processes: int, opened: bool) -> None:
    seen = [sent_in_silence(processes, seed=seed, opened=opened) for seed in range(8)]
    assert seen == 8 * [2]


@pytest.mark.parametrize("processes", [1, 2, 4, 8, 20])
def test_case_49_however_many_processes_wait_for_a_server_that_answers_nobody(
    processes: int,
) -> None:
    dead: dict[str, Any] = {
        "server": {"limit": 15, "length": 900.0},
        "faults": {"drop_after": 1.0},
        "attempts": 5,
    }
    alone = played(3, **dead)
    together = sailed(processes, 3, **dead)
    assert together.served == 0
    assert together.are_at_rest
    assert together.makespan < 2 * alone.makespan
    assert together.server.requests <= 1.5 * alone.server.requests


@pytest.mark.parametrize("ending", [Permit.lost, never_left])
@pytest.mark.parametrize("processes", [2, 4, 20])
def test_all_processes_end_when_one_would(processes: int, ending: Ending) -> None:
    ((*_, alone),) = map(sorted, ends(1, ending, is_shared=False))
    ended = sorted(itertools.chain(*ends(processes, ending)))
    assert ended[-1] < 2 * alone
    # Those who only wait are told together.
    assert ended[10 * processes - 1] < 70


def test_where_nobody_is_a_process_need_not_wait_for_others_to_find_out() -> None:
    ((first, *_),) = map(sorted, ends(1, never_left, is_shared=False))
    for process in ends(4, never_left):
        assert min(process) < 1.1 * first


def test_that_callers_wait_is_told_in_every_process_once_for_each_window() -> None:
    played = sailed(4, 30, server={"limit": 15, "length": 900.0})
    waits = [each.callers for each in played.told if isinstance(each, events.Waiting)]
    assert min(waits[:4]) >= 15
    # 120 calls take eight windows; whose callers are through before has nothing to tell.
    assert 4 < len(waits) <= 4 * 7


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_that_callers_wait_is_told_when_nothing_is_left(seed: int) -> None:
    played = sailed(8, 60, seed=seed, server={"limit": 100, "length": 60.0})
    waits = [each for each in played.told if isinstance(each, events.Waiting)]
    assert {each.remaining for each in waits} == {0}
    assert len(waits) >= 8 * 3, "every process has had to wait for windows, and has told of it"


@pytest.mark.parametrize("is_shared", [False, True])
def test_that_callers_wait_for_a_server_that_answers_nobody_is_told_once(is_shared: bool) -> None:
    dead: dict[str, Any] = {"faults": {"drop_after": 1.0}, "attempts": 15}
    told: list[events.Event] = []
    if is_shared:
        told = sailed(1, 3, **dead).told
    else:
        played(3, limiter={"on_event": told.append}, **dead)
    assert [type(event) for event in told].count(events.Waiting) == 1


class Vain:
    """A ledger that has everybody wait for the probes of another process, which find nothing."""

    misses = 0

    async def exchange(self, reports: Sequence[Report]) -> Sequence[Lease]:
        return [Lease(number=1, wait=500, misses=self.misses) for _ in reports]

    async def secret(self) -> bytes:
        return bytes(32)

    async def close(self) -> None:
        pass


@in_virtual_time
async def test_case_49_who_waits_for_probes_of_others_is_failed_by_each_that_is_one_more() -> None:
    ledger = Vain()
    limiter = Limiter(ledger=ledger)
    other = QuotaKey("GET /2/users/me", api="x", identity="someone", app="app")
    first, elsewhere = (asyncio.ensure_future(limiter.acquire(key)) for key in (KEY, other))
    for misses in (1, 5, 6):
        ledger.misses = misses
        await asyncio.sleep(5)
    assert not first.done()  # for 15 s, where the next back-off is 16
    second = asyncio.ensure_future(limiter.acquire(KEY))
    ledger.misses = 7
    await asyncio.sleep(50)
    assert not first.done()  # which only the next one would do
    ledger.misses = 8
    await asyncio.sleep(1)
    for waited, each in ((65, first), (65, elsewhere)):
        error = each.exception()
        assert isinstance(error, QuotaTimeoutError)
        assert str(error).startswith("no permit for ")
        assert f"after {waited} s" in str(error)
        assert error.retry_after == 60.0
    await asyncio.sleep(100)
    assert not second.done()
    ledger.misses = 0
    await asyncio.sleep(1)
    ledger.misses = 9
    await asyncio.sleep(1)
    assert isinstance(second.exception(), QuotaTimeoutError)
    await limiter.close()
