"""What callers may write as a cost, and what is said of all else."""

from __future__ import annotations

import re

import pytest

from aiotwhelp.costs import as_cost
from aiotwhelp.windows import Cost, cost_in


@pytest.mark.parametrize("cost", [1, 2, Cost({"tokens": 3})])
def test_what_is_a_cost_already_stays_as_it_is(cost: int) -> None:
    assert as_cost(cost) is cost


@pytest.mark.parametrize("amount", [0, 1, 1200])
def test_a_mapping_says_what_a_call_takes_of_each_unit(amount: int) -> None:
    cost = as_cost({"tokens": amount})
    assert isinstance(cost, Cost)
    assert cost_in("tokens", cost) == amount
    assert cost_in("requests", cost) == 1, "a call is one request where it says nothing"


def test_a_call_may_be_several_requests() -> None:
    assert as_cost({"requests": 1, "tokens": 0}) == 1
    assert as_cost({"requests": 2}) == 2


def test_a_cost_does_not_change_with_the_mapping_that_it_was_made_of() -> None:
    written = {"tokens": 5}
    cost = as_cost(written)
    written["tokens"] = 6
    assert cost_in("tokens", cost) == 5


@pytest.mark.parametrize("cost", [0, -1, True, 1.0, "1", None])
def test_what_is_no_cost_is_named(cost: object) -> None:
    said = "cost is a whole number from 1 on, or a mapping such as {'tokens': 1200}, not "
    with pytest.raises(ValueError, match=f"^{re.escape(said + repr(cost))}$"):
        as_cost(cost)  # type: ignore[arg-type] # what a user may write


@pytest.mark.parametrize("amount", [-1, 1.5, "3", True, None])
def test_an_amount_that_is_no_whole_number_is_named(amount: object) -> None:
    said = re.escape(f"cost['tokens'] is a whole number, not {amount!r}")
    with pytest.raises(ValueError, match=f"^{said}$"):
        as_cost({"requests": 1, "tokens": amount})  # type: ignore[dict-item] # as above


def test_a_unit_that_is_no_text_is_named() -> None:
    with pytest.raises(TypeError, match=r"^each key of cost is what is counted, .*not an int$"):
        as_cost({5: 1})  # type: ignore[dict-item] # as above


def test_no_call_is_less_than_one_request() -> None:
    with pytest.raises(ValueError, match=r"^a call is at least one request$"):
        as_cost({"requests": 0, "tokens": 5})
