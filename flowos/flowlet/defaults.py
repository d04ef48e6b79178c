"""What holds for programs that do not say otherwise? What `flowos run` was told."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Defaults:
    """What a command has said of the programs in this process.

    Attributes:
        on: Where they run.
        settings: By the name of a field of `Options`.
        client: The cell they run on.
        executed: Told of each program that has run.
    """

    on: Any = None
    client: Any = None
    settings: dict[str, Any] = field(default_factory=dict)
    executed: Callable[[Any], None] = lambda _result: None


DEFAULTS = Defaults()


def with_defaults(on: Any, said: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return where and how a program runs: as it says itself, else as the command did."""
    settings = dict(said)
    for name, value in DEFAULTS.settings.items():
        if not settings.get(name) or (name == "tenant" and settings[name] == "default"):
            settings[name] = value
    return (DEFAULTS.on if on is None else on), settings
