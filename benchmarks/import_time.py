"""What `import aiotwhelp` takes, next to `import aiohttp`; and the memory of an idle session.

    python -m benchmarks.import_time

Each import is a process of its own, in turn; CPU of the process, its start taken off. A session is
idle when its connections are made and nothing is asked.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from statistics import median

from benchmarks.common import arguments, footer, print_table

IMPORTS = {
    "(nothing)": "pass",
    "aiohttp": "import aiohttp",
    "aiohttp, oauthlib, tenacity": ("import aiohttp, oauthlib.oauth1, oauthlib.oauth2, tenacity"),
    "**aiotwhelp**": "import aiotwhelp",
}

TIMED = "{}; import time; print(time.process_time())"

SESSIONS = """
import asyncio, gc, aiohttp, aiotwhelp
from benchmarks.memory import resident

def plain():
    return aiohttp.ClientSession()

def ours():
    session = aiotwhelp.Session(aiotwhelp.X, auth=aiotwhelp.Bearer("a-token"))
    session._settings.pool.connect()
    return session

async def main():
    make = {}
    first = [make() for _ in range(100)]
    gc.collect()
    before = resident()
    many = [make() for _ in range(2000)]
    gc.collect()
    print((resident() - before) / 2000)
    for session in first + many:
        await session.close()

asyncio.run(main())
"""


def printed(code: str, bytecode: str) -> float:
    """Run a program of one number; its modules are compiled once, as those of a wheel are."""
    environ = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environ)
    return float(done.stdout)


def main(bytecode: str, *, quick: bool) -> None:
    taken: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for code in IMPORTS.values():
        printed(TIMED.format(code), bytecode)
    for _ in range(5 if quick else 15):
        for name, code in IMPORTS.items():
            taken[name].append(printed(TIMED.format(code), bytecode))
    start = median(taken.pop("(nothing)"))
    print_table(
        ("import", "CPU ms", "of aiohttp's"),
        [
            (
                name,
                f"{(median(each) - start) * 1e3:.0f}",
                f"{(median(each) - start) / (median(taken['aiohttp']) - start):.2f}",
            )
            for name, each in taken.items()
        ],
    )
    sizes = {name: printed(SESSIONS.replace("{}", name), bytecode) for name in ("plain", "ours")}
    print_table(
        ("an idle session", "bytes"),
        [
            ("aiohttp.ClientSession", f"{sizes['plain']:,.0f}"),
            ("**aiotwhelp.Session**, its limiter included", f"{sizes['ours']:,.0f}"),
        ],
    )
    footer("aiohttp", "oauthlib", "tenacity")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        main(directory, quick=arguments(__doc__).quick)
