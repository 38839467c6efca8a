"""A server that means harm: it takes no memory, holds nobody for ever, and answers nobody else."""

from __future__ import annotations

import asyncio
import itertools
import tracemalloc
from collections.abc import Iterable, Mapping

import aiohttp
import pytest

from aiotwhelp import (
    AiotwhelpError,
    ApiError,
    AuthError,
    Bearer,
    ClientCredentials,
    Dialect,
    Limiter,
    OAuth1,
    RateLimitMiddleware,
    Session,
    WindowReading,
)
from tests.hostile import Answer, answers, by_path, drips, falls_silent, hostile, says
from tests.stack import (
    assert_at_rest,
    connections_in_use,
    elapsed,
    in_a_crowd,
    in_virtual_time,
    plain_api,
)


def answer_of(body: bytes) -> bytes:
    return b"HTTP/1.1 200 X\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


# Answers that nobody asked for -------------------------------------------------------------

UNASKED = answer_of(b'"of nobody"')


def adds(more: bytes, *, after: float | None, end_apart: bool = False) -> Answer:
    """Answer each request with its number, and say more: in one piece, or seconds later."""
    numbers = itertools.count()

    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        said = answer_of(str(next(numbers)).encode())
        if end_apart:
            writer.write(said[:-1])
            await asyncio.sleep(0.1)
            said = said[-1:]
        if after is None:
            said += more
        writer.write(said)
        if after is not None:
            await asyncio.sleep(after)
            writer.write(more)

    return answer


@pytest.mark.parametrize("end_apart", [False, True], ids=["whole", "end apart"])
@pytest.mark.parametrize("after", [None, 0.0, 0.5])
@pytest.mark.parametrize(
    "more",
    [UNASKED, UNASKED[:-1], b"HTTP/1.1 103 X\r\n\r\n", b"\r\n"],
    ids=["an answer", "half of one", "a 103", "a line"],
)
def test_what_a_server_says_unasked_is_no_answer(
    more: bytes, after: float | None, end_apart: bool
) -> None:
    @in_virtual_time
    async def scene() -> None:
        async with (
            hostile(adds(more, after=after, end_apart=end_apart)) as server,
            Session(server.url) as session,
        ):
            said = []
            for _ in range(4):
                said.append(await session.fetch("/x"))
                await asyncio.sleep(1)
            assert said == [0, 1, 2, 3]
            await assert_at_rest(session)

    scene()


@in_virtual_time
async def test_nor_is_it_to_one_who_comes_in_the_same_instant() -> None:
    unasked = adds(UNASKED, after=None, end_apart=True)
    async with hostile(unasked) as server, Session(server.url, concurrency=1) as session:
        calls = [session.fetch("/x") for _ in range(20)]
        assert "of nobody" not in await asyncio.gather(*calls)
        for _ in range(20):
            assert await session.fetch("/x") != "of nobody"


