"""What the benchmarks have in common: interleaved rounds, medians, Markdown tables.

Whoever is compared takes turns in one process, a short sample each per round, so that whatever
slows the machine down slows all of them. Differences and ratios are taken within a round, and the
median of those is reported.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import os
import platform
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

#: Makes so many operations; may return what is to be undone outside of the measured time.
Work = Callable[[int], Awaitable[object]]

#: Whose samples take so many times the seconds that were asked for is in every other round; the
#: longer they take, the fewer there are, but no fewer than these.
_SLOW = 8
_LEAST_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Sample:
    """Seconds per operation: of the clock on the wall, and of the processor."""

    wall: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Series:
    """The samples of one contestant, by the round in which they were taken."""

    samples: Mapping[int, Sample]

    @property
    def cpu(self) -> float:
        return median(each.cpu for each in self.samples.values())

    @property
    def wall(self) -> float:
        return median(each.wall for each in self.samples.values())

    def beside(self, base: Series) -> Iterator[tuple[Sample, Sample]]:
        """Return each sample with the base's of the same round; the first round is everyone's."""
        both = self.samples.keys() & base.samples.keys()
        return ((self.samples[turn], base.samples[turn]) for turn in both)

    def cpu_over(self, base: Series) -> float:
        """Seconds of the processor that an operation takes more than the base's."""
        return median(a.cpu - b.cpu for a, b in self.beside(base))

    def cpu_ratio(self, base: Series) -> float:
        return median(a.cpu / b.cpu for a, b in self.beside(base))

    def throughput_ratio(self, base: Series) -> float:
        return median(b.wall / a.wall for a, b in self.beside(base))


async def measured(work: Work, count: int) -> Sample:
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    undo = await work(count)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    if callable(undo):
        undo()
    return Sample(wall / count, cpu / count)


async def rounds(
    works: Mapping[str, Work], *, number: int, seconds: float, least: int = 1
) -> dict[str, Series]:
    """Let all take turns, in another order each round; a sample takes about so many seconds.

    Who takes many times as long, for ``least`` operations, is not in every round.
    """
    counts, strides = {}, {}
    for name, work in works.items():
        await work(least)  # connections are made, caches filled
        first = await measured(work, least)
        second = await measured(work, max(least, min(200, int(seconds / first.wall))))
        counts[name] = max(least, int(seconds / second.wall))
        slow = int(2 * counts[name] * second.wall / (_SLOW * seconds))
        strides[name] = max(1, min(slow, number // _LEAST_ROUNDS))
    taken: dict[str, dict[int, Sample]] = {name: {} for name in works}
    names = list(works)
    for turn in range(number):
        for name in (*names[turn % len(names) :], *names[: turn % len(names)]):
            if turn % strides[name] == 0:
                taken[name][turn] = await measured(works[name], counts[name])
    return {name: Series(samples) for name, samples in taken.items()}


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    print(f"| {' | '.join(header)} |")
    print("|---|" + "---:|" * (len(header) - 1))
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)
    print()


def micro(seconds: float, *, sign: bool = False) -> str:
    value = seconds * 1e6
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    return f"{value:{'+' if sign else ''}.{digits}f}"


def arguments(doc: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less of everything")
    return parser.parse_args()


def pin(core: int) -> None:
    """Stay on one core, where the system lets us; the client is on the first, servers the last."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[core]})


def footer(*packages: str) -> None:
    versions = [f"{each} {importlib.metadata.version(each)}" for each in ("aiotwhelp", *packages)]
    load = f"; load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"Python {platform.python_version()}, {', '.join(versions)}{load}\n", flush=True)
