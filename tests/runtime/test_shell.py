"""What does the shell make of lost answers, lost watches, lost sessions and a store out of reach?"""

import queue
import threading
import time
from collections.abc import Sequence
from functools import partial
from math import inf

import pytest

from flowos.model.errors import Forbidden, SessionLost, StoreRefused
from flowos.model.transaction import (
    Changes,
    Committed,
    Conflicted,
    Lost,
    Progress,
    Put,
    Reading,
    Transaction,
)
from flowos.model.view import CellView
from flowos.protocol.proposal import Proposal
from flowos.runtime.clock import SystemClock
from flowos.runtime.machine import Commit, Compact, Instruction, Refused
from flowos.runtime.session import ProcessSession
from flowos.runtime.shell import Shell
from tests.runtime.cells import wanted
from tests.runtime.lossy import Fate, LossyStore
from tests.runtime.threads import Process, living_cell, until

FATES = [Fate.LANDED, Fate.DROPPED, Fate.LATE]


# ------------------------------------------------------------------------------ a cell in threads


def test_a_cell_in_threads_runs_slices_to_their_end(store):
    with living_cell(store) as cell:
        cell.all()
        cell.submit(
            wanted("a", gpus=2, fpgas=1, ring=True, run_for=0.1), wanted("b", gpus=4, run_for=0.1)
        )
        until(lambda: cell.ended("a", "b"), "both slices ended")
        assert store.read(["claim/", "placement/", "order/", "report/"]).records == []


@pytest.mark.parametrize("fate", FATES)
def test_a_commit_whose_answer_is_lost_is_fenced_and_then_decided_by_the_view(store, fate):
    with living_cell(store) as cell:
        process = cell.scheduler()
        until(lambda: cell.sessions("scheduler"), "a session")
        (session,) = store.read(["session/scheduler/"]).records
        process.store.lose_next(fate, "placement/")
        cell.submit(wanted("a", gpus=1))
        machine = process.machine
        until(lambda: machine.figures.placed == 1, "it knows that it has placed it")
        assert cell.placed("a")
        (fence,) = store.read(["session/scheduler/"]).records
        assert fence.modified > session.modified
        assert fence.key == session.key
        if fate is Fate.LATE:
            assert [type(outcome) for outcome in process.store.late_outcomes] == [Conflicted]
        cell.submit(wanted("b", gpus=3))
        until(lambda: cell.placed("b"), "it goes on")
        assert machine.view.assumed("default/a") is False


LOSSES = [
    ("batch-0", "placement/"),
    ("batch-0", "reason/"),
    ("batch-0", "grant/"),
    ("controller-0", "session/controller/leader"),
    ("controller-0", "placement/"),
    ("controller-0", "slice/"),
    ("controller-0", "claim/"),
    ("agent-0", "report/"),
    ("agent-0", "observed/"),
]


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize(("who", "word"), LOSSES)
def test_whatever_answer_is_lost_every_slice_ends_once(memory, who, word, fate):
    with living_cell(memory, budget=350) as cell:
        cell.prepare[who] = lambda store: store.lose_next(fate, word)
        cell.all()
        cell.submit(
            wanted("a", gpus=2, fpgas=1, ring=True, run_for=0.05),
            wanted("b", gpus=2, fpgas=1, ring=True, run_for=0.05),
        )
        until(lambda: cell.ended("a", "b"), "both slices ended")
        until(lambda: cell.processes[who].store.lost, f"an answer about {word} was lost")
        assert [cell.slice(name).attempts for name in "ab"] == [1, 1]
        left = ["claim/", "placement/", "order/", "report/"]
        until(lambda: not memory.read(left).records, "the cell is clean")


@pytest.mark.etcd
def test_answers_lost_again_and_again_double_nothing(etcd_store):
    store = etcd_store()
    with living_cell(store) as cell:
        cell.all()
        for number, process in enumerate(cell.processes.values()):
            fates = iter(FATES * 6)
            count = [number]

            def lose(_transactions, count=count, fates=fates):
                count[0] += 1
                return next(fates, None) if count[0] % 4 == 0 else None

            process.store.lose = lose
        names = [f"s{number}" for number in range(12)]
        cell.submit(*(wanted(name, gpus=1, run_for=0.02) for name in names))
        until(lambda: cell.ended(*names), "all slices ended", 30)
        assert {cell.slice(name).attempts for name in names} == {1}


