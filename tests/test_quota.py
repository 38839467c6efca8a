"""The pure rule as film strips: rows of (at, event, expectation)."""

from __future__ import annotations

import itertools
import random
from types import SimpleNamespace
from typing import Any

import pytest

from aiotwhelp.headers import DAY_OF_APP, FIFTEEN_MINUTES, Reading, WindowKind, WindowReading
from aiotwhelp.leases import ColdGate, Health, PaceGate
from aiotwhelp.ledger.port import Outcome
from aiotwhelp.local import ConcurrencyWindow, RateWindow, Room, window_of
from aiotwhelp.quota import Granted, Household, NotUntil
from aiotwhelp.rates import Concurrency, Rate
from aiotwhelp.windows import (
    INF,
    LONGEST_BACKOFF,
    Cost,
    Probing,
    Window,
)
from tests.film import (
    EPOCH,
    GO,
    WAIT,
    Answer,
    Ask,
    Film,
    Lost,
    Unsent,
    Until,
    assert_outcome,
    opened,
    reading,
)

# Cold start --------------------------------------------------------------------------------------


def test_case_01_one_request_until_its_headers_arrive_and_then_a_slow_start():
    film = Film().play([(0, Ask("a"), GO), (0, Ask(), WAIT), (0.1, Answer("a", 14), 14)])
    in_flight = film.take_all(0.1)
    assert len(in_flight) == 2, "one answered, so two may be in flight"
    for answered in range(2, 6):
        granted = in_flight.pop(0)
        film.bucket.observed(granted, 0.2, Reading((reading(15 - answered, 900.0),)))
        in_flight += film.take_all(0.2)
        assert len(in_flight) <= answered + 1


def test_case_01_slow_start_never_exceeds_what_remains():
    film = Film().play([(0, Ask("a"), GO), (0.1, Answer("a", 1), 1)])
    assert len(film.take_all(0.1)) == 1


@pytest.mark.parametrize(
    "failure",
    [Lost("a"), Unsent("a"), Unsent("a", failed=True), Answer("a", status=503)],
    ids=["lost", "unsent", "refused connection", "5xx"],
)
def test_case_02_after_a_failed_first_request_the_next_waiter_goes(failure: object):
    Film().play([(0, Ask("a"), GO), (0, Ask(), WAIT), (0.1, failure, None), (0.1, Ask(), GO)])


def waits_between_probes(failure: object) -> list[float]:
    """How long nobody may go after each of twelve probes that fail, where that is a while."""
    film, now, waits = Film(), 0.0, []
    for _ in range(12):
        while isinstance(answer := film.ask(now, Ask("a")), NotUntil):
            waits.append(round(answer.at - now, 3))
            now = answer.at
        film.step(now, failure)
    return waits


def test_case_02_lost_probes_share_a_back_off():
    assert waits_between_probes(Lost("a")) == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]


@pytest.mark.parametrize(
    "failure",
    [Unsent("a", failed=True), Answer("a", status=500)],
    ids=["refused connection", "5xx"],
)
def test_case_02_so_do_probes_that_fail_otherwise(failure: object):
    assert waits_between_probes(failure) == waits_between_probes(Lost("a"))


def test_case_02_a_call_that_never_left_is_no_loss():
    film = Film()
    for _ in range(8):
        granted = film.ask(0.0)
        assert isinstance(granted, Granted)
        film.bucket.unsent(granted, 0.0)


def test_case_02_callers_are_failed_after_five_lost_probes_and_an_answer_ends_it():
    film, now = Film(), 0.0

    def lose_probes(count: int) -> None:
        nonlocal now
        for _ in range(count):
            while isinstance(answer := film.ask(now, Ask("a")), NotUntil):
                now = answer.at
            film.step(now, Lost("a"))

    lose_probes(5)
    assert film.bucket.patience == INF
    lose_probes(1)
    assert film.bucket.patience == 16.0
    film.play([(100, Ask("a"), GO), (101, Answer("a", 0, reset=160.0), 0)])
    assert film.bucket.patience == INF
    now = 160.0
    lose_probes(7)
    assert film.bucket.patience == 32.0


def test_case_02_a_probe_that_is_only_slow_stalls_nobody_for_long():
    Film().play(
        [
            (0, Ask("slow"), GO),
            (1.9, Ask(), Until(2.0)),
            (2.0, Ask("second"), GO),
            (9.0, Ask(), WAIT),  # never more than two
            (9.1, Answer("second", 14), 13),
            (9.1, Ask(), GO),
        ]
    )


def test_case_03_after_k_answers_without_headers_one_more_than_k_may_be_in_flight():
    film = Film()
    for k in range(8):
        in_flight = film.take_all(float(k))
        assert len(in_flight) == k + 1
        film.bucket.observed(in_flight.pop(), k + 0.1, Reading())
        for granted in in_flight:
            film.bucket.unsent(granted, k + 0.1)
    assert film.bucket.blank == 8


@pytest.mark.parametrize(
    "failure",
    [Lost("a"), Answer("a", status=429), Answer("a", status=420), Answer("a", status=500)],
    ids=["lost", "refused", "refused by an older status", "5xx"],
)
def test_case_03_a_loss_or_a_refusal_halves_what_may_be_in_flight(failure: object):
    film = Film()
    for k in range(7):
        film.step(k, Ask("a"))
        film.step(k + 0.1, Answer("a"))
    assert film.bucket.blank == 7
    film.play([(8, Ask("a"), GO), (8.1, failure, None)])
    assert film.bucket.blank == 3


def test_case_03_a_call_of_a_key_without_headers_is_no_probe_and_its_loss_none_of_a_probe():
    film = Film().play([(0, Ask("a"), GO), (0, Answer("a"), None)])
    film.play([(1, Ask("b"), GO), (1, Lost("b"), None), (1, Ask("probe"), GO)])
    film.play([(1, Lost("probe"), None), (1, Ask(), GO)])


def test_case_03_a_key_that_has_shown_headers_stays_at_one_until_a_reading_comes():
    film = opened(0, reset=5.0)
    film.step(6, Ask("a"))
    for at in range(6, 12):
        film.play([(at, Ask(), WAIT), (at + 0.1, Answer("a"), None), (at + 0.2, Ask("a"), GO)])
    film.play([(13, Answer("a", 10, reset=18.0), None)])
    assert len(film.take_all(13.1)) == 10


def test_case_04_a_first_refusal_shuts_until_the_reset_and_then_one_goes():
    Film().play(
        [
            (0, Ask("a"), GO),
            (0.1, Answer("a", 0, reset=60.0, status=429), 0),
            (0.1, Ask(), Until(60.0)),
            (60.0, Ask("b"), GO),
            (60.0, Ask(), WAIT),
        ]
    )


def test_case_05_a_first_answer_with_nothing_left_lets_nobody_go():
    Film().play([(0, Ask("a"), GO), (0.1, Answer("a", 0), 0), (0.2, Ask(), Until(900.0))])


# In flight and out of order ----------------------------------------------------------------------


def test_case_06_answers_out_of_order_fold_by_minimum():
    opened(100, limit=100).play(
        [
            (1, Ask("a"), GO),
            (1, Ask("b"), GO),
            (1, Ask("c"), GO),
            (2, Answer("c", 97, 100), 95),
            (2, Answer("a", 99, 100), 96),
            (2, Answer("b", 98, 100), 97),
        ]
    )


@pytest.mark.parametrize("order", list(itertools.permutations("abcd")))
def test_invariant_i6_any_order_of_answers_ends_in_the_same_belief(order: tuple[str, ...]):
    film = opened(15)
    for name in "abcd":
        film.step(1, Ask(name))
    told = {"a": 14, "b": 13, "c": 12, "d": 11}
    for name in order:
        film.step(2, Answer(name, told[name]))
    assert film.window.available == 11
    assert film.window.in_flight == 0


def test_a_later_calls_answer_replaces_upwards_too():
    opened(10).play([(1, Ask("a"), GO), (2, Answer("a", 14), 14)])


def test_case_07_a_slow_answer_of_the_old_window_is_ignored():
    opened(15, reset=60.0).play(
        [
            (50, Ask("slow"), GO),
            (61, Ask("probe"), GO),
            (62, Answer("probe", 14, reset=120.0), 13),
            (63, Answer("slow", 0, reset=60.0), 14),
            (64, Ask(), GO),
        ]
    )


def test_case_08_old_calls_in_flight_count_as_not_yet_counted():
    opened(15, reset=60.0).play(
        [
            (59, Ask("a"), GO),
            (59, Ask("b"), GO),
            (61, Ask("probe"), GO),
            (62, Answer("probe", 14, reset=120.0), 12),
            (63, Answer("a", 12, reset=120.0), 11),
            (63, Answer("b", 13, reset=120.0), 12),
        ]
    )


def test_case_09_a_reset_that_jitters_makes_no_phantom_window():
    film = opened(15)
    for number in range(1, 12):
        film.step(number, Ask("a"))
        film.step(number + 0.1, Answer("a", 15 - number, reset=900.0 + number % 2))
        assert film.window.available == 15 - number
    assert film.window.reset == pytest.approx(1_700_000_901.0)
    # A jitter after the reset is the old window, not a new one.
    film.play([(901.5, Ask("b"), GO), (901.6, Answer("b", 0, reset=902.4, status=429), 0)])
    assert not film.window.is_confirmed


@pytest.mark.parametrize(
    ("limit", "remaining", "left"),
    [(300, 299, 299), (1800, 1799, 1799), (15, 40, 40), (15, 0, 0)],
    ids=["shrinks", "grows", "above its limit", "below zero"],
)
def test_case_10_the_limit_may_change_within_a_window(limit: int, remaining: int, left: int):
    film = opened(900, limit=900)
    film.play([(1, Ask("a"), GO), (2, Answer("a", remaining, limit), left)])
    assert film.window.limit == limit


