"""What is remembered of quotas: their lines, windows and clocks, and when they are forgotten."""

from __future__ import annotations

import hashlib
import secrets
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from weakref import WeakValueDictionary

from aiotwhelp.clock import ServerClock
from aiotwhelp.headers import WindowKind, WindowReading
from aiotwhelp.home import Home
from aiotwhelp.leases import ColdGate, LeasedConcurrency, LeasedRate, LeasedWindow, PaceGate
from aiotwhelp.local import LocalWindow, window_of
from aiotwhelp.matching import Rates, covers
from aiotwhelp.permits import HeldPermit
from aiotwhelp.queues import Line
from aiotwhelp.quota import Bucket, Household
from aiotwhelp.rates import LocalLimit, Rate
from aiotwhelp.settling import Settling
from aiotwhelp.sharing import Sharing, shares_of
from aiotwhelp.views import QuotaKey
from aiotwhelp.windows import INF, Numbering, Window

#: So many quotas are kept without a look at whether anyone still needs them; from there on
#: each new one has so many old ones looked at.
_FEW_QUOTAS = 1024
_LOOKS = 4

#: For each quota that is remembered so many credentials are: of a user, an app, and to spare.
_MATERIALS = 4

#: Digests of credentials are keyed, since plain ones of user ids can be found by trying all.
_DIGEST_KEY = secrets.token_bytes(16)


