"""Can each loop be killed between any two steps and started again? Every life is tried at each move.

A move is one message heard, one decision, one request that reaches the store, or one answer that
reaches its sender. The laws of the shared state are checked after each revision.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Any

import pytest

from flowos.drivers.step import Verb
from flowos.model.slice import Phase
from flowos.protocol import system
from flowos.runtime.lifecycle import Rules
from flowos.simulation.devices import Bench
from tests.runtime.cells import SUM, small_cell, wanted
from tests.runtime.theatre import CALM, TTL_SECONDS, Player, Theatre

SECONDS = {
    Verb.POWER_ON: 0.2,
    Verb.POWER_OFF: 0.1,
    Verb.LOAD: 0.5,
    Verb.CONNECT: 0.05,
    Verb.STOP: 0.05,
    Verb.DISCONNECT: 0.02,
    Verb.SCRUB: 0.1,
}
ROLES = ("scheduler", "controller", "agents")


@dataclass(frozen=True)
class Scene:
    """A piece of life: who is there, what users and operators want, and how it must end."""

    cell: Callable[[], Theatre]
    play: Callable[[Theatre], None]
    rules: Rules = CALM
    ends: Phase = Phase.DONE
    prepare: Callable[[Bench], None] = lambda _bench: None


def a_gang(theatre: Theatre) -> None:
    theatre.submit(wanted("a", gpus=2, fpgas=1, ring=True, run_for=2.0))
    theatre.play_out(100)


def rivals(theatre: Theatre) -> None:
    theatre.submit(wanted("a", gpus=3, run_for=1.0), wanted("b", gpus=2, ring=True, run_for=1.0))
    theatre.submit(wanted("c", gpus=1, share=500, cpu_millis=1000, run_for=1.0))
    theatre.play_out(100)


def cancelled(theatre: Theatre) -> None:
    theatre.submit(wanted("a", gpus=2, fpgas=1, ring=True))
    theatre.play(3)
    theatre.wish("default/a", cancelled=True)
    theatre.play_out(100)


def drained(theatre: Theatre) -> None:
    theatre.submit(wanted("a", gpus=2, run_for=3.0))
    theatre.play(1)
    theatre.drain("engine/n0/gpu0", deadline_at=2.0)
    drain = "~drain/engine/n0/gpu0"
    assert theatre.play(100, lambda: bool(theatre.placed(drain).held))
    step = partial(system.undrain, identifier=drain, fence=None)
    assert theatre.play(100, lambda: step(theatre.view()) is not None)
    theatre.do(step)
    theatre.play_out(100)


def shaky(bench: Bench) -> None:
    bench.failing = {(Verb.LOAD, "n0/fpga0"): 1, (Verb.SCRUB, "n0/fpga0"): 2}


def failing(theatre: Theatre) -> None:
    theatre.submit(wanted("a", fpgas=1, run_for=1.0))
    theatre.play_out(100)


def sleepy(theatre: Theatre) -> None:
    assert theatre.play(30, lambda: len(theatre.records("placement/~off/")) == 3)
    theatre.submit(wanted("a", gpus=1, fpgas=1, ring=True, run_for=0.5))
    theatre.play_out(100)


def theatre_of(**cell) -> Theatre:
    return Theatre(small_cell(**cell))


SCENES = {
    "a gang with circuits and a bitstream": Scene(theatre_of, a_gang),
    "three slices that want the same engines": Scene(theatre_of, rivals),
    "three slices on one budget": Scene(partial(theatre_of, budget=350), rivals),
    "a slice that is cancelled": Scene(theatre_of, cancelled, ends=Phase.CANCELLED),
    "a slice whose engine is drained": Scene(theatre_of, drained),
    "a slice that is built at the second try": Scene(theatre_of, failing, prepare=shaky),
    "a slice that wakes engines": Scene(
        partial(theatre_of, nodes=1), sleepy, replace(CALM, idle_off_seconds=3.0)
    ),
}


def live(
    scene: Scene, *, at: int, who: tuple[str, ...] = ROLES, requests_land_late: bool = False
) -> Theatre:
    """Play a scene; just before move number `at`, some are killed and started again."""
    theatre = scene.cell()
    theatre.scheduler()
    theatre.controller(rules=scene.rules)
    theatre.agent(seconds=SECONDS, prepare=scene.prepare)

    def interfere() -> None:
        if theatre.moves == at:
            for player in theatre.players:
                if player.role in who:
                    player.replace(requests_land_late=requests_land_late)
        elif theatre.moves > at + 2:
            while theatre.late:  # a request of the dead arrives after their successors began
                commit = theatre.late.pop()
                theatre.store.commit([proposal.transaction for proposal in commit.proposals])

    theatre.before_move = interfere
    scene.play(theatre)
    if theatre.grants():
        theatre.play(TTL_SECONDS + 3)  # the dead lose their leases, and their grants go
    living = {player.session.id for player in theatre.players}
    assert {grant.rpartition("/")[2] for grant in theatre.grants()} <= living
    for key in theatre.records("slice/"):
        identifier = key.partition("/")[2]
        assert theatre.end(identifier).phase is scene.ends, (identifier, theatre.end(identifier))
    return theatre


@pytest.mark.parametrize("name", SCENES)
def test_everybody_can_be_killed_and_started_again_before_any_move(name):
    scene = SCENES[name]
    moves = live(scene, at=-1).moves
    # One whole life at every move, the others at some forty: they have most moves in common.
    for at in range(1, moves, 1 if scene.play is a_gang else moves // 40):
        try:
            live(scene, at=at)
        except AssertionError as error:
            raise AssertionError(f"replaced before move {at} of {moves}: {error}") from error


@pytest.mark.parametrize("role", ROLES)
def test_one_role_can_be_killed_before_any_move_and_its_last_request_lands_late(role):
    scene = SCENES["a gang with circuits and a bitstream"]
    moves = live(scene, at=-1).moves
    for at in range(1, moves, 2):
        try:
            live(scene, at=at, who=(role,), requests_land_late=True)
        except AssertionError as error:
            raise AssertionError(f"{role} replaced before move {at}: {error}") from error


# ------------------------------------------------------------------------------------------ any order


def storm(seed: int) -> Theatre:
    """Everything at random: who moves next, who dies, what users change their minds about."""
    draw = random.Random(seed)
    theatre = theatre_of(budget=draw.choice([None, 400]))
    idle = draw.choice([0.0, 1.0])
    rules = replace(CALM, idle_off_seconds=idle)
    for number in range(2):
        theatre.scheduler(f"batch-{number}")
        theatre.controller(f"controller-{number}", rules)
    seconds = draw.choice([SECONDS, {}])
    for places in ["n0 n1 sw0 sw1"] if draw.random() < 0.5 else ["n0", "n1", "sw0", "sw1"]:
        theatre.agent(*places.split(), seconds=seconds)
    asked: list[dict[str, Any]] = [
        {"gpus": 2, "ring": True},
        {"gpus": 1, "share": 500},
        {"fpgas": 1, "bitstream": draw.choice([SUM, "add-bytewise"])},
        {"gpus": 1, "fpgas": 1, "ring": True},
        {"gpus": 4},
        {"cpu_millis": 3000},
    ]
    for number in range(8):
        run_for, priority = draw.choice([0.0, 0.5, 2.0]), draw.randrange(3)
        what = draw.choice(asked)
        theatre.submit(wanted(f"s{number}", run_for=run_for, priority=priority, **what))
    endless = [
        f"default/s{n}" for n in range(8) if not theatre.slice(f"default/s{n}").spec.run.ends
    ]
    deaths = draw.choice([0.0, 0.005])
    while not theatre.over() and theatre.moves < 20_000:
        chance = draw.random()
        if chance < 0.005 and endless:
            theatre.wish(endless.pop(draw.randrange(len(endless))), cancelled=True)
        elif chance < 0.005 + deaths:
            draw.choice(theatre.players).replace(requests_land_late=draw.random() < 0.5)
        elif theatre.late and chance < 0.1:
            commit = theatre.late.pop(draw.randrange(len(theatre.late)))
            theatre.store.commit([proposal.transaction for proposal in commit.proposals])
        else:
            move_or_wait(theatre, draw, endless)
    return theatre


def move_or_wait(theatre: Theatre, draw: random.Random, endless: list[str]) -> None:
    moves = [(player, move) for player in theatre.players for move in player.possible_moves()]
    if moves and draw.random() < 0.98:
        player, move = draw.choice(moves)
        player.move(move)
        return
    if not moves:
        nothing_is_overlooked(theatre)
        while endless and theatre.clock.now > 5:
            theatre.wish(endless.pop(), cancelled=True)
    at = min([at for player in theatre.players if (at := wakes(player)) < inf], default=inf)
    at = min([at, *(at for at, _ in theatre.expiries)])
    theatre.advance(at if not moves else min(at, theatre.clock.now + 0.01))


def wakes(player: Player) -> float:
    return player.machine.wake_at() if player.acts else inf


def nothing_is_overlooked(theatre: Theatre) -> None:
    """When everybody rests and somebody leads, what is all up has been noted as started."""
    view = theatre.view()
    leader = view.sessions.get("controller/leader")
    if leader is None or leader.value not in [p.session.record for p in theatre.players]:
        return
    for name, entry in view.placements.items():
        placement = entry.value
        if name.startswith("~") or placement.ending or placement.waits:
            continue
        up = all(view.applied(place, placement.attempt) for place in placement.ordered)
        assert placement.started_at is not None or not up, f"{name} is up and nobody noticed"


@pytest.mark.parametrize("seed", range(30))
def test_whatever_the_order_of_moves_and_deaths_every_slice_ends_and_all_is_clean(seed):
    theatre = storm(seed)
    told = "\n".join(theatre.trace[-30:])
    assert theatre.over(), f"seed {seed} has no end:\n{told}"
    assert not any("refused" in line for line in theatre.trace), f"seed {seed}:\n{told}"
