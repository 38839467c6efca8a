"""The main job, measured: requests sent and makespan, as a row of the README's table.

    python benchmarks/main_job.py

A strict server in a process of its own, over real HTTP: windows of 5 s that end on whole seconds,
15 calls in each, and nothing forgiven. 100 callers want one answer each; the ideal is 30.0 s, six
resets after the first call. Then 60 callers, while the server's clock is 3 s behind ours; ideal
15.0 s. The numbers of requests are the server's.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import re
import subprocess
import sys
import time
from dataclasses import dataclass

import aiotwhelp

LIMIT, WINDOW = 15, 5.0


@dataclass(frozen=True, slots=True)
class Result:
    callers: int
    requests: int
    refused: int
    makespan: float

    @property
    def ideal(self) -> float:
        return (math.ceil(self.callers / LIMIT) - 1) * WINDOW


async def measure(callers: int, skew: float) -> Result:
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "aiotwhelp.emulator", "--port", "0", "--window", f"{WINDOW:g}"),
        *("--set", f"help/privacy={LIMIT}", f"--skew={skew:g}"),
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    environ = {}
    while not (line := (await server.stdout.readline()).decode()).startswith("#"):
        name, _, value = line.removeprefix("export ").strip().partition("=")
        environ[name] = value.strip("'")
    # A window that begins on a whole second has all of its length; skews are whole seconds too.
    await asyncio.sleep(1.01 - time.time() % 1)
    started = time.monotonic()
    async with aiotwhelp.Session.from_env(environ) as x:
        policy_of = aiotwhelp.Help(x).privacy
        await asyncio.gather(*(policy_of() for _ in range(callers)))
    makespan = time.monotonic() - started
    server.terminate()
    rest, _ = await server.communicate()
    requests, refused = map(int, re.findall(r"(\d+) requests, (\d+) refused", rest.decode())[0])
    return Result(callers, requests, refused, makespan)


async def main() -> None:
    results = await asyncio.gather(measure(100, 0), measure(60, -3))
    for result in results:
        print(
            f"{result.callers} callers: {result.requests} requests, {result.refused} refused, "
            f"{result.makespan:.1f} s (ideal {result.ideal:.1f} s)"
        )
    plain, skewed = results
    print(
        f"\n| **aiotwhelp {aiotwhelp.__version__}** | {plain.requests} | {plain.makespan:.1f} s "
        f"| {skewed.requests} |"
    )


if __name__ == "__main__":
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    asyncio.run(main())
