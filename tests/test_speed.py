"""What a call costs, counted in calls of functions: no machine and no load can change that.

A count that grew is no failure by itself: it says that the plain way of every call has become
longer, and by how much. `make bench` tells what that is in time.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import aiohttp
import pytest

import aiotwhelp
from aiotwhelp import Bearer, Limiter, OAuth1, QuotaKey, RateLimitMiddleware, Session, X
from aiotwhelp.dialects import DISCORD
from aiotwhelp.local import Room
from tests.stack import in_a_crowd, quota_headers

PACKAGE = Path(aiotwhelp.__file__).parent

#: The way to a grant, and what an answer tells: has bounds of its own.
RULE = {
    *(
        "limiter",
        "turns",
        "alarm",
        "patience",
        "settling",
        "permits",
        "registry",
        "telling",
        "home",
    ),
    *(
        "costs",
        "matching",
        "quota",
        "windows",
        "refills",
        "leases",
        "sharing",
        "queues",
        "heaps",
        "views",
    ),
    *("local", "clock", "headers", "ietf", "dialects", "values"),
}

CALLS = 20


class Answering(asyncio.Protocol):
    """Answers every request with a little JSON and the headers of a quota."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        fields = quota_headers(100_000) | {"Content-Length": "2"}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.transport.write(f"HTTP/1.1 200 OK\r\n{lines}\r\n{{}}".encode())


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Count the calls, and resumptions, of our own functions, by module."""
    counts: Counter[str] = Counter()

    def note(frame: FrameType, event: str, _: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.parent == PACKAGE:
            counts[path.stem] += 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield counts
    finally:
        sys.setprofile(before)


async def per_call(call: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """Return how many functions of the rule one call calls, and how many others of ours."""
    for _ in range(CALLS):  # what is worked out once is worked out
        await call()
    with counting() as counts:
        for _ in range(CALLS):
            await call()
    rule = sum(count for module, count in counts.items() if module in RULE)
    return rule / CALLS, (counts.total() - rule) / CALLS


#: What a call may cost beside the rule, with aiohttp's part left out (250 calls in 3.14).
BOUNDS = {
    ("get", "bearer"): 16,
    ("fetch", "bearer"): 16,
    ("get", "oauth1"): 24,
    ("get", "nobody"): 16,
    ("middleware", "bearer"): 5,
}

AUTHS = {
    "bearer": Bearer("a-token"),
    "oauth1": OAuth1("a-key", "a-secret", "a-token", "a-token-secret"),
    "nobody": None,
}


@pytest.mark.parametrize(("kind", "auth"), BOUNDS)
def test_the_plain_way_of_a_call_is_short(kind: str, auth: str) -> None:
    @in_a_crowd
    async def scene() -> None:
        server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 8080)
        async with Session(X.at("http://127.0.0.1:8080"), auth=AUTHS[auth]) as session:

            async def get() -> None:
                async with session.get("/2/users/me") as response:
                    assert await response.read() == b"{}"

            async def fetch() -> None:
                assert await session.fetch("/2/users/me") == {}

            async def by_middleware() -> None:
                async with users.get("http://127.0.0.1:8080/2/users/me") as response:
                    assert await response.read() == b"{}"

            limited = RateLimitMiddleware(session.limiter, {session.api: AUTHS[auth]})
            async with aiohttp.ClientSession(middlewares=[limited]) as users:
                calls = {"get": get, "fetch": fetch, "middleware": by_middleware}
                _, others = await per_call(calls[kind])
        server.close()
        assert others <= BOUNDS[kind, auth]

    scene()


#: What a grant and the settling of it may cost, an answer's headers read; one looks, in the end,
#: whether the permit was settled.
RULES_BOUND = 12


@in_a_crowd
async def test_a_grant_that_is_there_takes_few_steps() -> None:
    limiter, key = Limiter(), QuotaKey("GET /2/users/me", "api.x.com", "u:1")

    async def call() -> None:
        (await limiter.acquire(key)).observed(quota_headers(100_000))

    rule, _ = await per_call(call)
    assert rule <= RULES_BOUND


def told_by_discord() -> dict[str, str]:
    """Return headers of a window that routes share, whose reset is told in seconds."""
    return {
        "Date": quota_headers(1)["Date"],
        "x-ratelimit-limit": "200000",
        "x-ratelimit-remaining": "100000",
        "x-ratelimit-reset-after": "900",
        "x-ratelimit-bucket": "abcd",
    }


@in_a_crowd
async def test_a_window_that_routes_share_takes_hardly_more_steps() -> None:
    limiter = Limiter()
    keys = [QuotaKey(f"GET /{name}", "discord.com", "u:1") for name in "ab"]

    async def calls() -> None:
        for key in keys:
            (await limiter.acquire(key, dialect=DISCORD)).observed(told_by_discord())

    rule, _ = await per_call(calls)
    # Of seconds the bounds are looked at with each answer.
    assert rule / len(keys) <= RULES_BOUND + 5.5


#: With the places of those who wait, and the room that they wait for.
WAITERS_BOUND = 63


@in_a_crowd
async def test_callers_who_wait_for_room_go_by_what_was_foreseen() -> None:
    limiter, key, room = Limiter(), QuotaKey("GET /2/users/me", "api.x.com", "u:1"), Room(4)

    async def call() -> None:
        permit = await limiter.acquire(key, room=room)
        await asyncio.sleep(0.01)
        permit.observed(quota_headers(100_000))

    async def calls() -> None:
        await asyncio.gather(*(call() for _ in range(10)))

    rule, _ = await per_call(calls)
    assert rule / 10 <= WAITERS_BOUND
