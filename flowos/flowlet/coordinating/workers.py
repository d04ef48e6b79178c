"""How does the user's process talk to its workers? The threads and connections around a coordinator.

Workers call; they are told apart by their rank, and who calls again for a rank has taken the place
of who called before. One thread hears all of them, and the caller's own thread decides.
"""

import contextlib
import os
import queue
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import AuthenticationError
from multiprocessing.connection import Listener
from typing import Any, Final

from flowos.flowlet.coordinating.coordinator import (
    Coordinator,
    Ended,
    GaveUp,
    Introduce,
    Job,
    Supply,
    Tell,
    Wire,
    Wires,
)
from flowos.flowlet.wire.links import (
    Link,
    address_of,
    listen,
    no_delay,
    packet_of,
    this_machine,
    value_of,
)
from flowos.flowlet.wire.messages import (
    CLIENT,
    Arrived,
    Bye,
    Done,
    Failed,
    Feed,
    Freed,
    Held,
    Output,
    Part,
    Program,
    Ready,
    Result,
)
from flowos.flowlet.wire.segments import packed

LOOK_SECONDS: Final = 0.5  # how often it is seen whether the slice still lives
FAREWELL_SECONDS: Final = 2.0  # for messages on their way when it is over


@dataclass(frozen=True, slots=True)
class Work:
    """A job, with all that its workers have to be given.

    Attributes:
        parts: Task -> what its worker has to know; None for those that run nowhere.
        codes: What tasks are made of.
        sources: Task -> its data.
    """

    job: Job
    parts: Sequence[Part | None]
    codes: Mapping[str, bytes]
    sources: Mapping[int, Any]


@dataclass(slots=True)
class Came:
    """What came of a job.

    Attributes:
        results: Of each output that was wanted.
        timings: Task -> rank, monotonic second it began at, seconds it took.
        gave_up: Why it was not done; None = it was.
        epochs: How many there were: 1, unless there were waves or losses.
    """

    results: dict[Output, Any] = field(default_factory=dict)
    timings: dict[int, tuple[int, float, float]] = field(default_factory=dict)
    gave_up: GaveUp | None = None
    epochs: int = 0


