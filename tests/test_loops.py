"""On real event loops, asyncio's own and uvloop, and on one after the other."""

from __future__ import annotations

import asyncio
import importlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from aiotwhelp import (
    ClientCredentials,
    Limiter,
    MemoryLedger,
    QuotaKey,
    SessionClosedError,
    SQLiteLedger,
    WrongLoopError,
)
from aiotwhelp.emulator import Emulator
from aiotwhelp.ledger import Ledger
from tests.servers.engines import ENGINES, running
from tests.stack import PRIVACY, assert_at_rest, session_of, ticks

Run = Callable[[Coroutine[Any, Any, Any]], Any]

LIMIT = 20


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """What `asyncio.run` does, on each kind of loop."""
    if request.param == "uvloop" and sys.platform == "win32":
        pytest.skip("uvloop is not for Windows")
    loops = importlib.import_module(request.param)

    def run(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=loops.new_event_loop) as runner:
            return runner.run(main)

    return run


def call(session: Any, times: int) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(session.fetch(PRIVACY)) for _ in range(times)]


async def kinds_of(calls: list[asyncio.Task[Any]]) -> set[type]:
    return {type(each) for each in await asyncio.gather(*calls, return_exceptions=True)}


def test_many_callers_share_a_quota_some_give_up_and_the_rest_is_closed_upon(run: Run) -> None:
    async def scene() -> None:
        async with Emulator(window=1, limits={"help/privacy": LIMIT}) as api:
            async with session_of(api) as session:
                patient, impatient = call(session, LIMIT + 5), call(session, LIMIT)
                await patient[0]
                for each in impatient:
                    each.cancel()
                assert await kinds_of(patient) == {dict}
                assert await kinds_of(impatient) == {asyncio.CancelledError}
                await assert_at_rest(session)
                late = call(session, 5 * LIMIT)
                await late[0]
            assert await kinds_of(late) == {dict, SessionClosedError}
            await assert_at_rest(session)
            assert api.tally.refused == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(scene())


def test_a_caller_cancelled_in_the_tick_of_its_grant_leaves_its_permit_to_the_next(
    run: Run,
) -> None:
    async def scene() -> None:
        limiter, key = Limiter(), QuotaKey("GET /x")
        held = await limiter.acquire(key)
        first, second = [asyncio.create_task(limiter.acquire(key)) for _ in range(2)]
        await ticks()
        held.unsent()
        first.cancel()
        await ticks()
        assert first.cancelled()
        assert second.done()
        second.result().unsent()
        assert limiter.stats().in_flight == 0

    run(scene())


def test_a_session_that_a_second_loop_uses_says_so_and_can_be_closed_there(run: Run) -> None:
    async def use() -> Any:
        async with Emulator() as api:
            session = session_of(api)
            await session.fetch(PRIVACY)
            return session

    async def use_again(session: Any) -> None:
        with pytest.raises(WrongLoopError, match="belongs to another event loop"):
            await session.fetch(PRIVACY)
        await session.close()

    run(use_again(run(use())))


def test_another_thread_is_told_so_while_a_task_of_the_first_loop_is_at_work(run: Run) -> None:
    async def scene() -> None:
        async with Emulator() as api, session_of(api) as session:
            limiter, key = session.limiter, QuotaKey("GET /x")
            (await limiter.acquire(key)).unsent()
            await session.fetch(PRIVACY)

            async def try_it() -> None:
                limiter.try_acquire(key)

            for use in (try_it, partial(limiter.acquire, key), partial(session.fetch, PRIVACY)):
                told: list[type] = []

                def elsewhere(use: Any = use, told: list[type] = told) -> None:
                    with pytest.raises(WrongLoopError) as caught:
                        run(use())
                    told.append(caught.type)

                thread = threading.Thread(target=elsewhere)
                thread.start()
                thread.join(60)
                assert told == [WrongLoopError]
            await session.fetch(PRIVACY)
            await assert_at_rest(session)

    run(scene())


def test_who_is_no_task_is_at_home_in_the_loop(run: Run) -> None:
    async def scene() -> None:
        limiter, key = Limiter(), QuotaKey("GET /x")
        (await limiter.acquire(key)).unsent()
        done = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(lambda: done.set_result(limiter.try_acquire(key)))
        permit = await done
        assert permit is not None
        permit.unsent()

    run(scene())


FORKS = """
import asyncio, os, sys
from aiotwhelp import Limiter, QuotaKey, Session, WrongLoopError

async def told(use):
    try:
        await use()
    except WrongLoopError:
        return True
    return False

async def main():
    limiter, key = Limiter(), QuotaKey("GET /x")
    (await limiter.acquire(key)).unsent()
    async with Session("http://127.0.0.1:1", limiter=limiter, retries=0) as session:
        await asyncio.gather(session.fetch("/x"), return_exceptions=True)
        child = os.fork()
        if not child:
            calls = (lambda: limiter.acquire(key), lambda: session.fetch("/x"))
            os._exit(0 if all([asyncio.run(told(each)) for each in calls]) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        (await limiter.acquire(key)).unsent()

asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing can be forked here")
def test_a_process_that_is_forked_by_a_task_is_told_so() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_a_credential_serves_one_loop_after_the_other(run: Run) -> None:
    async def use(auth: ClientCredentials | None = None) -> ClientCredentials:
        async with Emulator() as api:
            auth = auth or ClientCredentials(api.user.consumer_key, api.user.consumer_secret)
            async with session_of(api, auth=auth) as session:
                await session.fetch(PRIVACY)
            assert api.tally.refused == 0
        return auth

    run(use(run(use())))


# A ledger ------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "sqlite", "a file's URL", "redis"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger | str]:
    """What limiters of several loops may have in common, one after the other."""
    if request.param == "memory":
        yield MemoryLedger()
    elif request.param == "sqlite":
        yield SQLiteLedger(tmp_path / "quota.db")
    elif request.param == "redis":
        with running(ENGINES["redis"]) as engine:
            yield engine.url
    else:
        yield f"sqlite:///{tmp_path / 'quota.db'}"


@pytest.mark.usefixtures("unhurried")
def test_loops_one_after_the_other_go_on_with_what_a_ledger_knows(
    run: Run, shared: Ledger | str
) -> None:
    key = QuotaKey("GET /things", "api", "somebody")
    ends = str(int(time.time()) + 600)

    async def play(*left: int) -> int | None:
        limiter = Limiter(ledger=shared)
        known = []
        for remaining in left:
            async with limiter.permit(key, max_wait=100) as permit:
                known.append(limiter.quota(key).limit)
                told = {"limit": "15", "remaining": str(remaining), "reset": ends}
                permit.observed({f"x-rate-limit-{name}": value for name, value in told.items()})
        await limiter.close()
        return known[0]

    assert run(play(14, 13)) is None
    assert run(play(12, 11)) == 15, "the first call of another loop knows it"
    if not isinstance(shared, str):
        run(shared.close())
