"""What does a client see of a cluster that loses members? Commits go on, and none is lost or doubled.

Nothing here depends on how long an election takes; a call that nobody will answer may wait for a
minute, so that a test that ends at all shows that it was given up.
"""

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from flowos.model.errors import OutcomeUnknown, StoreError, StoreUnreachable
from flowos.model.transaction import Changes, Committed, Lost, Put, Seen, Transaction
from flowos.runtime.clock import SystemClock
from flowos.runtime.session import ProcessSession
from flowos_store import EtcdStore
from tests.plugins.cluster import Cluster, join

pytestmark = [pytest.mark.etcd, pytest.mark.slow]

HANGS_SECONDS = 60.0  # what a call waits for an answer
ALIVE_SECONDS = 40.0  # far below it, and far above what a busy machine needs


def test_where_the_tools_for_namespaces_are_missing_members_are_joined_by_proxies(monkeypatch):
    monkeypatch.setenv("PATH", "")
    network = join("", 2)
    network.close()
    assert network.name == "proxies"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as found:
        yield found


class Worker:
    """Claims one key after the other, decides lost answers by the rule, and follows what it wrote."""

    def __init__(self, cluster: Cluster, cell: str, first: int) -> None:
        self.store = EtcdStore(cluster.endpoints, cell, read_timeout_seconds=HANGS_SECONDS)
        self.store._connection.members._roster.leads(first)
        self.session = ProcessSession(self.store, SystemClock(), "scheduler", "w", ttl_seconds=60)
        self.done: dict[int, bool] = {}
        self.seen: list[tuple[str, int]] = []
        self.lost: list[Lost] = []
        self.unknown = 0
        start = self.store.read([""]).revision
        self.watch = self.store.watch(["claim/"], after=start, deliver=self._hear)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _hear(self, message):
        if isinstance(message, Changes):
            self.seen += [(change.key, change.modified) for change in message.changes]
        elif isinstance(message, Lost):
            self.lost.append(message)

    def _work(self) -> None:
        number = 0
        while not self._stop.is_set():
            key, value = f"claim/{number}", b"attempt %d" % number
            asked = Transaction((self.session.fence.compare, Seen(key, 0)), (Put(key, value),))
            try:
                (outcome,) = self.store.commit([asked], timeout_seconds=HANGS_SECONDS)
                self.done[number] = isinstance(outcome, Committed)
            except OutcomeUnknown:
                self.unknown += 1
                self._patiently(self.session.refence)
                found = self._patiently(partial(self.store.read, [key])).records
                self.done[number] = any(record.value == value for record in found)
            except StoreError:
                self.done[number] = False
            number += 1
            self._stop.wait(0.003)

    def _patiently(self, ask: Callable[[], Any]) -> Any:
        while True:
            try:
                return ask()
            except StoreUnreachable:
                if self._stop.wait(0.02):
                    raise

    def goes_on(self) -> None:
        """Wait for five more claims, and until the watch has told of one of them."""
        before = sum(self.done.values())
        until(lambda: sum(self.done.values()) >= before + 5, "no more commits")
        told = len(self.seen)
        until(lambda: len(self.seen) > told, "the watch tells nothing")

    def close(self) -> None:
        self._stop.set()
        self._thread.join(ALIVE_SECONDS)
        self.watch.close()
        self.session.close()
        self.store.close()


def until(happened: Callable[[], bool], else_what: str) -> None:
    deadline = time.monotonic() + ALIVE_SECONDS
    while not happened():
        assert time.monotonic() < deadline, else_what
        time.sleep(0.01)


@pytest.fixture
def workers(cluster, request):
    """A worker at each member; in the end all that they decided is compared with what is there."""
    cluster.wait_healthy()
    cell = request.node.name[:60].replace("[", "-").replace("]", "")
    working = [Worker(cluster, f"{cell}-{first}", first) for first in range(3)]
    for worker in working:
        worker.goes_on()
    yield working
    cluster.wait_healthy()
    for first, worker in enumerate(working):
        worker.goes_on()
        worker.close()
        truth = EtcdStore(cluster.endpoints, f"{cell}-{first}")
        records = {record.key: record for record in truth.read(["claim/"]).records}
        decided = {f"claim/{number}" for number, happened in worker.done.items() if happened}
        assert records.keys() - {f"claim/{len(worker.done)}"} == decided
        assert all(record.created == record.modified for record in records.values())
        assert worker.lost == []
        revisions = [revision for _, revision in worker.seen]
        assert revisions == sorted(set(revisions))
        told = dict(worker.seen)
        assert told == {key: records[key].modified for key in told}
        assert len(told) >= len(decided) - 5
        truth.close()


HURT = {
    "killed": (Cluster.kill, Cluster.restart),
    "stopped": (Cluster.pause, Cluster.resume),
    "cut off from its peers": (Cluster.cut, Cluster.heal),
    "cut off from everybody": (lambda c, m: c.cut(m, clients=True), Cluster.heal),
}


@pytest.mark.parametrize("how", HURT)
@pytest.mark.parametrize("whom", ["leader", "follower"])
def test_commits_go_on_while_a_member_is(cluster, workers, whom, how):
    hurt, mend = HURT[how]
    member = cluster.leader() if whom == "leader" else cluster.followers()[0]
    hurt(cluster, member)
    for worker in workers:
        worker.goes_on()
    mend(cluster, member)


def test_commits_go_on_when_a_lost_quorum_is_back(cluster, workers):
    leader = cluster.leader()
    others = [member for member in range(3) if member != leader]
    cluster.pause(leader)
    cluster.kill(others[0])
    before = [sum(worker.done.values()) for worker in workers]
    time.sleep(1.0)  # for a while nothing can happen, and nothing does
    assert [sum(w.done.values()) for w in workers] <= [count + 1 for count in before]
    cluster.resume(leader)
    for worker in workers:
        worker.goes_on()
    cluster.restart(others[0])


def test_a_store_is_opened_where_some_members_are_not_there(cluster):
    cluster.wait_healthy()
    cluster.pause(0)
    try:
        endpoints = ["127.0.0.1:1", "nosuchhost.invalid:2379", *cluster.endpoints]
        store = EtcdStore(endpoints, "opened", connect_timeout_seconds=20)
        assert isinstance(store.commit([Transaction((), (Put("a", b""),))])[0], Committed)
        store.close()
    finally:
        cluster.resume(0)


def test_without_a_quorum_it_is_said_that_there_is_no_leader(cluster):
    cluster.wait_healthy()
    for member in (0, 1):
        cluster.kill(member)
    try:
        with pytest.raises(StoreUnreachable, match="it has no leader"):
            EtcdStore(cluster.endpoints, connect_timeout_seconds=4.0)
    finally:
        for member in (0, 1):
            cluster.restart(member)
        cluster.wait_healthy()
