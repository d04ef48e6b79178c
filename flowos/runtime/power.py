"""Which engines have been idle long enough to be powered off."""

from flowos.model.units import engine_unit, kind_of, subject_of
from flowos.model.view import CellView


class IdleEngines:
    """Follows a view and remembers since when each engine is free.

    The idle time-out's best fixed value is the break-even time (cost of a transition over the
    watts saved): never more than twice the optimum (ski rental).
    """

    def __init__(self, view: CellView) -> None:
        """Start counting with the first `due`."""
        self._view = view
        self._since: dict[str, float] = {}
        self._touched: set[str] = set()
        self._all = True
        view.listeners.append(self._unit_changed)
        view.inventory_listeners.append(self._inventory_changed)

    def restart(self) -> None:
        """Count anew from the next `due`: how long things were idle before is not known."""
        self._since.clear()
        self._all = True

    def due(self, now: float, idle_seconds: float, at_most: int = 160) -> list[str]:
        """Return engines that are on and free for this long, longest first."""
        if self._all:
            self._touched = set(self._view.cell.engines)
            self._all = False
        for engine in self._touched:
            if self._idle(engine):
                self._since.setdefault(engine, now)
            else:
                self._since.pop(engine, None)
        self._touched.clear()
        found: list[str] = []
        for engine, since in self._since.items():  # in the order in which they became free
            if now - since < idle_seconds or len(found) == at_most:
                break
            found.append(engine)
        return found

    def _idle(self, identifier: str) -> bool:
        engine = self._view.cell.engines.get(identifier)
        return (
            engine is not None
            and engine.watts.off < engine.watts.idle
            and engine_unit(identifier) not in self._view.holders
            and not self._view.shares.get(identifier)
        )

    def _unit_changed(self, unit: str) -> None:
        if kind_of(unit) in ("engine", "share"):
            subject = subject_of(unit)
            self._touched.add(subject)
            # Held in between two looks: the idle time starts again.
            if not self._idle(subject):
                self._since.pop(subject, None)

    def _inventory_changed(self, family: str, name: str) -> None:
        if family == "engine":
            self._touched.add(name)
        elif not family:
            self._all = True
