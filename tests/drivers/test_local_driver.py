"""What do commands find when they run on this machine, and what is told, and left, of them?"""

import json
import logging
import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from flowos.drivers.local.devices import Device
from flowos.drivers.local.driver import KILL_SECONDS, LocalDriver
from flowos.drivers.local.processes import Process
from flowos.drivers.step import Step, Verb
from flowos.model.placement import Gang, Joined, Order
from flowos.model.slice import Run
from tests.drivers.local import (
    CORES,
    NODE,
    PATIENCE_SECONDS,
    SHOW,
    TWO,
    A,
    B,
    Local,
    lives,
    order,
    shell,
    soon,
)

# ------------------------------------------------------------------------------- environment


def test_each_task_is_told_of_its_rank_and_its_slice(local):
    assert local.run(order(SHOW, ("boss", (0,)), ("w", (1, 2)))) == 0
    found = local.environment(2)
    expected = {
        "FLOWOS_SLICE": "default/t",
        "FLOWOS_ATTEMPT": A,
        "FLOWOS_RANK": "2",
        "FLOWOS_SIZE": "3",
        "FLOWOS_ROLE": "w",
        "FLOWOS_ROLE_RANK": "1",
        "FLOWOS_ENGINE": "n0/cpu2",
        "FLOWOS_NODE": "n0",
        "FLOWOS_NODES": "1",
        "FLOWOS_ADDRESS": "127.0.0.1",
        "FLOWOS_LOCAL_RANK": "2",
        "FLOWOS_LOCAL_SIZE": "3",
        "FLOWOS_MEMORY": str(2**30),
        "MASTER_ADDR": "127.0.0.1",
        "WORLD_SIZE": "3",
        "RANK": "2",
        "LOCAL_RANK": "2",
        "LOCAL_WORLD_SIZE": "3",
    }
    assert {name: found.get(name) for name in expected} == expected
    others = [local.environment(rank) for rank in (0, 1)]
    assert [other["FLOWOS_ROLE"] for other in others] == ["boss", "w"]
    assert [other["FLOWOS_ROLE_RANK"] for other in others] == ["0", "0"]
    assert {other["MASTER_PORT"] for other in [*others, found]} == {found["MASTER_PORT"]}


def test_tasks_on_other_machines_are_told_of_too(local):
    gang = Gang(
        engines={"w": ("n1/cpu0", "n0/cpu0", "n1/cpu1")},
        addresses={"n1": "10.0.0.9", "n0": "10.0.0.8"},
    )
    of_here = replace(order(SHOW), tasks={"n0/cpu0": 1}, gang=gang)
    assert local.run(of_here) == 0
    assert not (local.at() / "rank-0.log").exists()
    found = local.environment(1)
    expected = {
        "FLOWOS_ADDRESS": "10.0.0.8",
        "FLOWOS_NODES": "2",
        "FLOWOS_LOCAL_RANK": "0",
        "FLOWOS_LOCAL_SIZE": "1",
        "MASTER_ADDR": "10.0.0.9",
        "WORLD_SIZE": "3",
    }
    assert {name: found.get(name) for name in expected} == expected
    assert Path(found["FLOWOS_HOSTFILE"]).read_text() == "10.0.0.9 slots=2\n10.0.0.8 slots=1\n"
    peers = json.loads(Path(found["FLOWOS_PEERS"]).read_text())
    assert [(p["rank"], p["engine"], p["address"]) for p in peers] == [
        (0, "n1/cpu0", "10.0.0.9"), (1, "n0/cpu0", "10.0.0.8"), (2, "n1/cpu1", "10.0.0.9"),
    ]  # fmt: skip


def test_the_runs_own_environment_comes_last_and_the_agents_is_not_passed_on(local, monkeypatch):
    monkeypatch.setenv("FLOWOS_ENDPOINTS", "http://secret")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "5")
    monkeypatch.setenv("COLOUR", "blue")
    assert local.run(order(replace(SHOW, env={"MASTER_PORT": "77", "MINE": "yes"}))) == 0
    found = local.environment()
    assert (found["MASTER_PORT"], found["MINE"], found["COLOUR"]) == ("77", "yes", "blue")
    assert not {"FLOWOS_ENDPOINTS", "OMPI_COMM_WORLD_RANK"} & {*found}


