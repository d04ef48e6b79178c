"""What is compared: which cell, who schedules, by which rules, how long do they think?"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from flowos.model.cell import Cell
from flowos.simulation.light.schedulers import Pace

# "monolithic-single": one scheduler, one queue, and each decision takes as long as the slowest
# class of slices needs. "monolithic-multi": the same with each class at its own pace.
# "shared-frozen": schedulers side by side, each on a copy that is as old as its decision: Omega as
# published. "shared-live": the same on live copies; only a commit's round trip is open to rivals.
# "offers": two levels, as Mesos has them.
Architecture: TypeAlias = Literal[
    "monolithic-single", "monolithic-multi", "shared-frozen", "shared-live", "offers"
]
# What a node's offer says of devices. "own": what sits on it. "optimistic": the proxy agent adds
# all free devices that it could attach, to each node's offer. "pessimistic": it deals them out, so
# that all offers together have as many as there are.
Devices: TypeAlias = Literal["own", "optimistic", "pessimistic"]
# To whom offers go. "nodes": node by node, each to whoever has the smallest dominant share, what was
# dealt just now included, as Mesos' allocator does. "whole": all to one, as in the published
# simulation of Mesos.
Dealing: TypeAlias = Literal["nodes", "whole"]
DEALINGS: Final[tuple[Dealing, ...]] = ("nodes", "whole")


@dataclass(frozen=True, slots=True)
class OfferRules:
    """How the two levels deal with each other.

    Attributes:
        devices: What a node's offer says of devices.
        dealing: To whom offers go.
        batch_s: What is free is gathered for so long before it is offered.
        allocator_s: How long the allocator takes to make an offer.
        retry_s: When a slice whose acceptance failed is looked at again.
        refuse_s: Where devices are dealt out: who refused all that is free is offered it again, dealt
            otherwise, after so long; Mesos' default. Elsewhere only when there is any news.
        hold_s: How long the oldest slice of a framework that does not fit keeps what it was offered
            before it gives all of it back: hold and wait. 0 = it keeps nothing: refuse and wait.
    """

    devices: Devices = "own"
    dealing: Dealing = "nodes"
    batch_s: float = 1.0
    allocator_s: float = 0.001
    retry_s: float = 1.0
    refuse_s: float = 5.0
    hold_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PowerRules:
    """What becomes of idle engines: the same in all architectures.

    Attributes:
        off_after_s: An engine that nobody has held for so long is powered off; infinite = never.
        wake_s: From its being claimed until it can be used; it draws what an idle one does.
    """

    off_after_s: float = float("inf")
    wake_s: float = 60.0


NO_OFFERS: Final = OfferRules()


@dataclass(frozen=True, slots=True)
class Setup:
    """One run.

    Attributes:
        cell: What there is. It is read, and can serve many runs.
        architecture: Who decides on what.
        paces: By class of slices, which is their policy: t_job for a slice, t_task for each engine.
            Each class has a scheduler, or framework, of its own; a monolithic scheduler has all.
        seconds: When the run ends, virtual.
        schedulers: How many serve each class, 1 where it is not said; not for monolithic.
        offers: The rules of offers.
        power: What becomes of idle engines.
        round_trip_s: Of a commit on shared state with live copies.
        starving_s: In monolithic and shared state: others keep away from where a slice that waited
            for so long can go soonest, as in production; infinite = never. See `central`.
        sample_s: How often stranded engines are counted; 0 = never.
        seed: Of the order of offers, and pauses.
    """

    cell: Cell
    architecture: Architecture
    paces: Mapping[str, Pace]
    seconds: float
    schedulers: Mapping[str, int] = field(default_factory=dict)
    offers: OfferRules = NO_OFFERS
    power: PowerRules = PowerRules()
    round_trip_s: float = 0.002
    starving_s: float = 10.0
    sample_s: float = 10.0
    seed: int = 1
