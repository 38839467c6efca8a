"""Where all goes as it should the rule foresees what it would say: the two are compared here."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterable
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from aiotwhelp import Limiter, MemoryLedger, QuotaKey, SessionClosedError
from aiotwhelp.clock import ServerClock
from aiotwhelp.headers import (
    DAY_OF_APP,
    X_DIALECT,
    Dialect,
    Family,
    Reading,
    WindowKind,
    family,
)
from aiotwhelp.heaps import Entry
from aiotwhelp.leases import LeasedWindow
from aiotwhelp.local import Room, window_of
from aiotwhelp.permits import Permit
from aiotwhelp.queues import Priority
from aiotwhelp.quota import Bucket, Granted, Household, NotUntil
from aiotwhelp.rates import Rate
from aiotwhelp.testing import VirtualTimeLoop
from aiotwhelp.windows import INF, NeverFitsError, Window
from tests.film import EPOCH, GO, Answer, Ask, Film, opened, reading
from tests.simulation import in_virtual_time
from tests.stack import quota_headers

pytestmark = pytest.mark.usefixtures("calls_in_flight")


def believed(bucket: Bucket) -> dict[str, object]:
    """Return what is known of a quota, but for what is foreseen of it."""
    state: dict[str, object] = {
        name: getattr(bucket, name)
        for name in ("calls", "in_flight", "answered", "round_trip", "next", "shown", "blank")
    }
    for number, window in enumerate(bucket.windows):
        window.take_in()
        told = ("in_flight", "reset", "low", "ends", "seen", "round_trip", "limit", "shut")
        state |= {f"{number} {name}": getattr(window, name) for name in told}
        state[f"{number} left"] = window.available
        foreign = window.foreign
        state[f"{number} unplaced"] = sum(cost for _, cost in window.debts._unplaced)
        state[f"{number} others"] = foreign.rate
        state[f"{number} explained"] = foreign.explained
        for at, (_, remaining) in enumerate(window.observations):
            state[f"{number} {at}"] = remaining
    return state


class Twins:
    """Two films of one story; the second one's rule is asked for every call, one by one."""

    def __init__(self, limit: int, presumed: float, reserve: float) -> None:
        self.films = (Film(presumed=presumed), Film(presumed=presumed))
        for film in self.films:
            film.clock.observe(EPOCH, 0.0, 0.0)
        self.now, self.counted, self.limit, self.reserve = 0.0, 0, limit, reserve
        self.reset = 900.0
        self.calls: list[tuple[Granted, ...]] = []
        self.foreseen = self.plain = 0

    def ask(self, cost: int, reserve: float) -> None:
        quick, slow = (film.bucket for film in self.films)
        answer: Granted | NotUntil | None = None
        if cost == 1:
            answer = quick.take_foreseen(self.now, None)
        if answer is None:
            answer = quick.ask(self.now, cost, reserve=reserve)
            quick.foresee(self.now, self.reserve)
        else:
            self.foreseen += 1
        other = slow.ask(self.now, cost, reserve=reserve)
        assert isinstance(answer, Granted) is isinstance(other, Granted)
        if isinstance(answer, Granted) and isinstance(other, Granted):
            self.calls.append((answer, other))
            self.counted += cost
        elif isinstance(answer, NotUntil) and isinstance(other, NotUntil):
            assert answer.at == other.at

    def answer(self, which: int, kind: str) -> None:
        if not self.calls:
            return
        calls = self.calls.pop(which % len(self.calls))
        if self.now >= self.reset:
            self.reset, self.counted = self.now + 900.0, 1
        if kind == "another":
            self.counted += 3
        left = max(0, self.limit - self.counted)
        reset = self.reset + {"later": 1.0, "earlier": -1.0, "far": 400.0}.get(kind, 0.0)
        at = None if kind == "untold" else reset
        told = reading(left + 2 * (kind == "more"), at, self.limit + (kind == "limit"))
        windows = () if kind in ("silent", "failed") else (told,)
        said = Reading(windows, date=EPOCH + int(self.now), cached=kind == "stored")
        if kind == "refused":
            said = said._replace(refused=True, retry_after=1.0)
        status = {"refused": 429, "failed": 503, "denied": 403}.get(kind, 200)
        for film, granted in zip(self.films, calls, strict=True):
            self.plain += film.bucket.plain is not None
            if not said.cached:
                film.clock.observe(EPOCH + int(self.now), granted.sent, self.now)
            if kind == "lost":
                film.bucket.lost(granted, self.now)
            elif kind == "unsent":
                film.bucket.unsent(granted, self.now)
            else:
                film.bucket.observed(granted, self.now, said, status=status)

    def check(self) -> None:
        first, second = (self.state(film) for film in self.films)
        assert first == pytest.approx(second)

    def state(self, film: Film) -> dict[str, object]:
        return believed(film.bucket)


