"""What does a policy ask of the planner where the slice itself says nothing?"""

from collections.abc import Callable, Iterable
from dataclasses import replace

from flowos.model.placement import Decision, Unplaceable
from flowos.model.slice import EngineRole, SliceSpec

Plan = Callable[[SliceSpec], Decision | Unplaceable]


def spreading(spec: SliceSpec, spread: str) -> SliceSpec:
    """Return a slice whose engines are to be apart, if it has no word on that."""
    if spec.constraints.spread != "pack":
        return spec
    return replace(spec, constraints=replace(spec.constraints, spread=spread))


def preferring(spec: SliceSpec, prefer: str) -> SliceSpec:
    """Return a slice that prefers engines by speed or by joules, if it has no word on that."""
    if spec.constraints.prefer:
        return spec
    return replace(spec, constraints=replace(spec.constraints, prefer=prefer))


def choosing(spec: SliceSpec, choices: Callable[[str, EngineRole], EngineRole]) -> SliceSpec:
    """Return a slice whose roles have other choices: a function of role and what it says."""
    return replace(spec, engines={role: choices(role, of) for role, of in spec.engines.items()})


def first_of(plan: Plan, specs: Iterable[SliceSpec], own: SliceSpec) -> Decision | Unplaceable:
    """Return the first decision for any of several forms of a slice, in the end for its own.

    What refuses it is what refuses the slice as its user wrote it.
    """
    tried: list[SliceSpec] = []
    for spec in specs:
        if spec == own or spec in tried:
            continue
        tried.append(spec)
        found = plan(spec)
        if isinstance(found, Decision):
            return found
    return plan(own)
