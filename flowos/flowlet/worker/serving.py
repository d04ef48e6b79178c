"""How does a worker hear, run and send? The threads around its machine.

One thread runs tasks, and sends what they made itself; one hears everything, and never sends, so
that two workers that send each other much cannot wait for each other; one sends the rest.
"""

import contextlib
import os
import queue
import resource
import selectors
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from multiprocessing import AuthenticationError
from multiprocessing.connection import Listener
from typing import Any, Final, TypeAlias

from flowos.flowlet.wire.links import (
    APART,
    Link,
    address_of,
    connect,
    listen,
    no_delay,
    packet_of,
    this_machine,
    value_of,
)
from flowos.flowlet.wire.messages import (
    CLIENT,
    Bye,
    Drop,
    Failed,
    Feed,
    Freed,
    Go,
    Got,
    Hello,
    Packet,
    Part,
    Program,
    Ready,
    Recall,
    Result,
    Sent,
)
from flowos.flowlet.wire.segments import FOLDER, Value, swept
from flowos.flowlet.worker.channels import Opened, StreamOver
from flowos.flowlet.worker.circuits import CircuitMissing, Circuits
from flowos.flowlet.worker.machine import Action, Give, LetGo, Say, WorkerMachine
from flowos.flowlet.worker.notes import Notes, Slain
from flowos.flowlet.worker.running import (
    Codes,
    TaskFailed,
    log_since,
    log_size,
    run,
    stack_of,
)
from flowos.flowlet.worker.stages import Stages

AGAIN: Final = 75  # see __main__
LOOK_SECONDS: Final = 0.1  # how often a task's time is looked at
FILES_MAX: Final = 65_536  # segments are mapped, not kept open; connections are

_Post: TypeAlias = "tuple[int, Any, Any] | None"


def serve(environment: Mapping[str, str], notes: Notes, slain: Slain | None) -> int:
    """Be a worker until the coordinator says that it is over, or is gone; returns the exit code."""
    sys.setswitchinterval(0.0005)  # a task that computes must not keep messages waiting for 5 ms
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return _Worker(environment, notes, slain).run()


