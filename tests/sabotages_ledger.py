"""Broken variants of the rule over all processes, each a mistake that somebody would make."""

from __future__ import annotations

from itertools import count
from typing import Any

from aiotwhelp.ledger import rule
from aiotwhelp.ledger.port import Outcome
from tests.sabotages import Patch, nothing


def forget_what_others_hold(patch: Patch) -> None:
    patch.setattr(rule, "_held", lambda _: 0)


def add_up_what_is_held(patch: Patch) -> None:
    hear = rule._hear

    def heard(record: Any, client: Any, report: Any, now: int) -> None:
        before = client.held
        hear(record, client, report, now)
        client.held = max(before, report.held)

    patch.setattr(rule, "_hear", heard)


def check_no_sequence(patch: Patch) -> None:
    exchange, numbers = rule.exchange, count(10**9)
    patch.setattr(
        rule,
        "exchange",
        lambda record, report, now: exchange(record, report._replace(sequence=next(numbers)), now),
    )


def take_notes_in_again(patch: Patch) -> None:
    hear = rule._hear

    def heard(record: Any, client: Any, *told: Any) -> None:
        client.noted = 0
        hear(record, client, *told)

    patch.setattr(rule, "_hear", heard)


def never_let_a_process_go(patch: Patch) -> None:
    exchange = rule.exchange
    patch.setattr(
        rule,
        "exchange",
        lambda record, report, now: exchange(record, report._replace(leaves=False), now),
    )


def remember_every_process(patch: Patch) -> None:
    patch.setattr(rule, "_make_room", nothing)


def let_nobody_die(patch: Patch) -> None:
    patch.setattr(rule, "_expire", nothing)


def give_back_what_the_dead_held(patch: Patch) -> None:
    patch.setattr(rule, "_add_ghost", nothing)


def ignore_ghosts(patch: Patch) -> None:
    left = rule._left
    patch.setattr(rule, "_left", lambda record: left(record) + sum(g[2] for g in record.ghosts))


def ignore_the_span_of_ghosts(patch: Patch) -> None:
    add = rule._add_ghost
    patch.setattr(rule, "_add_ghost", lambda record, _, cost: add(record, 0, cost))


def never_go_to_see_ghosts(patch: Patch) -> None:
    when_spent = rule._grant_when_spent

    def waits(record: Any, *told: Any) -> Any:
        ghosts, record.ghosts = record.ghosts, []
        try:
            return when_spent(record, *told)
        finally:
            record.ghosts = ghosts

    patch.setattr(rule, "_grant_when_spent", waits)


def ignore_unread_answers(patch: Patch) -> None:
    owe = rule._owe

    def owed(record: Any, debts: Any, cost: int) -> None:
        if debts is not record.unread:
            owe(record, debts, cost)

    patch.setattr(rule, "_owe", owed)


def let_any_reading_clear_debts(patch: Patch) -> None:
    def cleared(record: Any, *_: Any) -> None:
        record.unread, record.ghosts = [], []

    patch.setattr(rule, "_clear_debts", cleared)


def let_debts_grow(patch: Patch) -> None:
    patch.setattr(rule, "_MOST_DEBTS", 10**9)


def let_the_last_answer_win(patch: Patch) -> None:
    def observed(record: Any, remaining: int) -> None:
        record.number += 1
        record.floor = [[record.number, remaining]]

    patch.setattr(rule, "_observe", observed)


def a_probe_for_each_process(patch: Patch) -> None:
    grant = rule._grant_probe

    def granted(record: Any, *told: Any) -> Any:
        for client in record.clients.values():
            client.probes = 0
        return grant(record, *told)

    patch.setattr(rule, "_grant_probe", granted)


def never_a_second_probe(patch: Patch) -> None:
    grant = rule._grant_probe

    def granted(record: Any, client: Any, report: Any, now: int) -> Any:
        if any(each.probes for each in record.clients.values()):
            return 0, 100, 0
        return grant(record, client, report, now)

    patch.setattr(rule, "_grant_probe", granted)


def count_one_probe_for_each_process(patch: Patch) -> None:
    def leased(client: Any, now: int) -> None:
        client.probes, client.probed = 1, now

    patch.setattr(rule, "_lease_probe", leased)


def no_back_off_of_lost_probes(patch: Patch) -> None:
    patch.setattr(rule, "_missed", nothing)


def no_back_off_of_refused_probes(patch: Patch) -> None:
    patch.setattr(rule, "_back_off_refused", nothing)


def no_doubt_at_the_reset(patch: Patch) -> None:
    patch.setattr(rule, "_pass", nothing)


def believe_answers_of_the_old_window(patch: Patch) -> None:
    patch.setattr(rule, "_is_earlier", lambda *_: False)


def never_see_an_early_rollover(patch: Patch) -> None:
    patch.setattr(rule, "_is_of_next", lambda *_: False)


def never_doubt_a_later_reset(patch: Patch) -> None:
    patch.setattr(rule, "_DOUBTS", 10**9)


def believe_any_reset(patch: Patch) -> None:
    patch.setattr(rule, "_is_usable", lambda _, note: note.resets_in is not None)


