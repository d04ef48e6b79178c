"""How is a way to break a law written down, and where are all of them?"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from flowos.model import keys
from flowos.model.codec import decode, encode
from flowos.model.placement import Order
from flowos.model.transaction import Operation, Put
from tests.verify.scene import Scene

T = "default/t"
A = "a1"  # the attempt of what is placed first
PLACED = f"placement/{T}"


class Mistake(NamedTuple):
    """What is written, and what must be said of it."""

    name: str
    law: str
    where: str
    says: str
    plant: Callable[[Scene], Iterable[Operation]]
    stays: bool  # whether the state itself tells, not only the step to it


PLANTED: list[Mistake] = []


def mistake(law: str, where: str, says: str, *, stays: bool = True) -> Any:
    """Add a function to what is planted: it lives in the scene lawfully, and returns what is wrong."""

    def add(plant: Callable[[Scene], Iterable[Operation]]) -> Callable[..., Iterable[Operation]]:
        name = plant.__name__.replace("_", " ")
        PLANTED.append(Mistake(name, law, where, says, plant, stays))
        return plant

    return add


def order_of(scene: Scene, place: str, attempt: str = A, **fields: Any) -> Put:
    """An order as it is, but for these fields."""
    key = keys.order(place, attempt)
    return Put(key, encode(replace(decode(Order, scene.value(key)), **fields)))