KINDS = ("lost", "unsent", "refused", "failed", "silent", "stored", "denied", "another", "more")
MOVES = ("later", "earlier", "far", "untold", "limit")
STEP = st.tuples(
    st.sampled_from([0.0, 0.001, 0.01, 0.1, 1.0]) | st.sampled_from([30.0, 300.0]),
    st.integers(0, 12),
    st.integers(0, 8),
    st.sampled_from(["as told"] * 30 + [*KINDS, *MOVES]),
    st.sampled_from([1] * 12 + [2, 5]),
)


@given(
    st.lists(STEP, min_size=10, max_size=60),
    st.sampled_from([15, 75, 900, 10**6]),
    st.sampled_from([0.0, 0.25]),
    st.sampled_from([0.0, 0.3]),
    st.booleans(),
)
def test_what_was_foreseen_is_what_the_rule_would_have_said(
    steps: list[tuple[float, int, int, str, int]],
    limit: int,
    presumed: float,
    reserve: float,
    is_looked_at: bool,  # which has all answers taken in
) -> None:
    twins = Twins(limit, presumed, reserve)
    for delay, asks, answers, kind, cost in steps:
        twins.now += delay
        for number in range(asks):
            twins.ask(cost if number == 0 else 1, reserve)
        twins.now += delay / 10
        for number in range(answers):
            twins.answer(number * 5, kind if number == 0 else "as told")
            if is_looked_at:
                twins.check()
    twins.check()


def test_many_answers_are_taken_in_at_one_go_as_one_by_one() -> None:
    for told in range(1, 70, 3):
        twins = Twins(900, 0.25, 0.0)
        for number in range(told + 40):
            twins.now += 0.01 if number < 40 else 0.0001
            twins.ask(1, 0.0)
            twins.ask(1, 0.0)
            twins.now += 0.0002
            twins.answer(number % 3, "another" if number % 17 == 16 else "as told")
            twins.answer(0, "as told")
            if number % 23 == 22:
                twins.counted -= 9  # some servers give back
        twins.check()


class Asked(Bucket):
    """A bucket of which nothing is foreseen."""

    __slots__ = ()

    def foresee(self, now: float, reserve: float) -> None:
        """Have every call asked for."""


SERVER = family(WindowKind("hour", length=3600.0), "x-ratelimit", "delta")
NAMED = family(WindowKind("hour", length=3600.0), "x-ratelimit", bucket="x-ratelimit-resource")
SHARED = family(WindowKind("hour", "app", 3600.0), "x-ratelimit", "delta-milliseconds")
DIALECTS = {
    each.name: each
    for each in (
        X_DIALECT,
        Dialect("delta", (SERVER,)),
        Dialect("named", (NAMED,)),
        Dialect("shared", (SHARED,)),
    )
}
#: Two routes of one user; where all users of an app share a window, two of those.
KEYS = [QuotaKey(f"GET /{name}", "api", "u:1", "app") for name in "ab"]
USERS = [QuotaKey("GET /", "api", f"u:{name}", "app") for name in "ab"]


