"""What is known of an API, as data: where it lives, how it speaks, what it published.

Published limits serve display, estimates and keys whose answers carry no headers. They are a
first guess that headers replace: served limits have differed from every chart.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property, lru_cache
from ipaddress import ip_address

from yarl import URL

from aiotwhelp import checks
from aiotwhelp.dialects import AUTO
from aiotwhelp.headers import X_DIALECT, Dialect
from aiotwhelp.rates import LocalLimit
from aiotwhelp.routes import Routes, leading

#: Sending one of these twice does no more than sending it once (RFC 9110, 9.2.2).
IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})

#: What has no place in a URL; a half of a surrogate pair would be left out without a word.
_UNSENDABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")

_FIFTEEN_MINUTES = 900.0
_UNITS = {"s": 1, "min": 60, "h": 3600}

#: How endpoints are named, and what to write.
_ENDPOINT, _METHOD, _PATH = r"[^\s/]+ /\S*", r"[^\s/]+", r"/\S*"
_NAMED = (
    ("categories", re.compile(rf"\*|{_ENDPOINT}"), '"POST /orders", or "*"'),
    (
        "rates",
        re.compile(rf"\*|{_METHOD} \*|{_ENDPOINT}|{_PATH}"),
        '"/orders", "POST /orders" or "*"',
    ),
    ("costs", re.compile(rf"\*|{_METHOD}|{_ENDPOINT}"), '"POST /orders", "POST" or "*"'),
)


@dataclass(frozen=True, slots=True)
class PublishedLimit:
    """A limit as the API's own pages state it: ``limit`` calls per ``length`` seconds.

    ``scope`` tells whose calls it counts: "user" those made for one user, "app-only" those made
    with an app's own token, "app" those of an app for all its users together.
    """

    scope: str
    limit: int
    length: float


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint: a method and a route template, and what was published about them.

    ``limits`` may hold several at once, over different spans and scopes. ``app_auth`` tells
    whether a token of the app alone is accepted. ``retired`` is the day on which the API
    announced its end, None if it did not; ``hint`` says what to use instead.
    """

    method: str
    template: str
    limits: tuple[PublishedLimit, ...] = ()
    app_auth: bool = False
    retired: date | None = None
    hint: str = ""

    @property
    def name(self) -> str:
        """The method and the template, such as ``GET /1.1/help/privacy.json``."""
        return f"{self.method} {self.template}"

    @property
    def family(self) -> str:
        """The first component of the path after the version: ``help``, ``statuses``."""
        components = self.template.strip("/").removesuffix(".json").split("/")
        return components[min(1, len(components) - 1)]

    @property
    def user_limit(self) -> int | None:
        """Calls per 15 minutes for each user, where that was published."""
        return self.limit("user")

    @property
    def app_limit(self) -> int | None:
        """Calls per 15 minutes with an app's own token, where that was published."""
        return self.limit("app-only")

    def limit(self, scope: str, length: float = _FIFTEEN_MINUTES) -> int | None:
        """Return the published limit of a scope over a span in seconds, or None."""
        for published in self.limits:
            if published.scope == scope and published.length == length:
                return published.limit
        return None

    @property
    def farewell(self) -> str | None:
        """What to tell a caller who finds the endpoint gone (404, 410); None if nothing is known.

        One sentence without a full stop: when it was retired, and what to use instead.
        """
        if self.retired is not None:
            ended = f"{self.name} was retired on {self.retired.isoformat()}"
            return f"{ended}; {self.hint}" if self.hint else ended
        return f"{self.name} may have been withdrawn; {self.hint}" if self.hint else None


