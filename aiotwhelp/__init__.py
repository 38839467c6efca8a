"""Many async callers share one API quota, and none of them gets a 429."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from aiotwhelp.apis import Api, Endpoint, PublishedLimit, X
from aiotwhelp.auth import (
    Auth,
    Bearer,
    ClientCredentials,
    MemoryStore,
    OAuth1,
    OAuth2User,
    Token,
    TokenStore,
)
from aiotwhelp.dialects import DIALECTS
from aiotwhelp.errors import (
    AiotwhelpError,
    ApiError,
    AuthError,
    BodyError,
    BodyNotReplayableError,
    CostError,
    EndpointRetiredError,
    LedgerError,
    QuotaTimeoutError,
    RateLimitError,
    SessionClosedError,
    TooManyWaitersError,
    UsageCapError,
    WrongLoopError,
)
from aiotwhelp.headers import Dialect, Family, Reading, WindowKind, WindowReading
from aiotwhelp.ledger import Ledger
from aiotwhelp.limiter import Limiter
from aiotwhelp.middleware import RateLimitMiddleware
from aiotwhelp.permits import Permit
from aiotwhelp.queues import Priority
from aiotwhelp.rates import Concurrency, Rate
from aiotwhelp.services import Bluesky, Discord, GitHub, Reddit
from aiotwhelp.session import Session
from aiotwhelp.views import Quota, QuotaKey, Stats, WindowQuota

if TYPE_CHECKING:
    from aiotwhelp.emulator import Emulator
    from aiotwhelp.help import EndpointLimit, Help, Language, RateLimitStatus
    from aiotwhelp.ledger import MemoryLedger, RedisLedger, SQLiteLedger
    from aiotwhelp.stores import RedisStore, SQLiteStore

__version__ = "0.1.0"

__all__ = [
    "DIALECTS",
    "AiotwhelpError",
    "Api",
    "ApiError",
    "Auth",
    "AuthError",
    "Bearer",
    "Bluesky",
    "BodyError",
    "BodyNotReplayableError",
    "ClientCredentials",
    "Concurrency",
    "CostError",
    "Dialect",
    "Discord",
    "Emulator",
    "Endpoint",
    "EndpointLimit",
    "EndpointRetiredError",
    "Family",
    "GitHub",
    "Help",
    "Language",
    "Ledger",
    "LedgerError",
    "Limiter",
    "MemoryLedger",
    "MemoryStore",
    "OAuth1",
    "OAuth2User",
    "Permit",
    "Priority",
    "PublishedLimit",
    "Quota",
    "QuotaKey",
    "QuotaTimeoutError",
    "Rate",
    "RateLimitError",
    "RateLimitMiddleware",
    "RateLimitStatus",
    "Reading",
    "Reddit",
    "RedisLedger",
    "RedisStore",
    "SQLiteLedger",
    "SQLiteStore",
    "Session",
    "SessionClosedError",
    "Stats",
    "Token",
    "TokenStore",
    "TooManyWaitersError",
    "UsageCapError",
    "WindowKind",
    "WindowQuota",
    "WindowReading",
    "WrongLoopError",
    "X",
    "__version__",
]


#: What is loaded on first use, and from where: most programs use little of it.
_LATE = {
    "Emulator": "aiotwhelp.emulator",
    "EndpointLimit": "aiotwhelp.help",
    "Help": "aiotwhelp.help",
    "Language": "aiotwhelp.help",
    "MemoryLedger": "aiotwhelp.ledger.memory",
    "RateLimitStatus": "aiotwhelp.help",
    "RedisLedger": "aiotwhelp.ledger.redis",
    "RedisStore": "aiotwhelp.stores",
    "SQLiteLedger": "aiotwhelp.ledger.sqlite",
    "SQLiteStore": "aiotwhelp.stores",
}


def __getattr__(name: str) -> Any:
    """Load what few programs use when it is asked for."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_LATE[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATE})
