"""A permit is settled with whatever answer comes, also with one that is read at a glance."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Mapping
from typing import Any

import pytest

from aiotwhelp import CostError, Limiter, Rate, SessionClosedError
from aiotwhelp.dialects import DIALECTS
from aiotwhelp.headers import X_DIALECT
from aiotwhelp.local import Room
from aiotwhelp.permits import HeldPermit, Permit
from aiotwhelp.queues import Priority
from tests.simulation import KEY, at_rest, headers, in_virtual_time, opened, settle


async def next_permit(limiter: Limiter) -> Permit:
    """Return a permit whose answer is read at a glance if it says what the one before did."""
    await opened(limiter, 13)
    (await limiter.acquire(KEY)).observed(headers(12))
    assert limiter._lines[KEY].bucket.plain is not None
    return await limiter.acquire(KEY)


@in_virtual_time
async def test_a_refusal_that_says_what_the_answer_before_did_is_one():
    limiter = Limiter()
    permit = await next_permit(limiter)
    assert permit.observed(headers(11), status=429).refused
    assert limiter.stats().refused == 1
    assert limiter.try_acquire(KEY) is None, "there are tokens left, and a limit that is not told"


@pytest.mark.parametrize("cost", [0, -1, {"tokens": -1}])
@in_virtual_time
async def test_a_cost_that_makes_no_sense_is_refused_of_any_answer(cost: int | Mapping[str, int]):
    limiter = Limiter()
    permit = await next_permit(limiter)
    with pytest.raises(ValueError, match="cost"):
        permit.observed(headers(11), cost=cost)
    permit.observed(headers(11), cost=1)
    assert at_rest(limiter)


@in_virtual_time
async def test_an_answer_that_tells_anything_new_is_yet_to_be_observed():
    limiter = Limiter()
    first = await limiter.acquire(KEY)
    assert first.observed_again(headers(14)) == -1
    first.observed(headers(14))
    permit = await next_permit(limiter)
    assert permit.observed_again(headers(11, limit=30)) == -1
    assert not permit.is_settled
    assert permit.observed_again(headers(11)) == 11
    assert permit.is_settled
    assert limiter.quota(KEY).remaining == 11
    assert at_rest(limiter)


@in_virtual_time
async def test_an_answer_in_another_dialect_is_yet_to_be_observed():
    limiter = Limiter()
    (await next_permit(limiter)).observed(headers(11))
    permit = await limiter.acquire(KEY, dialect=DIALECTS["github"])
    assert permit.observed_again(headers(10)) == -1
    assert not permit.is_settled
    permit.observed({"x-ratelimit-remaining": "10"})
    assert at_rest(limiter)


@in_virtual_time
async def test_the_last_token_is_told_of_by_any_answer():
    limiter = Limiter()
    (await next_permit(limiter)).observed(headers(0))
    assert limiter.quota(KEY).remaining == 0
    assert limiter.try_acquire(KEY) is None


@in_virtual_time
async def test_what_a_call_really_took_corrects_a_local_rate():
    limiter = Limiter(rates={"*": Rate(100, per=1, burst=1000, unit="tokens")})
    cost: dict[str, Any] = {"tokens": 1000}
    (await limiter.acquire(KEY, cost=cost)).observed({}, cost={"tokens": 200})
    held = await limiter.acquire(KEY, cost={"tokens": 800})
    assert held.waited == 0.0
    with pytest.raises(CostError, match="never fits"):
        limiter.try_acquire(KEY, cost={"tokens": 1001})
    held.unsent()


@in_virtual_time
async def test_who_drops_a_permit_is_told_and_nobody_else():
    limiter = Limiter()
    permit = await next_permit(limiter)
    with pytest.warns(ResourceWarning, match="^a permit for GET /1.1/help/privacy.json was drop"):
        del permit
    await settle()
    assert limiter.stats().lost == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (await limiter.acquire(KEY)).unsent()
        # What the rule has granted, and nobody was given, is no permit yet.
        limiter._lines[KEY].bucket.ask(asyncio.get_running_loop().time())
    await settle()
    assert limiter.stats().lost == 1


@in_virtual_time
async def test_permits_of_users_are_looked_after_and_those_of_sessions_are_not():
    limiter = Limiter()
    for left in (800, 799, 798):
        (await limiter.acquire(KEY)).observed(headers(left, limit=900))
    asked = (
        (await limiter.acquire(KEY), HeldPermit),
        (limiter.try_acquire(KEY), HeldPermit),
        (limiter.at_once(KEY, 1, Priority.NORMAL, X_DIALECT, None), Permit),
    )
    for permit, kind in asked:
        assert type(permit) is kind
        permit.unsent()


@in_virtual_time
async def test_a_call_that_was_foreseen_takes_room():
    limiter, room = Limiter(), Room(1)
    (await next_permit(limiter)).observed(headers(11))
    permit = limiter.try_acquire(KEY, room=room)
    assert permit is not None
    assert limiter.try_acquire(KEY, room=room) is None
    permit.observed(headers(10))
    assert room.in_flight == 0
    assert at_rest(limiter)


@in_virtual_time
async def test_a_session_gets_no_permit_of_a_limiter_that_is_closed():
    limiter = Limiter()
    (await next_permit(limiter)).observed(headers(11))
    await limiter.close()
    with pytest.raises(SessionClosedError):
        limiter.at_once(KEY, 1, Priority.NORMAL, X_DIALECT, None)
