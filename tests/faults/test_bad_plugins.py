"""What does a plug-in by somebody else do to a cell that works: a good one, and one that does not?"""

import json
import os
import signal
import subprocess
from functools import partial

import pytest

from flowos.model.codec import decode
from flowos.model.placement import Placement
from flowos.model.slice import EngineChoice, EngineRole, Reason, SliceSpec, Waiting
from tests.faults.machine import COMMAND, Load, Machine, until
from tests.faults.others import BAD, EXAMPLE, install_example, package

pytestmark = [pytest.mark.etcd, pytest.mark.slow]


def wanted(name: str, policy: str, count: int = 1) -> SliceSpec:
    return SliceSpec(
        name, policy=policy, engines={"w": EngineRole((EngineChoice("gpu", count=count),))}
    )


def reason(cell, name: str) -> Waiting | None:
    records = cell.store.read([f"reason/default/{name}"]).records
    found = [r for r in records if r.key == f"reason/default/{name}"]
    return decode(Waiting, found[0].value) if found else None


def placed(cell, name: str) -> Placement | None:
    records = cell.store.read([f"placement/default/{name}"]).records
    found = [r for r in records if r.key == f"placement/default/{name}"]
    return decode(Placement, found[0].value) if found else None


def says(cell, name: str, *words: str) -> bool:
    why = reason(cell, name)
    return why is not None and all(word in why.sentence for word in words)


@pytest.fixture
def bad(machine: Machine) -> Machine:
    """A machine where a bad plug-in is installed."""
    folder = machine.folder.parent / "others"
    package(folder, "flowos_bad", BAD, "bad = flowos_bad:Bad")
    machine.environment |= {"PYTHONPATH": str(folder), "FLOWOS_DECISION_TIMEOUT": "1s"}
    return machine


def plugins(machine: Machine, *words: str):
    """What `scheduler plugins` lists."""
    done = subprocess.run(
        [*COMMAND, "scheduler", "plugins", *words, "-o", "json"],
        env=machine.environment | {"FLOWOS_DATA_DIR": str(machine.folder)},
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout)["items"]


def log(machine: Machine, name: str) -> str:
    return (machine.folder / "logs" / f"{name}.log").read_text()


NONSENSE = {
    "raises": ("bad failed: ValueError: I do not like it",),
    "none": ("bad made no sense in plan", "None"),
    "word": ("bad made no sense in plan", "n0/gpu0"),
    "nowhere": ("bad made no sense in plan", "the cell has no engine/moon/gpu0"),
    "thief": ("bad made no sense in plan", "is held by default/first"),
    "greedy": ("bad made no sense in plan", "2 engines"),
}


def test_what_makes_no_sense_is_told_by_name_and_the_next_slices_are_served(bad):
    bad.up("--scheduler", "batch=1", "--scheduler", "bad=1")
    with bad.client() as cell:
        cell.submit([wanted("first", "batch")])
        until(partial(placed, cell, "first"), "batch serves")
        cell.submit([wanted("raises", "bad")])
        until(partial(says, cell, "raises", *NONSENSE["raises"]), "it is told")
        cell.submit([wanted(name, "bad") for name in NONSENSE if name != "raises"])
        cell.submit([wanted("good", "bad"), wanted("second", "batch")])
        for name, words in NONSENSE.items():
            until(partial(says, cell, name, *words), f"{name} is told: {words}")
            why = reason(cell, name)
            assert why is not None
            assert why.reason is Reason.SCHEDULER_DOWN
            assert placed(cell, name) is None
        until(partial(placed, cell, "good"), "the plug-in serves others")
        until(partial(placed, cell, "second"), "batch goes on")
        Load(cell, []).verify()
    assert "Traceback" in log(bad, "bad-0")  # whoever wrote it can see where
    bad.down()


@pytest.mark.parametrize(
    ("what", "method"),
    [("loops", "plan"), ("sleeps", "plan"), ("dozes", "feasible"), ("unordered", "order")],
)
def test_one_that_hangs_is_named_left_aside_and_serves_others(bad, what, method):
    bad.up("--scheduler", "batch=1", "--scheduler", "bad=1")
    before = bad.processes()["bad-0"]
    with bad.client() as cell:
        cell.submit([wanted(what, "bad")])
        until(partial(says, cell, what, "policy bad"), "others are told early")
        cell.submit([wanted("meanwhile", "batch"), wanted("after", "bad")])
        until(partial(placed, cell, "meanwhile"), "batch does not notice")
        until(partial(says, cell, what, "gave no answer for 1 s", method), "the reason is written")
        until(partial(placed, cell, "after"), "the next is served")
        why = reason(cell, what)
        assert why is not None
        assert (why.reason, why.hangs) == (Reason.SCHEDULER_DOWN, 1)
        assert "again after 60 s" in why.sentence
        assert placed(cell, what) is None
        said = [line for line in log(bad, "bad-0").splitlines() if "policy bad hung" in line]
        assert len(said) == 1
        assert f"hung in {method}" in said[0]
        assert f"default/{what}" in said[0]
        assert bad.processes()["bad-0"] == before  # it began anew in place
        sessions = [r.key for r in cell.store.read(["session/scheduler/bad"]).records]
        assert len(sessions) == 1
        assert cell.cancel(f"default/{what}")
    bad.down()


