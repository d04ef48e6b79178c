"""Which reason is the true one, where the quick ways found no plan?

The first that holds, as `docs/explain.md` lists them:
  Infeasible                no state of the cell could hold it: not even one where all is free
  NoCircuit                 asked without its circuits, it could be placed now
  FragmentedAcrossSwitches  enough is free, but not where the request needs it together
  WaitingForBitstream       the same, but for roles that need a bitstream: these are short
  WaitingForEngines         engines or host resources are short
In a small cell each step is decided by trying everything, and so is whether there is a plan.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice, product
from typing import Final

from flowos.model.placement import Unplaceable
from flowos.model.slice import Reason, SliceSpec
from flowos.model.view import CellView
from flowos.planning.demand import Demand, Want, demand_of
from flowos.planning.engines.choose import Draft
from flowos.planning.engines.pool import Pool
from flowos.planning.reasons.refuse import asked_of, beside, counted, free_now
from flowos.planning.search.exact import Verdict, assign
from flowos.planning.search.exhaustive import Found, search

_CHOICES_MAX: Final = 16  # combinations of roles' choices looked at


def last_word(
    pool: Pool,
    spec: SliceSpec,
    demand: Demand,
    said: Unplaceable,
    *,
    fits: Callable[[Demand], bool],
    name: str = "",
    avoid: Collection[str] = (),
    sizes: Mapping[str, int] | None = None,
) -> Found | Unplaceable:
    """Return a plan that the quick ways missed, or why there is none.

    Args:
        pool: Folded by the caller.
        spec: The request.
        demand: What it asks of the pool.
        said: What the quick ways came to; its sentence stands where its reason is the true one.
        fits: Whether the quick ways find engines and hosts for a demand now.
        name: Circuits are called "<name>/<number>".
        avoid: Units not to use.
        sizes: Role -> how many engines.
    """
    if said.reason is Reason.INFEASIBLE:
        return said  # it was counted what the cell has in all
    draft = Draft(pool, avoid)
    draft.wake = True
    bare = demand_of(pool, replace(spec, circuits=()), sizes) if spec.circuits else demand
    takes = _takes_enough(draft, demand)
    enough = takes and is_enough(draft, bare)
    found: Found | Verdict = Verdict.NONE
    if enough:
        found = search(draft, demand, spec.circuits, spec.constraints, name=name, avoid=avoid)
        if isinstance(found, Found):
            return found
    if _never(pool, spec, sizes):
        return _unlike(said, Reason.INFEASIBLE, _in_vain(spec, said))
    if not enough:
        reason = Reason.WAITING_FOR_ENGINES
        if not takes and is_enough(draft, bare):
            return _unlike(said, reason, _untaken(demand))
        others = _without_bitstreams(bare)
        if len(others.engines) < len(bare.engines) and is_enough(draft, others):
            reason = Reason.WAITING_FOR_BITSTREAM
        return _unlike(said, reason, _short(draft, bare))
    if spec.circuits and _could(draft, bare, fits):
        return _unlike(said, Reason.NO_CIRCUIT, _unjoined(demand))
    if pool.view.cell.switches:
        return _unlike(said, Reason.FRAGMENTED_ACROSS_SWITCHES, _apart(demand))
    # Without switches no word of them.
    return _unlike(said, Reason.WAITING_FOR_ENGINES, _apart(demand))


def _unlike(said: Unplaceable, reason: Reason, sentence: str) -> Unplaceable:
    return said if said.reason is reason else Unplaceable(reason, sentence, said.funnel)


def _could(draft: Draft, bare: Demand, fits: Callable[[Demand], bool]) -> bool:
    return fits(bare) or isinstance(search(draft, bare), Found)


def _never(pool: Pool, spec: SliceSpec, sizes: Mapping[str, int] | None) -> bool:
    """Whether it is proven that not even the empty cell could hold a request."""
    key = ("ever", repr((spec.engines, spec.hosts, spec.together, spec.circuits)))
    bounds = repr((spec.constraints, sizes and tuple(sizes.items())))

    def work_out() -> bool:
        if len(pool.view.cell.engines) > _ENGINES_MAX:
            return False  # nothing would be proven
        empty = empty_pool(pool)
        demand = demand_of(empty, spec, sizes)
        found = search(Draft(empty), demand, spec.circuits, spec.constraints)
        return found is Verdict.NONE

    return pool.recall((*key, bounds), work_out)


_ENGINES_MAX: Final = 1_000  # of a cell that is searched empty: then few enough can serve


def empty_pool(pool: Pool) -> Pool:
    """Return the pool of the same cell with nothing held, out of service or off."""

    def work_out() -> Pool:
        empty = Pool(CellView(cell=pool.view.cell))
        empty.fold()
        return empty

    return pool.recall(("empty",), work_out)


def is_enough(draft: Draft, demand: Demand) -> bool:
    """Whether enough is free in all, wherever it is: engines by role, host resources in sum."""
    free = {
        id(want): free_now(draft, want, draft.pool.stock(want.wares))
        for wants in demand.engines
        for want in wants
    }
    able = [[want for want in wants if free[id(want)] >= want.count] for wants in demand.engines]
    if not all(able):
        return False
    makes = [{make for want in wants for make, _ in want.wares} for wants in demand.engines]
    rivals = len(makes) > 1 and sum(map(len, makes)) > len(set().union(*makes))
    if any(want.shared for wants in demand.engines for want in wants) or rivals:
        found = search(draft, demand, in_total=True)
        if isinstance(found, Found):
            return True
        if found is Verdict.NONE:
            return False
    for wants in islice(product(*able), _CHOICES_MAX):
        if not _hosts_enough(draft, demand, wants):
            continue
        whole = [replace(want, together="any") for want in wants if not want.shared]
        if not rivals or _assignable(draft, whole):
            return True
    return False


def _hosts_enough(draft: Draft, demand: Demand, wants: Iterable[Want]) -> bool:
    cpu, memory = _host_sums(demand, wants)
    if not (cpu or memory):
        return True
    has_cpu, has_memory = _host_free(draft)
    return has_cpu >= cpu and has_memory >= memory


def _takes_enough(draft: Draft, demand: Demand) -> bool:
    """Whether enough nodes take as many more devices as are to be attached to each."""
    fewest = {wants[0].role: min(want.count for want in wants) for wants in demand.engines}
    for host in demand.hosts:
        devices = host.devices(fewest)
        takers = (
            draft.attaches(site.number, devices)
            for site in draft.pool.sites
            if site is not None and site.linked and host.at in ("", site.name)
            if draft.host(site.number)[0] >= 0  # in service
        )
        if devices and host.count > sum(takers):
            return False
    return True


def _untaken(demand: Demand) -> str:
    asked = " and ".join(host.role for host in demand.hosts if host.attached)
    return f"{asked}: too few nodes take so many more devices now"


def _host_sums(demand: Demand, wants: Iterable[Want]) -> tuple[int, int]:
    both = [(w.cpu_millis * w.count, w.memory_bytes * w.count) for w in wants]
    both += [(h.cpu_millis * h.count, h.memory_bytes * h.count) for h in demand.hosts]
    return sum(cpu for cpu, _ in both), sum(memory for _, memory in both)


def _host_free(draft: Draft) -> tuple[int, int]:
    pool = draft.pool
    cpu, memory = pool.cpu_millis, pool.memory_bytes
    for number in draft.touched:
        there, left = pool.free[number], draft.host(number)
        cpu += max(left[0], 0) - max(there.cpu_millis, 0)
        memory += max(left[1], 0) - max(there.memory_bytes, 0)
    return cpu, memory


def _assignable(draft: Draft, wants: Sequence[Want]) -> bool:
    pool = draft.pool
    found = assign(
        pool, wants, lambda site, want: draft.engines(site.number, pool.stock(want.wares))
    )
    return not isinstance(found, Verdict)


def _without_bitstreams(demand: Demand) -> Demand:
    """Leave out the roles that nothing but a bitstream satisfies."""
    engines = tuple(wants for wants in demand.engines if not all(w.bitstream for w in wants))
    return replace(demand, engines=engines)


# -- sentences


def _in_vain(spec: SliceSpec, said: Unplaceable) -> str:
    joined = said.reason is Reason.NO_CIRCUIT
    circuits = " with its circuits" if spec.circuits else ""
    never = f"the cell has no place for it{circuits} even if it were empty"
    return f"{never}: {said.sentence}" if joined else never


def _short(draft: Draft, demand: Demand) -> str:
    parts = [_told(draft, wants) for wants in demand.engines]
    cpu, memory = _host_sums(demand, [wants[0] for wants in demand.engines])
    if cpu or memory:
        has_cpu, has_memory = _host_free(draft)
        parts.append(
            f"{beside(cpu, memory)} wanted beside them in all, {beside(has_cpu, has_memory)} free"
        )
    sentence = "; ".join(parts)
    return sentence if len(parts) == 1 else f"not enough is free for all of it: {sentence}"


def _told(draft: Draft, wants: Sequence[Want]) -> str:
    want = wants[0]
    free = free_now(draft, want, draft.pool.stock(want.wares))
    return f"{want.role}: {asked_of(want)} wanted, {counted(free)} free"


def _unjoined(demand: Demand) -> str:
    asked = " and ".join(f"{wants[0].role}: {asked_of(wants[0])}" for wants in demand.engines)
    return f"{asked} wanted and free, but not with free lanes for all their circuits"


def _apart(demand: Demand) -> str:
    parts = [f"{w[0].role}: {asked_of(w[0])}{_where(w[0])}" for w in demand.engines]
    parts += [
        f"{host.role}: {host.count} x {beside(host.cpu_millis, host.memory_bytes)} on one node"
        for host in demand.hosts
    ]
    return f"{' and '.join(parts)} wanted: enough is free in all, but not where it has to be"


def _where(want: Want) -> str:
    hosts = beside(want.cpu_millis, want.memory_bytes)
    with_hosts = f" with {hosts} each" if want.cpu_millis or want.memory_bytes else ""
    place = {"node": " on one node", "switch": " on one switch"}.get(want.together, "")
    return f"{with_hosts}{place}"
