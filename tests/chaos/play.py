"""Plays a schedule, and checks after each step what must hold."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from aiotwhelp import AiotwhelpError, Api, Priority, Session, testing
from aiotwhelp.auth import Auth
from aiotwhelp.limiter import Limiter, Permit
from aiotwhelp.queues import Line, Waiter
from aiotwhelp.quota import Granted, NotUntil
from tests.chaos.plan import Plan, compose
from tests.chaos.world import World

#: Virtual seconds within which every schedule must have ended: some wait for days of an app.
LONGEST = 40 * 86_400.0

EXPECTED = (asyncio.CancelledError, AiotwhelpError, aiohttp.ClientError, TimeoutError)


class Named(Auth):
    """A credential that is a name: users of one app."""

    context = "user"

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def app(self) -> str:
        return "the app"

    @property
    def identity(self) -> str:
        return self.name

    def authorize(self, method: str, url: Any, **_: Any) -> str:
        return self.name


class CheckedLimiter(Limiter):
    """Checks the invariants of its state after each step."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.rings = 0

    def try_acquire(self, key: Any, **options: Any) -> Permit | None:
        permit = super().try_acquire(key, **options)
        if permit is not None:
            line = self._line(key)
            ahead = line.queues[: options["priority"] + 1]
            assert not any(queue.head() for queue in ahead), "I5: a newcomer overtook a waiter"
        return permit

    def _ask(self, line: Line, waiter: Waiter, now: float) -> Granted | NotUntil:
        answer = super()._ask(line, waiter, now)
        if isinstance(answer, NotUntil):
            assert answer.at > now, "I7: a wait without a floor"
        else:
            queue = line.queues[waiter.priority]
            first = min(each.ticket for each in queue.everyone() if not each.future.done())
            assert waiter.ticket == first, "I5: out of order"
        return answer

    def _settled(self, line: Line, room: Any) -> None:
        super()._settled(line, room)
        self.check()

    def _ring(self) -> None:
        self.rings += 1
        super()._ring()
        self.check()

    def check(self) -> None:
        for line in self._lines.values():
            bucket = line.bucket
            assert bucket.calls >= 0, "I2"
            assert bucket.in_flight >= 0, "I2"
            for window in bucket.windows:
                assert window.in_flight >= 0, "I2"
                assert window.debts.unread >= 0, "I2"
                assert window.debts.ghosts >= 0, "I2"
                assert not window.is_confirmed or window.observations
            if line.head() is not None and not line.pumping:
                assert self.can_wake(line), f"I3: nobody will wake {line.key}"

    def can_wake(self, line: Line) -> bool:
        if self._is_closed or line.bucket.calls:
            return True
        if line.timer < float("inf"):
            return self._timer is not None
        parked = line.parked
        return parked is not None and (
            parked.gate.in_flight > 0 or parked.gate.blocked[0].line is not line
        )


@dataclass
class Outcome:
    """What became of a schedule."""

    plan: Plan
    requests: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    elapsed: float = 0.0


def play(seed: int) -> Outcome:
    """Play the schedule of a seed. What fails names, in one line, how to play it again."""
    plan = compose(seed)
    logging.getLogger("aiotwhelp").setLevel(logging.CRITICAL)
    try:
        return testing.run(_play(plan), seed=seed, debug=False)
    except BaseException as error:
        error.add_note(f"again: python -m tests.chaos --seed {seed}\n{plan}")
        raise
    finally:
        logging.getLogger("aiotwhelp").setLevel(logging.NOTSET)


async def _play(plan: Plan) -> Outcome:
    outcome = Outcome(plan)
    async with World(plan) as world:
        limiter = CheckedLimiter()
        timeout = aiohttp.ClientTimeout(total=plan.timeout)
        session = Session(
            Api("chaos", world.url),
            auth=Named("u:0"),
            limiter=limiter,
            retries=8,
            timeout=timeout,
        )
        async with session:
            await _storm(plan, world, session, outcome)
            world.calm()
            if not session.closed:
                await _is_well(session, limiter)
        outcome.requests = world.requests
        outcome.faults += world.faults
        outcome.elapsed = world.loop.time() - world.began
        assert limiter.stats().in_flight == limiter.stats().waiting == 0, "I8"
        assert limiter._timer is None, "I8: a timer is left"
        _judge(plan, world, limiter, outcome)
    await asyncio.sleep(40)
    assert asyncio.all_tasks() == {asyncio.current_task()}, "I8: a task is left"
    assert world.loop.network.connections == 0, "I8: a connection is left"
    return outcome


async def _storm(plan: Plan, world: World, session: Session, outcome: Outcome) -> None:
    dice = random.Random(plan.seed ^ 0xCA11)
    sessions = [session]
    sessions += [session.as_user(f"u:{n}", auth=Named(f"u:{n}")) for n in range(1, plan.users)]
    calls = [
        asyncio.ensure_future(_caller(plan, dice, sessions[n % plan.users], n))
        for n in range(plan.calls)
    ]
    for call in calls:
        if dice.random() < plan.cancelled:
            outcome.faults["cancelled"] += 1
            world.loop.call_later(dice.uniform(0, 3 * plan.length), call.cancel)
    if plan.close_at is not None:
        outcome.faults["closed"] += 1
        await asyncio.sleep(plan.close_at)
        await session.close(grace=1.0)
    async with asyncio.timeout(LONGEST):
        results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        assert result is None or isinstance(result, EXPECTED), repr(result)
        outcome.ends["served" if result is None else type(result).__name__] += 1


async def _caller(plan: Plan, dice: random.Random, session: Session, number: int) -> None:
    path = f"/1.1/route{number % plan.routes}.json"
    options: dict[str, Any] = {}
    chance = dice.random()
    if chance < plan.redirected:
        path = f"/old{path}"
    elif chance < plan.redirected + plan.away:
        path = f"/away{path}"
    elif chance > 1 - plan.written:
        options |= {"method": "POST", "json": {"text": "hello"}}
    elif chance > 1 - plan.written - plan.coalesced:
        options["coalesce"] = True
    if plan.priorities:
        options["priority"] = dice.choice(list(Priority))
    if dice.random() < plan.impatient:
        options[dice.choice(["max_wait", "total_timeout"])] = dice.uniform(0, 2 * plan.length)
    arrival = dice.uniform(0, plan.spread)
    if arrival:
        await asyncio.sleep(arrival)
    body = await session.fetch(path, **options)
    assert body["privacy"] == "of your data"


async def _is_well(session: Session, limiter: CheckedLimiter) -> None:
    """All is over: nothing is held, and the next call goes through."""
    for _ in range(20):
        await asyncio.sleep(0)
    limiter.check()
    assert limiter.stats().in_flight == limiter.stats().waiting == 0, "I8"
    async with asyncio.timeout(LONGEST):
        await session.fetch("/1.1/route0.json")
    stats = limiter.stats()
    assert limiter.rings <= 20 + 4 * stats.granted + limiter._now() / 15, "I7: it spins"


def _judge(plan: Plan, world: World, limiter: CheckedLimiter, outcome: Outcome) -> None:
    assert not world.spilled, "a credential went abroad"
    if plan.everyone_is_served:
        assert outcome.ends.keys() <= {"served", "CancelledError"}, outcome.ends
    most = plan.most_refused
    if most is not None:
        # A key that shows no headers at first opens as if it had none.
        blind = 7 if plan.has("missing", "garbled", "redirects") else 0
        for window in world.history:
            allowed = max(most, blind) if window.number == 1 else most
            assert window.seen <= allowed, f"I1: {window.seen} refused, {allowed} allowed: {window}"