def test_devices_are_told_as_their_libraries_want_it(driven, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    kinds = [
        Device("n0/cpu0", "gpu", "x", 5, cuda="1"),
        Device("n0/cpu1", "opencl", "x", 6, opencl="0:1"),
    ]
    local = driven({device.engine: device for device in kinds})
    assert local.run(order(SHOW, TWO)) == 0
    gpu, opencl = local.environment(0), local.environment(1)
    assert (gpu["CUDA_VISIBLE_DEVICES"], opencl["CUDA_VISIBLE_DEVICES"]) == ("1", "")
    assert opencl["PYOPENCL_CTX"] == opencl["FLOWOS_OPENCL"] == "0:1"
    assert "FLOWOS_OPENCL" not in gpu


def test_a_task_runs_on_its_engines_core_and_the_first_of_all_on_any(local):
    run = Run(command=("python", "-c", "import os; print(sorted(os.sched_getaffinity(0)))"))
    assert local.run(order(run, TWO)) == 0
    assert [local.log(rank) for rank in (0, 1)] == [f"[{CORES[n % len(CORES)]}]\n" for n in (0, 1)]
    assert local.run(order(replace(run, launch="first"), TWO), B) == 0
    assert local.log(attempt=B) == f"{CORES}\n"
    assert not (local.at(B) / "rank-1.log").exists()


def test_a_slice_without_engines_runs_on_its_hosts(local):
    there = Order("default/t", units=("host/n0",), run=SHOW, gang=Gang(hosts=("n1", "n0")))
    assert local.run(there) == 0
    found = local.environment(1)
    assert (found["FLOWOS_ROLE"], found["FLOWOS_RANK"], found["WORLD_SIZE"]) == ("host", "1", "2")
    assert not (local.at() / "rank-0.log").exists()


def test_circuits_are_told_as_they_are_laid(local):
    ring = (Joined(("n0/cpu0",), ("n0/cpu1",)), Joined(("n0/cpu1",), ("n0/cpu0",)))
    laid = order(SHOW, TWO, circuits=ring)
    local.did(local.begin(Verb.CONNECT, laid))
    file = local.at() / "circuits.json"
    assert [c["targets"] for c in json.loads(file.read_text())] == [["n0/cpu1"], ["n0/cpu0"]]
    less = order(SHOW, TWO, circuits=ring[:1])
    some = Step(NODE, A, Verb.DISCONNECT, "", laid, keep={A: less})
    local.driver.begin(some, time.monotonic())
    assert [c["targets"] for c in json.loads(file.read_text())] == [["n0/cpu1"]]
    local.did(local.begin(Verb.DISCONNECT, less))
    assert json.loads(file.read_text()) == []


# ----------------------------------------------------------------------- directories and logs


def test_a_task_begins_in_its_scratch_or_where_it_was_told(local, tmp_path):
    assert local.run(order(shell("pwd; echo bad >&2; echo $FLOWOS_SCRATCH"), TWO)) == 0
    scratch = str(local.at() / "scratch-1")
    assert local.log(1) == f"{scratch}\nbad\n{scratch}\n"
    assert local.run(order(shell("pwd", directory=str(tmp_path))), B) == 0
    assert local.log(attempt=B) == f"{tmp_path}\n"


def test_what_runs_again_adds_to_its_log(local):
    assert local.run(order(shell("echo one; exit 1"))) == 1
    assert local.run(order(shell("echo two"))) == 0
    assert local.log() == "one\ntwo\n"


def test_logs_stay_and_those_of_long_ago_go(local):
    old, runs = f"{A}-old", f"{A}-runs"
    for attempt in (A, old, runs):
        local.run(order(shell("echo told")), attempt)
    local.scrub(order(shell("")), old)
    long_ago = (1.0, 1.0)
    os.utime(local.at(old), long_ago)
    os.utime(local.at(runs), long_ago)
    local.again()
    assert local.log() == local.log(attempt=runs) == "told\n"
    assert not local.at(old).exists()


# --------------------------------------------------------------------------------- exit codes


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("true",), 0),
        (("sh", "-c", "exit 3"), 3),
        (("no-such-program",), 127),
        (("/etc/passwd",), 126),
        (("sh", "-c", "kill -TERM $$"), 128 + signal.SIGTERM),
        (("sh", "-c", "kill -KILL $$"), 128 + signal.SIGKILL),
        (("exit", "0"), 127),  # of a shell, and no program
        (("true\0",), 126),
    ],
)
def test_a_command_ends_with_its_exit_code(local, driven, command, code):
    assert local.run(order(Run(command=command))) == code
    # The same without a core of its own, where it is started by another program.
    assert driven({}).run(order(Run(command=command))) == code


