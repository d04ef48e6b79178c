"""Why does a slice wait, and what would let it go on? For people and scripts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from flowos.model.life import phase_in
from flowos.model.placement import Decision, Unplaceable
from flowos.model.rules import NO_RULES
from flowos.model.slice import Once, Phase, Reason, SliceSpec
from flowos.model.units import subject_of
from flowos.model.view import CellView
from flowos.planning.engines.pool import Pool
from flowos.planning.policy import Policy
from flowos.planning.reasons.defrag import Defrag, defrag
from flowos.planning.reasons.explain import funnel, why_not
from flowos.planning.reasons.unblock import EACH_MAX, Item, cheapest_first, unblock
from flowos.planning.reserved import RESERVED, in_the_way, when
from flowos.planning.shadow import left
from flowos.protocol.commit import spend
from flowos.protocol.grants import limit_of, uncovered
from flowos.runtime.affinity_shown import accounts_of
from flowos.runtime.asking import Asking
from flowos.runtime.shown import API_VERSION, Shown, slice_shown

UNBLOCK_MAX: Final = 8  # what else would help is of no use to know
SHOWN_MAX: Final = 4  # names in one line
MOVES_TRIALS_MAX: Final = 100  # sets of slices that are tried: `cell defrag` tries more
# Where enough is free, and moving others may help.
_GATHERED: Final = (Reason.FRAGMENTED_ACROSS_SWITCHES, Reason.NO_CIRCUIT)


def explained(
    view: CellView,
    identifier: str,
    *,
    now: float,
    why_not_engine: str = "",
    policy: Policy | None = None,
) -> Shown:
    """Return what `flowos slice explain` prints.

    Args:
        view: Follows everything that planners follow, and `reason/`, orders and reports. It is the
            caller's own: things are taken off it and put back, to try what would help.
        identifier: "tenant/name", of a slice that the view has.
        now: Wall-clock seconds, for how long others may still take.
        why_not_engine: An engine to be told of; "" = none.
        policy: The slice's, by which is tried what would help; None = the plain planner.
    """
    slice_ = view.slices[identifier].value
    shown = slice_shown(view, identifier, circuits=False)
    waiting = view.reasons.get(identifier)
    said = waiting.value if waiting and shown["reason"] == waiting.value.reason else None
    found: Shown = {
        "apiVersion": API_VERSION,
        "name": shown["name"],
        "tenant": shown["tenant"],
        "phase": shown["phase"],
        "policy": shown["policy"],
        "reason": shown["reason"],
        "sentence": shown["message"] or _sentence(shown),
        "funnel": [{"step": step, "engines": left} for step, left in said.funnel] if said else [],
        "unblock": [],
        "scheduler": said.scheduler if said else None,
        "affinity": [account.shown() for account in accounts_of(view, identifier)],
    }
    pool = Pool(view)
    if phase_in(view, identifier) is Phase.PENDING:
        steps = funnel(pool, slice_.spec)
        found["funnel"] = [{"step": step, "engines": left} for step, left in steps]
        found["unblock"] = _unblock(
            view, pool, slice_.spec, shown["reason"], now, Asking(view, policy, now=now)
        )
    if why_not_engine:
        sentence = why_not(pool, slice_.spec, why_not_engine)
        if shown["phase"] != Phase.PENDING:
            used = why_not_engine in {e["id"] for e in shown["engines"]}
            # Of one that was placed, planning can only say what it would do with it today.
            sentence = f"{why_not_engine} is used" if used else f"asked anew, {sentence}"
        found["why_not"] = {"engine": why_not_engine, "sentence": sentence}
    return found


def _sentence(shown: Shown) -> str:
    if shown["phase"] == Phase.PENDING:
        return f"no scheduler of policy {shown['policy']} has looked at it yet"
    if shown["ended_at"]:
        return f"it is {shown['phase']}: nothing is in the way"
    if shown["lacks"]:
        return (
            f"it has {len(shown['engines'])} of the engines that it asks for ({shown['asked']}), by "
            f"{shown['scheduler']}: it takes the rest when there is room"
        )
    return f"it has what it asked for, by {shown['scheduler']}: nothing is in the way"


def _unblock(
    view: CellView, pool: Pool, spec: SliceSpec, reason: str | None, now: float, ask: Asking
) -> list[Shown]:
    """Return what would help, each by itself, the cheapest first."""
    match reason:
        case Reason.HELD:
            return [_item("release", f"flowos slice release {spec.name}")]
        case Reason.SCHEDULER_DOWN:
            return [_item("start", f"flowos scheduler run {spec.served_by}")]
        case Reason.RESERVED_FOR_OTHER:
            return list(_wait_for_windows(view, spec, now))
        case Reason.DEPENDS_ON:
            return list(_wait_for_others(view, spec, now))
    items = unblock(
        pool,
        spec,
        lambda name: left(view, name, now),
        priority_of=lambda name: _priority(view, name),
        planner=ask,
    )
    if reason in (Reason.WAITING_FOR_POWER, Reason.QUOTA_EXCEEDED):
        decision = ask(pool, spec)
        short = short_of(view, spec.id, decision) if isinstance(decision, Decision) else {}
        if short:
            return list(_wait_for_power(view, short, now))
    if items and items[0].sort not in ("place", "wake"):
        found = ask(pool, spec)
        if isinstance(found, Unplaceable) and found.reason in _GATHERED:
            moves = defrag(pool, spec, trials_max=MOVES_TRIALS_MAX)
            if moves is not None and moves.moves:
                items = cheapest_first([*items, Item("move", words=_moves(moves))])
    shown = [_shown(view, spec, item) for item in items[:UNBLOCK_MAX]]
    if not shown and reason == Reason.INFEASIBLE:
        shown.append(_item("accept", "ask for less, or for other engines"))
    return shown


def _wait_for_others(view: CellView, spec: SliceSpec, now: float) -> Iterator[Shown]:
    """Yield each slice that a slice depends on and that has not ended, else its array's limit."""
    depends = False
    for on in spec.depends_on:
        other = view.slices.get(on.on)
        if other is not None and other.value.end is None:
            eta_s = None if on.once is Once.RUNNING else left(view, on.on, now)
            until = "run" if on.once is Once.RUNNING else "end"
            depends = True
            yield _item("wait", f"wait for {on.on} to {until}", eta_s, slices=[on.on])
    if not depends and spec.array is not None and spec.array.parallel:
        yield _item("wait", f"wait for another slice of array {spec.array.array} to end")