def test_case_11_another_consumer_is_believed_and_stops_us_in_time():
    film = opened(15)
    film.play([(1, Ask("a"), GO), (2, Answer("a", 3), 3)])
    assert len(film.take_all(2)) == 1, "the last tokens one at a time: others may take them"


@pytest.mark.parametrize("counts", [True, False])
def test_case_12_failed_calls_leak_nothing_whether_the_server_counts_them_or_not(counts: bool):
    film, left = opened(15), 15
    for number in range(10):
        film.step(number, Ask("failed"))
        left -= counts
        film.step(number + 0.1, Answer("failed", status=503))
    film.step(20, Ask("a"))
    left -= 1
    film.step(20.1, Answer("a", left))
    assert film.window.available == left


@pytest.mark.parametrize("status", [500, 503])
def test_case_12_a_burst_of_failures_that_were_not_counted_costs_one_probe_not_the_window(
    status: int,
):
    film = opened(15)
    for number in range(15):
        film.step(1, Ask(str(number)))
    film.step(1, Ask())
    for number in range(15):
        film.step(2, Answer(str(number), status=status))
    film.play([(2, Ask("probe"), GO), (2, Ask(), WAIT), (3, Answer("probe", 14), 14)])


def test_case_13_an_answer_from_a_cache_is_not_observed():
    film = opened(10)
    film.play([(1, Ask("a"), GO), (2, Answer("a", 900, 900, cached=True), 9)])
    film.play([(3, Ask("b"), GO), (4, Answer("b", 9), 9)])


def test_case_13_a_refusal_from_a_cache_ends_the_probing_for_a_while():
    film = opened(0, reset=60.0).play([(60, Ask("a"), GO)])
    film.play([(60.1, Answer("a", status=429, cached=True), None), (60.1, Ask(), Until(61.1))])


def test_case_13_a_cached_first_answer_does_not_count_as_one_without_headers():
    film = Film().play([(0, Ask("a"), GO), (1, Answer("a", cached=True), None)])
    assert film.bucket.blank == 0
    film.play([(1, Ask("b"), GO), (1, Ask(), WAIT)])


def test_case_13_a_call_that_a_cache_answered_is_owed_by_the_window_that_shows_next():
    film = Film().play([(0, Ask("a"), GO), (2, Ask("b"), GO)])
    film.play([(2.1, Answer("a", cached=True), None), (3, Answer("b", 14), 13)])
    film.play([(4, Ask("c"), GO), (5, Answer("c", 12), 12)])


# Reset -------------------------------------------------------------------------------------------


def test_case_14_at_the_reset_one_probe_goes_and_then_no_more_than_remaining():
    film = opened(0, reset=60.0)
    film.play(
        [
            (59.9, Ask(), Until(60.0)),
            (60.0, Ask("probe"), GO),
            (60.0, Ask(), WAIT),
            (60.1, Answer("probe", 7, reset=120.0), 7),
        ]
    )
    assert len(film.take_all(60.1)) == 7


@pytest.mark.parametrize("late", [0.7, 2.5, 6.0])
def test_case_15_a_late_rollover_is_backed_off_and_learned(late: float):
    film, reset, now, refused = opened(0, reset=60.0), 60.0, 60.0, []
    for _ in range(2):
        refused.append(0)
        while True:
            answer = film.ask(now, Ask("probe"))
            if isinstance(answer, NotUntil):
                now = answer.at
                continue
            if now >= reset + late:
                break
            refused[-1] += 1
            film.step(now + 0.05, Answer("probe", 0, reset=reset, status=429))
            now += 0.05
        reset = now + 60.0
        film.step(now + 0.05, Answer("probe", 0, reset=reset))
    assert refused[0] <= 3
    assert refused[1] == 0, "the next reset costs none"


def test_case_15_a_refusal_without_headers_at_the_reset_speaks_of_the_reset():
    film = opened(0, reset=60.0)
    film.play([(60, Ask("a"), GO), (60.1, Answer("a", status=429), None)])
    assert film.bucket.pace.gap == 0.0
    film.play([(60.2, Ask(), Until(61.1)), (61.2, Ask("b"), GO)])
    film.play([(61.3, Answer("b", 14, reset=120.0), 14)])


def test_case_15_a_refusal_at_the_reset_speaks_of_it_whatever_it_says_is_left():
    film = opened(0, reset=60.0)
    film.play([(60, Ask("a"), GO), (60.1, Answer("a", 5, reset=60.0, status=429), 0)])
    film.play([(60.2, Ask(), Until(61.1))])


def test_case_16_an_early_rollover_is_used_at_once():
    film = opened(15, reset=60.0)
    film.play([(1, Ask("a"), GO), (2, Answer("a", 1, reset=60.0), 1)])
    film.play([(40, Ask("b"), GO), (41, Answer("b", 14, reset=100.0), 14)])
    film.play([(60, Ask(), GO), (99, Ask(), GO)])


def test_case_16_an_early_rollover_of_a_window_that_is_just_spent_idles_nobody():
    film = opened(4, reset=60.0)
    film.play([(1, Ask(name), GO) for name in "abcd"])
    film.play([(2, Answer("a", 0, reset=60.0), 0)])
    # The server has rolled over at 40; the rest of the calls were slow.
    film.play([(41, Answer("b", 14, reset=100.0), 12), (42, Answer("c", 12, reset=100.0), 11)])
    film.play([(43, Answer("d", 13, reset=100.0), 12), (44, Ask("e"), GO)])


def test_case_16_a_late_rollover_among_calls_in_flight_idles_nobody():
    film = opened(5, reset=60.0)
    film.play([(61, Ask("old"), GO), (61.1, Answer("old", 2, reset=60.0), 2)])
    film.play([(61.5, Ask("a"), GO), (61.6, Ask("b"), GO)])
    # It has rolled over between the two, a second and a half late.
    film.play([(61.7, Answer("a", 0, reset=60.0), 0), (61.8, Answer("b", 14, reset=121.0), 14)])


def late_rollover(left: int, *calls: str) -> Film:
    """Return a film in which a window goes on beyond its reset, and calls are in flight."""
    film = opened(left + 1, reset=60.0)
    film.play([(61, Ask("old"), GO), (61.1, Answer("old", left, reset=60.0), left)])
    return film.play([(61.5, Ask(name), GO) for name in calls])


def test_case_16_a_reading_without_a_reset_may_be_of_the_window_that_a_late_rollover_began():
    film = late_rollover(7, "a", "b", "c")
    # The next window has counted c, and then b; what tells of a is later still.
    film.play([(61.7, Answer("b", 13, reset=None), 11), (61.8, Answer("a", 6, reset=60.0), 5)])
    film.play([(61.9, Answer("c", 14, reset=121.0), 13)])
    film.play([(62, Ask("d"), GO), (62.1, Answer("d", 12, reset=121.0), 12)])


def test_case_16_calls_in_flight_at_a_late_rollover_may_be_counted_after_the_probe():
    """Of eight processes two more were refused, when their reading came before the probe's."""
    film = opened(9, reset=60.0)
    film.play([(59, Ask(name), GO) for name in "abc"])
    film.play([(61, Ask("probe"), GO), (61.1, Answer("b", 5, reset=60.0), None)])
    film.play([(61.2, Answer("probe", 7, reset=60.0), 3), (61.3, Answer("c", 6, reset=60.0), 4)])
    film.play([(62, Ask("d"), GO), (62.1, Answer("d", 4, reset=60.0), 3)])


@pytest.mark.parametrize("reset", [121.0, None])
def test_case_16_what_is_left_of_an_old_window_is_not_what_is_left_of_another(reset: float | None):
    film = opened(9, reset=60.0)
    film.play(
        [(59, Ask("a"), GO), (61, Ask("probe"), GO), (61.1, Answer("a", 3, reset=60.0), None)]
    )
    film.play([(61.2, Answer("probe", 7, reset=reset), 7)])


def test_case_16_what_was_read_before_the_probe_went_is_in_what_it_reads():
    film = opened(9, reset=60.0)
    film.play([(59, Ask("a"), GO), (61, Answer("a", 3, reset=60.0), None)])
    film.play([(61.1, Ask("probe"), GO), (61.2, Answer("probe", 7, reset=60.0), 7)])


def test_case_16_so_may_one_whose_reset_nobody_can_believe():
    film = late_rollover(7, "a", "b")
    film.play([(61.7, Answer("a", 13, reset=10_000.0), 12)])
    film.play([(61.8, Answer("b", 14, reset=121.0), 13)])


def test_case_16_what_may_be_of_either_window_takes_its_cost_until_a_call_finds_out():
    film = late_rollover(7)
    film.play([(61.5, Ask("a", cost=2), GO), (61.5, Ask("b"), GO), (61.5, Ask("c"), GO)])
    film.play([(61.7, Answer("a", 12, reset=None), 10), (61.8, Answer("b", 14, reset=121.0), 11)])
    # A call that was on its way by then need not have a in its reading.
    film.play([(61.9, Answer("c", 13, reset=121.0), 11)])
    film.play([(62, Ask("d"), GO), (62.1, Answer("d", 10, reset=121.0), 10)])


def test_case_16_nobody_idles_since_a_reading_may_be_of_either_window():
    film = late_rollover(2, "a", "b")
    film.play([(61.7, Answer("a", 0, reset=None), 0), (61.8, Answer("b", 1, reset=121.0), 0)])
    film.play([(62, Ask("probe"), GO), (62, Ask(), WAIT)])
    film.play([(62.1, Answer("probe", 0, reset=121.0), 0), (62.2, Ask(), Until(121.0))])


def test_case_16_a_late_rollover_is_known_for_one_after_a_reserve_was_probed_for():
    film = opened(5, reset=60.0)
    film.play([(61, Ask("old"), GO), (61.1, Answer("old", 4, reset=60.0), 4)])
    film.play([(61.2, Ask(reserve=0.5), Until(62.2)), (62.2, Ask("probe", reserve=0.5), GO)])
    film.play([(62.3, Answer("probe", 3, reset=60.0), 3)])
    film.play([(62.4, Ask("a"), GO), (62.4, Ask("b"), GO)])
    film.play([(62.6, Answer("a", 2, reset=60.0), 1), (62.7, Answer("b", 14, reset=122.0), 14)])


