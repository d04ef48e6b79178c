"""What is a part of a slice: which of its roles go together, and what is the next smaller slice?"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from flowos.model.placement import Decision
from flowos.model.slice import CircuitWish, SliceSpec
from flowos.model.units import Amounts
from flowos.planning.incremental import least_of, sized


def kinds_of(spec: SliceSpec) -> Counter[str]:
    """Return how many engines of each kind a slice asks for; "" = of any."""
    kinds: Counter[str] = Counter()
    for wish in spec.engines.values():
        kinds[wish.choices[0].kind] += wish.choices[0].count
    return kinds


def covers(there: Mapping[str, int], wanted: Mapping[str, int]) -> bool:
    """Return whether so many engines of each kind are there, wherever they are: quick to say."""
    return sum(there.values()) >= sum(wanted.values()) and all(
        there.get(kind, 0) >= count for kind, count in wanted.items() if kind
    )


def members(spec: SliceSpec) -> list[SliceSpec]:
    """Return the slices that a slice is made of: no circuit joins two of them.

    In the order of their first roles.
    """
    groups: list[set[str]] = []
    for role in (*spec.engines, *spec.hosts):
        if not any(role in group for group in groups):
            groups.append({role})
    for wish in spec.circuits:
        joined = [group for group in groups if not group.isdisjoint(wish.roles)]
        groups = [group for group in groups if group not in joined]
        groups.append(set().union(*joined))
    order = [*spec.engines, *spec.hosts]
    groups.sort(key=lambda group: min(order.index(role) for role in group))
    return [_only(spec, group) for group in groups]


def _only(spec: SliceSpec, roles: Iterable[str]) -> SliceSpec:
    kept = set(roles)
    circuits: tuple[CircuitWish, ...] = tuple(w for w in spec.circuits if kept.issuperset(w.roles))
    return replace(
        spec,
        engines={role: wish for role, wish in spec.engines.items() if role in kept},
        hosts={role: wish for role, wish in spec.hosts.items() if role in kept},
        together={role: how for role, how in spec.together.items() if role in kept},
        circuits=circuits,
    )


def smaller(spec: SliceSpec) -> list[SliceSpec]:
    """Return what of a slice can be had before the rest, the smallest first, the slice itself not.

    Members come one after the other; of a slice with one member, engines do, all roles alike.
    """
    each = members(spec)
    if len(each) > 1:
        roles: set[str] = set()
        found = []
        for member in each[:-1]:
            roles |= {*member.engines, *member.hosts}
            found.append(_only(spec, roles))
        return found
    bounds = least_of(spec)
    slack = max((count - least for least, count in bounds.values()), default=0)
    return [
        sized(spec, {role: max(least, count - less) for role, (least, count) in bounds.items()})
        for less in range(slack, 0, -1)
    ]


def merged(decisions: Sequence[Decision]) -> Decision:
    """Return the decision that is all of these, whose roles are not the same."""
    units: dict[str, Amounts] = {}
    for decision in decisions:
        for unit, amounts in decision.units.items():
            before = units.get(unit, (0,) * len(amounts))
            longest = max(len(before), len(amounts))
            units[unit] = tuple(
                sum(each[n] for each in (before, amounts) if n < len(each)) for n in range(longest)
            )
    return Decision(
        {role: engines for each in decisions for role, engines in each.engines.items()},
        units,
        {role: nodes for each in decisions for role, nodes in each.hosts.items()},
        tuple(circuit for each in decisions for circuit in each.circuits),
        {engine: bits for each in decisions for engine, bits in each.bitstreams.items()},
    )


def engines_of(decision: Decision) -> list[str]:
    """Return all engines of a decision."""
    return [engine for engines in decision.engines.values() for engine in engines]
