"""No secret is in any log line, repr, event, exception, traceback or pickle."""

from __future__ import annotations

import asyncio
import base64
import copy
import pickle
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aiotwhelp import (
    ApiError,
    Auth,
    Bearer,
    BodyNotReplayableError,
    ClientCredentials,
    Limiter,
    OAuth1,
    OAuth2User,
    RateLimitMiddleware,
    Session,
    Token,
    X,
)
from aiotwhelp.emulator import Emulator
from aiotwhelp.events import Retrying
from tests.hostile import (
    QUOTED,
    Answer,
    all_logs,
    answers,
    by_path,
    causes,
    drips,
    echoes,
    echoes_as_text,
    falls_silent,
    frame_locals,
    hostile,
    quotes,
    resets,
    says,
    shown,
    token,
)
from tests.stack import (
    PRIVACY,
    TOS,
    drop,
    in_virtual_time,
    oauth1_of,
    plain_api,
    scripted,
    serving,
    session_of,
)


def secrets_of(api: Emulator, *more: str) -> set[str]:
    user, app = api.user, api.app
    return {
        user.consumer_secret,
        user.access_token,
        user.access_token_secret,
        app.consumer_secret,
        api.token,
        *more,
    }


async def gather_errors(*calls: Any) -> list[str]:
    results = await asyncio.gather(*calls, return_exceptions=True)
    errors = [each for each in results if isinstance(each, BaseException)]
    return [text for each in errors for text in [*shown(each), frame_locals(each)]]


async def rich_scene(api: Emulator, session: Session, texts: list[str]) -> None:
    """Successes, failures of each kind, retries, waits, refusals, renewals."""

    async def look() -> None:
        response = await session.get(PRIVACY)
        texts.extend([repr(response), repr(response.request_info), repr(response.headers)])
        await response.read()

    await look()
    api.fail_next(2, status=503)
    api.fail_next(1, drop="after")
    texts += await gather_errors(*(session.fetch(PRIVACY, retries=1) for _ in range(8)))
    api.reply("GET", "/no", status=404, json={"errors": [{"code": 34}]})
    api.reply("GET", "/denied", status=401, json={"errors": [{"code": 32}]})
    api.reply("GET", "/many", status=429, json={"errors": [{"code": 88}]})
    api.reply("GET", "/odd", body="<html>")
    texts += await gather_errors(
        session.fetch("/no"),
        session.get("/no", raise_for_status=True),
        session.fetch("/denied"),
        session.fetch("/many", retries=0),
        session.fetch("/odd"),
        session.fetch(PRIVACY, max_wait=0),
        session.get("/%zz\n"),
    )
    own = {"Authorization": "Basic hunter2"}
    with pytest.raises(ValueError, match="has a credential") as refused:
        await session.get(PRIVACY, headers=own)
    texts += shown(refused.value)
    async with session.get("/no") as response:
        with pytest.raises(aiohttp.ClientResponseError) as caught:
            response.raise_for_status()
        texts.extend(shown(caught.value))
    things: list[Any] = [session, session.limiter, session._settings, session._settings.caller]
    things += [session.limiter.quotas(), session.limiter.stats(), session._settings.pool]
    texts.extend(repr(each) for each in things)


@pytest.mark.parametrize("kind", ["oauth1", "bearer", "client credentials", "oauth2"])
def test_no_secret_is_ever_shown(kind: str) -> None:
    @in_virtual_time
    async def scene() -> None:
        texts: list[str] = []
        async with Emulator(window=5, limits={"help/privacy": 4}) as api:
            grant = api.grant(expires_in=1)
            auth: Auth = {
                "oauth1": lambda: oauth1_of(api.user),
                "bearer": lambda: Bearer(api.token),
                "client credentials": lambda: ClientCredentials(
                    api.app.consumer_key, api.app.consumer_secret
                ),
                "oauth2": lambda: OAuth2User(
                    api.app.client_id,
                    client_secret=api.app.client_secret,
                    access_token=grant.access_token,
                    refresh_token=grant.refresh_token,
                    expires_at=0.0,
                ),
            }[kind]()
            secrets = secrets_of(
                api,
                grant.access_token,
                grant.refresh_token,
                api.app.client_secret,
                "hunter2",
            )
            with all_logs() as lines:
                told: list[Any] = []
                async with session_of(api, auth=auth, on_event=told.append) as session:
                    await rich_scene(api, session, texts)
                texts += [repr(auth), *map(repr, told), *lines]
            sent = {
                request.headers["Authorization"].partition(" ")[2]
                for request in api.requests
                if "Authorization" in request.headers
            }
        assert told
        assert len(texts) > 50
        for text in texts:
            for secret in secrets | sent:
                assert secret not in text, text

    scene()