class _Worker:
    """The worker of one rank."""

    def __init__(self, environment: Mapping[str, str], notes: Notes, slain: Slain | None) -> None:
        self._rank = int(environment["FLOWOS_RANK"])
        self._attempt = environment["FLOWOS_ATTEMPT"]
        self._secret = environment["FLOWOS_TOKEN"].encode()
        self._machine_name = this_machine()
        self._circuits = Circuits(
            environment.get("FLOWOS_CIRCUITS", ""), environment.get("FLOWOS_PEERS", "")
        )
        self._notes = notes
        self._lock = threading.Lock()  # of the machines
        self._machines: dict[int, WorkerMachine] = {}
        self._codes: dict[int, Codes] = {}
        self._over = 0  # the last job that is
        self._stages: Stages | None = None
        self._stages_lock = threading.Lock()
        self._peers: dict[int, tuple[str, str, str]] = {}
        self._links: dict[int, Link] = {}
        self._connecting = threading.Lock()
        self._outbox: queue.SimpleQueue[_Post] = queue.SimpleQueue()
        self._wakeups: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._callers: queue.SimpleQueue[Link] = queue.SimpleQueue()
        self._doorbell = os.pipe()
        self._current: tuple[int, int, int, float, float] | None = None
        self._ending = AGAIN
        self._thread = threading.get_ident()
        self._memory_bytes = int(environment.get("FLOWOS_MEMORY", "0") or "0")
        self._listeners = [self._listener(f"unix:@flowos-{os.getpid()}-{os.urandom(6).hex()}")]
        local, remote = address_of(self._listeners[0]), ""
        if environment.get(APART) or int(environment.get("FLOWOS_NODES", "1")) > 1:
            self._listeners.append(self._listener("tcp:0.0.0.0:0"))
            host = environment.get("FLOWOS_ADDRESS", "127.0.0.1")
            remote = address_of(self._listeners[1], host)
        self._ready = Ready(
            self._rank,
            self._attempt,
            os.getpid(),
            self._machine_name,
            local,
            remote,
            environment.get("FLOWOS_ENGINE", ""),
            None if slain is None else (slain.job, slain.task, slain.signal),
        )
        self._coordinator = _first(environment["FLOWOS_PROGRAM"].split(","), self._secret)

    def run(self) -> int:
        """Run tasks until it is over."""
        self._coordinator.send(self._ready)
        for listener in self._listeners:
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        threading.Thread(target=self._send_all, name="outbox", daemon=True).start()
        threading.Thread(target=self._hear_all, name="ear", daemon=True).start()
        _prepare()
        self._limit_memory()
        while (job := self._wakeups.get()) is not None:
            self._run_all(job)
        return self._ending

    # -- running

    def _run_all(self, job: int) -> None:
        while True:
            with self._lock:
                machine, codes = self._machines.get(job), self._codes.get(job)
                found = machine.next_task() if machine is not None else None
                if machine is None or codes is None or found is None:
                    return
                part, values = found
                epoch = machine.epoch
            if part.stream:
                threading.Thread(
                    target=self._run_stage, args=(machine, codes, part, values, epoch), daemon=True
                ).start()
                continue
            self._notes.runs(job, part.number)
            self._current = (job, epoch, part.number, time.monotonic(), part.limit_seconds)
            size = log_size()
            try:
                ran = run(codes.task(part), part, values, self._attempt)
            except TaskFailed as why:
                self._current = None
                self._notes.clear()
                trace = why.trace
                written = log_since(size)
                if written.strip():
                    trace += f"\nIt had written:\n{written}"
                with self._lock:
                    machine.failed(epoch, part.number, why.kind, why.message, trace)
                    actions = machine.take()
            else:
                self._current = None
                self._notes.clear()
                with self._lock:
                    if job not in self._machines:  # dropped meanwhile
                        for value in ran.values:
                            value.unlink()
                        return
                    machine.ran(epoch, part.number, ran.values, ran.began, ran.took)
                    actions = machine.take()
            values = []
            self._carry_out(machine, actions, here=True)

    def _run_stage(
        self, machine: WorkerMachine, codes: Codes, part: Part, values: list[Any], epoch: int
    ) -> None:
        """Run a stage of a stream, on a thread of its own."""
        stages = self._stages_of(machine.job, epoch)
        try:
            ran = stages.run(codes.task(part), part, values)
        except StreamOver:
            return
        except CircuitMissing as error:
            why = TaskFailed("circuit", str(error))
        except TaskFailed as error:
            why = error
        else:
            with self._lock:
                if machine.job not in self._machines:
                    for value in ran.values:
                        value.unlink()
                    return
                machine.ran(epoch, part.number, ran.values, ran.began, ran.took)
                actions = machine.take()
                runs = bool(machine.ready)
            if runs:
                self._wakeups.put(machine.job)
            self._carry_out(machine, actions, here=True)
            return
        with self._lock:
            machine.failed(epoch, part.number, why.kind, why.message, why.trace)
            actions = machine.take()
        self._carry_out(machine, actions, here=True)

    def _stages_of(self, job: int, epoch: int) -> Stages:
        """Return the stages of an epoch; those of earlier ones end."""
        with self._stages_lock:
            now = self._stages
            if now is None or (now.job, now.epoch) < (job, epoch):
                if now is not None:
                    now.end()
                now = self._stages = Stages(job, epoch, self._rank, self._attempt, self._reach)
            elif (now.job, now.epoch) > (job, epoch):
                raise StreamOver
            return now

    def _reach(self, rank: int) -> Link:
        """Open a connection of its own to a rank, for a stream.

        Raises:
            StreamOver: It is gone.
        """
        machine, local, remote = self._peers[rank]
        try:
            link = connect(local if machine == self._machine_name else remote, self._secret)
            link.send(Hello(self._rank))
        except (OSError, EOFError, AuthenticationError):
            raise StreamOver from None
        return link

    def _end_stages(self, job: int, epoch: int) -> None:
        """End what streams of earlier epochs still do."""
        with self._stages_lock:
            now = self._stages
            if now is not None and now.job == job and now.epoch < epoch:
                now.end()

    def _limit_memory(self) -> None:
        """Let a task that wants more than the engine's share fail by itself, and alone."""
        if self._memory_bytes:
            with open("/proc/self/status", encoding="ascii") as file:  # noqa: PTH123
                used = next(int(line.split()[1]) for line in file if line.startswith("VmData"))
            most = self._memory_bytes + used * 1024
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_DATA, (most, resource.RLIM_INFINITY))

    # -- sending

    def _carry_out(self, machine: WorkerMachine, actions: Iterable[Action], *, here: bool) -> None:
        """Say and give what a machine wants, on this thread or by the outbox."""
        for action in actions:
            match action:
                case Say(rank, message):
                    self._post(rank, message, None, here=here)
                case Give(rank, output, value):
                    if rank == CLIENT:
                        packet, behind = packet_of(value, shared=self._is_shared_with_client)
                        result = Result(machine.job, machine.epoch, output, packet)
                        self._post(rank, result, behind, here=here)
                        continue
                    try:
                        self._circuits.check(self._rank, rank, f"output {output[1]}")
                    except CircuitMissing as error:
                        late = Failed(machine.job, machine.epoch, output[0], "circuit", str(error))
                        self._post(CLIENT, late, None, here=here)
                        continue
                    shared = self._peers[rank][0] == self._machine_name
                    packet, behind = packet_of(value, shared=shared)
                    sent = Sent(machine.job, machine.epoch, self._rank, output, packet)
                    self._post(rank, sent, behind, here=here)
                case LetGo(value):
                    value.unlink()

    def _post(self, rank: int, message: Any, behind: Any, *, here: bool) -> None:
        if here:
            self._send(rank, message, behind)
        else:
            self._outbox.put((rank, message, behind))

    def _send_all(self) -> None:
        while (post := self._outbox.get()) is not None:
            self._send(*post)

    def _send(self, rank: int, message: Any, behind: Any) -> None:
        """Send; to somebody who is gone, not: the coordinator knows, and will say what to do."""
        try:
            self._link(rank).send(message, behind)
        except (OSError, EOFError, KeyError, AuthenticationError):
            if rank != CLIENT:
                self._links.pop(rank, None)

    def _link(self, rank: int) -> Link:
        if rank == CLIENT:
            return self._coordinator
        link = self._links.get(rank)
        if link is None:
            with self._connecting:
                link = self._links.get(rank)
                if link is None:
                    machine, local, remote = self._peers[rank]
                    link = connect(local if machine == self._machine_name else remote, self._secret)
                    link.send(Hello(self._rank))
                    self._links[rank] = link
        return link

    @property
    def _is_shared_with_client(self) -> bool:
        return self._peers.get(CLIENT, ("",))[0] == self._machine_name

    # -- hearing

    def _accept(self, listener: Listener) -> None:
        while True:
            try:
                link = Link(no_delay(listener.accept()))
            except (OSError, EOFError, AuthenticationError):
                if self._ending != AGAIN:
                    return
                continue
            self._callers.put(link)
            os.write(self._doorbell[1], b".")

    def _hear_all(self) -> None:
        """Hear whoever speaks; where the coordinator is gone, everything is over."""
        ears = selectors.DefaultSelector()
        ears.register(self._coordinator, selectors.EVENT_READ)
        ears.register(self._doorbell[0], selectors.EVENT_READ)
        try:
            while self._ending == AGAIN:
                heard = ears.select(LOOK_SECONDS if self._is_timed() else None)
                for key, _ in heard:
                    if key.fileobj == self._doorbell[0]:
                        os.read(self._doorbell[0], 1)
                        ears.register(self._callers.get(), selectors.EVENT_READ)
                        continue
                    link = key.fileobj
                    assert isinstance(link, Link)
                    try:
                        message = link.receive()
                        if isinstance(message, Opened):  # from now on it is a stream's
                            ears.unregister(link)
                            self._opened_stream(message, link)
                            continue
                        self._heard(message)
                    except (OSError, EOFError):
                        if link is self._coordinator:
                            self._ending = 1
                            break
                        ears.unregister(link)
                        link.close()
                self._answer()
        except BaseException:  # noqa: BLE001  # an own bug: the worker ends, and another one begins
            sys.excepthook(*sys.exc_info())
            os._exit(AGAIN)
        swept(self._attempt if self._ending else "")
        self._wakeups.put(None)
        if self._current is not None:  # a task that goes on must not keep the slice
            sys.stdout.flush()
            os._exit(self._ending)

    def _is_timed(self) -> bool:
        """Whether a task runs that has a limit; ends the worker where it is over."""
        current = self._current
        if current is None:
            # One may begin just now: what has a limit at all is looked after.
            return any(
                part.limit_seconds for m in self._machines.values() for part in m.parts.values()
            )
        job, epoch, task, began, limit = current
        if not limit:
            return False
        if time.monotonic() - began > limit:
            where = stack_of(self._thread)
            self._coordinator.send(
                Failed(job, epoch, task, "hung", f"it ran longer than {limit:g} s", where)
            )
            os._exit(AGAIN)
        return True

    def _machine(self, job: int) -> WorkerMachine | None:
        if job <= self._over:
            return None
        return self._machines.setdefault(job, WorkerMachine(self._rank, job))

    def _heard(self, message: Any) -> None:
        match message:
            case Hello():
                return
            case Bye():
                self._ending = 0
                return
            case Drop(job):
                with self._lock:
                    machine = self._machines.pop(job, None)
                    self._codes.pop(job, None)
                    self._over = max(self._over, job)
                    self._end_stages(job, 1 << 62)
                    values = machine.dropped() if machine is not None else []
                for value in values:
                    value.unlink()
                return
            case Program():
                self._introduced(message)
                return
        with self._lock:
            machine = self._machine(message.job)
            if machine is None:  # the job is over; what was fed to it is still this worker's
                if isinstance(message, Feed):
                    _let_go(message.packet)
                return
            match message:
                case Go():
                    self._end_stages(message.job, message.epoch)
                    machine.go(message)
                case Feed(_, epoch, task, packet):
                    value = _opened(packet, owned=True)
                    if value is not None:
                        machine.fed(epoch, task, value)
                case Recall(_, epoch):
                    self._end_stages(message.job, epoch)
                    machine.recall(epoch)
                case Sent(_, epoch, source, output, packet):
                    value = _opened(packet, owned=False)
                    if value is not None:
                        machine.sent(source, epoch, output, value)
                case Got(_, epoch, source, outputs):
                    machine.got(source, epoch, outputs)
                case Freed(_, epoch, source, outputs):
                    machine.freed(source, epoch, outputs)

    def _opened_stream(self, opened: Opened, link: Link) -> None:
        """A reader of a stream has called: only a circuit lets it have any."""
        try:
            self._circuits.check(self._rank, opened.reader, f"output {opened.output[1]}")
            shared = self._peers[opened.reader][0] == self._machine_name
            self._stages_of(opened.job, opened.epoch).called(opened, link, shared=shared)
        except StreamOver:
            link.close()
        except CircuitMissing as error:
            link.close()
            late = Failed(opened.job, opened.epoch, opened.output[0], "circuit", str(error))
            self._post(CLIENT, late, None, here=False)

    def _answer(self) -> None:
        """Say what follows from all that was heard in this round, and wake who runs tasks."""
        for machine in list(self._machines.values()):
            with self._lock:
                actions = machine.take()
                runs = bool(machine.ready)
            if runs:
                self._wakeups.put(machine.job)
            if actions:
                self._carry_out(machine, actions, here=False)

    def _introduced(self, program: Program) -> None:
        for rank, peer in program.peers.items():
            if self._peers.get(rank) != peer:
                link = self._links.pop(rank, None)
                if link is not None:
                    link.close()
        self._peers = dict(program.peers)
        with self._lock:
            machine = self._machine(program.job)
            if machine is not None:
                machine.introduced(program)
                self._codes.setdefault(program.job, Codes({})).more(program.codes)

    def _listener(self, address: str) -> Listener:
        return listen(address, self._secret)


def _let_go(packet: Packet) -> None:
    """Take away the segment that a packet names, if it does."""
    if packet.segment:
        (FOLDER / packet.segment).unlink(missing_ok=True)


def _opened(packet: Any, *, owned: bool) -> Value | None:
    """Return what has come; None = its segment went with who had made it."""
    try:
        return value_of(packet, owned=owned)
    except OSError:
        return None


def _first(addresses: Iterable[str], secret: bytes) -> Link:
    """Call the first address that answers.

    Raises:
        OSError: None does.
    """
    problems = []
    for address in addresses:
        try:
            return connect(address, secret)
        except OSError as error:
            problems.append(f"{address}: {error}")
    raise OSError(f"the program that this worker is for cannot be reached: {'; '.join(problems)}")


def _prepare() -> None:
    """Load what most tasks need while the others get ready."""
    import cloudpickle
    import numpy as np

    del cloudpickle, np
