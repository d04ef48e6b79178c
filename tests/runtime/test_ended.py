"""Which ended slices are forgotten, and what does it cost to find out?"""

import random

from flowos.model.codec import encode
from flowos.model.slice import End, Phase, Slice
from flowos.model.transaction import Change
from flowos.model.view import CellView
from flowos.runtime.ended import ended_slices
from tests.runtime.cells import wanted


class Desk:
    """A view whose slices a test writes, and what is told of those that ended."""

    def __init__(self):
        self.view = CellView()
        self.ended = ended_slices(self.view)
        self.revision = 0

    def write(self, name, ended_at=None):
        self.revision += 1
        end = None if ended_at is None else End(Phase.DONE, ended_at=ended_at)
        record = Slice(wanted(name), end=end)
        self._apply(name, encode(record))

    def remove(self, name):
        self.revision += 1
        self._apply(name, None)

    def _apply(self, name, value):
        key = f"slice/default/{name}"
        self.view.apply(Change(key, value, self.revision, self.revision))
        self.ended.changed(f"default/{name}")

    def due(self, before=0.0, kept_max=10**9, at_most=10**9):
        names = self.ended.due(before, kept_max, at_most)
        return [name.removeprefix("default/") for name in names]


def test_what_ended_long_enough_ago_is_due_oldest_first():
    desk = Desk()
    for name, ended_at in (("c", 30), ("a", 10), ("b", 20), ("d", 40)):
        desk.write(name, ended_at)
    desk.write("pending")
    assert desk.due(before=30) == ["a", "b", "c"]


def test_what_is_over_the_number_kept_is_due():
    desk = Desk()
    for number in range(5):
        desk.write(f"s{number}", 100 - number)
    assert desk.due(kept_max=3) == ["s4", "s3"]


def test_no_more_are_due_than_asked_for_and_those_that_are_there_still_come_again():
    desk = Desk()
    for number in range(5):
        desk.write(f"s{number}", number)
    assert desk.due(before=10, at_most=2) == ["s0", "s1"]
    desk.remove("s0")
    assert desk.due(before=10, at_most=2) == ["s1", "s2"]


def test_a_slice_that_was_made_again_is_not_due():
    desk = Desk()
    desk.write("a", 1)
    desk.remove("a")
    desk.write("a")
    assert desk.due(before=10) == []
    desk.write("a", 5)
    assert desk.due(before=4) == []
    assert desk.due(before=5) == ["a"]


def test_a_listing_tells_all_that_has_ended():
    desk = Desk()
    desk.write("a", 1)
    desk.write("b")
    other = ended_slices(desk.view)
    assert other.due(10, 10, 10) == []
    other.restart()
    assert other.due(10, 10, 10) == ["default/a"]


def test_it_is_always_what_sorting_them_all_would_say():
    desk, dice = Desk(), random.Random(7)
    there: dict[str, float] = {}
    for _ in range(2000):
        name = f"s{dice.randrange(40)}"
        match dice.randrange(4):
            case 0:
                there.pop(name, None)
                desk.remove(name)
            case 1:
                there.pop(name, None)
                desk.write(name)
            case _:
                there[name] = float(dice.randrange(1000))
                desk.write(name, there[name])
        if dice.random() < 0.2:
            before, kept_max = dice.randrange(1000), dice.randrange(40)
            order = sorted((at, n) for n, at in there.items())
            surplus = len(order) - kept_max
            expected = [n for i, (at, n) in enumerate(order) if at <= before or i < surplus]
            assert desk.due(before, kept_max) == expected


def test_a_look_goes_through_none_that_is_not_due():
    desk = Desk()
    for number in range(1000):
        desk.write(f"s{number}", 1000 + number)

    class Counted(list[tuple[float, str]]):
        looked_at = 0

        def __getitem__(self, at):
            Counted.looked_at += 1
            return super().__getitem__(at)

    desk.ended._order = Counted(desk.ended._order)
    assert desk.due(before=10) == []
    assert Counted.looked_at == 1
