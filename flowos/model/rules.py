"""What does the operator tell all planners of a cell: weights, speeds, what a joule is worth?"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from flowos.model.cell import STRICT, Attribute


@dataclass(frozen=True, slots=True)
class PlannerRules:
    """The record `rule/planner`. Planners do without it: then every field has its default.

    Attributes:
        weights: Weights of the planner's score by name; those not named keep their defaults.
        speeds: Type of work -> engine model -> units of work that one engine does in a second.
        units: Type of work -> what one unit of it is, for people: "samples".
        joule_seconds: How many seconds of a slice's time one joule is worth, where the slice does
            not say; 0 = the fastest engines are taken, whatever they draw.
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
