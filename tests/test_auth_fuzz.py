"""What is signed here, oauthlib accepts as a server, over real HTTP; and no answer breaks us."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, urlencode

import aiohttp
import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oauthlib.oauth1 import Client, RequestValidator, ResourceEndpoint
from yarl import URL

from aiotwhelp.auth import OAuth1, OAuth2User, TokenAnswer
from aiotwhelp.errors import AuthError

FORM = "application/x-www-form-urlencoded"
KEY, SECRET = "a-consumer-key-of-the-tests", "consumer&secret%2F"
TOKEN, TOKEN_SECRET = "12-an-access-token-of-tests", "token=secret+"

slow = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


class Validator(RequestValidator):
    """A server that knows one app and one user, and takes each nonce once."""

    enforce_ssl = False
    client_key_length = access_token_length = nonce_length = (1, 100)
    dummy_client = dummy_access_token = "dummy"

    def __init__(self) -> None:
        super().__init__()
        self.nonces: set[str] = set()

    @property
    def safe_characters(self) -> set[str]:
        return super().safe_characters | {"-"}

    def validate_timestamp_and_nonce(
        self, client_key: str, timestamp: str, nonce: str, *_: Any, **__: Any
    ) -> bool:
        fresh = nonce not in self.nonces
        self.nonces.add(nonce)
        return fresh and abs(int(timestamp) - time.time()) < 600

    def validate_client_key(self, client_key: str, request: Any) -> bool:
        return client_key == KEY

    def validate_access_token(self, client_key: str, token: str, request: Any) -> bool:
        return token == TOKEN

    def validate_realms(self, *_: Any, **__: Any) -> bool:
        return True

    def get_client_secret(self, client_key: str, request: Any) -> str:
        return SECRET

    def get_access_token_secret(self, client_key: str, token: str, request: Any) -> str:
        return TOKEN_SECRET


class Verifier:
    """A web server that answers whether the request line, as it came, was signed well."""

    def __init__(self) -> None:
        self.endpoint = ResourceEndpoint(Validator())
        self.authorizations: list[str] = []

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        self.authorizations.append(request.headers["Authorization"])
        body = await request.read()
        is_form = request.content_type == FORM and request.method not in {"GET", "HEAD"}
        headers = {"Authorization": request.headers["Authorization"]}
        if is_form and body:
            headers["Content-Type"] = FORM
        valid, _ = self.endpoint.validate_protected_resource_request(
            f"http://{request.headers['Host']}{request.raw_path}",
            request.method,
            body.decode() if is_form and body else None,
            headers,
        )
        return web.Response(status=200 if valid else 401)


@asynccontextmanager
async def verified(auth: OAuth1) -> AsyncIterator[tuple[Verifier, aiohttp.ClientSession, URL]]:
    """A session that signs each request last of all, and a server that checks it."""

    async def sign(
        request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        content_type = request.headers.get("Content-Type")
        body = b""
        if auth.needs_body(request.method, content_type) and request.body:
            body = await request.body.as_bytes()
        request.headers["Authorization"] = auth.authorize(
            request.method,
            request.url,
            now=time.time(),
            content_type=content_type,
            body=body,
            host=request.headers["Host"],
        )
        return await send(request)

    verifier = Verifier()
    runner = web.ServerRunner(web.Server(verifier))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        async with aiohttp.ClientSession(middlewares=[sign]) as session:
            yield verifier, session, URL(f"http://{host}:{port}")
    finally:
        await runner.cleanup()


def oauth1() -> OAuth1:
    return OAuth1(KEY, SECRET, TOKEN, TOKEN_SECRET)


nasty = st.lists(
    st.sampled_from([*"aZ09-._~ +%&=/?#:;,@!$'()*[]{}|\\^`\"<>\t", "%2F", "ü", "☃", "😀"]),
    max_size=8,
).map("".join)
# A parameter whose name starts with "oauth_" would be one of the protocol's own.
names = nasty.filter(lambda name: not name.startswith("oauth_"))
pairs = st.lists(st.tuples(names, nasty), max_size=5)
requests = st.fixed_dictionaries(
    {
        "method": st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH"]),
        "path": st.lists(nasty, max_size=4).map(lambda parts: "/" + "/".join(parts)),
        "params": pairs,
        "body": st.one_of(
            st.none(),
            st.tuples(st.just("form"), pairs),
            st.tuples(st.just("json"), st.one_of(st.integers(), nasty, st.lists(nasty))),
            st.tuples(st.just("bytes"), st.binary(max_size=20)),
        ),
    }
)


def arguments(body: tuple[str, Any] | None) -> dict[str, Any]:
    if body is None:
        return {}
    kind, value = body
    if kind == "form":
        return {"data": urlencode(value).encode(), "headers": {"Content-Type": FORM}}
    return {"json" if kind == "json" else "data": value}


def test_whatever_is_sent_the_server_accepts_the_signature() -> None:
    with asyncio.Runner() as runner:
        server = verified(oauth1())
        verifier, session, base = runner.run(server.__aenter__())

        async def exchange(request: dict[str, Any]) -> int:
            url = base.with_path(request["path"].replace("//", "/-/"))
            async with session.request(
                request["method"], url, params=request["params"], **arguments(request["body"])
            ) as response:
                return response.status

        @slow
        @given(requests)
        def every_request(request: dict[str, Any]) -> None:
            assert runner.run(exchange(request)) == 200

        try:
            every_request()
        finally:
            runner.run(server.__aexit__(None, None, None))
        assert len(set(verifier.authorizations)) == len(verifier.authorizations)


@pytest.mark.asyncio
async def test_urls_that_came_encoded_are_accepted() -> None:
    async with verified(oauth1()) as (_, session, base):
        for tail in (
            "/1.1/a%2Fb.json?q=%2F%2f",
            "/a%2fb/%c3%bc?q=a%20b+c",
            "/x;y=1/z?a=1&a=&a=0&b",
            "/x?&&a=b&",
            "/x?q=%E2%98%83&r=%25%32%35",
            "/x?q=[1]&r=a|b&s={}",
            "/?",
        ):
            url = URL(f"{base}{tail}", encoded=True)
            # oauthlib's server side, unlike X's, insists on a canonical query.
            strict = not set("[]|{}") & set(tail)
            async with session.get(url) as response:
                assert response.status == 200 or not strict, tail


@pytest.mark.asyncio
async def test_a_repeated_name_in_a_form_is_signed_in_full() -> None:
    async with verified(oauth1()) as (_, session, base):
        form = aiohttp.FormData([("a", "2"), ("a", "1"), ("b", "x y+z&ü"), ("c", "")])
        async with session.post(base / "x", data=form) as response:
            assert response.status == 200


@pytest.mark.asyncio
async def test_the_server_of_these_tests_refuses_what_was_not_signed() -> None:
    foreign = OAuth1(KEY, "another-secret", TOKEN, TOKEN_SECRET)
    async with verified(foreign) as (_, session, base), session.get(base) as response:
        assert response.status == 401
    auth = oauth1()
    async with verified(auth) as (_, _, base), aiohttp.ClientSession() as plain:

        async def status(path: str, signed: str) -> int:
            async with plain.get(base / path, headers={"Authorization": signed}) as response:
                return response.status

        right, late, other = (
            auth.authorize("GET", base / "x", now=time.time() - age) for age in (0, 700, 0)
        )
        assert await status("x", right) == 200
        assert await status("x", right) == 401, "replayed"
        assert await status("x", late) == 401, "the timestamp is too old"
        assert await status("y", other) == 401, "signed for another path"


#: Among them the protocol's own, and those that stand just before and after them.
named = st.tuples(
    st.sampled_from(["a", "oauth", "oauth-", "oauth_", "oauth_nonce", "oauth`", "oauti", "ü", "~"])
    | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
)
segments = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=3)


@slow
@given(
    st.lists(named, max_size=6),
    st.lists(named, max_size=3),
    st.sampled_from(["POST", "PUT", "DELETE", "patch", "M-SEARCH"]),
    segments,
    st.sampled_from([None, "api.x.com", "API.example:8443", "127.0.0.1", "[::1]:80"]),
)
def test_the_signer_agrees_with_oauthlibs_own(
    query: list[tuple[str, str]],
    form: list[tuple[str, str]],
    method: Any,
    path: list[str],
    host: str | None,
) -> None:
    url = URL("https://api.x.com/1.1").joinpath(*(each.strip("/") for each in path))
    url, body = url.with_query(query), urlencode(form)
    header = signed(method, url, body.encode(), host)
    assert header == signed_by_oauthlib(header, method, str(url), body, host)


#: Queries and forms as no library would write them, and the ends of what is encoded.
sloppy = st.lists(
    st.sampled_from([*"aZ09-._~!$'()*+,/:;=&@?|[] ü☃"])
    | st.sampled_from(["%2f", "%20", "%25", "%00", "%C3%BC", "%FF", "%E2%98", "%zz", "%", "&&"])
    | st.sampled_from(["oauth_nonce=", "oauth_a", "oauth%5Fb=", "oauth=", "oauth~"]),
    max_size=12,
).map("".join)
paths = sloppy.map(lambda path: path.replace("?", "/"))


@slow
@given(sloppy, sloppy, paths, st.sampled_from([None, "api.x.com", "127.0.0.1:80"]))
def test_the_sloppiest_request_is_signed_as_its_canonical_form(
    query: str, form: str, path: str, host: str | None
) -> None:
    base = f"https://api.x.com/{path}"
    header = signed("POST", URL(f"{base}?{query}", encoded=True), form.encode(), host)
    canonical = f"{base}?{URL(f'?{query}').raw_query_string}"
    body = urlencode(parse_qsl(form, keep_blank_values=True))
    assert header == signed_by_oauthlib(header, "POST", canonical, body, host)


def signed(method: str, url: URL, body: bytes, host: str | None) -> str:
    return oauth1().authorize(
        method,
        url,
        now=time.time(),
        content_type=f"{FORM};charset=utf-8",
        body=body,
        host=host,
    )


def signed_by_oauthlib(header: str, method: Any, url: str, body: str, host: str | None) -> str:
    """What oauthlib's own client makes with the same nonce, at the same time."""
    said = dict(part.split("=", 1) for part in header.removeprefix("OAuth ").split(", "))
    stock = Client(
        KEY,
        SECRET,
        TOKEN,
        TOKEN_SECRET,
        nonce=said["oauth_nonce"].strip('"'),
        timestamp=said["oauth_timestamp"].strip('"'),
    )
    headers = {"Content-Type": FORM} if body else {}
    headers |= {"Host": host} if host else {}
    return str(stock.sign(url, method, body or None, headers)[1]["Authorization"])


