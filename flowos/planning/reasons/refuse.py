"""Why can a request not be placed: never in this cell, or not now, and by how much?"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import merge
from typing import Final

from flowos.model.placement import Unplaceable
from flowos.model.slice import Reason
from flowos.planning.circuits.route import Blocked
from flowos.planning.demand import Demand, HostWant, Want
from flowos.planning.engines.choose import Draft
from flowos.planning.engines.pool import NOWHERE, Ladder, Pool, Stock
from flowos.planning.search.exact import Verdict, assign

# How near each answer is to a yes: of several choices, the nearest is told.
_NEARNESS: Final = (
    Reason.INFEASIBLE,
    Reason.WAITING_FOR_ENGINES,
    Reason.WAITING_FOR_BITSTREAM,
    Reason.FRAGMENTED_ACROSS_SWITCHES,
)
_STEP_OF: Final[Mapping[str, str]] = {"node": "one node", "switch": "one switch"}
_PLACE_OF: Final[Mapping[str, str]] = {"node": " on one node", "switch": " on one switch"}


def nearest(answers: Sequence[Unplaceable]) -> Unplaceable:
    """Return the answer that is nearest to a yes, the first of several."""
    best = max(answers, key=lambda answer: _NEARNESS.index(answer.reason))
    if len(answers) == 1:
        return best
    sentence = f"none of {len(answers)} choices fits; the nearest: {best.sentence}"
    return Unplaceable(best.reason, sentence, best.funnel)


def refuse_engines(draft: Draft, wants: Sequence[Want]) -> Unplaceable:
    """Say why none of a role's choices found engines on what a draft had left."""
    return nearest([_refuse(draft, want) for want in wants])


def never_engines(pool: Pool, demand: Demand) -> Unplaceable | None:
    """Return why no state of the cell could hold these roles, if it is so; exact without hosts."""
    for wants in demand.engines:
        nevers = [never(pool, want) for want in wants]
        if all(nevers):
            return nearest(
                [
                    Unplaceable(Reason.INFEASIBLE, f"{want.role}: {why}", want.funnel)
                    for want, why in zip(wants, nevers, strict=True)
                ]
            )
    if len(demand.engines) > 1 and all(len(wants) == 1 for wants in demand.engines):
        return _never_together(pool, [wants[0] for wants in demand.engines if not wants[0].shared])
    return None


def never(pool: Pool, want: Want) -> str:
    """Return why the cell could not hold a role even if it were empty; "" = it could."""
    hosts = (want.cpu_millis, want.memory_bytes)
    key = ("never", want.wares, want.count, want.millis, hosts, want.together, want.funnel)
    return pool.recall(key, lambda: _never(pool, want))


def _scattered(pool: Pool) -> Reason:
    """Return the reason where enough is free, but not together; without switches no word of them."""
    if pool.view.cell.switches:
        return Reason.FRAGMENTED_ACROSS_SWITCHES
    return Reason.WAITING_FOR_ENGINES


def _never(pool: Pool, want: Want) -> str:
    stock = pool.stock(want.wares)
    asked = f"{asked_of(want)} wanted"
    if stock.existing < want.count:
        return f"{asked}, the cell has {stock.existing}{_after(want)}"
    alone, hosted = _most(pool, want, stock)
    place = _STEP_OF.get(want.together, "cell")
    if alone < want.count:
        return f"{asked}{_PLACE_OF.get(want.together, '')}, no {place.split()[-1]} has more than {alone}"
    if hosted < want.count:
        hosts = beside(want.cpu_millis, want.memory_bytes)
        return f"{asked} with {hosts} each, that much is there for {hosted} in the largest {place}"
    return ""


