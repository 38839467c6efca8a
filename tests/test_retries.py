"""The policy: what is tried again, when, and how much an outage costs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from aiotwhelp import ApiError, BodyNotReplayableError, QuotaTimeoutError, Session, events
from aiotwhelp.apis import IDEMPOTENT_METHODS
from aiotwhelp.retries import Failure, Retries, RetryBudget, may_be_mended, may_be_repeated
from tests.stack import (
    assert_at_rest,
    drop,
    elapsed,
    in_a_crowd,
    in_virtual_time,
    plain_api,
    quota_headers,
    scripted,
    serving,
)


class Attempts:
    """Fails by a script of failures, then succeeds."""

    def __init__(self, *failures: Failure) -> None:
        self.failures = list(failures)
        self.made = 0
        self.pauses: list[float] = []

    async def __call__(self) -> str:
        self.made += 1
        if self.failures:
            raise self.failures.pop(0)
        return "done"

    async def pause(self, delay: float, failure: Failure, attempt: int) -> None:
        assert attempt == self.made
        self.pauses.append(delay)

    async def run(self, retries: Retries, time_left: Callable[[], float] = lambda: 1e9) -> str:
        try:
            return await self()
        except Failure as failure:
            first = failure
        return await retries.after(first, self, pause=self.pause, time_left=time_left)


def failure(error: Exception | None = None, **facts: Any) -> Failure:
    return Failure("it failed", error=error or OSError("down"), **facts)


@in_virtual_time
async def test_the_back_off_doubles_with_full_jitter_up_to_twenty_seconds() -> None:
    attempts = Attempts(*(failure() for _ in range(8)))
    assert await attempts.run(Retries(8, random=lambda: 1.0)) == "done"
    assert attempts.pauses == [0.5, 1, 2, 4, 8, 16, 20, 20]


@in_virtual_time
async def test_retry_after_comes_before_the_jitter_and_has_a_ceiling() -> None:
    attempts = Attempts(failure(after=7.0), failure(after=1e9))
    await attempts.run(Retries(4, random=lambda: 0.0))
    assert attempts.pauses == [7.0, 960.0]


@in_virtual_time
async def test_no_pause_is_begun_that_the_time_left_does_not_cover() -> None:
    attempts = Attempts(failure(after=7.0))
    with pytest.raises(OSError, match="down"):
        await attempts.run(Retries(4), time_left=lambda: 6.9)
    assert attempts.pauses == []


@in_virtual_time
async def test_the_last_failure_is_what_is_raised_without_a_trace_of_our_own() -> None:
    last = ConnectionError("the last")
    attempts = Attempts(failure(), failure(last))
    with pytest.raises(ConnectionError) as caught:
        await attempts.run(Retries(1))
    assert caught.value is last
    assert caught.value.__context__ is None
    assert attempts.made == 2


@in_virtual_time
async def test_otherwise_has_the_last_word() -> None:
    async def otherwise() -> str:
        return "the answer, such as it is"

    attempts = Attempts(failure(otherwise=otherwise))
    assert await attempts.run(Retries(0)) == "the answer, such as it is"


@in_virtual_time
async def test_a_cancelled_pause_gives_its_cost_back() -> None:
    budget = RetryBudget()

    async def pause(*_: Any) -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await Retries(4, budget).after(failure(), Attempts(), pause=pause, time_left=lambda: 1e9)
    assert repr(budget) == "<RetryBudget 500/500>"


def test_the_budget_costs_more_after_a_timeout_and_never_overflows() -> None:
    budget = RetryBudget(12)
    assert budget.draw(timed_out=True) == 10
    assert budget.draw(timed_out=False) == 0
    budget.refill(10)
    budget.refill()
    assert repr(budget) == "<RetryBudget 12/12>"


@pytest.mark.parametrize("retries", [-1, 1.5, True, None, "4"])
def test_retries_are_a_number_from_zero_on(retries: Any) -> None:
    with pytest.raises(ValueError, match="retries is a whole number"):
        Retries(retries)


@pytest.mark.parametrize(
    ("method", "never_left", "repeated"),
    [
        ("GET", False, True),
        ("PUT", False, True),
        ("DELETE", False, True),
        ("POST", False, False),
        ("PATCH", False, False),
        ("POST", True, True),
    ],
)
def test_only_idempotent_methods_go_again_after_a_broken_connection(
    method: str, never_left: bool, repeated: bool
) -> None:
    assert may_be_repeated(method, IDEMPOTENT_METHODS, never_left=never_left) is repeated


@pytest.mark.parametrize(
    ("method", "status", "retry_after", "mended"),
    [
        ("GET", 500, None, True),
        ("DELETE", 503, None, True),
        ("GET", 501, None, False),
        ("GET", 404, None, False),
        ("POST", 500, 1.0, False),
        ("POST", 503, None, False),
        ("POST", 503, 0.0, True),
    ],
)
def test_a_failing_answer_is_mended_where_that_does_no_harm(
    method: str, status: int, retry_after: float | None, mended: bool
) -> None:
    assert may_be_mended(method, IDEMPOTENT_METHODS, status, retry_after) is mended


# Over HTTP -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
def test_an_idempotent_call_is_made_again_after_a_5xx(method: str) -> None:
    @in_virtual_time
    async def scene() -> None:
        async with serving(scripted(502, 504, 200)) as web, Session(web.url) as session:
            async with session.request(method, "/x") as response:
                assert response.status == 200
            assert len(web.seen) == 3
            await assert_at_rest(session)

    scene()


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_write_is_not_repeated_after_a_5xx(method: str, status: int) -> None:
    @in_virtual_time
    async def scene() -> None:
        async with serving(scripted(status, 200)) as web, Session(web.url) as session:
            async with session.request(method, "/x", json={}) as response:
                assert response.status == status
            assert len(web.seen) == 1

    scene()


@pytest.mark.parametrize("status", [429, 503])
def test_a_write_that_was_refused_goes_again(status: int) -> None:
    @in_virtual_time
    async def scene() -> None:
        def refuse(_: web.Request) -> web.Response:
            return web.Response(status=status, headers={"Retry-After": "3"})

        async with serving(scripted(refuse, 200)) as server, Session(server.url) as session:
            async with session.post("/x", json={"a": 1}) as response:
                assert response.status == 200
            assert server.bodies == [b'{"a": 1}'] * 2
            assert elapsed() >= 3

    scene()


@in_virtual_time
async def test_a_write_whose_connection_broke_is_not_repeated() -> None:
    async with serving(scripted(drop, 200)) as web, Session(web.url) as session:
        with pytest.raises(aiohttp.ServerDisconnectedError) as caught:
            await session.post("/x", data=b"1")
        assert caught.value.__cause__ is not caught.value
        assert len(web.seen) == 1
        await assert_at_rest(session)


@in_virtual_time
async def test_a_write_that_timed_out_is_not_repeated() -> None:
    async def slow(_: web.Request) -> web.Response:
        await asyncio.sleep(10)
        return web.Response()

    async with serving(slow) as server, Session(server.url) as session:
        with pytest.raises(TimeoutError, match="no answer within the timeout of an attempt"):
            await session.post("/x", timeout=aiohttp.ClientTimeout(total=1))
        assert len(server.seen) == 1
        await assert_at_rest(session)


@in_virtual_time
async def test_a_write_that_never_left_goes_again_and_its_token_goes_back() -> None:
    network = asyncio.get_running_loop().network
    async with serving(scripted(200)) as web, Session(web.url) as session:
        address = ("127.0.0.1", int(web.url.rpartition(":")[2]))
        network.refuse(address)
        asyncio.get_running_loop().call_later(2, network.allow, address)
        async with session.post("/x", data=b"1", retries=8) as response:
            assert response.status == 200
        assert web.bodies == [b"1"]
        assert session.limiter.stats().lost == 0
        await assert_at_rest(session)


@pytest.mark.parametrize("options", [{}, {"total_timeout": 1}], ids=["cancelled", "out of time"])
def test_a_call_that_ends_while_it_connects_costs_no_token(options: dict[str, float]) -> None:
    def answer(_: web.Request) -> web.Response:
        return web.json_response({}, headers=quota_headers(7))

    @in_virtual_time
    async def scene() -> None:
        network = asyncio.get_running_loop().network
        async with serving(scripted(answer)) as server, Session(server.url) as session:
            await session.fetch("/x")
            network.cut()
            network.latency = 1000
            call = asyncio.ensure_future(session.fetch("/x", **options))
            await asyncio.sleep(2)
            call.cancel()
            await asyncio.wait([call])
            assert session.quota("/x").remaining == 7
            assert session.limiter.stats().lost == 0
            network.latency = 0
            await assert_at_rest(session)

    scene()


@in_virtual_time
async def test_attempts_that_time_out_are_repeated_each_with_its_own_timeout() -> None:
    waits = [10.0, 10.0, 0.0]

    async def slow(_: web.Request) -> web.Response:
        await asyncio.sleep(waits.pop(0))
        return web.Response()

    async with serving(slow) as server, Session(server.url) as session:
        async with session.get("/x", timeout=aiohttp.ClientTimeout(total=1)) as response:
            assert response.status == 200
        assert len(server.seen) == 3


@in_virtual_time
async def test_retries_zero_gives_the_failure_as_it_is() -> None:
    async with serving(scripted(503, 200)) as web, Session(web.url, retries=0) as session:
        async with session.get("/x") as response:
            assert response.status == 503
        async with session.get("/x", retries=1) as response:
            assert response.status == 200
        assert len(web.seen) == 2


@in_virtual_time
async def test_each_retry_is_told_with_its_reason() -> None:
    told: list[events.Event] = []
    async with (
        serving(scripted(503, drop, 200)) as web,
        Session(web.url, on_event=told.append) as session,
    ):
        await session.fetch("/x")
    retrying = [event for event in told if isinstance(event, events.Retrying)]
    assert [(event.attempt, event.reason.partition(":")[0]) for event in retrying] == [
        (1, "status 503"),
        (2, "ServerDisconnectedError"),
    ]


@in_a_crowd
async def test_a_thousand_callers_in_an_outage_cost_a_hundred_retries_more() -> None:
    def fail(_: web.Request) -> web.Response:
        return web.Response(status=500, headers=quota_headers(900))

    async with (
        serving(scripted(fail)) as server,
        Session(server.url, concurrency=100) as session,
    ):
        # Headers tell that there is quota, so that the gate lets the storm through.
        answers = await asyncio.gather(
            *(session.fetch(f"/{n}/x/{n % 7}a") for n in range(1000)), return_exceptions=True
        )
        assert {type(each) for each in answers} == {ApiError}
        # 500 in the budget, 5 a retry.
        assert len(server.seen) == 1000 + 100
        await assert_at_rest(session)


@in_a_crowd
async def test_resends_by_aiohttp_draw_from_the_same_budget() -> None:
    opens = quota_headers(900)
    steps = [web.json_response({}, headers=opens) for _ in range(100)]

    async def handle(request: web.Request) -> web.StreamResponse:
        return steps.pop() if steps else drop(request)

    async with serving(handle) as server, Session(server.url, concurrency=100) as session:
        await asyncio.gather(*(session.fetch("/x") for _ in range(100)))
        answers = await asyncio.gather(
            *(session.fetch("/x") for _ in range(300)), return_exceptions=True
        )
        assert {type(each) for each in answers} == {aiohttp.ServerDisconnectedError}
        # 500 in the budget, 5 a retry, whoever makes it.
        assert len(server.seen) == 100 + 300 + 100
        await assert_at_rest(session)


@in_virtual_time
async def test_a_resend_that_succeeds_gives_its_cost_back() -> None:
    def answer(_: web.Request) -> web.Response:
        return web.json_response({}, headers=quota_headers(900))

    async with (
        serving(scripted(answer, drop, answer)) as server,
        Session(server.url) as session,
    ):
        began = elapsed()
        for _ in range(2):
            await session.fetch("/x")
        assert len(server.seen) == 3
        assert elapsed() == began  # aiohttp makes no pause
        assert repr(session._settings.retries.budget) == "<RetryBudget 500/500>"


@in_a_crowd
async def test_an_outage_without_headers_is_asked_about_one_call_at_a_time() -> None:
    async with serving(scripted(500)) as server, Session(server.url, concurrency=100) as session:
        answers = await asyncio.gather(
            *(session.fetch(f"/x/{n % 7}a") for n in range(1000)), return_exceptions=True
        )
        assert {type(each) for each in answers} == {ApiError, QuotaTimeoutError}
        # Seven quotas, each asked at growing intervals until all were told.
        assert len(server.seen) <= 7 * 10
        assert elapsed() <= 300
        await assert_at_rest(session)


@in_virtual_time
async def test_total_timeout_bounds_waits_pauses_and_attempts_together() -> None:
    async with serving(scripted(503)) as web, Session(web.url, total_timeout=3) as session:
        with pytest.raises((TimeoutError, aiohttp.ClientResponseError)):
            await session.fetch("/x", retries=50)
        assert elapsed() <= 3
        await assert_at_rest(session)


@in_virtual_time
async def test_total_timeout_cuts_an_attempt_off() -> None:
    async def never(_: web.Request) -> web.Response:
        await asyncio.sleep(100)
        return web.Response()

    async with serving(never) as server, Session(server.url) as session:
        with pytest.raises(
            TimeoutError, match=r"^GET /x had no answer within its total_timeout of 2"
        ):
            await session.fetch("/x", total_timeout=2)
        assert elapsed() == pytest.approx(2, abs=0.1)
        await assert_at_rest(session)


@in_virtual_time
async def test_a_total_timeout_that_ends_in_the_queue_is_about_the_quota() -> None:
    async def never(_: web.Request) -> web.Response:
        await asyncio.sleep(100)
        return web.Response()

    async with serving(never) as server, Session(server.url, total_timeout=1.5) as session:
        first, second = await asyncio.gather(
            session.fetch("/x"), session.fetch("/x"), return_exceptions=True
        )
        assert type(first) is TimeoutError
        assert isinstance(second, QuotaTimeoutError)
        assert str(second).startswith("no quota for GET /x within 1.5 s: ")
        assert elapsed() == pytest.approx(1.5, abs=0.1)
        await assert_at_rest(session)


@in_virtual_time
async def test_a_middleware_that_gives_up_is_not_repeated() -> None:
    async def impatient(request: aiohttp.ClientRequest, handler: Any) -> aiohttp.ClientResponse:
        raise QuotaTimeoutError("another gate is full")

    async with serving(scripted(200)) as web, Session(web.url) as session:
        with pytest.raises(QuotaTimeoutError):
            await session.get("/x", middlewares=[impatient])
        assert not web.seen
        await assert_at_rest(session)


# Writes that had worked ------------------------------------------------------------------------


def refused_as_done(code: int) -> Callable[[web.Request], web.StreamResponse]:
    return lambda _: web.json_response({"errors": [{"code": code, "message": "no"}]}, status=403)


@pytest.mark.parametrize("code", [139, 160, 187, 327])
@pytest.mark.parametrize("first", [500, drop], ids=["500", "dropped"])
def test_a_write_that_had_worked_says_so(code: int, first: Any) -> None:
    @in_virtual_time
    async def scene() -> None:
        script = scripted(first, refused_as_done(code))
        async with serving(script) as web, Session(web.url) as session:
            with pytest.raises(aiohttp.ClientResponseError, match="it had worked") as caught:
                await session.put("/x", data=b"1")
            assert caught.value.codes == (code,)
            await assert_at_rest(session)

    scene()


@pytest.mark.parametrize("first", [429, None], ids=["refused", "no earlier attempt"])
def test_a_write_that_was_merely_refused_before_has_not_worked(first: int | None) -> None:
    @in_virtual_time
    async def scene() -> None:
        def refuse(_: web.Request) -> web.Response:
            return web.Response(status=429, headers={"Retry-After": "1"})

        steps: list[Any] = [refuse] if first else []
        async with (
            serving(scripted(*steps, refused_as_done(187))) as server,
            Session(server.url) as session,
        ):
            async with session.put("/x", data=b"1") as response:
                assert response.status == 403
                assert (await response.json())["errors"][0]["code"] == 187
            assert len(server.seen) == len(steps) + 1

    scene()


@in_virtual_time
async def test_a_write_whose_first_attempt_never_left_has_not_worked() -> None:
    network = asyncio.get_running_loop().network
    async with serving(scripted(refused_as_done(139))) as web, Session(web.url) as session:
        address = ("127.0.0.1", int(web.url.rpartition(":")[2]))
        network.refuse(address)
        asyncio.get_running_loop().call_later(0.1, network.allow, address)
        async with session.put("/x", retries=9) as response:
            assert response.status == 403


@in_virtual_time
async def test_an_api_may_say_what_else_is_idempotent() -> None:
    async with serving(scripted(500, 200)) as web:
        api = plain_api(web.url, idempotent=frozenset({"POST"}))
        async with Session(api) as session, session.post("/x", data=b"1") as response:
            assert response.status == 200
        assert len(web.seen) == 2


def test_body_not_replayable_is_a_client_error() -> None:
    assert issubclass(BodyNotReplayableError, aiohttp.ClientError)
