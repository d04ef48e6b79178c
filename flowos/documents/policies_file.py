"""Who serves which slices, as a file of the operator's says it.

    default: batch                  # who serves what nothing below is about
    ageing: 10m                     # who waits so long gains one of priority; 0 = never
    assignments:                    # for slices that name no policy: the first that fits counts
      - {policy: inference, kinds: [fpga], names: serve-*}
      - {policy: mpi, engines_least: 16}
      - {policy: batch, tenants: [students], preemptible: true}
      - {policy: training, shapes: [ring, torus]}
    settings:                       # of the policies themselves
      inference: {warm: 2}

All that an assignment says must hold; of a list, one entry. What it does not say does not matter.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from flowos.documents import quantities as amounts
from flowos.documents.fields import (
    API_VERSION,
    SLICE_NAME,
    Fields,
    did_you_mean,
    known_fields,
    text_problem,
)
from flowos.documents.quantities import shown
from flowos.documents.text import Document, Place, parse, read_text, shown_path
from flowos.model.errors import FileError
from flowos.model.rules import NO_POLICIES, Assignment, PolicyRules
from flowos.model.slice import Shape

SETTING_MAX: Final = 1e9
ENGINES_MAX: Final = 1_000_000  # as many as the largest cell has
_TOP: Final = known_fields("apiVersion", "kind", "default", "ageing", "assignments", "settings")
_ASSIGNMENT: Final = known_fields(
    "policy", "tenants", "kinds", "names", "engines_least", "shapes", "preemptible"
)

# Policy -> the settings that it has, of those that are installed here.
Known = Mapping[str, Mapping[str, float]]


def load_policies(path: str | Path, *, known: Known) -> PolicyRules:
    """Read the file.

    Args:
        path: Its name.
        known: What is installed here; other machines may have other policies, whose settings are
            taken as they are written.

    Raises:
        FileError: It says what cannot be; names the line and the way out.
    """
    documents = parse(read_text(path), path)
    if len(documents) != 1:
        raise FileError(
            f"has {len(documents)} documents",
            path=shown_path(path),
            hint="write one, such as default: batch",
        )
    return _Reader(documents[0], known).read()


def policies_document(rules: PolicyRules) -> dict[str, Any]:
    """Return rules as a document that reads back as equal ones."""
    document: dict[str, Any] = {
        "default": rules.default,
        "ageing": amounts.seconds_text(rules.ageing_seconds),
        "assignments": [_assignment(assignment) for assignment in rules.assignments],
        "settings": {policy: dict(values) for policy, values in rules.settings.items()},
    }
    return {name: value for name, value in document.items() if value not in ([], {})}


def _assignment(assignment: Assignment) -> dict[str, Any]:
    document = {
        "policy": assignment.policy,
        "tenants": list(assignment.tenants),
        "kinds": list(assignment.kinds),
        "names": list(assignment.names),
        "engines_least": assignment.engines_least,
        "shapes": list(assignment.shapes),
        "preemptible": assignment.preemptible,
    }
    return {name: value for name, value in document.items() if value}


class _Reader:
    def __init__(self, document: Document, known: Known) -> None:
        self._document = document
        self._known = known

    def read(self) -> PolicyRules:
        top = Fields(self._document, (), self._document.value, _TOP)
        top.one_of("apiVersion", (API_VERSION,), API_VERSION)
        top.one_of("kind", ("Policies",), "Policies")
        return PolicyRules(
            assignments=tuple(self._assignments(top)),
            default=top.name("default", NO_POLICIES.default, form=SLICE_NAME),
            ageing_seconds=top.amount("ageing", amounts.seconds_of, NO_POLICIES.ageing_seconds),
            settings=dict(self._settings(top)),
        )

    def _assignments(self, top: Fields) -> Iterator[Assignment]:
        everything: Place | None = None
        for place, value in top.entries("assignments"):
            fields = Fields(self._document, place, value, _ASSIGNMENT)
            found = Assignment(
                policy=fields.name("policy", form=SLICE_NAME),
                tenants=fields.texts("tenants"),
                kinds=fields.texts("kinds"),
                names=fields.texts("names"),
                engines_least=fields.whole("engines_least", 0, 1, ENGINES_MAX),
                shapes=fields.texts("shapes"),
                preemptible=fields.flag("preemptible", False),
            )
            for shape in found.shapes:
                if shape not in list(Shape):
                    raise fields.fail(
                        "shapes",
                        f"there is no shape {shown(shape)}",
                        did_you_mean(shape, list(Shape)),
                    )
            if everything is not None:
                line = self._document.line_of(everything)
                raise self._document.error(
                    place,
                    f"is never come to, for the assignment in line {line} is about every slice",
                    "put it before that one",
                )
            if found == Assignment(found.policy, preemptible=found.preemptible):
                everything = place
            yield found

    def _settings(self, top: Fields) -> Iterator[tuple[str, dict[str, float]]]:
        for policy, place, value in top.pairs("settings"):
            if not isinstance(value, dict):
                problem = f"must be a mapping, not {shown(value)}"
                raise self._document.error(place, problem, "write such as {warm: 2}")
            yield (
                policy,
                {
                    self._setting(policy, name, (*place, name)): self._number(
                        (*place, name), written
                    )
                    for name, written in value.items()
                },
            )

    def _setting(self, policy: str, name: object, place: Place) -> str:
        if not isinstance(name, str) or not name or text_problem(name):
            raise self._document.error(place, f"{shown(name)} is no name", "write it as text")
        known = self._known.get(policy)
        if known is not None and name not in known:
            problem = f"policy {policy} has no setting {shown(name)}"
            raise self._document.error(place, problem, did_you_mean(name, known))
        return name

    def _number(self, place: Place, value: object) -> float:
        exact = amounts.number_of(value)
        if isinstance(value, bool) or exact is None or not 0 <= exact <= SETTING_MAX:
            problem = f"{shown(value)} is no value of a setting"
            raise self._document.error(place, problem, "write a number from 0 on, such as 2")
        return float(exact)
