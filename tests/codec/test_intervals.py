"""Intervals are a set of numbers, said by a naive set."""

import random

import pytest

from edge.codec.intervals import Intervals


@pytest.mark.parametrize("seed", range(30))
def test_they_are_a_set(seed):
    dice, mine, plain = random.Random(seed), Intervals(), set()
    for _ in range(60):
        start = dice.randrange(80)
        stop = start + dice.randrange(-3, 12)
        assert [n for a, b in mine.lacks(start, stop) for n in range(a, b)] == [n for n in range(start, stop) if n not in plain]
        assert all(a < b for a, b in mine.lacks(start, stop))
        if dice.random() < 0.6:
            mine.add(start, stop)
            plain |= set(range(start, stop))
        assert {n for a, b in mine for n in range(a, b)} == plain and mine.total == len(plain)
        pairs = list(mine)
        assert all(a < b for a, b in pairs) and all(b < c for (_, b), (c, _) in zip(pairs, pairs[1:])), "disjoint, apart and in order"
        assert len(mine) == len(pairs) and mine.holes() == [(b, c) for (_, b), (c, _) in zip(pairs, pairs[1:])] and mine.filled == 0
        assert list(Intervals(pairs)) == pairs


@pytest.mark.parametrize("count_max", [1, 2, 3])
def test_beyond_the_bound_the_lowest_hole_is_filled_and_counted(count_max):
    mine = Intervals(count_max=count_max, filled=7)
    for n in range(count_max):
        mine.add(100 * n, 100 * n + 10)
    assert mine.filled == 7 and len(mine) == count_max
    mine.add(100 * count_max, 100 * count_max + 10)
    assert list(mine) == [(0, 110), *((100 * n, 100 * n + 10) for n in range(2, count_max + 1))] and mine.filled == 7 + 90
    assert mine.lacks(0, 110) == [] and mine.total == 110 + 10 * (count_max - 1)
    assert Intervals().count_max == 4096
