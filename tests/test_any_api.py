"""Any API that announces its limits: each dialect and kind of window, on the wire."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from email.utils import formatdate
from itertools import pairwise
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from aiotwhelp import (
    Api,
    ApiError,
    Bluesky,
    Concurrency,
    CostError,
    Discord,
    GitHub,
    Limiter,
    QuotaKey,
    QuotaTimeoutError,
    Rate,
    RateLimitError,
    RateLimitMiddleware,
    Reddit,
    Session,
    X,
    events,
    testing,
)
from aiotwhelp.dialects import AUTO, OPENAI
from aiotwhelp.emulator import Emulator
from aiotwhelp.headers import X_DIALECT
from aiotwhelp.local import Room
from aiotwhelp.middleware import Caller
from aiotwhelp.windows import cost_in
from tests.stack import (
    LANGUAGES,
    PRIVACY,
    TOS,
    Handler,
    assert_at_rest,
    assert_nothing_is_left,
    connections_in_use,
    drop,
    elapsed,
    in_virtual_time,
    quota_headers,
    scripted,
    serving,
)

pytestmark = pytest.mark.usefixtures("calls_in_flight")

#: Dialects in which an answer tells all that there is to know.
TELLING = [
    *("x", "x-ads", "ietf-03", "ietf-06", "ietf-07", "ietf-10", "ietf-10-token", "ietf-10-pk"),
    *("github", "reddit", "discord", "openai", "groq", "azure", "anthropic", "mastodon"),
    *("mastodon-offset", "gotosocial", "gitlab", "bluesky", "plain", "milliseconds"),
]
CONFIGURATION = "/1.1/help/configuration.json"
SHARED = dict.fromkeys(("help/privacy", "help/tos", "help/languages", "help/configuration"), "a")
WINDOW = 600.0


async def share(callers: int, *paths: str, **options: Any) -> tuple[Emulator, float]:
    """Let many callers without a credential share 15 calls per window; return what it came to."""
    options = {"limit": 15, "window": WINDOW, "latency": 0.2, "jitter": 0.3, **options}
    began = elapsed()
    async with Emulator(anonymous=True, **options) as api, Session(api.url) as session:
        answers = [session.fetch(paths[number % len(paths)]) for number in range(callers)]
        await asyncio.gather(*answers)
        took = elapsed() - began
        await assert_at_rest(session)
    await assert_nothing_is_left()
    return api, took


@pytest.mark.parametrize("rounding", ["exact", "up"])
@pytest.mark.parametrize("dialect", TELLING)
@in_virtual_time
async def test_a_dialect_is_recognised_and_nobody_is_refused(dialect: str, rounding: str) -> None:
    api, took = await share(60, PRIVACY, dialect=dialect, reset_rounding=rounding)
    assert (api.tally.received, api.refused) == (60, 0)
    assert 3 * WINDOW <= took < 3 * WINDOW + 3 * 1.5


@pytest.mark.parametrize("kind", ["sliding", "token-bucket", "leaky"])
@pytest.mark.parametrize("dialect", ["x", "ietf-06", "ietf-10", "discord", "mastodon", "plain"])
@in_virtual_time
async def test_windows_that_slide_refill_or_leak_refuse_nobody(dialect: str, kind: str) -> None:
    api, took = await share(60, PRIVACY, dialect=dialect, kind=kind)
    assert (api.tally.received, api.refused) == (60, 0)
    # A reset that moves is not believed of dialects whose windows are known to be fixed.
    idle = WINDOW if dialect in ("x", "discord") else WINDOW / 15
    assert took < 3 * WINDOW + idle


@pytest.mark.parametrize(
    ("kind", "most"), [("fixed", 2), ("sliding", 4), ("token-bucket", 1), ("leaky", 1)]
)
@pytest.mark.parametrize("dialect", ["ietf-06", "ietf-07", "ietf-10", "plain"])
@in_virtual_time
async def test_seconds_that_are_cut_off_cost_a_call_once_and_are_learned(
    dialect: str, kind: str, most: int
) -> None:
    api, took = await share(120, PRIVACY, dialect=dialect, kind=kind, reset_rounding="down")
    assert api.refused <= most
    a_call = WINDOW / 15 if kind == "token-bucket" else 0.0
    assert took < 7 * WINDOW + 7 * 2.5 + a_call


@pytest.mark.parametrize("dialect", ["openai", "discord"])
@in_virtual_time
async def test_short_windows_that_slide_and_tell_decimals_refuse_nobody(dialect: str) -> None:
    api, _ = await share(60, PRIVACY, dialect=dialect, kind="sliding", window=5.0)
    assert api.refused == 0


@in_virtual_time
async def test_nothing_but_retry_after_costs_a_call_for_each_window_after_the_first() -> None:
    api, took = await share(60, PRIVACY, dialect="retry-after")
    assert api.refused <= 15 + 3 + 3, "what was in flight when the first window was spent"
    assert took < 3 * WINDOW + 10


@pytest.mark.parametrize("dialect", ["github", "discord", "ietf-10-pk", "gitlab"])
@in_virtual_time
async def test_routes_that_have_a_bucket_in_common_share_it_from_their_first_answer_on(
    dialect: str,
) -> None:
    paths = (PRIVACY, TOS, LANGUAGES, CONFIGURATION)
    api, took = await share(60, *paths, dialect=dialect, buckets=SHARED)
    assert (api.tally.received, api.refused) == (60, 0)
    assert took < 3 * WINDOW + 4.5


@in_virtual_time
async def test_one_category_for_every_route_is_one_quota_where_no_bucket_is_named() -> None:
    async with Emulator(
        dialect="plain", anonymous=True, limit=15, window=WINDOW, buckets=SHARED
    ) as api:
        mine = Api("mine", api.url, categories={"*": "all of it"})
        async with Session(mine) as session:
            paths = (PRIVACY, TOS, LANGUAGES, CONFIGURATION)
            await asyncio.gather(*(session.fetch(paths[n % 4]) for n in range(60)))
            assert str(session.quota(TOS)) == str(session.quota(PRIVACY))
        assert api.refused == 0


# --- buckets that the server names ---------------------------------------------------------


def answer(bucket: str, remaining: int, *, limit: int = 15, after: float = 60.0) -> dict[str, str]:
    """Headers as Discord has them."""
    return {
        "x-ratelimit-limit": str(limit),
        "x-ratelimit-remaining": str(remaining),
        "x-ratelimit-reset": "1470173023.123",
        "x-ratelimit-reset-after": str(after),
        "x-ratelimit-bucket": bucket,
    }


A, B, C = (QuotaKey(f"GET /{name}", "api") for name in "abc")


@in_virtual_time
async def test_waiters_of_both_routes_go_in_the_order_of_their_arrival_after_a_merge() -> None:
    limiter = Limiter()
    first, second = await limiter.acquire(A, dialect=AUTO), await limiter.acquire(B, dialect=AUTO)
    went: list[str] = []

    async def call(key: QuotaKey, name: str) -> None:
        async with limiter.permit(key, dialect=AUTO) as permit:
            went.append(name)
            permit.observed(answer("one", 15 - len(went)))

    names = [(key, f"{key.route} {number}") for number in range(3) for key in (A, B)]
    callers = [asyncio.ensure_future(call(key, name)) for key, name in names]
    await asyncio.sleep(0)
    first.observed(answer("one", 0, after=30.0))
    second.observed(answer("one", 0, after=30.0))
    await asyncio.gather(*callers)
    assert went == ["GET /a 0", "GET /b 0", "GET /a 1", "GET /b 1", "GET /a 2", "GET /b 2"]
    assert elapsed() == pytest.approx(30.0, abs=2)
    assert limiter.stats().in_flight == 0


@in_virtual_time
async def test_calls_in_flight_of_the_other_route_count_after_a_merge() -> None:
    limiter = Limiter()
    (await limiter.acquire(A, dialect=AUTO)).observed(answer("one", 10))
    (await limiter.acquire(B, dialect=AUTO)).observed(answer("other", 10))
    flying = [await limiter.acquire(B, dialect=AUTO) for _ in range(2)]
    flying[0].observed(answer("one", 9))
    assert limiter.quota(A).remaining == 8
    flying[1].lost()
    assert limiter.quota(A).remaining == 8
    assert limiter.quota(B).remaining == 8


@in_virtual_time
async def test_what_was_known_before_the_first_name_goes_into_the_named_window() -> None:
    limiter = Limiter()
    nameless = answer("", 9)
    del nameless["x-ratelimit-bucket"]
    (await limiter.acquire(A, dialect=AUTO)).observed(nameless)
    flying = [await limiter.acquire(A, dialect=AUTO) for _ in range(2)]
    flying[0].observed(nameless | {"x-ratelimit-remaining": "7"})
    flying[1].observed(answer("one", 8))
    assert limiter.quota(A).remaining == 7


@in_virtual_time
async def test_nameless_windows_of_two_channels_are_two() -> None:
    limiter = Limiter()
    one, two = QuotaKey("GET /a", "api", partition="1"), QuotaKey("GET /a", "api", partition="2")
    nameless = answer("", 0)
    del nameless["x-ratelimit-bucket"]
    (await limiter.acquire(one, dialect=AUTO)).observed(nameless)
    (await limiter.acquire(two, dialect=AUTO)).observed(nameless | {"x-ratelimit-remaining": "5"})
    assert (limiter.quota(one).remaining, limiter.quota(two).remaining) == (0, 5)


@in_virtual_time
async def test_a_server_that_names_another_bucket_each_time_leaves_nothing_behind() -> None:
    limiter = Limiter()
    for number in range(100):
        permit = await limiter.acquire(A, dialect=AUTO)
        permit.observed(answer(f"bucket {number}", 10))
    assert len(limiter.quota(A).windows) == 1
    assert len(limiter._registry.windows) == 1


@in_virtual_time
async def test_a_server_that_names_another_policy_each_time_is_heard_so_often_only() -> None:
    limiter = Limiter()
    for number in range(100):
        permit = await limiter.acquire(A, dialect=AUTO)
        permit.observed({"RateLimit": f'"p{number}";r=10;t=1'})
        await asyncio.sleep(2)
    assert len(limiter._registry.windows) == len(limiter.quota(A).windows) <= 16


@in_virtual_time
async def test_channels_have_quotas_of_their_own_in_a_bucket_of_one_name() -> None:
    seen: list[str] = []

    async def channel(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.json_response({}, headers=answer("messages", 0, after=50.0))

    async with serving(channel) as server, Session(Discord.at(server.url)) as session:
        for number in (1, 2, 3):
            await session.fetch("/channels/{id}/messages", path_params={"id": number})
        assert elapsed() < 1
        await session.fetch("/channels/{id}/messages", path_params={"id": 1})
        assert elapsed() >= 50
    assert len(seen) == 4


@in_virtual_time
async def test_a_refusal_that_is_for_every_route_holds_every_route() -> None:
    refused = {"retry-after": "7", "x-ratelimit-global": "true", "x-ratelimit-scope": "global"}
    at: list[tuple[str, float]] = []

    async def handler(request: web.Request) -> web.Response:
        at.append((request.path, elapsed()))
        if len(at) == 3:
            return web.json_response({}, status=429, headers=refused)
        return web.json_response({}, headers=answer(request.path, 10))

    async with serving(handler) as server, Session(Discord.at(server.url)) as session:
        await session.fetch("/a")
        await session.fetch("/b")
        await asyncio.gather(session.fetch("/a"), asyncio.create_task(late(session, "/b")))
    assert [path for path, _ in at[:3]] == ["/a", "/b", "/a"]
    assert all(when >= 7.0 for _, when in at[3:])


async def late(session: Session, path: str) -> Any:
    await asyncio.sleep(0.5)
    return await session.fetch(path)


# --- costs ---------------------------------------------------------------------------------


@in_virtual_time
async def test_calls_of_many_tokens_share_both_windows_and_nobody_is_refused() -> None:
    async with Emulator(
        dialect="openai", anonymous=True, limit=100, tokens=1000, window=60, latency=0.2
    ) as api:
        async with Session(api.url) as session:
            costs = [(1 + number % 7) * 50 for number in range(60)]
            await asyncio.gather(
                *(
                    session.fetch(f"{PRIVACY}?tokens={tokens}", cost={"tokens": tokens})
                    for tokens in costs
                )
            )
            names = [window.name for window in session.quota(PRIVACY).windows]
        assert names == ["requests", "tokens"]
        assert api.refused == 0
    assert elapsed() < 60.0 * (sum(costs) / 1000 + 3)


@pytest.mark.parametrize("known", [True, False])
@in_virtual_time
async def test_a_redirect_to_where_a_cost_never_fits_is_an_error_and_leaves_nothing_open(
    known: bool,
) -> None:
    async def handler(request: web.Request) -> web.Response:
        if request.path == "/large":
            return web.Response(status=307, headers={"Location": "/small"}, text="x" * 10_000)
        await asyncio.sleep(1)
        return web.json_response({}, headers={"RateLimit-Limit": "10", "RateLimit-Remaining": "9"})

    async with serving(handler) as server, Session(server.url) as session:
        first = asyncio.create_task(session.fetch("/small"))
        await asyncio.sleep(2 if known else 0.1)
        with pytest.raises(CostError, match="GET /small was not sent: a call of cost 20 never"):
            await session.fetch("/large", cost=20)
        await first
        assert connections_in_use(session) == 0
        await assert_at_rest(session)
    assert server.paths.count("/small") == 1
    await assert_nothing_is_left()


@in_virtual_time
async def test_a_big_call_does_not_starve_behind_small_ones() -> None:
    limiter = Limiter()

    def said(tokens: int, reset: float) -> dict[str, str]:
        return {
            "x-ratelimit-limit-tokens": "1000",
            "x-ratelimit-remaining-tokens": str(tokens),
            "x-ratelimit-reset-tokens": f"{reset}s",
        }

    (await limiter.acquire(A, dialect=OPENAI)).observed(said(500, 30.0))
    order: list[int] = []

    async def call(tokens: int) -> None:
        async with limiter.permit(A, dialect=OPENAI, cost={"tokens": tokens}) as permit:
            order.append(tokens)
            permit.observed(said(1000 - sum(order) % 1000, 30.0))

    await asyncio.gather(call(900), *(call(10) for _ in range(20)))
    assert order[0] == 900


@in_virtual_time
async def test_a_cost_that_is_known_afterwards_corrects_a_local_rate() -> None:
    limiter = Limiter(rates={"GET /a": Rate(100, per=1, burst=1000, unit="tokens")})
    permit = await limiter.acquire(A, cost={"tokens": 1000})
    permit.observed({}, cost={"tokens": 200})
    await limiter.acquire(A, cost={"tokens": 800})
    assert elapsed() == pytest.approx(0.0, abs=0.01)
    await limiter.acquire(B, cost={"tokens": 800})
    with pytest.raises(ValueError, match="never fits"):
        await limiter.acquire(A, cost={"tokens": 1001})


@pytest.mark.parametrize(
    ("cost", "words"),
    [
        ({"tokens": -1}, "cost\\['tokens'\\] is a whole number, not -1"),
        ({"tokens": 1.5}, "cost\\['tokens'\\] is a whole number, not 1.5"),
        ({"requests": 0}, "^a call is at least one request$"),
        ([1], "or a mapping such as"),
    ],
)
@in_virtual_time
async def test_a_cost_that_makes_no_sense_is_refused(cost: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Limiter().try_acquire(A, cost=cost)


@in_virtual_time
async def test_calls_that_take_nothing_of_a_unit_do_not_wait_for_it() -> None:
    limiter = Limiter(rates={"*": Rate(1, per=10, burst=5, unit="points")})
    (await limiter.acquire(A, cost={"points": 5})).observed({})
    writer = asyncio.ensure_future(limiter.acquire(A, cost={"points": 5}))
    await asyncio.sleep(0)
    permit = await limiter.acquire(B, cost={"points": 0}, max_wait=1)
    assert elapsed() == 0.0
    permit.unsent()
    passing = limiter.try_acquire(B, cost={"points": 0})
    assert passing is not None
    passing.unsent()
    room = Room(1)
    held = limiter.try_acquire(C, cost={"points": 0}, room=room)
    assert held is not None
    waits_for_room = asyncio.ensure_future(limiter.acquire(B, cost={"points": 0}, room=room))
    await asyncio.sleep(0)
    held.unsent()
    permit = await waits_for_room
    assert elapsed() == 0.0
    writer.cancel()


@in_virtual_time
async def test_a_call_of_no_tokens_goes_at_an_even_pace_when_there_are_none_left() -> None:
    limiter = Limiter(pace="even")
    spent = {
        "x-ratelimit-limit-tokens": "9",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "60s",
    }
    (await limiter.acquire(A, dialect=OPENAI)).observed(spent)
    for _ in range(3):
        permit = await limiter.acquire(A, dialect=OPENAI, cost={"tokens": 0}, max_wait=5)
        permit.observed(spent)
    assert limiter.stats().in_flight == 0


def test_what_an_api_knows_of_costs_holds_unless_the_caller_says_otherwise() -> None:
    mine = Api("mine", "http://127.0.0.1:1", costs={"POST /orders": {"requests": 5, "points": 2}})
    caller = Caller.of(mine, None, Limiter())
    assert caller.cost("POST", "http://127.0.0.1:1/orders") == 5
    assert caller.cost("POST", "http://127.0.0.1:1/orders", 3) == 3
    assert cost_in("points", caller.cost("POST", "http://127.0.0.1:1/orders", 3)) == 2
    assert caller.cost("POST", "http://127.0.0.1:1/orders", {"points": 9}) == 5
    assert caller.cost("GET", "http://127.0.0.1:1/orders") == 1


# --- tokens that come back one by one --------------------------------------------------------


@pytest.mark.parametrize("dialect", ["groq", "openai", "anthropic", "ietf-10", "plain"])
@in_virtual_time
async def test_nobody_waits_until_all_is_back_where_the_next_token_is_soon_there(
    dialect: str,
) -> None:
    async with Emulator(
        dialect=dialect, kind="token-bucket", anonymous=True, limit=900, window=3000
    ) as api:
        api.spend("help/privacy", 897, caller=api.app)
        async with Session(api.url) as session:
            for _ in range(3):
                await session.fetch(PRIVACY)
                await asyncio.sleep(1)
            began = elapsed()
            await asyncio.gather(*(session.fetch(PRIVACY) for _ in range(20)))
            assert elapsed() - began < 20 * (3000 / 900) + 5
        assert api.refused == 0


@in_virtual_time
async def test_a_refusals_retry_after_is_waited_for_and_not_the_reset_of_all_tokens() -> None:
    async with Emulator(
        dialect="groq", kind="token-bucket", anonymous=True, limit=600, window=6000, tokens=None
    ) as api:
        api.spend("help/privacy", 600, caller=api.app)
        async with Session(api.url) as session:
            await session.fetch(PRIVACY)
            assert elapsed() == pytest.approx(10.0, abs=2.0)
        assert api.refused == 1


# --- several windows at once ---------------------------------------------------------------


class Windows:
    """A server of fixed windows, each ``(limit, seconds)``; it says what a test wants it to say."""

    def __init__(self, *kinds: tuple[int, float]) -> None:
        self.kinds = kinds
        self.began = [-1e9 for _ in kinds]
        self.used = [0 for _ in kinds]
        self.refused = self.received = 0

    def take(self) -> int | None:
        """Count a call; return which window refused it."""
        now = elapsed()
        self.received += 1
        for at, (_, length) in enumerate(self.kinds):
            if now >= self.began[at] + length:
                self.began[at], self.used[at] = now, 0
        for at, (limit, _) in enumerate(self.kinds):
            if self.used[at] >= limit:
                self.refused += 1
                return at
        self.used = [each + 1 for each in self.used]
        return None

    def left(self, at: int) -> tuple[int, int, int]:
        """Limit, remaining, and seconds to the reset, rounded up."""
        limit, length = self.kinds[at]
        return limit, limit - self.used[at], math.ceil(self.began[at] + length - elapsed())


@pytest.mark.parametrize("prefix", ["X-RateLimit", "RateLimit"])
@in_virtual_time
async def test_a_limit_that_only_refusals_tell_of_is_kept_to_by_a_learned_pace(prefix: str) -> None:
    windows = Windows((5, 1.0), (200, 60.0))

    async def express(request: web.Request) -> web.Response:
        await asyncio.sleep(0.02)
        refused = windows.take()
        limit, remaining, reset = windows.left(1 if refused is None else refused)
        headers = {
            f"{prefix}-Limit": str(limit),
            f"{prefix}-Remaining": str(remaining),
            f"{prefix}-Reset": str(reset),
        }
        return web.json_response({}, status=200 if refused is None else 429, headers=headers)

    async with serving(express) as server, Session(server.url) as session:
        await asyncio.gather(*(session.fetch("/a") for _ in range(300)))
    assert windows.refused <= 60
    assert elapsed() < 200


@in_virtual_time
async def test_partitions_of_one_name_are_kept_apart() -> None:
    windows = Windows((5, 5.0), (20, 20.0))

    async def partitioned(request: web.Request) -> web.Response:
        refused = windows.take()
        told = [
            f'"peruser";r={remaining};t={reset};pk=:{key}:'
            for key, (_, remaining, reset) in zip("AB", map(windows.left, (0, 1)), strict=True)
        ]
        headers = {"RateLimit": ", ".join(told)}
        return web.json_response({}, status=200 if refused is None else 429, headers=headers)

    async with serving(partitioned) as server, Session(server.url) as session:
        await asyncio.gather(*(session.fetch("/a") for _ in range(60)))
    assert windows.refused == 0


@in_virtual_time
async def test_a_refusal_that_no_window_explains_is_met_with_a_learned_pace() -> None:
    windows = Windows((5, 5.0), (20, 20.0))

    async def confusing(request: web.Request) -> web.Response:
        refused = windows.take()
        (_, short, _), (_, long, _) = windows.left(0), windows.left(1)
        headers = {"RateLimit-Remaining": str(short), "X-RateLimit-Remaining": str(long)}
        return web.json_response({}, status=200 if refused is None else 429, headers=headers)

    async with serving(confusing) as server, Session(server.url) as session:
        await asyncio.gather(*(session.fetch("/a") for _ in range(40)))
    assert windows.refused <= 20


@in_virtual_time
async def test_a_delta_beyond_the_ceiling_is_no_reason_to_ask_each_minute() -> None:
    seen = 0

    async def far(request: web.Request) -> web.Response:
        nonlocal seen
        seen += 1
        headers = {"X-RateLimit-Remaining": str(max(0, 2 - seen)), "X-RateLimit-Reset": "1217931"}
        return web.json_response({}, status=200 if seen < 3 else 429, headers=headers)

    async with serving(far) as server, Session(server.url, max_wait=3600) as session:
        answers = [session.fetch("/a") for _ in range(5)]
        ends = await asyncio.gather(*answers, return_exceptions=True)
    assert [type(end) for end in ends].count(QuotaTimeoutError) == 3
    assert seen == 2


# --- limits that nobody announces ----------------------------------------------------------


@in_virtual_time
async def test_a_limit_on_calls_in_flight_holds_over_all_routes_of_an_identity() -> None:
    flying, most = 0, 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal flying, most
        flying, most = flying + 1, max(most, flying + 1)
        await asyncio.sleep(0.5)
        flying -= 1
        return web.json_response({})

    async with serving(handler) as server:
        mine = Api("mine", server.url, rates={"*": Concurrency(3)})
        async with Session(mine) as session:
            await asyncio.gather(*(session.fetch(f"/{'abc'[n % 3]}") for n in range(30)))
            assert most == 3
            assert elapsed() == pytest.approx(0.5 * 30 / 3, abs=1.0)
    await assert_nothing_is_left()


@in_virtual_time
async def test_an_announced_limit_on_calls_in_flight_is_used_to_the_full() -> None:
    flying, most, refused = 0, 0, 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal flying, most, refused
        if flying >= 5:
            refused += 1
            return web.json_response({}, status=429, headers={"RateLimit": '"slots";r=0'})
        flying, most = flying + 1, max(most, flying + 1)
        await asyncio.sleep(0.5)
        free, flying = 5 - flying, flying - 1
        policy = '"slots";q=5;qu="concurrent-requests"'
        headers = {"RateLimit-Policy": policy, "RateLimit": f'"slots";r={free}'}
        return web.json_response({}, headers=headers)

    async with serving(handler) as server, Session(server.url) as session:
        await asyncio.gather(*(session.fetch("/a") for _ in range(60)))
    assert (most, refused) == (5, 0)
    assert elapsed() < 0.5 * (60 / 5 + 4)


@in_virtual_time
async def test_limits_that_become_known_later_hold_for_quotas_in_use_as_well() -> None:
    limiter = Limiter()
    flying = [await limiter.acquire(key) for key in (A, B)]
    limiter.adopt("api", {"*": Concurrency(2), "/a": Rate(1, per=100)})
    limiter.adopt("api", {"*": Concurrency(2), "/a": Rate(1, per=100)})
    limiter.adopt("api", {"/b": Rate(1, per=50)})
    assert [len(limiter._registry.line(key).bucket.local) for key in (A, B)] == [2, 2]
    assert limiter.try_acquire(QuotaKey("GET /c", "api")) is None
    assert limiter.try_acquire(QuotaKey("GET /c", "another")) is not None
    for permit in flying:
        permit.observed({})
    for key in (A, B):
        (await limiter.acquire(key)).observed({})
        assert limiter.try_acquire(key) is None
    assert {window.in_flight for window in limiter._registry.line(A).bucket.local} == {0}


@in_virtual_time
async def test_a_local_rate_alone_serves_an_api_without_any_header() -> None:
    at: list[float] = []

    async def handler(request: web.Request) -> web.Response:
        at.append(elapsed())
        return web.json_response({})

    async with serving(handler) as server:
        mine = Api("mine", server.url, rates={"*": Rate(10, per=1)})
        async with Session(mine) as session:
            await asyncio.gather(*(session.fetch(f"/{'ab'[n % 2]}") for n in range(31)))
    gaps = [later - earlier for earlier, later in pairwise(at)]
    assert min(gaps) > 0.09
    assert at[-1] - at[0] == pytest.approx(3.0, abs=0.1)


# --- which quota a call spends ---------------------------------------------------------------

SHOPS = [f"shop-{name}" for name in "abcdefghij"]


def counting(limit: int, window: float, *, drops: bool = False) -> tuple[Handler, list[int]]:
    """A server with one quota for all that it serves, and the statuses that it has given.

    It may drop the second call unanswered, which aiohttp sends once more.
    """
    statuses: list[int] = []
    ends, left, dropped = 0.0, 0, False

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal ends, left, dropped
        if elapsed() >= ends:
            ends, left = elapsed() + window, limit
        left, status = (left - 1, 200) if left else (0, 429)
        statuses.append(status)
        if drops and not dropped and len(statuses) > 1:
            dropped = True
            return drop(request)
        headers = quota_headers(left, limit=limit, resets_in=math.ceil(ends - elapsed()))
        return web.json_response({}, status=status, headers=headers)

    return handle, statuses


@pytest.mark.parametrize("template", ["/shops/{shop}", "/shops/{shop}.json", "/{shop}/a-{shop}"])
@in_virtual_time
async def test_the_template_that_a_caller_writes_names_the_quota(template: str) -> None:
    handler, statuses = counting(5, 20)
    async with serving(handler) as server, Session(server.url) as session:
        await asyncio.gather(
            *(session.fetch(template, path_params={"shop": each}) for each in SHOPS)
        )
        assert statuses == [200] * 10
        assert len(session.limiter.quotas()) == 1
        quota = session.quota(template, path_params={"shop": "of another name"})
        assert quota == session.quota(template)
        assert (quota.remaining, quota.limit) == (0, 5)
        assert session.quota("/shops/of-another-name").remaining is None


@in_virtual_time
async def test_a_resend_and_a_hop_spend_the_quota_of_the_template() -> None:
    handler, statuses = counting(5, 20, drops=True)
    hops = 0

    async def elsewhere(request: web.Request) -> web.StreamResponse:
        nonlocal hops
        answer = await handler(request)
        if answer.status == 200 and request.path.endswith("-c") and not request.query:
            hops += 1
            raise web.HTTPTemporaryRedirect("/shops/shop-other?again=1", headers=answer.headers)
        return answer

    async with serving(elsewhere) as server, Session(server.url) as session:
        for each in SHOPS:
            await session.fetch("/shops/{shop}", path_params={"shop": each})
        assert len(session.limiter.quotas()) == 1
    assert hops == 1
    assert statuses == [200] * 12  # one dropped, one sent on


def test_a_path_that_is_known_has_its_own_quota_however_it_was_written() -> None:
    def name(path: str, written: str) -> str:
        return X.quota_name("GET", path, written)

    assert name("/2/users/me", "/2/users/{id}") == "GET /2/users/me"
    assert name("/2/users/12", "/2/users/{user}") == "GET /2/users/{id}"
    assert name("/things/a", "/things/{name}") == "GET /things/{id}"
    assert name("/things/a.json", "/things/{name}") == "GET /things/{id}"
    assert name("/things/a/b", "/things/{name}") == "GET /things/a/b"
    assert name("/others/a", "/things/{name}") == "GET /others/a"
    assert name("/things/a", "https://api.x.com/things/{name}") == "GET /things/{id}"


@in_virtual_time
async def test_a_rate_of_a_template_holds_for_all_that_it_makes() -> None:
    async with serving(hello) as server:
        by_template = {"/shops/{shop}": Rate(1, per=10)}
        mine = Api("mine", server.url, rates=by_template)
        async with Session(mine) as session:
            await asyncio.gather(*(session.fetch(f"/shops/{each}") for each in SHOPS[:3]))
        assert elapsed() == pytest.approx(20, abs=1)
        async with Session(server.url, limiter=Limiter(rates=by_template)) as session:
            await asyncio.gather(
                *(session.fetch("/shops/{s}", path_params={"s": each}) for each in SHOPS[:3])
            )
        assert elapsed() == pytest.approx(40, abs=1)


def test_costs_may_name_placeholders_and_methods_freely() -> None:
    mine = replace(X, costs={"get /2/users/{who}/tweets": {"points": 3}, "post": {"points": 5}})
    assert mine.cost("GET", "/2/users/12/tweets") == {"points": 3}
    assert mine.cost("POST", "/2/tweets") == {"points": 5}


@in_virtual_time
async def test_github_counts_points_content_and_calls_in_flight() -> None:
    async with serving(hello) as server, Session(GitHub.at(server.url)) as session:
        await asyncio.gather(*(session.fetch(f"/repos/a/b/issues/{n}") for n in range(100)))
        assert elapsed() < 3, "a burst of a hundred points"
        await asyncio.gather(*(session.fetch("/gists", method="POST") for _ in range(30)))
    # 10 at once; of 70 a minute the other 20 take 17 s, and of points 150 at 13.3 per second.
    assert 16 < elapsed() < 25


@in_virtual_time
async def test_bluesky_counts_points_for_records_only() -> None:
    async with serving(hello) as server, Session(Bluesky.at(server.url)) as session:
        create = "/xrpc/com.atproto.repo.createRecord"
        await asyncio.gather(*(session.fetch(create, method="POST") for _ in range(200)))
        took = elapsed()
        assert 75 < took < 85, "500 points at once, the other 100 at 1.25 per second"
        await asyncio.gather(*(session.fetch("/xrpc/app.bsky.feed.getTimeline") for _ in range(50)))
        assert elapsed() - took < 5


async def hello(request: web.Request) -> web.Response:
    return web.json_response({})


def test_known_apis_are_values() -> None:
    for api in (X, GitHub, Reddit, Discord, Bluesky):
        there = api.at("http://127.0.0.1:1")
        assert (there.dialect, there.rates, there.name) == (api.dialect, api.rates, api.name)
        assert there == api.at("http://127.0.0.1:1")
    assert Reddit.quota_name("GET", "/r/python/new") == Reddit.quota_name("POST", "/api/vote")
    assert Discord.partition("/channels/12/messages/13") == "/channels/12"
    assert Discord.partition("/users/@me") == ""
    assert GitHub.cost("POST", "/gists") == {"points": 5}
    assert X.cost("POST", "/2/tweets") == {}


# --- which dialect -------------------------------------------------------------------------


@in_virtual_time
async def test_what_was_recognised_is_told_once() -> None:
    told: list[events.Event] = []
    async with (
        Emulator(dialect="ietf-07", anonymous=True) as api,
        Session(api.url, on_event=told.append) as session,
    ):
        await asyncio.gather(*(session.fetch(path) for path in (PRIVACY, PRIVACY, TOS)))
    (recognized,) = [event for event in told if isinstance(event, events.DialectRecognized)]
    assert recognized.dialect == "ietf"


def test_a_url_is_recognised_an_api_has_its_own_and_both_can_be_overruled() -> None:
    assert Session("http://127.0.0.1:1").api.dialect is AUTO
    assert Session(X.at("http://127.0.0.1:1")).api.dialect is X_DIALECT
    assert Session("http://127.0.0.1:1", dialect="openai").api.dialect is OPENAI
    assert Session(GitHub, dialect="auto").api.dialect is AUTO
    assert Session("http://127.0.0.1:1", dialect="x").api.endpoint("GET", "/2/users/me")
    assert (
        Session("http://127.0.0.1:1", dialect="github").api.endpoint("GET", "/2/users/me") is None
    )
    with pytest.raises(ValueError, match=r"dialect is one of 'auto', 'x', .*; not 'gihtub'"):
        Session("http://127.0.0.1:1", dialect="gihtub")
    with pytest.raises(TypeError, match="dialect is a Dialect, or the name of one"):
        Session("http://127.0.0.1:1", dialect=5)  # type: ignore[arg-type]


@in_virtual_time
async def test_the_middleware_holds_an_apis_own_limits_as_well() -> None:
    async with serving(hello) as server:
        mine = Api("mine", server.url, rates={"*": Rate(1, per=1)})
        limited = RateLimitMiddleware(Limiter(), apis={mine: None})
        async with aiohttp.ClientSession(middlewares=[limited]) as own:
            for _ in range(4):
                async with own.get(f"{server.url}/a") as response:
                    assert response.status == 200
        assert elapsed() == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize("status", [403, 429])
@in_virtual_time
async def test_a_refusal_is_waited_for_whatever_its_status(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "aiotwhelp")
    async with Emulator(
        dialect="github", anonymous=True, limit=15, window=WINDOW, refusal_status=status
    ) as api:
        api.spend("help/privacy", 15, caller=api.app)
        async with Session(api.url) as session:
            await session.fetch(PRIVACY)
            assert session.limiter.stats().refused == 1
        assert [request.status for request in api.requests] == [status, 200]


def test_rates_say_what_they_are() -> None:
    with pytest.raises(ValueError, match="a concurrency needs a whole limit from 1 on"):
        Concurrency(0)
    with pytest.raises(TypeError, match="is a Rate, a Concurrency, or several"):
        Limiter(rates={"*": 5})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("pattern", "held"),
    [
        ("*", {"GET /a", "POST /a", "all of it"}),
        ("POST *", {"POST /a"}),
        ("/a", {"GET /a", "POST /a"}),
    ],
)
@in_virtual_time
async def test_which_routes_a_rate_is_for(pattern: str, held: set[str]) -> None:
    routes = ("GET /a", "POST /a", "all of it")
    limiter = Limiter(rates={pattern: Rate(1, per=1000)})
    found = {
        route
        for route in routes
        if [limiter.try_acquire(QuotaKey(route, "api", route)) for _ in range(2)][1] is None
        and has_rate(limiter, QuotaKey(route, "api", route))
    }
    assert found == held


def has_rate(limiter: Limiter, key: QuotaKey) -> bool:
    return bool(limiter._registry.line(key).bucket.local)


# --- GitHub's secondary limits -------------------------------------------------------------

SECONDARY = "You have exceeded a secondary rate limit. Please wait a few minutes."


def core(remaining: int, **more: str) -> dict[str, str]:
    """Headers as GitHub has them."""
    told = {"limit": "5000", "remaining": str(remaining), "used": "1", "resource": "core"}
    reset = str(int(time_now() + 1800))
    fields = {f"x-ratelimit-{name}": value for name, value in {**told, "reset": reset}.items()}
    return dated(fields | {name.replace("_", "-"): value for name, value in more.items()})


def dated(headers: dict[str, str]) -> dict[str, str]:
    return {"Date": formatdate(time_now(), usegmt=True), **headers}


def time_now() -> float:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, testing.VirtualTimeLoop)
    return loop.wall_time()


def secondary(status: int, words: str, *, headers: bool = True) -> web.Response:
    said = core(4000) if headers else {}
    return web.json_response({"message": words}, status=status, headers=said)


@pytest.mark.parametrize(
    ("status", "words", "headers"),
    [(429, "", True), (429, SECONDARY, False), (403, SECONDARY, True), (403, SECONDARY, False)],
)
@in_virtual_time
async def test_a_secondary_limit_that_says_no_time_holds_every_route_for_a_minute_and_then_two(
    status: int, words: str, headers: bool
) -> None:
    at: list[float] = []

    async def handler(request: web.Request) -> web.Response:
        at.append(elapsed())
        if len(at) in (2, 3):
            return secondary(status, words, headers=headers)
        return web.json_response({}, headers=core(4000))

    async with serving(handler) as server, Session(GitHub.at(server.url)) as session:
        await session.fetch("/a")
        refused = asyncio.create_task(session.fetch("/a"))
        await asyncio.sleep(61)
        await asyncio.gather(refused, session.fetch("/b"))
        assert session.limiter.stats().refused == 2
    _, first, second, *others = at
    assert second - first == pytest.approx(60, abs=1)
    assert min(others) - second == pytest.approx(120, abs=1)


@in_virtual_time
async def test_calls_in_flight_that_one_secondary_limit_refuses_double_nothing() -> None:
    at: list[float] = []

    async def handler(request: web.Request) -> web.Response:
        at.append(elapsed())
        number = len(at)
        await asyncio.sleep(0.1 * number)
        if 10 < number <= 20:
            return secondary(403, SECONDARY)
        return web.json_response({}, headers=core(4000))

    async with serving(handler) as server, Session(GitHub.at(server.url)) as session:
        await asyncio.gather(*(session.fetch(f"/{n}/{'abc'[n % 3]}") for n in range(40)))
    pause = max(later - earlier for earlier, later in pairwise(at))
    assert 59 < pause < 65
    assert elapsed() < 120


@pytest.mark.parametrize("headers", [True, False])
@in_virtual_time
async def test_a_missing_permission_is_an_error_at_once(headers: bool) -> None:
    forbidden = secondary(403, "Resource not accessible by integration", headers=headers)
    async with (
        serving(scripted(lambda _: forbidden)) as server,
        Session(GitHub.at(server.url)) as session,
    ):
        with pytest.raises(ApiError, match="403, Resource not accessible by integration"):
            await session.fetch("/a")
        assert session.limiter.stats().refused == 0
    assert len(server.seen) == 1
    assert elapsed() < 1


@in_virtual_time
async def test_a_secondary_limit_that_lasts_is_an_error_that_says_how_long_to_wait() -> None:
    async with (
        serving(scripted(lambda _: secondary(403, SECONDARY))) as server,
        Session(GitHub.at(server.url), retries=0) as session,
    ):
        with pytest.raises(RateLimitError, match="secondary rate limit") as caught:
            await session.fetch("/a")
    assert caught.value.retry_after == 60


@in_virtual_time
async def test_where_the_dialect_is_recognised_words_refuse_as_well() -> None:
    seen = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal seen
        seen += 1
        if seen == 1:
            return secondary(403, SECONDARY)
        return web.json_response({}, headers=core(4000))

    async with serving(handler) as server, Session(server.url) as session:
        await session.fetch("/a")
    assert elapsed() == pytest.approx(60, abs=1)


# --- limits that change ----------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["X-RateLimit", "RateLimit"])
@in_virtual_time
async def test_case_10_a_limit_that_shrinks_and_grows_again_in_mid_window_idles_nobody(
    prefix: str,
) -> None:
    used, refused = 0, 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal used, refused
        await asyncio.sleep(0.1)
        limit = 300 if 5.0 < elapsed() < 10.0 else 900
        if used >= limit:
            refused += 1
        else:
            used += 1
        headers = {
            f"{prefix}-Limit": str(limit),
            f"{prefix}-Remaining": str(max(0, limit - used)),
            f"{prefix}-Reset": str(math.ceil(3600 - elapsed())),
        }
        return web.json_response({}, headers=headers)

    async with serving(handler) as server, Session(server.url) as session:

        async def call(number: int) -> None:
            await asyncio.sleep(0.05 * number)  # 100 before it shrinks, 200 before it grows
            await session.fetch("/a")

        await asyncio.gather(*(call(number) for number in range(800)))
    assert refused == 0
    assert elapsed() < 45


# --- servers of unknown make -----------------------------------------------------------------


async def shared_by(callers: int, windows: Windows, say: Callable[[int | None], Any]) -> float:
    """Let callers share windows whose server says of each answer what ``say`` returns."""

    async def handler(request: web.Request) -> web.Response:
        await asyncio.sleep(0.05)
        refused = windows.take()
        status = 200 if refused is None else 429
        answer = web.json_response({}, status=status, headers=dated(say(refused)))
        await asyncio.sleep(0.05)
        return answer

    began = elapsed()
    async with serving(handler) as server, Session(server.url) as session:
        await asyncio.gather(*(session.fetch("/a") for _ in range(callers)))
        await assert_at_rest(session)
    return elapsed() - began


@pytest.mark.parametrize("unit", [1, 1000], ids=["seconds from now", "milliseconds of the epoch"])
@in_virtual_time
async def test_the_names_that_x_has_with_a_reset_that_is_not_x_s(unit: int) -> None:
    windows = Windows((15, 60.0))

    def say(_: int | None) -> dict[str, str]:
        limit, remaining, reset = windows.left(0)
        ends = time_now() + windows.began[0] + 60.0 - elapsed()
        at = reset if unit == 1 else math.ceil(ends) * unit
        told = {"Limit": limit, "Remaining": remaining, "Reset": at}
        return {f"X-Rate-Limit-{name}": str(value) for name, value in told.items()}

    # Neither the reset nor Date has more than whole seconds.
    assert await shared_by(60, windows, say) < 3 * (60 + 2 + 2)
    assert windows.refused == 0


@in_virtual_time
async def test_windows_that_are_told_as_lists_are_kept_to_all_at_once() -> None:
    windows = Windows((3, 1.0), (40, 60.0))

    def say(_: int | None) -> dict[str, str]:
        left = [windows.left(at) for at in (0, 1)]
        names = ("Limit", "Remaining", "Reset")
        lists = zip(names, zip(*left, strict=True), strict=True)
        told = {f"X-RateLimit-{name}": ", ".join(map(str, each)) for name, each in lists}
        return told | {"X-RateLimit-Policy": "3;w=1, 40;w=60"}

    assert await shared_by(60, windows, say) < 60 + 60 / 3 * 1.6
    assert windows.refused == 0


@in_virtual_time
async def test_a_refusal_that_tells_its_time_in_a_field_of_its_own() -> None:
    windows = Windows((15, 60.0))

    def say(refused: int | None) -> dict[str, str]:
        _, remaining, reset = windows.left(0)
        if refused is None:
            return {"X-Rate-Limit-Remaining": str(remaining)}
        return {"X-Rate-Limit-Retry-After-Seconds": str(reset)}

    assert await shared_by(60, windows, say) < 3 * 62 + 5
    assert windows.refused <= 3, "one a window: nothing else tells when it ends"


@in_virtual_time
async def test_a_proxy_whose_limit_looks_like_the_server_s_is_another_one() -> None:
    windows = Windows((15, 5.0), (15, 60.0))

    def say(_: int | None) -> dict[str, str]:
        told = zip(("RateLimit", "X-RateLimit"), map(windows.left, (0, 1)), strict=True)
        return {
            f"{prefix}-{name}": str(value)
            for prefix, left in told
            for name, value in zip(("Limit", "Remaining", "Reset"), left, strict=True)
        }

    assert await shared_by(60, windows, say) < 3 * 62 + 2
    assert windows.refused == 0