class Limiters:
    """Two limiters of one story, told in header fields; the second one foresees nothing."""

    def __init__(self, dialect: Dialect, limit: int, **options: Any) -> None:
        self.dialect, self.limit = dialect, limit
        self.counted: Counter[str] = Counter()
        self.keys = USERS if dialect.name == "shared" else KEYS
        self.both = (Limiter(**options), Limiter(**options))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("aiotwhelp.registry.Bucket", Asked)
            for key in self.keys:
                self.both[1]._registry.line(key)
        self.loop = asyncio.get_running_loop()
        self.reset = self.wall() + 900.0
        self.calls: list[tuple[Permit, ...]] = []
        self.plain = self.alike = 0

    def wall(self) -> float:
        assert isinstance(self.loop, VirtualTimeLoop)
        return self.loop.wall_time()

    def ask(self, which: int, cost: int, priority: Priority) -> None:
        key = self.keys[which % 2]
        permits = [
            each.try_acquire(key, cost=cost, priority=priority, dialect=self.dialect)
            for each in self.both
        ]
        if None not in permits:
            self.calls.append(tuple(permit for permit in permits if permit is not None))
            self.counted[self.place(key)] += cost
        assert permits[0] is permits[1] or None not in permits

    def place(self, key: QuotaKey) -> str:
        """Return what a call counts in."""
        return key.route if self.dialect.name in ("x", "delta") else ""

    def answer(self, which: int, kind: str) -> None:
        if not self.calls:
            return
        calls = self.calls.pop(which % len(self.calls))
        if self.wall() >= self.reset:
            self.reset = self.wall() + 900.0
            self.counted.clear()
        place = self.place(calls[0]._line.key)
        if kind == "another":
            self.counted[place] += 3
        status = {"refused": 429, "failed": 503, "denied": 403, "made": 201}.get(kind, 200)
        headers = self.headers(kind, self.limit - self.counted[place])
        for permit in calls:
            if kind == "lost":
                permit.lost()
            elif kind == "unsent":
                permit.unsent()
            else:
                plain = permit._line.bucket.plain
                if plain is not None and plain.frame is not None and kind == "as told":
                    self.alike += plain.frame.left(headers) >= 0
                said = permit.observed(headers, status=status)
                assert said == self.dialect.read(headers, status)

    def headers(self, kind: str, left: int) -> CIMultiDictProxy[str]:
        main = self.dialect.families[0]
        assert isinstance(main, Family)
        fields = {"Date": formatdate(int(self.wall()) - (kind == "slow"), usegmt=True)}
        if kind in ("silent", "failed"):
            return CIMultiDictProxy(CIMultiDict(fields))
        left = max(0, left) + 2 * (kind == "more")
        reset = self.reset + {"later": 1.0, "earlier": -1.0, "far": 400.0}.get(kind, 0.0)
        written = {
            "epoch": str(int(reset)),
            "delta": str(math.ceil(reset - self.wall())),
            "delta-milliseconds": str(int(1000 * (reset - self.wall()))),
        }
        fields |= {
            main.limit.title(): str(self.limit + (kind == "limit")),
            main.remaining.title(): "many" if kind == "garbled" else str(left),
        }
        if kind != "untold":
            fields[main.reset.title()] = written[main.resets]
        if main.bucket:
            fields[main.bucket] = "other" if kind == "name" else "core"
        fields |= {"stored": {"Age": "9"}, "refused": {"Retry-After": "1"}}.get(kind, {})
        return CIMultiDictProxy(CIMultiDict(fields))

    def check(self) -> None:
        first, second = (self.state(each) for each in self.both)
        assert first == pytest.approx(second)

    def state(self, limiter: Limiter) -> dict[str, object]:
        state: dict[str, object] = {}
        for key in self.keys:
            line = limiter._registry.line(key)
            self.plain += line.bucket.plain is not None
            state |= {f"{key} {name}": value for name, value in believed(line.bucket).items()}
            state[f"{key} clock"] = repr(line.clock)
        stats = limiter.stats()
        return state | {name: getattr(stats, name) for name in ("granted", "in_flight", "refused")}


ODD = (*KINDS, *MOVES, "made", "garbled", "slow", "name")
TURN = st.tuples(
    st.sampled_from([0.0, 0.001, 0.01, 0.1, 1.0]) | st.sampled_from([0.0, 30.0, 300.0]),
    st.lists(st.sampled_from([0, 0, 0, 1]), max_size=10),
    st.integers(0, 8),
    st.sampled_from(["as told"] * 30 + [*ODD]),
    st.sampled_from([1] * 12 + [2, 5]),
    st.sampled_from([Priority.NORMAL] * 5 + [Priority.INTERACTIVE]),
)


def play(
    dialect: Dialect,
    turns: Iterable[tuple[float, list[int], int, str, int, Priority]],
    **options: Any,
) -> Limiters:
    limiters: list[Limiters] = []

    @in_virtual_time
    async def story() -> None:
        pair = Limiters(dialect, **options)
        limiters.append(pair)
        for delay, asks, answers, kind, cost, priority in turns:
            await asyncio.sleep(delay)
            for number, which in enumerate(asks):
                pair.ask(which, cost if number == 0 else 1, priority)
                pair.check()
            await asyncio.sleep(delay / 10)
            for number in range(answers):
                pair.answer(number * 5, kind if number == 0 else "as told")
                pair.check()

    story()
    return limiters[0]


