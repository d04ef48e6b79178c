"""A ball holds just the switches within so many links."""

import pytest

from flowos.planning.circuits.balls import Balls, bitmap
from flowos.planning.circuits.landmarks import distances

RING = [(((n + 1) % 9, 0), ((n - 1) % 9, 0)) for n in range(9)]
APART = [((1, 0),), ((0, 0),), ((3, 0),), ((2, 0),)]


@pytest.mark.parametrize("near", [RING, APART])
def test_a_ball_is_what_a_search_finds(near):
    balls = Balls(near)
    for radius in (3, 0, 1, 2):
        made = balls.of(radius)
        assert made is not None
        for switch in range(len(near)):
            far = distances(near, switch)
            assert made[switch] == bitmap(s for s, links in enumerate(far) if links <= radius)


def test_none_are_made_where_they_take_too_much_memory():
    assert Balls(RING).of(9) is None
    assert Balls(RING).of(-1) is None
    assert Balls([()] * 4097).of(1) is None
