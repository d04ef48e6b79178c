"""Which slice do a command's options ask for?"""

import random
import re
from typing import Any, Final

from flowos.documents.fields import SLICE_NAME
from flowos.documents.quantities import shown
from flowos.documents.slice_file import NO_DEFAULTS, Defaults, parse_slice
from flowos.model.errors import SpecError
from flowos.model.slice import SliceSpec

_OPTION: Final = re.compile(r"([^=@]+)(?:=([^@]*))?(?:@(.+))?")
_ENGINES_FORMS: Final = "write --engines gpu=8,fpga=2, or gpu=0.5 for a share, or fpga=1@sum-f32"


def slice_from_options(
    engines: str,
    circuits: str = "",
    *,
    name: str = "",
    defaults: Defaults = NO_DEFAULTS,
    rng: random.Random | None = None,
) -> list[SliceSpec]:
    """Return what a command's options ask for: a slice, or the members of an array.

    Roles are called after their kinds.

    Args:
        engines: "gpu=8,fpga=2": kinds with how many; "gpu" is one, "gpu=0.5" half of one, and
            "fpga=1@sum-f32" one with this bitstream.
        circuits: "ring", "all" or "star" over all engines, in the order given; "" = none.
        name: The slice's name; "" = that of the defaults, else a random one.
        defaults: The rest.
        rng: For a random name.

    Raises:
        SpecError: An option cannot be meant; names it and its forms.
    """
    roles: dict[str, Any] = {}
    for part in engines.split(","):
        found = _OPTION.fullmatch(part.strip())
        kind = found[1].strip() if found else ""
        if found is None or SLICE_NAME.fullmatch(kind) is None:
            raise _option(
                "engines", f"{shown(part.strip())} is no kind with a count", _ENGINES_FORMS
            )
        if kind in roles:
            raise _option("engines", f"{kind} stands twice", _ENGINES_FORMS)
        roles[kind] = {"kind": kind} | _count_or_share(found[2])
        if found[3]:
            roles[kind]["bitstream"] = found[3].strip()
    document: dict[str, Any] = {"engines": roles}
    if circuits:
        if circuits not in ("ring", "all", "star"):
            hint = "write --circuits ring, all or star"
            raise _option("circuits", f"{shown(circuits)} is no shape", hint)
        document["circuits"] = [{circuits: list(roles)}]
    document["name"] = name or defaults.name
    if not document["name"]:
        if rng is None:
            raise SpecError("the slice has no name", hint="give it one")
        document["name"] = random_name(next(iter(roles)), rng)
    return parse_slice(document, "options", defaults)


def _count_or_share(written: str | None) -> dict[str, Any]:
    if written is None:
        return {"count": 1}
    written = written.strip()
    if re.fullmatch(r"[0-9]{1,9}", written):
        return {"count": int(written)}
    if re.fullmatch(r"0\.[0-9]{1,9}", written):
        return {"share": written}
    raise _option("engines", f"{shown(written)} is no number of engines", _ENGINES_FORMS)


def _option(name: str, problem: str, hint: str) -> SpecError:
    return SpecError(problem, where=f"--{name}", hint=hint)


def random_name(kind: str, rng: random.Random) -> str:
    """Return a name for a slice that was given none: the kind and five random letters."""
    # Without vowels no word comes out that anybody could be hurt by.
    return kind[:50] + "".join(rng.choice("bcdfghjklmnpqrstvwxz") for _ in range(5))
