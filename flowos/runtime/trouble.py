"""What keeps this process from its store: said once when it begins, and once when it is over.

One of these is shared by all that a process asks its store for. What fails again and again is
counted in silence; a failure in the first second after the end belongs to the same trouble.
"""

import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Final

from flowos.model.errors import (
    Forbidden,
    LoginRefused,
    OutcomeUnknown,
    StoreError,
    StoreFull,
    StoreUnreachable,
)

LOG = logging.getLogger("flowos")

WELL_SECONDS: Final = 1.0  # without any failure, and the trouble is over
SLOW_SECONDS: Final = 1.0  # etcd's own heartbeat is 0.1 s, its disk's warning 0.1 s, our limit 5 s
SLOW_STREAK: Final = 3  # answers in a row, so that one election is not taken for a slow store
TEXTS_MAX: Final = 100  # refusals that are remembered as said
PAUSE_SECONDS: Final = (0.05, 5.0)  # the first and the longest between two tries


class Kind(Enum):
    """What is wrong: what it means while it lasts, and how its end is said."""

    UNREACHABLE = (
        "what runs goes on, nothing is placed or freed until it answers: trying on",
        "the store answers again",
    )
    FULL = (
        "nothing is placed or freed until it takes writes again: trying on",
        "the store takes writes again",
    )
    LOGIN = ("trying on until it lets this process in", "the store lets this process in again")
    FORBIDDEN = ("trying on until the role allows it", "the store allows it again")
    SLOW = (
        "look at the disk and the load of its members (etcdctl endpoint status)",
        "the store answers in time again",
    )
    BEHIND = ("listing everything again", "in step with the store again")

    @property
    def meaning(self) -> str:
        """What follows from it, and the way out."""
        return self.value[0]

    @property
    def end(self) -> str:
        """How the end is said."""
        return self.value[1]


# These end with any answer; the others where that is granted which was refused.
SILENCE: Final = frozenset({Kind.UNREACHABLE, Kind.LOGIN})


def kind_of(error: BaseException) -> Kind | None:
    """Return what is wrong with the store; None = only this one request is not to its taste."""
    match error:
        case StoreFull():
            return Kind.FULL
        case LoginRefused():
            return Kind.LOGIN
        case Forbidden():
            return Kind.FORBIDDEN
        case StoreUnreachable() | OutcomeUnknown():
            return Kind.UNREACHABLE
        case _:
            return None


@dataclass(slots=True)
class _Bout:
    """One trouble from its beginning on."""

    since: float
    during: set[str]
    tries: int = 1
    well_since: float = inf


class Trouble:
    """What this process has to say of its store."""

    def __init__(self, say: Callable[[str], None] = LOG.warning) -> None:
        """Start without any; `say` takes a line for people, from any thread."""
        self._say = say
        self._bouts: dict[Kind, _Bout] = {}
        self._texts: set[str] = set()
        self._lock = threading.Lock()
        self._slow = False
        self._streak = 0

    @property
    def there_is(self) -> bool:
        """Whether there is any; cheap."""
        return bool(self._bouts)

    def failed(self, error: StoreError, now: float, during: str = "write") -> None:
        """Note that the store could not be used.

        Args:
            error: Why.
            now: Monotonic seconds.
            during: What was asked: "write", "read" or "lease".
        """
        kind = kind_of(error)
        if kind is not None:
            self._begin(kind, str(error), now, during)
            return
        with self._lock:
            new = str(error) not in self._texts and len(self._texts) < TEXTS_MAX
            self._texts.add(str(error))
        if new:
            self._say(str(error))

    def lost(self, why: str, now: float) -> None:
        """Note that what was followed is not known any more; over with a read that works."""
        self._begin(Kind.BEHIND, f"watch lost ({why})", now, "read")

    def worked(self, now: float, during: str = "write") -> None:
        """Note that the store did what was asked."""
        if not self._bouts:
            return
        with self._lock:
            for kind, bout in self._bouts.items():
                if kind in SILENCE:
                    bout.during.clear()
                bout.during.discard(during)
                if not bout.during and bout.well_since == inf:
                    bout.well_since = now
        self.passes(now)

    def took(self, seconds: float, now: float) -> None:
        """Note how long a commit took to be answered."""
        if (seconds > SLOW_SECONDS) == self._slow:
            self._streak = 0
            return
        self._streak += 1
        if self._streak < SLOW_STREAK:
            return
        self._slow, self._streak = not self._slow, 0
        if self._slow:
            text = f"the store needs {seconds:.1f} s for a commit, {SLOW_STREAK} times in a row"
            self._begin(Kind.SLOW, text, now, "speed")
        else:
            self.worked(now, "speed")

    def passes(self, now: float) -> None:
        """Say what is over by now."""
        ends: list[str] = []
        with self._lock:
            for kind, bout in list(self._bouts.items()):
                if now - bout.well_since >= WELL_SECONDS:
                    del self._bouts[kind]
                    tries = f", {bout.tries} tries" if bout.tries > 1 else ""
                    ends.append(f"{kind.end} after {bout.well_since - bout.since:.1f} s{tries}")
        for end in ends:
            self._say(end)

    def ends_at(self) -> float:
        """Return when `passes` has something to say, if nothing fails before."""
        with self._lock:
            return min((b.well_since for b in self._bouts.values()), default=inf) + WELL_SECONDS

    def __contains__(self, kind: Kind) -> bool:
        """Whether there is trouble of this kind now."""
        return kind in self._bouts

    def _begin(self, kind: Kind, text: str, now: float, during: str) -> None:
        with self._lock:
            bout = self._bouts.get(kind)
            if bout is not None:
                bout.tries += 1
                bout.during.add(during)
                bout.well_since = inf
                return
            self._bouts[kind] = _Bout(now, {during})
        self._say(f"{text}: {kind.meaning}")


class BackOff:
    """How long to wait before the next try: twice as long each time, and never two alike."""

    def __init__(self, dice: random.Random) -> None:
        """Start without a pause; `dice` spreads the tries of many processes."""
        self._dice = dice
        self._seconds = 0.0

    def failed(self) -> float:
        """Return the seconds to wait now."""
        first, longest = PAUSE_SECONDS
        self._seconds = min(longest, max(first, 2 * self._seconds))
        return self._seconds * self._dice.uniform(0.5, 1.0)

    def worked(self) -> None:
        """Begin with the shortest again."""
        self._seconds = 0.0
