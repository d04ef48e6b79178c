"""A cell whose etcd lets in only whom it knows: users with passwords, agents with certificates."""

import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from flowos.documents.presets import preset
from flowos.drivers.sim import SimDriver, SimSettings
from flowos.runtime.clock import SystemClock
from flowos.runtime.loading import load_cell_into
from flowos.runtime.processes import Supervisor, agent_process
from flowos.verify.history import verify_history
from flowos_cli.main import run
from flowos_store import EmbeddedEtcd, EtcdStore, Tls
from tests.cli.conftest import Said
from tests.plugins.certificates import Authority

pytestmark = pytest.mark.etcd

READY_SECONDS = 30
TOKEN_SECONDS = 2

FILE = """
root: {password_file: root.txt}
users:
  sched: {role: control, password_file: sched.txt}
  ops: {role: operator, password_file: ops.txt}
  alice: {role: user, tenants: [default], password_file: alice.txt}
agents: {each_place: "{place}"}
"""
PASSWORDS = ("root", "sched", "ops", "alice")


@dataclass
class Guarded:
    """An etcd that asks for a certificate, on one address, and a cell in it."""

    folder: Path
    server: EmbeddedEtcd
    authority: Authority
    secured: str
    capsys: pytest.CaptureFixture[str]
    ends: list[Callable[[], object]] = field(default_factory=list)

    def __call__(self, user: str, *words: str, code: int | None = 0) -> Said:
        """Run a command as a user with its password, over TLS with a certificate of nobody's."""
        cert, key = self.folder / "nobody.pem", self.folder / "nobody.key"
        who = ("--user", user, "--password-file", str(self.folder / f"{user}.txt"))
        tls = ("--cacert", str(self.authority.ca), "--cert", str(cert), "--key", str(key))
        return self.run(*words, *who, *tls, "--endpoints", self.secured, code=code)

    def run(self, *words: str, code: int | None = 0) -> Said:
        self.capsys.readouterr()
        said = Said(run(words), *self.capsys.readouterr())
        assert "Traceback" not in said.err
        assert code is None or said.code == code, (words, said)
        return said

    def tls(self, name: str) -> Tls:
        return Tls(self.authority.ca, self.folder / f"{name}.pem", self.folder / f"{name}.key")

    def store(self, name: str = "root") -> EtcdStore:
        found = EtcdStore([self.secured], tls=self.tls(name), connect_timeout_seconds=20)
        self.ends.append(found.close)
        return found

    def agent(self, place: str) -> threading.Event:
        """Run the agent of one place, which shows its certificate and knows no password."""
        ready = threading.Event()
        supervisor = Supervisor(self.store(place), SystemClock())
        thread = threading.Thread(
            target=supervisor.run,
            args=(
                lambda s: agent_process(
                    s, place, SimDriver(SimSettings()), [place], ready=ready.set
                ),
            ),
        )
        thread.start()
        self.ends += [lambda: thread.join(READY_SECONDS), supervisor.stop]
        return ready

    def process(self, *words: str) -> Path:
        """Run a whole process as the control user; return its log."""
        log = self.folder / f"{words[0]}.log"
        cert, key = self.folder / "nobody.pem", self.folder / "nobody.key"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("FLOWOS_")} | {
            "FLOWOS_ENDPOINTS": self.secured,
            "FLOWOS_USER": "sched",
            "FLOWOS_PASSWORD_FILE": str(self.folder / "sched.txt"),
            "FLOWOS_CACERT": str(self.authority.ca),
            "FLOWOS_CERT": str(cert),
            "FLOWOS_KEY": str(key),
        }
        with log.open("wb") as out:
            child = subprocess.Popen(
                [sys.executable, "-m", "flowos_cli.main", *words],
                env=environment,
                stdout=out,
                stderr=out,
            )

        def end() -> None:
            child.send_signal(signal.SIGTERM)
            child.wait(READY_SECONDS)

        self.ends.append(end)
        return log


@pytest.fixture
def guarded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Guarded]:
    for name in [n for n in os.environ if n.startswith("FLOWOS_")]:
        monkeypatch.delenv(name)
    authority = Authority(tmp_path)
    places = ["n0", "n1", "n2", "n3", "sw0", "sw1"]
    for name in ("server", "root", "nobody", *places):
        authority.certificate(name)
    with socket.socket() as plain, socket.socket() as other:
        plain.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        ports = plain.getsockname()[1], other.getsockname()[1]
    secured = f"https://127.0.0.1:{ports[1]}"
    server = EmbeddedEtcd(
        tmp_path / "etcd",
        client_port=ports[0],
        unsafe_no_fsync=True,
        flags=(
            f"--listen-client-urls={secured},http://127.0.0.1:{ports[0]}",
            f"--advertise-client-urls={secured}",
            f"--cert-file={tmp_path / 'server.pem'}",
            f"--key-file={tmp_path / 'server.key'}",
            f"--trusted-ca-file={authority.ca}",
            "--client-cert-auth",
            f"--auth-token-ttl={TOKEN_SECONDS}",
        ),
    )
    with server:
        for name in PASSWORDS:
            (tmp_path / f"{name}.txt").write_text(f"{name}-secret\n")
        (tmp_path / "rights.yaml").write_text(FILE)
        found = Guarded(tmp_path, server, authority, secured, capsys)
        store = EtcdStore([server.endpoint])
        load_cell_into(store, preset("fic-small"), source="fic-small")
        store.close()
        applied = found.run(
            "cell", "roles", "apply", str(tmp_path / "rights.yaml"), "--enable-auth",
            "--endpoints", server.endpoint,
        )  # fmt: skip
        assert "+ auth on" in applied.out
        yield found
        for end in reversed(found.ends):
            end()


