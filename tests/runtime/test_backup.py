"""A cell in a file and back: nothing is lost, nothing is up that no order names, half is nothing."""

import contextlib
import gzip
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from flowos.drivers.sim import SimDriver, SimSettings
from flowos.drivers.step import Verb
from flowos.model import keys
from flowos.model.codec import decode, encode
from flowos.model.errors import (
    DuplicateName,
    FileError,
    OutcomeUnknown,
    SpecError,
    StillContended,
    UnknownName,
)
from flowos.model.life import phase_in
from flowos.model.placement import Held, Observed, Order, Placement, Report
from flowos.model.slice import End, Member, Phase, Slice
from flowos.model.transaction import Committed, Delete, Put, Transaction
from flowos.model.view import CellView
from flowos.protocol import system
from flowos.runtime.backup import restore, whole_file, write_backup
from flowos.runtime.client import CellClient
from flowos.runtime.clock import SystemClock
from flowos.runtime.lifecycle import Rules
from flowos.runtime.loading import load_cell_into
from flowos.runtime.processes import (
    Supervisor,
    agent_process,
    controller_process,
    new_attempt,
)
from flowos.verify.history import verify_history, verify_now
from flowos_store import EmbeddedEtcd, EtcdStore
from flowos_store.memory import MemoryStore
from tests.runtime.cells import SUM, small_cell, wanted
from tests.runtime.threads import LivingCell, Process, until

PATIENCE_SECONDS = 60.0
FENCELESS: Any = None  # the test is no process of the cell
PLACES = ("n0", "n1", "n2", "n3", "sw0", "sw1", "sw2", "sw3")


def nothing() -> None:
    pass


class Hardware(SimDriver):
    """Devices that stay as they are when their agent's life ends."""

    def close(self) -> None:
        pass

    def switch_off(self) -> None:
        super().close()


def acting(rack: Hardware, places: tuple[str, ...]) -> Callable[[Supervisor], None]:
    """Return the life of an agent for some places, on devices that outlive it."""
    return lambda s: agent_process(s, places[0], rack, places, ready=nothing)


def written(store, path: Path):
    with whole_file(path) as out:
        return write_backup(store, out, cell="main", etcd="3.5.30", taken_at=1.0)


def state(store) -> dict[str, bytes]:
    """What a cell's records say, without what is its store's own."""
    passing = ("session/", "stats/", "verify/", "cell/info")
    return {r.key: r.value for r in store.read([""]).records if not r.key.startswith(passing)}


def put(store, records: dict[str, object]) -> int:
    """Write records as one transaction, comparing nothing; None = delete."""
    operations = tuple(
        Delete(key) if record is None else Put(key, encode(record))
        for key, record in records.items()
    )
    (outcome,) = store.commit([Transaction((), operations)])
    assert isinstance(outcome, Committed)
    return outcome.revision


@pytest.fixture
def little(tmp_path: Path) -> Path:
    """A backup of a cell at rest: some slices, a placement, a drained node, reports of the past."""
    store = MemoryStore(SystemClock())
    load_cell_into(store, small_cell())
    put(store, {keys.slice_("default/z"): Slice(wanted("z", gpus=1))})
    put(store, {keys.slice_("default/b"): Slice(wanted("b", gpus=1)),
                keys.slice_("default/a"): Slice(wanted("a", gpus=1))})  # fmt: skip
    put(store, {keys.slice_("default/gone"): Slice(wanted("gone"), end=End(Phase.DONE))})
    uid = put(store, {keys.slice_("default/run"): Slice(wanted("run", gpus=1))})
    unit = "engine/n0/gpu0"
    placement = Placement(uid=uid, attempt="a1", held={unit: ()}, ordered=("n0",), started_at=5.0)
    order = Order(slice="default/run", units=(unit,))
    ordered = put(
        store,
        {
            keys.placement("default/run"): placement,
            f"claim/{unit}": ("default/run", "a1", ()),
            keys.order("n0", "a1"): order,
        },
    )
    put(store, {keys.report("n0", "a1"): Report(applied=ordered, building=ordered)})
    put(store, {keys.observed("n0/fpga0"): Observed(bitstream=f"{SUM}@sha256:{SUM}", task="x")})
    put(store, {f"{keys.session('agent', 'n0')}": {"role": "agent", "name": "n0"}})
    drained = Placement(uid=0, attempt="d1", held={"node/n1": ()}, why="fan")
    put(
        store,
        {
            keys.placement("~drain/node/n1"): drained,
            "claim/node/n1": ("~drain/node/n1", "d1", ()),
        },
    )
    path = tmp_path / "little.backup"
    written(store, path)
    return path


