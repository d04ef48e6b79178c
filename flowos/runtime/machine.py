"""What every loop is: a machine without I/O that is told what happened and says what to do.

The mirror (`mirror.py`) keeps one in step with its store, and the shell (`shell.py`) carries out what
that says; trials (`flowos.simulation.trial`) do so in virtual time, and the stage
(`flowos.simulation.stage`) runs machines that share one view.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from flowos.model.errors import StoreError
from flowos.model.transaction import Committed, Conflicted, Outcome
from flowos.model.view import Applied, CellView
from flowos.protocol.answers import happened
from flowos.protocol.proposal import Proposal


@dataclass(frozen=True, slots=True)
class Commit:
    """Ask the store for these steps, in one request; each has its own outcome."""

    proposals: tuple[Proposal, ...]


@dataclass(frozen=True, slots=True)
class Compact:
    """Drop the history before this revision."""

    before: int


Instruction: TypeAlias = Commit | Compact


@dataclass(frozen=True, slots=True)
class Refused:
    """The store did not take this step; the error says whether it may another time."""

    error: StoreError


TAKING: Final = frozenset({"commit", "grow"})  # the steps that claim units

Answer: TypeAlias = Outcome | Refused


class Machine(Protocol):
    """A loop's logic: owns no thread, clock, or connection."""

    view: CellView

    def changed(self, change: Applied) -> None:
        """Note that the view has just taken in a change."""

    def relisted(self) -> None:
        """Note that the view was filled anew; nothing known before holds."""

    def answered(self, commit: Commit, answers: Sequence[Answer], now: float) -> None:
        """Take the store's answers to a commit, one for each proposal."""

    def step(self, now: float) -> list[Instruction]:
        """Do what can be done now; `now` is monotonic seconds."""

    def needs(self) -> int:
        """Return up to where the view must be complete for this to go on; less than that = it is.

        To be complete is asked of the store, and answered after all that came before: a view that
        nobody waits for is complete soon enough without.
        """

    def wake_at(self) -> float:
        """Return the monotonic second at which `step` has something to do without any event."""


def settle_view(view: CellView, proposals: Iterable[Proposal], answers: Iterable[Answer]) -> None:
    """Tell the view how the assumed placements of a commit ended.

    Other steps assume nothing: settling one would settle another plan for the same slice.
    """
    for proposal, answer in zip(proposals, answers, strict=True):
        if proposal.step not in TAKING:
            continue
        if isinstance(answer, Committed):
            view.settle(proposal.identifier, answer.revision, proposal.guards)
        else:
            view.retract(proposal.identifier)


def after_fence(view: CellView, proposals: Iterable[Proposal]) -> list[Answer]:
    """Decide steps whose answers were lost, once the view is complete up to the fence.

    After the fence none of them can still happen; what happened is in the view. A commit is known
    by its attempt, every other step is decided anew from the view.
    """
    answers: list[Answer] = []
    for proposal in proposals:
        entry = view.placements.get(proposal.identifier)
        asked = proposal.placement
        if proposal.step == "commit" and asked and entry and happened(entry.value, asked.attempt):
            answers.append(Committed(entry.created))
        else:
            answers.append(Conflicted(view.revision))
    return answers
