"""What is believed of one window, piece by piece; `test_quota.py` plays the whole rule."""

from __future__ import annotations

from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiotwhelp.clock import ServerClock
from aiotwhelp.headers import (
    DAY_OF_APP,
    FIFTEEN_MINUTES,
    X_DIALECT,
    Reading,
    WindowKind,
    WindowReading,
    limited,
)
from aiotwhelp.heaps import Entry
from aiotwhelp.local import RateWindow, window_of
from aiotwhelp.quota import Granted, NotUntil
from aiotwhelp.rates import Concurrency, Rate
from aiotwhelp.windows import INF, Cost, Debts, Foreign, Numbering, Probing, Window
from tests.film import (
    EPOCH,
    GO,
    WAIT,
    Answer,
    Ask,
    Film,
    Lost,
    Row,
    Unsent,
    Until,
    again,
    opened,
    reading,
)

# Probes ------------------------------------------------------------------------------------------


def test_a_reading_ends_the_back_off_of_probes_that_were_lost_while_it_was_on_its_way():
    film = opened(3, reset=60.0)
    film.play([(60, Ask("slow"), GO), (62, Ask("a"), GO), (62.1, Lost("a"), None)])
    film.play([(62.1, Ask("b"), Until(64.0)), (64, Ask("b"), GO), (64.1, Lost("b"), None)])
    film.play([(66, Ask("c"), GO), (66.1, Lost("c"), None), (66.1, Ask(), Until(68.1))])
    film.step(66.2, Answer("slow", 3, reset=960.0))
    film.play([(66.2, Ask(), Until(67.1)), (67.1, Ask(), GO)])


def test_an_answer_without_headers_ends_the_back_off_of_lost_probes():
    film = opened(0, reset=60.0)
    film.play(
        [(60, Ask("a"), GO), (60, Lost("a"), None), (60, Ask("b"), GO), (60, Lost("b"), None)]
    )
    film.play([(60, Ask(), Until(61.0)), (61, Ask("c"), GO), (61, Answer("c"), None)])
    film.play([(61, Ask("d"), GO), (61, Lost("d"), None), (61, Ask(), GO)])


@pytest.mark.parametrize(
    "failure", [Lost("a"), Unsent("a", failed=True), Answer("a", status=500)], ids=repr
)
def test_probes_of_a_reset_that_fail_back_off(failure: object):
    film = opened(0, reset=60.0)
    film.play([(60, Ask("a"), GO), (60, failure, None), (60, Ask("a"), GO), (60, failure, None)])
    film.play([(60, Ask(), Until(61.0))])


def test_probes_of_a_reset_that_never_left_do_not_back_off():
    film = opened(0, reset=60.0)
    for _ in range(3):
        film.play([(60, Ask("a"), GO), (60, Unsent("a"), None)])


def test_a_call_that_never_left_since_nobody_was_there_is_no_probe_that_failed():
    film = opened(15, reset=60.0)
    for _ in range(3):
        film.play([(1, Ask("a"), GO), (1, Unsent("a", failed=True), 15)])
    film.play([(60, Ask("a"), GO), (60, Lost("a"), None), (60, Ask(), GO)])


def test_a_probe_of_lost_calls_that_failed_is_followed_by_another():
    film = opened(1).play([(1, Ask("a"), GO), (2, Lost("a"), 0), (3, Ask("b"), GO)])
    film.play([(3.1, Answer("b", status=500), 0), (3.1, Ask(), GO)])


def test_a_probe_of_a_reset_long_ago_is_none_of_those_that_are_out():
    film = opened(0, reset=60.0)
    film.play([(60, Ask("a"), GO), (60.1, Answer("a", 0, reset=120.0), 0)])
    film.play(
        [(120, Ask("slow"), GO), (122, Ask("b"), GO), (122.1, Answer("b", 0, reset=180.0), 0)]
    )
    film.play([(180, Ask("c"), GO), (180.5, Lost("slow"), None), (181, Ask(), Until(182.0))])


def test_a_second_probe_goes_after_three_round_trips_where_those_are_long():
    film = opened(15, reset=60.0)
    film.play([(1, Ask("a"), GO), (2, Answer("a", 0, reset=60.0), 0)])
    film.play([(60, Ask(), GO), (60, Ask(), Until(63.0))])


# Debts -------------------------------------------------------------------------------------------


def test_unread_answers_beyond_the_most_are_put_together_with_the_newest():
    debts = Debts(most=2)
    for number, cost in ((1, 5), (2, 3), (3, 4)):
        debts.add_unread(number, cost)
    owed = [debts.unread]
    for known in (1, 2, 3):
        debts.clear(known, sent=0.0)
        owed.append(debts.unread)
    assert owed == [12, 7, 7, 0]


def test_ghosts_beyond_the_most_are_put_together_at_the_later_instant():
    debts = Debts(most=2)
    for clear_after, number, cost in ((10.0, 1, 5), (30.0, 2, 3), (20.0, 3, 4)):
        debts.add_ghost(clear_after, number, cost)
    owed = [debts.ghosts]
    for known, sent in ((3, 10.0), (3, 29.9), (2, 30.0), (3, 30.0)):
        debts.clear(known, sent)
        owed.append(debts.ghosts)
    assert owed == [12, 7, 7, 7, 0]


def test_readings_of_no_known_window_are_owed_once_another_begins():
    debts = Debts(most=2)
    for number, cost in ((1, 5), (2, 3), (3, 4)):
        debts.add_unplaced(number, cost)
    debts.clear(1, sent=0.0)
    assert (debts.unread, debts.ghosts) == (0, 0)
    debts.begin(10.0)
    owed = [debts.ghosts]
    for known, sent in ((2, 10.0), (3, 9.9), (3, 10.0)):
        debts.clear(known, sent)
        owed.append(debts.ghosts)
    debts.begin(20.0)
    assert [*owed, debts.ghosts] == [7, 7, 7, 0, 0]


def test_debts_that_are_taken_over_come_on_top_of_those_there_are():
    one, other = Debts(), Debts()
    for debts, number in ((one, 2), (other, 1)):
        debts.add_unread(number, 3)
        debts.add_ghost(10.0 * number, number, 5)
        debts.add_unplaced(number, 7)
    one.absorb(other)
    assert (one.unread, one.ghosts) == (6, 10)
    one.clear(1, sent=10.0)
    assert (one.unread, one.ghosts) == (3, 5)
    one.begin(20.0)
    assert (one.unread, one.ghosts) == (3, 12)
    one.clear(2, sent=20.0)
    assert (one.unread, one.ghosts) == (0, 0)


def test_the_slowest_round_trip_fades_and_an_absurd_one_counts_half_a_minute():
    window = opened(15).window
    window.time(1.0)
    window.time(0.2)
    assert window.round_trip == 1.0 - 0.8 / 16
    window.time(300.0)
    assert window.round_trip == 30.0


def test_a_ghost_haunts_for_twice_the_slowest_round_trip():
    opened(15).play(
        [
            (1, Ask("a"), GO),
            (2, Answer("a", 14), 14),
            (3, Ask("b"), GO),
            (4, Lost("b"), 13),
            (5.9, Ask("early"), GO),
            (6.0, Ask("late"), GO),
            (6.5, Answer("early", 12), 10),
            (6.5, Answer("late", 11), 11),
        ]
    )


def test_a_single_ghost_that_blocks_is_looked_for_after_its_span():
    opened(1).play([(1, Ask("a"), GO), (2, Lost("a"), 0), (2, Ask(), Until(3.0)), (3, Ask(), GO)])


def test_a_window_says_where_its_keeper_finds_it():
    assert opened(1).window.key == ("one", "15min")


@pytest.mark.parametrize(
    ("state", "cost", "holds"),
    [
        ({}, 1, False),
        ({}, 2, True),
        ({"in_flight": 1}, 1, True),
        ({"in_flight": 1}, 0, True),
        ({"shut": 1.0}, 1, False),
        ({"shut": 1.5}, 1, True),
        ({"hold": 1.0}, 1, False),
        ({"hold": 1.5}, 1, True),
        ({"in_flight": 1, "is_untold": True}, 1, False),
    ],
    ids=str,
)
def test_a_window_holds_those_for_whom_too_little_is_left_or_while_it_is_shut(
    state: dict[str, Any], cost: int, holds: bool
):
    film = opened(1)
    for name, value in state.items():
        setattr(film.window.probing if name == "hold" else film.window, name, value)
    assert film.window.holds(1.0, Granted(film.bucket, 0.5, cost, None)) is holds


# Whose window, and until when --------------------------------------------------------------------


def test_what_is_left_at_the_reset_lets_no_more_than_one_go():
    opened(5, reset=60.0).play([(60, Ask(), GO), (60, Ask(), WAIT)])


@pytest.mark.parametrize(("reset", "left"), [(60.0, 13), (None, 12)], ids=["old", "untold"])
def test_a_slow_answer_that_comes_before_the_probes_is_of_the_old_window_if_it_says_so(
    reset: float | None, left: int
):
    film = opened(15, reset=60.0)
    film.play([(59, Ask("slow"), GO), (61, Ask("probe"), GO)])
    film.play([(62, Answer("slow", 14, reset=reset), None)])
    film.play([(62, Answer("probe", 13, reset=120.0), left)])
    film.play([(63, Ask("a"), GO), (64, Answer("a", 12, reset=120.0), 12)])