def test_a_directory_that_is_not_there_is_126_and_the_log_says_so(local):
    assert local.run(order(shell("true", directory="/not/there"), TWO)) == 126
    assert "flowos: cannot start in /not/there: " in local.log()
    assert "No such file or directory" in local.log(1)


def test_who_was_never_started_is_told_nothing_when_others_are():
    # Group 0 would be our own.
    Process(0, 0, 0, "").tell(signal.SIGKILL)


def test_a_gang_is_given_up_when_the_first_of_its_tasks_fails(local):
    script = (
        'if [ $RANK = 1 ]; then exit 5; fi; trap "echo told; exit 0" TERM; '
        "while :; do sleep 0.05; done"
    )
    assert local.run(order(shell(script), ("w", (0, 1, 2)))) == 5


def test_who_waits_for_a_task_that_failed_and_does_not_listen_is_killed(local):
    script = 'trap "" TERM; if [ $RANK = 1 ]; then exit 5; fi; while :; do sleep 1000; done'
    assert local.run(order(shell(script), TWO)) == 5
    assert local.standing().exit_code == 5


def test_a_gang_has_ended_when_all_its_tasks_have(local):
    script = "if [ $RANK = 0 ]; then exit 0; fi; while [ ! -e ../go ]; do sleep 0.01; done"
    step = local.begin(Verb.RUN, order(shell(script), TWO))
    soon((local.at() / "rank-0.exit").exists, "the end of the first")
    assert not local.look(step)
    (local.at() / "go").touch()
    assert local.did(step).exit_code == 0


def test_where_nothing_can_be_written_the_step_fails_and_what_runs_goes_on(local):
    other = order(shell("sleep 1000"), ("w", (1,)))
    run = local.begin(Verb.RUN, other, B)
    in_the_way = local.folder / "slices/default/full"
    in_the_way.touch()
    laid = order(shell("sleep 1000"), name="default/full")
    for verb in (Verb.CONNECT, Verb.RUN, Verb.DISCONNECT):
        failed = local.did(local.begin(verb, laid))
        assert failed.error == f"cannot write {in_the_way / A}: Not a directory"
        assert failed.exit_code == (126 if verb is Verb.RUN else 0)
    there = {there.attempt: there.running for there in local.driver.standing()}
    assert there == {A: False, B: True}
    in_the_way.unlink()
    assert not local.did(local.begin(Verb.SCRUB, laid, subject="n0/cpu0")).error
    assert not local.look(run)


def test_tasks_of_which_nobody_else_could_know_are_not_left_running(local, caplog):
    up = local.folder / "up"
    up.rmdir()
    up.touch()
    step = local.begin(Verb.RUN, order(shell("sleep 1000"), TWO))
    pids = {child.pid for child in local.driver._children}
    assert len(pids) == 2
    assert "cannot write " in local.did(step).error
    assert (local.standing().running, local.standing().exit_code) == (False, 126)
    assert "what is up cannot be written in " in caplog.text
    soon(lambda: not any(map(lives, pids)), "their end")
    up.unlink()
    up.mkdir()


# --------------------------------------------------------------------------------------- stop