def test_a_store_out_of_reach_is_waited_for_without_a_frenzy(memory):
    with living_cell(memory) as cell:
        cell.all()
        until(lambda: cell.sessions("controller"), "the controller is up")
        rounds = [0]
        for process in cell.processes.values():
            shell_of(process)._on_round = lambda _now: rounds.__setitem__(0, rounds[0] + 1)
            process.store.reachable = False
        cell.submit(wanted("a", gpus=1, run_for=0.05))
        tried = [process.store.commits for process in cell.processes.values()]
        time.sleep(1.0)
        assert [process.store.commits for process in cell.processes.values()] == tried
        assert rounds[0] < 200
        assert not cell.placed("a")
        for process in cell.processes.values():
            process.store.reachable = True
        until(lambda: cell.ended("a"), "it goes on")
        assert cell.slice("a").attempts == 1


def shell_of(process: Process) -> Shell:
    until(lambda: process.supervisor.shell, "a shell")
    assert process.supervisor.shell is not None
    return process.supervisor.shell


def test_a_lost_watch_is_made_good_by_listing_again(store):
    with living_cell(store) as cell:
        cell.all()
        cell.submit(wanted("a", gpus=4, run_for=0.3), wanted("b", gpus=1, run_for=0.05))
        until(lambda: cell.placed("a"), "the first is placed")
        for process in cell.processes.values():
            shell_of(process)  # it watches
            reads = process.store.reads
            process.store.end_watches()
            until(partial(more_reads, process, reads), "listed again")
        until(lambda: cell.ended("a", "b"), "both slices ended")


def more_reads(process: Process, than: int) -> bool:
    return process.store.reads > than


def test_a_watch_lost_while_the_store_is_out_of_reach_is_made_good_when_it_is_back(memory):
    with living_cell(memory) as cell:
        process = cell.scheduler()
        until(lambda: cell.sessions("scheduler"), "a session")
        process.machine  # noqa: B018  # its shell is there
        process.store.reachable = False
        process.store.end_watches()
        cell.submit(wanted("a", gpus=1))
        time.sleep(0.3)
        process.store.reachable = True
        until(lambda: cell.placed("a"), "it is placed")


def test_a_process_whose_session_is_lost_starts_anew_with_another_id(store):
    with living_cell(store) as cell:
        process = cell.scheduler(ttl_seconds=2)
        cell.submit(wanted("a", gpus=1))
        until(lambda: cell.placed("a"), "it is placed")
        (first,) = cell.sessions("scheduler")
        shell = shell_of(process)
        assert shell._session is not None
        shell._session._lease.revoke()
        until(lambda: cell.sessions("scheduler"), "a session again")
        (second,) = cell.sessions("scheduler")
        assert second != first
        cell.submit(wanted("b", gpus=1))
        until(lambda: cell.placed("b"), "the next is placed")


def test_all_roles_start_anew_when_all_leases_are_over(memory):
    with living_cell(memory) as cell:
        cell.all()
        cell.submit(*(wanted(f"s{n}", gpus=2, run_for=0.1) for n in range(6)))
        until(lambda: cell.ended("s0"), "some have ended")
        for process in cell.processes.values():
            shell = shell_of(process)
            assert shell._session is not None
            shell._session._lease.revoke()
            shell._session._gone()  # the keeper would find out within seconds
        until(lambda: cell.ended(*(f"s{n}" for n in range(6))), "all slices ended")


# --------------------------------------------------------------------------------------- the end


def test_a_stop_ends_every_process_at_once(store):
    with living_cell(store) as cell:
        cell.all()
        cell.submit(wanted("a", gpus=1))
        until(lambda: cell.placed("a"), "it is placed")
        for process in cell.processes.values():
            assert process.stop() < 3
        assert store.read(["session/"]).records == []
        threads = [t.name for t in threading.enumerate() if t.name.startswith("commit-")]
        until(lambda: not any(t.name in threads for t in threading.enumerate()), "threads ended")


