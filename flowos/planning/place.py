"""Where does a slice go: which engines, hosts, lanes and bitstreams, or why nowhere?"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice, product
from types import MappingProxyType
from typing import Final, NamedTuple

from flowos.model.errors import SpecError
from flowos.model.placement import Decision, Unplaceable, attached_to
from flowos.model.slice import CircuitWish, Reason, SliceSpec
from flowos.model.units import Amounts, engine_unit, host_unit, share_unit
from flowos.planning.affinity.weighed import paces, weighed
from flowos.planning.circuits.negotiate import Effort
from flowos.planning.circuits.route import Blocked, Routed, Wish, again, claimed, route, wishes_of
from flowos.planning.demand import Demand, Want, demand_of
from flowos.planning.engines.choose import Chosen, Draft, Missing, Selection, choose, choose_hosts
from flowos.planning.engines.draft import NO_SPEEDS, Speeds
from flowos.planning.engines.pool import NOWHERE, Mask, Pool, Site
from flowos.planning.engines.weights import Weights, weights_of
from flowos.planning.reasons.last_word import last_word
from flowos.planning.reasons.refuse import (
    never_engines,
    refuse_circuits,
    refuse_engines,
    refuse_hosts,
)
from flowos.planning.search.exact import Verdict, assign
from flowos.planning.search.exhaustive import Found
from flowos.planning.search.reseat import reseat
from flowos.planning.tasks.ranks import ranked

_SETS_MAX: Final = 4  # engine sets tried for the sake of circuits
_CHOICES_MAX: Final = 16  # combinations of roles' choices tried exactly

NO_UNITS: Final[frozenset[str]] = frozenset()


class _Ends(NamedTuple):
    """A selection as a decision names it: ranks in the order of leaves and nodes."""

    engines: dict[str, tuple[str, ...]]
    circuits: dict[str, tuple[str, ...]]  # role -> engines, or nodes for a role without engines
    units: Mapping[str, tuple[str, ...]] = MappingProxyType({})  # role -> its engines', if at hand


def plan(
    pool: Pool,
    spec: SliceSpec,
    *,
    slice_name: str = "",
    seed: int = 0,
    avoid: Collection[str] = NO_UNITS,
    sizes: Mapping[str, int] | None = None,
    weights: Weights | None = None,
) -> Decision | Unplaceable:
    """Find engines, hosts and lanes for a slice on what is free now; claim nothing.

    The same pool, spec and arguments give the same answer.

    Args:
        pool: Kept in step with the view; what the view assumes counts as held.
        spec: The request.
        slice_name: Circuits are called "<slice name>/<n>"; "" = the spec's name.
        seed: 0 takes the best; any other number one of the best few, so that schedulers with
            different seeds seldom want the same.
        avoid: Units to leave alone, such as those just lost to a rival; also nodes, switches
            and links, by their out-of-service units.
        sizes: Role -> how many engines, for elastic roles.
        weights: How much each feature of a place counts; None = what the operator said.

    Returns:
        Engines that are off are in `units` like others: whoever commits takes over their
        "~off/..." placements.
    """
    pool.fold()
    if spec.data or (spec.work and any(work.amount for work in spec.work.values())):
        return weighed(
            pool,
            spec,
            lambda narrowed: plan(
                pool, narrowed, slice_name=slice_name, seed=seed, avoid=avoid, sizes=sizes,
                weights=weights,
            ),
            sizes,
        )  # fmt: skip
    try:
        demand = demand_of(pool, spec, sizes)
    except SpecError as error:
        return Unplaceable(Reason.INFEASIBLE, str(error))
    name = slice_name or spec.name
    joined = demand.joined
    weights = weights or weights_of(pool.view.planner)
    speeds = paces(pool, spec) if spec.work else NO_SPEEDS
    answer: Unplaceable | None = None
    first: tuple[Selection, _Ends, Blocked] | None = None
    closed: set[int] = set()
    effort = Effort()
    bounds = spec.constraints
    quick = bool(demand.seatings) and not (avoid or bounds.max_hops or bounds.max_latency_ns)
    for _ in range(_SETS_MAX if joined else 1):
        selection = _select(
            pool, demand, spec.constraints.spread, joined, seed, avoid, closed, weights, speeds
        )
        if isinstance(selection, Unplaceable):
            answer = answer or selection
            break
        ends = _ends(pool, demand, selection, spec.circuits)
        swift = _again(pool, spec, demand, selection, ends, name, seed) if quick else None
        if swift is not None:
            return _decision(pool, demand, selection, ends, swift)
        wishes = wishes_of(spec.circuits, ends.circuits) if joined else []
        routed = _route(
            pool, spec, selection, ends, wishes, name=name, seed=seed, avoid=avoid, effort=effort
        )
        if isinstance(routed, Routed):
            return _decision(pool, demand, selection, ends, routed)
        if answer is None:
            answer = refuse_circuits(routed, _funnel(demand, routed, len(wishes)))
            first = selection, ends, routed
        closed |= _used(pool, selection, routed.wish, ends)
    assert answer is not None, "at least one set was tried"
    if first is not None:
        reseated = _reseat(
            pool, demand, spec, *first, name=name, seed=seed, avoid=avoid, effort=effort
        )
        if reseated is not None:
            return reseated

    def fits(bare: Demand) -> bool:
        found = _select(pool, bare, spec.constraints.spread, (), 0, avoid, (), weights)
        return isinstance(found, Selection)

    last = last_word(pool, spec, demand, answer, fits=fits, name=name, avoid=avoid, sizes=sizes)
    return _found(pool, demand, last) if isinstance(last, Found) else last


# -- engines and hosts


def _select(
    pool: Pool,
    demand: Demand,
    spread: str,
    joined: Collection[str],
    seed: int,
    avoid: Collection[str],
    closed: Iterable[int],
    weights: Weights,
    speeds: Speeds = NO_SPEEDS,
) -> Selection | Unplaceable:
    found = choose(
        pool, demand, joined=joined, spread=spread, seed=seed, avoid=avoid, closed=closed,
        weights=weights, speeds=speeds,
    )  # fmt: skip
    if isinstance(found, Selection):
        return found
    missing, draft = found
    rivals = missing.host is None and _overlap(demand)
    if rivals:
        exact = _select_exactly(pool, demand, seed, avoid, closed)
        if exact is not None:
            return exact
    return _refusal(pool, demand, missing, draft)


def _refusal(pool: Pool, demand: Demand, missing: Missing, draft: Draft) -> Unplaceable:
    if missing.host is not None:
        fewest = {of[0].role: min(want.count for want in of) for of in demand.engines}
        return refuse_hosts(draft, missing.host, missing.host.devices(fewest))
    return never_engines(pool, demand) or refuse_engines(draft, missing.wants)


def _overlap(demand: Demand) -> bool:
    """Whether two roles could want the same engine, so that who chooses first matters."""
    seen: set[int] = set()
    for wants in demand.engines:
        makes = {make for want in wants for make, _ in want.wares}
        if makes & seen:
            return True
        seen |= makes
    return False


def _select_exactly(
    pool: Pool, demand: Demand, seed: int, avoid: Collection[str], closed: Iterable[int]
) -> Selection | None:
    fresh = Draft(pool, avoid, closed)
    fresh.wake = True

    def room(site: Site, want: Want) -> Mask:
        stock = pool.stock(want.wares)
        mask, limit = fresh.room(site.number, want, stock)
        if want.shared and not want.bitstream:
            for position, rest in fresh.broken(site.number, stock):
                if rest >= want.millis:
                    mask |= 1 << position
            return mask
        return mask if limit else 0

    for wants in islice(product(*demand.engines), _CHOICES_MAX):
        found = assign(pool, wants, room)
        if isinstance(found, Verdict):
            continue
        draft = fresh.copy()
        chosen: dict[str, Chosen] = {}
        for want, picks in zip(wants, found, strict=True):
            if not all(_hosted(draft, want, number, mask) for number, mask in picks):
                break  # engines alone would do, but not the hosts under them
            draft.take_engines(want, picks)
            chosen[want.role] = Chosen(want, tuple(picks))
        else:
            selection = choose_hosts(draft, demand, chosen, seed)
            if isinstance(selection, Selection):
                return selection
    return None


def _hosted(draft: Draft, want: Want, number: int, mask: Mask) -> bool:
    """Whether a node has the host resources for these engines, or needs none."""
    if not (want.cpu_millis or want.memory_bytes):
        return True
    cpu, memory = draft.host(number)
    count = mask.bit_count()
    return cpu >= want.cpu_millis * count and memory >= want.memory_bytes * count


# -- circuits


def _ends(
    pool: Pool, demand: Demand, selection: Selection, circuits: Sequence[CircuitWish]
) -> _Ends:
    engines: dict[str, tuple[str, ...]] = {}
    units: dict[str, tuple[str, ...]] = {}
    for wants in demand.engines:  # in the user's order
        role = wants[0].role
        picks = selection.engines[role].picks
        if len(picks) == 1:
            ((number, mask),) = picks
            site = pool.sites[number]
            assert site is not None, "engines are picked on living nodes"
            if mask.bit_count() == len(site.engines):  # most gangs take a whole node
                engines[role], units[role] = site.engines, site.units
                continue
        if len(picks) > 1:
            picks = tuple(sorted(picks, key=lambda pick: _rank(pool, pick[0], pick[1])))
        names: list[str] = []
        for number, mask in picks:
            site = pool.sites[number]
            assert site is not None, "engines are picked on living nodes"
            if mask.bit_count() == len(site.engines):
                names.extend(site.engines)
            else:
                names.extend(name for n, name in enumerate(site.engines) if mask >> n & 1)
        # Sorted by leaf: on one leaf, where most gangs are, no order is better than another.
        apart = len(picks) > 1 and _rank(pool, *picks[0])[0] != _rank(pool, *picks[-1])[0]
        engines[role] = ranked(pool, circuits, role, names) if apart else tuple(names)
    return _Ends(engines, {**selection.hosts, **engines}, units)


def _rank(pool: Pool, number: int, mask: Mask) -> tuple[str, int]:
    """Neighbours get neighbouring ranks, so that a ring seldom leaves a switch."""
    site = pool.sites[number]
    assert site is not None, "engines are picked on living nodes"
    return next((leaf for leaf, ports in site.leaves if mask & ports), NOWHERE), number


def _again(
    pool: Pool,
    spec: SliceSpec,
    demand: Demand,
    selection: Selection,
    ends: _Ends,
    name: str,
    seed: int,
) -> Routed | None:
    """Lay circuits in the order asked for, most of them as they were laid before."""
    return again(
        pool, spec.circuits, demand.seatings, ends.circuits,
        whole=lambda: _whole(selection, ends), name=name, seed=seed,
    )  # fmt: skip


def _whole(selection: Selection, ends: _Ends) -> set[str]:
    """Return the engines that are to be held whole."""
    return {
        engine
        for role, engines in ends.engines.items()
        if not selection.engines[role].want.shared
        for engine in engines
    }


def _route(
    pool: Pool,
    spec: SliceSpec,
    selection: Selection,
    ends: _Ends,
    wishes: Sequence[Wish],
    *,
    name: str,
    seed: int,
    avoid: Collection[str],
    effort: Effort,
) -> Routed | Blocked:
    if not wishes:
        return Routed((), ())
    whole = _whole(selection, ends)
    return route(
        pool, wishes, whole=whole, name=name, bounds=spec.constraints, seed=seed, avoid=avoid,
        effort=effort,
    )  # fmt: skip


def _reseat(
    pool: Pool,
    demand: Demand,
    spec: SliceSpec,
    selection: Selection,
    ends: _Ends,
    blocked: Blocked,
    *,
    name: str,
    seed: int,
    avoid: Collection[str],
    effort: Effort,
) -> Decision | None:
    """Try the same engines in other ranks, and a few others in their places."""

    def lay(engines: Mapping[str, tuple[str, ...]]) -> Routed | Blocked:
        seats = _Ends(dict(engines), {**selection.hosts, **engines})
        wishes = wishes_of(spec.circuits, seats.circuits)
        return _route(
            pool, spec, selection, seats, wishes, name=name, seed=seed, avoid=avoid, effort=effort
        )

    wants = {role: chosen.want for role, chosen in selection.engines.items()}
    wishes = wishes_of(spec.circuits, ends.circuits)
    joined = sum(max(len(wish.targets), len(wish.sources)) for wish in wishes)
    hosts = [
        (pool.numbers[node], host.cpu_millis, host.memory_bytes)
        for host in demand.hosts
        for node in selection.hosts[host.role]
    ]
    found = reseat(
        pool, wants, ends.engines, blocked, lay, joined=joined, hosts=hosts, avoid=avoid, seed=seed
    )
    if found is None:
        return None
    seats = _Ends(dict(found.engines), {**selection.hosts, **found.engines})
    return _decision(pool, demand, selection, seats, found.routed)


def _funnel(demand: Demand, blocked: Blocked, wanted: int) -> list[tuple[str, int]]:
    steps = [step for wants in demand.engines[:1] for step in wants[0].funnel]
    return [*steps, ("circuits wanted", wanted), ("circuits routed", blocked.routed)]


def _used(pool: Pool, selection: Selection, wish: Wish, ends: _Ends) -> set[int]:
    """Return the nodes to do without next time: all on the leaves of the blocked circuit's ends.

    Where that would be every node of a role's, only the nodes that were picked.
    """
    blocked = {wish.source, *wish.sources, *wish.targets}
    numbers: set[int] = set()
    for role, chosen in selection.engines.items():
        if blocked.isdisjoint(ends.engines[role]):
            continue
        for number, mask in chosen.picks:
            site = pool.sites[number]
            assert site is not None, "engines are picked on living nodes"
            numbers.add(number)
            if not any(mask >> n & 1 and e in blocked for n, e in enumerate(site.engines)):
                continue
            for leaf, ports in site.leaves:
                if mask & ports and leaf != NOWHERE:
                    numbers.update(pool.leaf_sites[leaf])
    for nodes in selection.hosts.values():
        numbers.update(pool.numbers[node] for node in nodes if node in blocked)
    return numbers


# -- the decision


def _found(pool: Pool, demand: Demand, found: Found) -> Decision:
    """Return what the search of everything came to."""
    whole = {e for r, want in found.wants.items() if not want.shared for e in found.engines[r]}
    engines = {role: Chosen(want, ()) for role, want in found.wants.items()}
    ends = _Ends(dict(found.engines), {**found.hosts, **found.engines})
    lanes = tuple(claimed(pool, found.circuits, whole))
    selection = Selection(engines, found.hosts)
    return _decision(pool, demand, selection, ends, Routed(found.circuits, lanes))


def _decision(
    pool: Pool, demand: Demand, selection: Selection, ends: _Ends, routed: Routed
) -> Decision:
    units: dict[str, Amounts] = {}
    bitstreams: dict[str, str] = {}
    hosts: dict[str, tuple[str, ...]] = {}
    on_hosts: dict[str, tuple[int, int]] = {}
    for role, engines in ends.engines.items():
        want = selection.engines[role].want
        if want.shared:
            for engine in engines:
                unit = share_unit(engine)
                units[unit] = (sum(units.get(unit, ())) + want.millis,)
        elif role in ends.units:
            units.update(dict.fromkeys(ends.units[role], ()))
        else:
            units.update({engine_unit(engine): () for engine in engines})
        if want.bitstream:
            bitstreams.update(dict.fromkeys(engines, want.bitstream))
        if want.cpu_millis or want.memory_bytes:
            hosts[role] = tuple(engine.partition("/")[0] for engine in engines)
            _add(on_hosts, hosts[role], want.cpu_millis, want.memory_bytes)
    for host in demand.hosts:
        hosts[host.role] = selection.hosts[host.role]
        _add(on_hosts, hosts[host.role], host.cpu_millis, host.memory_bytes)
    nodes = pool.view.cell.nodes
    attached = attached_to(nodes, routed.circuits) if demand.hosts else {}
    for node, amounts in on_hosts.items():
        limited = node in attached and nodes[node].devices_max > 0
        units[host_unit(node)] = (*amounts, len(attached[node])) if limited else amounts
    units.update((lane, ()) for lane in routed.units)
    return Decision(ends.engines, units, hosts, routed.circuits, bitstreams)


def _add(
    on_hosts: dict[str, tuple[int, int]], nodes: Iterable[str], cpu_millis: int, memory_bytes: int
) -> None:
    for node in nodes:
        cpu, memory = on_hosts.get(node, (0, 0))
        on_hosts[node] = (cpu + cpu_millis, memory + memory_bytes)