@pytest.mark.parametrize("dialect", DIALECTS)
@settings(max_examples=40)
@given(
    turns=st.lists(TURN, min_size=10, max_size=30),
    limit=st.sampled_from([15, 75, 900, 10**6]),
    reserve=st.sampled_from([0.0, 0.3]),
)
def test_answers_that_are_read_at_a_glance_are_believed_as_all_are(
    dialect: str, turns: list[Any], limit: int, reserve: float
) -> None:
    play(DIALECTS[dialect], turns, limit=limit, reserve=reserve)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("keys", [[0], [0, 1]])
def test_answers_are_read_at_a_glance_where_all_goes_as_it_should(
    dialect: str, keys: list[int]
) -> None:
    turn = (0.004, keys, len(keys), "as told", 1, Priority.NORMAL)
    pair = play(DIALECTS[dialect], [turn] * 200, limit=9000)
    assert pair.plain > 150
    assert pair.alike > 150 * len(keys) or dialect == "shared", "that writes milliseconds"


def test_calls_are_foreseen_where_all_goes_as_it_should() -> None:
    twins = Twins(900, 0.25, 0.0)
    for number in range(200):
        twins.now += 0.01
        twins.ask(1, 0.0)
        twins.answer(0, "as told")
        twins.check()
        assert twins.films[0].bucket.plain is not None or number < 2
    assert twins.foreseen >= 190


def foreseeing(remaining: int = 800, limit: int = 900, **options: float) -> Film:
    """Return a film in which some calls are foreseen, and one is in flight."""
    film = opened(remaining, limit=limit, **options)
    film.step(1.0, Ask("first"))
    film.bucket.foresee(1.0, 0.0)
    assert film.window.foreseen > 0
    return film


def test_a_refusal_ends_what_was_foreseen() -> None:
    film = foreseeing()
    film.step(1.1, Answer("first", 799, 900, 900.0, status=429))
    assert film.bucket.take_foreseen(1.1, None) is None


def test_what_others_take_is_foreseen_no_more() -> None:
    film = foreseeing(40, 40)
    film.step(1.1, Answer("first", 3, 40, 900.0))
    assert film.bucket.take_foreseen(1.1, None) is None


def test_the_last_are_not_foreseen() -> None:
    film = foreseeing(40, 40)
    while film.bucket.take_foreseen(1.1, None):
        pass
    assert film.window.available > 20


def test_nothing_is_foreseen_while_a_reading_may_be_of_either_of_two_windows() -> None:
    film = foreseeing()
    film.step(1.1, Answer("first", 799, 900, None))
    film.bucket.foresee(1.1, 0.0)
    assert film.bucket.take_foreseen(1.1, None) is None
    film.play([(1.2, Ask("next"), GO), (1.3, Answer("next", 798, 900, 900.0), None)])
    film.bucket.foresee(1.3, 0.0)
    assert film.bucket.take_foreseen(1.3, None) is not None


@pytest.mark.parametrize(
    ("resets_in", "is_plain"),
    [
        (899.0, True),
        (898.0, True),
        (900.0, True),  # they are whole seconds, and may be rounded up
        (897.0, False),
        (901.5, False),
        (0.0, False),
        (1000.0, False),  # nobody waits for so long
        (None, False),
    ],
)
def test_seconds_that_may_mean_the_same_reset_are_plain(
    resets_in: float | None, is_plain: bool
) -> None:
    film = Film()
    film.step(0.0, Ask("probe"))
    film.step(0.5, Answer("probe", 800, 900, resets_in=900.0))
    film.step(1.0, Ask("next"))
    film.window.foreign.next_mark = INF  # as of a server that is near
    film.bucket.foresee(1.0, 0.0)
    assert film.bucket.plain is film.window
    film.step(1.5, Answer("next", 799, 900, 900.0, resets_in=resets_in))
    assert (film.bucket.plain is not None) is is_plain
    low, high = film.window.low, film.window.reset
    if is_plain:
        assert resets_in is not None
        assert (low, high) == (max(899.0, resets_in), min(900.5, resets_in + 1.5))
        assert film.window.ends == high == film.window.foreseen_until


