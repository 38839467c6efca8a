"""Limits that no server announces, as gates: what each lets through, and what it remembers."""

from __future__ import annotations

import pytest

from aiotwhelp.local import ConcurrencyWindow, RateWindow, window_of
from aiotwhelp.rates import Concurrency, Rate
from aiotwhelp.windows import NeverFitsError


def test_a_rate_is_worth_remembering_while_its_burst_is_not_all_there():
    window = RateWindow(Rate(1, per=10.0, burst=2))
    assert not window.holds(0.0)
    window.take(0.0, 1, 0.0)
    assert [window.holds(now) for now in (0.0, 9.0, 10.0, 11.0)] == [True, True, False, False]


def test_room_is_worth_remembering_for_as_long_as_its_calls_and_those_hold_it_themselves():
    window = ConcurrencyWindow(Concurrency(1))
    window.take(0.0, 1, 0.0)
    assert not window.holds(0.0)


@pytest.mark.parametrize("limit", [Rate(1, per=10.0), Concurrency(1)])
def test_nobody_waits_at_a_new_gate(limit: Rate | Concurrency):
    window = window_of(limit)
    assert window.unit == "requests"
    assert (window.in_flight, window.buckets, len(window.blocked)) == (0, {}, 0)
    with pytest.raises(NeverFitsError, match="cost 2 never fits"):
        window.opens(0.0, 2)
