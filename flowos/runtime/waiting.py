"""Which slices wait to be placed, and which of them is looked at next?"""

import bisect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf
from typing import Final

from flowos.model.placement import Decision
from flowos.planning.policy import Order

_FEW: Final = 32  # entries are put into a pass one by one; more are sorted in together


@dataclass(slots=True)
class Pending:
    """One slice that waits.

    Attributes:
        since: When it came.
        losses: How many races it has lost.
        not_before: When it may be planned again.
        tried_at: How much had been freed at its last fruitless plan; -1 = it may be planned.
        told_at: When its reason was last written.
        avoid: Units that somebody has and the view does not show.
        alone: A group with it was refused, so it goes alone.
        known_at: The view must be complete up to here before it is planned.
        owner: Who goes first with it; "" = anybody.
        owner_of: The division of the queue that says so.
        left_until: Its owner is given until then.
        passed: Its owner was past it when it was last looked at.
        afar: It has waited for those whose nodes it fits on.
        shape: What decides whether it can be placed; None = not worked out yet.
        lost: What was planned for it when it lost its last race, or before it was looked at again;
            None = nothing, or planned anew.
        slow: To plan it took so long that rivals went on meanwhile.
        ask_at: When it is to be found out who may give way to it; inf = that is not open.
        blocked: There was no room for it when it was last planned.
        shut: Its gate is closed (see `gates`): it is not planned until that is over.
        purse: There is too little in this one for it; "" = there is enough, as far as is known.
        needs: Purse -> what it would spend, by the last place that was found for it.
        foreseen: The others plan for it as its owner does: all choose the same among equals.
    """

    order: Order
    since: float
    losses: int = 0
    not_before: float = 0.0
    tried_at: int = -1
    told_at: float = -inf
    avoid: frozenset[str] = frozenset()
    alone: bool = False
    known_at: int = 0
    owner: str = ""
    owner_of: int = -1
    left_until: float = 0.0
    passed: bool = False
    afar: bool = False
    shape: object = None
    lost: Decision | None = None
    slow: bool = False
    ask_at: float = inf
    blocked: bool = False
    shut: bool = False
    purse: str = ""
    needs: Mapping[str, int] = field(default_factory=dict)
    foreseen: bool = False
    due_at: float = inf  # when it comes back into the pass


class Queue:
    """Slices in the policy's order, gone through in passes from the head to the end.

    Whoever is passed over for a while comes back into the pass when its time has come, at its
    place or, where the pass is beyond that, as the next.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.slices: dict[str, Pending] = {}
        self._pass: list[tuple[Order, str]] = []
        self._next = 0
        self._later: list[tuple[float, str]] = []
        self._unseen: list[tuple[int, str]] = []

    def __len__(self) -> int:
        """Return how many wait, those whose commit is under way included."""
        return len(self.slices)

    def put(self, name: str, order: Order, now: float) -> None:
        """Let a slice wait from now on, or at another place than before."""
        pending = self.slices.get(name)
        if pending is None:
            self.slices[name] = Pending(order, now)
        elif pending.order == order:
            return
        else:
            pending.order = order
        self._insert([name])

    def drop(self, name: str) -> None:
        """Forget a slice; no error if it does not wait."""
        self.slices.pop(name, None)

    def clear(self) -> None:
        """Forget all."""
        self.slices.clear()
        self._later.clear()
        self._unseen.clear()
        self._pass, self._next = [], 0

    # -- the pass

    @property
    def over(self) -> bool:
        """Whether the pass is at its end."""
        return self._next >= len(self._pass)

    def head(self) -> tuple[Order, str]:
        """Return what the pass has come to."""
        return self._pass[self._next]

    def advance(self) -> None:
        """Go on to the next."""
        self._next += 1

    def restart(self) -> None:
        """Begin a new pass."""
        self._pass = sorted((p.order, name) for name, p in self.slices.items())
        self._next = 0

    def reorder(self, place: Callable[[str, Pending], Order]) -> None:
        """Ask anew where each slice stands; what is left of the pass is gone through in that order.

        Args:
            place: Name and entry of a slice -> its order now.
        """
        moved = False
        for name, pending in self.slices.items():
            order = place(name, pending)
            if order != pending.order:
                pending.order, moved = order, True
        if moved:
            rest = {name for _, name in self._pass[self._next :]} & self.slices.keys()
            self._pass = sorted((self.slices[name].order, name) for name in rest)
            self._next = 0

    # -- those that are passed over

    def again(self, name: str, at: float) -> None:
        """Let a slice come back into the pass at a time."""
        pending = self.slices.get(name)
        if pending is not None and at != pending.due_at:
            pending.due_at = at
            heappush(self._later, (at, name))

    def seen(self, name: str, revision: int) -> None:
        """Let a slice come back once the view is complete up to a revision."""
        heappush(self._unseen, (revision, name))

    def recall(self, now: float, revision: int) -> None:
        """Put those back into the pass whose time has come."""
        names: list[str] = []
        while self._later and self._later[0][0] <= now:
            at, name = heappop(self._later)
            pending = self.slices.get(name)
            if pending is not None and pending.due_at == at:
                pending.due_at = inf
                names.append(name)
        while self._unseen and self._unseen[0][0] <= revision:
            names.append(heappop(self._unseen)[1])
        self._insert(name for name in names if name in self.slices)

    def next_at(self) -> float:
        """Return when the next one comes back by its time."""
        return self._later[0][0] if self._later else inf

    def _insert(self, names: Iterable[str]) -> None:
        entries = [(self.slices[name].order, name) for name in names]
        if len(entries) <= _FEW:
            for entry in entries:
                bisect.insort(self._pass, entry, lo=self._next)
        else:
            self._pass = sorted([*self._pass[self._next :], *entries])
            self._next = 0
