"""Lost answers: fence, then read, then act; where the fence, the view and the lease fail as well.

One process has some requests of its own under way at a time, each with a fresh attempt. It learns
of its fence and of the cell at different moments, and its lease may run out at any of them.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.protocol.model_store import Broken, State, apply, ranked

REQUESTS = ("R1", "R2")
SESSIONS = ("s1", "s2")  # an id is never used twice


class At(NamedTuple):
    """A state, opened."""

    revision: int
    records: dict[Any, Any]
    own: tuple[str, int]  # the session as it is known; revision 0 = not open
    gone: int  # the last one was seen to be gone at this revision, and there is none; else 0
    flight: tuple[Any, ...]  # (name, members, is its answer waited for), in any order
    unsure: tuple[Any, ...]  # (name, the session's revision that it compares)
    fence: str  # "" none is needed, "wanted", "sent", "unknown": its answer was lost
    look: tuple[Any, ...]  # (revision, placements): the view
    decided: tuple[Any, ...]  # (name, whether it happened)
    budget: dict[str, float]

    def but(self, **changes: Any) -> "At":
        return self._replace(**changes)

    def spends(self, what: str) -> "At":
        return self.but(budget={**self.budget, what: self.budget[what] - 1})


class Answers:
    """A process, its session, and requests of which any answer may be lost."""

    def __init__(self, mistakes: tuple[str, ...] = (), **budget: float) -> None:
        self.bad = set(mistakes)
        self.budget = {"lose": 2.0, "expire": 1.0, **budget}

    def start(self) -> State:
        records = {("session", "s1"): ("", 1, 1)}
        return self.packed(At(1, records, ("s1", 1), 0, (), (), "", (1, ()), (), dict(self.budget)))

    @staticmethod
    def packed(s: At) -> State:
        return ranked(
            (
                s.revision,
                tuple(sorted(s.records.items())),
                s.own,
                s.gone,
                tuple(sorted(s.flight, key=repr)),
                tuple(sorted(s.unsure)),
                s.fence,
                s.look,
                tuple(sorted(s.decided)),
                tuple(sorted(s.budget.items())),
            )
        )

    @staticmethod
    def opened(state: State) -> At:
        s = At(*state)
        return s.but(records=dict(s.records), budget=dict(s.budget))

    def next(self, state: State) -> Iterator[tuple[str, State]]:
        s = self.opened(state)
        yield from self.asks(s)
        for index, one in enumerate(s.flight):
            yield from self.network(s, one, (*s.flight[:index], *s.flight[index + 1 :]))
        yield from self.fences(s)
        yield from self.decides(s)
        seen = (s.revision, tuple(sorted(k[1] for k in s.records if k[0] == "placement")))
        yield "look", self.packed(s.but(look=seen))
        session = ("session", s.own[0])
        if s.budget["expire"] and session in s.records:
            records, revision, _ = apply(s.records, s.revision, [((), (("delete", session),))])
            after = s.spends("expire").but(records=records, revision=revision)
            yield "the lease runs out", self.packed(after)

    # -- what is asked

    def compare(self, s: At) -> Any:
        if "a session is known by its name" in self.bad:
            # Mistake: whoever has this id is taken for the one that was there.
            return ("session", s.own[0]), "create", s.own[1]
        return ("session", s.own[0]), "mod", s.own[1]

    def asks(self, s: At) -> Iterator[tuple[str, State]]:
        known = {name for name, *_ in (*s.flight, *s.unsure, *s.decided)}
        for name in REQUESTS:
            if name not in known and s.own[1] and not s.gone:
                key = ("placement", name)
                member = ((self.compare(s), (key, "create", 0)), (("put", key, ""),))
                flight = (*s.flight, (name, (member,), True))
                yield f"{name} sent", self.packed(s.but(flight=flight))
                return  # the names are alike

    def network(self, s: At, one: Any, rest: Any) -> Iterator[tuple[str, State]]:
        name, members, waited_for = one
        records, revision, (happened,) = apply(s.records, s.revision, members)
        if happened and (name, False) in s.decided:
            raise Broken(f"{name} was decided not to happen, and happened")
        there = s.but(records=records, revision=revision, flight=rest)
        if not waited_for:
            yield f"{name} arrives late", self.packed(there)
            yield f"{name} never arrives", self.packed(s.but(flight=rest))
            return
        yield f"{name} is answered", self.packed(self.heard(there, name, happened))
        if s.budget["lose"]:
            lost = self.lost(s.spends("lose"), name, members)
            yield (
                f"{name} is on its way, its answer lost",
                self.packed(lost.but(flight=(*rest, (name, members, False)))),
            )

    def heard(self, s: At, name: str, happened: bool) -> At:
        if name != "fence":
            return s.but(decided=(*s.decided, (name, happened)))
        now = s.records.get(("session", s.own[0]))
        if now is None:
            return s.but(fence="", gone=s.revision, own=(s.own[0], 0))
        # It happened, or an earlier try did whose own answer was lost.
        return s.but(fence="", own=(s.own[0], now[2]))

    def lost(self, s: At, name: str, members: Any) -> At:
        if name == "fence":
            return s.but(fence="unknown")
        compared = members[0][0][0][2]
        fence = s.fence or "wanted"
        return s.but(unsure=(*s.unsure, (name, compared)), fence=fence)

    # -- the fence

    def fences(self, s: At) -> Iterator[tuple[str, State]]:
        session = ("session", s.own[0])
        if s.fence == "wanted" and s.own[1]:
            member = ((session, "mod", s.own[1]),), (("put", session, ""),)
            flight = (*s.flight, ("fence", (member,), True))
            yield "fence sent", self.packed(s.but(flight=flight, fence="sent"))
        if s.fence == "unknown":
            yield "look at the own session", self.packed(self.looked_at_own(s))
        if s.gone:
            fresh = s.own[0] if "a session is known by its name" in self.bad else SESSIONS[1]
            put = ("put", ("session", fresh), "")
            records, revision, _ = apply(s.records, s.revision, [((), (put,))])
            own = (fresh, revision)
            if "a session is known by its name" in self.bad:
                own = (fresh, 1)
            after = s.but(records=records, revision=revision, own=own, gone=0, fence="")
            yield "a new session", self.packed(after)

    def looked_at_own(self, s: At) -> At:
        now = s.records.get(("session", s.own[0]))
        if now is None:
            return s.but(fence="", gone=s.revision, own=(s.own[0], 0))
        if now[2] == s.own[1] and "a lost fence counts as put" not in self.bad:
            return s.but(fence="wanted")
        return s.but(fence="", own=(s.own[0], max(now[2], s.own[1])))

    # -- the decision

    def decides(self, s: At) -> Iterator[tuple[str, State]]:
        known_since = s.gone or s.own[1]
        for name, compared in s.unsure:
            fenced = s.fence == "" and known_since != compared
            if "a lost fence counts as put" in self.bad:
                fenced = s.fence == ""
            if "a read alone decides" in self.bad or (
                "any fence will do" in self.bad and s.own[1] > 1
            ):
                fenced = True
            if not fenced:
                continue
            if s.look[0] < known_since and "an older view will do" not in self.bad:
                continue
            happened = name in s.look[1]
            if not happened and ("placement", name) in s.records:
                raise Broken(f"{name} was decided not to have happened, and is there")
            rest = tuple(one for one in s.unsure if one[0] != name)
            after = s.but(unsure=rest, decided=(*s.decided, (name, happened)))
            yield f"{name} decided: {happened}", self.packed(after)

    # -- what must hold

    def check(self, state: State) -> None:
        records, decided = dict(state[1]), state[8]
        for name, happened in decided:
            if happened != (("placement", name) in records):
                raise Broken(f"{name} was decided {happened}, and it is not so")

    def clean(self, state: State) -> bool:
        s = self.opened(state)
        return not (s.flight or s.unsure or s.fence) and len(s.decided) == len(REQUESTS)
