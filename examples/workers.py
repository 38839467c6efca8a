"""Four processes, one quota: what they share lies in a SQLite file.

    python examples/workers.py                      on an emulator, offline
    python examples/workers.py --live               on the real API, with your credentials
    python examples/workers.py --ledger URL         another place, such as redis://localhost

Each process is a service of its own, with a session, a limiter and callers that all come at once.
Kill one of them while they wait: the others go on, and what it had in hand is theirs in 2 s.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import command

import aiotwhelp
from aiotwhelp import events

PATH = "/1.1/help/privacy.json"


# One process ---------------------------------------------------------------------------------


async def work(options: argparse.Namespace) -> None:
    why_alone: str | None = None

    def note(event: events.Event) -> None:
        nonlocal why_alone
        if isinstance(event, events.LedgerAway | events.LedgerBack):
            why_alone = event.reason if isinstance(event, events.LedgerAway) else None

    limiter = aiotwhelp.Limiter(ledger=options.ledger, on_event=note)
    try:
        async with aiotwhelp.Session.from_env(limiter=limiter) as x:
            done = 0

            def tell() -> None:
                quota = x.quota(PATH)
                told = {"done": done, "left": quota.remaining, "resets_in": quota.resets_in}
                print(json.dumps({**told, "alone": why_alone}), flush=True)

            async def call() -> None:
                nonlocal done
                await x.fetch(PATH)
                done += 1
                tell()

            await asyncio.gather(*(call() for _ in range(options.calls)))
    finally:
        await limiter.close()  # what is unused goes back at once


# All of them ---------------------------------------------------------------------------------


class Board:
    """A line for each process: redrawn on a terminal, else printed once a second."""

    def __init__(self, processes: int, calls: int) -> None:
        self.calls = calls
        self.lines = ["waits for its first answer"] * processes
        self.why_alone: set[str] = set()
        self.is_live = sys.stdout.isatty()
        self.printed_at = 0.0
        if self.is_live:
            print("\n" * processes, end="")

    def update(self, process: int, told: Mapping[str, Any]) -> None:
        """Take what a process told of itself."""
        done, resets_in = told["done"], told["resets_in"]
        line = f"{done:>3} of {self.calls} done"
        if done < self.calls:
            left = "?" if told["left"] is None else told["left"]
            reset = "" if resets_in is None else f", reset in {max(0, resets_in):.1f} s"
            line += f"; its last answer: {left} left{reset}"
        if told["alone"]:
            line += "; the ledger is away"
            self.why_alone.add(told["alone"])
        self.lines[process] = line
        self.show()

    def show(self, *, is_last: bool = False) -> None:
        """Draw all lines, or those that can wait for the next second not yet."""
        if self.is_live:
            print(f"\x1b[{len(self.lines)}A", end="")
        elif not is_last and time.monotonic() < self.printed_at + 1.0:
            return
        self.printed_at = time.monotonic()
        for process, line in enumerate(self.lines):
            print(f"process {process + 1:>2}  {line}" + ("\x1b[K" if self.is_live else ""))
        if not self.is_live:
            print()


async def run(options: argparse.Namespace) -> None:
    async with AsyncExitStack() as stack:
        environ, server = dict(os.environ), None
        if not options.live:
            limits = {PATH: options.limit}
            server = aiotwhelp.Emulator(window=options.window, limits=limits, jitter=0.1)
            await stack.enter_async_context(server)
            environ |= server.env
        if not options.ledger:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            options.ledger = f"sqlite:///{Path(folder, 'quota.db')}"
        # Whatever all of them would fail for is said once, before any of them is started.
        limiter = aiotwhelp.Limiter(ledger=options.ledger)
        aiotwhelp.Session.from_env(environ, limiter=limiter)
        await limiter.close()
        board = Board(options.processes, options.calls)
        began = time.monotonic()
        ends = await asyncio.gather(
            *(follow(process, board, options, environ) for process in range(options.processes))
        )
        took = time.monotonic() - began
        board.show(is_last=True)
        well = sum(code == 0 for code, _ in ends)
        print(f"{well} of {len(ends)} processes ended well, {took:.1f} s")
        for reason in sorted(board.why_alone):
            print(f"without its ledger each took a share: {reason}")
        if server is not None:
            sent = len(server.requests)
            print(f"the server saw {sent} requests and refused {server.refused} of them")
        if well < len(ends):  # most often for one reason
            reasons = sorted({said for code, said in ends if code})
            raise command.FailedError("\n".join(reasons))


async def follow(
    process: int, board: Board, options: argparse.Namespace, environ: Mapping[str, str]
) -> tuple[int, str]:
    arguments = ["--work", "--ledger", options.ledger, "--calls", str(options.calls)]
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, *arguments),
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert child.stdout is not None
        assert child.stderr is not None
        async for line in child.stdout:
            board.update(process, json.loads(line))
        said = await child.stderr.read()
        return await child.wait(), said.decode().strip()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


def parse(processes: int, calls: int, arguments: list[str] | None = None) -> argparse.Namespace:
    parser = command.parser("Many processes, one quota.")
    number = command.whole
    parser.add_argument("--ledger", default="", help="where the quota is shared, as a URL")
    parser.add_argument(
        "--processes", type=number, default=processes, help=f"how many ({processes})"
    )
    parser.add_argument("--calls", type=number, default=calls, help=f"of each process ({calls})")
    parser.add_argument("--limit", type=number, default=15, help="the emulator's, per window (15)")
    parser.add_argument(
        "--window", type=command.seconds, default=5.0, help="its length in seconds (5)"
    )
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(options: argparse.Namespace) -> None:
    command.run(work(options) if options.work else run(options))


if __name__ == "__main__":
    main(parse(processes=4, calls=12))
