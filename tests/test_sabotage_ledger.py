"""Broken variants of the rule over all processes: its own films must notice each of them."""

from __future__ import annotations

import pytest

from aiotwhelp.ledger.port import Counts, Outcome
from tests import sabotages_ledger as sabotages
from tests import test_ledger_rule as films
from tests.sabotages import Check, Sabotage, assert_noticed

CAUGHT_BY: list[tuple[Sabotage, Check]] = [
    (sabotages.forget_what_others_hold, films.test_nobody_is_granted_what_others_hold),
    (sabotages.add_up_what_is_held, films.test_what_a_process_holds_is_what_it_says_it_holds),
    (
        sabotages.check_no_sequence,
        films.test_a_report_that_is_not_newer_is_stale_and_changes_nothing,
    ),
    (sabotages.take_notes_in_again, films.test_a_note_is_taken_in_once),
    (sabotages.never_let_a_process_go, films.test_a_process_that_leaves_is_counted_no_more),
    (
        sabotages.remember_every_process,
        films.test_of_many_processes_that_come_and_go_the_longest_idle_is_forgotten,
    ),
    (sabotages.let_nobody_die, films.test_what_the_dead_held_becomes_ghosts),
    (sabotages.give_back_what_the_dead_held, films.test_what_the_dead_held_becomes_ghosts),
    (sabotages.ignore_ghosts, films.test_what_the_dead_held_becomes_ghosts),
    (
        sabotages.ignore_the_span_of_ghosts,
        lambda: films.test_a_lost_call_is_a_ghost_for_its_span(Outcome.LOST, 1000),
    ),
    (
        sabotages.never_go_to_see_ghosts,
        films.test_if_only_ghosts_block_one_goes_to_see_and_the_others_wait,
    ),
    (
        sabotages.ignore_unread_answers,
        films.test_an_answer_without_headers_is_owed_until_one_that_knows_of_it_is_read,
    ),
    (
        sabotages.let_any_reading_clear_debts,
        films.test_an_answer_without_headers_is_owed_until_one_that_knows_of_it_is_read,
    ),
    (sabotages.let_debts_grow, films.test_debts_beyond_the_most_are_put_together),
    (
        sabotages.let_the_last_answer_win,
        films.test_answers_fold_by_their_minimum_until_a_later_call_tells,
    ),
    (
        sabotages.a_probe_for_each_process,
        films.test_one_probe_goes_and_a_second_after_its_silence_and_no_third,
    ),
    (
        sabotages.count_one_probe_for_each_process,
        films.test_both_probes_may_be_of_one_process_and_there_is_no_third,
    ),
    (
        sabotages.never_a_second_probe,
        films.test_one_probe_goes_and_a_second_after_its_silence_and_no_third,
    ),
    (
        sabotages.no_back_off_of_lost_probes,
        films.test_lost_probes_are_followed_by_others_ever_later,
    ),
    (
        sabotages.no_back_off_of_refused_probes,
        films.test_the_old_window_at_the_reset_means_not_yet,
    ),
    (
        sabotages.no_doubt_at_the_reset,
        films.test_at_the_reset_nothing_is_known_until_one_probe_is_answered,
    ),
    (
        sabotages.believe_answers_of_the_old_window,
        films.test_an_answer_of_a_window_that_has_passed_is_ignored,
    ),
    (
        sabotages.never_see_an_early_rollover,
        films.test_a_later_reset_with_more_left_is_an_early_rollover,
    ),
    (
        sabotages.never_doubt_a_later_reset,
        films.test_of_two_resets_the_later_stands_until_many_answers_say_otherwise,
    ),
    (sabotages.believe_any_reset, films.test_no_reset_beyond_the_ceiling_is_believed),
    (
        sabotages.never_learn_lateness,
        films.test_a_server_that_is_late_at_its_reset_is_expected_to_be_late_again,
    ),
    (sabotages.divide_no_share, films.test_what_is_left_is_divided_among_those_who_ask),
    (sabotages.let_the_quick_run_ahead, films.test_nobody_runs_far_ahead_of_another_who_asks),
    (
        sabotages.wait_for_those_who_ask_no_more,
        lambda: films.test_who_has_not_asked_again_in_time_holds_nobody_back(551, 40),
    ),
    (sabotages.no_slow_start, films.test_a_new_window_opens_slowly),
    (sabotages.presume_to_be_alone, films.test_tokens_are_left_to_others_who_use_the_quota_too),
    (sabotages.ignore_the_reserve, films.test_a_reserve_stays),
    (
        sabotages.ignore_what_the_server_asked_for,
        films.test_what_a_server_asked_for_holds_all_back,
    ),
    (
        sabotages.wait_for_nobody_who_is_yet_to_come_back,
        films.test_after_an_outage_nobody_gets_what_the_missing_may_have_claimed,
    ),
    (
        sabotages.take_an_emptied_record_for_a_new_one,
        films.test_a_record_that_was_emptied_leaves_to_those_who_had_a_lease_what_they_may_hold,
    ),
    (
        sabotages.believe_what_was_read_before_a_record_was_emptied,
        films.test_a_record_that_was_emptied_leaves_to_those_who_had_a_lease_what_they_may_hold,
    ),
    (
        sabotages.keep_nothing_for_who_was_to_come,
        films.test_whoever_does_not_come_as_it_was_told_to_has_its_share_until_it_does,
    ),
    (
        sabotages.await_for_ever_who_was_to_come,
        films.test_whoever_dies_holding_something_may_go_on_alone_and_has_its_share_of_the_next_window,
    ),
    (
        sabotages.forget_whoever_was_awaited_in_vain,
        lambda: films.test_who_does_not_come_is_awaited_until_nobody_used_its_share_in_two_windows(
            (0,), True
        ),
    ),
    (
        sabotages.await_the_dead_in_each_window,
        lambda: films.test_who_does_not_come_is_awaited_until_nobody_used_its_share_in_two_windows(
            (0, 0), False
        ),
    ),
    (
        sabotages.divide_by_those_who_are_still_awaited,
        films.test_of_several_who_were_awaited_in_vain_each_may_have_used_an_equal_share,
    ),
    (
        sabotages.await_where_nobody_waits,
        lambda: films.test_for_whoever_wants_nothing_any_more_nothing_is_kept(4, idle=True),
    ),
    (
        sabotages.wait_for_ever_for_who_does_not_come_back,
        films.test_who_comes_back_last_is_back_in_time_and_tells_of_another_outage_later,
    ),
    (
        sabotages.leave_claims_to_those_who_made_them,
        films.test_what_is_claimed_and_not_there_is_given_up_by_who_comes_back,
    ),
    (
        sabotages.forget_what_was_read_while_a_probe_was_out,
        films.test_calls_in_flight_at_a_late_rollover_may_be_counted_after_the_probe,
    ),
    (
        sabotages.forget_what_may_be_of_either_window,
        lambda: films.test_what_told_no_reset_of_this_window_is_owed_by_another_that_begins({}, 2),
    ),
    (
        sabotages.take_what_a_cache_answered_for_unsent,
        lambda: films.test_a_lost_call_is_a_ghost_for_its_span(Outcome.CACHED, 0),
    ),
    (
        sabotages.go_on_in_a_pause,
        lambda: films.test_a_pause_of_every_route_holds_all_and_is_told_to_all_until_it_is_over(
            Counts.WINDOW
        ),
    ),
    (
        sabotages.lease_a_slot_twice,
        films.test_slots_of_a_rate_follow_each_other_whoever_takes_them,
    ),
    (sabotages.fill_a_burst_again, films.test_a_rate_that_was_idle_has_its_burst_and_no_more),
    (
        sabotages.grow_the_gap_for_each_refusal,
        films.test_a_learned_gap_doubles_once_for_all_who_were_refused_together,
    ),
    (
        sabotages.forget_refused_gaps,
        films.test_a_gap_shrinks_with_what_is_served_but_not_below_what_was_refused,
    ),
    (
        sabotages.forget_a_record_at_once,
        lambda: films.test_a_record_is_kept_for_a_minute_after_all_it_knows_of(
            films.known(1), films.SPAN + 60_000
        ),
    ),
]


@pytest.mark.parametrize(
    ("sabotage", "check"), CAUGHT_BY, ids=[sabotage.__name__ for sabotage, _ in CAUGHT_BY]
)
def test_the_films_catch(sabotage: Sabotage, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_noticed(sabotage, check, monkeypatch)


def test_every_sabotage_is_listed() -> None:
    made = {
        each
        for each in vars(sabotages).values()
        if getattr(each, "__module__", "") == sabotages.__name__
    }
    assert made == {sabotage for sabotage, _ in CAUGHT_BY}
