"""One quota for several processes on one Redis: permits, client CPU and round trips.

    python -m benchmarks.ledger                 starts redis-server on a free port
    python -m benchmarks.ledger --quick

The first table is of a rate that nobody reaches, so that it is the limiters that are measured:
ours, and pyrate-limiter, limits and throttled-py (`pip install aiotwhelp[redis] pyrate-limiter
limits throttled-py`; who is not installed is passed over). The second is of a quota that a server
announces, spent to its end in window after window: by processes that share it through a ledger, and
by as many that have a part of it each and no ledger. CPU is that of the clients' processes; round
trips are the scripts that Redis has run.
"""

from __future__ import annotations

import asyncio
import fcntl
import importlib.util
import json
import logging
import mmap
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import redis

from aiotwhelp import Limiter, QuotaKey, Rate
from benchmarks.common import arguments, footer, micro, print_table
from tests.servers import engines

#: Callers of each process, who ask again at once.
CALLERS = 50
#: Seconds of a quota's window.
WINDOW = 3
#: Seconds that are not counted: connections are made, quotas found out.
WARMING = 3.5
ENOUGH = 10_000_000
#: When the window of a server ends, its calls, and those that it refused.
COUNTS = struct.Struct("qqq")
KEY = QuotaKey("GET /things", api="api", identity="somebody", app="app")

Acquire = Callable[[], Awaitable[object]]


# The limiters ----------------------------------------------------------------------------------


async def ours(url: str) -> Acquire:
    limiter = Limiter(ledger=url, rates={"GET /things": Rate(ENOUGH, per=1, burst=1000)})

    async def acquire() -> None:
        (await limiter.acquire(KEY)).observed({}, status=200)

    return acquire


async def by_limits(url: str) -> Acquire:
    from limits import RateLimitItemPerSecond
    from limits.aio.storage import RedisStorage
    from limits.aio.strategies import FixedWindowRateLimiter

    limiter = FixedWindowRateLimiter(RedisStorage(f"async+{url}", implementation="redispy"))
    item = RateLimitItemPerSecond(ENOUGH)

    async def acquire() -> object:
        return await limiter.hit(item, "things")

    return acquire


async def by_throttled(url: str) -> Acquire:
    from throttled.asyncio import RateLimiterType, Throttled, rate_limiter, store

    limiter = Throttled(
        key="things",
        using=RateLimiterType.TOKEN_BUCKET.value,
        quota=rate_limiter.per_sec(ENOUGH),
        store=store.RedisStore(server=url),
    )

    async def acquire() -> object:
        return await limiter.limit()

    return acquire


async def by_pyrate(url: str) -> Acquire:
    import pyrate_limiter
    from redis.asyncio import Redis

    rates = [pyrate_limiter.Rate(ENOUGH, pyrate_limiter.Duration.SECOND)]
    bucket = await pyrate_limiter.RedisBucket.init(rates, Redis.from_url(url), "things")
    limiter = pyrate_limiter.Limiter(bucket)

    async def acquire() -> object:
        return await limiter.try_acquire_async("things")

    return acquire


CONTESTANTS: dict[str, tuple[str, Callable[[str], Awaitable[Acquire]]]] = {
    "aiotwhelp": ("aiotwhelp", ours),
    "limits, fixed window": ("limits", by_limits),
    "throttled-py, token bucket": ("throttled", by_throttled),
    "pyrate-limiter": ("pyrate_limiter", by_pyrate),
}


PACKAGES = {
    "limits": "limits",
    "throttled-py": "throttled",
    "pyrate-limiter": "pyrate_limiter",
}


# A server that all processes call --------------------------------------------------------------


class Server:
    """Counts in fixed windows of whole seconds, in a file that the processes share.

    Whoever is counted apart has a place of its own there, behind the same lock.
    """

    def __init__(self, path: str, limit: int, window: int, place: int) -> None:
        self.limit, self.window = limit, window
        self._file = Path(path).open("r+b")  # noqa: SIM115 - held for as long as the process
        self._state = mmap.mmap(self._file.fileno(), 0)
        self._place = slice(COUNTS.size * place, COUNTS.size * (place + 1))

    def call(self) -> tuple[int, dict[str, str]]:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            ends, used, refused = COUNTS.unpack(self._state[self._place])
            if time.time() >= ends:
                ends, used = int(time.time()) + self.window, 0
            status = 200 if used < self.limit else 429
            used, refused = min(used + 1, self.limit), refused + (status == 429)
            self._state[self._place] = COUNTS.pack(ends, used, refused)
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        return status, {
            "x-rate-limit-limit": str(self.limit),
            "x-rate-limit-remaining": str(self.limit - used),
            "x-rate-limit-reset": str(ends),
        }


async def spending(url: str, told: Mapping[str, Any]) -> Acquire:
    limiter = Limiter(ledger=url or None)
    server = Server(told["path"], told["limit"], told["window"], told["place"])

    async def acquire() -> None:
        permit = await limiter.acquire(KEY)
        await asyncio.sleep(0.02)
        status, headers = server.call()
        permit.observed(headers, status=status)

    return acquire


# A process -------------------------------------------------------------------------------------


