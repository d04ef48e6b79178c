"""Who may log in to a cell, as a file says it."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flowos.documents.fields import Fields, did_you_mean, known_fields
from flowos.documents.quantities import shown
from flowos.documents.text import Document, Place, parse, read_text, shown_path
from flowos.model.errors import FileError
from flowos.protocol.rights import EVERYWHERE, Member, Role

ROOT: Final = "root"  # the store's own administrator
USER_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,126}")
PLACE: Final = "{place}"
_TOP: Final = known_fields("apiVersion", "root", "users", "agents")
_USER: Final = known_fields("role", "tenants", "places", "login", "password_file")
_ROOT: Final = known_fields("login", "password_file")
_AGENTS: Final = known_fields("each_place")
_LOGINS: Final = ("password", "certificate")


@dataclass(frozen=True, slots=True)
class RightsFile:
    """What the file says.

    Attributes:
        members: Users of the cell.
        root: The store's administrator, by name "root"; None = the file does not speak of it.
    """

    members: tuple[Member, ...]
    root: Member | None = None


def load_rights(
    path: str | Path, *, tenants: Collection[str], places: Collection[str]
) -> RightsFile:
    """Read the file.

    Args:
        path: Its name; "-" = standard input.
        tenants: Those that the cell knows.
        places: Its nodes and switches.

    Raises:
        FileError: It says what cannot be; names the line and the way out.
    """
    documents = parse(read_text(path), path)
    if len(documents) != 1:
        raise FileError(
            f"has {len(documents)} documents", path=shown_path(path), hint="write one, with users:"
        )
    return _Reader(documents[0], Path(path).parent, tenants, places).read()


class _Reader:
    def __init__(
        self,
        document: Document,
        folder: Path,
        tenants: Collection[str],
        places: Collection[str],
    ) -> None:
        self._document = document
        self._folder = folder
        self._tenants = tenants
        self._places = places

    def read(self) -> RightsFile:
        top = Fields(self._document, (), self._document.value, _TOP)
        members = [self._member(*pair) for pair in top.pairs("users")]
        members += self._each_place(top, members)
        if not members:
            raise top.fail("users", "names nobody", "write users: {alice: {role: user, ...}}")
        return RightsFile(tuple(members), self._root(top))

    def _root(self, top: Fields) -> Member | None:
        if not top.has("root"):
            return None
        fields = Fields(self._document, ("root",), top.value("root"), _ROOT)
        certificate, password_file = self._login(fields, "password")
        return Member(ROOT, Role.OPERATOR, (), (), certificate, password_file)

    def _member(self, name: str, place: Place, value: object) -> Member:
        self._named(name, place)
        fields = Fields(self._document, place, value, _USER)
        if not fields.has("role"):
            raise fields.fail("role", "is missing", f"write one of {', '.join(Role)}")
        role = Role(fields.one_of("role", tuple(Role), ""))
        tenants = self._known(fields, "tenants", self._tenants)
        places = self._known(fields, "places", self._places)
        if role is Role.USER and not tenants:
            hint = f"write tenants: [{next(iter(self._tenants), 'default')}]"
            raise fields.fail("tenants", "is missing: a user acts for tenants", hint)
        if role is Role.AGENT and not places:
            raise fields.fail(
                "places", "is missing: an agent acts for nodes or switches", "write places: [n0]"
            )
        if role is Role.AGENT and tenants:
            raise fields.fail("tenants", "is not for agents", "leave it out")
        if role is not Role.AGENT and places:
            raise fields.fail("places", "is for agents alone", "leave it out, or write role: agent")
        usual = "certificate" if role is Role.AGENT else "password"
        certificate, password_file = self._login(fields, usual)
        return Member(name, role, tenants, places, certificate, password_file)

    def _named(self, name: str, place: Place) -> None:
        if name == ROOT:
            raise self._document.error(
                place, "root is the store's own administrator", "write root: beside users:"
            )
        if USER_NAME.fullmatch(name) is None:
            raise self._document.error(
                place,
                f"{shown(name)} is no name of a user",
                "use letters, digits and . _ @ - between them",
            )

    def _login(self, fields: Fields, usual: str) -> tuple[bool, str]:
        certificate = fields.one_of("login", _LOGINS, usual) == "certificate"
        password_file = fields.text("password_file", "")
        if certificate and password_file:
            raise fields.fail(
                "password_file",
                "is for login: password, this one shows a certificate",
                "leave it out",
            )
        return certificate, str(self._folder / password_file) if password_file else ""

    def _known(self, fields: Fields, name: str, known: Collection[str]) -> tuple[str, ...]:
        found = fields.texts(name)
        if EVERYWHERE in found:
            if len(found) > 1:
                raise fields.fail(name, f'"{EVERYWHERE}" is all of them', "write it alone")
            return found
        for word in found:
            if word not in known:
                what = "tenant" if name == "tenants" else "node or switch"
                raise fields.fail(
                    name, f"the cell has no {what} {shown(word)}", did_you_mean(word, known)
                )
        return tuple(dict.fromkeys(found))

    def _each_place(self, top: Fields, named: list[Member]) -> Iterator[Member]:
        """Yield a user with a certificate for each place that no user was named for."""
        if not top.has("agents"):
            return
        fields = Fields(self._document, ("agents",), top.value("agents"), _AGENTS)
        pattern = fields.text("each_place", PLACE)
        if PLACE not in pattern:
            raise fields.fail(
                "each_place", f"{shown(pattern)} gives all agents one name", f'write "{PLACE}"'
            )
        served = {place for member in named for place in member.places}
        if EVERYWHERE in served:
            return
        taken = {member.name for member in named}
        for place in sorted(set(self._places) - served):
            name = pattern.replace(PLACE, place)
            self._named(name, fields.place_of("each_place"))
            if name in taken:
                raise fields.fail(
                    "each_place",
                    f"{name} is a user of the file already",
                    f'write a pattern of their own, such as "agent-{PLACE}"',
                )
            yield Member(name, Role.AGENT, (), (place,), certificate=True)
