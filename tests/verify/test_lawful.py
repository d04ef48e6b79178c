"""Does a cell that is run by the real rules ever look broken? It must not, at any revision."""

from dataclasses import replace
from typing import Any

import pytest

from flowos.model import keys
from flowos.model.cell import Domain, Link
from flowos.model.codec import encode
from flowos.model.placement import Arc, Ending, Observed, Report
from flowos.model.slice import End, Phase, Slice, SliceSpec
from flowos.model.transaction import Delete, Operation, Put
from flowos.protocol.grants import fence_dead, give_back, lower_dead
from flowos.protocol.release import end_unplaced, forget, release
from flowos.protocol.resize import grow, shrink
from flowos.protocol.restored import Place, quarantined
from flowos.protocol.system import (
    declare_clean,
    drain,
    power_off,
    power_on,
    quarantine,
    take_out,
    undrain,
)
from flowos.verify.history import Listed, verify_history, verify_now
from flowos.verify.invariants import Checker
from flowos.verify.laws import Violation
from flowos.verify.state import State
from tests.verify.scene import (
    ADD,
    HALF,
    HOST,
    MERGED,
    PAIR,
    PURSE,
    SUMMED,
    TREE,
    TRUNK,
    Scene,
    X,
    across,
    decide,
    followed,
    whole,
)

T, U = "default/t", "default/u"
BOTH_WAYS = decide(
    {**whole("n1/x", "n2/y", "n2/z"), TRUNK: (), "lane/trunk/fwd/1": ()},
    "n1/x",
    "n2/y",
    "n2/z",
    circuits=(across("n1/x", "n2/y"),),
)


def live(scene: Scene) -> None:
    """From the request to the end, twice under one name."""
    for phase in (Phase.DONE, Phase.FAILED):
        scene.submit(T)
        scene.commit(T, TREE)
        for place in ("n1", "s1", "n2"):
            scene.build_begins(place, T)
            scene.obey(place)
        scene.obey()
        scene.start(T)
        scene.release(T, phase)
        for place in ("s1", "n1", "s2", "n2"):
            scene.obey(place)
            if place == "s2":
                scene.free(T)  # a part: what n2 has is not down yet
        scene.free(T)
        assert scene.slice(T).end
        scene.do(forget(scene.view(), T, fence=scene.fence()))


def share(scene: Scene) -> None:
    """Two have half of an engine each, and parts of hosts."""
    scene.run(T, HALF)
    scene.run(U, HALF)
    scene.run("default/v", HOST)
    for name in (T, U, "default/v"):
        scene.end(name)


def preempt(scene: Scene) -> None:
    """A slice takes another's engine and lane, and waits until all of it is down."""
    scene.run(T, PAIR)
    scene.submit(U)
    scene.commit(U, PAIR, preempt=True)
    scene.obey()
    scene.free(T)  # back in the queue
    scene.arm(U)
    scene.obey()
    scene.start(U)
    scene.end(U)
    scene.commit(T, PAIR)
    scene.obey()
    scene.end(T)


def preempt_parts(scene: Scene) -> None:
    """A slice takes what it lacks of a host and of an engine from two others, and waits for both."""
    scene.run(T, HALF)
    scene.run(U, HALF)
    scene.submit("default/v")
    most = {"share/n1/f": (700,), "host/n1": (1500, 1500)}
    scene.commit("default/v", decide(most, "n1/f"), preempt=True)
    assert scene.placement(T).releasing == {}
    assert scene.placement(U).releasing == {"share/n1/f": (300,), "host/n1": (500, 500)}
    scene.obey()
    scene.free(T)
    scene.free(U)
    scene.arm("default/v")
    scene.obey()
    scene.end("default/v")
    for name in (T, U):
        scene.commit(name, HALF)
        scene.obey()
        scene.end(name)


def preempt_and_cancel(scene: Scene) -> None:
    """The taker is cancelled while it still waits."""
    scene.run(T, X)
    scene.submit(U)
    scene.commit(U, X, preempt=True)
    scene.release(U, Phase.CANCELLED)
    scene.obey()
    scene.free(T)
    scene.free(U)


def drain_and_undrain(scene: Scene) -> None:
    """A free engine, a busy one that is taken, a shared one, a node, and a wish that waits."""
    scene.run(T, PAIR)
    scene.run(U, HALF)
    for unit, take in [
        ("engine/n2/z", False),
        ("engine/n1/x", True),
        ("engine/n1/f", True),
        ("node/n2", False),
        ("link/trunk", False),
    ]:
        scene.do(drain(scene.view(), unit, attempt=scene.fresh(), fence=scene.fence(), take=take))
    scene.do(drain(scene.view(), "engine/n2/y", attempt=scene.fresh(), fence=None, why="fan"))
    scene.obey()
    scene.free(T)
    scene.free(U)
    scene.do(drain(scene.view(), "engine/n2/y", attempt="", fence=scene.fence()))
    drains = [name for name in scene.view().placements if name.startswith("~drain/")]
    assert len(drains) == 6
    for name in drains:
        scene.do(undrain(scene.view(), name, fence=scene.fence()))


