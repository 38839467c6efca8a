"""Servers that nobody here wrote: the callers of a session share what their limiters give.

In real time, since it is the servers' clocks that count; and what is asserted, the servers have
counted. All settings of a test are played at once, each for about four windows; a machine that is
too slow for that has as many more as it lost.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
import pytest

from aiotwhelp import Session
from tests.servers.running import Server, running
from tests.unhurried import pulse_of_loop

#: A window of 2 seconds takes LIMIT calls, so that CALLS need four.
LIMIT, WINDOW, WINDOWS, CALLS = 8, 2, 4, 28
#: Where there are two limits, such a window takes BURST calls and one of 4 seconds LONG, so that
#: CALLS_OF_TWO need three of the longer.
BURST, LONG, LONG_WINDOW, LONG_WINDOWS, CALLS_OF_TWO = 5, 8, 4, 3, 20

Headers = Mapping[str, object]
LEGACY: Headers = {"legacyHeaders": True, "standardHeaders": False}


def draft(number: int, *, legacy: bool = False) -> Headers:
    return {"legacyHeaders": legacy, "standardHeaders": f"draft-{number}"}


def express(version: int, headers: Headers) -> Server:
    limiter = {"limit": LIMIT, "windowMs": WINDOW * 1000, **headers}
    return Server("with_express.js", {"version": version, "limiters": [limiter]})


def express_with_two(version: int, headers: Headers) -> Server:
    burst = {"limit": BURST, "windowMs": WINDOW * 1000, **headers}
    long = {"limit": LONG, "windowMs": LONG_WINDOW * 1000, **headers}
    return Server("with_express.js", {"version": version, "limiters": [burst, long]})


def fastify(version: int, rate_limit: int, *, draft: bool) -> Server:
    options = {"max": LIMIT, "timeWindow": WINDOW * 1000, "enableDraftSpec": draft}
    settings = {"fastify": version, "rateLimit": rate_limit, "options": options}
    return Server("with_fastify.js", settings)


ONE_LIMIT = f"{LIMIT} per {WINDOW} seconds"
TWO_LIMITS = f"{BURST} per {WINDOW} seconds; {LONG} per {LONG_WINDOW} seconds"


def flask(limits: str = ONE_LIMIT, **options: object) -> Server:
    settings = {"default_limits": [limits], "headers_enabled": True, **options}
    return Server("with_flask.py", settings)


def slowapi(limits: str = ONE_LIMIT, **options: object) -> Server:
    settings = {"default_limits": [limits], "headers_enabled": True, **options}
    return Server("with_slowapi.py", settings)


def nginx(limit_req: str) -> Server:
    return Server("with_nginx.py", {"rate": "10r/s", "limit_req": limit_req})


#: Their windows are fixed: the first call after the end of one begins the next.
FIXED = {
    **{
        f"express-rate-limit {version}, {name}": express(version, headers)
        for version in (7, 8)
        for name, headers in {
            "legacy": LEGACY,
            "draft-6": draft(6),
            "draft-7": draft(7),
            "draft-8": draft(8),
            "legacy and draft-6": draft(6, legacy=True),
            "legacy and draft-7": draft(7, legacy=True),
            "legacy and draft-8": draft(8, legacy=True),
        }.items()
    },
    "fastify": fastify(5, 11, draft=False),
    "fastify, draft": fastify(5, 11, draft=True),
    "Flask-Limiter": flask(),
    "Flask-Limiter, http-date": flask(retry_after="http-date"),
    "slowapi": slowapi(),
    "slowapi, http-date": slowapi(retry_after="http-date"),
}

SLIDING = {
    "Flask-Limiter, moving": flask(strategy="moving-window"),
    "Flask-Limiter, sliding": flask(strategy="sliding-window-counter"),
    "slowapi, moving": slowapi(strategy="moving-window"),
}

BOTH_TOLD = {
    "express-rate-limit 7": express_with_two(7, draft(8)),
    "express-rate-limit 8": express_with_two(8, draft(8)),
}

#: Of two limits express-rate-limit shows the later one, the other two the shorter one.
ONE_TOLD = {
    "express-rate-limit, legacy": express_with_two(8, LEGACY),
    "express-rate-limit, draft-6": express_with_two(8, draft(6)),
    "express-rate-limit, draft-7": express_with_two(8, draft(7)),
    "Flask-Limiter": flask(TWO_LIMITS),
    "Flask-Limiter, sliding": flask(TWO_LIMITS, strategy="sliding-window-counter"),
    "slowapi": slowapi(TWO_LIMITS),
}

ROUNDED_DOWN = {
    "fastify": fastify(4, 8, draft=False),
    "fastify, draft": fastify(4, 8, draft=True),
}

#: So many beyond its rate nginx takes at once: it holds them, or not.
EXCESS = 5

NGINX = {
    "without a burst": nginx(""),
    "held": nginx(f"burst={EXCESS}"),
    "nodelay": nginx(f"burst={EXCESS} nodelay"),
}


@dataclass(frozen=True, slots=True)
class Played:
    """What a server answered, and when, by its own account."""

    accepted: list[float]
    refused: list[float]
    #: Seconds in which this process did not get on.
    lost: float

    @property
    def span(self) -> float:
        return self.accepted[-1] - self.accepted[0]

    def windows(self, length: float) -> int:
        """Count fixed windows, each of which begins with the first call after the last one."""
        begun: list[float] = []
        for at in self.accepted:
            if not begun or at - begun[-1] >= length:
                begun.append(at)
        return len(begun)


async def play(server: Server, calls: int) -> Played:
    async with running(server) as there:
        async with Session(there.url) as session, pulse_of_loop(0.05) as pulse:
            async with asyncio.timeout(300):
                answers = await asyncio.gather(*(session.fetch("/things") for _ in range(calls)))
            lost = pulse.lost
        journal = sorted(await there.journal(), key=lambda answer: answer.at)
    assert answers == [{}] * calls
    accepted = [answer.at for answer in journal if answer.status == 200]
    refused = [answer.at for answer in journal if answer.status == 429]
    assert len(accepted) == calls
    assert len(journal) == calls + len(refused)
    return Played(accepted, refused, lost)


async def play_all(servers: Mapping[str, Server], calls: int = CALLS) -> dict[str, Played]:
    require(servers)
    played = await asyncio.gather(*(play(server, calls) for server in servers.values()))
    return dict(zip(servers, played, strict=True))


def require(servers: Mapping[str, Server]) -> None:
    """Skip a test whose servers are not installed, or fail it where they have to be."""
    for server in servers.values():
        what_to_type = server.missing()
        if what_to_type is not None:
            if os.environ.get("AIOTWHELP_REQUIRE_SERVERS"):
                pytest.fail(f"a third-party server is missing: {what_to_type}")
            pytest.skip(f"to run against third-party servers: {what_to_type}")


def refusals(played: Mapping[str, Played]) -> dict[str, int]:
    return {name: len(each.refused) for name, each in played.items()}


def assert_none_was_slept_through(
    played: Mapping[str, Played], windows: int = WINDOWS, each: float = WINDOW + 1
) -> None:
    """Between the first call and the last lie no more than so many windows, ``each`` with delay.

    The last window is not waited for, so that there is room for a machine that is busy.
    """
    spans = {name: one.span - one.lost for name, one in played.items()}
    assert max(spans.values()) < windows * each, spans


@pytest.mark.asyncio
async def test_callers_who_share_nothing_are_refused() -> None:
    servers = {**FIXED, **SLIDING, **BOTH_TOLD, **ONE_TOLD, **ROUNDED_DOWN, **NGINX}
    require(servers)
    turn = asyncio.Lock()  # together they would be slow enough for some to be refused nothing
    statuses = await asyncio.gather(*(statuses_without_us(each, turn) for each in servers.values()))
    assert all(429 in each for each in statuses)


async def statuses_without_us(server: Server, turn: asyncio.Lock) -> list[int]:
    async with running(server) as there, aiohttp.ClientSession() as client, turn:

        async def call() -> None:
            async with client.get(there.url + "/things"):
                pass

        await asyncio.gather(*(call() for _ in range(CALLS)))
        return [answer.status for answer in await there.journal()]


@pytest.mark.asyncio
async def test_nobody_is_refused_where_the_headers_tell() -> None:
    played = await play_all({**FIXED, **SLIDING})
    assert refusals(played) == dict.fromkeys(played, 0)
    windows = {
        name: played[name].windows(WINDOW) - int(played[name].lost / WINDOW) for name in FIXED
    }
    assert max(windows.values()) <= WINDOWS + 1, windows
    # slowapi adds a second to each reset, and uvicorn's Date is up to one behind.
    assert_none_was_slept_through(played, each=WINDOW + 2)


@pytest.mark.asyncio
async def test_nobody_is_refused_where_two_limits_are_told() -> None:
    played = await play_all(BOTH_TOLD, CALLS_OF_TWO)
    assert refusals(played) == dict.fromkeys(played, 0)
    assert_none_was_slept_through(played, LONG_WINDOWS + 1, each=LONG_WINDOW + 1)


@pytest.mark.asyncio
async def test_a_limit_that_no_answer_tells_refuses_what_the_other_allows_beyond_it() -> None:
    played = await play_all(ONE_TOLD, CALLS_OF_TWO)
    at_most = {name: (LONG - BURST) * each.windows(LONG_WINDOW) for name, each in played.items()}
    assert all(refused <= at_most[name] for name, refused in refusals(played).items()), played
    assert_none_was_slept_through(played, LONG_WINDOWS + 1, each=LONG_WINDOW + 2)


@pytest.mark.asyncio
async def test_a_reset_that_is_rounded_down_costs_one_refusal_a_window() -> None:
    played = await play_all(ROUNDED_DOWN)
    windows = {name: WINDOWS + int(each.lost / WINDOW) for name, each in played.items()}
    assert all(refused <= windows[name] for name, refused in refusals(played).items()), played
    # With the plain headers, Retry-After is a whole window, however little of it is left.
    assert_none_was_slept_through(played, each=2 * WINDOW + 1)


@pytest.mark.asyncio
async def test_without_headers_nginx_refuses_no_more_than_twice_what_it_takes_at_once() -> None:
    played = await play_all(NGINX)
    # Once while the quota opens, with one call more in flight than were answered; then singly,
    # as the pace is tried that calls go at.
    assert max(refusals(played).values()) <= 2 * (EXCESS + 1), refusals(played)


@pytest.mark.asyncio
@pytest.mark.parametrize("server", [FIXED["fastify"], FIXED["slowapi"], NGINX["held"]])
async def test_a_server_leaves_no_process_behind(server: Server) -> None:
    require({server.program: server})
    async with running(server) as there:
        os.killpg(there.group, 0)
    with pytest.raises(ProcessLookupError):
        os.killpg(there.group, 0)


@pytest.mark.asyncio
async def test_a_server_that_cannot_start_says_why() -> None:
    server = slowapi(strategy="none-such")
    require({"slowapi": server})
    with pytest.raises(RuntimeError, match="none-such"):
        async with running(server):
            pass
