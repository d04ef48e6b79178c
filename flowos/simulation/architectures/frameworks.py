"""What does a framework do with an offer: what of it does it accept, keep, or refuse?

It goes through what waits, oldest first, and accepts what it finds a place for in the offer: each
takes its decision time, and all is answered together when the last is decided, as published. To
find no place takes no time; an offer with nothing in it for anybody is refused at once. It looks at
one offer at a time.

What does not fit waits in one of two ways. Refuse and wait: it keeps nothing. Hold and wait, as
frameworks with gangs do on Mesos: the oldest that does not fit accepts the largest part of itself
that does, keeps it, adds to it offer by offer, and gives all back if the rest has not come within
`hold_s`; it tries that again after 0.5 to 1.5 times as long, by chance, so that two that stand in
each other's way do not go on doing so. One slice of a framework gathers at a time.
"""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from flowos.model.placement import Decision, Placement
from flowos.model.slice import SliceSpec
from flowos.planning.chance import scramble
from flowos.simulation.architectures.ground import (
    Ground,
    kept_name,
    minus,
    offerable,
    plus,
    without_lanes,
)
from flowos.simulation.architectures.measured import Request
from flowos.simulation.architectures.offers import Allocator, Offer
from flowos.simulation.architectures.parts import (
    covers,
    engines_of,
    kinds_of,
    members,
    merged,
    smaller,
)
from flowos.simulation.architectures.setup import OfferRules
from flowos.simulation.light.schedulers import Pace

_DRAFT = "~draft"


Shape: TypeAlias = tuple[object, ...]  # what is the same of slices that ask for the same


class Pick(NamedTuple):
    """What a framework accepts for a slice: all of it, or a part that it keeps."""

    request: Request
    spec: SliceSpec
    decision: Decision
    is_whole: bool


