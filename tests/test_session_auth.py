"""Credentials on the way: renewed once for all, corrected once, never sent elsewhere."""

from __future__ import annotations

import asyncio
import traceback
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from aiotwhelp import (
    AuthError,
    Bearer,
    ClientCredentials,
    MemoryStore,
    OAuth2User,
    Session,
    SessionClosedError,
    Token,
)
from aiotwhelp.emulator import Emulator
from tests.stack import (
    LANGUAGES,
    PRIVACY,
    TOS,
    Handler,
    assert_at_rest,
    assert_nothing_is_left,
    elapsed,
    in_virtual_time,
    oauth1_of,
    plain_api,
    scripted,
    serving,
    session_of,
)

ME = "/2/users/me"


def credentials(api: Emulator) -> ClientCredentials:
    return ClientCredentials(api.app.consumer_key, api.app.consumer_secret)


def oauth2_of(api: Emulator, *, expires_in: float = 7200.0) -> OAuth2User:
    grant = api.grant(expires_in=expires_in)
    return OAuth2User(
        api.app.client_id,
        client_secret=api.app.client_secret,
        access_token=grant.access_token,
        refresh_token=grant.refresh_token,
        expires_at=asyncio.get_running_loop().wall_time() + expires_in,
    )


def token_requests(api: Emulator) -> int:
    return sum(request.path.endswith("/token") for request in api.requests)


@in_virtual_time
async def test_a_hundred_callers_cost_one_token_request() -> None:
    async with Emulator(limit=1000) as api, session_of(api, auth=credentials(api)) as session:
        await asyncio.gather(*(session.fetch(PRIVACY) for _ in range(100)))
        assert token_requests(api) == 1
        assert api.tally.received == 101


@in_virtual_time
async def test_a_revoked_app_token_is_fetched_again_once_for_all() -> None:
    async with (
        Emulator(limit=1000, latency=0.1) as api,
        session_of(api, auth=credentials(api)) as session,
    ):
        await asyncio.gather(*(session.fetch(PRIVACY) for _ in range(10)))
        api.revoke(api.token)
        await asyncio.gather(*(session.fetch(PRIVACY) for _ in range(100)))
        assert token_requests(api) == 2
        await assert_at_rest(session)


@in_virtual_time
async def test_a_token_that_stays_refused_is_the_callers_answer() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        if request.path == "/oauth2/token":
            return web.json_response({"token_type": "bearer", "access_token": "abc"})
        return web.json_response({"errors": [{"code": 89, "message": "no"}]}, status=401)

    async with (
        serving(handle) as server,
        Session(server.url, auth=ClientCredentials("k", "s")) as session,
    ):
        with pytest.raises(AuthError) as caught:
            await session.fetch("/x")
        assert caught.value.codes == (89,)
        assert server.paths == ["/oauth2/token", "/x"] * 2
        async with session.get("/x") as response:
            assert response.status == 401
            assert (await response.json())["errors"][0]["code"] == 89
        await assert_at_rest(session)


@in_virtual_time
async def test_a_token_endpoint_that_fails_is_asked_again_even_for_a_write() -> None:
    tokens = [503, 429, 200]

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.path != "/oauth2/token":
            return web.json_response({})
        status = tokens.pop(0)
        token = {"token_type": "bearer", "access_token": "abc"}
        return web.json_response(token, status=status, headers={"Retry-After": "4"})

    async with (
        serving(handle) as server,
        Session(server.url, auth=ClientCredentials("k", "s")) as session,
    ):
        await session.fetch("/x", method="POST", data=b"1")
        assert server.paths == ["/oauth2/token"] * 3 + ["/x"]
        assert elapsed() >= 8
        await assert_at_rest(session)


def a_page_before(token_at: int) -> Handler:
    """Answer with a page where a token was asked for, until it has been asked for so often."""
    asked = 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        if request.path != "/oauth2/token":
            return web.json_response({})
        asked += 1
        if asked < token_at:
            return web.Response(text="<p>s3cret: back soon</p>", content_type="text/html")
        return web.json_response({"token_type": "bearer", "access_token": "abc"})

    return handle


