"""Credentials: what they sign, how tokens are had and renewed, and that no secret gets out."""

from __future__ import annotations

import asyncio
import base64
import copy
import gc
import hmac
import json
import logging
import os
import pickle
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from urllib.parse import parse_qs, unquote

import aiohttp
import pytest
from oauthlib.oauth1 import Client
from yarl import URL

from aiotwhelp import auth as signing
from aiotwhelp.auth import (
    ANSWER_LIMIT,
    EARLY,
    RENEWAL_PAUSE,
    Auth,
    Bearer,
    ClientCredentials,
    MemoryStore,
    OAuth1,
    OAuth2User,
    Token,
    TokenAnswer,
)
from aiotwhelp.errors import AuthError, SessionClosedError
from tests.stack import in_virtual_time

# The examples of X's documentation, marked invalid there.
CONSUMER_KEY = "xvz1evFS4wEEPTGEFPHBog"
CONSUMER_SECRET = "kAcSOqF21Fu85e7zjz7ZN2U4ZRhfV3WpwPAoE3Z7kBw"
APP_SECRET = "L8qq9PZyRg6ieKGEKhZolGC0vJWLw8iEJ88DRdyOg"
ACCESS_TOKEN = "370773112-GmHxMAgYyLbNEtIKZeRNFsMKPR9EyMZeS9weJAEb"
TOKEN_SECRET = "LswwdoUaIvS8ltyTt5jkRh4J50vUPVVHtR2YPi5kE"
NONCE = "kYjzVBB8Y0ZFabxSWbWovY3uYSQ2pTgmZeNu2VS4cg"
TIMESTAMP = 1318622958
STATUS_FORM = b"status=Hello%20Ladies%20%2b%20Gentlemen%2c%20a%20signed%20OAuth%20request%21"
FORM = "application/x-www-form-urlencoded"
BASIC = (
    "Basic eHZ6MWV2RlM0d0VFUFRHRUZQSEJvZzpMOHFxOVBaeVJnNmllS0dFS2hab2xHQzB2SldMdzhpRUo4OERSZHlPZw=="
)
APP_TOKEN = "AAAA%2FAAA%3DAAAAAAAA"
SECRETS = (
    CONSUMER_SECRET,
    APP_SECRET,
    ACCESS_TOKEN,
    TOKEN_SECRET,
    APP_TOKEN,
    BASIC.removeprefix("Basic "),
    "access-0",
    "refresh-0",
    "the-client-secret",
)

NOW = 1_700_000_000.0


def oauth1() -> OAuth1:
    return OAuth1(CONSUMER_KEY, CONSUMER_SECRET, ACCESS_TOKEN, TOKEN_SECRET)


def parameters(authorization: str) -> dict[str, str]:
    """The parameters of an OAuth 1.0 header, decoded."""
    return {name: unquote(value) for name, value in re.findall(r'(\w+)="([^"]*)"', authorization)}


@pytest.fixture
def fixed_nonce(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oauthlib.oauth1.rfc5849.generate_nonce", lambda: NONCE)
    monkeypatch.setattr(signing, "_nonce", lambda _: NONCE)


@pytest.fixture
def base_strings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The signature base strings, as they are signed."""
    seen: list[str] = []
    sign = signing._hmac_sha1

    def record(key: bytes, base_string: str) -> str:
        seen.append(base_string)
        return sign(key, base_string)

    monkeypatch.setattr(signing, "_hmac_sha1", record)
    return seen


class Server:
    """A token endpoint in memory. Its refresh tokens work once."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, Mapping[str, str], bytes]] = []
        self.answers: list[TokenAnswer | Exception] = []
        self.open = asyncio.Event()
        self.open.set()
        self.issued = 0
        self.expires_in: object = 7200
        self.app_token = APP_TOKEN
        self.ticks = 0

    async def send(
        self, method: str, url: str, *, headers: Mapping[str, str], data: bytes
    ) -> TokenAnswer:
        self.requests.append((method, url, dict(headers), data))
        await self.open.wait()
        for _ in range(self.ticks):
            await asyncio.sleep(0)
        if self.answers:
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        return self._refreshed(data) if b"refresh_token" in data else self._app_token()

    def _app_token(self) -> TokenAnswer:
        return ok({"token_type": "bearer", "access_token": self.app_token})

    def _refreshed(self, data: bytes) -> TokenAnswer:
        if parse_qs(data.decode())["refresh_token"] != [f"refresh-{self.issued}"]:
            return says(400, {"error": "invalid_grant"})
        self.issued += 1
        fields = {
            "token_type": "bearer",
            "access_token": f"access-{self.issued}",
            "refresh_token": f"refresh-{self.issued}",
            "expires_in": self.expires_in,
        }
        return ok(fields)


def says(status: int, fields: object, **headers: str) -> TokenAnswer:
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return TokenAnswer(status, headers, body, "https://api.example/2/oauth2/token")


def ok(fields: object) -> TokenAnswer:
    return says(200, fields)


class SlowStore:
    """A store that takes a few ticks for everything, and notes what happens."""

    def __init__(self, token: Token | None = None, ticks: int = 2) -> None:
        self.token = token
        self.ticks = ticks
        self.events: list[str] = []
        self.failing: dict[str, Exception] = {}
        self._lock = asyncio.Lock()

    async def load(self) -> Token | None:
        await self._step("load")
        return self.token

    async def save(self, token: Token) -> None:
        await self._step(f"save {token.access_token}")
        self.token = token

    def exclusive(self) -> AbstractAsyncContextManager[None]:
        return self._lock

    async def _step(self, event: str) -> None:
        assert self._lock.locked(), "the store is used without being held"
        for _ in range(self.ticks):
            await asyncio.sleep(0)
        self.events.append(event)
        if error := self.failing.pop(event.split()[0], None):
            raise error


def user(**arguments: object) -> OAuth2User:
    given: dict[str, object] = {"access_token": "access-0", "refresh_token": "refresh-0"}
    return OAuth2User("the-client-id", **{**given, **arguments})  # type: ignore[arg-type]


def bearer(auth: Auth) -> str:
    return auth.authorize("GET", "https://api.example/", now=NOW)


async def settle(until: Callable[[], object]) -> None:
    for _ in range(200):
        if until():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not come to that")


# OAuth 1.0a: known answers


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("https://api.twitter.com/1/", "tnnArxj06cWHq44gCs1OSKk/jLY="),
        ("https://api.twitter.com/1.1/", "hCtSmYh+iHYCEqBWrE7C7hYmtUk="),
        ("https://api.x.com/1.1/", "Ls93hJiZbQ3akF3HF3x1Bz8/zU4="),
    ],
)
def test_the_documented_request_has_the_documented_signature(
    base: str, expected: str, fixed_nonce: None
) -> None:
    header = oauth1().authorize(
        "POST",
        f"{base}statuses/update.json?include_entities=true",
        now=TIMESTAMP + 0.9,
        content_type=FORM,
        body=STATUS_FORM,
    )
    assert header.startswith("OAuth ")
    assert parameters(header) == {
        "oauth_consumer_key": CONSUMER_KEY,
        "oauth_nonce": NONCE,
        "oauth_signature": expected,
        "oauth_signature_method": "HMAC-SHA1",
        "oauth_timestamp": str(TIMESTAMP),
        "oauth_token": ACCESS_TOKEN,
        "oauth_version": "1.0",
    }


