"""When tokens are there before the reset: what is believed of readings, piece by piece."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from aiotwhelp.headers import WindowKind
from aiotwhelp.quota import NotUntil
from aiotwhelp.refills import Refill
from tests.film import GO, WAIT, Answer, Ask, Film, Lost, Until

NEVER = math.inf


def bucket(*readings: tuple[float, int, float]) -> Refill:
    """Return what is known after readings ``(at, missing, seconds to the reset)``, rounded up."""
    refill = Refill()
    for at, missing, reset in readings:
        refill.observe(at, at, missing, reset - 1.0, reset)
    return refill


def test_a_reset_that_moves_with_what_is_missing_is_of_tokens_that_come_back_one_by_one():
    refill = bucket((0, 1, 4.0), (1, 10, 40.0))
    assert refill.opens(100.0, 1) == pytest.approx(100.0 + 40.0 / 9)
    assert refill.opens(100.0, 3) == pytest.approx(100.0 + 3 * 40.0 / 9)


@pytest.mark.parametrize(
    "readings",
    [
        [],
        [(0, 10, 40.0)],
        [(0, 1, 60.0), (1, 10, 59.0)],
        [(0, 5, 60.0), (1, 6, 60.0), (2, 7, 60.0)],
        [(0, 10, 40.0), (10, 8, 30.0)],
        [(0, 1, 1.0), (0, 8, 1.0)],
        [(0, 0, 60.0), (1, 10, 0.0)],
        [(0, 5, 60.0), (0, 6, 64.0)],
    ],
    ids=[
        *("nothing", "one", "fixed", "fixed, slowly", "fewer", "too short", "nothing missing"),
        "two back ends",
    ],
)
def test_what_a_fixed_window_may_have_said_tells_nothing(readings: list[tuple[float, int, float]]):
    assert bucket(*readings).opens(100.0, 1) == NEVER


@given(
    st.integers(2, 100),
    st.floats(2.0, 1000.0),
    st.lists(st.tuples(st.floats(0.0, 0.3), st.floats(0.0, 0.9), st.floats(0.0, 0.9))),
)
@example(2, 2.0, [(0.0, 0.0, 0.0), (0.0, 0.0, 0.75)])
def test_no_answer_of_a_fixed_window_is_taken_for_one_that_refills(
    limit: int, length: float, calls: list[tuple[float, float, float]]
):
    """Calls come after a pause each; their ways there and back take their time."""
    refill, now = Refill(), 0.0
    for missing, (pause, there, back) in enumerate(calls[:limit], start=1):
        now += pause
        left = math.ceil((length - now - there) * 1000) / 1000
        refill.observe(now, now + there + back, missing, left - 0.01, left + 0.01)
        assert refill.opens(now, 1) == NEVER


def test_another_limit_begins_anew():
    refill = bucket((0, 1, 4.0), (1, 10, 40.0), (2, 11, 400.0))
    assert refill.opens(100.0, 1) == NEVER
    refill.observe(3, 3, 12, 440.0, 441.0)
    assert refill.opens(100.0, 1) == 100.0 + 400.0 / 10


@pytest.mark.parametrize(
    "readings",
    [
        [(0, 1, 1.0), (1, 10, 10.0)],
        [(0, 1, 4.0), (1, 10, 40.0), (2, 0, 9.0)],
        [(0, 1, 4.0), (1, 10, 40.0), (2, 3, 0.0)],
    ],
    ids=["quick", "full", "full already"],
)
def test_a_bucket_that_is_quick_or_full_is_one(readings: list[tuple[float, int, float]]):
    per_token = readings[1][2] / 9
    assert bucket(*readings).opens(100.0, 1) == pytest.approx(100.0 + per_token)


def test_readings_that_no_one_rate_explains_tell_nothing():
    """One token in half a second at least, then nine in four seconds at most."""
    assert bucket((0, 1, 1.5), (6, 10, 4.0)).opens(100.0, 1) == NEVER


def test_readings_that_exactly_one_rate_explains_tell_it():
    """A token every four seconds: from below, and from above."""
    assert bucket((0, 1, 5.0), (1, 11, 40.0)).opens(100.0, 1) == 104.0
    assert bucket((0, 11, 40.0), (1, 10, 41.0), (2, 20, 80.0)).opens(100.0, 1) == 104.0


def test_a_reset_that_a_rounding_or_another_back_end_may_have_moved_has_not_moved():
    assert bucket((0, 2, 60.0), (5, 3, 60.0)).opens(100.0, 1) == NEVER
    assert bucket((0, 2, 60.0), (5.01, 3, 60.0)).opens(100.0, 1) < NEVER


def test_where_a_token_takes_a_few_seconds_a_third_of_them_is_enough():
    assert bucket((0, 10, 60.0), (2.96, 11, 60.0)).opens(100.0, 1) == NEVER
    assert bucket((0, 10, 60.0), (2.97, 11, 60.0)).opens(100.0, 1) < NEVER


def test_of_readings_with_as_many_missing_the_reset_has_moved_since_the_first():
    told = bucket((0, 5, 20.0), (10, 5, 20.0), (10.5, 6, 20.0))
    assert told.opens(100.0, 1) < NEVER


def test_that_a_call_may_go_early_is_proven_by_the_last_that_did():
    refill, proven = Refill(), []
    assert refill.is_proven is False
    for early, refused in [(1, 0), (0, 0), (0, 1), (1, 1), (0, 0), (1, 0)]:
        refill.answered(early=bool(early), refused=bool(refused))
        proven.append(refill.is_proven)
    assert proven == [True, True, True, False, False, True]


def test_what_an_answer_tells_holds_until_the_next_one():
    refill = Refill()
    refill.tell(7.0)
    assert refill.opens(0.0, 1) == 7.0
    refill.answered(early=False, refused=False)
    assert refill.opens(0.0, 1) == NEVER


def test_who_is_refused_though_a_token_was_to_be_there_knows_nothing_any_more():
    refill = bucket((0, 1, 4.0), (1, 10, 40.0))
    refill.answered(early=True, refused=True)
    assert refill.opens(100.0, 1) == NEVER


def test_three_vain_calls_in_a_row_end_what_answers_tell_and_one_that_goes_well_does_not():
    refill = Refill()
    for refused in (True, True, False, True, True):
        refill.answered(early=True, refused=refused)
        refill.tell(7.0)
        assert refill.opens(0.0, 1) == 7.0
    refill.answered(early=False, refused=True)
    refill.tell(7.0)
    assert refill.opens(0.0, 1) == 7.0
    refill.answered(early=True, refused=True)
    refill.tell(7.0)
    assert refill.opens(0.0, 1) == NEVER


@given(
    st.integers(2, 1000),
    st.floats(1.0, 86_400.0),
    st.lists(st.tuples(st.floats(0.0, 100.0), st.integers(1, 50)), min_size=1, max_size=40),
)
def test_no_token_is_expected_before_a_bucket_has_it(
    size: int, length: float, calls: list[tuple[float, int]]
):
    """Calls of some cost come after some pause each, to a bucket that says whole seconds."""
    gap = length / size
    refill, now, debt, missing, seen, full = Refill(), 0.0, 0.0, 0, 0.0, 0.0
    for pause, cost in calls:
        now, debt = now + pause, max(0.0, debt - pause)
        if debt + cost * gap > length:
            continue
        debt += cost * gap
        seen, full = now, now + debt
        missing = math.ceil(round(debt / gap, 9))
        refill.observe(now, now, missing, math.ceil(debt) - 1.0, float(math.ceil(debt)))
    assume(missing)
    if refill.is_known:
        for number in range(1, missing + 1):
            # So many more are there than were said to be left.
            assert refill.soonest(seen, number) <= full - (missing - number) * gap + 1e-6
    opens = refill.opens(now, 1)
    # Then one token more is there than was said to be left: one less is missing.
    assert opens == NEVER or max(0.0, debt - (opens - now)) <= (missing - 1) * gap + 1e-6


# In a window --------------------------------------------------------------------------------------

REFILLS = WindowKind("tokens", ceiling=90_000.0, refills=True)
FIXED = WindowKind("tokens", ceiling=90_000.0)


def told(name: str, remaining: int, resets_in: float, kind: WindowKind = REFILLS) -> Answer:
    return Answer(name, remaining, 100, kind=kind, resets_in=resets_in)


def spent(kind: WindowKind = REFILLS) -> Film:
    """Return a film of a bucket of 100 that refills in 1000 s, and is spent."""
    film = Film().play([(0, Ask("a"), GO), (0, told("a", 99, 10.0, kind), None)])
    film.bucket.answered = 1000
    taken = film.take_all(1.0)
    for number, granted in enumerate(taken, start=2):
        film.granted["b"] = granted
        film.step(2.0, told("b", 100 - number, 10.0 * number, kind))
    return film


def test_a_call_may_go_as_soon_as_a_token_must_be_there_and_the_others_wait():
    film = spent().play([(2, Ask(), Until(2 + 1001.0 / 99))])
    film.play([(13, Ask("c"), GO), (13, Ask(), WAIT), (13, told("c", 0, 1000.0), None)])
    film.play([(13, Ask(), Until(13 + 1001.0 / 99))])
    assert film.bucket.expect(13.0, 0) == pytest.approx(13 + 1001.0 / 99)


def test_who_is_behind_many_waits_for_their_tokens_to_come_back_as_well():
    """A token comes every 10 s; what is told is rounded by up to a second, and by a token."""
    film = spent()
    for ahead in (1, 9, 49, 99, 250):
        expected = film.bucket.expect(2.0, ahead) - 2.0
        assert 0.97 * 10.0 * ahead < expected <= 10.0 * (ahead + 1)


def test_of_tokens_that_are_all_back_as_many_go_at_once_and_the_next_one_by_one():
    film = spent().play([(1003, Ask("c"), GO), (1003, Lost("c"), None)])
    assert film.bucket.expect(1003.0, 98) == pytest.approx(1003.0)
    assert film.bucket.expect(1003.0, 150) == pytest.approx(1003.0 + 50 * 9.99, rel=1e-3)


def test_of_a_window_that_does_not_refill_all_wait_for_the_reset():
    spent(FIXED).play([(2, Ask(), Until(1002))])


def test_more_tokens_take_longer_to_come_back():
    spent().play([(2, Ask(cost=5), Until(2 + 5 * 1001.0 / 99))])


def test_who_must_leave_a_reserve_waits_for_what_is_beyond_it():
    film = Film().play([(0, Ask("a"), GO), (0, told("a", 99, 10.0), None)])
    film.play([(1, Ask("b"), GO), (1, told("b", 50, 499.0), None)])
    film.play([(2, Ask("c", reserve=0.5), Until(1 + 500.0 / 49)), (2, Ask("c"), GO)])


def test_several_tokens_that_have_come_back_are_no_window_of_their_own():
    film = spent().play([(42, Ask("c"), GO), (42, told("c", 3, 970.0), None)])
    film.play([(43, Ask(reserve=0.03), Until(42 + 1001.0 / 99))])


def test_calls_that_go_early_and_are_lost_back_off_as_probes_do():
    film = Film().play([(0, Ask("a"), GO)])
    refused = Answer("a", 0, 100, 0.0, 429, 7.0, kind=REFILLS, resets_in=1000.0)
    film.play([(0, refused, None), (7, Ask("b"), GO), (7, Lost("b"), None)])
    film.play([(7, Ask("b"), GO), (7, Lost("b"), None), (7, Ask(), Until(8))])
    film.play([(8, Ask("b"), GO), (8, Lost("b"), None), (8, Ask(), Until(10))])


def test_a_refused_calls_retry_after_stands_where_tokens_come_back_though_the_reset_is_later():
    film = Film().play([(0, Ask("a"), GO)])
    refused = Answer("a", 0, 100, 0.0, 429, 7.0, kind=REFILLS, resets_in=1000.0)
    film.play([(0, refused, None), (1, Ask(), Until(7)), (7, Ask("b"), GO), (7, Ask(), WAIT)])
    film.play([(7, told("b", 0, 1000.0), None)])


def test_who_goes_early_and_is_refused_without_a_word_has_the_others_wait_for_the_reset():
    """As one that is told so: the rate that it relied on was another back end's, or is no more."""
    film = spent().play([(13, Ask("c"), GO), (13, Answer("c", status=429), None)])
    assert film.window.refill is not None
    assert not film.window.refill.is_known
    film.play([(100, Ask(), Until(1002))])


