"""Many async callers share one API quota, and none of them gets a 429."""

from __future__ import annotations

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
from aiotwhelp.help import EndpointLimit, Help, Language, RateLimitStatus
from aiotwhelp.ledger import Ledger, MemoryLedger, RedisLedger, SQLiteLedger
from aiotwhelp.limiter import Limiter, Permit
from aiotwhelp.middleware import RateLimitMiddleware
from aiotwhelp.queues import Priority
from aiotwhelp.rates import Concurrency, Rate
from aiotwhelp.services import Bluesky, Discord, GitHub, Reddit
from aiotwhelp.session import Session
from aiotwhelp.stores import RedisStore, SQLiteStore
from aiotwhelp.views import Quota, QuotaKey, Stats, WindowQuota

if TYPE_CHECKING:
    from aiotwhelp.emulator import Emulator

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


def __getattr__(name: str) -> Any:
    """Load the emulator, with aiohttp's server, only for those who use it."""
    if name == "Emulator":
        from aiotwhelp.emulator import Emulator

        return Emulator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
