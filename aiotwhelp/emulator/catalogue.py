"""The endpoints that the server knows: paths, who may call them, published limits.

The v1.1 rows come from a data file: the limits per 15 minutes of the official chart of August
2018, or of the chart before it where 2018's is silent. The v2 rows stand below.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

from . import checks

QUARTER = 900.0
DAY = 86_400.0

#: A limit as a test gives it: one number for both pools, a pair (user, app), or by name.
LimitOverride = int | tuple[int | None, int | None] | Mapping[str, int | None]

#: What `Endpoint` calls the limits that may be overridden by name.
_NAMES = {
    "user": "user",
    "app": "app",
    "user_24h": "user_day",
    "app_24h": "app_day",
    "per_second": "per_second",
}


@dataclass(frozen=True, slots=True)
class Cap:
    """A write limit that no header announces; endpoints with one ``pool`` share it."""

    limit: int
    seconds: float
    pool: str
    code: int


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one route template, with what may be called how often.

    ``user`` and ``app`` are calls per window of each user and of the app; None means that no
    limit is announced. ``user_day`` and ``app_day`` are 24-hour limits, ``per_second`` one that
    is never announced. Endpoints of one ``bucket`` are counted together.
    """

    method: str
    template: str
    family: str
    user: int | None
    app: int | None
    app_allowed: bool
    retired: str = ""
    cap: Cap | None = None
    user_day: int | None = None
    app_day: int | None = None
    per_second: int | None = None
    bucket: str = ""

    @property
    def pool(self) -> str:
        """The name under which its calls are counted."""
        return self.bucket or f"{self.method} {self.template}"

    @property
    def bucket_name(self) -> str:
        """What a server that names its buckets calls this one: the same for every caller."""
        words = f"{self.template} {self.method}".lower()
        return self.bucket or "-".join(re.findall(r"[a-z0-9]+", words))

    @property
    def is_v2(self) -> bool:
        """Whether it belongs to API v2, whose errors look different."""
        return self.template.startswith("/2/")

    @property
    def path(self) -> str:
        """The path on the wire, placeholders included."""
        return self.template if self.is_v2 else f"/1.1{self.template}.json"


class Catalogue:
    """Every endpoint, found by method and path.

    ``limits`` overrides by endpoint, ``limit`` for all: see `Emulator`. ``ValueError`` for an
    endpoint or a limit that does not exist, and for a limit that is no number of calls.
    """

    def __init__(
        self, limits: Mapping[str, LimitOverride] | None = None, limit: int | None = None
    ) -> None:
        endpoints = [*_v1(), *_V2]
        if limit is not None:
            checks.whole("limit", limit)
            endpoints = [_with_limit(endpoint, limit) for endpoint in endpoints]
        self._routes: dict[tuple[str, str], Endpoint] = {
            (endpoint.method, endpoint.template): endpoint for endpoint in endpoints
        }
        self._index: dict[tuple[int, str], list[tuple[list[str], Endpoint]]] = {}
        if limits is not None:
            checks.mapping("limits", limits, '{"help/privacy": 15}')
        for name, value in (limits or {}).items():
            self.override(name, value)

    def bundle(self, buckets: Mapping[str, str]) -> None:
        """Have the endpoints of a bucket share their windows; the lowest limit of each counts."""
        checks.mapping("buckets", buckets, '{"help/privacy": "help", "help/tos": "help"}')
        for name, bucket in buckets.items():
            if not isinstance(bucket, str) or not bucket:
                raise ValueError(f"the bucket of {name!r} is a name, not {bucket!r}")
            for endpoint in self.named(name):
                self._put(replace(endpoint, bucket=bucket))
        for bucket in set(buckets.values()):
            members = [endpoint for endpoint in self if endpoint.bucket == bucket]
            for endpoint in members:
                self._put(_leveled(endpoint, members))

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self._routes.values())

    def override(self, name: str, value: LimitOverride) -> None:
        """Replace the limits of the endpoints with that name, ``"GET /2/users/me"`` or shorter."""
        _check(name, value)
        pools = {endpoint.pool for endpoint in self.named(name)}
        for endpoint in [each for each in self if each.pool in pools]:
            self._put(_overridden(endpoint, value))

    def _put(self, endpoint: Endpoint) -> None:
        self._routes[endpoint.method, endpoint.template] = endpoint
        self._index.clear()

    def named(self, name: str) -> list[Endpoint]:
        """Return the endpoints called so, with or without method, version and suffix."""
        method, template = _parsed(name)
        found = [e for e in self if e.template == template and method in (None, e.method)]
        if not found:
            raise ValueError(f"the emulator knows no endpoint {name!r}")
        return found

    def match(self, method: str, path: str) -> tuple[Endpoint, dict[str, str]] | None:
        """Return the endpoint of a decoded path on the wire, and the path's parameters."""
        for endpoint, parameters in self._matches(path):
            if endpoint.method == method:
                return endpoint, parameters
        return None

    def methods(self, path: str) -> list[str]:
        """Return the methods that a path knows; none if it is no endpoint at all."""
        return sorted({endpoint.method for endpoint, _ in self._matches(path)})

    def _matches(self, path: str) -> list[tuple[Endpoint, dict[str, str]]]:
        segments = _wire_segments(path)
        found = []
        for template, endpoint in self._near(segments):
            parameters = _fitted(template, segments)
            if parameters is not None:
                found.append((endpoint, parameters))
        # `users/me` before `users/{id}`: the fewest placeholders win.
        return sorted(found, key=lambda match: len(match[1]))

    def _near(self, segments: list[str]) -> list[tuple[list[str], Endpoint]]:
        """Return the templates of as many segments that begin alike."""
        if not self._index:
            for endpoint in self:
                template = endpoint.template.split("/")
                self._index.setdefault(_beginning(template), []).append((template, endpoint))
        return self._index.get(_beginning(segments), [])


