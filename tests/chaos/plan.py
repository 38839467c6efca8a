"""What happens in one schedule: composed from its seed, and from nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, fields

#: Faults after which no header could have told a caller what is left.
LIES = frozenset({"adversarial", "foreign", "misled", "names", "shrinking"})

#: Faults of which an answer that is not there or cannot be read is the consequence.
LOSSES = frozenset(
    {
        "bursts",
        "cached",
        "cancels",
        "drops",
        "garbled",
        "missing",
        "outages",
        "silence",
        "timeouts",
        "truncated",
    }
)

#: The chance of each of the kinds that were added later, and of one of those that were added last.
RARE = 0.06
SELDOM = 0.1

#: Kinds that speak X's language, or of windows that begin and end.
OF_FIXED_WINDOWS = frozenset({"brink", "lasting", "lull", "outcry", "restored"})

#: Seconds until a reset, as servers write them.
WRITTEN = ("exact", "up", "down")

#: When a late rollover is looked for, in seconds after the reset.
PROBES = (0, 1, 3, 7, 15, 31, 63, 123)


@dataclass
class Plan:
    """One schedule. Times are in seconds, chances from 0 to 1; kinds names the faults in it."""

    seed: int
    kinds: tuple[str, ...] = ()
    # The API.
    limit: int = 15
    length: float = 5.0
    app_limit: int = 0
    shy: bool = False
    # Calls come back one by one: how the seconds are written until all have.
    refills: str = ""
    # They come back together, and the seconds until then are told, written so.
    seconds: str = ""
    # A second window that takes turns with the first, and when it is lifted.
    narrow: int = 0
    narrow_length: float = 0.0
    lifted_at: float = float("inf")
    users: int = 1
    routes: int = 1
    # The callers.
    calls: int = 110
    spread: float = 0.0
    together: bool = False
    # The way there and back.
    latency: tuple[float, float] = (0.01, 0.08)
    drop_before: float = 0.0
    drop_after: float = 0.0
    truncated: float = 0.0
    slow: float = 0.0
    timeout: float | None = None
    outages: list[tuple[float, float]] = field(default_factory=list)
    bursts: list[tuple[float, float]] = field(default_factory=list)
    burst_counts: bool = False
    burst_status: int = 503
    silence: tuple[float, float] | None = None
    # Headers.
    missing: float = 0.0
    garbled: float = 0.0
    garbled_resets: float = 0.0
    adversarial: float = 0.0
    cached: float = 0.0
    retry_after: float = 0.0
    no_reset: bool = False
    misled: float = 0.0
    names: float = 0.0
    backends: tuple[float, ...] = (0.0,)
    # Its clock and windows.
    skew: float = 0.0
    drift: float = 0.0
    steps: list[tuple[float, float]] = field(default_factory=list)
    late: float = 0.0
    late_until: float = float("inf")
    early: float = 0.0
    shrink_at: float | None = None
    hidden_gap: float = 0.0
    hidden_from: float = 0.0
    hidden_until: float = float("inf")
    outcry: float = 0.0
    foreign: float = 0.0
    # What callers do.
    cancelled: float = 0.0
    dawdling: float = 0.0
    impatient: float = 0.0
    redirected: float = 0.0
    away: float = 0.0
    coalesced: float = 0.0
    written: float = 0.0
    costly: float = 0.0
    priorities: bool = False
    primed: bool = False
    horde: int = 0
    lull: bool = False
    brink: bool = False
    restored: str = ""
    close_at: float | None = None
    # The limiter.
    reserve: float = 0.0
    rate: float = 0.0
    max_quotas: int = 0

    def __str__(self) -> str:
        plain = Plan(self.seed)
        changed = [
            f"{each.name}={getattr(self, each.name)!r}"
            for each in fields(self)
            if each.name not in ("seed", "kinds")
            and getattr(self, each.name) != getattr(plain, each.name)
        ]
        return f"seed {self.seed}: {', '.join(self.kinds)} ({', '.join(changed)})"

    def has(self, *kinds: str) -> bool:
        return not set(kinds).isdisjoint(self.kinds)

    @property
    def fields(self) -> str:
        """The names of the fields that tell of a user's own windows."""
        written = self.refills or self.seconds
        if written == "exact":
            return "x-ratelimit-{}-requests"
        return "x-ratelimit-{}" if written or self.narrow else "x-rate-limit-{}"

    @property
    def most_at_once(self) -> int:
        """What a call may cost, and ever be let through."""
        return min(each for each in (self.limit, self.app_limit, self.narrow) if each)

    @property
    def lies(self) -> bool:
        return self.has(*LIES)

    @property
    def blurs_windows(self) -> bool:
        """Whether a caller may take one window of the server's for two, or two for one."""
        return self.has(
            "adversarial", "garbled", "cached", "misled", "steps", "backends", "early", "no_reset"
        )

    @property
    def has_one_clock(self) -> bool:
        """Whether the server's Date and its windows follow one steady clock."""
        return not self.has("adversarial", "steps", "drift", "backends", "early")

    @property
    def is_understood(self) -> bool:
        """Whether what answers tell of resets, if anything, is true or rounded."""
        false = {"drift", "steps", "early", "garbled", *LIES}
        return max(self.backends) <= (1.0 if self.length < 60.0 else 2.0) and not self.has(*false)

    @property
    def has_near_windows(self) -> bool:
        """Whether one window's reset may be taken for that of the next."""
        return self.length < 10.0 and (max(self.backends) > 0.0 or self.early > 0.0)

    @property
    def has_only_a_hidden_limit(self) -> bool:
        """Whether all refusals with calls left come from it."""
        return self.has("hidden") and not (self.has("app", "costly", *LIES, *LOSSES))

    def is_of(self, reset: float, ends: float) -> bool:
        """Whether a reset is that of a window that ends then."""
        return -0.5 < reset - ends < max(self.backends) + 0.5

    def most_refused(self, length: float) -> int | None:
        """Refusals of one such window that callers may see; None if no header could have told."""
        if self.has("hidden", "no_reset", *LIES) or (self.refills and self.drift):
            return None
        # A clock that is set back, or slows down, is a late rollover of that size.
        late = self.late - min(0.0, self.drift) * length
        # Dates tell whole seconds: a drift is noticed once it has come to more than one.
        late += self.drift < 0
        late -= sum(by for _, by in self.steps if by < 0)
        # A lost or unreadable answer leaves one call unknown, and a probe finds out.
        return int(self.has(*LOSSES)) + sum(at < late for at in PROBES)

    @property
    def is_spent_to_the_end(self) -> bool:
        """Whether every window but the last is: nothing but waiting callers, from the start."""
        return (
            set(self.kinds) <= {"app", "cancels", "drops", "skew", "late", "redirects", "truncated"}
            and self.spread == 0
            and self.length == 900
            and self.users == 1
        )

    @property
    def everyone_is_served(self) -> bool:
        if self.has(
            "adversarial", "bursts", "outages", "impatient", "closing", "timeouts", "silence"
        ):
            return False
        if self.has("no_reset", "late_once"):
            return False  # a caller may be refused more often than it puts up with
        if self.dawdling:
            return False  # a middleware may give up more often than a caller tries
        # A write that may have been done is not repeated.
        return not (self.written and self.has(*LOSSES))


