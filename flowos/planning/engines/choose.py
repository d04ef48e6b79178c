"""Which engines and hosts does a request get: best fit, powered first, near to each other?"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Final, NamedTuple, TypeAlias

from flowos.planning.chance import one_of, scramble
from flowos.planning.demand import Demand, HostWant, Want
from flowos.planning.engines.draft import NO_SPEEDS, Draft, Pick, Speeds
from flowos.planning.engines.masks import leaf_mask, left_on, on_one_leaf, ports_on, positions
from flowos.planning.engines.pool import NOWHERE, Mask, Pool, Stock, Wares
from flowos.planning.engines.scoring import Scorer, recency, stranded_by_host
from flowos.planning.engines.several import FEW, many_leaves, one_leaf, scattered, within
from flowos.planning.engines.weights import DEFAULT, Weights, minds_leaves
from flowos.planning.where import Condition

__all__ = ("Chosen", "Draft", "Missing", "Pick", "Selection", "choose", "choose_hosts")

_ENDS: Final = 2  # from either end of a rung: more did no better on five mixes of real jobs
_PARTS: Final = 8  # engines that are partly held, of the fullest that fit
_RUNGS_MAX: Final = 8
_NEAR: Final = 2.0  # what differs less in score is alike: far less than to wake or load an engine
_LOOKED_AT_MAX: Final = (
    1024  # nodes looked at for what is loaded; loading costs seconds, not a cell
)
_LOADED_MAX: Final = 32  # of them compared, where it is and where nothing is
_MODELS_MAX: Final = 8  # engine models that are looked at one by one
_MODEL_NODES_MAX: Final = 250_000  # nodes times models: a quarter of what pools keep sorted
_LEAVES: Final = 4  # with the fewest and the most left over, where leaves count
_TOGETHER: Final = {"here": -1, "node": 0, "switch": 1}  # the narrowest choose first

# What it costs, the free CPU there, the node and which of its engines.
Scored: TypeAlias = tuple[float, int, int, Mask]


class Chosen(NamedTuple):
    """Engines of one role, with the choice that they satisfy."""

    want: Want
    picks: tuple[Pick, ...]


class Missing(NamedTuple):
    """The first role for which nothing was left, as things stood then."""

    wants: tuple[Want, ...]
    host: HostWant | None = None


class Selection(NamedTuple):
    """What was found for every role."""

    engines: Mapping[str, Chosen]
    hosts: Mapping[str, tuple[str, ...]]


# -- all roles


def choose(
    pool: Pool,
    demand: Demand,
    *,
    joined: Collection[str] = (),
    spread: str = "pack",
    seed: int = 0,
    avoid: Collection[str] = (),
    closed: Iterable[int] = (),
    weights: Weights = DEFAULT,
    speeds: Speeds = NO_SPEEDS,
) -> Selection | tuple[Missing, Draft]:
    """Find engines and hosts for every role, each with the first of its choices that fits.

    Args:
        pool: Folded by the caller.
        demand: What is asked.
        joined: Roles that circuits join: they are laid near to each other.
        spread: pack, spread (over nodes), rack (over racks) or apart (over both, and switches).
        seed: 0 takes the best; else one of the best few by chance.
        avoid: Units not to use.
        closed: Numbers of nodes not to use.
        weights: How much each feature of a place counts.
        speeds: Role -> engine model -> how much of its work it does in a second, or for a joule.
    """
    draft = Draft(pool, avoid, closed, weights, speeds, joined)
    chosen: dict[str, Chosen] = {}
    order = demand.engines
    if len(order) > 1:
        order = tuple(
            sorted(order, key=lambda wants: (_TOGETHER.get(wants[0].together, 2), -wants[0].count))
        )
    bound = _bound(draft, demand) if joined and demand.hosts else []
    for turn, wants in enumerate(order):
        near = [*bound, *(c for role, c in chosen.items() if role in joined)] if joined else []
        if wants[0].role not in joined:
            near = []
        for want in wants:
            picks = _choose_role(draft, want, near, spread, seed + turn if seed else 0)
            if picks is not None:
                if turn + 1 < len(order) or demand.hosts:  # else nobody asks what is left
                    draft.take_engines(want, picks)
                chosen[want.role] = Chosen(want, tuple(picks))
                break
        else:
            return Missing(wants), draft
    return choose_hosts(draft, demand, chosen, seed)


def _bound(draft: Draft, demand: Demand) -> list[Chosen]:
    """The nodes that hosts at the ends of circuits are bound to, as if their engines were chosen."""
    numbers = [draft.pool.numbers.get(host.at) for host in demand.hosts if host.at and host.linked]
    anything = demand.engines[0][0] if demand.engines else None
    if anything is None:
        return []
    return [Chosen(anything, ((number, -1),)) for number in numbers if number is not None]


def choose_hosts(
    draft: Draft, demand: Demand, chosen: Mapping[str, Chosen], seed: int = 0
) -> Selection | tuple[Missing, Draft]:
    """Find the hosts for roles without engines, once the engines are chosen."""
    hosts: dict[str, tuple[str, ...]] = {}
    counts = {role: of.want.count for role, of in chosen.items()}
    for host in demand.hosts:
        devices = host.devices(counts)
        found = _hosts_for(draft, host, devices, seed)
        if found is None:
            return Missing((), host), draft
        for number in found:
            draft.take(number, 0, host.cpu_millis, host.memory_bytes)
            draft.attach(number, devices)
        hosts[host.role] = tuple(draft.site(number).name for number in found)
    return Selection(chosen, hosts)


def _choose_role(
    draft: Draft, want: Want, near: Sequence[Chosen], spread: str, seed: int
) -> list[Pick] | None:
    stock = draft.pool.stock(want.wares)
    for wake in (True,) if stock.free_off and _may_wake(draft, want, stock) else (False, True):
        if wake and not stock.free_off:
            return None
        draft.wake = wake
        if stock.free_on + wake * stock.free_off < want.count and not want.shared:
            continue
        if want.shared:
            picks = _part(draft, want, stock, seed)
        elif want.together == "node":
            picks = _near(draft, want, stock, near) if near else None
            picks = picks or _one_node(draft, want, stock, seed)
        elif spread == "pack":
            picks = _packed(draft, want, stock, near, seed)
        else:
            picks = scattered(draft, want, stock, spread, seed)
        if picks is not None:
            return picks
    return None


def _may_wake(draft: Draft, want: Want, stock: Stock) -> bool:
    """Whether an engine may be woken though powered ones would do, for what that saves."""
    weights = draft.weights
    saved = weights.load + weights.evict if want.bitstream else 0.0
    if stock.mixed:
        saved += weights.watts
        if draft.speeds.get(want.role):
            saved += weights.speed
    return weights.wake < saved


def _packed(
    draft: Draft, want: Want, stock: Stock, near: Sequence[Chosen], seed: int
) -> list[Pick] | None:
    picks = _near(draft, want, stock, near) if near else None
    if picks is None:
        picks = _one_node(draft, want, stock, seed)
    if picks is None and want.count > 1:
        # The best engine model that has room on one leaf, else any mixture on one, and so on.
        stocks = [*_by_speed(draft, want, stock), stock] if draft.speeds else [stock]
        picks = next(_had(one_leaf(draft, want, part, seed) for part in stocks), None)
        if picks is None and want.together != "switch":
            picks = next(_had(many_leaves(draft, want, part) for part in stocks), None)
    return picks


def _had(found: Iterable[list[Pick] | None]) -> Iterator[list[Pick]]:
    return (picks for picks in found if picks is not None)


def _models(draft: Draft, stock: Stock) -> dict[str, Stock]:
    """Return the stock of each engine model in a mixed one; none where that would cost too much."""
    pool = draft.pool

    def by_model() -> dict[str, Wares]:
        found: dict[str, set[tuple[int, tuple[Condition, ...]]]] = {}
        for ware in stock.wares:
            found.setdefault(pool.makes[ware[0]].model, set()).add(ware)
        return {model: frozenset(found[model]) for model in sorted(found)}

    wares = pool.recall(("models", stock.wares), by_model)
    if not 1 < len(wares) <= _MODELS_MAX or len(wares) * len(pool.sites) > _MODEL_NODES_MAX:
        return {}
    return {model: pool.stock(part) for model, part in wares.items()}


def _by_speed(draft: Draft, want: Want, stock: Stock) -> list[Stock]:
    """Return the stocks of engine models whose speed is known, the best first."""
    speeds = draft.speeds.get(want.role)
    if not (speeds and stock.mixed and draft.weights.speed):
        return []
    models = _models(draft, stock)
    return [models[m] for m in sorted(models.keys() & speeds.keys(), key=lambda m: -speeds[m])]


# -- one node


def _one_node(draft: Draft, want: Want, stock: Stock, seed: int) -> list[Pick] | None:
    """The node with the least score; among equals the one with the tightest host."""
    ranked = _ranked(draft, want, stock, seed)
    if not ranked:
        return None
    _, _, number, picked = _one_of(draft, ranked, seed)
    return [(number, picked)]


def _ranked(draft: Draft, want: Want, stock: Stock, seed: int) -> list[Scored]:
    """Return nodes with room for the whole role, the best first."""
    timed = stock.mixed and bool(draft.weights.speed and draft.speeds.get(want.role))
    unlike = stock.mixed and (timed or draft.weights.watts > 0)
    leaves = minds_leaves(draft.weights, joined=want.role in draft.joined)
    choosy = bool(want.cpu_millis or want.memory_bytes or want.together == "switch")
    if want.bitstream:
        found = _loaded_nodes(draft, want, stock)
    elif draft.minds_fragments():
        found = _ends(draft, want, stock, FEW if seed else _ENDS)
    elif draft.touched or draft.wake or unlike or leaves or choosy:
        few = FEW if seed or draft.wake else _ENDS
        found = chain(_climb(draft, want, stock, few), _heads(draft, want, stock))
        if unlike and not timed:
            found = chain(found, _of_each_model(draft, want, stock))
    else:
        return _first_one(draft, want, stock, FEW if seed else 1, seed)
    if timed:
        found = chain(found, _of_each_model(draft, want, stock))
    if leaves:
        found = chain(found, _on_some_leaves(draft, want, stock))
    scorer = Scorer(draft, want, stock)
    ranked: list[Scored] = []
    for number, mask in dict.fromkeys(found):
        picked = positions(draft, want, number, mask, want.count)
        score = scorer.score(number, mask, picked)
        ranked.append((score, draft.host(number)[0], number, picked))
    ranked.sort()
    return ranked


def _first_one(draft: Draft, want: Want, stock: Stock, few: int, seed: int) -> list[Scored]:
    """Return the best node of the ladder, where every node on it will do as it is.

    Only the first node of each number of free engines is looked at, and that which chance takes.
    """
    heads = stock.on.heads(want.count, _RUNGS_MAX)
    if not heads:
        return []
    rung, number = heads[0] if len(heads) == 1 else _best_head(draft, want, stock, heads)
    afar = draft.pool.divided and _is_afar(draft, number)
    if few > 1 and (afar or not draft.pool.divided):
        some = stock.on.level(rung, few, afar=afar)
        others = (n for _, n in stock.on.climb(want.count) if n not in some)
        number = one_of([*some, *islice(others, few - len(some))], seed)
    mask = draft.pool.free[number].on & stock.mask(draft.site(number))
    return [(0.0, 0, number, positions(draft, want, number, mask, want.count))]


def _best_head(
    draft: Draft, want: Want, stock: Stock, heads: Iterable[tuple[int, int]]
) -> tuple[int, int]:
    """The longest idle node, of equals the one that fits best, out of (rung, node).

    These are all the features in which nodes of one make differ, if nothing was taken off them.
    """
    pool, weights = draft.pool, draft.weights

    def cost(head: tuple[int, int]) -> tuple[float, int]:
        rung, number = head
        leftover = weights.leftover * (rung - want.count) / len(draft.site(number).engines)
        afar = weights.afar if pool.divided and _is_afar(draft, number) else 0.0
        return leftover + afar + weights.idle * recency(pool, stock, number), rung

    return min(heads, key=cost)


def _heads(draft: Draft, want: Want, stock: Stock) -> Iterator[Pick]:
    """Yield the longest idle node of each number of free engines."""
    for _, number in stock.on.heads(want.count, _RUNGS_MAX):
        yield from _if_it_fits(draft, want, stock, number)


def _on_some_leaves(draft: Draft, want: Want, stock: Stock) -> Iterator[Pick]:
    """Yield nodes on the leaves with the fewest engines left over, and on those with the most."""
    fewest = islice(stock.shelf.climb(want.count), _LEAVES)
    most = islice(stock.shelf.descend(), _LEAVES)
    for leaf in dict.fromkeys(leaf for _, leaf in chain(fewest, most)):
        found = (
            pick
            for number in draft.pool.leaf_sites.get(leaf, ())
            for pick in _if_it_fits(draft, want, stock, number)
        )
        yield from islice(found, FEW)


def _if_it_fits(draft: Draft, want: Want, stock: Stock, number: int) -> Iterator[Pick]:
    mask, limit = draft.room(number, want, stock)
    if limit >= want.count and on_one_leaf(draft, want, number, mask):
        yield number, mask


def _one_of(draft: Draft, ranked: Sequence[Scored], seed: int) -> Scored:
    """One of the best few by chance, where rivals may want them too; at home just the best."""
    best = ranked[0]
    if not seed or (draft.pool.divided and not _is_afar(draft, best[2])):
        return best
    near = [scored for scored in ranked[:FEW] if scored[0] <= best[0] + _NEAR]
    return one_of(near, seed)


def _is_afar(draft: Draft, number: int) -> bool:
    return draft.pool.is_afar(draft.site(number).name)


def _climb(draft: Draft, want: Want, stock: Stock, few: int) -> Iterator[Pick]:
    """Yield nodes with room for the whole role: a few of each kind, the best of each first."""
    count = want.count
    cpu, memory = want.cpu_millis * count, want.memory_bytes * count
    ladders = (stock.on, stock.every) if draft.wake else (stock.on,)
    for number in sorted(draft.touched):
        mask, limit = draft.room(number, want, stock)
        if limit >= count and on_one_leaf(draft, want, number, mask):
            yield number, mask
    states = draft.pool.free
    for ladder in ladders:
        found = 0
        for _, number in ladder.climb(count, cpu):
            free = states[number]
            if (cpu or memory) and (free.memory_bytes < memory or free.cpu_millis < cpu):
                continue
            if number in draft.touched:
                continue
            mask = draft.engines(number, stock)
            if not on_one_leaf(draft, want, number, mask):
                continue
            yield number, mask
            found += 1
            if found >= few:
                break


def _of_each_model(draft: Draft, want: Want, stock: Stock) -> Iterator[Pick]:
    """Yield nodes with room for the whole role, a few with engines of each model."""
    models = _models(draft, stock)
    for part in models.values():
        yield from _climb(draft, want, part, _ENDS)
    if models or not draft.speeds.get(want.role):
        return
    found: dict[tuple[int, ...], int] = {}
    for number, mask in _climb(draft, want, stock, _LOOKED_AT_MAX):
        makes = draft.site(number).makes
        found[makes] = found.get(makes, 0) + 1
        if found[makes] <= FEW:
            yield number, mask


def _ends(draft: Draft, want: Want, stock: Stock, few: int) -> Iterator[Pick]:
    """Yield nodes with room for the whole role: of each number of free engines a few.

    They have the least and the most CPU left: what is scarce decides what would be stranded.
    """
    count = want.count
    cpu, memory = want.cpu_millis * count, want.memory_bytes * count
    for number in sorted(draft.touched):
        mask, limit = draft.room(number, want, stock)
        if limit >= count and on_one_leaf(draft, want, number, mask):
            yield number, mask
    fits = _fitting(draft, want, stock, cpu, memory, leaf=want.together == "switch")
    for ladder in (stock.on, stock.every) if draft.wake else (stock.on,):
        rungs = 0
        last = 0
        for rung, number in ladder.ends(count, cpu, few, fits):
            if rung != last:
                last, rungs = rung, rungs + 1
                if rungs > _RUNGS_MAX:
                    break
            yield number, draft.engines(number, stock)


def _fitting(
    draft: Draft, want: Want, stock: Stock, cpu_millis: int, memory_bytes: int, *, leaf: bool
) -> Callable[[int], bool]:
    """Return whether a node that nothing was taken of has room beside its engines."""
    states, touched = draft.pool.free, draft.touched

    def fits(number: int) -> bool:
        free = states[number]
        if memory_bytes and free.memory_bytes < memory_bytes:
            return False
        if (cpu_millis or memory_bytes) and free.cpu_millis < cpu_millis:
            return False
        if number in touched:
            return False
        return not leaf or on_one_leaf(draft, want, number, draft.engines(number, stock))

    return fits


def _loaded_nodes(draft: Draft, want: Want, stock: Stock) -> Iterator[Pick]:
    """Yield nodes with room where the bitstream is, where nothing is, and some others."""
    seen: set[int] = set()
    states = draft.pool.free
    for reference in (want.bitstream, ""):
        there = draft.pool.loaded.get(reference, {})
        found = 0
        for number, loaded in islice(there.items(), _LOOKED_AT_MAX):
            free = states[number]
            # Most are in use; that is seen at once.
            if not (free.on | free.off if draft.wake else free.on) & loaded or number in seen:
                continue
            mask, limit = draft.room(number, want, stock)
            if limit >= want.count and on_one_leaf(draft, want, number, mask):
                seen.add(number)
                yield number, mask
                found += 1
                if found >= _LOADED_MAX:
                    break
    for number, mask in _climb(draft, want, stock, FEW):
        if number not in seen:
            yield number, mask


# -- near what is placed already


def _near(draft: Draft, want: Want, stock: Stock, near: Sequence[Chosen]) -> list[Pick] | None:
    """The same leaf as the roles that circuits join this one with, on one node if it can be."""
    leaves: dict[str, None] = {}
    for chosen in near:
        for number, mask in chosen.picks:
            for leaf, ports in draft.site(number).leaves:
                if mask & ports and leaf != NOWHERE:
                    leaves[leaf] = None
    scorer = Scorer(draft, want, stock)
    for leaf in leaves:
        if left_on(draft, stock, leaf) < want.count:
            continue
        rooms: list[Scored] = []
        for number, ports in ports_on(draft, leaf):
            mask, limit = draft.room(number, want, stock, ports)
            if limit >= want.count:
                picked = positions(draft, want, number, mask, want.count)
                score = scorer.score(number, mask, picked)
                rooms.append((score, draft.host(number)[0], number, picked))
        if rooms:
            _, _, number, picked = min(rooms)
            return [(number, picked)]
        if want.together != "node":
            picks = within(draft, want, stock, ports_on(draft, leaf), want.count)
            if picks is not None:
                return picks
    return None


# -- parts of engines


def _part(draft: Draft, want: Want, stock: Stock, seed: int) -> list[Pick] | None:
    """The part of an engine, or of a whole one, with the least score.

    As long as nothing is known of what usually comes, the least that is left, then a whole one.
    """
    scorer = Scorer(draft, want, stock)
    ranked: list[Scored] = []
    for number, picked in _parts(draft, want, stock, _PARTS):
        score = scorer.score(number, picked, picked)
        ranked.append((score, draft.host(number)[0], number, picked))
    if not ranked or scorer.minds_fragments or _is_afar(draft, min(ranked)[2]):
        ranked += _ranked(draft, want, stock, seed)
    if not ranked:
        return None
    ranked.sort()
    _, _, number, picked = _one_of(draft, ranked, seed)
    return [(number, picked)]


def _parts(draft: Draft, want: Want, stock: Stock, few: int) -> Iterator[Pick]:
    """Yield engines that are partly held and have enough left."""
    cpu, memory = want.cpu_millis, want.memory_bytes
    for number in sorted(draft.touched):
        left_cpu, left_memory = draft.host(number)
        if not (cpu or memory) or (left_cpu >= cpu and left_memory >= memory):
            for position, rest in draft.broken(number, stock):
                if rest >= want.millis and _suits(draft, want, number, position):
                    yield number, 1 << position
    fresh = last = 0
    fits = _fitting(draft, want, stock, cpu, memory, leaf=False)
    for rest, number in stock.parts.ends(want.millis, cpu, _ENDS, fits):
        if rest != last:
            last = rest
            if fresh >= few:
                return
        mask = stock.mask(draft.site(number))
        for position, left in draft.pool.free[number].parts:
            if left == rest and mask >> position & 1 and _suits(draft, want, number, position):
                yield number, 1 << position
                fresh += 1
                break


def _suits(draft: Draft, want: Want, number: int, position: int) -> bool:
    """Whether a part of an engine will do: on a switch if so asked, loaded as its others need it."""
    if want.together == "switch" and leaf_mask(draft.site(number), 1 << position, 1) is None:
        return False
    if not want.bitstream:
        return True
    if draft.loads.get((number, position), want.bitstream) != want.bitstream:
        return False
    view = draft.pool.view
    engine = draft.site(number).engines[position]
    return all(
        (placement := view.now(holder)) is not None
        and placement.bitstreams.get(engine) == want.bitstream
        for holder in view.shares.get(engine, ())
    )


# -- hosts


def _host_at(draft: Draft, host: HostWant, devices: int) -> list[int] | None:
    """The one node that will do."""
    number = draft.pool.numbers.get(host.at)
    if number is None or not draft.attaches(number, devices):
        return None
    cpu, memory = draft.host(number)
    fits = cpu >= host.cpu_millis and memory >= host.memory_bytes
    return [number] if fits and (draft.site(number).linked or not host.linked) else None


def _hosts_for(draft: Draft, host: HostWant, devices: int, seed: int) -> list[int] | None:
    """Nodes without engines first, then where it strands the fewest engines, each the tightest."""
    if host.at:
        return _host_at(draft, host, devices)
    few = host.count + (FEW - 1 if seed else 0)
    ranked = sorted(_hosts(draft, host, devices, few))
    if len(ranked) < host.count:
        return None
    if seed and (_is_afar(draft, ranked[0][-1]) or not draft.pool.divided):
        few_ones = ranked[:few]
        first = scramble(seed) % (len(few_ones) - host.count + 1)
        ranked = few_ones[first:]
    return [number for *_, number in ranked[: host.count]]


def _hosts(
    draft: Draft, host: HostWant, devices: int, few: int
) -> Iterator[tuple[bool, float, int, bool, int, int]]:
    """Yield what hosts are ranked by, and their numbers."""
    states = draft.pool.free
    minds = draft.minds_fragments()

    def entry(number: int, calm: int, cpu: int) -> tuple[bool, float, int, bool, int, int]:
        stranded = 0.0
        if calm and minds:
            stranded = stranded_by_host(draft, number, host)
        return calm > 0, stranded, calm, _is_afar(draft, number), cpu, number

    def fits(number: int) -> bool:
        if states[number].memory_bytes < host.memory_bytes or number in draft.touched:
            return False
        return usable(number)

    def usable(number: int) -> bool:
        if not draft.attaches(number, devices):
            return False
        return draft.site(number).linked or not host.linked

    for number in sorted(draft.touched):
        cpu, memory = draft.host(number)
        enough = cpu >= host.cpu_millis and memory >= host.memory_bytes
        if not enough or number in draft.closed:
            continue
        if usable(number):
            # Its engines are in use, by this very plan.
            yield entry(number, min(draft.pool.free[number].calm, 2), cpu)
    hosts = draft.pool.hosts
    found = 0
    if not minds:
        for calm, number in hosts.climb(0, host.cpu_millis, home_first=False):
            if fits(number):
                yield entry(number, calm, states[number].cpu_millis)
                found += 1
                if found >= few:
                    return
        return
    last = 0
    for calm, number in hosts.ends(0, host.cpu_millis, max(few, FEW), fits):
        if calm != last and found >= few and not last:
            return  # enough nodes have no engines to strand
        last = calm
        yield entry(number, calm, states[number].cpu_millis)
        found += 1
