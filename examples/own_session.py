"""Your own aiohttp.ClientSession, with the quota looked after by a middleware.

    python examples/own_session.py                  on an emulator, offline
    python examples/own_session.py --live           the real API, with AIOTWHELP_BEARER_TOKEN

Everything else about the session stays yours: connector, cookies, tracing, other middlewares,
other hosts. The wait happens inside aiohttp, so the session's timeout must leave room for it.
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext

import aiohttp

import aiotwhelp

PATH = "/2/tweets/search/recent"
TIMEOUT = aiohttp.ClientTimeout(total=30)


async def run(options: argparse.Namespace) -> None:
    server = aiotwhelp.Emulator(window=3, limits={PATH: 10}, jitter=0.1)
    async with nullcontext() if options.live else server:
        environ = os.environ if options.live else server.env
        api = api_from(environ)
        auth = aiotwhelp.Bearer(environ["AIOTWHELP_BEARER_TOKEN"])
        limiter = aiotwhelp.Limiter()
        limited = aiotwhelp.RateLimitMiddleware(limiter, apis={api: auth})
        async with aiohttp.ClientSession(
            api.base_url, middlewares=[limited], timeout=TIMEOUT, raise_for_status=True
        ) as session:
            print("page  status  after")
            started = time.monotonic()
            await asyncio.gather(*(page(session, n, started) for n in range(1, options.calls + 1)))
        stats = limiter.stats()
        print(f"\n{stats.granted} requests sent, {stats.refused} refused")
        for key, quota in limiter.quotas().items():
            print(f"{key}: {quota.remaining} of {quota.limit} left")


def api_from(environ: Mapping[str, str]) -> aiotwhelp.Api:
    try:
        return aiotwhelp.X.at(environ.get("AIOTWHELP_BASE_URL") or aiotwhelp.X.base_url)
    except ValueError as error:
        raise ValueError(f"AIOTWHELP_BASE_URL: {error}") from None


async def page(session: aiohttp.ClientSession, number: int, started: float) -> None:
    # Nothing here knows of a quota.
    params = {"query": f"page {number}", "max_results": "10"}
    async with session.get(PATH, params=params) as response:
        await response.json()
        print(f"{number:>4} {response.status:>7} {time.monotonic() - started:>5.1f} s", flush=True)


def whole(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number from 1 on")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description="A quota for your own aiohttp.ClientSession.")
    parser.add_argument("--calls", type=whole, default=25, help="how many (default: 25)")
    parser.add_argument("--live", action="store_true", help="go to the real API")
    options = parser.parse_args()
    if options.live and not os.environ.get("AIOTWHELP_BEARER_TOKEN"):
        print("no credentials in the environment: set AIOTWHELP_BEARER_TOKEN", file=sys.stderr)
        sys.exit(2)
    try:
        asyncio.run(run(options))
    except KeyboardInterrupt:
        sys.exit(130)
    except ValueError as error:  # it says which variables to mend
        print(error, file=sys.stderr)
        sys.exit(2)
    except (aiotwhelp.AiotwhelpError, aiohttp.ClientError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
