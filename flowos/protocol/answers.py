"""What became of a request whose answer was lost? Fence first, then read, then decide.

A request without an answer may still land, long after a read has said that it did not. So the
process puts its own session key again: every control transaction compares that key, and none that
was sent before can happen any more. Only then does a read tell.
"""

from flowos.model.codec import encode
from flowos.model.errors import SessionLost
from flowos.model.placement import Placement, Session
from flowos.model.transaction import Committed, Outcome, Put, Transaction
from flowos.protocol.proposal import Fence


def fence_again(fence: Fence, record: Session, lease: int) -> Transaction:
    """Return the transaction after which nothing that compares this fence can happen.

    Args:
        fence: The acting process's session as it is known.
        record: The session's own record.
        lease: The id of the session's lease.
    """
    return Transaction((fence.compare,), (Put(fence.key, encode(record), lease),))


def fenced(fence: Fence, outcome: Outcome) -> Fence:
    """Return the new fence, as the store answered `fence_again`.

    Raises:
        SessionLost: The lease is over. That fences as well, but this process must start anew.
    """
    if isinstance(outcome, Committed):
        return Fence(fence.key, outcome.revision)
    now = outcome.keys.get(fence.key)
    if now is None:
        raise SessionLost(f"{fence.key} is over: start again with a new session")
    # An earlier try of this process, whose own answer was lost.
    return Fence(fence.key, now.modified)


def happened(placement: Placement | None, attempt: str) -> bool:
    """Tell whether a commit happened, by the placement that is known after the fence.

    Args:
        placement: The slice's placement, known up to the fence's revision at least.
        attempt: The id that the commit has given.

    Returns:
        False also where it happened and everything of it is gone already: either way nothing is
        held for this attempt, and the slice's own record tells how it ended.
    """
    return placement is not None and placement.attempt == attempt
