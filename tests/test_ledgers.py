"""What every ledger promises: one suite for all engines (see ledgers.py)."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest

from aiotwhelp.ledger import Report
from aiotwhelp.ledger.port import LEASE, Counts, Outcome
from aiotwhelp.limiter import Limiter
from aiotwhelp.testing import VirtualTimeLoop, run
from tests.ledgers import (
    ENGINES,
    RECORD,
    Engine,
    Process,
    crew,
    engine_of,
    on_every_engine,
    opened,
)
from tests.simulation import Faults, Server, at_rest, crowd

MINUTE = 60_000
HOUR = 60 * MINUTE
START_EPOCH = 1_800_000_000_000


# A cold start ----------------------------------------------------------------------------------


@on_every_engine
async def test_at_a_cold_start_one_probe_goes_for_all_processes(engine: Engine) -> None:
    leases = [await process.ask(50) for process in await crew(engine, 4)]
    assert [(lease.granted, bool(lease.probe)) for lease in leases] == [(1, True)] + 3 * [
        (0, False)
    ]
    assert all(0 < lease.wait <= LEASE for lease in leases[1:] if lease.wait is not None)


@on_every_engine
async def test_processes_that_ask_at_the_same_time_send_one_probe(engine: Engine) -> None:
    leases = await asyncio.gather(*(process.ask(50) for process in await crew(engine, 8)))
    assert sum(lease.granted for lease in leases) == 1


@on_every_engine
async def test_a_second_probe_follows_one_that_is_silent_and_no_third(engine: Engine) -> None:
    first, second, third = await crew(engine, 3)
    await first.ask()
    engine.now += LEASE - 1
    await first.report()  # it is alive, and its probe is still out
    assert not (await second.ask()).granted
    engine.now += 1
    assert (await second.ask()).probe == 1
    assert not (await third.ask()).granted


@on_every_engine
async def test_what_one_process_has_read_opens_the_window_for_all(engine: Engine) -> None:
    first, second = await crew(engine, 2)
    await first.ask()
    await first.read(99, resets_in=800_000)
    lease = await second.ask()
    assert (lease.granted, lease.confirmed, lease.limit, lease.resets_in) == (1, True, 100, 800_000)


@on_every_engine
async def test_answers_without_headers_let_ever_more_go_at_a_cold_start(engine: Engine) -> None:
    first, second = await crew(engine, 2, counts=Counts.COLD)
    await first.ask()
    assert not (await second.ask()).granted
    await first.saw(Outcome.UNREAD, times=10)
    assert (await first.ask(100)).granted + (await second.ask(100)).granted > 1


@on_every_engine
async def test_a_call_that_costs_more_than_was_ever_answered_goes_alone(engine: Engine) -> None:
    first, second = await crew(engine, 2, counts=Counts.COLD)
    await first.ask()
    await first.saw(Outcome.UNREAD)
    assert (await first.ask(5, need=5)).granted == 5
    assert (await second.ask()).wait
    assert not (await first.ask(5, need=5)).granted
    await first.saw(Outcome.UNREAD, cost=5)
    assert (await second.ask(5, need=5)).granted == 5


@on_every_engine
async def test_a_window_that_one_process_was_shown_is_told_to_the_others(engine: Engine) -> None:
    first, second = await crew(engine, 2, counts=Counts.COLD)
    await first.ask()
    await first.report(shown=('["requests",15]', "é"))
    lease = await second.ask()
    assert (lease.shown, lease.granted, lease.wait) == (('["requests",15]', "é"), 0, None)


@on_every_engine
async def test_a_window_is_no_longer_than_the_answer_that_begins_it_surely_allows_for(
    engine: Engine,
) -> None:
    """By a clock that was stepped its reset seems to be far away; the next one begins early."""
    epoch = {"epoch": START_EPOCH + MINUTE}
    first, second = await opened(engine, 2, 99, resets_in=2 * MINUTE, lasts=MINUTE, **epoch)
    engine.now += MINUTE - 6000
    assert (await first.ask()).span == MINUTE
    await second.ask()
    await first.read(0, resets_in=6000, **epoch)
    engine.now += 1000
    epoch = {"epoch": START_EPOCH + 2 * MINUTE - 5000}
    lease = await second.read(99, resets_in=MINUTE, lasts=MINUTE, **epoch)
    assert (lease.remaining, lease.resets_in) == (99, MINUTE)


# Shares ----------------------------------------------------------------------------------------


@on_every_engine
async def test_nobody_is_granted_what_others_hold(engine: Engine) -> None:
    processes = await opened(engine, 4, 40)
    for _ in range(20):
        for process in processes:
            await process.ask(7)
    assert sum(process.held for process in processes) == 40


@on_every_engine
async def test_processes_that_ask_for_all_get_shares(engine: Engine) -> None:
    processes = await opened(engine, 4, 80)
    for process in processes:
        await process.ask(80)
    for process in processes:
        assert 0 < process.held <= 40
    assert sum(process.held for process in processes) <= 80


@on_every_engine
async def test_a_call_of_many_tokens_gets_them_all_or_none(engine: Engine) -> None:
    (process,) = await opened(engine, 1, 40)
    assert (await process.ask(30, need=30)).granted == 30
    assert not (await process.ask(30, need=30)).granted


@on_every_engine
async def test_a_reserve_is_kept_for_more_urgent_callers(engine: Engine) -> None:
    first, second = await opened(engine, 2, 10)
    while (await first.ask(keep=4)).granted:
        pass
    assert first.held == 6
    assert (await second.ask(keep=0)).granted


@on_every_engine
async def test_tokens_that_go_back_unused_are_there_for_others(engine: Engine) -> None:
    first, second = await opened(engine, 2, 10)
    while (await first.ask(10)).granted:
        pass
    assert not (await second.ask()).granted
    first.held = 0
    await first.report()
    assert (await second.ask()).granted


@on_every_engine
async def test_at_the_end_of_a_window_one_waits_for_the_reset(engine: Engine) -> None:
    first, second = await opened(engine, 2, 1)
    await first.ask()
    await first.read(0, resets_in=899_000)
    lease = await second.ask()
    assert (lease.granted, lease.wait, lease.remaining) == (0, 899_000, 0)


@on_every_engine
async def test_quotas_are_apart(engine: Engine) -> None:
    await opened(engine, 1, 0)
    other = Process(engine.open(), "process 0", record="app/another")
    assert (await other.ask()).probe


@on_every_engine
async def test_reports_of_many_records_are_one_exchange(engine: Engine) -> None:
    ledger = engine.open()
    records = [f"app {number % 3}/quota {number}" for number in range(64)]
    for sequence in (1, 2):
        leases = await ledger.exchange(
            [
                Report(record, "a", sequence, counts=Counts.COLD, shown=(record,))
                for record in records
            ]
        )
        assert [lease.shown for lease in leases] == [(record,) for record in records]
    assert not await ledger.exchange([])


@on_every_engine
async def test_a_record_that_is_told_of_twice_in_an_exchange_is_told_in_order(
    engine: Engine,
) -> None:
    leases = await engine.open().exchange(
        [Report(RECORD, "a", 1, want=1), Report(RECORD, "b", 1, want=1), Report(RECORD, "a", 1)]
    )
    assert [lease.granted for lease in leases] == [1, 0, 0]
    assert [lease.stale for lease in leases] == [False, False, True]


# Lost, repeated and late messages ---------------------------------------------------------------


@on_every_engine
async def test_a_report_that_arrives_twice_counts_once(engine: Engine) -> None:
    first, second = await opened(engine, 2, 10)
    await first.ask(2)
    assert first.last is not None
    (again,) = await first.ledger.exchange([first.last])
    assert (again.stale, again.granted) == (True, 0)
    assert again.remaining == 10 - first.held
    assert (await second.report()).remaining == 10 - first.held


@on_every_engine
async def test_a_report_that_was_overtaken_is_ignored(engine: Engine) -> None:
    first, second = await opened(engine, 2, 10)
    await first.ask(2)
    late = first.last
    first.held = 0
    await first.report()
    assert late is not None
    (lease,) = await second.ledger.exchange([late])
    assert lease.stale or lease.clients == 1
    assert (await second.report()).remaining >= 10 - 2


@on_every_engine
async def test_a_grant_whose_answer_was_lost_goes_back_with_the_next_report(engine: Engine) -> None:
    first, second = await opened(engine, 2, 10)
    await first.ask(5)
    assert (await second.report()).remaining < 10
    first.held = 0  # it never learned of it
    await first.report()
    assert (await second.report()).remaining == 10


@on_every_engine
async def test_a_note_is_taken_in_once_however_often_it_is_told(engine: Engine) -> None:
    first, second = await opened(engine, 2, 10)
    await first.ask(2)
    note = first.note(Outcome.UNREAD)
    first.held = 1
    left = {(await first.report(note)).remaining for _ in range(3)}
    assert left == {8}
    assert (await second.report()).remaining == 8


# Debts -----------------------------------------------------------------------------------------


@on_every_engine
async def test_an_answer_without_headers_is_owed_until_a_later_call_is_read(
    engine: Engine,
) -> None:
    first, second = await opened(engine, 2, 10)
    await first.ask()
    await second.ask()
    assert (await first.saw(Outcome.UNREAD)).remaining == 8
    # This one was sent before: it may not have the other one in it.
    second.known = 0
    assert (await second.read(9)).remaining == 8
    await second.ask()
    assert (await second.read(8)).remaining == 8


@on_every_engine
async def test_a_lost_call_is_a_ghost_until_a_call_sent_after_its_span_is_read(
    engine: Engine,
) -> None:
    first, second = await opened(engine, 2, 10)
    await first.ask()
    await second.ask()
    assert (await first.saw(Outcome.LOST)).remaining == 8
    assert (await second.read(9)).remaining == 8, "it may be on its way"
    engine.now += 1500
    await second.ask()
    engine.now += 20
    assert (await second.read(8)).remaining == 8, "by now it is in the number, or never will be"


@on_every_engine
async def test_what_a_dead_process_held_becomes_ghosts(engine: Engine) -> None:
    dead, alive = await opened(engine, 2, 10)
    await dead.ask(4)
    held = dead.held
    assert held
    engine.now += LEASE - 1
    assert (await alive.report()).remaining == 10 - held
    engine.now += 1
    lease = await alive.ask(1)
    # It may as well be cut off, and go on: it is one of two for this window, and the next.
    assert (lease.clients, lease.remaining) == (2, 10 - held - 1)
    engine.now += 1000
    await alive.report()
    engine.now += 20
    await alive.ask(1)
    alive.known = (await alive.report()).number
    engine.now += 1020
    assert (await alive.read(8, took=20)).remaining == 8 - alive.held


@on_every_engine
async def test_if_only_ghosts_block_one_call_goes_to_see(engine: Engine) -> None:
    dead, alive, other = await opened(engine, 3, 2)
    await dead.ask()
    await dead.ask()
    assert dead.held == 2
    engine.now += LEASE
    assert (await alive.ask()).wait == 1000
    engine.now += 1000
    assert (await alive.ask()).probe
    assert not (await other.ask()).granted
    engine.now += 20
    assert (await alive.read(1)).remaining == 1
    assert (await other.ask()).granted


@on_every_engine
async def test_a_process_that_was_stopped_comes_back_with_what_it_still_holds(
    engine: Engine,
) -> None:
    stopped, other = await opened(engine, 2, 10)
    await stopped.ask(4)
    held = stopped.held
    engine.now += 10 * LEASE
    assert (await other.report()).remaining == 10 - held
    lease = await stopped.report()
    assert not lease.stale
    assert lease.remaining <= 10 - held


@on_every_engine
async def test_a_process_that_leaves_is_counted_no_more(engine: Engine) -> None:
    first, second = await opened(engine, 2, 10)
    await first.ask()
    assert (await second.ask()).clients == 2
    first.held = 0
    assert (await first.report()).clients == 2  # it may come back
    await first.report(leaves=True)
    assert (await second.report()).clients == 1


@on_every_engine
async def test_case_13_a_call_that_a_cache_answered_is_owed_until_another_tells(
    engine: Engine,
) -> None:
    first, second = await opened(engine, 2, 10)
    await first.ask(2)
    assert (await first.saw(Outcome.CACHED, cost=2)).remaining == 8
    assert (await second.ask()).granted
    engine.now += 20
    assert (await second.read(9)).remaining == 9


@on_every_engine
async def test_after_an_outage_the_shares_of_who_is_yet_to_come_back_are_left_to_them(
    engine: Engine,
) -> None:
    first, second, unaware = await opened(engine, 3, 90)
    first.held, second.held = 20, 60
    assert (await first.report(crew=2)).void == 0
    # 70 are left, and 50 of 100 may be the second's.
    assert 1 <= (await unaware.ask(40)).granted <= 20
    while (lease := await unaware.ask(40)).granted:
        assert unaware.held <= 20
    assert lease.wait == 2500
    # It has claimed more than there is: what is not there is void.
    assert (await second.report(crew=2)).void == 20 + 60 + unaware.held - 90


@on_every_engine
async def test_case_16_a_reading_without_a_reset_is_owed_by_a_window_that_began_early(
    engine: Engine,
) -> None:
    first, second = await opened(engine, 2, 10, resets_in=60_000)
    await first.ask()
    await second.ask()
    assert (await first.read(13, None)).remaining == 12
    engine.now += 20
    assert (await second.read(14, 120_000)).remaining == 13
    await second.ask()
    engine.now += 20
    assert (await second.read(12, 120_000)).remaining == 12


@on_every_engine
async def test_a_pause_of_every_route_holds_all_until_it_is_over(engine: Engine) -> None:
    first, second = await opened(engine, 2, 50)
    await first.report(paused=5000, pauses=1)
    lease = await second.ask()
    assert (lease.granted, lease.wait, lease.paused, lease.pauses) == (0, 5000, 5000, 1)
    engine.now += 5000
    assert (await second.ask()).granted == 1


# Resets ----------------------------------------------------------------------------------------


@on_every_engine
async def test_at_a_reset_one_probe_goes_for_all_and_its_answer_opens_the_window(
    engine: Engine,
) -> None:
    processes = await opened(engine, 4, 0, resets_in=10_000)
    assert not any([(await process.ask(9)).granted for process in processes])
    engine.now += 10_000
    leases = [await process.ask(9) for process in processes]
    assert [lease.granted for lease in leases] == [1, 0, 0, 0]
    engine.now += 20
    await processes[0].read(99, resets_in=9900)
    assert all([(await process.ask(2)).granted for process in processes])


@on_every_engine
async def test_a_rollover_that_comes_late_is_backed_off_and_learned(engine: Engine) -> None:
    (process,) = await opened(engine, 1, 0, resets_in=10_000, epoch=START_EPOCH)
    engine.now += 10_000
    await process.ask()
    engine.now += 20
    assert not (await process.read(0, resets_in=-20, refused=True, epoch=START_EPOCH)).confirmed
    wait = (await process.ask()).wait
    assert wait == 1000
    engine.now += wait
    assert (await process.ask()).probe
    engine.now += 20
    lease = await process.read(99, resets_in=10_000, epoch=START_EPOCH + 11_000)
    assert lease.confirmed
    assert lease.resets_in is not None
    assert lease.resets_in > 10_500, "the next rollover is expected to be late, too"


@on_every_engine
async def test_a_rollover_that_comes_early_is_seen(engine: Engine) -> None:
    first, second = await opened(engine, 2, 3, resets_in=60_000)
    await first.ask()
    engine.now += 1000
    lease = await first.read(99, resets_in=160_000)
    assert (lease.remaining, lease.resets_in) == (99, 160_000)
    assert (await second.ask()).granted


@on_every_engine
async def test_a_slow_answer_of_the_old_window_does_not_refill_the_new_one(
    engine: Engine,
) -> None:
    first, second = await opened(engine, 2, 90, resets_in=10_000)
    await first.ask()
    known = first.known
    await first.report()
    engine.now += LEASE - 500
    await first.report()
    for _ in range(6):
        engine.now += LEASE - 500
        await first.report()
    await second.ask()
    engine.now += 20
    await second.read(5, resets_in=9_000)
    first.known = known
    assert (await first.read(89, resets_in=-500, took=10_000)).remaining <= 5


@on_every_engine
async def test_what_a_server_asked_for_holds_back_all_processes(engine: Engine) -> None:
    first, second = await opened(engine, 2, 50)
    await first.report(shut=5000)
    lease = await second.ask()
    assert (lease.granted, lease.wait) == (0, 5000)
    engine.now += 5000
    assert (await second.ask()).granted


@on_every_engine
async def test_no_reset_beyond_the_ceiling_is_believed(engine: Engine) -> None:
    (process,) = await crew(engine, 1)
    await process.ask()
    assert (await process.read(5, resets_in=24 * HOUR)).resets_in is None


# Limits of one's own ---------------------------------------------------------------------------


@on_every_engine
async def test_the_slots_of_a_rate_are_leased_once(engine: Engine) -> None:
    gap = 10_000  # µs: 100 per second
    rate = {"counts": Counts.RATE, "limit": 1, "gap": gap}
    processes = await crew(engine, 4, **rate)
    began, slots = engine.now, []
    for _ in range(50):
        for process in processes:
            lease = await process.ask(5)
            process.held = 0
            first = 1000 * (engine.now + lease.starts_in)
            slots += [first + number * gap for number in range(lease.granted)]
        engine.now += 20
    slots.sort()
    apart = [b - a for a, b in pairwise(slots)]
    assert min(apart) >= gap - 1000, "a slot is told in milliseconds"
    assert len(slots) >= (engine.now - began) * 1000 // gap


@on_every_engine
async def test_a_burst_of_a_rate_is_one_for_all(engine: Engine) -> None:
    rate = {"counts": Counts.RATE, "limit": 10, "gap": 1_000_000}
    processes = await crew(engine, 3, **rate)
    for _ in range(5):
        for process in processes:
            await process.ask(10)
            process.notes += process.held
            process.held = 0
    assert 10 <= sum(process.notes for process in processes) <= 12


@on_every_engine
async def test_calls_in_flight_are_counted_over_all_processes(engine: Engine) -> None:
    first, second = await crew(engine, 2, counts=Counts.CONCURRENCY, limit=3)
    for _ in range(3):
        await first.ask(2)
        await second.ask(2)
    assert first.held + second.held == 3
    holder, waiter = (first, second) if first.held > 1 else (second, first)
    assert (await waiter.ask()).wait
    holder.held -= 1
    await holder.report()
    assert (await waiter.ask()).granted == 1


@on_every_engine
async def test_a_learned_pace_is_one_for_all(engine: Engine) -> None:
    first, second = await crew(engine, 2, counts=Counts.PACE)
    gap = (await first.saw(Outcome.REFUSED, cost=0)).gap
    assert gap
    engine.now += gap
    assert (await first.ask()).granted == 1
    assert not (await second.ask()).granted
    await first.saw(Outcome.READ)
    engine.now += gap
    assert (await second.ask()).granted == 1


# What stays ------------------------------------------------------------------------------------


@on_every_engine
async def test_one_secret_is_everybodys_and_stays(engine: Engine) -> None:
    secrets = set(await asyncio.gather(*(engine.open().secret() for _ in range(4))))
    await engine.restart()
    secrets.add(await engine.open().secret())
    (secret,) = secrets
    assert len(secret) >= 16


@on_every_engine
async def test_who_is_started_again_knows_what_is_left(engine: Engine) -> None:
    await opened(engine, 1, 0, resets_in=10_000)
    await engine.restart()
    engine.now += 4000
    again = Process(engine.open(), "another")
    lease = await again.ask()
    assert (lease.granted, lease.wait, lease.limit) == (0, 6000, 100)


@on_every_engine
async def test_a_record_is_forgotten_a_while_after_its_window(engine: Engine) -> None:
    (process,) = await opened(engine, 1, 0, resets_in=10_000)
    engine.now += 10_000 + HOUR
    lease = await process.report()
    assert (lease.limit, lease.confirmed) == (None, False)


@on_every_engine
async def test_a_cancelled_exchange_leaves_the_ledger_usable(engine: Engine) -> None:
    first, second = await opened(engine, 2, 10)
    for ticks in range(8):
        asked = asyncio.ensure_future(first.ask(2))
        for _ in range(ticks):
            await asyncio.sleep(0)
        asked.cancel()
        await asyncio.wait([asked])
    first.held = 0
    await first.report()
    assert (await second.report()).remaining == 10


@on_every_engine
async def test_closing_twice_is_closing(engine: Engine) -> None:
    ledger = engine.open()
    await ledger.exchange([Report(RECORD, "a", 1)])
    await ledger.close()
    await ledger.close()


# Fleets ----------------------------------------------------------------------------------------


class Distant:
    """A ledger some milliseconds away, on the clock of a loop of virtual time."""

    def __init__(self, engine: Engine, latency: float = 0.0005) -> None:
        self._engine = engine
        self._ledger = engine.open()
        self._latency = latency

    async def exchange(self, reports: list[Report]) -> object:
        await asyncio.sleep(self._latency)
        self._engine.now = round(asyncio.get_running_loop().time() * 1000)
        leases = await self._ledger.exchange(reports)
        await asyncio.sleep(self._latency)
        return leases

    async def secret(self) -> bytes:
        return await self._ledger.secret()

    async def close(self) -> None:
        await self._ledger.close()


VIRTUAL = [kind for kind, made in ENGINES.items() if getattr(made, "is_virtual", False)]

FLEETS = {
    "quiet": ({}, 1),
    "dropped answers": ({"drop_after": 0.05}, 1),
    "no headers now and then": ({"headerless": 0.1}, 1),
    "clock behind": ({"skew": -300.0}, 1),
    "late resets": ({"late": 0.7}, 2),
    "cancelled callers": ({"cancelled": 0.3}, 1),
}


@pytest.mark.parametrize("kind", VIRTUAL)
@pytest.mark.parametrize("fleet", FLEETS)
def test_a_fleet_shares_a_quota(kind: str, fleet: str, tmp_path: Path) -> None:
    """Four processes of 25 callers: all are served, and at most a probe of a window is refused."""
    faults, most_refused = FLEETS[fleet]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        server = Server(faults=Faults(**faults))
        async with engine_of(kind, tmp_path) as engine:
            limiters = [Limiter(ledger=Distant(engine)) for _ in range(4)]
            outcomes = await asyncio.gather(*(crowd(25, server, each) for each in limiters))
            await asyncio.sleep(3)
            assert all(at_rest(limiter) for limiter in limiters)
            for limiter in limiters:
                await limiter.close()
        gone = sum(
            isinstance(each, asyncio.CancelledError) for one in outcomes for each in one.results
        )
        assert sum(outcome.served for outcome in outcomes) == 100 - gone
        assert max(server.refused_in.values(), default=0) <= most_refused

    run(main(), seed=0, debug=False)
