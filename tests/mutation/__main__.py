"""The command: runs mutmut on one module after the other, and prints what survived."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from mutmut.mutation.diff_apply import get_diff_for_mutant

import tests.mutation
from tests.mutation.explained import Change, out_of_date, reason_of
from tests.mutation.forks import Fate
from tests.mutation.workspace import FORKS, TESTS, prepare


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutation",
        description=tests.mutation.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("modules", nargs="*", metavar="module", help=", ".join(TESTS))
    parser.add_argument("--again", action="store_true", help="only what survived last time")
    parser.add_argument("--show", action="store_true", help="run nothing, print the last results")
    parser.add_argument("--processes", type=int, default=2, help="at once (%(default)s)")
    options = parser.parse_args()
    wrong = 0
    for module in options.modules or TESTS:
        place = prepare(module, afresh=not (options.again or options.show))
        if not options.show:
            try_out(place, options.processes)
        wrong += report(place, module)
    return bool(wrong)


def try_out(place: Path, processes: int) -> None:
    """Run those mutants that no test has noticed yet."""
    command = [sys.executable, str(FORKS), "--processes", str(processes)]
    with (place / "log").open("a") as log:
        subprocess.run(command, cwd=place, check=True, stdout=log, stderr=log)


def results(place: Path, module: str) -> dict[str, Fate]:
    """What became of each mutant."""
    told = json.loads((place / "mutants" / "aiotwhelp" / f"{module}.py.meta").read_text())
    return {name: Fate.of(code) for name, code in told["exit_code_by_key"].items()}


def report(place: Path, module: str) -> int:
    """Print the score, and what is wrong with it; return how many things that are."""
    fates = results(place, module)
    os.chdir(place)
    found = {name: change_of(module, name) for name, fate in fates.items() if not fate.is_noticed}
    unexplained = [name for name, change in found.items() if reason_of(change) is None]
    for name in unexplained:
        print("{} ({fate})\n    - {}\n    + {}".format(*found[name], fate=fates[name]))
    stale = out_of_date(module.replace("/", "."), list(found.values()))
    for change in stale:
        print("explained, and does not survive: {}\n    - {}\n    + {}".format(*change))
    late = sum(fate is Fate.TOO_LATE for fate in fates.values())
    print(
        f"{module}: {len(fates)} mutants, {len(fates) - len(found)} killed ({late} by time), "
        f"{len(found) - len(unexplained)} explained, {len(unexplained)} neither",
        flush=True,
    )
    return len(unexplained) + len(stale)


def change_of(module: str, name: str) -> Change:
    """Return what a mutant changes."""
    diff = get_diff_for_mutant(name, path=Path("aiotwhelp") / f"{module}.py")
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++", "@@"))]
    without = " ".join(line[1:].strip() for line in lines if line.startswith("-"))
    instead = " ".join(line[1:].strip() for line in lines if line.startswith("+"))
    function = name.removeprefix("aiotwhelp.").rpartition("__mutmut_")[0]
    return function.replace("xǁ", "").replace("ǁ", ".").replace(".x_", "."), without, instead


if __name__ == "__main__":
    sys.exit(main())
