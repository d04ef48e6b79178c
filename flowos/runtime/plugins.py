"""Which scheduler plug-ins are installed, and is one fit to be asked?

Plug-ins are other people's packages, found by their entry points in the group `flowos.schedulers`.
Looking for them imports nothing, and one that cannot be loaded harms nobody but those who ask for
it: every fault is one sentence with its package and entry point, and the way out.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from flowos.model.errors import SpecError, UnknownName

if TYPE_CHECKING:
    from flowos.planning.policy import Policy

GROUP: Final = "flowos.schedulers"
OURS: Final = "flowos"  # the package whose plug-ins keep their names, whoever else takes them
BROKEN_SAID: Final = 2  # laws that a refusal names
SEAM: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "order": (("waits",), ()),
    "feasible": (("spec", "pool"), ()),
    "score": (("spec", "pool"), ()),
    "plan": (("pool", "spec"), ("seed", "avoid")),
    "commit_mode": (("spec",), ()),
}
"""Method -> what it is given by position, and by name."""

Laws: TypeAlias = "Callable[[Policy], Collection[object]]"
"""What is wrong with a policy, a sentence each; see `flowos.testing.schedulers.check_policy`."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """An entry point that somebody's package names; nothing of it is imported yet.

    Attributes:
        name: By which slices ask for it.
        package: What brings it, as it is installed.
        version: The package's.
        target: "module:attribute".
        taken_by: The package whose plug-in of the same name is run instead; "" = it is run.
    """

    name: str
    package: str
    version: str
    target: str
    point: EntryPoint
    taken_by: str = ""

    @property
    def module(self) -> str:
        """What is imported for it."""
        return self.target.partition(":")[0]

    def __str__(self) -> str:
        """Return how errors call it."""
        return f"scheduler '{self.name}' of package {self.package} ({self.name} = {self.target})"


def installed() -> list[Plugin]:
    """Return all plug-ins, by name, without importing any of them."""
    found: list[Plugin] = []
    for point in entry_points(group=GROUP):
        package, version = (
            (point.dist.name, point.dist.version) if point.dist is not None else ("unknown", "")
        )
        found.append(Plugin(point.name, package, version, point.value, point))
    found.sort(key=lambda p: (p.name, p.package != OURS, p.package))
    return [_or_taken(plugin, found) for plugin in found]


def _or_taken(plugin: Plugin, found: list[Plugin]) -> Plugin:
    first = next(other for other in found if other.name == plugin.name)
    if first.package == plugin.package:
        return plugin
    return Plugin(
        plugin.name, plugin.package, plugin.version, plugin.target, plugin.point, first.package
    )


def plugin_named(name: str) -> Plugin:
    """Return the plug-in of a name.

    Raises:
        UnknownName: There is none.
        SpecError: Two packages bring one of this name, and neither is Flow OS itself.
    """
    plugins = installed()
    same = [plugin for plugin in plugins if plugin.name == name]
    if not same:
        names = ", ".join(sorted({plugin.name for plugin in plugins}))
        raise UnknownName(f"there is no scheduler '{name}': installed are {names}")
    if len(same) > 1 and same[0].package != OURS:
        packages = " and ".join(plugin.package for plugin in same)
        raise SpecError(
            f"there are several schedulers '{name}', of packages {packages}",
            hint=f"uninstall all but one: pip uninstall {same[-1].package}",
        )
    return same[0]


def load(plugin: Plugin, laws: "Laws | None" = None) -> "Policy":
    """Import a plug-in and return its policy, checked.

    Args:
        plugin: What to load.
        laws: What it must fulfil beside the seam; None = nothing is tried.

    Raises:
        SpecError: It cannot be imported or made, does not fit the seam, or breaks a law.
    """
    try:
        loaded: object = plugin.point.load()
        policy = loaded() if isinstance(loaded, type) else loaded
    except (Exception, SystemExit) as bug:  # noqa: BLE001  # anybody's code: whatever it does
        raise SpecError(
            f"{plugin} cannot be loaded: {type(bug).__name__}: {bug}",
            hint=f"mend or reinstall it, or do without: pip uninstall {plugin.package}",
        ) from None
    wrong = misfit(policy, plugin.name)
    if wrong:
        raise SpecError(
            f"{plugin} is no scheduler: {wrong}",
            hint="make it a class below flowos.planning.policy.Policy (docs/write-a-scheduler.md)",
        )
    fit = cast("Policy", policy)  # it has all that is asked for, whatever it is made of
    broken = [str(one) for one in laws(fit)] if laws is not None else []
    if broken:
        more = len(broken) - BROKEN_SAID
        said = "; ".join(broken[:BROKEN_SAID]) + (f"; and {more} more" if more > 0 else "")
        raise SpecError(
            f"{plugin} breaks a law: {said}",
            hint="'flowos scheduler plugins --check' shows all",
        )
    return fit


def misfit(policy: object, name: str = "") -> str:
    """Return in what way an object is not a policy, "" = it is one.

    Args:
        policy: Anything.
        name: What it has to be called; "" = anything.
    """
    own = getattr(policy, "name", None)
    if not isinstance(own, str) or not own:
        return f"its name is {own!r:.40}, which is no word that a slice could ask for"
    if name and own != name:
        return f"it calls itself '{own}', and its entry point '{name}'"
    for flag in ("reorders", "backfills"):
        if not isinstance(getattr(policy, flag, None), bool):
            return f"{flag} is neither True nor False"
    settings = getattr(type(policy), "settings", None)
    if not isinstance(settings, Mapping) or not all(
        isinstance(key, str) and isinstance(value, int | float) for key, value in settings.items()
    ):
        return "settings are not numbers by name"
    for method, (given, named) in SEAM.items():
        question = getattr(policy, method, None)
        arguments = ", ".join((*given, *(("*", *named) if named else ())))
        if not callable(question):
            return f"it has no method {method}({arguments})"
        try:
            inspect.signature(question).bind(*given, **dict.fromkeys(named))
        except (TypeError, ValueError):
            return f"{method}{_signature(question)} cannot be asked as {method}({arguments})"
        if inspect.iscoroutinefunction(question) or inspect.isgeneratorfunction(question):
            return f"{method} is to answer when it is asked, not later"
    return ""


def _signature(question: Callable[..., object]) -> str:
    try:
        return str(inspect.signature(question))
    except (TypeError, ValueError):
        return "(...)"


def purpose(policy: object) -> str:
    """Return the first line of a policy's docstring, "" = it has none."""
    return (inspect.getdoc(type(policy)) or "").partition("\n")[0]