def test_what_was_on_its_way_at_a_rollover_is_not_taken_for_calls_of_others():
    film = opened(15, reset=60.0)
    film.play([(59, Ask(name), GO) for name in ("slow", "lost", "bare")])
    film.play([(61, Ask("probe"), GO), (61.4, Lost("lost"), None), (61.5, Answer("bare"), None)])
    film.play([(62, Answer("probe", 14, reset=120.0), 11)])
    film.play([(63, Ask("a"), GO), (64, Answer("a", 10, reset=120.0), None)])
    assert not film.window.foreign.is_seen


@pytest.mark.parametrize(
    ("reset", "believed"),
    [(60.0, None), (60.5, EPOCH + 60.5), (1020.0, EPOCH + 1020.0), (1020.5, None)],
)
def test_a_reset_is_usable_from_now_on_to_the_ceiling(reset: float, believed: float | None):
    film = Film().play([(59, Ask("a"), GO), (60, Answer("a", 5, reset=reset), 5)])
    assert film.window.reset == believed


def test_a_window_spent_until_nobody_knows_when_is_probed_after_a_second():
    film = Film().play([(0, Ask("a"), GO), (0, Answer("a", 1, reset=None), 1)])
    film.play([(1, Ask("b"), GO), (2, Answer("b", 0, reset=None), 0), (3, Ask(), Until(4.0))])


@pytest.mark.parametrize("risen", [4, 9])
def test_a_reset_that_is_told_late_is_that_of_the_window_all_had_spoken_of(risen: int):
    film = Film().play([(0, Ask("a"), GO), (0, Answer("a", 5, reset=None), 5)])
    film.bucket.answered = 1000
    film.play([(1, Ask("b"), GO), (1, Ask("c"), GO), (2, Answer("b", 3, reset=None), 2)])
    film.play([(2, Answer("c", risen, reset=60.0), 3)])
    assert (film.window.ends, film.window.span) == (60.0, 58.0)
    film.play([(3, Ask("d"), GO), (3, Answer("d", 2, reset=40.0), 2)])


def test_an_answer_without_a_reset_speaks_of_the_current_window():
    film = opened(15, reset=60.0)
    film.play([(1, Ask("a"), GO), (1, Ask("b"), GO)])
    film.play([(2, Answer("a", 3, reset=60.0), 2), (2, Answer("b", 4, reset=None), 3)])


@pytest.mark.parametrize(
    ("remaining", "reset", "left", "span"),
    [(9, 90.0, 3, 60.0), (9, 91.0, 9, 89.0), (3, 91.0, 3, 60.0)],
)
def test_only_a_reset_later_by_more_than_half_a_window_is_that_of_the_next_if_more_is_left(
    remaining: int, reset: float, left: int, span: float
):
    film = opened(15, reset=60.0)
    film.play([(1, Ask("a"), GO), (1, Ask("b"), GO)])
    film.play([(2, Answer("a", 3, reset=60.0), 2), (2, Answer("b", remaining, reset=reset), left)])
    assert (film.window.ends, film.window.span) == (reset, span)


@pytest.mark.parametrize("told", [105.0, None])
def test_a_window_is_no_longer_than_by_the_date_that_tells_of_a_clock_that_was_stepped(
    told: float | None,
):
    film = Film(clock=ServerClock())
    for now in range(10):
        film.play([(now, Ask("a"), GO)])
        film.play([(now, Answer("a", 14 - now, reset=15.0, date=float(now)), 14 - now)])
    # While nobody asks, the server's clock is set ahead by a minute: 75 s are left by what we know.
    film.play([(30, Ask("b"), GO), (30, Answer("b", 14, reset=told, date=90.0), None)])
    film.bucket.answered = 1000
    for now in (31, 32):
        film.play([(now, Ask("c"), GO), (now, Answer("c", 9, reset=105.0, date=60.0 + now), 9)])
    assert film.window.span == pytest.approx(14.0, abs=0.01)
    assert film.bucket.expect(32.0, 9 + 15) == pytest.approx(film.window.ends + 14.0, abs=0.01)
    # So one that begins a second early is seen among calls that knew the one before.
    film.play([(43, Ask("d"), GO), (43, Ask("e"), GO)])
    film.play([(44, Answer("d", 8, reset=105.0, date=103.0), 7)])
    film.play([(45, Answer("e", 14, reset=119.0, date=104.0), 14)])


def test_a_reset_that_lies_too_far_ahead_moves_no_other():
    film = opened(15, reset=900.0)
    film.play([(1, Ask("a"), GO), (1, Answer("a", 14, reset=5000.0), 14)])
    assert film.window.ends == 900.0


@pytest.mark.parametrize("remaining", [14, 13])
def test_of_back_ends_that_differ_only_what_is_lower_leaves_a_debt(remaining: int):
    film = opened(15, reset=60.0)
    film.play([(49, Ask("a"), GO), (49, Ask("b"), GO)])
    film.play([(50, Answer("a", 14, reset=110.0), 13)])
    film.step(50, Answer("b", remaining, reset=60.0))
    assert film.window.debts.unread == 14 - remaining


@pytest.mark.parametrize(("reset", "left"), [(9.0, 3), (9.5, 9)])
def test_of_short_windows_only_one_later_by_more_than_four_seconds_is_the_next(
    reset: float, left: int
):
    film = opened(15, reset=5.0)
    film.play([(1, Ask("a"), GO), (1, Ask("b"), GO)])
    film.play([(2, Answer("a", 3, reset=5.0), 2), (2, Answer("b", 9, reset=reset), left)])


def test_back_ends_may_differ_in_a_reset_that_no_answer_told_at_first():
    film = Film().play([(0, Ask("a"), GO), (0, Answer("a", 14, reset=None), None)])
    film.bucket.answered = 1000
    film.play([(1, Ask("b"), GO), (1, Ask("c"), GO), (2, Answer("b", 13), 12)])
    film.play([(2, Answer("c", 10, reset=899.0), 10)])


def test_an_earlier_reset_is_not_believed_of_a_call_that_did_not_know_the_later_one():
    film = opened(15, reset=60.0)
    film.play([(49, Ask("a"), GO), (49, Ask("b"), GO)])
    film.play([(50, Answer("a", 14, reset=110.0), 13), (50, Answer("b", 3, reset=60.0), 13)])
    film.play([(51, Ask("c"), GO), (52, Answer("c", 12, reset=110.0), 12)])


def test_where_every_call_moves_the_reset_answers_in_any_order_fold_by_their_minimum():
    film = opened(15, reset=60.0)
    film.play([(1, Ask("a"), GO), (1, Ask("b"), GO), (1, Ask("c"), GO)])
    film.play([(2, Answer("b", 12, reset=180.0), 10), (2, Answer("a", 13, reset=120.0), 11)])
    film.play([(2, Answer("c", 11, reset=240.0), 11)])


def test_case_14_a_window_that_nobody_tells_of_any_more_has_no_probes():
    film = opened(1, reset=5.0)
    film.step(1, Ask("spends it"))
    film.step(1, Answer("spends it", 0, reset=5.0))
    (window,) = film.bucket.windows
    film.step(6, Ask("a"))
    window.silences = 3
    for number in range(5):
        film.bucket.answered = 9
        film.step(7, Ask(f"b{number}"))
    assert (window.probing.out, window.in_flight) == (1, 6)


@pytest.mark.parametrize(
    ("first", "second", "third", "left"),
    [
        (900.0, 902.0, 899.5, 3),  # the first two are one, so the last call knew of it
        (900.0, 902.5, 900.0, 13),  # the last is older than what we know
        (900.0, 905.0, 904.0, 3),  # the last two are one
        (3.0, 4.5, 2.9, 3),  # within half of a short window
        (3.0, 4.8, 2.5, 13),
    ],
)
def test_resets_within_two_seconds_or_half_a_window_are_one(
    first: float, second: float, third: float, left: int
):
    film = opened(15, reset=first)
    film.play([(1, Ask("a"), GO), (1, Ask("b"), GO)])
    film.play([(2, Answer("a", 14, reset=second), 13), (2, Answer("b", 3, reset=third), left)])


@pytest.mark.parametrize(
    ("told", "believed"),
    [
        ([80, *[60] * 7], 80),
        ([80, *[60] * 8], 60),
        ([80, *[60] * 7, 80, *[60] * 7], 80),
        ([80, *[60] * 7, 85, *[60] * 7], 85),
        ([80, *[60] * 7, 79, *[60] * 7], 80),
        ([80, *[60] * 8, *[50] * 7], 60),
        ([80, *[60] * 8, *[50] * 8], 50),
        ([200, *[150] * 7], 200),
    ],
)
def test_of_two_resets_the_later_stands_until_eight_answers_in_a_row_deny_it(
    told: list[float], believed: float
):
    film = opened(100, limit=100, reset=60.0)
    for number, reset in enumerate(told):
        film.step(1 + number, Ask("a"))
        film.step(1.5 + number, Answer("a", 99 - number, 100, reset))
    assert film.window.reset == EPOCH + believed


def counting_down(film: Film, sent: float, now: float, resets_in: float, left: int = 9) -> float:
    """When the window ends, as far as is known once a call has told in how many seconds."""
    film.play([(sent, Ask("a"), GO), (now, Answer("a", left, resets_in=resets_in), left)])
    return film.window.ends


