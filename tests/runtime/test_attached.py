"""Two schedulers that want a host's last place for a device: one gets it, the other waits for it."""

from dataclasses import replace

from flowos.documents.presets import preset
from flowos.model.cell import Cell
from flowos.model.slice import (
    CircuitWish,
    EngineChoice,
    EngineRole,
    HostRole,
    Reason,
    Run,
    Shape,
    SliceSpec,
)
from flowos.runtime.scheduling import Scheduling
from flowos.runtime.shown import slice_shown
from flowos.verify.history import verify_history
from tests.runtime.theatre import Player, Theatre


def pooled() -> Cell:
    """Two hosts that take four devices each; without a budget nobody has to ask for grants."""
    cell = preset("expether")
    for domain in list(cell.domains.values()):
        cell.add(replace(domain, budget_watts=None))
    return cell


def attached(name: str, devices: int) -> SliceSpec:
    return SliceSpec(
        name,
        engines={"gpus": EngineRole((EngineChoice("gpu", count=devices),))},
        hosts={"driver": HostRole(cpu_millis=1000, count=1, at="h0")},
        circuits=(CircuitWish(Shape.FLOW, ("driver", "gpus")),),
        run=Run(),
    )


def plan_all(player: Player) -> None:
    """Let a scheduler plan as long as it wants to, but send nothing."""
    while player.next_move() in ("hear", "be told", "step"):
        player.move(player.next_move())


def conflicts(*players: Player) -> int:
    machines = [player.machine for player in players]
    return sum(m.figures.conflicts for m in machines if isinstance(m, Scheduling))


def test_rivals_do_not_both_take_a_hosts_last_place_for_a_device():
    theatre = Theatre(pooled())
    first, second = theatre.scheduler(), theatre.scheduler()
    theatre.settle()
    theatre.submit(*(attached(f"s{n}", 3) for n in range(6)))
    plan_all(first)
    plan_all(second)
    assert first.requests, "both have planned"
    assert second.requests, "both have planned"
    theatre.settle()
    view = theatre.view()
    assert conflicts(first, second) > 0
    assert view.free_devices("h0") == 1
    assert len(view.placements) == 1
    waiting = {entry.value.reason for entry in view.reasons.values()}
    assert waiting == {Reason.WAITING_FOR_ENGINES}
    assert all("h0 takes 1 more of its 4" in e.value.sentence for e in view.reasons.values())
    assert verify_history(theatre.store).violations == ()


def test_what_one_gives_back_the_next_one_attaches():
    theatre = Theatre(pooled())
    theatre.scheduler()
    theatre.controller()
    theatre.agent()
    theatre.settle()
    theatre.submit(attached("a", 4), attached("b", 2))
    theatre.settle()
    assert list(theatre.view().placements) == ["default/a"]
    theatre.wish("default/a", cancelled=True)
    theatre.play(60.0, lambda: theatre.placement("default/b") is not None)
    assert list(theatre.view().placements) == ["default/b"]


def test_a_shown_slice_names_the_devices_at_each_host():
    theatre = Theatre(pooled())
    theatre.scheduler()
    theatre.settle()
    theatre.submit(attached("a", 2))
    theatre.settle()
    view = theatre.view()
    (host,) = slice_shown(view, "default/a")["hosts"]
    assert host["node"] == "h0"
    assert host["devices"] == sorted(theatre.placed("default/a").engines["gpus"])
