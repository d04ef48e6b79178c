"""One engine that is kept for tenant t by a reservation which comes and goes, and three slices."""

from collections.abc import Iterator
from typing import Any

from tests.protocol.model_store import Broken, State, apply, ranked

TENANT = {"S": "t", "T": "t", "U": "u"}
RULE, EPOCH, CLAIM, KEPT = ("rule",), ("epoch",), ("claim",), ("kept",)
US = "~kept"  # who has the engine while the reservation holds it


class Reserved:
    """Two schedulers, a controller, an operator and the engine's agent.

    A placement is (how, waits): a slice's is "held", "giving" (it ends, and has the engine until
    that is clean) or "gone" (the engine was taken from it); the reservation's is "held" or "wanted".
    """

    def __init__(self, mistakes: tuple[str, ...] = ()) -> None:
        self.bad = set(mistakes)

    def start(self) -> State:
        tries = {"add": 1.0, "rm": 1.0, **dict.fromkeys(TENANT, 1.0)}
        return (1, (), (), tuple(sorted(tries.items())), "", "")

    def next(self, state: State) -> Iterator[tuple[str, State]]:
        revision, frozen, slots_, budget_, up, fault = state
        records, slots, budget = dict(frozen), dict(slots_), dict(budget_)

        def packed(at: int, after: Any, slots: Any, budget: Any, up: str, fault: str) -> State:
            tables = (tuple(sorted(table.items())) for table in (after, slots, budget))
            return ranked((at, *tables, up, fault))

        def went(member: Any, slots: Any = slots, budget: Any = budget) -> State:
            after, at, _ = apply(records, revision, (member,))
            had, has = (r.get(CLAIM, ("",))[0] for r in (records, after))
            wrong = had == US and has in TENANT and after.get(RULE, ("",))[0] != TENANT[has]
            return packed(at, after, slots, budget, up, has if wrong else fault)

        for who in sorted(slots):
            rest = {name: slot for name, slot in slots.items() if name != who}
            yield f"{who} applied", went(slots[who], rest)
            yield f"{who} dropped", packed(revision, records, rest, budget, up, fault)
        for name in TENANT:
            if budget[name] and (member := self.commit(records, name)):
                left = {**budget, name: 0.0}
                for who in "AB":
                    if who not in slots:
                        taken = {**slots, who: member}
                        yield (
                            f"{who} plans {name}",
                            packed(revision, records, taken, left, up, fault),
                        )
        if "C" not in slots and (member := self.keep(records)):
            taken = {**slots, "C": member}
            yield "C plans", packed(revision, records, taken, budget, up, fault)
        change = {"add": ("put", RULE, "t"), "rm": ("delete", RULE)}
        for what in change:
            if budget[what] and (what == "add") != (RULE in records):
                left = {**budget, what: 0.0}
                yield what, went(((), (change[what], ("put", EPOCH, what))), budget=left)
        for name in TENANT:
            if ("placement", name) not in records:
                continue
            how, waits = records["placement", name][0]
            waiting = self.carried(records, waits)
            if how == "held" and not waiting:
                yield f"{name} ends", went(((), (("put", ("placement", name), ("giving", ())),)))
                if not up:
                    yield f"{name} is up", packed(revision, records, slots, budget, name, fault)
            elif up == name:
                yield f"{name} is down", packed(revision, records, slots, budget, "", fault)
            elif how != "held":
                gone: list[Any] = [("delete", ("placement", name))]
                gone += [("delete", CLAIM)] if how == "giving" else []
                yield f"free {name}", went(((), tuple(gone)))

    def carried(self, records: Any, waits: tuple[str, ...]) -> bool:
        return any(("placement", name) in records for name in waits)

    def commit(self, records: Any, name: str) -> Any:
        """A scheduler gives the engine to a slice, or None."""
        owner = records[CLAIM][0] if CLAIM in records else ""
        waits: tuple[str, ...] = ()
        compares: list[Any] = [(("placement", name), "create", 0)]
        if "epoch not compared" not in self.bad:
            compares.append(_same(records, EPOCH))
        operations: list[Any] = [("put", CLAIM, name)]
        if not owner:
            compares.append((CLAIM, "create", 0))
        elif owner == US:
            mine = RULE in records and records[RULE][0] == TENANT[name]
            if not (mine or "anybody takes what is kept" in self.bad):
                return None
            waits = tuple(w for w in records[KEPT][0][1] if ("placement", w) in records)
            if "who takes does not wait" in self.bad:
                waits = ()
            if "what is kept is not compared" not in self.bad:
                compares.append(_same(records, KEPT))
            operations.append(("put", KEPT, ("wanted", ())))
        else:
            return None
        operations.append(("put", ("placement", name), ("held", waits)))
        return tuple(compares), tuple(operations)

    def keep(self, records: Any) -> Any:
        """The controller holds the engine, waits for it, or lets it go; None = nothing to do."""
        owner = records[CLAIM][0] if CLAIM in records else ""
        how, waits = records[KEPT][0] if KEPT in records else ("", ())
        compares = [_same(records, KEPT), _same(records, EPOCH)]
        if RULE not in records:
            dirty = self.carried(records, waits) and "let go while it is dirty" not in self.bad
            if not how or dirty:
                return None
            gone = [("delete", KEPT), *([("delete", CLAIM)] if how == "held" else [])]
            return tuple(compares[:1]), tuple(gone)
        if how == "held":
            return None
        taken: tuple[str, ...] = ()
        operations: list[Any] = [("put", CLAIM, US)]
        if owner:
            key = ("placement", owner)
            if records[RULE][0] == TENANT[owner] or records[key][0][0] != "held":
                wait = (("put", KEPT, ("wanted", ())),)
                return None if how else (tuple(compares), wait)
            if "the victim is not compared" not in self.bad:
                compares.append(_same(records, key))
            taken = (owner,)
            operations.append(("put", key, ("gone", records[key][0][1])))
        else:
            compares.append((CLAIM, "create", 0))
        return tuple(compares), (*operations, ("put", KEPT, ("held", taken)))

    def check(self, state: State) -> None:
        _, frozen, _, _, up, fault = state
        records = dict(frozen)
        owner = records[CLAIM][0] if CLAIM in records else ""
        if fault:
            raise Broken(f"what is kept for t went to {fault}")
        if up and not owner:
            raise Broken("the engine is free and still up")
        has = [US] if KEPT in records and records[KEPT][0][0] == "held" else []
        for name in TENANT:
            if ("placement", name) in records:
                how, waits = records["placement", name][0]
                if how != "gone":
                    has.append(name)
                    if how == "held" and not self.carried(records, waits) and up not in ("", name):
                        raise Broken(f"{name} is ordered up while {up} is")
        if has != ([owner] if owner else []):
            raise Broken(f"{owner or 'nobody'} has the engine, and {has} say that they do")

    def clean(self, state: State) -> bool:
        return not {key for key, _ in state[1]} - {RULE, EPOCH, CLAIM, KEPT} and not state[2]


def _same(records: Any, key: Any) -> Any:
    """Compare that a key is as it was planned on."""
    return (key, "mod", records[key][2]) if key in records else (key, "create", 0)