def test_seconds_until_a_reset_were_written_while_the_call_was_under_way_and_are_rounded():
    film = Film()
    assert counting_down(film, 0.0, 2.0, resets_in=58) == 60.0
    assert (film.window.low, film.window.span) == (57.0, 55.0)


@pytest.mark.parametrize(
    ("resets_in", "low", "reset"),
    [(959.0, 958.0, 961.0), (960.0, 959.0, 962.0), (2e3, 962.0, 962.0)],
)
def test_seconds_beyond_the_ceiling_are_as_many_as_that_has(
    resets_in: float, low: float, reset: float
):
    film = Film().play([(0, Ask("a"), GO), (2, Answer("a", 9, resets_in=resets_in), None)])
    assert (film.window.low, film.window.reset) == (low, reset)


def test_seconds_that_have_decimals_are_as_exact_as_those():
    film = Film()
    assert counting_down(film, 0.0, 2.0, resets_in=58.5) == 60.5
    assert film.window.low == pytest.approx(58.49)


def test_of_several_answers_the_seconds_until_a_reset_become_known_more_exactly():
    film = Film()
    counting_down(film, 0.0, 2.0, resets_in=58)
    assert counting_down(film, 10.0, 10.5, resets_in=49) == 59.5
    assert film.window.low == 58.0
    assert counting_down(film, 20.0, 21.0, resets_in=39) == 59.5, "a slow answer tells less"
    assert film.window.low == 58.0
    film.play([(30, Ask("a"), GO), (30, Answer("a", 0, resets_in=29), 0)])
    film.play([(30, Ask(), Until(59.0)), (59, Ask(), GO)])


def test_how_much_later_the_next_window_is_to_end_counts_from_the_latest_reset():
    film = Film()
    counting_down(film, 0.0, 2.0, resets_in=58, left=3)
    film.play([(3, Ask("a"), GO), (3, Answer("a", 9, resets_in=84), 9)])
    assert (film.window.ends, film.window.span) == (87.0, 55.0)
    film.play([(4, Ask("a"), GO), (4, Answer("a", 12, resets_in=112), 12)])
    assert (film.window.ends, film.window.span) == (116.0, 111.0)


def test_seconds_of_a_slow_answer_that_may_be_within_two_of_the_reset_are_the_same():
    film = Film()
    counting_down(film, 0.0, 0.0, resets_in=60)
    film.bucket.answered = 1000
    film.play([(1, Ask("a"), GO), (1, Ask("b"), GO), (4, Answer("a", 8, resets_in=61), 7)])
    assert (film.window.low, film.window.reset) == (61.0, 65.0)
    film.play([(4, Answer("b", 3, resets_in=54), 3)])


@pytest.mark.parametrize(
    ("resets_in", "reset", "is_placed"),
    [(None, 62.0, True), (None, 62.5, False), (0.0, None, True)],
)
def test_a_reset_that_has_just_passed_is_that_of_the_window_that_is_late(
    resets_in: float | None, reset: float | None, is_placed: bool
):
    at_first = None if resets_in is None else 60.0
    film = Film().play([(0, Ask("a"), GO), (0, Answer("a", 9, reset=60.0, resets_in=at_first), 9)])
    film.window.late = 5.0
    film.play([(59, Ask("a"), GO), (63, Answer("a", 8, reset=reset, resets_in=resets_in), 8)])
    assert film.window.ends == 65.0
    assert film.window.debts.are_none is is_placed


@pytest.mark.parametrize(
    ("told", "reset", "resets_in", "low"),
    [
        (None, 62.0, None, EPOCH + 60.0),
        (None, 62.5, None, -INF),
        (60.0, None, 0.0, 59.0),
    ],
)
def test_the_old_window_goes_on_if_its_reset_or_one_just_passed_is_told(
    told: float | None, reset: float | None, resets_in: float | None, low: float
):
    film = Film().play([(0, Ask("a"), GO), (0, Answer("a", 9, reset=60.0, resets_in=told), 9)])
    film.play([(60, Ask("a"), GO), (70, Answer("a", 8, reset=reset, resets_in=resets_in), 8)])
    assert (film.window.reset, film.window.low) == (None, low)


def test_a_server_that_tells_resets_in_another_way_knows_none_of_those_before():
    film = opened(15, reset=60.0)
    film.play([(60, Ask("a"), GO), (60, Answer("a", 9, resets_in=0.0), 9)])
    assert (film.window.reset, film.window.low) == (None, -INF)
    film.play([(61, Ask("a"), GO), (61, Answer("a", 8, resets_in=0.0), 8)])
    assert not film.window.debts.are_none


def test_tokens_that_are_left_may_go_at_a_reset_that_turns_out_to_be_later():
    film = opened(5, reset=60.0)
    film.clock.assume(EPOCH - 3.0)
    film.play([(60, Ask("a"), GO), (62.9, Ask("b"), GO), (63, Ask("c"), GO), (63, Ask(), WAIT)])
    assert film.granted["a"].probes is None
    assert film.granted["c"].probes is not None


def test_a_window_of_half_a_second_is_as_long():
    assert opened(5, reset=0.5).window.span == 0.5


def test_two_resets_that_meet_in_one_instant_are_that_instant():
    film = Film()
    counting_down(film, 0.0, 0.0, resets_in=60)
    assert counting_down(film, 1.0, 1.0, resets_in=58) == film.window.low == 59.0


def test_seconds_that_a_slow_answer_tells_may_be_of_the_window_that_has_passed():
    film = Film()
    counting_down(film, 0.0, 0.0, resets_in=60)
    film.play([(60, Ask("a"), GO), (70, Answer("a", 0, resets_in=0.5), 0)])
    film.play([(70, Ask(), Until(70.5)), (70.5, Ask(), GO), (70.5, Ask(), WAIT)])


def test_a_probe_that_got_the_last_token_tells_when_the_next_is_there_however_soon():
    film = opened(0, reset=60.0)
    film.play([(60, Ask("a"), GO), (60, Answer("a", 0, reset=61.8), 0), (60, Ask(), Until(61.8))])
    film.play([(61.8, Ask("b"), GO), (61.8, Answer("b", 5, reset=120.0), 5)])
    assert film.window.late == 0.0


def test_seconds_that_a_slow_answer_tells_begin_no_window_early():
    film = Film()
    counting_down(film, 0.0, 0.0, resets_in=600)
    assert counting_down(film, 1.0, 590.0, resets_in=320, left=12) == 600.0


def test_a_state_of_an_earlier_run_holds_until_its_reset_if_that_was_told():
    film = opened(15, reset=60.0)
    film.window.restore(60.0, reading(5, None))
    assert film.window.available == 15
    film.window.restore(60.0, WindowReading(FIFTEEN_MINUTES, 5, 15, None, resets_in=60.0))
    assert (film.window.available, film.window.ends) == (15, 60.0), "told in another way"
    film = Film()
    film.step(0, Ask("a"))
    film.step(0, Answer("a", 9, resets_in=10.0))
    film.window.restore(20.0, WindowReading(FIFTEEN_MINUTES, 5, 15, None, resets_in=60.0))
    assert (film.window.available, film.window.low, film.window.ends) == (5, 79.0, 80.0)


def test_a_second_hand_number_without_a_reset_is_of_no_window():
    film = opened(15, reset=60.0)
    film.window.prime(reading(3, None))
    assert film.window.available == 15


def test_the_local_clock_alone_counts_seconds_down():
    film = Film(clock=ServerClock())
    assert counting_down(film, 1000.0, 1000.0, resets_in=60) == 1060.0


@pytest.mark.parametrize(
    ("resets_in", "low", "end"), [(60, 60.0, 60.0), (62, 62.0, 63.0), (70, 70.0, 71.0)]
)
def test_a_reset_that_is_surely_later_stands_whole(resets_in: float, low: float, end: float):
    film = Film()
    counting_down(film, 0.0, 0.0, resets_in=60)
    assert counting_down(film, 1.0, 1.0, resets_in) == end
    assert film.window.low == low


def test_an_earlier_end_is_believed_after_eight_answers_in_a_row():
    film = Film()
    counting_down(film, 0.0, 0.0, resets_in=600)
    ends = [counting_down(film, now, now, resets_in=60) for now in range(1, 10)]
    assert ends == [600.0] * 7 + [68.0, 68.0]
    assert film.window.low == 68.0


def test_a_server_that_tells_resets_in_another_way_is_believed_from_the_next_window_on():
    film = opened(15, reset=60.0)
    assert counting_down(film, 1.0, 1.0, resets_in=500) == 60.0
    assert not film.window.counts_down
    assert counting_down(film, 60.0, 60.0, resets_in=60) == 120.0
    assert film.window.counts_down
    film.play([(61, Ask("a"), GO), (61, Answer("a", 8, reset=500.0), 8)])
    assert film.window.ends == 120.0
    film.play([(120, Ask("a"), GO), (120, Answer("a", 8, reset=500.0), 8)])
    assert film.window.ends == 500.0


def test_a_number_from_elsewhere_says_nothing_of_a_window_that_counts_down():
    film = Film()
    counting_down(film, 0.0, 0.0, resets_in=60)
    film.window.prime(reading(3, 60.0))
    assert film.window.available == 9