class Registry:
    """The quotas of one limiter, about ``max_quotas`` of them."""

    def __init__(
        self,
        home: Home,
        settling: Settling,
        sharing: Sharing | None,
        *,
        rates: Mapping[str, LocalLimit | Sequence[LocalLimit]],
        max_quotas: int,
    ) -> None:
        self._home = home
        self._settling = settling
        self._sharing = sharing
        self._max_quotas = max_quotas
        self.lines: dict[QuotaKey, Line] = {}
        #: The same, whose turn it is to be looked at first. An ordered dict would hold the loop
        #: for 40 ms when it grows beyond 87 000.
        self._rounds: deque[Line] = deque()
        self._rates = Rates(rates)
        #: Limits of an API's own, by its host.
        self._api_rates: dict[str, list[Rates]] = {}
        #: By API and identity; each lives as long as a line of it does.
        self._households: WeakValueDictionary[tuple[str, str], Household] = WeakValueDictionary()
        #: One for all quotas: a bound method of each would take 64 bytes.
        self._forget = self._forget_window
        self._numbering = Numbering()
        self.windows: dict[Hashable, Window] = {}
        #: By API, app and route.
        self._siblings: dict[tuple[str, str, str], _Siblings] = {}
        #: By API; each lives as long as a line of its API does.
        self._clocks: WeakValueDictionary[str, ServerClock] = WeakValueDictionary()
        #: What digests are of, for a ledger: other processes have other digests.
        self._materials: dict[str, str] = {}

    def line(self, key: QuotaKey) -> Line:
        """Return the line of a quota, a new one where nothing is remembered of it."""
        line = self.lines.get(key)
        if line is None:
            if len(self.lines) >= min(_FEW_QUOTAS, self._max_quotas):
                self._forget_some()
            clock = self._clock(key.api)
            line = self.lines[key] = Line(self._settling, key, self._new_bucket(key, clock), clock)
            self._rounds.append(line)
        return line

    def adopt(self, api: str, rates: Mapping[str, LocalLimit | Sequence[LocalLimit]]) -> None:
        """Hold an API's own limits from now on, beside those that are held already."""
        if not rates:
            return
        own = Rates(rates)
        known = self._api_rates.setdefault(api, [])
        if any(own.limits == each.limits for each in known):
            return
        known.append(own)
        for (host, identity), household in list(self._households.items()):
            if host == api:
                household.local += tuple(self._wide(own, host, identity))
        for line in self.lines.values():
            if line.key.api == api:
                bucket = line.bucket
                windows = self._local_windows([own], bucket.household.local, line.key)
                bucket.hold(each for each in windows if each not in bucket.local)

    def digest(self, material: str) -> str:
        """Return a keyed digest, and remember what it is of where a ledger is told of it."""
        digest = hashlib.blake2b(material.encode(), key=_DIGEST_KEY, digest_size=9).hexdigest()
        if self._sharing is not None:
            # What is used stays; of what nobody has used for longest the name is forgotten.
            self._materials.pop(digest, None)
            self._materials[digest] = material
            if len(self._materials) > _MATERIALS * max(self._max_quotas, _FEW_QUOTAS):
                del self._materials[next(iter(self._materials))]
        return digest

    def clock_of(self, api: str) -> ServerClock | None:
        """Return an API's clock, if any of its quotas is remembered."""
        return self._clocks.get(api)

    def _new_bucket(self, key: QuotaKey, clock: ServerClock) -> Bucket:
        siblings = self._siblings.setdefault((key.api, key.app, key.route), _Siblings())
        household = self._household(key)
        bucket = Bucket(
            partial(self._find_window, key, clock),
            self._numbering,
            key=str(key),
            rates=self._local_windows(self._rates_of(key.api), household.local, key),
            forget_window=self._forget,
            household=household,
            grants=HeldPermit,
        )
        if self._sharing is not None:
            name = self._name(key.api, key.app, key.identity, key.route)
            health = self._sharing.health
            bucket.share(
                ColdGate(bucket, name, self._numbering, health),
                PaceGate(bucket, (*name, "pace"), self._numbering, health),
            )
        siblings.join(bucket)
        return bucket

    def _household(self, key: QuotaKey) -> Household:
        place = (key.api, key.identity)
        household = self._households.get(place)
        if household is None:
            household = Household(
                each for rates in self._rates_of(key.api) for each in self._wide(rates, *place)
            )
            self._households[place] = household
        return household

    def _wide(self, rates: Rates, api: str, identity: str) -> Iterator[tuple[str, LocalWindow]]:
        """Return windows of the limits that all routes of an identity share."""
        for pattern, limit in rates.wide:
            yield pattern, self._local_window(limit, api, identity, pattern)

    def _local_windows(
        self, rates: Iterable[Rates], wide: Iterable[tuple[str, LocalWindow]], key: QuotaKey
    ) -> list[LocalWindow]:
        """Return the windows of one route: those of its own, and those that it shares."""
        own = [
            self._local_window(limit, key.api, key.identity, key.route)
            for some in rates
            for limit in some.of(key.route)
        ]
        return [*own, *(window for pattern, window in wide if covers(pattern, key.route))]

    def _local_window(self, limit: LocalLimit, api: str, identity: str, counts: str) -> LocalWindow:
        if self._sharing is None:
            return window_of(limit)
        # The app of a wide limit is of no matter: whoever calls is told by the identity.
        name = self._name(api, "", identity, counts, repr(limit))
        health = self._sharing.health
        if isinstance(limit, Rate):
            return LeasedRate(limit, name, self._numbering, health)
        return LeasedConcurrency(limit, name, self._numbering, health)

    def _rates_of(self, api: str) -> list[Rates]:
        return [self._rates, *self._api_rates.get(api, ())]

    def _find_window(
        self, key: QuotaKey, clock: ServerClock, reading: WindowReading, known: Window | None
    ) -> Window:
        if reading.bucket:
            return self._named_window(key, clock, reading, known)
        return self._window(key, clock, reading.kind)

    def _window(self, key: QuotaKey, clock: ServerClock, kind: WindowKind) -> Window:
        place = (key.api, _owner(key, kind), key.route, key.partition, kind.name)
        window = self.windows.get(place)
        if window is None:
            window = self._new_window(kind, clock, place, key, key.route)
            if kind.scope == "app":
                self._siblings[key.api, key.app, key.route].share(window)
        return window

    def _new_window(
        self, kind: WindowKind, clock: ServerClock, place: Hashable, key: QuotaKey, counts: str
    ) -> Window:
        window: Window
        if self._sharing is None:
            window = Window(kind, clock, self._numbering, place)
        else:
            name = self._name(key.api, key.app, _owner(key, kind), counts, kind.name)
            health = self._sharing.health
            window = LeasedWindow(kind, clock, self._numbering, place, name, health)
        self.windows[place] = window
        return window

    def _name(self, api: str, app: str, owner: str, *counted: str) -> tuple[str, ...]:
        """Return what a ledger's record is of, with what digests of this process stand for."""
        app = self._materials.get(app, app)
        kept = owner.removeprefix("app ")
        whose = self._materials.get(kept, kept)
        return (api, app, "app" if kept != owner else "identity", whose, *counted)

    def _named_window(
        self, key: QuotaKey, clock: ServerClock, reading: WindowReading, known: Window | None
    ) -> Window:
        """Return the window that a server calls by its own name, whatever the route.

        What one route alone has known of it without its name, callers included, goes into it.
        """
        kind = reading.kind
        place = (key.api, _owner(key, kind), key.partition, reading.bucket, kind.name)
        window = self.windows.get(place)
        if window is None:
            window = self._new_window(kind, clock, place, key, reading.bucket)
            window.bucket = reading.bucket
        if known is not None and not known.bucket:
            self.windows.pop(known.key, None)
            self._siblings[key.api, key.app, key.route].forget(known)
            window.absorb(known)
        return window

    def _clock(self, api: str) -> ServerClock:
        clock = self._clocks.get(api)
        if clock is None:
            clock = self._clocks[api] = ServerClock()
        return clock

    def _forget_some(self) -> None:
        """Look at a few quotas, longest ago first, and forget idle ones that are not needed.

        Those that have reset are not needed; beyond ``max_quotas`` no idle one is, and a quarter
        beyond it not even those that are spent or shut. One whose lost call may be yet to be
        counted is in use, a minute at most.
        """
        now = self._home.now()
        excess = len(self.lines) / self._max_quotas if self._max_quotas else INF
        needless = 0 if excess < 1.0 else 1 if excess < 1.25 else 2
        for _ in range(min(_LOOKS, len(self._rounds))):
            line = self._rounds.popleft()
            is_idle = line.is_idle() and not line.bucket.may_be_counted(now)
            if is_idle and self._worth(line, now) <= needless:
                del self.lines[line.key]
                self._forget_bucket(line.key, line.bucket)
            else:
                self._rounds.append(line)

    def _forget_bucket(self, key: QuotaKey, bucket: Bucket) -> None:
        family = (key.api, key.app, key.route)
        siblings = self._siblings[family]
        del siblings.buckets[bucket]
        unused = bucket.leave()
        if self._sharing is not None:
            gone = (bucket.cold, bucket.paced, *unused)
            for share in shares_of(bucket):
                share.leaves = share.gate in gone
                share.report_by(-INF)  # what is unused goes back
            self._sharing.settle_all()
        for window in unused:
            del self.windows[window.key]
            siblings.forget(window)
        if not siblings.buckets:
            del self._siblings[family]
            for window in siblings.windows:  # whoever was left presumed it, in vain
                del self.windows[window.key]

    def _forget_window(self, window: Window) -> None:
        # One that an app's users share is kept for those that are yet to come.
        if window.kind.scope != "app" or window.bucket:
            self.windows.pop(window.key, None)

    def _worth(self, line: Line, now: float) -> int:
        """0: nothing is known that still holds; 1: something is; 2: it is spent or shut."""
        holding = [w for w in line.bucket.windows if w.is_confirmed and now < w.ends]
        shut = any(w.shut > now for w in line.bucket.windows) or line.bucket.next > now
        local = line.bucket.local
        spent = any(window.available == 0 for window in holding)
        if shut or spent or any(each.expect(0) > now for each in local):
            return 2
        backs_off = line.bucket.pace.gap or line.bucket.probing.misses
        return 1 if holding or backs_off or any(each.holds(now) for each in local) else 0


class _Siblings:
    """The quotas of one app's users on one route, and the windows that all of them spend."""

    __slots__ = ("buckets", "windows")

    def __init__(self) -> None:
        self.buckets: dict[Bucket, None] = {}
        self.windows: list[Window] = []

    def join(self, bucket: Bucket) -> None:
        """Let one more presume that it shares what the others do."""
        self.buckets[bucket] = None
        for window in self.windows:
            bucket.presume(window)

    def share(self, window: Window) -> None:
        """Let the others presume that they share a window that one of them has shown.

        What they have on the way counts there, and whoever waits for it is before their callers.
        """
        self.windows.append(window)
        for bucket in self.buckets:
            bucket.presume(window)

    def forget(self, window: Window) -> None:
        """Let nobody presume that it shares a window that is no more."""
        if window in self.windows:
            self.windows.remove(window)


def _owner(key: QuotaKey, kind: WindowKind) -> str:
    """Return whose calls a window counts."""
    return f"app {key.app}" if kind.scope == "app" else key.identity