def test_the_documented_request_has_the_documented_base_string(
    fixed_nonce: None, base_strings: list[str]
) -> None:
    oauth1().authorize(
        "post",
        "https://api.twitter.com/1.1/statuses/update.json?include_entities=true",
        now=TIMESTAMP,
        content_type=FORM,
        body=STATUS_FORM,
    )
    assert base_strings[0] == (
        "POST&https%3A%2F%2Fapi.twitter.com%2F1.1%2Fstatuses%2Fupdate.json&"
        "include_entities%3Dtrue%26"
        "oauth_consumer_key%3Dxvz1evFS4wEEPTGEFPHBog%26"
        "oauth_nonce%3DkYjzVBB8Y0ZFabxSWbWovY3uYSQ2pTgmZeNu2VS4cg%26"
        "oauth_signature_method%3DHMAC-SHA1%26"
        "oauth_timestamp%3D1318622958%26"
        "oauth_token%3D370773112-GmHxMAgYyLbNEtIKZeRNFsMKPR9EyMZeS9weJAEb%26"
        "oauth_version%3D1.0%26"
        "status%3DHello%2520Ladies%2520%252B%2520Gentlemen%252C%2520a%2520signed%2520OAuth"
        "%2520request%2521"
    )


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("Ladies + Gentlemen", "Ladies%20%2B%20Gentlemen"),
        ("An encoded string!", "An%20encoded%20string%21"),
        ("Dogs, Cats & Mice", "Dogs%2C%20Cats%20%26%20Mice"),
        ("☃", "%E2%98%83"),
        ("-._~", "-._~"),
    ],
)
def test_text_is_percent_encoded_as_documented(
    text: str, encoded: str, base_strings: list[str]
) -> None:
    url = URL("https://api.x.com/1.1/statuses/update.json").with_query(status=text)
    oauth1().authorize("POST", url, now=NOW)
    parameter_string = unquote(base_strings[0].split("&")[2])
    assert parameter_string.endswith(f"&status={encoded}")


def test_without_a_query_nothing_but_the_protocol_is_signed(base_strings: list[str]) -> None:
    oauth1().authorize("GET", "https://api.x.com/1.1/help/privacy.json", now=NOW)
    names = re.findall(r"(\w+)=", unquote(base_strings[0].split("&")[2]))
    assert names == [
        "oauth_consumer_key",
        "oauth_nonce",
        "oauth_signature_method",
        "oauth_timestamp",
        "oauth_token",
        "oauth_version",
    ]


