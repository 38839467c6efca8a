"""Plays a schedule, and checks after each step what must hold."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from math import log2
from typing import Any

import aiohttp
import aiohttp.connector
import pytest

from aiotwhelp import AiotwhelpError, Api, Priority, Rate, RateLimitError, Session, alarm, testing
from aiotwhelp.auth import Auth
from aiotwhelp.dialects import AUTO
from aiotwhelp.headers import FIFTEEN_MINUTES, X_DIALECT, WindowReading
from aiotwhelp.limiter import Limiter
from aiotwhelp.views import QuotaKey
from aiotwhelp.windows import LONGEST_ROUND_TRIP
from tests.chaos.checks import CheckedLimiter
from tests.chaos.plan import LIES, LOSSES, Plan, compose
from tests.chaos.world import EVERYWHERE, World

#: Virtual seconds within which every schedule must have ended: some wait for days of an app.
LONGEST = 40 * 86_400.0

#: Seconds after which a timer looks again whether the machine slept.
LONGEST_TIMER = 600.0

#: Where the first user calls the first route, and the name of the window that counts it.
PATH = "/1.1/route0.json"
OWN = ("u:0", "GET", PATH)

#: X's, by which a refusal can hold for all routes.
DIALECT = replace(X_DIALECT, everywhere=((EVERYWHERE, "true"),))

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
        with pytest.MonkeyPatch.context() as patch:
            return testing.run(_play(plan, patch), seed=seed, debug=False)
    except BaseException as error:
        error.add_note(f"again: python -m tests.chaos --seed {seed}\n{plan}")
        raise
    finally:
        logging.getLogger("aiotwhelp").setLevel(logging.NOTSET)


async def _play(plan: Plan, patch: pytest.MonkeyPatch) -> Outcome:
    loop = asyncio.get_running_loop()
    # By the real clock no idle connection would ever be too old.
    patch.setattr(aiohttp.connector, "monotonic", loop.time)
    # No machine sleeps here, and a look every 30 s whether one has would be a tenth of all work.
    patch.setattr(alarm, "_LONGEST_TIMER", LONGEST_TIMER)
    unseen: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: unseen.append(context))
    try:
        return await _storm_and_calm(plan)
    finally:
        _raise_first(unseen)


async def _storm_and_calm(plan: Plan) -> Outcome:
    outcome = Outcome(plan)
    async with World(plan) as world:
        limiter = limiter_of(plan, world)
        timeout = aiohttp.ClientTimeout(total=plan.timeout)
        session = Session(
            Api("chaos", world.url, dialect=DIALECT if plan.outcry else AUTO),
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
        assert not limiter._turns.alarm.is_armed, "I8: a timer is left"
        _judge(plan, world, limiter, outcome)
    await asyncio.sleep(40)
    assert asyncio.all_tasks() == {asyncio.current_task()}, "I8: a task is left"
    assert world.loop.network.connections == 0, "I8: a connection is left"
    return outcome


def _raise_first(unseen: list[dict[str, Any]]) -> None:
    """Raise what went wrong in a callback of the loop: the rest may be its consequence."""
    for context in unseen:
        raise context.get("exception") or AssertionError(context["message"])


def limiter_of(plan: Plan, world: World) -> CheckedLimiter:
    options: dict[str, Any] = {"reserve": plan.reserve}
    if plan.rate:
        options["rates"] = {"/1.1/route0.json": Rate(1, per=plan.rate)}
    if plan.max_quotas:
        options["max_quotas"] = plan.max_quotas
    return CheckedLimiter(plan, world, **options)


async def _storm(plan: Plan, world: World, session: Session, outcome: Outcome) -> None:
    dice = random.Random(plan.seed ^ 0xCA11)
    users = [session.as_user(f"u:{n}", auth=Named(f"u:{n}")) for n in range(plan.users)]
    limiter = session.limiter
    assert isinstance(limiter, CheckedLimiter)
    limiter.names = {f"u:{n}": f"u:{n}" for n in range(plan.users)}
    if plan.primed:
        _prime(plan, world, limiter)
    if plan.restored:
        _restore(plan, world, session)
    keys = [user._settings.caller.key("GET", f"{world.url}/1.1/route0.json") for user in users]
    horde = [
        asyncio.ensure_future(_stand_in_line(limiter, keys[0], session)) for _ in range(plan.horde)
    ]
    calls = [
        asyncio.ensure_future(_caller(plan, dice, users[n % plan.users], n))
        for n in range(plan.calls)
    ]
    world.callers = {str(number): call for number, call in enumerate(calls)}
    for call in calls:
        if dice.random() < plan.cancelled / 2:
            outcome.faults["cancelled"] += 1
            world.loop.call_later(dice.uniform(0, 3 * plan.length), call.cancel)
    if plan.close_at is not None:
        outcome.faults["closed"] += 1
        await asyncio.sleep(plan.close_at)
        await session.close(grace=1.0)
    async with asyncio.timeout(LONGEST):
        results = await asyncio.gather(*calls, return_exceptions=True)
        await asyncio.gather(*horde)
        if plan.lull and not session.closed:
            results += await _lull(plan, world, session)
        if plan.brink and not session.closed:
            results += await _cross(plan, world, session)
    # A limit that is a lie may be below a call's cost: then it never fits.
    expected = (*EXPECTED, ValueError) if plan.lies and plan.costly else EXPECTED
    for result in results:
        if result is not None and not isinstance(result, expected):
            raise result
        outcome.ends["served" if result is None else type(result).__name__] += 1


def _restore(plan: Plan, world: World, session: Session) -> None:
    """Hand the limiter what an earlier run knew, as far as it still holds or not."""
    caller = session.as_user("u:0", auth=Named("u:0"))._settings.caller
    key, now = caller.key("GET", world.url + PATH), int(world.clock())
    used = random.Random(plan.seed).randint(0, plan.limit)
    limiter = session.limiter
    assert isinstance(limiter, CheckedLimiter)
    if plan.restored == "it holds":
        count = world.spend(OWN, used, now + plan.length / 2)
        reading = (plan.limit - used, count.ends)
    else:
        world.spend(OWN, plan.limit - 1, now + plan.length)
        reading = (plan.limit, now - 1.0 if plan.restored == "it has reset" else None)
    limiter.restore(key, [WindowReading(FIFTEEN_MINUTES, reading[0], plan.limit, reading[1])])
    if plan.restored != "it holds":
        assert limiter.quota(key).remaining is None, "case 46: what has reset is believed"


async def _call(session: Session, times: int, **options: Any) -> list[Any]:
    """Make some calls at once; return their failures, but not that an impatient one has gone."""
    user = session.as_user("u:0", auth=Named("u:0"))
    calls = (user.fetch(PATH, **options) for _ in range(times))
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    gone = TimeoutError if options else ()
    failed = [each for each in outcomes if isinstance(each, BaseException)]
    return [each for each in failed if not isinstance(each, gone)]


async def _lull(plan: Plan, world: World, session: Session) -> list[Any]:
    """Whoever was refused at the reset goes away, and nobody asks for a while; twice."""
    dice, failed = random.Random(plan.seed), []
    for _ in range(2):
        failed += await _call(session, 1)
        count = world.counts[OWN]
        left = count.limit - count.used
        if left > 40:
            break
        failed += await _call(session, left)
        late = dice.uniform(0.0, 1.0) * plan.late
        await asyncio.sleep(max(0.0, world.counts[OWN].ends + late - world.clock()))
        failed += await _call(session, 1, total_timeout=0.5)
        await asyncio.sleep(dice.uniform(20.0, 60.0))
    return failed + await _call(session, 1)


async def _cross(plan: Plan, world: World, session: Session) -> list[Any]:
    """Calls are on their way while one window gives way to the next, sooner or later than told."""
    failed = []
    for _ in range(3):
        await asyncio.sleep(2 * plan.length)
        failed += await _call(session, 12)
        count = world.counts[OWN]
        until = count.ends - plan.early + plan.late - sum(plan.latency) / 2
        if count.limit - count.used < 8:
            continue
        await asyncio.sleep(max(0.0, until - world.clock() - 1.0))
        # Whether the window goes on is known before: only an early one gives way unawares.
        failed += await _call(session, 1)
        await asyncio.sleep(max(0.0, until - world.clock()))
        failed += await _call(session, 6)
    return failed


async def _dawdle(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """A user's middleware that takes its time, and fails now and then before anything is sent."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(loop.time() % 1)
    if loop.time() % 1 < 0.5:
        raise aiohttp.ClientConnectionError("a middleware gave up")
    return await handler(request)


