"""Who is granted what a settled call has set free."""

from __future__ import annotations

import asyncio

from aiotwhelp import Limiter, MemoryLedger
from tests.fleet import Wire
from tests.simulation import KEY, at_rest, headers, in_virtual_time, settle
from tests.test_limiter import users_of_an_app, waiting


@in_virtual_time
async def test_what_is_free_passes_over_a_line_whose_only_caller_was_cancelled_at_that_moment():
    limiter = Limiter()
    users = await users_of_an_app(limiter, 3, left=1, limit=10)
    held = await limiter.acquire(users[0])
    (leaves,) = await waiting(limiter, 1, users[1])
    (next_one,) = await waiting(limiter, 1, users[2])
    leaves.cancel()
    held.unsent()
    await settle()
    assert next_one.done()
    next_one.result().unsent()
    assert at_rest(limiter)


@in_virtual_time
async def test_who_waits_for_calls_of_its_own_has_the_ledger_asked_when_they_end():
    loop = asyncio.get_running_loop()
    limiter, left = Limiter(ledger=Wire(MemoryLedger(clock=loop.time))), 1000
    for _ in range(30):
        permit = await limiter.acquire(KEY)
        await asyncio.sleep(0.05)
        left -= 1
        permit.observed(headers(left, 600, limit=1000))
    held = []
    while (leased := limiter.try_acquire(KEY)) is not None:
        held.append(leased)
    # How many may go at once is to be found out again.
    limiter._lines[KEY].bucket.answered = len(held) - 2
    (next_one,) = await waiting(limiter, 1)
    held[0].observed(headers(left - 1, 600, limit=1000))
    await asyncio.sleep(1)
    assert next_one.done()
    for each in (*held[1:], next_one.result()):
        each.unsent()
