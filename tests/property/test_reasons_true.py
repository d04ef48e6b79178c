"""The reason a refusal gives equals the truth, found by trying everything in a small cell.

REASONS_CELLS=10000 tries so many cells; REASONS_SEED=n begins at another one.
"""

import os
from collections import Counter

from flowos.model.placement import Decision
from flowos.planning.engines.pool import Pool
from flowos.planning.place import plan
from tests.property.brute_force import truth
from tests.property.small_cells import small_request, small_view
from tests.unit.planning.laws import faults

CELLS = int(os.environ.get("REASONS_CELLS", "400"))
FIRST = int(os.environ.get("REASONS_SEED", "1"))


def test_the_reason_is_the_true_one_in_every_small_cell():
    wrong: list[str] = []
    told: Counter[str] = Counter()
    for seed in range(FIRST, FIRST + CELLS):
        view, spec = small_view(seed), small_request(seed)
        found = plan(Pool(view), spec)
        true = truth(view, spec)
        said = None if isinstance(found, Decision) else found.reason
        told[str(said or "placed")] += 1
        if said != true:
            wrong.append(f"seed {seed}: {said}, the truth is {true}: {found}")
        elif isinstance(found, Decision):
            wrong += [f"seed {seed}: {fault}" for fault in faults(view, spec, found)]
        else:
            assert found.sentence
    assert not wrong, f"{len(wrong)} of {CELLS}: " + "\n".join(wrong[:20])
    assert len(told) == 6, f"the cells are too much alike: {told}"
