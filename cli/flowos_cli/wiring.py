"""Options that many commands share, and the one place that names a concrete store."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from flowos.runtime.client import CellClient
    from flowos_store import EtcdStore

F = TypeVar("F", bound=Callable[..., Any])


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

    def folder(self) -> Path:
        """Return the data directory."""
        from flowos_store.opening import data_directory

        return data_directory(self.data_dir)

    def store(self) -> "EtcdStore":
        """Open the store."""
        from flowos_store import Tls, open_store

        tls = None
        if self.cacert or self.cert or self.key:
            ca, cert, key = (Path(p) if p else None for p in (self.cacert, self.cert, self.key))
            tls = Tls(ca=ca, cert=cert, key=key)
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
        """Return the options that make another `flowos` process mean the same store."""
        found: list[str] = []
        for option, value in (
            ("--data-dir", self.data_dir),
            ("--endpoints", ",".join(self.endpoints)),
            ("--cell-name", self.cell_name),
            ("--user", self.user),
            ("--cacert", self.cacert),
            ("--cert", self.cert),
            ("--key", self.key),
        ):
            if value:
                found += [option, value]
        return [*found, *(["--allow-unsafe-etcd"] if self.allow_unsafe else [])]


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
        click.option("--password", envvar="FLOWOS_PASSWORD", default="", hidden=True),
        click.option("--cacert", envvar="FLOWOS_CACERT", default="", help="etcd's authority."),
        click.option("--cert", envvar="FLOWOS_CERT", default="", help="Client certificate."),
        click.option("--key", envvar="FLOWOS_KEY", default="", help="Its key."),
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
        where = Where(
            data_dir=kwargs.pop("data_dir"),
            endpoints=tuple(e for e in kwargs.pop("endpoints").split(",") if e),
            cell_name=kwargs.pop("cell_name"),
            user=kwargs.pop("user"),
            password=kwargs.pop("password"),
            cacert=kwargs.pop("cacert"),
            cert=kwargs.pop("cert"),
            key=kwargs.pop("key"),
            allow_unsafe=kwargs.pop("allow_unsafe_etcd"),
            connect_timeout_seconds=kwargs.pop("connect_timeout"),
        )
        return function(*args, where=where, **kwargs)

    decorated: Any = wrapped
    for option in reversed(options):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]