def _most(pool: Pool, want: Want, stock: Stock) -> tuple[int, int]:
    """Return how many engines are in the largest place, and how many with their share of hosts."""
    alone: dict[str, int] = {}
    hosted: dict[str, int] = {}
    for site in pool.sites:
        mask = stock.mask(site) if site is not None else 0
        if site is None or not mask:
            continue
        node = pool.view.cell.nodes[site.name]
        limit = mask.bit_count()
        if want.cpu_millis:
            limit = min(limit, node.cpu_millis // want.cpu_millis)
        if want.memory_bytes:
            limit = min(limit, node.memory_bytes // want.memory_bytes)
        if want.together == "switch":
            for leaf, ports in site.leaves:
                if leaf != NOWHERE:
                    here = (mask & ports).bit_count()
                    alone[leaf] = alone.get(leaf, 0) + here
                    hosted[leaf] = hosted.get(leaf, 0) + min(here, limit)
        else:
            place = site.name if want.together == "node" else ""
            alone[place] = alone.get(place, 0) + mask.bit_count()
            hosted[place] = hosted.get(place, 0) + limit
    return max(alone.values(), default=0), max(hosted.values(), default=0)


def _never_together(pool: Pool, wants: Sequence[Want]) -> Unplaceable | None:
    key = ("together", tuple((want.wares, want.count, want.together) for want in wants))

    def impossible() -> bool:
        found = assign(pool, wants, lambda site, want: pool.stock(want.wares).mask(site))
        return found is Verdict.NONE

    if not pool.recall(key, impossible):
        return None
    asked = " and ".join(asked_of(want) + _PLACE_OF.get(want.together, "") for want in wants)
    sentence = f"{asked} wanted, the cell has not enough for all of them even if it were empty"
    return Unplaceable(Reason.INFEASIBLE, sentence, wants[0].funnel)


def _refuse(draft: Draft, want: Want) -> Unplaceable:
    why = never(draft.pool, want)
    if why:
        return Unplaceable(Reason.INFEASIBLE, f"{want.role}: {why}", want.funnel)
    stock = draft.pool.stock(want.wares)
    free = free_now(draft, want, stock)
    funnel = [*want.funnel, ("free now", free)]
    held = stock.existing - free
    asked = f"{want.role}: {asked_of(want)} wanted"
    if free < want.count:
        if want.bitstream:
            reason = Reason.WAITING_FOR_BITSTREAM
            verb = f"{free} that could load {want.bitstream.partition('@')[0]} {_are(free)} free"
        else:
            reason = Reason.WAITING_FOR_ENGINES
            verb = f"{free} {_are(free)} free"
        rest = f"{held} of {stock.existing} {_are(held)} held or out of service"
        return Unplaceable(reason, f"{asked}, {verb}: {rest}", tuple(funnel))
    place = _PLACE_OF.get(want.together, "")
    if place and not want.shared:
        best, gathered = _gathered(draft, want, stock)
        # An engine with ports on two switches counts for both, but is one.
        funnel.append((_STEP_OF[want.together], min(gathered, free)))
        if best < want.count:
            sentence = f"{asked}{place}, {free} {_are(free)} free but at most {best}{place}"
            return Unplaceable(_scattered(draft.pool), sentence, tuple(funnel))
    if want.cpu_millis or want.memory_bytes:
        hosts = beside(want.cpu_millis, want.memory_bytes)
        funnel.append((f"with {hosts}", 0))
        tail = f"{free} {_are(free)} free, but not with {hosts} free beside them"
        sentence = f"{asked}{place}, {tail}"
    else:
        sentence = (
            f"{asked}{place}, {free} {_are(free)} free but other roles of the slice need them"
        )
    return Unplaceable(_scattered(draft.pool), sentence, tuple(funnel))


def free_now(draft: Draft, want: Want, stock: Stock) -> int:
    """Return how many engines a role could have if it were asked alone of what is left."""
    pool = draft.pool
    draft.wake = True
    free = stock.free_on + stock.free_off
    for number in draft.touched:
        site = pool.sites[number]
        if site is not None:
            there = pool.free[number]
            before = (there.on | there.off) & stock.mask(site)
            free += draft.engines(number, stock).bit_count() - before.bit_count()
    if want.shared:
        for number in dict.fromkeys(n for _, n in stock.parts.climb(want.millis)):
            mask = stock.mask(draft.site(number)) & ~draft.taken.get(number, 0)
            free += sum(
                1
                for position, rest in pool.free[number].parts
                if mask >> position & 1
                and rest - draft.parts.get((number, position), 0) >= want.millis
            )
    return free


def _gathered(draft: Draft, want: Want, stock: Stock) -> tuple[int, int]:
    """Return the most free engines of any place, and how many are in places with enough."""
    sizes = _on_nodes(draft, stock) if want.together == "node" else _on_leaves(draft, stock)
    most = enough = 0
    for size in sizes:
        most = max(most, size)
        if size < want.count:
            break
        enough += size
    return most, enough


def _on_nodes(draft: Draft, stock: Stock) -> Iterator[int]:
    """Yield how many engines are free on each node, the most first."""
    states = draft.pool.free
    ours = sorted((draft.engines(n, stock).bit_count() for n in draft.touched), reverse=True)

    def theirs(ladder: Ladder) -> Iterator[int]:
        for rung, number in ladder.descend():
            # Nodes where some are off stand on both ladders, and count on that of them all.
            asleep = ladder is stock.on and states[number].off & stock.mask(draft.site(number))
            if not asleep and number not in draft.touched:
                yield rung

    return merge(ours, theirs(stock.on), theirs(stock.every), reverse=True)


def _on_leaves(draft: Draft, stock: Stock) -> Iterator[int]:
    """Yield how many engines are free on each leaf switch, the most first."""
    totals = {leaf: both[1] for leaf, both in stock.leaves.items() if leaf != NOWHERE}
    for number in draft.touched:
        site, free = draft.site(number), draft.pool.free[number]
        gone = (free.on | free.off) & stock.mask(site) & ~draft.engines(number, stock)
        for leaf, ports in site.leaves:
            if leaf in totals:
                totals[leaf] -= (gone & ports).bit_count()
    return iter(sorted(totals.values(), reverse=True))


# -- hosts


def refuse_hosts(draft: Draft, host: HostWant, devices: int = 0) -> Unplaceable:
    """Say why a role without engines found no nodes on what a draft had left.

    Args:
        draft: What is left.
        host: The role.
        devices: How many engines are to be attached to each of its nodes.
    """
    pool = draft.pool
    asked = (
        f"{host.role}: {_nodes(host.count)} with {beside(host.cpu_millis, host.memory_bytes)}"
        f"{' and an attachment port' if host.linked else ''} wanted"
    )
    funnel = [("nodes", len(pool.numbers))]
    large = 0
    taking = 0
    limits: dict[int, str] = {}
    for site in pool.sites:
        if host.at and (site is None or site.name != host.at):
            continue
        if site is not None and (site.linked or not host.linked):
            node = pool.view.cell.nodes[site.name]
            if node.cpu_millis >= host.cpu_millis and node.memory_bytes >= host.memory_bytes:
                large += 1
                limits[node.devices_max] = node.name
                taking += not node.devices_max or devices <= node.devices_max
    funnel.append(("large enough", large))
    if large >= host.count > taking:
        most = max(limits)
        funnel.append((f"{_devices(devices)} each, at most", taking))
        sentence = (
            f"{host.role}: {_devices(devices)} to be attached to {_each(host.count)}, "
            f"{taking} of {large} {'takes' if taking == 1 else 'take'} so many: "
            f"{limits[most]} takes at most {most} at once"
        )
        return Unplaceable(Reason.INFEASIBLE, sentence, tuple(funnel))
    if large < host.count:
        sentence = f"{asked}, the cell has {large} that are large enough"
        return Unplaceable(Reason.INFEASIBLE, sentence, tuple(funnel))
    free = 0
    taking = 0
    left: list[tuple[int, str]] = []
    for number in dict.fromkeys(
        [*draft.touched, *(n for _, n in pool.hosts.climb(0, host.cpu_millis))]
    ):
        if host.at and number != pool.numbers.get(host.at):
            continue
        if pool.sites[number] is not None and (draft.site(number).linked or not host.linked):
            cpu, memory = draft.host(number)
            if cpu >= host.cpu_millis and memory >= host.memory_bytes:
                free += 1
                taking += draft.attaches(number, devices)
                left.append((draft.attachable(number) or 0, draft.site(number).name))
    funnel.append(("free now", free))
    if devices and free >= host.count > taking:
        funnel.append((f"{_devices(devices)} each, now", taking))
        # None that takes so many has no limit; the one with most room is nearest to it.
        more, name = max(each for each in left if each[0] < devices)
        sentence = (
            f"{host.role}: {_devices(devices)} to be attached to {_each(host.count)}, "
            f"{taking} of {free} {'takes' if taking == 1 else 'take'} so many more now: "
            f"{name} takes {more} more of its {pool.view.cell.nodes[name].devices_max}"
        )
        return Unplaceable(Reason.WAITING_FOR_ENGINES, sentence, tuple(funnel))
    in_total = (
        pool.cpu_millis >= host.cpu_millis * host.count
        and pool.memory_bytes >= host.memory_bytes * host.count
    )
    reason = _scattered(pool) if in_total else Reason.WAITING_FOR_ENGINES
    has = f"{free} of {large} {'has' if free == 1 else 'have'} that much free"
    total = f"all nodes together {beside(pool.cpu_millis, pool.memory_bytes)}"
    return Unplaceable(reason, f"{asked}, {has}: {total}", tuple(funnel))


# -- circuits


def refuse_circuits(blocked: Blocked, funnel: Iterable[tuple[str, int]]) -> Unplaceable:
    """Say which circuit found no lanes."""
    there = f"{blocked.routed} of {blocked.wanted} circuits found their lanes"
    return Unplaceable(Reason.NO_CIRCUIT, f"{blocked.why}: {there}", tuple(funnel))


# -- words


def _each(nodes: int) -> str:
    return "one node" if nodes == 1 else f"each of {nodes} nodes"


def _devices(count: int) -> str:
    return "1 device" if count == 1 else f"{count} devices"


def asked_of(want: Want) -> str:
    """Return what a role asks for in words: "8 gpu A100"."""
    if want.shared:
        return f"{want.millis / 1000:g} of one {want.named}"
    return f"{want.count} {want.named}"


def _after(want: Want) -> str:
    """Name the step of the funnel that narrowed most, where there was more than the kind."""
    if len(want.funnel) < 2 or want.funnel[0][1] < want.count:
        return ""
    return f" of that: {', '.join(f'{step} leaves {count}' for step, count in want.funnel[1:])}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def counted(count: int) -> str:
    """Return "1 is" or "3 are"."""
    return f"{count} {_are(count)}"


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"


def beside(cpu_millis: int, memory_bytes: int) -> str:
    """Return host resources in words."""
    cpu = f"{cpu_millis / 1000:g} CPU" if cpu_millis else ""
    memory = f"{memory_bytes / 2**30:.4g} GiB" if memory_bytes else ""
    return " and ".join(filter(None, (cpu, memory))) or "no host resources"