# ---------------------------------------------------------------------- what becomes of records


def restored(path: Path) -> MemoryStore:
    store = MemoryStore(SystemClock())
    restore(store, path, now=7.0)
    return store


def view_of(store) -> CellView:
    view = CellView()
    reading = store.read([""])
    view.load(reading.records)
    view.progressed(reading.revision)
    return view


def test_what_is_restored_keeps_every_law(little):
    verdict = verify_now(restored(little))
    assert verdict.violations == ()


def test_slices_keep_their_order_and_those_of_one_submission_stay_one(little):
    view = view_of(restored(little))
    created = {name.partition("/")[2]: entry.created for name, entry in view.slices.items()}
    assert created["z"] < created["a"] == created["b"] < created["run"]


def test_a_placement_is_of_the_slice_as_it_is_now_known(little):
    view = view_of(restored(little))
    assert view.placements["default/run"].value.uid == view.slices["default/run"].created


def test_an_array_stays_one_and_the_history_is_kept(tmp_path):
    store = MemoryStore(SystemClock())
    load_cell_into(store, small_cell())
    CellClient(store, SystemClock()).submit(
        [wanted(f"t-{i}", gpus=1, array=Member("t", i, 500)) for i in range(500)]
    )
    line = Held("a9", engines={"w": ("n0/gpu0",)}, from_at=1.0, until_at=2.0, ended="done")
    put(store, {keys.history("default/old", "a9", 0): line})
    path = tmp_path / "array.backup"
    written(store, path)
    again = restored(path)
    assert len({r.created for r in again.read(["slice/"]).records}) == 1
    (kept,) = again.read(["history/"]).records
    assert decode(Held, kept.value) == line


def test_what_an_earlier_slice_of_the_name_has_left_is_not_taken_for_the_new_ones(tmp_path):
    store = MemoryStore(SystemClock())
    load_cell_into(store, small_cell())
    left = Placement(uid=3, attempt="old", held={"engine/n0/gpu0": ()}, ordered=("n0",))
    put(
        store,
        {
            keys.placement("default/t"): left,
            "claim/engine/n0/gpu0": ("default/t", "old", ()),
            keys.order("n0", "old"): Order(slice="default/t", units=("engine/n0/gpu0",)),
        },
    )
    put(store, {keys.slice_("default/t"): Slice(wanted("t", gpus=1))})
    assert verify_now(store).violations == ()
    path = tmp_path / "stale.backup"
    written(store, path)
    after = restored(path)
    view = view_of(after)
    assert view.placements["default/t"].value.uid != view.slices["default/t"].created
    assert verify_now(after).violations == ()


def test_no_report_counts_until_its_agent_gives_it_again_but_exit_codes_stay(little, tmp_path):
    assert not restored(little).read(["report/"]).records
    store = MemoryStore(SystemClock())
    load_cell_into(store, small_cell())
    done = put(store, {keys.order("n0", "a1"): Order(slice="default/x")})
    put(store, {keys.report("n0", "a1"): Report(applied=done, building=done, exit_code=3)})
    written(store, tmp_path / "b")
    (report,) = restored(tmp_path / "b").read(["report/"]).records
    assert decode(Report, report.value) == Report(exit_code=3)


def test_no_engine_is_taken_for_loaded_or_switched_on(little):
    (record,) = restored(little).read(["observed/"]).records
    assert decode(Observed, record.value) == Observed(power="off")


def test_sessions_stay_behind(little):
    assert not restored(little).read(["session/", "stats/", "verify/"]).records
    assert b"session" not in gzip.decompress(little.read_bytes())


def test_every_place_is_out_of_service_and_a_drain_waits_for_its_place_too(little):
    view = view_of(restored(little))
    for place in ("n0", "sw0", "sw1"):
        unit = f"switch/{place}" if place.startswith("sw") else f"node/{place}"
        holder = view.holder(unit)
        assert holder is not None
        assert holder.startswith(f"~quarantine/{place}/")
        quarantine = view.placements[holder].value
        assert view.orders[quarantine.attempt][place].value == Order(slice=holder)
    assert view.holder("node/n1") == "~drain/node/n1"
    assert system.undrain(view, "~drain/node/n1", fence=None) is None
    (waits,) = view.placements["~drain/node/n1"].value.waits
    assert view.orders[waits]["n1"].value.slice == f"~quarantine/n1/{waits}"