def _beginning(segments: list[str]) -> tuple[int, str]:
    # No template has a placeholder here: /users/… in v1.1, /2/users/… in v2.
    return len(segments), "/".join(segments[:3] if segments[1:2] == ["2"] else segments[:2])


def fits(template: str, path: str) -> dict[str, str] | None:
    """Return the parameters of a path that fits a template, None if it does not."""
    wanted, segments = template.split("/"), path.split("/")
    return _fitted(wanted, segments) if len(wanted) == len(segments) else None


def _wire_segments(path: str) -> list[str]:
    """Return what a path on the wire has to match; nothing if it is no path of the API."""
    # v1.1 names the format in the path, and knew only this one at the end; v2 never does.
    if path.startswith("/1.1/") and path.endswith(".json"):
        return path.removeprefix("/1.1").removesuffix(".json").split("/")
    return path.split("/") if path.startswith("/2/") else []


def _fitted(template: list[str], segments: list[str]) -> dict[str, str] | None:
    parameters: dict[str, str] = {}
    for wanted, segment in zip(template, segments, strict=True):
        if wanted[:1] in (":", "{"):
            if not segment:
                return None
            parameters[wanted.strip(":{}")] = segment
        elif wanted != segment:
            return None
    return parameters


def _parsed(name: str) -> tuple[str | None, str]:
    method, _, path = name.strip().rpartition(" ")
    path = "/" + path.lstrip("/").removeprefix("1.1/").removesuffix(".json")
    segments = (_placeholder(part, v2=path.startswith("/2/")) for part in path.split("/"))
    return method.strip().upper() or None, "/".join(segments)


def _placeholder(part: str, *, v2: bool) -> str:
    if part[:1] not in (":", "{"):
        return part
    name = part.strip(":{}")
    return f"{{{name}}}" if v2 else f":{name}"


def _with_limit(endpoint: Endpoint, limit: int) -> Endpoint:
    return replace(endpoint, user=limit, app=limit if endpoint.app_allowed else None)


def _check(name: str, value: Any) -> None:
    numbers = [value]
    if isinstance(value, Mapping):
        numbers = list(value.values())
    elif isinstance(value, tuple):
        if len(value) != 2:
            raise ValueError(f"the limits of {name!r} are a pair (user, app), not {value!r}")
        numbers = list(value)
    elif value is None:
        raise ValueError(f"the limit of {name!r} is a number; (None, None) is no limit at all")
    for number in numbers:
        if number is not None:
            checks.whole(f"the limit of {name!r}", number)


def _overridden(endpoint: Endpoint, value: LimitOverride) -> Endpoint:
    if isinstance(value, int):
        return _with_limit(endpoint, value)
    if isinstance(value, tuple):
        user, app = value
        return replace(endpoint, user=user, app=app, app_allowed=app is not None)
    unknown = set(value) - set(_NAMES)
    if unknown:
        raise ValueError(f"no such limit: {', '.join(sorted(unknown))}")
    changes: dict[str, Any] = {_NAMES[name]: number for name, number in value.items()}
    return replace(endpoint, **changes)


def _leveled(endpoint: Endpoint, members: Iterable[Endpoint]) -> Endpoint:
    def lowest(name: str) -> int | None:
        limits = [getattr(each, name) for each in members]
        return min((limit for limit in limits if limit is not None), default=None)

    changes: dict[str, Any] = {name: lowest(name) for name in _NAMES.values()}
    return replace(endpoint, **changes)


def _v1() -> list[Endpoint]:
    text = (resources.files("aiotwhelp.emulator") / "data" / "limits.csv").read_text(
        encoding="utf-8"
    )
    return [_from_row(row) for row in csv.DictReader(text.splitlines())]


def _from_row(row: Mapping[str, str]) -> Endpoint:
    return Endpoint(
        method=row["method"],
        template="/" + row["path"],
        family=row["family"],
        user=_number(row["user"]),
        app=_number(row["app"]),
        app_allowed=bool(row["app"]),
        retired=row["retired"],
        cap=_cap(row),
    )


def _cap(row: Mapping[str, str]) -> Cap | None:
    if not row["cap"]:
        return None
    return Cap(int(row["cap"]), float(row["cap_seconds"]), row["cap_shared"], int(row["cap_code"]))


def _number(text: str) -> int | None:
    return int(text) if text else None


def _read(template: str, user: int | None, app: int | None, **more: Any) -> Endpoint:
    return Endpoint("GET", template, template.split("/")[2], user, app, app is not None, **more)


# The table of August 2026, per 15 minutes unless named otherwise. The 2,400 posts a day are the
# account's cap; the app's 10,000 a day are in the table.
_V2: Iterable[Endpoint] = (
    _read("/2/users/me", 75, None),
    _read("/2/users", 900, 300),
    _read("/2/users/{id}", 900, 300),
    _read("/2/users/by/username/{username}", 900, 300),
    _read("/2/users/{id}/tweets", 900, 10_000),
    _read("/2/tweets", 5000, 3500),
    _read("/2/tweets/{id}", 900, 450),
    _read("/2/tweets/search/recent", 300, 450),
    _read("/2/tweets/search/all", 300, 300, per_second=1),
    Endpoint(
        "POST", "/2/tweets", "tweets", 100, None, app_allowed=False, user_day=2400, app_day=10_000
    ),
    Endpoint("POST", "/2/users/{id}/likes", "users", 50, None, app_allowed=False, user_day=1000),
)