def test_a_lateness_that_is_found_again_is_forgotten_more_slowly():
    film, late = opened(0, reset=60.0), []
    refusals = (1, 0, 1, 0, 0, 1, *[0] * 8, 1, *[0] * 8)
    for number, is_refused in enumerate(refusals, 1):
        at = film.window.ends
        if is_refused:
            film.play([(at, Ask("a"), GO)])
            film.play([(at, Answer("a", 0, reset=60.0 * number, status=429), 0)])
            at += 1.0
        film.play([(at, Ask("a"), GO), (at, Answer("a", 0, reset=60.0 * number + 60.0), 0)])
        late.append(film.window.late)
    assert late[:6] == [1.0, 0.5, 1.5, 1.5, 0.75, 1.75]
    assert late[6:14] == [1.75, 1.75, 1.75, 0.875, 0.875, 0.875, 0.875, 0.4375]
    assert late[14:] == [*[1.4375] * 8, 0.71875]


def test_a_late_rollover_is_learned_exactly_and_halves_with_each_clean_one():
    film = opened(0, reset=60.0)
    film.play([(60, Ask("a"), GO), (60.1, Answer("a", 0, reset=60.0, status=429), 0)])
    film.play([(61.1, Ask("b"), GO), (61.2, Answer("b", 0, reset=120.0), 0)])
    assert film.window.late == pytest.approx(1.1)
    film.play([(121.2, Ask("c"), GO), (121.3, Answer("c", 0, reset=180.0), 0)])
    assert film.window.late == pytest.approx(0.55)
    film.window.late = 0.2
    film.play([(180.2, Ask("d"), GO), (180.3, Answer("d", 0, reset=240.0), 0)])
    assert film.window.late == 0.1, "a lateness below that is none"
    film.play([(240.2, Ask("e"), GO), (240.3, Answer("e", 0, reset=300.0), 0)])
    assert film.window.late == 0.0


def test_a_call_long_after_the_last_refusal_tells_nothing_of_a_lateness():
    film = opened(0, reset=60.0)
    film.play([(60, Ask("a"), GO), (60.1, Answer("a", 0, reset=60.0, status=429), 0)])
    film.play([(500, Ask("b"), GO), (500.1, Answer("b", 0, reset=560.0), 0)])
    assert film.window.late == pytest.approx(61.1 + 1.0 - 60.0)


def test_only_a_probe_that_is_accepted_tells_that_a_rollover_was_clean():
    film = opened(15, reset=60.0)
    film.window.late = 0.8
    film.play([(59, Ask("slow"), GO), (61, Answer("slow", 13, reset=120.0), 13)])
    assert film.window.late == 0.8
    film.play([(120.8, Ask("a"), GO), (121, Answer("a", 0, reset=180.0, status=429), 0)])
    assert film.window.late == 0.8


def test_nobody_who_asks_long_after_a_refusal_tells_how_late_the_rollover_was():
    film = opened(0, reset=60.0)
    film.play([(60, Ask("a"), GO), (60.1, Answer("a", 0, reset=60.0, status=429), 0)])
    film.play([(600, Ask("b"), GO), (600.1, Answer("b", 14, reset=660.0), 14)])
    assert film.window.late == pytest.approx(60.1 + 1.0 + 1.0 - 60.0, abs=0.1)


def test_a_rollover_is_not_late_if_our_clock_was_early():
    film = opened(0, reset=60.0)
    film.play([(60, Ask("a"), GO), (60.1, Answer("a", 0, reset=60.0, status=429), 0)])
    film.clock.assume(EPOCH - 5.0)
    film.play([(61.1, Ask("b"), GO), (61.2, Answer("b", 0, reset=120.0), 0)])
    assert film.window.late == 0.0


def test_the_call_that_takes_the_last_token_is_no_probe():
    film = opened(1)
    film.play([(1, Ask("a"), GO)])
    assert film.granted["a"].probes is None


# Windows that answers no longer mention --------------------------------------------------------


def with_a_day() -> Film:
    """Return a film of two windows; the reset of the short one is at 60."""
    film = Film().play([(0, Ask("a"), GO), (0, Answer("a", 9, reset=60.0, day=900), 9)])
    film.bucket.answered = 1000
    return film


def probed_in_vain(answer: Answer, *, times: int = 3, since: float = 61.0) -> list[Row]:
    """Rows in which one call at a time goes, and its answer does not tell of the short window."""
    rows: list[Row] = []
    for at in (since + 5.0 * number for number in range(times)):
        rows += [(at, Ask("a"), GO), (at, Ask(), WAIT), (at + 0.1, answer, None)]
    return rows


OF_THE_DAY = Answer("a", day=800)


def test_a_window_ends_once_three_answers_to_its_probes_have_told_of_others_only():
    film = with_a_day().play(probed_in_vain(OF_THE_DAY))
    film.play([(80, Ask(), GO), (80, Ask(), GO)])
    assert not film.window.is_confirmed


def test_a_window_that_is_told_of_again_needs_three_more_to_end():
    film = with_a_day().play(probed_in_vain(OF_THE_DAY, times=2))
    film.play([(75, Ask("a"), GO), (75.1, Answer("a", 9, reset=120.0, day=800), 9)])
    film.play(probed_in_vain(OF_THE_DAY, since=121.0))
    film.play([(140, Ask("a"), GO), (140, Ask("b"), GO)])
    film.play([(141, Answer("a", 5, reset=180.0, day=800), 4)])


@pytest.mark.parametrize(
    "answer", [Answer("a"), again(OF_THE_DAY, status=503)], ids=["nothing told", "failed"]
)
def test_no_answer_that_failed_or_told_nothing_ends_a_window(answer: Answer):
    film = with_a_day().play(probed_in_vain(answer))
    film.play([(80, Ask(), GO), (80, Ask(), WAIT)])


def test_answers_to_calls_that_were_no_probes_end_no_window():
    film = with_a_day()
    for now in (1, 2, 3):
        film.play([(now, Ask("a"), GO), (now, OF_THE_DAY, None)])
    film.play([(61, Ask(), GO), (61, Ask(), WAIT)])


# Reserves ----------------------------------------------------------------------------------------


def test_the_largest_reserve_leaves_one_token_to_the_others():
    opened(15).play([(1, Ask(reserve=1.0), GO), (1, Ask(reserve=1.0), WAIT)])


@pytest.mark.parametrize("remaining", [1, 3])
def test_at_the_reserve_all_but_the_interactive_wait_for_the_reset(remaining: int):
    opened(remaining).play([(1, Ask(reserve=0.2), Until(900.0)), (1, Ask(), GO)])


def test_who_goes_to_see_what_became_of_a_lost_call_leaves_the_reserve():
    film = opened(4).play([(1, Ask("a"), GO), (2, Lost("a"), 3)])
    film.play([(9, Ask(cost=3, reserve=0.2), Until(900.0)), (9, Ask(cost=3), GO)])


def test_the_reserve_comes_on_top_of_what_others_may_take():
    film = opened(7, presumed=0.25)
    film.play([(1, Ask(reserve=0.2), GO), (1, Ask(reserve=0.2), GO), (1, Ask(reserve=0.2), WAIT)])


def test_of_an_unknown_limit_nothing_is_reserved():
    film = Film().play([(0, Ask("a"), GO), (1, Answer("a", 1, limit=None), 1)])
    film.play([(1, Ask(reserve=0.5), GO)])


# Estimates ---------------------------------------------------------------------------------------


def test_an_estimate_at_the_reset_no_longer_counts_on_what_was_left():
    film = opened(5, reset=60.0)
    assert film.bucket.expect(59.0, 4) == 59.0
    for now in (60.0, 70.0):
        assert film.bucket.expect(now, 15) == now + 60.0


def test_an_estimate_counts_an_answer_without_a_reading_as_spent():
    film = opened(1, reset=60.0)
    film.play([(1, Ask("a"), GO), (2, Answer("a"), 0)])
    assert film.bucket.expect(2.0, 0) == 60.0


def test_an_estimate_of_a_window_spent_until_nobody_knows_when_is_the_next_probe():
    film = Film().play([(0, Ask("a"), GO), (0, Answer("a", 0, reset=None), 0)])
    film.play([(0, Ask(), Until(1.0))])
    assert film.bucket.expect(0.5, 0) == 1.0


def test_an_estimate_behind_a_refused_probe_is_the_next_one_unless_another_is_out():
    film = opened(0, reset=60.0)
    film.play([(60, Ask("a"), GO), (60.1, Answer("a", 0, reset=60.0, status=429), None)])
    assert film.bucket.expect(60.1, 0) == 61.1
    film = opened(0, reset=60.0)
    film.play([(60, Ask("a"), GO), (62, Ask("b"), GO)])
    film.play([(62.5, Answer("a", 0, reset=60.0, status=429), None)])
    assert film.bucket.expect(62.5, 0) == 62.5


def test_an_estimate_of_a_window_that_lost_calls_may_have_spent_is_the_probe_that_finds_out():
    film = opened(2, reset=60.0)
    film.play([(1, Ask("a"), GO), (1, Lost("a"), 1), (1, Ask("b"), GO), (1, Lost("b"), 0)])
    assert film.bucket.expect(1.0, 0) == 2.0
    film.play([(2, Ask("c"), GO)])
    assert film.bucket.expect(2.0, 0) == 2.0
    film.play([(2, Lost("c"), 0), (3, Ask("d"), GO), (3, Lost("d"), 0)])
    assert film.bucket.expect(3.0, 0) == film.window.probing.hold == 4.0


