"""What can be held, by name: units, their kinds, amounts and ends.

A unit's name is also its claim's key below "claim/":
  engine/<node>/<engine>          a whole engine
  share/<node>/<engine>           thousandths of an engine         amounts (millis,)
  host/<node>                     CPU and memory of a node         amounts (cpu_millis, memory_bytes)
                                  and engines attached to it       or (.., .., devices)
  lane/<link>/<fwd|rev>/<n>       one lane of a link, one way
  aggregator/<switch>/<n>         one aggregator of a switch
  node/<node>, switch/<s>, link/<l>   the thing itself, out of service (system placements only)
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias

from flowos.model.cell import Cell

Amounts: TypeAlias = tuple[int, ...]
Holding: TypeAlias = Mapping[str, Amounts]  # unit -> amounts; () for whole units

NOTHING: Holding = MappingProxyType({})
DIVISIBLE = ("share", "host")
_UNIT = re.compile(  # each group has one amount more than the one before it
    r"(engine/[^/]+/[^/]+|(?:node|switch|link)/[^/]+"
    r"|lane/.+/(?:fwd|rev)/[0-9]{1,4}|aggregator/[^/]+/[0-9]{1,4})"
    r"|(share/[^/]+/[^/]+)|(host/[^/]+)"
)
_HOST_AMOUNTS = 3
OUT_OF_SERVICE = ("node", "switch", "link")


def engine_unit(engine: str) -> str:
    """Return the unit of a whole engine."""
    return f"engine/{engine}"


def share_unit(engine: str) -> str:
    """Return the unit of parts of an engine."""
    return f"share/{engine}"


def host_unit(node: str) -> str:
    """Return the unit of a node's CPU and memory, and of the devices attached to it."""
    return f"host/{node}"


def lane_unit(link: str, direction: str, lane: int) -> str:
    """Return the unit of one lane, in one direction, "fwd" or "rev"."""
    return f"lane/{link}/{direction}/{lane}"


def aggregator_unit(switch: str, number: int) -> str:
    """Return the unit of one aggregator."""
    return f"aggregator/{switch}/{number}"


def kind_of(unit: str) -> str:
    """Return the first word of a unit's name."""
    return unit[: unit.index("/")]


def is_divisible(unit: str) -> bool:
    """Whether several holders can have parts of it: then each has a claim of its own."""
    return unit.startswith(("share/", "host/"))


def is_laid(unit: str) -> bool:
    """Whether it is a part of circuits, which lie between things: a lane or an aggregator."""
    return unit.startswith(("lane/", "aggregator/"))


def subject_of(unit: str) -> str:
    """Return what the unit is of: an engine id, a node, a link, a switch."""
    kind, _, rest = unit.partition("/")
    if kind == "lane":
        return rest.rsplit("/", 2)[0]
    return rest.rpartition("/")[0] if kind == "aggregator" else rest


def place_in(unit: str) -> str:
    """Return the node or switch that a unit is part of; not for lanes and links, which have two."""
    return unit.split("/", 2)[1]


def well_formed(unit: str, amounts: Amounts) -> bool:
    """Whether a record names a unit that can be, with as many amounts as its kind has."""
    found = _UNIT.fullmatch(unit)
    if found is None:
        return False
    # A host's third amount is there where devices are attached to a node that limits them.
    return found.lastindex == len(amounts) + 1 or found.lastindex == len(amounts) == _HOST_AMOUNTS


def claim_key(unit: str, attempt: str) -> str:
    """Return the key that says who holds the unit; divisible units have one per holder."""
    return f"claim/{unit}/{attempt}" if is_divisible(unit) else f"claim/{unit}"


def places_of(cell: Cell, unit: str) -> tuple[str, ...]:
    """Return the nodes and switches that build and tear down a unit: both ends of a lane.

    A whole engine's port lanes come with it, so the switches at its ports count too.
    """
    kind = kind_of(unit)
    subject = subject_of(unit)
    if kind in ("lane", "link"):
        link = cell.links.get(subject)
        if link is None:
            return ()
        return tuple(sorted({cell.place_of(link.a_thing), cell.place_of(link.b_thing)}))
    if kind == "engine":
        places = {subject.partition("/")[0]}
        for name in cell.links_at.get(subject, ()):
            link = cell.links[name]
            places |= {cell.place_of(link.a_thing), cell.place_of(link.b_thing)}
        return tuple(sorted(places))
    return (cell.place_of(subject),)


def things_used(cell: Cell, unit: str) -> tuple[str, ...]:
    """Return the out-of-service units that must be absent for this unit to be usable."""
    kind = kind_of(unit)
    subject = subject_of(unit)
    if kind == "lane":
        return (f"link/{subject}", *(_service_unit(cell, p) for p in places_of(cell, unit)))
    return (_service_unit(cell, cell.place_of(subject)),)


def _service_unit(cell: Cell, place: str) -> str:
    return f"switch/{place}" if place in cell.switches else f"node/{place}"
