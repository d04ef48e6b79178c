"""Who held what, from when until when, and what does that add up to? The history as scripts see it.

Times are seconds since the epoch. A slice that holds something still has a line up to now.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from flowos.model.cell import WHOLE_MILLIS
from flowos.model.codec import decode
from flowos.model.errors import SpecError
from flowos.model.placement import Held
from flowos.model.protocols import CellStore
from flowos.model.view import CellView
from flowos.protocol import accounts
from flowos.runtime.shown import API_VERSION, Shown

FOLLOWED: Final = ("slice/", "placement/", "history/")
HOUR: Final = 3600.0


def history_shown(
    store: CellStore, view: CellView, *, now: float, start: str = "", since: float = 0.0
) -> list[Shown]:
    """Return the lines of the history, the oldest first, and of what is held now.

    Args:
        store: The history is read from it.
        view: Tells what is held now: follows slices and placements.
        now: Wall-clock seconds.
        start: Only slices whose "tenant/name" starts so.
        since: Only what was held after that; hours count from there on.
    """
    found: list[Shown] = []
    for record in store.read([f"history/{start}"]).records:
        identifier = record.key.removeprefix("history/").rsplit("/", 2)[0]
        try:
            line = decode(Held, record.value)
        except SpecError:
            continue  # `cell verify` is who tells of records that cannot be read
        if line.until_at > since:
            found.append(_shown(identifier, line, since, over=True))
    for identifier, entry in view.placements.items():
        if identifier.startswith("~") or not identifier.startswith(start):
            continue
        spec = view.slices.get(identifier)
        line = accounts.held_by(
            entry.value,
            policy=spec.value.spec.served_by if spec else "",
            until_at=now,
            ended=accounts.RUNNING,
        )
        found.append(_shown(identifier, line, since, over=False))
    return sorted(found, key=lambda line: (line["from_at"], line["tenant"], line["name"]))


def _shown(identifier: str, line: Held, since: float, *, over: bool) -> Shown:
    tenant, _, name = identifier.partition("/")
    engines = [engine for role in line.engines.values() for engine in role]
    hours = max(0.0, line.until_at - max(line.from_at, since)) / HOUR
    whole = sum(line.shares.get(engine, WHOLE_MILLIS) for engine in engines) / WHOLE_MILLIS
    return {
        "apiVersion": API_VERSION,
        "tenant": tenant,
        "name": name,
        "attempt": line.attempt,
        "number": line.number,
        "policy": line.policy,
        "engines": engines,
        "shares": {engine: millis / WHOLE_MILLIS for engine, millis in line.shares.items()},
        "cpu_millis": line.cpu_millis,
        "memory_bytes": line.memory_bytes,
        "watts": line.watts,
        "from_at": line.from_at,
        "started_at": line.started_at,
        "until_at": line.until_at if over else None,
        "engine_hours": round(whole * hours, 6),
        "watt_hours": round(line.watts * hours, 3),
        "ended": line.ended,
        "message": line.message,
    }


def totals_shown(lines: Iterable[Mapping[str, object]]) -> list[Shown]:
    """Return what lines of the history add up to, for each tenant."""
    sums: dict[str, Shown] = {}
    names: dict[str, set[str]] = {}
    for line in lines:
        tenant = str(line["tenant"])
        empty = {"tenant": tenant, "slices": 0, "lines": 0, "engine_hours": 0.0, "watt_hours": 0.0}
        total = sums.setdefault(tenant, empty)
        names.setdefault(tenant, set()).add(str(line["name"]))
        total["slices"] = len(names[tenant])
        total["lines"] += 1
        for field, digits in (("engine_hours", 6), ("watt_hours", 3)):
            amount = line[field]
            assert isinstance(amount, float), "hours are numbers"
            total[field] = round(total[field] + amount, digits)
    return [sums[tenant] for tenant in sorted(sums)]


def meant(names: Iterable[str], text: str, tenant: str) -> list[str]:
    """Return which of some "tenant/name" a text means: a slice, an array, or all that it begins.

    Args:
        names: Those that have a history, or hold something.
        text: "name" or "tenant/name".
        tenant: Where a plain name is looked for first; "" = not said.
    """
    known = sorted(set(names))
    start = text if "/" in text else f"{tenant or 'default'}/{text}"
    own = re.compile(rf"{re.escape(start)}(-[0-9]+)?")
    found = [start] if start in known else [name for name in known if own.fullmatch(name)]
    if found:
        return found
    if "/" not in text and not tenant:
        plain = re.compile(rf"[^/]*/{re.escape(text)}(-[0-9]+)?")
        found = [name for name in known if plain.fullmatch(name)]
    return found or [name for name in known if name.startswith(start)]


def prefix_of(tenant: str, text: str) -> str:
    """Return with what a key below "history/" begins that a plain or whole name may mean."""
    if "/" in text:
        return text
    return f"{tenant}/{text}" if tenant else ""