def test_an_estimate_of_a_window_that_is_spent_without_the_lost_calls_too_is_the_reset():
    film = opened(2, reset=60.0)
    film.play([(1, Ask("a"), GO), (1, Ask("b"), GO)])
    film.play([(2, Answer("a"), None), (2, Answer("b", 1, reset=60.0), 0)])
    film.window.debts.add_ghost(4.0, 10**6, 1)
    film.play([(3, Ask(), Until(60.0))])
    assert film.bucket.expect(3.0, 0) == 60.0


def test_an_estimate_of_an_unknown_length_is_the_next_probe_however_many_are_ahead():
    film = Film().play([(0, Ask("a"), GO)])
    film.play([(0, Answer("a", 0, reset=None, status=429), None)])
    assert film.bucket.expect(0.0, 30) == 1.0


def test_an_estimate_of_an_unknown_limit_is_the_reset_however_many_are_ahead():
    film = Film().play([(0, Ask("a"), GO), (0, Answer("a", 0, limit=None, reset=60.0), 0)])
    assert film.bucket.expect(1.0, 30) == 60.0


def test_an_estimate_knows_the_length_of_a_window_from_its_last_rollover():
    film = opened(0, reset=160.0, now=100.0)
    assert film.bucket.expect(100.0, 30) == 160.0 + 2 * 60.0
    film.play([(160, Ask("a"), GO), (160, Answer("a", 0, reset=190.0), 0)])
    assert film.bucket.expect(160.0, 30) == 190.0 + 2 * 30.0


def test_an_estimate_knows_the_longest_if_a_window_was_not_seen_from_its_start():
    film = opened(0, reset=60.0)
    film.play([(60, Ask("a"), GO), (60, Answer("a", 1, reset=None), 1)])
    film.play([(61, Ask("b"), GO), (62, Answer("b", 0, reset=None), 0), (62, Ask(), Until(63.0))])
    film.play([(63, Ask("c"), GO), (63, Answer("c", 0, reset=80.0), 0)])
    assert film.bucket.expect(63.0, 30) == 80.0 + 2 * 60.0


def test_an_estimate_counts_windows_of_a_second_too():
    film = opened(0, limit=15, reset=1.0)
    assert film.bucket.expect(0.0, 30) == 3.0


def told_of_a_day_once() -> Film:
    """Return a film with a window of a day that is over, and of which nobody says more."""
    film = opened(15, reset=1e6)
    film.play([(0, Ask("a"), GO), (0, Answer("a", 14, reset=1e6, day=9), None)])
    return film


def test_a_window_of_which_answers_tell_no_more_lets_calls_go_after_three_probes():
    film = told_of_a_day_once()
    for name in "bcd":
        film.play([(90_000, Ask(name), GO), (90_000, Ask(), WAIT)])
        film.play([(90_000, Answer(name, 13, reset=1e6), None)])
    film.play([(90_000, Ask(), GO), (90_000, Ask(), GO)])


def test_a_failure_is_no_answer_that_tells_of_a_window_no_more():
    film = told_of_a_day_once()
    for name in "bc":
        film.play([(90_000, Ask(name), GO), (90_000, Answer(name, 13, reset=1e6), None)])
    film.play([(90_000, Ask("d"), GO), (90_000, Answer("d", status=500), None)])
    film.play([(90_002, Ask("e"), GO), (90_002, Ask(), WAIT)])


def test_a_window_of_which_an_answer_tells_again_counts_again():
    film = told_of_a_day_once()
    for name in "bcd":
        film.play([(90_000, Ask(name), GO), (90_000, Answer(name, 13, reset=1e6), None)])
    film.play([(90_000, Ask("e"), GO), (90_000, Ask("f"), GO)])
    film.play([(90_000, Answer("e", 12, reset=1e6, day=0), None), (90_000, Ask(), WAIT)])
    film.play([(90_000, Answer("f", 11, reset=1e6), None), (90_000, Ask(), Until(90_001))])


def test_how_many_may_go_at_once_without_a_window_that_has_ended_is_found_out_again():
    film = told_of_a_day_once()
    film.bucket.answered = 1000
    for name in "bcd":
        film.play([(90_000, Ask(name), GO), (90_000, Answer(name, 13, reset=1e6), None)])
    assert len(film.take_all(90_000)) == 2


def test_a_refusal_by_a_window_that_only_refusals_tell_of_makes_a_pace():
    film = told_of_a_day_once()
    for name in "bcd":
        film.play([(90_000, Ask(name), GO), (90_000, Answer(name, 13, reset=1e6), None)])
    film.play([(90_000, Ask("e"), GO)])
    film.play([(90_000, Answer("e", 12, reset=1e6, day=0, status=429), None)])
    assert film.bucket.pace.gap == 0.25


# Windows that take turns in one set of fields ----------------------------------------------------

WIDE, NARROW = (limited(WindowKind("window"), limit) for limit in (900, 300))


def told_in_turn(name: str, kind: WindowKind, remaining: int, **more: Any) -> Answer:
    limit = 900 if kind is WIDE else 300
    return Answer(name, remaining, limit=limit, reset=1000.0, kind=kind, **more)


def passed_over(narrow: int = 3, *, status: int = 200) -> Film:
    """Return a film whose narrow window, last shown with so few calls left, no answer shows now."""
    film = Film().play([(0, Ask("a"), GO), (0, told_in_turn("a", WIDE, 800), None)])
    film.play([(1, Ask("b"), GO), (1, told_in_turn("b", NARROW, narrow, status=status), None)])
    film.bucket.answered = 1000
    return film


def shown_instead(film: Film, remaining: int, calls: int, now: float = 2.0) -> None:
    for number in range(calls):
        answer = told_in_turn("c", WIDE, remaining - number)
        film.play([(now, Ask("c"), GO), (now, answer, None)])


def test_a_window_that_was_shown_in_time_and_would_be_the_closest_but_is_not_is_gone():
    film = passed_over()
    shown_instead(film, 798, 3)
    assert len(film.take_all(3.0)) == 796


def test_until_three_answers_have_passed_it_over_such_a_window_is_asked_about_one_call_at_a_time():
    film = passed_over(narrow=1)
    shown_instead(film, 798, 1)
    for number in range(2):
        film.play([(3, Ask("d"), GO), (3, Ask(), WAIT)])
        assert film.bucket.expect(3.0, 5) == 3.0
        film.play([(3, told_in_turn("d", WIDE, 797 - number), None)])
    assert len(film.take_all(3.0)) == 796


def test_a_probe_of_such_a_window_that_is_refused_by_it_is_the_last_one():
    film = passed_over(narrow=1)
    shown_instead(film, 798, 1)
    film.play([(3, Ask("d"), GO), (3, told_in_turn("d", NARROW, 0, status=429), None)])
    film.play([(4, Ask(), Until(1000))])
    film.play([(1000, Ask("e"), GO), (1000, again(told_in_turn("e", NARROW, 1), reset=2e3), None)])
    film.play([(1001, Ask("f"), GO), (1001, again(told_in_turn("f", WIDE, 9), reset=2e3), None)])
    film.play([(1002, Ask(), Until(2000))])


def test_a_window_that_more_is_left_of_than_of_the_one_shown_still_counts():
    film = passed_over(narrow=3)
    shown_instead(film, 3, 3)
    film.play([(3, Ask(), Until(1000))])


def test_a_window_that_only_refusals_show_is_not_passed_over():
    film = passed_over(3, status=429)
    for now in (5.0, 10.0, 15.0):
        shown_instead(film, 700, 1, now)
    film.play([(20, Ask(), Until(1000))])


def test_a_window_with_fields_of_its_own_is_never_passed_over():
    film = opened(15, reset=900.0).play([(0, Ask("a"), GO)])
    film.play([(0, Answer("a", 14, reset=900.0, day=1), None), (0, Ask("b"), GO)])
    film.play([(0, Lost("b"), None), (2, Ask("c"), GO), (2, Answer("c", 12, reset=900.0), None)])
    film.play([(2, Ask(), Until(86_400))])


def test_answers_of_calls_that_were_in_flight_together_pass_nobody_over():
    film = Film().play([(0, Ask("a"), GO), (0, told_in_turn("a", WIDE, 800), None)])
    film.bucket.answered = 1000
    film.play([(1, Ask("b"), GO), (1, Ask("c"), GO), (1, told_in_turn("b", NARROW, 1), None)])
    film.play([(1, told_in_turn("c", WIDE, 799), None), (2, Ask(), Until(1000))])


def test_who_may_not_touch_the_reserve_is_told_of_the_reset():
    film = opened(9, reset=60.0)
    assert [film.bucket.expect(1.0, ahead, 0.5) for ahead in (1, 2)] == [1.0, 60.0]
    assert film.bucket.expect(1.0, 2) == 1.0


# Second-hand numbers -----------------------------------------------------------------------------


def test_a_second_hand_limit_is_taken_where_none_was_told():
    film = Film().play([(0, Ask("a"), GO), (1, Answer("a", 9, limit=None), 9)])
    film.bucket.prime([reading(9, 900.0, limit=15)])
    assert film.window.limit == 15
    film.bucket.prime([reading(9, 900.0, limit=900)])
    assert film.window.limit == 15


def test_a_restored_state_has_its_limit_and_its_reset():
    film = Film()
    film.bucket.restore(100.0, [reading(7, 900.0)])
    assert repr(film.window) == "<Window 15min 7/15, 0 in flight>"
    assert film.window.ends == 900.0


# Windows that are one ----------------------------------------------------------------------------


