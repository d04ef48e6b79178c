"""What would help does help: every item of `unblock`, every plan of `defrag`, every word of why-not.

REASONS_CELLS=10000 tries so many cells; REASONS_SEED=n begins at another one.
"""

import os
import re
from collections import Counter
from dataclasses import replace

from flowos.model.placement import Decision, Placement
from flowos.model.slice import EngineChoice, EngineRole, Slice, SliceSpec
from flowos.model.units import engine_unit, share_unit
from flowos.model.view import CellView, Entry
from flowos.planning.engines.pool import Pool
from flowos.planning.place import plan
from flowos.planning.reasons.defrag import defrag
from flowos.planning.reasons.explain import funnel, why_not
from flowos.planning.reasons.unblock import unblock
from tests.property.brute_force import meets, possible, truth, world_now
from tests.property.small_cells import small_request, small_view
from tests.unit.planning.laws import faults
from tests.unit.planning.pictures import kept_is_fresh

CELLS = int(os.environ.get("REASONS_CELLS", "300"))
FIRST = int(os.environ.get("REASONS_SEED", "1"))


def rid(view: CellView, names: tuple[str, ...]) -> CellView:
    """The same cell without these placements, built anew."""
    fresh = CellView(cell=view.cell, observed=view.observed, slices=view.slices)
    for name in {*view.placements, *view._assumed} - set(names):
        placement = view.now(name)
        assert placement is not None
        fresh.assume(name, placement)
    return fresh


def test_every_item_that_would_help_does_help():
    sorts: Counter[str] = Counter()
    for seed in range(FIRST, FIRST + CELLS):
        view, spec = small_view(seed), small_request(seed)
        pool = Pool(view)
        ends = {name: float(n) for n, name in enumerate(sorted(view._assumed))}
        before = {name: view.now(name) for name in view._assumed}
        items = unblock(pool, spec, ends.get, priority_of=lambda name: -("/s1" in name))
        assert before == {name: view.now(name) for name in view._assumed}
        assert kept_is_fresh(pool)
        for item in items:
            sorts[item.sort] += 1
            asked = item.accept or spec
            assert asked != spec or item.names or item.sort in ("wake", "place")
            assert truth(rid(view, item.names), asked) is None, (seed, item)
            assert all(f"~off/{engine_unit(e)}" in view._assumed for e in item.engines)
            if item.sort == "wait" and item.eta_s is not None:
                assert item.eta_s == max(ends[name] for name in item.names)
        keys = [(item.eta_s is None, item.sort == "undrain") for item in items]
        assert keys == sorted(keys)
    assert {"wait", "wake", "accept", "preempt", "undrain", "place"} <= sorts.keys(), sorts


def crowded(seed: int) -> CellView:
    """A cell in which slices that were planned hold engines, and some of them have ended."""
    view = small_view(seed, engines_max=12)
    for name in [n for n in view._assumed if not n.startswith("~")]:
        view.retract(name)
    pool = Pool(view)
    for n in range(8):
        wanted = small_request(1000 * seed + n)
        found = plan(pool, replace(wanted, name=f"s{n}"))
        if isinstance(found, Decision) and found.engines:
            place(view, f"default/s{n}", replace(wanted, name=f"s{n}"), found)
    for n in range(0, 8, 3):
        view.retract(f"default/s{n}")
    return view


def place(view: CellView, name: str, spec: SliceSpec, found: Decision) -> None:
    view.slices[name] = Entry(Slice(spec), 1, 1)
    view.assume(
        name,
        Placement(
            1, f"at {name}", held=found.units, engines=found.engines, hosts=found.hosts,
            circuits=found.circuits, bitstreams=found.bitstreams,
        ),
    )  # fmt: skip


