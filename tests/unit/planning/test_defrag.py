"""Which slices would have to move so that a gang fits."""

from flowos.model.placement import Placement
from flowos.model.slice import Slice
from flowos.model.view import Entry
from flowos.planning.engines.pool import Pool
from flowos.planning.reasons.defrag import Defrag, Move, defrag
from tests.unit.planning.cells import (
    BITSTREAM,
    fpgas,
    hold,
    leaves,
    load,
    node,
    placed,
    request,
    ring,
    view_of,
    want,
)


def put(view, name, spec, *engines, bitstream="", circuits=False):
    """Let a slice of one role hold these very engines."""
    view.slices[name] = Entry(Slice(spec), 1, 1)
    others = {f"engine/{e}" for e in view.cell.engines} - {f"engine/{e}" for e in engines}
    decision = placed(view, spec, avoid=others)
    assert decision.engines["w"] == engines
    view.assume(
        name,
        Placement(
            1, name, held=decision.units, engines=decision.engines, circuits=decision.circuits,
            bitstreams=decision.bitstreams,
        ),
    )  # fmt: skip


def halves():
    """Two nodes of four GPUs; on each a slice has two of them."""
    view = leaves(2, gpus_each=4)
    put(view, "a/one", request(w=want(1)), "n0/gpu0")
    put(view, "a/two", request(ring("w"), w=want(2)), "n1/gpu0", "n1/gpu1")
    return view


def moves(view, spec) -> Defrag:
    found = defrag(Pool(view), spec)
    assert found is not None
    return found


GANG = request(w=want(4), together="node")


def test_the_slice_with_fewest_engines_moves():
    found = moves(halves(), GANG)
    assert found.moves == (Move("a/one", "w", "n0/gpu0", "n1/gpu2"),)
    assert found.gang.engines["w"] == tuple(f"n0/gpu{n}" for n in range(4))
    assert (found.circuits, found.loads, found.complete) == (0, 0, True)


def test_circuits_that_move_are_counted():
    view = halves()
    hold(view, "engine/n1/gpu2", "engine/n1/gpu3", by="b/unknown")  # nobody knows what it asked
    assert defrag(Pool(view), GANG) is None  # one could only move to where two would have to go
    view = leaves(3, gpus_each=4)
    hold(view, *(f"engine/n2/gpu{n}" for n in range(2)), by="b/unknown")
    put(view, "a/two", request(ring("w"), w=want(2)), "n0/gpu0", "n0/gpu1")
    put(view, "a/three", request(ring("w"), w=want(3)), "n1/gpu0", "n1/gpu1", "n1/gpu2")
    found = moves(view, GANG)
    assert {move.slice for move in found.moves} == {"a/two"}
    assert (len(found.moves), found.circuits) == (2, 2)


def test_engines_that_need_not_move_stay():
    view = leaves(2, gpus_each=4)
    put(view, "a/wide", request(w=want(3)), "n0/gpu0", "n0/gpu1", "n0/gpu2")
    hold(view, "engine/n1/gpu0", by="b/unknown")
    found = moves(view, request(w=want(2), together="node"))
    assert found.moves == ()  # n1 has three
    found = moves(view, request(w=want(3), together="node"))
    assert found.moves == ()
    view = leaves(2, gpus_each=4)
    put(view, "a/wide", request(w=want(3)), "n0/gpu0", "n0/gpu1", "n1/gpu0")
    found = moves(view, request(w=want(4), together="node"))
    assert found.moves == (Move("a/wide", "w", "n1/gpu0", "n0/gpu2"),)


def test_bitstreams_that_have_to_be_loaded_anew_are_counted():
    view = view_of(BITSTREAM, node("n0", *fpgas("n0", 2)), node("n1", *fpgas("n1", 2)))
    view.cell.add(type(BITSTREAM)("sum", "sha256:aa", "fpga", load_seconds=7.0))
    put(view, "a/one", request(w=want(1, "fpga", bitstream="sum")), "n0/fpga0")
    put(view, "a/two", request(w=want(1, "fpga", bitstream="sum")), "n1/fpga0")
    load(view, "n0/fpga0", BITSTREAM)
    load(view, "n1/fpga0", BITSTREAM)
    found = moves(view, request(w=want(2, "fpga"), together="node"))
    assert (len(found.moves), found.loads, found.seconds) == (1, 1, 7.0)


def test_nothing_moves_where_it_fits_or_where_nothing_would_help():
    found = moves(leaves(1), request(w=want(2)))
    assert found.moves == ()
    assert defrag(Pool(halves()), request(w=want(9))) is None
    assert defrag(Pool(halves()), request(w=want(7))) is None  # enough engines, all are needed
