"""Do schedulers of one queue race for what becomes free, and does it matter if one of them is silent?"""

import pytest

from flowos.runtime.expected import COMES_SECONDS
from flowos.runtime.scheduling import Scheduling
from tests.runtime.cells import small_cell, wanted
from tests.runtime.theatre import Player, Theatre


def machine(player: Player) -> Scheduling:
    assert isinstance(player.machine, Scheduling)
    return player.machine


def owner_of(theatre: Theatre, player: Player, name: str) -> str:
    created = theatre.view().slices[name].created
    return machine(player)._peers.owner(created, name)


def a_full_cell(players: int) -> tuple[Theatre, list[Player]]:
    """Return a cell whose GPUs are all held, and its schedulers."""
    theatre = Theatre(small_cell(nodes=4, fpgas=0))
    theatre.controller()
    theatre.agent()
    crew = [theatre.scheduler(f"batch-{number}") for number in range(players)]
    theatre.settle()
    for number in range(8):
        theatre.submit(wanted(f"holds{number}", gpus=1))
    assert theatre.play(10.0, lambda: all(theatre.held(f"default/holds{n}") for n in range(8)))
    return theatre, crew


def waiting_slices(theatre: Theatre, crew: list[Player]) -> tuple[str, str]:
    """Submit slices until the first that waits is one scheduler's and a later one the other's."""
    names: list[str] = []
    for number in range(20):
        names.append(f"default/waits{number}")
        theatre.submit(wanted(f"waits{number}", gpus=1))
        assert theatre.play(10.0, lambda: names[-1] in theatre.view().reasons)
        owners = [owner_of(theatre, crew[0], name) for name in names]
        if len(set(owners)) == 2:
            return names[0], names[-1]
    raise AssertionError("one scheduler has them all")


def lost_by(crew: list[Player]) -> int:
    return sum(machine(player).figures.conflicts for player in crew)


@pytest.mark.parametrize("freed", range(4))
def test_what_becomes_free_is_left_to_the_owner_of_the_slice_that_comes_first(freed):
    theatre, crew = a_full_cell(2)
    first, later = waiting_slices(theatre, crew)
    before = lost_by(crew)
    theatre.wish(f"default/holds{freed}", cancelled=True)
    assert theatre.play(10.0, lambda: bool(theatre.held(first)))
    theatre.play(10 * COMES_SECONDS)
    assert not theatre.held(later)
    assert lost_by(crew) == before


def test_an_owner_that_does_not_come_is_waited_for_a_moment_and_no_longer():
    theatre, crew = a_full_cell(2)
    first, later = waiting_slices(theatre, crew)
    silent = next(p for p in crew if machine(p)._session == owner_of(theatre, crew[0], first))
    theatre.players.remove(silent)  # its session lives: it says nothing any more
    theatre.wish("default/holds0", cancelled=True)
    freed_at = theatre.play(10.0, lambda: not theatre.placement("default/holds0"))
    assert freed_at
    assert theatre.play(3 * COMES_SECONDS, lambda: bool(theatre.held(later)))


def test_however_many_slices_of_a_silent_owner_come_first_nothing_free_is_left_for_long():
    theatre, crew = a_full_cell(2)
    theatre.submit(*(wanted(f"waits{number}", gpus=1) for number in range(30)))
    assert theatre.play(20.0, lambda: len(theatre.view().reasons) == 30)
    owners = {
        name: owner_of(theatre, crew[0], name)
        for name in (f"default/waits{number}" for number in range(30))
    }
    last = list(owners)[-1]
    awake = next(p for p in crew if machine(p)._session == owners[last])
    silent = next(p for p in crew if p is not awake)
    # All that come first are the silent one's.
    for name, owner in owners.items():
        if owner == owners[last] and name != last:
            theatre.wish(name, cancelled=True)
    assert sum(owner != owners[last] for owner in owners.values()) >= 8
    theatre.play(1.0)
    theatre.players.remove(silent)  # its session lives: it says nothing any more
    theatre.wish("default/holds0", cancelled=True)
    assert theatre.play(10.0, lambda: not theatre.placement("default/holds0"))
    free_at = theatre.clock.monotonic()

    def is_used() -> bool:
        return any(theatre.held(name) for name in owners)

    assert theatre.play(30.0, is_used)
    assert theatre.clock.monotonic() - free_at <= 2 * COMES_SECONDS
