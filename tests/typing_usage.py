"""Typed as a user types; checked by mypy and pyright, never run."""

# ruff: noqa: T201, SIM117 # users print, and nest

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp

import aiotwhelp
from aiotwhelp import events


def on_event(event: events.Event) -> None:
    if isinstance(event, events.Waiting):
        print(event.callers, event.resets_in)


async def a_session() -> str:
    auth = aiotwhelp.OAuth1("key", "secret", "token", "token secret")
    async with aiotwhelp.Session(aiotwhelp.X, auth=auth, on_event=on_event) as x:
        policy: str = await aiotwhelp.Help(x).privacy()
        me = await x.fetch("/2/users/me")
        path = "/2/users/{id}/tweets"
        async with x.get(path, path_params={"id": 12}, params={"max_results": 5}) as response:
            taken: aiohttp.ClientResponse = response
            await taken.json()
        awaited: aiohttp.ClientResponse = await x.post("/2/tweets", json={"text": "hello"})
        awaited.release()
        quota: aiotwhelp.Quota = x.quota("/2/users/me")
        remaining: int | None = quota.remaining
        print(quota, remaining, me["data"])
        user: aiotwhelp.Session = x.as_user(
            "u:42", auth=aiotwhelp.OAuth2User("client", refresh_token="token")
        )
        await user.fetch("/2/users/me", coalesce=True, max_wait=30, total_timeout=60.0)
        await user.fetch("/2/users/me", priority=aiotwhelp.Priority.INTERACTIVE, retries=0)
    return policy


async def every_option(connector: aiohttp.TCPConnector) -> None:
    async def middleware(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        return await handler(request)

    session = aiotwhelp.Session(
        "https://api.example.org",
        auth=aiotwhelp.ClientCredentials("key", "secret"),
        limiter=aiotwhelp.Limiter(reserve=0.1, pace="even", max_waiters=1000),
        retries=2,
        max_wait=60,
        total_timeout=None,
        priority=aiotwhelp.Priority.BATCH,
        coalesce=True,
        concurrency=20,
        middlewares=[middleware],
        on_event=print,
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=30),
    )
    await session.close(grace=1.0)


async def from_the_environment(environ: Mapping[str, str]) -> None:
    async with aiotwhelp.Session.from_env(environ, retries=1) as session:
        limits: aiotwhelp.RateLimitStatus = await aiotwhelp.Help(session).rate_limit_status("help")
        print(limits["/help/privacy"].remaining)
        languages: list[aiotwhelp.Language] = await aiotwhelp.Help(session).languages()
        print(languages[0].code)


async def own_session(auth: aiotwhelp.Auth) -> None:
    rates = {"/2/tweets/search/all": aiotwhelp.Rate(1, per=1)}
    limiter = aiotwhelp.Limiter(rates=rates)
    middleware = aiotwhelp.RateLimitMiddleware(limiter, apis={aiotwhelp.X: auth})
    async with aiohttp.ClientSession(middlewares=[middleware]) as own:
        async with own.get("https://api.x.com/2/users/me") as response:
            print(response.status)


async def other_client(limiter: aiotwhelp.Limiter, headers: Mapping[str, str]) -> None:
    async with limiter.permit("GET /x", cost=2, max_wait=5.0) as permit:
        reading: aiotwhelp.Reading = permit.observed(headers, status=200)
        print(reading)
    async with limiter.permit(aiotwhelp.QuotaKey("GET /x", "example.org")) as permit:
        permit.unsent()
    for key, quota in limiter.quotas().items():
        print(key.route, quota.resets_in)
    stats: aiotwhelp.Stats = limiter.stats()
    print(stats.granted)


async def with_the_emulator() -> Any:
    async with (
        aiotwhelp.Emulator(window=5) as api,
        aiotwhelp.Session(api.url, auth=aiotwhelp.Bearer(api.token)) as x,
    ):
        return await x.fetch("/1.1/help/privacy.json")


async def errors(session: aiotwhelp.Session) -> float | None:
    try:
        await session.fetch("/x", max_wait=0)
    except aiotwhelp.QuotaTimeoutError as error:
        return error.retry_after
    except aiotwhelp.RateLimitError as error:
        return error.resets_at
    except aiotwhelp.ApiError as error:
        codes: tuple[int, ...] = error.codes
        print(error.status, codes, error.problem, error.body)
    except aiotwhelp.AiotwhelpError:
        pass
    return None


async def stores(key: bytes) -> None:
    kept: list[aiotwhelp.TokenStore] = [
        aiotwhelp.SQLiteStore("tokens.db", user="4711", key=key),
        aiotwhelp.RedisStore("redis://localhost", user="4711", key=[key, "another"]),
    ]
    for store in kept:
        aiotwhelp.OAuth2User("client", store=store, identity="4711")
        async with store.exclusive():
            token = await store.load()
            if token is not None:
                await store.save(token)
