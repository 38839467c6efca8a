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

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 300, 220, 64, 34, 84
_COLOURS = ("#1f6feb", "#bf5700", "#2da44e")


def plot(panels: Sequence[tuple[str, str, Sequence[Growth]]]) -> str:
    """Draw logarithmic panels side by side: a title, a unit, and what grows."""
    width = _LEFT + len(panels) * (_WIDTH + _GAP)
    body = "".join(
        _panel(title, unit, growths, _LEFT + number * (_WIDTH + _GAP))
        for number, (title, unit, growths) in enumerate(panels)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_HEIGHT + 110}" '
        f'font-family="sans-serif" font-size="12">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{body}</svg>\n'
    )


def _panel(title: str, unit: str, growths: Sequence[Growth], left: float) -> str:
    low_x, high_x = _decades(size for each in growths for size in each.sizes)
    low_y, high_y = _decades(total for each in growths for total in each.totals)

    def x(value: float) -> float:
        return left + _WIDTH * (math.log10(value) - low_x) / (high_x - low_x)

    def y(value: float) -> float:
        return _TOP + _HEIGHT * (high_y - math.log10(value)) / (high_y - low_y)

    lines = [f'<text x="{left}" y="18" font-weight="bold">{title}</text>']
    for power in range(low_x, high_x + 1):
        at = x(10**power)
        lines += [_line(at, _TOP, at, _TOP + _HEIGHT), _text(at, _TOP + _HEIGHT + 16, 10**power)]
    for power in range(low_y, high_y + 1):
        at = y(10.0**power)
        lines += [
            _line(left, at, left + _WIDTH, at),
            _text(left - 6, at + 4, 10.0**power, unit, anchor="end"),
        ]
    for number, each in enumerate(growths):
        colour, points = _COLOURS[number], zip(each.sizes, each.totals, strict=True)
        spots = [(x(size), y(total)) for size, total in points]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in spots)
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        lines += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in spots]
        lines.append(
            f'<text x="{left}" y="{_TOP + _HEIGHT + 38 + 16 * number}" fill="{colour}">'
            f"{each.name.partition(':')[0]}: exponent {each.exponent:.2f}</text>"
        )
    return "\n".join(lines) + "\n"


def _decades(values: Any) -> tuple[int, int]:
    logs = [math.log10(each) for each in values]
    low = math.floor(min(logs))
    return low, max(low + 1, math.ceil(max(logs)))


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#dddddd"/>'


def _text(x: float, y: float, value: float, unit: str = "", anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{value:,g}{unit}</text>'


def main(*, quick: bool) -> None:
    sizes = (100, 1_000, 10_000) if quick else (1_000, 3_000, 10_000, 30_000, 100_000)
    found = [
        *grown("callers", callers, sizes, 1),
        *grown("quotas", quotas, sizes, 1),
        *grown("windows of a call", windows, (1, 2, 4, 8, 16), 1 if quick else 3),
    ]
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
            for each in found
        ],
    )
    if not quick:
        by_time = [each for each in found if each.name.endswith("time")]
        by_memory = [each for each in found if each.name.endswith("memory")]
        panels = [("Processor time in all", " s", by_time), ("Memory in all", " B", by_memory)]
        PLOT.write_text(plot(panels), "utf-8")
    footer()


def _each(growth: Growth, at: int) -> str:
    one = growth.totals[at] / growth.sizes[at]
    return micro(one) if growth.name.endswith("time") else f"{one:,.0f}"


if __name__ == "__main__":
    main(quick=arguments(__doc__).quick)
