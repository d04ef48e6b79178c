"""Which cells and requests can hypothesis make up, to try a scheduler plug-in on?"""

from collections.abc import Callable, Collection
from typing import Final

from flowos.model.slice import (
    CircuitWish,
    Constraints,
    EngineChoice,
    EngineRole,
    HostRole,
    Mode,
    Run,
    Shape,
    SliceSpec,
)
from flowos.testing.cells import GIB, HUGE, MODELS, SUM, Case, Shaped

try:
    from hypothesis import given, settings
    from hypothesis import strategies as st
except ImportError as missing:
    raise ImportError(
        "the laws make up requests with hypothesis, which is not installed: pip install hypothesis"
    ) from missing

EXAMPLES: Final = 25
_ROLES: Final = ("w", "driver")


@st.composite
def cells(draw: st.DrawFn) -> Shaped:
    """Return small cells, parts of which are held, shared, asleep."""
    nodes, gpus, fpgas = (draw(st.integers(0, most)) for most in (4, 3, 2))
    engines = [f"n{n}/gpu{g}" for n in range(nodes) for g in range(gpus)]
    fate = {
        engine: draw(st.sampled_from(["", "", "held", "shared", "asleep"])) for engine in engines
    }

    def of(word: str) -> tuple[str, ...]:
        return tuple(engine for engine in engines if fate[engine] == word)

    busy = tuple(f"n{n}" for n in range(nodes) if draw(st.booleans()))
    return Shaped(
        nodes, gpus, fpgas, draw(st.integers(1, 4)), of("held"), of("shared"), of("asleep"), busy
    )


def counts() -> st.SearchStrategy[int]:
    """Return how many of something are asked for: few, or far too many."""
    return st.integers(1, 5) | st.just(HUGE)


@st.composite
def engine_roles(draw: st.DrawFn) -> EngineRole:
    """Return roles of one or two choices."""
    choices: list[EngineChoice] = []
    for _ in range(draw(st.integers(1, 2))):
        kind = draw(st.sampled_from(["gpu", "gpu", "fpga", "", "abacus"]))
        share = draw(st.sampled_from([1000, 1000, 250, 1]))
        bitstream = draw(st.sampled_from([SUM, ""])) if kind == "fpga" else ""
        models = draw(st.sampled_from([(), (), MODELS[:1], ("none",)]))
        count = draw(counts()) if share == 1000 else 1
        choices.append(EngineChoice(kind, models, count, share, {}, bitstream))
    return EngineRole(tuple(choices))


@st.composite
def specs(draw: st.DrawFn) -> SliceSpec:
    """Return requests as people send them, and some that nobody would."""
    roles = draw(st.lists(st.sampled_from(_ROLES), unique=True))
    engines = {role: draw(engine_roles()) for role in roles}
    hosts: dict[str, HostRole] = {}
    if draw(st.booleans()):
        cpu_millis = draw(st.sampled_from([0, 1, 1000, 9000]))
        hosts["driver"] = HostRole(
            cpu_millis, draw(st.sampled_from([1, GIB])), 0 if "driver" in engines else 1
        )
    shapes = [Shape.RING, Shape.ALL, Shape.STAR]
    joined = bool(engines) and draw(st.booleans())
    circuits = (CircuitWish(draw(st.sampled_from(shapes)), tuple(engines)),) if joined else ()
    return SliceSpec(
        "made-up",
        tenant=draw(st.sampled_from(["default", "nobody"])),
        priority=draw(st.integers(-HUGE, HUGE)),
        engines=engines,
        hosts=hosts,
        circuits=circuits,
        constraints=Constraints(spread=draw(st.sampled_from(["pack", "spread", "rack", "apart"]))),
        commit=draw(st.sampled_from(["", Mode.GANG, Mode.INCREMENTAL])) if not circuits else "",
        expected_seconds=draw(st.sampled_from([0.0, 1.0, 1e12])),
        run=Run(for_seconds=draw(st.sampled_from([0.0, 1.0]))),
        preemptible=draw(st.booleans()),
    )


@st.composite
def made_up_cases(draw: st.DrawFn) -> Case:
    """Return requests on cells, some with units to leave alone."""
    cell = draw(cells())
    units = [f"engine/n{n}/gpu{g}" for n in range(cell.nodes) for g in range(cell.gpus)]
    units += [f"node/n{n}" for n in range(cell.nodes)]
    avoid = draw(st.frozensets(st.sampled_from(units), max_size=3)) if units else frozenset()
    return Case(cell, draw(specs()), avoid, draw(st.sampled_from([0, 1, 12345])))


def try_on_cases(broken: Callable[[Case], Collection[object]]) -> None:
    """Try made-up cases until one breaks a law; the same ones each time.

    Raises:
        AssertionError: One does; it is the smallest that was found.
    """

    @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True)
    @given(made_up_cases())
    def no_law_is_broken(case: Case) -> None:
        found = broken(case)
        assert not found, "; ".join(map(str, found))

    no_law_is_broken()
