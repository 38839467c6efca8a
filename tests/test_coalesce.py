"""Equal fetches in flight are one request, and everyone keeps what is theirs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aiotwhelp import ApiError, BodyError
from aiotwhelp.coalesce import Coalescer
from aiotwhelp.emulator import Emulator
from tests.stack import PRIVACY, assert_at_rest, in_virtual_time, oauth1_of, session_of, ticks


@in_virtual_time
async def test_equal_fetches_are_one_request_and_each_gets_its_own_copy() -> None:
    async with (
        Emulator(limits={"help/privacy": 1}) as api,
        session_of(api, coalesce=True) as session,
    ):
        one, *others = await asyncio.gather(*(session.fetch(PRIVACY) for _ in range(50)))
        one["privacy"] = "mine"
        assert all(other["privacy"] != "mine" for other in others)
        assert api.tally.received == 1
        await assert_at_rest(session)


@in_virtual_time
async def test_a_body_nested_too_deeply_for_a_callers_own_copy_is_an_error_of_ours() -> None:
    async def from_afar(calls: int) -> Any:
        # Each call takes a frame of the stack, of which the decoder takes one for each list.
        return await (from_afar(calls - 1) if calls else session.fetch("/x"))

    async with Emulator() as api, session_of(api, coalesce=True) as session:
        api.reply("GET", "/x", body=b"[" * 700 + b"]" * 700)
        assert await session.fetch("/x")
        (outcome,) = await asyncio.gather(from_afar(400), return_exceptions=True)
        # From Python 3.12 on the decoder has a stack of its own.
        assert isinstance(outcome, list | BodyError)
        await assert_at_rest(session)


@pytest.mark.parametrize(
    "other",
    [
        {"params": {"a": "2"}},
        {"params": {"a": 1}},
        {"headers": {"Accept": "x"}},
        {"method": "HEAD"},
        {"max_body": 10_000_000},
        {"data": b"1"},
        {"coalesce": False},
    ],
    ids=str,
)
def test_calls_that_differ_are_never_one(other: dict[str, Any]) -> None:
    @in_virtual_time
    async def scene() -> None:
        async with Emulator(limit=900) as api, session_of(api, coalesce=True) as session:
            await asyncio.gather(
                session.fetch(PRIVACY, params={"a": "1"}),
                session.fetch(PRIVACY, **({"params": {"a": "1"}} | other)),
                return_exceptions=True,  # the emulator knows no HEAD
            )
            assert api.tally.received == 2

    scene()


@in_virtual_time
async def test_calls_of_two_users_are_never_one_nor_are_writes() -> None:
    async with Emulator(limit=900, users=2) as api, session_of(api, coalesce=True) as session:
        users = [session.as_user(f"u:{u.id}", auth=oauth1_of(u)) for u in api.users]
        await asyncio.gather(*(user.fetch(PRIVACY) for user in (session, *users)))
        assert api.tally.received == 3
        path = "/1.1/friendships/update.json"
        await asyncio.gather(*(users[0].fetch(path, method="POST") for _ in range(2)))
        assert api.tally.received == 5


@in_virtual_time
async def test_a_caller_that_leaves_does_not_take_the_others_along() -> None:
    async with Emulator(latency=1) as api, session_of(api, coalesce=True) as session:
        calls = [asyncio.create_task(session.fetch(PRIVACY)) for _ in range(5)]
        await asyncio.sleep(0.5)
        calls[0].cancel()
        answers = await asyncio.gather(*calls[1:])
        assert all("privacy" in each for each in answers)
        assert api.tally.received == 1
        await assert_at_rest(session)


@pytest.mark.parametrize("at", [0.0, 0.1, 0.5, 0.9])
def test_when_all_have_left_the_request_is_given_up(at: float) -> None:
    @in_virtual_time
    async def scene() -> None:
        async with Emulator(latency=1) as api, session_of(api, coalesce=True) as session:
            calls = [asyncio.create_task(session.fetch(PRIVACY)) for _ in range(5)]
            await asyncio.sleep(at)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            await assert_at_rest(session)
            assert "privacy" in await session.fetch(PRIVACY)
            await assert_at_rest(session)

    scene()


@in_virtual_time
async def test_each_caller_gets_an_error_of_its_own() -> None:
    async with Emulator() as api, session_of(api, coalesce=True) as session:
        api.reply("GET", "/x", status=404, json={"errors": [{"code": 34}]})
        errors = await asyncio.gather(
            *(session.fetch("/x") for _ in range(3)), return_exceptions=True
        )
        assert [each.codes for each in errors if isinstance(each, ApiError)] == [(34,)] * 3
        assert len({id(each) for each in errors}) == 3
        assert len(api.requests) == 1


@in_virtual_time
async def test_an_error_that_cannot_be_copied_is_shared() -> None:
    class StubbornError(Exception):
        def __reduce__(self) -> Any:
            raise TypeError

    async def work() -> None:
        await asyncio.sleep(1)
        raise StubbornError

    coalescer: Coalescer[None] = Coalescer()
    errors = await asyncio.gather(
        coalescer.join(1, work), coalescer.join(1, work), return_exceptions=True
    )
    assert [type(each) for each in errors] == [StubbornError] * 2
    assert repr(coalescer) == "<Coalescer 0 in flight>"


@in_virtual_time
async def test_a_newcomer_begins_another_flight_when_the_last_was_given_up() -> None:
    began = 0

    async def work() -> int:
        nonlocal began
        began += 1
        await asyncio.sleep(1)
        return began

    coalescer: Coalescer[int] = Coalescer()
    first = asyncio.create_task(coalescer.join("k", work))
    await ticks(2)
    first.cancel()
    await ticks(1)
    assert await coalescer.join("k", work) == 2


@in_virtual_time
async def test_callers_wake_in_the_order_in_which_they_came() -> None:
    coalescer: Coalescer[None] = Coalescer()
    order: list[int] = []

    async def call(number: int) -> None:
        await coalescer.join("k", lambda: asyncio.sleep(1))
        order.append(number)

    await asyncio.gather(*map(call, range(100)))
    assert order == list(range(100))