def power_down_and_wake(scene: Scene) -> None:
    """Engines are powered off; one is woken by a commit, a shared one by a part, one by itself."""
    for engine in ("n1/x", "n1/f", "n2/z"):
        scene.do(power_off(scene.view(), engine, attempt=scene.fresh(), fence=scene.fence()))
    scene.obey()
    scene.run(T, PAIR)
    scene.run(U, HALF)
    scene.do(power_on(scene.view(), "~off/engine/n2/z", fence=scene.fence()))
    scene.end(T)
    scene.end(U)


def die_and_return(scene: Scene) -> None:
    """A node goes silent; its part is set apart, and clean once its agent is back."""
    scene.run(T, PAIR)
    ending = Ending(Phase.PENDING, message="n2 does not answer")
    scene.do(quarantine(scene.view(), "n2", T, fence=scene.fence(), ending=ending))
    scene.do(take_out(scene.view(), "n2", attempt=scene.fresh(), fence=scene.fence()))
    scene.obey("n1", "s1", "s2")
    scene.free(T)
    scene.commit(T, X)
    scene.obey("n1")
    scene.obey("n2")
    scene.free("~quarantine/n2/a1")
    out = "~quarantine/n2/out-of-service"
    scene.do(declare_clean(scene.view(), out, fence=scene.fence()))
    scene.end(T)


def die_for_good(scene: Scene) -> None:
    """A switch dies while the slice is given back; its part is declared clean by hand."""
    scene.run(T, PAIR)
    scene.release(T)
    scene.obey("s1")
    ending = Ending(Phase.PENDING)
    scene.do(quarantine(scene.view(), "s1", T, fence=scene.fence(), ending=ending))
    scene.obey("n1", "n2", "s2")
    scene.free(T)
    scene.do(declare_clean(scene.view(), "~quarantine/s1/a1", fence=scene.fence()))


def resize(scene: Scene) -> None:
    """A slice gives back an engine, takes another, and all of it goes well."""
    scene.run(T, BOTH_WAYS)
    scene.do(shrink(scene.view(), T, PAIR, fence=scene.fence(), now=1.0))
    scene.obey()
    scene.free(T)
    scene.do(grow(scene.view(), T, BOTH_WAYS, fence=scene.fence(), now=1.0))
    scene.obey()
    scene.end(T)


def embed(scene: Scene) -> None:
    """A client writes its request and its placement in one transaction."""
    record = Slice(SliceSpec(name="t"))
    scene.commit(T, PAIR, spec=(T, record))
    scene.obey()
    scene.start(T)
    scene.end(T)


def change_wishes(scene: Scene) -> None:
    """Cancelled before it was placed; deleted by its user while it was, and asked for again."""
    scene.submit(T, cancelled=True)
    end = End(Phase.CANCELLED)
    scene.do(end_unplaced(scene.view(), T, end, fence=scene.fence()))
    scene.run(U, X)
    scene.write(Delete(f"slice/{U}"))
    scene.submit(U)
    scene.do(release(scene.view(), U, Ending(Phase.FAILED, message="gone"), fence=scene.fence()))
    scene.obey()
    scene.free(U)
    scene.commit(U, X)
    scene.write(Delete(f"slice/{U}"))
    scene.end(U)


def spend(scene: Scene) -> None:
    """Grants are lowered to their use; a dead holder's are taken back as its slices end."""
    scene.run(T, X)
    scene.do(give_back(scene.view(), PURSE, "s", 100, fence=scene.fence()))
    scene.write(Put("domain/d", encode(Domain("d", budget_watts=100))))
    scene.write(Put(keys.session("controller", "c"), b'{"role":"controller","name":"c"}'))
    scene.write(Put(f"grant/{PURSE}/gone", b"0"))
    fenced = scene.do(fence_dead(scene.view(), PURSE, "gone", fence=scene.fence()))
    scene.do(lower_dead(scene.view(), PURSE, "gone", fenced, fence=scene.fence()))
    scene.end(T)


def reload(scene: Scene) -> None:
    """One slice's bitstream replaces another's on one engine."""
    scene.run(T, HALF)
    scene.end(T)
    scene.run(U, replace(HALF, bitstreams={"n1/f": ADD}))
    scene.end(U)


LIVES = [
    live,
    share,
    preempt,
    preempt_parts,
    preempt_and_cancel,
    drain_and_undrain,
    power_down_and_wake,
    die_and_return,
    die_for_good,
    resize,
    embed,
    change_wishes,
    spend,
    reload,
]


@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.__name__.replace("_", " "))
def test_lawful_life_breaks_no_law(life, little):
    life(little)
    verdict = verify_history(little.store)
    assert verdict.violations == ()
    assert verify_now(little.store).violations == ()
    # Nothing stays behind for which no law could be broken any more.
    state = State.read(little.store.read([""]))
    families = {key.partition("/")[0] for key in state.records}
    assert families & {"claim", "order", "report", "placement"} == set()


