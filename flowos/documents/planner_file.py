"""What an operator tells all planners of a cell, as a file says it.

    weights: {load: 64, wake: 32}               # of the score; those not named keep their defaults
    speeds: {bert: {A100: 3845, T4: 376}}       # units of work that one engine does in a second
    speeds_from: throughput.csv                 # or {file: throughput.csv, models: {A100: A100-SXM-80GB}}
    units: {bert: samples}                      # for people
    joule_seconds: 0.001                        # what a joule is worth; 0 = nothing
    circuit_setup: 10ms
    wake: 20s
    report: {seeds: 10, gain: 0.03}             # where the weights come from

A table of speeds has one line for each engine model and type of work, with columns `engine_model`,
`work_type`, `rate_per_engine` and perhaps `unit`; or one line for each type of work, with columns
`work_type`, `num_engines` and one for each model, of which the lines of one engine count.
"""

import csv
from collections.abc import Collection, Iterable, Mapping
from math import isfinite
from pathlib import Path
from typing import Any, Final

from flowos.documents import quantities as amounts
from flowos.documents.fields import Fields, did_you_mean, known_fields, text_problem
from flowos.documents.quantities import shown
from flowos.documents.text import Document, Place, parse, read_text, shown_path
from flowos.model.errors import FileError
from flowos.model.rules import NO_RULES, PlannerRules

WEIGHT_MAX: Final = 1e9  # far beyond what any two features could need between them
SPEED_MAX: Final = 1e18  # the fastest engines do 10**16 operations in a second
_TOP: Final = known_fields(
    "apiVersion", "kind", "weights", "speeds", "speeds_from", "units", "joule_seconds",
    "circuit_setup", "wake", "report",
)  # fmt: skip
_FROM: Final = known_fields("file", "models")
_LONG: Final = ("engine_model", "work_type", "rate_per_engine")
_WIDE: Final = ("work_type", "num_engines")

Speeds = dict[str, dict[str, float]]


def load_planner(path: str | Path, *, weights: Collection[str]) -> PlannerRules:
    """Read the file.

    Args:
        path: Its name; a table of speeds is looked for from its folder on.
        weights: The names that the planner knows.

    Raises:
        FileError: It says what cannot be; names the line and the way out.
    """
    documents = parse(read_text(path), path)
    if len(documents) != 1:
        raise FileError(
            f"has {len(documents)} documents",
            path=shown_path(path),
            hint="write one, such as weights: {load: 64}",
        )
    return _Reader(documents[0], Path(path).parent, weights).read()


def planner_document(rules: PlannerRules) -> dict[str, Any]:
    """Return rules as a document that reads back as equal ones."""
    document: dict[str, Any] = {
        "weights": dict(rules.weights),
        "speeds": {work: dict(speeds) for work, speeds in rules.speeds.items()},
        "units": dict(rules.units),
        "joule_seconds": rules.joule_seconds,
        "circuit_setup": amounts.seconds_text(rules.circuit_seconds),
        "wake": amounts.seconds_text(rules.wake_seconds),
        "report": dict(rules.report),
    }
    return {name: value for name, value in document.items() if value != {}}


