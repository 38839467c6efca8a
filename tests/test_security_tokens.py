"""A token endpoint that means harm: it learns nothing more, is not hammered, and holds nobody."""

from __future__ import annotations

import asyncio
import itertools
import tracemalloc
from collections.abc import Awaitable
from email.utils import formatdate
from typing import Any

import aiohttp
import pytest

from aiotwhelp import AuthError, Bearer, ClientCredentials, OAuth1, OAuth2User, Session
from aiotwhelp.errors import forget_frames
from tests.hostile import (
    Answer,
    Hostile,
    answers,
    by_path,
    drips,
    falls_silent,
    hostile,
    resets,
    says,
    token,
)
from tests.stack import (
    assert_at_rest,
    drop,
    elapsed,
    in_a_crowd,
    in_virtual_time,
    scripted,
    serving,
)

TOKEN = b"/oauth2/token"


def credentials() -> ClientCredentials:
    return ClientCredentials("a-key", "a-secret")


async def all_fail(*calls: Awaitable[Any]) -> None:
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(each) for each in results} == {AuthError}


def asked(server: Hostile, path: bytes) -> int:
    return sum(head.split()[1] == path for head in server.heads)


FAILING: dict[str, Answer] = {
    "refuses": answers(403, body=b'{"errors": [{"code": 99}]}'),
    "fails": answers(500),
    "is busy": answers(429, "Retry-After: 1"),
    "resets": resets,
    "is silent": falls_silent(),
    "speaks no HTTP": says(b"HTTP/1.1 abc\r\n\r\n"),
    "has no end": drips(b"HTTP/1.1 200 X\r\n\r\n", b" " * 10_000, 0.001),
    "dawdles": drips(b"HTTP/1.1 200 X\r\nContent-Length: 1000\r\n\r\n", b" ", 1.0),
    "redirects": answers(302, "Location: http://127.0.0.2:1/"),
    "redirects a form": answers(307, "Location: http://127.0.0.2:1/"),
    "answers HTML": answers(200, body=b"<html>access_token"),
    "answers a list": answers(200, body=b'["access_token"]'),
    "answers megabytes": answers(200, body=b'{"access_token": "' + b"a" * 10_000_000 + b'"}'),
    "has no token": answers(200, body=b'{"token_type": "bearer"}'),
    "has another type": token(token_type="mac"),
    "injects a header": token(access_token="a\r\nX-Injected: b"),
    "is not ASCII": token(access_token="\u0661"),
    "is longer than a header": token(access_token="a" * 8001),
    "nests": answers(200, body=b'{"token_type":' + b"[" * 60_000),
}


@pytest.mark.parametrize("harm", FAILING)
def test_an_endpoint_without_a_token_is_asked_a_few_times_for_a_hundred_callers(harm: str) -> None:
    @in_a_crowd
    async def scene() -> None:
        async with (
            hostile(by_path({TOKEN: FAILING[harm]}, answers(200))) as server,
            Session(server.url, auth=credentials(), retries=2) as session,
        ):
            await all_fail(*(session.fetch("/x") for _ in range(100)))
            assert asked(server, TOKEN) == len(server.heads) <= 4
            assert elapsed() < 120
            await assert_at_rest(session)

    scene()


@in_virtual_time
async def test_an_endpoint_that_recovers_serves_all_who_wait() -> None:
    down = itertools.chain([answers(500), resets, answers(503)], itertools.repeat(token()))

    async def recovering(head: bytes, writer: asyncio.StreamWriter) -> None:
        await next(down)(head, writer)

    async with (
        hostile(by_path({TOKEN: recovering}, answers(200))) as server,
        Session(server.url, auth=credentials()) as session,
    ):
        assert await asyncio.gather(*(session.fetch("/x") for _ in range(20))) == [{}] * 20
        assert asked(server, TOKEN) == 4


@in_virtual_time
async def test_a_redirected_token_request_takes_the_secret_nowhere() -> None:
    async with serving(scripted(200), "127.0.0.2") as foreign:
        for status in (301, 302, 303, 307, 308):
            elsewhere = answers(status, f"Location: {foreign.url}/oauth2/token")
            for auth in (credentials(), OAuth2User("an-id", refresh_token="a-refresh-token")):
                async with (
                    hostile(elsewhere) as server,
                    Session(server.url, auth=auth, retries=0) as session,
                ):
                    with pytest.raises(AuthError, match=str(status)):
                        await session.fetch("/x")
                    assert server.token_requests == len(server.heads) == 1
        assert foreign.seen == []


