"""What does the verifier look at in its tests? A little cell that is lived in by the real rules.

    n1/x ──px──┐                  ┌──py── n2/y
               s1 ────trunk────── s2
    n1/f ──pf──┘                  └──pz── n2/z

x, y and z are held whole; f can be held in parts and loads bitstreams. The trunk has two lanes each
way, every other link has one. All engines draw from domain d: 10 W idle, 110 W busy.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from flowos.model import keys
from flowos.model.cell import (
    FAMILY_OF,
    Bitstream,
    Cell,
    Domain,
    Engine,
    Link,
    Node,
    Switch,
    Tenant,
    Watts,
    name_of,
)
from flowos.model.codec import decode, encode
from flowos.model.placement import (
    Arc,
    Circuit,
    Decision,
    Ending,
    Observed,
    Order,
    Placement,
    Report,
    Session,
)
from flowos.model.slice import Phase, Run, Slice, SliceSpec
from flowos.model.transaction import Committed, Delete, Operation, Put, Transaction
from flowos.model.units import Amounts
from flowos.model.view import CellView
from flowos.protocol.commit import commit
from flowos.protocol.grants import raise_grant
from flowos.protocol.proposal import Fence, Proposal
from flowos.protocol.release import arm, free, mark_started, release
from flowos.verify.history import KeptStore, News, Verdict, follow

PURSE = "domain:d"
BUDGET_WATTS = 1000
LIMIT_WATTS = BUDGET_WATTS - 40  # four engines idle
GRANT_WATTS = 600
TRUNK = "lane/trunk/fwd/0"
SUM, ADD = "sum-f32@sha256:11", "add-bytewise@sha256:22"
SESSION = keys.session("scheduler", "s")
PATIENCE_SECONDS = 10.0


class StoppedClock:
    """Time that stands still."""

    def monotonic(self) -> float:
        return 0.0

    def wall(self) -> float:
        return 0.0


def little_cell() -> Cell:
    cell = Cell()
    cell.add(Domain("d", budget_watts=BUDGET_WATTS))
    cell.add(Tenant("default"))
    for bitstream in (SUM, ADD):
        name, _, digest = bitstream.partition("@")
        cell.add(Bitstream(name, digest))
    for node, switch in (("n1", "s1"), ("n2", "s2")):
        cell.add(Switch(switch, aggregators=1, functions=("sum",), domain="d"))
        limit = 2 if node == "n1" else 0
        cell.add(Node(node, cpu_millis=2000, memory_bytes=2000, domain="d", devices_max=limit))
        cell.add(Link(f"nic{node[1]}", a=f"{node}:0", b=f"{switch}:nic", lanes=2))
    watts = Watts(off=0, idle=10, busy=110)
    for node, name, switch in [("n1", "x", "s1"), ("n2", "y", "s2"), ("n2", "z", "s2")]:
        cell.add(Engine(node, name, kind="gpu", watts=watts))
        cell.add(Link(f"p{name}", a=f"{node}/{name}:0", b=f"{switch}:{name}"))
    cell.add(Engine("n1", "f", "fpga", shareable=True, loads_bitstreams=True, watts=watts))
    cell.add(Link("pf", a="n1/f:0", b="s1:f"))
    cell.add(Link("trunk", a="s1:t", b="s2:t", lanes=2))
    return cell


def whole(*engines: str) -> dict[str, Amounts]:
    return {f"engine/{engine}": () for engine in engines}


def decide(units: dict[str, Amounts], *engines: str, **more: Any) -> Decision:
    """A decision in which each engine is a role of its own."""
    roles = {engine.rpartition("/")[2]: (engine,) for engine in engines}
    return Decision(engines=roles, units=units, **more)


def across(source: str, *targets: str, lane: int = 0, number: int = 0, **more: Any) -> Circuit:
    """The tree from an engine of n1 over the trunk to engines of n2; one target is a path."""
    port, leaves = f"p{source[-1]}", [Arc(f"p{t[-1]}", "rev", (0,)) for t in targets]
    return Circuit(
        id=f"t/{number}",
        source=source,
        targets=targets,
        path=(source, "s1", "s2", *targets),
        arcs=(Arc(port, "fwd", (0,)), Arc("trunk", "fwd", (lane,)), *leaves),
        **more,
    )


def attached(*engines: str, room: int) -> Decision:
    """Engines of n2 attached to n1 over the trunk; it holds room for so many."""
    circuits = tuple(
        Circuit(
            id=f"t/{number}",
            source=engine,
            targets=("n1",),
            path=(engine, "s2", "s1", "n1"),
            arcs=(
                Arc(f"p{engine[-1]}", "fwd", (0,)),
                Arc("trunk", "rev", (number,)),
                Arc("nic1", "rev", (number,)),
            ),
        )
        for number, engine in enumerate(engines)
    )
    lanes = {f"lane/{link}/rev/{n}": () for link in ("trunk", "nic1") for n in range(len(engines))}
    units = {**whole(*engines), **lanes, "host/n1": (0, 0, room)}
    return decide(units, *engines, circuits=circuits, hosts={"driver": ("n1",)})


X = decide(whole("n1/x"), "n1/x")
Y = decide(whole("n2/y"), "n2/y")
Z = decide(whole("n2/z"), "n2/z")
PAIR = decide(
    {**whole("n1/x", "n2/y"), TRUNK: ()}, "n1/x", "n2/y", circuits=(across("n1/x", "n2/y"),)
)
TREE = decide(
    {**whole("n1/x", "n2/y", "n2/z"), TRUNK: (), "aggregator/s2/0": ()},
    "n1/x",
    "n2/y",
    "n2/z",
    circuits=(across("n1/x", "n2/y", "n2/z"),),
)
MERGED = Circuit(  # x and y, made one at s2, to z
    id="t/0",
    source="n1/x",
    targets=("n2/z",),
    path=("n2/z", "s2", "s1", "n1/x", "n2/y"),
    arcs=(
        Arc("px", "fwd", (0,)),
        Arc("trunk", "fwd", (0,)),
        Arc("py", "fwd", (0,)),
        Arc("pz", "rev", (0,)),
    ),
    aggregate="sum",
    sources=("n1/x", "n2/y"),
    aggregators=("aggregator/s2/0",),
)
SUMMED = decide(
    {**whole("n1/x", "n2/y", "n2/z"), TRUNK: (), "aggregator/s2/0": ()},
    "n1/x",
    "n2/y",
    "n2/z",
    circuits=(MERGED,),
)
HALF = decide({"share/n1/f": (500,), "host/n1": (1000, 1000)}, "n1/f", bitstreams={"n1/f": SUM})
HOST = decide({"host/n2": (1000, 500)}, hosts={"driver": ("n2",)})


class Scene:
    """A cell in a store: written raw, or by the real rules, with agents that do as they are told."""

    def __init__(self, store: KeptStore) -> None:
        self.store = store
        self.attempts = 0
        cell = little_cell()
        self.write(
            *(Put(f"{FAMILY_OF[type(t)]}/{name_of(t)}", encode(t)) for t in cell.things()),
            Put(SESSION, encode(Session("scheduler", "s", policy="batch"))),
            Put(keys.LEADER, b"c1"),
            Put("stats/scheduler/s", b"whatever it likes"),
            Put(keys.INFO, b"{}"),
        )
        self.do(
            raise_grant(self.view(), PURSE, "s", GRANT_WATTS, limit=LIMIT_WATTS, fence=self.fence())
        )

    # -- looking

    def view(self) -> CellView:
        view = CellView()
        reading = self.store.read([""])
        view.load(reading.records)
        view.progressed(reading.revision)
        return view

    def value(self, key: str) -> bytes:
        (record,) = (r for r in self.store.read([key]).records if r.key == key)
        return record.value

    def placement(self, name: str) -> Placement:
        return decode(Placement, self.value(f"placement/{name}"))

    def slice(self, name: str) -> Slice:
        return decode(Slice, self.value(f"slice/{name}"))

    def attempt(self, name: str) -> str:
        return self.placement(name).attempt

    def fence(self) -> Fence:
        (record,) = self.store.read([SESSION]).records
        return Fence(SESSION, record.modified)

    # -- writing

    def write(self, *operations: Operation) -> int:
        """Write without comparing anything, at one revision; return it."""
        (outcome,) = self.store.commit([Transaction((), operations)])
        assert isinstance(outcome, Committed)
        return outcome.revision

    def do(self, proposal: Proposal | None) -> int:
        """Commit a step of the rules, which must be allowed and not conflict."""
        assert proposal is not None, "the rules do not allow this now"
        (outcome,) = self.store.commit([proposal.transaction])
        assert isinstance(outcome, Committed), outcome
        return outcome.revision

    # -- living

    def submit(self, name: str, **more: Any) -> int:
        tenant, _, short = name.partition("/")
        spec = SliceSpec(name=short, tenant=tenant, run=Run(for_seconds=1.0))
        return self.write(Put(f"slice/{name}", encode(Slice(spec, **more))))

    def fresh(self) -> str:
        self.attempts += 1
        return f"a{self.attempts}"

    def commit(self, name: str, decision: Decision, *, preempt: bool = False, **more: Any) -> int:
        view = self.view()
        step = commit(
            view,
            name,
            decision,
            fence=self.fence(),
            attempt=self.fresh(),
            scheduler="s",
            victims=[other for other in view.placements if other[0] != "~"] if preempt else (),
            **more,
        )
        return self.do(step)

    def place(self, name: str, decision: Decision) -> int:
        self.submit(name)
        return self.commit(name, decision)

    def obey(self, *places: str) -> None:
        """Have the agents of these places, or of all, do what is ordered and say so."""
        view = self.view()
        for attempt, orders in view.orders.items():
            for place, order in orders.items():
                if places and place not in places:
                    continue
                known = view.reports.get(attempt, {}).get(place)
                if known is not None and known.value.applied >= order.modified:
                    continue
                operations: list[Operation] = [
                    Put(
                        keys.report(place, attempt),
                        encode(Report(applied=order.modified, building=order.modified)),
                    )
                ]
                operations += self._observations(view, attempt, order.value)
                self.write(*operations)

    def _observations(self, view: CellView, attempt: str, order: Order) -> Iterator[Operation]:
        for engine, seen in view.observed.items():
            if seen.task == attempt and engine not in order.tasks:
                yield Put(keys.observed(engine), encode(replace(seen, task="")))
        for engine in order.tasks:
            loaded = order.bitstreams.get(engine, "")
            yield Put(keys.observed(engine), encode(Observed(bitstream=loaded, task=attempt)))

    def build_begins(self, place: str, name: str) -> None:
        attempt = self.attempt(name)
        order = self.view().orders[attempt][place]
        self.write(Put(keys.report(place, attempt), encode(Report(building=order.modified))))

    def start(self, name: str) -> None:
        self.do(mark_started(self.view(), name, 1.0, fence=self.fence()))

    def run(self, name: str, decision: Decision) -> None:
        """Submit, place, build and start."""
        self.place(name, decision)
        self.obey()
        self.start(name)

    def arm(self, name: str) -> None:
        self.do(arm(self.view(), name, fence=self.fence()))

    def release(self, name: str, phase: Phase = Phase.DONE) -> None:
        self.do(release(self.view(), name, Ending(phase), fence=self.fence()))

    def free(self, name: str) -> None:
        self.do(free(self.view(), name, fence=self.fence(), now=2.0))

    def end(self, name: str, phase: Phase = Phase.DONE) -> None:
        """Release, tear down and free."""
        self.release(name, phase)
        self.obey()
        self.free(name)

    # -- planting

    def rewritten(self, name: str, **fields: Any) -> Put:
        """A placement as it is, but for these fields."""
        return Put(f"placement/{name}", encode(replace(self.placement(name), **fields)))

    def gone(self, key: str) -> Delete:
        assert self.value(key)
        return Delete(key)


def claim(unit: str, owner: str, attempt: str, *amounts: int) -> Put:
    return Put(f"claim/{unit}", encode((owner, attempt, amounts)))


class Followed:
    """What `follow` delivers, in a thread of its own."""

    def __init__(self) -> None:
        self.news: list[News] = []
        self.verdict: Verdict | None = None
        self._arrived = threading.Condition()

    def deliver(self, news: News) -> None:
        with self._arrived:
            self.news.append(news)
            self._arrived.notify_all()

    def wait_for(self, wanted: Callable[[News], bool]) -> News:
        with self._arrived:
            there = self._arrived.wait_for(
                lambda: any(map(wanted, self.news)), timeout=PATIENCE_SECONDS
            )
            assert there, f"only these came: {self.news}"
            return next(filter(wanted, self.news))


@contextmanager
def followed(store: KeptStore) -> Iterator[Followed]:
    """Follow a store for the length of a block; `verdict` is there after it."""
    seen, stop = Followed(), threading.Event()

    def run() -> None:
        seen.verdict = follow(store, seen.deliver, stop)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join(timeout=PATIENCE_SECONDS)
    assert not thread.is_alive()
