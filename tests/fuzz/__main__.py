"""The command: each target for a while, from the kept corpus on; or what was found is kept."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import tests.fuzz
from tests.fuzz.targets import TARGETS

HERE = Path(__file__).parent
KEPT = HERE / "corpus"
WORDS = HERE / "words.txt"
BUILD = HERE.parents[1] / "build" / "fuzz"

#: Longer inputs are not kept: what they show, a shorter one shows, too.
_LONGEST_KEPT = 300

#: How atheris begins to tell of what a target raised.
_TRACEBACK = " === Uncaught Python exception: ==="


def main() -> int:
    """Do what the command line says; 1 if anything was found."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description=tests.fuzz.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("targets", nargs="*", metavar="target", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (%(default)s)")
    parser.add_argument("--keep", action="store_true", help="add to the kept corpus, and stop")
    options = parser.parse_args()
    targets = options.targets or list(TARGETS)
    if unknown := set(targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    work = keep if options.keep else partial(search, seconds=options.seconds)
    outcomes = [work(target) for target in targets]
    return 0 if all(outcomes) else 1


def search(target: str, seconds: int) -> bool:
    """Fuzz one target, say what came of it, and whether all went well."""
    found, crashes = BUILD / "corpus" / target, BUILD / "crashes"
    for place in (found, crashes):
        place.mkdir(parents=True, exist_ok=True)
    code, told = drive(
        target,
        *(str(found), str(KEPT / target)),
        f"-max_total_time={seconds}",
        f"-dict={WORDS}",
        f"-artifact_prefix={crashes / target}-",
        "-timeout=20",
        "-print_final_stats=1",
    )
    executions = re.search(r"number_of_executed_units: (\d+)", told)
    covered = re.findall(r" cov: (\d+)", told)
    print(
        f"{target:8} {int(executions[1]) if executions else 0:10,} executions, "
        f"{covered[-1] if covered else 0} branches: {'FAILED' if code else 'nothing found'}",
        flush=True,
    )
    if code:
        print(told[told.find(_TRACEBACK) :] if _TRACEBACK in told else told[-4000:])
    return code == 0


def keep(target: str) -> bool:
    """Add to the kept corpus what covers more than it does, as far as people can read it."""
    found, chosen = BUILD / "corpus" / target, BUILD / "chosen" / target
    shutil.rmtree(chosen, ignore_errors=True)
    chosen.mkdir(parents=True)
    for path in found.iterdir() if found.exists() else ():
        if is_readable(path.read_bytes()):
            shutil.copy(path, chosen)
    # Without counters: an input that goes the same way more often is not kept.
    code, told = drive(target, str(KEPT / target), str(chosen), "-merge=1", "-use_counters=0")
    for path in (KEPT / target).iterdir():
        if re.fullmatch(r"[0-9a-f]{40}", path.name):
            path.rename(path.with_name(f"found_{path.name[:8]}"))
    print(f"{target:8} {len(list((KEPT / target).iterdir()))} kept")
    if code:
        print(told[-4000:])
    return code == 0


def is_readable(data: bytes) -> bool:
    """Whether an input is a short text."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return False
    return len(data) <= _LONGEST_KEPT and all(line.isprintable() for line in text.split("\n"))


def drive(target: str, *arguments: str) -> tuple[int, str]:
    """Run one target in a process of its own; return its exit code and what it told."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.drive", target, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        cwd=HERE.parents[1],
    )
    return done.returncode, done.stdout.decode(errors="replace")


if __name__ == "__main__":
    sys.exit(main())
