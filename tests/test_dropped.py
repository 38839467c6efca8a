"""A permit that nobody settles: it counts as a lost call, and whoever forgot it is told."""

from __future__ import annotations

import asyncio
import gc
import re
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from aiotwhelp import Limiter, QuotaTimeoutError, SessionClosedError, testing
from aiotwhelp.home import Home
from aiotwhelp.permits import Permit
from tests.simulation import KEY, headers, in_virtual_time, opened, settle

DROPPED = re.escape(
    "a permit for GET /1.1/help/privacy.json was dropped, which counts its call as lost: settle"
    " it, or hold it by `async with limiter.permit(...)`"
)


@in_virtual_time
async def test_a_dropped_permit_is_a_lost_call_and_no_lost_token() -> None:
    limiter = Limiter()
    await opened(limiter, 2)
    with pytest.warns(ResourceWarning, match=f"^{DROPPED}$") as told:
        await limiter.acquire(KEY)
    assert isinstance(told[0].source, Permit), "tracemalloc tells where it was granted"
    await settle()
    assert (limiter.stats().in_flight, limiter.stats().lost) == (0, 1)
    (await limiter.acquire(KEY)).observed(headers(0, 600))
    # The window after it has all of its calls, however many were dropped.
    for left in range(14, -1, -1):
        (await limiter.acquire(KEY)).observed(headers(left, 1500))


@in_virtual_time
async def test_the_warning_is_where_the_permit_was_dropped() -> None:
    limiter = Limiter()
    with pytest.warns(ResourceWarning, match=DROPPED) as told:
        await limiter.acquire(KEY)
    assert told[0].filename == __file__


@in_virtual_time
async def test_who_fails_between_the_permit_and_the_answer_drops_it() -> None:
    limiter = Limiter()
    await opened(limiter, 1)

    async def call() -> None:
        permit = await limiter.acquire(KEY)
        raise ConnectionError(f"before {permit} was settled")

    async def fail() -> None:
        await asyncio.gather(call(), return_exceptions=True)
        await settle()  # the loop holds the handle that it is at
        gc.collect()

    with pytest.warns(ResourceWarning, match=DROPPED):
        await fail()
    await settle()
    assert (limiter.stats().in_flight, limiter.stats().lost) == (0, 1)


@in_virtual_time
async def test_who_waits_in_vain_is_told_of_it() -> None:
    limiter = Limiter()
    await opened(limiter, 1)
    with pytest.warns(ResourceWarning, match=DROPPED):
        await limiter.acquire(KEY)
    await settle()
    with pytest.raises(QuotaTimeoutError, match="call failed: its permit was dropped;"):
        await limiter.acquire(KEY, max_wait=0)


@in_virtual_time
async def test_garbage_is_collected_in_any_thread() -> None:
    limiter = Limiter()
    await opened(limiter, 1)
    threads: list[int] = []
    limiter.listen(lambda _: threads.append(threading.get_ident()))
    held = [await limiter.acquire(KEY)]
    with pytest.warns(ResourceWarning, match=DROPPED), ThreadPoolExecutor(1) as executor:
        executor.submit(held.clear).result()
    assert limiter.stats().lost == 0, "nothing happens outside the loop"
    await settle()
    assert (limiter.stats().in_flight, limiter.stats().lost) == (0, 1)
    assert set(threads) == {threading.get_ident()}


@pytest.mark.parametrize(
    ("end", "lost"),
    [(Permit.unsent, 0), (Permit.lost, 1), (lambda p: p.observed(headers(0, 600)), 0)],
)
@in_virtual_time
async def test_a_settled_permit_goes_without_a_word(
    end: Callable[[Permit], object], lost: int
) -> None:
    limiter = Limiter()
    await opened(limiter, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        end(await limiter.acquire(KEY))
        gc.collect()
    await settle()
    assert (limiter.stats().in_flight, limiter.stats().lost) == (0, lost)


def test_a_loop_that_closes_meanwhile_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def leave() -> list[Permit]:
        return [await Limiter().acquire(KEY)]

    held = testing.run(leave())
    monkeypatch.setattr(Home, "is_open", True)  # as it was when that was looked at
    with pytest.warns(ResourceWarning, match=DROPPED):
        held.clear()


def test_nothing_is_said_of_a_limiter_or_a_loop_that_is_closed() -> None:
    async def leave(limiter: Limiter) -> list[Permit]:
        return [await limiter.acquire(KEY)]

    async def close() -> None:
        limiter = Limiter()
        held = await leave(limiter)
        await limiter.close()
        held.clear()
        with pytest.raises(SessionClosedError):
            await limiter.acquire(KEY)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        held = testing.run(leave(Limiter()))
        held.clear()
        testing.run(close())
        gc.collect()