def test_of_several_processes_one_hangs_and_the_others_leave_its_slice_alone(bad):
    bad.up("--scheduler", "bad=3")
    with bad.client() as cell:
        cell.submit([wanted("sleeps", "bad")])
        until(partial(says, cell, "sleeps", "gave no answer"), "the reason is written")
        cell.submit([wanted(f"after-{n}", "bad") for n in range(6)])
        for n in range(6):
            until(partial(placed, cell, f"after-{n}"), "others are served")
    hung = [log(bad, f"bad-{n}").count("policy bad hung") for n in range(3)]
    # On a busy machine a second one has begun before the first was seen to hang; none does twice.
    assert max(hung) == 1
    assert min(hung) == 0
    bad.down()


def test_a_single_process_that_nobody_looks_after_goes_on_too(bad):
    bad.up("--scheduler", "batch=1")
    words = ["scheduler", "run", "bad", "--data-dir", str(bad.folder)]
    running = subprocess.Popen(
        [*COMMAND, *words], stderr=subprocess.PIPE, text=True, env=bad.environment
    )
    bad.seen.add(running.pid)
    with bad.client() as cell:
        cell.submit([wanted("loops", "bad"), wanted("good", "bad")])
        until(partial(says, cell, "loops", "gave no answer"), "the reason is written")
        until(partial(placed, cell, "good"), "the next is served")
    assert running.poll() is None
    running.terminate()
    _, said = running.communicate(timeout=20)
    assert running.returncode == 0
    assert "policy bad hung in plan" in said
    bad.down()


def test_n_processes_stay_n(bad):
    bad.up("--scheduler", "batch=1")
    words = ["scheduler", "run", "bad=2", "--data-dir", str(bad.folder)]
    running = subprocess.Popen(
        [*COMMAND, *words], stderr=subprocess.PIPE, text=True, env=bad.environment
    )
    bad.seen.add(running.pid)
    with bad.client() as cell:

        def pids() -> set[int]:
            records = cell.store.read(["session/scheduler/bad"]).records
            found = {json.loads(r.value)["pid"] for r in records}
            bad.seen |= found
            return found

        until(lambda: len(pids()) == 2, "two run")
        victim = min(pids())
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(pids() - {victim}) == 2, "two run again")
    running.terminate()
    _, said = running.communicate(timeout=20)
    assert running.returncode == 0
    assert "ended with -9: starting it again" in said
    bad.down()


def test_the_example_is_installed_listed_run_and_serves(machine):
    folder = machine.folder.parent / "others"
    install_example(folder)
    machine.environment["PYTHONPATH"] = str(folder)
    tidy = next(p for p in plugins(machine, "--check") if p["name"] == "tidy")
    assert (tidy["package"], tidy["version"], tidy["state"]) == ("flowos-tidy", "1.0.0", "ok")
    assert tidy["purpose"] == "Small ones first within a priority, each on engines of one model."
    machine.up("--scheduler", "tidy=2")
    with machine.client() as cell:
        cell.submit([wanted("served", "tidy", count=2)])
        until(partial(placed, cell, "served"), "it is placed")
        held = placed(cell, "served")
        assert held is not None
        engines = held.engines["w"]
        records = cell.store.read([f"engine/{engine}" for engine in engines]).records
        assert len({json.loads(r.value)["model"] for r in records}) == 1
    runs = {p["name"]: p["runs"] for p in plugins(machine)}
    assert (sorted(runs["tidy"]), runs["batch"]) == (["tidy-0", "tidy-1"], [])
    machine.down()


def test_the_example_keeps_its_own_tests_and_its_word_on_its_size(machine):
    folder = machine.folder.parent / "others"
    install_example(folder)
    done = subprocess.run(
        [COMMAND[0], "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "."],
        cwd=EXAMPLE,
        env=machine.environment | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "14 passed" in done.stdout
    assert len((EXAMPLE / "flowos_tidy.py").read_text().splitlines()) <= 40
    assert len((EXAMPLE / "test_flowos_tidy.py").read_text().splitlines()) <= 10
