"""What tenants have of a cell, counted as it changes, is what a plain count of it comes to."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowos.model.cell import Cell, Engine, Node, Tenant
from flowos.model.codec import encode
from flowos.model.placement import Placement
from flowos.model.slice import EngineChoice, EngineRole, HostRole, SliceSpec
from flowos.model.transaction import Change, Versioned
from flowos.model.view import CellView
from flowos.runtime.usage import Turns, Usage

TENANTS = ("a", "b", "c")


def cell_of(nodes=2, gpus=2, fpgas=1) -> Cell:
    cell = Cell()
    for name, weight in zip(TENANTS, (1, 2, 4), strict=True):
        cell.add(Tenant(name, weight))
    for n in range(nodes):
        cell.add(Node(f"n{n}", cpu_millis=8000, memory_bytes=1000))
        for kind, count in (("gpu", gpus), ("fpga", fpgas)):
            for e in range(count):
                cell.add(Engine(f"n{n}", f"{kind}{e}", kind))
    return cell


def plainly(view: CellView, tenant: str) -> float:
    """The dominant share, from all placements as they are."""
    held = dict.fromkeys(("gpu", "fpga", "cpu", "memory"), 0)
    names = {*view.placements, *view._assumed}
    for name in names:
        placement = view.now(name)
        if not name.startswith(f"{tenant}/") or placement is None:
            continue
        for unit, amounts in {**placement.held, **placement.releasing}.items():
            kind, _, subject = unit.partition("/")
            if kind == "host":
                held["cpu"] += amounts[0]
                held["memory"] += amounts[1]
            elif kind in ("engine", "share") and subject in view.cell.engines:
                held[view.cell.engines[subject].kind] += amounts[0] if amounts else 1000
    total = {
        "gpu": 1000 * sum(e.kind == "gpu" for e in view.cell.engines.values()),
        "fpga": 1000 * sum(e.kind == "fpga" for e in view.cell.engines.values()),
        "cpu": sum(n.cpu_millis for n in view.cell.nodes.values()),
        "memory": sum(n.memory_bytes for n in view.cell.nodes.values()),
    }
    return max((held[k] / total[k] for k in held if total[k]), default=0.0)


ENGINES = [f"n{n}/{e}" for n in range(2) for e in ("gpu0", "gpu1", "fpga0")]
UNITS = st.one_of(
    st.sampled_from([(f"engine/{e}", ()) for e in ENGINES]),
    st.tuples(st.sampled_from([f"share/{e}" for e in ENGINES]), st.tuples(st.integers(1, 500))),
    st.tuples(
        st.sampled_from(["host/n0", "host/n1"]),
        st.tuples(st.integers(0, 4000), st.integers(0, 500)),
    ),
    st.just(("lane/x/fwd/0", ())),
)
HELD = st.lists(UNITS, max_size=4).map(dict)
NAMES = st.sampled_from([*(f"{t}/s{n}" for t in TENANTS for n in range(2)), "~off/engine/n0/gpu0"])
STEPS = st.one_of(
    st.tuples(st.just("assume"), NAMES, HELD, HELD),
    st.tuples(st.just("commit"), NAMES, HELD, HELD),
    st.tuples(st.just("retract"), NAMES),
    st.tuples(st.just("free"), NAMES),
    st.tuples(st.just("lift"), NAMES),
    st.tuples(st.just("engine"), st.sampled_from(ENGINES), st.sampled_from(["gpu", "fpga", ""])),
    st.tuples(st.just("node"), st.sampled_from(["n0", "n1", "n2"]), st.booleans()),
    st.tuples(st.just("list")),
    st.tuples(st.just("ask")),
)


@given(st.lists(STEPS, max_size=30))
@settings(max_examples=300, deadline=None)
def test_a_count_that_follows_the_view_is_the_plain_count(steps):
    view = CellView(cell=cell_of())
    usage = Usage(view)
    revision = 1
    for step in steps:
        revision += 1
        match step:
            case ("assume", name, held, releasing):
                view.assume(name, Placement(1, f"a{revision}", held=held, releasing=releasing))
            case ("commit", name, held, releasing):
                placed = Placement(1, f"a{revision}", held=held, releasing=releasing)
                view.apply(Change(f"placement/{name}", encode(placed), 1, revision))
            case ("retract", name):
                view.retract(name)
            case ("free", name):
                view.apply(Change(f"placement/{name}", None, 1, revision))
            case ("lift", name):
                before = [usage.share(tenant) for tenant in TENANTS]
                with view.lifted([name]):
                    assert [usage.share(tenant) for tenant in TENANTS] == before
            case ("engine", name, kind):
                node, _, engine = name.partition("/")
                record = encode(Engine(node, engine, kind)) if kind else None
                view.apply(Change(f"engine/{name}", record, 1, revision))
            case ("node", name, there):
                record = encode(Node(name, cpu_millis=4000, memory_bytes=700)) if there else None
                view.apply(Change(f"node/{name}", record, 1, revision))
            case ("list",):
                listed = [
                    Versioned(f"placement/{name}", encode(entry.value), 1, entry.modified)
                    for name, entry in view.placements.items()
                ]
                cell = view.cell
                listed += [Versioned(f"node/{n}", encode(r), 1, 1) for n, r in cell.nodes.items()]
                listed += [
                    Versioned(f"engine/{n}", encode(r), 1, 1) for n, r in cell.engines.items()
                ]
                view.clear()
                view.load(listed)
            case _:
                for tenant in TENANTS:
                    assert usage.share(tenant) == plainly(view, tenant)
    for tenant in TENANTS:
        assert usage.share(tenant) == plainly(view, tenant)


def hold(view: CellView, name: str, *units: str, **parts: tuple[int, ...]) -> None:
    view.assume(name, Placement(1, f"of {name}", held={**dict.fromkeys(units, ()), **parts}))


def test_the_largest_part_of_any_resource_counts_and_is_divided_by_the_weight():
    view = CellView(cell=cell_of())
    usage = Usage(view)
    hold(view, "a/x", "engine/n0/gpu0", **{"host/n0": (1000, 900)})
    hold(view, "b/x", "engine/n0/fpga0")
    assert usage.share("a") == 900 / 2000
    assert usage.share("b") == 1 / 2
    assert usage.weighted("b") == 1 / 4
    assert usage.weighted("nobody") == 0.0


def wanted(count, kind="gpu", tenant="a", hosts=None, share=1000):
    role = EngineRole((EngineChoice(kind, count=count, share_millis=share),))
    return SliceSpec("s", tenant, engines={"w": role}, hosts=hosts or {})


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        (wanted(1), 1 / 4),
        (wanted(1, "fpga"), 1 / 2),
        (wanted(1, "fpga", tenant="c"), 1 / 8),
        (wanted(1, share=500), 1 / 8),
        (wanted(3, ""), 3 / 6),
        (wanted(1, "tpu"), 0.0),
        (wanted(2, hosts={"w": HostRole(cpu_millis=6000)}), 12 / 16),
        (wanted(1, hosts={"driver": HostRole(memory_bytes=600, count=2)}), 1200 / 2000),
    ],
)
def test_what_a_slice_asks_for_is_its_largest_part(spec, part):
    assert Usage(CellView(cell=cell_of())).asked(spec) == part


def test_slices_in_the_order_of_their_turns_are_given_out_to_tenants_by_weight():
    view = CellView(cell=cell_of(nodes=20, fpgas=0))  # 40 GPUs
    turns = Turns(Usage(view))
    waiting = [replace(wanted(1, tenant=t), name=f"{t}{n}") for t in "abc" for n in range(40)]
    order = sorted(((turns.turn(spec), n) for n, spec in enumerate(waiting)))
    first = [waiting[n].tenant for _, n in order[:35]]
    assert {t: first.count(t) for t in "abc"} == {"a": 5, "b": 10, "c": 20}


def test_what_a_tenant_has_already_puts_its_slices_behind_and_what_never_fits_does_not():
    view = CellView(cell=cell_of(nodes=4))
    usage = Usage(view)
    hold(view, "a/x", "engine/n0/gpu0", "engine/n0/gpu1")
    turns = Turns(usage)
    assert turns.turn(wanted(1)) == 2 / 8
    turns.restart()
    assert turns.turn(wanted(8), counts=False) == 2 / 8
    assert turns.turn(wanted(1)) == 2 / 8
    assert turns.turn(wanted(1)) == 3 / 8
