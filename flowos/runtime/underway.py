"""What goes into one request, and what may be sent while another is under way?"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from flowos.protocol.proposal import Proposal
from flowos.runtime.waiting import Pending

GROUP_MAX: Final = 16  # more in one request makes rivals wait longer
GROUP_ALONE_MAX: Final = 32  # the same where there are none: some 20 us of CPU less a slice
GROUPS_MAX: Final = 2  # requests under way: one is planned while the store works on another


@dataclass(slots=True)
class Sent:
    """A request that is under way, and what another one must not touch meanwhile."""

    at: float
    written: set[str] = field(default_factory=set)
    guards: tuple[str, ...] = ()
    joins: bool = True  # whether another may be sent before its answer
    longest: int = 0  # list of compares or operations of any member
    of: dict[str, Pending] = field(default_factory=dict)  # whose commits it has

    def add(self, proposal: Proposal, written: Iterable[str]) -> None:
        """Take in a step and the keys that it writes."""
        self.longest = max(self.longest, _length(proposal))
        self.written.update(written)
        self.guards += proposal.guards


class Underway:
    """The requests of one process that have no answer yet.

    Attributes:
        full: Nothing more can be sent before an answer.
    """

    def __init__(self, fits: Callable[[Sequence[Proposal]], bool]) -> None:
        """Have none.

        Args:
            fits: Whether the store takes these steps in one request.
        """
        self.full = False
        self._fits = fits
        self._sent: dict[tuple[tuple[str, str], ...], Sent] = {}
        self._short = 0  # lists up to this length fit into a full group

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._sent)

    def send(self, proposals: Sequence[Proposal], sent: Sent) -> None:
        """Note a request that is sent now."""
        self._sent[tuple((p.step, p.identifier) for p in proposals)] = sent
        self.full = len(self._sent) == GROUPS_MAX or not sent.joins

    def answered(self, proposals: Sequence[Proposal]) -> Sent | None:
        """Take a request off; None where it is not known."""
        self.full = False
        return self._sent.pop(tuple((p.step, p.identifier) for p in proposals), None)

    def wait_unless(self, *, joins: bool) -> None:
        """Note that what comes next would meet what is under way, if it does not join it."""
        self.full = bool(self._sent) and not joins

    def takes_less(self) -> None:
        """Note that the store may take less than it said."""
        self._short = 0

    def join(self, sent: Sent, group: list[Proposal], proposal: Proposal) -> bool:
        """Whether the store takes a step in one request with these."""
        longest = max(sent.longest, _length(proposal))
        # A request is measured by its members and their longest list. So where a full group of the
        # longest one fits, all shorter ones do, and need not be measured one after the other.
        new = longest > self._short and longest == _length(proposal)
        if new and self._fits([proposal] * GROUP_ALONE_MAX):
            self._short = longest
        return longest <= self._short or self._fits([*group, proposal])

    def meets(self, written: set[str]) -> bool:
        """Whether a step would conflict with one of our own that is still under way.

        A part of a host or of an engine is guarded by "nobody put anything here since my view",
        and only an answer moves that on (see `CellView.settle`).
        """
        parts = [key for key in written if key.startswith(("claim/share/", "claim/host/"))]
        return any(
            not written.isdisjoint(sent.written)
            or any(key.startswith(sent.guards) for key in parts)
            for sent in self._sent.values()
        )


def _length(proposal: Proposal) -> int:
    transaction = proposal.transaction
    return max(len(transaction.compares), len(transaction.operations))
