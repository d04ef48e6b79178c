"""Taking parts over: a host's amounts and the watts for them go from a victim to who is more important.

One host with two parts, each of which draws one watt while it is built. S and T are small and give
way; U takes from them what is lacking. A schedules S and T, B schedules U, each with a grant of its
own. As in `model_life`, every actor plans on a snapshot and its request is
applied at any later time or never; the controller's steps are applied at once.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.protocol.model_store import Broken, State, apply, ranked

PARTS = 2.0
SMALL = ("S", "T")
PLANS = {"A": SMALL, "B": ("U",)}


class Placed(NamedTuple):
    """A placement: what it holds and gives back of the host, whom it waits for, what it spends."""

    attempt: str
    scheduler: str
    held: float
    releasing: float
    waits: tuple[str, ...]
    spent: float


def put(key: Any, value: Any) -> Any:
    return ("put", key, value)


def delete(key: Any) -> Any:
    return ("delete", key)


class Parts:
    """A host whose parts are taken over, and the grants that they are spent from."""

    def __init__(
        self,
        wants: dict[str, float],
        mistakes: tuple[str, ...] = (),
        *,
        limit: float = PARTS,
        granted: float = PARTS,
        **budget: float,
    ) -> None:
        """Describe what may happen.

        Args:
            wants: Slice -> how much of the host it asks for.
            mistakes: Rules that are left out.
            limit: What all grants together may come to.
            granted: What of it A has to begin with.
            budget: How often each slice may be tried, "end" may end one, "back" give a grant
                back, and "other", a third scheduler, raise its own.
        """
        self.wants, self.bad = wants, set(mistakes)
        # Not even the counts of what may still happen are revisions.
        self.budget = {what: float(count) for what, count in budget.items()}
        self.limit, self.first = limit, granted

    def start(self) -> State:
        records = ((("grant", "A"), (self.first, 1, 1)),)
        return self._packed(1, dict(records), {}, (), {}, self.budget, frozenset())

    def _packed(
        self,
        revision: int,
        records: Any,
        slots: Any,
        known: Any,
        built: Any,
        budget: Any,
        past: Any,
    ) -> State:
        tables = (tuple(sorted(table.items())) for table in (records, slots))
        rest = (tuple(sorted(built.items())), tuple(sorted(budget.items())), tuple(sorted(past)))
        return ranked((revision, *tables, known, *rest))

    # -- what records say

    @staticmethod
    def placements(records: Any) -> dict[str, tuple[Placed, int]]:
        return {k[1]: (Placed(*v[0]), v[2]) for k, v in records.items() if k[0] == "placement"}

    def carried(self, records: Any, waits: Any) -> bool:
        return any(placed.attempt in waits for placed, _ in self.placements(records).values())

    @staticmethod
    def granted(records: Any, who: str) -> tuple[float, int]:
        value, _, modified = records.get(("grant", who), (0.0, 0, 0))
        return value, modified

    def spent(self, records: Any, who: str) -> float:
        mine = [p for p, _ in self.placements(records).values() if p.scheduler == who]
        return sum((placed.spent for placed in mine), start=0.0)

    # -- the steps

    def commit(self, records: Any, revision: int, who: str, name: str, attempt: str) -> Any:
        """Place a slice, or take over what it lacks; None where it cannot be had."""
        want = self.wants[name]
        free = PARTS - sum(v[0] for k, v in records.items() if k[0] == "claim")
        short, waits = max(0.0, want - free), list[str]()
        moved: dict[str, float] = {}
        compares: list[Any] = [(("placement", name), "create", 0)]
        operations: list[Any] = [put(("claim", attempt), want)]
        if "no guard" not in self.bad:
            compares.append((("claim",), "below", revision))
        for victim, (placed, modified) in self.placements(records).items():
            gives = min(placed.held, short)
            if name in SMALL or victim not in SMALL or not gives:
                continue
            short -= gives
            rest = placed.held - gives
            left = 0.0 if "rest is free at once" in self.bad else rest
            goes = min(gives, placed.spent)
            moved[placed.scheduler] = moved.get(placed.scheduler, 0.0) + goes
            waits.append(placed.attempt)
            if "victim not compared" not in self.bad:
                compares.append((("placement", victim), "mod", modified))
            if left:
                if "rest is not written" not in self.bad:
                    operations.append(put(("claim", placed.attempt), left))
            else:
                operations.append(delete(("claim", placed.attempt)))
            spends = placed.spent - (0.0 if "victim spends on" in self.bad else goes)
            after = placed._replace(held=0.0, releasing=left, spent=spends)
            operations += [put(("placement", victim), after), put(("order", placed.attempt), 0.0)]
        if short:
            return None
        had, modified = self.granted(records, who)
        if self.spent(records, who) + want - sum(moved.values()) > had:
            return None
        compares.append((("grant", who), "mod", modified))
        for other, goes in moved.items() if moved else ():
            if other == who or not goes:
                continue
            has, written = self.granted(records, other)
            if "victim's grant not compared" not in self.bad:
                compares.append((("grant", other), "mod", written))
            if "grant stays" not in self.bad:
                operations.append(put(("grant", other), has - goes))
            operations.append(put(("grant", who), had + goes))
        placed = Placed(attempt, who, want, 0.0, tuple(waits), want)
        operations.append(put(("placement", name), placed))
        if not waits or "orders put at take-over" in self.bad:
            operations.append(put(("order", attempt), want))
        return tuple(compares), tuple(operations)

    def controls(self, records: Any) -> Iterator[tuple[str, Any]]:
        for name, (placed, modified) in self.placements(records).items():
            same = ((("placement", name), "mod", modified),)
            waits = self.carried(records, placed.waits)
            if placed.held and placed.waits and (not waits or "armed early" in self.bad):
                after = put(("placement", name), placed._replace(waits=()))
                order = put(("order", placed.attempt), placed.held)
                yield f"arm {name}", (same, (after, order))
            if placed.held:
                after = put(("placement", name), placed._replace(held=0.0, releasing=placed.held))
                down = () if placed.waits else (put(("order", placed.attempt), 0.0),)
                yield f"end {name}", (same, (after, *down))
            order, report = (records.get((k, placed.attempt)) for k in ("order", "report"))
            told = order is None or (report is not None and report[0] >= order[2])
            if not placed.held and told and (not waits or "free does not wait" in self.bad):
                keys = [(kind, placed.attempt) for kind in ("claim", "order", "report")]
                gone = (*map(delete, keys), delete(("placement", name)))
                yield f"free {name}", (same, gone)

    # -- everything that can happen next

    def next(self, state: State) -> Iterator[tuple[str, State]]:
        revision, frozen, slots_, known, built_, budget_, past = state
        records, slots, built, budget = dict(frozen), dict(slots_), dict(built_), dict(budget_)

        def done(member: Any, **changes: Any) -> State:
            after, now, _ = apply(records, revision, [member])
            gone = {p.attempt for p, _ in self.placements(records).values()}
            gone -= {p.attempt for p, _ in self.placements(after).values()}
            given = {"slots": slots, "built": built, "budget": budget, "known": known, **changes}
            given["past"] = {*past, *gone}
            return self._packed(now, after, **given)

        nothing: Any = ((), ())
        for who, names in PLANS.items():
            if who in slots:
                rest = {other: slot for other, slot in slots.items() if other != who}
                yield f"{who} applied", done(slots[who], slots=rest)
                yield f"{who} dropped", done(nothing, slots=rest)
                continue
            for name in names:
                if ("placement", name) in records or not budget.get(name):
                    continue
                attempt = f"{name}{budget[name]:.0f}"
                member = self.commit(records, revision, who, name, attempt)
                if member is not None:
                    left = {**budget, name: budget[name] - 1}
                    planned = {**slots, who: member}
                    yield f"{who} plans {name}", done(nothing, slots=planned, budget=left)
            had, modified = self.granted(records, who)
            used, same = self.spent(records, who), ((("grant", who), "mod", modified),)
            if had > used and budget.get("back"):
                left = {**budget, "back": budget["back"] - 1}
                member = (same, (put(("grant", who), used),))
                yield (
                    f"{who} plans to give back",
                    done(nothing, slots={**slots, who: member}, budget=left),
                )
            rest = self.limit - sum(v[0] for k, v in records.items() if k[0] == "grant")
            if rest > 0 and had - used < max(self.wants.get(name, 0.0) for name in names):
                guard = (*same, (("grant",), "below", revision))
                yield f"{who} raises", done((guard, (put(("grant", who), had + rest),)))
        rest = self.limit - sum(v[0] for k, v in records.items() if k[0] == "grant")
        if rest > 0 and budget.get("other"):
            left = {**budget, "other": budget["other"] - 1}
            member = (((("grant",), "below", revision),), (put(("grant", "C"), rest),))
            yield "C raises", done(member, budget=left)
        for label, member in self.controls(records):
            if label.startswith("end"):
                if budget.get("end"):
                    yield label, done(member, budget={**budget, "end": budget["end"] - 1})
            else:
                yield label, done(member)
        orders = tuple(sorted((k[1], v[2], v[0]) for k, v in records.items() if k[0] == "order"))
        if orders != known:
            yield "sync", done(nothing, known=orders)
        wanted = {attempt: amount for attempt, _, amount in known if amount}
        for attempt in built:
            if attempt not in wanted:
                rest = {other: amount for other, amount in built.items() if other != attempt}
                yield f"tear down {attempt}", done(nothing, built=rest)
        for attempt, amount in wanted.items():
            if attempt not in built:
                yield f"build {attempt}", done(nothing, built={**built, attempt: amount})
        for attempt, modified, amount in known:
            order, report = records.get(("order", attempt)), records.get(("report", attempt))
            same = built.get(attempt, 0.0) == amount
            newer = order is not None and order[2] == modified
            if same and newer and (report is None or report[0] < modified):
                yield f"report {attempt}", done(((), (put(("report", attempt), modified),)))

    # -- what must hold

    def check(self, state: State) -> None:
        records, built = dict(state[1]), dict(state[4])
        placements = self.placements(records)
        claims = {k[1]: v[0] for k, v in records.items() if k[0] == "claim"}
        listed = {p.attempt: p.held + p.releasing for p, _ in placements.values()}
        if claims != {attempt: amount for attempt, amount in listed.items() if amount}:
            raise Broken(f"claims {claims} but placements list {listed}")
        if sum(claims.values()) > PARTS:
            raise Broken(f"the host is given away more than once: {claims}")
        if sum(built.values()) > sum(claims.values()):
            raise Broken(f"{built} is built, and only {claims} claimed: a part is free in use")
        if sum(built.values()) > PARTS:
            raise Broken(f"{built} is built on a host with {PARTS:.0f} parts")
        if sum(built.values()) > sum(p.spent for p, _ in placements.values()):
            raise Broken(f"{built} draws power that nobody spends")
        grants = {k[1]: v[0] for k, v in records.items() if k[0] == "grant"}
        if sum(grants.values()) > self.limit:
            raise Broken(f"grants {grants} are more than the limit")
        for who in PLANS:
            if self.spent(records, who) > grants.get(who, 0.0):
                raise Broken(f"{who} spends {self.spent(records, who)} of {grants.get(who, 0.0)}")
        orders = {k[1]: v[0] for k, v in records.items() if k[0] == "order" and v[0]}
        for name, (placed, _) in placements.items():
            if placed.attempt in state[6]:
                raise Broken(f"{name} was over and is placed again")
            if placed.attempt in orders and self.carried(records, placed.waits):
                raise Broken(f"{name} has orders, and waits for {placed.waits}")

    def clean(self, state: State) -> bool:
        return not any(k[0] != "grant" for k, _ in state[1]) and not state[2] and not state[4]
