"""How is etcd reached, and who are we there? One channel inside an unmodified etcd3 client."""

import json
import random
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import grpc

from flowos.model.errors import Forbidden, SpecError, StoreUnreachable
from flowos_store.attempts import Attempts, Then
from flowos_store.failures import code_of, is_closed_channel, meaning, reason
from flowos_store.members import Member, Members, Metadata
from flowos_store.wire import etcd3, etcdrpc, rpc

Answer = TypeVar("Answer")

PORT_DEFAULT: Final = 2379
COMES_BACK_SECONDS: Final = 2.0  # as long as the longest pause between two tries to connect

CHANNEL_OPTIONS: Final = (
    # A page of a large cell, or the events of a thousand revisions, is more than the default 4 MiB.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # One name may stand for several addresses.
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
    # Else channels share connections, and closing one that hangs would not end it.
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True, slots=True)
class Tls:
    """How the connection is secured.

    Attributes:
        ca: The authority that signed the servers' certificates; None = the system's.
        cert: This client's certificate, if the servers ask for one.
        key: Its key.
        server_name: What the servers' certificates say, where it is not each endpoint's own host.
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
    """The way to one etcd: its members, its client, its token; every call goes through `ask`."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        tls: Tls | None = None,
        user: str = "",
        password: str = "",
        timeout_seconds: float,
        first: int | None = None,
    ) -> None:
        """Prepare the channels; nothing is sent yet.

        Args:
            endpoints: "host:port" or an http or https URL of each member.
            tls: How to secure the connection; https alone means the system's authorities.
            user: Who to log in as; empty = nobody, or whom the client certificate names.
            password: The user's.
            timeout_seconds: How long the calls of the etcd3 client may take.
            first: Which member is asked first; None = any, so that many clients spread.

        Raises:
            SpecError: An endpoint is no address, or not all are secured alike.
        """
        self.endpoints = ",".join(endpoints)
        self._user, self._password = user, password
        self._logging_in = threading.Lock()
        secured, addresses = _addresses(endpoints)
        self._http = [_http(endpoint, tls, secured=secured) for endpoint in endpoints]
        credentials = (tls or Tls()).credentials() if tls or secured else None
        self.members = Members(
            [
                Member(endpoint, _opener(host, port, credentials, tls.server_name if tls else ""))
                for endpoint, (host, port) in zip(endpoints, addresses, strict=True)
            ],
            first=random.randrange(len(addresses)) if first is None else first,
            metadata=lambda: self.metadata,
        )
        self.why_not = ""  # a clause for people, where nobody answered
        self.client = Etcd3Client(self.members.calls, timeout_seconds)
        self.watchstub = etcdrpc.WatchStub(self.members.watches)
        self._authstub = etcdrpc.AuthStub(self.members.calls)

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
            LoginRefused: The password is wrong, or the server knows no users.
            StoreUnreachable: No answer.
        """
        if patience_seconds:
            self._find(patience_seconds)
        with self._logging_in:
            if self.client.metadata != stale:
                return
            request = rpc.AuthenticateRequest(name=self._user, password=self._password)
            answer = self._ask(
                lambda: self._authstub.Authenticate(request, self.client.timeout),
                Attempts(len(self.members), wrote=False, has_user=False),
            )
            self.client.metadata = (("token", answer.token),)

    def ask(self, call: Callable[[], Answer], *, wrote: bool = False) -> Answer:
        """Make a call, and again where another try may help and cannot do anything twice.

        See `Attempts`: after a new login, where the token has run out; at another member, where
        this one cannot be reached or has no leader; after a moment, where none can; and what only
        reads, where its connection broke.

        Args:
            call: Reads `metadata` when it is called; may be called several times.
            wrote: Whether it may change something.

        Raises:
            StoreRefused: The server said no.
            StoreUnreachable: No answer, and nothing can have changed.
            OutcomeUnknown: No answer to a write that was sent.
        """
        members, token = self.members, self.client.metadata
        answers, begun = members.answers, members.begin()
        try:
            answer = call()
        except (grpc.RpcError, etcd3.Etcd3Exception, ValueError) as error:
            failed = _origin(error)
        else:
            members.answers += 1
            return answer
        finally:
            members.end(begun)
        if code_of(failed) is grpc.StatusCode.DEADLINE_EXCEEDED and members.answers == answers:
            members.doubt()
        attempts = Attempts(len(members), wrote=wrote, has_user=self.has_user)
        return self._again(call, attempts, failed, token)

    def _ask(self, call: Callable[[], Answer], attempts: Attempts) -> Answer:
        """Make a call with the patience that `attempts` has."""
        token = self.client.metadata
        with self.members.waiting():
            try:
                return call()
            except (grpc.RpcError, etcd3.Etcd3Exception, ValueError) as error:
                failed = _origin(error)
        return self._again(call, attempts, failed, token)

    def _again(
        self, call: Callable[[], Answer], attempts: Attempts, failed: BaseException, token: Metadata
    ) -> Answer:
        while True:
            match attempts.failed(failed, closed=self.members.closed):
                case Then.LOG_IN:
                    self.log_in(stale=token)
                case Then.ELSEWHERE:
                    if not is_closed_channel(failed):
                        self.members.pass_over()
                case Then.WHEN_THERE:
                    if self.members.find(COMES_BACK_SECONDS) is not None:
                        raise self._meaning(failed, wrote=attempts.wrote) from failed
                case Then.RAISE:
                    raise self._meaning(failed, wrote=attempts.wrote) from failed
            token = self.client.metadata
            with self.members.waiting():
                try:
                    return call()
                except (grpc.RpcError, etcd3.Etcd3Exception, ValueError) as error:
                    failed = _origin(error)

    def _find(self, seconds: float) -> None:
        """Wait until some member answers.

        Raises:
            StoreUnreachable: None did.
        """
        failed = self.members.find(seconds)
        self.why_not = "" if failed is None else reason(failed)
        if failed is not None:
            raise self._meaning(failed, wrote=False) from failed

    def _meaning(self, failed: BaseException, *, wrote: bool) -> BaseException:
        if isinstance(failed, ValueError) and not is_closed_channel(failed):
            return failed  # a bug of ours, not of the connection
        return meaning(failed, wrote=wrote, endpoints=self.endpoints)

    def version(self, timeout_seconds: float) -> str:
        """Return the server's version; empty where it does not tell.

        Args:
            timeout_seconds: How long a server that is just starting is waited for.

        Raises:
            LoginRefused: Nobody is logged in, and the server asks for that.
            StoreUnreachable: No answer.
        """
        self._find(timeout_seconds)
        request = rpc.StatusRequest()
        status = self.client.maintenancestub.Status
        try:
            answer = self.ask(lambda: status(request, timeout_seconds, metadata=self.metadata))
        except Forbidden:
            # For some releases since 3.5.28 and 3.6.0, status is for users with the role root.
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
        status = self.members.calls.unary_unary(
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
        self.members.close()


def _origin(error: BaseException) -> BaseException:
    # etcd3 raises exceptions without text for some codes; what grpc said hangs on them.
    inner = error.__context__
    return inner if isinstance(inner, grpc.RpcError) else error


def _opener(
    host: str, port: int, credentials: grpc.ChannelCredentials | None, server_name: str
) -> Callable[[], grpc.Channel]:
    """Return how to open a channel to one member."""
    target = _target(host, port)
    if credentials is None:
        return lambda: grpc.insecure_channel(target, CHANNEL_OPTIONS)
    name = server_name or host
    options = (
        *CHANNEL_OPTIONS,
        ("grpc.ssl_target_name_override", name),
        ("grpc.default_authority", name),
    )
    return lambda: grpc.secure_channel(target, credentials, options)


def _target(host: str, port: int) -> str:
    # IPv6 has colons of its own; no name server knows it.
    return f"ipv6:[{host}]:{port}" if ":" in host else f"dns:///{host}:{port}"


def _addresses(endpoints: Sequence[str]) -> tuple[bool, list[tuple[str, int]]]:
    """Return whether they are secured, and each one's host and port."""
    parsed = [urlsplit(e if "://" in e else f"//{e}") for e in endpoints]
    schemes = {url.scheme for url in parsed}
    if not parsed or len(schemes) > 1 or not schemes <= {"", "http", "https"}:
        raise SpecError(
            f"endpoints {list(endpoints)} cannot be used together",
            hint='give each member as "host:port", or all as http:// or all as https:// URLs',
        )
    try:
        found = [(url.hostname or "", url.port or PORT_DEFAULT) for url in parsed]
    except ValueError as error:
        raise SpecError(f"endpoints {list(endpoints)}: {error}") from error
    if not all(host for host, _ in found):
        raise SpecError(f"endpoints {list(endpoints)}: a host is missing", hint='give "host:port"')
    return schemes == {"https"}, found


def _http(endpoint: str, tls: Tls | None, *, secured: bool) -> Callable[[float], HTTPConnection]:
    url = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
    host, port = url.hostname or "", url.port or PORT_DEFAULT
    if secured or tls:
        context = (tls or Tls()).context
        return lambda timeout: HTTPSConnection(host, port, timeout=timeout, context=context())
    return lambda timeout: HTTPConnection(host, port, timeout=timeout)
