"""Which of the living scheduler processes goes first with a slice, and at which nodes?

Nobody is asked and nothing is written: all of them see the same sessions and come to the same
answer. Where they don't, for a moment, they cost each other a conflict and no more.
"""

import hashlib
import zlib
from math import inf
from typing import Final

from flowos.model.view import CellView
from flowos.planning.chance import scramble
from flowos.planning.policy import Order

_BITS: Final = (1 << 64) - 1
_MIX: Final = 0x9E3779B97F4A7C15  # odd, its bits without a pattern


class Peers:
    """The living schedulers of a view, as one of them sees them."""

    def __init__(self, view: CellView, session: str, policy: str, *, alone: bool = False) -> None:
        """Start alone, until `refresh`.

        Args:
            view: Whose sessions count.
            session: The own one.
            policy: Which of them serve the same queue.
            alone: Whether the others do not matter.
        """
        self.version = 0  # counts the divisions of the queue
        self.part, self.parts = 0, 1  # of all schedulers, whatever they serve
        self._view = view
        self._session = session
        self._policy = policy
        self._alone = alone
        self._seeds: dict[str, int] = {}  # of those that serve the same queue
        self._signs: dict[str, tuple[float, Order]] = {}

    @property
    def many(self) -> bool:
        """Whether the queue is divided at all."""
        return len(self._seeds) > 1

    @property
    def others(self) -> bool:
        """Whether anybody else plans on the same cell, whatever he serves."""
        return self.parts > 1 or self.many

    def refresh(self) -> bool:
        """Take in which sessions there are now; return whether anything is divided otherwise."""
        before = self.version, self.part, self.parts
        everybody = {} if self._alone else self._view.sessions_of("scheduler")
        names = sorted(everybody)
        self.part, self.parts = 0, 1
        if self._session in everybody:
            self.part, self.parts = names.index(self._session), len(names)
        serving = [name for name in names if everybody[name].value.policy == self._policy]
        if serving != list(self._seeds):
            self.version += 1
            self._seeds = {name: _seed(name) for name in serving}
            self._signs = {n: sign for n, sign in self._signs.items() if n in self._seeds}
        return before != (self.version, self.part, self.parts)

    def owner(self, created: int, identifier: str) -> str:
        """Return who goes first with a slice, by rendezvous hashing; "" = nobody in particular.

        Args:
            created: Its uid, which slices of one transaction have in common.
            identifier: Its name.
        """
        if not self.many:
            return ""
        mark = scramble(created << 32 ^ zlib.crc32(identifier.encode()))
        return max([((seed ^ mark) * _MIX & _BITS, name) for name, seed in self._seeds.items()])[1]

    def placed(self, session: str, order: Order, now: float) -> None:
        """Note how far in the queue one of the others is."""
        if session in self._seeds:
            self._signs[session] = (now, order)

    def sign_of(
        self, owner: str, order: Order, now: float, patience_seconds: float
    ) -> tuple[bool, bool]:
        """Return whether a slice's owner has been silent so long, and whether it is past the slice."""
        at, reached = self._signs.get(owner, (-inf, ()))
        return now - at >= patience_seconds, order <= reached


def _seed(session: str) -> int:
    return int.from_bytes(hashlib.blake2b(session.encode(), digest_size=8).digest())