def test_a_window_without_a_reset_is_not_taken_for_the_next_one_when_it_is_told():
    film = opened(5, reset=60.0)
    film.play([(61, Ask("old"), GO), (61.1, Answer("old", 5, reset=None), 5)])
    film.play([(62, Ask("a"), GO), (62, Ask("b"), GO)])
    film.play([(62.1, Answer("a", 3, reset=None), 2), (62.2, Answer("b", 4, reset=121.0), 3)])


@pytest.mark.parametrize("reset", [-5.0, -1_700_000_000.0, 1.7e12, 3.2e8, None])
def test_case_19_an_unusable_reset_gives_a_bounded_wait_and_no_spin(reset: float | None):
    film = Film().play([(0, Ask("a"), GO), (1, Answer("a", 0, reset=reset), 0)])
    now, asked = 1.0, 0
    while now < 3600.0:
        answer = film.ask(now, Ask("b"))
        asked += 1
        if isinstance(answer, NotUntil):
            assert now + 0.5 <= answer.at <= now + 960.0
            now = answer.at
        else:
            now += 0.1
            film.step(now, Answer("b", 0, reset=reset))
    assert asked < 200


def test_case_20_a_bucket_idle_long_past_its_reset_is_not_blocked():
    opened(0, reset=60.0).play([(7200, Ask(), GO)])


# 429 ---------------------------------------------------------------------------------------------


def test_case_21_a_refusal_shuts_the_gate_and_calls_in_flight_may_come_back():
    film = opened(70, limit=70)
    for number in range(20):
        film.step(1, Ask(str(number)))
    film.play([(2, Answer("0", 0, 70, status=429), 0), (2, Ask(), Until(900.0))])
    for number in range(1, 20):
        film.play([(3, Answer(str(number), 50 - number, 70), 0), (3, Ask(), Until(900.0))])
    film.play([(900, Ask("probe"), GO), (900, Ask(), WAIT)])


def test_case_22_a_refusal_with_tokens_left_makes_a_pace_and_single_file():
    film = opened(300, limit=300)
    film.play(
        [
            (1, Ask("a"), GO),
            (1, Ask("b"), GO),
            (2, Answer("a", 298, 300, status=429), None),
            (2, Ask(), WAIT),  # b is in flight: single file
            (2.1, Answer("b", 298, 300, status=429), None),
            (2.1, Ask(), Until(2.25)),
            (2.3, Ask("c"), GO),
        ]
    )
    assert film.bucket.pace.gap == 0.25, "b went before the gap grew"
    film.bucket.pace.gap = 0.0
    film.play([(3, Answer("c", 297, 300), None), (3, Ask("d"), GO), (3, Ask("e"), GO)])
    film.step(4, Answer("d", 295, 300, status=429))
    film.step(4, Answer("e", 295, 300, status=429))
    assert film.bucket.pace.gap == 0.25, "nor did e wait for the second growth"


def test_case_22_an_older_status_for_a_refusal_means_the_same():
    film = opened(300, limit=300)
    film.play([(1, Ask("a"), GO), (2, Answer("a", 298, 300, status=420), None)])
    film.play([(2, Ask(), Until(2.25))])


def test_case_22_a_success_shrinks_the_pace_and_a_failure_does_not():
    film = opened(300, limit=300)
    film.play([(1, Ask("a"), GO), (2, Answer("a", 298, 300, status=429), None)])
    film.play([(3, Ask("b"), GO), (4, Answer("b", 297, 300, status=500), None)])
    assert film.bucket.pace.gap == 0.25
    film.play([(5, Ask("c"), GO), (6, Answer("c", 296, 300), None)])
    assert film.bucket.pace.gap == pytest.approx(0.95 * 0.25)


def test_case_22_the_pace_goes_from_grant_to_grant():
    film = opened(300, limit=300)
    film.play([(1, Ask("a"), GO), (2, Answer("a", 298, 300, status=429), None)])
    film.play([(2.3, Ask("b"), GO), (2.4, Answer("b", 297, 300), None), (2.4, Ask(), Until(2.55))])


def test_case_22_the_gap_is_no_gap_below_ten_milliseconds():
    pace = opened(300).bucket.pace
    pace.gap = 0.0107
    pace.accepted(1.0)
    assert pace.gap == pytest.approx(0.95 * 0.0107)
    pace.accepted(1.0)
    assert pace.gap == 0.0


def test_case_22_an_estimate_counts_the_gaps_ahead_that_surely_stay():
    film = opened(300, limit=300)
    film.play([(1, Ask("a"), GO), (2, Answer("a", 298, 300, status=429), None)])
    film.play([(3, Ask("b"), GO), (4, Answer("b", 298, 300, status=429), None)])
    assert film.bucket.expect(4.0, 4) == pytest.approx(4.5 + 4 * 1.1 * 0.25)


