"""Bodies of answers: bounded, understood, and never in the way of a connection."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from aiotwhelp import ApiError, BodyError, ClientCredentials, RateLimitError, Session, answers
from aiotwhelp.answers import ERROR_BODY, ErrorBody, parse_error
from tests.stack import assert_at_rest, elapsed, in_virtual_time, scripted, serving

V1 = {"errors": [{"message": "Rate limit exceeded", "code": 88}]}
V2 = {"title": "Too Many Requests", "type": "about:blank", "status": 429, "detail": "Slow down"}
CAPPED = {"title": "UsageCapExceeded", "type": "https://api.twitter.com/2/problems/usage-capped"}


@pytest.mark.parametrize(
    ("body", "read"),
    [
        (b"", ErrorBody()),
        (b"<html>over capacity", ErrorBody(snippet="<html>over capacity")),
        (b"[1]", ErrorBody(snippet="[1]")),
        (b'{"errors": "no list"}', ErrorBody(snippet='{"errors": "no list"}')),
        (b'{"error": "old"}', ErrorBody(message="old", snippet='{"error": "old"}')),
    ],
)
def test_an_odd_body_is_read_for_what_it_is(body: bytes, read: ErrorBody) -> None:
    assert parse_error(body) == read


def test_the_errors_of_both_versions_are_understood() -> None:
    one = parse_error(json.dumps(V1).encode())
    assert (one.codes, one.message, one.is_cap) == ((88,), "Rate limit exceeded", False)
    two = parse_error(json.dumps(V2).encode())
    assert (two.codes, two.problem, two.message) == ((), None, "Slow down")
    cap = parse_error(json.dumps(CAPPED).encode())
    assert (cap.problem, cap.is_cap) == ("usage-capped", True)


@pytest.mark.parametrize("code", [True, "88", None, 1.5, {}])
def test_a_code_that_is_no_number_is_none(code: Any) -> None:
    assert parse_error(json.dumps({"errors": [{"code": code}]}).encode()).codes == ()


@pytest.mark.parametrize("code", [-(2**31), 2**31, 10**4000], ids=["low", "high", "huge"])
def test_a_code_that_no_api_would_give_is_none(code: int) -> None:
    assert parse_error(json.dumps({"errors": [{"code": code}]}).encode()).codes == ()


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("one\r\ntwo\u2028three\x85", "one two three"),
        ("\x1b[31mred\x07", "[31mred"),
        ("a\x00b", "a b"),
        ("half \ud800 a character", "half a character"),
        ("\u202egnp.exe", "gnp.exe"),
        ("S\u00e3o Paulo \u2603 \U0001f600", "S\u00e3o Paulo \u2603 \U0001f600"),
        ("\r\n", "Not Found"),
    ],
)
def test_what_a_server_says_stands_in_one_line_that_can_be_printed(said: str, shown: str) -> None:
    @in_virtual_time
    async def scene() -> None:
        answer = web.json_response({"error": said}, status=404)
        async with serving(scripted(lambda _: answer)) as server, Session(server.url) as session:
            with pytest.raises(ApiError) as caught:
                await session.fetch("/x")
            assert caught.value.message == shown
            assert str(caught.value).isprintable()

    scene()


async def endless(request: web.Request) -> web.StreamResponse:
    """A body in chunks without an end."""
    response = web.StreamResponse(status=int(request.query["status"]))
    await response.prepare(request)
    while True:
        await response.write(b"x" * 10_000)
        await asyncio.sleep(float(request.query["pause"]))


@pytest.mark.parametrize("pause", [0.001, 3.0], ids=["fast", "slow"])
@pytest.mark.parametrize("status", [404, 429, 503])
def test_an_error_without_an_end_is_cut(status: int, pause: float) -> None:
    @in_virtual_time
    async def scene() -> None:
        async with serving(endless) as server, Session(server.url, retries=0) as session:
            with pytest.raises((ApiError, RateLimitError)) as caught:
                await session.fetch("/x", params={"status": str(status), "pause": str(pause)})
            assert caught.value.status == status
            assert len(caught.value.body) <= 2048
            assert elapsed() < 12
            await assert_at_rest(session)

    scene()


@in_virtual_time
async def test_the_start_of_a_huge_error_page_is_kept() -> None:
    def page(_: web.Request) -> web.StreamResponse:
        return web.Response(status=404, body=b"<html>" + b"x" * 5_000_000)

    async with serving(scripted(page)) as server, Session(server.url) as session:
        with pytest.raises(ApiError) as caught:
            await session.fetch("/x")
        assert caught.value.body.startswith("<html>")
        assert len(caught.value.body) < ERROR_BODY
        await assert_at_rest(session)


#: What aiohttp decompresses without more libraries, by the window bits of each.
CODINGS = {"gzip": 31, "deflate": -15}


@cache
def bomb(coding: str) -> bytes:
    """Forty megabytes of zeros, in forty kilobytes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, CODINGS[coding])
    million = bytes(1_000_000)
    return b"".join([*(packer.compress(million) for _ in range(40)), packer.flush()])