@in_virtual_time
async def test_a_page_in_place_of_a_token_fails_nobody_if_it_passes() -> None:
    async with (
        serving(a_page_before(3)) as server,
        Session(server.url, auth=ClientCredentials("k", "s")) as session,
    ):
        await asyncio.gather(*(session.fetch("/x") for _ in range(30)))
        assert server.paths.count("/oauth2/token") == 3
        await assert_at_rest(session)


@in_virtual_time
async def test_a_page_that_stays_in_place_of_a_token_is_an_error_that_quotes_nothing() -> None:
    async with (
        serving(a_page_before(10**9)) as server,
        Session(server.url, auth=ClientCredentials("k", "s")) as session,
    ):
        calls = [session.fetch("/x") for _ in range(30)]
        for error in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(error, AuthError)
            assert error.message == "no token: the answer is no JSON object"
            assert "s3cret" not in "".join(traceback.format_exception(error))
        assert server.paths.count("/oauth2/token") <= 5
        await assert_at_rest(session)


@in_virtual_time
async def test_a_wrong_key_is_an_auth_error_at_once() -> None:
    async with Emulator() as api:
        wrong = ClientCredentials(api.app.consumer_key, "wrong")
        async with session_of(api, auth=wrong) as session:
            with pytest.raises(AuthError):
                await session.fetch(PRIVACY)
            assert token_requests(api) == 1
            await assert_at_rest(session)


@in_virtual_time
async def test_case_39_a_refreshed_token_keeps_its_quota() -> None:
    async with (
        Emulator(window=9000, limits={ME: 5}) as api,
        session_of(api, auth=oauth2_of(api, expires_in=60)) as session,
    ):
        await session.fetch(ME)
        await asyncio.sleep(60)
        await session.fetch(ME)
        assert token_requests(api) == 1
        assert session.quota(ME).remaining == 3
        assert len(session.limiter.quotas()) == 1


@in_virtual_time
async def test_case_40_a_refresh_inside_a_gated_call_does_not_deadlock() -> None:
    async with Emulator(limit=1000) as api:
        connector = aiohttp.TCPConnector(limit=1)
        async with session_of(
            api, auth=oauth2_of(api, expires_in=1), concurrency=1, connector=connector
        ) as session:
            async with asyncio.timeout(60):
                await asyncio.gather(*(session.fetch(ME) for _ in range(20)))
            assert token_requests(api) == 1
            await assert_at_rest(session)


@in_virtual_time
async def test_case_40_users_that_share_a_credential_refresh_once() -> None:
    async with Emulator(limit=1000) as api:
        auth = oauth2_of(api, expires_in=1)
        async with session_of(api, auth=auth) as session:
            user = session.as_user("u:1", auth=auth)
            await asyncio.gather(*(each.fetch(ME) for each in (session, user) for _ in range(20)))
            assert token_requests(api) == 1


@in_virtual_time
async def test_closing_saves_a_token_whose_callers_have_left() -> None:
    async with Emulator(latency=1) as api:
        auth = oauth2_of(api, expires_in=1)
        session = session_of(api).as_user("u:1", auth=auth)
        call = asyncio.create_task(session.fetch(ME))
        await asyncio.sleep(0.5)
        call.cancel()
        await session._settings.pool.close(5)
        assert auth.ready(asyncio.get_running_loop().wall_time())


@in_virtual_time
async def test_closing_again_waits_for_a_token_that_a_cancelled_close_left_under_way() -> None:
    class SlowStore(MemoryStore):
        async def save(self, token: Token) -> None:
            await asyncio.sleep(3)
            await super().save(token)

    async with Emulator() as api:
        grant = api.grant(expires_in=1)
        store = SlowStore(Token(grant.access_token, grant.refresh_token, 0.0))
        auth = OAuth2User(api.app.client_id, client_secret=api.app.client_secret, store=store)
        session = session_of(api, auth=auth)
        call = asyncio.create_task(session.fetch(ME))
        await asyncio.sleep(1)
        closing = asyncio.create_task(session.close())
        await asyncio.sleep(1)
        closing.cancel()
        await asyncio.wait([closing])
        await session.close()
        assert isinstance(call.exception(), SessionClosedError)
        assert auth.ready(asyncio.get_running_loop().wall_time())
    await assert_nothing_is_left()