@pytest.mark.parametrize(
    "fields",
    [
        {"expires_in": -1},
        {"expires_in": 1e308},
        {"expires_in": float("nan")},
        {"expires_in": "soon"},
        {"expires_in": None, "refresh_token": None},
        {"expires_in": [7200]},
        {"token_type": "BEARER", "scope": "x" * 50_000},
    ],
    ids=str,
)
def test_a_token_with_odd_fields_is_used_and_asked_for_once(fields: dict[str, Any]) -> None:
    @in_virtual_time
    async def scene() -> None:
        async with (
            hostile(by_path({TOKEN: token(**fields)}, answers(200))) as server,
            Session(server.url, auth=credentials()) as session,
        ):
            await asyncio.gather(*(session.fetch("/x") for _ in range(20)))
            assert asked(server, TOKEN) == 1
            assert b"Authorization: Bearer a-token\r\n" in server.heads[-1]

    scene()


async def peak_of(answer: Answer) -> int:
    """The most memory, in bytes, that a call takes whose token endpoint answers so."""
    async with (
        hostile(by_path({TOKEN: answer}, answers(200))) as server,
        Session(server.url, auth=credentials(), retries=0) as session,
    ):
        tracemalloc.start()
        try:
            with pytest.raises(AuthError):
                await session.fetch("/x")
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


@in_virtual_time
async def test_an_answer_of_a_hundred_megabytes_takes_no_more_memory_than_one_of_one() -> None:
    def lasting(size: int) -> Answer:
        return drips(b"HTTP/1.1 200 X\r\nContent-Length: %d\r\n\r\n" % size, b" " * 10_000, 0)

    one, hundred = await peak_of(lasting(1_000_000)), await peak_of(lasting(100_000_000))
    assert hundred < 2 * one


# Refusals without an end -------------------------------------------------------------------


@pytest.mark.parametrize("body", [b'{"errors": [{"code": 89}]}', b""], ids=["code 89", "bare"])
def test_a_401_for_ever_renews_a_token_once_a_minute_for_all_callers(body: bytes) -> None:
    @in_virtual_time
    async def scene() -> None:
        tokens = dict.fromkeys([TOKEN, b"/2/oauth2/token"], token(refresh_token="another"))
        for auth in (credentials(), OAuth2User("an-id", refresh_token="a-refresh-token")):
            async with (
                hostile(by_path(tokens, answers(401, body=body))) as server,
                Session(server.url, auth=auth) as session,
            ):
                for _ in range(15):  # five minutes
                    await all_fail(*(session.fetch("/x") for _ in range(4)))
                    await asyncio.sleep(20)
                assert 2 <= server.token_requests <= 7

    scene()


@in_virtual_time
async def test_a_401_for_ever_costs_a_call_without_renewal_one_request() -> None:
    async with hostile(answers(401, body=b'{"errors": [{"code": 89}]}')) as server:
        for auth in (Bearer("a-token"), OAuth1("a", "b", "c", "d")):
            server.heads.clear()
            async with Session(server.url, auth=auth) as session:
                with pytest.raises(AuthError):
                    await session.fetch("/x")
                assert len(server.heads) == 1


@pytest.mark.parametrize(
    "date", ["Mon, 01 Jan 0001 00:00:00 GMT", formatdate(2.5e11), "", "x" * 8000]
)
def test_a_clock_that_is_off_for_ever_is_corrected_once_a_call(date: str) -> None:
    @in_virtual_time
    async def scene() -> None:
        off = answers(401, f"Date: {date}", body=b'{"errors": [{"code": 135}]}')
        async with (
            hostile(off) as server,
            Session(server.url, auth=OAuth1("a", "b", "c", "d")) as session,
        ):
            for _ in range(3):
                server.heads.clear()
                with pytest.raises(AuthError, match="135"):
                    await session.fetch("/x")
                assert len(server.heads) == 2
            assert elapsed() < 1

    scene()


class Unreachable(Bearer):
    """A credential of a user's own making, whose failures look like those of a call."""

    asked = 0

    def ready(self, now: float) -> bool:
        return False

    async def prepare(self, send: object, now: float) -> None:
        self.asked += 1
        await asyncio.sleep(0.1)
        raise aiohttp.ServerDisconnectedError


@in_virtual_time
async def test_a_credential_whose_connection_breaks_sends_no_call_round_for_ever() -> None:
    auth = Unreachable("a-token")
    async with (
        serving(scripted(drop)) as server,
        Session(server.url, auth=auth, retries=2) as session,
    ):
        results = await asyncio.gather(
            *(session.fetch("/x") for _ in range(5)), return_exceptions=True
        )
        assert {type(each) for each in results} == {aiohttp.ServerDisconnectedError}
        assert auth.asked <= 5 * 2 * 3  # aiohttp makes each attempt twice
        assert server.seen == []
        await assert_at_rest(session)


def test_errors_that_are_each_others_cause_are_looked_at_once() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    forget_frames(first)
    assert first.__traceback__ is second.__traceback__ is None
