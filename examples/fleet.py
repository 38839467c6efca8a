"""Twenty processes, as on so many hosts, share one quota through Redis or Valkey.

    python examples/fleet.py                        at AIOTWHELP_REDIS_URL, or on localhost
    python examples/fleet.py --ledger URL           another one

Without a server it says how to get one. The processes are those of workers.py.
"""

import asyncio
import os
import sys

import workers

import aiotwhelp

DEFAULT = "redis://localhost:6379"

HINT = """\
Where there is none, start one, for example with
    docker run --rm -p 6379:6379 valkey/valkey:8
or  apt-get install redis-server && redis-server --save ''
and set AIOTWHELP_REDIS_URL if it is elsewhere. On one host, examples/workers.py needs no server."""


async def reach(url: str) -> None:
    ledger = aiotwhelp.RedisLedger(url)
    try:
        async with asyncio.timeout(5):
            await ledger.secret()
    finally:
        await ledger.close()


def main() -> None:
    options = workers.parse(processes=20, calls=6)
    options.ledger = options.ledger or os.environ.get("AIOTWHELP_REDIS_URL") or DEFAULT
    try:
        asyncio.run(reach(options.ledger))
    except (ImportError, ValueError) as error:  # no client of Redis, or no URL of a server
        sys.exit(str(error))
    except (aiotwhelp.LedgerError, TimeoutError) as error:
        sys.exit(f"{str(error) or 'the ledger does not answer'}\n{HINT}")
    workers.main(options)


if __name__ == "__main__":
    main()
