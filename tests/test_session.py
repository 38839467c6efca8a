"""What a user types: calls, options, waits, refusals, quotas, many users."""

from __future__ import annotations

import asyncio
import io
import json
import os
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from aiotwhelp import (
    ApiError,
    Bearer,
    BodyError,
    BodyNotReplayableError,
    ClientCredentials,
    EndpointRetiredError,
    Limiter,
    OAuth1,
    QuotaTimeoutError,
    RateLimitError,
    Session,
    SessionClosedError,
    UsageCapError,
    WrongLoopError,
    events,
    testing,
)
from aiotwhelp.emulator import Emulator
from aiotwhelp.events import Event
from tests.stack import (
    LANGUAGES,
    PRIVACY,
    TOS,
    assert_at_rest,
    assert_nothing_is_left,
    client_of,
    connections_in_use,
    drop,
    elapsed,
    in_virtual_time,
    oauth1_of,
    quota_headers,
    scripted,
    serving,
    session_of,
    ticks,
)


async def echo(request: web.Request) -> web.Response:
    """Answer with what arrived."""
    body = await request.read()
    return web.json_response(
        {
            "method": request.method,
            "query": dict(request.query),
            "headers": {name.lower(): value for name, value in request.headers.items()},
            "body": body.decode("latin-1"),
        }
    )


# Calls -----------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_call_can_be_awaited_entered_or_made_a_task() -> None:
    async with serving(echo) as server, Session(server.url) as session:
        response = await session.get("/x")
        assert response.status == 200
        await response.read()
        async with session.post("/x") as response:
            assert (await response.json())["method"] == "POST"
        response = await asyncio.create_task(session.put("/x"))
        assert (await response.json())["method"] == "PUT"
        async with session.patch("/x") as response:
            assert isinstance(response, aiohttp.ClientResponse)
        async with session.delete("/x") as response:
            assert response.method == "DELETE"
        async with session.request("options", "/x") as response:
            assert response.method == "OPTIONS"
        await assert_at_rest(session)
    await assert_nothing_is_left()


@in_virtual_time
async def test_what_aiohttps_request_does_is_all_in_the_coroutine_that_it_wraps() -> None:
    async with aiohttp.ClientSession() as client:
        wrapped: Any = client.request("GET", "http://127.0.0.1/")
        assert wrapped._coro.cr_code is aiohttp.ClientSession._request.__code__
        wrapped.close()


@in_virtual_time
async def test_nothing_is_sent_before_a_call_is_awaited() -> None:
    async with serving(echo) as server, Session(server.url) as session:
        call = session.get("/x")
        await asyncio.sleep(1)
        assert not server.seen
        call.close()


@in_virtual_time
async def test_aiohttps_options_pass_through() -> None:
    async with serving(echo) as server, Session(server.url) as session:
        said = await session.fetch(
            "/x", method="POST", params={"a": "1"}, json={"b": 2}, headers={"X-Y": "z"}
        )
        assert (said["query"], said["body"], said["headers"]["x-y"]) == (
            {"a": "1"},
            '{"b": 2}',
            "z",
        )
        said = await session.fetch("/x", method="POST", data={"c": "3"})
        assert said["body"] == "c=3"


@in_virtual_time
async def test_templates_are_filled_and_whole_urls_taken() -> None:
    async with serving(echo) as server, Session(server.url) as session:
        await session.fetch("/2/users/{id}/tweets", path_params={"id": 12})
        await session.fetch(f"{server.url}/2/users/13/tweets")
        assert server.paths == ["/2/users/12/tweets", "/2/users/13/tweets"]
        assert len(session.limiter.quotas()) == 1


