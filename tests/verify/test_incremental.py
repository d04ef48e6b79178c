"""Does looking only at what a revision touched find what looking at everything finds?"""

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from flowos.model.cell import Domain, Engine, Link, Node, Switch
from flowos.model.codec import encode
from flowos.model.placement import Arc, Ending, Observed, Order, Placement, Report
from flowos.model.slice import Phase, Slice, SliceSpec
from flowos.model.transaction import Change
from flowos.protocol.orders import orders_of
from flowos.verify.invariants import Checker, check
from flowos.verify.laws import LAWS
from flowos.verify.state import State
from tests.verify.scene import ADD, SUM, SUMMED, TRUNK, across, little_cell, whole

# Every key has a few values that fit together and a few that do not, so that most laws are broken
# and mended again and again.
NAMES = ("default/t", "default/u")
ATTEMPTS = ("a1", "a2")
PLACES = ("n1", "n2", "s1", "s2")
PURSE = "domain:d"
CELL = little_cell()


def links() -> dict[str, list[object]]:
    return {
        "link/px": [
            CELL.links["px"],
            Link("px", a="n1/f:1", b="s1:x"),
            Link("px", a="n1/x", b="s2"),
        ],
        "link/py": [CELL.links["py"]],
        "link/trunk": [CELL.links["trunk"], Link("trunk", a="s1:t", b="s2:t", lanes=1)],
        "link/side": [Link("side", a="n2/y:1", b="n1/x:1")],
        "switch/s1": [Switch("s1", aggregators=1), Switch("s1")],
        "switch/s2": [CELL.switches["s2"], Switch("s2", aggregators=1)],
        "node/n1": [Node("n1", cpu_millis=2000, memory_bytes=2000, domain="d"), Node("n1")],
        "engine/n1/x": [CELL.engines["n1/x"]],
        "engine/n2/y": [CELL.engines["n2/y"], Engine("n2", "z", "gpu")],
        "engine/n1/f": [CELL.engines["n1/f"], Engine("n1", "f", "fpga")],
        "domain/d": [Domain("d", budget_watts=100), Domain("d")],
    }


def placements() -> list[Placement]:
    circuit = across("n1/x", "n2/y")
    pair = {**whole("n1/x", "n2/y"), TRUNK: ()}
    parts = {"share/n1/f": (600,), "host/n1": (1500, 1)}
    base = Placement(uid=1, attempt="a1", scheduler="s")
    found = [
        replace(base, held=pair, circuits=(circuit,), spent={PURSE: 60}),
        replace(base, held=pair, circuits=(circuit, across("n1/x", "n2/y", lane=1, number=1))),
        replace(base, held=SUMMED.units, circuits=SUMMED.circuits),
        replace(base, held=pair, circuits=(replace(circuit, arcs=(Arc("side", "rev", (0,)),)),)),
        replace(base, held=whole("n1/x"), releasing=whole("n2/y", "n1/x"), spent={PURSE: 50}),
        replace(base, releasing=pair, circuits=(circuit,), ending=Ending(Phase.DONE)),
        replace(base, held=parts, bitstreams={"n1/f": SUM}, engines={"f": ("n1/f",)}),
        replace(base, held=whole("n1/x"), waits=("a2",)),
        replace(base, held=whole("n1/f")),
        replace(base, held={"aggregator/s1/0": (), "lane/px/fwd/0": ()}, started_at=1.0),
        replace(base, held={"node/n1": ()}),
        replace(base, held=whole("n1/x"), releasing=whole("n2/y"), started_at=1.0),
    ]
    found = [p for placed in found for p in (placed, replace(placed, attempt="a2", uid=0))]
    return found + [replace(p, ordered=tuple(sorted(orders_of(CELL, "", p)))) for p in found]


PLACEMENTS = placements()


def orders(place: str, attempt: str) -> list[Order]:
    mine = [p for p in PLACEMENTS if p.attempt == attempt and p.ordered]
    right = [orders_of(CELL, name, p).get(place) for name in NAMES for p in mine]
    return [
        Order(slice=NAMES[0]),
        Order(slice=NAMES[1], off=("n1/x",)),
        *(order for order in right if order),
    ]


