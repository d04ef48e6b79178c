"""How is etcd reached, and who are we there? One channel inside an unmodified etcd3 client."""

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import grpc

from flowos.model.errors import SpecError, StoreRefused, StoreUnreachable
from flowos_store.failures import code_of, is_closed_channel, is_stale_token, is_unsent, meaning
from flowos_store.wire import etcd3, etcdrpc, rpc

Answer = TypeVar("Answer")
Metadata = tuple[tuple[str, str], ...]

PORT_DEFAULT: Final = 2379
COMES_BACK_SECONDS: Final = 2.0  # as long as the longest pause between two tries to connect

CHANNEL_OPTIONS: Final = (
    # A page of a large cell, or the events of a thousand revisions, is more than the default 4 MiB.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.lb_policy_name", "round_robin"),
    # A write is never sent twice: nobody knows whether the first one landed.
    ("grpc.enable_retries", 0),
    # A server that hangs answers no ping. etcd allows one every 5 s.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # A member that comes back is to be used within a second or two.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Each store has connections of its own, and its watches another: a large answer on one would
    # hold up the events on the other (etcd#15402).
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True, slots=True)
class Tls:
    """How the connection is secured.

    Attributes:
        ca: The authority that signed the servers' certificates; None = the system's.
        cert: This client's certificate, if the servers ask for one.
        key: Its key.
        server_name: What the servers' certificate says, where it is not the first endpoint's host.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str = ""

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files.

        Raises:
            SpecError: A file cannot be read.
        """
        try:
            ca, key, cert = (
                path.read_bytes() if path else None for path in (self.ca, self.key, self.cert)
            )
        except OSError as error:
            raise SpecError(f"cannot read {error.filename}: {error.strerror}") from error
        return grpc.ssl_channel_credentials(ca, key, cert)

    def context(self) -> ssl.SSLContext:
        """Return the same for Python's own HTTP client."""
        context = ssl.create_default_context(cafile=self.ca)
        if self.cert:
            context.load_cert_chain(self.cert, self.key)
        return context


class Etcd3Client(etcd3.Etcd3Client):  # type: ignore[misc]  # etcd3 has no types
    """etcd3's client on a channel of ours: its own constructor knows one endpoint and no token."""

    def __init__(self, channel: grpc.Channel, timeout_seconds: float) -> None:
        self.channel = channel
        self.timeout = timeout_seconds
        self.metadata: Metadata = ()
        self.call_credentials = None
        self.uses_secure_channel = False
        self.kvstub = etcdrpc.KVStub(channel)
        self.clusterstub = etcdrpc.ClusterStub(channel)
        self.leasestub = etcdrpc.LeaseStub(channel)
        self.maintenancestub = etcdrpc.MaintenanceStub(channel)
        self.watcher = etcd3.watch.Watcher(etcdrpc.WatchStub(channel), timeout=timeout_seconds)
        self.transactions = etcd3.Transactions()


