"""How many processes there seem to be, by what one of them reads: films of calls, one at a time."""

from __future__ import annotations

from math import inf

import pytest

from aiotwhelp.crowd import Crowd

LIMIT = 15


def window(
    crowd: Crowd, *readings: int, at: float = 0.0, is_seen: bool = True, cost: int = 1
) -> Crowd:
    """Begin a window at an instant; a call is answered with each number, ten in a second."""
    crowd.begin(at, is_seen=is_seen)
    return calls(crowd, *readings, at=at, cost=cost)


def calls(crowd: Crowd, *readings: int, at: float = 0.0, cost: int = 1) -> Crowd:
    for number, remaining in enumerate(readings):
        crowd.read(at + number / 10, remaining, cost, LIMIT, refused=False)
    return crowd


def known(others: int) -> Crowd:
    """One that has seen so many others for long, each of which makes as many calls."""
    crowd = Crowd()
    for _ in range(20):
        window(crowd, *range(10 * others, 0, -others - 1), is_seen=False)
    return crowd


def test_three_others_are_presumed_as_long_as_no_window_has_told():
    crowd = Crowd()
    assert crowd.size == 8, "and some more, as nothing was seen yet"
    window(crowd, 14, 13, 12, 11, 10, 9)
    assert crowd.size == 4
    window(crowd, 14)
    assert crowd.size == 3, "some more than one: perhaps another one is about to come"
    calls(crowd, 13, 12, 11, 10, at=0.1)
    assert crowd.size == 2


def test_who_was_alone_in_its_first_window_presumes_nobody_in_the_next():
    crowd = window(Crowd(), *range(14, 5, -1))
    assert window(crowd, 14).size == 2


@pytest.mark.parametrize(("others", "size"), [(1, 3), (3, 6), (7, 11)])
def test_others_are_as_many_as_their_calls_for_each_of_ours_and_some_more(others: int, size: int):
    crowd = window(known(others), *range(100, 10, -others - 1), is_seen=False)
    assert others + 1 < crowd.size <= size


def test_the_fewer_calls_have_told_the_more_are_reckoned_with_beside():
    """Of seven others, as all windows say."""
    crowd = window(known(7), is_seen=False)
    sizes = [crowd.size, *(calls(crowd, remaining).size for remaining in range(100, 0, -8))]
    assert (sizes[0], sizes[-1]) == (14, 10)
    assert sizes == sorted(sizes, reverse=True)


def test_at_the_reset_half_of_the_others_come_before_at_a_mean():
    """Seven calls before one's own are of fourteen others, if those before were many, too."""
    assert window(known(7), 14 - 7).size > window(known(7), 14 - 3).size > window(known(7), 14).size
    seen, came_later = known(7), known(7)
    window(seen, 14 - 7)
    window(came_later, 14 - 7, is_seen=False)
    assert came_later.size == window(known(7)).size, "it may have begun long before"
    assert seen.size > came_later.size


def test_who_was_late_at_the_reset_does_not_count_all_calls_before_as_one_of_each():
    """Two others made fourteen, and not twenty-eight others one each."""
    assert window(known(2), 0).size == 8


def test_more_others_are_believed_at_once_and_fewer_slowly():
    crowd = known(1)
    few = window(crowd, is_seen=False).size
    calls(crowd, *range(90, 10, -8))
    sizes = []
    for _ in range(12):
        sizes.append(window(crowd, is_seen=False).size)
        calls(crowd, *range(14, 4, -1))
    assert few <= 5 < sizes[1] < sizes[0]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] <= 5


def test_those_who_come_late_are_remembered_although_they_make_few_calls():
    """Six of them came while the early ones waited for them; those had made eight calls by then."""
    for at, size in ((0.95, 6), (1.0, 12)):
        crowd = window(known(1), 14, 12, 10, 8)
        crowd.read(at, 1, 1, LIMIT, refused=False)
        assert window(crowd, at=5.0).size == size
    crowd = window(known(1), 14, 12, 10, 8)
    crowd.read(1.0, 1, 1, LIMIT, refused=False)
    assert crowd.size == 7, "in this window, too"
    crowd.read(1.1, 0, 1, LIMIT, refused=False)
    assert window(crowd, at=5.0).size == size, "nobody else is late"


def test_a_third_of_the_limit_goes_before_those_who_are_late_have_come():
    crowd = window(Crowd(), 14, at=100.0)
    assert crowd.opens(10, LIMIT, 900.0) == -inf
    assert crowd.opens(9, LIMIT, 900.0) == 101.0
    assert crowd.opens(9, LIMIT, 2.0) == 100.5, "a quarter of a short window"
    assert crowd.opens(9, None, 900.0) == -inf
    assert Crowd().opens(9, LIMIT, 900.0) == -inf, "it began long ago"


def test_whose_call_began_the_window_takes_what_others_leave():
    crowd = window(window(Crowd(), 14), 14, 13, at=5.0)
    assert crowd.looks(0.25) == 5.1, "at once, as nobody else makes calls"
    crowd.read(5.2, 10, 1, LIMIT, refused=False)
    assert crowd.looks(0.25) == 5.2 + 4 * 0.25, "others do, and each of them is to see that it ends"
    crowd.read(6.2, 9, 1, LIMIT, refused=False)
    assert crowd.looks(0.25) == 6.2
    assert window(crowd, 13, 12, 11).looks(0.25) == inf, "another one began this window"


def test_nobody_takes_what_others_leave_who_does_not_know_of_the_beginning():
    assert window(Crowd(), 14, 13).looks(0.25) == inf, "nor in a first window"
    crowd = window(Crowd(), 14)
    crowd.begin(5.0, is_seen=True)
    crowd.read(5.0, 14, 1, None, refused=False)
    assert crowd.looks(0.25) == inf, "without a limit"
    crowd.begin(10.0, is_seen=True)
    crowd.read(10.0, 15, 1, LIMIT, refused=True)
    assert crowd.looks(0.25) == inf, "what was refused has begun nothing"
    window(crowd, 14, at=15.0)
    crowd.lose_track()
    assert crowd.looks(0.25) == inf, "calls were made meanwhile"


def test_calls_that_were_not_counted_are_not_taken_for_others():
    crowd = window(known(1), 14)
    before = crowd.size
    crowd.lose_track()
    calls(crowd, 2, at=0.5)
    assert crowd.size == before


def test_calls_of_others_are_counted_as_if_they_cost_as_much():
    cheap = window(known(0), *range(90, 10, -3))
    dear = window(known(0), *range(900, 100, -30), cost=10)
    assert dear.size == cheap.size
    cheap = window(known(7), 14 - 7)
    crowd = known(7)
    crowd.begin(0.0, is_seen=True)
    crowd.read(0.0, 140 - 70, 10, 150, refused=False)
    assert crowd.size == cheap.size


def test_a_refused_call_took_nothing():
    crowd = window(known(0), 14, 13, 12)
    crowd.read(0.3, 12, 1, LIMIT, refused=True)
    assert crowd.size == calls(window(known(0), 14, 13, 12), 11, at=0.3).size
    crowd.read(0.4, 5, 1, LIMIT, refused=True)
    assert crowd.size == calls(window(known(0), 14, 13, 12), 11, 3, at=0.3).size
    crowd = window(known(7), is_seen=True)
    crowd.read(0.0, 8, 1, LIMIT, refused=True)
    assert crowd.size == window(known(7), 7).size