def test_tasks_are_told_to_end_and_have_their_grace(local):
    there = order(shell('trap "echo saving; exit 0" TERM; echo up; while :; do sleep 0.05; done'))
    run = local.begin(Verb.RUN, there)
    soon(lambda: local.says("up"), "the task")
    local.stop(there, grace=1000.0)
    assert local.says("saving")
    assert not local.look(run)


def test_who_does_not_listen_is_killed_after_its_grace_and_not_before(local):
    there = order(shell('trap "echo no" TERM; echo $$; while :; do sleep 0.05; done'))
    local.begin(Verb.RUN, there)
    soon(lambda: local.says("\n"), "the task")
    pid = int(local.log().split()[0])
    step = replace(Step(NODE, A, Verb.STOP, "", there), graces={A: 500.0})
    began = time.monotonic()
    local.driver.begin(step, began)
    soon(lambda: local.says("no"), "the signal")
    assert local.driver.finished(began + 499.0) == []
    assert lives(pid)
    local.told += local.driver.finished(began + 501.0)
    local.did(step)
    assert not lives(pid)


def test_without_a_grace_tasks_have_a_moment(local):
    there = order(shell('trap "" TERM; echo up; while :; do sleep 1000; done'))
    local.begin(Verb.RUN, there)
    soon(lambda: local.says("up"), "the task")
    step, began = Step(NODE, A, Verb.STOP, "", there), time.monotonic()
    local.driver.begin(step, began)
    assert local.driver.finished(began + KILL_SECONDS * 0.9) == []
    local.told += local.driver.finished(began + KILL_SECONDS)
    local.did(step)


def children(local: Local, script: str) -> tuple[Order, int]:
    """Run a task that starts another; return its order, and the pid of the other."""
    there = order(shell(f"{script} & echo $!; wait"))
    local.begin(Verb.RUN, there)
    soon(lambda: local.says("\n"), "the other")
    return there, int(local.log().split()[0])


def test_what_a_task_has_started_ends_with_it(local):
    there, pid = children(local, "sh -c 'trap \"\" TERM; while :; do sleep 1000; done'")
    local.stop(there)
    soon(lambda: not lives(pid), "its end")


def test_who_has_left_the_group_is_killed_by_a_scrub(local):
    there, pid = children(local, "setsid sleep 1000")
    soon(lambda: os.getpgid(pid) == pid, "its own group")
    local.stop(there)
    assert lives(pid)
    local.scrub(there)
    soon(lambda: not lives(pid), "its end")


def test_what_is_started_while_others_are_killed_is_killed_too(local, monkeypatch):
    there, first = children(local, "setsid sleep 1000")
    local.stop(there)
    kill = os.kill
    later: list[subprocess.Popen[bytes]] = []

    def starts_another(pid: int, number: int) -> None:
        if not later:
            environment = {**os.environ, "FLOWOS_ATTEMPT": A}
            later.append(subprocess.Popen(["sleep", "1000"], env=environment))
        kill(pid, number)

    monkeypatch.setattr("flowos.drivers.local.processes.os.kill", starts_another)
    local.scrub(there)
    assert later[0].wait(PATIENCE_SECONDS) == -signal.SIGKILL
    soon(lambda: not lives(first), "its end")


def test_a_scrub_leaves_others_alone(local):
    mine, mine_pid = children(local, "setsid sleep 1000")
    other = order(shell("sleep 1000"), ("w", (1,)))
    run = local.begin(Verb.RUN, other, B)
    local.stop(mine)
    local.scrub(mine)
    soon(lambda: not lives(mine_pid), "its end")
    assert not local.look(run)
    assert local.standing().attempt == B


