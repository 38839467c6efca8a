"""A call that is cancelled, at each of its suspensions in turn, leaves nothing behind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aiotwhelp import ClientCredentials, OAuth2User, Session, testing
from aiotwhelp.emulator import Emulator
from tests.stack import (
    LANGUAGES,
    PRIVACY,
    TOS,
    assert_at_rest,
    assert_nothing_is_left,
    in_a_crowd,
    session_of,
    ticks,
)

#: More suspensions than any of the calls here has.
MANY = 400


class CancelAt:
    """Awaits something and cancels the task at its k-th suspension, at once or a tick later."""

    def __init__(self, work: Awaitable[Any], k: int, *, at_once: bool) -> None:
        self.work = work
        self.k = k
        self.at_once = at_once
        self.suspensions = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self.work.__await__()
        task = asyncio.current_task()
        assert task is not None
        resume = steps.__next__
        while True:
            try:
                future = resume()
            except StopIteration as end:
                return end.value
            self.suspensions += 1
            if self.suspensions == self.k:
                if self.at_once:
                    task.cancel()
                else:
                    asyncio.get_running_loop().call_soon(task.cancel)
            try:
                yield future
            except BaseException as error:  # noqa: BLE001 - handed on
                resume = lambda error=error: steps.throw(error)  # noqa: E731
            else:
                resume = steps.__next__


Work = Callable[[Session, Emulator], Awaitable[Any]]


@asynccontextmanager
async def stage(**options: Any):
    """An emulator with a window of one call, and a session."""
    asyncio.get_running_loop().network.latency = 0.01
    async with (
        Emulator(window=5, limits={"help/privacy": 2, "help/languages": 1}) as api,
        session_of(api, **options) as session,
    ):
        yield api, session
    await assert_nothing_is_left()


async def fast(session: Session, api: Emulator) -> None:
    async with session.get(PRIVACY) as response:
        await response.read()


async def queued(session: Session, api: Emulator) -> None:
    await session.fetch(LANGUAGES)
    await session.fetch(LANGUAGES)


async def retrying(session: Session, api: Emulator) -> None:
    api.fail_next(2, status=503)
    await session.fetch(PRIVACY)


async def dropped(session: Session, api: Emulator) -> None:
    api.fail_next(2, drop="after")
    await session.fetch(PRIVACY)


async def refused(session: Session, api: Emulator) -> None:
    api.spend("help/privacy", 2, caller=api.app)
    await session.fetch(PRIVACY)


async def redirected(session: Session, api: Emulator) -> None:
    api.reply("GET", "/old", status=302, headers={"Location": PRIVACY})
    await session.fetch("/old")


async def redirected_into_a_wait(session: Session, api: Emulator) -> None:
    await session.fetch(LANGUAGES)
    api.reply("GET", "/old", status=302, headers={"Location": LANGUAGES})
    await session.fetch("/old")


async def a_large_body(session: Session, api: Emulator) -> None:
    api.reply("GET", PRIVACY, body=b'"' + b"x" * 1_000_000 + b'"')
    await session.fetch(PRIVACY)


async def a_large_refusal(session: Session, api: Emulator) -> None:
    api.reply("GET", "/gone", status=403, body=b"x" * 1_000_000, times=1)
    await session.fetch("/gone")


async def a_large_failure(session: Session, api: Emulator) -> None:
    api.reply("GET", "/bad", status=503, body=b"x" * 1_000_000, times=1)
    api.reply("GET", "/bad", json={})
    await session.fetch("/bad")


async def coalesced(session: Session, api: Emulator) -> None:
    await session.fetch(PRIVACY, coalesce=True)


async def within_a_time(session: Session, api: Emulator) -> None:
    api.fail_next(1, status=503)
    await session.fetch(PRIVACY, total_timeout=60, max_wait=30)


KINDS: dict[str, Work] = {
    each.__name__: each
    for each in (
        fast,
        queued,
        retrying,
        dropped,
        refused,
        redirected,
        redirected_into_a_wait,
        a_large_body,
        a_large_refusal,
        a_large_failure,
        coalesced,
        within_a_time,
    )
}


async def cancelled_at(
    k: int, work: Work, *, at_once: bool, companions: int = 0, **options: Any
) -> bool:
    """Cancel the work at its k-th suspension; tell whether it had that many."""
    async with stage(**options) as (api, session):
        others = [asyncio.create_task(session.fetch(PRIVACY)) for _ in range(companions)]
        cancelling = CancelAt(work(session, api), k, at_once=at_once)

        async def outer() -> None:
            await cancelling

        task = asyncio.create_task(outer())
        results = await asyncio.gather(task, return_exceptions=True)
        if not isinstance(results[0], asyncio.CancelledError):
            assert cancelling.suspensions <= k
        await asyncio.gather(*others)
        api.clear()
        assert "privacy" in await session.fetch(PRIVACY)
        assert await session.fetch(LANGUAGES)
        await assert_at_rest(session)
        return cancelling.suspensions >= k


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "a tick later"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_call_cancelled_at_any_suspension_leaves_nothing(kind: str, at_once: bool) -> None:
    for k in range(1, MANY):
        if not testing.run(cancelled_at(k, KINDS[kind], at_once=at_once), seed=k):
            assert k > 1
            return
    pytest.fail("it has more suspensions than this test looks at")


@pytest.mark.parametrize("kind", ["fast", "dropped", "refused"])
def test_case_30_the_others_are_served_whenever_the_probe_is_cancelled(kind: str) -> None:
    for k in range(1, MANY):
        run = cancelled_at(k, KINDS[kind], at_once=False, companions=5)
        if not testing.run(run, seed=k):
            return
    pytest.fail("it has more suspensions than this test looks at")


def credentials_of(api: Emulator, kind: str) -> ClientCredentials | OAuth2User:
    if kind == "client credentials":
        return ClientCredentials(api.app.consumer_key, api.app.consumer_secret)
    grant = api.grant(expires_in=1)
    return OAuth2User(
        api.app.client_id,
        client_secret=api.app.client_secret,
        access_token=grant.access_token,
        refresh_token=grant.refresh_token,
        expires_at=0.0,
        identity="u:1",
    )


async def token_cancelled_at(k: int, kind: str) -> bool:
    asyncio.get_running_loop().network.latency = 0.01
    path = "/2/users/me" if kind == "a user's refresh" else PRIVACY
    async with Emulator() as api, Session(api.url, auth=credentials_of(api, kind)) as session:
        cancelling = CancelAt(session.fetch(path), k, at_once=False)

        async def outer() -> None:
            await cancelling

        first = asyncio.create_task(outer())
        second = asyncio.create_task(session.fetch(path))
        await asyncio.gather(first, return_exceptions=True)
        await second
        assert await session.fetch(path)
        # The rotating token is never asked for twice, nor lost half-way.
        assert sum("token" in request.path for request in api.requests) == 1
        await assert_at_rest(session)
    await assert_nothing_is_left()
    return cancelling.suspensions >= k


@pytest.mark.parametrize("kind", ["client credentials", "a user's refresh"])
def test_a_call_cancelled_while_its_token_is_fetched_leaves_the_token_to_the_others(
    kind: str,
) -> None:
    for k in range(1, MANY):
        if not testing.run(token_cancelled_at(k, kind), seed=k):
            assert k > 1
            return
    pytest.fail("it has more suspensions than this test looks at")


async def closing_cancelled_at(k: int) -> bool:
    asyncio.get_running_loop().network.latency = 0.01
    async with Emulator(window=5, limits={"help/privacy": 1}, latency=0.1) as api:
        session = session_of(api)
        calls = [asyncio.create_task(session.fetch(PRIVACY)) for _ in range(3)]
        calls.append(asyncio.create_task(session.fetch(TOS)))
        await asyncio.sleep(0.05)
        cancelling = CancelAt(session.close(), k, at_once=False)

        async def outer() -> None:
            await cancelling

        await asyncio.gather(asyncio.create_task(outer()), return_exceptions=True)
        await session.close()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert not any(isinstance(each, asyncio.CancelledError) for each in results)
        await ticks()
        assert session.limiter.stats().in_flight == 0
    await assert_nothing_is_left()
    return cancelling.suspensions >= k


def test_closing_that_is_cancelled_at_any_suspension_still_closes() -> None:
    for k in range(1, MANY):
        if not testing.run(closing_cancelled_at(k), seed=k):
            assert k > 1
            return
    pytest.fail("it has more suspensions than this test looks at")


@in_a_crowd
async def test_ten_thousand_callers_cancelled_at_random_leave_nothing() -> None:
    dice = random.Random(11)
    asyncio.get_running_loop().network.latency = 0.005
    async with (
        Emulator(window=5, limit=30, latency=0.05, jitter=0.1) as api,
        session_of(api) as session,
    ):
        paths = [PRIVACY, TOS, LANGUAGES]
        calls = [asyncio.create_task(session.fetch(paths[n % 3])) for n in range(10_000)]
        victims = dice.sample(calls, len(calls))
        while victims:
            for task in victims[-700:]:
                task.cancel()
            del victims[-700:]
            await asyncio.sleep(dice.random())
        results = await asyncio.gather(*calls, return_exceptions=True)
        done = [each for each in results if not isinstance(each, BaseException)]
        assert done
        assert all(
            isinstance(each, asyncio.CancelledError)
            for each in results
            if isinstance(each, BaseException)
        )
        assert api.refused == 0
        # What was cut off was perhaps counted: one probe after the ghosts' span.
        assert "privacy" in await session.fetch(PRIVACY)
        await assert_at_rest(session)
    await assert_nothing_is_left()
