"""Broken variants of the rule: the suite's own checks must notice each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from aiotwhelp import windows
from aiotwhelp.clock import ServerClock
from aiotwhelp.limiter import Limiter
from aiotwhelp.queues import Queue
from aiotwhelp.quota import Bucket, Pace
from aiotwhelp.windows import INF, Debts, Foreign, Probing, RateWindow, Window
from tests import test_clock, test_limiter, test_quota, test_scenarios_runs

Patch = pytest.MonkeyPatch
Check = Callable[[], None]


def nothing(*_: Any, **__: Any) -> None:
    """Do nothing: what many mistakes come down to."""


def overwrite_the_floor(patch: Patch) -> None:
    patch.setattr(Window, "_retire", lambda window, _: window.observations.clear())


def forget_in_flight(patch: Patch) -> None:
    take = Window.take

    def taken(window: Window, now: float, cost: int, since: float, even: bool) -> Any:
        probe = take(window, now, cost, since, even)
        window.in_flight = 0
        return probe

    patch.setattr(Window, "take", taken)
    patch.setattr(Window, "give_back", nothing)


def forget_lost_calls(patch: Patch) -> None:
    patch.setattr(Debts, "add_ghost", nothing)


def ignore_the_span(patch: Patch) -> None:
    add = Debts.add_ghost
    patch.setattr(Debts, "add_ghost", lambda debts, _, number, cost: add(debts, -INF, number, cost))


def ignore_unread_answers(patch: Patch) -> None:
    patch.setattr(Debts, "add_unread", nothing)


def ignore_cost_in_debts(patch: Patch) -> None:
    add = Debts.add_ghost
    patch.setattr(Debts, "add_ghost", lambda debts, after, number, _: add(debts, after, number, 1))


def let_the_next_window_clear_debts(patch: Patch) -> None:
    opens = Window._open

    def opened(window: Window, now: float, remaining: int, reset: float | None) -> None:
        window.debts = Debts()
        opens(window, now, remaining, reset)

    patch.setattr(Window, "_open", opened)


def open_on_a_probe_without_headers(patch: Patch) -> None:
    unread = Window.unread

    def opened(window: Window, granted: Any, number: int, now: float, *, failed: bool) -> None:
        unread(window, granted, number, now, failed=failed)
        window._open(now, window.limit or 15, None)

    patch.setattr(Window, "unread", opened)


def broadcast_at_the_reset(patch: Patch) -> None:
    patch.setattr(Probing, "opens", lambda *_: -INF)


def never_send_a_second_probe(patch: Patch) -> None:
    patch.setattr(Probing, "opens", lambda probing, *_: INF if probing.out else probing.hold)


def no_probe_back_off(patch: Patch) -> None:
    patch.setattr(Probing, "missed", nothing)


def no_back_off_of_refused_probes(patch: Patch) -> None:
    patch.setattr(Probing, "refused", nothing)


def no_slow_start(patch: Patch) -> None:
    join = Bucket._join_shown

    def joined(bucket: Bucket, shown: Any) -> None:
        join(bucket, shown)
        bucket.answered = 10**9

    patch.setattr(Bucket, "_join_shown", joined)


def no_tolerance_of_resets(patch: Patch) -> None:
    patch.setattr(Window, "_is_same", lambda window, reset: reset == window.reset)


def believe_answers_of_the_old_window(patch: Patch) -> None:
    patch.setattr(Window, "_is_earlier", lambda *_: False)


def reset_at_the_early_edge(patch: Patch) -> None:
    patch.setattr(ServerClock, "local", ServerClock.soonest)


def never_learn_lateness(patch: Patch) -> None:
    patch.setattr(Window, "_learn_lateness", nothing)


def never_forget_lateness(patch: Patch) -> None:
    learn = Window._learn_lateness

    def learned(window: Window, sent: float) -> None:
        late = window.late
        learn(window, sent)
        window.late = max(late, window.late)

    patch.setattr(Window, "_learn_lateness", learned)


def never_slow_down(patch: Patch) -> None:
    patch.setattr(Pace, "refused", lambda *_: False)


def slow_down_for_every_refusal(patch: Patch) -> None:
    refused = Pace.refused

    def grown(pace: Pace, granted: Any, now: float) -> bool:
        granted.growths = pace.growths
        return refused(pace, granted, now)

    patch.setattr(Pace, "refused", grown)


def ignore_retry_after(patch: Patch) -> None:
    patch.setattr(Window, "keep_shut", nothing)


def back_off_without_a_cap(patch: Patch) -> None:
    patch.setattr(windows, "LONGEST_BACKOFF", INF)


def spend_one_window_while_another_blocks(patch: Patch) -> None:
    opens = Window.opens

    def opened(window: Window, *asked: Any) -> float:
        return opens(window, *asked) if window.kind.scope == "identity" else -INF

    patch.setattr(Window, "opens", opened)


def let_every_user_find_out(patch: Patch) -> None:
    patch.setattr(Bucket, "presume", nothing)


def forget_what_was_sent_before_the_window(patch: Patch) -> None:
    patch.setattr(Debts, "absorb", nothing)


def take_no_notice_of_other_consumers(patch: Patch) -> None:
    patch.setattr(Foreign, "observe", nothing)


def ignore_the_reserve(patch: Patch) -> None:
    patch.setattr(Window, "_kept", lambda *_: 0)


def let_priming_raise_the_floor(patch: Patch) -> None:
    prime = Window.prime

    def primed(window: Window, reading: Any) -> None:
        window.observations.clear()
        prime(window, reading)

    patch.setattr(Window, "prime", primed)


def forget_calls_answered_by_a_cache(patch: Patch) -> None:
    patch.setattr(Bucket, "_answered_by_cache", nothing)


def give_old_rate_tokens_back(patch: Patch) -> None:
    def returned(rate: RateWindow, cost: int, _: float, __: float) -> None:
        rate.slot -= cost * rate.rate.gap

    patch.setattr(RateWindow, "returned", returned)


def let_newcomers_overtake(patch: Patch) -> None:
    patch.setattr(Queue, "add", lambda queue, waiter: queue._back.appendleft(waiter))


def let_other_lines_overtake(patch: Patch) -> None:
    patch.setattr(Limiter, "_others_wait", lambda *_: False)
    patch.setattr(
        Limiter,
        "_ask",
        lambda limiter, line, waiter, now: line.bucket.ask(now, waiter.cost, room=waiter.room),
    )


def send_retried_callers_to_the_back(patch: Patch) -> None:
    patch.setattr(Queue, "add", lambda queue, waiter: queue._back.append(waiter))


def grant_to_the_cancelled(patch: Patch) -> None:
    patch.setattr(Queue, "head", lambda queue: queue._back[0] if queue._back else None)


def lose_the_token_of_a_cancelled_caller(patch: Patch) -> None:
    patch.setattr(Limiter, "_cancelled", nothing)


def never_arm_the_timer(patch: Patch) -> None:
    patch.setattr(Limiter, "_arm", nothing)


def wake_nobody_else(patch: Patch) -> None:
    patch.setattr(Limiter, "_wake", nothing)


def never_look_again_at_deadlines(patch: Patch) -> None:
    patch.setattr(Limiter, "_check_deadlines", nothing)


def never_forget_a_quota(patch: Patch) -> None:
    patch.setattr(Limiter, "_forget_some", nothing)


def close_in_one_go(patch: Patch) -> None:
    patch.setattr("aiotwhelp.limiter._SLICE", 10**9)


CAUGHT_BY: list[tuple[Callable[[Patch], None], Check]] = [
    (overwrite_the_floor, test_quota.test_case_06_answers_out_of_order_fold_by_minimum),
    (
        forget_in_flight,
        lambda: (
            test_scenarios_runs.test_a_hundred_callers_make_a_hundred_requests_in_the_ideal_time(0)
        ),
    ),
    (
        forget_lost_calls,
        test_quota.test_case_30_a_lost_call_is_a_ghost_until_a_call_sent_after_its_span_is_read,
    ),
    (
        ignore_the_span,
        test_quota.test_case_30_a_lost_call_is_a_ghost_until_a_call_sent_after_its_span_is_read,
    ),
    (ignore_unread_answers, test_quota.test_case_54_a_debt_holds_its_calls_cost),
    (ignore_cost_in_debts, test_quota.test_case_54_a_debt_holds_its_calls_cost),
    (
        let_the_next_window_clear_debts,
        test_quota.test_a_lost_token_is_not_given_back_by_the_next_window,
    ),
    (
        open_on_a_probe_without_headers,
        test_quota.test_case_03_a_key_that_has_shown_headers_stays_at_one_until_a_reading_comes,
    ),
    (
        broadcast_at_the_reset,
        test_quota.test_case_14_at_the_reset_one_probe_goes_and_then_no_more_than_remaining,
    ),
    (
        never_send_a_second_probe,
        test_quota.test_case_02_a_probe_that_is_only_slow_stalls_nobody_for_long,
    ),
    (no_probe_back_off, test_quota.test_case_02_lost_probes_share_a_back_off),
    (
        no_back_off_of_refused_probes,
        test_quota.test_case_15_a_refusal_without_headers_at_the_reset_speaks_of_the_reset,
    ),
    (
        no_slow_start,
        test_quota.test_case_01_one_request_until_its_headers_arrive_and_then_a_slow_start,
    ),
    (
        no_tolerance_of_resets,
        test_quota.test_case_09_a_reset_that_jitters_makes_no_phantom_window,
    ),
    (
        believe_answers_of_the_old_window,
        test_quota.test_case_07_a_slow_answer_of_the_old_window_is_ignored,
    ),
    (
        reset_at_the_early_edge,
        lambda: (
            test_clock.test_case_17_a_date_header_bounds_the_offset_whatever_the_local_clock_says(
                0.25
            )
        ),
    ),
    (
        never_learn_lateness,
        lambda: test_quota.test_case_15_a_late_rollover_is_backed_off_and_learned(2.5),
    ),
    (never_forget_lateness, test_quota.test_case_51_a_lateness_learned_once_decays_to_nothing),
    (
        never_slow_down,
        test_quota.test_case_22_a_refusal_with_tokens_left_makes_a_pace_and_single_file,
    ),
    (
        slow_down_for_every_refusal,
        test_quota.test_case_22_a_refusal_with_tokens_left_makes_a_pace_and_single_file,
    ),
    (
        ignore_retry_after,
        lambda: test_quota.test_case_24_retry_after_against_reset(0, 90.0, 92.0),
    ),
    (
        back_off_without_a_cap,
        test_quota.test_case_47_remaining_zero_without_a_usable_reset_is_probed_with_a_back_off,
    ),
    (
        spend_one_window_while_another_blocks,
        test_quota.test_case_38_a_grant_needs_both_windows_and_takes_none_while_one_blocks,
    ),
    (
        let_every_user_find_out,
        test_quota.test_a_new_user_does_not_find_out_by_itself_that_the_apps_window_is_spent,
    ),
    (
        forget_what_was_sent_before_the_window,
        test_quota.test_an_answer_without_headers_is_owed_by_the_window_that_a_later_one_shows,
    ),
    (
        take_no_notice_of_other_consumers,
        test_quota.test_case_11_another_consumer_is_believed_and_stops_us_in_time,
    ),
    (
        ignore_the_reserve,
        test_quota.test_a_reserve_is_left_for_interactive_calls_and_not_applied_to_probes,
    ),
    (
        let_priming_raise_the_floor,
        test_quota.test_case_50_priming_never_raises_a_floor_and_replaces_no_probe,
    ),
    (
        forget_calls_answered_by_a_cache,
        test_quota.test_case_13_an_answer_from_a_cache_is_not_observed,
    ),
    (
        give_old_rate_tokens_back,
        test_quota.test_a_call_that_never_left_gives_a_rates_token_back_but_never_an_old_one,
    ),
    (
        let_newcomers_overtake,
        test_limiter.test_invariant_i5_grants_follow_arrival_and_a_newcomer_never_overtakes,
    ),
    (
        let_other_lines_overtake,
        test_limiter.test_nobody_overtakes_a_costly_caller_at_a_shared_window,
    ),
    (
        send_retried_callers_to_the_back,
        test_limiter.test_invariant_i5_a_retried_caller_keeps_its_place_at_the_front,
    ),
    (
        grant_to_the_cancelled,
        lambda: test_limiter.test_case_28_cancelling_a_waiter_delays_nobody_else(0),
    ),
    (
        lose_the_token_of_a_cancelled_caller,
        test_limiter.test_case_29_cancelled_in_the_tick_of_the_grant_the_token_goes_to_the_next,
    ),
    (
        never_arm_the_timer,
        test_limiter.test_invariant_i5_a_retried_caller_keeps_its_place_at_the_front,
    ),
    (
        wake_nobody_else,
        test_limiter.test_case_38_a_token_given_back_by_one_user_wakes_the_waiter_of_another,
    ),
    (
        never_look_again_at_deadlines,
        test_limiter.test_case_36_news_fail_those_whose_wait_turns_out_too_long,
    ),
    (
        never_forget_a_quota,
        test_limiter.test_case_44_idle_quotas_are_forgotten_spent_ones_last,
    ),
    (close_in_one_go, test_limiter.test_case_52_grants_go_in_slices),
]


@pytest.mark.parametrize(
    ("sabotage", "check"), CAUGHT_BY, ids=[sabotage.__name__ for sabotage, _ in CAUGHT_BY]
)
@pytest.mark.filterwarnings("ignore")
def test_the_suite_catches(
    sabotage: Callable[[Patch], None], check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    check()
    with monkeypatch.context() as patch:
        sabotage(patch)
        with pytest.raises(Exception):  # noqa: B017, PT011 - however the check fails, it fails
            check()