def test_a_retry_after_that_always_lies_is_believed_three_times():
    film = Film().play([(0, Ask("a"), GO)])
    for number in range(3):
        now = 10.0 * number
        refused = Answer("a", 0, 100, 0.0, 429, 5.0, kind=REFILLS, resets_in=1000.0 - now)
        film.play([(now, refused, None), (now + 5, Ask("a"), GO)])
    film.play([(30, Answer("a", 0, 100, 0.0, 429, 5.0, kind=REFILLS, resets_in=970.0), None)])
    film.play([(30, Ask(), Until(1000))])


def test_where_a_call_went_well_before_the_reset_each_of_its_seconds_may_be_rounded_down():
    film = Film().play([(0, Ask("a"), GO), (0, told("a", 1, 900.0), None)])
    film.play([(1, Ask("b"), GO), (1, told("b", 0, 3.0), None), (1, Ask(), Until(4 + 1))])
    film.play([(5, Ask("c"), GO), (5, told("c", 0, 3.0), None), (5, Ask(), Until(8 + 1))])
    film.play([(9, Ask("d"), GO), (9, told("d", 0, 3.0), None), (9, Ask(), Until(12 + 1))])


def test_a_reset_that_is_told_to_be_sooner_than_before_is_when_a_token_is_there():
    film = Film().play([(0, Ask("a"), GO), (0, told("a", 1, 900.0), None)])
    film.play([(1, Ask("b"), GO), (1, told("b", 0, 40.0), None), (1, Ask(), Until(42))])


