"""The server's clock, seen through Date headers."""

from __future__ import annotations

import math
import random

import pytest

from aiotwhelp.clock import ServerClock

EPOCH = 1_700_000_000.0


def seen(clock: ServerClock, offset: float, at: float, trip: float = 0.1) -> None:
    """Let an answer tell the time of a server whose clock is ``offset`` ahead of ours."""
    clock.observe(float(math.floor(at + trip / 2 + offset)), at, at + trip)


def test_a_clock_nobody_has_seen_goes_by_what_is_assumed():
    clock = ServerClock()
    assert not clock.is_known
    assert repr(clock) == "<ServerClock assumed None>"
    assert clock.local(50.0) == clock.soonest(50.0) == clock.epoch(50.0) == 50.0
    assert not clock.tells
    clock.assume(1000.0)
    assert clock.tells
    assert clock.local(1050.0) == 50.0
    assert clock.soonest(1050.0) == 50.0
    assert clock.epoch(50.0) == 1050.0
    assert repr(clock) == "<ServerClock assumed 1000.0>"


def test_another_assumption_is_news():
    clock = ServerClock()
    clock.assume(1000.0)
    assert clock.changes == 1
    clock.assume(2000.0)
    assert clock.changes == 2


@pytest.mark.parametrize("offset", [0.0, 0.25, -300.0, 300.75, EPOCH + 0.5])
def test_case_17_a_date_header_bounds_the_offset_whatever_the_local_clock_says(offset: float):
    clock = ServerClock()
    source = random.Random(17)
    for number in range(100):
        seen(clock, offset, 10.0 + number * 1.37, source.uniform(0.01, 0.2))
        true = 2000.0
        assert clock.soonest(true + offset) <= true <= clock.local(true + offset)
    # A second and a round trip at first; many answers leave hardly more than a round trip.
    assert clock.local(2000.0 + offset) - 2000.0 < 0.4


def test_the_first_date_alone_is_worth_a_second_and_the_round_trip():
    clock = ServerClock()
    clock.observe(100.0, 10.0, 10.5)
    assert clock.is_known
    assert clock.tells
    assert clock.local(110.0) - clock.soonest(110.0) == pytest.approx(1.5, abs=0.01)


def test_contradicting_dates_widen_the_bound():
    clock = ServerClock()
    seen(clock, 0.0, 10.0)
    seen(clock, 3.0, 11.0)
    assert clock.local(100.0) >= 100.0
    assert clock.soonest(103.0) <= 100.0


@pytest.mark.parametrize("dates", [(100.0, 101.0), (101.0, 100.0)])
def test_dates_whose_bounds_touch_agree(dates: tuple[float, float]):
    clock = ServerClock()
    for date in dates:
        clock.observe(date, 10.0, 10.0)
    assert repr(clock) == "<ServerClock offset 91.000 to 91.000>"


def test_the_same_date_is_news_again_after_a_while():
    clock = ServerClock()
    clock.observe(100.0, 10.0, 10.0)
    clock.observe(100.0, 10.04, 10.04)
    assert (repr(clock), clock.changes) == ("<ServerClock offset 90.000 to 91.000>", 1)
    clock.observe(100.0, 10.05, 10.05)
    assert (repr(clock), clock.changes) == ("<ServerClock offset 90.000 to 90.950>", 2)
    clock.observe(101.0, 10.06, 10.06)
    assert (repr(clock), clock.changes) == ("<ServerClock offset 90.940 to 90.950>", 3)


def test_whatever_contradicts_is_news_at_once():
    clock = ServerClock()
    clock.observe(100.0, 10.0, 10.0)
    for number in range(3):
        clock.observe(200.0, 10.01 + number / 100, 10.01 + number / 100)
    assert repr(clock) == "<ServerClock offset 189.990 to 190.970>"


@pytest.mark.parametrize("shift", [-0.5, 0.5])
def test_what_clocks_may_have_drifted_apart_is_no_contradiction(shift: float):
    clock = ServerClock()
    clock.observe(100.0, 10.0, 10.0)
    clock.observe(10_100.0 + shift, 10_010.0, 10_010.0)
    assert repr(clock) == f"<ServerClock offset {90 + shift:.3f} to {91 + shift:.3f}>"


def test_what_is_left_until_an_instant_may_drift_and_what_has_passed_may_not():
    clock = ServerClock()
    clock.observe(100.0, 10.0, 10.0)
    assert clock.local(90.0 + 10_010.0) == pytest.approx(10_011.0, abs=1e-6)
    assert clock.local(90.0 + 11.0) == pytest.approx(11.0001, abs=1e-6)
    assert clock.local(90.0 + 10.0) == pytest.approx(10.0, abs=1e-6)
    assert clock.local(90.0 + 5.0) == pytest.approx(5.0, abs=1e-6)


def test_edges_whose_dates_differ_in_turn_stay_bounded_by_both():
    clock = ServerClock()
    seen(clock, 0.0, 9.0)
    for number in range(1, 50):
        seen(clock, 3.0 * (number % 2), 9.0 + number)
        assert clock.local(1000.0) >= 1000.0
        assert clock.soonest(1003.0) <= 1000.0


def test_three_contradicting_clocks_are_remembered_and_the_oldest_goes_first():
    clock = ServerClock()
    for at, offset in enumerate((0.0, 50.0, 100.0)):
        seen(clock, offset, float(at))
    assert clock.local(1000.0) >= 1000.0
    seen(clock, 150.0, 3.0)
    assert clock.local(1000.0) == pytest.approx(950.0, abs=1.5)
    assert clock.soonest(1000.0) == pytest.approx(850.0, abs=1.5)


