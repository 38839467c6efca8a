"""Broken variants of the rule: the suite's own checks must notice each of them."""

from __future__ import annotations

import pytest

from tests import (
    sabotages,
    test_clock,
    test_foreseen,
    test_limiter,
    test_quota,
    test_refills,
    test_scenarios_runs,
    test_windows,
)

CAUGHT_BY: list[tuple[sabotages.Sabotage, sabotages.Check]] = [
    (sabotages.overwrite_the_floor, test_quota.test_case_06_answers_out_of_order_fold_by_minimum),
    (
        sabotages.forget_in_flight,
        lambda: (
            test_scenarios_runs.test_a_hundred_callers_make_a_hundred_requests_in_the_ideal_time(0)
        ),
    ),
    (
        sabotages.forget_lost_calls,
        test_quota.test_case_30_a_lost_call_is_a_ghost_until_a_call_sent_after_its_span_is_read,
    ),
    (
        sabotages.ignore_the_span,
        test_quota.test_case_30_a_lost_call_is_a_ghost_until_a_call_sent_after_its_span_is_read,
    ),
    (sabotages.ignore_unread_answers, test_quota.test_case_54_a_debt_holds_its_calls_cost),
    (sabotages.ignore_cost_in_debts, test_quota.test_case_54_a_debt_holds_its_calls_cost),
    (
        sabotages.let_the_next_window_clear_debts,
        test_quota.test_a_lost_token_is_not_given_back_by_the_next_window,
    ),
    (
        sabotages.forget_what_may_be_of_either_window,
        test_quota.test_case_16_nobody_idles_since_a_reading_may_be_of_either_window,
    ),
    (
        sabotages.open_on_a_probe_without_headers,
        test_quota.test_case_03_a_key_that_has_shown_headers_stays_at_one_until_a_reading_comes,
    ),
    (
        sabotages.broadcast_at_the_reset,
        test_quota.test_case_14_at_the_reset_one_probe_goes_and_then_no_more_than_remaining,
    ),
    (
        sabotages.never_send_a_second_probe,
        test_quota.test_case_02_a_probe_that_is_only_slow_stalls_nobody_for_long,
    ),
    (sabotages.no_probe_back_off, test_quota.test_case_02_lost_probes_share_a_back_off),
    (
        sabotages.no_back_off_of_refused_probes,
        test_quota.test_case_15_a_refusal_without_headers_at_the_reset_speaks_of_the_reset,
    ),
    (
        sabotages.no_slow_start,
        test_quota.test_case_01_one_request_until_its_headers_arrive_and_then_a_slow_start,
    ),
    (
        sabotages.no_tolerance_of_resets,
        test_quota.test_case_09_a_reset_that_jitters_makes_no_phantom_window,
    ),
    (
        sabotages.believe_answers_of_the_old_window,
        test_quota.test_case_07_a_slow_answer_of_the_old_window_is_ignored,
    ),
    (
        sabotages.reset_at_the_early_edge,
        lambda: (
            test_clock.test_case_17_a_date_header_bounds_the_offset_whatever_the_local_clock_says(
                0.25
            )
        ),
    ),
    (
        sabotages.never_learn_lateness,
        lambda: test_quota.test_case_15_a_late_rollover_is_backed_off_and_learned(2.5),
    ),
    (
        sabotages.never_forget_lateness,
        test_quota.test_case_51_a_lateness_learned_once_decays_to_nothing,
    ),
    (
        sabotages.never_slow_down,
        test_quota.test_case_22_a_refusal_with_tokens_left_makes_a_pace_and_single_file,
    ),
    (
        sabotages.slow_down_for_every_refusal,
        test_quota.test_case_22_a_refusal_with_tokens_left_makes_a_pace_and_single_file,
    ),
    (
        sabotages.ignore_retry_after,
        lambda: test_quota.test_case_24_retry_after_against_reset(0, 90.0, 92.0),
    ),
    (
        sabotages.back_off_without_a_cap,
        test_quota.test_case_47_remaining_zero_without_a_usable_reset_is_probed_with_a_back_off,
    ),
    (
        sabotages.spend_one_window_while_another_blocks,
        test_quota.test_case_38_a_grant_needs_both_windows_and_takes_none_while_one_blocks,
    ),
    (
        sabotages.let_every_user_find_out,
        test_quota.test_a_new_user_does_not_find_out_by_itself_that_the_apps_window_is_spent,
    ),
    (
        sabotages.forget_what_was_sent_before_the_window,
        test_quota.test_an_answer_without_headers_is_owed_by_the_window_that_a_later_one_shows,
    ),
    (
        sabotages.presume_to_be_alone,
        test_quota.test_case_11_a_quota_that_is_new_is_spent_to_the_end_with_ever_fewer_calls_in_flight,
    ),
    (
        sabotages.take_no_notice_of_other_consumers,
        test_quota.test_case_11_another_consumer_is_believed_and_stops_us_in_time,
    ),
    (
        sabotages.never_learn_of_an_early_rollover,
        test_quota.test_case_16_an_early_rollover_of_a_window_that_is_just_spent_idles_nobody,
    ),
    (
        sabotages.never_doubt_a_later_reset,
        test_quota.test_a_reset_that_was_told_too_late_by_mistake_is_disbelieved_after_a_while,
    ),
    (
        sabotages.wait_until_all_tokens_are_back,
        test_refills.test_a_call_may_go_as_soon_as_a_token_must_be_there_and_the_others_wait,
    ),
    (
        sabotages.take_every_window_for_one_that_refills,
        test_refills.test_another_limit_begins_anew,
    ),
    (
        sabotages.spend_the_reserve_as_soon_as_tokens_come_back,
        test_refills.test_who_must_leave_a_reserve_waits_for_what_is_beyond_it,
    ),
    (
        sabotages.take_two_back_ends_for_tokens_that_come_back,
        lambda: test_refills.test_what_a_fixed_window_may_have_said_tells_nothing(
            [(0, 5, 60.0), (0, 6, 64.0)]
        ),
    ),
    (
        sabotages.take_the_way_back_for_tokens_that_come_back,
        test_refills.test_no_answer_of_a_fixed_window_is_taken_for_one_that_refills,
    ),
    (
        sabotages.find_out_only_where_tokens_take_long_that_they_come_back,
        test_refills.test_where_a_token_takes_a_few_seconds_a_third_of_them_is_enough,
    ),
    (
        sabotages.expect_nobody_ahead_to_take_what_comes_back,
        test_refills.test_who_is_behind_many_waits_for_their_tokens_to_come_back_as_well,
    ),
    (
        sabotages.believe_any_reset,
        test_quota.test_case_07_a_slow_answer_of_the_old_window_is_ignored,
    ),
    (
        sabotages.wait_for_a_window_that_is_mentioned_no_more,
        test_windows.test_a_window_ends_once_three_answers_to_its_probes_have_told_of_others_only,
    ),
    (
        sabotages.wait_for_a_window_that_has_had_its_turn,
        test_windows.test_a_window_that_was_shown_in_time_and_would_be_the_closest_but_is_not_is_gone,
    ),
    (
        sabotages.end_a_window_at_its_first_silence,
        test_windows.test_a_window_that_is_told_of_again_needs_three_more_to_end,
    ),
    (
        sabotages.doubt_nothing,
        test_windows.test_an_answer_without_headers_ends_the_back_off_of_lost_probes,
    ),
    (
        sabotages.learn_lateness_from_whoever_comes_next,
        test_windows.test_nobody_who_asks_long_after_a_refusal_tells_how_late_the_rollover_was,
    ),
    (
        sabotages.let_any_reading_clear_debts,
        test_quota.test_case_30_a_lost_call_is_a_ghost_until_a_call_sent_after_its_span_is_read,
    ),
    (
        sabotages.never_fail_the_patient,
        test_quota.test_case_02_callers_are_failed_after_five_lost_probes_and_an_answer_ends_it,
    ),
    (
        sabotages.speed_up_past_what_was_refused,
        test_quota.test_case_22_the_pace_grows_to_a_minute_and_stays_above_what_was_refused,
    ),
    (
        sabotages.never_speed_up,
        test_quota.test_case_22_a_success_shrinks_the_pace_and_a_failure_does_not,
    ),
    (
        sabotages.go_on_as_before_after_a_learned_pace,
        test_quota.test_calls_are_as_few_after_a_learned_pace_as_after_a_first_answer,
    ),
    (
        sabotages.go_on_as_before_without_a_window,
        test_windows.test_how_many_may_go_at_once_without_a_window_that_has_ended_is_found_out_again,
    ),
    (
        sabotages.owe_only_to_the_windows_that_show_first,
        test_quota.test_case_30_a_loss_is_owed_by_every_window_that_shows_within_its_span,
    ),
    (
        sabotages.take_a_late_rollover_for_the_old_window,
        test_quota.test_case_16_a_late_rollover_among_calls_in_flight_idles_nobody,
    ),
    (
        sabotages.let_other_routes_go_on,
        lambda: test_quota.test_a_refusal_that_is_for_every_route_shuts_every_route(30.0, 32.0),
    ),
    (
        sabotages.forget_lateness_as_quickly_each_time,
        test_windows.test_a_lateness_that_is_found_again_is_forgotten_more_slowly,
    ),
    (
        sabotages.remember_whatever_windows_are_told_of,
        test_quota.test_a_server_that_names_another_window_each_time_is_heard_sixteen_times,
    ),
    (
        sabotages.wait_for_a_window_that_only_refusals_tell_of,
        test_windows.test_a_refusal_by_a_window_that_only_refusals_tell_of_makes_a_pace,
    ),
    (
        sabotages.believe_what_was_restored,
        test_windows.test_a_restored_state_has_its_limit_and_its_reset,
    ),
    (
        sabotages.ignore_the_reserve,
        test_quota.test_a_reserve_is_left_for_interactive_calls_and_not_applied_to_probes,
    ),
    (
        sabotages.let_priming_raise_the_floor,
        test_quota.test_case_50_priming_never_raises_a_floor_and_replaces_no_probe,
    ),
    (
        sabotages.forget_calls_answered_by_a_cache,
        test_quota.test_case_13_an_answer_from_a_cache_is_not_observed,
    ),
    (
        sabotages.give_old_rate_tokens_back,
        test_quota.test_a_call_that_never_left_gives_a_rates_token_back_but_never_an_old_one,
    ),
    (
        sabotages.let_newcomers_overtake,
        test_limiter.test_invariant_i5_grants_follow_arrival_and_a_newcomer_never_overtakes,
    ),
    (
        sabotages.let_other_lines_overtake,
        test_limiter.test_nobody_overtakes_a_costly_caller_at_a_shared_window,
    ),
    (
        sabotages.send_retried_callers_to_the_back,
        test_limiter.test_invariant_i5_a_retried_caller_keeps_its_place_at_the_front,
    ),
    (
        sabotages.grant_to_the_cancelled,
        lambda: test_limiter.test_case_28_cancelling_a_waiter_delays_nobody_else(0),
    ),
    (
        sabotages.lose_the_token_of_a_cancelled_caller,
        test_limiter.test_case_29_cancelled_in_the_tick_of_the_grant_the_token_goes_to_the_next,
    ),
    (
        sabotages.never_arm_the_timer,
        test_limiter.test_invariant_i5_a_retried_caller_keeps_its_place_at_the_front,
    ),
    (
        sabotages.wake_nobody_else,
        test_limiter.test_case_38_a_token_given_back_by_one_user_wakes_the_waiter_of_another,
    ),
    (
        sabotages.never_look_again_at_deadlines,
        test_limiter.test_case_36_news_fail_those_whose_wait_turns_out_too_long,
    ),
    (
        sabotages.never_forget_a_quota,
        test_limiter.test_case_44_idle_quotas_are_forgotten_spent_ones_last,
    ),
    (
        sabotages.tell_no_other_line,
        test_limiter.test_case_36_news_of_a_shared_window_reach_the_callers_of_all_who_share_it,
    ),
    (sabotages.let_what_was_foreseen_stand, test_foreseen.test_a_refusal_ends_what_was_foreseen),
    (sabotages.foresee_what_others_took, test_foreseen.test_what_others_take_is_foreseen_no_more),
    (sabotages.foresee_all_that_is_left, test_foreseen.test_the_last_are_not_foreseen),
    (sabotages.foresee_beyond_the_reset, test_foreseen.test_nothing_is_foreseen_beyond_the_reset),
    (sabotages.close_in_one_go, test_limiter.test_case_52_grants_go_in_slices),
]


@pytest.mark.parametrize(
    ("sabotage", "check"), CAUGHT_BY, ids=[sabotage.__name__ for sabotage, _ in CAUGHT_BY]
)
@pytest.mark.filterwarnings("ignore")
def test_the_suite_catches(
    sabotage: sabotages.Sabotage, check: sabotages.Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    sabotages.assert_noticed(sabotage, check, monkeypatch)