class Framework:
    """One class of slices, and who places it on offers."""

    def __init__(
        self,
        ground: Ground,
        name: str,
        pace: Pace,
        allocator: Allocator,
        rules: OfferRules,
        seed: int,
    ) -> None:
        """Begin with nothing to do."""
        self.ground = ground
        self.name = name
        self.pace = pace
        self.allocator = allocator
        self.rules = rules
        self.seed = seed
        self.queue: list[Request] = []
        self.is_deciding = False
        self.thought_s = 0.0
        self.decisions = 0
        self.failed = 0
        self.gave_up = 0
        self._saw_all_at = -1  # when it found nothing in all that was free, by `Ground.freed`
        self._known_at = -1
        self._best: dict[object, Decision | None] = {}  # by shape: in all that is free
        self._misfits: set[tuple[object, object]] = set()  # shape, and what an offer had

    def add(self, request: Request) -> None:
        """Take a slice in."""
        self.queue.append(request)
        self._wake()

    def _wake(self) -> None:
        self._saw_all_at = -1
        self.allocator.ask(self)

    def wants(self) -> bool:
        """Whether it would look at an offer: not if it has seen all that is free, and refused it."""
        now = self.ground.line.now
        return (
            not self.is_deciding
            and self._saw_all_at != self.ground.freed
            and any(request.due_at <= now for request in self.queue)
        )

    # -- an offer

    def offered(self, offer: Offer) -> None:
        """Look at an offer, and answer it once all that is accepted is decided."""
        self.is_deciding = True
        now = self.ground.line.now
        picks: list[Pick] = []
        taken: set[str] = set()  # devices and lanes that are locked for nobody
        for request in [r for r in self.queue if r.due_at <= now]:
            decision = self._whole(request, offer, taken)
            if decision is None:
                continue
            picks.append(Pick(request, request.spec, decision, is_whole=True))
            self._accept(request, decision, offer, taken)
        if self.rules.hold_s:
            part = self._gather({pick.request.number for pick in picks}, offer, taken)
            if part is not None:
                picks.append(part)
                self._accept(part.request, part.decision, offer, taken)
        if not picks:
            if offer.is_all:
                self._saw_all_at = self.ground.freed
                if self.rules.devices == "pessimistic":  # it may be dealt otherwise next time
                    self.ground.line.after(self.rules.refuse_s, self._wake)
            self._answer(offer, picks)
            return
        self.decisions += len(picks)
        thinking = sum(self.pace.seconds(len(engines_of(pick.decision))) for pick in picks)
        self.thought_s += thinking
        self.ground.line.after(thinking, lambda: self._answer(offer, picks))

    def _whole(self, request: Request, offer: Offer, taken: set[str]) -> Decision | None:
        """Return where all of a slice goes in an offer, and note what it was not shown.

        What others of the same shape found is remembered until anything changes.
        """
        ground = self.ground
        if self._known_at != ground.changed:
            self._known_at = ground.changed
            self._best.clear()
            self._misfits.clear()
        kept = [kept_name(request)] if request.number in ground.kept else []
        key: object = shape(request.spec)
        if kept or taken:
            key = request.number  # it has, or leaves alone, what others of its shape do not
        best: Decision | None = None
        if not (offer.is_all and self.rules.devices != "pessimistic"):
            if key not in self._best:
                lifted = [*self.allocator.everything(), *kept]
                self._best[key] = ground.plan(
                    request.spec, name=request.name, lifted=lifted, avoid=taken
                )
            best = self._best[key]
            if best is None:
                return None  # not even all that is free has room
        misfit = key, offer.content()
        decision = None
        if misfit not in self._misfits:
            decision = self._find(request, request.spec, offer, taken)
        if decision is None:
            self._misfits.add(misfit)
            request.only_outside |= best is not None
        elif best is not None and self._cost(best) < self._cost(decision):
            request.better_outside = True
        return decision

    def _find(
        self, request: Request, spec: SliceSpec, offer: Offer, taken: set[str]
    ) -> Decision | None:
        """Return where a slice, or a part of it, goes in an offer and on what it keeps."""
        kept = self.ground.kept.get(request.number)
        had = frozenset(engines_of(kept)) if kept else frozenset()
        if not _enough(self.ground, spec, offer.shown | had):
            return None
        if self.rules.devices == "pessimistic" and not self._has_hosts(spec, offer, had):
            return None
        lifted = [offer.name, *([kept_name(request)] if kept else [])]
        avoid = taken
        if self.rules.devices == "optimistic":
            # Nobody has locked them: those that the offer does not name are free, or no more so.
            avoid = taken | self._unnamed(offer)
        found = self.ground.plan(spec, name=request.name, lifted=lifted, avoid=avoid)
        if found is None or self.rules.devices != "pessimistic" or _as_dealt(found, offer):
            return found
        return self._find_by_host(request, spec, offer, lifted)

    def _has_hosts(self, spec: SliceSpec, offer: Offer, had: frozenset[str]) -> bool:
        """Whether each member finds a host whose offer names enough devices: quick to say."""
        return all(
            _bare_host(member) is None
            or any(_enough(self.ground, member, dealt | had) for dealt in offer.devices.values())
            for member in members(spec)
        )

    def _unnamed(self, offer: Offer) -> set[str]:
        cell = self.ground.view.cell
        return {f"engine/{engine}" for engine in cell.engines if engine not in offer.shown}

    def _find_by_host(
        self, request: Request, spec: SliceSpec, offer: Offer, lifted: list[str]
    ) -> Decision | None:
        """Plan member by member, each on one host with just the devices that its offer names."""
        found: list[Decision] = []
        view = self.ground.view
        kept = self.ground.kept.get(request.number)
        had = frozenset(engines_of(kept)) if kept else frozenset()
        hosts = sorted(node for node in offer.devices if f"host/{node}" in offer.units)
        try:
            for member in members(spec):
                one = _bare_host(member) is not None
                decision = None
                for node in hosts if one else [""]:
                    avoid = set()
                    if one:
                        if not _enough(self.ground, member, offer.devices[node] | had):
                            continue
                        avoid = {f"engine/{e}" for e in offer.shown - offer.devices[node]}
                        avoid |= {f"host/{other}" for other in hosts if other != node}
                    decision = self.ground.plan(
                        member, name=request.name, lifted=lifted, avoid=avoid
                    )
                    if decision is not None:
                        break
                if decision is None:
                    return None
                found.append(decision)
                view.assume(_DRAFT, Placement(0, _DRAFT, held=merged(found).units))
        finally:
            view.retract(_DRAFT)
        return merged(found)

    def _gather(self, picked: set[int], offer: Offer, taken: set[str]) -> Pick | None:
        """Return the part that the slice which gathers keeps from now on, if it is a larger one."""
        now = self.ground.line.now
        waiting = [r for r in self.queue if r.number not in picked and r.due_at <= now]
        going_on = [r for r in waiting if r.gathering_since is not None]
        fresh = [r for r in waiting if r.not_gathering_until <= now]
        request = next(iter(going_on or fresh), None)
        if request is None:
            return None
        kept = self.ground.kept.get(request.number)
        had = len(engines_of(kept)) if kept else 0
        options = [part for part in smaller(request.spec) if _engines_asked(part) > had]
        best: Pick | None = None
        low, high = 0, len(options) - 1
        while low <= high:  # if a part fits, so do smaller ones
            middle = (low + high) // 2
            decision = self._find(request, options[middle], offer, taken)
            if decision is None:
                high = middle - 1
            else:
                best = Pick(request, options[middle], decision, is_whole=False)
                low = middle + 1
        return best

    def _accept(self, request: Request, decision: Decision, offer: Offer, taken: set[str]) -> None:
        """Set what is accepted apart, until the answer."""
        self.ground.changed += 1
        kept = self.ground.kept.get(request.number)
        units = minus(without_lanes(decision.units), without_lanes(kept.units) if kept else {})
        lanes = {u: a for u, a in decision.units.items() if not u.startswith(("engine/", "host/"))}
        if self.rules.devices == "optimistic":
            taken |= {u for u in units if u.startswith("engine/")} | set(lanes)
            units = {u: a for u, a in units.items() if u.startswith("host/")}
            lanes = {}
        self.allocator.hold(offer, minus(offer.units, units))
        name = _accepting(request)
        self.ground.view.assume(name, Placement(0, name, held={**units, **lanes}))

    # -- the answer

    def _answer(self, offer: Offer, picks: list[Pick]) -> None:
        for pick in picks:
            self._carry_out(pick, offer)
        self.is_deciding = False
        self.allocator.answered(offer)
        if not self.queue:
            self.allocator.enough(self)

    def _carry_out(self, pick: Pick, offer: Offer) -> None:
        """Have the proxy agent bind what was accepted: what others took of it, it tries to replace."""
        ground, request = self.ground, pick.request
        name = _accepting(request)
        locked = ground.view.now(name)
        assert locked is not None, "it was set apart"
        accepted = offerable(locked.held)
        ground.view.retract(name)
        kept = ground.kept.get(request.number)
        own = [kept_name(request)] if kept else []
        decision: Decision | None = pick.decision
        if not ground.takeable(
            pick.decision.units if pick.is_whole else without_lanes(pick.decision.units), own
        ):
            decision = ground.plan(pick.spec, name=request.name, lifted=own)
        if decision is None:
            self.failed += 1
            ground.changed += 1
            request.due_at = ground.line.now + self.rules.retry_s
            ground.line.at(request.due_at, self._wake)
            offer.units = plus(offer.units, accepted)
            return
        more = minus(offerable(decision.units), offerable(kept.units) if kept else {})
        offer.units = plus(offer.units, minus(accepted, more))
        if pick.is_whole:
            self.queue.remove(request)
            ground.start(request, decision)
            return
        if request.gathering_since is None:
            self._gathers(request)
        ground.keep(request, decision)

    def _gathers(self, request: Request) -> None:
        since = request.gathering_since = self.ground.line.now

        def over() -> None:
            if request.gathering_since != since or request.placed_at is not None:
                return
            if self.is_deciding:  # perhaps on its last part
                self.ground.line.after(self.rules.batch_s, over)
                return
            self.gave_up += 1
            request.gathering_since = None
            part = 0.5 + scramble(self.seed + request.number, self.gave_up) / 2**64
            request.not_gathering_until = self.ground.line.now + self.rules.hold_s * part
            self.ground.line.at(request.not_gathering_until, self._wake)
            self.ground.let_go(request)

        self.ground.line.after(self.rules.hold_s, over)

    def _cost(self, decision: Decision) -> tuple[int, int, int]:
        """Return links crossed, nodes reached, and engines to be woken."""
        engines = engines_of(decision)
        nodes = {engine.partition("/")[0] for engine in engines}
        return (
            sum(len(circuit.arcs) for circuit in decision.circuits),
            len(nodes),
            sum(self.ground.is_off(engine) for engine in engines),
        )


