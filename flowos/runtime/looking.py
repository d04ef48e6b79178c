"""What do these very keys say now? All of them in one round trip, as of one moment."""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from flowos.model.errors import OutcomeUnknown, StoreUnreachable
from flowos.model.protocols import CellStore
from flowos.model.transaction import Conflicted, Seen, Transaction, Versioned

NEVER: Final = 2**62  # no key was ever written at this revision
KEYS_A_REQUEST: Final = 100  # below etcd's default --max-txn-ops of 128


class Look(NamedTuple):
    """What some keys say, None where they do not exist.

    Attributes:
        revision: Everything up to here is in the records.
    """

    revision: int
    records: Mapping[str, Versioned | None]


def look(store: CellStore, keys: Iterable[str]) -> Look:
    """Read single keys; a `read` reads prefixes, one after the other, and longer keys with them.

    A comparison that cannot hold makes the store tell what it compared. It writes nothing, so
    etcd answers it like any other read.

    Raises:
        StoreUnreachable: No answer.
    """
    wanted = list(dict.fromkeys(keys))
    revision = 0
    records: dict[str, Versioned | None] = {}
    for start in range(0, len(wanted), KEYS_A_REQUEST):
        compares = tuple(Seen(key, NEVER) for key in wanted[start : start + KEYS_A_REQUEST])
        try:
            (told,) = store.commit([Transaction(compares, ())])
        except OutcomeUnknown as error:
            raise StoreUnreachable(str(error)) from None  # nothing was to be written
        assert isinstance(told, Conflicted), "no revision is that large"
        revision = revision or told.revision
        records |= told.keys
    return Look(revision, records)
