"""How do slices come, and how do they end? The light life: no controller, no agents.

Whoever is placed holds what it has for as long as it runs, and gives it back in one transaction:
the protocol's own steps (`free`, `forget`), each on a view that shows the one before, all in one.
There are no devices to tear down, so what is released is clean at once.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import ceil, inf
from typing import Protocol

from flowos.model import keys
from flowos.model.placement import Ending, Placement
from flowos.model.slice import Phase, Slice
from flowos.model.transaction import (
    Change,
    Committed,
    Compare,
    Operation,
    Outcome,
    Put,
    Quiet,
    Transaction,
)
from flowos.model.view import CellView, Entry
from flowos.protocol import release
from flowos.protocol.proposal import Draft, Fence, Proposal
from flowos.simulation.full.setup import Arrival
from flowos.simulation.timeline import Timeline

_DONE = Ending(phase=Phase.DONE, exit_code=0)
_GROUP_MAX = 16  # steps in one request, as the controller's


class Asks(Protocol):
    """What carries out a request at once, and shows what came of it to `Life.follow`."""

    def __call__(self, transactions: Sequence[Transaction]) -> list[Outcome]:
        """Commit them as one request."""


class Life:
    """All slices of one run, from their coming to their end.

    Attributes:
        view: Of slices and placements, always at the store's newest revision.
        left: How many have come, or are to come, and have not ended.
        coming: How many are still to come.
        moved_at: When something was last placed or ended, virtual.
    """

    def __init__(
        self,
        line: Timeline,
        view: CellView,
        ask: Asks,
        fits: Callable[[Sequence[Transaction]], bool],
        fence: Fence,
        *,
        gather_s: float,
        keeps_ended: bool,
        ended: Callable[[str, Placement], None],
    ) -> None:
        """Begin with nobody.

        Args:
            line: Virtual time.
            view: Of the cell, nobody in it.
            ask: Carries out its requests.
            fits: Whether the store takes them in one.
            fence: Of whoever ends slices.
            gather_s: What comes or ends within so long, comes in one request.
            keeps_ended: Whether records of ended slices stay.
            ended: Told of each that has given back what it had.
        """
        self.view = view
        self.left = self.coming = 0
        self.moved_at = 0.0
        self._line = line
        self._ask = ask
        self._fits = fits
        self._fence = fence
        self._gather_s = gather_s
        self._keeps_ended = keeps_ended
        self._ended = ended
        self._runs: dict[str, float] = {}
        self._ending: dict[str, str] = {}  # slice -> the attempt that its end is planned for
        self._buckets: dict[float, list[Callable[[], Transaction | None]]] = {}

    @property
    def holding(self) -> int:
        """How many hold something."""
        return len(self.view.placements)

    @property
    def waiting(self) -> int:
        """How many have come and hold nothing."""
        return self.left - self.coming - self.holding

    # -- what is planned

    def expect(self, arrivals: Iterable[Arrival]) -> None:
        """Let slices come at their time."""
        for arrival in arrivals:
            self.left += 1
            self.coming += 1
            self._later(arrival.at_s, partial(self._submission, arrival))

    def _later(self, at: float, step: Callable[[], Transaction | None]) -> None:
        """Have a transaction made and sent at a time, with all others of about that time."""
        if at == inf:
            return
        if self._gather_s:
            at = ceil(at / self._gather_s) * self._gather_s
        bucket = self._buckets.get(at)
        if bucket is None:
            bucket = self._buckets[at] = []
            self._line.at(at, partial(self._send, at))
        bucket.append(step)

    def _send(self, at: float) -> None:
        group: list[Transaction] = []
        for step in self._buckets.pop(at):
            transaction = step()
            if transaction is None:
                continue
            if group and (len(group) == _GROUP_MAX or not self._fits([*group, transaction])):
                self._commit(group)
                group = []
            group.append(transaction)
        if group:
            self._commit(group)

    def _commit(self, group: Sequence[Transaction]) -> None:
        for outcome in self._ask(group):
            # It sees all, and nobody acts between its look and its request.
            assert isinstance(outcome, Committed), f"the life lost a race: {outcome}"

    # -- what is seen

    def follow(self, changes: Iterable[Change], known: Iterable[Proposal]) -> None:
        """Take in what a request wrote.

        Args:
            changes: All of it that is of slices and placements.
            known: Steps that happened with it: what they wrote need not be read.
        """
        view = self.view
        for proposal in known:
            assert proposal.placement is not None, "only what leaves a placement is known"
            view.assume(proposal.identifier, proposal.placement, proposal.record)
        for change in changes:
            applied = view.apply(change)
            if applied.family == "placement":
                self._placed(applied.name)

    def _placed(self, name: str) -> None:
        entry = self.view.placements.get(name)
        if entry is None or name.startswith("~"):
            self._ending.pop(name, None)
            return
        placement = entry.value
        if placement.ending is not None:  # it had to give way
            self._ending.pop(name, None)
            self._line.after(0.0, partial(self._clean, name))
        elif placement.waits:
            self._line.after(0.0, partial(self._arm, name))
        if self._ending.get(name) != placement.attempt and placement.ending is None:
            self._ending[name] = placement.attempt
            self.moved_at = now = self._line.now
            end = partial(self._end, name, placement.attempt, now)
            self._later(now + self._runs.get(name, inf), end)

    # -- its steps

    def _submission(self, arrival: Arrival) -> Transaction:
        spec = arrival.spec
        self.coming -= 1
        self.moved_at = self._line.now
        self._runs[spec.id] = arrival.runs_s
        draft = Draft(fence=self._fence)
        draft.seen(keys.slice_(spec.id), 0)
        draft.put(keys.slice_(spec.id), Slice(spec=spec, submitted_at=arrival.at_s))
        return draft.transaction(self.view)

    def _end(self, name: str, attempt: str, since: float) -> Transaction | None:
        """Return the one transaction by which a slice gives back what it has, and ends."""
        entry = self.view.placements.get(name)
        if entry is None or entry.value.attempt != attempt or entry.value.ending is not None:
            return None  # it had to give way before
        placement, now = entry.value, self._line.now
        view, fence = self.view, self._fence
        # As if it had been released, and all had reported at once: its orders need no more writing.
        after = release.released(placement, _DONE, since)
        view.placements[name] = entry._replace(value=after)
        whole = _Whole(view)
        whole.add(release.free(view, name, fence=fence, now=now, since=since))
        if not self._keeps_ended:
            for line in [key for key in whole.operations if key.startswith("history/")]:
                del whole.operations[line]  # nobody is to read what it held
            whole.add(release.forget(view, name, fence=fence))
        del self._runs[name]
        self._ending.pop(name, None)
        self.left -= 1
        self.moved_at = now
        self._ended(name, placement)
        return whole.transaction()

    def _clean(self, name: str) -> None:
        """Give back what a slice had that gives way; it is queued again."""
        entry = self.view.placements.get(name)
        if entry is None or entry.value.ending is None:
            return
        step = release.free(self.view, name, fence=self._fence, now=self._line.now)
        if step is not None:
            self._ended(name, entry.value)
            self._commit([step.transaction])

    def _arm(self, name: str) -> None:
        entry = self.view.placements.get(name)
        if entry is not None and entry.value.waits and entry.value.ending is None:
            step = release.arm(self.view, name, fence=self._fence)
            if step is not None:
                self._commit([step.transaction])


class _Whole:
    """Steps one after the other that happen as one: each sees the view with the one before."""

    def __init__(self, view: CellView) -> None:
        """Begin with none."""
        self.operations: dict[str, Operation] = {}
        self._compares: dict[Compare, None] = {}
        self._view = view

    def add(self, step: Proposal | None) -> None:
        """Add the next step, and show it to the view."""
        assert step is not None, "what has run can be given back"
        for compare in step.transaction.compares:
            # What an earlier step wrote is as it wrote it.
            if isinstance(compare, Quiet) or compare.key not in self.operations:
                self._compares[compare] = None
        view = self._view
        for operation in step.transaction.operations:
            key = operation.key
            self.operations[key] = operation
            value = operation.value if isinstance(operation, Put) else None
            if key.startswith(("placement/", "slice/")):
                view.apply(Change(key, value, self._created(key), view.revision))

    def _created(self, key: str) -> int:
        family, _, name = key.partition("/")
        table: dict[str, Entry[Slice]] = self._view.slices
        return table[name].created if family == "slice" and name in table else 0

    def transaction(self) -> Transaction:
        """Return all of it."""
        return Transaction(tuple(self._compares), tuple(self.operations.values()))
