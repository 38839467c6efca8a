"""One target under atheris: ``python -m tests.fuzz.drive TARGET`` and libFuzzer's own arguments."""

from __future__ import annotations

import logging
import sys

import atheris

with atheris.instrument_imports(include=["aiotwhelp", "tests", "email", "json"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Fuzz a target, or run it on the files that are named, until libFuzzer ends the process."""
    name, *arguments = sys.argv[1:]
    logging.disable()
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