def test_nothing_is_foreseen_beyond_the_reset() -> None:
    film = foreseeing()
    assert film.bucket.take_foreseen(899.0, None) is not None
    assert film.bucket.take_foreseen(900.0, None) is None


def test_nothing_is_foreseen_at_the_reset_of_a_server_that_is_near() -> None:
    film = foreseeing()
    film.window.foreign.next_mark = INF
    film.bucket.foresee(1.0, 0.0)
    assert film.window.foreseen_until == 900.0
    assert film.bucket.take_foreseen(900.0, None) is None


def test_what_is_foreseen_ends_with_the_window_when_its_clock_is_better_known() -> None:
    film = foreseeing(40, 40)
    film.clock.observe(EPOCH + 898.0, 890.0, 890.0)
    assert film.window.ends == pytest.approx(900.0)
    assert isinstance(film.bucket.ask(890.5, 40), NotUntil)
    assert film.window.ends == pytest.approx(892.0, abs=0.01)
    assert film.bucket.take_foreseen(893.0, None) is None


def test_a_refusal_for_all_routes_ends_what_another_route_foresaw() -> None:
    film = foreseeing()
    film.bucket.household.keep_shut(1.0, 10.0)
    film.bucket.foresee(2.0, 0.0)
    assert film.bucket.take_foreseen(2.0, None) is None
    film.bucket.foresee(11.0, 0.0)
    assert film.bucket.take_foreseen(11.0, None) is not None
    film.bucket.household.hear(11.0, 10.0, 1)
    assert film.bucket.take_foreseen(11.0, None) is None
    film.bucket.foresee(21.0, 0.0)
    assert film.bucket.take_foreseen(21.0, None) is None, "an answer has yet to end that"


def test_a_refusal_for_all_routes_ends_what_each_of_them_foresaw() -> None:
    film = foreseeing()
    film.bucket.upset()
    household = film.bucket.household
    buckets = [film.new_bucket(user, household=household) for user in ("two", "three")]
    for bucket in buckets:
        first = bucket.ask(0.0)
        assert isinstance(first, Granted)
        bucket.observed(first, 0.5, Reading((reading(800, 900.0, 900),)))
        bucket.foresee(1.0, 0.0)
    household.keep_shut(1.0, 10.0)
    assert [bucket.take_foreseen(1.0, None) for bucket in buckets] == [None, None]


def test_a_bucket_that_is_forgotten_is_kept_by_no_household() -> None:
    bucket = foreseeing().bucket
    bucket.foresee(1.0, 0.0)
    assert bucket.household.plain == [bucket]
    bucket.leave()
    assert bucket.household.plain == []


class Alone(Bucket):
    """A bucket that must not be looked for among others: there may be 100 000 of one identity."""

    __slots__ = ()
    __hash__ = Bucket.__hash__

    def __eq__(self, other: object) -> bool:
        raise AssertionError("it was compared with another")


def of_one_identity(count: int) -> tuple[Household, list[Bucket]]:
    """Return buckets of one household, calls of each of which are foreseen."""
    film, household = Film(), Household()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.film.Bucket", Alone)
        buckets = [film.new_bucket(f"u{number}", household=household) for number in range(count)]
    for bucket in buckets:
        probe = bucket.ask(0.0)
        assert isinstance(probe, Granted)
        bucket.observed(probe, 0.1, Reading((reading(800, 900.0, 900),)))
        for _ in range(2):
            bucket.foresee(1.0, 0.0)
        assert bucket.plain is not None
    return household, buckets


def places(household: Household) -> list[int]:
    return [bucket.place for bucket in household.plain]


def test_whoever_is_forgotten_is_looked_for_among_no_others() -> None:
    household, buckets = of_one_identity(4)
    assert places(household) == [0, 1, 2, 3]
    for number, rest in [(1, {0, 2, 3}), (3, {0, 2}), (0, {2}), (2, set[int]())]:
        buckets[number].leave()
        assert {id(bucket) for bucket in household.plain} == {id(buckets[each]) for each in rest}
        assert places(household) == list(range(len(rest)))
        assert buckets[number].place == -1