@in_virtual_time
async def test_a_clock_that_is_off_is_corrected_once_and_the_call_signed_anew() -> None:
    async with (
        Emulator(skew=-4000) as api,
        session_of(api, auth=oauth1_of(api.user)) as session,
    ):
        assert "privacy" in await session.fetch(PRIVACY)
        assert [request.status for request in api.requests] == [401, 200]


@in_virtual_time
async def test_a_clock_that_stays_off_is_the_callers_answer() -> None:
    def off(_: web.Request) -> web.StreamResponse:
        return web.json_response({"errors": [{"code": 135}]}, status=401)

    async with (
        serving(scripted(off)) as server,
        Emulator() as api,
        Session(server.url, auth=oauth1_of(api.user)) as session,
    ):
        with pytest.raises(AuthError):
            await session.fetch("/x")
        assert len(server.seen) == 2


# Where credentials go --------------------------------------------------------------------------


def redirect(to: str, status: int = 302) -> Any:
    return lambda _: web.Response(status=status, headers={"Location": to})


@in_virtual_time
async def test_case_41_a_redirect_hop_pays_and_is_signed_for_itself() -> None:
    async with Emulator() as api:
        api.reply("GET", "/old", status=302, headers={"Location": PRIVACY})
        async with session_of(api, auth=oauth1_of(api.user)) as session:
            assert "privacy" in await session.fetch("/old")
            assert session.limiter.stats().granted == 2
            assert session.quota(PRIVACY).remaining == 14
        signatures = {request.headers["Authorization"] for request in api.requests}
        assert len(signatures) == 2
        assert api.requests[-1].status == 200


@in_virtual_time
async def test_case_41_a_hop_without_a_token_waits_outside_and_goes_on_there() -> None:
    async with Emulator(window=900, limits={"help/languages": 1}) as api:
        api.reply("GET", "/old", status=302, headers={"Location": f"{LANGUAGES}?a=b"})
        async with session_of(api, timeout=aiohttp.ClientTimeout(total=2)) as session:
            await session.fetch(LANGUAGES)
            assert await session.fetch("/old", params={"c": "d"})
            assert elapsed() > 890
            await assert_at_rest(session)
        paths = [(request.path, request.query) for request in api.requests]
        assert paths == [(LANGUAGES, ""), ("/old", "c=d"), (LANGUAGES, "a=b")]


@pytest.mark.parametrize("waits", [False, True], ids=["at once", "after a wait"])
@pytest.mark.parametrize(
    ("status", "method", "kept"), [(303, "GET", False), (302, "GET", False), (307, "POST", True)]
)
def test_case_41_a_hop_keeps_or_drops_its_body(
    waits: bool, status: int, method: str, kept: bool
) -> None:
    @in_virtual_time
    async def scene() -> None:
        async with Emulator(window=5, limits={"help/tos": 1}) as api:
            path = TOS if not kept else "/1.1/friendships/update.json"
            api.set_limit(path.removesuffix(".json"), 1)
            api.reply("POST", "/old", status=status, headers={"Location": path})
            async with session_of(api, auth=oauth1_of(api.user)) as session:
                if waits:
                    async with session.request(method, path, data={"a": "b"} if kept else None):
                        pass
                async with session.post("/old", data={"a": "b"}) as response:
                    assert response.status == 200, await response.text()
            last = api.requests[-1]
            assert (last.method, last.body) == (method, b"a=b" if kept else b"")

    scene()


@in_virtual_time
async def test_case_41_no_credential_reaches_another_origin() -> None:
    async with serving(scripted(401), "127.0.0.2") as foreign, Emulator() as api:
        api.reply("GET", "/away", status=302, headers={"Location": f"{foreign.url}/y"})
        auth = credentials(api)
        async with session_of(api, auth=auth) as session:
            async with session.get("/away", headers={"Cookie": "a=b"}) as response:
                assert response.status == 401
            # Its 401 says nothing of our token.
            assert auth.ready(0)
            assert token_requests(api) == 1
            assert session.limiter.stats().granted == 1
        names = {name.lower() for name in foreign.seen[0].headers}
        assert not names & {"authorization", "cookie"}
        assert "Authorization" in api.requests[-1].headers