class Parked(Entry):
    """A line that waits for a gate, as the limiter keeps them."""

    def __init__(self, ticket: int, gate: Window) -> None:
        super().__init__(ticket)
        self.gate = gate
        gate.blocked.add(self)


def two_windows(one: Answer, other: Answer) -> Film:
    """Return a film with two users' windows, after these answers to a call of each."""
    film = Film()
    for user, answer in (("one", one), ("two", other)):
        film.bucket = film.new_bucket(user)
        film.play([(0, Ask("a"), GO), (0, answer, None)])
    return film


@pytest.mark.parametrize(
    ("one", "other", "merged"),
    [
        (900.0, 901.5, EPOCH + 901.5),
        (901.5, 900.0, EPOCH + 901.5),
        (900.0, None, EPOCH + 900.0),
        (None, 900.0, EPOCH + 900.0),
        (None, None, None),
    ],
)
def test_of_the_resets_of_two_windows_that_are_one_the_later_stands(
    one: float | None, other: float | None, merged: float | None
):
    film = two_windows(Answer("a", 9, reset=one), Answer("a", 7, reset=other))
    window = film.windows["one", "15min"]
    window.absorb(film.windows["two", "15min"])
    assert window.reset == merged
    assert window.ends == (960.0 if merged is None else merged - EPOCH)
    assert window.available == 7


def test_a_window_whose_reset_has_passed_says_nothing_to_the_one_that_it_turns_out_to_be():
    film = two_windows(Answer("a", 9), Answer("a", 3, reset=60.0))
    film.play([(61, Ask("probe"), GO)])
    window = film.windows["one", "15min"]
    window.absorb(film.windows["two", "15min"])
    assert window.available == 9 - 1


def test_a_window_that_nobody_has_confirmed_stays_so_when_it_takes_in_another():
    film = two_windows(Answer("a", 3, reset=60.0), Answer("a", 9))
    one, two = film.buckets[1:]
    film.bucket = one
    film.play([(61, Ask("probe"), GO)])
    window = film.windows["one", "15min"]
    window.absorb(film.windows["two", "15min"])
    assert window.reset == EPOCH + 60.0
    assert not window.is_confirmed
    assert two.windows == [window]


def test_a_window_of_which_nothing_was_known_is_what_the_other_one_is():
    film = opened(9)
    new = Window(FIFTEEN_MINUTES, film.clock, film.numbering, "new")
    new.absorb(film.window)
    assert film.bucket.windows == [new]
    assert (new.available, new.limit, new.ends) == (9, 15, 900.0)


def test_who_waits_for_either_of_two_windows_waits_for_the_one_that_they_are():
    film = two_windows(Answer("a", 0), Answer("a", 0))
    one, two = film.windows["one", "15min"], film.windows["two", "15min"]
    for ticket, gate in ((3, one), (4, one), (1, two), (2, two)):
        Parked(ticket, gate)
    one.absorb(two)
    order = []
    while (first := one.blocked.first) is not None:
        assert first.gate is one
        one.blocked.discard(first)
        order.append(first.rank)
    assert order == [1, 2, 3, 4]
    assert not len(two.blocked)


# Even pace ---------------------------------------------------------------------------------------


def test_an_even_pace_spreads_what_is_left_over_what_is_left_of_the_window():
    film = opened(15, reset=60.0)
    for now in (30.0, 40.0):
        assert isinstance(film.bucket.ask(now, 2, even=True), Granted)
        assert film.window.slot == now + 2 * (60.0 - now) / (15 if now == 30.0 else 13)
    blocked = film.bucket.ask(40.1, even=True)
    assert isinstance(blocked, NotUntil)
    assert blocked.at == film.window.slot


def test_an_even_pace_needs_a_reset_and_a_burst_leaves_no_schedule():
    film = Film().play([(0, Ask("a"), GO), (0, Answer("a", 9, reset=None), 9)])
    film.bucket.answered = 1000
    for _ in range(3):
        assert isinstance(film.bucket.ask(1.0, even=True), Granted)
    film = opened(15, reset=60.0)
    film.play([(1, Ask(), GO)])
    assert isinstance(film.bucket.ask(1.0, even=True), Granted)
    film.play([(1, Ask(), GO)])


def test_a_fine_even_pace_goes_on_from_when_the_caller_came():
    film = opened(10_000, limit=10_000, reset=60.0)
    assert isinstance(film.bucket.ask(10.0, since=9.98, even=True), Granted)
    assert film.window.slot == pytest.approx(9.98 + 50.0 / 10_000)


# Local rates -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "slot", "since", "then"),
    [
        (50, 5.0, 9.0, 10.02),  # a gap of 20 ms and more is never undercut
        (50, 12.0, 9.0, 12.02),
        (100, 9.99, 9.0, 10.0),  # a finer schedule goes on from its last slot,
        (100, 5.0, 9.98, 9.99),  # or from when the caller came,
        (100, 5.0, 5.0, 9.96),  # and catches up by 50 ms at most
    ],
)
def test_a_fine_schedule_catches_up_after_a_late_timer_and_a_coarse_one_does_not(
    limit: float, slot: float, since: float, then: float
):
    window = RateWindow(Rate(limit, per=1))
    window.slot = slot
    window.take(10.0, 1, since)
    assert window.slot == pytest.approx(then)


@pytest.mark.parametrize(
    ("ahead", "at"), [(0, 8.5), (1, 9.0), (2, 9.5), (3, 10.0), (4, 10.5)], ids=str
)
def test_an_estimate_of_a_rate_counts_the_gaps_ahead_and_the_burst(ahead: int, at: float):
    window = RateWindow(Rate(2, per=1, burst=4))
    window.slot = 10.0
    assert window.expect(ahead) == at


def test_a_rate_counts_the_cost_of_its_calls_in_flight():
    window = RateWindow(Rate(2, per=1, burst=4))
    assert (window.in_flight, len(window.blocked)) == (0, 0)
    window.take(10.0, 2, 10.0)
    window.take(10.0, 1, 10.0)
    assert window.in_flight == 3
    window.give_back(2)
    assert window.in_flight == 1


@pytest.mark.parametrize(("now", "slot"), [(10.0, 11.0), (10.9, 11.0), (11.0, 12.0), (15.0, 12.0)])
def test_a_call_that_never_left_gives_its_gaps_back_until_they_have_passed(now: float, slot: float):
    window = RateWindow(Rate(2, per=1, burst=4))
    window.slot = 12.0
    window.returned(2, 10.0, now)
    assert window.slot == slot


# Other consumers ---------------------------------------------------------------------------------


def test_what_calls_of_ours_do_not_explain_is_what_others_use():
    foreign = Foreign(presumed=0.0)
    foreign.begin(10)
    assert not foreign.is_seen
    foreign.observe(0.5, 9, 0.5)
    assert foreign.is_seen
    foreign.observe(0.5, 8, 0.5)
    assert foreign.rate == 2.0, "for each of ours, or of one that is to come"
    foreign.begin(10)
    foreign.take(1.0, 5)
    foreign.give_back(3)
    foreign.observe(2.0, 6, 1.0)
    assert foreign.rate == 1.0
    assert foreign.is_seen


def test_what_others_used_is_half_forgotten_with_each_window_of_ours():
    foreign, rates = Foreign(presumed=0.0), []
    foreign.begin(10)
    foreign.take(1.0, 1)
    foreign.observe(2.0, 7, 1.0)
    for _ in range(3):
        foreign.begin(10)
        rates.append(foreign.rate)
        foreign.take(1.0, 1)
    foreign.begin(10)
    foreign.begin(10)
    assert [*rates, foreign.rate] == [2.0, 1.0, 0.5, 0.25]
    assert foreign.is_seen


def test_others_are_reckoned_with_up_to_four_calls_for_each_of_ours():
    foreign = Foreign(presumed=0.0)
    foreign.begin(100)
    foreign.take(1.0, 1)
    foreign.observe(2.0, 9, 1.0)
    assert foreign.rate == 4.0


@pytest.mark.parametrize(
    ("answers", "now", "others"),
    [
        (3, 10.95, 1),  # too soon after the call to have it in the number
        (2, 10.5, 0),  # too few answers to know how soon is too soon
        (3, 11.0, 0),  # an eighth of the quickest round trip after it
    ],
)
def test_a_call_just_sent_does_not_explain_a_number(answers: int, now: float, others: int):
    foreign = Foreign(presumed=0.0)
    foreign.begin(10)
    for round_trip in (9.0, 8.0, 9.0)[3 - answers :]:
        foreign.observe(9.0, 10, round_trip)
    foreign.take(10.0, 1)
    foreign.observe(now, 9, 9.0)
    assert foreign.rate == others


def test_which_calls_explain_a_number_is_marked_four_times_in_that_span():
    foreign = Foreign(presumed=0.0)
    foreign.begin(10)
    for _ in range(4):
        foreign.observe(9.0, 10, 8.0)
    for now in (10.0, 10.1, 10.22, 10.25):
        foreign.take(now, 1)
    foreign.observe(11.05, 5, 8.0)
    assert foreign.rate == 2 / 4, "of what was there before the mark at 10.25"