class Workers:
    """The workers of one slice, as the user's process sees them."""

    def __init__(self, *, elsewhere: bool = False, address: str = "") -> None:
        """Listen for them.

        Args:
            elsewhere: Whether some run on other machines.
            address: How these reach this machine; "" = as it calls itself.
        """
        self.secret = secrets.token_hex(16)
        key = self.secret.encode()
        self._listeners = [listen(f"unix:@flowos-{os.getpid()}-{secrets.token_hex(6)}", key)]
        self._addresses = [address_of(self._listeners[0])]
        if elsewhere:
            self._listeners.append(listen("tcp:0.0.0.0:0", key))
            host = address or socket.gethostname()
            self._addresses.append(address_of(self._listeners[1], host))
        self._inbox: queue.SimpleQueue[tuple[Link, Any]] = queue.SimpleQueue()
        self._callers: queue.SimpleQueue[Link] = queue.SimpleQueue()
        self._doorbell = os.pipe()
        self._links: dict[int, Link] = {}
        self._ranks: dict[Link, int] = {}
        self._present: dict[int, Ready] = {}
        self._closed = False
        self._jobs = 0
        for listener in self._listeners:
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        self._ear = threading.Thread(target=self._hear_all, name="ear", daemon=True)
        self._ear.start()

    def environment(self) -> dict[str, str]:
        """Return what a worker's command has to find in its environment."""
        return {"FLOWOS_PROGRAM": ",".join(self._addresses), "FLOWOS_TOKEN": self.secret}

    def next_job(self) -> int:
        """Return a number that no job had."""
        self._jobs += 1
        return self._jobs

    @property
    def present(self) -> Mapping[int, Ready]:
        """Rank -> who is there."""
        return self._present

    def await_all(self, count: int, look: Callable[[], str]) -> str:
        """Wait until so many workers are there; return why that will not be, "" = they are.

        Args:
            count: How many.
            look: Returns why there will be none, "" = nothing speaks against it.
        """
        while len(self._present) < count:
            self._take(None, LOOK_SECONDS, Came())
            if why := look():
                return why
        return ""

    def run(
        self,
        work: Work,
        *,
        wire: Callable[[Wires], None],
        look: Callable[[], str] = lambda: "",
        progress: Callable[[int, int], None] = lambda _done, _all: None,
        deadline: float | None = None,
        reassign: bool = True,
    ) -> Came:
        """Do a job.

        Args:
            work: What.
            wire: Called before each epoch: sees to it that these circuits are up.
            look: Asked now and then: returns why it cannot go on, "" = nothing.
            progress: Told how many of how many tasks have ended.
            deadline: The monotonic second at which it is given up.
            reassign: Whether what a lost worker had to do may be done by others.
        """
        came = Came()
        coordinator = Coordinator(work.job, reassign=reassign)
        count = sum(1 for part in work.parts if part is not None)
        for ready in list(self._present.values()):
            coordinator.ready(ready, time.monotonic())
        looked_at = time.monotonic()
        try:
            while not coordinator.ended:
                self._carry_out(coordinator, work, wire, came)
                now = time.monotonic()
                wake_at = min(
                    coordinator.wake_at() or now + LOOK_SECONDS,
                    looked_at + LOOK_SECONDS,
                    deadline if deadline is not None else now + LOOK_SECONDS,
                )
                self._take(coordinator, max(0.0, wake_at - now), came)
                progress(len(coordinator.done), count)
                now = time.monotonic()
                coordinator.tick(now)
                if now - looked_at >= LOOK_SECONDS:
                    looked_at = now
                    if why := look():
                        coordinator.abandon(why)
                if deadline is not None and now >= deadline:
                    left = [n for n, part in enumerate(work.parts) if part is not None]
                    names = [work.parts[n].name for n in left if n not in coordinator.done]  # type: ignore[union-attr]
                    coordinator.abandon(_unfinished(names))
        except BaseException:
            coordinator.abandon("it was interrupted")
            with contextlib.suppress(Exception):
                self._carry_out(coordinator, work, wire, came)
            raise
        self._carry_out(coordinator, work, wire, came)
        came.epochs = coordinator.epoch
        return came

    def close(self) -> None:
        """Send them home, and listen no more."""
        if self._closed:
            return
        for link in list(self._links.values()):
            with contextlib.suppress(OSError):
                link.send(Bye())
        until = time.monotonic() + FAREWELL_SECONDS
        while self._links and time.monotonic() < until:  # else they might not hear it
            self._take(None, 0.05, Came())
        self._closed = True
        for listener in self._listeners:
            listener.close()
        with contextlib.suppress(OSError):
            os.write(self._doorbell[1], b"x")
        for link in list(self._links.values()):
            link.close()

    # -- what the coordinator wants

    def _carry_out(
        self, coordinator: Coordinator, work: Work, wire: Callable[[Wires], None], came: Came
    ) -> None:
        while actions := coordinator.take():
            for action in actions:
                match action:
                    case Tell(rank, message):
                        self._send(rank, message)
                    case Introduce(ranks):
                        for rank in ranks:
                            self._send(rank, self._program(coordinator, work, rank))
                    case Supply(rank, epoch, task):
                        self._supply(work, rank, epoch, task)
                    case Wire(epoch, wires):
                        wire(wires)
                        coordinator.wired(epoch)
                    case GaveUp():
                        came.gave_up = action
                    case Ended():
                        pass

    def _program(self, coordinator: Coordinator, work: Work, rank: int) -> Program:
        parts = [work.parts[number] for number in coordinator.introduced(rank)]
        mine = tuple(part for part in parts if part is not None)
        named = {code for part in mine for code in (part.code, *part.functions)}
        codes = {code: work.codes[code] for code in named}
        peers = {r: (p.machine, p.local, p.remote) for r, p in coordinator.present.items()}
        peers[CLIENT] = (this_machine(), "", "")
        return Program(work.job.number, mine, codes, peers, self._present[rank].attempt)

    def _supply(self, work: Work, rank: int, epoch: int, task: int) -> None:
        ready = self._present.get(rank)
        if ready is None:
            return
        value = packed(work.sources[task], ready.attempt)
        packet, behind = packet_of(value, shared=ready.machine == this_machine())
        sent = self._send(rank, Feed(work.job.number, epoch, task, packet), behind)
        if not sent or not packet.segment:
            value.unlink()  # else it is the worker's to take away

    def _send(self, rank: int, message: Any, behind: Any = None) -> bool:
        link = self._links.get(rank)
        try:
            if link is not None:
                link.send(message, behind)
        except OSError:
            return False  # its end is heard, too
        return link is not None

    # -- what workers say

    def _take(self, coordinator: Coordinator | None, seconds: float, came: Came) -> None:
        """Take what was heard, waiting for it for so long."""
        try:
            heard = self._inbox.get(timeout=seconds) if seconds else self._inbox.get_nowait()
        except queue.Empty:
            return
        while True:
            self._taken(coordinator, *heard, came)
            if coordinator is not None and coordinator.actions:
                return
            try:
                heard = self._inbox.get_nowait()
            except queue.Empty:
                return

    def _taken(self, coordinator: Coordinator | None, link: Link, message: Any, came: Came) -> None:
        now = time.monotonic()
        if isinstance(message, Ready):
            rank = message.rank
            before = self._links.get(rank)
            if before is not None:
                self._ranks.pop(before, None)
            self._links[rank], self._ranks[link] = link, rank
            self._present[rank] = message
            if coordinator is not None:
                coordinator.ready(message, now)
            return
        known = self._ranks.get(link)
        if known is None:
            return
        if message is None:
            del self._links[known], self._ranks[link], self._present[known]
            if coordinator is not None:
                coordinator.gone(known, now)
            return
        if coordinator is None or message.job != coordinator.job.number:
            return
        match message:
            case Done():
                for task, began, took in message.tasks:
                    if began or task not in came.timings:  # 0: what it made was there already
                        came.timings[task] = (known, began, took)
                coordinator.done_at(known, message)
            case _Opened(result, data):
                came.results[result.output] = data
                coordinator.result(result)
            case Arrived():
                coordinator.arrived(known, message)
            case Held():
                coordinator.held(known, message)
            case Failed():
                coordinator.failed(message)

    # -- the other threads

    def _accept(self, listener: Listener) -> None:
        while not self._closed:
            try:
                link = Link(no_delay(listener.accept()))
            except (OSError, EOFError, AuthenticationError):
                continue
            self._callers.put(link)
            os.write(self._doorbell[1], b".")

    def _hear_all(self) -> None:
        ears = selectors.DefaultSelector()
        ears.register(self._doorbell[0], selectors.EVENT_READ)
        while not self._closed:
            for key, _ in ears.select():
                if key.fileobj == self._doorbell[0]:
                    if os.read(self._doorbell[0], 1) == b".":
                        ears.register(self._callers.get(), selectors.EVENT_READ)
                    continue
                link = key.fileobj
                assert isinstance(link, Link)
                try:
                    message = link.receive()
                    if isinstance(message, Result):
                        message = self._opened(link, message)
                except (OSError, EOFError):
                    ears.unregister(link)
                    link.close()
                    message = None
                self._inbox.put((link, message))
        ears.close()

    @staticmethod
    def _opened(link: Link, result: Result) -> "_Opened | None":
        """Take a result out of its worker's memory, so that it may be let go there."""
        value = value_of(result.packet)
        data = value.data()
        if value.name and not isinstance(data, bytes):
            data = data.copy()
        link.send(Freed(result.job, result.epoch, CLIENT, (result.output,)))
        return _Opened(result, data)


@dataclass(frozen=True, slots=True)
class _Opened:
    result: Result
    data: Any

    @property
    def job(self) -> int:
        return self.result.job


def _unfinished(names: Sequence[str]) -> str:
    some = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"it was not done in time: {some} had not ended"
