"""What can be set, or varied, in a simulation; and what does a text such as "t_job=0.1:100:log:10" mean?"""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Final, Literal, NamedTuple, TypeAlias

from flowos.model.errors import SpecError

Value: TypeAlias = float | int | str
Form: TypeAlias = Literal["light", "full"]  # of a simulation: the paper's model, or the whole code
Settings: TypeAlias = Mapping[str, Value]  # "t_job", or "t_job.Service" for one class -> its value

VALUES_MAX: Final = 1_000  # of one axis
RUNS_MAX: Final = 100_000  # of a sweep
_LAWS: Final = ("log", "linear")


@dataclass(frozen=True, slots=True)
class Knob:
    """Something that is set to a value.

    Attributes:
        about: In a few words.
        default: In each mode; None = it follows from something else, or there is none.
        whole: Whether it is a whole number.
        words: What it can be, if it is no number.
        full_words: The same in full mode, where that differs.
        by_class: Whether each class of jobs may have a value of its own.
        drawn: Whether it is of the load that is drawn, and has no sense for one from a file.
        only: In a mode: the architectures that it has sense for, where not for all.
    """

    name: str
    about: str
    light: Value | None = None
    full: Value | None = None
    unit: str = ""
    least: float = 0.0
    most: float = 1e9
    whole: bool = False
    words: tuple[str, ...] = ()
    by_class: bool = False
    drawn: bool = False
    modes: tuple[Form, ...] = ("light", "full")
    full_words: tuple[str, ...] = ()
    only: Mapping[Form, tuple[str, ...]] = field(default_factory=dict, hash=False)

    def words_in(self, mode: Form) -> tuple[str, ...]:
        """Return what it can be in a mode, if it is no number."""
        return (self.full_words or self.words) if mode == "full" else self.words

    def serves(self, architecture: str, mode: Form) -> bool:
        """Return whether it has sense for an architecture."""
        return mode not in self.only or architecture in self.only[mode]

    def default(self, mode: Form) -> Value | None:
        """Return what it is where nobody sets it."""
        return self.light if mode == "light" else self.full

    def read(self, text: str, mode: Form) -> Value:
        """Return a value from its text.

        Raises:
            ValueError: It is none; says why.
        """
        if words := self.words_in(mode):
            if text not in words:
                near = difflib.get_close_matches(text, words, 1)
                way = f": did you mean {near[0]}?" if near else f": one of {', '.join(words)}"
                raise ValueError(f"'{text}' is not known{way}")
            return text
        try:
            number = int(text) if self.whole else float(text)
        except ValueError:
            raise ValueError(
                f"'{text}' is not a {'whole ' if self.whole else ''}number: "
                f"write one such as {self.name}={self._example()}"
            ) from None
        return self.within(number)

    def within(self, number: float) -> float:
        """Return a number that is in range.

        Raises:
            ValueError: It is not.
        """
        if not (math.isfinite(number) and self.least <= number <= self.most):
            raise ValueError(f"{number:g} is out of range: {self.least:g} to {self.most:g}")
        return number

    def _example(self) -> str:
        known = self.light if self.light is not None else self.full
        return f"{known if known is not None else max(self.least, 1):g}"


_LIGHT: Final = ("light",)
_FULL: Final = ("full",)
PRODUCTION: Final = "production"
_ONE: Final = ("monolithic-single", "monolithic-multi")
_SHARED: Final = "shared-state"
_POOLED: Final = ("offers-optimistic", "offers-pessimistic")
_OFFERS: Final = ("offers", *_POOLED)
# What full mode has besides the production code: on the same cell and slices, with its planner.
COMPARED: Final = (*_ONE, _SHARED, *_OFFERS)