def test_lawful_life_in_a_store_breaks_no_law_while_it_is_followed(scene):
    with followed(scene.store) as seen:
        listed = seen.wait_for(lambda news: isinstance(news, Listed))
        live(scene)
        preempt(scene)
        revision = scene.write(Put("claim/engine/n1/x", b"[]"))  # so that the end is known
        seen.wait_for(lambda news: not isinstance(news, Listed))
    first, *rest = seen.news
    assert first == listed
    assert [(v.revision, v.law) for v in rest if isinstance(v, Violation)] == [
        (revision, "readable")
    ]
    assert seen.verdict is not None
    assert list(seen.verdict.violations) == rest


# ------------------------------------------------------------------------- what is no mistake


def checked(little: Scene, *operations: Operation) -> list[Violation]:
    """What one more revision breaks."""
    checker = Checker(State.read(little.store.read([""])))
    assert checker.standing() == []
    revision = little.write(*operations)
    heard: list[Any] = []
    little.store.watch([""], after=revision - 1, deliver=heard.append)
    return checker.step(heard[0].changes)


def test_streams_that_an_aggregator_makes_one_leave_on_one_lane(little):
    little.run(T, SUMMED)
    little.end(T)
    assert verify_history(little.store).violations == ()


def test_streams_that_nothing_makes_one_leave_each_for_itself(little):
    little.write(Put("link/pz2", encode(Link("pz2", a="n2/z:1", b="s2:z2"))))
    apart = replace(
        MERGED, arcs=(*MERGED.arcs, Arc("pz2", "rev", (0,))), aggregators=(), aggregate="max"
    )
    little.run(T, replace(SUMMED, circuits=(apart,)))
    assert [len(turn.merged) for turn in little.view().orders["a1"]["s2"].value.crossbar] == [0, 0]
    assert verify_history(little.store).violations == ()


def test_circuits_may_start_and_end_at_hosts(little):
    little.write(Put("link/ph", b'{"name":"ph","a":"n2:0","b":"s2:h"}'))
    attached = replace(across("n1/x", "n2/y"), targets=("n2",))
    attached = replace(attached, arcs=(*attached.arcs[:2], Arc("ph", "rev", (0,))))
    units = {**whole("n1/x"), "host/n2": (1, 1), TRUNK: (), "lane/ph/rev/0": ()}
    little.run(T, decide(units, "n1/x", circuits=(attached,)))
    assert verify_history(little.store).violations == ()


def test_lowering_a_budget_below_the_grants_is_no_raise(little):
    assert checked(little, Put("domain/d", encode(Domain("d", budget_watts=50)))) == []


def test_a_report_on_an_earlier_order_is_no_mistake(little):
    little.run(T, PAIR)
    little.release(T)
    modified = little.view().orders["a1"]["n1"].modified
    put = Put("report/n1/a1", encode(Report(applied=modified - 1)))
    assert checked(little, put) == []


def test_keys_of_no_known_family_are_left_alone(little):
    assert checked(little, Put("weather/today", b"{"), Put("claims", b"")) == []


def test_a_task_of_an_attempt_that_is_over_has_no_wanted_bitstream(little):
    put = Put("observed/n1/f", encode(Observed(bitstream=ADD, task="a0")))
    assert checked(little, put) == []


# ------------------------------------------------------------------------- loads and restores


def restored_over(scene, *, broken=False):
    """What a restore writes over a cell, a few keys at a time, as any that is begun."""
    before = scene.store.read([""]).records
    kept = [r for r in before if not r.key.startswith(("session/", "cell/", "stats/"))]
    scene.write(Put("cell/loading", b'"m"'), Delete(keys.INFO))
    scene.write(*(Delete(record.key) for record in kept))
    again = [Put(record.key, record.value) for record in kept]
    if broken:
        again = [op for op in again if not op.key.startswith("claim/")]
    for start in range(0, len(again), 3):
        scene.write(*again[start : start + 3])
    place = Place("n1", "node/n1", "r1")
    scene.write(*quarantined(place), Put(keys.INFO, b"{}"), Delete("cell/loading"))
    return place


def test_a_cell_that_is_restored_is_judged_when_it_is_whole(scene):
    off = power_off(scene.view(), "n2/z", attempt=scene.fresh(), fence=scene.fence())
    scene.do(off)
    with followed(scene.store) as live:
        live.wait_for(lambda news: isinstance(news, Listed))
        place = restored_over(scene)
        scene.submit("default/u")
        # Its agent has looked at all its orders, and the quarantine ends.
        scene.obey("n1")
        scene.free(place.quarantine)
    assert [news for news in live.news if not isinstance(news, Listed)] == []
    assert verify_history(scene.store).violations == ()
    assert [r.key for r in scene.store.read(["claim/"]).records] == ["claim/engine/n2/z"]


def test_a_cell_that_was_restored_in_part_is_found_then_and_at_no_revision_before(scene):
    scene.run(T, X)
    restored_over(scene, broken=True)
    whole = scene.store.read([keys.INFO]).records[0].modified
    found = verify_history(scene.store).violations
    assert found
    assert {violation.revision for violation in found} == {whole}