def test_late_answers_of_a_window_that_has_passed_leave_the_next_one_alone():
    """Most servers whose tokens might come back one by one count in fixed windows."""
    film = Film().play([(0, Ask("a"), GO), (0, told("a", 3, 10.0), None)])
    film.bucket.answered = 1000
    film.play([(1, Ask("b"), GO), (1, Ask("c"), GO), (11, Ask("d"), GO)])
    film.play(
        [(11, told("d", 99, 10.0), 97), (12, told("b", 2, 0.0), 98), (12, told("c", 1, 0.0), 99)]
    )


def gone_early(then: Answer) -> Film:
    """Return a film of a call that went well before the reset at 900, as it was told it would."""
    film = Film().play([(0, Ask("a"), GO), (0, told("a", 1, 900.0), None)])
    film.play([(1, Ask("b"), GO), (1, told("b", 0, 3.0), None), (5, Ask("c"), GO)])
    return film.play([(5, then, None)])


@pytest.mark.parametrize(
    ("resets_in", "at"), [(0.5, 5.51), (100.0, 106.0), (890.0, 900.0), (89_999.0, 90_005.0)]
)
def test_who_went_well_before_the_reset_is_told_again_when_a_token_is_there(
    resets_in: float, at: float
):
    gone_early(told("c", 0, resets_in)).play([(5, Ask(), Until(at))])


