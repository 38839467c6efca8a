"""Which of the limits that no server announces are for which routes: rows of names and routes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from aiotwhelp import Concurrency, Limiter, QuotaKey, Rate
from aiotwhelp.matching import Rates, covers
from tests.simulation import in_virtual_time


def found(names: list[str], route: str) -> str | None:
    """Return the name whose rate is for a route, of several that have a rate each."""
    rates = {name: Rate(number, per=60) for number, name in enumerate(names, 1)}
    of_route = Rates(rates).of(route)
    assert len(of_route) <= 1
    return next((name for name, rate in rates.items() if (rate,) == of_route), None)


@pytest.mark.parametrize(
    ("name", "held", "free"),
    [
        # A path is for every method, and a method and a path for that method alone.
        ("/orders", ["GET /orders", "POST /orders"], ["GET /orders/new", "GET /", "orders"]),
        ("POST /orders", ["POST /orders"], ["GET /orders", "/orders"]),
        # However it is written.
        ("post /orders", ["POST /orders"], ["GET /orders"]),
        ("POST  /orders", ["POST /orders", "POST  /orders"], ["GET /orders"]),
        (" /orders ", ["GET /orders", "POST /orders"], ["GET /order"]),
        (" POST /orders", ["POST /orders"], ["GET /orders"]),
        ("orders", ["orders", "GET /orders", "POST /orders"], ["GET /order", "order"]),
        ("POST orders", ["POST orders", "POST /orders"], ["GET /orders"]),
        (" post  orders ", ["POST /orders"], ["GET /orders"]),
        # The names of placeholders do not matter, nor what fills them.
        (
            "/users/{user}/posts",
            ["GET /users/{id}/posts", "GET /users/12/posts"],
            ["GET /users/12"],
        ),
        (
            "GET /users/12",
            ["GET /users/{id}", "GET /users/13"],
            ["GET /users/me", "POST /users/13"],
        ),
        ("users/{user}", ["GET /users/{id}", "POST /users/12"], ["GET /users/me"]),
        # A path is a path with a blank in it.
        ("/a b", ["GET /a b", "/a b"], ["GET /a", "GET b", "GET /b"]),
        # What is no path is the name of a quota, taken as it is.
        ("job 123", ["job 123"], ["job 124", "Job 123", "job"]),
        ("all of it", ["all of it"], ["of it", "it", "ALL OF IT"]),
        # What many routes share is no limit of one of them.
        ("*", [], ["GET /orders", "*", "orders"]),
        ("POST *", [], ["POST /orders", "POST *"]),
    ],
)
def test_a_rate_is_for_the_routes_that_its_name_means(
    name: str, held: list[str], free: list[str]
) -> None:
    rates = Rates({name: Rate(1, per=60)})
    assert [route for route in (*held, *free) if rates.of(route)] == held


@pytest.mark.parametrize(
    ("route", "names", "expected"),
    [
        ("POST /orders", ["/orders", "POST /orders"], "POST /orders"),
        ("GET /orders", ["/orders", "POST /orders"], "/orders"),
        ("POST /orders", ["POST orders", "/orders"], "/orders"),
        ("POST /orders", ["orders", "POST orders"], "POST orders"),
        ("GET /orders", ["orders", "/orders"], "/orders"),
        ("orders", ["orders", "/orders"], "orders"),
        ("GET /orders", ["*", "GET *", "/orders"], "/orders"),
        ("GET /orders", ["*", "GET *", "/other"], None),
    ],
)
def test_of_several_names_the_closest_is_meant(
    route: str, names: list[str], expected: str | None
) -> None:
    assert found(names, route) == found(names[::-1], route) == expected


def test_a_route_has_all_the_limits_of_its_name() -> None:
    both = [Rate(1, per=1), Concurrency(3)]
    rates = Rates({"/orders": both, "*": both, "get *": both[0]})
    assert rates.of("GET /orders") == tuple(both)
    assert rates.wide == [("*", both[0]), ("*", both[1]), ("GET *", both[0])]
    assert not Rates({"/orders": both}).wide


@pytest.mark.parametrize(
    ("names", "route"),
    [
        (["/users/{id}", "/users/{user}"], "GET /users/12"),
        (["get /orders", "GET /orders", " GET  /orders"], "GET /orders"),
        (["POST orders", "post orders"], "POST /orders"),
    ],
)
def test_the_limits_of_all_names_that_mean_the_same_hold(names: list[str], route: str) -> None:
    rates = {name: Rate(number, per=60) for number, name in enumerate(names, 1)}
    assert Rates(rates).of(route) == tuple(rates.values())
    assert Rates(dict.fromkeys(names, [Rate(1, per=60)] * 2)).of(route) == (Rate(1, per=60),)


def test_the_limits_of_all_patterns_that_mean_the_same_hold() -> None:
    rates = {"POST *": Rate(1, per=1), "post *": Rate(2, per=1)}
    assert Rates(rates).wide == [("POST *", rate) for rate in rates.values()]


@pytest.mark.parametrize(
    ("pattern", "held"),
    [
        ("*", ["GET /a", "POST /a", "POST /a b", "all of it"]),
        ("POST *", ["POST /a", "POST /a b"]),
        ("all *", ["all of it"]),
    ],
)
def test_a_limit_of_a_method_is_for_every_route_of_it(pattern: str, held: list[str]) -> None:
    routes = ["GET /a", "POST /a", "POST /a b", "all of it"]
    assert [route for route in routes if covers(pattern, route)] == held


@pytest.mark.parametrize("pattern", ["POST *", "post *", " Post  * "])
@in_virtual_time
async def test_a_limit_of_a_method_holds_however_it_is_written(pattern: str) -> None:
    limiter = Limiter(rates={pattern: Rate(1, per=60)})
    routes = ("POST /a", "POST /b", "GET /a")
    held = [limiter.try_acquire(QuotaKey(route, "api", "user")) for route in routes]
    assert [permit is not None for permit in held] == [True, False, True]
    for permit in filter(None, held):
        permit.unsent()


@pytest.mark.parametrize(
    "name",
    [
        "https://api.example.com/orders",
        "HTTP://localhost/orders",
        "POST https://api.example.com/orders",
        "api.example.com/orders",
        "get api.example.com:8080/orders",
    ],
)
def test_a_rate_of_a_host_is_refused(name: str) -> None:
    words = (
        f"rates[{name!r}] has a host, which no route has: write the path below the API's base "
        'URL, such as "/orders" or "POST /orders"'
    )
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        Rates({"*": Rate(1, per=1), name: Rate(1, per=1)})


@pytest.mark.parametrize("name", ["/orders.json/1", "1.1/orders", "orders.json", "/api.x.com/a"])
def test_a_path_that_looks_somewhat_like_a_host_is_none(name: str) -> None:
    assert Rates({name: Rate(1, per=1)}).limits


@pytest.mark.parametrize("name", [5, None, b"/orders", ("GET", "/orders")])
def test_a_name_is_a_text(name: Any) -> None:
    words = r"^each key of rates is a route such as '/orders' or 'POST /orders', not "
    with pytest.raises(TypeError, match=words):
        Rates({name: Rate(1, per=1)})


@pytest.mark.parametrize("rate", [5, None, "1/s", [Rate(1, per=1), 5], [[Rate(1, per=1)]]])
def test_what_is_no_rate_is_refused(rate: Any) -> None:
    words = f"rates['/orders'] is a Rate, a Concurrency, or several, not {rate!r}"
    with pytest.raises(TypeError, match=f"^{re.escape(words)}$"):
        Rates({"/orders": rate})
