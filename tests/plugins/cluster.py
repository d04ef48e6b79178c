"""Three etcd members on this machine: killed, stopped, restarted and cut off as a test says.

    with Cluster(tmp_path) as cluster:              # start() and stop() do the same
        store = EtcdStore(cluster.endpoints)        # "host:port" of each member, in order
        leader = cluster.leader()                   # its index; waits until there is one
        cluster.kill(leader)                        # kill -9
        cluster.restart(leader)                     # on the same data and ports; does not wait
        cluster.pause(leader); cluster.resume(leader)   # SIGSTOP, SIGCONT
        cluster.cut(leader)                         # from the other members; clients reach it
        cluster.cut(leader, clients=True)           # from clients too: nothing reaches it
        cluster.heal(leader)
        cluster.wait_healthy()                      # all members answer and agree on a leader

Where the kernel lets us (root, `ip`), each member has a network namespace of its own and a cut
takes its link down. Elsewhere its traffic goes through proxies, and a cut lets nothing through.
`cluster.network` says which: "namespaces" or "proxies"; FLOWOS_TEST_NETWORK chooses.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final, Protocol, Self

import pytest

from flowos_store.embedded import QUOTA_BYTES, REQUEST_BYTES_MAX, find_server
from tests.plugins.proxy import Proxy

MEMBERS: Final = 3
HEARTBEAT_MS, ELECTION_MS = 100, 1000  # etcd's defaults: what an operator's cluster has
UP_SECONDS: Final = 30.0
CLIENT_PORT, PEER_PORT = 2379, 2380


class Network(Protocol):
    """How members and clients reach each other."""

    name: str

    def listen(self, member: int) -> tuple[str, str]:
        """Return the "host:port" at which a member takes clients, and peers."""

    def advertised(self, member: int) -> tuple[str, str]:
        """Return the same as everybody else sees it."""

    def command(self, member: int) -> list[str]:
        """Return what a member's command begins with."""

    def started(self, member: int, pid: int) -> None:
        """Note a member's process."""

    def cut(self, member: int, *, clients: bool) -> None:
        """Let nothing through between a member and the others, or anybody."""

    def heal(self, member: int) -> None:
        """Let everything through again."""

    def close(self) -> None:
        """Take it down."""


