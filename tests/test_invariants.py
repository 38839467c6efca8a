"""The invariants: of the pure rule as a state machine, of the whole limiter as random runs."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aiotwhelp.headers import DAY_OF_APP, FIFTEEN_MINUTES, Reading, WindowReading
from aiotwhelp.limiter import Limiter
from aiotwhelp.quota import Bucket, Granted, NotUntil
from aiotwhelp.testing import VirtualTimeLoop, run
from aiotwhelp.windows import Window
from tests.film import EPOCH, Film
from tests.simulation import Faults, Outcome, Server, at_rest, crowd


@dataclass
class Counter:
    """A server's window: begins at its first request, floored to whole seconds."""

    limit: int
    length: float
    ends: float = 0.0
    used: int = 0
    refused: int = 0
    worst: int = 0

    def roll(self, now: float) -> None:
        if now >= self.ends:
            self.ends = float(int(now)) + self.length
            self.used = self.refused = 0


@dataclass
class Call:
    granted: Granted
    user: int
    answer: tuple[WindowReading, ...] | None = None
    status: int = 200
    notes: list[str] = field(default_factory=list)


class RuleAgainstServer(RuleBasedStateMachine):
    """Two users of one app, each with a window, and one that they share; calls cost 1 to 3."""

    @initialize(
        limit=st.integers(3, 12), shared=st.integers(5, 20), length=st.sampled_from([5.0, 60.0])
    )
    def begin(self, limit: int, shared: int, length: float) -> None:
        self.film = Film()
        self.now = 0.25
        self.users = [self.film.new_bucket(f"user {n}") for n in range(2)]
        for user in self.users:
            user.answered = 100  # the slow start has its own tests; here many are in flight
        self.own = [Counter(limit, length) for _ in range(2)]
        self.app = Counter(shared, 10 * length)
        self.calls: list[Call] = []
        self.has_faults = False

    @rule(seconds=st.sampled_from([0.001, 0.1, 0.7, 1.0, 2.5, 5.0, 61.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(user=st.integers(0, 1), cost=st.sampled_from([1, 1, 1, 2, 3]))
    def ask(self, user: int, cost: int) -> None:
        self.ask_for(user, cost)

    @rule(user=st.integers(0, 1))
    def ask_often(self, user: int) -> None:
        for _ in range(4):
            self.ask_for(user, 1)

    def ask_for(self, user: int, cost: int) -> None:
        answer = self.users[user].ask(self.now, cost)
        if isinstance(answer, Granted):
            self.calls.append(Call(answer, user))
        else:
            assert answer.at > self.now, "a wait has a positive floor"
            if not self.in_flight(answer):
                assert answer.at < self.now + 25 * 3600, "somebody must be able to go on"

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def count(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.calls))
        if call.answer is None:
            self.serve(call)

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        call = self.take(data)
        if call.answer is None:
            self.serve(call)
        assert call.answer is not None
        call.granted.bucket.observed(
            call.granted,
            self.now,
            Reading(call.answer, refused=call.status == 429),
            status=call.status,
        )

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        call = self.take(data)
        self.has_faults = True
        call.granted.bucket.lost(call.granted, self.now)

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), status=st.sampled_from([200, 503]))
    def strip(self, data: st.DataObject, status: int) -> None:
        call = self.take(data)
        if call.answer is None:
            self.serve(call)
        self.has_faults = True
        call.granted.bucket.observed(call.granted, self.now, Reading(), status=status)

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def never_leave(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.calls))
        if call.answer is None:
            self.calls.remove(call)
            call.granted.bucket.unsent(call.granted, self.now)

    @invariant()
    def in_flight_is_what_is_out(self) -> None:
        for number, bucket in enumerate(getattr(self, "users", ())):
            out = sum(call.granted.cost for call in self.calls if call.user == number)
            assert bucket.in_flight == out
            for window in bucket.windows:
                if window.kind is FIFTEEN_MINUTES:
                    assert window.in_flight == out
                assert window.in_flight >= 0
                assert window.debts.unread >= 0
                assert window.debts.ghosts >= 0

    @invariant()
    def no_more_is_believed_than_there_is(self) -> None:
        for number, bucket in enumerate(getattr(self, "users", ())):
            for window in bucket.windows:
                counter = self.own[number] if window.kind is FIFTEEN_MINUTES else self.app
                if self.now < window.ends and window.reset == EPOCH + counter.ends:
                    assert window.available <= max(0, self.left(counter, window))

    def left(self, counter: Counter, window: Window) -> int:
        """What the server would still give, once all that is on its way has arrived."""
        under_way = sum(
            call.granted.cost
            for call in self.calls
            if call.answer is None and window in call.granted.bucket.windows
        )
        return counter.limit - counter.used - under_way

    @invariant()
    def calls_of_ours_are_never_taken_for_those_of_others(self) -> None:
        for bucket in getattr(self, "users", ()):
            assert not any(window.foreign.is_seen for window in bucket.windows)

    @invariant()
    def without_faults_nothing_is_refused(self) -> None:
        if getattr(self, "users", None) and not self.has_faults:
            assert max(counter.worst for counter in (*self.own, self.app)) <= 1

    def teardown(self) -> None:
        """At rest, and after every reset, each user gets through again in a few asks."""
        for call in list(getattr(self, "calls", ())):
            call.granted.bucket.lost(call.granted, self.now)
        self.calls = []
        for user in range(2) if hasattr(self, "users") else ():
            for _ in range(40):
                answer = self.users[user].ask(self.now)
                if isinstance(answer, NotUntil):
                    assert answer.at < self.now + 25 * 3600
                    self.now = answer.at
                    continue
                call = Call(answer, user)
                self.serve(call)
                assert call.answer is not None
                reading = Reading(call.answer, refused=call.status == 429)
                answer.bucket.observed(answer, self.now, reading, status=call.status)
                if call.status == 200:
                    break
            else:
                raise AssertionError(f"user {user} never gets through")

    def serve(self, call: Call) -> None:
        counters = (self.own[call.user], self.app)
        for counter in counters:
            counter.roll(self.now)
        cost = call.granted.cost
        if all(counter.used + cost <= counter.limit for counter in counters):
            for counter in counters:
                counter.used += cost
        else:
            call.status = 429
            self.blame(counters, cost)
        call.answer = tuple(
            WindowReading(kind, counter.limit - counter.used, counter.limit, EPOCH + counter.ends)
            for kind, counter in zip((FIFTEEN_MINUTES, DAY_OF_APP), counters, strict=True)
        )

    def blame(self, counters: tuple[Counter, ...], cost: int) -> None:
        for counter in counters:
            if counter.used + cost > counter.limit:
                counter.refused += 1
                counter.worst = max(counter.worst, counter.refused)

    def take(self, data: st.DataObject) -> Call:
        call: Call = data.draw(st.sampled_from(self.calls))
        self.calls.remove(call)
        return call

    def in_flight(self, answer: NotUntil) -> bool:
        by: Any = answer.by
        return bool(by.calls if isinstance(by, Bucket) else by.in_flight)