def test_case_22_the_pace_grows_to_a_minute_and_stays_above_what_was_refused():
    film, now, gaps = opened(300, limit=300), 1.0, []
    for _ in range(12):
        while isinstance(answer := film.ask(now, Ask("a")), NotUntil):
            now = answer.at
        film.step(now + 0.05, Answer("a", 290, 300, status=429))
        gaps.append(film.bucket.pace.gap)
    assert gaps == [0.25, 0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert len(film.bucket.pace._refused) == 1, "the widest is all that counts"
    film = opened(300, limit=300)
    pace = film.bucket.pace
    granted = film.ask(1.0)
    assert isinstance(granted, Granted)
    pace.gap = 1.0
    assert pace.refused(granted, 10.0)
    for _ in range(200):
        pace.accepted(610.0)
    assert pace.gap == pytest.approx(1.1)
    for _ in range(200):
        pace.accepted(700.0)
    assert pace.gap == 0.0, "after ten minutes it is forgotten"


def test_case_22_a_limit_that_refuses_every_second_call_widens_the_pace_to_no_more_than_a_minute():
    film, now, gaps = opened(300, limit=300), 1.0, []
    for number in range(60):
        while isinstance(answer := film.ask(now, Ask("a")), NotUntil):
            gaps.append(answer.at - now)
            now = answer.at
        refused = number < 10 or number % 2
        film.step(now + 0.1, Answer("a", 290, 300, now + 800.0, status=429 if refused else 200))
        now += 0.1
    assert max(gaps) == pytest.approx(60.0)


def test_case_23_refusals_without_any_header_back_off_with_jitter():
    delays = []
    for jitter in (0.0, 1.0):
        film, now = Film(random=jitter), 0.0
        for _ in range(6):
            while isinstance(answer := film.ask(now, Ask("a")), NotUntil):
                now = answer.at
            film.step(now, Answer("a", status=429))
        delays.append(now)
    assert delays[0] == pytest.approx(0.25 + 0.5 + 1 + 2 + 4)
    assert delays[1] == pytest.approx(1.1 * delays[0])


@pytest.mark.parametrize(
    ("remaining", "retry_after", "until"),
    [
        (0, 30.0, 60.0),
        (0, 90.0, 92.0),
        (0, 1e9, 962.0),
        (0, None, 60.0),
        (5, 30.0, 32.0),
        (5, 0.5, 2.5),
        (5, 1e9, 962.0),
        (5, None, 2.25),
        (1, None, 2.25),
    ],
)
def test_case_24_retry_after_against_reset(remaining: int, retry_after: float | None, until: float):
    film = opened(15, reset=60.0)
    film.step(1, Ask("a"))
    film.step(2, Answer("a", remaining, reset=60.0, status=429, retry_after=retry_after))
    answer = film.ask(2.0)
    assert isinstance(answer, NotUntil)
    assert answer.at == pytest.approx(until, abs=0.1)


def test_case_24_retry_after_of_a_server_that_is_busy_shuts_everything():
    film = opened(15)
    film.play([(1, Ask("a"), GO), (2, Answer("a", 14, status=503, retry_after=30.0), 14)])
    film.play([(2, Ask(), Until(32.0)), (32, Ask(), GO)])


def test_case_24_retry_after_of_a_key_that_shows_no_headers_has_a_ceiling_too():
    film = Film().play([(0, Ask("a"), GO), (2, Answer("a", status=429, retry_after=1e9), None)])
    film.play([(2, Ask(), Until(962.0))])


def test_case_24_retry_after_shuts_the_windows_that_are_spent_and_no_others():
    film = opened(15)
    film.play([(1, Ask("a"), GO)])
    film.play([(2, Answer("a", 14, day=0, status=429, retry_after=5000.0), 14)])
    short, day = film.bucket.windows
    assert day.shut == 5002.0
    assert short.shut < 2.0


def test_case_25_of_two_refusals_with_different_resets_the_later_stands():
    film = opened(15, reset=60.0)
    film.step(1, Ask("a"))
    film.step(1, Ask("b"))
    film.step(2, Answer("a", 0, reset=300.0, status=429))
    film.step(2, Answer("b", 0, reset=60.0, status=429))
    film.play([(2, Ask(), Until(300.0)), (60, Ask(), Until(300.0)), (300, Ask(), GO)])


def test_case_25_a_stale_observation_cannot_reopen_a_shut_window():
    film = opened(15, reset=60.0)
    film.step(1, Ask("a"))
    film.step(1, Ask("b"))
    film.step(2, Answer("a", 0, reset=60.0, status=429, retry_after=100.0))
    film.play([(3, Answer("b", 13, reset=60.0), None), (60, Ask(), Until(102.0)), (102, Ask(), GO)])


# Losses ------------------------------------------------------------------------------------------


def test_case_30_a_lost_call_is_a_ghost_until_a_call_sent_after_its_span_is_read():
    opened(15).play(
        [
            (1, Ask("a"), GO),
            (2, Lost("a"), 14),
            (2.5, Ask("early"), GO),
            (2.6, Answer("early", 14), 13),  # the server may count it yet
            (3.5, Ask("late"), GO),
            (3.6, Answer("late", 12), 12),
        ]
    )


def test_case_30_if_only_ghosts_block_one_probe_goes_after_the_newest_ones_span():
    film = opened(3, limit=3)
    for name in "abc":
        film.step(1, Ask(name))
    for name in "abc":
        film.step(2, Lost(name))
    film.play([(2, Ask(), Until(3.0)), (3, Ask("probe"), GO), (3, Ask(), WAIT)])
    film.play([(3.1, Answer("probe", 2, 3), 2)])


def test_case_30_a_loss_is_owed_for_its_span_by_the_window_that_shows_next():
    film = Film().play([(0, Ask("a"), GO), (2, Ask("b"), GO)])
    film.play([(2.5, Lost("a"), None), (2.6, Answer("b", 14), 13)])
    film.play([(3.0, Ask("early"), GO), (3.1, Answer("early", 13), 12)])
    film.play([(3.5, Ask("late"), GO), (3.6, Answer("late", 11), 11)])


def test_case_30_a_loss_is_owed_by_every_window_that_shows_within_its_span():
    film = Film().play([(0, Ask("a"), GO), (2, Ask("b"), GO)])
    film.play([(2.5, Lost("a"), None), (2.6, Answer("b", 14), 13)])  # the day's was unreadable
    film.play([(3.0, Ask("early"), GO), (3.1, Answer("early", 13, day=500), 12)])
    assert film.bucket.windows[1].available == 499
    film.play([(3.5, Ask("late"), GO), (3.6, Answer("late", 11, day=498), 11)])
    assert film.bucket.windows[1].available == 498


def test_a_window_that_shows_late_owes_nothing_that_a_later_call_has_told_of():
    film = Film().play([(0, Ask("a"), GO), (2, Ask("b"), GO)])
    film.play([(2.5, Lost("a"), None), (2.6, Answer("b", 14), 13)])
    film.play([(3.5, Ask("late"), GO), (3.6, Answer("late", 12), 12)])
    film.play([(4.0, Ask("c"), GO), (4.1, Answer("c", 11, day=500), 11)])
    assert film.bucket.windows[1].available == 500


def test_a_lost_token_is_not_given_back_by_the_next_window():
    film = opened(15, reset=60.0)
    film.step(59.5, Ask("a"))
    film.step(59.9, Lost("a"))
    film.step(60.1, Ask("probe"))
    film.step(60.2, Answer("probe", 14, reset=120.0))
    assert film.window.available == 13, "it may have been counted after the reset"


def test_a_call_that_never_left_gives_its_token_back():
    opened(15).play([(1, Ask("a"), GO), (1, Unsent("a"), 15)])


@pytest.mark.parametrize("settle", ["observed", "lost", "unsent"])
def test_invariant_i2_settling_twice_is_an_error(settle: str):
    film = opened(15)
    granted = film.ask(1.0)
    assert isinstance(granted, Granted)
    film.bucket.unsent(granted, 1.0)
    extra = (Reading(),) if settle == "observed" else ()
    with pytest.raises(RuntimeError, match="exactly once"):
        getattr(film.bucket, settle)(granted, 1.0, *extra)
    assert film.window.in_flight == 0


# Several windows ---------------------------------------------------------------------------------


def test_case_38_a_grant_needs_both_windows_and_takes_none_while_one_blocks():
    film = opened(15)
    film.play([(1, Ask("a"), GO), (2, Answer("a", 14, day=1), 14)])
    short, day = film.bucket.windows
    assert (short.available, day.available) == (14, 1)
    film.play([(3, Ask("b"), GO), (3, Ask(), Until(86_400.0))])
    assert short.available == 13, "no token was taken from one while the other blocks"
    assert day.available == 0


def test_case_38_two_users_share_the_apps_window():
    film = opened(15)
    film.play([(1, Ask("a"), GO), (2, Answer("a", 14, day=2), None)])
    one, two = film.bucket, film.new_bucket("two")
    film.bucket = two
    film.play([(3, Ask("b"), GO), (4, Answer("b", 14, day=1), None)])
    assert set(one.windows) & set(two.windows) == {film.windows["app", "24h-app"]}
    film.play([(5, Ask("c"), GO), (5, Ask(), WAIT)])
    assert isinstance(one.ask(5.0), NotUntil)
    film.play([(6, Unsent("c"), None)])
    assert isinstance(one.ask(6.0), Granted)


def test_a_new_user_does_not_find_out_by_itself_that_the_apps_window_is_spent():
    film = opened(15)
    film.play([(1, Ask("a"), GO), (2, Answer("a", 14, day=1), None)])
    refused = 0
    for number in range(50):
        film.bucket = film.new_bucket(f"user {number}")
        refused += isinstance(film.ask(3.0), NotUntil)
    assert refused == 49


@pytest.mark.parametrize(
    "event", [None, Lost("other"), Answer("other"), Answer("other", status=503)]
)
def test_an_apps_window_counts_what_others_sent_before_anyone_knew_of_it(
    event: Lost | Answer | None,
):
    film = Film()
    film.play([(0, Ask("first"), GO)])
    film.bucket = film.new_bucket("two")
    film.play([(0, Ask("other"), GO)])
    if event is not None:
        film.step(0, event)
    film.step(1, Answer("first", 14, day=4))
    assert film.windows["app", "24h-app"].available == 3


def test_an_answer_without_headers_is_owed_by_the_window_that_a_later_one_shows():
    film = Film()
    film.play([(0, Ask("a"), GO), (1, Answer("a"), None)])
    film.play([(2, Ask("b"), GO), (2, Ask("c"), GO), (3, Answer("b"), None)])
    film.play([(4, Answer("c", 13), 12)])
    film.play([(5, Ask("d"), GO), (6, Answer("d", 11), 11)])


def test_what_a_key_without_headers_owes_takes_no_room():
    film = Film()
    for now in range(1000):
        film.play([(now, Ask("a"), GO), (now + 0.5, Answer("a"), None)])
    assert film.bucket.debts.ghosts == 1000
    assert len(film.bucket.debts._ghosts) <= 4
    film.play([(1000, Ask("a"), GO), (1001, Answer("a", 14), 14)])


def test_case_53_a_window_that_only_some_routes_show_is_not_spent_by_others():
    film = opened(15)
    day = Window(DAY_OF_APP, film.clock, film.numbering, "day")
    film.shared.append(day)
    film.bucket = film.new_bucket("two")
    film.play([(1, Ask("a"), GO), (2, Answer("a", 14), 14)])
    assert day not in film.bucket.windows
    assert day.in_flight == 0
    film.step(3, Ask("b"))
    assert day.in_flight == 0


def test_case_53_a_window_that_was_presumed_in_vain_keeps_the_calls_of_others():
    film = opened(15)
    film.play([(1, Ask("a"), GO), (2, Answer("a", 14, day=9), 14)])
    film.play([(2, Ask("b"), GO), (2, Ask("c"), GO)])
    day = film.windows["app", "24h-app"]
    film.bucket = film.new_bucket("two")
    film.play([(3, Ask("d"), GO), (5, Ask("e"), GO)])
    assert day.in_flight == 4
    film.step(6, Answer("d", 14))
    assert day.in_flight == 2


def test_case_54_a_debt_holds_its_calls_cost():
    film = opened(15)
    film.play([(1, Ask("a", cost=5), GO), (1.1, Lost("a"), 10)])
    film.play([(1.2, Ask("b", cost=4), GO), (1.3, Answer("b"), 6)])
    film.play([(3, Ask("c"), GO), (3.1, Answer("c", 5), 5)])


def test_a_cost_waits_for_enough_tokens_and_one_that_never_fits_is_an_error():
    film = opened(3, limit=15, reset=60.0)
    film.play([(1, Ask(cost=4), Until(60.0)), (1, Ask(cost=3), GO)])
    with pytest.raises(ValueError, match="never fits"):
        film.ask(1.0, Ask(cost=16))


def test_a_reserve_is_left_for_interactive_calls_and_not_applied_to_probes():
    film = opened(15, reset=60.0)
    taken = 0
    while isinstance(film.ask(1.0, Ask(reserve=0.2)), Granted):
        taken += 1
    assert taken == 12
    assert isinstance(film.ask(1.0), Granted)
    film = opened(0, limit=1, reset=60.0)
    film.play([(60, Ask("probe", reserve=0.9), GO)])
    film.play([(60.1, Answer("probe", 1, 1, reset=120.0), None), (60.2, Ask(reserve=0.9), GO)])


def test_what_is_kept_by_a_reserve_blocks_nobody_for_long_where_no_reset_is_told():
    film = Film().play([(0, Ask("a"), GO), (0, Answer("a", 2, reset=None), 2)])
    film.play([(0, Ask(reserve=0.2), Until(1.0)), (1.0, Ask("probe", reserve=0.2), GO)])


def test_room_bounds_the_calls_in_flight():
    film, room = opened(15), Room(3)
    assert (room.in_flight, len(room.blocked)) == (0, 0)
    granted = [film.bucket.ask(1.0, room=room) for _ in range(3)]
    blocked = film.bucket.ask(1.0, room=room)
    assert blocked == NotUntil(INF, room)
    first = granted[0]
    assert isinstance(first, Granted)
    film.bucket.unsent(first, 1.0)
    assert repr(room) == "<Room 2 of 3 in flight>"
    assert isinstance(film.bucket.ask(1.0, room=room), Granted)
    assert repr(room) == "<Room 3 of 3 in flight>"


def test_two_windows_that_turn_out_to_be_one_are_merged():
    film = opened(10)
    film.bucket = other = film.new_bucket("two")
    film.play([(1, Ask("a"), GO), (2, Answer("a", 6), 6)])
    film.bucket.answered = 1000
    film.play([(3, Ask("b"), GO), (3, Ask("lost"), GO), (3.1, Lost("lost"), 4)])
    one, two = film.windows["one", "15min"], film.windows["two", "15min"]
    one.absorb(two)
    assert other.windows == [one]
    assert one.in_flight == 1
    assert one.available == 6 - 1 - 1
    film.play([(6, Answer("b", 5), None), (7, Ask("c"), GO), (8, Answer("c", 4), 4)])
    assert one.in_flight == 0


def test_a_merged_window_is_counted_once_by_a_bucket_that_needed_both():
    film = opened(10)
    film.play([(1, Ask("a"), GO), (2, Answer("a", 9, day=100), None), (3, Ask("b"), GO)])
    short, day = film.bucket.windows
    short.absorb(day)
    assert film.bucket.windows == [short]
    assert short.in_flight == 1


# Servers that surprise ---------------------------------------------------------------------------


def test_case_46_a_restored_state_whose_reset_has_passed_counts_as_unknown():
    film = Film()
    film.bucket.restore(100.0, [reading(7, 900.0)])
    assert len(film.take_all(100.0)) == 2, "slow start goes on"
    film = Film()
    film.bucket.restore(1000.0, [reading(7, 900.0)])
    film.play([(1000, Ask("probe"), GO), (1000, Ask(), WAIT)])


def test_case_47_remaining_zero_without_a_usable_reset_is_probed_with_a_back_off():
    film = Film().play([(0, Ask("a"), GO), (0, Answer("a", 0, reset=None), 0)])
    now, gaps = 0.0, []
    for _ in range(9):
        answer = film.ask(now, Ask("a"))
        assert isinstance(answer, NotUntil)
        gaps.append(round(answer.at - now, 3))
        now = answer.at
        film.play([(now, Ask("a"), GO), (now, Answer("a", 0, reset=None, status=429), 0)])
    assert gaps == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert max(gaps) == LONGEST_BACKOFF


def test_case_48_two_back_ends_with_different_resets_free_no_counted_token():
    film, left, source = opened(100, limit=100, reset=60.0), 100, random.Random(48)
    in_flight: list[tuple[int, Granted]] = []
    for step in range(400):
        now = 1 + step * 0.1
        if source.random() < 0.6 and isinstance(granted := film.bucket.ask(now), Granted):
            left -= 1
            assert left >= 0
            in_flight.append((left, granted))
        elif in_flight:
            told, granted = in_flight.pop(source.randrange(len(in_flight)))
            reset = 60.0 + 3.0 * source.randrange(2)
            film.bucket.observed(granted, now, Reading((reading(told, reset, 100),)))
        assert film.window.available <= left
    assert left == 0


def test_case_50_priming_never_raises_a_floor_and_replaces_no_probe():
    film = Film()
    film.bucket.prime([reading(15, 900.0)])
    film.play([(0, Ask("probe"), GO), (0, Ask(), WAIT), (1, Answer("probe", 10), 10)])
    film.bucket.prime([reading(14, 900.0)])
    assert film.window.available == 10
    film.bucket.prime([reading(4, 900.0)])
    assert film.window.available == 4
    film.bucket.prime([reading(2, 1800.0)])
    assert film.window.available == 4, "of another window"
    film.play([(2, Ask("a"), GO), (3, Answer("a", 9), 9)])


def test_case_51_a_lateness_learned_once_decays_to_nothing():
    film = opened(0, reset=60.0)
    film.window.late = 60.0
    film.window._set_end()
    reset, idle = 60.0, []
    for _ in range(11):
        answer = film.ask(reset, Ask("probe"))
        at = answer.at if isinstance(answer, NotUntil) else reset
        idle.append(at - reset)
        if at > reset:
            film.play([(at, Ask("probe"), GO)])
        reset = at + 60.0
        film.step(at, Answer("probe", 0, reset=reset))
    assert idle[0] == 60.0
    assert idle[-1] == 0.0


def test_a_window_that_never_tells_a_reset_is_doubted_after_its_ceiling():
    film = opened(15)
    film.window.reset = None
    film.window._set_end()
    film.play([(959, Ask(), GO), (961, Ask("probe"), GO), (961, Ask(), WAIT)])


def test_a_reset_that_was_told_too_late_by_mistake_is_disbelieved_after_a_while():
    film = opened(100, limit=100, reset=60.0)
    film.play([(1, Ask("a"), GO), (1.1, Answer("a", 99, 100, reset=700.0), 99)])
    for number in range(8):
        answer = Answer("a", 98 - number, 100, 60.0)
        film.play([(2 + number, Ask("a"), GO), (2.1 + number, answer, None)])
    assert film.window.ends == pytest.approx(60.0, abs=0.1)


# Units -------------------------------------------------------------------------------------------

TOKENS = WindowKind("tokens", length=60.0, unit="tokens")


def of_both(requests: int, tokens: int) -> Reading:
    return Reading(
        (reading(requests, 900.0), WindowReading(TOKENS, tokens, 1000, EPOCH + 60.0)),
    )


def asked(film: Film, now: float, **units: int) -> Granted:
    answer = film.bucket.ask(now, Cost(units))
    assert isinstance(answer, Granted)
    return answer


def left(film: Film) -> list[int]:
    return [window.available for window in film.bucket.windows]


def opened_in_units() -> Film:
    film = Film()
    film.bucket.observed(asked(film, 0), 0, of_both(10, 1000))
    film.bucket.answered = 1000
    return film


@pytest.mark.parametrize(
    ("units", "then"),
    [({"tokens": 300}, [9, 700]), ({"tokens": 300, "requests": 2}, [8, 700]), ({}, [9, 999])],
)
def test_a_cost_is_taken_from_each_window_in_what_that_counts(
    units: dict[str, int], then: list[int]
):
    film = opened_in_units()
    granted = asked(film, 1, **units)
    assert left(film) == then
    film.bucket.unsent(granted, 1)
    assert left(film) == [10, 1000]
    film.bucket.lost(asked(film, 1, **units), 1)
    assert left(film) == then
    film.bucket.observed(asked(film, 3), 4, of_both(8, 650))
    assert left(film) == [8, 650]


def test_a_cost_waits_for_enough_of_its_unit_and_one_that_never_fits_is_an_error():
    film = opened_in_units()
    asked(film, 1, tokens=800)
    assert_outcome(film.bucket.ask(1, Cost({"tokens": 300})), Until(60.0), "300 of 200")
    asked(film, 1, tokens=200)
    with pytest.raises(ValueError, match="a call of cost 1001 never fits into <Window tokens 1000"):
        film.bucket.ask(1, Cost({"tokens": 1001}))


@pytest.mark.parametrize("first", [{"tokens": 300}, {}])
def test_what_is_in_flight_before_a_window_shows_counts_there_in_its_unit(first: dict[str, int]):
    film = Film()
    probe, other = asked(film, 0, **first), asked(film, 2, tokens=200)
    film.bucket.observed(probe, 2.1, of_both(10, 1000))
    assert left(film) == [9, 800]
    film.bucket.observed(other, 2.2, of_both(9, 800))
    assert left(film) == [9, 800]
    assert not any(window.foreign.is_seen for window in film.bucket.windows)


def test_a_window_that_was_presumed_in_vain_keeps_the_units_of_others():
    film = opened(15)
    film.play([(1, Ask("a"), GO), (2, Answer("a", 14, day=9), 14), (2, Ask("b"), GO)])
    day = film.windows["app", "24h-app"]
    film.bucket = film.new_bucket("two")
    granted = asked(film, 3, tokens=300)
    assert day.in_flight == 2
    asked(film, 5, tokens=200, requests=4)
    assert day.in_flight == 6
    film.bucket.observed(granted, 6, Reading((reading(14, 900.0),)))
    assert day.in_flight == 1


@pytest.mark.parametrize(("tokens", "is_hidden"), [(299, False), (300, True)])
def test_a_refusal_is_explained_by_less_than_the_call_needs(tokens: int, is_hidden: bool):
    film = opened_in_units()
    refusal = of_both(9, tokens)._replace(refused=True)
    film.bucket.observed(asked(film, 1, tokens=300), 2, refusal, status=429)
    assert (film.bucket.pace.gap > 0) is is_hidden


# Local rates -------------------------------------------------------------------------------------


def rated(rate: Rate) -> Film:
    film = opened(10**9, limit=10**9)
    film.bucket = film.new_bucket("rated", rates=[RateWindow(rate)])
    film.play([(0, Ask("a"), GO), (0, Answer("a", 10**9, 10**9), None)])
    film.bucket.answered = 10**9
    return film


def test_a_local_rate_spaces_calls_evenly():
    rated(Rate(1, per=1)).play(
        [(0.5, Ask(), Until(1.0)), (1.0, Ask(), GO), (1.9, Ask(), Until(2.0)), (9, Ask(), GO)]
    )


def test_a_burst_is_granted_at_once_and_refills():
    film = rated(Rate(2, per=1, burst=3))
    assert len(film.take_all(100.0)) == 3
    assert len(film.take_all(100.5)) == 1
    assert len(film.take_all(200.0)) == 3


def test_a_fine_rate_goes_on_from_when_the_caller_came():
    film = rated(Rate(1000, per=1))
    film.play([(10, Ask(), GO), (10, Ask(), Until(10.001))])
    assert isinstance(film.bucket.ask(20.0, since=19.98), Granted)
    assert len(film.take_all(20.0)) == 1, "of a caller that comes now"


def test_a_call_that_never_left_gives_a_rates_token_back_but_never_an_old_one():
    film = rated(Rate(1, per=1))
    film.play([(10, Ask("a"), GO), (10.1, Unsent("a"), None), (10.1, Ask("b"), GO)])
    film.play([(20, Ask("c"), GO), (20.5, Unsent("b"), None), (20.5, Ask(), Until(21.0))])


def test_a_rate_in_a_unit_is_spent_in_it_and_given_back():
    film = rated(Rate(100, per=1, burst=1000, unit="tokens"))
    granted = asked(film, 10, tokens=1000)
    assert_outcome(film.bucket.ask(10, Cost({"tokens": 100})), Until(11.0), "all is spent")
    assert isinstance(film.bucket.ask(10, Cost({"tokens": 0})), Granted)
    film.bucket.unsent(granted, 10)
    asked(film, 10, tokens=1000)
    with pytest.raises(ValueError, match="a call of cost 1001 never fits into Rate"):
        film.bucket.ask(10, Cost({"tokens": 1001}))


@pytest.mark.parametrize(("took", "until"), [(300, 13.0), (100, 11.0), (50, 10.5), (None, 11.0)])
def test_a_cost_that_is_known_afterwards_corrects_the_rate_it_was_taken_from(
    took: int | None, until: float
):
    film = rated(Rate(100, per=1, burst=1000, unit="tokens"))
    film.bucket.answered = 1000
    asked(film, 10, tokens=900)
    granted = asked(film, 10, tokens=100)
    cost = None if took is None else Cost({"tokens": took})
    film.bucket.observed(granted, 10, Reading(), cost=cost)
    assert_outcome(film.bucket.ask(10, Cost({"tokens": 100})), Until(until), str(took))


def in_company(concurrency: Concurrency) -> tuple[Film, ConcurrencyWindow]:
    film, window = opened(1000), ConcurrencyWindow(concurrency)
    film.bucket = film.new_bucket("two", rates=[window])
    film.step(0, Ask("first"))
    film.step(0, Answer("first", 1000, limit=1000))
    film.bucket.answered = 1000
    return film, window


@pytest.mark.parametrize("end", [Answer("a", 900), Lost("a"), Unsent("a")], ids=repr)
def test_a_limit_on_calls_in_flight_holds_until_one_ends(end: object):
    film, window = in_company(Concurrency(2))
    film.play([(1, Ask("a"), GO), (1, Ask("b"), GO), (1, Ask(), WAIT)])
    assert film.bucket.ask(1).by is window  # type: ignore[union-attr]
    assert repr(window) == "<ConcurrencyWindow 2 of 2 in flight>"
    film.play([(2, end, None), (2, Ask(), GO), (2, Ask(), WAIT)])
    assert film.bucket.expect(2, 5) == 2, "nobody knows how long a call takes"


def test_a_limit_on_what_is_in_flight_counts_in_its_unit():
    film, window = in_company(Concurrency(1000, unit="tokens"))
    film.bucket.unsent(asked(film, 1, tokens=1000), 1)
    granted = asked(film, 1, tokens=700)
    assert isinstance(film.bucket.ask(1, Cost({"tokens": 301})), NotUntil)
    asked(film, 1, tokens=300)
    film.bucket.observed(granted, 2, Reading(), cost=Cost({"tokens": 900}))
    assert window.in_flight == 300
    with pytest.raises(ValueError, match="a call of cost 1001 never fits into Concurrency"):
        film.bucket.ask(1, Cost({"tokens": 1001}))


def test_calls_are_as_few_after_a_learned_pace_as_after_a_first_answer():
    film, now = opened(1000, limit=1000), 1.0
    film.play([(now, Ask("a"), GO), (now, Answer("a", 900, status=429), None)])
    while film.bucket.pace.gap:
        now += 700
        film.step(now, Ask("a"))
        film.step(now, Answer("a", 900, limit=1000, reset=now + 900))
    assert len(film.take_all(now + 1)) == 2


def test_case_11_a_quota_that_is_new_is_spent_to_the_end_with_ever_fewer_calls_in_flight():
    film = opened(20, limit=21, presumed=0.25)
    batches = []
    for now in range(1, 12):
        taken = film.take_all(now)
        batches.append(len(taken))
        for granted in taken:
            left = 20 - sum(batches)
            granted.bucket.observed(granted, now + 0.5, Reading((reading(left, 900.0, 21),)))
        if not left:
            break
    assert batches == [13, 4, 1, 1, 1], "as if others took one for every four of ours"


def test_a_coarse_rate_never_catches_up_after_a_late_timer():
    film = rated(Rate(1, per=1))
    film.play([(10, Ask(), GO), (11.4, Ask(), GO), (12.3, Ask(), Until(12.4))])


def test_ten_thousand_per_second_in_a_burst_of_one_keep_within_three_percent():
    film, now, granted = rated(Rate(10_000, per=1)), 10.0, 0
    while now < 12.0:
        answer = film.bucket.ask(now, since=10.0)
        if isinstance(answer, Granted):
            granted += 1
        else:
            # A timer is late by a millisecond or more.
            now = max(answer.at, now + 0.0012)
    assert granted == pytest.approx(20_000, rel=0.03)


@pytest.mark.parametrize("bad", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (INF, 1, 1), (1, INF, 1)])
def test_a_rate_that_makes_no_sense_is_refused(bad: tuple[float, float, int]):
    with pytest.raises(ValueError, match=r"a rate.s (limit|per|burst) is a number of"):
        Rate(*bad)