def values() -> dict[str, list[bytes]]:
    """What may be written at each key."""
    pool: dict[str, list[object]] = dict(links())
    for name in NAMES:
        wish = Slice(SliceSpec(name=name.rpartition("/")[2]))
        pool[f"slice/{name}"] = [wish, replace(wish, held=True)]
        pool[f"placement/{name}"] = [*PLACEMENTS]
    for attempt in ATTEMPTS:
        parted = [p for p in PLACEMENTS if p.attempt == attempt and p.releasing]
        pool[f"placement/~quarantine/n1/{attempt}"] = [*parted, Placement(uid=0, attempt=attempt)]
        for place in PLACES:
            pool[f"order/{place}/{attempt}"] = [*orders(place, attempt)]
            pool[f"report/{place}/{attempt}"] = [Report(), Report(applied=9), Report(building=99)]
    off = Placement(uid=0, attempt="a9", held=whole("n1/x"), ordered=("n1",))
    pool["placement/~off/engine/n1/x"] = [off]
    pool["order/n1/a9"] = [Order(slice="~off/engine/n1/x", off=("n1/x",))]
    owners = [(name, attempt) for name in NAMES for attempt in ATTEMPTS]
    for unit in (*whole("n1/x", "n2/y", "n1/f"), TRUNK, "lane/trunk/fwd/1", "lane/px/fwd/0"):
        pool[f"claim/{unit}"] = [(*owner, ()) for owner in owners]
    pool["claim/node/n1"] = [("default/t", "a1", ())]
    pool["claim/aggregator/s1/0"] = [("default/t", "a1", ())]
    for attempt in ATTEMPTS:
        pool[f"claim/share/n1/f/{attempt}"] = [(name, attempt, (600,)) for name in NAMES]
        pool[f"claim/host/n1/{attempt}"] = [(NAMES[0], attempt, (1500, n)) for n in (1, 1500)]
    pool["observed/n1/f"] = [Observed(), *(Observed(bitstream=b, task="a1") for b in (SUM, ADD))]
    pool[f"grant/{PURSE}/s"] = [50, 100]
    pool[f"grant/{PURSE}/r"] = [10]
    return {key: [encode(v) for v in found] + [b"{"] for key, found in pool.items()}


VALUES = values()
# A write names a key and a value; beyond the last value it deletes.
WRITES = st.tuples(st.sampled_from(sorted(VALUES)), st.integers(0, 60))
HISTORIES = st.lists(
    st.lists(WRITES, min_size=1, max_size=6, unique_by=lambda w: w[0]), max_size=60
)


def changes(state: State, writes: list[tuple[str, int]]) -> list[Change]:
    """What a store would tell of these writes."""
    revision = state.revision + 1
    found = []
    for key, choice in writes:
        options, before = VALUES[key], state.records.get(key)
        # Mostly what is right, else nothing would ever be whole enough to be judged.
        value = options[choice % len(options)] if choice < 50 else None
        if value is not None:
            found.append(Change(key, value, before.created if before else revision, revision))
        elif before is not None:
            found.append(Change(key, None, 0, revision))
    return found


def everything() -> State:
    """A state in which each key has its first value."""
    state = State(revision=1)
    state.apply([Change(key, options[0], 2, 2) for key, options in VALUES.items()])
    return state


def said(violations):
    return sorted((*told(v), "" if v.law == "readable" else repr(v.details)) for v in violations)


def told(violation):
    # What is wrong with bytes that are no record, the codec may put in more than one way.
    sentence = "" if violation.law == "readable" else violation.sentence
    return violation.law, violation.where, sentence


def told_of(violations):
    return {told(v) for v in violations if v.law in LAWS}


@given(HISTORIES, st.booleans())
@settings(print_blob=True)
def test_each_step_finds_what_a_look_at_all_of_it_finds(history, full):
    checker = Checker(everything() if full else State())
    for writes in history:
        before = told_of(checker.standing())
        step = changes(checker.state, writes)
        if not step:
            continue
        new = checker.step(step)
        afresh = Checker(checker.state)
        assert said(checker.standing()) == said(afresh.standing())
        assert checker.phases.now == afresh.phases.now
        unlike = told_of(new) ^ (told_of(checker.standing()) - before)
        assert {law for law, _, _ in unlike} <= {"readable"}  # told again where the reason differs
        assert all(v.revision == checker.state.revision for v in new)


def test_the_values_break_every_law_of_states():
    # Else the property above would say nothing of the others.
    broken = set()
    for turn in range(200):
        state, dice = State(revision=1), random.Random(turn)
        state.apply(
            [Change(k, dice.choice(o), 2, 2) for k, o in VALUES.items() if dice.random() < 0.8]
        )
        broken |= {v.law for v in check(state)}
    assert broken == set(LAWS)


@given(st.lists(st.tuples(st.text("/~ea:0", max_size=6), st.binary(max_size=4)), max_size=8))
def test_no_key_or_value_is_too_strange(pairs):
    families = ("claim", "order", "report", "placement", "slice", "grant", "observed", "link", "")
    state = State(revision=1)
    writes = {f"{family}/{key}": value for key, value in pairs for family in families}
    if writes:
        state.apply([Change(key, value, 2, 2) for key, value in writes.items()])
    checker = Checker(state)
    if writes:
        checker.step([Change(key, None, 0, 3) for key in writes])
    assert checker.standing() == []
