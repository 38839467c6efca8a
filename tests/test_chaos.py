"""Whole-stack chaos: a few schedules each time; thousands by `make chaos`."""

from __future__ import annotations

import pytest

from tests.chaos.plan import KINDS, compose
from tests.chaos.play import play


@pytest.mark.parametrize("tens", range(10))
def test_schedules_of_calls_and_faults_keep_every_invariant(tens: int):
    for seed in range(tens * 10, tens * 10 + 10):
        play(seed)


def test_a_schedule_is_played_again_by_its_seed():
    first, second = play(4711), play(4711)
    assert (first.requests, first.faults, first.ends) == (
        second.requests,
        second.faults,
        second.ends,
    )
    assert first.elapsed == second.elapsed


def test_schedules_have_a_hundred_calls_and_three_kinds_of_fault():
    plans = [compose(seed) for seed in range(1000)]
    assert min(plan.calls for plan in plans) >= 100
    assert min(len(plan.kinds) for plan in plans) >= 3
    assert {kind for plan in plans for kind in plan.kinds} == set(KINDS)