@pytest.mark.parametrize(("quickest", "is_near"), [(0.0079, True), (0.008, False)])
def test_a_server_is_near_if_an_eighth_of_its_quickest_round_trip_is_below_a_millisecond(
    quickest: float, is_near: bool
):
    foreign = Foreign(presumed=0.0)
    foreign.begin(10)
    for round_trip in (quickest, 0.1, 0.1):
        foreign.observe(9.0, 10, round_trip)
    assert not foreign.is_near, "too few answers to know"
    foreign.observe(9.0, 10, 0.1)
    assert foreign.is_near is is_near


def test_calls_that_took_their_time_explain_a_number():
    film = opened(15)
    for now in range(1, 5):
        film.step(now, Ask("a"))
        film.step(now + 0.1, Answer("a", 15 - now))
    film.play([(10, Ask("a"), GO), (10, Ask("b"), GO), (10.2, Answer("a", 9), 8)])
    assert not film.window.foreign.is_seen


def test_the_margin_is_what_others_are_expected_to_take_and_twice_its_spread():
    foreign = Foreign(presumed=0.25)
    assert foreign.margin(16) == 4.0 + 2.0 * 2.0
    foreign.begin(10)
    assert foreign.margin(16) == 8.0, "nothing has told yet"
    foreign.observe(1.0, 10, 1.0)
    foreign.begin(10)
    assert foreign.margin(16) == 0.0


def test_calls_that_are_not_answered_leave_a_bounded_number_of_marks():
    foreign = Foreign()
    foreign.begin(1000)
    for now in range(100):
        foreign.take(float(now), 1)
    assert [now for now, _ in foreign._marks] == [92, 93, 94, 95, 96, 97, 98, 99]


def test_local_limits_are_held_by_windows():
    rate, concurrency = window_of(Rate(1, per=2)), window_of(Concurrency(3))
    assert [repr(rate), repr(concurrency)] == [
        "<RateWindow 1 per 2 s>",
        "<ConcurrencyWindow 0 of 3 in flight>",
    ]
    assert not rate.blocked
    assert not concurrency.blocked


def test_a_cost_says_what_it_is_of():
    assert repr(Cost({"tokens": 3})) == "Cost({'tokens': 3})"


# What a window begins with -----------------------------------------------------------------------


@pytest.mark.parametrize("busy", ["out", "misses", "refusals", "hold"])
def test_probes_are_at_rest_when_none_is_out_and_none_went_wrong(busy: str):
    probing = Probing()
    assert probing.is_at_rest
    setattr(probing, busy, 1)
    assert not probing.is_at_rest


def test_what_a_new_window_begins_with():
    clock, numbering = ServerClock(), Numbering()
    window = Window(FIFTEEN_MINUTES, clock, numbering, "key")
    assert (window.silences, window.is_untold, window.clean, window.refill) == (0, False, 0, None)
    assert not window.take_plainly(0.0)
    assert window.frees, "what is answered plainly may set another call free"
    assert window.foreign.rate > 0, "others may use it until answers tell"
    tokens = Window(WindowKind("bucket", refills=True), clock, numbering, "key")
    assert tokens.refill is not None
    in_flight = Window(WindowKind("calls", unit="concurrent-requests"), clock, numbering, "key")
    assert in_flight.foreign.rate == 0, "calls in flight are our own"


def test_a_call_of_another_consumer_is_learned_from_a_plain_answer():
    film = opened(800, limit=900)
    film.bucket.foresee(1.0, 0.0)
    granted = film.bucket.take_foreseen(1.0, None)
    assert granted is not None
    assert film.bucket.answered_plainly(granted, 1.1, 798, None)
    film.window.take_in()
    assert film.window.foreign.is_seen


def test_what_was_foreseen_is_used_up_and_foreseen_anew():
    film = opened(800, limit=900)
    film.bucket.foresee(1.0, 0.1)
    calls = film.window.foreseen
    assert calls == 64
    for number in range(3 * calls):
        granted = film.bucket.take_foreseen(1.0, None)
        assert granted is not None
        assert film.window.foreseen == (-number - 1) % calls
        assert film.bucket.answered_plainly(granted, 1.001, 799 - number, None)
    assert film.window.reserve == 0.1, "that is as before"
    assert film.window.available == 800 - 3 * calls
    film.window.upset()
    assert not film.window.take_plainly(1.0)


@pytest.mark.parametrize(
    ("left", "in_flight", "reserve", "foreseen", "least"),
    [
        (0, 0, 0.0, 0, 0),
        (9, 0, 0.0, 0, 0),
        (10, 0, 0.0, 1, 9),  # others may take four, and twice the spread of that
        (100, 0, 0.0, 14, 85),
        (100, 8, 0.0, 6, 85),
        (100, 14, 0.0, 0, 85),
        (100, 0, 0.1, 1, 99),
        (900, 0, 0.0, 64, 352),
        (900, 100, 0.0, 42, 758),
    ],
)
def test_what_is_foreseen_may_go_whatever_others_take(
    left: int, in_flight: int, reserve: float, foreseen: int, least: int
):
    film = opened(left, limit=900)
    film.window.in_flight = in_flight
    film.window.foresee(1.0, reserve)
    assert (film.window.foreseen, film.window.least) == (foreseen, least)
    assert film.window.foreseen_until <= film.window.ends
    assert film.window.take_plainly(1.0) is (foreseen > 0)
    assert film.window.foreseen == max(0, foreseen - 1)


@given(
    st.integers(0, 2000), st.integers(0, 300), st.sampled_from([0.0, 0.1, 0.5]), st.integers(0, 9)
)
def test_of_what_is_foreseen_the_rule_lets_each_call_go(
    left: int, in_flight: int, reserve: float, others: int
):
    film = opened(left, limit=2000)
    window = film.window
    window.in_flight = in_flight
    window.foresee(1.0, reserve)
    window.observations = [(film.numbering.next(), window.least)]
    window.foreign._before = float(others)
    for _ in range(window.foreseen):
        assert window.opens(1.0, 1, reserve, even=False) <= 1.0
        window.in_flight += 1


@pytest.mark.parametrize("doubt", ["silences", "doubts", "is_untold"])
def test_nothing_is_foreseen_of_a_window_in_doubt(doubt: str):
    film = opened(40, limit=900)
    setattr(film.window, doubt, 1)
    film.window.foresee(1.0, 0.0)
    assert not film.window.is_plain


def test_what_was_shut_until_now_is_open_and_what_ends_now_is_over():
    film = opened(40, limit=900)
    film.window.shut = 1.0
    film.window.foresee(0.9, 0.0)
    assert not film.window.is_plain
    film.window.foresee(1.0, 0.0)
    assert film.window.is_plain
    film.window.foresee(film.window.ends, 0.0)
    assert not film.window.is_plain


def test_only_an_answer_that_tells_the_same_is_plain():
    window = opened(10).window
    same = reading(9, 900.0)
    assert window.tells_the_same(same)
    for changes in (
        {"kind": DAY_OF_APP},
        {"limit": 16},
        {"bucket": "b"},
        {"reset": EPOCH + 901.0},
        {"resets_in": 5.0},
    ):
        assert not window.tells_the_same(same._replace(**changes))


def test_calls_that_are_answered_in_another_order_are_foreseen_once():
    film = opened(800, limit=900)
    film.numbering.last = 10_000  # of answers of other windows
    film.bucket.foresee(1.0, 0.0)
    first, second = (film.bucket.take_foreseen(now, None) for now in (1.0, 1.1))
    assert first is not None
    assert second is not None
    assert film.bucket.answered_plainly(second, 1.2, 798, None)
    assert (film.window.available, film.window.floor) == (797, 798)
    assert film.bucket.answered_plainly(first, 1.3, 799, None)
    assert (film.window.available, film.window.floor) == (798, 798)
    third = film.bucket.take_foreseen(1.4, None)
    assert third is not None
    assert film.bucket.answered_plainly(third, 1.5, 797, None)
    assert (film.window.available, film.window.floor) == (797, 797)
    assert not film.window.foreign.is_seen


def test_of_many_answers_at_one_go_those_count_that_no_later_call_knew():
    film = opened(800, limit=900)
    film.window.foreign.next_mark = INF  # as of a server that is near
    film.bucket.foresee(1.0, 0.0)
    calls = [film.bucket.take_foreseen(1.0, None) for _ in range(4)]
    for granted, left in zip(calls[:3], (797, 799, 798), strict=True):
        assert granted is not None
        assert film.bucket.answered_plainly(granted, 1.1, left, None)
    later = film.bucket.take_foreseen(1.2, None)
    assert later is not None
    assert calls[3] is not None
    assert film.bucket.answered_plainly(later, 1.3, 795, None)
    assert film.bucket.answered_plainly(calls[3], 1.4, 796, None)
    assert len(film.window.answers) == 5
    film.window.take_in()
    numbers = [number for number, _ in film.window.observations]
    assert [left for _, left in film.window.observations] == [795, 796]
    assert numbers == [film.numbering.last - 1, film.numbering.last]
    assert film.window.answers == []


def test_of_many_answers_at_one_go_a_later_call_s_replaces_the_one_it_knew_upwards_too():
    film = opened(800, limit=900)
    film.bucket.foresee(1.0, 0.0)
    for left in (790, 795):
        granted = film.bucket.take_foreseen(1.0, None)
        assert granted is not None
        assert film.bucket.answered_plainly(granted, 1.1, left, None)
    assert len(film.window.answers) == 2
    film.window.take_in()
    assert film.window.observations == [(film.numbering.last, 795)]


