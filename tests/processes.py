"""Real processes that share one ledger, and the server that counts what they do together.

Run as a script, this file is one such process: it makes calls until it is told to stop or has had
so many answered, and writes a line for each.
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

PATH = "/1.1/help/privacy.json"
ROOT = Path(__file__).parent.parent


class Worker:
    """One process, and how many of its calls were answered."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.served = 0
        self.said: list[str] = []
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
    ) -> Worker:
        """Start one; ``forks`` are made of it when it has its limiter, and do the same."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, ledger, *map(str, (calls, callers, forks))),
            env={**os.environ, **env, "PYTHONPATH": str(ROOT)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        return cls(process)

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            if line == b"served\n":
                self.served += 1
            else:
                self.said.append(line.decode().rstrip())

    @property
    def is_running(self) -> bool:
        return self.process.returncode is None

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

    try:
        async with aiotwhelp.Session.from_env(limiter=limiter) as session:
            await asyncio.gather(*(caller(session) for _ in range(min(callers, calls))))
    finally:
        await limiter.close()


def say(line: str) -> None:
    """Write a line in one piece: those who are forked share one pipe."""
    os.write(1, f"{line}\n".encode())


def tell(event: object) -> None:
    if "Ledger" in type(event).__name__:
        say(f"{type(event).__name__} {getattr(event, 'reason', '')}")


if __name__ == "__main__":
    calls, callers, forks = map(int, sys.argv[2:])
    made = aiotwhelp.Limiter(ledger=sys.argv[1], on_event=tell)
    for _ in range(forks):
        if not os.fork():
            break
    asyncio.run(main(made, calls, callers))
