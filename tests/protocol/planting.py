"""How is a rule shown to be needed? Its life goes well as it is, and breaks a law without it."""

from collections.abc import Callable

import pytest

from tests.protocol.laws import LawBroken
from tests.protocol.rules import Mistake, planted
from tests.protocol.world import World

Script = Callable[[World], None]


def needed(
    script: Script,
    *mistakes: Mistake,
    law: str,
    budget: int | None = None,
    quota: int | None = None,
    operations_max: int = 128,
) -> None:
    """Prove that a rule keeps a law.

    Args:
        script: What happens, in this order. It goes well by the real rules.
        mistakes: What takes the rule out of a copy of them.
        law: What the copy then breaks: a part of the sentence.
        budget: Watts of domain d.
        quota: GPUs of tenant t.
        operations_max: What one request may hold; few make the store guard commits by ranges.
    """
    script(World(budget=budget, quota=quota, operations_max=operations_max))
    rules = planted(mistakes)
    copy = World(rules, budget=budget, quota=quota, operations_max=operations_max)
    with pytest.raises(LawBroken, match=law):
        script(copy)