def test_a_stop_ends_a_process_that_waits_for_its_store(memory):
    with living_cell(memory) as cell:
        process = cell.scheduler()
        until(lambda: cell.sessions("scheduler"), "a session")
        process.machine  # noqa: B018  # its shell is there
        process.store.reachable = False
        process.store.end_watches()
        time.sleep(0.2)
        assert process.stop() < 3


def test_a_stop_ends_a_process_that_could_not_even_begin(memory):
    with living_cell(memory) as cell:
        process = cell.scheduler()
        until(lambda: cell.sessions("scheduler"), "a session")
        process.store.reachable = False
        shell = shell_of(process)
        shell.session_lost()
        time.sleep(0.3)
        assert process.stop() < 3


def test_a_stop_before_the_beginning_is_not_forgotten(memory):
    with living_cell(memory) as cell:
        process = cell.scheduler()
        assert process.stop() < 5


# -------------------------------------------------------------------------- the shell, by itself


class Puppet:
    """A machine that does what the test says, and remembers what it was told."""

    def __init__(self) -> None:
        self.view = CellView()
        self.told: list[tuple[Commit, Sequence[object]]] = []
        self.todo: queue.SimpleQueue[Instruction] = queue.SimpleQueue()
        self.steps = 0
        self.relistings = 0
        self.wakes_at = inf

    def changed(self, change: object) -> None:
        pass

    def relisted(self) -> None:
        self.relistings += 1

    def answered(self, commit: Commit, answers: Sequence[object], now: float) -> None:
        self.told.append((commit, answers))

    def step(self, now: float) -> list[Instruction]:
        self.steps += 1
        found = []
        while not self.todo.empty():
            found.append(self.todo.get())
        return found

    def needs(self) -> int:
        return 2**62

    def wake_at(self) -> float:
        return self.wakes_at


