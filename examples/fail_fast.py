"""Callers that would rather know now: `max_wait`, `quota()` before asking, and priorities.

    python examples/fail_fast.py                    on an emulator, offline: 3 calls per 4 s
    python examples/fail_fast.py --live             3 calls to the real API

A wait that will not fit fails at once, before anything is sent, and the error says when to come
back. Of those who do wait, interactive callers go before batch jobs that came earlier.
"""

import argparse
import asyncio
import os
import time
from contextlib import nullcontext

import command

import aiotwhelp
from aiotwhelp import Priority

PATH = "/2/users/me"


async def run(options: argparse.Namespace) -> None:
    api = aiotwhelp.Emulator(window=options.window, limits={PATH: 3})
    async with nullcontext() if options.live else api:
        x = aiotwhelp.Session.from_env(os.environ if options.live else api.env)
        async with x:
            published = x.quota(PATH).published
            limit = f"a limit of {published}" if published else "none for an app by itself"
            print(f"before the first call   unknown; X publishes {limit}")
            for _ in range(3):
                await x.fetch(PATH, max_wait=1)
            print("after three of them    ", x.quota(PATH))
            if options.live:
                return
            await fail_fast(x)
            await in_order(x)


async def fail_fast(x: aiotwhelp.Session) -> None:
    started = time.monotonic()
    try:
        await x.fetch(PATH, max_wait=0.5)
    except aiotwhelp.QuotaTimeoutError as error:
        print(f"\nwith max_wait=0.5, after {1000 * (time.monotonic() - started):.0f} ms:")
        print(f"  {error}")
        print(f"  key          {error.key}")
        print(f"  left         {error.remaining} of {error.limit}")
        print(f"  resets_at    {error.resets_at:.0f}")
        print(f"  retry_after  {error.retry_after:.1f} s")


async def in_order(x: aiotwhelp.Session) -> None:
    served: list[str] = []

    async def call(name: str, priority: Priority) -> None:
        await x.fetch(PATH, priority=priority)
        served.append(name)

    callers = [("batch 1", Priority.BATCH), ("batch 2", Priority.BATCH)]
    callers.append(("a user who waits", Priority.INTERACTIVE))
    await asyncio.gather(*(call(*each) for each in callers))
    print("\nasked:  ", ", ".join(name for name, _ in callers))
    print("served: ", ", ".join(served))


def main() -> None:
    parser = command.parser("Fail at once rather than wait too long.")
    parser.add_argument(
        "--window", type=command.seconds, default=4.0, help="the emulator's, in seconds (4)"
    )
    command.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
