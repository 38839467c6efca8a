"""All benchmarks, one after the other: Markdown on standard output.

python -m benchmarks
python -m benchmarks --quick
"""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.common import arguments

#: What each answers, by its module.
QUESTIONS = {
    "overhead": "What a request costs over aiohttp alone",
    "grant": "What a grant costs",
    "waiters": "What many waiters cost",
    "least_waiting": "How long callers wait, and what is refused",
    "ledger": "What a quota of many processes costs",
    "growth": "How time and memory grow",
    "memory": "What crowds and years leave behind",
    "import_time": "What importing it costs, and an idle session",
}

#: What takes many minutes in full: `python -m benchmarks.memory`, or `ledger`, does all of it.
ALWAYS_QUICK = {"ledger", "memory"}


def main(*, quick: bool) -> int:
    began, failed = time.monotonic(), []
    for module, question in QUESTIONS.items():
        print(f"## {question}: `python -m benchmarks.{module}`\n", flush=True)
        started = time.monotonic()
        command = [sys.executable, "-m", f"benchmarks.{module}"]
        if quick or module in ALWAYS_QUICK:
            command.append("--quick")
        if subprocess.run(command, check=False).returncode:
            failed.append(module)
        print(f"This took {time.monotonic() - started:.0f} s.\n", flush=True)
    print(f"{time.monotonic() - began:.0f} s; failed: {', '.join(failed) or 'none'}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(quick=arguments(__doc__).quick))