class QuietStore:
    """A store whose watch says only what the test says."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer: object = [Committed(100)]
        self.deliver = None
        self.compacted: list[int] = []

    def commit(self, transactions, *, timeout_seconds=5.0):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def read(self, prefixes, *, at=0):
        return Reading(90, [])

    def watch(self, prefixes, *, after, deliver):
        self.deliver = deliver
        return self

    def ask_progress(self) -> None:
        self.asked += 1

    def close(self) -> None:
        pass

    def lease(self, ttl_seconds):
        raise NotImplementedError

    def compact(self, before: int) -> None:
        self.compacted.append(before)

    def oldest(self) -> int:
        return 1


def a_commit(name: str = "default/t") -> Commit:
    return Commit((Proposal("commit", name, Transaction((), (Put("x", b"1"),))),))


class Running:
    """A shell with a puppet, in a thread."""

    def __init__(self, store=None, session: ProcessSession | None = None) -> None:
        self.store = store or QuietStore()
        self.machine = Puppet()
        self.rounds = 0
        self.error: BaseException | None = None
        self.shell = Shell(
            self.store,
            self.machine,
            session,
            prefixes=["x"],
            clock=SystemClock(),
            maintenance=self.store,
            on_round=self._count,
        )
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _count(self, _now: float) -> None:
        self.rounds += 1

    def _run(self) -> None:
        try:
            self.shell.run()
        except BaseException as error:  # noqa: BLE001  # the test looks at it
            self.error = error

    def __enter__(self):
        self._thread.start()
        until(lambda: self.machine.relistings, "listed")
        return self

    def __exit__(self, *_):
        self.shell.stop()
        self.join()

    def join(self) -> None:
        self._thread.join(5)
        assert not self._thread.is_alive()

    def do(self, instruction: Instruction) -> None:
        self.machine.todo.put(instruction)
        self.hear(Changes(()))

    def hear(self, message: object) -> None:
        assert self.store.deliver is not None
        self.store.deliver(message)


def test_a_progress_answer_that_falls_short_of_a_conflict_is_asked_for_again():
    with Running() as running:
        running.store.answer = [Conflicted(100)]
        running.do(a_commit())
        until(lambda: running.machine.told, "told of the conflict")
        until(lambda: running.store.asked == 1, "asked how far the view is")
        running.hear(Progress(98))
        until(lambda: running.store.asked == 2, "asked again at once", 1.0)
        running.hear(Progress(100))
        until(lambda: running.machine.view.revision == 100, "complete")
        time.sleep(0.1)
        assert running.store.asked == 2


def test_a_quiet_watch_is_asked_now_and_then_whether_it_lives():
    with Running() as running:
        until(lambda: running.store.asked == 1, "asked after two seconds", 4)
        assert running.rounds < 20


def test_a_machine_that_wants_to_act_at_once_does_not_spin_while_the_store_is_out_of_reach(memory):
    lossy = LossyStore(memory)
    with Running(lossy) as running:
        lossy.reachable = False
        running.machine.wakes_at = 0.0
        running.machine.todo.put(a_commit())
        lossy._delivers[-1](Changes(()))
        until(lambda: running.machine.told, "told that nothing was sent")
        assert [type(answer) for answer in running.machine.told[0][1]] == [Conflicted]
        # As after several tries: the pauses grow to seconds.
        running.shell._mirror._held_until = time.monotonic() + 1.0
        before = running.rounds
        time.sleep(0.5)
        assert running.rounds - before < 20


def test_a_refused_request_is_told_as_refused_to_each_of_its_members():
    with Running() as running:
        running.store.answer = StoreRefused("no space")
        two = Commit((*a_commit("default/a").proposals, *a_commit("default/b").proposals))
        running.do(two)
        until(lambda: running.machine.told, "told")
        commit, answers = running.machine.told[0]
        assert commit is two
        assert [type(answer) for answer in answers] == [Refused, Refused]


def test_a_bug_on_a_commit_thread_ends_the_process_instead_of_silencing_it():
    with Running() as running:
        running.store.answer = ZeroDivisionError("a bug")
        running.do(a_commit())
        running.join()
        assert isinstance(running.error, ZeroDivisionError)


def test_a_lost_answer_without_a_session_ends_the_process():
    from flowos.model.errors import OutcomeUnknown

    with Running() as running:
        running.store.answer = OutcomeUnknown("?")
        running.do(a_commit())
        running.join()
        assert isinstance(running.error, SessionLost)


def test_what_was_listed_is_acted_on_at_once():
    with Running() as running:
        until(lambda: running.machine.steps, "a step", 1.0)


def test_messages_of_a_watch_that_was_given_up_are_not_heard():
    with Running() as running:
        old = running.store.deliver
        running.hear(Lost("compacted"))
        until(lambda: running.machine.relistings == 2, "listed again")
        assert old is not None
        old(Progress(5000))
        running.hear(Progress(91))
        until(lambda: running.machine.view.revision == 91, "the new watch is heard")


def test_compaction_is_carried_out_and_its_refusal_is_no_end():
    with Running() as running:
        running.do(Compact(17))
        until(lambda: running.store.compacted == [17], "compacted")

        def refuse(before: int) -> None:
            raise StoreRefused("the revision is in the future")

        running.store.compact = refuse
        running.do(Compact(99))
        running.do(a_commit())
        until(lambda: running.machine.told, "it goes on")


def test_what_may_not_be_compacted_is_said_once_until_it_may(caplog):
    def said() -> int:
        return sum("not compacted" in record.getMessage() for record in caplog.records)

    with Running() as running:
        compact = running.store.compact
        refused: list[int] = []

        def refuse(before: int) -> None:
            refused.append(before)
            raise Forbidden("etcd at a:1 forbids control to compact")

        def refuse_thrice_and_then_do() -> None:
            refused.clear()
            running.store.compacted.clear()
            running.store.compact = refuse
            for before in range(3):
                running.do(Compact(before))
            until(lambda: len(refused) == 3, "refused")
            running.store.compact = compact
            running.do(Compact(17))
            until(lambda: running.store.compacted == [17], "compacted")

        refuse_thrice_and_then_do()
        assert said() == 1
        refuse_thrice_and_then_do()
        assert said() == 2


def test_a_session_lost_before_there_was_a_shell_is_not_overlooked(memory):
    from flowos.runtime.processes import Supervisor

    supervisor = Supervisor(LossyStore(memory), SystemClock())
    session = ProcessSession(memory, SystemClock(), "scheduler", "batch-0")
    session.lost = True
    with pytest.raises(SessionLost):
        supervisor.live(session, Puppet(), ["x"], ready=lambda: None)
    session.close()
