"""How fast a long history of a large cell is verified: 8-engine rings come and go on 6,212 engines.

Baseline of the same run: checking the whole state anew at each revision.
"""

import statistics
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from harness import Report as Figures
from harness import options, seconds

from flowos.model import keys
from flowos.model.cell import FAMILY_OF, Cell, Engine, Link, Node, Switch, name_of
from flowos.model.codec import encode
from flowos.model.placement import Arc, Circuit, Decision, Ending, Observed, Report, Session
from flowos.model.slice import Phase, Run, Slice, SliceSpec
from flowos.model.transaction import Changes, Committed, Operation, Put, Transaction
from flowos.model.view import CellView
from flowos.protocol.commit import commit
from flowos.protocol.proposal import Fence, Proposal
from flowos.protocol.release import free, mark_started, release
from flowos.simulation.stage import VirtualClock
from flowos.verify.history import verify_history, verify_now
from flowos_store.memory import MemoryStore

ENGINES, PER_NODE, PER_SWITCH = 6212, 4, 80
GANG = 8  # engines a slice, in a ring of circuits
REVISIONS = 20_000
SESSION = keys.session("scheduler", "s")


def large_cell() -> Cell:
    """Return 6,212 engines behind leaf switches."""
    cell = Cell()
    for number in range(ENGINES):
        node, switch = f"n{number // PER_NODE}", f"s{number // PER_SWITCH}"
        if node not in cell.nodes:
            cell.add(Node(node, cpu_millis=64_000, memory_bytes=1 << 38))
        if switch not in cell.switches:
            cell.add(Switch(switch))
        engine = Engine(node, f"gpu{number % PER_NODE}", "gpu")
        cell.add(engine)
        cell.add(Link(f"p{number}", a=f"{engine.id}:0", b=f"{switch}:{number}"))
    return cell


class Crowd:
    """Slices that are placed, built, run and given back, one after the other."""

    def __init__(self) -> None:
        self.store = MemoryStore(VirtualClock())
        self.view = CellView()
        self.store.watch([""], after=0, deliver=self._apply)
        records = [(f"{FAMILY_OF[type(t)]}/{name_of(t)}", t) for t in large_cell().things()]
        for start in range(0, len(records), 100):
            self.write(*(Put(key, encode(t)) for key, t in records[start : start + 100]))
        self.fence = Fence(SESSION, self.write(Put(SESSION, encode(Session("scheduler", "s")))))
        self.rings = self._rings()

    def _apply(self, message: object) -> None:
        assert isinstance(message, Changes)
        for change in message.changes:
            self.view.apply(change)
        self.view.progressed(message.changes[-1].modified)

    def write(self, *operations: Operation) -> int:
        """Write without a compare; return the revision."""
        (outcome,) = self.store.commit([Transaction((), operations)])
        assert isinstance(outcome, Committed)
        return outcome.revision

    def do(self, proposal: Proposal | None) -> None:
        """Commit a step of the rules."""
        assert proposal is not None
        (outcome,) = self.store.commit([proposal.transaction])
        assert isinstance(outcome, Committed), outcome

    def _rings(self) -> Iterator[Decision]:
        cell = self.view.cell
        port = {link.a_thing: link.name for link in cell.links.values()}
        leaf = {link.a_thing: link.b_thing for link in cell.links.values()}
        engines = list(cell.engines)
        while True:
            for start in range(0, len(engines) - GANG, GANG):
                gang = engines[start : start + GANG]
                if len({leaf[engine] for engine in gang}) > 1:
                    continue
                circuits = tuple(
                    Circuit(
                        id=f"t/{number}",
                        source=source,
                        targets=(target,),
                        path=(source, leaf[source], target),
                        arcs=(Arc(port[source], "fwd", (0,)), Arc(port[target], "rev", (0,))),
                    )
                    for number, (source, target) in enumerate(pairwise([*gang, gang[0]]))
                )
                units: dict[str, tuple[int, ...]] = {f"engine/{e}": () for e in gang}
                units |= {
                    f"host/{node}": (4000, 1 << 30) for node in {e[: e.index("/")] for e in gang}
                }
                yield Decision({"workers": tuple(gang)}, units, circuits=circuits)

    def live(self, number: int) -> None:
        """One slice from its request to its end, in 16 revisions or so."""
        name, attempt = f"default/t{number}", f"a{number}"
        wish = Slice(SliceSpec(name=f"t{number}", run=Run(for_seconds=10.0)))
        self.write(Put(keys.slice_(name), encode(wish)))
        decision = next(self.rings)
        step = commit(self.view, name, decision, fence=self.fence, attempt=attempt, scheduler="s")
        self.do(step)
        self.report(attempt, building=True)
        self.report(attempt)
        self.do(mark_started(self.view, name, 1.0, fence=self.fence))
        self.do(release(self.view, name, Ending(Phase.DONE, exit_code=0), fence=self.fence))
        self.report(attempt)
        self.do(free(self.view, name, fence=self.fence, now=2.0))

    def report(self, attempt: str, *, building: bool = False) -> None:
        """Say what the agents of all places of an attempt would say."""
        for place, order in list(self.view.orders[attempt].items()):
            done = 0 if building else order.modified
            operations = [
                Put(
                    keys.report(place, attempt),
                    encode(Report(applied=done, building=order.modified)),
                )
            ]
            if not building:
                task = attempt if order.value.tasks else ""
                engines = self.view.cell.engines_of.get(place, ())
                operations += [
                    Put(keys.observed(engine), encode(Observed(task=task))) for engine in engines
                ]
            self.write(*operations)


def main() -> None:
    """Measure and print."""
    chosen = options(__doc__ or "")
    revisions = REVISIONS if chosen.quick else 5 * REVISIONS
    crowd = Crowd()
    number = 0
    while crowd.store.revision < revisions:
        crowd.live(number)
        number += 1
    rates = []
    for _ in range(3):
        before = time.perf_counter()
        verdict = verify_history(crowd.store)
        rates.append((verdict.last - verdict.first) / (time.perf_counter() - before))
        assert not verdict.violations, verdict.violations[:3]
    full = seconds(lambda: verify_now(crowd.store))
    figures = Figures("The verifier on 6,212 engines")
    figures.add("history", statistics.median(rates), "rev/s", baseline=1 / full, at_least=5000)
    figures.print(as_json=chosen.json)
    if not chosen.json:
        shown = {"revision by revision": statistics.median(rates), "all anew each time": 1 / full}
        figures.plot("verify", lambda axes: bars(axes, shown))


def bars(axes: Any, shown: dict[str, float]) -> None:  # matplotlib has no types
    """Draw revisions a second."""
    axes.barh(list(shown), list(shown.values()))
    axes.set_xscale("log")
    axes.set_xlabel("revisions a second")


if __name__ == "__main__":
    main()