def test_after_a_refusal_for_all_routes_all_are_foreseen_anew() -> None:
    household, buckets = of_one_identity(3)
    household.keep_shut(1.0, 10.0)
    assert [bucket.place for bucket in buckets] == [-1, -1, -1]
    buckets[0].leave()
    for bucket in buckets[1:]:
        assert bucket.take_foreseen(11.0, None) is None
        bucket.foresee(11.0, 0.0)
        assert bucket.take_foreseen(11.0, None) is not None
    assert places(household) == [0, 1]
    household.keep_shut(12.0, 10.0)
    assert all(bucket.take_foreseen(12.0, None) is None for bucket in buckets[1:])


LEFT: list[Callable[[Bucket], object]] = [
    lambda bucket: bucket.leave(),
    lambda bucket: bucket._drop(bucket.windows[0]),
    lambda bucket: bucket.replace(
        bucket.windows[0], Window(DAY_OF_APP, ServerClock(), bucket.numbering, "day")
    ),
]


@pytest.mark.parametrize("leave", LEFT)
def test_a_window_that_nobody_uses_is_kept_by_no_numbering(
    leave: Callable[[Bucket], object],
) -> None:
    film = foreseeing()
    granted = film.bucket.take_foreseen(1.0, None)
    assert granted is not None
    assert film.bucket.answered_plainly(granted, 1.1, 799, None)
    assert list(film.numbering._noted) == [film.window]
    leave(film.bucket)
    assert not film.numbering._noted


def answer_plainly(bucket: Bucket) -> None:
    """Have a call of a bucket foreseen, and answered as the one before."""
    granted = bucket.take_foreseen(1.0, None)
    assert granted is not None
    assert bucket.answered_plainly(granted, 1.1, 800, None)


def test_of_many_windows_those_that_began_first_take_their_answers_in() -> None:
    film = Film()
    buckets = [film.new_bucket(f"{number}") for number in range(258)]
    for bucket in buckets:
        first = bucket.ask(0.0)
        assert isinstance(first, Granted)
        bucket.observed(first, 0.5, Reading((reading(801, 900.0, 900),)))
        bucket.foresee(1.0, 0.0)
    *most, last, other = buckets
    for bucket in most:
        answer_plainly(bucket)
    assert {len(bucket.windows[0].answers) for bucket in most} == {1}
    most[0].windows[0].take_in()
    for bucket in (most[0], most[1], last):
        answer_plainly(bucket)
    kept = [len(bucket.windows[0].answers) for bucket in buckets]
    assert kept == [1, 0, *[1] * 255, 0]
    answer_plainly(other)
    kept = [len(bucket.windows[0].answers) for bucket in buckets]
    assert kept == [1, 0, 0, *[1] * 255]


def test_who_comes_to_share_a_window_ends_what_was_foreseen() -> None:
    film = foreseeing()
    other = film.new_bucket("two")
    other._add_new(film.window)
    assert film.bucket.take_foreseen(2.0, None) is None
    film.bucket.foresee(2.0, 0.0)
    assert film.bucket.take_foreseen(2.0, None) is not None
    film.window.blocked.add(Entry(0))
    film.bucket.foresee(2.0, 0.0)
    assert film.bucket.take_foreseen(2.0, None) is None, "somebody waits, and goes first"


def test_no_more_is_foreseen_than_may_be_in_flight() -> None:
    film = foreseeing()
    film.bucket.answered = 1
    assert film.bucket.take_foreseen(1.0, None) is not None
    assert film.bucket.take_foreseen(1.0, None) is None
    assert film.bucket.ask(1.0) == NotUntil(INF, film.bucket)
    film = foreseeing()
    film.bucket.answered = 1
    assert isinstance(film.bucket.ask(1.0), Granted), "one more than has been answered"


def test_a_cost_that_never_fits_is_refused_at_once_however_many_are_in_flight() -> None:
    film = foreseeing()
    film.bucket.answered = 0
    assert film.bucket.ask(1.0, 900) == NotUntil(INF, film.bucket)
    with pytest.raises(NeverFitsError):
        film.bucket.ask(1.0, 901)


def owe(bucket: Bucket) -> None:
    bucket.debts.add_ghost(100.0, bucket.numbering.next(), 1)


def misread(bucket: Bucket) -> None:
    bucket.debts.add_unread(bucket.numbering.next(), 1)


IN_THE_WAY: list[Callable[[Bucket], object]] = [
    lambda bucket: bucket.hold([window_of(Rate(1, per=1))]),
    lambda bucket: bucket._add(Window(DAY_OF_APP, ServerClock(), bucket.numbering, "day")),
    lambda bucket: setattr(bucket, "shown", False),
    lambda bucket: setattr(bucket.pace, "gap", 1.0),
    lambda bucket: setattr(bucket, "next", 2.1),
    owe,
    misread,
]


