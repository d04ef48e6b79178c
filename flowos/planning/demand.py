"""What does a request ask of this cell: which wares, how many, with what beside them?"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from flowos.model.cell import WHOLE_MILLIS
from flowos.model.errors import SpecError
from flowos.model.slice import CircuitWish, EngineChoice, HostRole, Shape, SliceSpec, misasked
from flowos.planning.circuits.inside import Seating, seating_of
from flowos.planning.circuits.shapes import lanes_at_least, lanes_by_rank, pairs_of
from flowos.planning.engines.pool import Make, Pool, Wares
from flowos.planning.where import Condition, parse_where

Funnel = tuple[tuple[str, int], ...]

_CONDITIONS_OF_MAKES: Final = frozenset(("kind", "model", "memory"))


@dataclass(frozen=True, slots=True)
class Want:
    """One choice of one role, in terms of the pool.

    Attributes:
        millis: Thousandths of the one engine; 1000 = whole engines.
        cpu_millis: Per engine, on its node.
        memory_bytes: The same.
        together: node, switch or any.
        bitstream: "name@digest" that must be loaded; "" = none.
        funnel: How many engines were left after each of its conditions.
        named: The engines in words: "gpu A100".
    """

    role: str
    count: int
    millis: int
    cpu_millis: int
    memory_bytes: int
    together: str
    bitstream: str
    wares: Wares
    funnel: Funnel
    named: str

    @property
    def shared(self) -> bool:
        """Whether it asks for a part of an engine."""
        return self.millis < WHOLE_MILLIS


@dataclass(frozen=True, slots=True)
class HostWant:
    """Host resources without engines, on `count` nodes, perhaps with an attachment port.

    Attributes:
        at: The one node that will do; "" = any.
        attached: (role, how many of its engines at most) that circuits join to each node.
    """

    role: str
    count: int
    cpu_millis: int
    memory_bytes: int
    linked: bool
    at: str = ""
    attached: tuple[tuple[str, int], ...] = ()

    def devices(self, counts: Mapping[str, int]) -> int:
        """Return how many engines circuits attach to each of its nodes.

        Args:
            counts: How many engines each role has.
        """
        return sum(min(most, counts[role]) for role, most in self.attached)


@dataclass(frozen=True, slots=True)
class Demand:
    """All of a request: each engine role with its choices, in the user's order.

    Attributes:
        joined: The roles that circuits join.
        seatings: By wish: what its circuits are remembered by where they stay within a switch, None
            where they are not; empty where none is.
    """

    engines: tuple[tuple[Want, ...], ...]
    hosts: tuple[HostWant, ...]
    joined: frozenset[str] = frozenset()
    seatings: tuple[Seating | None, ...] = ()


class Sifted(NamedTuple):
    """Which wares a choice is content with, and how the cell narrowed down to them."""

    wares: Wares
    funnel: Funnel


def demand_of(pool: Pool, spec: SliceSpec, sizes: Mapping[str, int] | None = None) -> Demand:
    """Return what a spec asks of the cell.

    Args:
        pool: The cell.
        spec: The request.
        sizes: Role -> count, in place of what its choices say.

    Raises:
        SpecError: It asks for what no cell of these bitstreams and roles can give.
    """
    # Many ask for the same, and this decides what it is.
    key: list[object] = ["demand", spec.circuits]
    for role, wish in spec.engines.items():
        key += (role, spec.together.get(role, "any"))
        for choice in wish.choices:
            where = tuple(choice.where.items()) if choice.where else ()
            key += (choice.kind, choice.models, choice.count, choice.share_millis, where)
            key.append(choice.bitstream)
    if spec.hosts:
        key.append(tuple(spec.hosts.items()))
    if sizes:
        key.append(tuple(sizes.items()))
    return pool.recall(tuple(key), lambda: _demand_of(pool, spec, sizes or {}))


def _demand_of(pool: Pool, spec: SliceSpec, sizes: Mapping[str, int]) -> Demand:
    wrong = misasked(spec)
    if wrong:
        raise SpecError(wrong, where=spec.name)
    counts = {
        role: sizes.get(role) or min(choice.count for choice in wish.choices)
        for role, wish in spec.engines.items()
    }
    for role, host in spec.hosts.items():
        counts.setdefault(role, max(host.count, 1))
    for wish in spec.circuits:
        if len(wish.roles) > 1 and wish.shape is Shape.EXPLICIT:
            _know_ranks(spec, wish, sizes)
        elif wish.shape in (Shape.TORUS, Shape.EXPLICIT) and wish.roles[0] in spec.engines:
            # Whichever choice is taken must have the ranks that the shape names.
            role = wish.roles[0]
            for choice in spec.engines[role].choices:
                lanes_at_least(wish, sizes.get(role) or choice.count)
    lanes = _lanes_at_each(spec.circuits, counts, _kin_of(spec))
    engines = tuple(
        tuple(_want(pool, spec, role, choice, sizes, lanes) for choice in wish.choices)
        for role, wish in spec.engines.items()
    )

    def linked(role: str) -> bool:
        return role in lanes and role not in spec.engines  # else the engines are the ends

    hosts = tuple(
        HostWant(
            role,
            max(host.count, 1),
            host.cpu_millis,
            host.memory_bytes,
            linked(role),
            host.at,
            _attached(spec, role) if linked(role) else (),
        )
        for role, host in spec.hosts.items()
        if role not in spec.engines or host.count
    )
    joined = frozenset(role for wish in spec.circuits for role in wish.roles)
    # The lanes at an engine that is held whole are the slice's; others have to be claimed.
    whole = {wants[0].role for wants in engines if not any(want.shared for want in wants)}
    seatings = tuple(seating_of(w) if whole.issuperset(w.roles) else None for w in spec.circuits)
    return Demand(engines, hosts, joined, seatings if any(seatings) else ())


def _know_ranks(spec: SliceSpec, wish: CircuitWish, sizes: Mapping[str, int]) -> None:
    """See that it is known where the ranks of each role begin.

    Raises:
        SpecError: The choices of a role have different counts.
    """
    for role in wish.roles:
        choices = spec.engines[role].choices if role in spec.engines else ()
        if role not in sizes and len({choice.count for choice in choices}) > 1:
            raise SpecError(
                f"circuits by rank need to know how many engines {role} has, and its choices have "
                "different counts"
            )


_NO_HOST: Final = HostRole()
_EVERY: Final = 1 << 30  # of a role's engines


def _attached(spec: SliceSpec, role: str) -> tuple[tuple[str, int], ...]:
    """Return (role, how many of its engines at most) that circuits join to each node of a role."""
    most: dict[str, int] = {}
    for wish in spec.circuits:
        if role not in wish.roles:
            continue
        for other in wish.roles:
            # In a ring or a torus an end has two neighbours in each direction; a star's centre,
            # and both sides of a flow, have all.
            near = 2 * max(len(wish.dims), 1)
            if wish.shape not in (Shape.RING, Shape.TORUS):
                near = _EVERY
            if wish.shape is Shape.STAR and wish.roles[0] not in (role, other):
                near = 0
            if other in spec.engines and near:
                most[other] = max(near, most.get(other, 0))
    return tuple(most.items())


def _want(
    pool: Pool,
    spec: SliceSpec,
    role: str,
    choice: EngineChoice,
    sizes: Mapping[str, int],
    lanes: Mapping[str, int],
) -> Want:
    bitstream = ""
    if choice.bitstream:
        known = pool.view.cell.bitstream(choice.bitstream)
        if known is None:
            raise SpecError(f"bitstream {choice.bitstream} is not known to the cell", where=role)
        bitstream = known.reference
    host = spec.hosts.get(role, _NO_HOST)
    if host.count:
        host = _NO_HOST
    wares, funnel = sift(pool, choice, lanes.get(role, 0))
    return Want(
        role=role,
        count=sizes.get(role) or choice.count,
        millis=choice.share_millis,
        cpu_millis=host.cpu_millis,
        memory_bytes=host.memory_bytes,
        together=spec.together.get(role, "any"),
        bitstream=bitstream,
        wares=wares,
        funnel=funnel,
        named=" ".join(filter(None, (choice.kind or "engine", "|".join(choice.models)))),
    )


def sift(pool: Pool, choice: EngineChoice, lanes: int = 0) -> Sifted:
    """Return the wares that a choice is content with.

    Args:
        pool: The cell.
        choice: The count does not matter here.
        lanes: How many port lanes, each way, its circuits need at one engine.

    Raises:
        SpecError: A condition that cannot be read.
    """
    shared = choice.share_millis < WHOLE_MILLIS
    where = tuple(choice.where.items()) if choice.where else ()
    key = ("sift", choice.kind, choice.models, where, choice.bitstream, shared, lanes)
    return pool.recall(key, lambda: _sift(pool, choice, lanes))


def _sift(pool: Pool, choice: EngineChoice, lanes: int) -> Sifted:
    left: dict[int, tuple[Condition, ...]] = dict.fromkeys(range(len(pool.makes)), ())
    funnel: list[tuple[str, int]] = []

    def narrow(step: str, keep: Callable[[Make], bool]) -> None:
        for number in [n for n in left if not keep(pool.makes[n])]:
            del left[number]
        funnel.append((step, sum(pool.counts[n] for n in left)))

    for step, keep in steps_of(pool, choice, lanes):
        narrow(step, keep)
    open_ones: list[Condition] = []
    for condition in parse_where(choice.where):
        if condition.key in _CONDITIONS_OF_MAKES:
            continue
        # An attribute of the engine has the last word; what it does not say, its node may.
        own = {n for n in left if condition.key in dict(pool.makes[n].attributes)}
        narrow(str(condition), lambda make, c=condition: _may_hold(c, make))  # type: ignore[misc]
        for number in left.keys() - own:
            left[number] = (*left[number], condition)
            open_ones.append(condition)
    wares = frozenset(left.items())
    if open_ones:
        steps = list(dict.fromkeys(str(condition) for condition in open_ones))
        funnel.append((" and ".join(steps), pool.stock(wares).existing))
    return Sifted(wares, tuple(funnel))


def _may_hold(condition: Condition, make: Make) -> bool:
    found = make.found()
    return condition.key not in found or condition.holds(found[condition.key])


def steps_of(
    pool: Pool, choice: EngineChoice, lanes: int
) -> Iterable[tuple[str, Callable[[Make], bool]]]:
    """Yield (step, test) for all that a choice asks of an engine's make, in the funnel's order."""
    if choice.kind:
        yield f"kind {choice.kind}", lambda make: make.kind == choice.kind
    else:
        yield "all kinds", lambda _: True
    if choice.models:
        yield f"model {'|'.join(choice.models)}", lambda make: make.model in choice.models
    for condition in parse_where(choice.where):
        if condition.key in _CONDITIONS_OF_MAKES:
            yield str(condition), lambda make, c=condition: c.holds(make.found()[c.key])  # type: ignore[misc]
    if choice.share_millis < WHOLE_MILLIS:
        yield "shareable", lambda make: make.shareable
    bitstream = pool.view.cell.bitstream(choice.bitstream) if choice.bitstream else None
    if bitstream is not None:
        yield (
            f"loads {bitstream.name}",
            lambda make: (
                make.loads_bitstreams
                and make.kind == bitstream.kind
                and (not bitstream.models or make.model in bitstream.models)
            ),
        )
    if lanes:
        yield f"{lanes} port lane{'' if lanes == 1 else 's'}", lambda make: make.port_lanes >= lanes


def _kin_of(spec: SliceSpec) -> dict[str, str]:
    """Return the roles whose ends may be those of another role: shares of engines, and hosts.

    Between an end and itself no circuit is laid.
    """
    shared = {
        role: "share"
        for role, wish in spec.engines.items()
        if any(choice.share_millis < WHOLE_MILLIS for choice in wish.choices)
    }
    return {**{role: "host" for role in spec.hosts if role not in spec.engines}, **shared}


def _lanes_at_each(
    wishes: Iterable[CircuitWish], counts: Mapping[str, int], kin: Mapping[str, str]
) -> dict[str, int]:
    """Return, per role that has ends, the lanes that each engine needs at its ports, at least."""
    out: dict[str, int] = {}
    into: dict[str, int] = {}
    for wish in wishes:
        for role, (leaving, coming) in _lanes_of(wish, counts, kin).items():
            out[role] = out.get(role, 0) + leaving * wish.lanes
            into[role] = into.get(role, 0) + coming * wish.lanes
    return {role: max(out[role], into[role]) for role in out if out[role] or into[role]}


def _lanes_of(
    wish: CircuitWish, counts: Mapping[str, int], kin: Mapping[str, str]
) -> dict[str, tuple[int, int]]:
    unknown = [role for role in wish.roles if role not in counts]
    if unknown:
        raise SpecError(f"circuits name role {unknown[0]}, which the slice does not have")
    if wish.shape is Shape.FLOW:
        source, target = wish.roles[0], wish.roles[-1]
        if source == target:
            others = counts[source] - 1
            return {source: (others, others)}
        same = 1 if source in kin and kin[source] == kin.get(target) else 0
        sources, targets = counts[source] - same, counts[target] - same
        # Where many meet to be aggregated, one lane in may come to be enough.
        coming = min(1, sources) if wish.aggregate else sources
        leaving = min(1, targets) if counts[source] == 1 else targets
        return {source: (leaving, 0), target: (0, coming)}
    if wish.shape is Shape.EXPLICIT:
        return _lanes_by_role(wish, counts, kin)
    alike: dict[str, int] = {}
    for role in dict.fromkeys(wish.roles):
        key = kin.get(role, f"role {role}")
        alike[key] = max(alike.get(key, 0), counts[role])
    ends = sum(alike.values())
    if wish.shape is Shape.TORUS:
        return {wish.roles[0]: lanes_at_least(wish, ends)}
    if ends < 2:
        return {}
    if wish.shape is Shape.ALL:
        return dict.fromkeys(wish.roles, (ends - 1, ends - 1))
    lanes = dict.fromkeys(wish.roles, (1, 1))
    centre = wish.roles[0]
    if wish.shape is Shape.STAR and counts[centre] == 1:
        lanes[centre] = (ends - 1, ends - 1)
    return lanes


def _lanes_by_role(
    wish: CircuitWish, counts: Mapping[str, int], kin: Mapping[str, str]
) -> dict[str, tuple[int, int]]:
    """Return for each role of an explicit shape what its rank with the fewest circuits needs."""
    ranks: dict[str, range] = {}
    kinds: list[str] = []  # by rank
    for role in wish.roles:
        ranks[role] = range(len(kinds), len(kinds) + counts[role])
        kinds += [kin.get(role, "")] * counts[role]
    pairs = [  # ends of one kind may be the same one
        (a, b) for a, b in pairs_of(wish, len(kinds)) if not kinds[a] or kinds[a] != kinds[b]
    ]
    out, into = lanes_by_rank(wish, pairs)
    return {role: (min(out[n] for n in of), min(into[n] for n in of)) for role, of in ranks.items()}
