"""What becomes of requests, answers and watches between a process and its store, by a seed.

A `Site` is the store with its bad moments. A `Wire` is one process's way to it: requests get lost
before the store or after it, or land long after their sender gave up. A `WireWatch` tells as a
real one does: each prefix on its own, late, and torn off in between.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from flowos.model.errors import (
    FlowosError,
    LoginRefused,
    OutcomeUnknown,
    StoreError,
    StoreFull,
    StoreUnreachable,
)
from flowos.model.protocols import CellStore, Maintenance, Watch
from flowos.model.transaction import (
    Changes,
    Lost,
    Outcome,
    Progress,
    Put,
    Transaction,
    WatchMessage,
)
from flowos.runtime.requests import Request, Write
from flowos.simulation.timeline import Leases, Timeline

PATIENCE_SECONDS: Final = 5.0  # the longest that a sender waits for an answer

# What is asked, when it was sent, what its sender was told, and when.
Noted: TypeAlias = Callable[
    [Sequence[Transaction], float, Sequence[Outcome] | StoreError, float], None
]


class SimStore(CellStore, Maintenance, Leases, Protocol):
    """The store behind it all, on the virtual clock."""

    @property
    def revision(self) -> int:
        """The newest."""

    def fits(self, transactions: Sequence[Transaction]) -> bool:
        """Whether these transactions go into one request."""


@dataclass(frozen=True, slots=True)
class Mishaps:
    """How often what goes wrong: chances of each request or message, 0..1."""

    dropped: float = 0.0  # the request never arrives
    unanswered: float = 0.0  # it lands, and its answer is lost
    late: float = 0.0  # it lands after its sender gave up
    torn: float = 0.0  # a watch's stream, at a message
    slow: float = 0.0  # a request or message that takes up to a second
    deaf: float = 0.0  # a question for progress without an answer
    killed: float = 0.0  # a process, at an instruction


class Site:
    """The store, and whether it is there, full, or lets anybody in.

    Attributes:
        calm: Nothing goes wrong any more.
    """

    def __init__(
        self,
        store: SimStore,
        timeline: Timeline,
        dice: random.Random,
        mishaps: Mishaps,
        noted: Noted,
    ) -> None:
        """Start with a store that is there."""
        self.store = store
        self.timeline = timeline
        self.dice = dice
        self.mishaps = mishaps
        self.noted = noted
        self.calm = False
        self.watches: list[WireWatch] = []
        self._away_until = 0.0
        self._full_until = 0.0
        self._locked_until = 0.0

    # -- its bad moments

    def go_away(self, seconds: float) -> None:
        """Be out of reach; every stream is torn."""
        self._away_until = max(self._away_until, self.timeline.now + seconds)
        for watch in list(self.watches):
            watch.tear()

    def fill_up(self, seconds: float) -> None:
        """Take no more writes for a while."""
        self._full_until = max(self._full_until, self.timeline.now + seconds)

    def lock(self, seconds: float) -> None:
        """Know nobody's password for a while."""
        self._locked_until = max(self._locked_until, self.timeline.now + seconds)

    def calm_down(self) -> None:
        """Let nothing go wrong from now on."""
        self.calm = True
        self._away_until = self._full_until = self._locked_until = 0.0

    @property
    def away(self) -> bool:
        """Whether nobody answers."""
        return self.timeline.now < self._away_until

    def chance(self, of: float) -> bool:
        """Draw whether something goes wrong."""
        return not self.calm and self.dice.random() < of

    def takes(self) -> float:
        """Draw how long a message is on its way."""
        if self.chance(self.mishaps.slow):
            return self.dice.uniform(0.01, 1.0)
        return self.dice.uniform(0.0002, 0.003)

    def works(self, request: Request) -> float:
        """Return for how long a request that has arrived waits and is worked on: here not at all."""
        return 0.0

    def patience(self) -> float:
        """Draw how long a sender waits for an answer that does not come."""
        return self.dice.uniform(0.005, self.dice.choice((0.1, 0.5, PATIENCE_SECONDS)))

    def do(self, request: Request) -> Any:  # any of the requests' answers
        """Carry out a request that has arrived; return the answer or the error."""
        try:
            if self.timeline.now < self._locked_until:
                raise LoginRefused("the store does not know this user")
            if self.timeline.now < self._full_until and _puts(request):
                raise StoreFull("the store's database is full")
            return request.ask(self.store)
        except FlowosError as error:
            return error


def _puts(request: Request) -> bool:
    return isinstance(request, Write) and any(
        isinstance(operation, Put) for t in request.transactions for operation in t.operations
    )


