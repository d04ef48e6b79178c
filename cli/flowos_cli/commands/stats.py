"""`flowos scheduler ls|stats`: which schedulers live, and what each has done."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from flowos_cli import render
from flowos_cli.output import API_VERSION, Listing, Output, now, output_options, show_list
from flowos_cli.render import Column, Item
from flowos_cli.wiring import Where, where_options

if TYPE_CHECKING:
    from flowos.model.protocols import CellStore
    from flowos.model.view import CellView

EMPTY: Final = "no scheduler runs: 'flowos scheduler run batch' starts one"
NOTHING_DONE: Final[Mapping[str, Any]] = {
    "commits": 0,
    "conflicts": 0,
    "conflict_fraction": 0.0,
    "plans": 0,
    "placed": 0,
    "plans_per_placed": 0.0,
    "decision_ms": {"p50": 0.0, "p99": 0.0},
    "commit_ms": {"p50": 0.0, "p99": 0.0},
    "busy": 0.0,
    "queue": 0,
    "refused": 0,
    "repaired": 0,
    "preemptions": 0,
    "marks": 0,
    "attempts": {"p50": 0.0, "p99": 0.0},
    "stale_revisions": {"p50": 0.0, "p99": 0.0},
    "wait_seconds": {"p50": 0.0, "p99": 0.0},
    "conflicts_by_cause": {},
    "rejected_by_kind": {},
    "rejected_units": [],
    "policy_failures": {},
    "lately": {"seconds": 0, "busy": 0.0, "commits_per_s": 0.0, "conflict_fraction": 0.0},
}

SCHEDULERS: Final = Listing(
    columns=(
        Column("name", lambda s: s["name"]),
        Column("policy", lambda s: s["policy"] or "-"),
        Column("host", lambda s: s["host"]),
        Column("pid", lambda s: str(s["pid"]), right=True),
        Column("age", lambda s: render.age(now() - s["started_at"]), right=True),
        Column("id", lambda s: s["id"], wide=True),
    ),
    empty=EMPTY,
)
STATS: Final = Listing(
    columns=(
        Column("name", lambda s: s["name"]),
        Column("policy", lambda s: s["policy"] or "-", wide=True),  # `scheduler ls` has it too
        Column("queue", lambda s: str(s["queue"]), right=True),
        Column("commits", lambda s: str(s["commits"]), right=True),
        Column("conflicts", lambda s: conflicts(s), right=True),
        Column("decide_ms", lambda s: quantiles(s["decision_ms"]), right=True),
        Column("commit_ms", lambda s: quantiles(s["commit_ms"]), right=True),
        Column("busy", lambda s: render.percent(s["busy"]), right=True),
        Column("1 more", lambda s: s["one_more"].replace("no matter", "-")),
        Column("plans", lambda s: str(s["plans"]), wide=True, right=True),
        Column("placed", lambda s: str(s["placed"]), wide=True, right=True),
        Column("plans/placed", lambda s: f"{s['plans_per_placed']:g}", wide=True, right=True),
        Column("tries", lambda s: quantiles(s["attempts"]), wide=True, right=True),
        Column("wait_s", lambda s: quantiles(s["wait_seconds"]), wide=True, right=True),
        Column("stale", lambda s: quantiles(s["stale_revisions"]), wide=True, right=True),
        Column("repaired", lambda s: str(s["repaired"]), wide=True, right=True),
        Column("took over", lambda s: str(s["preemptions"]), wide=True, right=True),
        Column("marks", lambda s: str(s["marks"]), wide=True, right=True),
        Column("conflicts by", lambda s: most_of(s["conflicts_by_cause"]), wide=True),
        Column("most lost", lambda s: most_lost(s["rejected_units"]), wide=True),
        Column("why 1 more", lambda s: s["advice"], wide=True),
        Column("id", lambda s: s["id"], wide=True),
    ),
    empty=EMPTY,
)


def conflicts(item: Item) -> str:
    """Return how many commits conflicted, and which part of all."""
    part = f" ({render.percent(item['conflict_fraction'])})" if item["conflicts"] else ""
    return f"{item['conflicts']}{part}"


def quantiles(of: Mapping[str, float]) -> str:
    """Return median and 99th percentile: "0.1/0.4"."""
    return f"{_short(of['p50'])}/{_short(of['p99'])}" if of["p99"] else "-"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"


def most_of(counts: Mapping[str, int]) -> str:
    """Return the two largest: "engine taken 9, rules 1"."""
    return ", ".join(f"{what} {count}" for what, count in list(counts.items())[:2]) or "-"


def most_lost(units: list[Mapping[str, Any]]) -> str:
    """Return the unit that was lost most often, and whether it is left alone now."""
    if not units:
        return "-"
    alone = ", left alone" if units[0]["avoided"] else ""
    return f"{units[0]['unit']} {units[0]['count']}{alone}"


@click.command("ls")
@output_options()
@where_options
def scheduler_ls(out: Output, where: Where) -> int:
    """List the schedulers that live."""
    from flowos.runtime.shown import schedulers_shown

    def make(view: "CellView", _store: "CellStore") -> list[Item]:
        return [*schedulers_shown(view)]

    return show_list(where, out, SCHEDULERS, ("session/",), make)


@click.command("stats")
@output_options()
@where_options
def scheduler_stats(out: Output, where: Where) -> int:
    """What each living scheduler has done: commits, conflicts, and how long they took.

    Times are the median and the 99th percentile of the last 1,000, in milliseconds. "1 more" is
    what one more process of that policy would do: it helps, it hurts, or it is no matter; -o wide
    says why, what conflicts were about, and which units are lost most often.

    \b
    flowos scheduler stats -w
    flowos scheduler stats -o wide
    """

    def make(view: "CellView", store: "CellStore") -> list[Item]:
        return stats_items(view, store)

    return show_list(where, out, STATS, ("session/", "stats/"), make)


def stats_items(view: "CellView", store: "CellStore") -> list[Item]:
    """Return the figures of every scheduler that lives; the view follows sessions."""
    from flowos.runtime.advice import Lately, advise
    from flowos.runtime.shown import schedulers_shown

    records = {r.key.rpartition("/")[2]: r.value for r in store.read(["stats/scheduler/"]).records}
    found: list[dict[str, Any]] = []
    for session in schedulers_shown(view):
        figures = json.loads(records[session["id"]]) if session["id"] in records else {}
        known = {**NOTHING_DONE, **figures}
        found.append(
            {
                "apiVersion": API_VERSION,
                "name": session["name"],
                "policy": session["policy"],
                **{name: known[name] for name in NOTHING_DONE},
                "id": session["id"],
            }
        )
    serving: defaultdict[str, list[Lately]] = defaultdict(list)
    for item in found:
        lately = item["lately"]
        serving[item["policy"]].append(
            Lately(
                lately["busy"], item["queue"], lately["commits_per_s"], lately["conflict_fraction"]
            )
        )
    for item in found:
        advice = advise(serving[item["policy"]])
        item |= {"one_more": str(advice.verdict), "gain": advice.gain, "advice": advice.sentence}
    return [*found]


def conflict_fraction(items: Iterable[Item]) -> float:
    """Return which part of all commits of these schedulers conflicted."""
    lost = sum(item["conflicts"] for item in items)
    done = lost + sum(item["commits"] for item in items)
    return round(lost / done, 4) if done else 0.0
