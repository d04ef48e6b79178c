"""Divisible units: parts of a host, an engine both whole and shared, group commit, a drain."""

from collections.abc import Iterator
from typing import Any

from tests.protocol.model_store import Broken, State, apply, ranked

# Slice -> parts of host H, which has 2, and what it wants of engine E.
WANT: dict[str, tuple[float, str]] = {
    "S": (1.0, "half"),
    "T": (1.0, "half"),
    "U": (2.0, ""),
    "W": (0.0, "whole"),
}
HOST, WHOLE, PARTS = ("host", "H"), ("engine", "E"), ("share", "E")


class Divisible:
    """Two schedulers on one host and one engine."""

    def __init__(self, mistakes: tuple[str, ...] = ()) -> None:
        self.bad = set(mistakes)

    def start(self) -> State:
        tries = {"S": 2.0, "T": 2.0, "U": 1.0, "W": 1.0}
        return (1, (), (), (("drain", 1.0), *tries.items()))

    def plan(self, records: Any, revision: int, names: tuple[str, ...]) -> Any:
        """Plan slices for one request, or None where one of them does not fit."""
        host = sum(v[0] for k, v in records.items() if k[:2] == HOST)
        parts = sum(v[0] for k, v in records.items() if k[:2] == PARTS)
        whole = WHOLE in records
        before = host, parts, whole
        members = []
        for name in names:
            want, kind = WANT[name]
            if "siblings planned apart" in self.bad:
                host, parts, whole = before
            busy = parts or whole if kind == "whole" else whole or parts + 0.5 > 1
            if host + want > 2 or (kind and busy):
                return None
            compares: list[Any] = [(("placement", name), "create", 0)]
            operations: list[Any] = [("put", ("placement", name), "held")]
            if want:
                host += want
                operations.append(("put", (*HOST, name), want))
                if "no range guard" not in self.bad:
                    compares.append((HOST, "below", revision))
            if kind == "whole":
                whole = True
                operations.append(("put", WHOLE, name))
                compares.append((WHOLE, "create", 0))
                if "whole ignores shares" not in self.bad:
                    compares.append((PARTS, "below", 0))
            if kind == "half":
                parts += 0.5
                operations.append(("put", (*PARTS, name), 0.5))
                compares.append((PARTS, "below", revision))
                if "share ignores whole" not in self.bad:
                    compares.append((WHOLE, "create", 0))
            members.append((tuple(compares), tuple(operations)))
        return tuple(members)

    def next(self, state: State) -> Iterator[tuple[str, State]]:
        revision, frozen, slots_, budget_ = state
        records, slots, budget = dict(frozen), dict(slots_), dict(budget_)

        def packed(
            revision: int = revision,
            records: Any = records,
            slots: Any = slots,
            budget: Any = budget,
        ) -> State:
            tables = (tuple(sorted(table.items())) for table in (records, slots, budget))
            return ranked((revision, *tables))

        def done(*members: Any) -> dict[str, Any]:
            after, now, _ = apply(records, revision, members)
            return {"revision": now, "records": after}

        pending = [n for n in WANT if ("placement", n) not in records and budget[n]]
        groups = [(n,) for n in pending] + [(n, m) for n in pending for m in pending if n < m]
        for who in "AB":
            if who in slots:
                rest = {name: slot for name, slot in slots.items() if name != who}
                yield f"{who} applied", packed(**done(*slots[who]), slots=rest)
                yield f"{who} dropped", packed(slots=rest)
                continue
            for names in groups:
                members = self.plan(records, revision, names)
                if members:
                    left = {**budget, **{name: budget[name] - 1 for name in names}}
                    yield f"{who} plans {names}", packed(slots={**slots, who: members}, budget=left)
        if budget["drain"] and "A" not in slots:
            members = (self.drain(records, revision),)
            left = {**budget, "drain": 0.0}
            yield "drain planned", packed(slots={**slots, "A": members}, budget=left)
        if records.get(WHOLE, ("",))[0] == "~drain":
            yield "undrain", packed(**done(((), (("delete", WHOLE),))))
        for _, name in [key for key in records if key[0] == "placement"]:
            mine = [k for k in records if k[-1] == name or (k == WHOLE and records[k][0] == name)]
            yield f"free {name}", packed(**done(((), tuple(("delete", key) for key in mine))))

    def drain(self, records: Any, revision: int) -> Any:
        """A drain of a shared engine takes all of it over in one transaction."""
        there = records.get(WHOLE)
        compares = [(PARTS, "below", revision), (WHOLE, "mod", there[2] if there else 0)]
        if "drain ignores new shares" in self.bad:
            del compares[0]
        parts = [("delete", key) for key in records if key[:2] == PARTS]
        return tuple(compares), (*parts, ("put", WHOLE, "~drain"))

    def check(self, state: State) -> None:
        records = dict(state[1])
        if sum(v[0] for k, v in records.items() if k[:2] == HOST) > 2:
            raise Broken("host H is given away more than once")
        parts = sum(v[0] for k, v in records.items() if k[:2] == PARTS)
        if parts > 1 or (parts and WHOLE in records):
            raise Broken("engine E is given away more than once")

    def clean(self, state: State) -> bool:
        return not state[1] and not state[2]