async def _stand_in_line(limiter: Limiter, key: QuotaKey, session: Session) -> None:
    """Wait for a permit behind all callers, and do without the call."""
    await asyncio.sleep(1)
    try:
        permit = await limiter.acquire(
            key, owner=session._settings.pool, max_wait=1e6, priority=Priority.BATCH
        )
    except AiotwhelpError:
        return
    permit.unsent()


def _prime(plan: Plan, world: World, limiter: CheckedLimiter) -> None:
    """Tell the limiter, in the first windows, what was true when each of them began."""
    for line in limiter._lines.values():
        for window in line.bucket.windows:
            count = world.counts.get(limiter.name_of(line.key, window.kind))
            if count is not None:
                world.faults["a stale number"] += 1
                stale = WindowReading(window.kind, count.limit, count.limit, count.ends)
                limiter.prime(line.key, [stale])
    if world.loop.time() < world.began + 5 * plan.length:
        world.loop.call_later(plan.length / 9, _prime, plan, world, limiter)


async def _caller(plan: Plan, dice: random.Random, session: Session, number: int) -> None:
    path, options = _what_to_call(plan, dice, number)
    arrival = dice.uniform(0, plan.spread)
    if plan.has("app") and not plan.together:
        arrival += 3.0 * (number % plan.users)  # some come when the app's window is known
    if arrival:
        await asyncio.sleep(arrival)
    body = await session.fetch(path, **options)
    assert body["privacy"] == "of your data"


