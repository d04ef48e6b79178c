"""Does a command make a Dask cluster of a slice, and does a client get answers from it?"""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flowos.drivers.step import Verb
from flowos.model.slice import Run
from tests.conftest import require
from tests.drivers.local import PATIENCE_SECONDS, Local, order, soon

CLUSTER = Path(__file__).parents[2] / "examples/commands/dask_cluster.sh"
AT = r"Scheduler at: +(tcp://127\.0\.0\.1:\d+)\n"
CLIENT = """
import json, os, sys
from distributed import Client

def square(n):
    return n * n, os.environ["FLOWOS_RANK"]

with Client(sys.argv[1], timeout=60) as client:
    client.wait_for_workers(2, timeout=60)
    workers = client.scheduler_info(-1)["workers"].values()
    names = sorted(worker["name"] for worker in workers)
    print(json.dumps([client.gather(client.map(square, range(20))), names]))
"""


@pytest.fixture(autouse=True)
def distributed() -> None:
    there = importlib.util.find_spec("distributed")
    require("dask", there, "no distributed: pip install 'flowos[dask]'")


def test_a_client_gets_answers_from_workers_on_the_slices_engines(local: Local):
    there = order(Run(command=(str(CLUSTER),)), ("w", (0, 1, 2)))
    run = local.begin(Verb.RUN, there)
    soon(lambda: local.look(run) or re.search(AT, local.log()), "the scheduler")
    assert re.search(AT, local.log()), local.log()
    (address,) = re.findall(AT, local.log())
    asked = subprocess.run(
        [sys.executable, "-c", CLIENT, address],
        capture_output=True, text=True, timeout=4 * PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert asked.returncode == 0, asked.stderr + local.log() + local.log(1)
    answers, names = json.loads(asked.stdout)
    assert [answer for answer, _ in answers] == [n * n for n in range(20)]
    assert {rank for _, rank in answers} <= {"1", "2"}
    assert names == ["n0/cpu1", "n0/cpu2"]
    assert not local.look(run)
    local.stop(there)
    assert not local.standing().running
