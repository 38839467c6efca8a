"""Broken variants of the rule and of the waiting, each a mistake that somebody would make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from aiotwhelp import quota, refills, windows
from aiotwhelp.alarm import Alarm
from aiotwhelp.clock import ServerClock
from aiotwhelp.home import Home
from aiotwhelp.local import RateWindow
from aiotwhelp.patience import Patience
from aiotwhelp.queues import Queue
from aiotwhelp.quota import Bucket, Household, Pace
from aiotwhelp.refills import Refill
from aiotwhelp.registry import Registry
from aiotwhelp.turns import Turns
from aiotwhelp.windows import INF, Debts, Foreign, Probing, Window

Patch = pytest.MonkeyPatch
Sabotage = Callable[[Patch], None]
Check = Callable[[], None]


def assert_noticed(sabotage: Sabotage, check: Check, monkeypatch: Patch) -> None:
    """Assert that a check passes on the rule as it is, and fails once that is broken."""
    check()
    with monkeypatch.context() as patch:
        sabotage(patch)
        with pytest.raises(Exception):  # noqa: B017, PT011 - however the check fails, it fails
            check()


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


def forget_what_may_be_of_either_window(patch: Patch) -> None:
    patch.setattr(Debts, "begin", nothing)


def open_on_a_probe_without_headers(patch: Patch) -> None:
    unread = Window.unread

    def opened(window: Window, granted: Any, number: int, now: float, **how: bool) -> None:
        unread(window, granted, number, now, **how)
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
    patch.setattr(Window, "_is_same", lambda window, told: told == (window.reset, window.reset))


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
        pace.grown = 0
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


def presume_to_be_alone(patch: Patch) -> None:
    init = Foreign.__init__
    patch.setattr(Foreign, "__init__", lambda foreign, presumed=0.0: init(foreign, 0.0))


def take_no_notice_of_other_consumers(patch: Patch) -> None:
    patch.setattr(Foreign, "_seen", 0.0)


def never_learn_of_an_early_rollover(patch: Patch) -> None:
    patch.setattr(Window, "_is_of_next", lambda *_: False)


def never_doubt_a_later_reset(patch: Patch) -> None:
    patch.setattr(windows, "_DOUBTS", 10**9)


def wait_until_all_tokens_are_back(patch: Patch) -> None:
    patch.setattr(Refill, "opens", lambda *_: INF)


def take_every_window_for_one_that_refills(patch: Patch) -> None:
    patch.setattr(Refill, "forget", nothing)


def spend_the_reserve_as_soon_as_tokens_come_back(patch: Patch) -> None:
    opens = Window._opens_when_spent
    patch.setattr(
        Window, "_opens_when_spent", lambda window, *asked: opens(window, *asked[:3], 0.0)
    )


def take_two_back_ends_for_tokens_that_come_back(patch: Patch) -> None:
    patch.setattr(refills, "OTHER_BACK_END", 0.0)


def take_the_way_back_for_tokens_that_come_back(patch: Patch) -> None:
    observe = Refill.observe
    patch.setattr(Refill, "observe", lambda refill, _, now, *told: observe(refill, now, now, *told))


def find_out_only_where_tokens_take_long_that_they_come_back(patch: Patch) -> None:
    patch.setattr(refills, "min", max, raising=False)


def expect_nobody_ahead_to_take_what_comes_back(patch: Patch) -> None:
    patch.setattr(Refill, "soonest", lambda *_: -INF)


def believe_any_reset(patch: Patch) -> None:
    patch.setattr(Window, "_is_usable", lambda *_: True)


def wait_for_a_window_that_is_mentioned_no_more(patch: Patch) -> None:
    patch.setattr(Window, "left_out", nothing)


def wait_for_a_window_that_has_had_its_turn(patch: Patch) -> None:
    patch.setattr(Window, "passed_over", nothing)


def end_a_window_at_its_first_silence(patch: Patch) -> None:
    patch.setattr(windows, "_MOST_SILENCES", 1)


def doubt_nothing(patch: Patch) -> None:
    patch.setattr(Window, "is_in_doubt", False)


def learn_lateness_from_whoever_comes_next(patch: Patch) -> None:
    patch.setattr(windows, "_FOUND_SOON", INF)


def let_any_reading_clear_debts(patch: Patch) -> None:
    clear = Debts.clear
    patch.setattr(Debts, "clear", lambda debts, *_: clear(debts, 10**9, INF))


def never_fail_the_patient(patch: Patch) -> None:
    patch.setattr(Probing, "patience", INF)


def speed_up_past_what_was_refused(patch: Patch) -> None:
    patch.setattr(Pace, "least", 0.0)


def never_speed_up(patch: Patch) -> None:
    patch.setattr(Pace, "accepted", nothing)


def go_on_as_before_after_a_learned_pace(patch: Patch) -> None:
    speed_up = Bucket._speed_up

    def sped_up(bucket: Bucket, *told: Any) -> None:
        before = bucket.answered, bucket.blank
        speed_up(bucket, *told)
        bucket.answered, bucket.blank = before

    patch.setattr(Bucket, "_speed_up", sped_up)


def go_on_as_before_without_a_window(patch: Patch) -> None:
    tell = Bucket._tell_windows

    def told(bucket: Bucket, *those: Any, **options: Any) -> None:
        before = bucket.answered
        tell(bucket, *those, **options)
        bucket.answered = before

    patch.setattr(Bucket, "_tell_windows", told)


def owe_only_to_the_windows_that_show_first(patch: Patch) -> None:
    join = Bucket._join_shown

    def joined(bucket: Bucket, shown: Any) -> None:
        join(bucket, shown)
        bucket.debts = Debts()

    patch.setattr(Bucket, "_join_shown", joined)


def take_a_late_rollover_for_the_old_window(patch: Patch) -> None:
    is_of_next = Window._is_of_next
    patch.setattr(
        Window,
        "_is_of_next",
        lambda window, told: window.reset is not None and is_of_next(window, told),
    )


def let_other_routes_go_on(patch: Patch) -> None:
    patch.setattr(Household, "shut", property(lambda _: -INF, nothing))


def forget_lateness_as_quickly_each_time(patch: Patch) -> None:
    patch.setattr(windows, "_MOST_RELAPSES", 0)


def remember_whatever_windows_are_told_of(patch: Patch) -> None:
    patch.setattr(quota, "_MOST_WINDOWS", 10**9)


def wait_for_a_window_that_only_refusals_tell_of(patch: Patch) -> None:
    patch.setattr(Window, "is_untold", property(lambda _: False, nothing))


def believe_what_was_restored(patch: Patch) -> None:
    def restored(window: Window, now: float, reading: Any) -> None:
        window._open(now, reading.remaining, window._told(reading, now, now))

    patch.setattr(Window, "restore", restored)


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
    patch.setattr(Turns, "_others_wait", lambda *_: False)
    patch.setattr(
        Turns,
        "_ask",
        lambda turns, line, waiter, now: line.bucket.ask(now, waiter.cost, room=waiter.room),
    )


def send_retried_callers_to_the_back(patch: Patch) -> None:
    patch.setattr(Queue, "add", lambda queue, waiter: queue._back.append(waiter))


def grant_to_the_cancelled(patch: Patch) -> None:
    patch.setattr(Queue, "head", lambda queue: queue._back[0] if queue._back else None)


def lose_the_token_of_a_cancelled_caller(patch: Patch) -> None:
    patch.setattr(Turns, "cancelled", nothing)


def never_arm_the_timer(patch: Patch) -> None:
    patch.setattr(Alarm, "_arm", nothing)


def wake_nobody_else(patch: Patch) -> None:
    patch.setattr(Turns, "wake", nothing)


def never_look_again_at_deadlines(patch: Patch) -> None:
    patch.setattr(Patience, "look_again", nothing)


def tell_no_other_line(patch: Patch) -> None:
    patch.setattr(Patience, "tell_others", nothing)


def never_forget_a_quota(patch: Patch) -> None:
    patch.setattr(Registry, "_forget_some", nothing)


def close_in_one_go(patch: Patch) -> None:
    patch.setattr(Home, "SLICE", 10**9)


def let_what_was_foreseen_stand(patch: Patch) -> None:
    patch.setattr(Bucket, "upset", nothing)
    patch.setattr(Window, "upset", nothing)


def foresee_what_others_took(patch: Patch) -> None:
    foresees = Window._foresees

    def least(window: Window) -> int:
        calls = foresees(window)
        window.least = 0
        return calls

    patch.setattr(Window, "_foresees", least)


def foresee_all_that_is_left(patch: Patch) -> None:
    patch.setattr(Window, "_foresees", lambda window: window.available)


def foresee_beyond_the_reset(patch: Patch) -> None:
    foresee = Window.foresee

    def foreseen(window: Window, now: float, reserve: float) -> None:
        foresee(window, now, reserve)
        window.foreseen_until = INF

    patch.setattr(Window, "foresee", foreseen)
