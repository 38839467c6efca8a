"""The dialects of known APIs and servers, and the one that recognises them.

Each was taken from the API's own pages or from recorded answers; docs/dialects.md says which.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from aiotwhelp.headers import (
    X_DIALECT,
    Dialect,
    Family,
    Reading,
    WindowKind,
    WindowReading,
    caseless,
    family,
)
from aiotwhelp.ietf import PolicyList, SeparateFields
from aiotwhelp.values import NEVER, RESETS

#: Where nobody told more of a window than what is in the headers.
_WINDOW = WindowKind("window")

#: Drafts 07 to 10: one field with everything in it.
IETF = Dialect("ietf", (PolicyList(),))
#: Drafts 00 to 06: a field for each number. express-rate-limit, GitLab, many others.
IETF_SEPARATE = Dialect("ietf-separate", (SeparateFields(bucket="ratelimit-name"),))

#: GitHub names what it counts, and refuses with 403 as well. It has limits that it does not
#: announce: those refuse with calls remaining, and with a Retry-After, which holds for every route,
#: or with words alone; then it asks for at least a minute, and for more each time (docs.github.com,
#: rate limits for the REST API).
GITHUB = Dialect(
    "github",
    (
        family(
            WindowKind("primary", ceiling=3660.0),
            "x-ratelimit",
            bucket="x-ratelimit-resource",
        ),
    ),
    refusals_if_told=frozenset({403}),
    everywhere=(("retry-after", None),),
    refusal_words=("secondary rate limit",),
    pause=60.0,
)

#: Reddit tells what was used in place of a limit, and has decimals; its window is ten minutes.
REDDIT = Dialect(
    "reddit",
    (
        Family(
            WindowKind("10min", length=600.0, ceiling=3600.0),
            remaining="x-ratelimit-remaining",
            used="x-ratelimit-used",
            reset="x-ratelimit-reset",
            resets="delta",
        ),
    ),
)

#: Discord names the bucket of a route, and says of a refusal whether it is for all of them.
DISCORD = Dialect(
    "discord",
    (
        Family(
            WindowKind("bucket", ceiling=3600.0),
            "x-ratelimit-limit",
            "x-ratelimit-remaining",
            "x-ratelimit-reset-after",
            "delta",
            bucket="x-ratelimit-bucket",
        ),
    ),
    everywhere=(("x-ratelimit-global", "true"),),
)

#: OpenAI, Groq and Azure count requests and tokens; see ``cost={"tokens": 1200}``. Their resets are
#: when all are back.
OPENAI = Dialect(
    "openai",
    tuple(
        Family(
            WindowKind(unit, unit=unit, refills=True),
            f"x-ratelimit-limit-{unit}",
            f"x-ratelimit-remaining-{unit}",
            f"x-ratelimit-reset-{unit}",
            "duration",
        )
        for unit in ("requests", "tokens")
    ),
    retry_after=(("retry-after-ms", 1e-3),),
)

#: Anthropic counts requests, and tokens in three ways, in buckets that refill.
ANTHROPIC = Dialect(
    "anthropic",
    tuple(
        family(
            WindowKind(unit, length=60.0, ceiling=3600.0, unit=unit, refills=True),
            f"anthropic-ratelimit-{unit}",
            "timestamp",
        )
        for unit in ("requests", "tokens", "input-tokens", "output-tokens")
    ),
)

#: Mastodon writes a date, GoToSocial epoch seconds, in the same headers. Of several limits the
#: closest is shown.
MASTODON = Dialect("mastodon", (family(_WINDOW, "x-ratelimit", "timestamp", by_limit=True),))

#: Bluesky writes epoch seconds under the names of the IETF draft, whose reset is a delta.
BLUESKY = Dialect("bluesky", (replace(SeparateFields(), resets="epoch"),))

#: ``X-RateLimit-*`` of servers that nobody knows: its reset is taken for what it looks like. Where
#: a server has several limits, most show the one that is closest to its end; some list them all.
_PLAIN = Dialect("plain", (SeparateFields("x-ratelimit"),))
#: The same with a dash more, as X has it; Bucket4j tells a refusal's time in a field of its own.
_DASHED = Dialect(
    "plain",
    (SeparateFields("x-rate-limit"),),
    retry_after=(("x-rate-limit-retry-after-seconds", 1.0),),
)
PLAIN = replace(_DASHED, families=(*_PLAIN.families, *_DASHED.families))

#: Nothing but the Retry-After of a refusal.
RETRY_AFTER = Dialect("retry-after")


@dataclass(frozen=True, slots=True)
class _Sign:
    """By which headers a dialect is recognised: any of ``shown``, each of ``beside``."""

    dialect: Dialect
    shown: tuple[str, ...]
    beside: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def is_in(self, fields: Container[str]) -> bool:
        return (
            any(name in fields for name in self.shown)
            and all(name in fields for name in self.beside)
            and not any(name in fields for name in self.missing)
        )


#: The names of so many fields, of so many characters, are remembered together.
_MOST_NAMES = 64
_LONGEST_NAMES = 2048

#: Names that no other API uses for something else, or that are used for one thing only.
_SIGNS = (
    _Sign(
        X_DIALECT,
        (
            "x-app-limit-24hour-remaining",
            "x-user-limit-24hour-remaining",
            "x-account-rate-limit-remaining",
            "x-mediaratelimit-remaining",
        ),
    ),
    _Sign(IETF, ("ratelimit",)),
    _Sign(IETF_SEPARATE, ("ratelimit-remaining",)),
    _Sign(OPENAI, ("x-ratelimit-remaining-requests", "x-ratelimit-remaining-tokens")),
    _Sign(
        ANTHROPIC,
        tuple(source.remaining for source in ANTHROPIC.families if isinstance(source, Family)),
    ),
)

#: Dialects that have ``x-ratelimit-remaining`` in common, by what else they show. Others have a
#: Reset-After in milliseconds, or a Resource without what was used.
_RELATIVES = (
    _Sign(
        DISCORD,
        ("x-ratelimit-bucket", "x-ratelimit-reset-after"),
        beside=("x-ratelimit-reset", "x-ratelimit-reset-after"),
    ),
    _Sign(GITHUB, ("x-ratelimit-resource",), beside=("x-ratelimit-used",)),
    _Sign(REDDIT, ("x-ratelimit-used",), missing=("x-ratelimit-limit",)),
)


class _Auto(Dialect):
    """Recognises each answer's dialect by the names of its headers.

    Where several are spoken at once, as behind a proxy with limits of its own, all of them count.
    """

    __slots__ = ()

    def read(self, headers: Mapping[str, str], status: int = 200) -> Reading:
        """Return what the headers say; `Reading.dialect` names what was recognised."""
        fields = caseless(headers)
        spoken = _spoken(fields)
        if not spoken:
            return self.understand(fields, status)
        readings = [dialect.read(fields, status) for dialect in spoken]
        names = spoken[0].name if len(spoken) == 1 else _joined(spoken)
        reading = Reading(*readings[0][:-1], names)
        if len(readings) == 1:
            return reading
        waits = [each.retry_after for each in readings if each.retry_after is not None]
        return reading._replace(
            windows=_told_apart(spoken, readings),
            retry_after=max(waits, default=None),
            refused=any(each.refused for each in readings),
            everywhere=any(each.everywhere for each in readings),
            pause=max(each.pause for each in readings),
        )

    def spoken(self, reading: Reading) -> tuple[Dialect, ...]:
        """Return those that were recognised."""
        names = reading.dialect.split(" + ") if reading.dialect else ()
        return tuple(DIALECTS[name] for name in names)


def _joined(spoken: Iterable[Dialect]) -> str:
    return " + ".join(dict.fromkeys(dialect.name for dialect in spoken))


def _spoken(fields: Mapping[str, str]) -> Sequence[Dialect]:
    names = tuple(fields)
    is_short = len(names) <= _MOST_NAMES and sum(map(len, names)) <= _LONGEST_NAMES
    spoken = (_spoken_by if is_short else _spoken_by.__wrapped__)(names)
    if "x-rate-limit-remaining" in fields:
        own = _DASHED if _tells_no_epoch(fields.get("x-rate-limit-reset")) else X_DIALECT
        return (own, *(each for each in spoken if each is not own))
    return spoken


# A server's answers have the same fields, in the same order.
@lru_cache(maxsize=64)
def _spoken_by(names: tuple[str, ...]) -> tuple[Dialect, ...]:
    """Return the dialects that are told by their names alone."""
    shown = frozenset(name.lower() for name in names if isinstance(name, str))
    spoken = [sign.dialect for sign in _SIGNS if sign.is_in(shown)]
    is_dashed = "x-rate-limit-remaining" in shown
    if not is_dashed and "x-rate-limit-retry-after-seconds" in shown:
        spoken.append(_DASHED)
    # The fields that most have in common.
    if "x-ratelimit-remaining" in shown:
        spoken.append(next((r.dialect for r in _RELATIVES if r.is_in(shown)), _PLAIN))
    return tuple(spoken)


def _tells_no_epoch(said: str | None) -> bool:
    """Whether a reset is readable, and surely none of X's, which are epoch seconds."""
    return RESETS["any"](said) != NEVER and RESETS["any"](said) != RESETS["epoch"](said)


def _told_apart(
    spoken: Iterable[Dialect], readings: Iterable[Reading]
) -> tuple[WindowReading, ...]:
    """Return the windows of several dialects: names that two of them have in common are told apart.

    A server may call its policies whatever it likes.
    """
    told: dict[str, WindowReading] = {}
    for dialect, reading in zip(spoken, readings, strict=True):
        for window in reading.windows:
            name = window.kind.name
            if name in told:
                name = f"{dialect.name}: {name}"
                window = window._replace(kind=replace(window.kind, name=name))
            told[name] = window
    return tuple(told.values())


#: The default where only an API's address is known.
AUTO: Dialect = _Auto("auto")

#: By their names, as ``dialect=`` of `Session` takes them.
DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        AUTO,
        X_DIALECT,
        IETF,
        IETF_SEPARATE,
        GITHUB,
        REDDIT,
        DISCORD,
        OPENAI,
        ANTHROPIC,
        MASTODON,
        BLUESKY,
        PLAIN,
        RETRY_AFTER,
    )
}