def test_of_contradicting_clocks_the_one_seen_last_says_what_time_it_is():
    clock = ServerClock()
    seen(clock, 0.0, 10.0)
    seen(clock, 300.0, 11.0)
    assert clock.epoch(12.0) == pytest.approx(312.0, abs=1.0)
    seen(clock, 0.0, 12.0)
    assert clock.epoch(13.0) == pytest.approx(13.0, abs=1.0)


def test_case_17_three_agreeing_dates_mean_that_a_clock_stepped():
    clock = ServerClock()
    for at in range(10, 20):
        seen(clock, 0.0, float(at))
    for at in range(20, 22):
        seen(clock, 300.0, float(at))
        assert clock.local(1300.0) > 1200.0, "two might be a mistake"
    seen(clock, 300.0, 22.0)
    assert clock.local(1300.0) == pytest.approx(1000.0, abs=1.5)


@pytest.mark.parametrize(("offset", "left"), [(0.0, 60.0), (40.0, 20.0), (-40.0, 60.0)])
def test_no_more_seconds_are_surely_left_than_by_the_date_of_the_answer_that_tells_of_them(
    offset: float, left: float
):
    clock = ServerClock()
    for at in range(10):
        seen(clock, 0.0, float(at))
    seen(clock, offset, 100.0, trip=0.0)
    assert clock.left(160.0, 100.0) == pytest.approx(left, abs=1.0)
    for at in range(101, 110):
        seen(clock, 0.0, float(at))
    assert clock.left(160.0, 110.0) == pytest.approx(50.0, abs=1.0), "it was one wrong Date"


def test_of_a_clock_that_nobody_has_seen_so_much_is_left_as_is_assumed():
    clock = ServerClock()
    assert clock.left(160.0, 100.0) == 60.0
    clock.assume(20.0)
    assert clock.left(160.0, 100.0) == 40.0


def test_one_wrong_date_is_forgotten_after_three_right_ones():
    clock = ServerClock()
    seen(clock, 0.0, 10.0)
    seen(clock, -40.0, 20.0)
    for at in range(21, 23):
        seen(clock, 0.0, float(at))
        assert clock.local(1000.0) > 1030.0, "two of three, but not for long"
    seen(clock, 0.0, 23.0)
    assert clock.local(1000.0) == pytest.approx(1000.0, abs=1.5)


@pytest.mark.parametrize("offset", [-1e6, -300.0, -60.0, 60.0])
def test_dates_that_are_a_rare_exception_move_nothing(offset: float):
    clock = ServerClock()
    for at in range(100):
        seen(clock, offset if at % 10 == 7 else 0.0, float(at))
        if at >= 7:
            assert clock.local(1000.0) == pytest.approx(1000.0, abs=1.5)
            assert clock.soonest(1000.0) == pytest.approx(1000.0, abs=1.5)


def test_wrong_dates_that_are_all_different_do_not_displace_what_is_trusted():
    clock = ServerClock()
    for at in range(10):
        seen(clock, 0.0, float(at))
    for at in range(10, 16):
        seen(clock, -100.0 * at, float(at))
        assert clock.local(1000.0) == pytest.approx(1000.0, abs=1.5)


def test_one_wrong_date_is_forgotten_even_if_two_edges_answer_in_turn():
    clock = ServerClock()
    clock.observe(0.0, 10.0, 10.1)
    for number in range(80):
        seen(clock, EPOCH + 3.0 * (number % 2), 11.0 + number)
    assert clock.local(1000.0 + EPOCH) == pytest.approx(1000.0, abs=4.0)


@pytest.mark.parametrize("ppm", [50e-6, -50e-6])
def test_clocks_that_drift_apart_over_days_are_followed(ppm: float):
    clock = ServerClock()
    for hour in range(24 * 14):
        at = hour * 3600.0
        true_offset = EPOCH + at * ppm
        clock.observe(float(math.floor(at + true_offset)), at, at + 0.1)
        reset = at + 900.0
        shown = reset + EPOCH + reset * ppm
        assert clock.soonest(shown) - 0.1 <= reset <= clock.local(shown) + 0.1
        assert clock.local(shown) - reset < 2.0


def test_the_clock_says_what_it_believes():
    clock = ServerClock()
    clock.observe(100.0, 10.0, 10.5)
    assert repr(clock) == "<ServerClock offset 89.500 to 91.000>"
    assert clock.epoch(10.0) == pytest.approx(100.25)


def test_a_clock_that_showed_its_old_time_again_was_not_stepped_but_is_one_of_two():
    clock = ServerClock()
    shown = [0.0, 3.5, 0.0, 3.5, 3.5, 3.5, 3.5]
    for at, skew in enumerate(shown):
        clock.observe(1000.0 + int(at + skew), at + 0.1, at + 0.2)
    assert clock.local(1100.0) > 99.0  # the late one may not have come to it before
    for at in range(7, 40):
        clock.observe(1000.0 + int(at + 3.5), at + 0.1, at + 0.2)
    assert clock.local(1100.0) < 98.0  # nobody shows the old time any more


def test_each_time_that_a_clock_is_seen_again_twice_as_many_answers_must_agree_that_one_stepped():
    clock = ServerClock()
    for at in range(40):
        seen(clock, 0.0, float(at))
    for at, offset in enumerate((300.0, 0.0), start=40):
        seen(clock, offset, float(at))  # the old one: six must agree
    for at in range(42, 42 + 11):
        seen(clock, 300.0, float(at))  # and so the other one: twelve
        assert clock.local(1300.0) > 1200.0
    seen(clock, 300.0, 53.0)
    assert clock.local(1300.0) == pytest.approx(1000.0, abs=1.5)