# Without slots, so that the index over the endpoints can be built when it is first asked for.
@dataclass(frozen=True)
class Api:
    """An API: its address, its header dialect, and what was published about its endpoints.

    Facts only, to be shared freely between sessions; equal facts are equal, and hashable.

    - ``base_url``: where paths are joined; http or https, without user, query or fragment.
    - ``origins``: where credentials may go, besides the origin of ``base_url``.
    - ``dialect``: how its answers announce limits; by default it is recognised.
    - ``categories``: from ``"POST /1.1/statuses/update.json"`` to a name; endpoints with one
      name spend one quota. ``"*"`` names every endpoint that is not named otherwise.
    - ``partitions``: leading parts of paths, such as ``"/channels/{id}"``, whose values have
      quotas of their own.
    - ``rates``: limits that no header announces, written as for `Limiter`: ``"*"`` is one for
      all routes of an identity together.
    - ``costs``: what calls take of windows that count something else than requests, by endpoint,
      by method, or ``"*"``: ``{"POST": {"points": 5}}``.
    - ``idempotent``: methods that may be sent again after a failure that may have been counted.
    - ``token_path``, ``invalidate_path``: where an app obtains and gives back its own token;
      ``user_token_path``: where a user's token is refreshed. Paths below the base, or URLs.

    Raises ValueError for a URL that cannot be the address of an API, and for names of
    endpoints that no call ever has; TypeError for what is of another kind.
    """

    name: str
    base_url: str
    dialect: Dialect = field(default=AUTO, repr=False)
    endpoints: Collection[Endpoint] = field(default=(), repr=False, hash=False)
    origins: tuple[str, ...] = ()
    categories: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)
    partitions: tuple[str, ...] = field(default=(), repr=False)
    rates: Mapping[str, LocalLimit | Sequence[LocalLimit]] = field(
        default_factory=dict, repr=False, hash=False
    )
    costs: Mapping[str, Mapping[str, int]] = field(default_factory=dict, repr=False, hash=False)
    idempotent: frozenset[str] = field(default=IDEMPOTENT_METHODS, repr=False)
    token_path: str | None = field(default=None, repr=False)
    invalidate_path: str | None = field(default=None, repr=False)
    user_token_path: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._check()
        base = _base(self.base_url)
        own = [_spelled(URL(_base(url))) for url in (base, *self.origins)]
        object.__setattr__(self, "base_url", base)
        object.__setattr__(self, "origins", tuple(dict.fromkeys(own)))

    def _check(self) -> None:
        checks.instance("an API's name", self.name, str, "a word such as 'shop'")
        checks.instance("dialect", self.dialect, Dialect, "a Dialect, such as DIALECTS['github']")
        for name, wanted, example in _NAMED:
            given = checks.instance(name, getattr(self, name), Mapping, "a mapping from endpoints")
            for endpoint in given:
                if not isinstance(endpoint, str) or not wanted.fullmatch(endpoint):
                    raise ValueError(f"{name}[{endpoint!r}] is for no endpoint: write {example}")
        for endpoint, quota in self.categories.items():
            checks.instance(f"categories[{endpoint!r}]", quota, str, "a name for the quota")
        for name, meaning in (("origins", "URLs"), ("partitions", "leading parts of paths")):
            checks.texts(name, getattr(self, name), meaning)
        methods = checks.texts("idempotent", self.idempotent, "methods")
        object.__setattr__(self, "idempotent", frozenset(each.upper() for each in methods))
        endpoints = self.endpoints
        checks.instance("endpoints", endpoints, Collection, "several Endpoints")
        if not isinstance(endpoints, _Catalogue):
            for each in endpoints:
                checks.instance("each of endpoints", each, Endpoint, "an Endpoint")

    def at(self, url: str | URL) -> Api:
        """Return the same API at another address, such as an emulator's.

        Credentials then go to that address only, and to none if it is http and no loopback
        host. Raises ValueError as the class does.
        """
        return replace(self, base_url=str(url), origins=())

    def url(self, path: str | URL) -> str:
        """Return the whole URL of a path below the base; a whole URL is returned as it is.

        Raises ValueError for schemes other than http and https, for a user or password in the
        URL, and for paths that do not start with one slash.
        """
        checks.instance("path", path, (str, URL), "a path such as '/2/users/me', or a URL")
        text = str(path)
        if not text.isprintable() and _UNSENDABLE.search(text):
            raise ValueError(
                f"{_shown(text)} has control characters or half a surrogate pair: "
                "pass what varies in a path as path_params"
            )
        if text.startswith("/") and not text.startswith("//"):
            return self.base_url + text
        if "://" not in text:
            raise ValueError(f"the path {_shown(text)} must start with one slash")
        if "@" in _authority(text) or _web_url(text).raw_user is not None:
            raise ValueError(f"{_shown(text)}: a user or password in a URL is not sent: pass auth=")
        return text

    def is_own(self, url: str | URL) -> bool:
        """Tell whether credentials may go to a URL: one of the origins, and not in the clear.

        http is accepted for loopback hosts only. A URL that names a user is never our own.
        """
        parsed = _parsed(url)
        if parsed is None:
            return False
        if parsed.raw_user is not None or parsed.raw_password is not None:
            return False
        if isinstance(url, str) and "@" in _authority(url):
            return False
        origin = _origin(parsed)
        if origin is None or origin not in self.origins:
            return False
        return parsed.scheme == "https" or _is_loopback(parsed.raw_host or "")

    def template(self, method: str, path: str | URL, written: str | None = None) -> str:
        """Return the route template of a path, or of a URL below the base.

        Where nothing is known of it, the template that its caller has ``written`` is as good.
        """
        below = written and written.removeprefix(self.base_url)
        return self._routes.match(method, self._below_base(path), below)

    def endpoint(self, method: str, path: str | URL) -> Endpoint | None:
        """Return what is known of the endpoint that a method and path (or URL) lead to."""
        return self._by_name.get(f"{method.upper()} {self.template(method, path)}")

    def quota_name(self, method: str, path: str | URL, written: str | None = None) -> str:
        """Return the readable part of a quota's key: a category, or method and template.

        GET and POST of one path are two quotas.
        """
        name = f"{method.upper()} {self.template(method, path, written)}"
        if not self.categories:
            return name
        return self._quotas.get(name) or self._quotas.get("*", name)

    def partition(self, path: str | URL) -> str:
        """Return the leading part of a path whose values have quotas of their own, or ""."""
        if not self.partitions:
            return ""
        below = self._below_base(path)
        return next(filter(None, (leading(part, below) for part in self.partitions)), "")

    def cost(self, method: str, path: str | URL, written: str | None = None) -> Mapping[str, int]:
        """Return what a call takes of windows that count something else than requests."""
        if not self.costs:
            return {}
        method = method.upper()
        costs = self._costs
        own = costs.get(f"{method} {self.template(method, path, written)}")
        return own or costs.get(method) or costs.get("*") or {}

    @cached_property
    def _routes(self) -> Routes:
        known = [(endpoint.method, endpoint.template) for endpoint in self.endpoints]
        named = map(_method_and_template, (*self.categories, *self.costs, *self.rates))
        return Routes([*known, *(each for each in named if each[1].startswith("/"))])

    @cached_property
    def _prefix(self) -> str:
        return URL(self.base_url).raw_path.rstrip("/")

    @cached_property
    def _quotas(self) -> dict[str, str]:
        return {self._as_known(name): quota for name, quota in self.categories.items()}

    @cached_property
    def _costs(self) -> dict[str, Mapping[str, int]]:
        return {self._as_known(name): cost for name, cost in self.costs.items()}

    def _as_known(self, name: str) -> str:
        """Return the name of an endpoint whose placeholders a user may name as he likes."""
        method, template = _method_and_template(name)
        if not template.startswith("/"):
            return name.upper()
        return f"{method} {self._routes.match(method, template)}"

    @cached_property
    def _by_name(self) -> dict[str, Endpoint]:
        named = ((endpoint.method.upper(), endpoint) for endpoint in self.endpoints)
        return {
            f"{method} {self._routes.match(method, endpoint.template)}": endpoint
            for method, endpoint in named
        }

    def _below_base(self, path: str | URL) -> str:
        if isinstance(path, str) and path.startswith("/") and not _has_dots(path):
            return path
        url = _url(path)
        # yarl resolves dots in whole URLs only, as it will when the request is made.
        url = url if url.absolute else URL(self.base_url + str(url))
        raw = url.raw_path
        if self._prefix and raw.startswith(f"{self._prefix}/") and _origin(url) in self.origins:
            return raw.removeprefix(self._prefix)
        return raw


