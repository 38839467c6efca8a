"""The floors: imports point one way, and each outside library stands behind one border."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import aiotwhelp
from aiotwhelp import ledger

PACKAGE = Path(aiotwhelp.__file__).parent

#: From the ground up: a module imports only from those before it.
FLOORS = [
    "errors",
    "checks",
    "values",
    "headers",
    "ietf",
    "dialects",
    "rates",
    "routes",
    "matching",
    "apis",
    "services",
    "clock",
    "heaps",
    "refills",
    "windows",
    "crowd",
    "costs",
    "local",
    "ledger",
    "leases",
    "quota",
    "events",
    "views",
    "home",
    "queues",
    "permits",
    "sharing",
    "telling",
    "alarm",
    "patience",
    "turns",
    "settling",
    "registry",
    "limiter",
    "retries",
    "deadlines",
    "auth",
    "stores",
    "answers",
    "bodies",
    "coalesce",
    "middleware",
    "connections",
    "pool",
    "judge",
    "calls",
    "session",
    "help",
]

#: These stand beside the floors and import nothing of them.
APART = {"emulator", "testing"}

#: The rule knows neither an event loop nor any outside library.
PURE = [
    "values",
    "headers",
    "ietf",
    "dialects",
    "rates",
    "routes",
    "matching",
    "clock",
    "heaps",
    "refills",
    "windows",
    "crowd",
    "costs",
    "local",
    "leases",
    "quota",
]

BORDERS = {
    "tenacity": {"retries"},
    "oauthlib": {"auth", "emulator"},
    "redis": {"ledger", "stores"},
    "cryptography": {"stores"},
}


def imports(path: Path) -> list[tuple[str, bool]]:
    """Every module that a file imports, and whether only for the type checker."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            child.parent = node  # type: ignore[attr-defined]  # a note of ours on the tree
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, for_types(node)) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            module = node.module or ""
            if module == "aiotwhelp":
                found += [(f"aiotwhelp.{alias.name}", for_types(node)) for alias in node.names]
            else:
                found.append((module, for_types(node)))
    return found


def for_types(node: ast.AST) -> bool:
    while node is not None:
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            return True
        node = getattr(node, "parent", None)
    return False


def floor_of(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if parts[0] == "aiotwhelp" and len(parts) > 1 else None


def arrows() -> list[tuple[str, str]]:
    """Draw every arrow of the package from its source."""
    return [
        (floor, target)
        for floor in FLOORS
        for path in files(floor)
        for name, is_for_types in imports(path)
        if not is_for_types and (target := floor_of(name)) not in (None, floor)
    ]


def files(floor: str) -> list[Path]:
    """Return the files of a floor, which is a module or a package."""
    package = PACKAGE / floor
    return sorted(package.glob("*.py")) if package.is_dir() else [PACKAGE / f"{floor}.py"]


def test_every_module_stands_on_a_floor() -> None:
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"} | {"ledger"}
    assert modules == set(FLOORS) - APART


def test_imports_point_one_way() -> None:
    order = {floor: number for number, floor in enumerate(FLOORS)}
    against = [(a, b) for a, b in arrows() if b not in order or order[b] >= order[a]]
    assert not against


@pytest.mark.parametrize("module", [*PURE, "ledger/port", "ledger/rule"])
def test_the_rule_is_pure(module: str) -> None:
    outside = {
        name.split(".")[0]
        for name, _ in imports(PACKAGE / f"{module}.py")
        if name.split(".")[0] in {"asyncio", "time", "aiohttp", "yarl", "oauthlib", "tenacity"}
    }
    assert not outside


@pytest.mark.parametrize("library", BORDERS)
def test_each_outside_library_stands_behind_one_border(library: str) -> None:
    users = {
        path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for path in PACKAGE.rglob("*.py")
        if any(name.split(".")[0] == library for name, _ in imports(path))
    }
    assert users == BORDERS[library]


def test_the_emulator_shares_no_code_with_the_client() -> None:
    shared = {
        name
        for path in (PACKAGE / "emulator").rglob("*.py")
        for name, _ in imports(path)
        if name.startswith("aiotwhelp") and not name.startswith("aiotwhelp.emulator")
    }
    assert not shared


def test_the_testing_tools_import_the_emulator_at_most() -> None:
    targets = {
        floor_of(name) for path in (PACKAGE / "testing").rglob("*.py") for name, _ in imports(path)
    }
    assert targets <= {None, "testing", "emulator"}


def test_the_architecture_page_names_every_floor_in_order() -> None:
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text("utf-8")
    listed = [
        line.split(".py")[0].split("/")[0].strip()
        for line in page.splitlines()
        if line.startswith("    ") and (".py " in line or "/  " in line)
    ]
    assert [name for name in listed if name in FLOORS] == FLOORS


#: What most programs never use, and what takes long to load.
LATE = {
    *("sqlite3", "csv", "difflib", "tenacity", "oauthlib.oauth2", "aiohttp.web"),
    *("aiotwhelp.emulator", "aiotwhelp.help", "aiotwhelp.stores", "aiotwhelp.ledger.rule"),
    *("aiotwhelp.ledger.redis", "aiotwhelp.ledger.sqlite"),
}


def test_what_few_programs_use_is_loaded_by_those_that_do() -> None:
    program = f"""
import sys, aiotwhelp
print(sorted({LATE!r} & set(sys.modules)))
aiotwhelp.Session(aiotwhelp.X, auth=aiotwhelp.Bearer("a-token"))
print(sorted({LATE!r} & set(sys.modules)))
from aiotwhelp import *
print([name for name in aiotwhelp.__all__ if name not in globals() or name not in dir(aiotwhelp)])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == ["[]", "['tenacity']", "[]"]


def test_a_name_that_is_not_there_is_missed_as_ever() -> None:
    for module in (aiotwhelp, ledger):
        with pytest.raises(AttributeError, match="has no attribute 'Sesion'"):
            _ = module.Sesion
        assert not hasattr(module, "__path_of_no_module__")
