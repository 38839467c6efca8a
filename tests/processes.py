"""Real processes that share one ledger, and the server that counts what they do together.

Run as a script, this file is one such process: it makes calls until it is told to stop or has had
so many answered, and writes a line for each. It begins when it is told to, so that it does not
matter how long it takes to start; and it says when it stood still, as on a machine that is busy.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import aiotwhelp
from tests.unhurried import wait_for_ledgers

PATH = "/1.1/help/privacy.json"
ROOT = Path(__file__).parent.parent

#: Seconds without a look at its loop after which a process says so: what it has leased may have run
#: out twice as late, and what it is about to send may come too late.
STILL = 1.0


class Worker:
    """One process, and how many of its calls were answered."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.served = 0
        self.said: list[str] = []
        #: Or it has ended before.
        self.is_ready = asyncio.Event()
        self._reading = asyncio.ensure_future(self._read())

    @classmethod
    async def start(
        cls,
        ledger: str,
        calls: int,
        env: Mapping[str, str],
        *,
        callers: int = 50,
        forks: int = 0,
        is_hurried: bool = False,
    ) -> Worker:
        """Start one; when it is ready it waits for `go`.

        ``forks`` are made of it when it has its limiter, and do the same. One that is not hurried
        waits for its ledger, whatever keeps that.
        """
        numbers = (calls, callers, forks, int(is_hurried))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, ledger, *map(str, numbers)),
            env={**os.environ, **env, "PYTHONPATH": str(ROOT)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        return cls(process)

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            if line == b"served\n":
                self.served += 1
            elif line == b"ready\n":
                self.is_ready.set()
            else:
                self.said.append(line.decode().rstrip())
        self.is_ready.set()

    @property
    def is_running(self) -> bool:
        return self.process.returncode is None

    @property
    def stood_still(self) -> int:
        return self.said.count("stood still")

    def send(self, signal_: signal.Signals) -> None:
        self.process.send_signal(signal_)

    async def ended(self) -> int:
        """Wait for its end, and for all that it has said."""
        status = await self.process.wait()
        await self._reading
        return status


def refused_by_window(requests: object, limit: int) -> Counter[int]:
    """Count refusals by how many windows had been filled before."""
    accepted, refused = 0, Counter[int]()
    for request in requests:  # type: ignore[attr-defined]
        if request.refused:
            refused[accepted // limit] += 1
        elif request.counted:
            accepted += 1
    return refused


async def main(limiter: aiotwhelp.Limiter, calls: int, callers: int) -> None:
    left = calls

    async def caller(session: aiotwhelp.Session) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await session.fetch(PATH)
            say("served")

    watching = asyncio.create_task(watch())
    try:
        async with aiotwhelp.Session.from_env(limiter=limiter) as session:
            await asyncio.gather(*(caller(session) for _ in range(min(callers, calls))))
    finally:
        await limiter.close()
        watching.cancel()


async def watch() -> None:
    """Say when this process did not get on."""
    loop = asyncio.get_running_loop()
    while True:
        before = loop.time()
        await asyncio.sleep(STILL / 10)
        if loop.time() - before > STILL:
            say("stood still")


def say(line: str) -> None:
    """Write a line in one piece: those who are forked share one pipe."""
    os.write(1, f"{line}\n".encode())


def tell(event: object) -> None:
    if "Ledger" in type(event).__name__:
        say(f"{type(event).__name__} {getattr(event, 'reason', '')}")


if __name__ == "__main__":
    calls, callers, forks, is_hurried = map(int, sys.argv[2:])
    if not is_hurried:
        wait_for_ledgers(setattr)
    made = aiotwhelp.Limiter(ledger=sys.argv[1], on_event=tell)
    say("ready")
    sys.stdin.readline()
    for _ in range(forks):
        if not os.fork():
            break
    asyncio.run(main(made, calls, callers))