def test_each_restore_is_another_generation_of_the_cell(little, tmp_path):
    def generation(store) -> int:
        (info,) = store.read([keys.INFO]).records
        return int(json.loads(info.value)["generation"])

    store = restored(little)
    assert generation(store) == 1
    restore(store, little, replace=True, now=8.0)
    assert generation(store) == 2
    written(store, tmp_path / "second")
    assert generation(restored(tmp_path / "second")) == 3


# -------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("damage", ["cut", "flip", "torn line", "no end", "one line less", "text"])
def test_a_damaged_file_is_refused_before_anything_is_written(little, damage):
    whole = little.read_bytes()
    lines = gzip.decompress(whole).splitlines(keepends=True)
    match damage:
        case "cut":
            little.write_bytes(whole[: len(whole) // 2])
        case "flip":
            middle = len(whole) // 2
            little.write_bytes(whole[:middle] + bytes((whole[middle] ^ 1,)) + whole[middle + 1 :])
        case "torn line":
            little.write_bytes(gzip.compress(b"".join(lines)[:-200]))
        case "no end":
            little.write_bytes(gzip.compress(b"".join(lines[:-1])))
        case "one line less":
            little.write_bytes(gzip.compress(b"".join(lines[:3] + lines[4:])))
        case "text":
            little.write_text("apiVersion: flowos/v1\n")
    store = MemoryStore(SystemClock())
    before = store.read([""])
    with pytest.raises(FileError, match=r"little\.backup") as error:
        restore(store, little, now=0.0)
    assert "copy" in str(error.value) or "name one" in str(error.value)
    assert store.read([""]) == before


def test_a_file_is_there_as_a_whole_or_not_at_all(tmp_path):
    path = tmp_path / "b"
    path.write_text("the last one")

    def broken_off() -> None:
        with whole_file(path) as out:
            out.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert path.read_text() == "the last one"
    assert [p.name for p in tmp_path.iterdir()] == ["b"]
    with pytest.raises(SpecError, match="cannot be written"), whole_file(tmp_path / "no" / "b"):
        pass


def test_half_a_cell_is_not_backed_up(tmp_path):
    with pytest.raises(UnknownName, match="nothing to back up"):
        written(MemoryStore(SystemClock()), tmp_path / "b")


# ------------------------------------------------------------------------------ whom it stops


def test_a_cell_that_is_there_goes_only_where_that_is_said(little):
    store = restored(little)
    before = store.read([""])
    with pytest.raises(DuplicateName, match="--replace"):
        restore(store, little, now=0.0)
    assert store.read([""]) == before
    put(store, {keys.session("scheduler", "batch-0@1"): {"role": "scheduler", "name": "batch-0"}})
    with pytest.raises(SpecError, match="batch-0@1"):
        restore(store, little, replace=True, now=0.0)
    assert store.read([keys.INFO]).records


def test_a_process_that_comes_up_while_it_is_restored_stops_the_restore(little):
    store = Failing(MemoryStore(SystemClock()), at=3, how=comes_up)
    with pytest.raises(StillContended, match="came up"):
        restore(store, little, now=0.0)
    assert not store.read([keys.INFO]).records


def test_a_process_waits_for_a_whole_cell(little):
    store = MemoryStore(SystemClock())
    living = Process(store, lambda s: controller_process(s, "c", Rules(), ready=nothing))
    try:
        time.sleep(0.5)
        assert not store.read([""]).records
        restore(store, little, now=0.0)
        until(lambda: store.read(["session/controller/c@"]).records, "it begins")
    finally:
        living.stop()


# ----------------------------------------------------------------------------- broken off


class Died(BaseException):
    """The process is gone, at this very point."""


def before_it(commit):
    raise Died


def after_it(commit):
    commit()
    raise Died


def lost(commit):
    commit()
    raise OutcomeUnknown("no answer")


def comes_up(commit):
    commit()
    raise ComesUp


class ComesUp(Exception):
    """Another process opens a session."""


class Failing:
    """A store of which one commit goes wrong."""

    def __init__(self, store: MemoryStore, *, at: int, how) -> None:
        self.inner, self.at, self.how, self.count = store, at, how, 0
        self.failed = False

    def __getattr__(self, name: str):
        return getattr(self.inner, name)

    def commit(self, transactions, *, timeout_seconds: float = 5.0):
        self.count += 1
        if self.count != self.at:
            return self.inner.commit(transactions)
        self.failed = True
        answers = []
        try:
            self.how(lambda: answers.extend(self.inner.commit(transactions)))
        except ComesUp:
            put(self.inner, {keys.session("scheduler", "s@1"): {"role": "scheduler", "name": "s"}})
        return answers


@pytest.mark.parametrize("how", [before_it, after_it])
def test_a_restore_that_died_at_any_point_is_begun_anew(little, how, monkeypatch):
    monkeypatch.setattr("flowos.runtime.backup.KEYS_A_REQUEST", 7)
    whole, at = state(restored(little)), 0
    while True:
        at += 1
        store = Failing(MemoryStore(SystemClock()), at=at, how=how)
        try:
            restore(store, little, now=7.0)
        except Died:
            there = bool(store.read([keys.INFO]).records)
            if not there:
                put(store.inner, {keys.placement("default/left"): Placement(uid=0, attempt="x")})
            restore(store, little, replace=there, now=7.0)
        again = state(store.inner)
        assert again.keys() - attempts_in(again) == whole.keys() - attempts_in(whole), at
        assert verify_now(store.inner).violations == ()
        if not store.failed:
            break
    assert at > 10


def attempts_in(records: dict[str, bytes]) -> set[str]:
    """The keys that carry attempts made anew by each restore."""
    return {key for key in records if "~quarantine/" in key or key.startswith("order/")}


def test_an_answer_that_was_lost_at_any_point_costs_nothing(little, monkeypatch):
    monkeypatch.setattr("flowos.runtime.backup.KEYS_A_REQUEST", 7)
    at, failed = 0, True
    while failed:
        at += 1
        store = Failing(MemoryStore(SystemClock()), at=at, how=lost)
        restore(store, little, now=7.0)
        failed = store.failed
        assert verify_now(store.inner).violations == ()
        view = view_of(store.inner)
        assert view.placements["default/run"].value.uid == view.slices["default/run"].created
        created = {name.partition("/")[2]: e.created for name, e in view.slices.items()}
        assert created["z"] < created["a"] == created["b"] < created["run"]
    assert at > 10


@pytest.mark.etcd
def test_a_killed_restore_leaves_no_cell_and_the_next_one_brings_it_back(
    etcd_server: EmbeddedEtcd, etcd_store, tmp_path: Path
) -> None:
    source = MemoryStore(SystemClock())
    load_cell_into(source, small_cell(nodes=300, gpus=8))
    for number in range(300):
        put(source, {keys.slice_(f"default/s{number}"): Slice(wanted(f"s{number}", gpus=1))})
    path = tmp_path / "large.backup"
    written(source, path)
    store = etcd_store()
    cell = store._root.decode().split("/")[2]
    command = [sys.executable, "-m", "flowos_cli.main", "cell", "restore", str(path),
               "--endpoints", etcd_server.endpoint, "--cell-name", cell]  # fmt: skip
    dice = random.Random(4)
    killed = 0
    for _ in range(6):
        child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        aim = dice.randrange(3400)
        while child.poll() is None and len(store.read([""]).records) < aim:
            pass
        child.send_signal(signal.SIGKILL)
        child.communicate()
        if store.read([keys.INFO]).records:
            put(store, {keys.INFO: None})  # it was faster; as if it had not been
        else:
            killed += 1
            with pytest.raises(UnknownName):
                CellClient(store, SystemClock()).view()
    assert killed
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "300 slices" in done.stderr
    view = view_of(store)
    names = [n for _, n in sorted((e.created, n) for n, e in view.slices.items())]
    assert names == [f"default/s{number}" for number in range(300)]
    verdict = verify_history(store)
    assert verdict.violations == ()


# ------------------------------------------------------------------------------- a living cell


@pytest.mark.etcd
def test_a_living_cell_goes_on_in_a_fresh_etcd_with_the_devices_that_there_are(
    own_etcd: EmbeddedEtcd, tmp_path: Path
) -> None:
    own_etcd.client_port = own_etcd._description.client_port
    store = EtcdStore([own_etcd.endpoint], silent_seconds=2.0)
    living = LivingCell(store, nodes=4, gpus=4, budget=1700, lanes=8)
    racks = [Hardware(SimSettings(seconds={Verb.SCRUB: 0.3})) for _ in range(2)]
    client = CellClient(store, SystemClock())
    rules = Rules(idle_off_seconds=0, sweep_seconds=0.1)
    living.scheduler()
    living._start("c", lambda s: controller_process(s, "c", rules, ready=nothing))
    for rack, places in zip(racks, (PLACES[::2], PLACES[1::2]), strict=True):
        living._start(f"agent-{places[0]}", acting(rack, places))

    def up() -> set[str]:
        return {there.attempt for rack in racks for there in rack.standing()}

    def running(name: str) -> bool:
        return phase_in(living.view(), f"default/{name}") is Phase.RUNNING

    try:
        held = [
            wanted("ring", gpus=3, ring=True, together="switch"),
            wanted("pair", gpus=2, fpgas=1, cpu_millis=500),
            wanted("old", gpus=2, together="node"),
            wanted("part-1", gpus=1, share=400),
            wanted("part-2", gpus=1, share=600),
            wanted("long", gpus=1, run_for=6.0),
            wanted("going", gpus=1, run_for=30.0),
        ]
        living.submit(*held)
        until(lambda: all(running(spec.name) for spec in held), "running", PATIENCE_SECONDS)
        view = living.view()
        free = [e for e in view.cell.engines if f"engine/{e}" not in view.holders]
        off = next(e for e in free if "gpu" in e and e not in view.shares)
        (engine,) = view.placements["default/long"].value.engines["workers"]
        client.operate(
            lambda v: system.power_off(v, off, attempt=new_attempt(), fence=FENCELESS), [""]
        )
        client.operate(
            lambda v: system.drain(v, f"engine/{engine}", attempt=new_attempt(), fence=None), [""]
        )
        living.submit(*(wanted(f"wait-{n}", gpus=16) for n in (3, 1, 2)))
        assert up()
        client.cancel("default/going")
        until(
            lambda: phase_in(living.view(), "default/going") in (Phase.DRAINING, Phase.CLEANING),
            "a slice that drains",
        )
        path = tmp_path / "cell.backup"
        made = written(store, path)
        assert made.families["grant"] > 0
        assert made.families["placement"] >= 8

        # Since then: one is gone, and another has its engines.
        client.cancel("default/old")
        until(lambda: living.slice("old").end, "it ended", PATIENCE_SECONDS)
        living.submit(wanted("newer", gpus=2, together="node", fpgas=1, run_for=99.0))
        until(lambda: running("newer"), "the newer one", PATIENCE_SECONDS)
        before = store.read([keys.INFO]).revision
        newer = living.view().placements["default/newer"].value.attempt
        assert newer in up()

        own_etcd.kill()
        shutil.rmtree(own_etcd.data_dir)
        own_etcd.start()
        with contextlib.closing(EtcdStore([own_etcd.endpoint])) as other:
            restore(other, path, now=2.0)
            assert other.read([keys.INFO]).revision < before
        until(
            lambda: not [n for n in living.view().placements if n.startswith("~quarantine/")],
            "each agent has looked",
            PATIENCE_SECONDS,
        )
        assert newer not in up()
        waiting = [(e.created, n) for n, e in living.view().slices.items() if "wait-" in n]
        assert [n[-1] for _, n in sorted(waiting)] == ["3", "1", "2"]
        until(
            lambda: all(running(s) for s in ("ring", "pair", "old", "part-1", "part-2")),
            "what ran runs again",
            PATIENCE_SECONDS,
        )
        until(lambda: living.ended("long", "going"), "these end", PATIENCE_SECONDS)
        ends = [living.slice(name).end for name in ("long", "going")]
        assert [end.phase for end in ends if end] == [Phase.DONE, Phase.CANCELLED]
        for name in ("ring", "pair", "old", "part-1", "part-2"):
            client.cancel(f"default/{name}")
        drain = f"~drain/engine/{engine}"
        until(
            lambda: client.operate(lambda v: system.undrain(v, drain, fence=None), [""]),
            "undrained",
        )
        for name in ("wait-3", "wait-1", "wait-2"):
            until(partial(running, name), name, PATIENCE_SECONDS)
            client.cancel(f"default/{name}")
        until(lambda: not store.read(["placement/", "claim/", "order/"]).records, "empty", 60)
        assert up() == set()
        with contextlib.closing(EtcdStore([own_etcd.endpoint])) as other:
            assert verify_history(other).violations == ()
        assert not [p.errors for p in living.processes.values() if p.errors]
    finally:
        for process in living.processes.values():
            process.stop()
        for rack in racks:
            rack.switch_off()
        store.close()
