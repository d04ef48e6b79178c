"""Engines that nothing usual can take are as good as lost, and are kept few."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from flowos.model.cell import Engine
from flowos.model.placement import Placement
from flowos.model.slice import HostRole
from flowos.model.view import CellView
from flowos.planning.demand import demand_of
from flowos.planning.engines.choose import Selection, choose
from flowos.planning.engines.fragments import Piece, Room, Usual, pieces_on
from flowos.planning.engines.pool import Pool
from flowos.planning.engines.weights import DEFAULT
from tests.unit.planning.cells import (
    GIB,
    fpgas,
    gpus,
    hold,
    hold_part,
    node,
    placed,
    power_off,
    request,
    view_of,
    want,
)

SHARE = Piece("gpu", 0, 300, 1000, 0)
PAIR = Piece("gpu", 2, 0, 4000, 0)


def usual_of(**often: int) -> Usual:
    """What usually comes: so many shares of 300 thousandths, and so many pairs."""
    usual = Usual()
    pieces = [SHARE] * often.get("share", 0) + [PAIR] * often.get("pair", 0)
    usual.note(0, tuple(pieces))
    usual.settle()
    return usual


def room(wholes: int = 0, *parts: int, cpu: int = 64000, memory: int = 0) -> Room:
    return Room("gpu", wholes, tuple(sorted(parts)), cpu, memory)


def test_nothing_is_stranded_as_long_as_nothing_is_known():
    assert Usual().stranded(room(3, 500)) == 0


def test_what_is_too_small_for_the_usual_share_is_stranded():
    usual = usual_of(share=1)
    assert usual.stranded(room(0, 299)) == 0.299
    assert usual.stranded(room(0, 300)) == 0
    # Once it fits on all 700, again and again it takes 600 of them.
    assert usual.stranded(room(0, 700)) == (0 + 0.1) / 2


def test_engine_without_the_cpu_that_goes_with_it_is_stranded():
    usual = usual_of(pair=1)
    assert usual.stranded(room(4, cpu=8000)) == 0
    # A second pair finds no CPU; where not even the first does, all is lost.
    assert usual.stranded(room(4, cpu=7999)) == (0 + 2) / 2
    assert usual.stranded(room(4, cpu=3999)) == 4
    assert usual.stranded(room(4, cpu=-1)) == 4


def test_engine_without_the_memory_that_goes_with_it_is_stranded():
    usual = Usual()
    usual.note(0, (Piece("gpu", 1, 0, 0, GIB),))
    usual.settle()
    assert usual.stranded(room(3, memory=2 * GIB)) == (0 + 1) / 2
    assert usual.stranded(room(3, memory=GIB - 1)) == 3


def test_odd_engine_is_stranded_where_pairs_are_usual():
    assert usual_of(pair=1).stranded(room(3)) == (0 + 1) / 2
    assert usual_of(pair=1).stranded(room(1)) == 1


def test_rests_that_are_too_small_are_of_no_use_even_once():
    assert usual_of(share=1).stranded(room(1, 299)) == ((0 + 0.299) + (0.1 + 0.299)) / 2


def test_each_usual_piece_counts_as_often_as_it_comes():
    # To a pair one engine is of no use; of its shares of 300 a tenth is left over in the end.
    assert usual_of(pair=3, share=1).stranded(room(1)) == (3 * 1 + 0.1 / 2) / 4


def test_engines_of_another_kind_are_no_use_to_it():
    usual = usual_of(share=5)
    assert usual.stranded(Room("fpga", 2, (), 64000, 0)) == 0


def test_pieces_that_come_once_in_a_long_while_are_not_usual():
    usual = Usual()
    usual.note(0, (SHARE,) * 99 + (Piece("gpu", 0, 999, 0, 0),))
    usual.settle()
    assert usual.stranded(room(0, 300)) == 0


def test_what_went_is_usual_no_more():
    usual = usual_of(share=4)
    usual.note(0, (PAIR,) * 4)
    usual.settle()
    assert usual.counts == {PAIR: 4}
    assert usual.stranded(room(1)) == 1


def test_what_was_worked_out_is_forgotten_once_other_pieces_are_usual():
    usual = usual_of(share=40)
    assert usual.recall("x", lambda: 1.0) == 1
    assert usual.recall("x", lambda: 2.0) == 1
    usual.note(1, (PAIR,) * 4)
    usual.settle()
    assert usual.recall("x", lambda: 2.0) == 2


def test_little_change_leaves_what_is_usual_as_it_is():
    usual = usual_of(share=40)
    usual.note(1, (PAIR, PAIR))
    usual.settle()
    assert usual.stranded(room(0, 300)) == 0
    usual.note(2, (PAIR, PAIR))
    usual.settle()
    assert usual.stranded(room(0, 300)) > 0


PIECES = st.builds(
    lambda gang, millis, cpu, memory: Piece("gpu", gang, 0 if gang else millis, cpu, memory),
    st.integers(0, 8),
    st.integers(1, 999),
    st.integers(0, 9000),
    st.integers(0, 9),
)


@given(
    st.lists(PIECES, min_size=1, max_size=9),
    st.integers(0, 8),
    st.lists(st.integers(1, 999), max_size=4),
    st.integers(-1, 40000),
    st.integers(-1, 40),
)
def test_never_less_than_nothing_nor_more_than_all_is_stranded(pieces, wholes, parts, cpu, memory):
    usual = Usual()
    usual.note(0, tuple(pieces))
    usual.settle()
    stranded = usual.stranded(room(wholes, *parts, cpu=cpu, memory=memory))
    assert 0 <= round(stranded, 9) <= round(wholes + sum(parts) / 1000, 9)


# -- read off a view


def test_pieces_of_a_node_are_what_slices_hold_of_it():
    view = view_of(node("n0", *gpus("n0", 4, shareable=True), *fpgas("n0", 1), cpu=8, memory=8))
    hold(view, "engine/n0/gpu0", "engine/n0/gpu1", by="a/pair", **{"host/n0": (2000, 1)})
    hold_part(view, "share/n0/gpu2", 250, by="a/share")
    hold(view, "engine/n0/fpga0", by="a/fpga")
    hold_part(view, "host/n0", 1000, 1, by="a/host")
    power_off(view, "n0/gpu3")
    pool = Pool(view)
    site = pool.sites[0]
    assert site is not None
    assert pieces_on(view, site, pool.kinds(site)) == (
        Piece("fpga", 1, 0, 0, 0),
        Piece("gpu", 0, 250, 0, 0),
        Piece("gpu", 2, 0, 2000, 1),
    )


@given(st.integers(0, 2**32))
def test_pieces_counted_on_equal_those_counted_anew(seed):
    dice = Random(seed)
    view = view_of(*(node(f"n{n}", *gpus(f"n{n}", 2, shareable=True), cpu=8) for n in range(3)))
    pool = Pool(view)
    for turn in range(12):
        engine = f"n{dice.randrange(3)}/gpu{dice.randrange(2)}"
        if dice.random() < 0.6:
            hold_part(view, f"share/{engine}", 100 * dice.randint(1, 3), by=f"a/{turn}")
        else:
            view.retract(f"a/{dice.randrange(turn + 1)}")
        if dice.random() < 0.3:
            pool.fold()
            pool.usual()
    if dice.random() < 0.3:
        view.cell.remove("node", "n1")
        for listener in view.inventory_listeners:
            listener("node", "n1")
    pool.fold()
    assert pool.usual().counts == Pool(view).usual().counts


# -- what a planner makes of it


def shares_of(millis: int, count: int, view, *, cpu: int = 0) -> None:
    """Let so many slices hold a share each, on nodes made for it."""
    for n in range(count):
        name = f"full{n}"
        for thing in node(name, *gpus(name, 1, shareable=True), cpu=cpu):
            view.cell.add(thing)
        held: dict[str, tuple[int, ...]] = {f"share/{name}/gpu0": (millis,)}
        if cpu:
            held[f"host/{name}"] = (cpu * 1000, 0)
        view.assume(f"usual/{n}", Placement(1, f"u{n}", held=held))


def tight_and_loose() -> CellView:
    """Shares of 300 are usual; 300 are left of one engine, 500 of the other."""
    view = view_of(
        node("tight", *gpus("tight", 1, shareable=True)),
        node("loose", *gpus("loose", 1, shareable=True)),
    )
    shares_of(300, 40, view)
    hold_part(view, "share/tight/gpu0", 700, by="a/a")
    hold_part(view, "share/loose/gpu0", 500, by="a/b")
    return view


def test_share_is_taken_where_it_leaves_no_useless_rest():
    view = tight_and_loose()
    # The best fit would leave 100 at "tight", for which nobody comes; here 300 are left.
    decision = placed(view, request(w=want(1, share=200)))
    assert decision.engines["w"] == ("loose/gpu0",)


def test_work_without_engines_takes_the_cpu_that_no_engine_will_miss():
    view = view_of(
        node("scarce", *gpus("scarce", 2, shareable=True), cpu=16, memory=1),
        node("ample", *gpus("ample", 2, shareable=True), cpu=64, memory=1),
    )
    shares_of(1000 // 2, 40, view, cpu=4)
    decision = placed(view, request(hosts={"d": HostRole(cpu_millis=4000, count=1)}))
    # The tightest host would be "scarce"; its four shares of 500 need all of its CPU.
    assert decision.hosts["d"] == ("ample",)


def test_whole_engines_are_taken_where_cpu_is_short_anyway():
    view = view_of(
        node("short", *gpus("short", 2), cpu=5, memory=1),
        node("right", *gpus("right", 2), cpu=8, memory=1),
    )
    for n in range(40):
        name = f"full{n}"
        for thing in [*node(name, *gpus(name, 2), cpu=8)]:
            view.cell.add(thing)
        held = {f"engine/{name}/gpu0": (), f"engine/{name}/gpu1": (), f"host/{name}": (8000, 0)}
        view.assume(f"usual/{n}", Placement(1, f"u{n}", held=held))
    spec = request(w=want(1), hosts={"w": HostRole(cpu_millis=1000)})
    assert placed(view, spec).engines["w"] == ("short/gpu0",)
    hold_part(view, "host/short", 4500, 0, by="a/full")
    assert placed(view, spec).engines["w"] == ("right/gpu0",)


def test_without_its_weight_the_best_fit_is_taken():
    view = tight_and_loose()
    pool = Pool(view)
    demand = demand_of(pool, request(w=want(1, share=200)))
    found = choose(pool, demand, weights=DEFAULT._replace(fragments=0.0))
    assert isinstance(found, Selection)
    ((number, _),) = found.engines["w"].picks
    assert number == pool.numbers["tight"]


def test_an_engine_is_of_the_kind_that_its_make_says():
    odd = Engine("n0", "x", "asic")
    pool = Pool(view_of(node("n0", *gpus("n0", 2), odd)))
    site = pool.sites[0]
    assert site is not None
    assert dict(pool.kinds(site)) == {"gpu": 0b011, "asic": 0b100}
