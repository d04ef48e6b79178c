"""Does each trial's history have a serial order, with all that gets lost, late and torn in it?"""

import pytest

from flowos.model.transaction import Committed, Transaction
from flowos.simulation.trial import Failure, Trial
from flowos_schedulers.batch import Batch
from flowos_store.memory import MemoryStore
from tests.plugins.serial import Contradiction, Recording, Witness, explained


def trial(seed, new_store=MemoryStore, **more):
    """Play a trial on record."""
    recording = Recording()
    played = Trial(
        seed, new_store=new_store, policy=Batch(), slices=10, on_request=recording.note, **more
    )
    witness = Witness(played.store)
    try:
        played.run()
    except Failure:
        if new_store is MemoryStore:
            raise
    return recording, witness


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_trials_history_has_a_serial_order(seed):
    recording, witness = trial(seed)
    found = explained(recording, witness)
    lost = [write for write in recording.writes if write.unknown]
    assert len(found.never) <= len(lost)
    assert len(found.order) + len(found.never) >= len(lost)


class Twice(MemoryStore):
    """Carries out one request again, a long time after it was answered."""

    kept: tuple[Transaction, ...] = ()
    commits = 0

    def commit(self, transactions, **more):
        self.commits += 1
        if self.commits == 200 and self.kept:
            super().commit(self.kept)
        outcomes = super().commit(transactions, **more)
        wrote = [t for t, o in zip(transactions, outcomes, strict=True) if isinstance(o, Committed)]
        if self.commits < 100 and any(
            op.key.startswith("slice/") for t in wrote for op in t.operations
        ):
            self.kept = tuple(Transaction((), t.operations) for t in wrote)
        return outcomes


def test_a_request_that_happened_twice_in_a_trial_is_found():
    recording, witness = trial(1, Twice)
    with pytest.raises(Contradiction, match="slice/"):
        explained(recording, witness)
