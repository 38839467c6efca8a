"""The examples, run as a user runs them: their output, their exit codes, and no traceback."""

from __future__ import annotations

import ast
import asyncio
import os
import re
import signal
import sys
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

import aiotwhelp

EXAMPLES = Path(__file__).parents[1] / "examples"
ONLINE = ("privacy", "own_session", "many_users", "service", "fail_fast")

#: In real time, so all at once; a slow machine only makes them slow.
OFFLINE = {
    "privacy": ("--window", "6", "--limit", "30"),
    "own_session": (),
    "many_users": (),
    "service": ("--window", "10", "--patience", "4"),
    "fail_fast": ("--window", "10"),
    "test_a_bot": (),
    "workers": ("--window", "2", "--calls", "6"),
}

#: Those that need a server which is not everywhere, and what they have in common.
ELSEWHERE = {"fleet"}
COMMON = {"command"}


@dataclass(frozen=True, slots=True)
class Run:
    code: int
    out: str
    err: str


def environment(**more: str) -> dict[str, str]:
    """As users run them: without credentials, and without a debug mode that talks to stderr."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if "AIOTWHELP" not in name and name != "PYTHONDEVMODE"
    }
    clean.pop("PYTEST_ADDOPTS", None)
    if not any(each.name == "aiotwhelp" for each in entry_points(group="pytest11")):
        # On the path but not installed: the fixtures have to be asked for.
        clean["PYTEST_PLUGINS"] = "aiotwhelp.testing"
    return {**clean, **more}


def default_interrupt() -> None:
    # A shell's background job ignores SIGINT, and its children inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


async def started(name: str, *options: str, **environ: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, str(EXAMPLES / f"{name}.py"), *options),
        env=environment(**environ),
        cwd=EXAMPLES.parent,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=default_interrupt,
    )


async def finished(process: asyncio.subprocess.Process) -> Run:
    async with asyncio.timeout(120):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Run(process.returncode, out.decode(), err.decode())


async def run(name: str, *options: str, **environ: str) -> Run:
    return await finished(await started(name, *options, **environ))


@pytest.fixture(scope="module")
def runs() -> dict[str, Run]:
    async def everything() -> list[Run]:
        return await asyncio.gather(*(run(name, *given) for name, given in OFFLINE.items()))

    return dict(zip(OFFLINE, asyncio.run(everything()), strict=True))


def live(name: str, *options: str, **server: Any) -> tuple[Run, aiotwhelp.Emulator]:
    async def main() -> tuple[Run, aiotwhelp.Emulator]:
        async with aiotwhelp.Emulator(**server) as api:
            return await run(name, "--live", *options, **api.env), api

    return asyncio.run(main())


def credentials() -> dict[str, str]:
    names = ("CONSUMER_KEY", "CONSUMER_SECRET", "ACCESS_TOKEN", "ACCESS_TOKEN_SECRET")
    return {f"AIOTWHELP_{name}": "made-up" for name in (*names, "BEARER_TOKEN")}


def numbers(pattern: str, text: str) -> list[int]:
    found = re.search(pattern, text)
    assert found is not None, text
    return [int(group) for group in found.groups()]


@pytest.mark.parametrize("name", OFFLINE)
def test_an_example_ends_well_and_says_nothing_to_stderr(name: str, runs: dict[str, Run]) -> None:
    assert (runs[name].code, runs[name].err) == (0, "")
    assert not set("\r\x1b") & set(runs[name].out)  # readable in a pipe


def test_every_example_is_run_here_and_says_how_to_run_it() -> None:
    paths = sorted(EXAMPLES.glob("*.py"))
    assert {path.stem for path in paths} == {*OFFLINE, *ELSEWHERE, *COMMON}
    for path in (path for path in paths if path.stem not in COMMON):
        text = ast.get_docstring(ast.parse(path.read_text()))
        assert text is not None
        assert f"python examples/{path.name}" in text


def test_privacy_serves_sixty_callers_with_sixty_requests(runs: dict[str, Run]) -> None:
    out = runs["privacy"].out
    assert numbers(r"(\d+) callers served in .*: (\d+) requests sent, (\d+) refused", out) == [
        60,
        60,
        0,
    ]
    assert numbers(r"server itself counted (\d+) requests, (\d+) refused", out) == [60, 0]
    windows = re.findall(
        r"^ +(\d+) +(\d+) +(\d+) +[\d.]+ s +(?:\d+ of 30 +[\d.]+ s|\? +\?)$", out, re.MULTILINE
    )
    assert sum(int(answers) for _, answers, _ in windows) == 60
    assert [int(number) for number, *_ in windows] == list(range(1, len(windows) + 1))
    assert int(windows[-1][2]) == 60
    assert "  | Emulator Privacy Policy\n" in out


def test_own_session_gets_all_pages(runs: dict[str, Run]) -> None:
    out = runs["own_session"].out
    pages = re.findall(r"^ +(\d+) +200 +\d+\.\d s$", out, re.MULTILINE)
    assert sorted(map(int, pages)) == list(range(1, 26))
    assert numbers(r"(\d+) requests sent, (\d+) refused", out) == [25, 0]


def test_many_users_have_a_quota_each(runs: dict[str, Run]) -> None:
    out = runs["many_users"].out
    rows = dict(re.findall(r"^(\S.*?\S) +(\d+) +\d+\.\d s +[\d?]+ of \d+$", out, re.MULTILINE))
    assert rows == {"ann": "25", "ben": "10", "cleo": "4", "the app": "40"}
    assert numbers(r"(\d+) requests sent, (\d+) refused", out) == [79, 0]


def test_four_workers_share_one_quota(runs: dict[str, Run]) -> None:
    out = runs["workers"].out
    assert numbers(r"(\d+) of (\d+) processes ended well", out) == [4, 4]
    sent, refused = numbers(r"saw (\d+) requests and refused (\d+) of them", out)
    assert sent - refused == 24
    # A machine that holds up whoever writes to the file has the others be without it for a moment.
    if "\nwithout its ledger each took a share: " not in out:
        assert refused == 0
        assert "the ledger is away" not in out
    # What was left at an answer is no news once a process is done.
    finished = re.findall(r"^process +(\d) +6 of 6 done\b(?!; its)", out, re.MULTILINE)
    assert set(finished) == {"1", "2", "3", "4"}
    # Nobody knows what is left where a busy machine tells of an answer after its window's end.
    under_way = re.findall(r"^process +\d +[1-5] of 6 done(.*)$", out, re.MULTILINE)
    told = r"; its last answer: (\d+|\?) left(, reset in \d\.\d s)?(; the ledger is away)?"
    assert [line for line in under_way if not re.fullmatch(told, line)] == []


def test_a_fleet_without_a_server_says_how_to_get_one() -> None:
    alone = asyncio.run(run("fleet", "--ledger", "redis://127.0.0.1:1"))
    assert alone.code == 1
    assert alone.err.startswith("the ledger at redis://127.0.0.1:1: ConnectionError: ")
    assert "AIOTWHELP_REDIS_URL" in alone.err


def test_a_fleet_whose_server_says_nothing_gives_up() -> None:
    async def main() -> Run:
        async def silence(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)

        writers: list[asyncio.StreamWriter] = []
        server = await asyncio.start_server(silence, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            return await run("fleet", "--ledger", f"redis://127.0.0.1:{port}")
        finally:
            server.close()
            for writer in writers:
                writer.close()

    result = asyncio.run(main())
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("the ledger does not answer\n")


async def error_from_redis(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while (line := await reader.readline()) and not line.isspace():
        if line.strip().isalpha():  # the name of a command
            writer.write(b"-WRONGPASS invalid username-password pair\r\n")
    writer.close()


def test_a_fleet_is_told_what_its_server_says() -> None:
    async def main() -> Run:
        server = await asyncio.start_server(error_from_redis, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return await run("fleet", "--ledger", f"redis://:hidden@127.0.0.1:{port}")

    result = asyncio.run(main())
    assert (result.code, result.out) == (1, "")
    assert re.match(r"the ledger at redis://127.0.0.1:\d+: it does not take this user", result.err)
    assert "hidden" not in result.err


def test_the_service_answers_503_with_retry_after(runs: dict[str, Run]) -> None:
    out = runs["service"].out
    statuses = re.findall(r"^ +\d+ +(\d+) ", out, re.MULTILINE)
    assert sorted(statuses[:8]) == ["200"] * 5 + ["503"] * 3
    assert len(re.findall(r"busy, try again in ([4-9]|1[0-2]) s$", out, re.MULTILINE)) == 3
    assert statuses[8:] == ["200"]
    assert numbers(r"(\d+) requests sent, (\d+) refused", out) == [6, 0]


def test_fail_fast_says_when_to_come_back_and_keeps_the_order(runs: dict[str, Run]) -> None:
    out = runs["fail_fast"].out
    assert "before the first call   unknown; X publishes a limit of 75\n" in out
    assert re.search(r"<Quota 0/3, resets in 0:\d\d>", out)
    assert re.search(r"key +GET /2/users/me\n +left +0 of 3\n", out)
    assert re.search(r"retry_after +[\d.]+ s\n", out)
    assert "served:  a user who waits, batch 1, batch 2\n" in out


def test_the_bot_is_tested_by_python_and_by_pytest(runs: dict[str, Run]) -> None:
    assert "3 passed" in runs["test_a_bot"].out

    async def by_pytest() -> Run:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            str(EXAMPLES / "test_a_bot.py"),
            env=environment(),
            cwd=EXAMPLES.parent,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        return await finished(process)

    result = asyncio.run(by_pytest())
    assert result.code == 0, result.out
    assert "3 passed" in result.out


@pytest.mark.parametrize("name", ONLINE)
def test_live_without_credentials_says_what_to_set(name: str) -> None:
    result = asyncio.run(run(name, "--live"))
    assert result.code == 2
    assert result.out == ""
    assert re.match(r"no credentials in the environment: set AIOTWHELP_\w+", result.err)
    assert "Traceback" not in result.err


def test_live_with_half_a_credential_says_what_is_missing() -> None:
    result = asyncio.run(run("privacy", "--live", AIOTWHELP_ACCESS_TOKEN="half"))
    assert result.code == 2
    assert "AIOTWHELP_ACCESS_TOKEN_SECRET" in result.err
    assert "half" not in result.err


def test_a_bad_base_url_is_one_line_that_names_the_variable() -> None:
    async def main() -> list[Run]:
        urls = [(name, "api.x.com") for name in ONLINE]
        urls.append(("own_session", "http://user:secret@localhost"))
        return await asyncio.gather(
            *(run(name, "--live", **credentials(), AIOTWHELP_BASE_URL=url) for name, url in urls)
        )

    for result in asyncio.run(main()):
        assert (result.code, result.out) == (2, "")
        assert re.fullmatch(r"AIOTWHELP_BASE_URL: .*\n", result.err)
        assert "secret" not in result.err


def test_a_number_that_makes_no_sense_is_argparses_error() -> None:
    rows = [
        ("privacy", "--window", "nan"),
        ("privacy", "--callers", "0"),
        ("privacy", "--limit", "-1"),
        ("own_session", "--calls", "0"),
        ("workers", "--processes", "0"),
        ("service", "--port", "99999"),
        ("service", "--port", "http"),
        ("workers", "--calls", "1.5"),
        ("privacy", "--window", "soon"),
    ]

    async def main() -> list[Run]:
        return await asyncio.gather(*(run(name, f"{key}={value}") for name, key, value in rows))

    for (_, key, value), result in zip(rows, asyncio.run(main()), strict=True):
        assert (result.code, result.out) == (2, "")
        last = result.err.splitlines()[-1]
        assert re.search(rf"error: argument {key}: {value} is no (whole number|number|port)", last)


def test_the_bot_says_what_it_is_and_what_it_needs() -> None:
    helped = asyncio.run(run("test_a_bot", "--help"))
    assert (helped.code, helped.err) == (0, "")
    assert "tested by pytest" in helped.out

    async def without_pytest() -> Run:
        path = str(EXAMPLES / "test_a_bot.py")
        hidden = "import runpy, sys; sys.modules['pytest'] = None; runpy.run_path(sys.argv[1])"
        return await finished(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", hidden, path),
                env=environment(),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        )

    result = asyncio.run(without_pytest())
    assert (result.code, result.out) == (1, "")
    assert result.err == "this example is a test: pip install pytest\n"


def test_privacy_live_goes_where_the_environment_says() -> None:
    result, api = live("privacy", "--callers", "7", window=2, limits={"help/privacy": 3})
    assert (result.code, result.err) == (0, "")
    assert numbers(r"(\d+) requests sent, (\d+) refused", result.out) == [7, 0]
    assert (api.tally.received, api.refused) == (7, 0)
    assert {request.identity for request in api.requests} == {f"user:{api.user.id}"}


@pytest.mark.parametrize(
    ("name", "options", "requests"),
    [
        ("own_session", ("--calls", "4"), 4),
        ("many_users", (), 6),
        ("service", ("--patience", "60"), 9),
        ("fail_fast", (), 3),
    ],
)
def test_live_uses_the_given_server(name: str, options: tuple[str, ...], requests: int) -> None:
    result, api = live(name, *options)
    assert (result.code, result.err) == (0, "")
    assert (api.tally.received, api.refused) == (requests, 0)


def test_live_against_the_retired_endpoint_says_so_without_a_traceback() -> None:
    result, api = live("privacy", retired=True)
    assert result.code == 1
    assert "help/privacy.json was retired on 20" in result.err
    assert result.err.count("\n") == 1
    assert result.out == ""
    assert api.tally.received < 60


@pytest.mark.parametrize("name", ["own_session", "many_users", "fail_fast"])
def test_a_refused_credential_ends_in_one_line(name: str) -> None:
    wrong = {"AIOTWHELP_BEARER_TOKEN": "wrong", "AIOTWHELP_ACCESS_TOKEN_SECRET": "wrong"}

    async def main() -> Run:
        async with aiotwhelp.Emulator() as api:
            return await run(name, "--live", **{**api.env, **wrong})

    result = asyncio.run(main())
    assert result.code == 1
    assert result.err.startswith("401, ")
    assert result.err.count("\n") == 1


def test_what_the_api_said_to_a_service_is_for_its_log() -> None:
    wrong = {"AIOTWHELP_BEARER_TOKEN": "wrong", "AIOTWHELP_ACCESS_TOKEN_SECRET": "wrong"}

    async def main() -> Run:
        async with aiotwhelp.Emulator() as api:
            return await run("service", "--live", **{**api.env, **wrong})

    result = asyncio.run(main())
    assert (result.code, result.out.count(" 502 "), result.out.count("the API has failed")) == (
        0,
        9,
        9,
    )
    assert result.err.count("upstream: 401, ") == 9
    assert "401" not in result.out


def test_processes_that_fail_for_one_reason_say_it_once() -> None:
    wrong = {"AIOTWHELP_ACCESS_TOKEN_SECRET": "wrong"}

    async def main() -> Run:
        async with aiotwhelp.Emulator() as api:
            calls = ("--processes", "2", "--calls", "1")
            return await run("workers", "--live", *calls, **{**api.env, **wrong})

    result = asyncio.run(main())
    assert result.code == 1
    assert "0 of 2 processes ended well" in result.out
    assert result.err.startswith("401, ")
    assert result.err.count("\n") == 1


def test_what_all_processes_would_fail_for_is_said_before_they_start() -> None:
    async def main() -> list[Run]:
        return await asyncio.gather(run("workers", "--ledger", "nowhere"), run("workers", "--live"))

    for result, said in zip(asyncio.run(main()), ["a ledger is ", "no credentials "], strict=True):
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith(said)
        assert result.err.count("\n") == 1


def test_workers_go_on_without_their_ledger_and_say_so() -> None:
    options = ("--processes", "2", "--calls", "2", "--ledger", "redis://127.0.0.1:1")
    result = asyncio.run(run("workers", *options))
    assert (result.code, result.err) == (0, "")
    assert len(re.findall(r"2 of 2 done; the ledger is away$", result.out, re.MULTILINE)) >= 2
    why = "without its ledger each took a share: the ledger at redis://127.0.0.1:1: ConnectionError"
    assert result.out.count(why) == 1


def test_a_ledger_that_is_no_server_is_one_line() -> None:
    result = asyncio.run(run("fleet", "--ledger", "nowhere:secret"))
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("a Redis URL begins with redis://, ")
    assert "secret" not in result.err
    assert result.err.count("\n") == 1


def test_fail_fast_knows_that_an_app_has_no_limit_of_its_own() -> None:
    only_an_app = {"AIOTWHELP_BASE_URL": "http://127.0.0.1:1", "AIOTWHELP_BEARER_TOKEN": "made-up"}
    result = asyncio.run(run("fail_fast", "--live", **only_an_app))
    assert result.out == "before the first call   unknown; X publishes none for an app by itself\n"


@pytest.mark.parametrize("name", ["own_session", "fail_fast"])
def test_where_no_server_is_there_one_line_says_so(name: str) -> None:
    nowhere = {"AIOTWHELP_BASE_URL": "http://127.0.0.1:1"}
    result = asyncio.run(run(name, "--live", **{**credentials(), **nowhere}))
    assert result.code == 1
    assert "Cannot connect to host 127.0.0.1:1 " in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        ("TimeoutError()", 1, "there was no answer in time\n"),  # what aiohttp's total raises
        ("command.FailedError('no')", 1, "no\n"),
        ("ValueError('set this')", 2, "set this\n"),
        ("KeyboardInterrupt()", 130, ""),
    ],
)
def test_an_example_that_fails_says_so_in_one_line(failure: str, code: int, said: str) -> None:
    program = f"import command\nasync def main():\n    raise {failure}\ncommand.run(main())"

    async def main() -> Run:
        return await finished(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", program),
                env=environment(),
                cwd=EXAMPLES,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        )

    assert asyncio.run(main()) == Run(code, "", said)


@pytest.mark.parametrize(
    ("name", "options"), [("privacy", ()), ("own_session", ()), ("service", ("--serve",))]
)
def test_ctrl_c_leaves_no_traceback(name: str, options: tuple[str, ...]) -> None:
    async def main() -> Run:
        process = await started(name, *options)
        assert process.stdout is not None
        assert await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        return await finished(process)

    result = asyncio.run(main())
    assert (result.code, result.err) == (130, "")