KNOBS: Final = {
    knob.name: knob
    for knob in (
        Knob("architecture", "who decides on what", _SHARED, PRODUCTION,
             words=(*_ONE, _SHARED, "offers"), full_words=(PRODUCTION, *COMPARED)),
        Knob("schedulers", "that serve a class of jobs", 1, 2, least=1, most=1024, whole=True,
             by_class=True, only={"light": (_SHARED, "offers"),
                                  "full": (PRODUCTION, _SHARED, *_OFFERS)}),
        Knob("t_job", "a decision takes, for the job", 0.1, 0.1, unit="s", by_class=True),
        Knob("t_task", "and for each of its tasks, or engines", 0.005, 0.005, unit="s",
             by_class=True),
        Knob("looks", "how old what they see is when they commit: as old as the decision, or live",
             "frozen", "live", words=("frozen", "live"),
             only={"light": (_SHARED,), "full": (PRODUCTION, _SHARED)}),
        Knob("round_trip", "a commit takes", 0.002, 0.002, unit="s",
             only={"light": (_SHARED,), "full": (PRODUCTION, _SHARED)}),
        Knob("check", "a claim conflicts if it does not fit, or once its machine has changed", "fine",
             "fine", words=("fine", "coarse"), only={"light": (_SHARED,), "full": (PRODUCTION,)}),
        Knob("commit", "what does not conflict is kept, or nothing is", "incremental",
             words=("incremental", "all-or-nothing"), modes=_LIGHT, only={"light": (_SHARED,)}),
        Knob("machines", "of the cell", None, least=1, most=1_000_000, whole=True, modes=_LIGHT),
        Knob("machine_cpus", "of a machine", 4.0, least=0.001, modes=_LIGHT),
        Knob("machine_mem_gb", "of a machine", 16.0, unit="GB", least=0.001, modes=_LIGHT),
        Knob("prefilled", "share of all CPU that is held from the beginning", None, most=1.0,
             modes=_LIGHT),
        Knob("seconds", "how long a run lasts", None, None, unit="s", least=1.0),
        Knob("faster", "batch jobs come so many times as often, and run for so much less", 1.0, 1.0,
             least=0.001, most=1e6, drawn=True),
        Knob("gap", "mean time from a job to the next", None, None, unit="s", least=1e-6,
             by_class=True, drawn=True),
        Knob("tasks", "of a job: the mean, or the median of a log-normal", None, None, least=0.01,
             by_class=True, drawn=True),
        Knob("tasks_spread", "standard deviation of its logarithm", None, None, most=5.0,
             by_class=True, drawn=True),
        Knob("duration", "of a task: the mean, or the median of a log-normal", None, None, unit="s",
             least=0.001, by_class=True, drawn=True),
        Knob("duration_spread", "standard deviation of its logarithm", None, None, most=5.0,
             by_class=True, drawn=True),
        Knob("cpus", "of a task", None, least=0.001, by_class=True, drawn=True, modes=_LIGHT),
        Knob("mem_gb", "of a task", None, unit="GB", by_class=True, drawn=True, modes=_LIGHT),
        Knob("draw", "another load from the same laws", 0, 0, whole=True, most=1e6, drawn=True),
        Knob("slices", "of the load that come, the first; with load, each so many-th of a file", None,
             1_000, least=1, most=1e7, whole=True, modes=_FULL),
        Knob("until", "a run ends when the last slice has come, or when all have ended; default come "
             "where load is set, else ended", None, None, words=("come", "ended"), modes=_FULL,
             only={"full": (PRODUCTION,)}),
        Knob("gaps", "of a file: as it has them, or the same between any two jobs", None, "own",
             words=("own", "even"), modes=_FULL),
        Knob("load", "share of all engines that is held on average; slices come slower or faster to "
             "meet it; default 0.75 of what is drawn, a file's own time", None, None, least=0.001,
             most=100.0, modes=_FULL),
        Knob("rate", "or: slices a second, which run for as much less; the load stays", None, None,
             unit="/s", least=1e-6, modes=_FULL),
        Knob("engines_max", "that a slice asks for", None, 8, least=1, most=1e6, whole=True,
             modes=_FULL),
        Knob("queues", "the schedulers of a class share one queue, or have one each", None, "one",
             words=("one", "each"), modes=_FULL, only={"full": (PRODUCTION,)}),
        Knob("homes", "whether each scheduler looks at its part of the nodes first", None, "yes",
             words=("yes", "no"), modes=_FULL, only={"full": (PRODUCTION,)}),
        Knob("news", "a change is on its way to a view", None, 0.001, unit="s", modes=_FULL,
             only={"full": (PRODUCTION,)}),
        Knob("marks", "others keep away from where a slice can go soonest that has waited 10 s", None,
             "yes", words=("yes", "no"), modes=_FULL, only={"full": (*_ONE, _SHARED)}),
        Knob("gather", "what is free is gathered for so long before it is offered", None, 1.0,
             unit="s", modes=_FULL, only={"full": _OFFERS}),
        Knob("dealing", "offers go node by node by dominant share, or all to one framework", None,
             "nodes", words=("nodes", "whole"), modes=_FULL, only={"full": _OFFERS}),
        Knob("hold", "a gang keeps part of itself for so long until the rest is offered; 0 = it "
             "refuses and waits", None, 0.0, unit="s", modes=_FULL, only={"full": _OFFERS}),
        Knob("off_after", "an engine that nobody has held for so long is powered off; default never",
             None, None, unit="s", modes=_FULL, only={"full": COMPARED}),
        Knob("wake", "and takes so long to come up again", None, 60.0, unit="s", modes=_FULL,
             only={"full": COMPARED}),
        Knob("per_host", "engines that circuits attach to each host that a slice asks for; 0 = it asks "
             "for no hosts", None, 0, most=1024, whole=True, modes=_FULL),
    )
}  # fmt: skip


