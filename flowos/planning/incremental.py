"""All of a slice does not fit: with how much of it can it begin?"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from flowos.model.placement import Decision, Unplaceable
from flowos.model.slice import EngineRole, Shape, SliceSpec

Plan = Callable[[SliceSpec], Decision | Unplaceable]


def least_of(spec: SliceSpec) -> dict[str, tuple[int, int]]:
    """Return role -> the fewest engines that it can begin with, and all that it asks for.

    Only roles with one choice of whole engines can have fewer than they ask for, and none whose
    circuits name its ranks: a torus and explicit circuits need all of them.
    """
    fixed = {
        role
        for wish in spec.circuits
        if wish.shape in (Shape.TORUS, Shape.EXPLICIT)
        for role in wish.roles
    }
    found: dict[str, tuple[int, int]] = {}
    for role, wish in spec.engines.items():
        if len(wish.choices) == 1 and role not in fixed:
            count = wish.choices[0].count
            bound = spec.elastic[role][0] if role in spec.elastic else 1
            found[role] = (min(count, spec.least.get(role, bound)), count)
    return found


def sized(spec: SliceSpec, sizes: Mapping[str, int]) -> SliceSpec:
    """Return the same request for other numbers of engines; roles that are not named keep theirs."""
    engines = {
        role: EngineRole((replace(wish.choices[0], count=sizes[role]),)) if role in sizes else wish
        for role, wish in spec.engines.items()
    }
    return replace(spec, engines=engines)


def begun(spec: SliceSpec, plan: Plan) -> Decision | None:
    """Return the largest part of a slice that fits now, at least its minimum; None = not even that.

    All roles give up engines alike, each down to its minimum. It takes a logarithm of plans.

    Args:
        spec: The request, of which all did not fit.
        plan: Plans a request.
    """
    bounds = least_of(spec)
    slack = max((count - least for least, count in bounds.values()), default=0)

    def fitted(less: int) -> Decision | None:
        sizes = {role: max(least, count - less) for role, (least, count) in bounds.items()}
        found = plan(sized(spec, sizes))
        return found if isinstance(found, Decision) else None

    best = fitted(slack) if slack else None
    low, high = 1, slack - 1  # how much less: `slack` fits, 0 does not
    while best is not None and low <= high:
        middle = (low + high) // 2
        found = fitted(middle)
        if found is None:
            low = middle + 1
        else:
            best, high = found, middle - 1
    return best
