"""The one tree of errors, named for what happened; each knows the exit status a command ends with.

FlowosError
├── SpecError                 a slice, cell or option that cannot be what was meant (2)
│   └── FileError             the same, in a file, with the line
├── UnknownName               a name that the cell does not know (2)
├── DuplicateName             a name that is taken (2)
├── NeverPlaceable            no state of this cell could ever hold the request (3)
├── NotInTime                 what was waited for did not happen in time (4)
├── StoreError
│   ├── StoreUnreachable      the store gave no answer; nothing was sent, or nothing can have changed (5)
│   ├── OutcomeUnknown        a write was sent and no answer came: it may or may not have happened (5)
│   ├── StoreRefused          the store answered no (5)
│   │   ├── StoreFull         its database has reached its quota: read-only until that is mended
│   │   ├── LoginRefused      it does not know this user, password or certificate
│   │   └── Forbidden         this user's roles do not cover the key
│   ├── RevisionCompacted     the history that was asked for is gone (5)
│   ├── TransactionTooLarge   more operations than the store accepts in one request (1)
│   └── UnsafeServer          the server's version is known to lose data (5)
├── StillContended            rivals kept winning (1)
├── SessionLost               this process's lease is over: it must stop acting (1)
└── InvariantViolated         the shared state breaks a law (6)
"""

from typing import ClassVar


class FlowosError(Exception):
    """A surprise that the caller could not have known: what, the numbers, the way out."""

    exit_code: ClassVar[int] = 1


class SpecError(FlowosError):
    """What was asked for is not a valid request."""

    exit_code = 2

    def __init__(self, problem: str, *, where: str = "", hint: str = "") -> None:
        """Say what is wrong, at which place of the document, and the way out."""
        self.problem = problem
        self.where = where
        self.hint = hint
        sentence = f"{where}: {problem}" if where else problem
        super().__init__(f"{sentence}: {hint}" if hint else sentence)


class FileError(SpecError):
    """A document that cannot be read; `where` starts with the path and, where known, the line."""

    def __init__(self, problem: str, *, path: str, line: int = 0, hint: str = "") -> None:
        """Name the file and the line (counted from 1; 0 = the whole file)."""
        self.path = path
        self.line = line
        super().__init__(problem, where=f"{path}:{line}" if line else path, hint=hint)


class UnknownName(FlowosError):
    """The cell has nothing of this name."""

    exit_code = 2


class DuplicateName(FlowosError):
    """The name is taken."""

    exit_code = 2


class NeverPlaceable(FlowosError):
    """No state of this cell could ever hold the request."""

    exit_code = 3


class NotInTime(FlowosError):
    """What was waited for did not happen before the time-out."""

    exit_code = 4


class StoreError(FlowosError):
    """The shared state cannot be used as asked."""

    exit_code = 5


class StoreUnreachable(StoreError):
    """The store gave no answer, and nothing can have changed."""


class OutcomeUnknown(StoreError):
    """A write was sent and no answer came; only a fence and a read can tell what happened."""


class StoreRefused(StoreError):
    """The store answered no: missing rights, no space, a setting."""


class StoreFull(StoreRefused):
    """The store's database has reached its quota; it can be read, and not written, until mended."""


class LoginRefused(StoreRefused):
    """The store does not know this user, password or certificate."""


class Forbidden(StoreRefused):
    """This user's roles do not cover what was asked for."""


class RevisionCompacted(StoreError):
    """The history that was asked for is gone."""

    def __init__(self, asked: int, oldest: int) -> None:
        """Name the revision asked for and the oldest that is still kept."""
        self.asked = asked
        self.oldest = oldest
        super().__init__(
            f"revision {asked} is compacted away, the oldest kept is {oldest}: read again from now"
        )


class TransactionTooLarge(StoreError):
    """One atomic request needs more operations than the store accepts."""

    exit_code = 1

    def __init__(self, operations: int, accepted: int) -> None:
        """Name both counts and the flag to raise."""
        self.operations = operations
        self.accepted = accepted
        super().__init__(
            f"transaction needs {operations} operations, the store accepts {accepted}: ask for a "
            "smaller slice or raise --max-txn-ops on every etcd member"
        )


class UnsafeServer(StoreError):
    """The server's version is known to lose acknowledged writes or events."""


class StillContended(FlowosError):
    """Rivals kept winning; nothing was written."""


class SessionLost(FlowosError):
    """This process's lease is over, so nothing that it knows may be acted on."""


class InvariantViolated(FlowosError):
    """The shared state breaks one of its laws."""

    exit_code = 6
