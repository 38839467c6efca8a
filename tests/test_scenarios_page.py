"""docs/scenarios.md and the tests that it names."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "scenarios.md"
NUMBERS = [*(f"I{number}" for number in range(1, 9)), *map(str, range(1, 55))]

_ROW = re.compile(r"^\| (I?\d+) \| (.+) \| (.+) \| (.+) \|$", re.MULTILINE)
_NAMED = re.compile(r"`(test_\w+\.py)` `(test_\w+)`")
_CASE = re.compile(r"test_case_([^_]+)_")


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_case_is_on_the_page_once_and_names_tests_that_exist() -> None:
    rows = _ROW.findall(PAGE.read_text("utf-8"))
    assert [number for number, *_ in rows] == NUMBERS
    for number, _, _, cell in rows:
        named = _NAMED.findall(cell)
        assert cell == "<br>".join(f"`{file}` `{name}`" for file, name in named)
        for file, name in named:
            assert name in functions(TESTS / file), (number, file, name)


def test_a_test_that_is_named_for_a_case_is_named_on_the_row_of_that_case() -> None:
    for number, _, _, cell in _ROW.findall(PAGE.read_text("utf-8")):
        for _, name in _NAMED.findall(cell):
            case = _CASE.match(name)
            assert case is None or int(case[1]) == int(number), name


def test_the_numbers_of_cases_have_two_digits_and_are_those_of_the_page() -> None:
    numbers = {
        case[1]
        for path in TESTS.glob("test_*.py")
        for case in map(_CASE.match, functions(path))
        if case
    }
    assert numbers == {f"{number:02}" for number in range(1, 55)}