def test_a_cost_above_the_burst_never_fits():
    with pytest.raises(ValueError, match="raise its burst"):
        rated(Rate(1, per=1, burst=2)).ask(5.0, Ask(cost=3))


# Windows with names ------------------------------------------------------------------------------


def test_routes_of_one_bucket_share_its_window_from_their_first_answer_on():
    film = opened(15)
    film.play([(1, Ask("a"), GO), (2, Answer("a", 9, bucket="reads"), 9)])
    one, film.bucket = film.bucket, film.new_bucket("two")
    film.play([(3, Ask("b"), GO), (5, Ask("c"), GO), (6, Answer("b", 8, bucket="reads"), 7)])
    assert one.windows == film.bucket.windows == [film.windows["reads", "15min"]]
    assert not film.window.foreign.is_seen
    film.play([(6, Answer("c", 7, bucket="reads"), 7)])


def test_a_window_that_gets_a_name_is_the_same_window_with_its_calls_and_its_users():
    film = opened(15)
    film.play([(1, Ask("a"), GO), (1, Ask("b"), GO), (2, Answer("a", 9, bucket="reads"), 8)])
    assert film.bucket.windows == [film.windows["reads", "15min"]]
    assert list(film.window.buckets) == [film.bucket]
    film.play([(3, Answer("b", 8), 8), (3, Ask("c"), GO), (4, Answer("c", 7, bucket="reads"), 7)])
    assert film.bucket.windows == [film.windows["reads", "15min"]]


