"""What else do the users of a shared cell ask for: to give way, to wait, to begin small, to grow?

A trial whose cell is shared has two tenants, one with a quota, slices that give way to others, that
depend on others, that are of an array or take engines as they come, and whose size changes while
they run; and a reservation that opens, closes, or is removed while it is open.
"""

import random
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from flowos.model import keys
from flowos.model.cell import WHOLE_MILLIS, Cell, Tenant
from flowos.model.codec import decode, encode
from flowos.model.errors import FlowosError
from flowos.model.rules import Reservation
from flowos.model.slice import CircuitWish, Dependency, Member, Mode, Once, Shape, Slice, SliceSpec
from flowos.model.transaction import Committed, Put, Seen, Transaction
from flowos.model.view import CellView
from flowos.runtime import windows
from flowos.runtime.requests import Look, Request, Write
from flowos.runtime.updating import Update, updated
from flowos.simulation.actors import Person
from flowos.simulation.wire import Site

Errand = Generator[Request, Any, bool]
GUEST: Final = "guest"
QUOTA: Final = 6  # GPUs of the guest: as many as its largest slice asks for
PARALLEL: Final = 2  # of an array
REWIRED: Final = 0.4  # of the slices with circuits get others while they are there
LATE_SECONDS: Final = 15.0  # after this no request is still on its way


def with_tenants(cell: Cell) -> Cell:
    """Let a second tenant use a cell, up to a quota."""
    cell.add(Tenant(GUEST, quota={"gpu": QUOTA}))
    return cell


def as_shared(dice: random.Random, specs: Sequence[SliceSpec]) -> list[SliceSpec]:
    """Return these requests as users of a shared cell make them; some depend on earlier ones."""
    found: list[SliceSpec] = []
    size = dice.randrange(3, 6)
    for number, spec in enumerate(specs):
        asked = replace(
            spec,
            tenant=dice.choice(("default", GUEST)),
            priority=dice.randrange(4),
            preemptible=dice.random() < 0.5,
            run=replace(spec.run, grace_seconds=dice.choice((0.0, 0.0, 0.5))),
        )
        if number < size:
            member = Member("rays", number, size, dice.choice((0, PARALLEL)))
            asked = replace(asked, name=f"rays-{number}", tenant="default", array=member)
        elif found and dice.random() < 0.2:
            once = dice.choice((Once.DONE, Once.RUNNING, Once.ENDED))
            asked = replace(asked, depends_on=(Dependency(dice.choice(found).id, once),))
        if _grows(asked) and dice.random() < 0.6:
            asked = replace(asked, commit=Mode.INCREMENTAL, least={"workers": 1})
        found.append(asked)
    parallel = {s.array.parallel for s in found[:1] if s.array is not None}
    return [
        s if s.array is None else replace(s, array=replace(s.array, parallel=max(parallel)))
        for s in found
    ]


def _grows(spec: SliceSpec) -> bool:
    """Whether it may have any number of workers: several, whole, and no circuits among them."""
    wish = spec.engines.get("workers")
    return (
        wish is not None
        and not spec.circuits
        and all(c.count > 1 and c.share_millis == WHOLE_MILLIS for c in wish.choices)
    )


