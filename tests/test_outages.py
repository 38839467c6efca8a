"""The server is away: what that costs it, what callers are told and when, and how it comes back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from aiotwhelp import Session
from aiotwhelp.testing import VirtualTimeLoop
from tests.stack import (
    Handler,
    assert_at_rest,
    assert_nothing_is_left,
    drop,
    elapsed,
    in_a_crowd,
    plain_api,
    quota_headers,
    scripted,
    serving,
)

#: Calls of the server's only window, whose end none of these tests sees.
LIMIT = 2000

CALLERS = 120

#: More calls than this are never in flight.
CONCURRENCY = 40

#: What a session can pay for before anything succeeds: 500 in the budget, 5 a retry, or 10 after
#: a timeout.
RETRIES, RETRIES_AFTER_TIMEOUTS = 100, 50

#: Where nothing is known of a quota, one call at a time finds out: after 1, 2, 4 ... 60 s.
PROBES, LONGEST_BACKOFF = 12, 60.0

TIMEOUT = aiohttp.ClientTimeout(total=4, sock_connect=2)


class Site:
    """A server at a name that counts in one window and can be away; and how often it was tried."""

    def __init__(self) -> None:
        self.down: Handler | None = None
        self.served = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.tries = 0
        self.address = ("127.0.0.1", 0)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        self.network = loop.network
        self.network.hosts["api.test"] = self.address[0]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self.down is not None:
            return await self.down(request)
        self.served += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(0.05)
        self.in_flight -= 1
        return web.json_response({}, headers=self.headers())

    def headers(self) -> dict[str, str]:
        return quota_headers(LIMIT - self.served, limit=LIMIT, resets_in=7200 - elapsed())

    @property
    def traced(self) -> aiohttp.TraceConfig:
        """Counts the connections asked for, one for each try; none need be had."""

        async def count(*_: Any) -> None:
            self.tries += 1

        config = aiohttp.TraceConfig()
        config.on_connection_create_start.append(count)
        config.on_connection_reuseconn.append(count)
        return config


@dataclass(frozen=True)
class Outage:
    begin: Callable[[Site], None]
    #: What callers are told.
    cause: str
    retries: int = RETRIES
    #: Whether the server surely counted nothing, and we know it.
    costs_no_token: bool = False

    def end(self, site: Site) -> None:
        site.down = None
        site.network.latency = 0.0
        site.network.allow(site.address)
        site.network.hosts["api.test"] = site.address[0]


def answering(down: Handler) -> Callable[[Site], None]:
    def begin(site: Site) -> None:
        site.down = down

    return begin


def fail_with_headers(site: Site) -> None:
    async def fail(_: web.Request) -> web.Response:
        return web.json_response({}, status=500, headers=site.headers())

    site.down = fail


def refuse(site: Site) -> None:
    site.network.cut()
    site.network.refuse(site.address)


def swallow(site: Site) -> None:
    site.network.cut()
    site.network.latency = 1000.0


def forget_the_name(site: Site) -> None:
    site.network.cut()
    del site.network.hosts["api.test"]


def ask_for_patience(_: web.Request) -> web.Response:
    return web.Response(status=503, headers={"Retry-After": "3"})


def reset(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def never(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(10_000)
    return web.Response()


OUTAGES = {
    "refused": Outage(refuse, "Connect call failed", costs_no_token=True),
    "swallowed": Outage(swallow, "Connection timeout", RETRIES_AFTER_TIMEOUTS, costs_no_token=True),
    "no such name": Outage(forget_the_name, "Name or service not known", costs_no_token=True),
    "503": Outage(answering(scripted(503)), "503"),
    "503 with Retry-After": Outage(answering(scripted(ask_for_patience)), "503"),
    "500 with headers": Outage(fail_with_headers, "500", costs_no_token=True),
    "silent": Outage(answering(never), "no answer|TimeoutError", RETRIES_AFTER_TIMEOUTS),
    "dropped": Outage(answering(scripted(drop)), "Server disconnected"),
    "reset": Outage(answering(scripted(reset)), "reset by peer"),
}

#: What is told while time has run out and nothing has failed yet.
UNANSWERED = "had no answer within|unanswered|its caller gave up|Timeout"

in_every_outage = pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES)


@asynccontextmanager
async def calling(**options: Any) -> AsyncIterator[tuple[Site, Session]]:
    """A site and a session that calls it; in the end nothing may be left."""
    site = Site()
    async with serving(site.handle) as server:
        port = int(server.url.rpartition(":")[2])
        site.address = ("127.0.0.1", port)
        async with Session(
            plain_api(f"http://api.test:{port}"),
            concurrency=CONCURRENCY,
            timeout=TIMEOUT,
            trace_configs=[site.traced],
            connector=aiohttp.TCPConnector(use_dns_cache=False),
            **options,
        ) as session:
            yield site, session
            await assert_at_rest(session)
    await assert_nothing_is_left()


@dataclass(frozen=True)
class Outcome:
    error: BaseException | None
    began: float
    ended: float

    @property
    def took(self) -> float:
        return self.ended - self.began


async def call(session: Session, **options: Any) -> Outcome:
    began = elapsed()
    try:
        await session.fetch("/x", **options)
    except (aiohttp.ClientError, TimeoutError) as error:
        return Outcome(error, began, elapsed())
    return Outcome(None, began, elapsed())


async def calls(session: Session, **options: Any) -> list[Outcome]:
    return await asyncio.gather(*(call(session, **options) for _ in range(CALLERS)))


async def assert_all_work(site: Site, session: Session) -> None:
    """Nobody fails, as many as may are in flight, and what is left is what the server says."""
    site.most_in_flight = 0
    assert {each.error for each in await calls(session)} == {None}
    assert site.most_in_flight == CONCURRENCY
    assert session.quota("/x").remaining == LIMIT - site.served


@in_every_outage
@pytest.mark.parametrize("quota", ["known", "new"])
def test_an_outage_costs_a_bounded_number_of_tries_and_is_over_when_it_is_over(
    outage: Outage, quota: str
) -> None:
    @in_a_crowd
    async def scene() -> None:
        async with calling() as (site, session):
            if quota == "known":
                await session.fetch("/x")
            left, before = session.quota("/x").remaining, site.tries
            outage.begin(site)
            for each in await calls(session):
                assert re.search(outage.cause, str(each.error)), each
                assert each.took < 600
            if session.quota("/x").remaining is None:
                assert site.tries - before <= PROBES
            else:
                # Each caller tries once; all else draws from one budget.
                assert site.tries - before == CALLERS + outage.retries
            if outage.costs_no_token:
                assert session.quota("/x").remaining in (left, LIMIT)
            outage.end(site)
            first = await call(session)
            assert first.error is None
            assert first.took < (4 if quota == "known" else LONGEST_BACKOFF + 1)
            if outage.costs_no_token or quota == "new":
                assert session.quota("/x").remaining == LIMIT - site.served
            await asyncio.sleep(5)
            await assert_all_work(site, session)

    scene()


#: What a caller may allow, and after how many seconds it must be told.
ALLOWED: list[tuple[dict[str, Any], float]] = [
    ({"total_timeout": 3}, 3),
    ({"total_timeout": 20}, 20),
    # Seconds in the queue, and those of one attempt.
    ({"max_wait": 5, "retries": 0}, 5 + 4),
]


@in_every_outage
@pytest.mark.parametrize("quota", ["known", "new"])
def test_callers_fail_in_the_time_they_allowed_and_are_told_why(outage: Outage, quota: str) -> None:
    @in_a_crowd
    async def scene() -> None:
        async with calling() as (site, session):
            if quota == "known":
                await session.fetch("/x")
            outage.begin(site)
            crowds = await asyncio.gather(*(calls(session, **allowed) for allowed, _ in ALLOWED))
            for (_, longest), crowd in zip(ALLOWED, crowds, strict=True):
                for each in crowd:
                    assert re.search(f"{outage.cause}|{UNANSWERED}", str(each.error)), each
                    assert each.took <= longest + 0.01
            outage.end(site)

    scene()


@in_every_outage
def test_callers_who_come_after_an_outage_are_served_and_need_no_restart(outage: Outage) -> None:
    @in_a_crowd
    async def scene() -> None:
        async with calling() as (site, session):
            outage.begin(site)
            began, coming = elapsed(), []
            asyncio.get_running_loop().call_later(3, outage.end, site)
            for _ in range(CALLERS):
                coming.append(asyncio.ensure_future(call(session)))
                await asyncio.sleep(0.1)
            for each in await asyncio.gather(*coming):
                was_away = each.began < began + 3
                assert each.error is None or (was_away and re.search(outage.cause, str(each.error)))
                assert each.took < 20

    scene()
