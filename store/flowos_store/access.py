"""Which users and roles does etcd have, and how are they changed? For its user root alone."""

from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from flowos.model.errors import Forbidden, StoreRefused, UnsafeServer
from flowos.protocol.rights import May, Rights, Span, Step
from flowos_store import versions
from flowos_store.encoding import ENCODING
from flowos_store.etcd import EtcdStore
from flowos_store.wire import auth, etcdrpc, rpc

T = TypeVar("T")
K = TypeVar("K")

ROOT: Final = "root"  # etcd's own name for the user, and the role, that may do everything
TIMEOUT_SECONDS: Final = 30.0  # one change makes etcd work out the rights of all users again
READERS: Final = 8
_TYPES: Final = {
    May.READ: auth.Permission.READ,
    May.WRITE: auth.Permission.WRITE,
    May.BOTH: auth.Permission.READWRITE,
}
_MAY: Final = {number: may for may, number in _TYPES.items()}


class EtcdAccess:
    """The users and roles of the etcd that a store is in."""

    def __init__(self, store: EtcdStore) -> None:
        """Use a store's connection.

        Args:
            store: Opened by root, or by anybody while etcd checks no rights yet.
        """
        self._connection = store._connection  # noqa: SLF001  # its own package's way to etcd
        self._root = store._root.decode(*ENCODING)  # noqa: SLF001  # the same
        self._stub: Any = etcdrpc.AuthStub(self._connection.client.channel)

    @property
    def cell(self) -> str:
        """The name of the store's cell."""
        return self._root.removeprefix("/flowos/").removesuffix("/")

    def refuse_leaky_servers(self) -> None:
        """Refuse a server whose nested transactions go past roles.

        Raises:
            UnsafeServer: Names its version and the one that is needed.
        """
        told = self._connection.version(TIMEOUT_SECONDS)
        if not told:
            return
        version = versions.parse(told)
        refusal = versions.judge(version, auth=True).refusal
        if refusal:
            raise UnsafeServer(
                f"etcd {versions.shown(version)} at {self._connection.endpoints} {refusal}: "
                "roles would keep nobody out"
            )

    def is_on(self) -> bool:
        """Tell whether etcd checks who asks."""
        return self._connection.auth_is_on()

    def rights(self, is_ours: Callable[[Mapping[str, Mapping[Span, May]]], Any]) -> Rights:
        """Return all users with their roles, and those roles that are ours, with their spans.

        Args:
            is_ours: Picks from all roles; see `flowos.protocol.rights.of_cell`.

        Raises:
            Forbidden: Only root may look.
        """
        roles = self._call("RoleList", rpc.AuthRoleListRequest()).roles
        users = self._call("UserList", rpc.AuthUserListRequest()).users
        return Rights(
            is_ours(self._each(sorted(roles), self._spans_of)),
            self._each(sorted(users), self._roles_of),
        )

    def _spans_of(self, role: str) -> dict[Span, May]:
        answer = self._call("RoleGet", rpc.AuthRoleGetRequest(role=role))
        return {
            Span(p.key.decode(*ENCODING), p.range_end.decode(*ENCODING)): _MAY[p.permType]
            for p in answer.perm
        }

    def _roles_of(self, user: str) -> frozenset[str]:
        return frozenset(self._call("UserGet", rpc.AuthUserGetRequest(name=user)).roles)

    def _each(self, names: Collection[K], look: Callable[[K], T]) -> dict[K, T]:
        with ThreadPoolExecutor(READERS, "rights") as pool:
            return dict(zip(names, pool.map(look, names), strict=True))

    def apply(self, step: Step, password: str | None = None) -> None:
        """Make one change.

        Args:
            step: What is to change.
            password: Of a user that is added; None = it shows a certificate.

        Raises:
            Forbidden: Only root may change anything.
            OutcomeUnknown: No answer: look at the rights again before going on.
        """
        match step.verb:
            case "add role":
                self._call("RoleAdd", rpc.AuthRoleAddRequest(name=step.name), wrote=True)
            case "drop role":
                self._call("RoleDelete", rpc.AuthRoleDeleteRequest(role=step.name), wrote=True)
            case "allow":
                permission = auth.Permission(
                    permType=_TYPES[step.may],
                    key=step.span.first.encode(*ENCODING),
                    range_end=step.span.end.encode(*ENCODING),
                )
                request = rpc.AuthRoleGrantPermissionRequest(name=step.name, perm=permission)
                self._call("RoleGrantPermission", request, wrote=True)
            case "forbid":
                request = rpc.AuthRoleRevokePermissionRequest(
                    role=step.name,
                    key=step.span.first.encode(*ENCODING),
                    range_end=step.span.end.encode(*ENCODING),
                )
                self._call("RoleRevokePermission", request, wrote=True)
            case "add user":
                self.add_user(step.name, password)
            case "give":
                request = rpc.AuthUserGrantRoleRequest(user=step.name, role=step.role)
                self._call("UserGrantRole", request, wrote=True)
            case "take":
                request = rpc.AuthUserRevokeRoleRequest(name=step.name, role=step.role)
                self._call("UserRevokeRole", request, wrote=True)
            case other:
                raise AssertionError(f"no such step: {other}")

    def add_user(self, name: str, password: str | None) -> None:
        """Add a user; without a password it can only show a certificate of that common name."""
        request = rpc.AuthUserAddRequest(name=name, password=password or "")
        request.options.no_password = password is None
        self._call("UserAdd", request, wrote=True)

    def change_password(self, name: str, password: str) -> None:
        """Give a user another password."""
        request = rpc.AuthUserChangePasswordRequest(name=name, password=password)
        self._call("UserChangePassword", request, wrote=True)

    def turn_on(self) -> None:
        """Have etcd check from now on who asks; root must be there with its role."""
        self._call("AuthEnable", rpc.AuthEnableRequest(), wrote=True)

    def make_root(self, users: Mapping[str, Iterable[str]], password: str | None) -> None:
        """Make root what etcd asks for before it checks rights; what is there already stays."""
        if ROOT not in users:
            self.add_user(ROOT, password)
        if ROOT not in users.get(ROOT, ()):
            try:
                self._call("RoleAdd", rpc.AuthRoleAddRequest(name=ROOT), wrote=True)
            except StoreRefused as error:
                if "already exists" not in str(error):
                    raise
            request = rpc.AuthUserGrantRoleRequest(user=ROOT, role=ROOT)
            self._call("UserGrantRole", request, wrote=True)

    def _call(self, name: str, request: Any, *, wrote: bool = False) -> Any:
        call = getattr(self._stub, name)
        connection = self._connection
        try:
            return connection.ask(
                lambda: call(request, TIMEOUT_SECONDS, metadata=connection.metadata), wrote=wrote
            )
        except StoreRefused as error:
            if "permission denied" in str(error) or "user name is empty" in str(error):
                raise Forbidden(
                    f"only etcd's user {ROOT} may look at users and roles and change them: "
                    f"--user {ROOT}, or the certificate of that name"
                ) from error
            raise