def test_who_shares_a_window_shares_the_name_that_it_gets():
    film = opened(15)
    one, two = film.new_bucket("one"), film.new_bucket("two")
    for film.bucket, name in ((one, ""), (two, ""), (one, "day")):
        film.step(1, Ask("a"))
        film.step(1, Answer("a", 9, kind=DAY_OF_APP, bucket=name))
    assert one.windows == two.windows == [film.windows["day", DAY_OF_APP.name]]


def test_a_window_that_its_last_user_leaves_is_forgotten():
    forgotten: list[Window] = []
    film = opened(15)
    one, two = (film.new_bucket(name, forget_window=forgotten.append) for name in ("one", "two"))
    for film.bucket, name in ((one, "reads"), (two, "reads"), (one, "writes"), (two, "writes")):
        assert not forgotten
        film.step(1, Ask("a"))
        film.step(1, Answer("a", 9, bucket=name))
    assert forgotten == [film.windows["reads", "15min"]]


def test_a_route_that_moves_to_another_bucket_takes_its_calls_along():
    film = opened(15)
    film.play([(1, Ask("a"), GO), (2, Answer("a", 9, bucket="reads"), 9)])
    film.play([(3, Ask("b"), GO), (3, Ask("c"), GO), (4, Answer("b", 5, bucket="writes"), 4)])
    reads, writes = film.windows["reads", "15min"], film.windows["writes", "15min"]
    assert film.bucket.windows == [writes]
    assert (reads.in_flight, writes.in_flight) == (0, 1)
    assert (list(reads.buckets), list(writes.buckets)) == ([], [film.bucket])


def policy(number: int) -> WindowReading:
    return WindowReading(WindowKind(str(number), length=60.0), 99, 100, EPOCH + 60.0)


def test_a_server_that_names_another_window_each_time_is_heard_sixteen_times():
    film = Film()
    for number in range(20):
        granted = film.ask(number)
        assert isinstance(granted, Granted)
        film.bucket.observed(granted, number, Reading((policy(number),)))
    assert [each.kind.name for each in film.bucket.windows] == [str(number) for number in range(16)]


def test_a_window_that_is_told_of_no_more_makes_room_for_another():
    film = Film()
    granted = film.ask(0)
    assert isinstance(granted, Granted)
    film.bucket.observed(granted, 0, Reading(tuple(policy(number) for number in range(16))))
    film.bucket.answered = 1000
    for now in (61, 62, 63, 64):
        granted = film.ask(now)
        assert isinstance(granted, Granted)
        told = [policy(number) for number in (*range(3), *range(4, 16), 16)]
        film.bucket.observed(
            granted, now, Reading(tuple(each._replace(reset=EPOCH + 120.0) for each in told))
        )
    names = [each.kind.name for each in film.bucket.windows]
    assert names == [str(number) for number in (*range(3), *range(4, 17))]


# All routes at once ------------------------------------------------------------------------------


@pytest.mark.parametrize(("retry_after", "until"), [(30.0, 32.0), (1e9, 3602.0), (None, -INF)])
def test_a_refusal_that_is_for_every_route_shuts_every_route(
    retry_after: float | None, until: float
):
    film, household = Film(), Household()
    one, two = (film.new_bucket(name, household=household) for name in ("one", "two"))
    film.bucket = one
    film.step(1, Ask("a"))
    film.step(2, Answer("a", status=429, retry_after=retry_after, everywhere=True))
    for bucket in (one, two):
        film.bucket = bucket
        assert bucket.expect(2.0, 0) == max(2.0, until)
        film.play([(2, Ask(), GO if until < 2 else Until(until))])
    assert not one.pace.gap, "the limit is none of this route's"


