"""How an etcd of one's own is started, found again and stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flowos.model.errors import StoreRefused, StoreUnreachable
from flowos.model.transaction import Put, Transaction
from flowos_store import EmbeddedEtcd, EtcdStore
from flowos_store.embedded import Server

pytestmark = pytest.mark.etcd
ROOT = Path(__file__).parents[2]


def test_what_was_written_is_there_after_a_stop_and_a_start(tmp_path):
    server = EmbeddedEtcd(tmp_path).start()
    endpoint = server.endpoint
    store = EtcdStore([endpoint])
    store.commit([Transaction((), (Put("a", b"kept"),))])
    store.close()
    server.stop()
    assert not server.is_running()
    with server:
        assert server.endpoint == endpoint
        store = EtcdStore([endpoint])
        assert [record.value for record in store.read(["a"]).records] == [b"kept"]
        store.close()


def test_a_second_one_on_the_same_directory_is_refused_and_names_the_first(own_etcd):
    with pytest.raises(StoreRefused, match=rf"process {own_etcd.pid}.*stop it first"):
        EmbeddedEtcd(own_etcd.data_dir).start()
    assert own_etcd.is_running()


def test_another_process_finds_and_stops_it(own_etcd):
    found = EmbeddedEtcd.attach(own_etcd.data_dir)
    seen = (found.endpoint, found.pid, found.version)
    assert seen == (own_etcd.endpoint, own_etcd.pid, own_etcd.version)
    script = (
        "import sys, pathlib, flowos_store;"
        "flowos_store.EmbeddedEtcd.attach(pathlib.Path(sys.argv[1])).stop()"
    )
    paths = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'store'}"}
    command = [sys.executable, "-c", script, str(own_etcd.data_dir)]
    subprocess.run(command, env=paths, check=True, timeout=20)
    assert not own_etcd.is_running()
    with pytest.raises(StoreUnreachable, match="no etcd runs"):
        EmbeddedEtcd.attach(own_etcd.data_dir)


def test_a_directory_without_a_server_says_so(tmp_path):
    with pytest.raises(StoreUnreachable, match="no etcd was started"):
        EmbeddedEtcd.attach(tmp_path)
    assert not EmbeddedEtcd(tmp_path).is_running()


def test_a_crash_leaves_no_lock_behind(own_etcd):
    os.kill(own_etcd.pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while own_etcd.is_running() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not own_etcd.is_running()
    own_etcd.kill()
    own_etcd.start()
    assert own_etcd.is_running()


def test_a_detached_one_outlives_the_process_that_started_it(tmp_path):
    script = (
        "import sys, pathlib, flowos_store;"
        "flowos_store.EmbeddedEtcd(pathlib.Path(sys.argv[1]), detached=True,"
        " unsafe_no_fsync=True).start()"
    )
    paths = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'store'}"}
    command = [sys.executable, "-W", "error", "-c", script, str(tmp_path)]
    done = subprocess.run(command, env=paths, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    found = EmbeddedEtcd.attach(tmp_path)
    try:
        EtcdStore([found.endpoint]).close()
        assert os.getsid(found.pid) == found.pid
    finally:
        found.stop()
    assert not found.is_running()


def test_one_that_cannot_start_says_etcds_last_words(tmp_path):
    with pytest.raises(StoreUnreachable, match=r"did not come up.*no-such-flag"):
        EmbeddedEtcd(tmp_path, flags=("--no-such-flag",)).start()
    assert not EmbeddedEtcd(tmp_path).is_running()


def test_a_taken_port_is_told(own_etcd, tmp_path):
    port = int(own_etcd.endpoint.split(":")[1])
    with pytest.raises(StoreUnreachable, match=f"port {port} is taken"):
        EmbeddedEtcd(tmp_path / "other", client_port=port).start()


def test_settings_of_etcd_in_the_environment_do_not_disturb_it(tmp_path, monkeypatch):
    monkeypatch.setenv("ETCD_NAME", "other")
    monkeypatch.setenv("ETCD_DATA_DIR", str(tmp_path / "elsewhere"))
    with EmbeddedEtcd(tmp_path / "etcd", unsafe_no_fsync=True) as server:
        assert server.is_running()
    assert not (tmp_path / "elsewhere").exists()


def test_the_data_are_for_their_owner_alone(own_etcd):
    assert own_etcd.data_dir.stat().st_mode & 0o777 == 0o700


def test_the_description_says_what_an_operator_looks_for(own_etcd):
    said = json.loads((own_etcd.data_dir / "server.json").read_text())
    assert (said["pid"], said["version"]) == (own_etcd.pid, own_etcd.version)
    assert f"127.0.0.1:{said['client_port']}" == own_etcd.endpoint


def test_a_program_that_is_no_etcd_does_not_come_up(tmp_path):
    program = tmp_path / "etcd"
    program.write_text("#!/bin/sh\necho I am no etcd >&2\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(StoreUnreachable, match="I am no etcd"):
        EmbeddedEtcd(tmp_path / "data", server=Server(program, (3, 5, 40))).start()
