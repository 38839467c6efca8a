"""The command: plays schedules, and prints what happened in them."""

from __future__ import annotations

import argparse
import random
import sys
import time

import tests.chaos
from tests.chaos.play import play
from tests.chaos.runs import Report, reports


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description=tests.chaos.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, help="play this schedule only")
    parser.add_argument("--first", type=int, default=0, help="the first seed (%(default)s)")
    parser.add_argument("--schedules", type=int, default=1000, help="how many (%(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="at once (%(default)s)")
    parser.add_argument("--hours", type=float, help="soak: go on for so long, from a random seed")
    options = parser.parse_args()
    if options.seed is not None:
        outcome = play(options.seed)
        print(outcome.plan)
        print(f"{outcome.requests} requests in {outcome.elapsed:.1f} virtual s: {outcome.ends}")
        return 0
    first, schedules = options.first, options.schedules
    if options.hours is not None:
        first, schedules = random.randrange(1 << 40), None
        print(f"from seed {first} on")
    began, total = time.monotonic(), Report()
    for report in reports(first, schedules, options.processes):
        total.add(report)
        for failure in report.failures:
            print(failure, flush=True)
        if options.hours is not None and time.monotonic() - began > 3600 * options.hours:
            break
    print(*total.lines(), f"  in {time.monotonic() - began:.0f} s", sep="\n")
    return bool(total.failures)


if __name__ == "__main__":
    sys.exit(main())