def shape(spec: SliceSpec) -> Shape:
    """Return what is the same of slices that ask for the same."""
    return (
        repr(spec.engines),
        repr(spec.hosts),
        spec.circuits,
        repr(spec.together),
    )


def _bare_host(member: SliceSpec) -> str | None:
    """Return the role of the one host that a member's devices are attached to, if it has one."""
    bare = [role for role in member.hosts if role not in member.engines]
    return bare[0] if len(bare) == 1 and member.hosts[bare[0]].count == 1 else None


def _accepting(request: Request) -> str:
    return f"~accepted/{request.number}"


def _engines_asked(spec: SliceSpec) -> int:
    return sum(wish.choices[0].count for wish in spec.engines.values())


def _enough(ground: Ground, spec: SliceSpec, among: frozenset[str]) -> bool:
    """Whether there are as many engines as asked for, wherever they are: quick to say."""
    engines = ground.view.cell.engines
    return covers(Counter(engines[engine].kind for engine in among), kinds_of(spec))


def _as_dealt(decision: Decision, offer: Offer) -> bool:
    """Whether each device is attached to a host whose offer names it, or to none."""
    dealt: Mapping[str, frozenset[str]] = offer.devices
    for circuit in decision.circuits:
        ends = {circuit.source, *circuit.sources, *circuit.targets}
        for node in ends & dealt.keys():
            if not (ends - dealt.keys()) & offer.shown <= dealt[node]:
                return False
    return True
