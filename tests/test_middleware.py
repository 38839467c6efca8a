"""The middleware alone, in a user's own ClientSession; permits for any other client."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from aiotwhelp import (
    Bearer,
    ClientCredentials,
    Limiter,
    Permit,
    QuotaTimeoutError,
    RateLimitMiddleware,
    SessionClosedError,
    X,
)
from aiotwhelp.emulator import Emulator
from tests.stack import (
    PRIVACY,
    TOS,
    assert_nothing_is_left,
    elapsed,
    in_virtual_time,
    oauth1_of,
    plain_api,
    quota_headers,
    scripted,
    serving,
)


def limited(limiter: Limiter, api: Emulator, **options: Any) -> RateLimitMiddleware:
    return RateLimitMiddleware(limiter, apis={X.at(api.url): Bearer(api.token)}, **options)


async def get(session: aiohttp.ClientSession, url: str, **options: Any) -> int:
    async with session.get(url, **options) as response:
        await response.read()
        return response.status


def assert_settled(limiter: Limiter) -> None:
    stats = limiter.stats()
    assert (stats.in_flight, stats.waiting) == (0, 0)


@in_virtual_time
async def test_a_users_own_session_waits_its_turn_and_is_signed() -> None:
    limiter = Limiter()
    async with Emulator(window=5, limits={"help/privacy": 15}) as api:
        middleware = limited(limiter, api)
        assert repr(middleware) == "<RateLimitMiddleware for X>"
        async with aiohttp.ClientSession(middlewares=[middleware]) as session:
            answers = await asyncio.gather(*(get(session, api.url + PRIVACY) for _ in range(60)))
        assert answers == [200] * 60
        assert (api.tally.received, api.refused) == (60, 0)
        assert 15 <= elapsed() <= 15.5
    assert_settled(limiter)
    await assert_nothing_is_left()


@in_virtual_time
async def test_a_wait_that_will_not_fit_the_sessions_timeout_fails_at_once() -> None:
    limiter = Limiter()
    async with Emulator(window=900, limits={"help/privacy": 1}) as api:
        async with aiohttp.ClientSession(middlewares=[limited(limiter, api)]) as session:
            await get(session, api.url + PRIVACY)
            began = elapsed()
            with pytest.raises(QuotaTimeoutError) as caught:
                await get(session, api.url + PRIVACY)
            assert elapsed() == began
            assert caught.value.retry_after is not None
            assert api.tally.received == 1
        own = limited(limiter, api, max_wait=10)
        forever = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(middlewares=[own], timeout=forever) as session:
            with pytest.raises(QuotaTimeoutError):
                await get(session, api.url + PRIVACY)
        patient = limited(limiter, api)
        async with aiohttp.ClientSession(middlewares=[patient], timeout=forever) as session:
            assert await get(session, api.url + PRIVACY) == 200
        assert elapsed() > 890
    assert_settled(limiter)


@in_virtual_time
async def test_a_call_whose_session_was_closed_while_it_waited_never_hangs() -> None:
    limiter = Limiter()
    forever = aiohttp.ClientTimeout(total=None)
    async with Emulator(window=5, limits={"help/privacy": 2}, latency=0.5) as api:
        middleware = limited(limiter, api)
        connector = aiohttp.TCPConnector(limit=1)
        session = aiohttp.ClientSession(
            middlewares=[middleware], timeout=forever, connector=connector
        )
        calls = [asyncio.create_task(get(session, api.url + PRIVACY)) for _ in range(6)]
        await asyncio.sleep(0.6)
        busy = asyncio.create_task(get(session, api.url + TOS))  # has the one connection
        await asyncio.sleep(0.1)
        await session.close()
        async with asyncio.timeout(1.0):  # the window is of 5 s
            ended = await asyncio.gather(*calls, busy, return_exceptions=True)
        waited = [each for each in ended if isinstance(each, SessionClosedError)]
        assert len(waited) >= 4
        assert str(waited[0]) == "the session was closed while the call waited for quota"
        assert api.tally.received <= 3
    assert_settled(limiter)
    await assert_nothing_is_left()


@in_virtual_time
async def test_a_session_that_is_closed_takes_no_calls_of_others_from_the_queue() -> None:
    limiter = Limiter()
    async with Emulator(window=60, limits={"help/privacy": 1}) as api:
        middleware = limited(limiter, api)
        async with aiohttp.ClientSession(middlewares=[middleware]) as stays:
            assert await get(stays, api.url + PRIVACY) == 200
            leaves = aiohttp.ClientSession(middlewares=[middleware])
            gone = asyncio.create_task(get(leaves, api.url + PRIVACY))
            goes_on = asyncio.create_task(get(stays, api.url + PRIVACY))
            await asyncio.sleep(10)
            await leaves.close()
            with pytest.raises(SessionClosedError, match="while the call waited for quota"):
                await gone
            assert 10 <= elapsed() < 11
            assert await goes_on == 200
            assert 59 <= elapsed() < 65
    assert_settled(limiter)
    await assert_nothing_is_left()


@in_virtual_time
async def test_several_apis_have_quotas_and_credentials_of_their_own() -> None:
    limiter = Limiter()
    async with (
        Emulator(window=60, limit=1) as one,
        Emulator(window=60, limit=1, seed=1) as two,
        serving(scripted(200), "127.0.0.3") as other,
    ):
        apis = {X.at(one.url): Bearer(one.token), X.at(two.url): oauth1_of(two.user)}
        middleware = RateLimitMiddleware(limiter, apis=apis)
        async with aiohttp.ClientSession(middlewares=[middleware]) as session:
            for api in (one, two):
                assert await get(session, api.url + PRIVACY) == 200
            for _ in range(5):
                assert await get(session, other.url + "/x") == 200
        assert "Authorization" not in other.seen[0].headers
        assert limiter.stats().granted == 2
        kinds = [api.requests[0].headers["Authorization"].split()[0] for api in (one, two)]
        assert kinds == ["Bearer", "OAuth"]


@in_virtual_time
async def test_an_api_without_a_credential_is_only_counted() -> None:
    limiter = Limiter()
    async with serving(scripted(200)) as server:
        middleware = RateLimitMiddleware(limiter, apis={plain_api(server.url): None})
        async with aiohttp.ClientSession(middlewares=[middleware]) as session:
            await get(session, server.url + "/x", headers={"Authorization": "mine"})
        assert server.seen[0].headers["Authorization"] == "mine"
        assert limiter.stats().granted == 1


@in_virtual_time
async def test_redirect_hops_pay_and_other_origins_get_no_credential() -> None:
    limiter = Limiter()
    async with Emulator() as api, serving(scripted(200), "127.0.0.2") as other:
        api.reply("GET", "/old", status=302, headers={"Location": PRIVACY})
        api.reply("GET", "/away", status=302, headers={"Location": f"{other.url}/x"})
        async with aiohttp.ClientSession(middlewares=[limited(limiter, api)]) as session:
            assert await get(session, api.url + "/old") == 200
            assert limiter.stats().granted == 2
            assert await get(session, api.url + "/away") == 200
            assert limiter.stats().granted == 3
        assert "Authorization" not in other.seen[0].headers
    assert_settled(limiter)


@in_virtual_time
async def test_a_revoked_token_is_renewed_for_the_next_call() -> None:
    limiter = Limiter()
    async with Emulator() as api:
        auth = ClientCredentials(api.app.consumer_key, api.app.consumer_secret)
        middleware = RateLimitMiddleware(limiter, apis={X.at(api.url): auth})
        async with aiohttp.ClientSession(middlewares=[middleware]) as session:
            assert await get(session, api.url + PRIVACY) == 200
            api.revoke(api.token)
            assert await get(session, api.url + PRIVACY) == 401
            assert await get(session, api.url + PRIVACY) == 200


@in_virtual_time
async def test_a_caller_that_is_cancelled_while_it_waits_leaves_its_place() -> None:
    limiter = Limiter()
    async with (
        Emulator(window=5, limits={"help/privacy": 1}) as api,
        aiohttp.ClientSession(middlewares=[limited(limiter, api)]) as session,
    ):
        await get(session, api.url + PRIVACY)
        calls = [asyncio.create_task(get(session, api.url + PRIVACY)) for _ in range(2)]
        await asyncio.sleep(1)
        calls[0].cancel()
        assert await calls[1] == 200
        assert elapsed() < 6
    assert_settled(limiter)


@in_virtual_time
async def test_closing_the_limiter_wakes_who_waits() -> None:
    limiter = Limiter()
    async with (
        Emulator(window=60, limits={"help/privacy": 1}) as api,
        aiohttp.ClientSession(middlewares=[limited(limiter, api)]) as session,
    ):
        await get(session, api.url + PRIVACY)
        waiting = asyncio.create_task(get(session, api.url + PRIVACY))
        await asyncio.sleep(1)
        await limiter.close()
        with pytest.raises(SessionClosedError):
            await waiting


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # it subclasses ClientSession
@pytest.mark.asyncio
async def test_case_13_answers_of_a_cache_spend_nothing_and_teach_nothing() -> None:
    from aiohttp_client_cache import CacheBackend, CachedSession

    limiter = Limiter()
    async with Emulator(limits={"help/privacy": 3, "help/tos": 3}) as api:
        cached = CachedSession(cache=CacheBackend(), middlewares=[limited(limiter, api)])
        async with cached as session:
            for _ in range(10):
                for path in (PRIVACY, TOS):
                    assert await get(session, api.url + path) == 200
        assert api.tally.received == 2
        assert limiter.stats().granted == 2
        assert sorted(quota.remaining or 0 for quota in limiter.quotas().values()) == [2, 2]


@in_virtual_time
async def test_case_13_an_answer_with_an_age_is_not_observed() -> None:
    answers = iter([{}, {"Age": "30"}, {"X-From-Cache": "1"}])

    def answer(_: web.Request) -> web.StreamResponse:
        headers = next(answers)
        return web.Response(headers={**quota_headers(5 if headers else 50), **headers})

    async with serving(scripted(answer)) as server:
        limiter = Limiter()
        middleware = RateLimitMiddleware(limiter, apis={plain_api(server.url): None})
        async with aiohttp.ClientSession(middlewares=[middleware]) as session:
            for _ in range(3):
                await get(session, server.url + "/x")
        (quota,) = limiter.quotas().values()
        assert quota.remaining is not None
        assert quota.remaining >= 47


@in_virtual_time
async def test_case_13_of_an_answer_that_a_cache_revives_the_new_numbers_count() -> None:
    def answer(request: web.Request) -> web.StreamResponse:
        is_known = "If-None-Match" in request.headers
        headers = quota_headers(20 if is_known else 50)
        return web.Response(status=304 if is_known else 200, headers=headers)

    kept: list[aiohttp.ClientResponse] = []

    async def cache(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if kept:
            request.headers["If-None-Match"] = '"1"'
        kept.append(await handler(request))
        return kept[0]

    limiter = Limiter()
    async with serving(scripted(answer)) as server:
        limited_api = RateLimitMiddleware(limiter, apis={plain_api(server.url): None})
        async with aiohttp.ClientSession(middlewares=[cache, limited_api]) as session:
            for _ in range(2):
                async with session.get(server.url + "/x") as response:
                    assert response.status == 200
    assert [quota.remaining for quota in limiter.quotas().values()] == [20]


@in_virtual_time
async def test_any_other_client_may_hold_a_permit() -> None:
    limiter = Limiter()
    async with limiter.permit("GET /x") as permit:
        assert isinstance(permit, Permit)
        permit.observed(quota_headers(3, limit=15))
    assert limiter.quota("GET /x").remaining == 3
    async with limiter.permit("GET /x") as permit:
        permit.unsent()
    with pytest.raises(KeyError):
        async with limiter.permit("GET /x"):
            raise KeyError
    assert limiter.stats().lost == 1
    assert_settled(limiter)


def test_a_credential_in_the_clear_is_refused() -> None:
    with pytest.raises(ValueError, match="https"):
        RateLimitMiddleware(Limiter(), apis={X.at("http://api.x.com"): Bearer("t")})


@in_virtual_time
async def test_what_paths_lead_to_is_kept_within_bounds() -> None:
    async with serving(scripted(200)) as server:
        middleware = RateLimitMiddleware(Limiter(), {plain_api(server.url): None})
        async with aiohttp.ClientSession(middlewares=[middleware]) as session:
            for number in range(300):
                await get(session, f"{server.url}/a/b{number}")
        assert len(middleware._ways) == 256
        assert ("GET", "http", server.url.removeprefix("http://"), "/a/b299") in middleware._ways