def gang(seed: int) -> SliceSpec:
    spec = small_request(7 * seed)
    if seed % 2:
        role = EngineRole((EngineChoice("gpu", count=2 + seed % 3),))
        return SliceSpec(
            "t", engines={"w": role}, together={"w": ["node", "switch"][seed % 4 // 2]}
        )
    return spec


def test_every_plan_of_moves_makes_room_and_leaves_all_who_move_as_they_asked():
    moved: Counter[str] = Counter()
    for seed in range(FIRST, FIRST + CELLS):
        view, spec = crowded(seed), gang(seed)
        pool = Pool(view)
        before = {name: view.now(name) for name in view._assumed}
        found = defrag(pool, spec)
        assert before == {name: view.now(name) for name in view._assumed}
        assert kept_is_fresh(pool)
        if found is None:
            moved["none"] += 1
            continue
        fresh = rid(view, tuple(found.moved))
        assert faults(fresh, spec, found.gang) == [], seed
        place(fresh, "default/t", spec, found.gang)
        for name, decision in found.moved.items():
            asked = view.slices[name].value.spec
            assert faults(fresh, asked, decision) == [], (seed, name)
            place(fresh, name, asked, decision)
        for move in found.moves:
            was = view.now(move.slice)
            assert was is not None
            assert move.source in {*was.engines.get(move.role, ()), *was.hosts.get(move.role, ())}
            now = found.moved[move.slice]
            assert move.target in {*now.engines.get(move.role, ()), *now.hosts.get(move.role, ())}
        moved["several" if len(found.moves) > 1 else "one" if found.moves else "nobody"] += 1
    assert {"none", "nobody", "one", "several"} <= moved.keys(), moved


FREE = re.compile(r"(\S+) is free and would do for (\w+), but ")


def test_every_word_of_why_not_is_so():
    told: Counter[str] = Counter()
    for seed in range(FIRST, FIRST + CELLS):
        view, spec = small_view(seed), small_request(seed)
        pool = Pool(view)
        found = plan(pool, spec)
        world = world_now(view)
        for engine in list(view.cell.engines)[:4]:
            sentence = why_not(pool, spec, engine)
            unit, node = engine_unit(engine), f"node/{engine.partition('/')[0]}"
            if "would be used: nothing" in sentence:
                told["used"] += 1
                assert isinstance(found, Decision)
                assert {unit, share_unit(engine)} & found.units.keys()
            elif "but others fit better: " in sentence:
                told["others"] += 1
                other = sentence.partition("better: ")[2].partition(" ")[0]
                assert isinstance(found, Decision)
                assert other in {e for group in found.engines.values() for e in group}
                assert engine in world.whole or world.millis[engine]
            elif FREE.match(sentence):
                told["no plan"] += 1
                assert not isinstance(found, Decision)
                assert engine in world.whole or world.millis[engine]
            elif " is held by " in sentence:
                told["held"] += 1
                assert sentence.rpartition(" ")[2] in view.holders[unit]
            elif "took out of service" in sentence:
                told["closed"] += 1
                assert node in view.holders
            elif "is kept for" in sentence:
                told["kept"] += 1
                assert view.wanted.get(unit) or view.wanted.get(node)
            elif "is shared: " in sentence or "thousandths left" in sentence:
                told["shared"] += 1
                assert view.shares[engine]
            elif " asks for kind" in sentence or " asks for model" in sentence:
                told["unlike"] += 1
                it = view.cell.engines[engine]
                word, _, what = sentence.partition(" asks for ")[2].partition(",")[0].partition(" ")
                is_ = it.kind if word == "kind" else it.model
                assert is_ not in what.split("|"), (seed, sentence)
                role = spec.engines[sentence.partition(" ")[0]]
                asked_for = {c.kind for c in role.choices} | {
                    "|".join(c.models) for c in role.choices
                }
                assert what in asked_for, (seed, sentence)
            elif "that must be together" in sentence:
                told["together"] += 1
                room = int(re.findall(r"(?:room for|has) (\d+)", sentence)[0])
                asked = int(re.findall(r"of (\d+) ", sentence)[0])
                assert room < asked
                assert not isinstance(found, Decision) or unit not in found.units
            elif "asks for no engines" in sentence:
                assert not spec.engines
            else:
                told["rest"] += 1
            if isinstance(found, Decision) and {unit, share_unit(engine)} & found.units.keys():
                assert "would be used: nothing" in sentence, (seed, engine, sentence)
    assert len(told) >= 9, told


def test_what_helps_is_found_where_one_slice_is_in_the_way():
    """Not only true but whole: if taking one slice away helps, some item to wait for is told."""
    for seed in range(FIRST, FIRST + CELLS):
        view, spec = small_view(seed), small_request(seed)
        world = world_now(view)
        if possible(world, spec):
            continue
        alone = [
            name
            for name in view._assumed
            if name.startswith("other/") and possible(world_now(rid(view, (name,))), spec)
        ]
        items = unblock(Pool(view), spec, lambda _name: None)
        told = {name for item in items if item.sort == "wait" for name in item.names}
        assert bool(told & set(alone)) == bool(alone), (seed, alone, items)


def test_the_funnel_counts_what_is_left():
    """Never more than before, and `free` is what a count by hand gives."""
    counted = 0
    for seed in range(FIRST, FIRST + CELLS):
        view, spec = small_view(seed), small_request(seed)
        steps = funnel(Pool(view), spec)
        left = [number for _, number in steps]
        assert left == sorted(left, reverse=True), (seed, steps)
        assert bool(steps) == bool(spec.engines)
        roles = list(spec.engines.values())
        if len(roles) != 1 or len(roles[0].choices) != 1 or spec.circuits:
            continue
        (choice,) = roles[0].choices
        if choice.share_millis < 1000 and choice.bitstream:
            continue  # beside others only where these need the same: the funnel does not look
        world = world_now(view)
        by_hand = sum(meets(world, choice, engine) for engine in view.cell.engines.values())
        assert dict(steps)["free"] == by_hand, (seed, steps)
        counted += 1
    assert counted > CELLS / 12
