"""A copy of the project in which mutmut may change one module."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import libcst as cst

PROJECT = Path(__file__).parents[2]

#: Runs in the copy, as a process of its own.
FORKS = Path(__file__).with_name("forks.py")

#: The tests of a module. Those of the rule are rows without a loop: a second for all of them.
RULE = ["tests/test_quota.py", "tests/test_windows.py", "tests/test_foreseen.py"]
READING = ["tests/test_values.py", "tests/test_headers.py", "tests/test_dialects.py"]
LIMITER = ["tests/test_limiter.py", "tests/test_bad_input.py", "tests/test_foreseen.py"]
MANY = [
    *LIMITER,
    *("tests/test_any_api.py", "tests/test_fleet.py", "tests/test_answers.py"),
    "tests/test_permits.py",
]
TESTS = {
    "values": READING,
    "ietf": ["tests/test_dialects.py"],
    "dialects": ["tests/test_dialects.py"],
    "clock": ["tests/test_clock.py"],
    "headers": [*READING, "tests/test_bad_input.py", "tests/test_foreseen.py"],
    "windows": [*RULE, "tests/test_refills.py"],
    "quota": RULE,
    "local": ["tests/test_local.py", *RULE],
    "refills": ["tests/test_refills.py"],
    "ledger/rule": ["tests/test_ledger_rule.py"],
    "leases": ["tests/test_leases.py"],
    "crowd": ["tests/test_crowd.py"],
    "deadlines": ["tests/test_deadlines.py"],
    "matching": ["tests/test_matching.py"],
    "costs": ["tests/test_costs.py"],
    "home": [*LIMITER, "tests/test_home.py", "tests/test_dropped.py"],
    "alarm": LIMITER,
    "permits": [*LIMITER, "tests/test_permits.py", "tests/test_speed.py", "tests/test_dropped.py"],
    "settling": [*MANY, "tests/test_settling.py", "tests/test_dropped.py"],
    "telling": MANY,
    "patience": [*MANY, "tests/test_patience.py"],
    "turns": [*MANY, "tests/test_turns.py", "tests/test_speed.py"],
    "registry": MANY,
    "limiter": MANY,
}

#: Words of those that take too long for thousands of runs, or look at what is not there: a cache,
#: or calls that come from where they do.
TOO_LONG = (
    "ten_thousand hundred_thousand fifteen_thousand fifty_thousand two_thousand "
    "coincide go_in_slices is_finite forgotten_spent whatever_is_sent not_remembered "
    "no_more_than_in_one_process recognised_and_nobody_is_refused cut_off_cost "
    "slide_refill_or_leak decompression_bomb large_quota_costs two_probes_and_never_a_third "
    "at_a_glance_are_believed warning_is_where"
)

SETTINGS = """
[tool.mutmut]
source_paths = ["aiotwhelp"]
only_mutate = ["aiotwhelp/{module}.py"]
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = ["-p", "no:cacheprovider", "-p", "no:xdist"]
track_dependencies = false
use_git_change_detection = false
"""


def prepare(module: str, *, afresh: bool) -> Path:
    """Copy the project to where the module's mutants are made and tested."""
    place = PROJECT / "build" / "mutation" / module
    if afresh:
        shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True, exist_ok=True)
    for folder in ("aiotwhelp", "tests"):
        shutil.copytree(
            PROJECT / folder,
            place / folder,
            dirs_exist_ok=True,
            ignore=passed_over(PROJECT / "aiotwhelp" / f"{module}.py"),
        )
    source = place / "aiotwhelp" / f"{module}.py"
    mutable = undecorated((PROJECT / "aiotwhelp" / f"{module}.py").read_text())
    if not source.exists() or source.read_text() != mutable:
        source.write_text(mutable)
    tests = [*TESTS[module], "-k", f"not ({' or '.join(TOO_LONG.split())})"]
    settings = SETTINGS.format(module=module, tests=tests)
    (place / "pyproject.toml").write_text((PROJECT / "pyproject.toml").read_text() + settings)
    return place


def passed_over(module: Path) -> Callable[[str, list[str]], set[str]]:
    """Return what is not copied: compiled files, and the module that is written by itself."""
    return lambda folder, names: {
        name for name in names if name == "__pycache__" or Path(folder) / name == module
    }


def undecorated(source: str) -> str:
    """Return the module with its decorators below the functions, which mutmut passes over else."""
    return cst.parse_module(source).visit(_Undecorate()).code


class _Undecorate(cst.CSTTransformer):
    def leave_FunctionDef(  # noqa: N802 - libcst's name
        self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef
    ) -> cst.FunctionDef | cst.FlattenSentinel[cst.BaseStatement]:
        if not updated_node.decorators:
            return updated_node
        (decorator,) = updated_node.decorators
        text = cst.Module([]).code_for_node(decorator.decorator)
        plain = updated_node.with_changes(decorators=[])
        name = updated_node.name.value
        if text.startswith("lru_cache"):
            # It would remember what the unchanged function said.
            wrapped = cst.parse_statement(f"{name}.__wrapped__ = {name}")
            return cst.FlattenSentinel([plain, wrapped])
        return cst.FlattenSentinel([plain, cst.parse_statement(f"{name} = {text}({name})")])
