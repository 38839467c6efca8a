"""The heap that any entry can leave."""

from __future__ import annotations

import random

import pytest

from aiotwhelp.heaps import Entry, Heap


@pytest.mark.parametrize("seed", range(20))
def test_the_first_is_always_the_lowest_whoever_comes_and_goes(seed: int) -> None:
    dice, heap, inside = random.Random(seed), Heap[Entry](), set[Entry]()
    for _ in range(500):
        if inside and dice.random() < 0.45:
            one = dice.choice(sorted(inside, key=lambda entry: entry.rank))
            heap.discard(one)
            inside.discard(one)
        else:
            one = Entry((dice.randrange(50), len(inside), dice.random()))
            heap.add(one)
            inside.add(one)
        assert set(heap) == inside
        assert len(heap) == len(inside)
        assert heap.first is min(inside, key=lambda entry: entry.rank, default=None)


def test_who_has_left_can_leave_again_and_come_back() -> None:
    heap, one = Heap[Entry](), Entry(1)
    heap.discard(one)
    heap.add(one)
    heap.discard(one)
    heap.discard(one)
    assert heap.first is None
    heap.add(one)
    assert heap.first is one
