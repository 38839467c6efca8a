"""How time and memory grow: with callers, with quotas, with windows; a table and a plot.

    python -m benchmarks.growth                    # docs/growth.svg
    python -m benchmarks.growth --quick            # no plot, up to 10 000

Each point is a process of its own, or the median of three. The exponent is that of the straight
line through the points on logarithmic axes: 1 is in proportion, 0 is no growth at all.
"""

from __future__ import annotations

import gc
import math
import multiprocessing
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

from multidict import CIMultiDict, CIMultiDictProxy

from aiotwhelp import Dialect, Limiter, QuotaKey, WindowKind
from aiotwhelp.headers import family
from benchmarks.common import arguments, footer, micro, print_table
from benchmarks.grant import MANY, told
from benchmarks.memory import resident
from benchmarks.waiters import measured, ours

PLOT = Path(__file__).parent.parent / "docs" / "growth.svg"

#: Seconds, and bytes, in all.
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Growth:
    """What something takes in all, by its number."""

    name: str
    sizes: Sequence[int]
    totals: Sequence[float]

    @property
    def kind(self) -> str:
        return self.name.partition(":")[0]

    @property
    def is_time(self) -> bool:
        return self.name.endswith("time")

    @property
    def exponent(self) -> float:
        """The slope of the straight line through the points, by least squares."""
        xs, ys = [[math.log(each) for each in of] for of in (self.sizes, self.totals)]
        x, y = fmean(xs), fmean(ys)
        over = sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True))
        return over / sum((a - x) ** 2 for a in xs)


async def callers(count: int) -> Point:
    """Wait for one quota, and go."""
    cost = await ours(count)
    return (cost.joining + cost.granting) * count, cost.memory * count


async def quotas(count: int) -> Point:
    """A call each: the first, by which the quota is made, and another one."""
    limiter, answer = Limiter(max_quotas=2 * count), told(MANY)
    keys = [QuotaKey("GET /2/users/me", "api.x.com", f"u:{each}", "app") for each in range(count)]
    gc.collect()
    before, began = resident(), time.process_time()
    for _ in range(2):
        for key in keys:
            (await limiter.acquire(key)).observed(answer)
    return time.process_time() - began, resident() - before


async def windows(count: int) -> Point:
    """One call of a quota that has so many windows: one for each family of headers."""
    kinds = [WindowKind(f"w{each}", length=900.0) for each in range(count)]
    dialect = Dialect("many", tuple(family(kind, f"x-{kind.name}") for kind in kinds))
    fields = dict(told(MANY))
    for kind in kinds:
        for name in ("limit", "remaining", "reset"):
            fields[f"x-{kind.name}-{name}"] = fields[f"x-rate-limit-{name}"]
    answer = CIMultiDictProxy(CIMultiDict(fields))
    limiter, key = Limiter(), QuotaKey("GET /")
    began = time.process_time()
    for _ in range(10_000):
        (await limiter.acquire(key, dialect=dialect)).observed(answer)
    return (time.process_time() - began) / 10_000, 0.0


def grown(
    name: str, scene: Callable[[int], Coroutine[Any, Any, Point]], sizes: Sequence[int], times: int
) -> list[Growth]:
    points = []
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for size in sizes:
            runs: list[Point] = pool.map(
                partial(measured, scene, counting=False), [size] * times, chunksize=1
            )
            points.append([median(each) for each in zip(*runs, strict=True)])
    seconds, memory = zip(*points, strict=True)
    found = [Growth(f"{name}: time", sizes, seconds)]
    return found + ([Growth(f"{name}: memory", sizes, memory)] if all(memory) else [])


# The plot -----------------------------------------------------------------------------------------

