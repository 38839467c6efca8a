"""No secret is in any log line, repr, event, exception, traceback or pickle."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import pickle
import traceback
from typing import Any

import aiohttp
import pytest

from aiotwhelp import (
    ApiError,
    Auth,
    Bearer,
    ClientCredentials,
    Limiter,
    OAuth1,
    OAuth2User,
    RateLimitMiddleware,
    Session,
    X,
)
from aiotwhelp.emulator import Emulator
from tests.stack import PRIVACY, TOS, in_virtual_time, oauth1_of, scripted, serving, session_of


class Everything(logging.Handler):
    """Keeps every record of every logger as it would be printed."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record) + repr(record.args))


@contextlib.contextmanager
def all_logs() -> Any:
    root, handler = logging.getLogger(), Everything()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield handler.lines
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


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


def shown(error: BaseException) -> list[str]:
    """Everything that an exception shows of itself and of its causes."""
    texts = [str(error), repr(error), repr(error.args)]
    texts += traceback.format_exception(error)
    texts += traceback.TracebackException.from_exception(error, capture_locals=False).format()
    with contextlib.suppress(Exception):
        texts.append(repr(vars(error)))
    with contextlib.suppress(TypeError, AttributeError, pickle.PicklingError):
        texts.append(pickle.dumps(error).decode("latin-1"))
    return texts


async def gather_errors(*calls: Any) -> list[str]:
    results = await asyncio.gather(*calls, return_exceptions=True)
    return [text for each in results if isinstance(each, BaseException) for text in shown(each)]


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
        session.get(PRIVACY, headers={"Authorization": "Basic hunter2"}),
    )
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
    assert not any("hunter2" in text for text in shown(caught.value)[:3])