def _what_to_call(plan: Plan, dice: random.Random, number: int) -> tuple[str, dict[str, Any]]:
    path = f"/1.1/route{number % plan.routes}.json"
    headers = {"X-Number": str(number)}
    options: dict[str, Any] = {"headers": headers}
    chance = dice.random()
    if chance < plan.redirected:
        path = f"/old{path}"
    elif chance < plan.redirected + plan.away:
        path = f"/away{path}"
    elif chance > 1 - plan.written:
        options |= {"method": "POST", "json": {"text": "hello"}}
    elif chance > 1 - plan.written - plan.coalesced:
        return path, {"coalesce": True}
    if dice.random() < plan.dawdling:
        options["middlewares"] = [_dawdle]
    if dice.random() < plan.costly and not plan.rate:  # a rate has a burst of 1
        cost = dice.randint(1, max(1, plan.most_at_once // 3))
        headers["X-Cost"], options["cost"] = str(cost), cost
    if plan.priorities:
        options["priority"] = dice.choice(list(Priority))
    if dice.random() < plan.impatient:
        options[dice.choice(["max_wait", "total_timeout"])] = dice.uniform(0, 2 * plan.length)
    return path, options


async def _is_well(session: Session, limiter: CheckedLimiter) -> None:
    """All is over: nothing is held, and the next call goes through."""
    for _ in range(20):
        await asyncio.sleep(0)
    limiter.check_all()
    assert limiter.stats().in_flight == limiter.stats().waiting == 0, "I8"
    async with asyncio.timeout(LONGEST):
        try:
            await session.as_user("u:0", auth=Named("u:0")).fetch("/1.1/route0.json")
        except RateLimitError:
            assert limiter.plan.no_reset, "nothing goes wrong any more"
    if most := limiter.plan.max_quotas:
        # A quota is in use while a call that was lost may be yet to be counted.
        await asyncio.sleep(2 * LONGEST_ROUND_TRIP)
        for stranger in range(40):
            (await limiter.acquire(f"stranger {stranger}")).unsent()
        assert len(limiter.quotas()) <= 1.25 * most + 2, "case 44: too many quotas are kept"
    stats = limiter.stats()
    most = 20 + 4 * stats.granted + 2 * limiter._home.now() / LONGEST_TIMER
    assert limiter.rings <= most, "I7: it spins"


def _judge(plan: Plan, world: World, limiter: CheckedLimiter, outcome: Outcome) -> None:
    assert not world.spilled, "a credential went abroad"
    assert world.requests <= limiter.stats().granted, "case 41: a request without a permit"
    if plan.everyone_is_served:
        assert outcome.ends.keys() <= {"served", "CancelledError"}, outcome.ends
    if plan.is_spent_to_the_end:
        spent = {count.key: count for count in world.history}
        for count in world.history:
            full = count.used == count.limit or count is spent[count.key] or count.key[0] == "app"
            assert full, f"I4: not spent: {count}"
    for name, lost in world.in_silence.items():
        most = plan.limit + 15
        if plan.refills and plan.silence:
            most += int((plan.silence[1] - plan.silence[0]) * plan.limit / plan.length)
        assert lost <= most, f"case 49: {lost} calls of {name} into the silence"
    _judge_refusals(plan, world)
    if plan.has("late_once") and not plan.has("steps", "drift", *LIES, *LOSSES):
        _judge_lateness(plan, world, limiter)


def _judge_refusals(plan: Plan, world: World) -> None:
    # A key that shows no headers at first opens as if it had none.
    blind = 7 if plan.has("missing", "garbled", "redirects") else 0
    for count in world.history:
        most = plan.most_refused(count.length)
        if most is None:
            return
        if count.gap:  # one that never ends: so many as others in that time
            most *= 1 + int((world.loop.time() - world.began) / count.length)
        allowed = max(most, blind) if count.number == 1 else most
        allowed += count.unknown
        assert count.seen <= allowed, f"I1: {count.seen} refused, {allowed} allowed: {count}"
    if plan.late and not plan.has(*LOSSES, "steps", "drift", "crowd"):
        rolled = Counter(count.key for count in world.history)
        refused = Counter(count.key for count in world.history if count.seen)
        for name, windows in rolled.items():
            # What was learned halves at a clean rollover: the next one is found out, but each time
            # after twice as many.
            most = min(windows / 2 + 1.5, 2.5 + 1.5 * log2(windows))
            assert refused[name] <= most, f"case 15: {name}, {windows} windows"


def _judge_lateness(plan: Plan, world: World, limiter: CheckedLimiter) -> None:
    """Ten clean rollovers leave nothing of it."""
    for line in limiter._lines.values():
        for window in line.bucket.windows:
            name = limiter.name_of(line.key, window.kind)
            clean = sum(
                count.key == name and count.ends > world.began_at + plan.late_until + plan.length
                for count in world.history
            )
            # One that was found again is forgotten the more slowly.
            if clean > 10 * 2**window.relapses:
                assert window.late == 0, f"case 51: {window.late} s after {clean} rollovers"