@pytest.mark.parametrize(("went_early", "at"), [(True, 901.0), (False, 900.0)])
def test_near_the_reset_it_may_be_rounded_down_if_a_call_went_well_before_one(
    went_early: bool, at: float
):
    film = Film().play([(0, Ask("a"), GO), (0, told("a", 1, 900.0), None)])
    if went_early:
        film = gone_early(told("c", 0, 100.0))
    film.play([(897, Ask("d"), GO), (897, told("d", 0, 3.0), None), (897, Ask(), Until(at))])


def test_near_the_reset_who_needs_more_than_is_left_waits_for_it():
    film = gone_early(told("c", 0, 100.0))
    film.play([(897, Ask("d"), GO), (897, told("d", 2, 3.0), None)])
    film.play([(897, Ask(cost=3), Until(900))])


@pytest.mark.parametrize(("resets_in", "at"), [(893.0, 895.0), (894.0, 900.0)])
def test_what_comes_four_seconds_before_the_reset_may_be_another_back_ends_reset(
    resets_in: float, at: float
):
    film = Film().play([(0, Ask("a"), GO), (0, told("a", 1, 900.0), None)])
    film.play([(1, Ask("b"), GO), (1, told("b", 0, resets_in), None), (1, Ask(), Until(at))])


def told_epoch(name: str, missing: int, reset: float) -> Answer:
    return Answer(name, 100 - missing, 100, kind=REFILLS, reset=reset)


@pytest.mark.parametrize(
    ("reset", "at"), [(66.0, 66.0), (67.0, 5.5 + 63.0 / 2)], ids=["another back end", "refills"]
)
def test_an_epoch_that_moves_with_what_is_missing_is_of_tokens_that_come_back_one_by_one(
    reset: float, at: float
):
    film = Film().play([(0, Ask("a"), GO), (0, told_epoch("a", 2, 60.0), None)])
    film.play([(5, Ask("b"), GO), (5.5, told_epoch("b", 3, reset), None)])
    answer = film.ask(5.5, Ask(cost=98))
    assert isinstance(answer, NotUntil)
    assert answer.at == pytest.approx(at, abs=1e-5)


def test_an_epoch_that_has_passed_tells_of_no_token():
    film = Film().play([(0, Ask("a"), GO), (0, told_epoch("a", 99, 900.0), None)])
    film.play([(10, Ask("b"), GO), (10, told_epoch("b", 100, 9.0), None)])
    film.play([(10, Ask(), Until(900))])


def test_who_is_behind_others_is_told_when_their_tokens_and_its_own_may_be_back_at_the_earliest():
    film = Film().play([(0, Ask("a"), GO), (0, told("a", 99, 10.0), None)])
    film.play([(2, Ask("b"), GO), (4, told("b", 0, 1000.0), None)])
    a_token = 999.0 / 100  # at the quickest
    assert film.bucket.expect(4.0, 10) == pytest.approx(4.0 - 2 * 2.0 + 10 * a_token)


def test_those_ahead_count_also_where_the_window_was_seen_for_a_moment_only():
    film = Film().play([(0, Ask("a"), GO), (0, told("a", 99, 1.0), None)])
    film.play([(0.5, Ask("b"), GO), (0.5, told("b", 0, 1000.0), None)])
    assert film.window.span == 0.0
    assert film.bucket.expect(0.5, 10) == pytest.approx(0.5 + 10 * 9.99, rel=1e-3)
