"""Which slices that run are to grow, and with what? One of the questions of a scheduler process.

A slice that began with a part of what it asks for, or whose user asks for more since, takes what it
lacks when there is room. What it gives up is the controller's to take, once the new is up; but
where the old is in the way of the new, it goes first.
"""

from collections.abc import Callable, Mapping
from math import inf
from typing import Final

from flowos.model.placement import Decision, Placement, Unplaceable
from flowos.model.slice import Reason, Slice, SliceSpec
from flowos.model.transaction import Committed, Conflicted
from flowos.model.view import CellView, Entry
from flowos.planning.engines.pool import Pool
from flowos.planning.reshape import grown, is_as_wanted, lacks_circuits, what_stays
from flowos.protocol.commit import spend
from flowos.protocol.proposal import Fence, Proposal
from flowos.protocol.resize import grow, shrink
from flowos.runtime.freed import Freed
from flowos.runtime.machine import Answer
from flowos.runtime.peers import Peers

AGAIN_SECONDS: Final = 0.2  # after a step was refused or lost a race
LOOKS_MAX: Final = 8  # slices at one time: those that wait are not to wait for these


class Resizing:
    """Follows the slices of one policy that hold something; one scheduler looks after each."""

    def __init__(
        self,
        view: CellView,
        pool: Pool,
        *,
        serves: Callable[[Slice], bool],
        session: str,
        fence: Callable[[], Fence],
        peers: Peers,
        may_spend: Callable[[Mapping[str, int], float], bool],
        freed: Freed,
        seed: Callable[[], int],
        avoid: Callable[[SliceSpec, float], frozenset[str]],
        wall: Callable[[], float],
    ) -> None:
        """Know of no slice.

        Args:
            view: Followed.
            pool: Its free engines.
            serves: Whether a slice is one of this policy's.
            session: The own one, whose grants are spent.
            fence: Returns the session's fence now.
            peers: Who else serves the same.
            may_spend: Whether so much more of these purses may be spent now.
            freed: Counts what may help somebody.
            seed: Returns one for each plan.
            avoid: Returns what a slice must not grow into now.
            wall: Wall-clock seconds, for the history.
        """
        self._view = view
        self._pool = pool
        self._serves = serves
        self._session = session
        self._fence = fence
        self._peers = peers
        self._may_spend = may_spend
        self._freed = freed
        self._seed = seed
        self._avoid = avoid
        self._wall = wall
        self._other: dict[str, int] = {}  # slice of another size -> what was free at the last look
        self._later: dict[str, float] = {}
        self._under_way: set[str] = set()

    def __len__(self) -> int:
        """Return how many slices have another size than they want."""
        return len(self._other)

    def changed(self, name: str) -> None:
        """Look at a slice or at what it holds, after either has changed."""
        entry, placed = self._view.slices.get(name), self._view.placements.get(name)
        if entry is None or placed is None or not self._may_change(entry, placed):
            self._other.pop(name, None)
            self._later.pop(name, None)
        else:
            self._other[name] = -1

    def restart(self) -> None:
        """Look at everything anew."""
        self._other.clear()
        self._later.clear()
        self._under_way.clear()
        for name in self._view.placements:
            self.changed(name)

    def _may_change(self, entry: Entry[Slice], placed: Entry[Placement]) -> bool:
        slice_, placement = entry.value, placed.value
        return (
            placement.ending is None
            and bool(placement.held)
            and not placement.waits
            and not (slice_.cancelled or slice_.end)
            and (placement.uid or placed.created) == entry.created
            and self._serves(slice_)
            and (
                not is_as_wanted(slice_.spec, placement)
                # It may lack circuits that what it has given up was in the way of.
                or (entry.modified > entry.created and lacks_circuits(slice_.spec, placement))
            )
        )

    def next_at(self) -> float:
        """Return when a slice that was put off is to be looked at again."""
        return min(self._later.values(), default=inf)

    def steps(self, now: float) -> list[Proposal]:
        """Return what slices that run can take now; one step, since each changes what is free."""
        if not self._other:
            return []
        looks = 0
        for name, tried_at in list(self._other.items()):
            if tried_at == self._freed.count or now < self._later.get(name, -inf):
                continue
            if name in self._under_way or self._view.assumed(name):
                continue
            entry, placed = self._view.slices[name], self._view.placements[name]
            owner = self._peers.owner(entry.created, name)
            if owner not in ("", self._session):
                continue
            looks += 1
            if looks > LOOKS_MAX:
                self._later[name] = now
                break
            self._other[name] = self._freed.count
            self._later.pop(name, None)
            step = self._step(name, entry, placed, now)
            if step is not None:
                self._under_way.add(name)
                return [step]
        return []

    def _step(
        self, name: str, entry: Entry[Slice], placed: Entry[Placement], now: float
    ) -> Proposal | None:
        spec, placement = entry.value.spec, placed.value
        avoid = {unit for unit in placement.releasing if not unit.startswith("host/")}
        avoid |= self._avoid(spec, now)
        found = grown(self._pool, spec, placement, seed=self._seed(), avoid=avoid)
        if isinstance(found, Unplaceable) and found.reason is Reason.NO_CIRCUIT:
            # What is to go is in the way of what is to come.
            stays = what_stays(spec, placement)
            if stays is not None and not placement.releasing:
                return shrink(self._view, name, stays, fence=self._fence(), now=self._wall())
        if not isinstance(found, Decision):
            return None
        had = spend(self._view.cell, placement.held, name)
        has = spend(self._view.cell, found.units, name)
        moves = placement.scheduler != self._session
        rise = {p: a if moves else a - had.get(p, 0) for p, a in has.items() if a > had.get(p, 0)}
        if rise and moves:
            rise = has
        if not self._may_spend(rise, now):
            self._other[name] = -1
            self._later[name] = now + AGAIN_SECONDS
            return None
        return grow(self._view, name, found, fence=self._fence(), now=self._wall())

    def answered(self, proposal: Proposal, answer: Answer, now: float) -> None:
        """Take the store's answer; the view shows what came of it."""
        name = proposal.identifier
        self._under_way.discard(name)
        if not isinstance(answer, Committed) and name in self._other:
            self._other[name] = -1
            # A race that was lost is seen in the view a moment later.
            pause = AGAIN_SECONDS if isinstance(answer, Conflicted) else 25 * AGAIN_SECONDS
            self._later[name] = now + pause
