"""What the README and the docs say: their code runs, their commands and links exist."""

from __future__ import annotations

import ast
import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from aiotwhelp import Emulator, Limiter, OAuth2User, Session

ROOT = Path(__file__).parents[1]
TOP = [ROOT / name for name in ("README.md", "CHANGELOG.md", "SECURITY.md")]
PAGES = [*TOP, *sorted((ROOT / "docs").glob("*.md"))]

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def blocks(page: Path) -> Iterator[tuple[int, str]]:
    """Yield each Python block with the number of its first line."""
    text = page.read_text("utf-8")
    for found in _BLOCK.finditer(text):
        yield text.count("\n", 0, found.start(1)) + 1, found[1]


def is_file(block: str) -> bool:
    """Tell whether a block is a file for pytest, which its first line names."""
    return re.match(r"# \w+\.py\n", block) is not None


SCRIPTS = [
    pytest.param(page, line, block, id=f"{page.name}:{line}")
    for page in PAGES
    for line, block in blocks(page)
    if not is_file(block)
]


# What aiohttp says of how aiohttp-client-cache is built.
@pytest.mark.filterwarnings("ignore:Inheritance class CachedSession:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Setting custom ClientSession:DeprecationWarning")
@pytest.mark.parametrize(("page", "line", "block"), SCRIPTS)
def test_a_block_runs_as_it_stands(page: Path, line: int, block: str) -> None:
    # Line numbers of the page, so that a traceback leads there.
    code = compile("\n" * (line - 1) + block, str(page), "exec")
    exec(code, {"__name__": "__main__"})


def test_the_readme_says_what_its_first_block_prints(capsys: pytest.CaptureFixture[str]) -> None:
    _, block = next(blocks(ROOT / "README.md"))
    promised = re.search(r"^asyncio\.run\(main\(\)\)  # (.*)$", block, re.MULTILINE)
    assert promised is not None
    exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out == f"{promised[1]}\n"


def test_what_the_readme_types_works_against_the_emulator() -> None:
    _, block, *_ = (block for _, block in blocks(ROOT / "README.md"))
    names: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), names)

    async def main() -> None:
        assert repr(names["a_session"]()).startswith("<Session ")
        async with Emulator() as api, Session.from_env(api.env) as x:
            await names["calls"](x)

    asyncio.run(main())


def names_of(page: str, function: str) -> dict[str, Any]:
    """Return what the block of a page that defines a function defines."""
    (block,) = (
        block
        for _, block in blocks(ROOT / page)
        if re.search(rf"^(async )?def {function}\(", block, re.MULTILINE)
    )
    names: dict[str, Any] = {}
    exec(compile(block, page, "exec"), names)
    return names


def test_processes_share_a_file_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    async def main() -> None:
        async with Emulator() as api:
            for name, value in api.env.items():
                monkeypatch.setenv(name, value)
            await names_of("docs/many_processes.md", "service")["service"]()
            assert [request.status for request in api.requests] == [200]

    asyncio.run(main())
    assert (tmp_path / "quota.db").is_file()


def test_a_user_has_a_store_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cryptography.fernet import Fernet

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKEN_KEY", Fernet.generate_key().decode())
    auth = names_of("docs/many_processes.md", "user")["user"]()
    assert isinstance(auth, OAuth2User)
    assert "4711" in auth.identity


def test_calls_cost_what_the_page_says() -> None:
    names = names_of("docs/dialects.md", "answer")

    async def main() -> None:
        async with Emulator(dialect="openai", anonymous=True) as api:
            api.reply("POST", "/v1/responses", json={"output": []})
            async with Session(api.url, dialect="openai") as ai:
                assert await names["answer"](ai, "hello") == {"output": []}
        limiter = Limiter()
        await names["with_any_client"](limiter, "POST /v1/responses")
        assert limiter.quota("POST /v1/responses").remaining == 148_800

    asyncio.run(main())


#: What blocks define and do not call, and a test above does.
CALLED_HERE = {"calls", "a_session", "service", "user", "answer", "with_any_client"}


def test_what_a_block_defines_is_called() -> None:
    left = {
        name
        for page in PAGES
        for _, block in blocks(page)
        if not is_file(block)
        for name in defined(ast.parse(block)) - used(ast.parse(block))
    }
    assert left == CALLED_HERE


