"""The store is away, silent, slow, full, compacted or refuses logins: what whole processes do.

Each says so once, keeps trying without haste, says once that it is over, and goes on by itself.
"""

import base64
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.load import short
from tests.faults.trial import QUOTA, ROLES, Trial
from tests.plugins.proxy import DOWN

pytestmark = [pytest.mark.etcd, pytest.mark.slow]

AWAY_SECONDS = 5.0  # longer than between two looks at the lease, shorter than the lease
JUNK_BYTES = 1 << 20


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    """Three processes on a store behind a proxy."""
    with Trial(tmp_path / "trial") as found:
        found.start()
        yield found


def awaits_end(trial: Trial, end: str) -> None:
    for name in ROLES:
        trial.until_said(name, phrase=end)


def give_work(trial: Trial, name: str) -> None:
    """Begin what the agent will have to report, and the controller to end, in a moment."""
    endless = replace(short(f"{name}-limited", seconds=600.0), time_limit_seconds=2.0)
    with trial.cell() as cell:
        cell.submit([short(f"{name}-ends", seconds=2.0), endless])
        for what in ("ends", "limited"):
            cell.wait(f"default/{name}-{what}", "running", timeout_seconds=25.0)


def say_once(trial: Trial, *, all_of: tuple[str, ...]) -> None:
    """These have spoken of it, and the others, who had nothing to ask, may have."""
    for name in ROLES:
        if name in all_of or trial.said(name):
            trial.until_said(name, 2)
            trial.has_said_once(name, "trying on", "the store answers again")


@pytest.mark.parametrize("how", ["refused", "silent", "killed"])
def test_each_process_says_once_that_the_store_is_away_and_once_that_it_is_back(trial, how):
    give_work(trial, how)
    trial.mark()

    def away() -> None:
        match how:
            case "refused":
                trial.proxy.refuse()
            case "silent":
                trial.proxy.hold()
            case _:
                trial.server.kill()
        time.sleep(AWAY_SECONDS)

    trial.rests_meanwhile(away)
    if how == "killed":
        trial.server.start()
    trial.proxy.heal()
    trial.is_served("after")
    # An answer that was only held back is late, and no trouble.
    say_once(trial, all_of=() if how == "silent" else ("agent-0", "controller-0"))
    with trial.cell() as cell:
        for what in ("ends", "limited"):
            cell.wait(f"default/{how}-{what}", "done", timeout_seconds=25.0)
    trial.all_go_on_with_the_same_pids()


def test_each_process_says_once_that_the_store_is_slow_and_goes_on(trial):
    trial.mark()
    trial.proxy.delay(DOWN, 1.2)
    with trial.cell() as cell:
        cell.submit([short(f"slow-{n}", seconds=0.01) for n in range(4)])
        cell.wait("default/slow-3", "done", timeout_seconds=40.0)
        trial.proxy.heal()
        for number in range(4):
            cell.submit([short(f"fast-{number}", seconds=0.01)])
            cell.wait(f"default/fast-{number}", "done", timeout_seconds=25.0)
    # Only who has waited for several answers in a row knows that it is slow.
    spoke = [name for name in ROLES if trial.said(name)]
    assert spoke
    for name in spoke:
        trial.until_said(name, 2)
        begin, end = trial.said(name)
        assert "for a commit" in begin
        assert "answers in time again" in end
    trial.all_go_on_with_the_same_pids()


def test_each_process_says_once_that_the_store_is_full_and_goes_on_when_there_is_room(tmp_path):
    with Trial(tmp_path / "trial", flags=[f"--quota-backend-bytes={QUOTA}"]) as trial:
        trial.start()
        with trial.cell() as cell:
            cell.submit([short("runs", seconds=3.0)])  # its end is to be reported
            cell.wait("default/runs", "running", timeout_seconds=25.0)
            cell.submit([short("cancelled", seconds=600.0)])
            cell.wait("default/cancelled", "running", timeout_seconds=25.0)
            trial.stop("batch-0")
            trial.stop("controller-0")
            cell.submit([short("waits")])
            cell.cancel("default/cancelled")
        fill(trial)
        trial.mark()
        trial.go_on("batch-0")
        trial.go_on("controller-0")
        for name in ROLES:
            trial.until_said(name)
        trial.rests_meanwhile(lambda: time.sleep(3.0))
        refused = trial.run("submit", "--engines", "gpu=1")
        assert refused.returncode == 5
        assert "database space exceeded" in refused.stderr
        make_room(trial)
        with trial.cell() as cell:
            for name in ("runs", "cancelled", "waits"):
                cell.wait(f"default/{name}", "done", timeout_seconds=25.0)
        trial.is_served("after")
        awaits_end(trial, "the store takes writes again")
        for name in ROLES:
            trial.has_said_once(name, "database space exceeded", "the store takes writes again")
        trial.all_go_on_with_the_same_pids()