class Sharer(Person):
    """Changes sizes, priorities and circuits of slices that are there, and keeps units a while."""

    def __init__(
        self,
        site: Site,
        seed: int,
        cell: Cell,
        specs: Sequence[SliceSpec],
        seconds: float,
        say: Callable[[str], None],
    ) -> None:
        """Want this at moments within so many seconds."""
        super().__init__(site, "sharer", seed)
        self._say = say
        self._windows: dict[str, bool] = {}  # reservation -> whether it is to be removed now
        self._made_at: dict[str, float] = {}  # when it was last asked for
        dice = self.dice
        for spec in specs:
            if _grows(spec) and dice.random() < 0.7:
                update = Update(sizes={"workers": dice.randrange(1, 5)})
                self.after(dice.uniform(2, 0.9 * seconds), partial(self._update, spec, update))
            if dice.random() < 0.2:
                update = Update(priority=dice.randrange(5))
                self.after(dice.uniform(2, 0.9 * seconds), partial(self._update, spec, update))
        others = random.Random(f"circuits of {seed}")  # chance of its own: what was drawn stays so
        for spec in specs:
            roles = tuple(spec.engines)
            if spec.circuits and not spec.data and others.random() < REWIRED:
                shape = others.choice((Shape.RING, Shape.ALL, Shape.STAR, None))
                wishes = () if shape is None else (CircuitWish(shape, roles),)
                self.after(
                    others.uniform(2, 0.9 * seconds),
                    partial(self._update, spec, Update(circuits=wishes)),
                )
        units = [f"engine/{name}" for name in cell.engines] + [f"node/{n}" for n in cell.nodes]
        for number, unit in enumerate(dice.sample(units, dice.randrange(1, 3))):
            at, lasts = dice.uniform(1, 0.5 * seconds), dice.uniform(3, 15)
            window = Reservation(
                f"w{number}",
                (unit,),
                dice.choice(((), (GUEST,))),
                from_at=at + dice.uniform(0, 5),
                until_at=dice.choice((None, at + 5 + lasts)),
                evict=dice.random() < 0.5,
            )
            self.after(at, partial(self._keep, window))
            self.after(at + dice.uniform(3, 20), partial(self._let_go, window.name))

    @property
    def errands(self) -> list[str]:
        """What is still to be done."""
        return [f"reservation {name} is to be removed" for name in self._windows]

    def finish(self) -> None:
        """Remove all that is kept."""
        for name in list(self._windows):
            self._let_go(name)

    def _update(self, spec: SliceSpec, update: Update) -> None:
        self._say(f"sharer: {spec.id} {update}")
        self.insist(partial(self._updated, spec.id, update))

    def _updated(self, name: str, update: Update) -> Errand:
        key = keys.slice_(name)
        reading = yield Look((key,))
        found = [record for record in reading.records if record.key == key]
        if not found:
            return self.site.calm  # it may still come
        before = decode(Slice, found[0].value)
        if before.end is not None:
            return True
        after = replace(before, spec=updated(before.spec, update))
        write = Transaction((Seen(key, found[0].modified),), (Put(key, encode(after)),))
        (outcome,) = yield Write((write,))
        return isinstance(outcome, Committed)

    def _keep(self, window: Reservation) -> None:
        self._say(f"sharer: keep {window}")
        self._windows[window.name] = False
        self.insist(partial(self._kept, window))

    def _let_go(self, name: str) -> None:
        if self._windows.get(name) is False:
            self._say(f"sharer: let go {name}")
            self._windows[name] = True
            self.insist(partial(self._removed, name))

    def _kept(self, window: Reservation) -> Errand:
        if self._windows.get(window.name) is not False:
            return True  # nobody wants it any more
        view = yield from self._looked()
        if window.name in view.reservations:
            return True
        try:
            names = [unit.partition("/")[2] for unit in window.units]
            _, write = windows.added(view, window, names=names, now=self.timeline.now)
        except FlowosError:
            return True  # it is over before it could be made
        self._made_at[window.name] = self.timeline.now
        (outcome,) = yield Write((write,))
        return isinstance(outcome, Committed)

    def _removed(self, name: str) -> Errand:
        view = yield from self._looked()
        if name not in view.reservations:
            # One whose answer was lost may still be on its way.
            gone = self.timeline.now >= self._made_at.get(name, 0.0) + LATE_SECONDS
            if gone:
                del self._windows[name]
            return gone
        yield Write((windows.removed(view, name),))
        return False  # looked at again

    def _looked(self) -> Generator[Request, Any, CellView]:
        reading = yield Look(("",))
        view = CellView()
        view.load(reading.records)
        view.progressed(reading.revision)
        return view
