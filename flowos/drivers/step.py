"""The steps that agents ask of drivers, and the seam that drivers fill."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

from flowos.model.placement import Order


class Verb(StrEnum):
    """What is to be done to devices at one place."""

    POWER_ON = "power on"
    POWER_OFF = "power off"
    LOAD = "load"  # a bitstream into an engine
    CONNECT = "connect"  # the crossbar entries and ports of an order
    RUN = "run"  # the order's tasks here; finished when they have ended
    STOP = "stop"  # the order's tasks
    DISCONNECT = "disconnect"
    SCRUB = "scrub"  # wipe what a task left in an engine


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do.

    A STOP, DISCONNECT or SCRUB without an attempt is a part of a sweep, at a place of which nobody
    knows what is up: every task, every entry of the crossbar and every open port, every engine of
    the place, but for the units that `keep` names for their attempts. The driver knows what there
    is. Where not all engines of an attempt stay, its tasks there are stopped.

    Attributes:
        place: The node or switch.
        attempt: For whom; "" = for whoever was there before.
        verb: What.
        subject: The engine, or "" for the whole order; for a sweep: the whole place.
        order: What is to be up here for the attempt (for STOP and DISCONNECT: what was).
        keep: For a sweep: attempt -> what may be up for it, and stays as it is. For a DISCONNECT of
            an attempt: the same, of its own: circuits that stay lit while others go.
        graces: For a STOP: attempt -> for how many seconds its tasks, which are told to end, may go
            on. It has ended when all of them have, or are made to.
    """

    place: str
    attempt: str
    verb: Verb
    subject: str
    order: Order
    keep: Mapping[str, Order] = field(default_factory=dict)
    graces: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finished:
    """How a step ended: exit_code for RUN, an error in words for what could not be done."""

    step: Step
    exit_code: int = 0
    error: str = ""


class Driver(Protocol):
    """Carries out steps; several may be under way at once. Never blocks."""

    def begin(self, step: Step, now: float) -> None:
        """Start a step. STOP ends the RUN of the same place and attempt without a word of it."""

    def finished(self, now: float) -> list[Finished]:
        """Return the steps that have ended since the last call."""

    def next_at(self) -> float:
        """Return the monotonic second at which `finished` may have something; inf = unknown."""

    def close(self) -> None:
        """Tell no more. What runs may go on only where a driver that begins anew takes it over."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What is up at a place for an attempt.

    Attributes:
        place: The node or switch.
        attempt: For whom.
        order: What is up, as it was ordered.
        running: Whether its tasks run; `finished` will tell of their end.
        exit_code: What they ended with, if `finished` has told that already.
    """

    place: str
    attempt: str
    order: Order
    running: bool = False
    exit_code: int | None = None


@runtime_checkable
class Remembering(Protocol):
    """A driver that can tell what an earlier agent, or another store's orders, have left up.

    Its word is believed: where it names nothing, nothing is torn down before something new is
    built. A driver that is not sure, as after a crash of its own, has to say so.
    """

    def standing(self) -> list[Standing] | None:
        """Return all that is up; None = it does not know."""