def test_of_two_refusals_that_are_for_every_route_the_later_stands():
    film = opened(15)
    film.play([(1, Ask("a"), GO), (1, Ask("b"), GO)])
    for name, retry_after in (("a", 100.0), ("b", 10.0)):
        film.step(2, Answer(name, 14, status=429, retry_after=retry_after, everywhere=True))
    assert film.bucket.household.shut == 102.0


def test_limits_of_many_routes_are_kept_with_the_household():
    local = ("*", RateWindow(Rate(1, per=2)))
    assert Household([local]).local == (local,)


# What blocks -------------------------------------------------------------------------------------


def test_who_may_not_go_hears_what_blocks():
    cold = Film()
    cold.step(0, Ask("probe"))
    assert cold.ask(0.0) == NotUntil(2.0, cold.bucket)
    spent = opened(0, reset=60.0)
    assert spent.ask(1.0) == NotUntil(60.0, spent.window)
    film = rated(Rate(1, per=1))
    assert film.ask(0.5) == NotUntil(1.0, film.bucket.local[0])


def test_a_bucket_that_leaves_names_the_windows_that_nobody_uses_now():
    film = opened(15)
    film.play([(1, Ask("a"), GO), (2, Answer("a", 14, day=2), None)])
    one, two = film.bucket, film.new_bucket("two")
    film.bucket = two
    film.play([(3, Ask("b"), GO), (4, Answer("b", 14, day=1), None)])
    assert one.leave() == [film.windows["one", "15min"]]
    assert two.leave() == [film.windows["app", "24h-app"], film.windows["two", "15min"]]


# Estimates and names -----------------------------------------------------------------------------


def test_an_estimate_counts_the_windows_ahead():
    film = opened(0, reset=60.0)
    expect = film.bucket.expect
    assert expect(1.0, 0) == pytest.approx(60.0)
    assert expect(1.0, 14) == pytest.approx(60.0)
    assert 115.0 < expect(1.0, 15) <= 120.1
    assert 175.0 < expect(1.0, 30) <= 180.1


def test_an_estimate_of_an_unknown_key_is_its_next_probe_unless_one_is_out():
    film = Film()
    assert film.bucket.expect(5.0, 0) == 5.0
    film.play([(0, Ask("a"), GO), (2, Ask("b"), GO), (2.1, Lost("a"), None)])
    film.play([(4, Ask("c"), GO), (4.1, Lost("b"), None)])
    assert film.bucket.expect(4.1, 0) == 4.1
    film.play([(4.2, Unsent("c"), None), (4.2, Ask(), Until(5.1))])
    assert film.bucket.expect(4.2, 0) == 5.1


def test_an_estimate_of_a_key_that_shows_headers_forgets_the_probes_before():
    film = Film()
    film.play([(0, Ask("a"), GO), (2, Ask("b"), GO), (2.1, Lost("a"), None)])
    film.play([(4, Ask("c"), GO), (4.1, Lost("b"), None), (4.2, Answer("c", 14), 13)])
    assert film.bucket.expect(4.2, 0) == 4.2


def test_an_estimate_never_counts_calls_in_flight_twice():
    film = opened(15)
    for number in range(10):
        film.step(1, Ask(str(number)))
    film.step(2, Answer("9", 5))
    assert film.window.available == 0
    assert film.bucket.expect(2.0, 4) == 2.0, "the nine in flight may be in the five already"
    assert film.bucket.expect(2.0, 5) == pytest.approx(900.0)


def test_an_estimate_is_no_earlier_than_a_local_rate_allows():
    rate = RateWindow(Rate(1, per=10))
    bucket = Film().new_bucket("paced", rates=[rate])
    rate.slot = 50.0
    assert bucket.expect(1.0, 2) == 70.0


def test_what_is_believed_can_be_read():
    film = opened(12)
    film.step(1, Ask("a"))
    assert repr(film.window) == "<Window 15min 12/15, 1 in flight>"
    assert repr(film.bucket) == "<Bucket one: <Window 15min 12/15, 1 in flight>>"
    assert repr(Film().bucket) == "<Bucket one: nothing known>"
    film.step(2, Answer("a", 11, day=4))
    assert repr(film.bucket) == (
        "<Bucket one: <Window 15min 11/15, 0 in flight>, <Window 24h-app 4/1000, 0 in flight>>"
    )
    assert repr(RateWindow(Rate(1, per=2))) == "<RateWindow 1 per 2 s>"
    assert repr(Window(FIFTEEN_MINUTES, film.clock, film.numbering, "")) == (
        "<Window 15min ?/?, 0 in flight>"
    )


def test_refusals_that_say_no_time_hold_every_route_longer_and_longer():
    household, film = Household(), Film()
    refused, other = (film.new_bucket(user, household=household) for user in "ab")
    refusal, at = Reading((), refused=True, pause=1.0), 0.0
    for length in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 64.0, 64.0):
        granted = refused.ask(at, 1)
        assert isinstance(granted, Granted)
        refused.observed(granted, at + 0.5, refusal, status=403)
        assert household.shut == at + 0.5 + length
        assert other.ask(household.shut - 0.1, 1) == NotUntil(household.shut, other)
        at = household.shut + 1000.0


def test_what_is_sent_when_a_pause_ends_is_of_the_time_after_it():
    household, film = Household(), Film()
    refused, other = (film.new_bucket(user, household=household) for user in "ab")
    refusal = Reading((), refused=True, pause=1.0)
    for now, told, shut in ((0.0, refusal, 1.0), (1.0, refusal, 3.0), (3.0, Reading(()), 3.0)):
        granted = other.ask(now, 1)
        assert isinstance(granted, Granted)
        other.observed(granted, now, told, status=403 if told.refused else 200)
        assert household.shut == shut
    granted = refused.ask(3.0, 1)
    assert isinstance(granted, Granted)
    refused.observed(granted, 3.0, refusal, status=403)
    assert household.shut == 4.0


def test_what_is_expected_goes_by_what_a_call_takes_of_each_unit():
    film = opened_in_units()
    film.bucket.observed(asked(film, 1, tokens=1000), 1, of_both(9, 0))
    some, none = Cost({"tokens": 5}), Cost({"tokens": 0})
    rows = ((some, 0, 60.0), (none, 0, 1.0), (none, 8, 1.0), (none, 9, 900.0), (1, 0, 60.0))
    for cost, ahead, at in rows:
        assert film.bucket.expect(1.0, ahead, cost=cost) == pytest.approx(at, abs=0.1)
    film.bucket.observed(asked(film, 60, tokens=0), 61, of_both(8, 8))
    assert film.bucket.expect(61.0, 5, cost=some) == 61.0, "what others take of it is not known"


def test_what_is_expected_of_a_local_limit_goes_by_its_unit():
    film = opened(900, limit=900)
    film.bucket.hold([window_of(Rate(1, per=1, burst=10, unit="tokens"))])
    assert isinstance(film.bucket.ask(1.0, Cost({"tokens": 10})), Granted)
    some, none = Cost({"tokens": 5}), Cost({"tokens": 0})
    rows = ((some, 0, 6.0), (some, 100, 6.0), (none, 100, 1.0), (5, 0, 6.0), (5, 3, 9.0))
    for cost, ahead, at in rows:
        assert film.bucket.expect(1.0, ahead, cost=cost) == pytest.approx(at)
    assert film.bucket.ask(2.0, some) == NotUntil(pytest.approx(6.0), film.bucket.local[0])
    film = opened(900, limit=900)
    film.bucket.hold([window_of(Rate(1, per=1, burst=2))])
    assert isinstance(film.bucket.ask(1.0, Cost({"requests": 2})), Granted)
    assert film.bucket.expect(1.0, 3, cost=some) == pytest.approx(5.0)


# Shared beyond the process -----------------------------------------------------------------------


class Shared:
    """Stands where a share of a ledger does, and remembers what it was asked and told."""

    def __init__(self) -> None:
        self.opens_at, self.is_away = 0.0, False
        self.told: list[tuple[str, float, int]] = []
        self.probing = Probing()
        self.probing.misses = 7

    def opens(self, now: float, cost: int) -> float:
        self.told.append(("opens", now, cost))
        return self.opens_at

    def take(self, now: float, cost: int) -> tuple[Probing, int]:
        self.told.append(("take", now, cost))
        return self.probing, self.probing.turn

    def say(self, granted: Granted, now: float, outcome: Outcome, cost: int) -> None:
        assert isinstance(granted, Granted)
        self.told.append((outcome.name, now, cost))

    def go_again(self, granted: Granted, now: float, cost: int) -> None:
        assert isinstance(granted, Granted)
        self.told.append(("go_again", now, cost))


