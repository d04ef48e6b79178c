"""A scheduler process that claims at random, from a view that it never renews, and retries at once.

Usage: misbehaving.py --endpoints E --data-dir D; runs until SIGTERM. Its claims, slices, placements
and session are real; it has one request in flight at any moment and never looks at an answer.
"""

import argparse
import contextlib
import logging
import random
import secrets
import sys

from flowos.model.errors import StoreError
from flowos.model.placement import Decision
from flowos.model.slice import EngineChoice, EngineRole, Slice, SliceSpec
from flowos.model.transaction import Transaction
from flowos.model.view import CellView
from flowos.protocol.commit import commit
from flowos.protocol.proposal import Fence
from flowos.runtime.clock import SystemClock
from flowos.runtime.session import ProcessSession
from flowos_store import EtcdStore

GANG = 8
SHARE = 4  # it claims from one engine in so many, so that the others always find enough


class Misbehaving:
    """Builds one blind claim after the other; a view, a seed and a session are all it has."""

    def __init__(self, view: CellView, *, session: str, fence: Fence, seed: int) -> None:
        """Take a view that nobody will renew."""
        self._view, self._session, self._fence = view, session, fence
        self._dice = random.Random(seed)
        self._among = sorted(view.cell.engines)[::SHARE]
        self._count = 0

    def next(self) -> Transaction | None:
        """Return the next claim of engines at random; None where its own view forbids it."""
        self._count += 1
        engines = tuple(self._dice.sample(self._among, GANG))
        wanted = {"w": EngineRole((EngineChoice(count=GANG),))}
        spec = SliceSpec(f"b{self._count}", tenant="bad", engines=wanted)
        proposal = commit(
            self._view,
            spec.id,
            Decision({"w": engines}, {f"engine/{engine}": () for engine in engines}),
            fence=self._fence,
            attempt=f"{self._session}-{self._count}",
            scheduler=self._session,
            spec=(spec.id, Slice(spec=spec, submitted_at=1.0)),
        )
        return proposal.transaction if proposal else None


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--endpoints", required=True)
    parser.add_argument("--data-dir", default="")
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    store = EtcdStore([chosen.endpoints])
    session = ProcessSession(store, SystemClock(), "scheduler", "bad-" + secrets.token_hex(2))
    view = CellView()
    reading = store.read([""])
    view.load(reading.records)
    view.progressed(reading.revision)
    bad = Misbehaving(view, session=session.id, fence=session.fence, seed=1)
    logging.getLogger("flowos").info("the misbehaving one is in step with the cell")
    while True:
        transaction = bad.next()
        if transaction is not None:
            with contextlib.suppress(StoreError):
                store.commit([transaction])


if __name__ == "__main__":
    main()
