"""How much of the cell does each tenant have, and whose turn is it by that?

What a tenant has is its dominant share: the largest part that it holds of any one kind of engine,
of the CPU or of the memory of all hosts; divided by its weight. Whoever has the least is next.

Source: Ghodsi et al., "Dominant Resource Fairness", NSDI 2011, sections 4 and 5.2 (weights).
"""

from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

from flowos.model.cell import WHOLE_MILLIS
from flowos.model.slice import SliceSpec
from flowos.model.units import engine_unit, host_unit, share_unit
from flowos.model.view import CellView

Resource: TypeAlias = str  # a kind of engine, in thousandths of one; or of all hosts:
_CPU: Final = "~cpu"
_MEMORY: Final = "~memory"
_EVERY: Final = ""  # engines of whatever kind


class Usage:
    """Follows a view's holdings; a change costs its own reading, when it is next asked."""

    def __init__(self, view: CellView) -> None:
        """Count when first asked."""
        self._view = view
        self._units: set[str] = set()  # whose holders have changed
        self._things: set[tuple[str, str]] = set()
        self._stale = True
        self._totals: dict[Resource, int] = {}
        self._made_of: dict[tuple[str, str], Mapping[Resource, int]] = {}  # thing -> its part
        self._held: dict[str, dict[Resource, int]] = {}  # tenant -> what it holds
        self._holders: dict[str, tuple[tuple[str, Resource, int], ...]] = {}  # by unit
        view.listeners.append(self._units.add)
        view.inventory_listeners.append(self._thing_changed)

    def share(self, tenant: str) -> float:
        """Return the largest part that a tenant holds of any one resource of the cell, 0..1.

        Plans under way count, and what is being given back, but no supposition does.
        """
        self._fold()
        return self._largest(self._held.get(tenant, {}))

    def weighted(self, tenant: str) -> float:
        """Return the tenant's share divided by its weight: who has less of this goes first."""
        return self.share(tenant) / self._weight(tenant)

    def asked(self, spec: SliceSpec) -> float:
        """Return what a slice would add to its tenant's weighted share, at most.

        That is exact for tenants that ask for one kind of thing; shares of several kinds add up
        to less.
        """
        self._fold()
        wanted: dict[Resource, int] = {}
        counts: dict[str, int] = {}
        for role, wish in spec.engines.items():
            for choice in wish.choices[:1]:  # a record may say anything, even nothing
                counts[role] = choice.count
                amount = max(choice.count * choice.share_millis, 0)
                wanted[choice.kind] = wanted.get(choice.kind, 0) + amount
        for role, host in spec.hosts.items():
            count = host.count or counts.get(role, 1)
            wanted[_CPU] = wanted.get(_CPU, 0) + count * host.cpu_millis
            wanted[_MEMORY] = wanted.get(_MEMORY, 0) + count * host.memory_bytes
        return self._largest(wanted) / self._weight(spec.tenant)

    def _largest(self, amounts: Mapping[Resource, int]) -> float:
        totals = self._totals
        return max(
            (
                amount / totals[resource]
                for resource, amount in amounts.items()
                if resource in totals
            ),
            default=0.0,
        )

    def _weight(self, tenant: str) -> int:
        known = self._view.cell.tenants.get(tenant)
        return max(known.weight, 1) if known else 1

    # -- keeping count

    def _thing_changed(self, family: str, name: str) -> None:
        if family == "":
            self._stale = True
        elif family in ("engine", "node"):
            self._things.add((family, name))

    def _fold(self) -> None:
        """Take in what has changed since the last time."""
        if self._view.supposing:
            return  # it comes back to where it was before anybody should count it
        if self._stale:
            self._recount()
        for family, name in self._things:
            self._survey(family, name)
        self._things.clear()
        for unit in self._units:
            self._count(unit)
        self._units.clear()

    def _recount(self) -> None:
        self._stale = False
        self._things.clear()
        self._units.clear()
        for table in (self._totals, self._made_of, self._held, self._holders):
            table.clear()
        view = self._view
        for engine in view.cell.engines:
            self._survey("engine", engine)
        for node in view.cell.nodes:
            self._survey("node", node)
        self._units.update(view.holders)
        self._units.update(map(share_unit, view.shares))
        self._units.update(map(host_unit, view.hosts))

    def _survey(self, family: str, name: str) -> None:
        """See anew what an engine or a node adds to the cell, and who holds it."""
        for resource, amount in self._made_of.pop((family, name), {}).items():
            rest = self._totals[resource] - amount
            if rest:
                self._totals[resource] = rest
            else:
                del self._totals[resource]
        made_of: dict[Resource, int] = {}
        if family == "engine":
            engine = self._view.cell.engines.get(name)
            if engine is not None:
                made_of = {engine.kind: WHOLE_MILLIS, _EVERY: WHOLE_MILLIS}
            self._units.update((engine_unit(name), share_unit(name)))  # it may be of another kind
        else:
            node = self._view.cell.nodes.get(name)
            if node is not None:
                made_of = {_CPU: node.cpu_millis, _MEMORY: node.memory_bytes}
            self._units.add(host_unit(name))
        self._made_of[family, name] = made_of
        for resource, amount in made_of.items():
            if amount:
                self._totals[resource] = self._totals.get(resource, 0) + amount

    def _count(self, unit: str) -> None:
        kind = unit.partition("/")[0]
        if kind not in ("engine", "share", "host"):
            return
        for tenant, resource, amount in self._holders.pop(unit, ()):
            held = self._held[tenant]
            held[resource] -= amount
            if not held[resource]:
                del held[resource]
                if not held:
                    del self._held[tenant]
        holders = tuple(held for held in self._read(unit) if held[2])
        if holders:
            self._holders[unit] = holders
        for tenant, resource, amount in holders:
            held = self._held.setdefault(tenant, {})
            held[resource] = held.get(resource, 0) + amount

    def _read(self, unit: str) -> Iterator[tuple[str, Resource, int]]:
        """Yield (tenant, resource, amount) of those that hold a unit now."""
        view = self._view
        kind, _, subject = unit.partition("/")
        if kind == "host":
            for name, (cpu_millis, memory_bytes) in view.hosts.get(subject, {}).items():
                if not name.startswith("~"):
                    tenant = name.partition("/")[0]
                    yield tenant, _CPU, cpu_millis
                    yield tenant, _MEMORY, memory_bytes
            return
        engine = view.cell.engines.get(subject)
        if engine is None:
            return
        amounts: Mapping[str, int] = view.shares.get(subject, {})
        if kind == "engine":
            amounts = dict.fromkeys(view.holders.get(unit, ()), WHOLE_MILLIS)
        for name, millis in amounts.items():
            if not name.startswith("~"):
                yield name.partition("/")[0], engine.kind, millis


class Turns:
    """At what share of its tenant's is it a waiting slice's turn?

    When its tenant will have what it has now and all that it asks for before this slice. Slices
    that are put in this order are given out as dominant-resource fairness would do it, the tenant
    with the least next, though nothing has to be counted anew after each.
    """

    def __init__(self, usage: Usage) -> None:
        """Begin with what tenants have now."""
        self._usage = usage
        self._ahead: dict[str, float] = {}

    def restart(self) -> None:
        """Forget who was asked about; the first of each tenant's slices comes first again."""
        self._ahead.clear()

    def turn(self, spec: SliceSpec, *, counts: bool = True) -> float:
        """Return the weighted share at which it is a slice's turn.

        Args:
            spec: Asked for each tenant's slices in the order in which it wants them.
            counts: Whether those behind it wait for it: no if it cannot be placed anyway.
        """
        tenant = spec.tenant
        here = self._ahead.get(tenant)
        if here is None:
            here = self._usage.weighted(tenant)
        self._ahead[tenant] = here + (self._usage.asked(spec) if counts else 0.0)
        return here