def fill(trial: Trial) -> None:
    """Write until the store takes no more."""
    junk = base64.b64encode(b"j" * JUNK_BYTES).decode()
    for number in range(100):
        key = base64.b64encode(f"/junk/{number}".encode()).decode()
        if "error" in trial.etcd("kv/put", key=key, value=junk):
            return
    raise AssertionError("it is not full")


def make_room(trial: Trial) -> None:
    """Do what an operator does: delete, compact, defragment, disarm."""
    start, end = (base64.b64encode(key).decode() for key in (b"/junk/", b"/junk0"))
    done = trial.etcd("kv/deleterange", key=start, range_end=end)
    assert "error" not in done, done
    revision = done["header"]["revision"]
    for path, fields in (
        ("kv/compaction", {"revision": revision, "physical": True}),
        ("maintenance/defragment", {}),
    ):
        done = trial.etcd(path, **fields)
        assert "error" not in done, done
    for alarm in trial.etcd("maintenance/alarm", action="GET")["alarms"]:
        done = trial.etcd("maintenance/alarm", **alarm, action="DEACTIVATE")
        assert "error" not in done, done


def test_each_process_that_slept_past_a_compaction_says_once_that_it_lists_anew(trial):
    trial.is_served("before")
    trial.mark()
    for name in ROLES:
        trial.stop(name)
    trial.proxy.cut()  # what is on its way is lost, so the watches must go on from what they know
    with trial.cell() as cell:
        cell.submit([short(f"s{number}") for number in range(20)])
        for number in range(20):
            cell.hold(f"default/s{number}")
            cell.unhold(f"default/s{number}")
        cell.store.compact(cell.store.read(["cell/info"]).revision)
    for name in ROLES:
        trial.go_on(name)
    trial.is_served("after")
    awaits_end(trial, "in step with the store again")
    for name in ROLES:
        lost = [line for line in trial.said(name) if "is compacted" in line]
        again = [line for line in trial.said(name) if "in step with the store again" in line]
        assert len(lost) == len(again) == 1, trial.said(name)
    trial.all_go_on_with_the_same_pids()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Trial]:
    """The same where etcd asks for a password, and all log in as root."""
    with Trial(tmp_path / "trial") as found:
        assert "error" not in found.etcd("auth/user/add", name="root", password="one")
        assert "error" not in found.etcd("auth/user/grant", user="root", role="root")
        assert "error" not in found.etcd("auth/enable")
        found.log_in("one")
        found.where = (*found.where, "--user", "root")
        found.crew.where = found.where
        found.crew.environment["FLOWOS_PASSWORD"] = "one"
        found.start()
        yield found


def test_each_process_says_once_that_its_login_is_refused_and_goes_on_when_it_is_not(guarded):
    trial = guarded
    served = trial.run("submit", "--engines", "gpu=1", "--run-for", "50ms", "--wait", "done")
    assert served.returncode == 0, served.stderr
    trial.mark()
    assert "error" not in trial.etcd("auth/user/changepw", name="root", password="two")
    trial.rests_meanwhile(lambda: time.sleep(AWAY_SECONDS))
    trial.log_in("two")
    assert "error" not in trial.etcd("auth/user/changepw", name="root", password="one")
    served = trial.run("submit", "--engines", "gpu=1", "--run-for", "50ms", "--wait", "done")
    assert served.returncode == 0, served.stderr
    awaits_end(trial, "lets this process in again")
    for name in ROLES:
        trial.has_said_once(name, "authentication failed", "lets this process in again")
    trial.all_go_on_with_the_same_pids()
