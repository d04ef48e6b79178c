"""Whatever happens in whatever order, every law holds after every step, and a clean end is near.

FLOWOS_LIVES says how many lives are lived; each is its seed's, and can be told again.
"""

import os

import pytest

from tests.protocol.laws import LawBroken
from tests.protocol.lives import Life
from tests.protocol.rules import Mistake, planted

LIVES = int(os.environ.get("FLOWOS_LIVES", "250"))


@pytest.mark.parametrize("seed", range(LIVES))
def test_a_life_keeps_every_law_and_comes_to_a_clean_end(seed):
    try:
        Life(seed).live()
    except LawBroken as error:
        replay = f"PYTHONPATH=.:store python -m tests.protocol.lives {seed}"
        pytest.fail(f"seed {seed}: {error}\nreplay: {replay}", pytrace=False)


@pytest.mark.parametrize(
    "mistake",
    [
        Mistake("protocol.commit", "draft.stays_quiet(prefix, view.guard(prefix))", "pass"),
        Mistake(
            "protocol.orders",
            "if placement.waits or not placement.held or ",
            "if not placement.held or ",
        ),
        Mistake("protocol.proposal", "self.seen(fence.key, fence.revision)", "pass"),
        Mistake("protocol.commit", "draft.seen(keys.RESERVATIONS, known)", "pass"),
    ],
    ids=lambda mistake: mistake.module,
)
def test_lives_by_rules_with_a_mistake_break_a_law(mistake):
    # The walks are trusted because they were seen to fail.
    rules = planted([mistake])

    def many_lives() -> None:
        for seed in range(240):
            Life(seed, rules).live()

    with pytest.raises(LawBroken):
        many_lives()
