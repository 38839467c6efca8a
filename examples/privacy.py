"""Many callers, one quota: each gets the policy, and the server refuses nobody.

    python examples/privacy.py                              on an emulator, offline
    python examples/privacy.py --callers 100 --window 10
    python examples/privacy.py --live                       credentials from the environment

The callers do nothing about the limit. They share a session, and that is all.
"""

import argparse
import asyncio
import math
import os
import sys
import textwrap
import time
from contextlib import nullcontext

import aiohttp

import aiotwhelp
from aiotwhelp import events


async def run(options: argparse.Namespace) -> None:
    started = time.monotonic()
    limits = {"help/privacy": options.limit}
    api = aiotwhelp.Emulator(window=options.window, limits=limits, jitter=0.1)
    async with nullcontext() if options.live else api:
        x = aiotwhelp.Session.from_env(os.environ if options.live else api.env)
        async with x:
            progress = Progress(x)
            x.limiter.listen(progress)
            policy_of = aiotwhelp.Help(x).privacy
            policies = await asyncio.gather(*(policy_of() for _ in range(options.callers)))
            progress.line()
    lines = [line for line in policies[0].splitlines() if line][:4]
    print("\n" + "\n".join(f"  | {textwrap.shorten(line, 76)}" for line in lines) + "\n")
    stats = x.limiter.stats()
    print(
        f"{len(policies)} callers served in {time.monotonic() - started:.1f} s: "
        f"{stats.granted} requests sent, {stats.refused} refused, "
        f"{stats.waited / len(policies):.1f} s waited on average"
    )
    if not options.live:
        print(f"The server itself counted {api.tally.received} requests, {api.refused} refused.")


class Progress:
    """Prints a line for each window, as soon as it is spent."""

    def __init__(self, session: aiotwhelp.Session) -> None:
        self.session = session
        self.window = self.answers = self.total = 0
        self.waited = 0.0

    def __call__(self, event: events.Event) -> None:
        """Count answers; this is the session's event handler."""
        if isinstance(event, events.Waited):
            self.waited = max(self.waited, event.seconds)
        elif isinstance(event, events.Observed):
            self.answers += 1
            quota = self.session.quota("/1.1/help/privacy.json")
            if quota.remaining == 0 and quota.in_flight == 0:
                self.line()

    def line(self) -> None:
        """Print what happened since the last line, if anything did."""
        if self.answers:
            if self.window == 0:
                print("window  answers  in all  quota left  waited up to")
            quota = self.session.quota("/1.1/help/privacy.json")
            left = "?" if quota.remaining is None else f"{quota.remaining} of {quota.limit}"
            self.window, self.total = self.window + 1, self.total + self.answers
            counts = f"{self.window:>6} {self.answers:>8} {self.total:>7}"
            print(f"{counts} {left:>11} {self.waited:>11.1f} s", flush=True)
            self.answers = 0


def whole(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number from 1 on")
    return number


def seconds(text: str) -> float:
    number = float(text)
    if not 1 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds from 1 on")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description="Many callers fetch one policy, on one quota.")
    parser.add_argument("--callers", type=whole, default=60, help="how many (default: 60)")
    parser.add_argument("--limit", type=whole, default=15, help="the emulator's, per window (15)")
    parser.add_argument(
        "--window", type=seconds, default=5.0, help="the emulator's, in seconds (5)"
    )
    parser.add_argument("--live", action="store_true", help="go to the real API")
    options = parser.parse_args()
    try:
        asyncio.run(run(options))
    except KeyboardInterrupt:
        sys.exit(130)
    except ValueError as error:  # it says which variables to set, or to mend
        print(error, file=sys.stderr)
        sys.exit(2)
    except (aiotwhelp.AiotwhelpError, aiohttp.ClientError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
