"""How is the worst looked for? By hypothesis, which makes up what is worse than what was bad."""

from collections.abc import Callable, Sequence

from flowos.testing.contests import choices, contests
from flowos.testing.interleaving import Contest

from hypothesis import HealthCheck, Phase, given, settings, target  # isort: skip


def search(
    score: Callable[[Contest, Sequence[int]], float],
    *,
    examples: int,
    searching: bool,
    mistakes: bool,
    takeovers: bool,
    policies: int = 1,
) -> None:
    """Make up contests, the same each time.

    Args:
        score: How bad one is; it keeps what it has to.
        examples: How many.
        searching: Whether what was bad is varied.
        mistakes: See `contests`.
        takeovers: The same.
        policies: The same.
    """
    phases = [Phase.generate, Phase.target] if searching else [Phase.generate]

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )
    @given(contests(mistakes=mistakes, takeovers=takeovers, policies=policies), choices())
    def it_is_as_bad_as_that(contest: Contest, order: list[int]) -> None:
        value = score(contest, order)
        if searching:
            target(value)

    it_is_as_bad_as_that()