# OAuth 1.0a: what is signed


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_makes_nonces_of_its_own() -> None:
    program = """
import os
from aiotwhelp.auth import _nonce
_nonce("1700000000")
child = os.fork()
os.write(1, (_nonce("1700000000") + "\\n").encode())  # in one piece, whatever the buffers
if child:
    os.waitpid(child, 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    first, second = done.stdout.split()
    assert first != second


def test_the_signer_signs_as_oauthlib_itself_does(fixed_nonce: None) -> None:
    stock = Client(
        CONSUMER_KEY, CONSUMER_SECRET, ACCESS_TOKEN, TOKEN_SECRET, timestamp=str(TIMESTAMP)
    )
    url = "https://api.x.com:8443/1.1/a%20b;c/d.json?b=2&a=%C3%BC&a=&oauth_x=1%2B1"
    _, headers, _ = stock.sign(url, "PUT", "x=1&x=2", {"Content-Type": FORM})
    assert headers["Authorization"] == oauth1().authorize(
        "PUT", url, now=TIMESTAMP, content_type=FORM, body=b"x=1&x=2"
    )


def test_case_42_each_attempt_has_its_own_nonce_and_the_servers_time() -> None:
    auth = oauth1()
    headers = [
        parameters(auth.authorize("GET", "https://api.x.com/", now=NOW + n / 100))
        for n in range(200)
    ]
    assert len({header["oauth_nonce"] for header in headers}) == 200
    assert [header["oauth_timestamp"] for header in headers[::100]] == ["1700000000", "1700000001"]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'{"text": "hi"}'),
        ("application/json", b"123"),
        ("application/json", b"a=b"),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\n--x--\r\n"),
        ("application/octet-stream", b"\xff\xfe\x00"),
        (None, b"a=b"),
        (FORM, b""),
        (FORM, b"&"),
    ],
)
def test_a_body_that_is_no_form_is_not_signed(
    content_type: str | None, body: bytes, base_strings: list[str], fixed_nonce: None
) -> None:
    auth, url = oauth1(), "https://api.x.com/2/tweets"
    with_body = auth.authorize("POST", url, now=NOW, content_type=content_type, body=body)
    assert with_body == auth.authorize("POST", url, now=NOW)
    assert "oauth_body_hash" not in with_body


@pytest.mark.parametrize(
    "content_type",
    [FORM, FORM.upper(), f"{FORM}; charset=utf-8", f" {FORM} ;charset=UTF-8"],
)
def test_a_form_is_signed_whatever_its_content_type_adds(
    content_type: str, base_strings: list[str]
) -> None:
    auth = oauth1()
    assert auth.needs_body("POST", content_type)
    auth.authorize("POST", "https://x.test/", now=NOW, content_type=content_type, body=b"q=1&q=")
    assert unquote(base_strings[0]).endswith("&q=&q=1")


@pytest.mark.parametrize("body", [b"q=a|b", "q=ü".encode(), b"q=%zz", b"q=\xff", b"q", b"q=[1]"])
def test_a_sloppy_form_is_signed_as_a_server_reads_it(body: bytes, base_strings: list[str]) -> None:
    oauth1().authorize("POST", "https://x.test/", now=NOW, content_type=FORM, body=body)
    assert "&q=" in unquote(base_strings[0])


@pytest.mark.parametrize("method", ["GET", "head"])
def test_a_form_on_a_get_is_not_signed(method: str, base_strings: list[str]) -> None:
    auth = oauth1()
    assert not auth.needs_body(method, FORM)
    auth.authorize(method, "https://x.test/", now=NOW, content_type=FORM, body=b"q=1")
    assert "q%3D" not in base_strings[0]


def test_the_query_is_made_canonical_and_the_path_is_signed_as_it_is_sent(
    base_strings: list[str],
) -> None:
    raw = URL("https://x.test/a%2fb/c?q=[1]&r=%zz&s=a|b", encoded=True)
    oauth1().authorize("GET", raw, now=NOW)
    _, uri, params = map(unquote, base_strings[0].split("&"))
    assert uri == "https://x.test/a%2fb/c"
    assert params.endswith("&q=%5B1%5D&r=%25zz&s=a%7Cb")


def test_a_url_given_as_text_is_signed_as_aiohttp_would_send_it(base_strings: list[str]) -> None:
    oauth1().authorize("GET", "https://x.test/ü x?q=a b#part", now=NOW)
    _, uri, params = map(unquote, base_strings[0].split("&"))
    assert uri == "https://x.test/%C3%BC%20x"
    assert params.endswith("&q=a%20b")


def test_a_host_header_of_its_own_is_what_is_signed(base_strings: list[str]) -> None:
    oauth1().authorize("GET", "http://127.0.0.1:8080/x", now=NOW, host="API.x.com:8443")
    assert unquote(base_strings[0].split("&")[1]) == "http://api.x.com:8443/x"


def test_unusual_methods_are_signed(base_strings: list[str]) -> None:
    oauth1().authorize("PURGE", "https://x.test/", now=NOW)
    assert base_strings[0].startswith("PURGE&")


# What a session sees


def test_contexts_apps_and_identities() -> None:
    app = ClientCredentials(CONSUMER_KEY, APP_SECRET)
    one = oauth1()
    other = OAuth1(CONSUMER_KEY, CONSUMER_SECRET, "other", TOKEN_SECRET)
    assert [auth.context for auth in (one, app, Bearer("t"), user())] == [
        "user",
        "app",
        "app",
        "user",
    ]
    assert one.app == other.app == app.app == app.identity == CONSUMER_KEY
    assert one.identity == oauth1().identity
    assert len({one.identity, other.identity, app.identity}) == 3
    assert Bearer("t").identity == Bearer("t").app != Bearer("u").app


def test_a_user_is_the_same_by_name_and_else_by_object() -> None:
    named = user(identity="42")
    assert named.identity == user(identity="42", access_token="other").identity
    assert named.identity != user(identity="43").identity
    unnamed = user()
    assert unnamed.identity == unnamed.identity != user().identity
    assert unnamed.app == named.app == "the-client-id"


@pytest.mark.asyncio
async def test_ready_made_credentials_need_no_preparation() -> None:
    server = Server()
    for auth in (oauth1(), Bearer("t")):
        assert auth.ready(NOW)
        await auth.prepare(server.send, NOW)
        assert not auth.rejected(bearer(auth), 401, (89,), NOW)
        await auth.close()
    assert not Bearer("t").needs_body("POST", FORM)
    assert server.requests == []


def test_a_bearer_token_is_used_verbatim() -> None:
    assert bearer(Bearer(APP_TOKEN)) == f"Bearer {APP_TOKEN}"


# App-only tokens


@pytest.mark.asyncio
async def test_the_app_token_is_asked_for_as_documented() -> None:
    server = Server()
    auth = ClientCredentials(CONSUMER_KEY, APP_SECRET)
    assert not auth.ready(NOW)
    await auth.prepare(server.send, NOW)
    [(method, url, headers, data)] = server.requests
    assert (method, url, data) == ("POST", "/oauth2/token", b"grant_type=client_credentials")
    assert headers["Authorization"] == BASIC
    assert headers["Content-Type"] == f"{FORM};charset=UTF-8"
    assert auth.ready(NOW)
    assert auth.ready(NOW + 1e9), "no expires_in: no end"
    assert bearer(auth) == f"Bearer {APP_TOKEN}"


@pytest.mark.asyncio
async def test_key_and_secret_are_percent_encoded_before_they_are_joined() -> None:
    server = Server()
    await ClientCredentials("a:b/", "c%/d").prepare(server.send, NOW)
    credential = server.requests[0][2]["Authorization"].removeprefix("Basic ")
    assert base64.b64decode(credential) == b"a%3Ab%2F:c%25%2Fd"


async def asking(n: int) -> tuple[Server, ClientCredentials, list[asyncio.Task[None]]]:
    """Return so many callers of one credential, whose one request the server has yet to answer."""
    server, auth = Server(), ClientCredentials(CONSUMER_KEY, APP_SECRET)
    server.open.clear()
    callers = [asyncio.create_task(auth.prepare(server.send, NOW)) for _ in range(n)]
    await settle(lambda: server.requests)
    return server, auth, callers


@pytest.mark.asyncio
async def test_case_40_a_thousand_callers_share_one_token_request() -> None:
    server, auth, callers = await asking(1000)
    server.open.set()
    await asyncio.gather(*callers)
    await auth.prepare(server.send, NOW)
    assert len(server.requests) == 1


@pytest.mark.asyncio
async def test_callers_wake_in_the_order_in_which_they_came() -> None:
    server, order = Server(), []
    server.open.clear()
    auth = ClientCredentials(CONSUMER_KEY, APP_SECRET)

    async def call(number: int) -> None:
        await auth.prepare(server.send, NOW)
        order.append(number)

    callers = [asyncio.create_task(call(number)) for number in range(100)]
    await settle(lambda: server.requests)
    server.open.set()
    await asyncio.gather(*callers)
    assert order == list(range(100))


@pytest.mark.asyncio
async def test_callers_refused_with_one_old_token_cause_one_renewal() -> None:
    server = Server()
    auth = ClientCredentials(CONSUMER_KEY, APP_SECRET)
    await auth.prepare(server.send, NOW)
    old, server.app_token = bearer(auth), "new-token"

    async def refused() -> str:
        assert auth.rejected(old, 401, (89,), NOW)
        await auth.prepare(server.send, NOW)
        return bearer(auth)

    assert await asyncio.gather(*(refused() for _ in range(10))) == ["Bearer new-token"] * 10
    assert auth.rejected(old, 401, (89,), NOW), "a straggler goes again with the new one"
    assert auth.ready(NOW)
    assert len(server.requests) == 2


@pytest.mark.asyncio
async def test_a_token_that_is_refused_again_at_once_is_not_renewed_again() -> None:
    server = Server()
    auth = ClientCredentials(CONSUMER_KEY, APP_SECRET)
    await auth.prepare(server.send, NOW)
    assert auth.rejected(bearer(auth), 401, (), NOW)
    await auth.prepare(server.send, NOW)  # X answers with the same token
    assert not auth.rejected(bearer(auth), 401, (), NOW + 1)
    assert auth.ready(NOW + 2)
    assert auth.rejected(bearer(auth), 401, (), NOW + RENEWAL_PAUSE)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("status", "codes"), [(403, (89,)), (403, (220,)), (401, (32,)), (429, (88,)), (500, ())]
)
async def test_other_refusals_leave_the_token_alone(status: int, codes: tuple[int, ...]) -> None:
    server = Server()
    auth = ClientCredentials(CONSUMER_KEY, APP_SECRET)
    await auth.prepare(server.send, NOW)
    assert not auth.rejected(bearer(auth), status, codes, NOW)
    assert auth.ready(NOW)


@pytest.mark.asyncio
async def test_invalidating_sends_the_token_as_it_came_and_forgets_it() -> None:
    server = Server()
    auth = ClientCredentials(CONSUMER_KEY, APP_SECRET)
    await auth.invalidate(server.send)
    assert server.requests == []
    await auth.prepare(server.send, NOW)
    server.answers.append(ok({"access_token": APP_TOKEN}))
    await auth.invalidate(server.send)
    method, url, headers, data = server.requests[-1]
    assert (method, url) == ("POST", "/oauth2/invalidate_token")
    assert headers["Authorization"] == BASIC
    assert data == b"access_token=AAAA%2FAAA%3DAAAAAAAA"
    assert not auth.ready(NOW)
    await auth.prepare(server.send, NOW)
    assert auth.ready(NOW)


@pytest.mark.asyncio
async def test_an_error_quotes_a_few_codes_of_a_thousand() -> None:
    server = Server()
    server.answers.append(says(403, {"errors": [{"code": code} for code in range(1000)]}))
    with pytest.raises(AuthError) as caught:
        await ClientCredentials(CONSUMER_KEY, APP_SECRET).prepare(server.send, NOW)
    assert caught.value.codes == tuple(range(16))


@pytest.mark.asyncio
async def test_a_refused_invalidation_keeps_the_token() -> None:
    server = Server()
    auth = ClientCredentials(CONSUMER_KEY, APP_SECRET)
    await auth.prepare(server.send, NOW)
    server.answers.append(says(403, {"errors": [{"code": 99, "message": APP_TOKEN}]}))
    with pytest.raises(AuthError, match=r"not invalidated \(code 99\)"):
        await auth.invalidate(server.send)
    assert auth.ready(NOW)


@pytest.mark.asyncio
async def test_a_token_without_preparation_is_a_bug_that_says_so() -> None:
    with pytest.raises(RuntimeError, match="prepare"):
        bearer(ClientCredentials(CONSUMER_KEY, APP_SECRET))


# User tokens


@pytest.mark.asyncio
async def test_a_public_client_names_itself_in_the_body() -> None:
    server, auth = Server(), user(expires_at=NOW)
    await auth.prepare(server.send, NOW)
    [(method, url, headers, data)] = server.requests
    assert (method, url) == ("POST", "/2/oauth2/token")
    assert "Authorization" not in headers
    assert parse_qs(data.decode()) == {
        "grant_type": ["refresh_token"],
        "refresh_token": ["refresh-0"],
        "client_id": ["the-client-id"],
    }
    assert bearer(auth) == "Bearer access-1"


@pytest.mark.asyncio
async def test_a_confidential_client_shows_its_secret_in_the_header_only() -> None:
    server, auth = Server(), user(expires_at=NOW, client_secret="the-client-secret")
    await auth.prepare(server.send, NOW)
    [(_, _, headers, data)] = server.requests
    assert headers["Authorization"] == "Basic dGhlLWNsaWVudC1pZDp0aGUtY2xpZW50LXNlY3JldA=="
    assert set(parse_qs(data.decode())) == {"grant_type", "refresh_token"}


@pytest.mark.asyncio
async def test_a_refresh_token_is_encoded_for_the_form() -> None:
    server, auth = Server(), user(access_token=None, refresh_token="a+b/c=&d%")
    with pytest.raises(AuthError):
        await auth.prepare(server.send, NOW)
    assert parse_qs(server.requests[0][3].decode())["refresh_token"] == ["a+b/c=&d%"]


@pytest.mark.asyncio
async def test_a_token_is_renewed_some_seconds_before_its_end() -> None:
    server, auth = Server(), user(expires_at=NOW + 100)
    assert auth.ready(NOW)
    assert auth.ready(NOW + 100 - EARLY - 1)
    assert not auth.ready(NOW + 100 - EARLY)
    await auth.prepare(server.send, NOW + 90)
    assert auth.ready(NOW + 90 + 7200 - EARLY - 1)
    assert not auth.ready(NOW + 90 + 7200 - EARLY)
    assert len(server.requests) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("lives", [20, 40, 3600])
async def test_a_token_that_another_process_has_renewed_is_used_however_short_it_lives(
    lives: int,
) -> None:
    server, store = Server(), MemoryStore(Token(None, "refresh-0"))
    server.expires_in = lives
    users = [OAuth2User("client-id", store=store, identity="u") for _ in range(8)]
    for seconds in range(4 * lives):
        for each in users:
            if not each.ready(NOW + seconds):
                await each.prepare(server.send, NOW + seconds)
    assert len(server.requests) <= 1 + 4 * lives / (lives - min(EARLY, lives / 2))


@pytest.mark.asyncio
async def test_a_token_shorter_than_the_margin_is_used_for_half_its_life() -> None:
    server, auth = Server(), user(expires_at=NOW)
    server.expires_in = 4
    await auth.prepare(server.send, NOW)
    assert auth.ready(NOW + 1.9)
    assert not auth.ready(NOW + 2)


@pytest.mark.asyncio
async def test_a_refused_token_is_refreshed_though_it_has_not_ended() -> None:
    server, auth = Server(), user(expires_at=NOW + 7200)
    assert auth.rejected("Bearer access-0", 401, (), NOW)
    assert not auth.ready(NOW)
    await auth.prepare(server.send, NOW)
    assert bearer(auth) == "Bearer access-1"


def test_without_a_refresh_token_the_token_is_used_while_it_works() -> None:
    auth = user(refresh_token=None, expires_at=NOW)
    assert auth.ready(NOW + 1e6)
    assert not auth.rejected("Bearer access-0", 401, (89,), NOW)


@pytest.mark.asyncio
async def test_a_refresh_token_alone_is_enough_to_start() -> None:
    server, auth = Server(), user(access_token=None)
    assert not auth.ready(NOW)
    await auth.prepare(server.send, NOW)
    assert auth.ready(NOW)
    assert bearer(auth) == "Bearer access-1"


@pytest.mark.asyncio
async def test_each_refresh_spends_the_token_of_the_one_before() -> None:
    server, auth = Server(), user(expires_at=NOW)
    for n in range(1, 4):
        await auth.prepare(server.send, NOW + n * 7200)
        assert bearer(auth) == f"Bearer access-{n}"
    assert len(server.requests) == 3


@pytest.mark.asyncio
async def test_a_server_that_does_not_rotate_keeps_its_refresh_token() -> None:
    server, store = Server(), MemoryStore(Token(None, "refresh-0"))
    auth = user(access_token=None, refresh_token=None, store=store)
    server.answers.append(ok({"token_type": "Bearer", "access_token": "access-1"}))
    await auth.prepare(server.send, NOW)
    assert await store.load() == Token("access-1", "refresh-0", None)


@pytest.mark.asyncio
async def test_case_40_concurrent_refreshes_are_one_request() -> None:
    server, auth = Server(), user(expires_at=NOW)
    server.ticks = 3
    await asyncio.gather(*(auth.prepare(server.send, NOW) for _ in range(50)))
    assert len(server.requests) == 1


# The store


@pytest.mark.asyncio
async def test_a_rotated_token_is_saved_before_it_is_used() -> None:
    server, store = Server(), SlowStore(ticks=3)
    auth = user(expires_at=NOW, store=store)
    task = asyncio.create_task(auth.prepare(server.send, NOW))
    while store.token is None:
        assert not auth.ready(NOW)
        await asyncio.sleep(0)
    await task
    assert store.events == ["load", "save access-1"]
    assert store.token == Token("access-1", "refresh-1", NOW + 7200)
    assert auth.ready(NOW)


@pytest.mark.asyncio
async def test_what_the_store_holds_wins_over_the_first_token() -> None:
    server, store = Server(), SlowStore(Token("access-9", "refresh-9", NOW + 7200))
    auth = user(expires_at=NOW + 7200, store=store)
    assert not auth.ready(NOW), "the store is asked first"
    await auth.prepare(server.send, NOW)
    assert bearer(auth) == "Bearer access-9"
    assert server.requests == []


@pytest.mark.asyncio
async def test_the_first_token_is_used_while_the_store_is_empty() -> None:
    server, store = Server(), SlowStore()
    auth = user(store=store)
    await auth.prepare(server.send, NOW)
    assert bearer(auth) == "Bearer access-0"
    assert server.requests == []


@pytest.mark.asyncio
async def test_two_clients_of_one_store_refresh_once() -> None:
    server, store = Server(), SlowStore(Token("access-0", "refresh-0", NOW))
    one, two = (OAuth2User("the-client-id", store=store) for _ in range(2))
    await asyncio.gather(one.prepare(server.send, NOW), two.prepare(server.send, NOW))
    assert bearer(one) == bearer(two) == "Bearer access-1"
    assert len(server.requests) == 1


@pytest.mark.asyncio
async def test_a_refused_token_is_taken_from_the_store_if_another_renewed_it() -> None:
    server, store = Server(), SlowStore(Token("access-0", "refresh-0"))
    one, two = (OAuth2User("the-client-id", store=store) for _ in range(2))
    for auth in (one, two):
        await auth.prepare(server.send, NOW)
    for auth in (one, two):
        assert auth.rejected("Bearer access-0", 401, (), NOW)
        await auth.prepare(server.send, NOW)
        assert bearer(auth) == "Bearer access-1"
    assert len(server.requests) == 1


@pytest.mark.asyncio
async def test_a_token_that_could_not_be_saved_is_kept_and_saved_later() -> None:
    server, store = Server(), SlowStore()
    auth = user(expires_at=NOW, store=store)
    store.failing["save"] = ConnectionResetError("the disk is full")
    with pytest.raises(AuthError, match="store could not be written") as caught:
        await auth.prepare(server.send, NOW)
    assert isinstance(caught.value.__cause__, ConnectionResetError)
    assert not isinstance(caught.value, OSError)
    assert not auth.ready(NOW), "not used before it is saved"
    await auth.prepare(server.send, NOW)
    assert auth.ready(NOW)
    assert store.token == Token("access-1", "refresh-1", NOW + 7200)
    assert len(server.requests) == 1, "its forerunner is spent: asking again would fail"


@pytest.mark.asyncio
async def test_a_store_that_cannot_be_read_is_an_error_and_sends_nothing() -> None:
    server, store = Server(), SlowStore()
    auth = user(store=store)
    store.failing["load"] = OSError("gone")
    with pytest.raises(AuthError, match="store could not be read") as caught:
        await auth.prepare(server.send, NOW)
    assert caught.value.status == 0
    assert server.requests == []
    await auth.prepare(server.send, NOW)
    assert auth.ready(NOW)


@pytest.mark.asyncio
async def test_a_store_that_cannot_be_locked_is_an_error() -> None:
    class Unlockable(MemoryStore):
        def exclusive(self) -> AbstractAsyncContextManager[None]:
            raise TimeoutError

    with pytest.raises(AuthError, match="store could not be locked"):
        await user(store=Unlockable()).prepare(Server().send, NOW)


# Cancelling and closing


@pytest.mark.asyncio
async def test_a_cancelled_caller_does_not_cancel_the_others() -> None:
    server, _, callers = await asking(3)
    callers[0].cancel()
    callers[2].cancel()
    await asyncio.wait((callers[0], callers[2]))
    server.open.set()
    await callers[1]
    assert callers[0].cancelled()
    assert callers[2].cancelled()
    assert len(server.requests) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("ticks", range(20))
async def test_wherever_the_only_caller_is_cancelled_the_next_one_gets_a_token(ticks: int) -> None:
    server, store = Server(), SlowStore(Token("access-0", "refresh-0", NOW))
    server.ticks = 2
    auth = OAuth2User("the-client-id", store=store)
    before = asyncio.all_tasks()
    caller = asyncio.create_task(auth.prepare(server.send, NOW))
    for _ in range(ticks):
        await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait((caller,))
    await auth.prepare(server.send, NOW)
    assert bearer(auth) == "Bearer access-1"
    assert store.token == Token("access-1", "refresh-1", NOW + 7200)
    assert asyncio.all_tasks() == before


@pytest.mark.asyncio
async def test_an_error_that_nobody_waits_for_makes_no_noise() -> None:
    complaints: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    server = Server()
    server.open.clear()
    server.answers.append(says(503, b""))
    auth = ClientCredentials(CONSUMER_KEY, APP_SECRET)
    caller = asyncio.create_task(auth.prepare(server.send, NOW))
    await settle(lambda: server.requests)
    caller.cancel()
    await asyncio.wait((caller,))
    server.open.set()
    await settle(lambda: len(asyncio.all_tasks()) == 1)
    del caller  # its frames hold the request
    gc.collect()
    await auth.prepare(server.send, NOW + 2)
    assert auth.ready(NOW + 2)
    assert complaints == []


@pytest.mark.asyncio
async def test_all_callers_get_the_error_and_a_later_one_a_new_try() -> None:
    server = Server()
    server.ticks = 2
    server.answers.append(says(503, b"<html>over capacity", **{"Retry-After": "7"}))
    auth = ClientCredentials(CONSUMER_KEY, APP_SECRET)
    results = await asyncio.gather(
        *(auth.prepare(server.send, NOW) for _ in range(3)), return_exceptions=True
    )
    assert [getattr(result, "status", None) for result in results] == [503] * 3
    assert isinstance(results[0], AuthError)
    assert results[0].headers is not None
    assert results[0].headers["retry-after"] == "7"
    await auth.prepare(server.send, NOW + 2)
    assert auth.ready(NOW + 2)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "problem",
    [
        aiohttp.ServerTimeoutError("slow"),
        aiohttp.ServerDisconnectedError(),
        OSError(),
        TimeoutError(),
    ],
)
async def test_an_endpoint_that_was_not_reached_is_an_auth_error_that_may_pass(
    problem: Exception,
) -> None:
    server = Server()
    server.answers.append(problem)
    auth = ClientCredentials(CONSUMER_KEY, APP_SECRET)
    with pytest.raises(AuthError, match=f"not reached .{type(problem).__name__}") as caught:
        await auth.prepare(server.send, NOW)
    assert caught.value.__cause__ is problem
    assert (caught.value.status, caught.value.retry_after) == (0, 1)
    await auth.prepare(server.send, NOW + 2)
    assert auth.ready(NOW + 2)


@in_virtual_time
async def test_an_endpoint_that_fails_is_asked_at_growing_intervals() -> None:
    server, asked = Server(), []
    auth = ClientCredentials(CONSUMER_KEY, APP_SECRET)
    for second in range(300):
        server.answers = [says(500, b"")]
        with pytest.raises(AuthError) as caught:
            await auth.prepare(server.send, NOW + second)
        assert caught.value.status == 500
        if len(server.requests) > len(asked):
            asked.append(second)
        assert caught.value.retry_after == asked[-1] + min(60, 2 ** (len(asked) - 1)) - second
    assert asked == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]
    server.answers = []
    await auth.prepare(server.send, NOW + 303)
    assert auth.ready(NOW + 303)


@in_virtual_time
async def test_a_success_ends_the_intervals() -> None:
    server = Server()
    auth = user(expires_at=NOW)
    for second in (0, 1):
        server.answers = [says(500, b"")]
        with pytest.raises(AuthError):
            await auth.prepare(server.send, NOW + second)
    await auth.prepare(server.send, NOW + 3)
    server.answers = [says(500, b"")]
    with pytest.raises(AuthError) as caught:
        await auth.prepare(server.send, NOW + 7200)
    assert caught.value.retry_after == 1


@in_virtual_time
async def test_a_pause_begins_with_the_failure_however_long_the_asking_took() -> None:
    server = Server()
    server.answers = [says(500, b"")]
    server.open.clear()
    asyncio.get_running_loop().call_later(30, server.open.set)
    auth = ClientCredentials(CONSUMER_KEY, APP_SECRET)
    for second in (0, 30.5):
        with pytest.raises(AuthError):
            await auth.prepare(server.send, NOW + second)
    assert len(server.requests) == 1
    await auth.prepare(server.send, NOW + 31)
    assert auth.ready(NOW + 31)


@in_virtual_time
async def test_a_refusal_is_remembered_and_does_not_say_try_again() -> None:
    server = Server()
    server.answers = [says(403, {"errors": [{"code": 99}]})]
    auth = ClientCredentials(CONSUMER_KEY, APP_SECRET)
    for _ in range(3):
        with pytest.raises(AuthError, match="code 99") as caught:
            await auth.prepare(server.send, NOW)
        assert caught.value.retry_after is None
    assert len(server.requests) == 1
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.status, error.codes, error.retry_after) == (403, (99,), None)


@in_virtual_time
async def test_a_clock_that_is_set_back_makes_nobody_wait_longer() -> None:
    server = Server()
    server.answers = [says(500, b"")]
    auth = ClientCredentials(CONSUMER_KEY, APP_SECRET)
    with pytest.raises(AuthError):
        await auth.prepare(server.send, NOW)
    await auth.prepare(server.send, NOW - 3600)
    assert auth.ready(NOW - 3600)


@in_virtual_time
async def test_a_lifetime_of_nearly_nothing_costs_one_request_a_second() -> None:
    server = Server()
    server.expires_in = 1e-9
    auth = user(expires_at=NOW)
    for tenth in range(100):
        await auth.prepare(server.send, NOW + tenth / 10)
    assert len(server.requests) == 10


@pytest.mark.asyncio
async def test_closing_waits_until_the_renewed_token_is_saved() -> None:
    server, store = Server(), SlowStore()
    server.ticks = 3
    auth = user(expires_at=NOW, store=store)
    caller = asyncio.create_task(auth.prepare(server.send, NOW))
    await settle(lambda: server.requests)
    caller.cancel()
    await auth.close()
    assert store.token == Token("access-1", "refresh-1", NOW + 7200)
    await auth.close()


@pytest.mark.asyncio
async def test_cancelling_the_close_cancels_the_request_and_leaves_no_task() -> None:
    server = Server()
    server.open.clear()
    auth = ClientCredentials(CONSUMER_KEY, APP_SECRET)
    before = asyncio.all_tasks()
    caller = asyncio.create_task(auth.prepare(server.send, NOW))
    await settle(lambda: server.requests)
    closing = asyncio.create_task(auth.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    with pytest.raises(SessionClosedError):
        await caller
    assert asyncio.all_tasks() == before
    server.open.set()
    await auth.prepare(server.send, NOW)
    assert auth.ready(NOW)


def test_a_credential_outlives_the_loop_that_died_during_a_request() -> None:
    auth = ClientCredentials(CONSUMER_KEY, APP_SECRET)

    async def left_behind() -> None:
        server = Server()
        server.open.clear()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(auth.prepare(server.send, NOW), 0.01)

    async def works() -> str:
        await auth.prepare(Server().send, NOW)
        return bearer(auth)

    asyncio.run(left_behind())
    assert asyncio.run(works()) == f"Bearer {APP_TOKEN}"


def test_a_credential_outlives_the_loop_that_was_closed_under_a_request() -> None:
    auth = ClientCredentials(CONSUMER_KEY, APP_SECRET)

    async def left_behind() -> None:
        server = Server()
        server.open.clear()
        caller = asyncio.create_task(auth.prepare(server.send, NOW))
        await settle(lambda: server.requests)
        caller.cancel()
        await asyncio.wait((caller,))

    loop = asyncio.new_event_loop()
    loop.run_until_complete(left_behind())
    loop.close()
    asyncio.run(auth.close())
    asyncio.run(auth.prepare(Server().send, NOW))
    assert auth.ready(NOW)


@pytest.mark.asyncio
async def test_ten_thousand_callers_leave_and_the_last_one_is_served() -> None:
    server, _, callers = await asking(10_000)
    await asyncio.sleep(0)
    for caller in callers[1:]:
        caller.cancel()
    await asyncio.wait(callers[1:])
    server.open.set()
    await callers[0]
    assert len(server.requests) == 1


# Answers that are no token


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (ok(b""), "is no JSON object"),
        (ok(b"<html>access_token</html>"), "is no JSON object"),
        (ok(b"[]"), "is no JSON object"),
        (ok(b"[" * 60_000), "is no JSON object"),
        (ok(b"\xff\xfe\x00"), "is no JSON object"),
        (ok(b"access_token=a&token_type=bearer"), "is no JSON object"),
        (ok(b" " * (ANSWER_LIMIT + 1)), "is longer than 65536 bytes"),
        (ok({"access_token": "a"}), "names no bearer token"),
        (ok({"access_token": "a", "token_type": None}), "names no bearer token"),
        (ok({"access_token": "a", "token_type": "mac"}), "names no bearer token"),
        (ok({"token_type": "bearer"}), "no usable access_token"),
        (ok({"token_type": "bearer", "access_token": ""}), "no usable access_token"),
        (ok({"token_type": "bearer", "access_token": 5}), "no usable access_token"),
        (ok({"token_type": "bearer", "access_token": "a\r\nX: y"}), "no usable access_token"),
        (ok({"token_type": "bearer", "access_token": "a b"}), "no usable access_token"),
        (ok({"token_type": "bearer", "access_token": "é"}), "no usable access_token"),
        (ok({"token_type": "bearer", "access_token": "a" * 8001}), "no usable access_token"),
        (
            ok({"token_type": "bearer", "access_token": "a", "refresh_token": ["b"]}),
            "no usable refresh_token",
        ),
        (says(302, b""), "the token endpoint failed"),
        (says(404, b""), "the token endpoint failed"),
        (says(429, b""), "the token endpoint failed"),
        (says(503, b"<html>"), "the token endpoint failed"),
        (
            says(403, {"errors": [{"code": 99, "message": "secret"}]}),
            "not accepted, or a token was asked for too often (code 99)",
        ),
        (says(403, {"errors": "secret"}), "too often"),
        (says(403, {"errors": [1, {"code": "secret"}, {"code": True}]}), "too often"),
        (says(401, {"error": "invalid_client"}), "too often (invalid_client)"),
        (says(400, {"error": "secret"}), "too often"),
    ],
)
async def test_an_answer_without_a_token_is_an_auth_error(answer: TokenAnswer, text: str) -> None:
    server = Server()
    server.answers.append(answer)
    auth = ClientCredentials(CONSUMER_KEY, APP_SECRET)
    with pytest.raises(AuthError) as caught:
        await auth.prepare(server.send, NOW)
    error = caught.value
    assert error.status == answer.status
    assert error.message.endswith(text)
    assert error.body == ""
    assert "secret" not in str(error).replace("key and secret", "")
    assert str(error.request_info.url) == "https://api.example/2/oauth2/token"
    # What is no word of the endpoint's own, or says that it is busy, may pass.
    may_pass = answer.status in (429, 503) or "is no JSON object" in text or "longer" in text
    assert error.retry_after == (1.0 if may_pass else None)
    assert not auth.ready(NOW)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("expires_in", "end"),
    [
        (7200, 7200.0),
        ("7200", 7200.0),
        (0.5, 0.5),
        (None, None),
        (0, None),
        (-5, None),
        (True, None),
        ("soon", None),
        ([7200], None),
        (float("nan"), None),
        (float("inf"), None),
        (10**400, None),
    ],
)
async def test_an_odd_lifetime_is_no_known_end(expires_in: object, end: float | None) -> None:
    server, store = Server(), MemoryStore()
    server.expires_in = expires_in
    await user(expires_at=NOW, store=store).prepare(server.send, NOW)
    token = await store.load()
    assert token is not None
    assert token.expires_at == (None if end is None else NOW + end)


@pytest.mark.asyncio
async def test_a_dead_refresh_token_says_log_in_again_and_is_asked_about_once() -> None:
    server, store = Server(), SlowStore(Token(None, "refresh-0"))
    server.issued = 5
    auth = OAuth2User("the-client-id", store=store)
    with pytest.raises(AuthError, match=r"log in again.*\(invalid_grant\)") as caught:
        await auth.prepare(server.send, NOW)
    assert caught.value.status == 400
    with pytest.raises(AuthError, match="log in again"):
        await auth.prepare(server.send, NOW)
    assert len(server.requests) == 1
    store.token = Token(None, "refresh-5")  # logged in again
    await auth.prepare(server.send, NOW)
    assert bearer(auth) == "Bearer access-6"


@pytest.mark.asyncio
async def test_an_ended_token_without_a_refresh_token_says_log_in_again() -> None:
    store = MemoryStore(Token("access-0", None, NOW))
    with pytest.raises(AuthError, match="no refresh token: log in again"):
        await OAuth2User("the-client-id", store=store).prepare(Server().send, NOW)


@pytest.mark.asyncio
async def test_a_refused_client_is_told_from_a_refused_token() -> None:
    server = Server()
    server.answers.append(says(401, {"error": "unauthorized_client"}))
    auth = user(expires_at=NOW)
    with pytest.raises(AuthError, match=r"check client_id.*\(unauthorized_client\)"):
        await auth.prepare(server.send, NOW)
    await auth.prepare(server.send, NOW + 2)
    assert auth.ready(NOW + 2)


# Secrets


def everyone() -> list[object]:
    token = Token("access-0", "refresh-0", NOW)
    return [
        oauth1(),
        Bearer(APP_TOKEN),
        ClientCredentials(CONSUMER_KEY, APP_SECRET),
        user(client_secret="the-client-secret", expires_at=NOW, identity="@somebody"),
        token,
        MemoryStore(token),
        MemoryStore(),
    ]


def leaks(text: str) -> list[str]:
    return [secret for secret in SECRETS if secret in text]


@pytest.mark.parametrize("holder", everyone(), ids=lambda holder: type(holder).__name__)
def test_no_secret_shows_in_a_repr_and_nothing_is_copied_or_pickled(holder: object) -> None:
    texts = [repr(holder), str(holder), f"{holder}", f"{holder!r:>5}", repr([holder])]
    assert not leaks("".join(texts))
    assert CONSUMER_KEY not in repr(holder)
    assert "somebody" not in repr(holder)
    with pytest.raises(TypeError, match="__dict__"):
        vars(holder)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="holds secrets"):
            pickle.dumps(holder, protocol)
    for duplicate in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="holds secrets"):
            duplicate(holder)


def test_reprs_tell_credentials_apart() -> None:
    assert re.fullmatch(r"<OAuth1 [0-9a-f]{8}>", repr(oauth1()))
    assert repr(oauth1()) == repr(oauth1())
    assert repr(Bearer("a")) != repr(Bearer("b"))
    assert repr(user(identity="\ud800")).startswith("<OAuth2User ")
    assert repr(OAuth1.__new__(OAuth1)) == "<OAuth1 in the making>"
    assert repr(Token("a", "b", NOW)) == "<Token expires_at=1700000000 refreshable>"
    assert repr(MemoryStore()) == "<MemoryStore empty>"
    assert repr(says(200, {"access_token": "a"})) == "<TokenAnswer 200, 21 bytes>"


def test_even_the_signer_inside_shows_nothing() -> None:
    signer = oauth1()._signer
    assert repr(signer) == "<_Signer>"
    with pytest.raises(TypeError, match="holds secrets"):
        pickle.dumps(signer)


@pytest.mark.parametrize(
    "bad", ["", "abc\n", " abc", "a\tb", "a b", "é", "\x00", "\x7f", "x" * 8001]
)
def test_a_credential_that_cannot_be_sent_is_refused_without_being_shown(bad: str) -> None:
    makers: list[Callable[[], object]] = [
        lambda: OAuth1(bad, "s", "t", "s"),
        lambda: OAuth1("k", bad, "t", "s"),
        lambda: OAuth1("k", "s", bad, "s"),
        lambda: OAuth1("k", "s", "t", bad),
        lambda: Bearer(bad),
        lambda: ClientCredentials(bad, "s"),
        lambda: ClientCredentials("k", bad),
        lambda: OAuth2User(bad, access_token="a"),
        lambda: OAuth2User("i", client_secret=bad, access_token="a"),
        lambda: OAuth2User("i", access_token=bad),
        lambda: OAuth2User("i", refresh_token=bad),
    ]
    for make in makers:
        with pytest.raises(ValueError, match=r"empty|longer|visible ASCII") as caught:
            make()
        assert len(str(caught.value)) < 200
        assert "abc" not in str(caught.value)


@pytest.mark.parametrize("token", ["Bearer abc", "bearer abc\n", "Bearer "])
def test_a_token_with_its_scheme_before_it_is_told_to_come_alone(token: str) -> None:
    for make in (Bearer, Token, lambda token: OAuth2User("i", access_token=token)):
        with pytest.raises(
            ValueError, match=r"^pass the (access_)?token alone, without 'Bearer '$"
        ):
            make(token)


def test_a_missing_credential_is_named() -> None:
    with pytest.raises(TypeError, match="token must be a str, not NoneType"):
        Bearer(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="consumer_secret must be a str, not bytes"):
        ClientCredentials("k", b"s")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="give an access_token, a refresh_token or a store"):
        OAuth2User("i")
    with pytest.raises(ValueError, match="expires_at"):
        user(expires_at=float("nan"))


@pytest.mark.asyncio
async def test_nothing_is_logged_while_signing_and_renewing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("oauthlib", "oauthlib.oauth1.rfc5849", "oauthlib.oauth1.rfc5849.signature"):
        caplog.set_level(logging.DEBUG, logger=name)
    server = Server()
    oauth1().authorize(
        "POST", "https://x.test/?q=private", now=NOW, content_type=FORM, body=b"status=private"
    )
    app, person = ClientCredentials(CONSUMER_KEY, APP_SECRET), user(expires_at=NOW)
    await app.prepare(server.send, NOW)
    await person.prepare(server.send, NOW)
    server.answers.append(ok(b"odd"))
    assert app.rejected(bearer(app), 401, (89,), NOW)
    with pytest.raises(AuthError):
        await app.prepare(server.send, NOW)
    assert [record for record in caplog.records if record.name != "asyncio"] == []


def echo(status: int) -> TokenAnswer:
    """A hostile answer: all secrets in its body and its headers."""
    text = " ".join(SECRETS)
    body = {"error": text, "errors": [{"code": 99, "message": text}], "token_type": text}
    headers = {"X-Echo": text, "Set-Cookie": text, "WWW-Authenticate": text, "Date": "today"}
    return says(status, {**body, "access_token": text, "refresh_token": text}, **headers)


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [200, 400, 401, 403, 500])
@pytest.mark.parametrize("kind", ["app", "user"])
async def test_no_secret_is_in_an_error_its_pickle_or_its_traceback(status: int, kind: str) -> None:
    server = Server()
    server.answers.append(echo(status))
    auth: Auth = ClientCredentials(CONSUMER_KEY, APP_SECRET)
    if kind == "user":
        auth = user(client_secret="the-client-secret", expires_at=NOW)
    with pytest.raises(AuthError) as caught:
        await auth.prepare(server.send, NOW)
    error = caught.value
    full = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "authorize" not in full
    assert "_renew" in full, "the frames of interest are there"
    assert not leaks(full)
    assert not leaks(repr(error) + str(error) + repr(vars(error)) + repr(error.args))
    assert not leaks(pickle.dumps(error).decode("latin-1"))
    assert error.__cause__ is None
    assert error.__context__ is None


def test_the_signature_depends_on_both_secrets() -> None:
    # Guards the guards: a signer that left a secret out would pass many tests above.
    header = parameters(oauth1().authorize("GET", "https://x.test/", now=NOW))
    names = sorted(name for name in header if name != "oauth_signature")
    params = "&".join(f"{name}={header[name]}" for name in names)
    base = f"GET&https%3A%2F%2Fx.test%2F&{params.replace('=', '%3D').replace('&', '%26')}"
    key = f"{CONSUMER_SECRET}&{TOKEN_SECRET}"
    digest = hmac.digest(key.encode(), base.encode(), "sha1")
    assert header["oauth_signature"] == base64.b64encode(digest).decode()