def defined(block: ast.Module) -> set[str]:
    return {
        node.name for node in block.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def used(block: ast.Module) -> set[str]:
    return {
        node.id
        for node in ast.walk(block)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }


def test_the_blocks_that_are_test_files_pass(tmp_path: Path) -> None:
    files = [block for page in PAGES for _, block in blocks(page) if is_file(block)]
    for block in files:
        name = block.partition("\n")[0].removeprefix("# ")
        assert not (tmp_path / name).exists()
        (tmp_path / name).write_text(block, "utf-8")
    environ = dict(os.environ)
    environ.pop("PYTEST_ADDOPTS", None)
    if not any(each.name == "aiotwhelp" for each in entry_points(group="pytest11")):
        # On the path but not installed: the fixtures have to be asked for.
        environ["PYTEST_PLUGINS"] = "aiotwhelp.testing"
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    assert "3 passed" in result.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(_FENCED.sub("", page.read_text("utf-8"))):
        if re.match(r"https?://", link):
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if fragment:
            assert fragment in anchors(target), link


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as forges make them."""
    titles = re.findall(r"^#+ (.*)$", _FENCED.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_command_is_a_target(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"^ {4}make ([\w-]+)", page.read_text("utf-8"), re.MULTILINE)) <= targets


def test_the_readme_names_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert re.findall(r"^ {4}make ([\w-]+)", text, re.MULTILINE) == ["demo", "test"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_modules_that_commands_name_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    for path in re.findall(r"\b((?:tests|examples|benchmarks)/\w+\.py)", text):
        assert (ROOT / path).is_file(), path
    for module in re.findall(r"python -m ((?:benchmarks|tests)\.\w+)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module
    for module in set(re.findall(r"python -m (aiotwhelp[\w.]*)", text)):
        subprocess.run(
            [sys.executable, "-m", module, "--help"], check=True, capture_output=True, timeout=60
        )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_words_that_commands_select_tests_by_are_in_names_of_tests(page: Path) -> None:
    names = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    names = "\n".join(re.findall(r"def (test_\w+)", names))
    for expression in re.findall(r'pytest -k (".*?"|\w+)', page.read_text("utf-8")):
        for word in set(re.findall(r"\w+", expression)) - {"and", "or", "not"}:
            assert word in names, expression


def test_the_emulator_command_of_the_readme_serves() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    command = re.search(r"^ {4}python -m (aiotwhelp\.emulator .*)$", text, re.MULTILINE)
    assert command is not None

    async def first_line() -> str:
        server = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *command[1].replace("8080", "0").split()),
            stdout=asyncio.subprocess.PIPE,
        )
        assert server.stdout is not None
        try:
            async with asyncio.timeout(60):
                return (await server.stdout.readline()).decode()
        finally:
            server.terminate()
            await server.communicate()

    assert asyncio.run(first_line()).startswith("export AIOTWHELP_BASE_URL=http://127.0.0.1:")


def test_the_variables_of_from_env_are_in_the_readme() -> None:
    source = (ROOT / "aiotwhelp" / "session.py").read_text("utf-8")
    text = (ROOT / "README.md").read_text("utf-8")
    assert set(re.findall(r"AIOTWHELP_[A-Z_]*[A-Z]", source)) <= set(
        re.findall(r"AIOTWHELP_[A-Z_]*[A-Z]", text)
    )


def test_the_schedules_that_notice_a_broken_rule_are_those_of_the_docs() -> None:
    from tests.test_chaos import NOTICED_BY

    text = (ROOT / "docs" / "testing.md").read_text("utf-8")
    told: dict[str, int] = {}
    for names, seeds in re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| ([\d, ]+) \|$", text, re.MULTILINE):
        numbers = [int(seed) for seed in seeds.split(",")]
        each = re.findall(r"\w+", names)
        told |= zip(each, numbers if len(numbers) > 1 else numbers * len(each), strict=True)
    assert told == {sabotage.__name__: seed for sabotage, seed in NOTICED_BY}


def test_the_numbers_of_endpoints_are_those_of_the_docs() -> None:
    from aiotwhelp import X

    old = sum(endpoint.template.startswith("/1.1/") for endpoint in X.endpoints)
    row = f"{old} endpoints of v1.1 and {len(X.endpoints) - old} of v2"
    assert row in (ROOT / "docs" / "dialects.md").read_text("utf-8")


def test_the_number_of_kinds_of_fault_is_that_of_the_docs() -> None:
    from tests.chaos.plan import KINDS, LAST_KINDS, LATEST_KINDS, MORE_KINDS

    kinds = {*KINDS, *MORE_KINDS, *LAST_KINDS, *LATEST_KINDS}
    told = f"three kinds of fault from {len(kinds)} kinds"
    assert told in (ROOT / "docs" / "reliability.md").read_text("utf-8")


def test_stuck_callers_are_as_many_in_the_readme_as_in_what_was_measured() -> None:
    told = re.search(r"leaves (\d+) of 1000 waiting", (ROOT / "README.md").read_text("utf-8"))
    measured = (ROOT / "docs" / "performance.md").read_text("utf-8")
    row = re.search(r"^\| hikari .* \| (\d+) ² \|$", measured, re.MULTILINE)
    assert told is not None
    assert row is not None
    assert told[1] == row[1]


def test_every_event_is_in_the_docs() -> None:
    from aiotwhelp import events

    text = (ROOT / "docs" / "own_session.md").read_text("utf-8")
    names = [each.__name__ for each in events.Event.__subclasses__()]
    assert names
    assert [name for name in names if f"`{name}`" not in text] == []


def test_every_public_exception_is_in_the_docs() -> None:
    import aiotwhelp

    text = (ROOT / "docs" / "errors.md").read_text("utf-8")
    names = [name for name in aiotwhelp.__all__ if name.endswith("Error")]
    assert names
    assert [name for name in names if f"`{name}`" not in text] == []
