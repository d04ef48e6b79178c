"""Would a commit conflict if each node had one sequence number, as Omega's coarse mode has it?

A simulation of that check beside the real ones: what it refuses is not sent to the store, so nothing
that it lets pass can be held twice.
"""

from collections.abc import Callable

from flowos.model.units import is_laid, place_in
from flowos.model.view import CellView
from flowos.protocol.proposal import Proposal


class NodeNumbers:
    """When anything on each node was last taken, by revision; what is given back does not count.

    So it is in the published simulator, and in the light mode: a machine's number is that of its
    claims. Of what is shared, a part that is given back counts while others hold parts of it.
    """

    def __init__(self, view: CellView, revision: Callable[[], int]) -> None:
        """Listen from now on.

        Args:
            view: Shows every change at once.
            revision: Returns the store's revision, that of the change which is being shown.
        """
        self._taken_at: dict[str, int] = {}
        self._revision = revision
        self._view = view
        view.listeners.append(self._unit_changed)

    def _unit_changed(self, unit: str) -> None:
        if unit in self._view.holders and not is_laid(unit):
            self._taken_at[place_in(unit)] = self._revision()

    def refuses(self, proposal: Proposal) -> bool:
        """Whether anything on a node of a commit was taken since the view that it was planned on."""
        if proposal.step != "commit" or proposal.placement is None:
            return False
        nodes = {place_in(unit) for unit in proposal.placement.held if not is_laid(unit)}
        seen = proposal.transaction.seen
        return any(self._taken_at.get(node, 0) > seen for node in nodes)
