"""`flowos cell planner ...`: what all planners of the cell are told: weights, speeds, a joule's worth."""

from typing import TYPE_CHECKING, Final

import click

from flowos_cli import render
from flowos_cli.commands.rule import put_rule, rule_in
from flowos_cli.lazy import LazyGroup
from flowos_cli.output import API_VERSION, Listing, Output, output_options, say
from flowos_cli.render import Column, Item
from flowos_cli.wiring import Where, where_options

if TYPE_CHECKING:
    from flowos.model.rules import PlannerRules

KIND: Final = "Planner"
MODELS_MAX: Final = 6  # of a type of work, the fastest; people want to see that they are there


@click.group(
    cls=LazyGroup,
    short_help="What all planners of the cell are told.",
    table={
        "apply": (f"{__name__}:apply", "Tell them what a file says."),
        "show": (f"{__name__}:show", "What they are told now."),
    },
)
def planner() -> None:
    """What the planners of all schedulers are told: weights, speeds, what a joule is worth."""


# ---------------------------------------------------------------------------------------- apply


@click.command()
@click.argument("source", metavar="FILE")
@where_options
def apply(source: str, where: Where) -> int:
    """Tell all planners what FILE (YAML or JSON) says, in place of what they were told before.

    Schedulers go by it from the next slice on, without a restart. A file of {} is the defaults.
    """
    from flowos.documents.planner_file import load_planner
    from flowos.model import keys
    from flowos.model.codec import encode
    from flowos.planning.engines.weights import Weights

    rules = load_planner(source, weights=Weights._fields)
    store = where.store()
    try:
        new = put_rule(store, keys.PLANNER, encode(rules), what="what planners are told")
    finally:
        store.close()
    say(f"planners: {_counted(rules) if new else 'unchanged'}")
    return 0


def _counted(rules: "PlannerRules") -> str:
    speeds = sum(len(models) for models in rules.speeds.values())
    weights = f"{len(rules.weights)} weight{'' if len(rules.weights) == 1 else 's'} set"
    types = f"{len(rules.speeds)} type{'' if len(rules.speeds) == 1 else 's'} of work"
    return f"{weights}, {speeds} speed{'' if speeds == 1 else 's'} of {types}"


# ----------------------------------------------------------------------------------------- show


@click.command()
@output_options(watch=False)
@where_options
def show(out: Output, where: Where) -> int:
    """What planners are told now; as YAML or JSON it is a file that 'apply' reads."""
    from flowos.documents.planner_file import planner_document
    from flowos.model import keys
    from flowos.model.codec import decode
    from flowos.model.rules import NO_RULES, PlannerRules
    from flowos.planning.engines.weights import weights_of

    store = where.store()
    try:
        told = rule_in(store, keys.PLANNER)
    finally:
        store.close()
    rules = NO_RULES if told is None else decode(PlannerRules, told.value)
    shown = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        **planner_document(rules),
        "weights": weights_of(rules)._asdict(),
    }
    out.put_one(_PLANNERS, shown, _details)
    return 0


_PLANNERS: Final = Listing(
    columns=(
        Column("kind", lambda p: p["kind"]),
        Column("joule_seconds", lambda p: f"{p['joule_seconds']:g}", right=True),
        Column("circuit_setup", lambda p: p["circuit_setup"], right=True),
        Column("wake", lambda p: p["wake"], right=True),
    ),
    name="kind",
)


def _details(item: Item) -> list[str]:
    from flowos.planning.engines.weights import DEFAULT

    colour, width = render.has_colour(), render.terminal_width()
    lines = render.pairs(
        [
            ("a joule is worth", f"{item['joule_seconds']:g} s"),
            ("circuits are up in", item["circuit_setup"]),
            ("an engine wakes in", item["wake"]),
            ("report", ", ".join(f"{k}={v}" for k, v in item.get("report", {}).items())),
        ],
        colour=colour,
        width=width,
    )
    defaults = DEFAULT._asdict()
    weights = [
        {"name": name, "weight": value, "default": defaults[name]}
        for name, value in item["weights"].items()
    ]
    columns = (
        Column("weight", lambda w: w["name"]),
        Column("value", lambda w: f"{w['weight']:g}", right=True),
        Column(
            "default",
            lambda w: "" if w["weight"] == w["default"] else f"{w['default']:g}",
            right=True,
        ),
    )
    lines += ["", *render.table(columns, weights, colour=colour, width=width)]
    units = item.get("units", {})
    speeds = [
        {"type": work, "unit": units.get(work, "units"), "models": models}
        for work, models in item.get("speeds", {}).items()
    ]
    if speeds:
        columns = (
            Column("work", lambda s: s["type"]),
            Column("per second", lambda s: s["unit"]),
            Column("engines", lambda s: render.cut(_fastest(s["models"]), MODELS_MAX)),
        )
        lines += ["", *render.table(columns, speeds, colour=colour, width=width)]
    return lines


def _fastest(models: dict[str, float]) -> list[str]:
    ordered = sorted(models, key=lambda model: (-models[model], model))
    return [f"{model} {models[model]:,.6g}" for model in ordered]
