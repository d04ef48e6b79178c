"""A tenant's quota by grants: set while slices run, lowered, and taken over between schedulers.

Two schedulers, one tenant, slices of a whole engine (1.0) and of a half (0.5). The quota is not there
at first, so what is placed then spends nothing of it. Each scheduler hears of the tenant's record and
of placements at moments of its own.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from tests.protocol.model_store import Broken, State, apply, ranked

HOLDERS = ("p", "q")
AMOUNTS = {"S": 1.0, "T": 0.5, "U": 0.5}
TENANT = ("tenant",)
EPOCH = ("epoch",)
NO_QUOTA = -1.0


class Quotas:
    """In flight is (who, what, slice, member); a look is (who, at what, what it saw, revision)."""

    def __init__(
        self, mistakes: tuple[str, ...] = (), *, slices: str = "ST", **budget: float
    ) -> None:
        self.bad = set(mistakes)
        self.slices = tuple(slices)
        usual = {"set": 1.0, "lower": 1.0, "commit": 2.0, "grow": 1.0, "take": 0.0, "back": 0.0}
        self.budget = tuple(sorted({**usual, **budget}.items()))

    def start(self) -> State:
        records = {TENANT: (NO_QUOTA, 1, 1), EPOCH: ("", 1, 1)}
        looks = [(h, "tenant", NO_QUOTA, 1) for h in HOLDERS]
        looks += [(h, "placements", 0.0, 1) for h in HOLDERS]
        # revision, records, in flight, looks, budget
        return (1, tuple(sorted(records.items())), (), tuple(sorted(looks)), self.budget)

    # -- what follows from the records

    @staticmethod
    def spent(records: Mapping[Any, Any], holder: str) -> float:
        placed = [v[0] for k, v in records.items() if k[0] == "placement"]
        return sum((spent for who, spent, _ in placed if who == holder), 0.0)

    @staticmethod
    def total(records: Mapping[Any, Any]) -> float:
        return sum((v[0] for k, v in records.items() if k[0] == "grant"), 0.0)

    @staticmethod
    def uncovered(records: Mapping[Any, Any]) -> float:
        placed = [v[0] for k, v in records.items() if k[0] == "placement"]
        return sum((uses - spent for _, spent, uses in placed), 0.0)

    # -- what may happen

    def next(self, state: State) -> Iterator[tuple[str, State]]:
        revision, frozen, flight, looks, budget_ = state
        records, budget = dict(frozen), dict(budget_)

        def packed(**changes: Any) -> State:
            s = {"revision": revision, "records": records, "flight": flight, "looks": looks}
            s |= {"budget": budget, **changes}
            return ranked(
                (
                    s["revision"],
                    tuple(sorted(s["records"].items())),
                    tuple(sorted(s["flight"], key=repr)),
                    tuple(sorted(s["looks"])),
                    tuple(sorted(s["budget"].items())),
                )
            )

        def less(what: str) -> dict[str, float]:
            return {**budget, what: budget[what] - 1}

        def done(*operations: Any, compares: Any = (), **changes: Any) -> State:
            after, at, _ = apply(records, revision, [(tuple(compares), operations)])
            return packed(records=after, revision=at, **changes)

        def asks(who: str, what: str, name: str, member: Any) -> State:
            return packed(flight=(*flight, (who, what, name, member)), budget=less(what))

        quota = records[TENANT][0]
        if quota == NO_QUOTA and budget["set"]:
            yield "quota set", done(("put", TENANT, 1.0), ("put", EPOCH, ""), budget=less("set"))
        if quota == 1.0 and budget["lower"]:
            writes = ("put", TENANT, 0.5), ("put", EPOCH, "")
            yield "quota lowered", done(*writes, budget=less("lower"))
        for who in HOLDERS:
            for what, now in (("tenant", quota), ("placements", self.uncovered(records))):
                rest = tuple(look for look in looks if look[:2] != (who, what))
                at = records[TENANT][2] if what == "tenant" else revision
                look = (who, what, now, at)
                if look not in looks:
                    yield f"{who} hears of {what}", packed(looks=(*rest, look))
            if not any(asked[0] == who for asked in flight):
                yield from self.plans(who, records, revision, looks, budget, asks)
        for index, (_, what, name, member) in enumerate(flight):
            rest = (*flight[:index], *flight[index + 1 :])
            after, at, (happened,) = apply(records, revision, [member])
            if happened:
                self.judge(what, name, records, after)
            yield f"{what} {name} applied", packed(records=after, revision=at, flight=rest)
            yield f"{what} {name} dropped", packed(flight=rest)
        for key in [key for key in records if key[0] == "placement"]:
            yield f"end {key[1]}", done(("delete", key))
        for key in [key for key in records if key[0] == "grant"]:
            # Of somebody who has nothing under way; who has is kept from it by its own view.
            used = self.spent(records, key[1])
            if used < records[key][0] and not any(asked[0] == key[1] for asked in flight):
                lower = ("put", key, used) if used else ("delete", key)
                yield f"{key[1]} gives back", done(lower)

    def plans(
        self, who: str, records: Any, revision: int, looks: Any, budget: Any, asks: Any
    ) -> Iterator[tuple[str, State]]:
        seen = {look[1]: look for look in looks if look[0] == who}
        quota, quota_at = seen["tenant"][2:]
        same_tenant = (TENANT, "mod", quota_at)
        if "the epoch will do" in self.bad:
            same_tenant = (EPOCH, "mod", records[EPOCH][2])
        if "tenant not compared" in self.bad:
            same_tenant = (TENANT, "create", records[TENANT][1])
        key = ("grant", who)
        grant, _, granted_at = records.get(key, (0.0, 0, 0))
        same_grant = (key, "mod", granted_at)
        free = grant - self.spent(records, who)
        for name in self.slices if budget["commit"] else ():
            amount, placement = AMOUNTS[name], ("placement", name)
            compares = [same_tenant, (placement, "create", 0)]
            if placement in records or (quota != NO_QUOTA and amount > free):
                continue
            spends = amount
            if quota == NO_QUOTA:
                spends = 0.0
            else:
                compares.append(same_grant)
            put = ("put", placement, (who, spends, amount))
            yield f"{who} plans {name}", asks(who, "commit", name, (tuple(compares), (put,)))
        for amount in (0.5, 1.0) if budget["grow"] and quota != NO_QUOTA else ():
            uncovered, looked_at = seen["placements"][2:]
            if looked_at < quota_at and "an older look at placements" not in self.bad:
                continue
            if "what is uncovered is forgotten" in self.bad:
                uncovered = 0.0
            if self.total(records) + uncovered + amount > quota:
                continue
            compares = [same_grant, (TENANT, "mod", quota_at), (("grant",), "below", revision)]
            put = ("put", key, grant + amount)
            yield f"{who} asks for {amount:g}", asks(who, "grow", who, (tuple(compares), (put,)))
        if budget["take"] and quota != NO_QUOTA:
            yield from self.takes(who, records, same_tenant, asks)

    def takes(
        self, who: str, records: Any, same_tenant: Any, asks: Any
    ) -> Iterator[tuple[str, State]]:
        """A slice takes another one's engine, and with it what that spends, of whose grant ever."""
        for victim in self.slices:
            for taker in self.slices:
                key, place = ("placement", victim), ("placement", taker)
                if key not in records or place in records or AMOUNTS[victim] < AMOUNTS[taker]:
                    continue
                payer, spent, _ = records[key][0]
                mine, yours = ("grant", who), ("grant", payer)
                moved = min(spent, AMOUNTS[taker])
                had, _, at = records.get(mine, (0.0, 0, 0))
                if self.spent(records, who) + AMOUNTS[taker] - moved > had:
                    continue
                compares = [same_tenant, (key, "mod", records[key][2]), (place, "create", 0)]
                compares.append((mine, "mod", at))
                writes = [("put", place, (who, AMOUNTS[taker], AMOUNTS[taker])), ("delete", key)]
                if payer != who and moved:
                    theirs = records[yours]
                    if "the victim's grant is not compared" not in self.bad:
                        compares.append((yours, "mod", theirs[2]))
                    if "the grant stays with the victim" not in self.bad:
                        writes.append(("put", mine, had + moved))
                        left = theirs[0] - moved
                        writes.append(("put", yours, left) if left > 0 else ("delete", yours))
                label = f"{who} lets {taker} take over from {victim}"
                yield label, asks(who, "take", taker, (tuple(compares), tuple(writes)))

    # -- what must never be

    def judge(self, what: str, name: str, before: Any, after: Any) -> None:
        """Look at a request that happened."""
        quota = after[TENANT][0]
        granted, had = self.total(after), self.total(before)
        used = granted + self.uncovered(after)
        if granted > had and used > quota:
            raise Broken(f"{what} {name} brings what is given away to {used:g} of {quota:g}")
        if what == "take" and granted > had:
            raise Broken(f"{name} takes over, and the grants rise from {had:g} to {granted:g}")
        if what in ("commit", "take") and quota != NO_QUOTA:
            _, spent, uses = after["placement", name][0]
            if spent < uses:
                raise Broken(f"{name} uses {uses:g} and spends {spent:g}")

    def check(self, state: State) -> None:
        records = dict(state[1])
        for holder in HOLDERS:
            used, grant = self.spent(records, holder), records.get(("grant", holder), (0.0,))[0]
            if used > grant:
                raise Broken(f"{holder} spends {used:g} of a grant of {grant:g}")

    def clean(self, state: State) -> bool:
        return not state[2] and not [k for k, _ in state[1] if k[0] in ("placement", "grant")]
