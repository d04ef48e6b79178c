"""Is a tree shown as it branches, from where its streams start or end?"""

from typing import Any

from flowos.model.cell import Cell, Link, Switch
from flowos.model.placement import Arc, Circuit
from flowos.runtime.shown import circuit_shown
from flowos.runtime.tree_shown import depth, tree_shown


def cell() -> Cell:
    """x and y at s1, z at s2, a trunk of two lanes between the switches."""
    found = Cell()
    for switch in ("s1", "s2"):
        found.add(Switch(switch, aggregators=1, functions=("sum",)))
    for engine, switch in (("n/x", "s1"), ("n/y", "s1"), ("n/z", "s2")):
        found.add(Link(f"p{engine[-1]}", f"{engine}:0", f"{switch}:{engine[-1]}"))
    found.add(Link("trunk", "s1:t", "s2:t", lanes=2))
    return found


X, Y, Z = (Arc(f"p{name}", "fwd", (0,)) for name in "xyz")
BOTH = (X, Arc("trunk", "fwd", (0,)), Arc("pz", "rev", (0,)), Y)
SUM = Circuit(
    "t/0", "n/x", ("n/z",), (), BOTH, aggregate="sum", sources=("n/x", "n/y"),
    aggregators=("aggregator/s1/0",),
)  # fmt: skip


def at(thing: str, *branches: dict[str, Any], aggregator: str | None = None) -> dict[str, Any]:
    return {"at": thing, "aggregator": aggregator, "branches": list(branches)}


def test_a_path_is_no_tree():
    path = Circuit("t/0", "n/x", ("n/z",), ("n/x", "s1", "s2", "n/z"), BOTH[:3])
    assert tree_shown(cell(), path) is None
    assert circuit_shown(cell(), path)["hops"] == 3
    assert circuit_shown(cell(), path)["sources"] == ["n/x"]


def test_a_multicast_tree_hangs_on_its_source():
    arcs = (Z, Arc("trunk", "rev", (0,)), Arc("px", "rev", (0,)), Arc("py", "rev", (0,)))
    tree = tree_shown(cell(), Circuit("t/0", "n/z", ("n/x", "n/y"), (), arcs))
    assert tree == at("n/z", at("s2", at("s1", at("n/x"), at("n/y"))))


def test_an_aggregation_tree_hangs_on_its_target():
    tree = tree_shown(cell(), SUM)
    merged = at("s1", at("n/x"), at("n/y"), aggregator="aggregator/s1/0")
    assert tree == at("n/z", at("s2", merged))
    assert depth(tree) == circuit_shown(cell(), SUM)["hops"] == 3


def test_streams_that_pass_beside_each_other_are_shown_each():
    apart = Circuit(
        "t/0", "n/x", ("n/z",), (),
        (X, Arc("trunk", "fwd", (0,)), Y, Arc("trunk", "fwd", (1,)), Arc("pz", "rev", (0,))),
        aggregate="sum", sources=("n/x", "n/y"), aggregators=("aggregator/s2/0",),
    )  # fmt: skip
    lines = at("s2", at("s1", at("n/x")), at("s1", at("n/y")), aggregator="aggregator/s2/0")
    assert tree_shown(cell(), apart) == at("n/z", lines)


def test_a_tree_over_a_link_that_is_gone_is_told_without_its_branches():
    left = cell()
    left.remove("link", "trunk")
    shown = circuit_shown(left, SUM)
    assert (shown["tree"], shown["hops"]) == (None, 4)


def test_a_record_that_leads_back_to_itself_ends_all_the_same():
    round_ = (*BOTH, Arc("trunk", "rev", (0,)))
    looped = Circuit("t/0", "n/x", ("n/z", "n/y"), (), round_)
    assert tree_shown(cell(), looped) is not None
