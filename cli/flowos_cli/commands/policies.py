"""`flowos cell policies ...`: which policy serves slices that name none, and how it is set."""

from typing import TYPE_CHECKING, Any, Final

import click

from flowos_cli import render
from flowos_cli.commands.rule import put_rule, rule_in
from flowos_cli.lazy import LazyGroup
from flowos_cli.output import API_VERSION, Listing, Output, output_options, say
from flowos_cli.render import Column, Item
from flowos_cli.wiring import Where, where_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowos.model.protocols import CellStore
    from flowos.model.rules import PolicyRules

KIND: Final = "Policies"


@click.group(
    cls=LazyGroup,
    short_help="Who serves which slices.",
    table={
        "apply": (f"{__name__}:apply", "Let a file say it."),
        "show": (f"{__name__}:show", "Who serves which slices now."),
    },
)
def policies() -> None:
    """Which policy serves slices that name none, and how the policies are set."""


# ---------------------------------------------------------------------------------------- apply


@click.command()
@click.argument("source", metavar="FILE")
@where_options
def apply(source: str, where: Where) -> int:
    """Let FILE (YAML or JSON) say who serves which slices, in place of what was said before.

    Slices that are submitted from now on go by it; settings and ageing hold at once.
    A file of {} is the defaults: batch serves all.

    \b
    flowos cell policies show -o yaml > policies.yaml
    flowos cell policies apply policies.yaml
    """
    from flowos.documents.policies_file import load_policies
    from flowos.model import keys
    from flowos.model.codec import encode

    rules = load_policies(source, known=_settings_known())
    store = where.store()
    try:
        new = put_rule(store, keys.POLICIES, encode(rules), what="who serves which slices")
        say(f"policies: {_counted(rules) if new else 'unchanged'}")
        for policy in _unserved(store, rules):
            say(
                f"note: no scheduler serves {policy} now, so its slices wait: "
                f"start one with 'flowos scheduler run {policy}'"
            )
    finally:
        store.close()
    return 0


def _settings_known() -> "Mapping[str, Mapping[str, float]]":
    """Return the settings of each policy that is installed here."""
    from importlib.metadata import entry_points

    known: dict[str, Mapping[str, float]] = {}
    for plugin in entry_points(group="flowos.schedulers"):
        try:
            known[plugin.name] = plugin.load().settings
        except (ImportError, AttributeError) as bug:  # its settings are taken as written
            say(f"note: scheduler plug-in {plugin.name} cannot be loaded: {bug}")
    return known


def _unserved(store: "CellStore", rules: "PolicyRules") -> list[str]:
    """Return the policies that slices are given to, and that no living scheduler serves."""
    from flowos.runtime.shown import view_of

    sessions = view_of(store, ["session/scheduler/"]).sessions_of("scheduler").values()
    served = {entry.value.policy for entry in sessions}
    named = [*(assignment.policy for assignment in rules.assignments), rules.default]
    return [policy for policy in dict.fromkeys(named) if policy not in served]


def _counted(rules: "PolicyRules") -> str:
    count = len(rules.assignments)
    return f"{count} assignment{'' if count == 1 else 's'}, {rules.default} serves the rest"


# ----------------------------------------------------------------------------------------- show


@click.command()
@output_options(watch=False)
@where_options
def show(out: Output, where: Where) -> int:
    """Who serves which slices now; as YAML or JSON it is a file that 'apply' reads."""
    from flowos.documents.policies_file import policies_document
    from flowos.model import keys
    from flowos.model.codec import decode
    from flowos.model.rules import NO_POLICIES, PolicyRules

    store = where.store()
    try:
        told = rule_in(store, keys.POLICIES)
    finally:
        store.close()
    rules = NO_POLICIES if told is None else decode(PolicyRules, told.value)
    document = policies_document(rules)
    out.put_one(_POLICIES, {"apiVersion": API_VERSION, "kind": KIND, **document}, _details)
    return 0


_POLICIES: Final = Listing(
    columns=(
        Column("kind", lambda p: p["kind"]),
        Column("default", lambda p: p["default"]),
        Column("ageing", lambda p: p["ageing"], right=True),
        Column("assignments", lambda p: str(len(p.get("assignments", ()))), right=True),
    ),
    name="kind",
)


def _details(item: Item) -> list[str]:
    colour, width = render.has_colour(), render.terminal_width()
    assignments: list[dict[str, Any]] = [
        *item.get("assignments", ()),
        {"policy": item["default"], "rest": True},
    ]
    columns = (
        Column("policy", lambda a: a["policy"]),
        Column("serves slices", _about),
        Column("gives way", lambda a: "yes" if a.get("preemptible") else ""),
    )
    lines = render.table(columns, assignments, colour=colour, width=width)
    lines += ["", *render.pairs([("ageing", item["ageing"])], colour=colour, width=width)]
    settings = [
        {"policy": policy, "name": name, "value": value}
        for policy, values in item.get("settings", {}).items()
        for name, value in values.items()
    ]
    if settings:
        columns = (
            Column("policy", lambda s: s["policy"]),
            Column("setting", lambda s: s["name"]),
            Column("value", lambda s: f"{s['value']:g}", right=True),
        )
        lines += ["", *render.table(columns, settings, colour=colour, width=width)]
    return lines


def _about(assignment: Item) -> str:
    """Return in words which slices an assignment is about."""
    words = [
        ("tenants", "of tenant"),
        ("kinds", "with an engine of kind"),
        ("names", "called"),
        ("shapes", "with a circuit of shape"),
    ]
    said = [f"{word} {' or '.join(assignment[k])}" for k, word in words if assignment.get(k)]
    if assignment.get("engines_least"):
        said.append(f"of {assignment['engines_least']} engines or more")
    if not said:
        return "the rest" if assignment.get("rest") else "all"
    return ", ".join(said)