def compose(seed: int) -> Plan:
    """Compose a schedule of at least three kinds of fault."""
    dice = random.Random(seed)
    plan = Plan(
        seed,
        limit=dice.choice([3, 5, 8, 15, 40]),
        length=dice.choice([5.0, 15.0, 900.0]),
        users=dice.choice([1, 1, 1, 2, 3]),
        routes=dice.choice([1, 1, 2]),
        calls=dice.randint(100, 130),
        spread=dice.choice([0.0, 0.0, 3.0, 20.0]),
    )
    names = dice.sample(list(KINDS), dice.choice([3, 3, 4, 5, 6]))
    plan.kinds = tuple(sorted(names))
    for name in plan.kinds:
        KINDS[name](plan, dice)
    # From dice of their own: what comes to these leaves the course of all other schedules as it is.
    dice = random.Random(seed ^ 0xADDED)
    more = [name for name in MORE_KINDS if dice.random() < RARE]
    plan.kinds = tuple(sorted((*names, *more)))
    for name in more:
        MORE_KINDS[name](plan, dice)
    dice = random.Random(seed ^ 0x1AAE)
    if dice.random() < SELDOM and not plan.has(*OF_FIXED_WINDOWS):
        last = dice.choice(list(LAST_KINDS))
        _with(plan, last)
        LAST_KINDS[last](plan, dice)
    dice = random.Random(seed ^ 0x1A7E2)
    if dice.random() < SELDOM and not plan.has(*OF_FIXED_WINDOWS, *LAST_KINDS):
        last = dice.choice(list(LATEST_KINDS))
        # A call that was given up is not waited for as long as answers may take then.
        if last != "countdown" or not plan.has("closing", *LOSSES):
            _with(plan, last)
            LATEST_KINDS[last](plan, dice)
    return plan


