"""Which units of reservations does the controller take, wait for, or let go now?

The controller opens and closes windows by its own clock; nobody else's counts. It is level-triggered:
what is to be done about a unit follows from the rule, the time and who holds what, so it makes no
difference between which two steps it dies, or how often one window is opened.
"""

from collections.abc import Callable, Iterable, Iterator
from math import inf

from flowos.model.placement import Ending, Placement
from flowos.model.rules import Reservation
from flowos.model.units import engine_unit, kind_of, things_used
from flowos.model.view import Applied, CellView
from flowos.protocol import reserved
from flowos.protocol.proposal import Fence, Proposal
from flowos.protocol.takeover import RESERVED


class Reserving:
    """The windows of a cell, as its leading controller sees them."""

    def __init__(
        self,
        view: CellView,
        *,
        fence: Callable[[], Fence],
        wall: Callable[[], float],
        new_attempt: Callable[[], str],
    ) -> None:
        """Know of no window yet.

        Args:
            view: Fed by the shell.
            fence: Returns the session's fence now.
            wall: Wall-clock seconds, by which windows open and close.
            new_attempt: Returns an id that no commit has had.
        """
        self.view = view
        self._fence = fence
        self._wall = wall
        self._new_attempt = new_attempt
        self._due: dict[str, None] = {}
        self._kept: dict[str, str] = {}  # unit of an open window -> its placement
        self._look_at = -inf  # wall-clock seconds at which a window opens or closes next
        view.listeners.append(self._note)

    # -- what happened

    def changed(self, change: Applied) -> None:
        """Look at all windows again when one is made, changed or removed."""
        if change.family == "rule" and change.name.startswith("reservation/"):
            self._look_at = -inf
        elif change.name.startswith(RESERVED) and change.name not in self.view.placements:
            reservation, _ = reserved.parts_of(change.name)
            self._due[f"{RESERVED}{reservation}"] = None

    def restart(self) -> None:
        """Look at everything again."""
        self._look_at = -inf
        self._due |= dict.fromkeys(n for n in self.view.placements if n.startswith(RESERVED))

    def _note(self, unit: str) -> None:
        if unit.startswith("share/"):
            unit = engine_unit(unit[6:])
        if unit in self._kept:
            self._due[self._kept[unit]] = None
            if kind_of(unit) != "engine":
                self._look_at = -inf  # who is there has to go now

    # -- what to do

    def wake_in(self) -> float:
        """Return in how many seconds a window opens or closes; inf = none does."""
        return max(0.0, self._look_at - self._wall())

    def due(self) -> list[str]:
        """Return the placements to look at: units that windows keep, and slices that are in the way.

        Each is named once; whoever asks looks at it, and again if that comes to nothing.
        """
        now = self._wall()
        if now >= self._look_at:
            self._open(now)
        found, self._due = self._due, {}
        return list(found)

    def _open(self, now: float) -> None:
        """See which windows are open now, and have what changed by it looked at."""
        kept: dict[str, str] = {}
        self._look_at = inf
        for window in self.view.reservations.values():
            for at in (window.from_at, inf if window.until_at is None else window.until_at):
                if at > now:
                    self._look_at = min(self._look_at, at)
            if is_over(window, now):
                self._due[f"{RESERVED}{window.name}"] = None
            elif window.from_at <= now:
                kept |= {unit: reserved.name_of(window.name, unit) for unit in window.units}
        self._kept = kept
        self._due |= dict.fromkeys(kept.values())
        self._due |= dict.fromkeys(n for n in self.view.placements if n.startswith(RESERVED))
        self._due |= dict.fromkeys(self._in_the_way())

    def _in_the_way(self) -> Iterator[str]:
        """Yield the slices that have something at a node or switch that is kept for others."""
        if any(kind_of(unit) != "engine" for unit in self._kept):
            for name, entry in self.view.placements.items():
                if not name.startswith("~") and self.ending(name, entry.value) is not None:
                    yield name

    def look(self, identifier: str) -> Proposal | None:
        """Return what is to be done about a window, or one unit of it, now.

        Args:
            identifier: `~reserved/<reservation>/<unit>`, there or not; `~reserved/<reservation>`
                for the window as a whole.
        """
        reservation, unit = reserved.parts_of(identifier)
        window = self.view.reservations.get(reservation)
        now = self._wall()
        if not unit:
            if window is None or not is_over(window, now):
                return None
            return reserved.forget(self.view, reservation, fence=self._fence())
        if window is None or unit not in window.units or is_over(window, now):
            if identifier not in self.view.placements:
                return None
            return reserved.drop(self.view, identifier, fence=self._fence())
        if window.from_at > now:
            return None  # nor is one given up that a clock that is ahead of this one has opened
        if not unit_exists(self.view, unit):
            return None
        return reserved.hold(
            self.view, identifier, attempt=self._new_attempt(), fence=self._fence()
        )

    def ending(self, name: str, placement: Placement) -> Ending | None:
        """Return why a slice gives back what it has: it is at a place that is kept for others.

        What was built before a node or a switch was put out of service goes on there, unless the
        window evicts.

        Args:
            name: The slice, "tenant/name".
            placement: What it holds.
        """
        for unit in _needed(self.view, placement):
            identifier = self._kept.get(unit)
            if identifier is None or unit not in self.view.holders:
                continue  # put out of service first: else it would be placed there again
            window = self.view.reservations.get(reserved.parts_of(identifier)[0])
            if window and window.evict and not window.is_for(name.partition("/")[0]):
                ending = reserved.evicted(window)
                return Ending(
                    ending.phase,
                    reason=ending.reason,
                    message=ending.message,
                    grace_seconds=placement.run.grace_seconds,
                )
        return None

    @property
    def closes_places(self) -> bool:
        """Whether a window keeps any node or switch: only then is `ending` worth a question."""
        return any(kind_of(unit) != "engine" for unit in self._kept)


def is_over(window: Reservation, now: float) -> bool:
    """Whether a window is closed for good.

    Args:
        window: The rule.
        now: Wall-clock seconds.
    """
    return window.until_at is not None and window.until_at <= now


def unit_exists(view: CellView, unit: str) -> bool:
    """Whether the inventory has what a reservation names."""
    kind, _, subject = unit.partition("/")
    match kind:
        case "engine":
            return subject in view.cell.engines
        case "node":
            return subject in view.cell.nodes
        case _:
            return kind == "switch" and subject in view.cell.switches


def _needed(view: CellView, placement: Placement) -> Iterable[str]:
    """Return the nodes and switches, as units, that must be in service for a placement.

    Just those that a commit compares: who went for more would be placed there again and again.
    An engine's own switch is among them only where a circuit goes through it.
    """
    found: dict[str, None] = {}
    for unit in (*placement.held, *placement.releasing):
        found |= dict.fromkeys(things_used(view.cell, unit))
    for circuit in placement.circuits:
        for arc in circuit.arcs:
            found |= dict.fromkeys(things_used(view.cell, f"lane/{arc.link}/{arc.direction}/0"))
    return found
