"""docs/options.md: every option of the code, in its order and with its default."""

from __future__ import annotations

import re
from collections.abc import Callable
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import aiotwhelp
from aiotwhelp import Limiter, RateLimitMiddleware, Session, calls

PAGE = Path(__file__).parents[1] / "docs" / "options.md"
NAMES = {"Priority": aiotwhelp.Priority, "DIALECTS": aiotwhelp.DIALECTS}


def tables() -> dict[str, list[tuple[str, str]]]:
    """Return the options and defaults of each table, by the words before its first row."""
    found: dict[str, list[tuple[str, str]]] = {}
    rows: list[tuple[str, str]] = []
    for line in PAGE.read_text("utf-8").splitlines():
        if title := re.match(r"## (.*)|`(fetch)` has", line):
            rows = found[title[1] or title[2]] = []
        elif row := re.match(r"\| (`.*?) \| (.*?) \|", line):
            rows += [(name, row[2]) for name in re.findall(r"`(\w+)`", row[1])]
    return found


def value(default: str) -> object:
    if default == "required":
        return Parameter.empty
    return eval(default.strip("`"), dict(NAMES))


@pytest.mark.parametrize(
    ("title", "function", "but"),
    [
        ("A session", Session, ("client_session",)),
        ("fetch", Session.fetch, ("self", "path", "options")),
        ("A limiter", Limiter, ()),
        ("A permit", Limiter.permit, ("self", "key")),
        ("A middleware", RateLimitMiddleware, ("limiter", "apis")),
    ],
)
def test_every_option_has_its_default(
    title: str, function: Callable[..., Any], but: tuple[str, ...]
) -> None:
    parameters = signature(function).parameters
    assert [(name, value(default)) for name, default in tables()[title]] == [
        (name, parameter.default) for name, parameter in parameters.items() if name not in but
    ]


def test_every_option_of_a_call_that_is_ours_is_there() -> None:
    aiohttps = set(signature(aiohttp.ClientSession._request).parameters) - {"middlewares"}
    assert {name for name, _ in tables()["A call"]} == calls.OPTIONS - aiohttps


def test_the_grace_of_close_is_the_codes() -> None:
    told = re.search(r"`session\.close\(grace=(.*)\)`", PAGE.read_text("utf-8"))
    assert told is not None
    assert float(told[1]) == signature(Session.close).parameters["grace"].default