class Gates(Film):
    """A film of a quota whose opening and whose pace are shared."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[Any] = []
        self.cold, self.paced = Shared(), Shared()
        cold: Any = SimpleNamespace(share=self.cold, show=self.shown.append)
        paced: Any = SimpleNamespace(share=self.paced)
        self.bucket.share(cold, paced)

    def told(self) -> list[tuple[Any, ...]]:
        told = self.cold.told + self.paced.told
        self.cold.told, self.paced.told = [], []
        return told


def test_how_a_shared_quota_opens_is_asked_and_told_elsewhere():
    film = Gates()
    film.cold.opens_at = 3.0
    assert film.bucket.ask(1.0, 2) == NotUntil(3.0, film.bucket.cold)
    granted = film.bucket.ask(4.0, 2)
    assert isinstance(granted, Granted)
    assert film.told() == [("opens", 1.0, 2), ("opens", 4.0, 2), ("take", 4.0, 2)]
    assert granted.is_probe_of(film.cold.probing)
    for now, status, refused, outcome in (
        (5.0, 200, False, "UNREAD"),
        (6.0, 503, False, "FAILED"),
        (7.0, 429, True, "REFUSED"),
    ):
        film.bucket.observed(granted, now, Reading((), refused=refused), status=status)
        assert film.told()[0] == (outcome, now, 2)
        film.bucket.next, film.bucket.pace.gap = -INF, 0.0
        granted = film.bucket.ask(now, 2)
        assert isinstance(granted, Granted)
        film.told()
    film.bucket.observed(granted, 8.0, Reading((), cached=True))
    assert film.told() == [("CACHED", 8.0, 2)]
    for end, outcome in ((film.bucket.lost, "LOST"), (film.bucket.unsent, "UNSENT")):
        granted = film.bucket.ask(9.0)
        assert isinstance(granted, Granted)
        film.told()
        end(granted, 10.0, **({"failed": True} if outcome == "UNSENT" else {}))
        assert film.told() == [(outcome, 10.0, 1)]
    granted = film.bucket.ask(11.0, 2)
    assert isinstance(granted, Granted)
    film.told()
    film.bucket.unsent(granted, 12.0)
    assert film.told() == [("go_again", 12.0, 2)]
    assert film.bucket.patience == film.cold.probing.patience < INF


def test_what_a_shared_quota_has_shown_is_told_and_no_more_of_how_it_opens():
    film = Gates()
    granted = film.bucket.ask(1.0)
    assert isinstance(granted, Granted)
    film.told()
    film.bucket.observed(granted, 2.0, Reading((reading(14, 900.0),)))
    assert film.shown == [(reading(14, 900.0),)]
    granted = film.bucket.ask(3.0)
    assert isinstance(granted, Granted)
    film.bucket.lost(granted, 4.0)
    granted = film.bucket.ask(5.0)
    assert isinstance(granted, Granted)
    film.bucket.unsent(granted, 6.0)
    assert film.told() == []


def test_the_pace_of_a_shared_quota_is_asked_and_told_elsewhere():
    film, alone = Gates(), Film().bucket
    film.bucket.join_pace()
    film.bucket.join_pace()
    alone.join_pace()
    assert (film.bucket.pace.gap, alone.pace.gap) == (0.25, 0.0)
    film.paced.opens_at = 3.0
    assert film.bucket.ask(1.0, 2) == NotUntil(3.0, film.bucket.paced)
    granted = film.bucket.ask(4.0, 2)
    assert isinstance(granted, Granted)
    assert film.bucket.next == -INF, "who may go next is known elsewhere"
    film.cold.told.clear()
    assert film.told() == [("opens", 1.0, 1), ("opens", 4.0, 1), ("take", 4.0, 1)]
    film.bucket.observed(granted, 5.0, Reading(()))
    assert film.told()[1:] == [("READ", 5.0, 1)]
    assert film.bucket.pace.gap == 0.25
    granted = film.bucket.ask(6.0)
    assert isinstance(granted, Granted)
    film.told()
    film.bucket.observed(granted, 7.0, Reading((), refused=True), status=429)
    assert film.told()[1:] == [("REFUSED", 7.0, 1)]
    assert film.bucket.pace.gap == 0.25, "it grows for all"


def test_while_the_ledger_is_away_a_process_opens_and_keeps_its_pace_on_its_own():
    film = Gates()
    film.cold.is_away = film.paced.is_away = True
    film.bucket.answered = 0
    granted = film.bucket.ask(1.0)
    assert isinstance(granted, Granted)
    assert granted.is_probe_of(film.bucket.probing)
    assert isinstance(film.bucket.ask(1.1), NotUntil), "one probe goes"
    film.bucket.observed(granted, 2.0, Reading((), refused=True), status=429)
    assert film.bucket.next > 2.0
    assert film.paced.told == []
    assert film.bucket.patience == INF


@pytest.mark.parametrize("told", [{"refused": True}, {"cached": True}])
def test_what_is_refused_or_from_a_cache_is_not_plain(told: dict[str, bool]):
    film = opened(800, limit=900)
    film.step(1.0, Ask("first"))
    film.bucket.foresee(1.0, 0.0)
    granted = film.bucket.take_foreseen(1.0, None)
    assert granted is not None
    film.bucket.observed(granted, 1.1, Reading((reading(799, 900.0, 900),), **told))
    assert film.bucket.plain is None


def test_limits_that_become_known_later_count_what_is_on_its_way():
    film = Film()
    one, two = film.bucket, film.new_bucket("two")
    calls, rate = window_of(Concurrency(3)), window_of(Rate(1, per=1))
    for bucket in (one, two):
        assert isinstance(bucket.ask(0.0), Granted)
        bucket.hold([calls])
    one.hold([rate])
    assert one.local == (calls, rate)
    assert (list(calls.buckets), list(rate.buckets)) == ([one, two], [one])
    assert (calls.in_flight, rate.in_flight) == (2, 1)
    three = film.new_bucket("three")
    assert isinstance(three.ask(0.0, Cost({"points": 5})), Granted)
    points = window_of(Rate(9, per=1, unit="points"))
    three.hold([points])
    assert points.in_flight == 5


def test_what_is_on_its_way_when_a_window_is_shared_is_of_ours():
    film = opened(10, presumed=0.25)
    other = film.new_bucket("two")
    assert isinstance(other.ask(1.0), Granted)
    other._add(film.window)
    before = film.window.foreign.rate
    film.step(2.0, Ask("next"))
    film.step(3.0, Answer("next", 8))
    assert film.window.foreign.rate <= before, "nobody else has taken what is missing"


def test_windows_that_are_shown_elsewhere_are_joined_until_an_own_answer_tells():
    film = Film()
    film.bucket.join_known([reading(0, None)])
    assert [window.kind.name for window in film.bucket.windows] == ["15min"]
    assert film.bucket.shown
    film.bucket.join_known([WindowReading(DAY_OF_APP, 0, None, None)])
    assert [window.kind.name for window in film.bucket.windows] == ["15min"]


def test_a_call_that_was_lost_may_be_counted_for_a_while():
    film = opened(10)
    film.step(1.0, Ask("lost"))
    assert not film.bucket.may_be_counted(1.0)
    film.step(2.0, Lost("lost"))
    until = film.window.debts.newest_ghost
    assert until > 2.0
    assert film.bucket.may_be_counted(until - 0.1)
    assert not film.bucket.may_be_counted(until)


@pytest.mark.parametrize(("status", "pauses"), [(399, 0), (400, 1)])
def test_a_pause_ends_when_a_call_goes_well(status: int, pauses: int):
    film = Film()
    granted = film.bucket.ask(1.0)
    assert isinstance(granted, Granted)
    film.bucket.household.pauses = 1
    film.bucket.observed(granted, 2.0, Reading(()), status=status)
    assert film.bucket.household.pauses == pauses


@pytest.mark.parametrize(("remaining", "is_hidden"), [(0, False), (1, True)])
def test_a_refusal_that_leaves_enough_is_of_a_limit_that_nobody_sees(
    remaining: int, is_hidden: bool
):
    film = opened(10)
    film.step(1.0, Ask("refused"))
    film.step(2.0, Answer("refused", remaining, status=429, retry_after=30.0))
    assert (film.bucket.pace.gap > 0) is is_hidden
    assert (film.window.shut, film.bucket.next) == ((-INF, 32.0) if is_hidden else (32.0, -INF))


def test_a_refusal_in_a_body_is_of_a_limit_that_nobody_sees():
    film = opened(10)
    film.step(1.0, Ask("refused"))
    granted = film.granted["refused"]
    film.step(2.0, Answer("refused", 9))
    refusal = Reading((), refused=True, retry_after=30.0)
    film.bucket.refused_after_all(granted, 3.0, refusal)
    assert film.bucket.pace.gap == 0.25
    assert film.bucket.next == 33.0


def test_an_answer_that_tells_of_no_window_in_turn_passes_none_of_them_over():
    film, turn = Film(), WindowKind("turn", length=900.0, turns="a header")
    day = WindowReading(DAY_OF_APP, 500, 1000, EPOCH + 86_400.0)
    for now, told in ((0.0, WindowReading(turn, 10, 15, EPOCH + 900.0)), (1.0, day)):
        granted = film.bucket.ask(now)
        assert isinstance(granted, Granted)
        film.bucket.observed(granted, now, Reading((told, day) if told is not day else (day,)))
        film.bucket.windows[0].is_shown_in_time = True
    assert [window.silences for window in film.bucket.windows] == [0, 0]


def test_what_another_process_was_told_holds_for_longer_and_never_for_less():
    household = Household()
    for delay, pauses, shut, counted in ((5.0, 2, 15.0, 2), (1.0, 1, 15.0, 2), (9.0, 3, 19.0, 3)):
        household.hear(10.0, delay, pauses)
        assert (household.shut, household.pauses) == (shut, counted)


@pytest.mark.parametrize("everywhere", [True, False])
def test_a_refusal_that_is_for_every_route_is_told_to_other_processes_at_once(everywhere: bool):
    film = opened(10)
    cold, paced = (
        gate(film.bucket, ("api", "app", name), film.numbering, Health())
        for gate, name in ((ColdGate, "cold"), (PaceGate, "pace"))
    )
    assert isinstance(cold, ColdGate)
    assert isinstance(paced, PaceGate)
    film.bucket.share(cold, paced)
    film.step(1.0, Ask("refused"))
    cold.share.due = INF
    film.step(2.0, Answer("refused", status=429, retry_after=30.0, everywhere=everywhere))
    assert (cold.share.due == 2.0) is everywhere
    film.bucket.cold = None
    film.bucket.next = -INF
    film.bucket.household.shut, film.bucket.pace.gap = -INF, 0.0
    film.step(3.0, Ask("alone"))
    film.step(4.0, Answer("alone", 9, status=429, everywhere=everywhere))
