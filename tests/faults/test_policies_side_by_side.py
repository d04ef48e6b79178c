"""Several policies on one cell at once, each in processes of its own: who places what, and where?"""

from pathlib import Path

import pytest

from flowos.model import keys
from flowos.model.codec import decode, encode
from flowos.model.placement import Placement, Session
from flowos.model.rules import Assignment, PolicyRules
from flowos.model.slice import EngineChoice, EngineRole, Run, SliceSpec
from flowos.model.transaction import Committed, Put
from flowos.runtime.client import CellClient
from tests.faults.machine import Load, Machine, until

pytestmark = [pytest.mark.etcd, pytest.mark.slow]

RULES = PolicyRules(
    assignments=(
        Assignment("inference", kinds=("fpga",)),
        Assignment("service", names=("web-*",)),
    )
)


def wanted(name: str, kind: str, count: int = 1, bitstream: str = "", **more) -> SliceSpec:
    role = EngineRole((EngineChoice(kind, count=count, bitstream=bitstream),))
    return SliceSpec(name, engines={"w": role}, **more)


def placements(cell: CellClient) -> dict[str, Placement]:
    records = cell.store.read(["placement/default/"]).records
    return {r.key.rpartition("/")[2]: decode(Placement, r.value) for r in records}


def policy_of(cell: CellClient, placement: Placement) -> str:
    (record,) = cell.store.read([keys.session("scheduler", placement.scheduler)]).records
    return decode(Session, record.value).policy


def test_batch_inference_and_service_each_place_their_own_on_one_cell(tmp_path: Path):
    machine = Machine(tmp_path / "data")
    try:
        machine.up("--scheduler", "batch", "--scheduler", "inference=2", "--scheduler", "service")
        names = set(machine.processes())
        assert {"batch-0", "inference-0", "inference-1", "service-0"} <= names
        with machine.client() as cell:
            rule = Put(keys.POLICIES, encode(RULES))
            assert isinstance(cell.write((), [rule]), Committed)
            web = wanted("web-a", "gpu", 4)
            cell.submit([web])
            cell.wait(web.id, "running", timeout_seconds=20)
            engines = placements(cell)["web-a"].engines["w"]
            assert len({engine.partition("/")[0] for engine in engines}) == 4, "it is not spread"
            load = Load(cell, [f"job-{n}" for n in range(24)])
            load.submit(0.1)
            stay = [
                wanted("web-b", "gpu", 2),
                wanted("ask-a", "fpga", bitstream="sum-f32"),
                wanted("ask-b", "fpga", bitstream="sum-f32"),
                wanted("ask-c", "fpga", bitstream="add-bytewise"),
            ]
            cell.submit(stay)
            for spec in stay:
                cell.wait(spec.id, "running", timeout_seconds=20)
            held = placements(cell)
            assert {name: policy_of(cell, held[name]) for name in ("web-a", "web-b")} == {
                "web-a": "service", "web-b": "service",
            }  # fmt: skip
            for name in ("ask-a", "ask-b", "ask-c"):
                assert policy_of(cell, held[name]) == "inference"
            until(lambda: load.ended() == len(load.names), "all jobs ended")
            for spec in (web, *stay):
                assert cell.cancel(spec.id)
                cell.wait(spec.id, "done", timeout_seconds=20)
            load.all_end_once()
            load.verify()
        machine.down()
    finally:
        machine.clean_up()


def test_a_slice_of_a_policy_that_nobody_serves_waits_and_says_how_that_ends(tmp_path: Path):
    machine = Machine(tmp_path / "data")
    try:
        machine.up("--scheduler", "batch")
        with machine.client() as cell:
            cell.submit([wanted("m", "gpu", 4, policy="mpi", run=Run(for_seconds=0.1))])
            cell.submit([wanted("b", "gpu", 1, run=Run(for_seconds=0.1))])
            cell.wait("default/b", "done", timeout_seconds=20)
            assert "m" not in placements(cell)
            said = machine.command("explain", "m")
            assert "flowos scheduler run mpi" in said.stdout
    finally:
        machine.clean_up()