def knobs_of(mode: Form) -> list[Knob]:
    """Return those that a mode has."""
    return [knob for knob in KNOBS.values() if mode in knob.modes]


class Key(NamedTuple):
    """Which value: of a knob, for all classes of jobs or for one."""

    knob: Knob
    of_class: str = ""

    def __str__(self) -> str:
        """Return how it is written."""
        return f"{self.knob.name}.{self.of_class}" if self.of_class else self.knob.name


@dataclass(frozen=True, slots=True)
class Axis:
    """What is varied, and over which values, in their order."""

    key: Key
    values: tuple[Value, ...]

    @property
    def name(self) -> str:
        """As it was written."""
        return str(self.key)

    @property
    def is_number(self) -> bool:
        """Whether a line can be drawn over it."""
        return not self.key.knob.words


def read_setting(text: str, mode: Form) -> tuple[Key, Value]:
    """Read "t_job=10" or "t_job.Service=10".

    Raises:
        SpecError: It names no knob of this mode, or a value that it cannot have.
    """
    where = f"--set {text}"
    key, written = _key(text, mode, where)
    try:
        return key, key.knob.read(written, mode)
    except ValueError as error:
        raise SpecError(f"{error}", where=where) from None


def read_axis(text: str, mode: Form) -> Axis:
    """Read "t_job=0.1:100:log:10", "schedulers=1,2,4" or "check=fine,coarse".

    Raises:
        SpecError: It names no knob of this mode, or values that it cannot have.
    """
    where = f"--sweep {text}"
    key, written = _key(text, mode, where)
    try:
        values = _values(key.knob, written, mode)
    except ValueError as error:
        raise SpecError(f"{error}", where=where) from None
    return Axis(key, values)


def grid(axes: Sequence[Axis], settings: Mapping[Key, Value]) -> list[dict[str, Value]]:
    """Return the settings of each point of a sweep, the first axis outermost.

    Raises:
        SpecError: Something is set or varied twice, or there are too many points.
    """
    names = [*map(str, settings), *(axis.name for axis in axes)]
    for name in names:
        if names.count(name) > 1:
            raise SpecError("it is set or varied twice", where=name, hint="say it once")
    if math.prod(len(axis.values) for axis in axes) > RUNS_MAX:
        raise SpecError(f"more than {RUNS_MAX:,} runs", where="--sweep", hint="name fewer values")
    fixed = {str(key): value for key, value in settings.items()}
    return [
        fixed | {axis.name: value for axis, value in zip(axes, values, strict=True)}
        for values in product(*(axis.values for axis in axes))
    ]


def check_classes(keys: Iterable[Key], classes: Sequence[str]) -> None:
    """Refuse a value for a class of jobs that does not come.

    Raises:
        SpecError: Names the classes that there are.
    """
    for key in keys:
        if key.of_class and key.of_class not in classes:
            near = difflib.get_close_matches(key.of_class, classes, 1)
            way = f"did you mean {near[0]}?" if near else f"there are {', '.join(classes)}"
            raise SpecError(f"there is no class '{key.of_class}'", where=str(key), hint=way)


def architectures_of(
    settings: Mapping[Key, Value], axes: Sequence[Axis], mode: Form
) -> tuple[str, ...]:
    """Return the architectures that are run, in their order."""
    for axis in axes:
        if axis.name == "architecture":
            return tuple(map(str, axis.values))
    return (str(value_of({str(k): v for k, v in settings.items()}, "architecture", mode)),)


def check_architectures(settings: Mapping[Key, Value], axes: Sequence[Axis], mode: Form) -> None:
    """Refuse what has no sense for the architectures that are run.

    What is set has to serve one of them. What is varied has to serve each, or the same would be run
    again and again under other names.

    Raises:
        SpecError: Names it, what it is of, and the way out.
    """
    run = architectures_of(settings, axes, mode)
    if PRODUCTION in run and len(run) > 1:
        raise SpecError(
            f"{PRODUCTION} has other figures than the rest", where="--sweep architecture",
            hint=f"run it by itself; {_SHARED} with looks=live stands for it among the others",
        )  # fmt: skip
    for key in (*settings, *(axis.key for axis in axes)):
        varied = any(axis.key == key for axis in axes)
        serves = [each for each in run if key.knob.serves(each, mode)]
        if len(serves) == len(run) or (serves and not varied):
            continue
        without = next(each for each in run if each not in serves)
        raise SpecError(
            f"it has no sense for architecture {without}", where=str(key),
            hint=f"leave it out, or take architecture={' or '.join(key.knob.only[mode])}",
        )  # fmt: skip
    hosts = [value for key, value in settings.items() if key.knob.name == "per_host"]
    hosts += [value for axis in axes if axis.name == "per_host" for value in axis.values]
    pooled = next((each for each in run if each in _POOLED), None)
    if pooled and (not hosts or 0 in hosts):
        raise SpecError(
            f"{pooled} attaches devices to hosts, and slices ask for none", where="architecture",
            hint="add --set per_host=4, or take architecture=offers",
        )  # fmt: skip


