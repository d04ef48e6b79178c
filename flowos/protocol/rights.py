"""Who may read and write which keys: the roles of a cell, as ranges of the store's keys.

The store enforces them: a key that no rule of this protocol lets a process write is none that its
role covers. Schedulers and controllers are trusted with what is held, an operator with what exists,
an agent with what it says of its own devices, a user with the requests of its own tenants.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from flowos.model import keys

EVERYWHERE: Final = "*"  # as a tenant or a place: all of them


class May(StrEnum):
    """What a right allows."""

    READ = "read"
    WRITE = "write"
    BOTH = "readwrite"


class Span(NamedTuple):
    """Keys from `first` to before `end`, as the store has them; no `end` = `first` alone."""

    first: str
    end: str = ""


class Role(StrEnum):
    """What people and processes are to a cell."""

    USER = "user"
    CONTROL = "control"
    AGENT = "agent"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Member:
    """One who may log in.

    Attributes:
        name: The store's user; with a certificate, its common name.
        role: What it is to the cell.
        tenants: Whose slices it may submit, change and cancel; any role but an agent's.
        places: For an agent: the nodes and switches that it acts for.
        certificate: Whether it is known by its certificate, and so has no password.
        password_file: Where its first password stands; "" = it is asked for.
    """

    name: str
    role: Role
    tenants: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    certificate: bool = False
    password_file: str = ""


@dataclass(frozen=True, slots=True)
class Rights:
    """Roles and who has them.

    Attributes:
        roles: Role -> span -> what it may there.
        users: User -> the roles that it has.
    """

    roles: Mapping[str, Mapping[Span, May]] = field(default_factory=dict)
    users: Mapping[str, frozenset[str]] = field(default_factory=dict)


# What each role writes, as the code of its processes does; `tests/store/test_access.py` runs them.
CONTROL_WRITES: Final = (
    "slice/", "placement/", "claim/", "order/", "report/", "grant/", "reason/", "stats/", "verify/",
    "mark/", "history/", "session/scheduler/", "session/controller/", "session/client/",
    "rule/reservation/", keys.RESERVATIONS,
)  # fmt: skip
# Drains take claims and placements, and with a deadline rewrite those of others with their orders.
OPERATOR_WRITES: Final = (
    "cell/", *keys.INVENTORY, "rule/", "placement/", "claim/", "order/", "report/", "observed/",
    "verify/",
)  # fmt: skip
AGENTS_WRITE: Final = ("report/", "observed/", "session/agent/", "session/agents/")


def root_of(cell: str) -> str:
    """Return what all keys of a cell begin with."""
    return f"/flowos/{cell}/"


def below(cell: str, prefix: str) -> Span:
    """Return the span of all of a cell's keys that begin with a prefix."""
    first = root_of(cell) + prefix
    return Span(first, first[:-1] + chr(ord(first[-1]) + 1))


def role_name(cell: str, *parts: str) -> str:
    """Return a role's name in the store: "flowos-main-agent-n3"."""
    return "-".join(("flowos", cell, *parts))


def reads_all(cell: str) -> dict[Span, May]:
    """Return the right to look at the whole cell."""
    return {below(cell, ""): May.READ}


def control(cell: str) -> dict[Span, May]:
    """Return what schedulers, controllers and programs with a scheduler of their own may."""
    return reads_all(cell) | {below(cell, prefix): May.WRITE for prefix in CONTROL_WRITES}


def operator(cell: str) -> dict[Span, May]:
    """Return what those may who say what exists and take it out of service."""
    return reads_all(cell) | {below(cell, prefix): May.WRITE for prefix in OPERATOR_WRITES}


def tenant(cell: str, name: str) -> dict[Span, May]:
    """Return what whoever acts for a tenant may write."""
    return {below(cell, "slice/" if name == EVERYWHERE else f"slice/{name}/"): May.WRITE}


def agent(cell: str, place: str) -> dict[Span, May]:
    """Return what the agent of one node or switch may: read its orders, and say what is.

    Its process has the place's name, as `flowos agent run --place n3` gives it, so that its session,
    which guards all that it writes, is nobody else's to write.
    """
    if place == EVERYWHERE:
        return reads_all(cell) | {below(cell, prefix): May.WRITE for prefix in AGENTS_WRITE}
    return {
        # A watch asks where the store stands by reading the root, which holds nothing.
        Span(root_of(cell)): May.READ,
        below(cell, keys.INFO): May.READ,
        below(cell, "node/"): May.READ,
        below(cell, "switch/"): May.READ,
        below(cell, f"order/{place}/"): May.READ,
        below(cell, f"report/{place}/"): May.BOTH,
        below(cell, f"observed/{place}/"): May.BOTH,
        below(cell, f"session/agents/{place}@"): May.BOTH,
        # To read is to read what begins so: n3's agent may also see that n30 lives.
        below(cell, keys.session("agent", place)): May.READ,
        Span(root_of(cell) + keys.session("agent", place)): May.WRITE,
    }


