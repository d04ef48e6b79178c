"""How often should decisions conflict, by chance alone?

Two that put k and k' tasks at random on M machines with room, neither seeing the other, share a
machine with probability 1 - exp(-k k' / M): the birthday problem. Rivals commit as a Poisson
process while one decides.
"""

import math
from collections import Counter
from collections.abc import Sequence

from flowos.simulation.light.loads import Job
from flowos.simulation.light.schedulers import Pace


def expected_conflicts(
    own: Sequence[Job],
    rivals: Sequence[tuple[Sequence[Job], float]],
    pace: Pace,
    *,
    seconds: float,
    machines: float,
) -> float:
    """Return conflicts for each success, of decisions that are as stale as they take long.

    Coarse: any rival on the same machine counts. Retries and bursts are not in it.

    Args:
        own: The class of jobs that is decided on.
        rivals: Jobs that others decide on, and the share of them that is not this scheduler's own:
            1 for other classes, 1 - 1/N where N share a class.
        pace: Of the decisions.
        seconds: During which all these jobs came.
        machines: With room for a task.

    Returns:
        Conflicted transactions for each successful one; infinite where none would succeed.
    """
    sizes = Counter(job.tasks for job in own)
    total = sum(sizes.values())
    if not total:
        return 0.0
    streams = [(share / seconds, Counter(job.tasks for job in jobs)) for jobs, share in rivals]
    chance = 0.0
    for tasks, count in sizes.items():
        # Commits that would hit this one, each second.
        rate = sum(
            per_second * sum(n * -math.expm1(-tasks * k / machines) for k, n in theirs.items())
            for per_second, theirs in streams
        )
        chance += count * -math.expm1(-rate * pace.seconds(tasks))
    chance /= total
    return chance / (1 - chance) if chance < 1 else math.inf