@in_virtual_time
async def test_a_users_own_session_shows_no_secret_either() -> None:
    texts: list[str] = []
    async with Emulator() as api:
        middleware = RateLimitMiddleware(Limiter(), apis={X.at(api.url): oauth1_of(api.user)})
        texts.append(repr(middleware))
        api.reply("GET", "/no", status=404)
        with all_logs() as lines:
            async with aiohttp.ClientSession(middlewares=[middleware]) as session:
                async with session.get(api.url + TOS) as response:
                    texts += [repr(response), repr(response.request_info)]
                texts += await gather_errors(session.get(api.url + "/no", raise_for_status=True))
                api.fail_next(5, drop="before")
                texts += await gather_errors(session.post(api.url + TOS))
            texts += lines
        sent = [request.headers["Authorization"].partition(" ")[2] for request in api.requests]
        assert len(sent) > 2
        for text in texts:
            for secret in {*secrets_of(api), *sent}:
                assert secret not in text, text


@in_virtual_time
async def test_a_callers_own_authorization_is_in_no_error_of_ours() -> None:
    async with serving(scripted(404)) as server, Session(server.url) as session:
        headers = {"Authorization": "Basic hunter2", "Cookie": "a=hunter2"}
        with pytest.raises(ApiError) as caught:
            await session.fetch("/x", headers=headers)
        assert server.seen[0].headers["Authorization"] == "Basic hunter2"
        assert not any("hunter2" in text for text in shown(caught.value))


