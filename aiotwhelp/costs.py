"""What a call takes, as callers write it."""

from __future__ import annotations

from collections.abc import Mapping

from aiotwhelp import checks
from aiotwhelp.windows import Cost


def as_cost(cost: int | Mapping[str, int]) -> int:
    """Return what a call takes, as the rule has it; raises ValueError for what is no cost."""
    if isinstance(cost, Cost) or (type(cost) is int and cost > 0):
        return cost
    if not isinstance(cost, Mapping):
        number = checks.plain(cost)
        if type(number) is int and number > 0:
            return number
        raise ValueError(
            "cost is a whole number from 1 on, or a mapping such as {'tokens': 1200}, "
            f"not {cost!r}"
        )
    units: dict[str, int] = {}
    for unit, amount in cost.items():
        checks.instance("each key of cost", unit, str, "what is counted, such as 'tokens'")
        number = checks.plain(amount)
        if type(number) is not int or number < 0:
            raise ValueError(f"cost[{unit!r}] is a whole number, not {amount!r}")
        units[unit] = number
    if units.get("requests", 1) < 1:
        raise ValueError("a call is at least one request")
    return Cost(units)
