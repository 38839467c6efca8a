"""What the headers of an answer say about quota: header fields in, a Reading out.

A Reading keeps to what was said. Whether a number is believed, and how long anyone waits for
it, is decided by the rule, not here. Whatever a server sends, reading it never raises, takes
time in proportion to its length, and gives finite numbers only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple, Protocol, TypeVar

from multidict import CIMultiDict, CIMultiDictProxy, istr

from aiotwhelp import checks
from aiotwhelp.values import NEVER, RESETS, Resets, count, number
from aiotwhelp.values import http_date as parse_date

__all__ = [
    "DAY_OF_APP",
    "DAY_OF_USER",
    "FIFTEEN_MINUTES",
    "X_DIALECT",
    "Dialect",
    "Family",
    "Frame",
    "Reading",
    "Source",
    "WindowKind",
    "WindowReading",
    "parse_date",
    "parse_retry_after",
]

T = TypeVar("T")

#: Headers as aiohttp has them; names of its kind are found in a third of the time.
_CASELESS = (CIMultiDictProxy, CIMultiDict)

_DATE = istr("date")
_RETRY_AFTER = istr("retry-after")
_AGE = istr("age")
_FROM_CACHE = istr("x-from-cache")
_CACHE = istr("x-cache")

#: Mappings whose keys are found as they are looked up themselves.
_KNOWN = (*_CASELESS, dict)

#: Makes a tuple with names in half of the time that a function written in Python takes.
_tuple = tuple.__new__

#: Longest value that is looked at where one of a few words is expected.
_LONGEST = 64
#: How much longer than its documented length anyone waits for a window: clocks disagree, and
#: users of Twitter saw waits of almost 16 minutes for 15.
_GRACE = 60.0
#: No window of a length that nobody told is waited for longer than this.
_DAY_AND_AN_HOUR = 25 * 3600.0


@dataclass(frozen=True, slots=True)
class WindowKind:
    """What a family of headers counts.

    ``scope`` is "identity" for a window of one route and one identity, "app" for one that all
    users of an app share on that route. ``length`` in seconds is the documented one and serves
    estimates only; 0 means that nobody told. No header makes anyone wait longer than ``ceiling``
    seconds: by default a little more than the length, or 25 hours where that is unknown.
    ``unit`` is what it counts: "requests", or something of which a call may cost many, "tokens".
    ``turns`` names the fields in which several windows take turns, the one with the fewest calls
    left being shown; "" for one that has fields of its own. Where it ``refills``, calls come back
    one by one: the reset may be when all are back, and a refused call's Retry-After is when one is.
    """

    name: str
    scope: str = "identity"
    length: float = 0.0
    ceiling: float = 0.0
    unit: str = "requests"
    turns: str = ""
    refills: bool = False

    def __post_init__(self) -> None:
        if self.scope not in ("identity", "app"):
            raise ValueError(f'scope is "identity" or "app", not {self.scope!r}')
        told = (self.length, self.ceiling)
        if not all(isinstance(each, (int, float)) and 0 <= each < checks.AGES for each in told):
            raise ValueError(f"length and ceiling are seconds, 0 where nobody told: {self!r}")
        if not self.ceiling:
            longest = self.length + max(_GRACE, self.length / 24)
            object.__setattr__(self, "ceiling", longest if self.length else _DAY_AND_AN_HOUR)


class WindowReading(NamedTuple):
    """What an answer said about one window.

    ``remaining`` is never negative and may exceed ``limit``. ``reset`` is in POSIX seconds of
    the server's clock; it may lie in the past or far ahead. ``resets_in`` is in seconds from the
    answer. At most one of the two is told; None means that nothing usable was said. ``bucket`` is
    the server's own name for what is counted, where routes may share it.
    """

    kind: WindowKind
    remaining: int
    limit: int | None
    reset: float | None
    resets_in: float | None = None
    bucket: str = ""


class Reading(NamedTuple):
    """What one answer said about quota and time.

    ``retry_after`` is in seconds from the answer, ``date`` in POSIX seconds of the server's
    clock. An answer that a cache gave is ``cached``: its windows and its date are those of an
    older answer, so neither is reported. ``refused`` says that the call was turned away for its
    rate, ``everywhere`` that this holds for every call of this identity, whatever its route.
    ``pause`` is for how many seconds the API's pages ask everyone to stay away after a refusal
    that says no time itself. ``dialect`` names what was recognised, where that was left to us.
    """

    windows: tuple[WindowReading, ...] = ()
    retry_after: float | None = None
    date: float | None = None
    cached: bool = False
    refused: bool = False
    everywhere: bool = False
    pause: float = 0.0
    dialect: str = ""


#: Reads one place of an answer.
_Read = Callable[[Mapping[str, str]], Iterable[WindowReading]]


class Source(Protocol):
    """Where in an answer windows are announced: a `Family` of headers, or a field with a list."""

    def read(self, fields: Mapping[str, str]) -> Iterable[WindowReading]:
        """Return what it says; names in ``fields`` are found in lower case. Never raises."""
        ...


@dataclass(frozen=True, slots=True)
class Family:
    """The header fields of one window, and how its reset is written (see `Resets`).

    ``remaining`` or ``used`` must be there: what is left is the one, or ``limit`` less the other.
    ``bucket`` is the field in which the server names what it counts. A field that holds both
    numbers, such as ``32/40``, is named as ``used`` (or ``remaining``) and as ``limit``.
    ``hides`` names kinds that do not count where this one is announced. ``by_limit`` says that
    several windows take turns in these fields, the one closest to its end being shown: each
    limit is a window of its own then.
    """

    kind: WindowKind
    limit: str = ""
    remaining: str = ""
    reset: str = ""
    resets: Resets = "epoch"
    used: str = ""
    bucket: str = ""
    hides: tuple[str, ...] = ()
    by_limit: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether each of its numbers has a field of its own, and nothing else counts."""
        is_whole = bool(self.limit and self.remaining and self.reset)
        return is_whole and not (self.used or self.by_limit or self._is_pair)

    @property
    def _is_pair(self) -> bool:
        return self.limit == self.sign

    @property
    def sign(self) -> str:
        """The field without which nothing is announced."""
        return self.remaining or self.used

    def __post_init__(self) -> None:
        checks.instance("kind", self.kind, WindowKind, "a WindowKind")
        for name in ("limit", "remaining", "reset", "used", "bucket"):
            checks.instance(name, getattr(self, name), str, "the name of a header, or ''")
        checks.texts("hides", self.hides, "names of window kinds")
        if not self.remaining and not self.used:
            raise ValueError(f"a family needs the header of remaining or of used: {self!r}")
        if self.resets not in RESETS:
            raise ValueError(f"resets is one of {', '.join(RESETS)}, not {self.resets!r}")
        for name in ("limit", "remaining", "reset", "used", "bucket"):
            object.__setattr__(self, name, istr(getattr(self, name).lower()))

    def read(self, fields: Mapping[str, str]) -> Iterable[WindowReading]:
        """Return what the fields say, as `Source` has it."""
        get = fields.get
        said = get(self.sign)
        if said is None:
            return ()
        limit_field = get(self.limit)
        if self._is_pair:
            said, _, limit_field = said.partition("/")
        limit = count(limit_field)
        remaining = count(said)
        if remaining is None:
            return ()
        if not self.remaining:
            if limit is None or limit < 0:
                return ()
            remaining = limit - remaining
        elif limit is None and self.used:
            used = count(get(self.used))
            limit = None if used is None or used < 0 else remaining + used
        if remaining < 0:
            # -1 of -1 is how some servers say that they do not know.
            if limit is not None and limit < 0:
                return ()
            remaining = 0
        if limit is not None and limit <= 0:
            limit = None
        reset, resets_in = RESETS[self.resets](get(self.reset)) if self.reset else NEVER
        bucket = (get(self.bucket) or "")[:_LONGEST] if self.bucket else ""
        kind = limited(self.kind, limit) if self.by_limit and limit else self.kind
        return (WindowReading(kind, remaining, limit, reset, resets_in, bucket),)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one API announces its windows: where, and which statuses refuse a call for its rate.

    ``families`` are the places, each a `Family` of headers as a rule. A status in ``refusals``
    refuses whatever the headers say; one in ``refusals_if_told`` (GitHub's 403) only where they
    say that nothing is left, or when to come back, or where the body has one of ``refusal_words``
    (in lower case). ``everywhere`` names the headers, with a value or with None for any, by which
    the server says that a refusal holds for all routes. ``pause`` is in seconds: for so long every
    route is left alone after a refusal with calls remaining and without a Retry-After, and for
    twice as long after each further one in a row. ``retry_after`` names fields that stand for a
    missing Retry-After, and the length in seconds of what they count.
    """

    name: str
    families: tuple[Source, ...] = ()
    refusals: frozenset[int] = frozenset({429, 420})
    refusals_if_told: frozenset[int] = frozenset()
    everywhere: tuple[tuple[str, str | None], ...] = ()
    refusal_words: tuple[str, ...] = ()
    pause: float = 0.0
    retry_after: tuple[tuple[str, float], ...] = ()
    #: The field without which a source says nothing, if there is one, and how it is read.
    _places: tuple[tuple[str, _Read], ...] = field(init=False, repr=False, compare=False)
    #: What nearly every answer announces, and the fields that none has where it is all.
    _main: Family | None = field(init=False, repr=False, compare=False)
    _marks: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._check()
        places = tuple((getattr(each, "sign", ""), each.read) for each in self.families)
        object.__setattr__(self, "_places", places)
        main = next(iter(self.families), None)
        is_plain = isinstance(main, Family) and main.is_plain
        is_plain = is_plain and 200 not in self.refusals | self.refusals_if_told
        signs = [sign for sign, _ in places[1:]]
        object.__setattr__(self, "_main", main if is_plain and all(signs) else None)
        marks = (_RETRY_AFTER, _AGE, _CACHE, _FROM_CACHE, *signs)
        object.__setattr__(self, "_marks", marks)

    def _check(self) -> None:
        """Look at what was passed, and spell names and words as they are looked for."""
        checks.instance("a dialect's name", self.name, str, "a word such as 'github'")
        families = self.families
        if not isinstance(families, tuple) or not all(hasattr(each, "read") for each in families):
            raise TypeError(f"families is a tuple of Family, not {families!r}")
        for name in ("refusals", "refusals_if_told"):
            statuses = getattr(self, name)
            if not isinstance(statuses, AbstractSet) or not all(
                type(each) is int for each in statuses
            ):
                raise TypeError(f"{name} is a set of statuses such as {{429}}, not {statuses!r}")
            object.__setattr__(self, name, frozenset(statuses))
        words = checks.texts("refusal_words", self.refusal_words, "words of a body")
        object.__setattr__(self, "refusal_words", tuple(each.lower() for each in words))
        pause = checks.seconds("pause", self.pause)
        object.__setattr__(self, "pause", pause or 0.0)
        for name, meaning in (
            ("everywhere", "a header and its value, or None for any"),
            ("retry_after", "a header and the seconds that it counts in"),
        ):
            pairs = checks.pairs(name, getattr(self, name)) or ()
            for header, _ in pairs:
                checks.instance(f"each of {name}", header, str, f"a pair: {meaning}")
            object.__setattr__(self, name, tuple((_lower(a), _lower(b)) for a, b in pairs))

    def __repr__(self) -> str:
        return f"<Dialect {self.name}>"

    def read(self, headers: Mapping[str, str], status: int = 200) -> Reading:
        """Return what the headers of one answer say.

        Any mapping will do, whether its look-ups mind case or not; where a field came in
        several lines, the first counts. Malformed values count as missing. Never raises for
        anything that a server sent.
        """
        fields = headers if isinstance(headers, _CASELESS) else caseless(headers)
        plain = self._read_plainly(fields) if status == 200 else None
        return self.understand(fields, status) if plain is None else plain

    def frame(self, headers: Mapping[str, str]) -> Frame | None:
        """Return what the next answers may have in common with one of status 200.

        None unless it tells the time, and of one window only.
        """
        fields = headers if isinstance(headers, _CASELESS) else caseless(headers)
        main = self._main
        if main is None or (reading := self._read_plainly(fields)) is None or reading.date is None:
            return None
        named = tuple(name for name in (main.limit, main.reset, main.bucket) if name)
        there = tuple(name for name in named if fields.get(name) is not None)
        gone, told = _look_ups(self._marks, named, there)
        window = reading.windows[0]
        try:
            texts = told(fields)
        except TypeError:  # they can be asked by `get` only
            return None
        return Frame(
            *(self, gone, told, texts, main.remaining, reading.date, window),
            window.resets_in,
        )

    def understand(self, fields: Mapping[str, str], status: int) -> Reading:
        """Do the same with fields whose look-ups find lower-case names."""
        get = fields.get
        date = parse_date(get(_DATE))
        said = get(_RETRY_AFTER)
        retry_after = None if said is None else parse_retry_after(said, date)
        refused = status in self.refusals
        is_stored = _AGE in fields or _CACHE in fields or _FROM_CACHE in fields
        if is_stored and _from_cache(get):
            return Reading(retry_after=retry_after, cached=True, refused=refused)
        windows: tuple[WindowReading, ...] = ()
        for sign, read in self._places:
            # Most answers show one family only: one look-up is all that the others cost.
            if (not sign or sign in fields) and (found := read(fields)):
                windows = (*windows, *found) if windows else tuple(found)
        if len(windows) > 1:
            windows = self._not_hidden(windows)
        if status in self.refusals_if_told:
            told = retry_after is not None or any(not each.remaining for each in windows)
            refused = refused or told
        if not refused:
            return Reading(windows, retry_after, date)
        if retry_after is None:
            retry_after = self._other_retry_after(fields)
        says_no_time = retry_after is None and all(each.remaining for each in windows)
        pause = self.pause if says_no_time else 0.0
        everywhere = pause > 0 or any(
            (said := fields.get(name)) is not None and value in (None, said.lower())
            for name, value in self.everywhere
        )
        return Reading(windows, retry_after, date, refused=True, everywhere=everywhere, pause=pause)

    def _read_plainly(self, fields: Mapping[str, str]) -> Reading | None:
        """Read an answer that tells of one window only, as nearly every one does.

        None leaves it to the others.
        """
        main = self._main
        if main is None or not _has_none(fields, self._marks):
            return None
        get = fields.get
        remaining = _digits(get(main.remaining))
        if remaining is None:
            return None
        try:
            date, limit, reset, resets_in = _frame(
                main.resets, get(_DATE), get(main.limit), get(main.reset)
            )
        except TypeError:
            return None  # the standard library has another type for what is no text
        bucket = (get(main.bucket) or "")[:_LONGEST] if main.bucket else ""
        told = (main.kind, remaining, limit, reset, resets_in, bucket)
        windows = (_tuple(WindowReading, told),)
        return _tuple(Reading, (windows, None, date, False, False, False, 0.0, ""))

    def _other_retry_after(self, fields: Mapping[str, str]) -> float | None:
        for name, unit in self.retry_after:
            delay = number(fields.get(name))
            if delay is not None and delay >= 0:
                return delay * unit
        return None

    def spoken(self, reading: Reading) -> tuple[Dialect, ...]:
        """Return the dialects that a reading was made by: this one, unless it recognises others."""
        return (self,)

    def refuses_by_words(self, status: int) -> bool:
        """Whether the body of an answer with that status may be what refuses a call."""
        return bool(self.refusal_words) and status in self.refusals_if_told

    def with_body(self, reading: Reading, status: int, body: str) -> Reading:
        """Return what an answer says whose body is known by now."""
        if not self.refuses_by_words(status):
            return reading
        if not any(words in body.lower() for words in self.refusal_words):
            return reading
        return reading._replace(refused=True, everywhere=self.pause > 0, pause=self.pause)

    def _not_hidden(self, windows: tuple[WindowReading, ...]) -> tuple[WindowReading, ...]:
        said = {window.kind.name for window in windows}
        hidden = {
            name
            for family in self.families
            if isinstance(family, Family) and family.kind.name in said
            for name in family.hides
        }
        if not hidden:
            return windows
        return tuple(window for window in windows if window.kind.name not in hidden)


#: Twitter's 15 minutes. Users saw waits of almost 16 where clocks disagreed; 960 s is the most.
FIFTEEN_MINUTES = WindowKind("15min", "identity", 900.0, 960.0)
#: The 24-hour write limits of v2, one for the whole app and one for each of its users.
DAY_OF_APP = WindowKind("24h-app", "app", 24 * 3600.0, 25 * 3600.0)
DAY_OF_USER = WindowKind("24h-user", "identity", 24 * 3600.0, 25 * 3600.0)
#: The Ads API's, which takes the place of the other one where it is announced.
ADS_ACCOUNT = WindowKind("ads-account", "identity", 900.0, 960.0)
#: Uploads of media per day.
MEDIA = WindowKind("24h-media", "identity", 24 * 3600.0, 25 * 3600.0)


def family(
    kind: WindowKind,
    prefix: str,
    resets: Resets = "epoch",
    *,
    bucket: str = "",
    hides: tuple[str, ...] = (),
    by_limit: bool = False,
) -> Family:
    """Return the family of ``prefix-limit``, ``prefix-remaining`` and ``prefix-reset``."""
    limit, remaining, reset = (f"{prefix}-{name}" for name in ("limit", "remaining", "reset"))
    return Family(
        kind, limit, remaining, reset, resets, bucket=bucket, hides=hides, by_limit=by_limit
    )


#: How the X API speaks: lower-case names on the wire since 2017, resets in epoch seconds.
X_DIALECT = Dialect(
    "x",
    (
        family(FIFTEEN_MINUTES, "x-rate-limit"),
        family(DAY_OF_APP, "x-app-limit-24hour"),
        family(DAY_OF_USER, "x-user-limit-24hour"),
        family(ADS_ACCOUNT, "x-account-rate-limit", hides=(FIFTEEN_MINUTES.name,)),
        family(MEDIA, "x-mediaratelimit"),
    ),
)


@lru_cache(maxsize=256)
def limited(kind: WindowKind, limit: int) -> WindowKind:
    """Return the kind of the window that has this limit, of several that take turns."""
    return replace(kind, name=f"{kind.name} of {limit}", turns=kind.name)


@dataclass(slots=True)
class Frame:
    """What answers of one window have in common while the server's clock shows a second."""

    dialect: Dialect
    #: Fields that no such answer has.
    marks: tuple[str, ...]
    #: What others said, all but what is left, and the name of that.
    told: Callable[[Any], tuple[Any, ...]]
    texts: tuple[Any, ...]
    remaining: str
    #: What that means.
    date: float
    window: WindowReading
    resets_in: float | None

    def left(self, headers: Mapping[str, str]) -> int:
        """Return what an answer of status 200 says is left, if all else is as it was; else -1."""
        if type(headers) is CIMultiDictProxy:  # as aiohttp's are
            is_bare = headers.keys().isdisjoint(self.marks)
        else:
            headers = caseless(headers)
            is_bare = _has_none(headers, self.marks)
        try:
            if not is_bare or self.told(headers) != self.texts:
                return -1
            said = headers[self.remaining]
        except (LookupError, TypeError):
            return -1
        # As `_digits` has it.
        if isinstance(said, str) and len(said) < 16 and said.isascii() and said.isdigit():
            return int(said)
        return -1

    def reading(self, remaining: int) -> Reading:
        """Return what an answer says in which so much is left."""
        kind, _, limit, reset, resets_in, bucket = self.window
        window = _tuple(WindowReading, (kind, remaining, limit, reset, resets_in, bucket))
        return _tuple(Reading, ((window,), None, self.date, False, False, False, 0.0, ""))


@lru_cache(maxsize=256)
def _frame(
    resets: Resets, date: str | None, limit: str | None, reset: str | None
) -> tuple[float | None, int | None, float | None, float | None]:
    """Read what answers of one window have in common."""
    most = count(limit)
    return parse_date(date), most if most is not None and most > 0 else None, *RESETS[resets](reset)


@lru_cache(maxsize=256)
def _look_ups(
    marks: tuple[str, ...], named: tuple[str, ...], there: tuple[str, ...]
) -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]:
    """Return the fields that no such answer has, and what looks up the others.

    Once for all quotas of an API: of each it would take 250 bytes.
    """
    told = itemgetter(_DATE, *(there or [_DATE]))  # of one it would return no tuple
    return (*marks, *(name for name in named if name not in there)), told


