"""What does the operator tell a cell's schedulers: weights, who serves what, and windows?"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from flowos.model.cell import STRICT, Attribute
from flowos.model.slice import POLICY_DEFAULT


@dataclass(frozen=True, slots=True)
class PlannerRules:
    """The record `rule/planner`. Planners do without it: then every field has its default.

    Attributes:
        weights: Weights of the planner's score by name; those not named keep their defaults.
        speeds: Type of work -> engine model -> units of work that one engine does in a second.
        units: Type of work -> what one unit of it is, for people: "samples".
        joule_seconds: How many seconds of a slice's time one joule is worth, where the slice does
            not say; 0 = the fastest engines are taken, whatever they draw, and for work whose amount
            nobody says those that do the most for a joule.
        circuit_seconds: How long it takes to set circuits up.
        wake_seconds: How long an engine takes from off to powered.
        report: Where the weights come from, for people and `flowos tune`.
    """

    __pydantic_config__: ClassVar = STRICT

    weights: Mapping[str, float] = field(default_factory=dict)
    speeds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    joule_seconds: float = 0.0
    circuit_seconds: float = 0.01  # optical switches turn in 1.2 ms (median); agents carry it out
    wake_seconds: float = 20.0  # a board's power-on and self-test
    report: Mapping[str, Attribute] = field(default_factory=dict)


NO_RULES = PlannerRules()


@dataclass(frozen=True, slots=True)
class Assignment:
    """Which policy serves slices of a kind; what is empty or 0 matches every slice.

    Attributes:
        policy: Who serves them.
        tenants: Of these tenants.
        kinds: That ask for an engine of one of these kinds.
        names: Whose name is like one of these patterns, "train-*".
        engines_least: That ask for so many engines or more.
        shapes: With circuits of one of these shapes.
        preemptible: Whether slices of this kind give way, where they do not say.
    """

    __pydantic_config__: ClassVar = STRICT

    policy: str
    tenants: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    engines_least: int = 0
    shapes: tuple[str, ...] = ()
    preemptible: bool = False


@dataclass(frozen=True, slots=True)
class PolicyRules:
    """The record `rule/policies`: who serves a slice that names no policy; the first match counts.

    Attributes:
        assignments: In order; where none matches, `default` serves.
        ageing_seconds: A slice that waits gains one of priority each time this has passed; 0 = none.
        settings: Policy -> name -> what it is set to.
    """

    __pydantic_config__: ClassVar = STRICT

    assignments: tuple[Assignment, ...] = ()
    default: str = POLICY_DEFAULT
    ageing_seconds: float = 0.0
    settings: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


NO_POLICIES = PolicyRules()


@dataclass(frozen=True, slots=True)
class Reservation:
    """The record `rule/reservation/<name>`: units that are kept for somebody during a window.

    While the window is open, the controller holds what of it nobody uses, by system placements
    `~reserved/<name>/<unit>`; slices that may use it commit over these. So no scheduler's clock
    counts.

    Attributes:
        units: Whole engines, nodes, or switches: "engine/n3/gpu0", "node/n3", "switch/sw1".
        tenants: Whose slices may use it; empty = nobody: maintenance.
        from_at: Wall-clock seconds at which it opens, by the controller's clock.
        until_at: And at which it closes; None = when it is removed.
        evict: Whether who holds a unit when the window opens gives way; else it is kept from when
            it comes free.
        why: For people.
    """

    __pydantic_config__: ClassVar = STRICT

    name: str
    units: tuple[str, ...]
    tenants: tuple[str, ...] = ()
    from_at: float = 0.0
    until_at: float | None = None
    evict: bool = True
    why: str = ""

    def is_for(self, tenant: str, named: str = "") -> bool:
        """Whether a slice may use it.

        Args:
            tenant: The slice's.
            named: The reservation that the slice names; "" = none.
        """
        return tenant in self.tenants and named in ("", self.name)