@in_virtual_time
async def test_middlewares_of_a_call_come_after_those_of_the_session_and_before_ours() -> None:
    order: list[str] = []

    def noting(name: str) -> Any:
        async def middleware(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            order.append(f"{name} {'Authorization' in request.headers}")
            return await handler(request)

        return middleware

    async with Emulator() as api:
        async with session_of(api, middlewares=[noting("session")]) as session:
            await session.fetch(PRIVACY, middlewares=[noting("call")])
            await session.fetch(PRIVACY, middlewares=[])
        assert order == ["session False", "call False", "session False"]
        assert all("Authorization" in each.headers for each in api.requests)


@in_virtual_time
async def test_a_middleware_that_answers_itself_spends_nothing() -> None:
    kept: list[aiohttp.ClientResponse] = []

    async def cache(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if not kept:
            kept.append(await handler(request))
            await kept[0].read()
        return kept[0]

    async with Emulator(limits={"help/privacy": 2}) as api:
        async with session_of(api, middlewares=[cache]) as session:
            for _ in range(5):
                assert "privacy" in await session.fetch(PRIVACY, max_wait=0)
            await assert_at_rest(session)
        assert api.tally.received == 1


@in_virtual_time
async def test_a_retrying_middleware_of_the_user_pays_for_each_send() -> None:
    async def twice(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        (await handler(request)).release()
        return await handler(request)

    async with Emulator(window=5, limits={"help/privacy": 3}) as api:
        async with session_of(api, middlewares=[twice]) as session:
            await session.fetch(PRIVACY)
            await assert_at_rest(session)
        assert (api.tally.received, api.refused) == (2, 0)


@pytest.mark.parametrize(
    "options",
    [
        {"retries": -1},
        {"max_wait": -1},
        {"total_timeout": "x"},
        {"concurrency": 0},
        {"priority": 9},
    ],
)
def test_options_that_make_no_sense_are_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"retries|max_wait|total_timeout|concurrency|Priority"):
        Session("http://localhost", **options)


# Statuses --------------------------------------------------------------------------------------


@in_virtual_time
async def test_raise_for_status_is_aiohttps_for_the_session_and_for_a_call() -> None:
    async def picky(response: aiohttp.ClientResponse) -> None:
        if response.status == 418:
            raise LookupError("a teapot")

    async with (
        serving(scripted(404, 404, 418, 404, 200)) as server,
        Session(server.url, raise_for_status=True) as session,
    ):
        with pytest.raises(ApiError) as caught:
            await session.get("/x")
        assert caught.value.status == 404
        async with session.get("/x", raise_for_status=False) as response:
            assert response.status == 404
        with pytest.raises(LookupError, match="teapot"):
            await session.get("/x", raise_for_status=picky)
        with pytest.raises(aiohttp.ClientResponseError):
            await session.get("/x")
        await assert_at_rest(session)


@in_virtual_time
async def test_a_5xx_that_outlasts_the_retries_is_an_answer_or_an_error_as_asked() -> None:
    async with serving(scripted(503)) as server, Session(server.url, retries=1) as session:
        async with session.get("/x") as response:
            assert response.status == 503
        with pytest.raises(ApiError) as caught:
            await session.get("/x", raise_for_status=True)
        assert caught.value.status == 503
        with pytest.raises(ApiError):
            await session.fetch("/x")
        await assert_at_rest(session)


@in_virtual_time
async def test_fetch_decodes_or_says_why_it_cannot() -> None:
    replies = {
        "/empty": web.Response(),
        "/none": web.Response(status=204),
        "/html": web.Response(text="<p>", content_type="text/html"),
        "/deep": web.Response(text="[" * 100_000),
        "/bom": web.Response(body=b"\xef\xbb\xbf[1]"),
        "/large": web.Response(text='"' + "x" * 5000 + '"'),
    }

    async def handle(request: web.Request) -> web.StreamResponse:
        return replies[request.path]

    async with serving(handle) as server, Session(server.url) as session:
        assert await session.fetch("/empty") is None
        assert await session.fetch("/none") is None
        assert await session.fetch("/bom") == [1]
        for path in ("/html", "/deep"):
            with pytest.raises(BodyError, match="not JSON"):
                await session.fetch(path)
        with pytest.raises(BodyError, match="larger than 1000 bytes"):
            await session.fetch("/large", max_body=1000)
        assert len(server.seen) == 6
        await assert_at_rest(session)


@in_virtual_time
async def test_a_truncated_body_is_fetched_again() -> None:
    async with Emulator(truncated=1.0) as api, session_of(api) as session:
        asyncio.get_running_loop().call_later(0.4, setattr, api.faults, "truncated", 0.0)
        assert "privacy" in await session.fetch(PRIVACY, retries=8)
        assert api.tally.received > 1
        await assert_at_rest(session)


@in_virtual_time
async def test_an_endpoint_that_was_retired_says_since_when() -> None:
    async with Emulator(retired=True) as api, session_of(api) as session:
        with pytest.raises(EndpointRetiredError, match="retired on 2019-06-10"):
            await session.get(PRIVACY)


@pytest.mark.parametrize(
    ("status", "code", "gone"), [(404, 50, False), (404, 34, True), (410, 50, True)]
)
def test_something_not_found_is_no_retired_endpoint(status: int, code: int, gone: bool) -> None:
    @in_virtual_time
    async def scene() -> None:
        def answer(_: web.Request) -> web.StreamResponse:
            return web.json_response({"errors": [{"code": code}]}, status=status)

        async with serving(scripted(answer)) as server, Session(server.url) as session:
            kind = EndpointRetiredError if gone else ApiError
            with pytest.raises(kind) as caught:
                await session.fetch("/1.1/users/show.json")
            assert type(caught.value) is kind

    scene()


# Refusals --------------------------------------------------------------------------------------


def refuse(_: web.Request) -> web.StreamResponse:
    return web.Response(status=429, headers={**quota_headers(0, limit=15, resets_in=60)})


@in_virtual_time
async def test_case_26_refusals_do_not_use_up_attempts_and_end_in_an_error_with_the_data() -> None:
    async with serving(scripted(refuse)) as server, Session(server.url, retries=2) as session:
        with pytest.raises(RateLimitError) as caught:
            await session.fetch("/x")
        assert len(server.seen) == 1 + 2 * 2
        error = caught.value
        assert (error.status, error.limit, error.remaining) == (429, 15, 0)
        assert error.retry_after == pytest.approx(60, abs=2)
        assert error.resets_at is not None
        await assert_at_rest(session)


@in_virtual_time
async def test_case_26_the_quota_still_works_for_others_after_an_error() -> None:
    def refused(_: web.Request) -> web.StreamResponse:
        return web.Response(status=429, headers=quota_headers(0, resets_in=5))

    async with serving(scripted(*[refused] * 3, 200)) as server, Session(server.url) as session:
        with pytest.raises(RateLimitError):
            await session.fetch("/x", retries=1)
        assert await session.fetch("/x") == {}
        await assert_at_rest(session)


@in_virtual_time
async def test_without_retries_the_first_refusal_is_an_error() -> None:
    async with serving(scripted(refuse)) as server, Session(server.url, retries=0) as session:
        with pytest.raises(RateLimitError):
            await session.get("/x")
        assert len(server.seen) == 1


CAPS = [
    (429, {"title": "UsageCapExceeded", "type": "https://api.twitter.com/2/problems/usage-capped"}),
    (402, {"title": "CreditsDepleted", "type": "https://api.twitter.com/2/problems/credits"}),
    (429, {"title": "ConnectionException", "connection_issue": "TooManyConnections"}),
    (402, None),
]


@pytest.mark.parametrize(("status", "body"), CAPS)
def test_case_27_a_cap_is_an_error_at_once(status: int, body: Any) -> None:
    @in_virtual_time
    async def scene() -> None:
        def cap(_: web.Request) -> web.StreamResponse:
            return web.Response(
                status=status,
                text=json.dumps(body) if body else "",
                headers=quota_headers(39_999, limit=40_000),
            )

        async with serving(scripted(cap, 200)) as server, Session(server.url) as session:
            with pytest.raises(UsageCapError):
                await session.get("/x")
            assert len(server.seen) == 1
            assert elapsed() < 1
            await assert_at_rest(session)

    scene()


@in_virtual_time
async def test_a_refused_caller_goes_before_all_who_came_later() -> None:
    order: list[str] = []
    left = [2]

    async def handle(request: web.Request) -> web.StreamResponse:
        if left[0]:
            left[0] -= 1
            return web.Response(status=429, headers=quota_headers(0, resets_in=5))
        order.append(request.query["n"])
        return web.json_response({}, headers=quota_headers(20))

    async with serving(handle) as server, Session(server.url, concurrency=1) as session:
        await asyncio.gather(*(session.fetch("/x", params={"n": str(n)}) for n in range(8)))
        assert order == [str(n) for n in range(8)]


@pytest.mark.parametrize("status", [429, 503, 500])
def test_a_large_refused_answer_holds_no_connection(status: int) -> None:
    @in_virtual_time
    async def scene() -> None:
        def large(_: web.Request) -> web.StreamResponse:
            return web.Response(
                status=status, body=b"x" * 4_000_000, headers=quota_headers(5, resets_in=5)
            )

        async with (
            serving(scripted(large, large, 200)) as server,
            Session(server.url, connector=aiohttp.TCPConnector(limit=1)) as session,
        ):
            assert await session.fetch("/x") == {}
            assert len(server.seen) == 3
            assert elapsed() < 30
            await assert_at_rest(session)

    scene()


@in_virtual_time
async def test_a_refusal_from_elsewhere_is_retried_with_back_off() -> None:
    async with (
        serving(scripted(429, 200), "127.0.0.2") as other,
        serving(
            scripted(lambda _: web.Response(status=302, headers={"Location": f"{other.url}/y"}))
        ) as server,
    ):
        async with Session(server.url) as session, session.get("/x") as response:
            assert response.status == 429
        assert len(other.seen) == 1


# Waits -----------------------------------------------------------------------------------------


@in_virtual_time
async def test_case_01_a_thousand_callers_on_an_unknown_quota_send_one_request_first() -> None:
    asyncio.get_running_loop().network.latency = 0.1
    async with (
        Emulator(window=900, limits={"help/privacy": 1000}) as api,
        session_of(api, concurrency=1000) as session,
    ):
        calls = [asyncio.create_task(session.fetch(PRIVACY)) for _ in range(1000)]
        while not api.tally.received:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.08)  # its answer is still under way
        assert api.tally.received == 1
        answered, most = 0, 0
        while not all(call.done() for call in calls):
            answered = sum(call.done() for call in calls)
            most = max(most, session.limiter.stats().in_flight - answered)
            await asyncio.sleep(0.05)
        assert most <= 1
        assert (api.tally.received, api.refused) == (1000, 0)


@pytest.mark.parametrize("fault", ["refused", "dropped", "5xx", "slow"])
def test_case_02_the_next_goes_when_the_first_fails(fault: str) -> None:
    @in_virtual_time
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        async with Emulator(limits={"help/privacy": 100}) as api, session_of(api) as session:
            address = ("127.0.0.1", int(api.url.rpartition(":")[2]))
            if fault == "refused":
                loop.network.refuse(address)
                loop.call_later(0.2, loop.network.allow, address)
            elif fault == "dropped":
                api.fail_next(2, drop="before")
            elif fault == "5xx":
                api.fail_next(1, status=502)
            else:
                api.faults.latency = 30
                loop.call_later(1, setattr, api.faults, "latency", 0.0)
            await asyncio.gather(*(session.fetch(PRIVACY, retries=8) for _ in range(20)))
            assert elapsed() < 60
            assert api.refused == 0
            await assert_at_rest(session)

    scene()


@in_virtual_time
async def test_case_03_answers_without_headers_hang_nobody() -> None:
    async with (
        Emulator(missing_headers=1.0, limits={"help/privacy": 500}) as api,
        session_of(api) as session,
    ):
        await asyncio.gather(*(session.fetch(PRIVACY) for _ in range(100)))
        assert (api.tally.received, api.refused) == (100, 0)
        await assert_at_rest(session)


@in_virtual_time
async def test_case_05_a_first_answer_with_nothing_left_sends_nothing_more() -> None:
    async with Emulator(window=5, limits={"help/privacy": 1}) as api, session_of(api) as session:
        calls = [asyncio.create_task(session.fetch(PRIVACY)) for _ in range(3)]
        await asyncio.sleep(4)
        assert api.tally.received == 1
        await asyncio.gather(*calls)
        assert api.refused == 0


@in_virtual_time
async def test_case_36_a_wait_that_is_known_to_be_too_long_fails_at_once() -> None:
    async with Emulator(window=60, limits={"help/privacy": 1}) as api, session_of(api) as session:
        await session.fetch(PRIVACY)
        began = elapsed()
        with pytest.raises(QuotaTimeoutError) as caught:
            await session.fetch(PRIVACY, max_wait=10)
        with pytest.raises(QuotaTimeoutError):
            await session.fetch(PRIVACY, total_timeout=10)
        assert elapsed() == began
        assert caught.value.limit == 1
        assert caught.value.remaining == 0
        assert caught.value.retry_after == pytest.approx(60, abs=1.5)
        assert api.tally.received == 1
        await assert_at_rest(session)


@in_virtual_time
async def test_case_42_a_wait_longer_than_aiohttps_total_succeeds_and_signs_late() -> None:
    async with Emulator(window=900, limits={"help/privacy": 1}) as api:
        async with session_of(
            api, auth=oauth1_of(api.user), timeout=aiohttp.ClientTimeout(total=3)
        ) as session:
            await session.fetch(PRIVACY)
            await session.fetch(PRIVACY)
            assert elapsed() > 890
        first, second = (request.headers["Authorization"] for request in api.requests)
        assert oauth_field(first, "oauth_nonce") != oauth_field(second, "oauth_nonce")
        late = int(oauth_field(second, "oauth_timestamp")) - int(
            oauth_field(first, "oauth_timestamp")
        )
        assert late >= 890


def oauth_field(header: str, name: str) -> str:
    return header.partition(f'{name}="')[2].partition('"')[0]


@in_virtual_time
async def test_case_43_the_call_that_empties_the_quota_returns_at_once() -> None:
    async with Emulator(window=900, limits={"help/privacy": 2}) as api, session_of(api) as session:
        await session.fetch(PRIVACY)
        await session.fetch(PRIVACY)
        assert elapsed() < 1


@in_virtual_time
async def test_max_wait_counts_all_attempts_together() -> None:
    async with serving(scripted(refuse)) as server, Session(server.url, retries=9) as session:
        with pytest.raises(QuotaTimeoutError):
            await session.fetch("/x", max_wait=90)
        assert len(server.seen) == 2
        assert elapsed() <= 91


# Quotas ----------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_quota_is_never_none_and_shows_what_was_published() -> None:
    async with Emulator(limits={"help/privacy": 15}) as api, session_of(api) as session:
        before = session.quota("/2/users/{id}/tweets")
        assert (before.remaining, before.published) == (None, 10_000)
        assert repr(session.quota(PRIVACY)) == "<Quota ?/15>"
        await session.fetch(PRIVACY)
        assert repr(session.quota(PRIVACY)).startswith("<Quota 14/15, resets in ")
        assert session.quota("/no/such/path").remaining is None


@in_virtual_time
async def test_case_37_users_apps_and_endpoints_have_quotas_of_their_own() -> None:
    async with Emulator(window=60, limit=1, users=2) as api, session_of(api) as session:
        one, two = (session.as_user(f"u:{u.id}", auth=oauth1_of(u)) for u in api.users)
        for who in (session, one, two):
            for path in (PRIVACY, TOS):
                await who.fetch(path, max_wait=0)
        assert (api.tally.received, api.refused) == (6, 0)
        assert client_of(one) is client_of(session)
        for who in (session, one, two):
            with pytest.raises(QuotaTimeoutError):
                await who.fetch(PRIVACY, max_wait=0)


@in_virtual_time
async def test_case_50_rate_limit_status_never_raises_what_is_believed() -> None:
    from aiotwhelp import Help, WindowKind, WindowReading

    async with Emulator(window=60, limits={"help/privacy": 5}) as api, session_of(api) as session:
        await session.fetch(PRIVACY)
        await session.fetch(PRIVACY)
        status = (await Help(session).rate_limit_status("help"))["/help/privacy"]
        key = next(key for key in session.limiter.quotas() if "privacy" in key.route)
        kind = WindowKind("15min", "identity", 900.0, 960.0)
        session.limiter.prime(key, [WindowReading(kind, 5, 5, status.reset)])
        assert session.quota(PRIVACY).remaining == 3
        session.limiter.prime(key, [WindowReading(kind, 5, 1, status.reset)])
        assert session.quota(PRIVACY).remaining in (1, 3)
        await session.fetch(PRIVACY)
        assert session.quota(PRIVACY).remaining == 2


@pytest.mark.parametrize("host", ["xn--", "xn--a.example"])
@in_virtual_time
async def test_a_host_whose_name_cannot_be_decoded_has_a_quota_like_any_other(host: str) -> None:
    async with Session(f"https://{host}") as session, Session("https://other.example") as other:
        assert session.quota("/x").remaining is None
        assert other.quota(f"https://{host}/x").remaining is None


@in_virtual_time
async def test_other_hosts_are_called_unsigned_with_quotas_of_their_own() -> None:
    async with (
        Emulator() as api,
        serving(echo, "127.0.0.2") as other,
        session_of(api) as session,
    ):
        said = await session.fetch(f"{other.url}/users/123")
        assert "authorization" not in said["headers"]
        assert "GET /users/{id}" in {key.route for key in session.limiter.quotas()}


@in_virtual_time
async def test_cookies_are_not_shared_unless_a_jar_is_passed() -> None:
    def bake(_: web.Request) -> web.StreamResponse:
        response = web.json_response({})
        response.set_cookie("who", "me")
        return response

    async with serving(scripted(bake)) as server:
        async with Session(server.url) as session:
            await session.fetch("/x")
            await session.fetch("/x")
        assert "Cookie" not in server.seen[1].headers
        jar = aiohttp.CookieJar(unsafe=True)
        async with Session(server.url, cookie_jar=jar) as session:
            await session.fetch("/x")
            await session.fetch("/x")
        assert server.seen[3].headers["Cookie"] == "who=me"


# Bodies that go again --------------------------------------------------------------------------


async def answers_of(data: Any, **options: Any) -> list[bytes]:
    async with serving(scripted(503, 500, 200)) as server, Session(server.url) as session:
        async with session.put("/x", data=data, **options) as response:
            assert response.status == 200
        await assert_at_rest(session)
        return server.bodies


@pytest.mark.parametrize(
    "data", [b"abc", "abc", bytearray(b"abc"), memoryview(b"abc"), {"a": "b"}, [("a", "b")]]
)
def test_plain_bodies_go_again_as_they_were(data: Any) -> None:
    @in_virtual_time
    async def scene() -> None:
        bodies = await answers_of(data)
        assert len(bodies) == 3
        assert len(set(bodies)) == 1
        assert bodies[0]

    scene()


@pytest.mark.parametrize(
    "kind", ["bytesio", "stringio", "file", "form", "form with bytesio", "form with file"]
)
def test_files_go_again_from_where_they_stood(kind: str, tmp_path: Any) -> None:
    @in_virtual_time
    async def scene() -> None:
        path = tmp_path / "picture.bin"
        path.write_bytes(b"0123456789" * 10_000)
        file = path.open("rb")
        file.seek(10)
        form = aiohttp.FormData()
        if kind == "form with file":
            form.add_field("media", file, content_type="image/png")
            form.add_field("name", "n")
        else:
            form.add_field("media", io.BytesIO(b"x" * 999), filename="a")
        data = {
            "bytesio": io.BytesIO(b"y" * 100),
            "stringio": io.StringIO("z" * 100),
            "file": file,
            "form": {"media": file, "name": "n"},
            "form with bytesio": form,
            "form with file": form,
        }[kind]
        bodies = await answers_of(data)
        assert [len(body) for body in bodies] == [len(bodies[0])] * 3
        assert len(bodies[0]) >= 100
        if kind == "file":
            assert bodies[2] == b"0123456789" * 9_999
        if kind in ("form", "form with file"):
            assert b"0123456789" * 9_999 in bodies[2]
            assert b'filename="picture.bin"' in bodies[2]
        if kind == "form with file":
            assert b"Content-Type: image/png" in bodies[2]
        assert file.closed == (kind in ("file", "form", "form with file"))
        file.close()

    scene()


@pytest.mark.parametrize("kind", ["form", "form with file", "parts", "parts of parts"])
@in_virtual_time
async def test_a_ready_form_is_sent_on_also_by_a_later_attempt(kind: str, tmp_path: Path) -> None:
    form = aiohttp.FormData()
    form.add_field("media", io.BytesIO(b"x" * 999), filename="a")
    if kind == "form with file":
        (tmp_path / "b").write_bytes(b"y" * 999)
        form.add_field("more", (tmp_path / "b").open("rb"))
    parts = aiohttp.MultipartWriter()
    parts.append_json({"a": 1})
    whole = parts
    if kind == "parts of parts":
        whole = aiohttp.MultipartWriter()
        whole.append(parts)

    def elsewhere(request: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": "/y"})

    handler = scripted(503, drop, elsewhere, 200)
    async with serving(handler) as server, Session(server.url) as session:
        await session.fetch("/x", method="PUT", data=form if "form" in kind else whole)
    assert server.paths == ["/x", "/x", "/x", "/y"]
    assert len(server.bodies[0]) > 50
    assert set(server.bodies) == {server.bodies[0]}


def test_a_stream_that_is_used_up_is_never_resent() -> None:
    @in_virtual_time
    async def scene() -> None:
        async def stream() -> Any:
            yield b"abc"

        async with serving(scripted(503, 200)) as server, Session(server.url) as session:
            with pytest.raises(BodyNotReplayableError) as caught:
                await session.put("/x", data=stream())
            cause = caught.value.__cause__
            assert isinstance(cause, ApiError)
            assert cause.status == 503
            assert server.bodies == [b"abc"]
            await assert_at_rest(session)

    scene()


@in_virtual_time
async def test_a_stream_that_was_refused_for_the_rate_is_never_resent() -> None:
    async def stream() -> Any:
        yield b"abc"

    async with serving(scripted(refuse, 200)) as server, Session(server.url) as session:
        with pytest.raises(BodyNotReplayableError) as caught:
            await session.post("/x", data=stream())
        assert isinstance(caught.value.__cause__, RateLimitError)
        await assert_at_rest(session)


@in_virtual_time
async def test_a_file_that_cannot_seek_inside_a_ready_form_is_not_resent_half() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"abc")
    os.close(writing)
    form = aiohttp.FormData()
    with os.fdopen(reading, "rb") as pipe:
        form.add_field("media", pipe, filename="a")
        async with serving(scripted(503, 200)) as server, Session(server.url) as session:
            with pytest.raises(BodyNotReplayableError):
                await session.put("/x", data=form)
            assert len(server.bodies) == 1
            await assert_at_rest(session)


# Cut off ---------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_cancellation_in_the_tick_of_aiohttps_time_out_is_not_lost() -> None:
    async with Emulator(latency=60) as api, session_of(api) as session:
        call = asyncio.create_task(session.fetch(PRIVACY, timeout=aiohttp.ClientTimeout(total=3)))
        asyncio.get_running_loop().call_later(3, call.cancel)
        await asyncio.wait([call])
        assert call.cancelled()
        assert elapsed() == 3


@pytest.mark.parametrize("seconds", [2, 3])
def test_a_time_out_of_a_middlewares_own_is_no_cancellation(seconds: float) -> None:
    async def hurry(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        async with asyncio.timeout(seconds):
            return await handler(request)

    @in_virtual_time
    async def scene() -> None:
        async with Emulator(latency=60) as api, session_of(api, retries=0) as session:
            timeout = aiohttp.ClientTimeout(total=3)
            with pytest.raises(TimeoutError):
                await session.fetch(PRIVACY, middlewares=[hurry], timeout=timeout)
            assert elapsed() == seconds

    scene()


@in_virtual_time
async def test_a_call_cut_off_in_a_middleware_gives_its_connection_back() -> None:
    async def ponder(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        response = await handler(request)
        await asyncio.sleep(60)
        return response

    async with Emulator() as api, session_of(api) as session:
        api.reply("GET", "help/privacy", body=b"x" * 1_000_000)
        call = asyncio.create_task(session.fetch(PRIVACY, middlewares=[ponder]))
        await asyncio.sleep(1)
        call.cancel()
        # Whoever keeps the error keeps its traceback, and all that is in its frames.
        [error] = await asyncio.gather(call, return_exceptions=True)
        assert isinstance(error, asyncio.CancelledError)
        await assert_at_rest(session)


@in_virtual_time
async def test_a_middleware_that_fails_over_an_answer_gives_its_connection_back() -> None:
    async def stumble(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        raise LookupError((await handler(request)).status)

    async with Emulator() as api, session_of(api) as session:
        api.reply("GET", "help/privacy", body=b"x" * 1_000_000)
        # Whoever keeps the error keeps its traceback, and all that is in its frames.
        with pytest.raises(LookupError, match="200") as caught:
            await session.fetch(PRIVACY, middlewares=[stumble])
        await assert_at_rest(session)
        assert caught.tb is not None


@in_virtual_time
async def test_a_middleware_that_sends_twice_at_once_floods_nobody() -> None:
    async def hedge(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        first, _ = await asyncio.gather(handler(request), handler(request))
        return first

    async with Emulator(latency=1) as api, session_of(api) as session:
        with pytest.raises(RuntimeError, match="a middleware sends a call again while it is under"):
            await session.fetch(PRIVACY, middlewares=[hedge])  # nobody knows of a second token
        assert session.limiter.stats().in_flight == 1
        await asyncio.sleep(5)
        assert len(api.requests) == 1
        assert await session.fetch(PRIVACY, middlewares=[hedge])
        assert session.quota(PRIVACY).remaining == 12
        await assert_at_rest(session)


# The end ---------------------------------------------------------------------------------------


@in_virtual_time
async def test_case_34_closing_wakes_the_waiters_and_lets_calls_in_flight_finish() -> None:
    async with Emulator(window=900, limits={"help/privacy": 1}, latency=2) as api:
        session = session_of(api)
        in_flight = asyncio.create_task(session.fetch(PRIVACY))
        await asyncio.sleep(0.1)
        waiting = [asyncio.create_task(session.fetch(PRIVACY)) for _ in range(5)]
        await asyncio.sleep(0.1)
        await session.close()
        assert elapsed() == pytest.approx(2, abs=0.1)
        assert "privacy" in await in_flight
        for each in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(each, SessionClosedError)
        with pytest.raises(SessionClosedError, match=r"^the session is closed: make a new one$"):
            await session.fetch(PRIVACY)
        await session.close()
        assert session.closed
    await assert_nothing_is_left()


@in_virtual_time
async def test_case_34_what_is_still_in_flight_after_the_grace_is_cut() -> None:
    async with Emulator(latency=60) as api:
        session = session_of(api)
        call = asyncio.create_task(session.fetch(PRIVACY))
        post = asyncio.create_task(session.fetch("/2/tweets", method="POST", json={}))
        await asyncio.sleep(0.1)
        await session.close()
        assert elapsed() == pytest.approx(5.1, abs=0.1)
        for each in (call, post):
            with pytest.raises(SessionClosedError):
                await each
    await assert_nothing_is_left()


@in_virtual_time
async def test_case_34_a_call_that_no_connection_holds_is_cut_too() -> None:
    async def ponder(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        await asyncio.sleep(60)
        return await handler(request)

    asyncio.get_running_loop().network.latency = 15
    async with Emulator() as api:
        session = session_of(api)
        connecting = asyncio.create_task(session.fetch(PRIVACY))
        pondering = asyncio.create_task(session.fetch(TOS, middlewares=[ponder]))
        in_time = asyncio.create_task(session.fetch(LANGUAGES, total_timeout=2))
        await asyncio.sleep(0.1)
        await session.close()
        await ticks()
        assert elapsed() == pytest.approx(5.1)
        assert isinstance(connecting.exception(), SessionClosedError)
        assert isinstance(pondering.exception(), SessionClosedError)
        assert type(in_time.exception()) is TimeoutError
    await assert_nothing_is_left()


@in_virtual_time
async def test_closing_wakes_calls_that_back_off() -> None:
    async with serving(scripted(503)) as server:
        session = Session(server.url)
        call = asyncio.create_task(session.fetch("/x", retries=50))
        await asyncio.sleep(3)
        await session.close()
        assert elapsed() == pytest.approx(3, abs=0.1)
        with pytest.raises(SessionClosedError):
            await call
    await assert_nothing_is_left()


@in_virtual_time
async def test_a_hop_after_the_close_says_that_the_session_was_closed() -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(1)
        return web.Response(status=302, headers={"Location": "/y"})

    async with serving(slow) as server:
        session = Session(server.url)
        call = asyncio.create_task(session.fetch("/x"))
        await asyncio.sleep(0.5)
        await session.close()
        with pytest.raises(SessionClosedError, match=r"^the session was closed during a call$"):
            await call
        assert server.paths == ["/x"]
    await assert_nothing_is_left()


@in_virtual_time
async def test_closing_waits_for_an_answer_that_is_being_read() -> None:
    async with serving(echo) as server:
        session = Session(server.url)

        async def reader() -> Any:
            async with session.get("/x") as response:
                await asyncio.sleep(2)
                return await response.json()

        task = asyncio.create_task(reader())
        await asyncio.sleep(0.5)
        await session.close()
        assert (await task)["method"] == "GET"


@in_virtual_time
async def test_closing_one_of_two_sessions_on_a_limiter_does_not_hurt_the_other() -> None:
    limiter = Limiter()
    async with Emulator(window=5, limits={"help/privacy": 1}) as api:
        one, two = session_of(api, limiter=limiter), session_of(api, limiter=limiter)
        await one.fetch(PRIVACY)
        mine = asyncio.create_task(one.fetch(PRIVACY))
        other = asyncio.create_task(two.fetch(PRIVACY))
        await asyncio.sleep(0.1)
        await one.close()
        with pytest.raises(SessionClosedError):
            await mine
        assert "privacy" in await other
        await two.close()
    await assert_nothing_is_left()


@in_virtual_time
async def test_a_users_session_leaves_the_pool_open() -> None:
    async with Emulator() as api, session_of(api) as session:
        async with session.as_user("u:1", auth=oauth1_of(api.user)) as user:
            await user.fetch(PRIVACY)
        assert not session.closed
        await session.fetch(PRIVACY)


@in_virtual_time
async def test_leaving_by_an_error_closes_too() -> None:
    sessions: list[Session] = []

    async def leave(api: Emulator) -> None:
        async with session_of(api) as session:
            sessions.append(session)
            await session.fetch(PRIVACY)
            raise KeyError

    async with Emulator() as api:
        with pytest.raises(KeyError):
            await leave(api)
        assert sessions[0].closed
    await assert_nothing_is_left()


@in_virtual_time
async def test_a_session_closes_whose_handler_listens_no_more() -> None:
    told: list[Event] = []
    async with Emulator() as api, session_of(api, on_event=told.append) as session:
        await session.fetch(PRIVACY)
        session.limiter.unlisten(told.append)
    assert session.closed
    await assert_at_rest(session)


def test_case_34_a_second_event_loop_needs_a_session_of_its_own() -> None:
    limiter = Limiter()

    async def call() -> None:
        async with Emulator() as api, session_of(api, limiter=limiter) as session:
            await session.fetch(PRIVACY)

    testing.run(call)
    with pytest.raises(WrongLoopError):
        testing.run(call)
    limiter = Limiter()
    testing.run(call)


@in_virtual_time
async def test_case_35_what_a_handler_raises_breaks_nothing() -> None:
    def broken(event: events.Event) -> None:
        raise ZeroDivisionError

    async with (
        Emulator(window=5, limits={"help/privacy": 2}) as api,
        session_of(api, on_event=broken) as session,
    ):
        await asyncio.gather(*(session.fetch(PRIVACY) for _ in range(6)))
        await assert_at_rest(session)


@in_virtual_time
async def test_concurrency_never_exceeds_the_connections() -> None:
    asyncio.get_running_loop().network.latency = 0.05
    connector = aiohttp.TCPConnector(limit=50, limit_per_host=3)
    async with Emulator(limit=500) as api, session_of(api, connector=connector) as session:
        calls = [asyncio.create_task(session.fetch(PRIVACY)) for _ in range(40)]
        most = 0
        while not all(call.done() for call in calls):
            most = max(most, session.limiter.stats().in_flight)
            assert connections_in_use(session) <= 3
            await asyncio.sleep(0.02)
        assert most == 3


# From the environment --------------------------------------------------------------------------


@in_virtual_time
async def test_a_session_from_the_environment_signs_as_it_says() -> None:
    async with Emulator() as api:
        env = api.env
        async with Session.from_env(env, retries=1) as session:
            await session.fetch(PRIVACY)
        oauth1 = {k: v for k, v in env.items() if "ACCESS" in k}
        async with Session.from_env({k: v for k, v in env.items() if k not in oauth1}) as session:
            await session.fetch(PRIVACY)
        kinds = [r.headers["Authorization"].partition(" ")[0] for r in api.requests]
        assert kinds == ["OAuth", "Bearer"]


@pytest.mark.parametrize(
    ("environ", "kind"),
    [
        ({"CONSUMER_KEY": "k", "CONSUMER_SECRET": "s"}, ClientCredentials),
        ({"BEARER_TOKEN": "t"}, Bearer),
        (
            {
                "CONSUMER_KEY": "k",
                "CONSUMER_SECRET": "s",
                "ACCESS_TOKEN": "t",
                "ACCESS_TOKEN_SECRET": "u",
            },
            OAuth1,
        ),
    ],
)
def test_the_environment_names_a_credential(environ: dict[str, str], kind: type) -> None:
    session = Session.from_env({f"AIOTWHELP_{name}": each for name, each in environ.items()})
    assert isinstance(session._settings.caller.auth, kind)
    assert repr(session) == "<Session X at https://api.x.com>"


@pytest.mark.parametrize("environ", [{}, {"CONSUMER_KEY": "k"}, {"ACCESS_TOKEN": "t"}])
def test_an_environment_without_a_credential_says_what_is_missing(environ: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="AIOTWHELP_CONSUMER_SECRET"):
        Session.from_env({f"AIOTWHELP_{name}": each for name, each in environ.items()})


@in_virtual_time
async def test_languages_are_a_list() -> None:
    async with Emulator() as api, session_of(api) as session:
        assert isinstance(await session.fetch(LANGUAGES), list)