@pytest.mark.skipif(
    tuple(map(int, aiohttp.__version__.split(".")[:3])) < (3, 14, 2),
    reason="aiohttp bounds its decompression from 3.14.2 on",
)
@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("status", [200, 401, 404, 429, "token"])
def test_a_decompression_bomb_is_bounded(status: int | str, coding: str) -> None:
    body = bomb(coding)

    @in_virtual_time
    async def scene() -> None:
        def answer(_: web.Request) -> web.StreamResponse:
            encoded = {"Content-Encoding": coding}
            code = 200 if status == "token" else int(status)
            return web.Response(status=code, body=body, headers=encoded)

        auth = ClientCredentials("a-key", "a-secret") if status == "token" else None
        async with (
            serving(scripted(answer)) as server,
            Session(server.url, auth=auth, retries=0) as session,
        ):
            tracemalloc.start()
            try:
                with pytest.raises((BodyError, ApiError, RateLimitError)) as caught:
                    await session.fetch("/x", max_body=1_000_000)
                _, most = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert caught.value.status == (200 if status == "token" else status)
            assert most < 10_000_000
            await assert_at_rest(session)

    scene()


@in_virtual_time
async def test_an_error_stays_readable_for_its_caller() -> None:
    def forbidden(_: web.Request) -> web.StreamResponse:
        return web.json_response(V1, status=403)

    async with (
        serving(scripted(forbidden)) as server,
        Session(server.url) as session,
        session.get("/x") as response,
    ):
        assert await response.json() == V1


@in_virtual_time
async def test_an_error_that_a_middleware_has_read_stays_readable() -> None:
    async def curious(request: Any, handler: Any) -> Any:
        response = await handler(request)
        await response.read()
        return response

    async with (
        serving(scripted(lambda _: web.json_response(V1, status=403))) as server,
        Session(server.url, middlewares=[curious]) as session,
    ):
        async with session.get("/x") as response:
            assert await response.json() == V1
        with pytest.raises(ApiError, match="code 88"):
            await session.fetch("/x")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32-be"])
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=5,
    ),
    st.sampled_from(["", " ", "\n", "\r\n\t", "x", "\x00", "{}", "\ufeff"]),
    st.sampled_from(["", " ", "\n", "\x00"]),
)
def test_a_body_is_decoded_as_the_standard_library_has_it(
    encoding: str, value: object, after: str, before: str
) -> None:
    body = (before + json.dumps(value, ensure_ascii=False) + after).encode(encoding, "replace")
    assert outcome(answers.decode, body) == outcome(json.loads, body)


@pytest.mark.parametrize(
    "body", [b"\xff{}", b'{"a"', b"[", b"-", b"nul", b'"\xed\xa0\x80"', b"1e999"]
)
def test_what_is_no_json_or_hardly_any_is_told_by_the_standard_library(body: bytes) -> None:
    assert outcome(answers.decode, body) == outcome(json.loads, body)
    assert answers.decode(b" \n") is None


def outcome(decode: Callable[[bytes], object], body: bytes) -> object:
    try:
        return decode(body)
    except ValueError as error:
        assert not isinstance(error.__context__, ValueError), "it would hold the body"
        return repr(error)
