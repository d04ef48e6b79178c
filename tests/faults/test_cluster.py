"""A cell on three etcd members, of which the leader is killed, stopped or cut off under load.

How long nobody could commit is printed, not asserted: the wish is 3 s after a leader's death.
"""

import itertools
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest

import flowos
from flowos.model.errors import StoreError
from flowos.model.transaction import Put, Transaction
from flowos.runtime.client import CellClient
from flowos.verify.history import verify_history
from tests.faults.crew import Crew, Verifier, note
from tests.faults.ledger import Ledger
from tests.faults.load import Hand, Placer, Submitter
from tests.faults.machine import COMMAND, left_over, until, until_none
from tests.plugins.cluster import Cluster

pytestmark = [pytest.mark.etcd, pytest.mark.slow]

AWAY_SECONDS = 4.0  # how long a member is stopped or cut off: longer than any election
BACK_SECONDS = 20.0  # by then the cell must work again, however slow the machine


class Whole:
    """A cell of whole processes on a cluster, under load, and what is measured of it."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.where = ("--data-dir", str(folder), "--endpoints", ",".join(cluster.endpoints))
        self.stack = ExitStack()
        self.figures: dict[str, Any] = {}

    def connect(self) -> CellClient:
        """Connect by all members."""
        return flowos.connect(self.cluster.endpoints)

    def __enter__(self) -> Self:
        folder = self.folder
        folder.mkdir()
        self.crew = Crew(folder, self.where)
        self.stack.callback(self.crew.close)
        loaded = subprocess.run(
            [*COMMAND, "cell", "init", "fat-tree:128", *self.where],
            capture_output=True,
            text=True,
            env=self.crew.environment,
            timeout=60,
        )
        assert loaded.returncode == 0, loaded.stderr
        for number in range(2):
            self.crew.scheduler(f"batch-{number}")
            self.crew.controller(f"controller-{number}")
        self.crew.agent("agent-0")
        self.crew.until_in_step()
        self.before = self.crew.pids()
        verifier = Verifier(folder, self.where, self.crew.environment)
        self.verifier = self.stack.enter_context(verifier)
        self.cell = self.stack.enter_context(self.connect())
        self.placer = self.stack.enter_context(Placer(self.connect, "embedded", 2))
        self.submitter = self.stack.enter_context(Submitter(self.connect))
        self.prober = self.stack.enter_context(Prober(self.connect))
        self.seer = self.stack.enter_context(Seer(self.connect))
        until(lambda: self.placer.placed and self.seer.at, "load is on")
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def acknowledged_at(self) -> dict[str, list[float]]:
        """When the store has acknowledged anything, and to whom."""
        assert self.placer.store is not None
        return {
            "bare commit": self.prober.at,
            "embedded client": self.placer.store.at,
            "whole processes": self.seer.at,
        }

    def hurt(self, what: str, hurt: Callable[[], object], mend: Callable[[], object]) -> None:
        """Do something to the cluster, see the cell work again, and mend it after a while."""
        began = time.monotonic()
        hurt()
        self.goes_on(what, began)
        gaps = self.gaps(began)
        left = began + AWAY_SECONDS - time.monotonic()
        time.sleep(max(0.0, left))
        mend()
        mended = time.monotonic()
        self.goes_on(f"{what}, mended", mended)
        self.figures[what] = gaps
        note(f"cluster: {what}: without a commit for {json.dumps(gaps)} s")
        self.cluster.wait_healthy()

    def goes_on(self, what: str, since: float) -> None:
        """Wait until everybody commits again."""
        for who, at in self.acknowledged_at().items():
            try:
                until(partial(commits, at, since), f"{who} commits again: {what}", BACK_SECONDS)
            except AssertionError:
                note(f"{self.placer.state()}\n{self.prober.troubles[-2:]}")
                raise

    def gaps(self, since: float) -> dict[str, float]:
        """The longest time without an acknowledged commit from then on, for each."""
        found = {}
        for who, at in self.acknowledged_at().items():
            times = [since, *(t for t in list(at) if t > since)]
            pairs = itertools.pairwise(times)
            found[who] = round(max(b - a for a, b in pairs), 2)
        return found

    def check(self) -> None:
        """End the load; nothing is lost, doubled, or left, and no process was started again."""
        for thread in (self.placer, self.submitter, self.prober, self.seer):
            thread.stop()
            assert thread.surprises == []
        self.cluster.wait_healthy()
        until_none(lambda: left_over(self.cell.store), "the cell is empty")
        assert self.crew.pids() == self.before
        self.verifier.end()
        verdict = verify_history(self.cell.store)
        assert verdict.violations == ()
        ledger = Ledger.read(self.cell.store)
        assert ledger.doubled == []
        assert self.placer.store is not None
        acknowledged = self.placer.store.placed
        assert [e for e in acknowledged if ledger.placed.get(e[:2]) != e[2]] == []
        assert [e for e in self.placer.placed if e not in ledger.placed] == []
        names = {*self.submitter.accepted, *(name for name, _ in self.placer.placed)}
        assert {name for name in names if len(ledger.ended.get(name, ())) != 1} == set()
        self.figures["acknowledged"] = len(acknowledged)
        note(f"cluster ({self.cluster.network}): {json.dumps(self.figures)}")


def commits(at: list[float], since: float) -> bool:
    """Whether there were some commits later than a moment after."""
    return len([t for t in at[-20:] if t > since + 0.5]) > 3


class Prober(Hand):
    """Writes one small key again and again, with no more patience than a second for an answer."""

    def __init__(self, connect: Callable[[], CellClient]) -> None:
        super().__init__(connect, "prober")
        self.at: list[float] = []

    def work(self, cell: CellClient) -> None:
        """Write until told to stop."""
        put = Transaction((), (Put("probe", b"1"),))
        while not self._stopping.wait(0.02):
            try:
                cell.store.commit([put], timeout_seconds=1.0)
                self.at.append(time.monotonic())
            except StoreError as error:
                self.troubles.append(f"{type(error).__name__}: {error}")


class Seer(Hand):
    """Notes when a placement of a scheduler process, not of an embedded one, is seen by reading."""

    def __init__(self, connect: Callable[[], CellClient]) -> None:
        super().__init__(connect, "seer")
        self.at: list[float] = []

    def work(self, cell: CellClient) -> None:
        """Look until told to stop."""
        seen = 0
        while not self._stopping.wait(0.02):
            with suppress(StoreError):
                # A slice that is done was placed, built, run, cleaned and given back:
                # scheduler, agent and controller have all committed.
                records = cell.store.read(["slice/default/queued-"]).records
                ended = sum(b'"end"' in record.value for record in records)
                if ended > seen:
                    seen = ended
                    self.at.append(time.monotonic())


@pytest.fixture
def whole(cluster: Cluster, tmp_path: Path) -> Iterator[Whole]:
    """A cell under load on three members."""
    with Whole(cluster, tmp_path / "cell") as found:
        yield found


def test_cell_goes_on_when_the_leader_is_killed_stopped_or_cut_off(
    whole: Whole, cluster: Cluster
) -> None:
    leader = cluster.leader()
    whole.hurt("leader killed", lambda: cluster.kill(leader), lambda: cluster.restart(leader))
    second = cluster.leader()
    whole.hurt("leader stopped", lambda: cluster.pause(second), lambda: cluster.resume(second))
    third = cluster.leader()
    whole.hurt("leader cut off", lambda: cluster.cut(third), lambda: cluster.heal(third))
    fourth = cluster.leader()
    whole.hurt(
        "leader cut off from all",
        lambda: cluster.cut(fourth, clients=True),
        lambda: cluster.heal(fourth),
    )
    whole.check()


def test_cell_waits_while_there_is_no_quorum_and_goes_on_when_it_is_back(
    whole: Whole, cluster: Cluster
) -> None:
    leader = cluster.leader()
    others = cluster.followers()
    began = time.monotonic()
    for member in others:
        cluster.kill(member)
    time.sleep(AWAY_SECONDS)
    gone_at = began + 1.0  # what was under way may have been acknowledged
    assert [t for t in whole.prober.at if t > gone_at] == []
    for member in others:
        cluster.restart(member)
    back = time.monotonic()
    whole.goes_on("quorum is back", back)
    whole.figures["no quorum"] = whole.gaps(began)
    whole.figures["after the quorum was back"] = {
        who: round(min(t for t in at if t > back) - back, 2)
        for who, at in whole.acknowledged_at().items()
    }
    assert cluster.leader() in (leader, *others)
    whole.check()
