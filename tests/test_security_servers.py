"""A server that means harm: it takes no memory, holds nobody for ever, and answers nobody else."""

from __future__ import annotations

import asyncio
import itertools
import tracemalloc

import pytest

from aiotwhelp import Session
from tests.hostile import Answer, hostile
from tests.stack import assert_at_rest, connections_in_use, in_a_crowd, in_virtual_time


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
