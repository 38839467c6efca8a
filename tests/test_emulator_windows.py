"""The emulator's counting, without a server: rows of instants and what is left."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import aiotwhelp.emulator
from aiotwhelp.emulator.accounts import Accounts
from aiotwhelp.emulator.catalogue import Catalogue, fits
from aiotwhelp.emulator.clock import ServerClock, http_date
from aiotwhelp.emulator.oauth1 import Verifier
from aiotwhelp.emulator.windows import Book, Pace, Rule, Shape, announced

RULE = Rule("pool", limit=3, length=10)


def test_a_window_runs_from_the_second_of_its_first_call() -> None:
    book = Book()
    rows = [(100.9, 2), (105.0, 1), (109.99, 0), (110.0, 2), (130.5, 2)]
    for at, left in rows:
        window = book.find(RULE, at)
        book.count([window], at)
        assert window.remaining == left, at
    assert [report.resets_at for report in book.reports()] == [110, 120, 140]


def test_looking_does_not_begin_a_window() -> None:
    book = Book()
    assert book.find(RULE, 100).remaining == 3
    assert book.reports() == []
    assert book.find(RULE, 107).resets_at == 117


@pytest.mark.parametrize(
    ("shape", "start", "reset", "last"),
    [
        (Shape(), 100.7, 110, 109.99),
        (Shape(whole_seconds=False), 100.7, 110.7, 110.69),
        (Shape(late=2.5), 100, 110, 112.49),
        (Shape(early=4), 100, 110, 105.99),
    ],
)
def test_a_window_ends_where_its_shape_says(
    shape: Shape, start: float, reset: float, last: float
) -> None:
    book = Book(shape=shape)
    window = book.find(RULE, start)
    book.count([window], start)
    assert window.resets_at == pytest.approx(reset)
    assert book.find(RULE, last) is window
    assert book.find(RULE, last + 0.02) is not window


def test_a_window_of_less_than_a_second_lasts_its_length() -> None:
    book = Book()
    assert book.find(Rule("pool", 1, 0.2), 100.9).resets_at == pytest.approx(101.1)


def test_a_limit_of_zero_refuses_and_says_so_in_its_report() -> None:
    book = Book()
    window = book.find(Rule("pool", 0, 10), 100)
    assert window.remaining == 0
    book.refuse(window, 100)
    assert book.most_refused == 1
    assert [(report.counted, report.refused) for report in book.reports()] == [(0, 1)]


def test_a_call_given_back_was_never_counted() -> None:
    book = Book()
    window = book.find(RULE, 100)
    book.count([window], 100, others=0.5)
    book.give_back([window])
    assert (window.remaining, window.counted) == (3, 0)


def test_ended_windows_are_swept_and_past_ones_bounded() -> None:
    book = Book(keep=10)
    for number in range(5000):
        at = 100.0 + 20 * number
        book.count([book.find(Rule(f"user {number}", 1, 10), at)], at)
    assert len(book.reports()) < 1000 + 10
    assert len(book.past) == 10


def test_a_pace_looks_back_over_its_span() -> None:
    pace = Pace(limit=2, span=1.0)
    seen = []
    for at in (0.0, 0.5, 0.9, 1.0, 1.4, 1.6):
        seen.append(pace.is_free(at))
        if seen[-1]:
            pace.count(at)
    assert seen == [True, True, False, True, False, True]


@pytest.mark.parametrize(("rounding", "said"), [("down", "99"), ("up", "100"), ("exact", "99.250")])
def test_a_reset_is_announced_as_asked(rounding: str, said: str) -> None:
    assert announced(99.25, rounding) == said  # type: ignore[arg-type]  # one of the three


def test_a_whole_reset_is_the_same_however_it_is_rounded() -> None:
    assert {announced(100.0, "down"), announced(100.0, "up"), announced(100.0, "exact")} == {"100"}


def test_the_index_has_59_reads_and_34_writes_with_the_later_charts_limits() -> None:
    v1 = [endpoint for endpoint in Catalogue() if not endpoint.is_v2]
    assert len([e for e in v1 if e.method == "GET"]) == 59
    assert len([e for e in v1 if e.method == "POST"]) == 34
    limits = {e.template: (e.user, e.app) for e in v1 if e.method == "GET"}
    assert limits["/help/privacy"] == (15, 15)
    assert limits["/statuses/user_timeline"] == (900, 1500)
    assert limits["/statuses/home_timeline"] == (15, None)
    assert limits["/search/tweets"] == (180, 450)


def test_the_fewest_placeholders_win() -> None:
    catalogue = Catalogue()
    found = {
        path: (match[0].template, match[1]) if (match := catalogue.match("GET", path)) else None
        for path in ("/2/users/me", "/2/users/12", "/2/users/", "/1.1/users/suggestions/a.json")
    }
    assert found == {
        "/2/users/me": ("/2/users/me", {}),
        "/2/users/12": ("/2/users/{id}", {"id": "12"}),
        "/2/users/": None,
        "/1.1/users/suggestions/a.json": ("/users/suggestions/:slug", {"slug": "a"}),
    }


def test_a_method_before_a_name_narrows_it() -> None:
    catalogue = Catalogue({"POST /2/tweets": 1, "/2/users/:id/tweets": (8, 9)})
    limits = {(e.method, e.template): (e.user, e.app) for e in catalogue}
    assert limits["POST", "/2/tweets"] == (1, None)
    assert limits["GET", "/2/tweets"] == (5000, 3500)
    assert limits["GET", "/2/users/{id}/tweets"] == (8, 9)


def test_a_template_fits_whole_segments_only() -> None:
    assert fits("/a/{id}/b", "/a/1/b") == {"id": "1"}
    assert fits("/a/{id}/b", "/a/1/2/b") is None
    assert fits("/a/{id}", "/a/") is None


def test_a_date_is_cut_to_the_second() -> None:
    assert http_date(1358098194.99) == "Sun, 13 Jan 2013 17:29:54 GMT"


def test_the_clock_runs_only_with_the_server() -> None:
    with pytest.raises(RuntimeError, match="runs only while"):
        ServerClock().now()


def test_nonces_are_forgotten_when_their_timestamps_are() -> None:
    now = [1_000_000_000.0]
    verifier = Verifier(Accounts(0), lambda: now[0])
    for number in range(4096 * 2 - 1):
        at = now[0] if number > 4000 else now[0] - 10_000
        verifier._remember(
            SimpleNamespace(resource_owner_key="t", nonce=f"n{number}", timestamp=str(int(at)))
        )
    assert len(verifier._seen) < 4200


def test_it_imports_nothing_of_the_client_it_is_to_check() -> None:
    allowed = {"aiohttp", "oauthlib", *sys.stdlib_module_names}
    [folder] = aiotwhelp.emulator.__path__
    imported = set()
    for file in Path(folder).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom):
                assert node.level < 2, file
                if node.level == 0 and node.module:
                    imported.add(node.module.partition(".")[0])
    assert imported
    assert imported <= allowed
