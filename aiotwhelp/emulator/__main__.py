"""Run the emulator from a shell: ``python -m aiotwhelp.emulator --port 8080 --window 60``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shlex
import signal
import sys
from collections.abc import Sequence

from .catalogue import QUARTER
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
    add("--dialect", default="x", choices=DIALECTS, help="whose headers (default: %(default)s)")
    add("--kind", default="fixed", choices=KINDS, help="of its windows (default: %(default)s)")
    add("--refusal-status", type=int, help="403, 429 or 503 instead of the dialect's own")
    add("--tokens", type=int, default=150_000, help="per window, where the dialect counts them")
    add("--anonymous", action="store_true", help="let callers in without credentials")
    add("--seed", type=int, default=0, help="seed of keys and faults (default: %(default)s)")
    add("--skew", type=float, default=0.0, help="seconds by which its clock is ahead")
    add("--latency", type=float, default=0.0, help="seconds that an answer takes")
    add("--jitter", type=float, default=0.0, help="at most so many seconds more")
    return parser


def _limit(text: str) -> tuple[str, int]:
    name, _, number = text.rpartition("=")
    if not name or not number.isdecimal():
        raise argparse.ArgumentTypeError(f"write ENDPOINT=N, such as help/privacy=15, not {text!r}")
    return name, int(number)


def _emulator(options: argparse.Namespace) -> Emulator:
    values = {**vars(options), "limits": dict(options.limits)}
    return Emulator(**values)


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
