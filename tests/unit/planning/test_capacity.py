"""How many requests fit: against placing them one after the other until none fits."""

from random import Random

import pytest

from flowos.model.cell import Link
from flowos.model.errors import SpecError
from flowos.model.placement import Decision, Placement
from flowos.model.slice import EngineChoice, EngineRole, HostRole
from flowos.model.view import CellView
from flowos.planning.engines.pool import Pool
from flowos.planning.place import plan
from flowos.planning.reasons.capacity import Count, capacity
from tests.property.small_cells import small_view
from tests.unit.planning.cells import (
    BITSTREAM,
    fpgas,
    gpus,
    hold,
    hold_part,
    leaves,
    node,
    request,
    view_of,
    want,
)


def test_places_that_are_too_small_strand_engines():
    view = leaves(2, gpus_each=4, nodes_each=2)
    hold(view, "engine/n0/gpu0", "engine/n1/gpu0")
    for word, now, stranded in (("node", 2, 6), ("switch", 3, 2), ("any", 3, 2)):
        found = capacity(Pool(view), request(w=want(4), together=word))
        assert (found.now, found.empty) == (now, 4), word
        assert found.roles["w"] == (Count(now, 14, stranded), Count(4, 16, 0))


def test_scarcest_role_decides():
    view = view_of(BITSTREAM, node("n0", *gpus("n0", 8), *fpgas("n0", 2)))
    hold(view, "engine/n0/fpga0")
    found = capacity(Pool(view), request(g=want(2), f=want(1, "fpga", bitstream="sum")))
    assert (found.now, found.empty, found.limit) == (1, 2, "f")


def test_parts_of_engines_are_counted_engine_by_engine():
    view = view_of(node("n0", *gpus("n0", 3, shareable=True)))
    hold_part(view, "share/n0/gpu0", 600)
    found = capacity(Pool(view), request(w=want(1, share=400)))
    assert (found.now, found.empty) == (1 + 2 + 2, 6)


def test_places_are_told_by_leaf_rack_and_pod():
    view = leaves(2, gpus_each=2, nodes_each=2)
    hold(view, "engine/n0/gpu0")
    found = capacity(Pool(view), request(w=want(2), together="node"))
    assert found.places == {
        "leaf": {"l0": (1, 2), "l1": (2, 2)},
        "rack": {"r0": (1, 2), "r1": (2, 2)},
        "pod": {"p0": (1, 2), "p1": (2, 2)},
    }


def test_engine_on_two_switches_counts_once():
    view = leaves(2, gpus_each=2)
    for gpu in ("gpu0", "gpu1"):
        view.cell.add(Link(f"more-{gpu}", f"n0/{gpu}:1", f"l1:{gpu}", 1))
    hold(view, "engine/n1/gpu0")
    found = capacity(Pool(view), request(w=want(3), together="switch"))
    assert (found.now, found.empty) == (1, 1)


def test_what_cannot_be_counted_is_refused():
    pool = Pool(leaves(1))
    either = EngineRole((EngineChoice("gpu"), EngineChoice("fpga")))
    for spec, word in [
        (request(w=want(1), hosts={"w": HostRole(1000)}), "host resources"),
        (request(w=either), "several choices"),
        (request(a=want(1), b=want(1)), "same engines"),
    ]:
        with pytest.raises(SpecError, match=word):
            capacity(pool, spec)


def filled(view: CellView, spec) -> int:
    pool = Pool(view)
    number = 0
    while isinstance(found := plan(pool, spec), Decision):
        view.assume(f"fill/{number}", Placement(1, f"f{number}", held=found.units))
        number += 1
    return number


@pytest.mark.parametrize("together", ["node", "switch", "any"])
def test_as_many_fit_as_can_be_placed(together):
    """Where engines have one leaf each: best fit fills every place to the full."""
    counted = 0
    for seed in range(150):
        dice = Random(seed)
        view = small_view(seed)
        if any(len(view.cell.links_at.get(e, ())) != 1 for e in view.cell.engines):
            continue
        spec = request(
            w=want(dice.choice([1, 2, 3]), dice.choice(["gpu", "fpga"])), together=together
        )
        counted += 1
        for state in (view, CellView(cell=view.cell)):
            found = capacity(Pool(state), spec)
            assert (found.now if state is view else found.empty) == filled(state, spec), seed
    assert counted > 10
