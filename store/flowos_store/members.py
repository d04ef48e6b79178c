"""How are the members of one etcd reached, as if they were one? Channels, and a guard of calls.

Each member has channels of its own, and all calls go to one of them (see `roster`). One channel of
grpc's for all members, with its round robin, sends every third call to a member that hangs, and
that one waits for its time-out.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import grpc

from flowos_store.failures import details_of, is_answer
from flowos_store.roster import ROUND_SECONDS, Ask, GiveUp, Leave, Roster, Step
from flowos_store.wire import rpc

Metadata = tuple[tuple[str, str], ...]
LOOK_SECONDS: Final = 0.1  # how often the guard looks for calls that take long
FIRST_CHOICE_SECONDS: Final = 0.05  # how much later than others' the preferred one's answer may be
AGAIN_SECONDS: Final = 0.1  # between two questions to a member that says no
WHY_SECONDS: Final = 1.0  # for the last question, whose answer is only for people
# A member without a leader is to say so at once, instead of holding a call for seconds.
HAS_LEADER: Final[Metadata] = (("hasleader", "true"),)
NEEDS_LEADER: Final = ("/etcdserverpb.KV/", "/etcdserverpb.Lease/", "/etcdserverpb.Watch/")
RANGE: Final = "/etcdserverpb.KV/Range"
QUESTION: Final = rpc.RangeRequest(key=b"\0", count_only=True)  # read from a quorum, and cheap


class Member:
    """One server, and two connections to it.

    A large answer on one would hold up the events on the other (etcd#15402).

    Attributes:
        endpoint: Its address, for people.
        calls: For calls.
        watches: For the streams of watches.
        under_way: When each call was made that has no answer yet.
    """

    def __init__(self, endpoint: str, opened: Callable[[], grpc.Channel]) -> None:
        self.endpoint = endpoint
        self._opened = opened
        self.calls, self.watches = opened(), opened()
        self.under_way: dict[object, float] = {}

    def oldest(self) -> float | None:
        """Return when the oldest call was made that is still without an answer."""
        return min(list(self.under_way.values()), default=None)

    def renew(self, *, calls: bool = True, watches: bool = True) -> None:
        """End what is under way, by closing its channel."""
        old = []
        if calls:
            old.append(self.calls)
            self.calls = self._opened()
        if watches:
            old.append(self.watches)
            self.watches = self._opened()
        for channel in old:
            channel.close()

    def ask(self, timeout_seconds: float, metadata: Metadata, *, patient: bool = False) -> Any:
        """Ask how it is; return the answer to come."""
        question = self.calls.unary_unary(
            RANGE,
            request_serializer=rpc.RangeRequest.SerializeToString,
            response_deserializer=rpc.RangeResponse.FromString,
        )
        return question.future(
            QUESTION,
            timeout=timeout_seconds,
            metadata=(*metadata, *HAS_LEADER),
            wait_for_ready=patient,
        )

    def close(self) -> None:
        """Close its channels; calls under way fail."""
        for channel in (self.calls, self.watches):
            with contextlib.suppress(ValueError):
                channel.close()


class _Report(NamedTuple):
    """How a member is: the term it lives in (0 = it is well, and did not say), or None."""

    member: int
    term: int | None
    changed: bool = False  # it said that the leader has just changed


class Members:
    """The members of one etcd, one of which is asked at a time."""

    def __init__(
        self, members: Sequence[Member], *, first: int, metadata: Callable[[], Metadata]
    ) -> None:
        """Begin with one.

        Args:
            members: All of them.
            first: Which is asked first.
            metadata: What every call carries.
        """
        self._members = tuple(members)
        self._metadata = metadata
        self._roster = Roster(len(members), first=first)
        self._lock = threading.Lock()  # of the roster
        self._heard: queue.SimpleQueue[_Report | None] = queue.SimpleQueue()
        self._guard: threading.Thread | None = None
        self.answers = 0  # that came, roughly: who counts takes no lock
        self.closed = False
        self.calls = Routed(lambda: self.current.calls)
        self.watches = Routed(lambda: self.current.watches)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._members)

    @property
    def current(self) -> Member:
        """Who is asked now."""
        return self._members[self._roster.current]

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Have the guard look after a call that the block makes to the current member."""
        key = self.begin()
        try:
            yield
        finally:
            self.end(key)

    def begin(self) -> tuple[Member, object]:
        """Note that an answer of the current member is waited for from now on, until `end`."""
        member, key = self.current, object()
        if len(self._members) > 1:  # else there is nobody to go to instead
            member.under_way[key] = time.monotonic()
            if self._guard is None:
                self._start_guard()
        return member, key

    def end(self, begun: tuple[Member, object]) -> None:
        """Note that the answer is there, or no longer waited for."""
        member, key = begun
        member.under_way.pop(key, None)

    def pass_over(self) -> None:
        """Ask the next one from now on: the current one cannot be reached."""
        with self._lock:
            left = self.current
            self._roster.passed_over()
        if left is not self.current:
            left.renew(calls=False)  # its watches move as well

    def doubt(self) -> None:
        """Take new connections: nothing at all came while a call waited for its time to be over.

        The guard finds that out much sooner, but only where there is somebody else to compare with.
        """
        if len(self._members) == 1 and not self.closed:
            self.current.renew(watches=False)

    def find(self, seconds: float) -> BaseException | None:
        """Wait until a member answers, and ask it from now on.

        Returns:
            None, or why there is none, as one of them said it.
        """
        heard: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        deadline = time.monotonic() + seconds
        waiting: dict[int, Any] = {}
        again: dict[int, float] = dict.fromkeys(range(len(self._members)), 0.0)
        found, found_term, decide_at = -1, 0, deadline
        why: BaseException | None = None
        while not self.closed and (now := time.monotonic()) < decide_at:
            for member in [m for m, at in again.items() if at <= now]:
                del again[member]
                # Before grpcio 1.80 a channel makes headway only while a call waits on it.
                ask = self._members[member].ask(deadline - now, self._metadata(), patient=True)
                waiting[member] = ask
                ask.add_done_callback(lambda done, m=member: heard.put((m, done)))
            soonest = min([decide_at, *again.values()])
            try:
                member, done = heard.get(timeout=max(0.0, soonest - now))
            except queue.Empty:
                continue
            waiting.pop(member, None)
            error = done.exception()
            if error is None or is_answer(error):
                term = done.result().header.raft_term if error is None else 0
                if found < 0 or member == self._roster.current:
                    found, found_term = member, term
                    decide_at = min(decide_at, now + FIRST_CHOICE_SECONDS)
                if member == self._roster.current or not waiting:
                    break
            else:
                why = error
                again[member] = time.monotonic() + AGAIN_SECONDS
        for ask in waiting.values():
            ask.cancel()
        if found < 0:
            return self._why() or why or ValueError("closed")
        with self._lock:
            left = self.current
            self._roster.leads(found, found_term)
        if left is not self.current:
            left.renew(calls=False)
        return None

    def _why(self) -> BaseException | None:
        """Ask without patience: then grpc says what is wrong with a connection."""
        asked = [] if self.closed else [m.ask(WHY_SECONDS, self._metadata()) for m in self._members]
        errors = [ask.exception() for ask in asked]
        # What a server said tells more than that another one is not there.
        return max((e for e in errors if e), key=lambda e: "etcdserver" in str(e), default=None)

    def close(self) -> None:
        """Close all channels; calls under way fail."""
        self.closed = True
        self._heard.put(None)
        for member in self._members:
            member.close()

    # -------------------------------------------------------------------------------- the guard

    def _start_guard(self) -> None:
        with self._lock:
            if self._guard is None:
                self._guard = threading.Thread(
                    target=self._watch_over, name="flowos-members", daemon=True
                )
                self._guard.start()

    def _watch_over(self) -> None:
        while not self.closed:
            heard: list[_Report] = []
            with contextlib.suppress(queue.Empty):
                answer = self._heard.get(timeout=LOOK_SECONDS)
                if answer is None:
                    return
                heard.append(answer)
            now = time.monotonic()
            with self._lock:
                steps: list[Step] = []
                for member, term, changed in heard:
                    if term is None:
                        steps += self._roster.failed(member, now, changed=changed)
                    else:
                        steps += self._roster.answered(member, term, now, self.current.oldest())
                steps += self._roster.looked(now, self.current.oldest())
            for step in steps:
                self._do(step)

    def _do(self, step: Step) -> None:
        match step:
            case Ask():
                for number, member in enumerate(self._members):
                    with contextlib.suppress(ValueError):  # closed meanwhile
                        ask = member.ask(ROUND_SECONDS, self._metadata())
                        ask.add_done_callback(lambda done, n=number: self._hear(n, done))
            case GiveUp(member):
                self._members[member].renew(watches=False)
            case Leave(member):
                self._members[member].renew()

    def _hear(self, member: int, done: Any) -> None:  # on a thread of grpc's
        error = None if done.cancelled() else done.exception()
        if done.cancelled():
            self._heard.put(_Report(member, None))
        elif error is None:
            self._heard.put(_Report(member, done.result().header.raft_term))
        else:
            changed = "leader changed" in details_of(error)
            self._heard.put(_Report(member, 0 if is_answer(error) else None, changed))


class Routed(grpc.Channel):
    """A channel that leads to whichever channel is picked when a call is made."""

    def __init__(self, pick: Callable[[], grpc.Channel]) -> None:
        self._pick = pick

    def unary_unary(self, method: str, *args: Any, **options: Any) -> Any:
        """See grpc.Channel."""
        return _RoutedCall(self._pick, lambda c: c.unary_unary(method, *args, **options), method)

    def unary_stream(self, method: str, *args: Any, **options: Any) -> Any:
        """See grpc.Channel."""
        return _RoutedCall(self._pick, lambda c: c.unary_stream(method, *args, **options), method)

    def stream_unary(self, method: str, *args: Any, **options: Any) -> Any:
        """See grpc.Channel."""
        return _RoutedCall(self._pick, lambda c: c.stream_unary(method, *args, **options), method)

    def stream_stream(self, method: str, *args: Any, **options: Any) -> Any:
        """See grpc.Channel."""
        return _RoutedCall(self._pick, lambda c: c.stream_stream(method, *args, **options), method)

    def subscribe(self, callback: Any, try_to_connect: bool = False) -> None:
        """See grpc.Channel."""
        self._pick().subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Any) -> None:
        """See grpc.Channel."""
        self._pick().unsubscribe(callback)

    def close(self) -> None:
        """See grpc.Channel; the channels belong to their members."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class _RoutedCall:
    """One method, on whichever channel is picked."""

    __slots__ = ("_carries", "_made", "_make", "_pick")

    def __init__(
        self, pick: Callable[[], grpc.Channel], make: Callable[[grpc.Channel], Any], method: str
    ) -> None:
        self._pick, self._make = pick, make
        self._carries = HAS_LEADER if method.startswith(NEEDS_LEADER) else ()
        self._made: tuple[Any, Any] = (None, None)

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        carried = (*(metadata or ()), *self._carries)
        return self._now()(request, timeout, carried, credentials, wait_for_ready, compression)

    def with_call(self, request: Any, *args: Any, metadata: Any = None, **options: Any) -> Any:
        carried = (*(metadata or ()), *self._carries)
        return self._now().with_call(request, *args, metadata=carried, **options)

    def future(self, request: Any, *args: Any, metadata: Any = None, **options: Any) -> Any:
        carried = (*(metadata or ()), *self._carries)
        return self._now().future(request, *args, metadata=carried, **options)

    def _now(self) -> Any:
        channel = self._pick()
        made = self._made
        if made[0] is not channel:
            made = self._made = (channel, self._make(channel))
        return made[1]
