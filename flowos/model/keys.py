"""Where everything lies in the shared state: the key families below "/flowos/<cell>/"."""

from typing import Final

INFO: Final = "cell/info"
TOTALS: Final = "cell/totals"
INVENTORY: Final = ("domain/", "bitstream/", "tenant/", "switch/", "node/", "engine/", "link/")
LEADER: Final = "session/controller/leader"
PLANNER: Final = "rule/planner"
POLICIES: Final = "rule/policies"
RESERVATIONS: Final = "rule/epoch/reservations"  # changes with each of them; commits compare it


def inventory(family: str, name: str) -> str:
    """Return the key of a thing that exists."""
    return f"{family}/{name}"


def slice_(identifier: str) -> str:
    """Return the key of a slice's own record; `identifier` is "tenant/name"."""
    return f"slice/{identifier}"


def placement(identifier: str) -> str:
    """Return the key of a slice's or the system's placement."""
    return f"placement/{identifier}"


def order(place: str, attempt: str) -> str:
    """Return the key of what is to be up at a place for an attempt."""
    return f"order/{place}/{attempt}"


def report(place: str, attempt: str) -> str:
    """Return the key of what the agent of a place says of an attempt's order."""
    return f"report/{place}/{attempt}"


def observed(engine: str) -> str:
    """Return the key of an engine's state as its agent sees it."""
    return f"observed/{engine}"


def grant(purse: str, holder: str) -> str:
    """Return the key of what a scheduler may spend of a domain's watts or a tenant's quota."""
    return f"grant/{purse}/{holder}"


def epoch(purse: str) -> str:
    """Return the key that changes with each rule about a domain or a tenant."""
    return f"rule/epoch/{purse}"


def reason(identifier: str) -> str:
    """Return the key of why a slice waits."""
    return f"reason/{identifier}"


def session(role: str, identifier: str) -> str:
    """Return the key that lives as long as a process does."""
    return f"session/{role}/{identifier}"


def stats(role: str, identifier: str) -> str:
    """Return the key of a process's own figures; apart from its session, which is its fence."""
    return f"stats/{role}/{identifier}"


def checkpoint(verifier: str) -> str:
    """Return the key by which a verifier keeps history from being compacted."""
    return f"verify/{verifier}"


def reservation(name: str) -> str:
    """Return the key of what is kept for somebody."""
    return f"rule/reservation/{name}"


def mark(identifier: str) -> str:
    """Return the key by which a slice that keeps losing asks others to plan around its units."""
    return f"mark/{identifier}"


def history(identifier: str, attempt: str, number: int) -> str:
    """Return the key of what one of a slice's placements held for a time."""
    return f"history/{identifier}/{attempt}/{number}"