def _has_none(fields: Mapping[str, str], names: tuple[str, ...]) -> bool:
    """Whether none of some fields is there."""
    if fields.__class__ in _KNOWN:
        return fields.keys().isdisjoint(names)
    return not any(name in fields for name in names)


def _digits(said: object) -> int | None:
    """Return a number that is written in digits alone, None for anything else."""
    if isinstance(said, str) and len(said) < 16 and said.isascii() and said.isdigit():
        return int(said)
    return None


def parse_retry_after(value: object, date: float | None) -> float | None:
    """Return the seconds that a Retry-After asks for (RFC 9110, 10.2.3; floats are accepted).

    An HTTP-date is taken relative to ``date``, the Date of the same answer in POSIX seconds;
    without one it says nothing, since the local clock may be minutes off. Negative delays,
    dates in the past and garbage give None. Absurdly long delays are returned as they are.
    """
    if value is None:
        return None
    delay = number(value)
    if delay is None and date is not None:
        until = parse_date(value)
        delay = None if until is None else until - date
    return delay if delay is not None and delay >= 0 else None


def _from_cache(get: Callable[[str], str | None]) -> bool:
    """Tell whether a cache gave this answer (RFC 9111, 5.1, and what came before it).

    ``Age: 0`` is no sign: content networks put it on answers fresh from the origin. Caches that
    send the newer Cache-Status send Age as well.
    """
    age = get(_AGE)
    if age is not None and (number(age) or 0) > 0:
        return True
    marker = get(_FROM_CACHE)
    if marker is not None and _is_true(marker):
        return True
    verdict = get(_CACHE)
    return verdict is not None and _is_hit(verdict)