def test_of_many_answers_at_one_go_the_one_that_calls_of_ours_explain_least_tells_of_others():
    film = opened(800, limit=900)
    film.window.foreign.next_mark = INF  # as of a server that is near
    film.bucket.foresee(1.0, 0.0)
    first, second = (film.bucket.take_foreseen(1.0, None) for _ in range(2))
    for granted, left in ((second, 795), (first, 797)):
        assert granted is not None
        assert film.bucket.answered_plainly(granted, 1.1, left, None)
    film.window.take_in()
    assert film.window.foreign.rate == 3 / 2


def test_a_call_that_was_foreseen_after_an_answer_explains_nothing_of_it():
    film = opened(800, limit=900)
    film.bucket.foresee(1.0, 0.0)
    first = film.bucket.take_foreseen(1.0, None)
    assert first is not None
    assert film.bucket.answered_plainly(first, 1.0004, 798, None)
    assert film.bucket.take_foreseen(1.0005, None) is not None, "too soon for a mark"
    film.window.take_in()
    assert film.window.foreign.rate == 1 / 2


def test_what_was_foreseen_stands_at_the_next_mark():
    film = opened(800, limit=900)
    film.bucket.foresee(1.0, 0.0)
    assert film.bucket.take_foreseen(1.0, None) is not None
    mark = film.window.foreseen_until
    assert mark == 1.001
    while film.window.foreseen > 1:
        assert film.bucket.take_foreseen(1.0, None) is not None
    assert film.bucket.take_foreseen(mark, None) is not None
    assert film.window.foreseen == 0
    assert film.window.foreseen_until > mark


def test_answers_are_taken_in_before_there_are_too_many():
    film = opened(90_000, limit=90_000)
    film.bucket.foresee(1.0, 0.0)
    calls = [film.bucket.take_foreseen(1.0, None) for _ in range(200)]
    most = 0
    for number, granted in enumerate(calls):
        assert granted is not None
        assert film.bucket.answered_plainly(granted, 1.1, 89_000 - number, None)
        most = max(most, len(film.window.answers))
    assert most == 63


def test_the_time_of_many_answers_is_learned_as_that_of_each_is():
    film, other = opened(800, limit=900), opened(800, limit=900)
    film.bucket.foresee(1.0, 0.0)
    for took in (0.5, 0.001, 40.0, 0.02):
        granted = film.bucket.take_foreseen(1.0, None)
        assert granted is not None
        assert film.bucket.answered_plainly(granted, 1.0 + took, 700, None)
        other.window.time(took)
    film.window.take_in()
    assert film.window.round_trip == pytest.approx(other.window.round_trip)
    assert film.window.seen == 1.02


@pytest.mark.parametrize("took", [0.004, 0.4])
def test_others_are_seen_alike_in_many_answers_and_in_each(took: float):
    seen = []
    for is_deferred in (True, False):
        film, left = opened(800, limit=900, presumed=0.25), 800
        for number in range(1, 40):
            now = number * took / 3
            if not is_deferred:
                film.window.upset()
            film.bucket.foresee(now, 0.0)
            granted = film.bucket.take_foreseen(now, None) or film.bucket.ask(now)
            assert isinstance(granted, Granted)
            left -= 3 if number == 20 else 1
            film.bucket.observed(granted, now + took, Reading((reading(left, 900.0, 900),)))
        film.window.take_in()
        seen.append(film.window.foreign._others)
    assert seen == [2, 2]


def test_an_answer_at_the_end_of_a_window_is_not_plain_though_the_one_before_was():
    film = opened(800, limit=900)
    film.bucket.foresee(1.0, 0.0)
    first, second = (film.bucket.take_foreseen(1.0, None) for _ in range(2))
    assert first is not None
    assert second is not None
    assert film.bucket.answered_plainly(first, 1.1, 799, None)
    assert not film.bucket.answered_plainly(second, film.window.ends, 798, None)


@pytest.mark.parametrize(
    ("offset", "ends"),
    [(897.0, 3.0), (898.0, None), (898.5, None), (-60.0, 960.0), (-61.0, None)],
)
def test_an_answer_is_plain_if_its_window_ends_later_than_now_and_within_its_ceiling(
    offset: float, ends: float | None
):
    film = opened(800, limit=900)
    film.bucket.foresee(1.0, 0.0)
    granted = film.bucket.take_foreseen(1.0, None)
    assert granted is not None
    film.clock.assume(EPOCH + offset)
    assert film.bucket.answered_plainly(granted, 2.0, 799, None) is (ends is not None)
    assert ends is None or film.window.ends == ends


@pytest.mark.parametrize("resets_in", [None, 60.0])
def test_the_lateness_of_a_rollover_comes_on_top_of_a_reset_that_is_plain(
    resets_in: float | None,
):
    film = Film()
    film.play([(0, Ask("a"), GO), (0, Answer("a", 800, 900, 60.0, resets_in=resets_in), None)])
    film.bucket.answered = 1000
    film.window.late = 5.0
    film.bucket.foresee(1.0, 0.0)
    granted = film.bucket.take_foreseen(1.0, None)
    assert granted is not None
    assert film.bucket.answered_plainly(granted, 1.0, 799, resets_in and 59.0)
    assert film.window.ends == 65.0


@pytest.mark.parametrize(
    ("before", "sent", "now", "resets_in", "late", "is_plain"),
    [
        (900.0, 1.0, 1.0, 900.0, 0.0, True),  # at the latest instant that was told before
        (900.0, 1.0, 1.0, 900.5, 0.0, False),
        (900.0, 1.0, 2.0, 897.0, 0.0, True),  # at the earliest
        (900.0, 1.0, 2.0, 896.5, 0.0, False),
        (960.0, 1.0, 2.0, 960.0, 0.0, True),  # the ceiling
        (900.0, 899.2, 899.5, 0.5, 0.0, True),
        (900.0, 899.2, 899.5, 0.0, 1.0, False),  # it is over
    ],
)
def test_seconds_are_plain_if_they_may_end_when_those_before_did(
    before: float, sent: float, now: float, resets_in: float, late: float, is_plain: bool
):
    film = Film()
    film.play([(0, Ask("a"), GO), (0, Answer("a", 800, 900, resets_in=before), None)])
    film.bucket.answered = 1000
    film.window.late = late
    film.bucket.foresee(1.0, 0.0)
    granted = film.bucket.take_foreseen(sent, None)
    assert granted is not None
    assert film.bucket.answered_plainly(granted, now, 799, resets_in) is is_plain


def test_how_an_answer_put_it_is_remembered_for_as_long_as_it_tells_the_same():
    window = opened(800, limit=900).window
    said = {
        "x-rate-limit-limit": "900",
        "x-rate-limit-remaining": "799",
        "date": formatdate(EPOCH, usegmt=True),
    }
    reset = {"x-rate-limit-reset": str(int(EPOCH) + 900)}
    frame = X_DIALECT.frame(said | reset)
    assert frame is not None
    window.expect_as(frame)
    window.foresee(1.0, 0.0)
    assert window.frame is frame
    window.limit = 800
    window.foresee(1.0, 0.0)
    assert window.frame is None
    window.expect_as(frame)
    assert window.frame is None


def test_how_an_answer_put_it_is_forgotten_once_the_server_shows_another_second():
    film = opened(800, limit=900)
    film.clock.observe(EPOCH, 0.0, 0.5)
    frame = X_DIALECT.frame(
        {
            "x-rate-limit-limit": "900",
            "x-rate-limit-remaining": "799",
            "x-rate-limit-reset": str(int(EPOCH) + 900),
            "date": formatdate(EPOCH, usegmt=True),
        }
    )
    film.window.expect_as(frame)
    for date, then in ((EPOCH, frame), (EPOCH + 2.0, None)):
        film.clock.observe(date, 2.0, 2.0)
        film.bucket.foresee(2.0, 0.0)
        granted = film.bucket.take_foreseen(2.0, None)
        assert granted is not None
        assert film.bucket.answered_plainly(granted, 2.0, 799, None)
        assert film.window.frame is then


def test_an_answer_at_the_end_of_a_window_or_after_it_was_upset_is_not_plain():
    for spoil in (True, False):
        film = opened(800, limit=900)
        film.bucket.foresee(1.0, 0.0)
        granted = film.bucket.take_foreseen(1.0, None)
        assert granted is not None
        if spoil:
            film.window.upset()
        now = 1.1 if spoil else film.window.ends
        assert not film.bucket.answered_plainly(granted, now, 799, None)
        assert (film.window.in_flight, film.window.floor) == (1, 800)


CALLS = WindowKind("calls", unit="concurrent-requests")


@pytest.mark.parametrize(
    ("status", "remaining", "left"), [(200, 3, 5), (429, 0, 0)], ids=["accepted", "refused"]
)
def test_a_call_that_has_ended_is_room_again_unless_it_was_refused(
    status: int, remaining: int, left: int
):
    film = Film().play([(0, Ask("a", cost=2), GO)])
    film.play([(0, Answer("a", remaining, kind=CALLS, status=status), None)])
    assert film.window.floor == left


@pytest.mark.parametrize(
    ("limit", "left"), [(10, 7), (6, 6), (None, 7)], ids=["of ten", "of six", "untold"]
)
def test_room_is_what_is_left_and_what_calls_of_ours_take(limit: int | None, left: int):
    window = Window(CALLS, ServerClock(), Numbering(), "key")
    window.in_flight = 2
    assert window._with_ours(1, WindowReading(CALLS, 4, limit, None)).remaining == left
