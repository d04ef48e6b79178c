"""Who uses and runs a simulated cell? A user who submits and changes his mind, an operator who drains.

They have no session: each errand is read, decide, write, and again until it is certainly done.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from flowos.model import keys
from flowos.model.cell import Cell
from flowos.model.codec import decode, encode
from flowos.model.slice import Slice, SliceSpec
from flowos.model.transaction import Committed, Put, Seen, Transaction
from flowos.model.view import CellView
from flowos.protocol import system
from flowos.runtime.requests import Look, Request, Write
from flowos.simulation.actors import Person
from flowos.simulation.wire import Site

Errand = Generator[Request, Any, bool]
LATE_SECONDS: Final = 15.0  # after this no request is still on its way


class User(Person):
    """Submits slices, cancels some, holds some for a while."""

    def __init__(
        self,
        site: Site,
        seed: int,
        specs: Sequence[SliceSpec],
        seconds: float,
        say: Callable[[str], None],
    ) -> None:
        """Want these slices, at moments within so many seconds."""
        super().__init__(site, "user", seed)
        self._specs = specs
        self._submitted: set[str] = set()
        self._wishes: dict[tuple[str, str], bool] = {}
        self._say = say
        dice = self.dice
        for spec in specs:
            at = dice.uniform(0.5, 0.7 * seconds)
            self.after(at, partial(self.insist, partial(self._submit, spec)))
            if dice.random() < 0.2:
                self.after(at + dice.uniform(0, 10), partial(self._wish, spec, "cancelled"))
            if dice.random() < 0.1:
                self.after(at + dice.uniform(0, 3), partial(self._wish, spec, "held"))

    @property
    def errands(self) -> list[str]:
        """What is still to be done."""
        return [f"{s.id} is to be submitted" for s in self._specs if s.id not in self._submitted]

    def finish(self) -> None:
        """Let go what is held back, and end what would not end by itself."""
        for spec in self._specs:
            self._wish(spec, "held", value=False)
            if not spec.run.ends:
                self.after(self.dice.uniform(0, 10), partial(self._wish, spec, "cancelled"))

    def _wish(self, spec: SliceSpec, what: str, *, value: bool = True) -> None:
        self._say(f"user: {spec.id} {what}={value}")
        self._wishes[spec.id, what] = value  # the newest holds, whatever was still to be done
        self.insist(partial(self._change, spec, what))

    def _submit(self, spec: SliceSpec) -> Errand:
        key = keys.slice_(spec.id)
        record = Slice(spec, submitted_at=self.timeline.now)
        # Where it is there already, an earlier try was answered by nobody and happened.
        yield Write((Transaction((Seen(key, 0),), (Put(key, encode(record)),)),))
        self._submitted.add(spec.id)
        return True

    def _change(self, spec: SliceSpec, what: str) -> Errand:
        key = keys.slice_(spec.id)
        reading = yield Look((key,))
        found = [record for record in reading.records if record.key == key]
        if not found:
            return False
        before = decode(Slice, found[0].value)
        wish: Any = {what: self._wishes[spec.id, what]}
        after = replace(before, **wish)
        if before.end is not None or after == before:
            return True
        write = Transaction((Seen(key, found[0].modified),), (Put(key, encode(after)),))
        (outcome,) = yield Write((write,))
        return isinstance(outcome, Committed)


class Operator(Person):
    """Drains units, some by a deadline, and puts them back into service."""

    def __init__(
        self,
        site: Site,
        seed: int,
        cell: Cell,
        seconds: float,
        new_attempt: Callable[[], str],
        say: Callable[[str], None],
    ) -> None:
        """Want some units drained, at moments within so many seconds."""
        super().__init__(site, "operator", seed)
        self._new_attempt = new_attempt
        self._say = say
        self._drained: dict[str, bool] = {}  # unit -> whether it is to be put back now
        self._sent_at: dict[str, float] = {}  # when a drain was last asked for
        units = [f"engine/{name}" for name in cell.engines] + [f"node/{n}" for n in cell.nodes]
        for unit in self.dice.sample(units, self.dice.randrange(4)):
            at = self.dice.uniform(2, 0.6 * seconds)
            self.after(at, partial(self._drain, unit))
            self.after(at + self.dice.uniform(2, 15), partial(self._put_back, unit))

    @property
    def errands(self) -> list[str]:
        """What is still to be done."""
        return [f"{unit} is to be put back" for unit in self._drained]

    def finish(self) -> None:
        """Put everything back into service."""
        for unit in list(self._drained):
            self._put_back(unit)

    def _drain(self, unit: str) -> None:
        by = self.dice.choice((None, self.timeline.now + self.dice.uniform(0, 8)))
        self._say(f"operator: drain {unit} by {by}")
        self._drained[unit] = False
        attempt = self._new_attempt()
        self.insist(partial(self._take_out, unit, attempt, by))

    def _put_back(self, unit: str) -> None:
        if self._drained.get(unit) is False:
            self._say(f"operator: undrain {unit}")
            self._drained[unit] = True
            self.insist(partial(self._bring_back, unit))

    def _take_out(self, unit: str, attempt: str, by: float | None) -> Errand:
        if self._drained.get(unit) is not False:
            return True  # he has changed his mind
        view = yield from self._looked()
        if f"~drain/{unit}" in view.placements:
            return True
        step = system.drain(view, unit, attempt=attempt, fence=None, deadline_at=by)
        if step is None:
            return False
        self._sent_at[unit] = self.timeline.now
        (outcome,) = yield Write((step.transaction,))
        return isinstance(outcome, Committed)

    def _bring_back(self, unit: str) -> Errand:
        view = yield from self._looked()
        name = f"~drain/{unit}"
        if name not in view.placements:
            # A drain whose answer was lost may still be on its way.
            gone = self.timeline.now >= self._sent_at.get(unit, 0.0) + LATE_SECONDS
            if gone:
                del self._drained[unit]
            return gone
        step = system.undrain(view, name, fence=None)
        if step is None:
            return False
        yield Write((step.transaction,))
        return False  # looked at again

    def _looked(self) -> Generator[Request, Any, CellView]:
        reading = yield Look(("",))
        view = CellView()
        view.load(reading.records)
        view.progressed(reading.revision)
        return view