def _jitter(plan: Plan, dice: random.Random) -> None:
    plan.latency = dice.choice([(0.0, 0.0), (0.001, 0.5), (0.3, 0.32), (0.0, 2.0)])


def _drops(plan: Plan, dice: random.Random) -> None:
    plan.drop_before = dice.choice([0.0, 0.03])
    plan.drop_after = dice.choice([0.02, 0.05])


def _truncated(plan: Plan, dice: random.Random) -> None:
    plan.truncated = dice.choice([0.03, 0.1])


def _timeouts(plan: Plan, dice: random.Random) -> None:
    plan.slow, plan.timeout = 0.05, 6.0


def _outages(plan: Plan, dice: random.Random) -> None:
    plan.outages = _times(plan, dice)


def _bursts(plan: Plan, dice: random.Random) -> None:
    plan.bursts = _times(plan, dice)
    plan.burst_counts = dice.random() < 0.5
    plan.burst_status = dice.choice([500, 502, 503])


def _missing(plan: Plan, dice: random.Random) -> None:
    plan.missing = dice.choice([0.05, 0.1])


def _garbled(plan: Plan, dice: random.Random) -> None:
    plan.garbled = dice.choice([0.03, 0.1])


def _adversarial(plan: Plan, dice: random.Random) -> None:
    plan.adversarial = dice.choice([0.02, 0.2])


def _backends(plan: Plan, dice: random.Random) -> None:
    plan.backends = (0.0, dice.choice([1.0, 2.0, 3.0]))


def _skew(plan: Plan, dice: random.Random) -> None:
    plan.skew = dice.choice([-4000.0, -300.0, -3.0, 3.0, 300.0, 1e6])


def _drift(plan: Plan, dice: random.Random) -> None:
    plan.drift = dice.choice([-1e-3, -1e-4, 1e-4, 1e-3])


def _steps(plan: Plan, dice: random.Random) -> None:
    when = sorted(dice.uniform(0, 4 * plan.length) for _ in range(dice.randint(1, 3)))
    plan.steps = [(at, dice.choice([-2.0, -1.0, 1.0, 3.0, 60.0])) for at in when]


def _late(plan: Plan, dice: random.Random) -> None:
    plan.late = dice.choice([0.7, 2.5])


def _early(plan: Plan, dice: random.Random) -> None:
    plan.early = dice.choice([0.3, 1.0, 2.0])


def _late_once(plan: Plan, dice: random.Random) -> None:
    plan.late, plan.late_until = 2.5, 3 * plan.length
    plan.limit = min(plan.limit, 5)


def _shrinking(plan: Plan, dice: random.Random) -> None:
    plan.shrink_at = dice.uniform(0, 2 * plan.length)


def _hidden(plan: Plan, dice: random.Random) -> None:
    plan.hidden_gap = dice.choice([0.1, 0.5, 1.0])
    # Late enough to find many in flight: all are refused, and are one refusal to the pace.
    plan.hidden_from = dice.choice([0.0, 0.0, 0.4])
    plan.limit *= 10


def _silence(plan: Plan, dice: random.Random) -> None:
    start = dice.uniform(0, 2 * plan.length)
    plan.silence = (start, start + dice.uniform(20, 60))


def _cached(plan: Plan, dice: random.Random) -> None:
    plan.cached = dice.choice([0.05, 0.1])


def _retry_after(plan: Plan, dice: random.Random) -> None:
    plan.retry_after = dice.uniform(0.5, 5.0)


def _no_reset(plan: Plan, dice: random.Random) -> None:
    plan.no_reset = True


def _primed(plan: Plan, dice: random.Random) -> None:
    plan.primed = True


