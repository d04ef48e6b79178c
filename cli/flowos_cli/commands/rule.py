"""How is a rule of the cell, one record under `rule/`, read and put by a command?"""

from typing import TYPE_CHECKING, Final

from flowos.model.errors import StillContended, UnknownName

if TYPE_CHECKING:
    from flowos.model.protocols import CellStore
    from flowos.model.transaction import Versioned

TRIES_MAX: Final = 5


def rule_in(store: "CellStore", key: str) -> "Versioned | None":
    """Return the record of a rule, None where nothing was said.

    Raises:
        UnknownName: No cell was loaded here.
    """
    from flowos.model import keys

    known = {r.key: r for r in store.read([keys.INFO, key]).records}
    if keys.INFO not in known:
        raise UnknownName("the store holds no cell: load one with 'flowos cell init'")
    return known.get(key)


def put_rule(store: "CellStore", key: str, record: bytes, *, what: str) -> bool:
    """Put a rule in place of what was said before; return whether that was anything else.

    Args:
        store: The cell's.
        key: The rule's.
        record: What it says from now on.
        what: What it is, for the sentence when it keeps changing.

    Raises:
        UnknownName: No cell was loaded here.
        StillContended: Others kept changing it.
    """
    from flowos.model.transaction import Committed, Put, Seen, Transaction

    for _ in range(TRIES_MAX):
        before = rule_in(store, key)
        if before is not None and before.value == record:
            return False
        seen = Seen(key, before.modified if before else 0)
        (outcome,) = store.commit([Transaction((seen,), (Put(key, record),))])
        if isinstance(outcome, Committed):
            return True
    raise StillContended(f"{what} kept changing: try again")