def _item(sort: str, do: str, eta_s: float | None = None, **more: Any) -> Shown:
    return {"do": do, "eta_s": None if eta_s is None else round(eta_s), "sort": sort, **more}


def _shown(view: CellView, spec: SliceSpec, item: Item) -> Shown:
    slices = [name for name in item.names if not name.startswith("~")]
    match item.sort:
        case "place":
            do = f"nothing: it can be placed as it is, when a scheduler of {spec.served_by} looks"
        case "wake":
            count = len(item.engines)
            what = "engine" if count == 1 else "engines"
            do = f"wake {count} {what}: {_few(item.engines)}; its scheduler does so"
            return _item(
                "wake", do, (view.planner or NO_RULES).wake_seconds, engines=list(item.engines)
            )
        case "wait":
            ending = all(view.placements[name].value.ending for name in slices)
            do = f"wait for {_and(item.names)}" + (", which is being given back" if ending else "")
        case "preempt":
            do = f"pre-empt {_and(item.names)}, of lower priority than {spec.priority}"
        case "undrain":
            do = " and ".join(_undrain(view, name) for name in item.names)
        case _:
            do = item.words
    return _item(item.sort, do, item.eta_s, **({"slices": slices} if slices else {}))


def _moves(found: Defrag) -> str:
    moves = [f"{m.slice} from {m.source} to {m.target}" for m in found.moves]
    more = f" and {len(moves) - SHOWN_MAX} more" if len(moves) > SHOWN_MAX else ""
    return f"move {', '.join(moves[:SHOWN_MAX])}{more}"


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_MAX} more" if len(names) > SHOWN_MAX else ""
    return ", ".join(names[:SHOWN_MAX]) + more


