"""How a call ended: what an answer teaches, and what those who wait are told of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiotwhelp import events
from aiotwhelp.errors import QuotaTimeoutError
from aiotwhelp.headers import X_DIALECT
from aiotwhelp.ledger import Lease, Report
from aiotwhelp.limiter import Limiter
from aiotwhelp.queues import Priority
from tests.simulation import KEY, headers, in_virtual_time, settle
from tests.test_foreseen import KEYS, Limiters


@in_virtual_time
async def test_an_answer_that_is_read_at_a_glance_tells_of_the_clock_what_others_do():
    pair = Limiters(X_DIALECT, 900)
    line = pair.both[0]._registry.line(KEYS[0])

    async def asked_at(second: float, *which: int) -> None:
        await asyncio.sleep(second - pair.wall() % 60)
        for each in which:
            pair.ask(each, 1, Priority.NORMAL)

    await asked_at(10.5, 0)
    for _ in range(20):
        pair.answer(0, "as told")
        pair.ask(0, 1, Priority.NORMAL)
    await asked_at(10.95, 0, 1)
    pair.answer(0, "as told")  # of what its route has told so far, the Date included
    assert line.bucket.plain is not None
    assert line.bucket.plain.frame is not None
    await asked_at(11.05)
    pair.answer(1, "as told")  # the other route tells of the next second
    high = line.clock._bounds[0].high
    assert pair.alike, "such answers are read at a glance"
    pair.answer(0, "slow")  # it was written in the second before, and sent late in it
    assert line.clock._bounds[0].high < high
    pair.check()


@in_virtual_time
async def test_callers_are_told_no_more_of_a_failure_once_all_is_as_it_was_before():
    limiter = Limiter()
    for number in range(20):
        (await limiter.acquire(KEY)).observed(headers(900 - number, limit=900))
    (await limiter.acquire(KEY)).unsent(failed=True, reason="nobody is there")
    assert "nobody is there" in str(limiter.timed_out(KEY, 1.0))
    permit = await limiter.acquire(KEY)
    plain = limiter._lines[KEY].bucket.plain
    assert plain is not None
    assert plain.frame is not None
    assert plain.frame.left(headers(880, limit=900)) == 880, "it is read at a glance"
    permit.observed(headers(880, limit=900))
    assert "failed" not in str(limiter.timed_out(KEY, 1.0))


@in_virtual_time
async def test_whoever_listens_is_told_what_is_left_of_any_answer():
    told: list[events.Event] = []
    limiter = Limiter(on_event=told.append)
    glances = 0
    for left in range(900, 880, -1):
        permit, answer = await limiter.acquire(KEY), headers(left, limit=900)
        if permit.observed_again(answer) == left:
            glances += 1
        else:
            permit.observed(answer)
    assert glances > 10
    observed = [event.remaining for event in told if isinstance(event, events.Observed)]
    assert observed == list(range(900, 880, -1))


class Telling:
    """A ledger that grants one call, and says how many of all processes found out nothing."""

    granted = 1
    misses = 0

    async def exchange(self, reports: Sequence[Report]) -> Sequence[Lease]:
        granted, self.granted = self.granted, 0
        return [
            Lease(granted, wait=500, number=1, probe=granted, misses=self.misses) for _ in reports
        ]

    async def secret(self) -> bytes:
        return bytes(32)

    async def close(self) -> None:
        pass


@in_virtual_time
async def test_case_49_a_lost_call_fails_nobody_before_the_ledger_has_counted_it():
    ledger = Telling()
    limiter = Limiter(ledger=ledger)
    held = await limiter.acquire(KEY)
    waiter = asyncio.ensure_future(limiter.acquire(KEY))
    await settle()
    ledger.misses = 6  # whoever has waited for 16 s may go on until the next one
    await asyncio.sleep(20)
    held.lost()
    await asyncio.sleep(5)
    assert not waiter.done()
    ledger.misses = 7
    await asyncio.sleep(10)
    assert not waiter.done(), "the back-off is longer now, too"
    ledger.misses = 8
    await asyncio.sleep(40)
    ledger.misses = 9
    await asyncio.sleep(1)
    assert isinstance(waiter.exception(), QuotaTimeoutError)
    await limiter.close()
