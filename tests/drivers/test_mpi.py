"""Does an MPI program run over the tasks of a slice? By mpirun, which rank 0 starts."""

import re
import shutil
from pathlib import Path

import pytest

from flowos.drivers.step import Verb
from flowos.model.slice import Run
from tests.conftest import require
from tests.drivers.local import TWO, Local, lives, order, soon

HELLO = Path(__file__).parents[2] / "examples/commands/mpi_hello.py"
# Whoever builds in a container is root there, which mpirun wants to be told twice.
ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
MPIRUN = "exec mpirun --hostfile $FLOWOS_HOSTFILE -np $FLOWOS_SIZE --oversubscribe"


@pytest.fixture(autouse=True)
def mpirun() -> None:
    require("mpi", shutil.which("mpirun"), "no mpirun: install openmpi-bin, or run `make setup`")


def by_mpirun(program: str) -> Run:
    return Run(command=("sh", "-c", f"{MPIRUN} {program}"), launch="first", env=ROOT)


@pytest.mark.parametrize("cpus", [(0,), (0, 1), (0, 1, 2, 3)])
def test_all_ranks_of_a_gang_meet(local: Local, cpus):
    code = local.run(order(by_mpirun(f"python {HELLO}"), ("w", cpus)))
    assert code == 0, local.log()
    # mpirun puts the ranks' lines together as they come, at times before the end of a line.
    said = re.findall(r"rank (\d) of (\d) in default/t: (\d)", local.log())
    size, total = str(len(cpus)), str(sum(cpus))
    assert sorted(said) == [(str(rank), size, total) for rank in cpus], local.log()


def test_a_rank_that_fails_fails_the_slice(local: Local):
    assert local.run(order(by_mpirun("sh -c 'exit 7'"), TWO)) == 7


def test_an_mpi_program_is_stopped_as_a_whole(local: Local):
    there = order(by_mpirun("sh -c 'echo up $$ said; exec sleep 1000'"), TWO)
    run = local.begin(Verb.RUN, there)

    def pids() -> list[int]:
        return [int(pid) for pid in re.findall(r"up (\d+) said", local.log())]

    soon(lambda: len(pids()) == 2, "both ranks")
    local.stop(there)
    local.scrub(there)
    soon(lambda: not any(map(lives, pids())), "the end of both ranks")
    assert not local.look(run)
