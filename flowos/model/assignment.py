"""Who serves a slice that names no policy?"""

from dataclasses import replace
from fnmatch import fnmatchcase

from flowos.model.rules import NO_POLICIES, Assignment, PolicyRules
from flowos.model.slice import SliceSpec


def assigned(spec: SliceSpec, rules: PolicyRules | None) -> SliceSpec:
    """Return a slice with the policy that a cell's rules give it, where it names none itself.

    An assignment may also let slices of its kind give way to more important ones.

    Args:
        spec: The request.
        rules: The record `rule/policies`; None = there is none.
    """
    if spec.policy:
        return spec
    rules = rules or NO_POLICIES
    for assignment in rules.assignments:
        if meant(assignment, spec):
            preemptible = spec.preemptible or assignment.preemptible
            return replace(spec, policy=assignment.policy, preemptible=preemptible)
    return replace(spec, policy=rules.default)


def meant(assignment: Assignment, spec: SliceSpec) -> bool:
    """Whether a slice is of the kind that an assignment is about: all that it says must hold."""
    if assignment.tenants and spec.tenant not in assignment.tenants:
        return False
    if assignment.names and not any(fnmatchcase(spec.name, form) for form in assignment.names):
        return False
    if assignment.kinds:
        kinds = {choice.kind for role in spec.engines.values() for choice in role.choices}
        if kinds.isdisjoint(assignment.kinds):
            return False
    if assignment.shapes and {w.shape for w in spec.circuits}.isdisjoint(assignment.shapes):
        return False
    if not assignment.engines_least:
        return True
    asked = sum(min(c.count for c in role.choices) for role in spec.engines.values())
    return asked >= assignment.engines_least