@pytest.mark.parametrize("hinder", IN_THE_WAY)
def test_nothing_is_foreseen_while_anything_else_is_in_the_way(
    hinder: Callable[[Bucket], object],
) -> None:
    bucket = foreseeing().bucket
    hinder(bucket)
    bucket.upset()
    bucket.foresee(2.0, 0.0)
    assert bucket.plain is None
    assert bucket.take_foreseen(2.0, None) is None


def test_what_was_in_the_way_until_now_is_so_no_more() -> None:
    bucket = foreseeing().bucket
    bucket.next = 2.0
    bucket.upset()
    bucket.foresee(2.0, 0.0)
    assert bucket.plain is not None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda granted: setattr(granted, "cost", 2),
        lambda granted: setattr(granted, "probes", []),
        lambda granted: setattr(granted, "is_settled", True),
        lambda granted: setattr(granted.bucket, "plain", None),
        lambda granted: granted.bucket.windows[0].upset(),
        lambda granted: setattr(granted.bucket.windows[0], "least", 800),
        lambda granted: setattr(granted.bucket.windows[0], "ends", 1.1),
    ],
)
def test_what_is_not_plain_is_not_settled_as_if_it_were(spoil: Callable[[Any], None]) -> None:
    bucket = foreseeing().bucket
    granted = bucket.take_foreseen(1.0, None)
    assert granted is not None
    before = believed(bucket)
    spoil(granted)
    assert not bucket.answered_plainly(granted, 1.1, 799, None)
    assert bucket.calls == 2
    assert before.items() - believed(bucket).items() <= {("0 ends", 900.0)}


def test_an_answer_that_leaves_as_much_as_the_foreseen_calls_need_is_plain() -> None:
    bucket = foreseeing().bucket
    granted = bucket.take_foreseen(1.0, None)
    assert granted is not None
    bucket.windows[0].least = 799
    assert bucket.answered_plainly(granted, 1.1, 799, None)


def test_a_call_that_was_foreseen_is_settled_once_and_its_time_is_learned() -> None:
    bucket = foreseeing().bucket
    granted = bucket.take_foreseen(1.0, None)
    assert granted is not None
    assert granted.bucket is bucket
    said = Reading((reading(798, 900.0, 900),))
    bucket.observed(granted, 3.5, said)
    assert (bucket.calls, bucket.in_flight, bucket.windows[0].in_flight) == (1, 1, 1)
    bucket.windows[0].take_in()
    assert bucket.windows[0].round_trip == 2.5
    assert bucket.plain is not None
    with pytest.raises(RuntimeError, match="settled already"):
        bucket.observed(granted, 3.6, said)


def test_calls_that_were_foreseen_are_counted_with_the_others() -> None:
    bucket, room = foreseeing().bucket, Room(3)
    for number in range(3):
        assert bucket.take_foreseen(1.0, room) is not None
        assert (room.in_flight, bucket.in_flight) == (number + 1, number + 2)


def test_room_holds_for_calls_that_were_foreseen() -> None:
    film, room = foreseeing(), Room(1)
    granted = film.bucket.take_foreseen(1.0, room)
    assert granted is not None
    assert film.bucket.take_foreseen(1.0, room) is None
    film.bucket.observed(granted, 1.1, Reading((reading(799, 900.0, 900),)))
    assert room.in_flight == 0


@in_virtual_time
async def test_a_newcomer_does_not_overtake_where_calls_are_foreseen() -> None:
    limiter, key = Limiter(), QuotaKey("GET /2/users/me")
    for number in range(20):
        (await limiter.acquire(key)).observed(quota_headers(100 - number, limit=100))
    held = [await limiter.acquire(key) for _ in range(4)]
    costly = asyncio.create_task(limiter.acquire(key, cost=77))
    await asyncio.sleep(0)
    assert limiter._registry.line(key).bucket.windows[0].foreseen > 0
    assert limiter.try_acquire(key) is None
    for permit in held:
        permit.unsent()
    assert (await costly).cost == 77


