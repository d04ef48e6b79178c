"""Options that many commands share, and the one place that names a concrete store."""

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from flowos.model.errors import SpecError

if TYPE_CHECKING:
    from flowos.runtime.client import CellClient
    from flowos_store import EtcdStore

F = TypeVar("F", bound=Callable[..., Any])

PASSWORD: Final = "FLOWOS_PASSWORD"  # noqa: S105  # the name of a variable
PASSWORD_MAX: Final = 1024  # bytes of a password file; more is another kind of file


@dataclass(frozen=True, slots=True)
class Where:
    """Which store and cell a command means, as its options say."""

    data_dir: str
    endpoints: tuple[str, ...]
    cell_name: str
    user: str
    password: str
    cacert: str
    cert: str
    key: str
    allow_unsafe: bool
    connect_timeout_seconds: float
    password_file: str = ""
    server_name: str = ""

    def folder(self) -> Path:
        """Return the data directory."""
        from flowos_store.opening import data_directory

        return data_directory(self.data_dir)

    def store(self) -> "EtcdStore":
        """Open the store."""
        from flowos_store import Tls, open_store

        tls = None
        if self.cacert or self.cert or self.key or self.server_name:
            ca, cert, key = (Path(p) if p else None for p in (self.cacert, self.cert, self.key))
            tls = Tls(ca=ca, cert=cert, key=key, server_name=self.server_name)
        return open_store(
            self.endpoints,
            cell=self.cell_name,
            data_dir=self.data_dir,
            tls=tls,
            user=self.user,
            password=self.password,
            allow_unsafe=self.allow_unsafe,
            connect_timeout_seconds=self.connect_timeout_seconds,
        )

    def client(self) -> "CellClient":
        """Open a client of the cell."""
        from flowos.runtime.client import CellClient
        from flowos.runtime.clock import SystemClock

        return CellClient(self.store(), SystemClock())

    def arguments(self) -> list[str]:
        """Return the options that make another `flowos` process mean the same store.

        A password is not among them, for everybody sees what processes were started with: it stands
        in its file, or in the environment.
        """
        found: list[str] = []
        for option, value in (
            ("--data-dir", self.data_dir),
            ("--endpoints", ",".join(self.endpoints)),
            ("--cell-name", self.cell_name),
            ("--user", self.user),
            ("--cacert", self.cacert),
            ("--cert", self.cert),
            ("--key", self.key),
            ("--server-name", self.server_name),
            ("--password-file", self.password_file),
        ):
            if value:
                found += [option, value]
        return [*found, *(["--allow-unsafe-etcd"] if self.allow_unsafe else [])]


def password_of(user: str, password_file: str = "") -> str:
    """Return a user's password: from its file, the environment, or a person at the terminal.

    What a person typed is put into the environment: for the processes that this one starts.

    Raises:
        SpecError: There is none, and nobody to ask.
    """
    if not user:
        return ""
    if ":" in user:
        raise SpecError(
            "--user takes a name alone: everybody sees what a command was started with",
            hint=f"give the password in --password-file or {PASSWORD}, or type it when asked",
        )
    if password_file:
        return read_password(password_file)
    known = os.environ.get(PASSWORD, "")
    if known:
        return known
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise SpecError(
            f"user {user} has no password here",
            where="--user",
            hint=f"set {PASSWORD}, or name a file by --password-file; a client certificate needs "
            "no --user",
        )
    typed: str = click.prompt(f"password of {user}", hide_input=True, err=True)
    os.environ[PASSWORD] = typed
    return typed


def read_password(path: str) -> str:
    """Return the first line of a file.

    Raises:
        SpecError: It cannot be read, or is empty.
    """
    try:
        with Path(path).open("rb") as file:
            line = file.read(PASSWORD_MAX).splitlines()[:1]
        password = line[0].decode() if line else ""
    except OSError as error:
        raise SpecError(f"cannot read the password: {error.strerror}", where=path) from None
    except UnicodeDecodeError:
        raise SpecError("is no text", where=path, hint="write the password into it") from None
    if not password:
        raise SpecError("is empty", where=path, hint="write the password into its first line")
    return password


def where_options(function: F) -> F:
    """Add the options that say which store and cell, and pass them as one `where`."""
    options = [
        click.option(
            "--data-dir", envvar="FLOWOS_DATA_DIR", default="", metavar="D",
            help="Where 'up' keeps its store and its processes' logs.",
        ),
        click.option(
            "--endpoints", envvar="FLOWOS_ENDPOINTS", default="", metavar="E,..",
            help="etcd members, host:port, instead of the embedded store.",
        ),
        click.option(
            "--cell-name", envvar="FLOWOS_CELL", default="", metavar="C", help="Which cell.",
        ),
        click.option("--user", envvar="FLOWOS_USER", default="", help="etcd user."),
        click.option(
            "--password-file", envvar="FLOWOS_PASSWORD_FILE", default="", metavar="F",
            help=f"The user's password; else {PASSWORD}, else it is asked for.",
        ),
        click.option("--cacert", envvar="FLOWOS_CACERT", default="", help="etcd's authority."),
        click.option("--cert", envvar="FLOWOS_CERT", default="", help="Client certificate."),
        click.option("--key", envvar="FLOWOS_KEY", default="", help="Its key."),
        click.option(
            "--server-name", envvar="FLOWOS_SERVER_NAME", default="", metavar="N",
            help="What the servers' certificates say; default: each endpoint's host.",
        ),
        click.option(
            "--allow-unsafe-etcd", is_flag=True, help="Take servers that are known to lose data.",
        ),
        click.option(
            "--connect-timeout", default=5.0, show_default=True, metavar="S",
            help="Seconds the store may take to answer.",
        ),
    ]  # fmt: skip

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:  # click passes what it parsed
        user, password_file = kwargs.pop("user"), kwargs.pop("password_file")
        where = Where(
            data_dir=kwargs.pop("data_dir"),
            endpoints=tuple(e for e in kwargs.pop("endpoints").split(",") if e),
            cell_name=kwargs.pop("cell_name"),
            user=user,
            password=password_of(user, password_file),
            password_file=password_file,
            cacert=kwargs.pop("cacert"),
            cert=kwargs.pop("cert"),
            key=kwargs.pop("key"),
            server_name=kwargs.pop("server_name"),
            allow_unsafe=kwargs.pop("allow_unsafe_etcd"),
            connect_timeout_seconds=kwargs.pop("connect_timeout"),
        )
        return function(*args, where=where, **kwargs)

    decorated: Any = wrapped
    for option in reversed(options):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]
