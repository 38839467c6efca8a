"""What the examples have in common as commands; nothing of it is about quotas.

Their numbers are checked, Ctrl-C is quiet, and what goes wrong is one line on stderr.
"""

import argparse
import asyncio
import logging
import math
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import aiohttp

import aiotwhelp


class FailedError(Exception):
    """An example did not do what it is for; the text says why."""


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run it to its end, with the exit code that a shell expects."""
    # Callers that wait are no news here: each example shows them in its own way.
    logging.getLogger("aiotwhelp").addHandler(logging.NullHandler())
    try:
        asyncio.run(main)
    except KeyboardInterrupt:
        sys.exit(130)
    except ValueError as error:  # it says which variables to set, or to mend
        print(error, file=sys.stderr)
        sys.exit(2)
    except (FailedError, aiotwhelp.AiotwhelpError, aiohttp.ClientError, OSError) as error:
        sys.exit(str(error) or "there was no answer in time")


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser that knows ``--live``."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument(
        "--live", action="store_true", help="go to the real API, or to AIOTWHELP_BASE_URL"
    )
    return options


def whole(text: str) -> int:
    """Read a number of something, for argparse."""
    return int(_read(text, int, 1, math.inf, "whole number from 1 on"))


def seconds(text: str) -> float:
    """Read a length of time, for argparse."""
    return _read(text, float, 1, sys.float_info.max, "number of seconds from 1 on")


def port(text: str) -> int:
    """Read a port, for argparse."""
    return int(_read(text, int, 0, 65535, "port from 0 to 65535"))


def _read(text: str, kind: Callable[[str], float], low: float, high: float, what: str) -> float:
    with suppress(ValueError):
        if low <= (number := kind(text)) <= high:
            return number
    raise argparse.ArgumentTypeError(f"{text} is no {what}")
