"""Run the emulator from a shell: ``python -m aiotwhelp.emulator --port 8080 --window 60``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shlex
import signal
import sys
from collections.abc import Sequence
from typing import Any

from .catalogue import DAY, QUARTER
from .dialects import DIALECTS
from .kinds import KINDS
from .server import Emulator


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C or SIGTERM; return the exit status."""
    options = _options().parse_args(arguments)
    try:
        emulator = _emulator(options)
    except (TypeError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    with contextlib.suppress(KeyboardInterrupt):
        try:
            asyncio.run(_serve(emulator))
        except (OSError, UnicodeError) as error:
            sys.stderr.write(f"cannot listen: {error}\n")
            return 1
    return 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m aiotwhelp.emulator",
        description="A local server with the X API's windows, signatures and errors.",
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add("--port", type=int, default=8080, help="port, 0 for a free one (default: %(default)s)")
    add("--window", type=float, default=QUARTER, help="seconds per window (default: %(default)s)")
    add("--limit", type=int, help="calls per window of every endpoint (default: as published)")
    add(
        "--set",
        dest="limits",
        action="append",
        default=[],
        type=_limit,
        metavar="ENDPOINT=N",
        help="calls per window of one endpoint, such as help/privacy=15; may be repeated",
    )
    add("--day", type=float, default=DAY, help="seconds per window of a day (default: %(default)s)")
    add(
        "--buckets",
        action="append",
        default=[],
        type=_bucket,
        metavar="ENDPOINT=NAME",
        help="whose windows an endpoint shares, such as help/tos=help; may be repeated",
    )
    add("--dialect", default="x", choices=DIALECTS, help="whose headers (default: %(default)s)")
    add("--kind", default="fixed", choices=KINDS, help="of its windows (default: %(default)s)")
    add("--refusal-status", type=int, help="403, 429 or 503 instead of the dialect's own")
    add("--tokens", type=int, default=150_000, help="per window, where the dialect counts them")
    add("--users", type=int, default=1, help="users of the app (default: %(default)s)")
    add("--token-lifetime", type=float, default=7200.0, help="seconds (default: %(default)s)")
    add("--retired", action="store_true", help="answer endpoints that are retired with 410")
    add("--anonymous", action="store_true", help="let callers in without credentials")
    add("--seed", type=int, default=0, help="seed of keys and faults (default: %(default)s)")
    add("--skew", type=float, default=0.0, help="seconds by which its clock is ahead")
    add("--latency", type=float, default=0.0, help="seconds that an answer takes")
    add("--jitter", type=float, default=0.0, help="at most so many seconds more")
    add(
        "--fault",
        dest="faults",
        action="append",
        default=[],
        type=_fault,
        metavar="NAME=VALUE",
        help="any other switch of Faults, such as reset_rounding=down, errors=0.1 or "
        "backends=[0,3]; may be repeated",
    )
    return parser


def _limit(text: str) -> tuple[str, int]:
    name, _, number = text.rpartition("=")
    if not name or not number.isdecimal():
        raise argparse.ArgumentTypeError(f"write ENDPOINT=N, such as help/privacy=15, not {text!r}")
    return name, int(number)


def _bucket(text: str) -> tuple[str, str]:
    endpoint, _, name = text.rpartition("=")
    if not endpoint or not name:
        raise argparse.ArgumentTypeError(
            f"write ENDPOINT=NAME, such as help/tos=help, not {text!r}"
        )
    return endpoint, name


def _fault(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    if not name or not value:
        raise argparse.ArgumentTypeError(f"write NAME=VALUE, such as errors=0.1, not {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value  # a word


def _emulator(options: argparse.Namespace) -> Emulator:
    values = vars(options)
    faults = dict(values.pop("faults"))
    twice = values.keys() & faults.keys()
    if twice:
        raise ValueError(f"{min(twice)} is an option of its own: write --{min(twice)}")
    for name in ("limits", "buckets"):
        values[name] = dict(values[name])
    return Emulator(**values, **faults)


async def _serve(emulator: Emulator) -> None:
    async with emulator:
        stopped = _stop_event()
        for name, value in emulator.env.items():
            sys.stdout.write(f"export {name}={shlex.quote(value)}\n")
        sys.stdout.write("# Listening; Ctrl-C stops it.\n")
        sys.stdout.flush()
        await stopped.wait()
    sys.stdout.write(f"# {emulator.tally.received} requests, {emulator.refused} refused\n")


def _stop_event() -> asyncio.Event:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        # Windows has no such handlers; there Ctrl-C arrives as KeyboardInterrupt.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(name, stopped.set)
    return stopped


if __name__ == "__main__":
    sys.exit(main())