async def foreseeing_by_headers(dialect: Dialect, limit: int) -> Limiters:
    """Return limiters of which the first foresees calls of both routes."""
    pair = Limiters(dialect, limit)
    for _ in range(40):
        for which in (0, 1):
            pair.ask(which, 1, Priority.NORMAL)
        for _ in range(2):
            pair.answer(0, "as told")
    assert all(pair.both[0]._registry.line(key).bucket.plain is not None for key in KEYS)
    return pair


@in_virtual_time
async def test_who_waits_for_a_shared_window_is_overtaken_from_no_other_route() -> None:
    pair = await foreseeing_by_headers(DIALECTS["named"], 200)
    limiter, dialect = pair.both[0], pair.dialect
    held = limiter.try_acquire(KEYS[0], dialect=dialect)
    assert held is not None
    assert limiter._registry.line(KEYS[1]).bucket.windows[0].foreseen > 0
    costly = asyncio.create_task(limiter.acquire(KEYS[0], cost=119, dialect=dialect))
    await asyncio.sleep(0)
    assert limiter.try_acquire(KEYS[1], dialect=dialect) is None
    held.unsent()
    assert (await costly).cost == 119


@in_virtual_time
async def test_what_one_route_loses_is_foreseen_by_no_other() -> None:
    pair = await foreseeing_by_headers(DIALECTS["named"], 200)
    bucket = pair.both[0]._registry.line(KEYS[1]).bucket
    pair.ask(0, 1, Priority.NORMAL)
    assert bucket.windows[0].foreseen > 0
    pair.answer(0, "lost")
    assert bucket.take_foreseen(pair.loop.time(), None) is None


@pytest.mark.parametrize("kind", ["stored", "far", "limit", "name", "garbled", "slow"])
def test_what_is_told_otherwise_is_read_anew(kind: str) -> None:
    @in_virtual_time
    async def scene() -> None:
        pair = await foreseeing_by_headers(DIALECTS["named"], 200)
        plain = pair.both[0]._registry.line(KEYS[0]).bucket.plain
        assert plain is not None
        assert plain.frame is not None
        assert plain.frame.left(pair.headers("as told", 77)) == 77
        assert plain.frame.left(pair.headers(kind, 77)) == -1

    scene()


@in_virtual_time
async def test_bad_options_are_told_where_calls_are_foreseen() -> None:
    limiter, key = Limiter(), QuotaKey("GET /2/users/me")
    for number in range(20):
        (await limiter.acquire(key)).observed(quota_headers(1000 - number, limit=1000))
    assert limiter._registry.line(key).bucket.windows[0].foreseen > 0
    with pytest.raises((TypeError, ValueError), match="priority"):
        await limiter.acquire(key, priority="high")  # type: ignore[arg-type]
    with pytest.raises((TypeError, ValueError), match="max_wait"):
        await limiter.acquire(key, max_wait="long")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cost"):
        await limiter.acquire(key, cost=True)
    await limiter.close()
    with pytest.raises(SessionClosedError):
        await limiter.acquire(key)


@in_virtual_time
async def test_leased_tokens_are_foreseen_and_no_more_than_those() -> None:
    limiter, key = Limiter(ledger=MemoryLedger()), QuotaKey("GET /2/users/me")
    for number in range(50):
        (await limiter.acquire(key)).observed(quota_headers(900 - number))
        await asyncio.sleep(0.01)
    permit = await limiter.acquire(key)
    bucket, now = limiter._registry.line(key).bucket, limiter._home.now()
    assert isinstance(bucket.plain, LeasedWindow)
    share = bucket.plain.share
    share.left, share.until = 3, now + 1.0
    bucket.foresee(now, 0.0)
    held = [limiter.try_acquire(key)]
    assert held != [None]
    assert share.left == 2
    share.left = 0  # the rest went back
    assert bucket.take_foreseen(now, None) is None
    permit.unsent()
    await limiter.close()


@in_virtual_time
async def test_a_ledger_hears_in_time_of_answers_that_are_read_at_a_glance() -> None:
    limiter, key = Limiter(ledger=MemoryLedger()), QuotaKey("GET /2/users/me")
    for number in range(50):
        permit = await limiter.acquire(key)
        await asyncio.sleep(0.01)
        permit.observed(quota_headers(900 - number))
    window = limiter._registry.line(key).bucket.plain
    assert isinstance(window, LeasedWindow)
    assert window.share.notes, "what was answered just now is yet to be told"
    await asyncio.sleep(0.1)
    assert not window.share.notes, "nobody waits, and others share what is left"
    await limiter.close()