RuleAgainstServer.TestCase.settings = settings(
    max_examples=250,
    stateful_step_count=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TestTheRuleAgainstAServer = RuleAgainstServer.TestCase


# Whole runs --------------------------------------------------------------------------------------

#: What may go wrong, as (fault, value); each run has at least three of them.
KINDS: list[tuple[str, Any]] = [
    ("drop_before", 0.03),
    ("drop_after", 0.03),
    ("headerless", 0.1),
    ("server_error", 0.05),
    ("cancelled", 0.2),
    ("garbled", 0.03),
    ("skew", 3.0),
    ("skew", -300.0),
    ("latency", (0.001, 0.5)),
    ("backends", (0.0, 1.0)),
]


def a_run(seed: int) -> tuple[Outcome, VirtualTimeLoop, dict[str, Any]]:
    source = random.Random(seed)
    faults = dict(source.sample(KINDS, source.randint(4, 7)))

    async def main() -> tuple[Outcome, VirtualTimeLoop]:
        server = Server(
            seed=seed,
            limit=source.choice([5, 15, 40]),
            length=source.choice([5.0, 15.0, 900.0]),
            faults=Faults(**faults),
        )
        outcome = await crowd(120, server, Limiter(), spread=source.choice([0.0, 10.0]))
        await asyncio.sleep(0)
        return outcome, server.loop

    outcome, loop = run(main(), seed=seed, debug=False)
    return outcome, loop, faults


@pytest.mark.parametrize("batch", range(10))
def test_invariants_hold_in_random_runs_with_three_and_more_kinds_of_fault(batch: int):
    for seed in range(batch * 25, batch * 25 + 25):
        outcome, loop, faults = a_run(seed)
        where = (seed, faults, outcome.server.limit, outcome.server.length)
        ends = [result for result in outcome.results if isinstance(result, str)]
        cancelled = [r for r in outcome.results if isinstance(r, asyncio.CancelledError)]
        assert set(ends) == {"served"}, where
        assert len(ends) + len(cancelled) == 120, where
        seen = outcome.server.seen_refused_in
        if faults.keys() & {"headerless", "garbled"}:
            # A key that shows no headers at first opens as if it had none.
            assert seen.pop(1, 0) <= 7, where
        assert max(seen.values(), default=0) <= 1, where
        assert outcome.refused <= 7 + len(outcome.server.history), where
        assert at_rest(outcome.limiter), where
        if not faults.keys() & {"garbled", "latency"}:
            (line,) = outcome.limiter._lines.values()
            assert not any(window.foreign.is_seen for window in line.bucket.windows), where
        assert [h for h in loop._scheduled if not h.cancelled()] == [], where
        order = outcome.server.order
        assert order == sorted(order), where
        windows = len(outcome.server.history)
        least = -(-outcome.served // outcome.server.limit)
        assert windows <= least + 3 + len(cancelled), where
