"""`flowos cell backup` and `restore`, as an operator calls them."""

import gzip
import json
import os
import subprocess
import sys
import time

import pytest

from flowos.model import keys
from flowos.model.codec import encode
from flowos.model.transaction import Delete, Put, Transaction
from flowos.runtime.backup import RESTORE
from flowos.runtime.loading import LOADING
from tests.runtime.threads import until

pytestmark = pytest.mark.etcd


def test_a_backup_is_one_revision_of_everything_but_sessions(live, tmp_path):
    live("submit", "--name", "t", "--engines", "gpu=2", "--wait", "running")
    path = tmp_path / "cell.backup"
    said = live("cell", "backup", str(path))
    assert "1 slices, 1 placements" in said.err
    assert [p.name for p in tmp_path.iterdir()] == ["cell.backup"]
    head, *records, end = map(json.loads, gzip.decompress(path.read_bytes()).splitlines())
    reading = live.store.read([""], at=head["revision"])
    kept = [r for r in reading.records if not r.key.startswith(("session/", "stats/", "verify/"))]
    assert [record["key"] for record in records] == [record.key for record in kept]
    assert (end["keys"], head["cell"], head["apiVersion"]) == (len(kept), live.cell, "flowos/v1")
    leased = {
        entry.key.decode().split("/", 3)[3]
        for entry in live.store._connection.client.kvstub.Range(everything(live)).kvs
        if entry.lease
    }
    assert leased
    assert not leased & {record["key"] for record in records}


def everything(flowos):
    from flowos_store.wire import rpc

    root = f"/flowos/{flowos.cell}".encode()
    return rpc.RangeRequest(key=root + b"/", range_end=root + b"0")


def test_a_cell_goes_back_to_its_backup_while_its_agents_stay(live, tmp_path):
    live("submit", "--name", "t", "--engines", "gpu=2", "--wait", "running")
    path = tmp_path / "cell.backup"
    live("cell", "backup", str(path))
    live("submit", "--name", "later", "--engines", "gpu=1", "--wait", "running")
    refused = live("cell", "restore", str(path), code=2)
    assert "--replace" in refused.err
    refused = live("cell", "restore", str(path), "--replace", code=2)
    assert "stop schedulers, controllers" in refused.err
    controller, agent, scheduler = live.machines
    for supervisor, thread in (controller, scheduler):
        supervisor.stop()
        thread.join(20)
    said = live("cell", "restore", str(path), "--replace")
    assert "out of service until its agent" in said.err
    live.machines = [agent]
    live.start(agent=False)
    until(
        lambda: live("slice", "show", "t", "-o", "json").json["phase"] == "running", "it runs", 60
    )
    live("slice", "show", "later", code=2)
    assert live("cell", "verify", "--history", "-o", "json").json["violations"] == []
    live("cancel", "t")
    live("slice", "wait", "t", "--timeout", "60s", code=None)
    assert live("cell", "verify", "--history", "-o", "json").json["violations"] == []


def test_a_cell_is_copied_under_another_name(still, tmp_path):
    path = tmp_path / "cell.backup"
    still("cell", "backup", str(path))
    said = still("cell", "restore", str(path), "--cell-name", f"{still.cell}-copy")
    assert f"as cell {still.cell}-copy" in said.err
    shown = still("cell", "export")
    copied = still("cell", "export", "--cell-name", f"{still.cell}-copy")
    assert copied.out == shown.out
    again = still("cell", "show", "-o", "json", "--cell-name", f"{still.cell}-copy").json
    assert again["generation"] == 1
    assert again["restored_at"] > 0
    assert still("cell", "show", "-o", "json").json["generation"] == 0


def test_places_whose_agents_never_come_back_are_put_to_use_by_hand(still, tmp_path):
    still("engine", "drain", "n1", "--reason", "fan")
    path = tmp_path / "cell.backup"
    still("cell", "backup", str(path))
    copy = ("--cell-name", f"{still.cell}-copy")
    still("cell", "restore", str(path), *copy)
    assert "quarantined" in still("engine", "undrain", "n1", *copy, code=2).err
    still("engine", "undrain", "n0", "n1", "sw0", "--dirty", *copy)
    found = still("engine", "ls", "-o", "json", *copy).json["items"]
    states = {item["node"]: item["state"] for item in found}
    assert states == {"n0": "free", "n1": "free", "n2": "quarantined", "n3": "quarantined"}


def test_a_backup_goes_into_a_pipe(still, tmp_path):
    path = tmp_path / "piped"
    with path.open("wb") as out:
        subprocess.run(
            [sys.executable, "-m", "flowos_cli.main", "cell", "backup", "-"],
            stdout=out,
            env=os.environ,
            check=True,
        )
    still("cell", "restore", str(path), "--cell-name", f"{still.cell}-piped")


@pytest.mark.parametrize("content", [b"", b"no gzip", gzip.compress(b"[]\n"), None])
def test_what_is_no_backup_is_refused_by_name_and_nothing_is_written(still, tmp_path, content):
    path = tmp_path / "what.backup"
    if content is not None:
        path.write_bytes(content)
    said = still("cell", "restore", str(path), "--cell-name", f"{still.cell}-no", code=2)
    assert "what.backup" in said.err
    assert still("cell", "show", "--cell-name", f"{still.cell}-no", code=2).out == ""


def test_no_cell_is_loaded_over_one_that_is_half_restored(still):
    marker = Put(LOADING, encode(RESTORE + "1234"))
    still.store.commit([Transaction((), (marker, Delete(keys.INFO), Delete(keys.TOTALS)))])
    for words in (("cell", "init", "fic-small"), ("cell", "init", "fic-small", "--replace")):
        assert "restore FILE" in still(*words, code=2).err
    still("submit", "--engines", "gpu=1", code=2)


def test_a_backup_that_is_interrupted_leaves_no_file(still, tmp_path):
    path = tmp_path / "cell.backup"
    environment = os.environ | {"FLOWOS_CELL": still.cell}
    child = subprocess.Popen(
        [sys.executable, "-m", "flowos_cli.main", "cell", "backup", str(path)],
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 20
    while child.poll() is None and not list(tmp_path.iterdir()):
        assert time.monotonic() < deadline
    child.send_signal(2)
    code = child.wait(20)
    left = [p.name for p in tmp_path.iterdir()]
    assert left == (["cell.backup"] if code == 0 else [])
