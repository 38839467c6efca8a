"""Many callers, one quota: each gets the policy, and the server refuses nobody.

    python examples/privacy.py                              on an emulator, offline
    python examples/privacy.py --callers 100 --window 10
    python examples/privacy.py --live                       credentials from the environment

The callers do nothing about the limit. They share a session, and that is all.
"""

import argparse
import asyncio
import os
import textwrap
import time
from contextlib import nullcontext

import command

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
                print("window  answers  in all  waited up to  quota left  resets in")
            quota = self.session.quota("/1.1/help/privacy.json")
            left = "?" if quota.remaining is None else f"{quota.remaining} of {quota.limit}"
            reset = "?" if quota.resets_in is None else f"{quota.resets_in:.1f} s"
            self.window, self.total = self.window + 1, self.total + self.answers
            counts = f"{self.window:>6} {self.answers:>8} {self.total:>7}"
            print(f"{counts} {self.waited:>11.1f} s {left:>11} {reset:>10}", flush=True)
            self.answers = 0


def main() -> None:
    parser = command.parser("Many callers fetch one policy, on one quota.")
    number, seconds = command.whole, command.seconds
    parser.add_argument("--callers", type=number, default=60, help="how many (default: 60)")
    parser.add_argument("--limit", type=number, default=15, help="the emulator's, per window (15)")
    parser.add_argument("--window", type=seconds, default=5.0, help="its length in seconds (5)")
    command.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