def _is_true(value: object) -> bool:
    return isinstance(value, str) and value.strip().lower() not in ("", "0", "false", "no")


def _is_hit(value: object) -> bool:
    """Tell whether an X-Cache names a hit: ``HIT``, ``MISS, HIT``, ``Hit from cloudfront``."""
    if not isinstance(value, str):
        return False
    # Only the first word of each layer is its verdict; a host name may follow.
    verdicts = [layer.lower().split() for layer in value[:_LONGEST].split(",")]
    return any(words and _served_stored(words[0]) for words in verdicts)


def _served_stored(verdict: str) -> bool:
    # Varnish calls it "hit for pass" or "hit for miss" when it remembers not to cache.
    return "hit" in verdict and "pass" not in verdict and "miss" not in verdict


def _lower(text: T) -> T | str:
    return text.lower() if isinstance(text, str) else text


def caseless(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return headers whose look-ups by lower-case name find any case.

    The headers of HTTP clients do so by themselves and are used as they are. Of what cannot be
    gone through name by name, as those of wsgiref cannot, a copy is made by its ``items()``.
    """
    if isinstance(headers, _CASELESS):
        return headers
    if not isinstance(headers, dict) and hasattr(headers, "__iter__"):
        name = next(iter(headers), None)
        if isinstance(name, str):
            swapped = name.swapcase()
            if swapped != name and swapped in headers:
                return headers
    fields: dict[str, str] = {}
    for name, value in headers.items():
        if isinstance(name, str):
            fields.setdefault(name.lower(), value)
    return fields
