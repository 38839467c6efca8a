"""What the examples have in common as commands; nothing of it is about quotas.

Their numbers are checked, Ctrl-C is quiet, and what goes wrong is one line on stderr.
"""

import argparse
import asyncio
import logging
import math
import sys
from collections.abc import Coroutine
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
    options.add_argument("--live", action="store_true", help="go to the real API")
    return options


def whole(text: str) -> int:
    """Read a number of something, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number from 1 on")
    return number


def seconds(text: str) -> float:
    """Read a length of time, for argparse."""
    number = float(text)
    if not 1 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds from 1 on")
    return number


def port(text: str) -> int:
    """Read a port, for argparse."""
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port from 0 to 65535")
    return number