def _and(names: Sequence[str]) -> str:
    if len(names) > SHOWN_MAX:
        return _few(names)
    return " and ".join([*([", ".join(names[:-1])] if names[1:] else []), names[-1]])


def _priority(view: CellView, name: str) -> int | None:
    entry, placed = view.slices.get(name), view.placements.get(name)
    if entry is None or placed is None or placed.value.ending is not None:
        return None
    return entry.value.spec.priority


# -- power


def short_of(view: CellView, name: str, decision: Decision) -> dict[str, int]:
    """Return the purses that cannot cover a slice's plan, with how much is missing of each."""
    found: dict[str, int] = {}
    for purse, amount in spend(view.cell, decision.units, name).items():
        limit = limit_of(view.cell, purse)
        used = sum(e.value.spent.get(purse, 0) for e in view.placements.values())
        used += uncovered(view.cell, view.placements, purse)
        if limit is not None and amount > limit - used:
            found[purse] = amount - (limit - used)
    return found


def _wait_for_power(view: CellView, short: Mapping[str, int], now: float) -> Iterator[Shown]:
    """Yield the slices of which each draws, or counts for, alone as much as is missing."""
    enough = [
        name
        for name, entry in view.placements.items()
        if all(entry.value.spent.get(purse, 0) >= watts for purse, watts in short.items())
    ]
    whens = {name: left(view, name, now) for name in enough}
    for name in sorted(enough, key=lambda n: (whens[n] is None, whens[n] or 0, n))[:EACH_MAX]:
        ending = view.placements[name].value.ending
        do = f"wait for {name}" + (", which is being given back" if ending else "")
        yield _item("wait", do, whens[name], slices=[name])
    for purse, amount in short.items():
        family, name, *kind = purse.split(":")
        if family == "tenant":
            yield _item("quota", f"raise the quota of tenant {name} by {amount / 1000:g} {kind[0]}")
        else:
            yield _item("budget", f"raise the budget of domain {name} by {amount} W")


def _wait_for_windows(view: CellView, spec: SliceSpec, now: float) -> Iterator[Shown]:
    """Yield what would let a slice in where reservations keep it out."""
    for window in in_the_way(view, spec, now):
        ends = f"closes, {when(window.until_at)}" if window.until_at else "is removed"
        eta_s = max(0.0, window.until_at - now) if window.until_at else None
        do = f"wait until reservation {window.name} {ends}"
        yield _item("wait", do, eta_s, reservation=window.name)
        if window.from_at > now:
            limit = int(window.from_at - now)
            do = f"set a time limit of less than {limit} s: reservation {window.name} opens then"
            yield _item("accept", do, 0.0, reservation=window.name)
        do = f"flowos reservation rm {window.name}"
        yield _item("unreserve", do, reservation=window.name)


def _undrain(view: CellView, name: str) -> str:
    if name.startswith(RESERVED):
        return f"flowos reservation rm {name.split('/')[1]}"
    if name.startswith("~drain/"):
        return f"flowos engine undrain {subject_of(name.removeprefix('~drain/'))}"
    if name.startswith("~quarantine/"):
        node = name.split("/")[1]
        return f"start the agent of {node} again, or flowos engine undrain --dirty {node}"
    return f"{name} has to be given back" + (f": {why}" if (why := _why(view, name)) else "")


def _why(view: CellView, name: str) -> str:
    placement = view.now(name)
    return placement.why if placement is not None else ""