def _costly(plan: Plan, dice: random.Random) -> None:
    plan.costly = 0.3


def _reserve(plan: Plan, dice: random.Random) -> None:
    plan.reserve = dice.choice([0.2, 0.5])
    plan.priorities = True


def _rated(plan: Plan, dice: random.Random) -> None:
    plan.rate = dice.choice([0.1, 0.5])


def _crowd(plan: Plan, dice: random.Random) -> None:
    plan.users, plan.max_quotas = 12, 4


def _dawdlers(plan: Plan, dice: random.Random) -> None:
    plan.dawdling = 0.1


def _horde(plan: Plan, dice: random.Random) -> None:
    plan.horde = 200


def _foreign(plan: Plan, dice: random.Random) -> None:
    plan.foreign = dice.choice([0.1, 0.2, 0.5])
    # Many are in flight when the tokens of others run out.
    plan.limit, plan.latency = 40, (0.3, 0.32)


def _app(plan: Plan, dice: random.Random) -> None:
    plan.app_limit = dice.choice([10, 30, 200])
    plan.users = max(3, plan.users)


def _cancels(plan: Plan, dice: random.Random) -> None:
    plan.cancelled = dice.choice([0.1, 0.33])


def _impatient(plan: Plan, dice: random.Random) -> None:
    plan.impatient = dice.choice([0.1, 0.5])


def _redirects(plan: Plan, dice: random.Random) -> None:
    plan.redirected, plan.away = 0.1, 0.05


def _mixed(plan: Plan, dice: random.Random) -> None:
    plan.priorities, plan.written, plan.coalesced = True, 0.1, 0.2


def _closing(plan: Plan, dice: random.Random) -> None:
    plan.close_at = dice.uniform(0, 3 * plan.length)


def _with(plan: Plan, *kinds: str) -> None:
    plan.kinds = tuple(sorted({*plan.kinds, *kinds}))


def _misled(plan: Plan, dice: random.Random) -> None:
    plan.misled = dice.choice([0.02, 0.05])


def _names(plan: Plan, dice: random.Random) -> None:
    plan.names = dice.choice([0.1, 0.5])


def _outcry(plan: Plan, dice: random.Random) -> None:
    plan.outcry, plan.routes = 0.03, 2


def _lifted(plan: Plan, dice: random.Random) -> None:
    if not plan.has("hidden"):
        _with(plan, "hidden")
        _hidden(plan, dice)
    plan.hidden_until = plan.hidden_from + dice.uniform(0.1, 1.0)
    # One learns only from one's own: many successes make a gap small.
    plan.users = plan.routes = 1
    plan.calls += 40


def _lull(plan: Plan, dice: random.Random) -> None:
    plan.lull = True
    if not plan.early:
        _with(plan, "late")
        plan.late = plan.late or 2.5


def _restored(plan: Plan, dice: random.Random) -> None:
    # By the local clock, as nobody has told of the server's yet.
    if not plan.skew:
        plan.restored = dice.choice(["it holds", "it has reset", "no reset", "no reset"])


def _brink(plan: Plan, dice: random.Random) -> None:
    plan.brink = True
    plan.early, plan.late = dice.choice([(0.3, 0.0), (2.0, 0.0), (0.0, 0.7), (0.0, 2.5)])
    _with(plan, "early" if plan.early else "late")
    plan.late_until = float("inf")
    plan.length, plan.limit, plan.latency = 15.0, max(40, plan.limit), (0.1, 0.35)


def _lasting(plan: Plan, dice: random.Random) -> None:
    """Each of many windows begins late."""
    _with(plan, "late")
    plan.early, plan.late, plan.late_until = 0.0, dice.choice([0.7, 2.5]), float("inf")
    plan.limit = 3
    plan.users = plan.routes = 1


def _shy(plan: Plan, dice: random.Random) -> None:
    """The app's window is not told of at first, though a call that was lost is in it."""
    _with(plan, "app", "cancels", "missing")
    plan.app_limit, plan.shy = plan.app_limit or 30, True
    plan.cancelled, plan.spread = plan.cancelled or 0.1, 0.0


def _common(plan: Plan, dice: random.Random) -> None:
    """Impatient callers of several users wait while the last of an app's tokens is spent."""
    _with(plan, "app", "impatient")
    plan.app_limit, plan.users, plan.routes = dice.choice([20, 40]), 3, 1
    plan.impatient, plan.limit, plan.spread, plan.together = 0.5, 100, 0.0, True