def value_of(settings: Settings, name: str, mode: Form, of_class: str = "") -> Value | None:
    """Return what a knob is set to: for this class, else for all, else by default."""
    if of_class and (own := settings.get(f"{name}.{of_class}")) is not None:
        return own
    found = settings.get(name)
    return KNOBS[name].default(mode) if found is None else found


def number(settings: Settings, name: str, mode: Form, of_class: str = "") -> float:
    """Return the same of a knob that always has a number."""
    found = value_of(settings, name, mode, of_class)
    assert isinstance(found, int | float), name
    return found


def shown(value: Value | None) -> str:
    """Return a value as short as it can be said."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    size = abs(value)
    if size >= 1000 or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.3g}"


def with_unit(key: Key, value: Value) -> str:
    """Return "t_job 10 s"; a word that says all, such as "frozen", stands alone."""
    if isinstance(value, str) and value not in ("yes", "no"):
        return value
    return f"{key} {shown(value)} {key.knob.unit}".strip()


def _key(text: str, mode: Form, where: str) -> tuple[Key, str]:
    written, equals, value = text.partition("=")
    name, _, of_class = written.strip().partition(".")
    known = [knob.name for knob in knobs_of(mode)]
    if not equals or not value.strip():
        raise SpecError("has no value", where=where, hint=f"write such as {name or 't_job'}=...")
    if name not in known:
        if name in KNOBS:
            other = KNOBS[name].modes[0]
            raise SpecError(
                f"'{name}' is not of {mode} mode", where=where, hint=f"add --mode {other}"
            )
        near = difflib.get_close_matches(name, known, 1)
        way = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise SpecError(f"there is no '{name}'", where=where, hint=way)
    if "." in written and not (of_class and KNOBS[name].by_class):
        raise SpecError(
            f"'{name}' is not set for a class of jobs", where=where, hint=f"write {name}={value}"
        )
    return Key(KNOBS[name], of_class), value.strip()


def _values(knob: Knob, text: str, mode: Form) -> tuple[Value, ...]:
    if ":" not in text:
        values: list[Value] = [knob.read(part.strip(), mode) for part in text.split(",")]
    else:
        values = list(_span(knob, text, mode))
    if len(set(values)) < len(values):
        raise ValueError("a value is there twice: name each once")
    return tuple(values)


def _span(knob: Knob, text: str, mode: Form) -> list[Value]:
    """Read "FROM:TO:log:COUNT" or "FROM:TO:linear:COUNT"."""
    parts = [part.strip() for part in text.split(":")]
    if knob.words:
        raise ValueError(f"it has no numbers: name some of {', '.join(knob.words_in(mode))}")
    if len(parts) != 4 or parts[2] not in _LAWS or not parts[3].isdecimal():
        raise ValueError("a span is FROM:TO:log:COUNT or FROM:TO:linear:COUNT, as 0.1:100:log:10")
    low, high = float(knob.read(parts[0], mode)), float(knob.read(parts[1], mode))
    count = int(parts[3]) if len(parts[3]) < 9 else VALUES_MAX + 1
    if not 2 <= count <= VALUES_MAX:
        raise ValueError(f"{parts[3]} values: 2 to {VALUES_MAX} make a span")
    if low >= high:
        raise ValueError(f"{low:g} is not below {high:g}: name the smaller end first")
    if parts[2] == "log":
        if low <= 0:
            raise ValueError("a log span begins above 0: use linear, or another beginning")
        steps = [low * (high / low) ** (n / (count - 1)) for n in range(count)]
    else:
        steps = [low + (high - low) * n / (count - 1) for n in range(count)]
    steps[-1] = high
    if knob.whole:
        return list(dict.fromkeys(round(step) for step in steps))
    # Without the dust of floating point: what is written is what is run.
    return list(dict.fromkeys(float(f"{step:.6g}") for step in steps))