texts = st.text(max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
fields = st.fixed_dictionaries(
    {},
    optional={
        "token_type": st.sampled_from(["bearer", "Bearer", "mac"]) | values,
        "access_token": st.sampled_from(["fine", "a\r\nb", "é", ""]) | values,
        "refresh_token": st.sampled_from(["fine", "a\r\nb"]) | values,
        "expires_in": values,
        "error": st.sampled_from(["invalid_grant", "invalid_request"]) | values,
        "errors": st.lists(st.fixed_dictionaries({}, optional={"code": values})) | values,
    },
)
bodies = st.one_of(
    fields.map(lambda value: json.dumps(value).encode()),
    values.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=200),
    st.just(b"<!doctype html><title>Over capacity</title>"),
    st.sampled_from([b"[", b'{"a":', b"9"]).map(lambda part: part * 20_000),
)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from([200, 200, 200, 201, 302, 400, 401, 403, 429, 500, 503]), bodies)
def test_any_answer_is_a_token_that_can_be_sent_or_an_auth_error(status: int, body: bytes) -> None:
    async def send(method: str, url: str, **_: Any) -> TokenAnswer:
        return TokenAnswer(status, {}, body, "https://api.example/2/oauth2/token")

    auth = OAuth2User("client-id", refresh_token="first")
    try:
        asyncio.run(auth.prepare(send, 1e9))
    except AuthError as refused:
        error = refused
    else:
        assert 200 <= status < 300
        assert auth.ready(1e9)
        header = auth.authorize("GET", "https://api.example/", now=1e9)
        assert header.startswith("Bearer ")
        assert header.isascii()
        assert header.isprintable()
        return
    assert error.status == status
    assert not auth.ready(1e9)
