"""Callers whose wait is in vain are told so, and a crowd of them does not hold the loop."""

from __future__ import annotations

import asyncio

import pytest

from aiotwhelp import Limiter, QuotaTimeoutError
from aiotwhelp.home import Home
from tests.simulation import KEY, headers, in_virtual_time, settle


@in_virtual_time
async def test_case_52_beyond_the_first_thousand_each_who_was_looked_at_gets_a_rest():
    limiter, loop = Limiter(), asyncio.get_running_loop()
    failed_at: list[float] = []

    async def wait(allowed: float) -> None:
        try:
            await limiter.acquire(KEY, max_wait=allowed)
        except QuotaTimeoutError:
            failed_at.append(loop.time())

    held = await limiter.acquire(KEY)
    patient = [asyncio.ensure_future(wait(100_000)) for _ in range(3000)]
    hopeless = asyncio.ensure_future(wait(30))
    await settle()
    began = loop.time()
    held.observed(headers(0))
    await hopeless
    before = 3000 - 3000 % Home.SLICE
    assert failed_at == [pytest.approx(began + (before - 1000) / 10_000, abs=0.001)]
    for each in patient:
        each.cancel()


@in_virtual_time
async def test_case_36_who_comes_back_behind_a_costly_call_is_told_at_once():
    """It comes before others, and three tokens are left: for none but the one who needs five."""
    limiter, loop = Limiter(), asyncio.get_running_loop()
    (await limiter.acquire(KEY)).observed(headers(3))
    first = asyncio.ensure_future(limiter.acquire(KEY, cost=5))
    await settle()
    ticket = limiter.ticket()
    last = asyncio.ensure_future(limiter.acquire(KEY))
    await settle()
    began = loop.time()
    with pytest.raises(QuotaTimeoutError):
        await limiter.acquire(KEY, ticket=ticket, max_wait=10)
    assert loop.time() == pytest.approx(began, abs=0.1)
    for each in (first, last):
        each.cancel()
