"""Twenty processes, as on so many hosts, share one quota through Redis or Valkey.

    python examples/fleet.py                        at AIOTWHELP_REDIS_URL, or on localhost
    python examples/fleet.py --ledger URL           another one

Without a server it says how to get one. The processes are those of workers.py.
"""

import os
import sys
from urllib.parse import urlsplit

import workers

DEFAULT = "redis://localhost:6379"


def is_reachable(url: str) -> bool:
    try:
        import redis
    except ImportError:
        sys.exit("this needs the client of Redis: pip install 'aiotwhelp[redis]'")
    url = url.replace("valkey://", "redis://", 1)
    try:
        with redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False
    except ValueError:
        sys.exit("a fleet's ledger is redis://host:port or valkey://host:port")


def main() -> None:
    options = workers.parse(processes=20, calls=6)
    options.ledger = options.ledger or os.environ.get("AIOTWHELP_REDIS_URL", DEFAULT)
    if not is_reachable(options.ledger):
        where = urlsplit(options.ledger).hostname or "localhost"
        sys.exit(
            f"there is no Redis or Valkey at {where} that answers. Start one, for example with\n"
            "    docker run --rm -p 6379:6379 valkey/valkey:8\n"
            "or  apt-get install redis-server && redis-server --save ''\n"
            "and set AIOTWHELP_REDIS_URL if it is elsewhere. "
            "On one host, examples/workers.py needs no server."
        )
    workers.main(options)


if __name__ == "__main__":
    main()