def wanted(
    cell: str,
    members: Iterable[Member],
    *,
    tenants: Iterable[str] = (),
    places: Iterable[str] = (),
) -> Rights:
    """Return the roles that a cell needs, and who has them.

    Args:
        cell: Its name in the store.
        members: Those who may log in.
        tenants: Those that get a role whether or not a member acts for them.
        places: The same for nodes and switches.
    """
    roles: dict[str, Mapping[Span, May]] = {
        role_name(cell, "read"): reads_all(cell),
        role_name(cell, "control"): control(cell),
        role_name(cell, "operator"): operator(cell),
    }
    users: dict[str, frozenset[str]] = {}
    tenants, places = set(tenants), set(places)
    for member in members:
        has: set[str] = set()
        match member.role:
            case Role.USER:
                has.add(role_name(cell, "read"))
            case Role.AGENT:
                has |= {_agent_role(cell, place) for place in member.places}
                if len(member.places) > 1:  # then it follows the orders of all places
                    has.add(role_name(cell, "read"))
                places |= set(member.places)
            case other:
                has.add(role_name(cell, other))
        has |= {_tenant_role(cell, name) for name in member.tenants}
        tenants |= set(member.tenants)
        users[member.name] = frozenset(has)
    for name in sorted(tenants):
        roles[_tenant_role(cell, name)] = tenant(cell, name)
    for place in sorted(places):
        roles[_agent_role(cell, place)] = agent(cell, place)
    return Rights(roles, users)


def _tenant_role(cell: str, name: str) -> str:
    return role_name(cell, "tenants" if name == EVERYWHERE else f"tenant-{name}")


def _agent_role(cell: str, place: str) -> str:
    return role_name(cell, "agents" if place == EVERYWHERE else f"agent-{place}")


class Step(NamedTuple):
    """One change of the store's roles and users.

    Attributes:
        verb: "add role", "allow", "forbid", "drop role", "add user", "give" or "take".
        name: The role, or for the last three the user.
        span: What is allowed or forbidden.
        may: What is allowed there.
        role: What is given or taken.
    """

    verb: str
    name: str
    span: Span = Span("")
    may: May = May.READ
    role: str = ""

    def line(self) -> str:
        """Return it as people read it: + what comes, - what goes."""
        keys_ = f"{self.span.first} to {self.span.end}" if self.span.end else self.span.first
        match self.verb:
            case "allow":
                return f"+ range {self.name}: {self.may} {keys_}"
            case "forbid":
                return f"- range {self.name}: {keys_}"
            case "give":
                return f"+ user {self.name}: {self.role}"
            case "take":
                return f"- user {self.name}: {self.role}"
            case _:
                verb, _, what = self.verb.partition(" ")
                return f"{'-' if verb == 'drop' else '+'} {what} {self.name}"


def steps(have: Rights, want: Rights, *, users: bool = True) -> list[Step]:
    """Return what leads from the rights that there are to those that are wanted.

    New roles come first and get their spans before anybody has them: each change makes the store
    work out the rights of all users again.

    Args:
        have: What is there: the cell's roles, and all users.
        want: What is to be there.
        users: Whether users are changed too; else they keep the roles that stay.
    """
    found: list[Step] = []
    for name, spans in want.roles.items():
        known = have.roles.get(name)
        if known is None:
            found.append(Step("add role", name))
        for span, may in spans.items():
            if (known or {}).get(span) is not may:
                found.append(Step("allow", name, span, may))
    last: list[Step] = []
    if users:
        found += [Step("add user", name) for name in want.users if name not in have.users]
        for name, roles in want.users.items():
            new = roles - have.users.get(name, frozenset())
            found += [Step("give", name, role=role) for role in sorted(new)]
        for name, roles in have.users.items():
            old = (roles & have.roles.keys()) - want.users.get(name, frozenset())
            last += [Step("take", name, role=role) for role in sorted(old)]
    for name, spans in have.roles.items():
        if name in want.roles:
            gone = spans.keys() - want.roles[name].keys()
            last += [Step("forbid", name, span) for span in sorted(gone)]
        elif users or not any(name in roles for roles in have.users.values()):
            last.append(Step("drop role", name))
    return found + last


def of_cell(cell: str, roles: Mapping[str, Mapping[Span, May]]) -> dict[str, Mapping[Span, May]]:
    """Return the roles that are this cell's: by their names, and by the keys that they cover.

    "flowos-main-agent-control" may be of the cell main or of the cell main-agent: its keys tell.
    """
    start, root = role_name(cell, ""), root_of(cell)
    return {
        name: spans
        for name, spans in roles.items()
        if name.startswith(start) and all(span.first.startswith(root) for span in spans)
    }


def covers(spans: Mapping[Span, May], key: str, *, write: bool) -> bool:
    """Tell whether these rights allow to read, or to write, one key."""
    right = May.WRITE if write else May.READ
    return any(
        (key == span.first or span.first <= key < span.end)
        for span, may in spans.items()
        if may in (right, May.BOTH)
    )


def shown(rights: Rights, cell: str) -> Iterator[dict[str, object]]:
    """Yield each role of a cell with its keys, relative to the cell, and who has it."""
    root = root_of(cell)
    for name in sorted(rights.roles):
        spans = rights.roles[name]
        yield {
            "name": name,
            "reads": _prefixes(root, spans, (May.READ, May.BOTH)),
            "writes": _prefixes(root, spans, (May.WRITE, May.BOTH)),
            "users": sorted(user for user, roles in rights.users.items() if name in roles),
        }


def _prefixes(root: str, spans: Mapping[Span, May], kinds: Collection[May]) -> Sequence[str]:
    found = [
        f"{span.first.removeprefix(root)}{'*' if span.end else ''}"
        for span, may in spans.items()
        if may in kinds and span.first != root
    ]
    everything = [s for s, may in spans.items() if s.first == root and s.end and may in kinds]
    return [*(["*"] if everything else []), *sorted(found)]
