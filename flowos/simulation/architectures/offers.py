"""What is offered to whom? Mesos' allocator, with a proxy agent that adds pooled devices to offers.

The allocator gathers what is free for a second (`batch_s`), sorts those who want anything by their
dominant share (DRF), and offers: node by node, or all to one. What lies in an offer is nobody else's
until the framework answers.

Devices come in one of three ways. "own": with the node they sit on. "optimistic": each node's offer
names every free device that circuits could join to the node; they are locked for nobody, and an
acceptance that finds too few left fails. "pessimistic": each free device is dealt to one of the nodes
that could attach it, in turn. Engines that are off are in the offers like others.

Sources: Hindman et al., "Mesos", NSDI 2011, section 3; Ghodsi et al., "Dominant Resource Fairness",
NSDI 2011; Takano et al., "Flow OS", 2017, section 3.2.1 (the proxy agent).
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flowos.model.cell import Cell
from flowos.model.placement import Placement
from flowos.model.units import Amounts, Holding, engine_unit, host_unit, subject_of
from flowos.planning.chance import shuffled
from flowos.simulation.architectures.ground import Ground, all_of, minus, plus
from flowos.simulation.architectures.measured import Area
from flowos.simulation.architectures.setup import OfferRules

if TYPE_CHECKING:
    from flowos.simulation.architectures.frameworks import Framework

UNOFFERED = "~unoffered"


@dataclass(slots=True)
class Offer:
    """What one framework is shown, and nobody else until it answers.

    Attributes:
        name: Of the placement that holds it.
        units: Engines and hosts that are locked in it; what was accepted of it is not, any more.
        devices: Node -> the devices that its offer names, where a proxy agent adds them.
        shown: All engines that it names.
        engines: How many were locked in it when it was made.
        is_all: Whether it shows everything that is free.
    """

    name: str
    units: dict[str, Amounts]
    devices: Mapping[str, frozenset[str]] = field(default_factory=dict)
    shown: frozenset[str] = frozenset()
    engines: int = 0
    is_all: bool = False

    def content(self) -> object:
        """Return what two offers have in common that are alike for whoever looks at them."""
        return frozenset(self.units.items()), frozenset(self.devices.items())


class Allocator:
    """Makes the offers, and keeps what is in none."""

    def __init__(self, ground: Ground, rules: OfferRules, seed: int) -> None:
        """Nobody has asked for anything, and everything is free."""
        self.ground = ground
        self.rules = rules
        self.seed = seed
        self.locked = Area()
        self.offers = 0
        self.outstanding: dict[str, Offer] = {}
        self._asking: list[Framework] = []
        self._is_gathering = False
        cell = ground.view.cell
        self._reach = reachable(cell)
        self._total = Counter(engine.kind for engine in cell.engines.values())
        self._total["cpu"] = sum(node.cpu_millis for node in cell.nodes.values())
        self.unoffered: dict[str, Amounts] = {}
        self.take_back(all_of(ground.view))
        ground.given_back = self.take_back

    # -- what is in no offer

    def take_back(self, units: Holding) -> None:
        """Take in what slices, or answers, give back."""
        if self.rules.devices == "optimistic":
            units = {u: a for u, a in units.items() if not u.startswith("engine/")}
        self._unoffered_is(plus(self.unoffered, units))
        self.gather()

    def _unoffered_is(self, units: dict[str, Amounts]) -> None:
        self.unoffered = units
        self.ground.view.assume(UNOFFERED, Placement(0, UNOFFERED, held=units))

    def everything(self) -> list[str]:
        """Return the placements that would have to be lifted to see all that is free."""
        return [UNOFFERED, *self.outstanding]

    # -- who wants offers

    def ask(self, framework: "Framework") -> None:
        """Note that a framework wants offers."""
        if framework not in self._asking:
            self._asking.append(framework)
        self.gather()

    def enough(self, framework: "Framework") -> None:
        """Note that it does not want any more."""
        if framework in self._asking:
            self._asking.remove(framework)

    def gather(self) -> None:
        """Make offers a little later, unless that is coming."""
        if not self._is_gathering and any(f.wants() for f in self._asking):
            self._is_gathering = True
            self.ground.line.after(self.rules.batch_s, self._deal)

    # -- offers

    def _deal(self) -> None:
        self._is_gathering = False
        asking = [framework for framework in self._asking if framework.wants()]
        if not asking:
            return
        named = self._named()
        dealt: dict[Framework, set[str]] = {framework: set() for framework in asking}
        counted = {f: Counter(self.ground.held_by_class.get(f.name, {})) for f in asking}
        nodes = shuffled(sorted(self._offerable(named)), self.seed + self.offers + 1)
        first = min(asking, key=lambda f: self._share(counted[f]))
        for node in nodes:
            to = first
            if self.rules.dealing == "nodes":
                to = min(asking, key=lambda f: self._share(counted[f]))
            dealt[to].add(node)
            for engine in named.get(node, ()):
                counted[to][self.ground.view.cell.engines[engine].kind] += 1
            counted[to]["cpu"] += self.unoffered.get(host_unit(node), (0,))[0]
        for framework, mine in dealt.items():
            if mine:
                self._offer(framework, mine, named, is_all=len(mine) == len(nodes))

    def _named(self) -> dict[str, frozenset[str]]:
        """Return node -> the devices that an offer of it names now."""
        cell = self.ground.view.cell
        hosts = [n for n in cell.nodes if f"host/{n}" in self.unoffered]
        if self.rules.devices == "optimistic":
            free = frozenset(e for e in cell.engines if e not in self.ground.holding)
            return {node: free & self._reach[node] for node in hosts}
        free = frozenset(subject_of(u) for u in self.unoffered if u.startswith("engine/"))
        if self.rules.devices == "own":
            found: dict[str, set[str]] = {}
            for engine in free:
                found.setdefault(engine.partition("/")[0], set()).add(engine)
            return {node: frozenset(engines) for node, engines in found.items()}
        hands: dict[str, set[str]] = {node: set() for node in hosts}
        turn = shuffled(hosts, self.seed + self.offers)
        for engine in sorted(free, key=lambda e: (cell.engines[e].kind, e)):
            # In turn by kind, so that each node's offer has some of each.
            kind = cell.engines[engine].kind
            could = [node for node in turn if engine in self._reach[node]]
            if could:
                to = min(could, key=lambda n: sum(cell.engines[e].kind == kind for e in hands[n]))
                hands[to].add(engine)
        return {node: frozenset(engines) for node, engines in hands.items()}

    def _offerable(self, named: Mapping[str, frozenset[str]]) -> set[str]:
        nodes = {subject_of(unit) for unit in self.unoffered if unit.startswith("host/")}
        if self.rules.devices == "own":
            nodes |= set(named)
        return nodes

    def _offer(
        self,
        framework: "Framework",
        nodes: set[str],
        named: Mapping[str, frozenset[str]],
        *,
        is_all: bool,
    ) -> None:
        self.offers += 1
        units: dict[str, Amounts] = {}
        shown: set[str] = set()
        for node in nodes:
            if amounts := self.unoffered.get(host_unit(node)):
                units[host_unit(node)] = amounts
            shown |= named.get(node, frozenset())
        if self.rules.devices != "optimistic":
            units.update({engine_unit(engine): () for engine in shown})
        offer = Offer(
            f"~offer/{self.offers}",
            units,
            {node: named.get(node, frozenset()) for node in nodes},
            frozenset(shown),
            _engines(units),
            is_all and not self.outstanding,
        )
        self._unoffered_is(minus(self.unoffered, units))
        self.outstanding[offer.name] = offer
        self.hold(offer, units)
        self.locked.add(offer.engines, self.ground.line.now)
        self.ground.line.after(self.rules.allocator_s, lambda: framework.offered(offer))

    def hold(self, offer: Offer, units: dict[str, Amounts]) -> None:
        """Make this what is locked in an offer."""
        offer.units = units
        self.ground.view.assume(offer.name, Placement(0, offer.name, held=units))

    def answered(self, offer: Offer) -> None:
        """Take back what was not accepted of an offer."""
        self.locked.add(-offer.engines, self.ground.line.now)
        del self.outstanding[offer.name]
        self.ground.view.retract(offer.name)
        self.take_back(offer.units)

    def _share(self, held: Mapping[str, int]) -> float:
        """Return the dominant share: of all of the cell, of what it holds the largest part of."""
        return max((held[kind] / all_ for kind, all_ in self._total.items() if all_), default=0.0)


def _engines(units: Holding) -> int:
    return sum(unit.startswith("engine/") for unit in units)


def reachable(cell: Cell) -> dict[str, frozenset[str]]:
    """Return node -> the engines that circuits could join to its attachment port."""
    part: dict[str, str] = {}

    def root(thing: str) -> str:
        while part.setdefault(thing, thing) != thing:
            part[thing] = part[part[thing]]
            thing = part[thing]
        return thing

    for link in cell.links.values():
        part[root(link.a_thing)] = root(link.b_thing)
    engines: dict[str, set[str]] = {}
    for engine in cell.engines:
        engines.setdefault(root(engine), set()).add(engine)
    return {node: frozenset(engines.get(root(node), ())) for node in cell.nodes}