def never_learn_lateness(patch: Patch) -> None:
    patch.setattr(rule, "_learn_lateness", nothing)


def divide_no_share(patch: Patch) -> None:
    patch.setattr(
        rule,
        "_share",
        lambda record, client, report, left, now: (min(report.want, left), None, 0),
    )


def let_the_quick_run_ahead(patch: Patch) -> None:
    patch.setattr(rule, "_ENOUGH", 10**9)


def wait_for_those_who_ask_no_more(patch: Patch) -> None:
    patch.setattr(rule, "_OVERDUE", 10**9)


def no_slow_start(patch: Patch) -> None:
    patch.setattr(rule, "_SLOW_START", 0)


def presume_to_be_alone(patch: Patch) -> None:
    patch.setattr(rule, "_margin", lambda _: 0)


def ignore_the_reserve(patch: Patch) -> None:
    grant = rule._grant
    patch.setattr(
        rule,
        "_grant",
        lambda record, client, report, now: grant(record, client, report._replace(keep=0), now),
    )


def ignore_what_the_server_asked_for(patch: Patch) -> None:
    grant = rule._grant

    def granted(record: Any, *told: Any) -> Any:
        record.shut = 0
        return grant(record, *told)

    patch.setattr(rule, "_grant", granted)


def wait_for_nobody_who_is_yet_to_come_back(patch: Patch) -> None:
    patch.setattr(rule, "_claimed", lambda *_: 0)


def take_an_emptied_record_for_a_new_one(patch: Patch) -> None:
    patch.setattr(rule, "_emptied", lambda *_: 0)


def believe_what_was_read_before_a_record_was_emptied(patch: Patch) -> None:
    emptied = rule._emptied

    def believe(record: Any, *told: Any) -> int:
        peers = emptied(record, *told)
        record.reset_number = 0
        return peers

    patch.setattr(rule, "_emptied", believe)


def keep_nothing_for_who_was_to_come(patch: Patch) -> None:
    patch.setattr(rule, "_AWAITED", -1)


def await_for_ever_who_was_to_come(patch: Patch) -> None:
    patch.setattr(rule, "_AWAITED", 10**9)


def forget_whoever_was_awaited_in_vain(patch: Patch) -> None:
    patch.setattr(rule, "_MOST_VAIN", 1)


def await_the_dead_in_each_window(patch: Patch) -> None:
    patch.setattr(rule, "_MOST_VAIN", 10**9)


def divide_by_those_who_are_still_awaited(patch: Patch) -> None:
    give_up = rule._give_up

    def given_up(record: Any, client: Any, _: int, now: int) -> None:
        awaited = sum(not each.gone for each in record.clients.values())
        give_up(record, client, record.size // awaited, now)

    patch.setattr(rule, "_give_up", given_up)


def await_where_nobody_waits(patch: Patch) -> None:
    exchange = rule.exchange
    patch.setattr(
        rule,
        "exchange",
        lambda record, report, now: exchange(record, report._replace(idle=False), now),
    )


def wait_for_ever_for_who_does_not_come_back(patch: Patch) -> None:
    patch.setattr(rule, "BACK", 10**9)


def leave_claims_to_those_who_made_them(patch: Patch) -> None:
    lease = rule._lease
    patch.setattr(rule, "_lease", lambda *told, **more: lease(*told, **more | {"void": 0}))


def forget_what_was_read_while_a_probe_was_out(patch: Patch) -> None:
    patch.setattr(rule, "_least", lambda _, note: note.remaining)


def forget_what_may_be_of_either_window(patch: Patch) -> None:
    patch.setattr(rule, "_is_placed", lambda *_: True)


def take_what_a_cache_answered_for_unsent(patch: Patch) -> None:
    take = rule._take_in

    def taken(record: Any, client: Any, note: Any, now: int, **told: Any) -> None:
        if note.outcome is not Outcome.CACHED:
            take(record, client, note, now, **told)

    patch.setattr(rule, "_take_in", taken)


def go_on_in_a_pause(patch: Patch) -> None:
    grant = rule._grant

    def granted(record: Any, *told: Any) -> Any:
        record.paused = 0
        return grant(record, *told)

    patch.setattr(rule, "_grant", granted)


def lease_a_slot_twice(patch: Patch) -> None:
    slots = rule._slots

    def leased(record: Any, report: Any, now: int) -> Any:
        slot = record.slot
        lease = slots(record, report, now)
        record.slot = slot or record.slot
        return lease

    patch.setattr(rule, "_slots", leased)


def fill_a_burst_again(patch: Patch) -> None:
    patch.setattr(rule, "_AHEAD", 10**12)


def grow_the_gap_for_each_refusal(patch: Patch) -> None:
    take = rule._take_pace
    patch.setattr(
        rule, "_take_pace", lambda record, note, now: take(record, note._replace(known=10**15), now)
    )


def forget_refused_gaps(patch: Patch) -> None:
    patch.setattr(rule, "_GAP_MEMORY", -1)


def forget_a_record_at_once(patch: Patch) -> None:
    patch.setattr(rule, "_KEPT", 0)