@pytest.mark.parametrize("treat", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_credential_can_be_neither_copied_nor_pickled(treat: Any) -> None:
    for auth in (Bearer("t"), OAuth1("a", "b", "c", "d"), ClientCredentials("a", "b")):
        with pytest.raises(TypeError, match="secrets"):
            treat(auth)


def test_a_session_with_a_credential_cannot_be_pickled() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(Session("http://127.0.0.1:1", auth=Bearer("hunter2")))


@pytest.mark.parametrize("name", ["CONSUMER_SECRET", "ACCESS_TOKEN_SECRET", "BEARER_TOKEN"])
def test_a_broken_environment_is_not_quoted(name: str) -> None:
    environ = {
        f"AIOTWHELP_{each}": "ok"
        for each in ("CONSUMER_KEY", "CONSUMER_SECRET", "ACCESS_TOKEN", "ACCESS_TOKEN_SECRET")
        if name != "BEARER_TOKEN"
    }
    environ[f"AIOTWHELP_{name}"] = "hunter2\n"
    with pytest.raises(ValueError, match="visible") as caught:
        Session.from_env(environ)
    assert not any("hunter2" in text for text in shown(caught.value))


#: Mistakes with a credential, each of which raises.
MISTAKES: dict[str, Callable[[], object]] = {
    "a line break": lambda: Bearer("hunter2\n"),
    "a scheme": lambda: Bearer("Bearer hunter2"),
    "a part missing": lambda: OAuth1("key", "hunter2", "token", None),  # type: ignore[arg-type]
    "a part too few": lambda: OAuth1("key", "hunter2", "token"),  # type: ignore[call-arg]
    "an odd key": lambda: ClientCredentials("key\n", "hunter2"),
    "an odd secret": lambda: OAuth2User("id", client_secret="hunter2 ", access_token="hunter3"),
    "an odd token": lambda: OAuth2User("id", access_token="hunter2", refresh_token="hunter3\n"),
    "an odd end": lambda: Token("hunter2", "hunter3", float("nan")),
    "an environment": lambda: Session.from_env({"AIOTWHELP_BEARER_TOKEN": "hunter2\n"}),
    "half an environment": lambda: Session.from_env({"AIOTWHELP_ACCESS_TOKEN": "hunter2"}),
    "an environment in the clear": lambda: Session.from_env(
        {"AIOTWHELP_BASE_URL": "http://api.example", "AIOTWHELP_BEARER_TOKEN": "hunter2"}
    ),
    "two credentials": lambda: Session(
        X, auth=Bearer("hunter2"), headers={"Authorization": "hunter3"}
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_credential_that_is_refused_is_in_no_error_and_no_local_of_ours(mistake: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        MISTAKES[mistake]()
    # The texts of its source lines aside.
    texts = [text for text in shown(caught.value) if not text.startswith("  File")]
    for text in (*texts, frame_locals(caught.value)):
        assert "hunter" not in text


@pytest.mark.parametrize(
    "make",
    [
        lambda: Session("ftp://x"),
        lambda: Session(X, concurrency=0),
        lambda: Session(X, retries=-1),
        lambda: Session(X, total_timeout=-1),
        lambda: Session(plain_api("http://api.example"), auth=Bearer("a")),
        lambda: RateLimitMiddleware(Limiter(), apis={plain_api("http://api.example"): Bearer("a")}),
        lambda: Limiter(reserve=2),
        lambda: OAuth2User("id"),
    ],
)
def test_a_constructor_that_raises_can_be_printed_with_its_locals(make: Any) -> None:
    with pytest.raises(ValueError, match=" ") as caught:
        make()
    assert "ValueError: " in frame_locals(caught.value)


#: What is looked for, plain and in the Basic form of the two with a key or id before them.
SECRETS = {
    "the-consumer-secret",
    "the-access-token",
    "the-token-secret",
    "the-refresh-token",
    "the-client-secret",
    "a-token",
    base64.b64encode(b"a-key:the-consumer-secret").decode(),
    base64.b64encode(b"an-id:the-client-secret").decode(),
}

CREDENTIALS: dict[str, Callable[[], Auth]] = {
    "oauth1": lambda: OAuth1(
        "a-key", "the-consumer-secret", "the-access-token", "the-token-secret"
    ),
    "bearer": lambda: Bearer("the-access-token"),
    "client credentials": lambda: ClientCredentials("a-key", "the-consumer-secret"),
    "oauth2": lambda: OAuth2User(
        "an-id",
        client_secret="the-client-secret",
        access_token="the-access-token",
        refresh_token="the-refresh-token",
        expires_at=0.0,
    ),
}

HARM: dict[str, Answer] = {
    "no HTTP": says(b"HTTP/1.1 abc\r\n\r\n"),
    "an endless header": drips(b"HTTP/1.1 200 X\r\nA: ", b"a" * 1000, 0.01),
    "a reset": resets,
    "silence": falls_silent(),
    "a body that breaks off": says(b"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\n{"),
    "a body without an end": falls_silent(b"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\n{"),
    "no JSON": answers(200, body=b"<html>"),
    "a redirect to nowhere": answers(302, "Location: ftp://x"),
    "a redirect to itself": answers(302, "Location: ?"),
    "401": answers(401),
    "503": answers(503),
}


async def what_shows(url: str, kind: str) -> list[str]:
    """All that shows of a read and a write: their errors, logs and events."""
    texts: list[str] = []
    with all_logs() as lines:
        told: list[Any] = []
        options: Any = {"auth": CREDENTIALS[kind](), "on_event": told.append, "retries": 1}
        async with Session(url, **options) as session:
            for method in ("GET", "POST"):
                texts += await gather_errors(session.fetch("/x", method=method))
    return [*texts, *map(repr, told), *lines]


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("kind", CREDENTIALS)
def test_no_error_log_or_local_shows_a_secret_whatever_the_server_does(
    kind: str, harm: str
) -> None:
    @in_virtual_time
    async def scene() -> None:
        async with hostile(HARM[harm]) as server:
            texts = await what_shows(server.url, kind)
        assert server.heads
        for secret in SECRETS:
            assert not [text for text in texts if secret in text]

    scene()


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("kind", ["client credentials", "oauth2"])
def test_nor_of_a_token_that_was_just_obtained(kind: str, harm: str) -> None:
    @in_virtual_time
    async def scene() -> None:
        tokens = dict.fromkeys([b"/oauth2/token", b"/2/oauth2/token"], token())
        async with hostile(by_path(tokens, HARM[harm])) as server:
            texts = await what_shows(server.url, kind)
        assert any(b"Bearer a-token" in head for head in server.heads)
        for secret in SECRETS:
            assert not [text for text in texts if secret in text]

    scene()


@pytest.mark.parametrize("kind", CREDENTIALS)
def test_a_connection_that_breaks_while_it_is_written_to_shows_nothing(kind: str) -> None:
    @in_virtual_time
    async def scene() -> None:
        async def cut(*_: Any) -> None:
            asyncio.get_running_loop().network.cut()

        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(cut)
        async with (
            hostile(token()) as server,
            Session(server.url, auth=CREDENTIALS[kind](), retries=0, trace_configs=[trace]) as api,
        ):
            texts = await gather_errors(api.fetch("/x", method="POST"))
        assert texts
        assert not server.heads
        for secret in SECRETS:
            assert not [text for text in texts if secret in text]

    scene()


@pytest.mark.parametrize("kind", CREDENTIALS)
def test_an_error_about_a_write_that_had_worked_shows_nothing(kind: str) -> None:
    @in_virtual_time
    async def scene() -> None:
        done = answers(403, body=b'{"errors": [{"code": 187}]}')
        steps = iter([answers(503), done])

        async def twice(head: bytes, writer: asyncio.StreamWriter) -> None:
            await next(steps)(head, writer)

        tokens = dict.fromkeys([b"/oauth2/token", b"/2/oauth2/token"], token())
        async with (
            hostile(by_path(tokens, twice)) as server,
            Session(server.url, auth=CREDENTIALS[kind]()) as session,
        ):
            texts = await gather_errors(session.fetch("/x", method="PUT"))
        assert any("had worked" in text for text in texts)
        for secret in SECRETS:
            assert not [text for text in texts if secret in text]

    scene()


@pytest.mark.parametrize("status", [200, 400, 401, 402, 403, 410, 429, 503])
@pytest.mark.parametrize("kind", CREDENTIALS)
def test_a_credential_that_the_server_echoes_is_in_no_error(kind: str, status: int) -> None:
    @in_virtual_time
    async def scene() -> None:
        tokens = dict.fromkeys([b"/oauth2/token", b"/2/oauth2/token"], token())
        path = "/1.1/help/privacy.json"  # one that was retired
        with all_logs() as lines:
            told: list[Any] = []
            async with (
                hostile(by_path(tokens, echoes(status))) as server,
                Session(
                    server.url, auth=CREDENTIALS[kind](), retries=0, on_event=told.append
                ) as session,
            ):
                errors = await asyncio.gather(
                    session.fetch(path, max_body=50 if status == 200 else 10_000),
                    session.fetch("/x", method="POST", data=iter_of(b"1"), max_body=50),
                    session.get("/x", raise_for_status=True),
                    return_exceptions=True,
                )
        failed = [each for each in errors if isinstance(each, Exception)]
        texts = [text for each in failed for text in [*shown(each), frame_locals(each)]]
        texts += [*map(repr, told), *lines]
        assert status == 200 or any("***" in text for text in texts)
        sent = re.findall(rb"(?i)\nauthorization: \w+ (.*)\r\n", b"".join(server.heads))
        signatures = re.findall(rb'oauth_signature="(.*?)"', b"".join(sent))
        for secret in {*SECRETS, *(each.decode() for each in (*sent, *signatures))}:
            assert not [text for text in texts if secret in text]

    scene()


@pytest.mark.parametrize("status", [200, 400, 401, 403, 429, 503])
@pytest.mark.parametrize("is_nested", [False, True])
@pytest.mark.parametrize("is_delimited", [True, False])
def test_a_credential_that_is_echoed_in_a_body_that_is_no_json_is_in_no_error(
    status: int, is_nested: bool, is_delimited: bool
) -> None:
    @in_virtual_time
    async def scene() -> None:
        echo = echoes_as_text(status, is_nested=is_nested, is_delimited=is_delimited)
        with all_logs() as lines:
            async with (
                hostile(echo) as server,
                Session(server.url, auth=Bearer("s3cret"), retries=1) as session,
            ):
                texts = await gather_errors(
                    session.fetch("/x"),
                    session.fetch("/y", coalesce=True),
                    session.fetch("/z", method="POST"),
                )
        assert any("***" in text for text in texts)
        assert not [text for text in (*texts, *lines) if "s3cret" in text]

    scene()


@pytest.mark.parametrize("at", ["the API", "the token endpoint", "the token endpoint, in plain"])
@pytest.mark.parametrize("where", QUOTED)
def test_a_credential_that_a_server_has_aiohttp_quote_is_shown_nowhere(where: str, at: str) -> None:
    @in_virtual_time
    async def scene() -> None:
        told: list[Any] = []
        if at == "the API":
            tokens, otherwise = token(access_token="s3cret"), quotes(QUOTED[where])
        else:
            plain = b"s3cret" if "plain" in at else b""
            tokens, otherwise = quotes(QUOTED[where], plain), answers(200)
        with all_logs() as lines:
            async with (
                hostile(by_path({b"/oauth2/token": tokens}, otherwise)) as server,
                Session(
                    server.url,
                    auth=ClientCredentials("the-key", "s3cret"),
                    retries=1,
                    on_event=told.append,
                ) as session,
            ):
                texts = await gather_errors(
                    session.fetch("/x"),
                    session.fetch("/x", coalesce=True),
                    session.fetch("/y", method="POST", json={}),
                    enters(session.get("/z", raise_for_status=True)),
                )
        assert texts or where in ("coding", "charset", "cookie")
        basic = base64.b64encode(b"the-key:s3cret").decode()
        for secret in ("s3cret", basic):
            assert not [text for text in (*texts, *lines, *map(repr, told)) if secret in text]

    scene()


async def enters(call: Any) -> None:
    async with call:
        pass


async def iter_of(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def times_out(request: aiohttp.ClientRequest, _: Any) -> aiohttp.ClientResponse:
    """Fail as aiohttp does, in its own words."""
    raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {request.url}")


@in_virtual_time
async def test_a_credential_in_the_query_of_a_url_is_in_no_error_log_or_event_of_ours() -> None:
    secrets = {"access_token": "hunter2", "API_KEY": "hunter3", "id": "12"}
    texts, told = [], []
    with all_logs() as lines:
        async with (
            serving(scripted(503, drop, 404, 503)) as server,
            Session(server.url, on_event=told.append) as session,
        ):
            with pytest.raises(ApiError) as caught:
                await session.fetch("/x", params=secrets)
            texts += shown(caught.value)
            assert "id=12" in str(caught.value)
            with pytest.raises(aiohttp.ConnectionTimeoutError):
                await session.fetch("/y", params=secrets, retries=1, middlewares=[times_out])
            with pytest.raises(BodyNotReplayableError) as used_up:
                await session.fetch("/z", method="PUT", params=secrets, data=iter_of(b"1"))
    texts += [str(used_up.value), *map(repr, told), *lines]
    assert len([each for each in told if isinstance(each, Retrying)]) == 3
    for secret in ("hunter2", "hunter3"):
        assert not [text for text in texts if secret in text]


@pytest.mark.parametrize(
    "answer", [answers(407), answers(403), says(b"HTTP/1.1 abc\r\n\r\n")], ids=["407", "403", "odd"]
)
@pytest.mark.parametrize("auth", [None, Bearer("the-access-token")], ids=["", "signed"])
def test_the_password_of_a_proxy_that_refuses_is_in_no_error_log_or_event(
    auth: Auth | None, answer: Answer
) -> None:
    @in_virtual_time
    async def scene() -> None:
        told: list[Any] = []
        with all_logs() as lines:
            async with hostile(answer) as proxy:
                through = proxy.url.replace("//", "//someone:hunter2@")
                options: Any = {"auth": auth, "on_event": told.append, "retries": 1}
                async with Session("https://api.example", proxy=through, **options) as session:
                    calls = (session.fetch("/x", max_wait=60) for _ in range(7))
                    errors = await asyncio.gather(*calls, return_exceptions=True)
        texts = [text for each in errors if isinstance(each, Exception) for text in shown(each)]
        assert len([head for head in proxy.heads if b"Proxy-Authorization: Basic" in head]) > 4
        secret = base64.b64encode(b"someone:hunter2").decode()
        for text in (*texts, *map(repr, told), *lines):
            assert "hunter2" not in text
            assert secret not in text

    scene()


@in_virtual_time
async def test_nor_is_it_in_those_of_a_users_own_session() -> None:
    async with hostile(answers(407)) as proxy:
        through = proxy.url.replace("//", "//someone:hunter2@")
        middleware = RateLimitMiddleware(Limiter(), apis={X: None})
        async with aiohttp.ClientSession(middlewares=[middleware], proxy=through) as session:
            with pytest.raises(aiohttp.ClientHttpProxyError) as caught:
                await session.get("https://api.x.com/x")
        assert not [text for text in shown(caught.value) if "hunter2" in text]


@in_virtual_time
async def test_a_callers_own_key_is_not_in_an_error_of_aiohttps_either() -> None:
    own = {"Authorization": "Basic hunter2", "Cookie": "a=hunter2"}
    async with hostile(answers(302, "Location: ?")) as server, Session(server.url) as session:
        with pytest.raises(aiohttp.TooManyRedirects) as caught:
            await session.fetch("/x", headers=own)
        assert not [text for text in shown(caught.value) if "hunter2" in text]


@in_virtual_time
async def test_the_traces_of_aiohttp_see_no_secret_before_it_is_sent() -> None:
    seen: list[str] = []

    async def note(session: Any, context: Any, params: Any) -> None:
        seen.append(repr(params))

    trace = aiohttp.TraceConfig()
    for signal in (trace.on_request_start, trace.on_request_end, trace.on_request_exception):
        signal.append(note)
    tokens = {b"/oauth2/token": token()}
    for last in (answers(200), resets):
        async with hostile(by_path(tokens, last)) as server:
            auth = CREDENTIALS["client credentials"]()
            async with Session(server.url, auth=auth, retries=0, trace_configs=[trace]) as session:
                await gather_errors(session.fetch("/x", method="POST"))
    assert len(seen) == 8
    for secret in SECRETS:
        assert not [text for text in seen if secret in text]


@in_virtual_time
async def test_what_the_caller_was_handling_keeps_its_traceback() -> None:
    async def call_while_handling(session: Session) -> None:
        try:
            int("before")
        except ValueError:
            await session.fetch("/x", method="POST")

    nowhere = "http://127.0.0.1:1"
    async with Session(nowhere, auth=Bearer("the-access-token"), retries=0) as session:
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await call_while_handling(session)
        [before] = [each for each in causes(caught.value) if isinstance(each, ValueError)]
        assert before.__traceback__ is not None


@in_virtual_time
async def test_a_netrc_file_neither_replaces_a_credential_nor_stops_a_token_request(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("default login someone password from-netrc\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    tokens = dict.fromkeys([b"/oauth2/token", b"/2/oauth2/token"], token())
    public = OAuth2User("an-id", refresh_token="the-refresh-token")
    for auth in (*(make() for make in CREDENTIALS.values()), public):
        async with (
            hostile(by_path(tokens, answers(200))) as server,
            Session(server.url, auth=auth, trust_env=True) as session,
        ):
            await session.fetch("/x")
            netrc = base64.b64encode(b"someone:from-netrc")
            assert not [head for head in server.heads if netrc in head]
            assert b"Authorization: " in server.heads[-1]