#: Of one panel; the gap has the labels of the next one's axis in it.
_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP, _BELOW = 220, 200, 62, 46, 76, 100
_COLOURS = ("#0969da", "#bc4c00")
_INK, _FAINT = "#1f2328", "#d1d9e0"


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes: what is on them, and what grows."""

    title: str
    across: str
    growths: Sequence[Growth]

    @property
    def decades(self) -> range:
        """Powers of ten from below all totals to above them."""
        logs = [math.log10(total) for each in self.growths for total in each.totals]
        return range(math.floor(min(logs)), math.ceil(max(logs)) + 1)


def panels(crowds: Sequence[Growth], calls: Sequence[Growth]) -> list[Panel]:
    """Return one for the time and one for the memory of crowds, and one for single calls."""
    of_time, of_memory = ([each for each in crowds if each.is_time is it] for it in (True, False))
    return [
        Panel("Processor time, all together", "callers, or quotas", of_time),
        Panel("Memory, all together", "callers, or quotas", of_memory),
        Panel("Processor time of one call", "windows of its quota", calls),
    ]


def plot(drawn: Sequence[Panel]) -> str:
    """Draw logarithmic panels side by side, on a ground of their own that any page may have."""
    width = _LEFT + len(drawn) * (_WIDTH + _GAP) - _GAP + 36
    height = _TOP + _HEIGHT + _BELOW
    body = "".join(_panel(each, _LEFT + at * (_WIDTH + _GAP)) for at, each in enumerate(drawn))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="How time and memory grow, on logarithmic axes" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="{_INK}">\n'
        f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="6" fill="#ffffff" '
        f'stroke="{_FAINT}"/>\n{body}</svg>\n'
    )


def _panel(panel: Panel, left: float) -> str:
    sizes, powers = panel.growths[0].sizes, panel.decades
    right, bottom = left + _WIDTH, _TOP + _HEIGHT

    def x(size: float) -> float:
        return left + _WIDTH * math.log(size / sizes[0]) / math.log(sizes[-1] / sizes[0])

    def y(total: float) -> float:
        return bottom - _HEIGHT * (math.log10(total) - powers[0]) / (powers[-1] - powers[0])

    lines = [_text(left, 26, panel.title, "start", "bold")]
    for size in sizes:
        lines.append(_line(x(size), _TOP, x(size), bottom))
        lines.append(_text(x(size), bottom + 19, f"{size:,}", "middle"))
    for power in powers:
        at = y(10.0**power)
        lines.append(_line(left, at, right, at))
        lines.append(_text(left - 7, at + 4, _said(power, panel.growths[0].is_time), "end"))
    lines.append(_text((left + right) / 2, bottom + 39, panel.across, "middle"))
    for number, (each, colour) in enumerate(zip(panel.growths, _COLOURS, strict=False)):
        spots = [(x(s), y(t)) for s, t in zip(each.sizes, each.totals, strict=True)]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in spots)
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        lines += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in spots]
        at = bottom + 63 + 20 * number
        lines.append(f'<circle cx="{left + 4}" cy="{at - 4}" r="4" fill="{colour}"/>')
        lines.append(_text(left + 14, at, f"{each.kind}, exponent {each.exponent:.2f}", "start"))
    return "\n".join(lines) + "\n"


def _said(power: int, is_time: bool) -> str:
    """Return a power of ten of seconds or bytes as people say it."""
    units = {-6: "µs", -3: "ms", 0: "s"} if is_time else {0: "B", 3: "kB", 6: "MB", 9: "GB"}
    unit = max((each for each in units if each <= power), default=min(units))
    return f"{10.0 ** (power - unit):,g} {units[unit]}"


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{_FAINT}"/>'


def _text(x: float, y: float, said: str, anchor: str, weight: str = "normal") -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}"'
    return f"<text {where}>{said}</text>"


def main(*, quick: bool) -> None:
    sizes = (100, 1_000, 10_000) if quick else (1_000, 3_000, 10_000, 30_000, 100_000)
    crowds = [*grown("callers", callers, sizes, 1), *grown("quotas", quotas, sizes, 1)]
    calls = grown("windows of a call", windows, (1, 2, 4, 8, 16), 1 if quick else 3)
    print_table(
        ("what grows", "from", "to", "each at first, µs or bytes", "each at last", "exponent"),
        [
            (
                each.name,
                f"{each.sizes[0]:,}",
                f"{each.sizes[-1]:,}",
                *(_each(each, at) for at in (0, -1)),
                f"{each.exponent:.2f}",
            )
            for each in (*crowds, *calls)
        ],
    )
    if not quick:
        PLOT.write_text(plot(panels(crowds, calls)), "utf-8")
    footer()


def _each(growth: Growth, at: int) -> str:
    one = growth.totals[at] / growth.sizes[at]
    return micro(one) if growth.is_time else f"{one:,.0f}"


if __name__ == "__main__":
    main(quick=arguments(__doc__).quick)
