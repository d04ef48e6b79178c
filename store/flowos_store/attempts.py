"""What is to be done after a call to etcd failed? Decided without I/O.

A call is made again only where the first one certainly did nothing, or could have done nothing:
a write whose answer was lost is never simply repeated.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

import grpc

from flowos_store.failures import (
    code_of,
    is_closed_channel,
    is_stale_token,
    is_undone,
    is_unsent,
)

LOGINS_MAX: Final = 2  # another client's change of a password makes a fresh token stale at once
READS_AGAIN: Final = 3  # a leader's death tears a read, and the next one may meet the election
TORN: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})


class Then(Enum):
    """What to do next."""

    LOG_IN = "get a new token, then call again"
    ELSEWHERE = "call again, another member"
    WHEN_THERE = "wait until some member answers, then call again"
    RAISE = "tell whoever called what it means"


@dataclass(slots=True)
class Attempts:
    """The failures of one call, in their order.

    Attributes:
        members: How many could be asked.
        wrote: Whether the call may change something.
        has_user: Whether there is somebody to log in as.
    """

    members: int
    wrote: bool
    has_user: bool
    _logins: int = 0
    _elsewhere: int = 0
    _waited: bool = False
    _again: int = 0

    def failed(self, error: BaseException, *, closed: bool = False) -> Then:
        """Say what to do after this failure.

        Args:
            error: What grpc raised.
            closed: Whether this side has closed the whole connection.
        """
        if closed:
            return Then.RAISE
        if self.has_user and is_stale_token(error) and self._logins < LOGINS_MAX:
            self._logins += 1
            return Then.LOG_IN
        if is_closed_channel(error):
            # The member was left between our look at it and the call; nothing was sent.
            self._again += 1
            return Then.ELSEWHERE if self._again <= READS_AGAIN else Then.RAISE
        if is_unsent(error) or is_undone(error):
            self._elsewhere += 1
            if self._elsewhere < self.members:
                return Then.ELSEWHERE
            if not self._waited:
                self._waited = True
                return Then.WHEN_THERE
            return Then.RAISE
        if not self.wrote and code_of(error) in TORN and self._again < READS_AGAIN:
            # With one member, a torn connection is told at once, as it always was: who reads in
            # a loop waits between two tries anyway.
            self._again += 1
            return Then.WHEN_THERE if self.members > 1 else Then.RAISE
        return Then.RAISE