def test_shared_memory_and_scratch_are_gone_after_the_last_scrub(local):
    attempt = f"t{os.getpid()}"
    script = (
        "echo x > mine; echo x > /dev/shm/flowos-$FLOWOS_ATTEMPT-$RANK; "
        "mkdir -p /dev/shm/flowos-$FLOWOS_ATTEMPT-both/x; echo done"
    )
    there = order(shell(script), TWO)
    assert local.run(there, attempt) == 0
    segments = [Path(f"/dev/shm/flowos-{attempt}-{name}") for name in (0, 1, "both")]
    other = Path(f"/dev/shm/flowos-{attempt}x-0")
    other.touch()
    try:
        local.did(local.begin(Verb.SCRUB, there, attempt, "n0/cpu0"))
        assert all(segment.exists() for segment in segments)  # the other engine is up still
        local.did(local.begin(Verb.SCRUB, there, attempt, "n0/cpu1"))
        assert not any(segment.exists() for segment in segments)
        assert other.exists()
    finally:
        other.unlink()
    assert list(local.at(attempt).glob("scratch-*")) == []
    assert local.log(1, attempt) == "done\n"


def test_a_switch_that_is_swept_does_not_end_tasks(local):
    there = order(shell("echo $$; sleep 1000"))
    run = local.begin(Verb.RUN, there)
    soon(lambda: local.says("\n"), "the task")
    lit = replace(there, units=("aggregator/fabric/0",), run=Run())
    for verb, attempt in ((Verb.CONNECT, A), (Verb.DISCONNECT, ""), (Verb.SCRUB, "")):
        step = Step("fabric", attempt, verb, "", lit)
        local.driver.begin(step, time.monotonic())
        assert not local.did(step).error
    assert lives(int(local.log().split()[0]))
    assert not local.look(run)
    assert local.standing().running


def test_a_task_at_a_switch_has_its_grace_when_the_engines_are_clean_already(local):
    there = order(shell("echo up"))
    script = 'trap "echo told" TERM; echo $$; while [ ! -e ../go ]; do sleep 0.05; done'
    gang = Gang(engines={"w": ("n0/cpu0",)}, reducers=("fabric/0",))
    lit = Order("default/t", units=("aggregator/fabric/0",), run=shell(script), gang=gang)
    at_switch = [Step("fabric", A, verb, "", lit) for verb in (Verb.CONNECT, Verb.RUN)]
    for step in at_switch:
        local.driver.begin(step, time.monotonic())
    soon(lambda: local.says("\n", 1), "the task at the switch")
    assert local.run(there) == 0
    stop = Step("fabric", A, Verb.STOP, "", lit, graces={A: 1000.0})
    local.driver.begin(stop, time.monotonic())
    local.scrub(there)
    soon(lambda: local.says("told", 1), "the signal")
    pid = int(local.log(1).split()[0])
    assert lives(pid)
    assert (local.at() / "scratch-1").exists()
    (local.at() / "go").touch()
    assert not local.did(stop).error
    disconnect = Step("fabric", A, Verb.DISCONNECT, "", lit)
    local.driver.begin(disconnect, time.monotonic())
    assert not local.did(disconnect).error
    assert local.driver.standing() == []
    assert list(local.at().glob("scratch-*")) == []


# ------------------------------------------------------------------------ a driver begins anew


def test_tasks_go_on_while_no_driver_is_there_and_their_end_is_told(local):
    there = order(shell("echo up; while [ ! -e ../go ]; do sleep 0.01; done; exit 4"))
    local.begin(Verb.RUN, there)
    soon(lambda: local.says("up"), "the task")
    local.again()
    assert (local.standing().running, local.standing().order) == (True, there)
    assert local.driver.finished(time.monotonic()) == []
    (local.at() / "go").touch()
    soon(lambda: local.look(Step(NODE, A, Verb.RUN, "", there)), "its end")
    (finished,) = local.told
    assert finished.exit_code == 4
    local.again()
    assert (local.standing().running, local.standing().exit_code) == (False, 4)
    assert local.driver.next_at() == float("inf")


def test_the_end_is_told_of_what_ended_meanwhile(local):
    there = order(shell("while [ ! -e ../go ]; do sleep 0.01; done; exit 4"))
    local.begin(Verb.RUN, there)
    local.driver.close()
    (local.at() / "go").touch()
    soon((local.at() / "rank-0.exit").exists, "its end")
    local.driver = LocalDriver(local.folder, local.devices)
    soon(lambda: local.look(Step(NODE, A, Verb.RUN, "", there)), "the word of it")
    assert [finished.exit_code for finished in local.told] == [4]