class Cluster:
    """See the module's sentence; every wait is for a condition, up to a generous limit."""

    def __init__(
        self,
        folder: Path,
        *,
        members: int = MEMBERS,
        flags: Sequence[str] = (),
        fsync: bool = False,
        network: str = "",
    ) -> None:
        """Describe it; `start` starts it.

        Args:
            folder: For data and logs.
            members: How many.
            flags: More of etcd's own.
            fsync: Whether members wait for their disk.
            network: "namespaces" or "proxies"; "" = the former where that is possible.
        """
        self.folder = folder
        self._flags = (*flags, *(() if fsync else ("--unsafe-no-fsync",)))
        self._members = range(members)
        self._program = find_server().path
        self._wanted_network = network or os.environ.get("FLOWOS_TEST_NETWORK", "")
        self._network: Network | None = None
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._paused: set[int] = set()
        self._cut: set[int] = set()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Self:
        """Start all members and wait until they agree on a leader."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._network = join(self._wanted_network, len(self._members))
        try:
            for member in self._members:
                self._launch(member)
            self.wait_healthy()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End everything; whatever state it is in."""
        for member in list(self._processes):
            self.kill(member)
        if self._network is not None:
            self._network.close()
            self._network = None

    @property
    def network(self) -> str:
        """How members are joined: "namespaces" or "proxies"."""
        return self._net.name

    @property
    def endpoints(self) -> list[str]:
        """Where clients find each member: "host:port"."""
        return [self._net.advertised(member)[0] for member in self._members]

    def pid(self, member: int) -> int:
        """Return a member's process."""
        return self._processes[member].pid

    # ------------------------------------------------------------------------------ trouble

    def kill(self, member: int) -> None:
        """End a member as a crash does."""
        process = self._processes.pop(member, None)
        self._paused.discard(member)
        if process is not None:
            process.kill()
            process.wait()

    def restart(self, member: int) -> None:
        """Start a member again on its data; kill it first where it still runs."""
        self.kill(member)
        self._launch(member, again=True)

    def pause(self, member: int) -> None:
        """Stop a member's process (SIGSTOP): its connections stay, and nothing answers."""
        pid = self.pid(member)
        os.kill(pid, signal.SIGSTOP)
        self._paused.add(member)
        stat = Path(f"/proc/{pid}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.005)

    def resume(self, member: int) -> None:
        """Let a stopped member go on."""
        os.kill(self.pid(member), signal.SIGCONT)
        self._paused.discard(member)

    def cut(self, member: int, *, clients: bool = False) -> None:
        """Cut a member off from the others; with `clients`, from everybody."""
        self._net.cut(member, clients=clients)
        self._cut.add(member)

    def heal(self, member: int) -> None:
        """Undo `cut`."""
        self._net.heal(member)
        self._cut.discard(member)

    # -------------------------------------------------------------------------- what there is

    def running(self) -> list[int]:
        """Return the members whose process runs, and is neither stopped nor cut off."""
        return [m for m in self._processes if m not in self._paused | self._cut]

    def leader(self, timeout_seconds: float = UP_SECONDS) -> int:
        """Return who of the running leads, as a majority sees it; waits until there is one."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            running = self.running()
            seen = [self._seen_leader(member) for member in running]
            for member in running:  # for a second, they still see one that has just gone
                if seen.count(member) > len(self._members) // 2:
                    return member
            assert time.monotonic() < deadline, f"no majority sees a leader: {seen}"
            time.sleep(0.02)

    def followers(self) -> list[int]:
        """Return the running members that do not lead."""
        leader = self.leader()
        return [member for member in self.running() if member != leader]

    def wait_healthy(self, timeout_seconds: float = UP_SECONDS) -> None:
        """Wait until every member runs, answers, and sees the same leader."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            seen = [self._seen_leader(member) for member in self._members]
            if None not in seen and len(set(seen)) == 1:
                return
            assert time.monotonic() < deadline, f"the cluster did not come up: {seen}; {self.log()}"
            time.sleep(0.05)

    def log(self) -> str:
        """Return the last lines that the members wrote."""
        logs = [self.folder / f"m{member}.log" for member in self._members]
        return "\n".join(log.read_text(errors="replace")[-500:] for log in logs if log.exists())

    # ---------------------------------------------------------------------------- the inside

    @property
    def _net(self) -> Network:
        assert self._network is not None, "start it first"
        return self._network

    def _launch(self, member: int, *, again: bool = False) -> None:
        client, peer = self._net.listen(member)
        seen_client, seen_peer = self._net.advertised(member)
        everybody = ",".join(f"m{m}=http://{self._net.advertised(m)[1]}" for m in self._members)
        flags = {
            "name": f"m{member}",
            "data-dir": self.folder / f"m{member}",
            "listen-client-urls": f"http://{client}",
            "advertise-client-urls": f"http://{seen_client}",
            "listen-peer-urls": f"http://{peer}",
            "initial-advertise-peer-urls": f"http://{seen_peer}",
            "initial-cluster": everybody,
            "initial-cluster-state": "existing" if again else "new",
            "heartbeat-interval": HEARTBEAT_MS,
            "election-timeout": ELECTION_MS,
            "logger": "zap",
            "log-level": "error",
            "log-outputs": "stderr",
            "max-txn-ops": 4096,
            "max-request-bytes": REQUEST_BYTES_MAX,
            "quota-backend-bytes": QUOTA_BYTES,
        }
        command = [*self._net.command(member), str(self._program)]
        command += [f"--{name}={value}" for name, value in flags.items()]
        with (self.folder / f"m{member}.log").open("ab") as log:
            self._processes[member] = subprocess.Popen(
                [*command, *self._flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={k: v for k, v in os.environ.items() if not k.startswith("ETCD_")},
            )
        self._net.started(member, self._processes[member].pid)

    def _seen_leader(self, member: int) -> int | None:
        """Ask a member who leads; None where it does not know or does not answer."""
        if member not in self._processes or member in self._paused:
            return None
        try:
            answer = _post(self._net.advertised(member)[0], "/v3/maintenance/status")
            members = _post(self._net.advertised(member)[0], "/v3/cluster/member/list")
        except (OSError, HTTPException, ValueError):
            return None
        names = {m["ID"]: m.get("name", "") for m in members.get("members", ())}
        name = names.get(answer.get("leader", "0"), "")
        return int(name[1:]) if name else None


def _post(endpoint: str, path: str) -> Any:
    host, _, port = endpoint.rpartition(":")
    connection = HTTPConnection(host, int(port), timeout=1.0)
    try:
        # Else a member without quorum waits for one before it lists the members.
        body = '{"linearizable": false}' if path.endswith("member/list") else "{}"
        connection.request("POST", path, body)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


# ------------------------------------------------------------------------- real network links


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


class Namespaces:
    """Each member in a network namespace with two links: to its peers, and to clients.

    The namespaces belong to processes that end when this one does, so nothing stays behind.
    """

    name = "namespaces"

    def __init__(self, members: int) -> None:
        self._holders: list[subprocess.Popen[bytes]] = []
        self._in: list[list[str]] = []  # per member, the command that enters its namespace
        self._net = self._free_net()
        try:
            self._build(members)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def possible() -> bool:
        """Tell whether the kernel lets us."""
        if os.geteuid() or not all(map(shutil.which, ("ip", "unshare", "nsenter"))):
            return False
        # Root in a container may lack the right, and the kernel either kind of link.
        links = "ip link add one type veth peer name two && ip link add three type bridge"
        tried = subprocess.run(
            ["unshare", "--net", "sh", "-c", links], capture_output=True, check=False
        )
        return tried.returncode == 0

    @staticmethod
    def _free_net() -> int:
        """Return a third byte of 198.18, the addresses set aside for benchmarks, that is unused."""
        used = subprocess.run(["ip", "-o", "-4", "addr"], capture_output=True, text=True).stdout
        return random.choice([n for n in range(1, 250) if f" 198.18.{n}." not in used])

    def _build(self, members: int) -> None:
        hub, enter_hub = self._holder()
        ours = f"flow{self._net}"
        _run("ip", "link", "add", ours, "type", "veth", "peer", "name", "out", "netns", str(hub))
        _run("ip", "addr", "add", f"198.18.{self._net}.1/24", "dev", ours)
        _run("ip", "link", "set", ours, "up")
        for bridge in ("clients", "peers"):
            _run(*enter_hub, "ip", "link", "add", bridge, "type", "bridge")
            _run(*enter_hub, "ip", "link", "set", bridge, "up")
        _run(*enter_hub, "ip", "link", "set", "out", "master", "clients", "up")
        for member in range(members):
            pid, enter = self._holder()
            self._in.append(enter)
            _run(*enter, "ip", "link", "set", "lo", "up")
            for bridge, net in (("clients", f"198.18.{self._net}"), ("peers", "10.198.0")):
                port = f"{bridge[0]}{member}"
                link = ("ip", "link", "add", port, "type", "veth", "peer", "name", bridge)
                _run(*enter_hub, *link, "netns", str(pid))
                _run(*enter_hub, "ip", "link", "set", port, "master", bridge, "up")
                _run(*enter, "ip", "addr", "add", f"{net}.{member + 10}/24", "dev", bridge)
                _run(*enter, "ip", "link", "set", bridge, "up")

    def _holder(self) -> tuple[int, list[str]]:
        """Start a process that keeps a namespace as long as we live; return how to enter it."""
        process = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.readline()  # it has its namespace now
        self._holders.append(process)
        return process.pid, ["nsenter", f"--net=/proc/{process.pid}/ns/net"]

    def listen(self, member: int) -> tuple[str, str]:
        """Return the "host:port" at which a member takes clients, and peers."""
        return self.advertised(member)

    def advertised(self, member: int) -> tuple[str, str]:
        """Return the same as everybody else sees it."""
        client = f"198.18.{self._net}.{member + 10}:{CLIENT_PORT}"
        return client, f"10.198.0.{member + 10}:{PEER_PORT}"

    def command(self, member: int) -> list[str]:
        """Return what a member's command begins with."""
        return self._in[member]

    def started(self, member: int, pid: int) -> None:
        """Note a member's process."""

    def cut(self, member: int, *, clients: bool) -> None:
        """Take a member's links down."""
        for link in ("peers", *(("clients",) if clients else ())):
            _run(*self._in[member], "ip", "link", "set", link, "down")

    def heal(self, member: int) -> None:
        """Bring a member's links up."""
        for link in ("peers", "clients"):
            _run(*self._in[member], "ip", "link", "set", link, "up")

    def close(self) -> None:
        """End the namespaces, and with them all links."""
        for process in self._holders:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


# ------------------------------------------------------------------------------------- proxies


class Proxies:
    """Members on loopback, each behind a proxy for its clients and one for its peers."""

    name = "proxies"

    def __init__(self, members: int) -> None:
        with contextlib.ExitStack() as held:
            sockets = [held.enter_context(socket.socket()) for _ in range(2 * members)]
            for probe in sockets:
                probe.bind(("127.0.0.1", 0))
            ports = [f"127.0.0.1:{probe.getsockname()[1]}" for probe in sockets]
        self._listen = [(ports[2 * m], ports[2 * m + 1]) for m in range(members)]
        self._pids: dict[int, int] = {}
        self._clients = [Proxy(client) for client, _ in self._listen]
        self._peers = [Proxy(peer, who=self._who) for _, peer in self._listen]
        self._cut: set[int] = set()

    def listen(self, member: int) -> tuple[str, str]:
        """Return the "host:port" at which a member takes clients, and peers."""
        return self._listen[member]

    def advertised(self, member: int) -> tuple[str, str]:
        """Return the same as everybody else sees it."""
        return self._clients[member].endpoint, self._peers[member].endpoint

    def command(self, member: int) -> list[str]:
        """Return what a member's command begins with."""
        return []

    def started(self, member: int, pid: int) -> None:
        """Note a member's process."""
        self._pids[member] = pid

    def cut(self, member: int, *, clients: bool) -> None:
        """Let nothing through to or from a member."""
        self._cut.add(member)
        self._set()
        if clients:
            self._clients[member].hold()

    def heal(self, member: int) -> None:
        """Let everything through again."""
        self._cut.discard(member)
        self._set()
        self._clients[member].release()

    def close(self) -> None:
        """End the proxies."""
        for proxy in (*self._clients, *self._peers):
            proxy.close()

    def _set(self) -> None:
        everybody = range(len(self._peers))
        for to, proxy in enumerate(self._peers):
            # None: the etcd has ended before we could look whose the connection is.
            proxy.cut_off(*(everybody if to in self._cut else self._cut), None)

    def _who(self, client: socket.socket) -> int | None:
        """Return which member made a connection: the one that has its other end open."""
        mine, other = client.getpeername(), client.getsockname()
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if (_shown(fields[1]), _shown(fields[2])) == (mine, other):
                wanted = f"socket:[{fields[9]}]"
                for member, pid in self._pids.items():
                    with contextlib.suppress(OSError):
                        for link in Path(f"/proc/{pid}/fd").iterdir():
                            with contextlib.suppress(OSError):
                                if str(link.readlink()) == wanted:
                                    return member
        return None


def _shown(kernel: str) -> tuple[str, int]:
    address, _, port = kernel.partition(":")
    return socket.inet_ntoa(bytes.fromhex(address)[::-1]), int(port, 16)


def join(wanted: str, members: int) -> Network:
    """Join members by what is wanted; "" = by namespaces where that is possible, else by proxies."""
    if wanted == "namespaces" or (not wanted and Namespaces.possible()):
        return Namespaces(members)
    return Proxies(members)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three members that the test may do anything to."""
    with Cluster(tmp_path / "cluster") as found:
        yield found
