"""Who is granted what a settled call has set free."""

from __future__ import annotations

import asyncio

import pytest

from aiotwhelp import Limiter, MemoryLedger
from aiotwhelp.local import Room
from tests.fleet import Wire
from tests.simulation import KEY, at_rest, headers, in_virtual_time, opened, settle
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


@pytest.mark.parametrize("others", [0, 1])
@in_virtual_time
async def test_who_comes_as_the_first_leaves_is_let_in_if_nobody_else_waits(others: int):
    limiter = Limiter()
    await opened(limiter, 9)
    bucket, now = limiter._lines[KEY].bucket, asyncio.get_running_loop().time()
    bucket.upset()
    bucket.next = now + 10
    first, *rest = await waiting(limiter, 1 + others)
    assert limiter.try_acquire(KEY) is None
    bucket.next = now  # the instant has come, and the timer is yet to ring
    first.cancel()
    permit = limiter.try_acquire(KEY)
    assert (permit is None) is bool(others)
    await settle()
    for each in (*rest, permit):
        if each is not None:
            (each.result() if isinstance(each, asyncio.Task) else each).unsent()
    assert at_rest(limiter)


@in_virtual_time
async def test_who_waits_for_room_waits_for_it_where_calls_are_foreseen():
    limiter, room = Limiter(), Room(1)
    for left in (800, 799, 798):
        (await limiter.acquire(KEY)).observed(headers(left, limit=900))
    held, other = await limiter.acquire(KEY, room=room), await limiter.acquire(KEY)
    (next_one,) = await waiting(limiter, 1, room=room)
    assert limiter._lines[KEY].bucket.plain is not None
    other.observed(headers(797, limit=900))
    await settle()
    assert not next_one.done()
    held.observed(headers(796, limit=900))
    await settle()
    assert room.in_flight == 1
    next_one.result().unsent()
    assert at_rest(limiter)
