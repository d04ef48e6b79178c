"""What may a user change of a slice that is there already, and what becomes of its request?"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from flowos.documents.fields import did_you_mean
from flowos.documents.slice_file import COUNT_MAX, PRIORITY_MAX
from flowos.documents.slice_terms import fixed
from flowos.model.cell import WHOLE_MILLIS
from flowos.model.errors import SpecError
from flowos.model.slice import CircuitWish, EngineRole, Mode, Shape, SliceSpec
from flowos.planning.circuits.shapes import pairs_of


@dataclass(frozen=True, slots=True)
class Update:
    """What is to be different; None = stays as it is.

    Attributes:
        sizes: Role -> how many engines it is to have.
        time_limit_seconds: From its start; 0 = none.
        expected_seconds: How long it is expected to run; 0 = nobody knows.
        circuits: All that it is to have: what it lacks is laid first, then the rest goes.
    """

    priority: int | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    time_limit_seconds: float | None = None
    expected_seconds: float | None = None
    circuits: tuple[CircuitWish, ...] | None = None


def updated(spec: SliceSpec, update: Update) -> SliceSpec:
    """Return a request as it is once an update is made.

    Raises:
        SpecError: It cannot be meant: there is no such role, its size is fixed, or out of bounds.
    """
    engines = dict(spec.engines)
    for role, count in update.sizes.items():
        engines[role] = _sized(spec, role, count, keeps=update.circuits is None)
    changes: dict[str, object] = {"engines": engines} if update.sizes else {}
    if update.priority is not None:
        if abs(update.priority) > PRIORITY_MAX:
            hint = f"write {-PRIORITY_MAX} to {PRIORITY_MAX}"
            raise SpecError(f"{update.priority} is out of range", where="--priority", hint=hint)
        changes["priority"] = update.priority
    if update.time_limit_seconds is not None:
        changes["time_limit_seconds"] = update.time_limit_seconds
    if update.expected_seconds is not None:
        changes["expected_seconds"] = update.expected_seconds
    if update.circuits is not None:
        _may_join(replace(spec, engines=engines), update.circuits)
        changes["circuits"] = update.circuits
    return replace(spec, **changes)  # type: ignore[arg-type]  # each by its own name


def _may_join(spec: SliceSpec, circuits: tuple[CircuitWish, ...]) -> None:
    """See that circuits fit a request.

    Raises:
        SpecError: They are of roles or ranks that it does not have, or of a slice with data, or one
            that takes its engines as they come.
    """
    if spec.data:
        raise SpecError(
            f"slice {spec.name} names data, so its circuits stay", where="--circuits",
            hint="submit a slice with the circuits that are wanted",
        )  # fmt: skip
    for wish in circuits:
        for role in wish.roles:
            if role not in spec.engines and role not in spec.hosts:
                hint = did_you_mean(role, spec.engines)
                raise SpecError(
                    f"slice {spec.name} has no role {role}", where="--circuits", hint=hint
                )
        if wish.shape is not Shape.FLOW:
            pairs_of(wish, sum(_count(spec, role) for role in wish.roles))
    if spec.commit == Mode.INCREMENTAL and (found := fixed(circuits)) is not None:
        raise SpecError(
            f"the {found[0]} of {found[1]} needs all of its engines at once, and slice {spec.name} "
            "takes them as they come",
            where="--circuits", hint="use ring, all or star",
        )  # fmt: skip


def _count(spec: SliceSpec, role: str) -> int:
    """Return how many ends a role has, at least."""
    if role not in spec.engines:
        return max(spec.hosts[role].count, 1)
    return min(choice.count for choice in spec.engines[role].choices)


def _sized(spec: SliceSpec, role: str, count: int, *, keeps: bool) -> EngineRole:
    """Return a role of another size, if the rest of the request allows it.

    Args:
        spec: The request as it was.
        role: Whose size.
        count: How many engines it is to have.
        keeps: Whether its circuits stay what they are.
    """
    wish = spec.engines.get(role)
    if wish is None:
        hint = did_you_mean(role, spec.engines)
        raise _size(f"slice {spec.name} has no role {role}", hint)
    if not 1 <= count <= COUNT_MAX:
        raise _size(f"{count} engines for {role} is out of range", f"write 1 to {COUNT_MAX}")
    if any(choice.share_millis != WHOLE_MILLIS for choice in wish.choices):
        raise _size(f"{role} has a share of one engine", "submit a slice with a count instead")
    if len({choice.count for choice in wish.choices}) > 1:
        problem = f"the choices of {role} have different counts"
        raise _size(problem, "submit a slice with the counts that are wanted")
    if keeps and (found := fixed(c for c in spec.circuits if role in c.roles)) is not None:
        problem = f"the {found[0]} of {role} says how many engines it has"
        raise _size(problem, "submit a slice with other circuits")
    low, high = spec.elastic.get(role, (1, COUNT_MAX))
    if not low <= count <= high:
        problem = f"{count} engines for {role} are outside of its elastic bounds"
        raise _size(problem, f"write {low} to {high}")
    least = spec.least.get(role, 1)
    if spec.commit == Mode.INCREMENTAL and count < least:
        raise _size(f"{role} has a min of {least} engines", f"write {least} or more")
    return EngineRole(tuple(replace(choice, count=count) for choice in wish.choices))


def _size(problem: str, hint: str) -> SpecError:
    return SpecError(problem, where="--size", hint=hint)