def eventually(what: Callable[[], bool], why: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not what():
        assert time.monotonic() < deadline, why
        time.sleep(0.05)


def test_a_slice_lives_with_every_process_as_its_own_user_beyond_the_life_of_tokens(guarded):
    logs = [guarded.process("scheduler", "run", "batch=2"), guarded.process("controller", "run")]
    ready = [guarded.agent(place) for place in ("n0", "n1", "n2", "n3", "sw0", "sw1")]
    assert all(event.wait(READY_SECONDS) for event in ready)
    slices = ("--engines", "gpu=4,fpga=1", "--circuits", "ring", "--wait", "done")
    guarded("alice", "submit", "--name", "a", *slices, "--run-for", "0.1s", "--timeout", "60s")
    time.sleep(TOKEN_SECONDS + 1)  # with nothing to do that would renew a token
    guarded("alice", "submit", "--name", "b", *slices, "--run-for", "0.1s", "--timeout", "60s")
    guarded("ops", "engine", "drain", "n0/gpu0", "--reason", "fan")
    guarded("ops", "engine", "drain", "n1/gpu0", "--deadline", "0s")
    guarded("ops", "engine", "undrain", "n0/gpu0")
    guarded("alice", "submit", "--name", "c", "--engines", "gpu=2", "--wait", "running")
    guarded("ops", "engine", "drain", "n2", "--deadline", "0s")
    assert "c" in guarded("alice", "ls").out
    guarded("alice", "cancel", "c")
    guarded("alice", "slice", "wait", "c", "--timeout", "60s", code=None)
    guarded("alice", "explain", "c", code=None)
    guarded("ops", "status")
    guarded("ops", "tenant", "set", "vision")
    assert guarded("alice", "slice", "show", "c", "-o", "json").json["phase"] == "cancelled"
    store = guarded.store()
    eventually(
        lambda: not store.read(["placement/default/", "claim/share/", "report/"]).records,
        "all is clean",
    )
    assert verify_history(store).violations == ()
    for log in logs:
        assert "ermission" not in log.read_text()
        assert "invalid auth token" not in log.read_text()


def test_a_user_does_what_is_its_own_and_is_told_what_is_not(guarded):
    spec = ("--engines", "gpu=1", "--name")
    guarded("alice", "submit", *spec, "mine")
    guarded("ops", "tenant", "set", "vision")
    for words in (
        ("submit", *spec, "theirs", "--tenant", "vision"),
        ("engine", "drain", "n0/gpu0"),
        ("tenant", "set", "more"),
        ("cell", "roles", "show"),
        ("cell", "roles", "apply", str(guarded.folder / "rights.yaml")),
    ):
        said = guarded("alice", *words, code=5)
        assert "role" in said.err or "root" in said.err, said.err
    assert "mine" in guarded("ops", "ls").out
    guarded("ops", "cancel", "mine", code=5)


def test_applying_a_file_again_changes_nothing_and_a_smaller_one_takes_rights_away(guarded):
    path = guarded.folder / "rights.yaml"
    again = guarded("root", "cell", "roles", "apply", str(path))
    assert again.out == ""
    assert "= role flowos-main-agent-n0" in again.err
    path.write_text(FILE.replace("  alice:", "  bob:").replace("alice.txt", "ops.txt"))
    dry = guarded("root", "cell", "roles", "apply", str(path), "--dry-run", "-o", "json").json
    assert dry["dryRun"] is True
    assert set(dry["changes"]) == {
        "+ user bob",
        "+ user bob: flowos-main-read",
        "+ user bob: flowos-main-tenant-default",
        "- user alice: flowos-main-read",
        "- user alice: flowos-main-tenant-default",
    }
    guarded("alice", "ls")
    guarded("root", "cell", "roles", "apply", str(path))
    guarded("alice", "ls", code=5)
    shown = guarded("root", "cell", "roles", "show", "-o", "json").json["items"]
    (tenant,) = (role for role in shown if role["name"] == "flowos-main-tenant-default")
    assert (tenant["users"], tenant["writes"]) == (["bob"], ["slice/default/*"])


def test_a_password_is_given_anew_where_that_is_asked_for(guarded):
    path = guarded.folder / "rights.yaml"
    (guarded.folder / "alice.txt").write_text("another\n")
    said = guarded("alice", "ls", code=5)
    assert "authentication failed" in said.err or "password" in said.err
    guarded("root", "cell", "roles", "apply", str(path), "--reset-password", "alice")
    guarded("alice", "ls")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("  alice: {role: user, tenants: [defalt]}", "rights.yaml:3: users.alice.tenants"),
        ("  alice: {role: admin}", "use user, control, agent, operator"),
        ("  alice: {role: user}", "write tenants: [default]"),
        ("  n9: {role: agent, places: [n9]}", "the cell has no node or switch"),
        ("  alice: {role: user, tenants: [default], places: [n0]}", "is for agents alone"),
        ("  alice: {role: user, tenant: default}", "did you mean tenants?"),
        ("  root: {role: operator}", "the store's own administrator"),
        ("  a: {role: operator, login: certificate, password_file: f}", "shows a certificate"),
        ("  a: {role: operator, password_file: nowhere}", "cannot read the password"),
        ('  "a b": {role: operator}', "no name of a user"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line_and_the_way_out(still, tmp_path, line, said):
    path = tmp_path / "rights.yaml"
    path.write_text(f"\nusers:\n{line}\n")
    before = still("cell", "roles", "apply", str(path), code=2)
    assert said in before.err


def test_roles_without_a_file_are_those_of_the_cells_tenants_and_places(still):
    lines = still("cell", "roles", "apply", "--dry-run").lines
    assert "+ role flowos-" + still.cell + "-agent-sw1" in lines
    assert "+ role flowos-" + still.cell + "-tenant-default" in lines
    assert not [line for line in lines if line.startswith("+ user")]


def test_a_password_is_taken_from_a_file_or_the_environment_and_never_from_the_command_line(
    still, monkeypatch, tmp_path
):
    said = still("ls", "--user", "alice:secret", code=2)
    assert "FLOWOS_PASSWORD" in said.err
    said = still("ls", "--user", "alice", code=2)
    assert "--password-file" in said.err
    said = still("ls", "--user", "alice", "--password-file", str(tmp_path / "none"), code=2)
    assert "No such file" in said.err
    (tmp_path / "empty").write_text("\n")
    said = still("ls", "--user", "alice", "--password-file", str(tmp_path / "empty"), code=2)
    assert "is empty" in said.err
    assert "--password " not in still("ls", "--help").out


def test_completion_logs_in_as_the_command_would(guarded, monkeypatch):
    from flowos_cli.commands import completion

    guarded("alice", "submit", "--name", "live", "--engines", "gpu=1")
    monkeypatch.setattr(completion, "CONNECT_SECONDS", 5.0)
    options = {
        "endpoints": guarded.secured,
        "user": "alice",
        "password_file": str(guarded.folder / "alice.txt"),
        "cacert": str(guarded.authority.ca),
        "cert": str(guarded.folder / "nobody.pem"),
        "key": str(guarded.folder / "nobody.key"),
    }
    assert completion._names("slice", options, "") == ["live"]


def test_whoever_may_look_takes_a_backup_and_root_restores_it_for_agents_of_one_place(guarded):
    spec = ("--engines", "gpu=2", "--run-for", "0.1s")
    guarded("alice", "submit", "--name", "a", *spec)
    path = str(guarded.folder / "cell.backup")
    guarded("alice", "cell", "backup", path)
    guarded("alice", "cell", "restore", path, "--replace", code=5)
    guarded("root", "cell", "restore", path, "--replace")
    shown = guarded("alice", "engine", "ls", "-o", "json").json["items"]
    assert {item["state"] for item in shown} == {"quarantined"}
    guarded.process("scheduler", "run", "batch")
    guarded.process("controller", "run")
    for place in ("n0", "n1", "n2", "n3", "sw0", "sw1"):
        guarded.agent(place)
    store = guarded.store()
    eventually(lambda: not store.read(["placement/~quarantine/"]).records, "all have looked")
    guarded("alice", "slice", "wait", "a", "--timeout", "60s")
    assert verify_history(store).violations == ()


def test_a_person_at_a_terminal_is_asked_for_the_password(guarded):
    def asked(*words: str, answers: int = 1) -> tuple[int, str]:
        ours, theirs = pty.openpty()
        child = subprocess.Popen(
            [sys.executable, "-m", "flowos_cli.main", *words],
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env={k: v for k, v in os.environ.items() if not k.startswith("FLOWOS_")},
        )  # fmt: skip
        os.close(theirs)
        screen = b""
        while True:
            try:
                screen += os.read(ours, 1000)
            except OSError:  # the other end is closed
                break
            if answers and screen.rstrip().endswith(b"alice:"):
                answers -= 1
                screen += b"<"
                os.write(ours, b"alice-secret\n")
        os.close(ours)
        return child.wait(READY_SECONDS), screen.decode()

    where = ("--endpoints", guarded.server.endpoint, "--user", "alice")
    code, screen = asked("slice", "ls", *where)
    assert (code, "password of alice:" in screen) == (0, True), screen
    assert "alice-secret" not in screen
