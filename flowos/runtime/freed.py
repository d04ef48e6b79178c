"""Was anything given back since a slice found no place, so that it may find one now?"""

from flowos.model.units import is_divisible, kind_of, subject_of
from flowos.model.view import CellView


class Freed:
    """Counts what is given back in a view, and whatever else may let a waiting slice be placed.

    Attributes:
        count: It never falls; a slice that found no place at this count finds none until it rises.
    """

    def __init__(self, view: CellView) -> None:
        """Listen from now on."""
        self.count = 0
        self._view = view
        self._used: dict[str, tuple[int, ...]] = {}
        view.listeners.append(self._unit_changed)
        view.inventory_listeners.append(self._inventory_changed)

    def note(self) -> None:
        """Count something that no unit tells of: a grant, a rule, who else is there."""
        self.count += 1

    def _unit_changed(self, unit: str) -> None:
        if self._view.supposing or unit in self._view.holders:
            return
        if is_divisible(unit):
            before, now = self._used.get(unit, ()), self._used_of(unit)
            self._used[unit] = now
            # Only what is given back may help a slice that waits.
            if any(was > is_ for was, is_ in zip(before, now, strict=False)):
                self.count += 1
        else:
            self.count += 1

    def _used_of(self, unit: str) -> tuple[int, ...]:
        """Return how much of a divisible unit all its holders have together."""
        subject = subject_of(unit)
        if kind_of(unit) == "share":
            return (sum(self._view.shares.get(subject, {}).values()),)
        held = self._view.hosts.get(subject, {}).values()
        devices = self._view.devices.get(subject, {}).values()
        return sum(cpu for cpu, _ in held), sum(memory for _, memory in held), sum(devices)

    def _inventory_changed(self, _family: str, _name: str) -> None:
        self.count += 1