class _Reader:
    def __init__(self, document: Document, folder: Path, weights: Collection[str]) -> None:
        self._document = document
        self._folder = folder
        self._weights = weights
        self._units: dict[str, str] = {}

    def read(self) -> PlannerRules:
        top = Fields(self._document, (), self._document.value, _TOP)
        speeds = self._from_tables(top)
        for work, models in self._speeds(top).items():
            speeds.setdefault(work, {}).update(models)  # what is written here has the last word
        written: dict[str, str] = {}
        for work, place, unit in top.pairs("units"):
            if not isinstance(unit, str) or not unit or text_problem(unit):
                raise self._document.error(
                    place, f"{shown(unit)} is no unit", "write a word such as samples"
                )
            written[self._named(work, place)] = unit
        units = {work: unit for work, unit in self._units.items() if work in speeds}
        return PlannerRules(
            weights={
                self._weight(name, place): self._number(
                    place, value, "weight", "64 or 0", WEIGHT_MAX, zero=True
                )
                for name, place, value in top.pairs("weights")
            },
            speeds=speeds,
            units=units | written,
            joule_seconds=self._joule_seconds(top),
            circuit_seconds=top.amount(
                "circuit_setup", amounts.seconds_of, NO_RULES.circuit_seconds
            ),
            wake_seconds=top.amount("wake", amounts.seconds_of, NO_RULES.wake_seconds),
            report=top.attributes("report"),
        )

    def _weight(self, name: str, place: Place) -> str:
        if name not in self._weights:
            hint = did_you_mean(name, self._weights)
            raise self._document.error(place, f"there is no weight {shown(name)}", hint)
        return name

    def _joule_seconds(self, top: Fields) -> float:
        value = top.value("joule_seconds")
        if value is None:
            return 0.0
        place = top.place_of("joule_seconds")
        return self._number(place, value, "worth of a joule", "0 or 0.001", WEIGHT_MAX, zero=True)

    def _speeds(self, top: Fields) -> Speeds:
        found: Speeds = {}
        for work, place, value in top.pairs("speeds"):
            if not isinstance(value, dict) or not value:
                problem = f"must be a mapping, not {shown(value)}"
                hint = "write engine models with units in a second, such as {A100: 3845}"
                raise self._document.error(place, problem, hint)
            models = found[self._named(work, place)] = {}
            for model, rate in value.items():
                where = (*place, model)
                models[self._named(model, where)] = self._number(
                    where, rate, "speed", "3845", SPEED_MAX
                )
        return found

    def _named(self, name: object, place: Place) -> str:
        if not isinstance(name, str) or not name.strip() or text_problem(name):
            raise self._document.error(place, f"{shown(name)} is no name", "write it as text")
        return name

    def _number(
        self,
        place: Place,
        value: object,
        what: str,
        such_as: str,
        most: float,
        *,
        zero: bool = False,
    ) -> float:
        """Read a number above 0, or with `zero` from 0 on."""
        exact = amounts.number_of(value)
        if exact is None or not 0 <= exact <= most or not (exact or zero):
            hint = f"write a number {'from 0 on' if zero else 'above 0'}, such as {such_as}"
            raise self._document.error(place, f"{shown(value)} is no {what}", hint)
        return float(exact)

    # -- tables

    def _from_tables(self, top: Fields) -> Speeds:
        written = top.value("speeds_from")
        if written is None:
            return {}
        place: Place = ("speeds_from",)
        names: dict[str, str] = {}
        if isinstance(written, dict):
            fields = Fields(self._document, place, written, _FROM)
            for model, inner, other in fields.pairs("models"):
                names[self._named(model, inner)] = self._named(other, inner)
            written, place = fields.text("file"), fields.place_of("file")
        if not isinstance(written, str) or not written:
            raise self._document.error(place, f"{shown(written)} is no file", "name a CSV file")
        path = self._folder / written
        speeds = self._table(path)
        if not names:
            return speeds
        known = {model for models in speeds.values() for model in models}
        for model, other in names.items():
            if other not in known:
                raise self._document.error(
                    ("speeds_from", "models", model),
                    f"{shown_path(path)} has no engine model {shown(other)}",
                    did_you_mean(other, known),
                )
        return {
            work: renamed
            for work, models in speeds.items()
            if (renamed := {m: models[other] for m, other in names.items() if other in models})
        }

    def _table(self, path: Path) -> Speeds:
        lines = read_text(path).splitlines()
        reader = csv.DictReader(lines)
        columns = [column.strip() for column in reader.fieldnames or ()]
        reader.fieldnames = columns
        if set(_LONG) <= set(columns):
            return self._long(path, reader)
        if set(_WIDE) <= set(columns):
            return self._wide(path, reader, columns)
        raise FileError(
            "is no table of speeds",
            path=shown_path(path),
            hint=f"give it the columns {', '.join(_LONG)}, or {', '.join(_WIDE)} and the models",
        )

    def _long(self, path: Path, rows: Iterable[Mapping[str, str | None]]) -> Speeds:
        """Read one line for each model and type of work; of several, the fastest counts."""
        found: Speeds = {}
        for number, row in enumerate(rows, start=2):
            model, work = (row["engine_model"] or "").strip(), (row["work_type"] or "").strip()
            rate = _rate(path, number, row["rate_per_engine"])
            if model and work and rate:
                models = found.setdefault(work, {})
                models[model] = max(rate, models.get(model, 0.0))
                unit = (row.get("unit") or "").partition("/")[0].strip()
                if unit:
                    self._units.setdefault(work, unit)
        return found

    def _wide(
        self, path: Path, rows: Iterable[Mapping[str, str | None]], columns: list[str]
    ) -> Speeds:
        """Read one line for each type of work; those of several engines say nothing of one."""
        # Beside the models there may be columns that compare two of them, or say how they lay.
        models = [
            column
            for column in columns
            if column not in _WIDE and not column.endswith(("_unconsolidated", "_penalty"))
        ]
        models = [column for column in models if "_rel_" not in column]
        found: Speeds = {}
        for number, row in enumerate(rows, start=2):
            if (row["num_engines"] or "").strip() != "1":
                continue
            work = (row["work_type"] or "").strip()
            rates = {model.upper(): _rate(path, number, row[model]) for model in models}
            known = {model: rate for model, rate in rates.items() if rate}
            if work and known:
                found[work] = known
        return found


def _rate(path: Path, line: int, written: str | None) -> float:
    """Return a rate; 0 = the work does not run there, or nobody measured it."""
    text = (written or "").strip()
    try:
        rate = float(text or "0")
    except ValueError:
        rate = -1.0
    if not isfinite(rate) or not 0 <= rate <= SPEED_MAX:
        raise FileError(
            f"{shown(text)} is no speed",
            path=shown_path(path),
            line=line,
            hint="write units in a second",
        )
    return rate