def test_who_was_killed_with_its_shell_while_nobody_looked_is_told_as_killed(local):
    there = order(shell("echo up; sleep 1000"))
    local.begin(Verb.RUN, there)
    soon(lambda: local.says("up"), "the task")
    local.driver.close()
    record = json.loads((local.folder / "up" / f"{NODE}@{A}.json").read_text())
    (process,) = record["processes"]
    os.killpg(process["pid"], signal.SIGKILL)
    local.driver = LocalDriver(local.folder, local.devices)
    soon(lambda: local.look(Step(NODE, A, Verb.RUN, "", there)), "the word of it")
    assert [finished.exit_code for finished in local.told] == [137]


@pytest.mark.parametrize("attempt", [A, ""], ids=["alone", "swept"])
def test_who_was_told_to_end_can_be_stopped_by_the_next_driver(local, attempt):
    there = order(shell('trap "" TERM; echo $$; while :; do sleep 1000; done'))
    local.begin(Verb.RUN, there)
    soon(lambda: local.says("\n"), "the task")
    local.driver.begin(Step(NODE, attempt, Verb.STOP, "", there), time.monotonic())
    local.again()
    assert local.standing().running
    local.stop(there)
    assert not lives(int(local.log().split()[0]))
    assert local.told[-1].step.verb is Verb.STOP
    local.again()
    assert not local.standing().running
    assert local.driver.finished(time.monotonic()) == []


def test_a_pid_that_is_another_process_by_now_is_not_its(local):
    there = order(shell("sleep 1000"))
    local.begin(Verb.RUN, there)
    local.driver.close()
    file = local.folder / "up" / f"{NODE}@{A}.json"
    record = json.loads(file.read_text())
    (process,) = record["processes"]
    file.write_text(json.dumps({**record, "processes": [{**process, "started": 1}]}))
    second = Local(local.folder)
    second.stop(there)
    assert lives(process["pid"])
    second.close()  # which goes by the environment
    soon(lambda: not lives(process["pid"]), "its end")


RECORD = {"order": '{"slice": "default/t"}', "running": True, "exit_code": None, "processes": []}
DAMAGED = [
    "",
    "{",
    "[]",
    "7",
    json.dumps({"order": "{}"}),
    *(json.dumps({**RECORD, field: 7}) for field in ("order", "processes")),
    json.dumps({**RECORD, "order": '{"slice": 7}'}),
    json.dumps({**RECORD, "processes": [{"pid": 1}]}),
]


@pytest.mark.parametrize("text", DAMAGED)
def test_what_is_damaged_is_ended_and_left_out_with_a_warning(local, caplog, text):
    local.begin(Verb.RUN, order(shell("echo $$; exec sleep 1000")))
    other = order(shell("sleep 1000"), ("w", (1,)))
    local.begin(Verb.RUN, other, B)
    soon(lambda: local.says("\n"), "the task")
    local.driver.close()
    (local.folder / "up" / f"{NODE}@{A}.json").write_text(text)
    with caplog.at_level(logging.WARNING, "flowos"):
        local.driver = LocalDriver(local.folder, local.devices)
    (warning,) = caplog.messages
    assert f"{NODE}@{A}.json is not readable, so what was up for it is ended" in warning
    assert local.standing().attempt == B
    assert local.standing().running
    pid = int(local.log().split()[0])
    soon(lambda: not lives(pid), "its end")
    caplog.clear()
    local.again()
    assert caplog.messages == []


def test_everything_can_be_ended(local):
    there = order(shell('trap "" TERM; echo $$; while :; do sleep 1000; done'), TWO)
    local.begin(Verb.RUN, there)
    soon(lambda: local.says("\n") and local.says("\n", 1), "the tasks")
    local.driver.stop_all()
    pids = [int(local.log(rank).split()[0]) for rank in (0, 1)]
    limit = time.monotonic() + PATIENCE_SECONDS
    while any(map(lives, pids)):
        assert time.monotonic() < limit
    assert local.driver.standing() == []
    assert list((local.folder / "up").iterdir()) == []
    assert local.driver.next_at() == float("inf")
