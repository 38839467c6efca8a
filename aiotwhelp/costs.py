"""What a call takes, as callers write it."""

from __future__ import annotations

from collections.abc import Mapping

from aiotwhelp.windows import Cost


def as_cost(cost: int | Mapping[str, int]) -> int:
    """Return what a call takes, as the rule has it; raises ValueError for what is no cost."""
    if isinstance(cost, Cost) or (type(cost) is int and cost > 0):
        return cost
    if not isinstance(cost, Mapping):
        raise ValueError(  # noqa: TRY004 - as for a number that makes no sense
            "cost is a whole number from 1 on, or a mapping such as {'tokens': 1200}, "
            f"not {cost!r}"
        )
    for unit, amount in cost.items():
        if type(amount) is not int or amount < 0:
            raise ValueError(f"cost[{unit!r}] is a whole number, not {amount!r}")
    if cost.get("requests", 1) < 1:
        raise ValueError("a call is at least one request")
    return Cost(dict(cost))
