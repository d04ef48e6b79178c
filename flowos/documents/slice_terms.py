"""On which terms is a slice placed: after whom, as which of an array, how much of it at once?

    depends_on: [a, other/b, {on: c, once: ended}]  # once: done | ended | running
    array: 10                # ten alike: <name>-0 to <name>-9
    array: {count: 10, first: 1, parallel: 2}       # from <name>-1; two of them at once
    array: 0-99%10           # or these, ten at once; also 1,3,5-9:2
    array: {of: train, index: 7, count: 10}         # the one slice train-7 of such an array
    min: {workers: 4}        # begins with four and takes the rest as it can; 4 = of its one role
    commit: incremental      # takes what fits; gang = all or nothing
    preemptible: true        # gives way to more important slices, and is queued again
    grace: 30s               # what its tasks get before they are ended, where it gives way
    reservation: maintenance-window-7

In an array, a plain number in quotes or in an option is how many, too.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from flowos.documents.fields import SLICE_NAME, Fields, did_you_mean, known_fields
from flowos.documents.quantities import shown
from flowos.documents.text import Place
from flowos.model.slice import (
    CircuitWish,
    Dependency,
    EngineRole,
    Member,
    Mode,
    Once,
    Shape,
    SliceSpec,
)

TERMS: Final = ("depends_on", "array", "min", "commit", "preemptible", "grace", "reservation")
MEMBERS_MAX: Final = 4_000  # what goes into one submission: all of them, or none
INDEX_MAX: Final = 10**9
DEPENDENCIES_MAX: Final = 100  # of one slice; an array counts as one
_DEPENDENCY: Final = known_fields("on", "once")
_ARRAY: Final = known_fields("count", "first", "parallel", "of", "index")
_SPAN: Final = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9})(?::([0-9]{1,9}))?)?")
_ARRAY_FORMS: Final = "write such as 10, 0-99, 0-99%10 for ten at once, or 1,3,5-9:2"


@dataclass(frozen=True, slots=True)
class Array:
    """Which members an array has.

    Attributes:
        indexes: Of each, in order.
        parallel: How many may hold anything at once; 0 = all.
        of: For one member alone: the array's name.
        size: And how many it has in all.
    """

    indexes: Sequence[int]
    parallel: int = 0
    of: str = ""
    size: int = 0


# ------------------------------------------------------------------------------------ dependencies


def dependencies(top: Fields, tenant: str, name: str) -> Iterator[Dependency]:
    """Read what a slice waits for; a name without a tenant is of its own."""
    written = top.value("depends_on")
    entries: list[tuple[Place, object]] = [(top.place_of("depends_on"), written)]
    if not isinstance(written, str | dict):
        entries = top.entries("depends_on")
    if len(entries) > DEPENDENCIES_MAX:
        hint = f"name at most {DEPENDENCIES_MAX}; an array counts as one"
        raise top.fail("depends_on", f"names {len(entries)} slices", hint)
    seen: set[str] = set()
    for place, value in entries:
        once = Once.DONE
        if isinstance(value, dict):
            fields = Fields(top.document, place, value, _DEPENDENCY)
            value = fields.text("on")
            once = Once(fields.one_of("once", tuple(map(str, Once)), str(Once.DONE)))
        on = _identifier(top, place, value, tenant)
        if on == f"{tenant}/{name}":
            problem = f"{name} waits for itself"
            raise top.document.error(place, problem, "name another slice")
        if on in seen:
            raise top.document.error(place, f"names {on} twice", "leave one of them out")
        seen.add(on)
        yield Dependency(on, once)


def _identifier(top: Fields, place: Place, value: object, tenant: str) -> str:
    parts = value.split("/") if isinstance(value, str) else []
    if len(parts) not in (1, 2) or not all(map(SLICE_NAME.fullmatch, parts)):
        hint = "write such as prepare, or vision/prepare for one of another tenant"
        raise top.document.error(place, f"{shown(value)} names no slice", hint)
    return "/".join([tenant, *parts][-2:])


def cycle_in(specs: Iterable[SliceSpec]) -> list[str]:
    """Return slices, or arrays, each of which waits for the next and the last for the first.

    A slice can only wait for one that is there before, or is submitted with it. So no cycle can
    come from anywhere but one submission.

    Returns:
        None of them twice; empty where nobody waits for himself.
    """
    specs = list(specs)
    # The members of an array wait for the same, so they count as one.
    group = {spec.id: f"{spec.tenant}/{spec.array.array}" for spec in specs if spec.array}
    waits: dict[str, dict[str, None]] = {}
    for spec in specs:
        known = waits.setdefault(group.get(spec.id, spec.id), {})
        known |= {group.get(d.on, d.on): None for d in spec.depends_on}
    over: set[str] = set()
    for start in waits:
        path: dict[str, Iterator[str]] = {start: iter(waits[start])}
        while path:
            at = next(reversed(path))
            following = next((n for n in path[at] if n in waits and n not in over), None)
            if following is None:
                over.add(at)
                del path[at]
            elif following in path:
                names = list(path)
                return names[names.index(following) :]
            else:
                path[following] = iter(waits[following])
    return []


# ------------------------------------------------------------------------------------------ arrays


def array(top: Fields) -> Array | None:
    """Read which members an array has; None where the slice is none."""
    written = top.value("array")
    if written is None:
        return None
    if isinstance(written, str):
        return _spans(top, written)
    if not isinstance(written, dict):
        return Array(range(top.whole("array", None, 1, MEMBERS_MAX)))
    fields = Fields(top.document, top.place_of("array"), written, _ARRAY)
    if fields.has("of") or fields.has("index"):
        if fields.has("first"):
            raise fields.fail("first", "belongs to a whole array", "leave it out, or of and index")
        return Array(
            (fields.whole("index", None, 0, INDEX_MAX),),
            parallel=fields.whole("parallel", 0, 1, MEMBERS_MAX),
            of=fields.name("of", form=SLICE_NAME),
            size=fields.whole("count", None, 1, MEMBERS_MAX),
        )
    count = fields.whole("count", None, 1, MEMBERS_MAX)
    first = fields.whole("first", 0, 0, INDEX_MAX)
    parallel = fields.whole("parallel", 0, 1, MEMBERS_MAX)
    return Array(range(first, first + count), parallel)


def _spans(top: Fields, written: str) -> Array:
    """Read "0-99%10": spans of indexes as batch systems write them; one number = how many."""
    text, limited, most = written.strip().partition("%")
    found = [_SPAN.fullmatch(part.strip()) for part in text.split(",")]
    if not all(found) or (limited and not re.fullmatch(r"[0-9]{1,9}", most.strip())):
        raise top.fail("array", f"{shown(written)} is no array", _ARRAY_FORMS)
    for span in found:
        if span and span[2] and int(span[2]) < int(span[1]):
            problem = f"the range {span[1]}-{span[2]} is backwards"
            raise top.fail("array", problem, f"write {span[2]}-{span[1]}")
    spans = [range(int(m[1]), int(m[2] or m[1]) + 1, int(m[3] or 1) or 1) for m in found if m]
    if len(found) == 1 and "-" not in text:
        spans = [range(spans[0].start)]
    count = sum(map(len, spans))
    if not 1 <= count <= MEMBERS_MAX:
        raise top.fail("array", f"has {count} slices", f"write 1 to {MEMBERS_MAX}")
    indexes = [index for span in spans for index in span]
    if len(set(indexes)) != count:
        raise top.fail("array", f"{shown(written)} has an index twice", _ARRAY_FORMS)
    parallel = int(most) if limited else 0
    if limited and not parallel:
        raise top.fail("array", "lets none of them run", "write %1 or more")
    return Array(indexes, parallel)


def members(spec: SliceSpec, wish: Array | None, top: Fields) -> list[SliceSpec]:
    """Return the slices that a document describes: one, or each member of its array.

    Raises:
        FileError: A member would wait for another one of its own array, or its name be too long.
    """
    if wish is None:
        return [spec]
    size = wish.size or len(wish.indexes)
    name = wish.of or spec.name
    if wish.of and spec.name != f"{wish.of}-{wish.indexes[0]}":
        hint = f"name it {wish.of}-{wish.indexes[0]}"
        raise top.fail("name", f"{spec.name} is not of array {wish.of} by its name", hint)
    longest = f"{name}-{max(wish.indexes)}"
    if SLICE_NAME.fullmatch(longest) is None:
        room = 63 - len(longest) + len(name)
        problem = f"{longest} has {len(longest)} characters, and names have 63 at most"
        raise top.fail("name", problem, f"use a name of up to {room}")
    found = [
        replace(spec, name=f"{name}-{index}", array=Member(name, index, size, wish.parallel))
        for index in wish.indexes
    ]
    own = {member.id for member in found} | {f"{spec.tenant}/{name}"}
    for dependency in spec.depends_on:
        if dependency.on in own:
            problem = f"its own array is waited for, by {dependency.on}"
            raise top.fail("depends_on", problem, "give what comes first a slice of its own")
    return found


# ---------------------------------------------------------------------------------- how much of it


def least(top: Fields, engines: Mapping[str, EngineRole]) -> Iterator[tuple[str, int]]:
    """Read with how many engines of a role the slice can begin."""
    written = top.value("min")
    if written is not None and not isinstance(written, dict):
        if len(engines) != 1:
            problem = f"does not say of which role: there are {len(engines)}"
            raise top.fail("min", problem, f"write min: {{{next(iter(engines), 'role')}: ...}}")
        yield _count(top, next(iter(engines)), top.place_of("min"), written, engines)
        return
    for name, place, value in top.pairs("min"):
        if name not in engines:
            hint = did_you_mean(name, engines)
            raise top.document.error(place, f"there is no role {shown(name)}", hint)
        yield _count(top, name, place, value, engines)


def _count(
    top: Fields, role: str, place: Place, value: object, engines: Mapping[str, EngineRole]
) -> tuple[str, int]:
    most = min(choice.count for choice in engines[role].choices)
    if type(value) is not int or value < 1:
        hint = f"write 1 to {most}"
        raise top.document.error(place, f"{shown(value)} is no number of engines", hint)
    if value > most:
        problem = f"{role} can begin with {value} engines, but asks for {most}"
        raise top.document.error(place, problem, f"write 1 to {most}, or raise its count")
    return role, value


def mode(top: Fields, least_: Mapping[str, int], circuits: Iterable[CircuitWish]) -> str:
    """Read how the slice takes what it asks for; "" = as its policy does."""
    said = top.one_of("commit", ("", *map(str, Mode)), "") if top.has("commit") else ""
    if said == Mode.GANG and least_:
        problem = "a gang takes all or nothing, and min says that it can begin with less"
        raise top.fail("commit", problem, "leave min out, or write commit: incremental")
    if not said and least_:
        said = str(Mode.INCREMENTAL)
    if said == Mode.INCREMENTAL and (found := fixed(circuits)):
        shape, role = found
        where = "commit" if top.has("commit") else "min"
        problem = f"the {shape} of {role} needs all of its engines at once"
        raise top.fail(where, problem, "leave it out, or use ring, all or star")
    return said


def fixed(circuits: Iterable[CircuitWish]) -> tuple[str, str] | None:
    """Return the first shape of circuits, and its role, that does not exist with fewer engines."""
    for wish in circuits:
        if wish.shape in (Shape.TORUS, Shape.EXPLICIT):
            return str(wish.shape), wish.roles[0]
    return None


def refuse_cycle(specs: Sequence[SliceSpec], documents: Mapping[str, Fields]) -> None:
    """Refuse slices of one file that wait for each other.

    Args:
        specs: All of them.
        documents: Slice or array, "tenant/name" -> the document that describes it.

    Raises:
        FileError: They do; names the line of the first.
    """
    if found := cycle_in(specs):
        raise documents[found[0]].fail("depends_on", told(found), "leave out one of them")


def told(cycle: Sequence[str]) -> str:
    """Return in words who waits for whom."""
    return ", ".join(
        f"{one} waits for {other}" for one, other in zip(cycle, [*cycle[1:], cycle[0]], strict=True)
    )
