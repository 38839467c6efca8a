"""The emulator's doors: signatures, bearer tokens, refreshes, and who may call what."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from oauthlib import oauth1
from yarl import URL

from aiotwhelp.emulator import Emulator, User

PRIVACY = "/1.1/help/privacy.json"
FORM = "application/x-www-form-urlencoded"


@contextlib.asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[Emulator, aiohttp.ClientSession]]:
    async with Emulator(**options) as api, aiohttp.ClientSession() as session:
        yield api, session


def signed(
    user: User,
    url: str,
    method: str = "GET",
    *,
    body: str | None = None,
    at: float | None = None,
    nonce: str | None = None,
    **changes: Any,
) -> dict[str, str]:
    signer = oauth1.Client(
        user.consumer_key,
        user.consumer_secret,
        user.access_token,
        user.access_token_secret,
        timestamp=None if at is None else str(int(at)),
        nonce=nonce,
        **changes,
    )
    headers = {} if body is None else {"Content-Type": FORM}
    return dict(signer.sign(url, method, body=body, headers=headers)[1])  # type: ignore[arg-type]  # any


async def sent(
    session: aiohttp.ClientSession,
    url: str,
    headers: dict[str, str],
    method: str = "GET",
    **more: Any,
) -> tuple[int, Any]:
    async with session.request(method, url, headers=headers, **more) as answer:
        if answer.content_length == 0:
            return answer.status, None
        return answer.status, await answer.json(content_type=None)


def code(body: Any) -> int:
    return int(body["errors"][0]["code"])


@pytest.mark.asyncio
async def test_a_signed_request_is_its_users() -> None:
    async with serving(users=2) as (api, session):
        for user in api.users:
            url = f"{api.url}/2/users/me"
            status, body = await sent(session, url, signed(user, url))
            assert status == 200
            assert body["data"]["id"] == user.id


@pytest.mark.asyncio
async def test_a_nonce_is_good_for_one_request() -> None:
    async with serving() as (api, session):
        headers = signed(api.user, api.url + PRIVACY)
        first, _ = await sent(session, api.url + PRIVACY, headers)
        again, body = await sent(session, api.url + PRIVACY, headers)
        fresh, _ = await sent(session, api.url + PRIVACY, signed(api.user, api.url + PRIVACY))
    assert (first, again, fresh) == (200, 401, 200)
    assert code(body) == 32


@pytest.mark.asyncio
async def test_a_request_that_was_refused_does_not_use_up_its_nonce() -> None:
    async with serving() as (api, session):
        url = api.url + PRIVACY
        wrong = dataclasses.replace(api.user, access_token_secret="wrong")
        now = api.clock.now()
        forged, body = await sent(session, url, signed(wrong, url, at=now, nonce="n" * 32))
        real, _ = await sent(session, url, signed(api.user, url, at=now, nonce="n" * 32))
    assert (forged, code(body), real) == (401, 32, 200)


@pytest.mark.asyncio
@pytest.mark.parametrize(("drift", "expected"), [(-290, 0), (299, 0), (-302, 135), (310, 135)])
async def test_timestamps_are_compared_with_the_servers_clock(drift: int, expected: int) -> None:
    async with serving(skew=5000) as (api, session):
        url = api.url + PRIVACY
        status, body = await sent(session, url, signed(api.user, url, at=api.clock.now() + drift))
    assert (status, code(body) if expected else 0) == (401 if expected else 200, expected)


@pytest.mark.asyncio
async def test_a_wrong_secret_a_tampered_query_and_another_method_are_code_32() -> None:
    async with serving() as (api, session):
        url = api.url + "/1.1/account/settings.json?a=1"
        wrong_secret = dataclasses.replace(api.user, access_token_secret="wrong")
        wrong_app = dataclasses.replace(api.user, app=api.add_app())
        attempts = [
            await sent(session, url, signed(wrong_secret, url)),
            await sent(session, url, signed(wrong_app, url)),
            await sent(session, url + "&b=2", signed(api.user, url)),
            await sent(session, url, signed(api.user, url), "POST"),
        ]
        right, _ = await sent(session, url, signed(api.user, url))
    assert [(status, code(body)) for status, body in attempts] == [(401, 32)] * 4
    assert right == 200
    assert [window.counted for window in api.windows] == [1]


@pytest.mark.asyncio
async def test_only_hmac_sha1_signatures_are_taken() -> None:
    async with serving() as (api, session):
        url = api.url + PRIVACY
        plain = signed(api.user, url, signature_method=oauth1.SIGNATURE_PLAINTEXT)
        status, body = await sent(session, url, plain)
    assert (status, code(body)) == (401, 32)


@pytest.mark.asyncio
async def test_an_unknown_or_revoked_token_is_code_89() -> None:
    async with serving() as (api, session):
        url = api.url + PRIVACY
        stranger = dataclasses.replace(api.user, access_token="1-unknown")
        unknown = await sent(session, url, signed(stranger, url))
        bearer = await sent(session, url, {"Authorization": "Bearer nonsense"})
        assert api.revoke(api.user.access_token)
        assert not api.revoke(api.user.access_token)
        revoked = await sent(session, url, signed(api.user, url))
    for status, body in (unknown, bearer, revoked):
        assert (status, code(body)) == (401, 89)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "header",
    [{}, {"Authorization": "Basic YTpi"}, {"Authorization": "OAuth realm="}, {"Authorization": ""}],
)
async def test_no_usable_credentials_are_400_code_215(header: dict[str, str]) -> None:
    async with serving() as (api, session):
        status, body = await sent(session, api.url + PRIVACY, header)
        v2, problem = await sent(session, api.url + "/2/users/me", header)
    assert (status, code(body)) == (400, 215)
    assert (v2, problem["title"], problem["type"]) == (401, "Unauthorized", "about:blank")
    assert not api.windows


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "query",
    ["q=a%20b+c", "q=%C3%BC%E2%98%83", "q=a%2Fb%3Fc", "q=!*'()~-._", "a=1&a=2&b=", "q=%25+%2B"],
)
async def test_signatures_over_awkward_queries_hold(query: str) -> None:
    async with serving() as (api, session):
        # What is signed is what is sent: yarl has the last word on both.
        url = str(URL(f"{api.url}/1.1/search/tweets.json?{query}"))
        status, body = await sent(session, url, signed(api.user, url))
    assert status == 200, body


@pytest.mark.asyncio
async def test_a_form_is_signed_and_any_other_body_is_not() -> None:
    async with serving() as (api, session):
        url = api.url + "/1.1/lists/create.json"
        form = "name=Ladies+%2B+Gentlemen&mode="
        headers = signed(api.user, url, "POST", body=form)
        headers["Content-Type"] = f"{FORM}; charset=utf-8"
        whole, echo = await sent(session, url, headers, "POST", data=form)
        headers = signed(api.user, url, "POST", body=form)
        tampered, _ = await sent(session, url, headers, "POST", data=form + "x")
        headers = signed(api.user, url, "POST")
        json, _ = await sent(session, url, headers, "POST", json={"name": "x"})
        headers = {**signed(api.user, url, "POST"), "Content-Type": "application/octet-stream"}
        binary, _ = await sent(session, url, headers, "POST", data=bytes(range(256)))
    assert (whole, tampered, json, binary) == (200, 401, 200, 200)
    assert echo["form"] == {"name": "Ladies + Gentlemen", "mode": ""}


@pytest.mark.asyncio
async def test_the_host_is_part_of_what_is_signed() -> None:
    async with serving() as (api, session):
        url = "http://api.example.test/1.1/help/privacy.json"
        headers = {**signed(api.user, url), "Host": "api.example.test"}
        right, _ = await sent(session, api.url + PRIVACY, headers)
        headers = {**signed(api.user, url), "Host": "other.example.test"}
        wrong, _ = await sent(session, api.url + PRIVACY, headers)
    assert (right, wrong) == (200, 401)


@pytest.mark.asyncio
async def test_an_app_may_not_act_as_a_user() -> None:
    async with serving() as (api, session):
        app = {"Authorization": f"Bearer {api.token}"}
        v1, body = await sent(session, api.url + "/1.1/statuses/home_timeline.json", app)
        v2, problem = await sent(session, api.url + "/2/users/me", app)
        post, _ = await sent(session, api.url + "/2/tweets", app, "POST", json={"text": "x"})
    assert (v1, code(body)) == (403, 220)
    assert (v2, problem["type"].rpartition("/")[2]) == (403, "unsupported-authentication")
    assert post == 403
    assert not api.windows


@pytest.mark.asyncio
async def test_an_app_gets_one_bearer_token_until_it_is_invalidated() -> None:
    async with serving() as (api, session):
        basic = aiohttp.encode_basic_auth(api.app.consumer_key, api.app.consumer_secret)
        form = {"Content-Type": FORM, "Authorization": basic}
        url = api.url + "/oauth2/token"
        grant = "grant_type=client_credentials"
        _, first = await sent(session, url, form, "POST", data=grant)
        _, again = await sent(session, url, form, "POST", data=grant)
        token = first["access_token"]
        assert first == again == {"token_type": "bearer", "access_token": api.token}
        assert "%2B" in token
        invalidate = api.url + "/oauth2/invalidate_token"
        gone = await sent(
            session, invalidate, form, "POST", data=f"access_token={quote(token, safe='')}"
        )
        refused, body = await sent(session, api.url + PRIVACY, {"Authorization": f"Bearer {token}"})
        _, fresh = await sent(session, url, form, "POST", data=grant)
        allowed, _ = await sent(
            session, api.url + PRIVACY, {"Authorization": f"Bearer {fresh['access_token']}"}
        )
    assert gone == (200, {"access_token": token})
    assert (refused, code(body)) == (401, 89)
    assert fresh["access_token"] != token
    assert allowed == 200


@pytest.mark.asyncio
async def test_a_bearer_token_with_its_percent_signs_left_bare_is_invalidated_too() -> None:
    async with serving() as (api, session):
        basic = aiohttp.encode_basic_auth(api.app.consumer_key, api.app.consumer_secret)
        status, _ = await sent(
            session,
            api.url + "/oauth2/invalidate_token",
            {"Content-Type": FORM, "Authorization": basic},
            "POST",
            data=f"access_token={api.token}",
        )
    assert status == 200


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("header", "form"),
    [
        (None, "grant_type=client_credentials"),
        ("Basic !!!", "grant_type=client_credentials"),
        ("Basic YTpi", "grant_type=client_credentials"),
        ("right", "grant_type=password"),
    ],
)
async def test_a_token_for_wrong_keys_is_403_code_99(header: str | None, form: str) -> None:
    async with serving() as (api, session):
        headers = {"Content-Type": FORM}
        if header == "right":
            header = aiohttp.encode_basic_auth(api.app.consumer_key, api.app.consumer_secret)
        if header:
            headers["Authorization"] = header
        status, body = await sent(session, api.url + "/oauth2/token", headers, "POST", data=form)
    assert (status, code(body)) == (403, 99)


@pytest.mark.asyncio
async def test_a_user_token_of_oauth2_is_for_v2_and_shares_its_users_quota() -> None:
    async with serving() as (api, session):
        grant = api.grant()
        bearer = {"Authorization": f"Bearer {grant.access_token}"}
        url = api.url + "/2/users/me"
        v2, body = await sent(session, url, bearer)
        oauth1_too, _ = await sent(session, url, signed(api.user, url))
        v1, error = await sent(session, api.url + PRIVACY, bearer)
    assert (v2, body["data"]["id"], oauth1_too) == (200, api.user.id, 200)
    assert (v1, code(error)) == (403, 220)
    assert [window.counted for window in api.windows] == [2]


@pytest.mark.asyncio
async def test_a_user_token_expires() -> None:
    async with serving(token_lifetime=0.03) as (api, session):
        bearer = {"Authorization": f"Bearer {api.grant().access_token}"}
        lasting = {"Authorization": f"Bearer {api.grant(expires_in=60).access_token}"}
        await asyncio.sleep(0.04)
        status, problem = await sent(session, api.url + "/2/users/me", bearer)
        alive, _ = await sent(session, api.url + "/2/users/me", lasting)
    assert (status, problem["title"]) == (401, "Unauthorized")
    assert alive == 200


@pytest.mark.asyncio
@pytest.mark.parametrize("confidential", [True, False])
async def test_a_refresh_token_is_exchanged_once(confidential: bool) -> None:
    async with serving() as (api, session):
        grant = api.grant()
        headers = {"Content-Type": FORM}
        form = f"grant_type=refresh_token&refresh_token={grant.refresh_token}"
        if confidential:
            headers["Authorization"] = aiohttp.encode_basic_auth(
                grant.client_id, grant.client_secret
            )
        else:
            form += f"&client_id={grant.client_id}"
        url = api.url + "/2/oauth2/token"
        status, fresh = await sent(session, url, headers, "POST", data=form)
        again, refused = await sent(session, url, headers, "POST", data=form)
        me = api.url + "/2/users/me"
        old, _ = await sent(session, me, {"Authorization": f"Bearer {grant.access_token}"})
        new, _ = await sent(session, me, {"Authorization": f"Bearer {fresh['access_token']}"})
    assert (status, fresh["token_type"], fresh["expires_in"]) == (200, "bearer", 7200)
    assert "offline.access" in fresh["scope"]
    assert fresh["refresh_token"] != grant.refresh_token
    assert (again, refused["error"]) == (400, "invalid_request")
    assert (old, new) == (401, 200)


@pytest.mark.asyncio
async def test_a_strangers_refresh_is_refused_and_does_not_use_up_the_token() -> None:
    async with serving() as (api, session):
        grant = api.grant()
        url = api.url + "/2/oauth2/token"
        form = f"grant_type=refresh_token&refresh_token={grant.refresh_token}"
        headers = {"Content-Type": FORM}
        stranger, body = await sent(session, url, headers, "POST", data=form + "&client_id=x")
        other, _ = await sent(session, url, headers, "POST", data="grant_type=authorization_code")
        owner, _ = await sent(
            session, url, headers, "POST", data=f"{form}&client_id={grant.client_id}"
        )
    assert (stranger, body["error"]) == (401, "invalid_client")
    assert (other, owner) == (400, 200)


@pytest.mark.asyncio
async def test_a_revoked_grant_is_neither_used_nor_refreshed() -> None:
    async with serving() as (api, session):
        grant = api.grant()
        headers = {"Content-Type": FORM}
        form = f"token={grant.access_token}"
        revoked, _ = await sent(session, api.url + "/2/oauth2/revoke", headers, "POST", data=form)
        bearer = {"Authorization": f"Bearer {grant.access_token}"}
        used, _ = await sent(session, api.url + "/2/users/me", bearer)
        form = f"grant_type=refresh_token&refresh_token={grant.refresh_token}"
        form += f"&client_id={grant.client_id}"
        refreshed, _ = await sent(session, api.url + "/2/oauth2/token", headers, "POST", data=form)
    assert (revoked, used, refreshed) == (200, 401, 400)
    assert grant.refresh_token not in repr(grant)
    assert grant.access_token not in repr(grant)