class Wire:
    """One process's way to the store."""

    def __init__(self, site: Site) -> None:
        """Lead to a site."""
        self._site = site

    def ask(self, request: Request, told: Callable[[Any], None]) -> None:
        """Send a request; `told` is called with the answer, or the error, when the sender has it."""
        site, timeline = self._site, self._site.timeline
        sent_at = timeline.now

        def tell(answer: Any) -> None:
            if isinstance(request, Write):
                site.noted(request.transactions, sent_at, answer, timeline.now)
            told(answer)

        def give_up() -> None:
            write = isinstance(request, Write)
            tell(OutcomeUnknown("no answer") if write else StoreUnreachable("no answer"))

        def arrive() -> None:
            if seconds := site.works(request):
                timeline.after(seconds, served)
            else:
                served()

        def served() -> None:
            if site.away:
                timeline.after(site.takes(), give_up)
                return
            answer = site.do(request)
            if site.chance(site.mishaps.unanswered):
                timeline.after(site.patience(), give_up)
                return
            timeline.after(site.takes(), lambda: give_up() if site.away else tell(answer))

        if site.away and site.dice.random() < 0.7:
            timeline.after(site.takes(), lambda: tell(StoreUnreachable("nobody there")))
        elif site.chance(site.mishaps.dropped):
            timeline.after(site.patience(), give_up)
        elif site.chance(site.mishaps.late):
            patience = site.patience()
            timeline.after(patience, give_up)
            delay = patience + site.dice.choice((0.1, 1.0, 6.0)) * site.dice.random()
            timeline.after(delay, lambda: site.do(request))
        else:
            timeline.after(site.takes(), arrive)


class WireWatch:
    """A subscription over a stream that can be torn: it goes on from what was delivered."""

    def __init__(
        self,
        site: Site,
        prefixes: Sequence[str],
        *,
        after: int,
        deliver: Callable[[WatchMessage], None],
    ) -> None:
        """Start to follow."""
        self._site = site
        self._deliver = deliver
        self._delivered = dict.fromkeys(prefixes, after)
        self._arrives = dict.fromkeys(prefixes, 0.0)  # when the newest message under way arrives
        self._stream = self._last_stream = 0
        self._sources: list[Watch] = []
        self._asked = False
        self._over = False
        self._lingers = False  # a delivery is under way while it is closed
        site.watches.append(self)
        self._open()

    def ask_progress(self) -> None:
        """Ask for a `Progress` message; it comes after every change that precedes it."""
        self._asked = True
        stream, site = self._stream, self._site
        if self._sources and not site.chance(site.mishaps.deaf):
            site.timeline.after(site.takes(), lambda: self._answer(stream))

    def tear(self) -> None:
        """Lose the stream, with all that is on its way; another one goes on later."""
        if self._over:
            return
        self._cut()
        site, stream = self._site, self._stream
        site.timeline.after(site.dice.uniform(0.01, 1.0), lambda: self._reopen(stream))

    def close(self) -> None:
        """End it; one message may be just on its way through."""
        if not self._over:
            self._lingers = self._site.chance(self._site.mishaps.deaf)
            self._last_stream = self._stream
        self._over = True
        self._cut()
        if self in self._site.watches:
            self._site.watches.remove(self)

    def resumes_after(self, prefix: str) -> int:
        """Return the revision up to which everything under a prefix was delivered."""
        return self._delivered[prefix]

    def _cut(self) -> None:
        self._stream += 1
        for source in self._sources:
            source.close()
        self._sources.clear()

    def _reopen(self, stream: int) -> None:
        if self._over or stream != self._stream:
            return
        if self._site.away:
            self.tear()
            return
        self._open()
        if self._asked:
            self.ask_progress()

    def _open(self) -> None:
        stream = self._stream
        self._arrives = dict.fromkeys(self._arrives, self._site.timeline.now)
        for prefix in self._delivered:

            def heard(message: WatchMessage, prefix: str = prefix) -> None:
                self._send(stream, prefix, message)

            after = self.resumes_after(prefix)
            self._sources.append(self._site.store.watch([prefix], after=after, deliver=heard))

    def _send(self, stream: int, prefix: str, message: WatchMessage) -> None:
        """Put a message on its way; those of one prefix keep their order."""
        site = self._site
        arrives = max(self._arrives[prefix], site.timeline.now + site.takes())
        self._arrives[prefix] = arrives
        site.timeline.at(arrives, lambda: self._arrive(stream, prefix, message))

    def _arrive(self, stream: int, prefix: str, message: WatchMessage) -> None:
        if self._lingers and stream == self._last_stream:
            self._lingers = False
            self._deliver(message)
            return
        if stream != self._stream or self._over:
            return
        if self._site.chance(self._site.mishaps.torn):
            self.tear()
            return
        if isinstance(message, Changes):
            self._delivered[prefix] = message.changes[-1].modified
        elif isinstance(message, Lost):
            self.close()
        self._deliver(message)

    def _answer(self, stream: int) -> None:
        """The store says how far it is; that comes after all that it has said before."""
        if stream != self._stream or self._over or self._site.away:
            return
        site, revision = self._site, self._site.store.revision
        arrives = max(*self._arrives.values(), site.timeline.now + site.takes())
        for prefix in self._arrives:
            self._arrives[prefix] = arrives
        site.timeline.at(arrives, lambda: self._progress(stream, revision))

    def _progress(self, stream: int, revision: int) -> None:
        if stream != self._stream or self._over:
            return
        self._asked = False
        for prefix, delivered in self._delivered.items():
            self._delivered[prefix] = max(delivered, revision)
        self._deliver(Progress(revision))