class Connection:
    """The way to one etcd: its channels, its client, its token; every call goes through `ask`."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        tls: Tls | None = None,
        user: str = "",
        password: str = "",
        timeout_seconds: float,
    ) -> None:
        """Prepare the channels; nothing is sent yet.

        Args:
            endpoints: "host:port" or an http or https URL of each member.
            tls: How to secure the connection; https alone means the system's authorities.
            user: Who to log in as; empty = nobody, or whom the client certificate names.
            password: The user's.
            timeout_seconds: How long the calls of the etcd3 client may take.

        Raises:
            SpecError: An endpoint is no address, or not all are secured alike.
            StoreUnreachable: A host name cannot be resolved.
        """
        self.endpoints = ",".join(endpoints)
        self._user, self._password = user, password
        self._logging_in = threading.Lock()
        secured, target, name = _target(endpoints)
        self._http = [_http(endpoint, tls, secured=secured) for endpoint in endpoints]
        options = list(CHANNEL_OPTIONS)
        credentials = (tls or Tls()).credentials() if tls or secured else None
        if credentials:
            name = (tls.server_name if tls else "") or name
            options += [("grpc.ssl_target_name_override", name), ("grpc.default_authority", name)]

        def channel() -> grpc.Channel:
            if credentials:
                return grpc.secure_channel(target, credentials, options)
            return grpc.insecure_channel(target, options)

        self._channels = channel(), channel()
        self.client = Etcd3Client(self._channels[0], timeout_seconds)
        self.watchstub = etcdrpc.WatchStub(self._channels[1])
        self._authstub = etcdrpc.AuthStub(self._channels[0])

    @property
    def metadata(self) -> Metadata:
        """What every call carries: the token, once logged in."""
        return self.client.metadata

    @property
    def has_user(self) -> bool:
        """Whether there is somebody to log in as."""
        return bool(self._user)

    def log_in(self, stale: Metadata = (), *, patience_seconds: float = 0.0) -> None:
        """Get a token, unless another thread has replaced the stale one meanwhile.

        Args:
            stale: The metadata that did not do.
            patience_seconds: How long a server that is just starting is waited for.

        Raises:
            StoreRefused: The password is wrong, or the server knows no users.
            StoreUnreachable: No answer.
        """
        with self._logging_in:
            if self.client.metadata != stale:
                return
            request = rpc.AuthenticateRequest(name=self._user, password=self._password)
            try:
                answer = self._authstub.Authenticate(
                    request,
                    patience_seconds or self.client.timeout,
                    wait_for_ready=patience_seconds > 0,
                )
            except (grpc.RpcError, ValueError) as error:
                raise self._meaning(error, wrote=False) from error
            self.client.metadata = (("token", answer.token),)

    def ask(self, call: Callable[[], Answer], *, wrote: bool = False) -> Answer:
        """Make a call, and again where it certainly was not carried out and another try may help.

        That is after a new login, where the token has run out, and after waiting a moment for a
        server to come back, where no connection was to be had.

        Args:
            call: Reads `metadata` when it is called; may be called twice.
            wrote: Whether it may change something.

        Raises:
            StoreRefused: The server said no.
            StoreUnreachable: No answer, and nothing can have changed.
            OutcomeUnknown: No answer to a write that was sent.
        """
        token = self.client.metadata
        try:
            return call()
        except (grpc.RpcError, etcd3.Etcd3Exception, ValueError) as error:
            failed = _origin(error)
            stale = bool(self._user) and is_stale_token(failed)
            if not stale and not (is_unsent(failed) and self._comes_back()):
                raise self._meaning(failed, wrote=wrote) from failed
        if stale:
            self.log_in(stale=token)
        try:
            return call()
        except (grpc.RpcError, etcd3.Etcd3Exception, ValueError) as error:
            failed = _origin(error)
            raise self._meaning(failed, wrote=wrote) from failed

    def _comes_back(self) -> bool:
        """Wait a moment for a connection; tell whether there is one.

        It is more than a courtesy: before grpcio 1.80 a channel makes headway only while a call
        waits on it, so that calls which fail at once leave it unconnected for 15 s and more.
        """
        question = rpc.RangeRequest(key=b"\0", count_only=True)
        try:
            self.client.kvstub.Range(question, COMES_BACK_SECONDS, wait_for_ready=True)
        except grpc.RpcError as error:
            # Any answer is an answer, also that this is nobody's to ask.
            return code_of(error) not in {
                grpc.StatusCode.DEADLINE_EXCEEDED,
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.CANCELLED,
            }
        except ValueError:
            return False  # closed meanwhile
        return True

    def _meaning(self, failed: BaseException, *, wrote: bool) -> BaseException:
        if isinstance(failed, ValueError) and not is_closed_channel(failed):
            return failed  # a bug of ours, not of the connection
        return meaning(failed, wrote=wrote, endpoints=self.endpoints)

    def version(self, timeout_seconds: float) -> str:
        """Return the server's version; empty where it does not tell.

        Args:
            timeout_seconds: How long a server that is just starting is waited for.

        Raises:
            StoreRefused: Nobody is logged in, and the server asks for that.
            StoreUnreachable: No answer.
        """
        request = rpc.StatusRequest()
        status = self.client.maintenancestub.Status
        try:
            answer = self.ask(
                lambda: status(
                    request, timeout_seconds, metadata=self.metadata, wait_for_ready=True
                )
            )
        except StoreRefused as error:
            # For some releases since 3.5.28 and 3.6.0, status is for users with the role root.
            if "permission denied" not in str(error):
                raise
            return self._version_by_http(timeout_seconds)
        return str(answer.version)

    def _version_by_http(self, timeout_seconds: float) -> str:
        for open_http in self._http:
            connection = open_http(timeout_seconds)
            try:
                connection.request("GET", "/version")
                return str(json.loads(connection.getresponse().read())["etcdserver"])
            except (OSError, HTTPException, ValueError, KeyError):
                continue  # it may be served at another address, where --listen-client-http-urls is set
            finally:
                connection.close()
        return ""

    def auth_is_on(self) -> bool:
        """Tell whether the server checks users and roles."""
        status = self._channels[0].unary_unary(
            "/etcdserverpb.Auth/AuthStatus",
            request_serializer=rpc.AuthStatusRequest.SerializeToString,
            response_deserializer=rpc.AuthStatusResponse.FromString,
        )
        try:
            answer: Any = status(
                rpc.AuthStatusRequest(), self.client.timeout, metadata=self.metadata
            )
        except grpc.RpcError as error:
            # Whoever may not even ask is subject to roles.
            failed = meaning(error, wrote=False, endpoints=self.endpoints)
            if isinstance(failed, StoreUnreachable):
                raise failed from error
            return True
        return bool(answer.enabled)

    def close(self) -> None:
        """Close the channels; calls under way fail."""
        for channel in self._channels:
            with contextlib.suppress(ValueError):
                channel.close()


def _origin(error: BaseException) -> BaseException:
    # etcd3 raises exceptions without text for some codes; what grpc said hangs on them.
    inner = error.__context__
    return inner if isinstance(inner, grpc.RpcError) else error


def _target(endpoints: Sequence[str]) -> tuple[bool, str, str]:
    """Return whether they are secured, grpc's one target for all of them, and the first host."""
    parsed = [urlsplit(e if "://" in e else f"//{e}") for e in endpoints]
    schemes = {url.scheme for url in parsed}
    if not parsed or len(schemes) > 1 or not schemes <= {"", "http", "https"}:
        raise SpecError(
            f"endpoints {list(endpoints)} cannot be used together",
            hint='give each member as "host:port", or all as http:// or all as https:// URLs',
        )
    try:
        hosts = [(url.hostname or "", url.port or PORT_DEFAULT) for url in parsed]
    except ValueError as error:
        raise SpecError(f"endpoints {list(endpoints)}: {error}") from error
    if not all(host for host, _ in hosts):
        raise SpecError(f"endpoints {list(endpoints)}: a host is missing", hint='give "host:port"')
    secured, name = schemes == {"https"}, hosts[0][0]
    if len(hosts) == 1 and ":" not in name:
        return secured, f"dns:///{name}:{hosts[0][1]}", name
    # grpc takes several addresses in one target, but not several names.
    try:
        found = [_address(host, port) for host, port in hosts]
    except OSError as error:
        raise StoreUnreachable(f"cannot resolve {','.join(endpoints)}: {error}") from error
    families = {family for family, _ in found}
    if len(families) > 1:
        raise SpecError(f"endpoints {list(endpoints)} mix IPv4 and IPv6", hint="give one kind")
    return secured, f"{families.pop()}:" + ",".join(address for _, address in found), name


def _http(endpoint: str, tls: Tls | None, *, secured: bool) -> Callable[[float], HTTPConnection]:
    url = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
    host, port = url.hostname or "", url.port or PORT_DEFAULT
    if secured or tls:
        context = (tls or Tls()).context
        return lambda timeout: HTTPSConnection(host, port, timeout=timeout, context=context())
    return lambda timeout: HTTPConnection(host, port, timeout=timeout)


def _address(host: str, port: int) -> tuple[str, str]:
    choices = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    family, *_, address = min(choices, key=lambda choice: choice[0] != socket.AF_INET)
    if family == socket.AF_INET:
        return "ipv4", f"{address[0]}:{port}"
    return "ipv6", f"[{address[0]}]:{port}"