async def work(told: Mapping[str, Any]) -> None:
    """Acquire for so many seconds, when told to begin, and say what came of it."""
    logging.getLogger("aiotwhelp").setLevel(logging.ERROR)
    name = told["name"]
    acquire = await (
        spending(told["url"], told) if name == "spend" else CONTESTANTS[name][1](told["url"])
    )
    count = 0
    ends = 0.0

    async def caller() -> None:
        nonlocal count
        while time.monotonic() < ends:
            await acquire()
            count += 1

    if name != "spend":
        await acquire()  # connects
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    ends = time.monotonic() + WARMING + told["seconds"] + 1
    callers = [asyncio.ensure_future(caller()) for _ in range(told["callers"])]
    await asyncio.sleep(WARMING)
    cpu, before = time.process_time(), count
    await asyncio.sleep(told["seconds"])
    said = {"permits": count - before, "cpu": time.process_time() - cpu}
    print(json.dumps(said), flush=True)
    assert not any(each.done() for each in callers)
    os._exit(0)  # other libraries' connections are not ours to mourn


def played(processes: int, client: redis.Redis, **told: Any) -> tuple[int, float, float]:
    """Have so many processes work side by side; return permits, and CPU and round trips of each."""
    command = [sys.executable, "-m", "benchmarks.ledger", "--worker"]
    apart = told.pop("apart", False)
    workers = [
        subprocess.Popen(
            [*command, json.dumps({**told, "place": number if apart else 0})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    time.sleep(WARMING)
    before = commands(client)
    time.sleep(told["seconds"])
    trips = commands(client) - before
    said = [json.loads(worker.communicate()[0]) for worker in workers]
    permits = sum(each["permits"] for each in said)
    return permits, sum(each["cpu"] for each in said) / permits, trips / permits


# The tables ------------------------------------------------------------------------------------


def commands(client: redis.Redis) -> int:
    """Return how many scripts Redis has run so far: all of them do their work by one."""
    stats: Any = client.info("commandstats")
    return sum(stats.get(f"cmdstat_{word}", {"calls": 0})["calls"] for word in ("evalsha", "eval"))


def rates(client: redis.Redis, url: str, numbers: Sequence[int], seconds: float) -> None:
    rows = []
    for number in numbers:
        base = 0.0
        for name, (needs, _) in CONTESTANTS.items():
            if importlib.util.find_spec(needs) is None:
                continue
            client.flushall()
            permits, cpu, trips = played(
                number, client, name=name, url=url, seconds=seconds, callers=CALLERS
            )
            base = base or cpu
            rate = f"{permits / seconds:,.0f}"
            rows.append((name, str(number), rate, micro(cpu), f"{trips:.3f}", f"{cpu / base:.1f}"))
    print(f"A rate that nobody reaches, {CALLERS} callers a process:\n")
    header = ("", "processes", "permits/s", "CPU µs/permit", "round trips/permit", "CPU of ours")
    print_table(header, rows)


def quotas(
    client: redis.Redis, url: str, settings: Sequence[tuple[int, int, int]], seconds: float
) -> None:
    """Spend quotas of each limit, by so many processes, in so many rounds."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "server"
        for limit, processes, rounds in settings:
            told = {"name": "spend", "path": str(path), "window": WINDOW, "seconds": seconds}
            told |= {"callers": CALLERS}
            seen = [spent(client, url, limit, processes, told) for _ in range(rounds)]
            permits, refused = (sum(each[n] for each in seen) for n in (0, 1))
            alone, cpu, trips = (median(each[n] for each in seen) for n in (2, 3, 4))
            more = median(each[3] - each[2] for each in seen)
            times = (micro(alone), micro(cpu), micro(more, sign=True))
            numbers = (limit, processes, rounds, permits, refused)
            rows.append((*map(str, numbers), *times, f"{trips:.3f}"))
    print(f"A quota that a server announces for windows of {WINDOW} s, spent to its end:\n")
    header = ("limit", "processes", "rounds", "permits", "refused", "CPU µs/permit without")
    print_table((*header, "with a ledger", "more", "round trips/permit"), rows)
    print("Medians of the rounds, by turns without and with a ledger.\n")


def spent(
    client: redis.Redis, url: str, limit: int, processes: int, told: Mapping[str, Any]
) -> tuple[int, int, float, float, float]:
    """Return permits, refusals, a permit's CPU without a ledger and with one, round trips."""
    path = Path(told["path"])
    path.write_bytes(bytes(COUNTS.size * processes))
    part = -(-limit // processes)
    _, alone, _ = played(processes, client, url="", limit=part, apart=True, **told)
    path.write_bytes(bytes(COUNTS.size))
    client.flushall()
    permits, cpu, trips = played(processes, client, url=url, limit=limit, **told)
    return permits, COUNTS.unpack(path.read_bytes())[2], alone, cpu, trips


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        asyncio.run(work(json.loads(sys.argv[2])))
        return
    options = arguments(__doc__)
    if engines.REDIS.path is None:
        print(f"Redis is not here: {engines.REDIS.get}\n")
        return
    with engines.running(engines.REDIS) as engine, redis.Redis(port=engine.port) as client:
        if options.quick:
            rates(client, engine.url, (4,), 1.0)
            quotas(client, engine.url, [(900, 8, 1)], 6.0)
        else:
            rates(client, engine.url, (1, 4, 16), 3.0)
            # Those that have a bound are measured more often.
            settings = [(900, 1, 1), (900, 8, 3), (900, 16, 1), (15, 8, 3), (9000, 8, 1)]
            quotas(client, engine.url, settings, 6.0)
        print(f"Redis {client.info('server')['redis_version']}")
    present = [name for name in PACKAGES if importlib.util.find_spec(PACKAGES[name])]
    footer("redis", *present)


if __name__ == "__main__":
    main()
