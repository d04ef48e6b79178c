"""What has to be written of why slices wait?"""

from collections.abc import Callable
from typing import Final

from flowos.model import keys
from flowos.model.placement import Unplaceable
from flowos.model.slice import Waiting
from flowos.model.view import CellView
from flowos.protocol.proposal import Draft, Fence, Proposal
from flowos.runtime.waiting import Pending, Queue

REASON_SECONDS: Final = 2.0  # a sentence with new numbers is written this often at most


class Told:
    """The reasons of the slices of a queue: each is written once, and when it is another one."""

    def __init__(
        self, view: CellView, queue: Queue, fence: Callable[[], Fence], scheduler: str
    ) -> None:
        """Have nothing to say yet.

        Args:
            view: Which reasons are written already.
            queue: Who waits.
            fence: Returns the session's fence now.
            scheduler: Who says so, for people.
        """
        self._view = view
        self._queue = queue
        self._fence = fence
        self._scheduler = scheduler
        self._due: dict[str, Waiting] = {}

    def tell(self, name: str, why: Unplaceable, pending: Pending, now: float) -> None:
        """Note why a slice waits, where that is news."""
        known = self._view.reasons.get(name)
        if known and (known.value.reason, known.value.sentence) == (why.reason, why.sentence):
            self._due.pop(name, None)
            return
        if known and known.value.reason == why.reason and now < pending.told_at + REASON_SECONDS:
            return
        self._due[name] = Waiting(why.reason, why.sentence, why.funnel, self._scheduler)

    def steps(self, now: float, most: int) -> list[Proposal]:
        """Return the writes that are due, at most so many; each is asked for once."""
        found: list[Proposal] = []
        for name in list(self._due):
            if len(found) == most:
                break
            waiting = self._due.pop(name)
            pending, entry = self._queue.slices.get(name), self._view.slices.get(name)
            if pending is None or entry is None:
                continue
            pending.told_at = now
            draft = Draft(fence=self._fence())
            draft.seen(keys.slice_(name), entry.modified)
            draft.placed(name, None)
            draft.put(keys.reason(name), waiting)
            found.append(draft.proposal("reason", name, self._view))
        return found
