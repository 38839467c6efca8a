"""What may go wrong on purpose, switchable while the server runs."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, get_args

from . import checks
from .windows import Rounding, Shape

#: Values that a broken proxy might leave in a numeric header; the last one is milliseconds.
GARBLED = ("abc", "-5", "1e999", "", "1764000000000")


_Drop = Literal["before", "after"] | None
_Date = Literal["on", "off", "garbled"]
_Hint = Literal["off", "seconds", "date"]

_SPAN = checks.seconds
_SHIFT = partial(checks.seconds, signed=True)
_CHANCE = checks.probability


def _hidden_limit(name: str, value: Any) -> None:
    if value is not None:
        checks.whole(name, value, least=1)


def _backends(name: str, value: Any) -> None:
    if not isinstance(value, (tuple, list)):
        raise ValueError(f"{name} is a tuple of seconds such as (0, 3), not {value!r}")  # noqa: TRY004
    for each in value:
        _SHIFT(f"each of {name}", each)


#: What each switch accepts; those that are not named are on or off.
_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "latency": _SPAN,
    "jitter": _SPAN,
    "drop_before": _CHANCE,
    "drop_after": _CHANCE,
    "truncated": _CHANCE,
    "errors": _CHANCE,
    "error_status": checks.status,
    "missing_headers": _CHANCE,
    "garbled_headers": _CHANCE,
    "edge_skew": _SHIFT,
    "date": partial(checks.choice, choices=get_args(_Date)),
    "backends": _backends,
    "retry_after": partial(checks.choice, choices=get_args(_Hint)),
    "reset_rounding": partial(checks.choice, choices=get_args(Rounding)),
    "late": _SPAN,
    "early": _SPAN,
    "hidden_limit": _hidden_limit,
    "hidden_span": partial(checks.seconds, positive=True),
    "competitor": checks.amount,
}


@dataclass(slots=True)
class Faults:
    """The switches of an emulator; each may be set at any moment.

    A misspelt one is an error, and so is a value that makes no sense (``ValueError``).

    Probabilities are between 0 and 1 and drawn from the emulator's seed. Times are in seconds.

    **The way**

    - ``latency``: how long an answer takes; half of it passes before the call is counted.
    - ``jitter``: at most so much more, drawn for each half, so that calls overtake each other.
    - ``drop_before``, ``drop_after``: probability that the connection is closed without an
      answer before the call is counted, or after it was carried out.
    - ``truncated``: probability that a body ends in the middle of what Content-Length promised.
    - ``errors``: probability of an answer with ``error_status`` instead of the endpoint's own;
      counted in the windows if ``errors_counted``, with their headers if ``error_headers``.

    **The headers**

    - ``missing_headers``: probability that an answer has no rate-limit headers.
    - ``garbled_headers``: probability that they hold nonsense: words, negatives, infinity,
      nothing, milliseconds.
    - ``edge_skew``: seconds by which ``Date`` differs from the clock of the resets, as when an
      edge writes the one and an origin the other.
    - ``date``: ``"off"`` leaves ``Date`` out, ``"garbled"`` makes it unreadable.
    - ``backends``: seconds added to the announced reset, taken in turn, as when two back ends
      disagree: ``(0, 3)``.
    - ``retry_after``: on refusals, ``"off"`` (as the API), ``"seconds"`` or ``"date"``.

    **The windows**

    - ``reset_rounding``: how a reset is announced: ``"down"``, ``"up"``, or ``"exact"``, which
      has decimals where the true end has.
    - ``whole_seconds``: windows begin on the whole second before their first call, so that they
      end on one; None means yes, unless ``reset_rounding`` is down or up.
    - ``late``, ``early``: the window ends so much after, or before, its announced reset; where
      calls come back one by one, they do so that much after, or before, what is announced.
    - ``hidden_limit``: calls per ``hidden_span`` and caller that no header tells of.
    - ``competitor``: calls that another consumer of the same quota makes for each of ours.
    - ``count_failures``: whether calls answered with 400 or more are counted (dropped
      connections and ``errors`` have switches of their own).
    - ``count_refused``: whether a call that one limit refuses is counted by the others.
    """

    latency: float = 0.0
    jitter: float = 0.0
    drop_before: float = 0.0
    drop_after: float = 0.0
    truncated: float = 0.0
    errors: float = 0.0
    error_status: int = 503
    errors_counted: bool = True
    error_headers: bool = False
    missing_headers: float = 0.0
    garbled_headers: float = 0.0
    edge_skew: float = 0.0
    date: _Date = "on"
    backends: tuple[float, ...] = ()
    retry_after: _Hint = "off"
    reset_rounding: Rounding = "exact"
    whole_seconds: bool | None = None
    late: float = 0.0
    early: float = 0.0
    hidden_limit: int | None = None
    hidden_span: float = 1.0
    competitor: float = 0.0
    count_failures: bool = True
    count_refused: bool = False

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _CHECKS:
            _CHECKS[name](name, value)
        object.__setattr__(self, name, value)

    def shape(self) -> Shape:
        """Return how windows begin and end under these switches."""
        whole = self.whole_seconds
        if whole is None:
            whole = self.reset_rounding == "exact"
        return Shape(whole, self.late, self.early)


class Dice:
    """Chance that can be repeated: every draw comes from one seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"{seed}:faults")

    def falls(self, probability: float) -> bool:
        """Tell whether something of that probability happens now."""
        return probability > 0 and self._random.random() < probability

    def delay(self, latency: float, jitter: float) -> float:
        """Return the seconds that one half of the way takes."""
        return (latency + (self._random.uniform(0, jitter) if jitter else 0.0)) / 2

    def nonsense(self) -> str:
        """Return a value that no number can be read from, or a wrong one."""
        return self._random.choice(GARBLED)


@dataclass(slots=True)
class Failure:
    """One or more requests that are to fail; see `Emulator.fail_next`."""

    left: int
    status: int = 503
    drop: _Drop = None
    counted: bool = True
    path: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None

    def take(self, drop: _Drop) -> bool:
        """Tell whether a request fails in that way now, and use it up."""
        if self.left < 1 or self.drop != drop:
            return False
        self.left -= 1
        return True
