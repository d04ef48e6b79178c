"""Is this machine a cell that can be loaded, planned on and run in?"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from flowos.documents.cell_file import cell_json, load_cell
from flowos.drivers.local import devices
from flowos.drivers.local.devices import FABRIC, Device, Machine, node_name, this_machine
from flowos.model.slice import (
    CircuitWish,
    EngineChoice,
    EngineRole,
    Phase,
    Run,
    Shape,
    SliceSpec,
)
from tests.runtime.theatre import CALM, Theatre

CORES = sorted(os.sched_getaffinity(0))
FOUR = Machine(
    "n0", 4000, 2**33, tuple(Device(f"n0/cpu{n}", "cpu", "any", 2**30, (n,)) for n in range(4))
)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of which nobody is asked for OpenCL devices or GPUs."""
    monkeypatch.setattr(devices, "_opencl", lambda folder: [])
    monkeypatch.setattr(devices, "_gpus", list)


def test_each_core_that_may_be_used_is_an_engine(plain):
    machine = this_machine()
    assert machine.cpu_millis == 1000 * len(CORES)
    assert [d.engine for d in machine.devices] == [f"{node_name()}/cpu{core}" for core in CORES]
    assert [d.cores for d in machine.devices] == [(core,) for core in CORES]
    assert {d.kind for d in machine.devices} == {"cpu"}
    assert 0 < sum(d.memory_bytes for d in machine.devices) <= machine.memory_bytes


def test_cores_that_may_not_be_used_are_none():
    script = (
        f"import os; os.sched_setaffinity(0, {{{CORES[-1]}}})\n"
        "from flowos.drivers.local import devices\n"
        "devices._opencl = lambda folder: []\n"
        "print([d.cores for d in devices.this_machine().devices if d.kind == 'cpu'])"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert said.stdout == f"[({CORES[-1]},)]\n"


def test_its_cell_is_read_back_from_a_file_as_it_was(plain, tmp_path):
    cell = this_machine().cell()
    file = tmp_path / "cell.json"
    file.write_text(cell_json(cell))
    assert load_cell(file) == cell
    assert [engine.attributes for engine in cell.engines.values()] == [{"core": c} for c in CORES]
    assert {*cell.switches} == {FABRIC}


@pytest.mark.parametrize("shape", [Shape.RING, Shape.ALL, Shape.STAR])
def test_slices_with_circuits_are_placed_and_run_in_it(shape):
    """By the real machines on a memory store, each revision of which is checked."""
    theatre = Theatre(FOUR.cell())
    theatre.scheduler(alone=True)
    theatre.controller(rules=CALM)
    theatre.agent()
    role = EngineRole((EngineChoice("cpu", count=4),))
    spec = SliceSpec(
        "t", engines={"w": role}, circuits=(CircuitWish(shape, ("w",)),), run=Run(for_seconds=2.0)
    )
    theatre.submit(spec)
    assert theatre.play(60, lambda: theatre.phase(spec.id) is Phase.RUNNING)
    assert len(theatre.placed(spec.id).circuits) == {"ring": 4, "all": 12, "star": 6}[shape]
    theatre.play_out()
    assert theatre.end(spec.id).phase is Phase.DONE


def test_this_machine_itself_runs_a_slice_of_all_its_cores(plain):
    theatre = Theatre(this_machine().cell())
    theatre.scheduler(alone=True)
    theatre.controller(rules=CALM)
    theatre.agent()
    role = EngineRole((EngineChoice("cpu", count=len(CORES)),))
    theatre.submit(SliceSpec("t", engines={"w": role}, run=Run(for_seconds=2.0)))
    theatre.play_out()
    assert theatre.end("default/t").phase is Phase.DONE


# -------------------------------------------------------------------------------- other devices

POCL = {
    "platform": 0,
    "device": 0,
    "name": "pthread-any (R)",
    "type": "ALL | CPU",
    "memory_bytes": 9,
}
CARD = {"platform": 1, "device": 2, "name": "Card X", "type": "ALL | GPU", "memory_bytes": 8}


def test_opencl_devices_and_gpus_are_engines_and_none_is_counted_twice(monkeypatch):
    monkeypatch.setattr(devices, "_opencl", lambda folder: [POCL, CARD])
    monkeypatch.setattr(devices, "_gpus", list)
    found = [d for d in this_machine().devices if d.kind != "cpu"]
    assert [(d.engine.partition("/")[2], d.opencl, d.model) for d in found] == [
        ("opencl0", "0:0", "pthread-any-R"), ("opencl1", "1:2", "Card-X"),
    ]  # fmt: skip
    monkeypatch.setattr(devices, "_gpus", lambda: [("0", "H100", 2**36)])
    found = [d for d in this_machine().devices if d.kind != "cpu"]
    assert [(d.engine.partition("/")[2], d.kind, d.cuda) for d in found] == [
        ("gpu0", "gpu", "0"), ("opencl0", "opencl", ""),
    ]  # fmt: skip
    cell = this_machine().cell()
    assert len(cell.links) == len(cell.engines) == len(CORES) + 2


def answering(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def test_gpus_are_those_that_the_driver_names_and_this_process_may_see(tmp_path, monkeypatch):
    answering(
        tmp_path, "nvidia-smi", "echo '0, NVIDIA H100 80GB, 81559'; echo '1, NVIDIA T4, 15360'"
    )
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    first, second = devices._gpus()
    assert first == ("0", "NVIDIA-H100-80GB", 81559 * 2**20)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert devices._gpus() == [second]
    answering(tmp_path, "nvidia-smi", "echo 'no driver'; exit 9")
    assert devices._gpus() == []


def test_opencl_devices_are_asked_for_once_and_a_crash_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "_PROBE", f"print('''{json.dumps([POCL])}''')")
    assert devices._opencl(tmp_path / "new") == [POCL]
    monkeypatch.setattr(devices, "_PROBE", "import os; os.abort()")
    assert devices._opencl(tmp_path / "new") == [POCL]
    told = f"import os; print('''{json.dumps([POCL])}''', flush=True); os.abort()"
    monkeypatch.setattr(devices, "_PROBE", told)
    assert devices._opencl(tmp_path / "other") == []
    assert devices._opencl(None) == []
    (tmp_path / "new/opencl.json").write_text("{")
    assert devices._opencl(tmp_path / "new") == []


def test_lanes_can_be_fewer():
    cell = replace(FOUR, lanes=2).cell()
    assert {link.lanes for link in cell.links.values()} == {2}