@in_a_crowd
async def test_a_connection_that_waits_takes_no_memory_whatever_comes() -> None:
    sent = 0

    async def floods(_: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(answer_of(b"1"))
        while True:
            await asyncio.sleep(0.01)
            writer.write(UNASKED * 1000)
            sent += 1000
            await writer.drain()

    async with hostile(floods) as server, Session(server.url) as session:
        await session.fetch("/x")
        tracemalloc.start()
        try:
            await asyncio.sleep(2)
            assert tracemalloc.get_traced_memory()[1] < 2_000_000
        finally:
            tracemalloc.stop()
        assert sent < 10_000  # it was cut off
        assert connections_in_use(session) == 0


@in_virtual_time
async def test_a_connection_that_says_nothing_is_used_again() -> None:
    quiet = adds(b"", after=0.0)
    async with hostile(quiet) as server, Session(server.url) as session:
        for _ in range(5):
            await session.fetch("/x")
            await asyncio.sleep(1)
        assert len(server.heads) == 5
        assert server.connections == 1


@in_virtual_time
async def test_a_server_that_ends_a_waiting_connection_costs_no_call() -> None:
    async def ends(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer_of(b"1"))
        await asyncio.sleep(0.5)
        writer.close()

    async with hostile(ends) as server, Session(server.url, retries=0) as session:
        for _ in range(3):
            assert await session.fetch("/x", method="POST") == 1
            await asyncio.sleep(1)
        assert server.connections == 3


# Answers without an end --------------------------------------------------------------------

ENDLESS: dict[str, Answer] = {
    "headers that come slowly": drips(b"HTTP/1.1 200 X\r\n", b"A: b\r\n", 60),
    "early hints": drips(b"", b"HTTP/1.1 103 X\r\n\r\n" * 3, 0.5),
    "a byte a minute": drips(b"HTTP/1.1 200 X\r\nContent-Length: 1000\r\n\r\n", b" ", 60),
    "a byte a minute until it closes": drips(b"HTTP/1.1 200 X\r\n\r\n", b" ", 60),
    "the size of a chunk": drips(
        b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x" * 1000, 1
    ),
    "a redirect without a body": falls_silent(b"HTTP/1.1 302 X\r\nContent-Length: 9\r\n\r\n"),
}


@pytest.mark.parametrize("limit", [100, None])
@pytest.mark.parametrize("without_end", ENDLESS)
def test_an_answer_without_an_end_holds_a_call_as_long_as_it_allows(
    without_end: str, limit: float | None
) -> None:
    @in_virtual_time
    async def scene() -> None:
        async with hostile(ENDLESS[without_end]) as server, Session(server.url) as session:
            with pytest.raises(TimeoutError):
                await session.fetch("/x", retries=1, total_timeout=limit)
            assert elapsed() <= (limit or 2 * 300 + 1)  # aiohttp's own, of each attempt
            await assert_at_rest(session)

    scene()


@in_virtual_time
async def test_headers_without_an_end_are_an_error() -> None:
    endless = drips(b"HTTP/1.1 200 X\r\n", b"A: b\r\n" * 10, 0.01)
    async with hostile(endless) as server, Session(server.url) as session:
        with pytest.raises(aiohttp.ClientResponseError, match="Too many headers"):
            await session.fetch("/x")
        assert elapsed() < 1
        await assert_at_rest(session)


@pytest.mark.parametrize("length", [b"Content-Length: 9\r\n", b""], ids=["of known length", ""])
@pytest.mark.parametrize("status", [401, 402, 403, 404, 410, 420, 429, 500, 503])
def test_an_error_that_falls_silent_holds_a_connection_for_ten_seconds(
    status: int, length: bytes
) -> None:
    @in_virtual_time
    async def scene() -> None:
        stalls = falls_silent(b"HTTP/1.1 %d X\r\n%b\r\n{" % (status, length))
        auth = OAuth1("a-key", "a-secret", "a-token", "another")
        async with hostile(stalls) as server, Session(server.url, auth=auth, retries=0) as session:
            with pytest.raises(AiotwhelpError, match=str(status)):
                await session.fetch("/x")
            assert elapsed() <= 10.1
            await assert_at_rest(session)

    scene()


@in_virtual_time
async def test_a_redirect_whose_body_falls_silent_is_followed_at_once() -> None:
    stalls = falls_silent(b"HTTP/1.1 302 X\r\nLocation: /y\r\nContent-Length: 9\r\n\r\n{")
    async with (
        hostile(by_path({b"/x": stalls}, answers(200))) as server,
        Session(server.url) as session,
    ):
        assert await session.fetch("/x") == {}
        assert elapsed() < 1
        await assert_at_rest(session)


@pytest.mark.parametrize("upgrade", ["Upgrade: x", "A: b"])
@pytest.mark.parametrize("left", [b"", b"{}", UNASKED])
def test_a_protocol_that_nobody_asked_for_is_an_error_and_its_words_are_nobodys_answer(
    upgrade: str, left: bytes
) -> None:
    @in_virtual_time
    async def scene() -> None:
        switches = answers(101, upgrade, "Connection: upgrade", body=left)
        async with (
            hostile(by_path({b"/x": switches}, says(answer_of(b"1")))) as server,
            Session(server.url, connector=aiohttp.TCPConnector(limit=1)) as session,
        ):
            for _ in range(3):
                with pytest.raises(ApiError, match="101"):
                    await session.fetch("/x")
                assert await session.fetch("/y") == 1
            await assert_at_rest(session)

    scene()


@pytest.mark.parametrize("status", [0, 1, 99])
def test_a_status_that_means_nothing_is_an_error_that_holds_no_connection(status: int) -> None:
    @in_virtual_time
    async def scene() -> None:
        told = b"HTTP/1.1 %03d X\r\nx-rate-limit-limit: 9\r\nx-rate-limit-remaining: 7\r\n"
        stalls = falls_silent(told % status + b"Content-Length: 9\r\n\r\n{")
        async with (
            hostile(stalls) as server,
            Session(server.url, connector=aiohttp.TCPConnector(limit=1)) as session,
        ):
            for _ in range(3):
                with pytest.raises(ApiError, match=str(status)):
                    await session.fetch("/x")
            async with session.get("/x") as response:
                assert response.status == status
            assert session.quota("/x").remaining == 7
            assert elapsed() <= 30.1
            await assert_at_rest(session)

    scene()


class Broken:
    """A place of a dialect that does not keep its promise."""

    def read(self, fields: Mapping[str, str]) -> Iterable[WindowReading]:
        raise LookupError("of a place")


@in_virtual_time
async def test_a_dialect_that_stumbles_over_an_answer_leaves_nothing_behind() -> None:
    dialect = Dialect("broken", (Broken(),))
    stalls = falls_silent(b"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\n{")
    async with hostile(stalls) as server:
        async with Session(server.url, dialect=dialect) as session:
            with pytest.raises(LookupError, match="of a place"):
                await session.fetch("/x")
            assert session.limiter.stats().lost == 1
            await assert_at_rest(session)
        limiter = Limiter()
        limited = RateLimitMiddleware(limiter, {plain_api(server.url, dialect=dialect): None})
        async with aiohttp.ClientSession(middlewares=[limited]) as own:
            with pytest.raises(LookupError, match="of a place"):
                await own.get(f"{server.url}/x")
            assert own.connector is not None
            assert not own.connector._acquired
        assert (limiter.stats().in_flight, limiter.stats().lost) == (0, 1)


@pytest.mark.parametrize("after", ["1e300", "99999999999", "Fri, 31 Dec 9999 23:59:59 GMT"])
@pytest.mark.parametrize("status", [429, 503, "token"])
def test_no_retry_after_makes_an_attempt_wait_beyond_the_ceiling(
    status: int | str, after: str
) -> None:
    @in_virtual_time
    async def scene() -> None:
        later = f"Retry-After: {after}", "Date: Mon, 01 Jan 2024 00:00:00 GMT"
        api = {b"/oauth2/token": answers(429, *later)}
        calls = answers(200 if status == "token" else int(status), *later)
        auth = ClientCredentials("a-key", "a-secret") if status == "token" else None
        async with (
            hostile(by_path(api, calls)) as server,
            Session(server.url, auth=auth, retries=1) as session,
        ):
            with pytest.raises(AiotwhelpError):
                await session.fetch("/x")
            assert elapsed() <= (len(server.heads) - 1) * 961

    scene()


# Memory ------------------------------------------------------------------------------------


async def peak_of(body: Answer) -> int:
    """The most memory, in bytes, that reading such an answer takes."""
    async with hostile(body) as server, Session(server.url) as session:
        tracemalloc.start()
        try:
            await session.fetch("/x")
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


@in_a_crowd
async def test_a_body_in_tiny_pieces_takes_no_more_memory_than_in_one() -> None:
    def in_pieces_of(size: int) -> Answer:
        async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 X\r\nContent-Length: 8001\r\n\r\n")
            for _ in range(8000 // size):
                writer.write(b" " * size)
                await writer.drain()
                await asyncio.sleep(0)
            writer.write(b"1")

        return answer

    whole, tiny = await peak_of(in_pieces_of(8000)), await peak_of(in_pieces_of(2))
    assert tiny < 2 * whole


@in_a_crowd
async def test_redirects_to_paths_of_the_servers_choice_leave_a_bounded_number_of_quotas() -> None:
    numbers = itertools.count()
    far = [f"x-user-limit-24hour-{each}" for each in ("limit: 999", "remaining: 99", "reset: 9e9")]

    async def leads_on(head: bytes, writer: asyncio.StreamWriter) -> None:
        await answers(302, f"Location: /a.{next(numbers)}.b", *far)(head, writer)

    limiter = Limiter(max_quotas=100)
    async with hostile(leads_on) as server, Session(server.url, limiter=limiter) as session:
        for _ in range(100):
            with pytest.raises(aiohttp.TooManyRedirects):
                await session.fetch("/x")
        assert len(server.heads) == 1000
        assert len(limiter.quotas()) <= 130


@in_virtual_time
async def test_a_server_that_names_many_windows_has_those_that_the_api_knows() -> None:
    many = [f"x-{name}-limit-remaining: 5" for name in range(100)]
    many += ["x-rate-limit-remaining: 5"] * 20
    async with hostile(answers(200, *many)) as server, Session(server.url) as session:
        await session.fetch("/x")
        assert len(session.quota("/x").windows) == 1


# Credentials -------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["Basic", "Digest", "Negotiate", "Bearer", "OAuth"])
def test_a_challenge_is_answered_with_nothing_more(scheme: str) -> None:
    @in_virtual_time
    async def scene() -> None:
        challenge = f'WWW-Authenticate: {scheme} realm="x", nonce="y", qop="auth"'
        async with (
            hostile(answers(401, challenge, f"Proxy-{challenge[4:]}")) as server,
            Session(server.url, auth=Bearer("a-token")) as session,
        ):
            with pytest.raises(AuthError):
                await session.fetch("/x")
            assert len(server.heads) == 1

    scene()
