"""Has a plug-in stopped answering, and what becomes of its slice and of its process then?

No thread can be ended from outside, so a process whose policy hangs has to begin anew; other
schedulers are other processes and go on. Before that, this one says which question was asked for
which slice, and writes it down as the reason why that slice waits, with how often it has happened:
all processes of the policy leave the slice aside for a while then, longer each time (`setaside`).
"""

import faulthandler
import logging
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import IO, Final, Self

from flowos.model import keys
from flowos.model.codec import decode
from flowos.model.errors import FlowosError, SpecError
from flowos.model.protocols import CellStore
from flowos.model.slice import Reason, Waiting
from flowos.model.view import CellView
from flowos.protocol.proposal import Draft, Fence
from flowos.runtime.guarded import Asked
from flowos.runtime.setaside import pause_after

LOG: Final = logging.getLogger("flowos")

DECISION_SECONDS: Final = 30.0  # a cell of 20,000 engines is planned in milliseconds
LOOK_SECONDS: Final = 0.2
LOOKS_MIN: Final = 4  # how often a question is looked at before it counts as one that hangs
LOOKS_EARLY: Final = 1  # after so many, others of the policy are told: they would help out at 1 s
HANDLE_EVERY: Final = 5  # looks
HELD_FACTOR: Final = 3  # of that time, and nothing at all runs: then the process is ended hard
TELL_TRIES: Final = 3


class Watchdog:
    """Looks at what a policy is thinking about, on a thread of its own, while the block lasts."""

    def __init__(
        self,
        store: CellStore,
        *,
        policy: str,
        scheduler: str,
        asked: Callable[[], Asked | None],
        fence: Callable[[], Fence],
        on_hung: Callable[[], None],
        seconds: float = DECISION_SECONDS,
    ) -> None:
        """Watch nothing yet.

        Args:
            store: Where the reason is written.
            policy: The policy's name.
            scheduler: Who says so, for people.
            asked: Returns what the policy is asked now.
            fence: The session's.
            on_hung: Called on the watchdog's thread, once, when all is said: begins anew.
            seconds: How long an answer may take.
        """
        self._store = store
        self._policy = policy
        self._scheduler = scheduler
        self._asked = asked
        self._fence = fence
        self._on_hung = on_hung
        self._seconds = seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        """Begin to watch."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop watching."""
        self._over.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        look_seconds = min(LOOK_SECONDS, self._seconds / LOOKS_MIN)
        most = round(self._seconds / look_seconds)
        known: Asked | None = None
        looks = since_held = 0
        hangs = 1
        while not self._over.wait(look_seconds):
            since_held -= 1
            if since_held <= 0:
                since_held = HANDLE_EVERY
                self._hold_the_handle()
            asked = self._asked()
            # Looks are counted, not seconds: a process that was stopped has not been thinking.
            looks = looks + 1 if asked is known and asked is not None else 0
            known = asked
            if asked is None:
                continue
            if looks == LOOKS_EARLY:
                hangs = 1 + self._hangs_of(asked.about)
                self._write(asked, hangs, "has not answered yet")
            if looks >= most:
                said = f"gave no answer for {self._seconds:g} s"
                LOG.error(
                    "policy %s hung in %s: %s for slice %s, which is left aside; beginning anew",
                    self._policy, asked.what, said, asked.about,
                )  # fmt: skip
                for _ in range(TELL_TRIES):
                    if self._write(asked, hangs, said):
                        break
                self._on_hung()
                return

    def _hold_the_handle(self) -> None:
        """Have the process ended if this thread does not come back: somebody keeps all others out.

        That is what a call does that does not let go of the interpreter. Then there is nobody to
        name the slice, but where it hangs is written to stderr.
        """
        if _has_file(sys.stderr):
            faulthandler.dump_traceback_later(HELD_FACTOR * self._seconds, exit=True)

    def _hangs_of(self, name: str) -> int:
        """Return how often in a row it has hung for a slice, by what the cell knows."""
        try:
            records = self._store.read([keys.reason(name)]).records
        except FlowosError:
            return 0
        return next((_hangs(r.value) for r in records if r.key == keys.reason(name)), 0)

    def _write(self, asked: Asked, hangs: int, said: str) -> bool:
        """Write the reason, if the slice still waits; return whether the store has answered."""
        name = asked.about
        sentence = (
            f"policy {self._policy} {said} in {asked.what}: it is asked about this slice again "
            f"after {pause_after(hangs):g} s"
        )
        wanted = (keys.slice_(name), keys.placement(name))
        try:
            known = {r.key: r for r in self._store.read(wanted).records if r.key in wanted}
            if keys.slice_(name) not in known or keys.placement(name) in known:
                return True
            draft = Draft(fence=self._fence())
            draft.seen(keys.slice_(name), known[keys.slice_(name)].modified)
            draft.seen(keys.placement(name), 0)
            draft.put(
                keys.reason(name),
                Waiting(Reason.SCHEDULER_DOWN, sentence, (), self._scheduler, hangs),
            )
            self._store.commit([draft.transaction(CellView())])
        except FlowosError as error:
            LOG.warning("the reason of %s could not be written: %s", name, error)
            return False
        return True


def _hangs(value: bytes) -> int:
    try:
        return decode(Waiting, value).hangs
    except SpecError:
        return 0


def _has_file(stream: IO[str] | None) -> bool:
    try:
        return stream is not None and stream.fileno() >= 0
    except (OSError, ValueError):
        return False
