"""Grants by session: spending by compare, giving back, dead holders, lost answers, lower limits.

Two holders, a limit of 2, placements of 1. A commit compares its holder's session and grant and
writes neither. Who takes a dead holder's grant back has looked at placements at some moment, by
another watch than the one that told of the death.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from tests.protocol.model_store import Broken, State, apply, ranked

HOLDERS = ("p", "q")
SLICES = ("S", "T")
LIMIT = ("limit",)


class Grants:
    """In flight is (who, what, members): who is a holder, "taker", or "net" once it is lost."""

    def __init__(self, mistakes: tuple[str, ...] = (), **budget: float) -> None:
        self.bad = set(mistakes)
        usual = {"lose": 1.0, "crash": 1.0, "lower": 1.0, "grow": 1.0, "spend": 3.0}
        self.budget = tuple(sorted({**usual, **budget}.items()))
        self.mortal = dict(self.budget)["crash"] > 0  # else nobody looks after the dead

    def start(self) -> State:
        records: dict[Any, Any] = {
            LIMIT: (2.0, 1, 1),
            ("grant", "p"): (1.0, 1, 1),
            ("grant", "q"): (0.0, 1, 1),
        }
        records |= {("session", holder): ("", 1, 1) for holder in HOLDERS}
        # revision, records, in flight, holders unsure of an answer, looks at placements, budget
        return (1, tuple(sorted(records.items())), (), (), (), self.budget)

    @staticmethod
    def used(records: Mapping[Any, Any], holder: str) -> float:
        spent = [v[0] for k, v in records.items() if k[0] == "placement"]
        return sum((amount for who, amount in spent if who == holder), 0.0)

    @staticmethod
    def total(records: Mapping[Any, Any]) -> float:
        return sum((v[0] for k, v in records.items() if k[0] == "grant"), 0.0)

    def next(self, state: State) -> Iterator[tuple[str, State]]:
        revision, frozen, flight, unsure, looks, budget_ = state
        records, budget = dict(frozen), dict(budget_)
        now = {
            "revision": revision,
            "records": records,
            "flight": flight,
            "unsure": unsure,
            "looks": looks,
            "budget": budget,
        }

        def packed(**changes: Any) -> State:
            s = now | changes
            return ranked(
                (
                    s["revision"],
                    tuple(sorted(s["records"].items())),
                    tuple(sorted(s["flight"], key=repr)),
                    tuple(sorted(s["unsure"])),
                    tuple(sorted(s["looks"])),
                    tuple(sorted(s["budget"].items())),
                )
            )

        def done(*operations: Any, compares: Any = (), **changes: Any) -> State:
            after, at, _ = apply(records, revision, [(tuple(compares), operations)])
            return packed(records=after, revision=at, **changes)

        def less(what: str) -> dict[str, float]:
            return {**budget, what: budget[what] - 1}

        for holder in HOLDERS:
            if ("grant", holder) in records:
                if ("session", holder) in records:
                    yield from self.holder(holder, records, revision, now, packed, done, less)
                else:
                    yield from self.taker(holder, records, looks, flight, packed, done)
                if self.mortal:
                    look = (holder, self.used(records, holder), revision)
                    others = tuple(other for other in looks if other[0] != holder)
                    yield f"look at {holder}", packed(looks=(*others, look))
        for index, (who, what, members) in enumerate(flight):
            rest = (*flight[:index], *flight[index + 1 :])
            after, at, verdicts = apply(records, revision, members)
            if what == "raise" and verdicts[0] and self.total(after) > after[LIMIT][0]:
                raise Broken(
                    f"raising brings the grants to {self.total(after):g} over a limit of "
                    f"{after[LIMIT][0]:g}"
                )
            yield f"{what} applied", packed(records=after, revision=at, flight=rest)
            yield f"{what} dropped", packed(flight=rest)
            if budget["lose"] and who in HOLDERS and what == "spend":
                lost = (*rest, ("net", what, members))
                yield "lost", packed(flight=lost, unsure=(*unsure, who), budget=less("lose"))
        for key in [key for key in records if key[0] == "placement"]:
            yield f"end {key[1]}", done(("delete", key))
        if budget["lower"]:
            yield "limit lowered", done(("put", LIMIT, 1.0), budget=less("lower"))

    def holder(
        self, holder: str, records: Any, revision: int, now: Any, packed: Any, done: Any, less: Any
    ) -> Iterator[tuple[str, State]]:
        flight, unsure, budget = now["flight"], now["unsure"], now["budget"]
        grant, session = records["grant", holder], records["session", holder]
        own: Any = (("session", holder), "mod", session[2])
        if "session of the holder not compared" in self.bad:
            own = (LIMIT, "create", 1)
        same = (("grant", holder), "mod", grant[2])
        mine = [f for f in flight if f[0] == holder]
        under_way = 0.0
        if "in flight not counted" not in self.bad:
            under_way += sum(f[1] == "spend" for f in mine) + unsure.count(holder)
        used = self.used(records, holder)
        if len(mine) < 2 and budget["spend"] and used + under_way + 1 <= grant[0]:
            placed = sum(key[0] == "placement" for key in records)
            for name in SLICES[: 1 + placed]:
                key = ("placement", name)
                asked = any(f[1] == "spend" and f[2][0][1][0][1] == key for f in flight)
                if key not in records and not asked:
                    member = ((own, same, (key, "create", 0)), (("put", key, (holder, 1.0)),))
                    spend = (*flight, (holder, "spend", (member,)))
                    yield f"{holder} spends", packed(flight=spend, budget=less("spend"))
        if not mine and budget["grow"] and self.total(records) + 1 <= records[LIMIT][0]:
            compares: list[Any] = [own, same]
            if "raise without range compare" not in self.bad:
                compares.append((("grant",), "below", revision))
            if "raise without limit compare" not in self.bad:
                compares.append((LIMIT, "mod", records[LIMIT][2]))
            more = ("put", ("grant", holder), grant[0] + 1)
            flown = (*flight, (holder, "raise", ((tuple(compares), (more,)),)))
            yield f"raise {holder}", packed(flight=flown, budget=less("grow"))
        if grant[0] > 0 and used + under_way <= grant[0] - 1:
            yield f"give back {holder}", done(("put", ("grant", holder), grant[0] - 1))
        if holder in unsure:
            sure = tuple(who for who in unsure if who != holder)
            if "absent is an answer" in self.bad:
                yield f"{holder} reads", packed(unsure=sure)
            else:
                yield f"{holder} fences", done(("put", ("session", holder), ""), unsure=sure)
        if budget["crash"]:
            yield (
                f"die {holder}",
                done(
                    ("delete", ("session", holder)),
                    budget=less("crash"),
                    unsure=tuple(who for who in unsure if who != holder),
                    flight=tuple(("net", *f[1:]) if f[0] == holder else f for f in flight),
                ),
            )

    def taker(
        self, holder: str, records: Any, looks: Any, flight: Any, packed: Any, done: Any
    ) -> Iterator[tuple[str, State]]:
        """Anyone takes a dead holder's grant back: fence it, then look, then lower it."""
        grant = records["grant", holder]
        key = ("grant", holder)
        gone = (("session", holder), "create", 0)
        fence = [look for look in looks if look[0] == f"fenced {holder}"]
        if not fence and "dead holder in one step" not in self.bad:
            after = done(("put", key, grant[0]), compares=(gone,))
            # The answer tells the revision of the fence; it is the newest.
            marked = (
                *after[:4],
                tuple(sorted((*after[4], (f"fenced {holder}", 0.0, after[0])))),
                after[5],
            )
            yield f"fence dead {holder}", ranked(marked)
            return
        for look in looks:
            if look[0] != holder:
                continue
            if fence and look[2] < fence[0][2] and "takes on an older look" not in self.bad:
                continue
            same = (key, "mod", grant[2])
            if not look[1]:
                rest = tuple(other for other in looks if holder not in other[0])
                yield (
                    f"take all from dead {holder}",
                    done(("delete", key), compares=(same,), looks=rest),
                )
            elif look[1] != grant[0]:
                rest = tuple(other for other in looks if other != look)
                lower = ("put", key, look[1])
                yield f"take from dead {holder}", done(lower, compares=(same,), looks=rest)

    def check(self, state: State) -> None:
        records = dict(state[1])
        for holder in HOLDERS:
            used, grant = self.used(records, holder), records.get(("grant", holder), (0.0,))[0]
            if used > grant:
                raise Broken(f"{holder} spends {used:g} of a grant of {grant:g}")

    def clean(self, state: State) -> bool:
        left = [k for k, v in state[1] if k[0] == "placement" or (k[0] == "grant" and v[0])]
        return not left and not state[2]
