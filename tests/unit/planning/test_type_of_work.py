"""Engines that are good at a role's type of work are preferred, though nobody says how much it is."""

from dataclasses import replace
from pathlib import Path

import pytest

from flowos.documents.planner_file import load_planner
from flowos.model.cell import Bitstream, Switch, Thing, Watts
from flowos.model.rules import PlannerRules
from flowos.model.slice import Data, Work
from flowos.planning.affinity.told import described
from flowos.planning.engines.pool import Pool
from flowos.planning.engines.weights import DEFAULT, Weights
from flowos.planning.place import plan
from tests.conftest import require
from tests.unit.planning.cells import (
    gpus,
    hold,
    hold_part,
    load,
    node,
    placed,
    ports,
    power_off,
    request,
    view_of,
    want,
)

TRACES = Path(__file__).parents[4] / "shared" / "traces"
BUSY = {"S": 100, "M": 200, "F": 800}
# A watt-second of S does 1 unit, of M 2, of F 1.25: M is the best a joule, F the fastest.
SPEEDS = {"train": {"S": 100.0, "M": 400.0, "F": 1000.0}}


def mixed(*, count=2, busy=BUSY, speeds=SPEEDS, **rules):
    """A node of each model, each on a leaf of its own, named as the model."""
    things: list[Thing] = [Switch(f"sw{model}") for model in busy]
    for model, watts in busy.items():
        engines = gpus(model, count, model, watts=Watts(0, 0, watts), shareable=True)
        things += [*node(model, *engines, cpu=8), *ports(engines, f"sw{model}")]
    view = view_of(things)
    view.planner = PlannerRules(speeds=speeds, **rules)
    return view


def asked(role=None, work="train", prefer="", **more):
    spec = request(w=role or want(), **more)
    work = {"w": Work(work)} if work else {}
    return replace(spec, work=work, constraints=replace(spec.constraints, prefer=prefer))


def model(decision, role="w"):
    return {engine.partition("/")[0] for engine in decision.engines[role]}


# -- which model


def test_the_most_a_joule_is_taken_and_without_a_type_of_work_what_draws_least():
    assert model(placed(mixed(), asked())) == {"M"}
    assert model(placed(mixed(), asked(work=""))) == {"S"}
    assert model(placed(mixed(), asked(work="nobody measured this"))) == {"S"}


@pytest.mark.parametrize(
    ("prefer", "worth", "found"),
    [
        ("fastest", 0.0, "F"),
        ("frugal", 0.0, "M"),
        ("", 1e-6, "F"),  # 1/1000 s against 1/400 s: no joule can make up for that
        ("", 1.0, "M"),
        ("frugal", 1e-6, "M"),  # the slice has the last word
    ],
)
def test_what_a_joule_is_worth_is_as_slice_and_operator_say(prefer, worth, found):
    assert model(placed(mixed(joule_seconds=worth), asked(prefer=prefer))) == {found}


def test_where_nobody_says_what_one_of_them_draws_the_fastest_is_taken():
    assert model(placed(mixed(busy={"S": 100, "M": 0, "F": 800}), asked())) == {"F"}


def test_the_operators_weights_have_the_last_word():
    view = mixed(weights={"speed": 0.0})
    assert model(placed(view, asked())) == {"S"}


def test_each_role_has_a_type_of_work_of_its_own():
    view = mixed(speeds={**SPEEDS, "serve": {"S": 900.0, "M": 1.0, "F": 1.0}})
    spec = replace(request(a=want(), b=want()), work={"a": Work("train"), "b": Work("serve")})
    decision = placed(view, spec)
    assert (model(decision, "a"), model(decision, "b")) == ({"M"}, {"S"})


def test_the_next_best_is_taken_where_the_best_is_held():
    view = mixed()
    hold(view, "engine/M/gpu0", "engine/M/gpu1")
    assert model(placed(view, asked())) == {"F"}


def test_it_is_not_woken_for_unless_waking_weighs_less():
    view = mixed()
    power_off(view, "M/gpu0")
    power_off(view, "M/gpu1")
    assert model(placed(view, asked())) == {"F"}
    assert model(placed(view, asked(), weights=DEFAULT._replace(wake=0.5))) == {"M"}


@pytest.mark.parametrize("share", [1000, 500])
def test_it_is_found_where_much_is_held_in_parts(share):
    view = mixed()
    hold_part(view, "share/S/gpu0", 500)
    assert model(placed(view, asked(want(share=share)))) == {"M"}


def test_it_is_found_behind_any_number_of_others():
    things = [part for n in range(1500) for part in node(f"s{n:04}", *gpus(f"s{n:04}", 1, "S"))]
    view = view_of(things, node("M", *gpus("M", 1, "M")))
    view.planner = PlannerRules(speeds=SPEEDS)
    assert model(placed(view, asked())) == {"M"}