def api_at(url: str | URL) -> Api:
    """Return an API of which only the address is known; its dialect is recognised.

    Raises ValueError as ``Api`` does.
    """
    base = _base(str(url))
    return Api(URL(base).raw_host or base, base)


def is_local(host: str) -> bool:
    """Tell whether a host is named as this machine, or as one on its own link.

    Names that resolve to such an address are not looked up. Addresses of a link (169.254.0.0/16)
    are where clouds keep the credentials of a machine.
    """
    host = host.lower().removesuffix(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        # Resolvers take 0x7f000001, 0177.0.0.1 and 127.1 for addresses too, as this does.
        address = ip_address(socket.inet_aton(host))
    except OSError:
        try:
            address = ip_address(host)
        except ValueError:
            return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_link_local or address.is_unspecified


@dataclass(frozen=True, slots=True)
class _Catalogue(Collection[Endpoint]):
    """The endpoints of a file of this package, read when someone first looks at them."""

    file: str

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(_load(self.file))

    def __len__(self) -> int:
        return len(_load(self.file))

    def __contains__(self, endpoint: object) -> bool:
        return endpoint in _load(self.file)


@lru_cache(maxsize=8)
def _load(file: str) -> tuple[Endpoint, ...]:
    import csv
    from importlib.resources import files

    text = files("aiotwhelp").joinpath(file).read_text("utf-8")
    return tuple(
        Endpoint(
            method=row["method"],
            template=row["path"],
            limits=(
                *_limits("user", row["user"]),
                *_limits("app-only", row["app_only"]),
                *_limits("app", row["whole_app"]),
            ),
            app_auth=row["app_auth"] == "yes",
            retired=date.fromisoformat(row["retired"]) if row["retired"] else None,
            hint=row["hint"],
        )
        for row in csv.DictReader(text.splitlines())
    )


def _limits(scope: str, cell: str) -> Iterator[PublishedLimit]:
    """Read ``900`` (per 15 minutes), ``300/3h``, or several: ``1/1s 300``."""
    for word in cell.split():
        limit, _, span = word.partition("/")
        yield PublishedLimit(scope, int(limit), _seconds(span) if span else _FIFTEEN_MINUTES)


def _seconds(span: str) -> float:
    unit = span.lstrip("0123456789")
    return float(int(span.removesuffix(unit)) * _UNITS[unit])


def _method_and_template(name: str) -> tuple[str, str]:
    method, _, template = name.rpartition(" ")
    return method.upper(), template


def _base(text: str) -> str:
    url = _web_url(text)
    if "@" in _authority(text) or url.raw_query_string or url.raw_fragment:
        raise ValueError(f"{_shown(text)}: an API's address has no user, query or fragment")
    return str(url).rstrip("/")


def _web_url(text: str) -> URL:
    url = _url(text)
    if url.scheme not in ("http", "https") or not url.raw_host:
        raise ValueError(f"{_shown(text)} is not an http or https URL")
    return url


def _url(url: str | URL) -> URL:
    parsed = _parsed(url)
    if parsed is None:
        raise ValueError(f"{_shown(str(url))} is not a URL")
    return parsed


def _parsed(url: str | URL) -> URL | None:
    # The parser's own words may quote a password: they do not even become a context.
    try:
        return URL(url)
    except (ValueError, TypeError, IndexError):
        # The last is yarl's, for brackets before an empty host (aio-libs/yarl#1822).
        return None


def _origin(url: URL) -> str | None:
    """Return the origin of a URL in its one spelling, or None for no web address."""
    if url.scheme not in ("http", "https") or not url.raw_host:
        return None
    return _spelled(url)


def _spelled(url: URL) -> str:
    # A host that ends in a dot is the same one, told not to try the local domain first.
    host = (url.raw_host or "").lower().removesuffix(".")
    return f"{url.scheme}://{f'[{host}]' if ':' in host else host}:{url.port}"


def _is_loopback(host: str) -> bool:
    host = host.lower().removesuffix(".")
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _authority(url: str) -> str:
    """Return what stands between ``//`` and the path, an empty user's @ included."""
    authority = url.partition("//")[2]
    for end in "/?#\\":
        authority = authority.partition(end)[0]
    return authority


def _shown(text: str) -> str:
    """Return a URL for an error's text, without what may be a password or a key."""
    text = text.rpartition("@")[2]
    for end in "?#":
        text = text.partition(end)[0]
    scheme, mark, rest = text.partition("//")
    # Where the host is missing, what stands for its port may be a password.
    authority, slash, path = rest.partition("/")
    host, colon, port = authority.partition(":")
    if colon and not port.isdigit() and "[" not in authority:
        authority = f"{host}:…"
    return repr(f"{scheme}{mark}{authority}{slash}{path}")


def _has_dots(path: str) -> bool:
    return "/." in path or "/%2" in path


#: The X API, v1.1 and v2.
X = Api(
    "X",
    "https://api.x.com",
    X_DIALECT,
    # The limits of v1.1 are those of the chart of 2018 where it names the endpoint, else of the
    # chart of 2013 to 2016; those of v2 are of August 2026. Where no limit stands, none is known.
    endpoints=_Catalogue("x_endpoints.csv"),
    origins=(
        "https://api.twitter.com",
        # Chunked uploads of media, the one part of v1.1 in daily use, live on these.
        "https://upload.x.com",
        "https://upload.twitter.com",
    ),
    # Published as one limit: 300 posts and reposts together per 3 hours, since 2018-10-22.
    # No other limit of the API is published as shared by several endpoints.
    categories={
        "POST /1.1/statuses/update.json": "POST statuses",
        "POST /1.1/statuses/retweet/{id}.json": "POST statuses",
    },
    token_path="/oauth2/token",  # noqa: S106 - a path, no password
    invalidate_path="/oauth2/invalidate_token",
    user_token_path="/2/oauth2/token",  # noqa: S106 - a path, no password
)