@in_virtual_time
async def test_case_41_a_resend_of_aiohttps_own_pays_for_itself() -> None:
    async with Emulator(window=5, limits={"help/privacy": 50}) as api:
        async with session_of(api, auth=oauth1_of(api.user)) as session:
            await session.fetch(PRIVACY)
            api.fail_next(1, drop="after")
            await session.fetch(PRIVACY, retries=0)
            assert session.limiter.stats().granted == 3
            assert api.tally.counted == 3
        assert len({request.headers["Authorization"] for request in api.requests}) == 3


@in_virtual_time
async def test_case_41_both_hosts_of_the_api_are_one() -> None:
    loop = asyncio.get_running_loop()
    async with (
        serving(scripted(200), "127.0.0.2") as second,
        serving(scripted(redirect(f"{second.url}/x"))) as first,
    ):
        api = plain_api(first.url, origins=(second.url,))
        async with Session(api, auth=Bearer("a-token")) as session:
            await session.fetch("/x")
            assert {key.api for key in session.limiter.quotas()} == {
                first.url.removeprefix("http://")
            }
        assert second.seen[0].headers["Authorization"] == "Bearer a-token"
    assert loop.network.connections == 0


@pytest.mark.parametrize("limit", [None, 1], ids=["tokens at once", "a wait at each hop"])
def test_an_answer_tells_of_all_hops_that_led_to_it(limit: int | None) -> None:
    @in_virtual_time
    async def scene() -> None:
        async with Emulator(window=5, limit=limit or 900) as api:
            for number in (1, 2, 3):
                there = {"Location": f"{PRIVACY}?hop={number}"}
                api.reply("GET", PRIVACY, status=302, headers=there, times=1)
            async with session_of(api) as session, session.get(PRIVACY) as response:
                assert response.url.query["hop"] == "3"
                assert [each.status for each in response.history] == [302] * 3
                hops = [each.url.query.get("hop") for each in response.history]
                assert hops == [None, "1", "2"]

    scene()


@pytest.mark.parametrize("limit", [None, 1], ids=["tokens at once", "a wait at each hop"])
def test_a_redirect_loop_is_bounded(limit: int | None) -> None:
    @in_virtual_time
    async def scene() -> None:
        async with Emulator(window=5, limit=limit or 900) as api:
            api.reply("GET", PRIVACY, status=302, headers={"Location": PRIVACY + "?a=1"})
            async with session_of(api) as session:
                with pytest.raises(aiohttp.TooManyRedirects):
                    await session.fetch(PRIVACY)
                await assert_at_rest(session)
            assert api.tally.received - api.refused <= 12

    scene()


@in_virtual_time
async def test_a_server_that_drops_everything_ends_in_an_error_in_minutes() -> None:
    async with Emulator(drop_after=1.0) as api, session_of(api) as session:
        results = await asyncio.gather(
            *(session.fetch(PRIVACY) for _ in range(20)), return_exceptions=True
        )
        assert all(isinstance(each, aiohttp.ClientError) for each in results)
        assert elapsed() < 3600
        await assert_at_rest(session)


@pytest.mark.parametrize("url", ["http://api.x.com", "http://192.0.2.1:8080"])
def test_a_credential_never_goes_in_the_clear(url: str) -> None:
    with pytest.raises(ValueError, match="https"):
        Session(url, auth=Bearer("t"))
    Session(url)


@in_virtual_time
async def test_a_call_brings_no_credential_of_its_own_beside_the_sessions() -> None:
    async with Emulator() as api, session_of(api) as session:
        for options in (
            {"headers": {"authorization": "x"}},
            {"headers": [("Authorization", "x")]},
            {"auth": Bearer("another")},
        ):
            with pytest.raises(ValueError, match="credential"):
                await session.get(PRIVACY, **options)
        with pytest.raises(ValueError, match="password"):
            await session.get("http://user:secret@127.0.0.1/x")
        with pytest.raises(ValueError, match="not both"):
            session_of(api, headers={"Authorization": "x"})
        assert not api.requests
        await assert_at_rest(session)


@in_virtual_time
async def test_without_auth_a_call_may_bring_its_own() -> None:
    async with Emulator() as api, Session(api.url) as session:
        headers = {"Authorization": f"Bearer {api.token}"}
        assert "privacy" in await session.fetch(PRIVACY, headers=headers)
