"""How other services say what a window has left, and what they answer when it is spent.

A dialect is a table: header fields, spelled as on the wire, each with the function that writes
it. The functions are given an `Announcement` and may keep silent with None.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from .answers import Answer, answer, error, problem
from .clock import http_date
from .windows import Rounding, announced

#: What windows are called here, in X's words: the one that every endpoint has, and those of a day.
MAIN = "x-rate-limit"
USER_DAY = "x-user-limit-24hour"
APP_DAY = "x-app-limit-24hour"


@dataclass(frozen=True, slots=True)
class Standing:
    """One announced window as it stands; ``length`` in seconds, ``reset`` an instant.

    ``name`` is the dialect's word for it, ``unit`` what it counts, ``bucket`` what the server
    calls the endpoints that share it, ``pool`` whose calls it counts.
    """

    name: str
    unit: str
    bucket: str
    pool: str
    limit: int
    remaining: int
    length: float
    reset: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """A call that a limit turned away; ``until`` is the instant from which it may come.

    ``scope`` is what Discord calls it: "user", "shared" or "global". No header tells of a
    ``hidden`` limit. ``code`` and ``is_v2`` are what X writes its bodies from.
    """

    name: str
    unit: str
    scope: str
    hidden: bool
    until: float
    code: int
    is_v2: bool


@dataclass(frozen=True, slots=True)
class Announcement:
    """What one answer may say: some windows, the instant, and why a call was refused."""

    windows: tuple[Standing, ...]
    now: float
    rounding: Rounding
    refusal: Refusal | None = None

    @property
    def closest(self) -> Standing:
        """The window that is spent first; of several the one that is spent longest."""
        return min(self.windows, key=lambda window: (window.remaining, -window.reset))

    def seconds(self, value: float, decimals: int = 0) -> str:
        """Return seconds as asked for; where they must be whole, the exact ones are rounded up."""
        # Differences of instants near 2e9 are off by some 2.4e-7.
        value = max(0.0, round(value, 5))
        if self.rounding == "down":
            return str(math.floor(value))
        if self.rounding == "up" or not decimals:
            return str(math.ceil(value))
        return f"{math.ceil(round(value * 10**decimals, 2)) / 10**decimals:.{decimals}f}"


Writer = Callable[[Announcement], str | None]
Body = Callable[[Announcement, Refusal], Answer]


# How fields are written ------------------------------------------------------------------------


def _limit(said: Announcement) -> str:
    return str(said.closest.limit)


def _remaining(said: Announcement) -> str:
    return str(said.closest.remaining)


def _used(said: Announcement) -> str:
    return str(said.closest.limit - said.closest.remaining)


def _bucket(said: Announcement) -> str:
    return said.closest.bucket


def _x_epoch(said: Announcement) -> str:
    return announced(said.closest.reset, said.rounding)


def _epoch(said: Announcement) -> str:
    return said.seconds(said.closest.reset)


def _float_epoch(said: Announcement) -> str:
    return said.seconds(said.closest.reset, 3)


def _epoch_ms(said: Announcement) -> str:
    return str(round(float(said.seconds(said.closest.reset, 3)) * 1000))


def _delta(said: Announcement) -> str:
    return said.seconds(said.closest.reset - said.now)


def _float_delta(said: Announcement) -> str:
    return said.seconds(said.closest.reset - said.now, 3)


def _go_delta(said: Announcement) -> str:
    return go_duration(float(_float_delta(said)))


def _rfc3339(said: Announcement) -> str:
    return _moment(float(_epoch(said))).strftime("%Y-%m-%dT%H:%M:%SZ")


def _iso_8601(said: Announcement) -> str:
    return _moment(float(said.seconds(said.closest.reset, 6))).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _iso_8601_offset(said: Announcement) -> str:
    return _moment(float(_epoch(said))).isoformat(timespec="seconds")


def _reset_date(said: Announcement) -> str:
    return http_date(float(_epoch(said)))


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def go_duration(seconds: float) -> str:
    """Return a length as Go's ``time.Duration`` prints it: ``6m0s``, ``2m59.56s``, ``12ms``."""
    milliseconds = round(seconds * 1000)
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:g}s" if rest % 1000 else f"{rest // 1000}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _retry_after(said: Announcement) -> str | None:
    # RFC 9110, 10.2.3: whole seconds. Too short a hint would be a lie, whatever the rounding.
    if said.refusal is None:
        return None
    return str(max(0, math.ceil(round(said.refusal.until - said.now, 5))))


def _retry_after_if_hidden(said: Announcement) -> str | None:
    return _retry_after(said) if said.refusal is not None and said.refusal.hidden else None


def _if_refused(value: Callable[[Refusal], str | None]) -> Writer:
    return lambda said: None if said.refusal is None else value(said.refusal)


# IETF: draft-ietf-httpapi-ratelimit-headers ----------------------------------------------------


def _policies(said: Announcement) -> str:
    return ", ".join(f"{each.limit};w={_whole(each.length)}" for each in said.windows)


def _limit_and_policies(said: Announcement) -> str:
    return f"{_limit(said)}, {_policies(said)}"


def _in_one_field(said: Announcement) -> str:
    return f"limit={_limit(said)}, remaining={_remaining(said)}, reset={_delta(said)}"


def _structured(*, quoted: bool = True, keyed: bool = False) -> dict[str, Writer]:
    """Return the two fields of drafts -08 to -10, lists of strings with parameters."""

    def name(window: Standing) -> str:
        return f'"{window.name}"' if quoted else window.name

    def key(window: Standing) -> str:
        return f";pk=:{base64.b64encode(window.pool.encode()).decode()}:" if keyed else ""

    def policy(said: Announcement) -> str:
        return ", ".join(
            f"{name(each)};q={each.limit};w={_whole(each.length)}{key(each)}"
            for each in said.windows
        )

    def service(said: Announcement) -> str:
        return ", ".join(
            f"{name(each)};r={each.remaining};t={said.seconds(each.reset - said.now)}{key(each)}"
            for each in said.windows
        )

    return {"RateLimit-Policy": policy, "RateLimit": service}


def _whole(length: float) -> int:
    return max(1, math.ceil(length))


# Bodies of refusals ----------------------------------------------------------------------------


def _x_body(_: Announcement, refusal: Refusal) -> Answer:
    return problem(429) if refusal.is_v2 else error(refusal.code)


def _plain_body(_: Announcement, __: Refusal) -> Answer:
    text = b"Too many requests, please try again later."
    return Answer(429, text, {"Content-Type": "text/html; charset=utf-8"})


def _json_body(value: Any) -> Body:
    return lambda _, __: answer(value, 429)


def _ietf_body(_: Announcement, refusal: Refusal) -> Answer:
    made = {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Request cannot be satisfied as assigned quota has been exceeded",
        "violated-policies": [refusal.name],
    }
    return answer(made, 429, {"Content-Type": "application/problem+json"})


def _github_body(_: Announcement, refusal: Refusal) -> Answer:
    page = "https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api"
    if not refusal.hidden:
        return answer({"message": "API rate limit exceeded", "documentation_url": page}, 429)
    message = (
        "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."
    )
    secondary = f"{page}#about-secondary-rate-limits"
    return answer({"message": message, "documentation_url": secondary}, 429)


def _discord_body(said: Announcement, refusal: Refusal) -> Answer:
    delay = round(max(0.0, refusal.until - said.now), 3)
    is_global = refusal.scope == "global"
    message = "You are being rate limited."
    return answer({"message": message, "retry_after": delay, "global": is_global}, 429)


def _openai_body(said: Announcement, refusal: Refusal) -> Answer:
    delay = go_duration(max(0.0, refusal.until - said.now))
    message = f"Rate limit reached on {refusal.unit} per min. Please try again in {delay}."
    made = {
        "message": message,
        "type": refusal.unit,
        "param": None,
        "code": "rate_limit_exceeded",
    }
    return answer({"error": made}, 429)


def _azure_body(said: Announcement, refusal: Refusal) -> Answer:
    delay = math.ceil(max(0.0, refusal.until - said.now))
    message = f"Your requests have exceeded the rate limit. Please retry after {delay} seconds."
    return answer({"error": {"code": "429", "message": message}}, 429)


def _anthropic_body(_: Announcement, refusal: Refusal) -> Answer:
    message = f"This request would exceed your rate limit of {refusal.unit} per minute."
    return answer({"type": "error", "error": {"type": "rate_limit_error", "message": message}}, 429)


# The table -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dialect:
    """One service's way to say it.

    ``fields`` are written once for every group of windows: ``by`` "window" each of them, "unit"
    those that count the same, "all" together. ``{name}`` in a field's name is the group's.
    ``names`` are the dialect's words for windows. ``units`` are counted beside requests;
    ``unknown`` is said of a unit that has no limit. ``status`` is that of a refusal.
    """

    fields: Mapping[str, Writer] = field(default_factory=dict)
    by: Literal["window", "unit", "all"] = "all"
    names: Mapping[str, str] = field(default_factory=dict)
    units: tuple[str, ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, Writer] = field(default_factory=dict)
    body: Body = _plain_body
    status: int = 429

    def name(self, window: str) -> str:
        """Return what the dialect calls a window."""
        return self.names.get(window, window)

    def headers(self, said: Announcement) -> dict[str, str]:
        """Return the fields of one answer."""
        groups = self._groups(said.windows)
        headers: dict[str, str | None] = {
            field_name.format(name=name): writer(_narrowed(said, windows))
            for name, windows in groups.items()
            for field_name, writer in self.fields.items()
        }
        for unit in ("requests", *self.units):
            if unit not in groups:
                for name, text in self.unknown.items():
                    headers[name.format(name=unit)] = text
        if said.refusal is not None:
            for name, writer in self.refused.items():
                headers[name] = writer(said)
        return {name: value for name, value in headers.items() if value is not None}

    def _groups(self, windows: Iterable[Standing]) -> dict[str, list[Standing]]:
        groups: dict[str, list[Standing]] = {}
        for window in windows:
            key = {"window": window.name, "unit": window.unit, "all": ""}[self.by]
            groups.setdefault(key, []).append(window)
        return groups


def _narrowed(said: Announcement, windows: Iterable[Standing]) -> Announcement:
    return Announcement(tuple(windows), said.now, said.rounding, said.refusal)


def _three(limit: str, remaining: str, reset: str, write: Writer) -> dict[str, Writer]:
    return {limit: _limit, remaining: _remaining, reset: write}


_X = _three("{name}-limit", "{name}-remaining", "{name}-reset", _x_epoch)
_PLAIN = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
_IETF = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
_LOWER = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")
_UNITS = (
    "x-ratelimit-limit-{name}",
    "x-ratelimit-remaining-{name}",
    "x-ratelimit-reset-{name}",
)
_ANTHROPIC = (
    "anthropic-ratelimit-{name}-limit",
    "anthropic-ratelimit-{name}-remaining",
    "anthropic-ratelimit-{name}-reset",
)
_POLICIES = {
    MAIN: "default",
    USER_DAY: "user-day",
    APP_DAY: "app-day",
}
_RETRY_AFTER: dict[str, Writer] = {"retry-after": _retry_after}

#: Sources of names and values: the services' documentation and recorded answers.
DIALECTS: Mapping[str, Dialect] = {
    "x": Dialect(_X, by="window", body=_x_body),
    # Ads API: takes precedence over x-rate-limit-*, which it may stand beside.
    "x-ads": Dialect(_X, by="window", names={MAIN: "x-account-rate-limit"}, body=_x_body),
    "ietf-03": Dialect(
        {
            "RateLimit-Limit": _limit_and_policies,
            "RateLimit-Remaining": _remaining,
            "RateLimit-Reset": _delta,
        }
    ),
    "ietf-06": Dialect({**_three(*_IETF, _delta), "RateLimit-Policy": _policies}),
    "ietf-07": Dialect({"RateLimit": _in_one_field, "RateLimit-Policy": _policies}),
    "ietf-10": Dialect(_structured(), names=_POLICIES, body=_ietf_body),
    # The group has not decided between String and Token, so a client meets both.
    "ietf-10-token": Dialect(_structured(quoted=False), names=_POLICIES, body=_ietf_body),
    "ietf-10-pk": Dialect(_structured(keyed=True), names=_POLICIES, body=_ietf_body),
    "github": Dialect(
        {**_three(*_LOWER, _epoch), "x-ratelimit-used": _used, "x-ratelimit-resource": _bucket},
        refused={"retry-after": _retry_after_if_hidden},
        body=_github_body,
        status=403,
    ),
    "reddit": Dialect(
        {
            "x-ratelimit-used": _used,
            "x-ratelimit-remaining": lambda said: f"{said.closest.remaining:.1f}",
            "x-ratelimit-reset": _delta,
        },
        body=_json_body({"message": "Too Many Requests", "error": 429}),
    ),
    "discord": Dialect(
        {
            **_three(*_LOWER, _float_epoch),
            "x-ratelimit-reset-after": _float_delta,
            "x-ratelimit-bucket": _bucket,
        },
        refused={
            "x-ratelimit-scope": _if_refused(lambda refusal: refusal.scope),
            "x-ratelimit-global": _if_refused(
                lambda refusal: "true" if refusal.scope == "global" else None
            ),
            **_RETRY_AFTER,
        },
        body=_discord_body,
    ),
    "openai": Dialect(_three(*_UNITS, _go_delta), by="unit", units=("tokens",), body=_openai_body),
    "groq": Dialect(
        _three(*_UNITS, _go_delta),
        by="unit",
        units=("tokens",),
        refused=_RETRY_AFTER,
        body=_openai_body,
    ),
    "azure": Dialect(
        _three(*_UNITS, _delta),
        by="unit",
        units=("tokens",),
        unknown=dict(zip(_UNITS, ("-1", "-1", "0"), strict=True)),
        body=_azure_body,
    ),
    "anthropic": Dialect(
        _three(*_ANTHROPIC, _rfc3339),
        by="unit",
        units=("tokens", "input-tokens", "output-tokens"),
        refused=_RETRY_AFTER,
        body=_anthropic_body,
    ),
    "mastodon": Dialect(
        _three(*_PLAIN, _iso_8601), body=_json_body({"error": "Too many requests"})
    ),
    "mastodon-offset": Dialect(
        _three(*_PLAIN, _iso_8601_offset), body=_json_body({"error": "Too many requests"})
    ),
    "gotosocial": Dialect(
        _three(*_PLAIN, _epoch), body=_json_body({"error": "rate limit reached"})
    ),
    # The draft's names with an epoch, which the draft does not allow.
    "bluesky": Dialect(
        {
            "ratelimit-limit": _limit,
            "ratelimit-remaining": _remaining,
            "ratelimit-reset": _epoch,
            "ratelimit-policy": _policies,
        },
        body=_json_body({"error": "RateLimitExceeded", "message": "Rate Limit Exceeded"}),
    ),
    "gitlab": Dialect(
        {
            "RateLimit-Limit": _limit,
            "RateLimit-Name": _bucket,
            "RateLimit-Observed": _used,
            "RateLimit-Remaining": _remaining,
            "RateLimit-Reset": _epoch,
            "RateLimit-ResetTime": _reset_date,
        },
        refused={"Retry-After": _retry_after},
    ),
    "plain": Dialect(_three(*_PLAIN, _delta)),
    "milliseconds": Dialect(_three(*_PLAIN, _epoch_ms)),
    "retry-after": Dialect(refused={"Retry-After": _retry_after}),
    "none": Dialect(),
}