def test_gang_of_several_nodes_is_of_the_best_model_that_has_room():
    things: list[Thing] = [Switch("l0")]
    for name in "SMF":
        for n in range(2):
            engines = gpus(f"{name}{n}", 2, name, watts=Watts(0, 0, BUSY[name]))
            things += [*node(f"{name}{n}", *engines), *ports(engines, "l0")]
    view = view_of(things)
    view.planner = PlannerRules(speeds=SPEEDS)
    assert model(
        placed(
            view,
            asked(
                want(4),
            ),
        )
    ) == {"M0", "M1"}
    hold(view, "engine/M0/gpu0")
    assert model(placed(view, asked(want(4)))) == {"F0", "F1"}
    assert len(placed(view, asked(want(9))).engines["w"]) == 9  # no model has as many


def test_loading_a_bitstream_outweighs_speed():
    kernel = Bitstream("kernel", "sha256:dd", "gpu")
    things: list[Thing] = [kernel]
    for name, on in (("slow", "S"), ("fast", "M")):
        things += node(name, *gpus(name, 1, on, loads_bitstreams=True))
    view = view_of(things)
    view.planner = PlannerRules(speeds=SPEEDS)
    spec = asked(want(bitstream="kernel"))
    assert model(placed(view, spec)) == {"fast"}
    load(view, "slow/gpu0", kernel)
    assert model(placed(view, spec)) == {"slow"}
    assert model(placed(view, spec, weights=DEFAULT._replace(speed=64.0))) == {"fast"}


def test_role_whose_data_lies_somewhere_still_prefers_what_is_good_at_its_work():
    view = mixed()
    data = (Data("S/gpu0", 10**6, "v"),)
    spec = replace(
        request(w=want(), v=want()),
        work={"w": Work("train"), "v": Work("train", 1000.0)},
        data=data,
    )
    assert model(placed(view, spec)) == {"M"}


# -- measured tables


@pytest.mark.parametrize(
    ("table", "work", "busy", "frugal", "fastest"),
    [
        ("gavel_throughput.csv", "LM (batch size 10)", {"K80": 300, "P100": 250, "V100": 300}, "P100", "V100"),
        ("gavel_throughput.csv", "CycleGAN", {"K80": 300, "P100": 250, "V100": 300}, "V100", "V100"),
        ("engine_throughput_mlperf.csv", "bert", {"T4": 70, "A10": 150, "A100-SXM-80GB": 400, "H100-SXM-80GB": 700}, "H100-SXM-80GB", "H100-SXM-80GB"),
        ("engine_throughput_mlperf.csv", "resnet50", {"T4": 70, "QUALCOMM Cloud AI 100 PCIe HHHL": 75, "H100-SXM-80GB": 700}, "QUALCOMM Cloud AI 100 PCIe HHHL", "H100-SXM-80GB"),
    ],
)  # fmt: skip
def test_measured_speeds_decide(tmp_path, table, work, busy, frugal, fastest):
    require("traces", (TRACES / table).exists(), "shared/traces lies beside the project")
    path = tmp_path / "planner.yaml"
    path.write_text(f"speeds_from: {TRACES / table}\n")
    rules = load_planner(path, weights=Weights._fields)
    short = {name.replace(" ", ""): watts for name, watts in busy.items()}
    view = view_of(
        [
            part
            for (name, watts), on in zip(busy.items(), short, strict=True)
            for part in node(on, *gpus(on, 2, name, watts=Watts(0, 0, watts)))
        ]
    )
    view.planner = rules
    rates = rules.speeds[work]
    assert max(busy, key=lambda name: rates[name] / busy[name]) == frugal  # as the table says
    assert model(placed(view, asked(work=work))) == {frugal.replace(" ", "")}
    assert model(placed(view, asked(work=work, prefer="fastest"))) == {fastest.replace(" ", "")}


# -- told


def test_explain_names_the_pace_of_what_was_taken_and_of_the_others():
    view = mixed()
    pool = Pool(view)
    pool.fold()
    (account,) = described(pool, asked(want(2)), lambda narrowed: plan(pool, narrowed))
    assert account.sentence() == (
        "w: 2 M: each does 400 units a second, 2 a joule; "
        "2 F: each does 1,000 units a second, 1.25 a joule; "
        "2 S: each does 100 units a second, 1 a joule"
    )
    shown = account.shown()
    assert (shown["chosen"]["units_per_s"], shown["chosen"]["units_per_joule"]) == (400.0, 2.0)
    assert [line["units_per_s"] for line in shown["alternatives"]] == [1000.0, 100.0]


def test_explain_says_nothing_of_work_that_nobody_measured():
    pool = Pool(mixed())
    pool.fold()
    assert described(pool, asked(work="odd"), lambda narrowed: plan(pool, narrowed)) == []