def _refilling(plan: Plan, dice: random.Random) -> None:
    """Calls come back one by one; the reset is when all are there."""
    plan.refills = dice.choice(WRITTEN)
    plan.length = dice.choice([60.0, 900.0])
    chance = dice.random()
    if chance < 0.3:
        # Of more than one call, as a reserve asks for: they come back together.
        _with(plan, "reserve")
        plan.reserve, plan.priorities, plan.limit = 0.2, True, max(15, plan.limit)
    elif chance < 0.6:
        # Nobody answers whoever goes early, as a refusal has told.
        _with(plan, "retry_after", "silence")
        plan.retry_after, plan.limit = 1.0, min(5, plan.limit)
        plan.silence = (plan.length / 30, plan.length)


def _turns(plan: Plan, dice: random.Random) -> None:
    """A second window is told of in the same fields, where it is the closest to its end."""
    plan.limit, plan.narrow = dice.choice([40, 200]), dice.choice([5, 12])
    plan.length, plan.narrow_length = 900.0, dice.choice([5.0, 15.0, 900.0])
    if dice.random() < 0.5:
        plan.lifted_at, plan.narrow_length = dice.uniform(0.1, 1.0), 900.0
    elif dice.random() < 0.5:
        _with(plan, "backends")
        plan.backends = (0.0, 3.0)


def _countdown(plan: Plan, dice: random.Random) -> None:
    """Answers that take long tell how many seconds are left of a window."""
    plan.seconds = dice.choice(WRITTEN)
    plan.length, plan.latency = dice.choice([60.0, 900.0]), (0.0, 16.0)
    plan.limit, plan.spread = dice.choice([8, 15]), 0.0
    plan.timeout = plan.timeout and 60.0


def _queue(plan: Plan, dice: random.Random) -> None:
    """Impatient callers wait behind many others for calls that come back one by one."""
    _refilling(plan, dice)
    _with(plan, "refilling", "impatient")
    plan.impatient, plan.spread = 0.5, 0.0


def _blurred(plan: Plan, dice: random.Random) -> None:
    """Which of two windows has counted a call, many answers do not tell."""
    _brink(plan, dice)
    _with(plan, "garbled")
    plan.garbled_resets = 0.3


def _times(plan: Plan, dice: random.Random) -> list[tuple[float, float]]:
    first = dice.uniform(0, 2 * plan.length)
    second = first + plan.length + dice.uniform(0, plan.length)
    return [(first, first + dice.uniform(0.1, 3)), (second, second + dice.uniform(0.1, 1))]


KINDS: dict[str, Callable[[Plan, random.Random], None]] = {
    function.__name__.removeprefix("_"): function
    for function in (
        _jitter,
        _drops,
        _truncated,
        _timeouts,
        _outages,
        _bursts,
        _missing,
        _garbled,
        _adversarial,
        _backends,
        _skew,
        _drift,
        _steps,
        _late,
        _late_once,
        _early,
        _shrinking,
        _hidden,
        _silence,
        _cached,
        _retry_after,
        _no_reset,
        _primed,
        _costly,
        _reserve,
        _rated,
        _crowd,
        _dawdlers,
        _horde,
        _foreign,
        _app,
        _cancels,
        _impatient,
        _redirects,
        _mixed,
        _closing,
    )
}

#: Kinds that came later, each with a chance of its own.
MORE_KINDS: dict[str, Callable[[Plan, random.Random], None]] = {
    function.__name__.removeprefix("_"): function
    for function in (
        _misled,
        _names,
        _outcry,
        _lifted,
        _lull,
        _restored,
        _brink,
        _lasting,
        _shy,
        _common,
    )
}

#: Kinds that came last: other servers, for the most part.
LAST_KINDS: dict[str, Callable[[Plan, random.Random], None]] = {
    function.__name__.removeprefix("_"): function for function in (_refilling, _turns, _blurred)
}

#: As those, with dice of their own.
LATEST_KINDS: dict[str, Callable[[Plan, random.Random], None]] = {
    function.__name__.removeprefix("_"): function for function in (_countdown, _queue)
}
