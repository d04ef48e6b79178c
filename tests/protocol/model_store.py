"""What do all parts of the protocol's model share? A store of revisions, and ways to explore.

A model is an object with `start()`, `next(state)` yielding (label, state), `check(state)` raising
`Broken`, and `clean(state)`. States are tuples, so that they can be kept in sets. In them every
int is a revision, and nothing else is: amounts are floats.
"""

import random
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

State = Any
Records = Mapping[Any, Any]  # key -> (value, create_revision, mod_revision)


class Broken(Exception):
    """A state, or a step, that no cell may ever be in or make."""


class Model(Protocol):
    """Something to explore."""

    def start(self) -> State: ...
    def next(self, state: State) -> Iterator[tuple[str, State]]: ...
    def check(self, state: State) -> None: ...
    def clean(self, state: State) -> bool: ...


def holds(records: Records, compares: Iterable[tuple[Any, str, int]]) -> bool:
    """Whether compares hold: (key, "create" or "mod", revision), or (prefix, "below", revision).

    "below": no key under the prefix was put after that revision; 0 = there is none.
    """
    for key, what, revision in compares:
        if what == "below":
            if any(k[: len(key)] == key and v[2] > revision for k, v in records.items()):
                return False
        elif records.get(key, (None, 0, 0))[1 if what == "create" else 2] != revision:
            return False
    return True


def apply(
    records: Records, revision: int, members: Iterable[Any]
) -> tuple[dict[Any, Any], int, list[bool]]:
    """Apply one request of nested members, each (compares, operations).

    All compares see the state before the request.

    Returns:
        Records, revision, and whether each member happened.
    """
    members = list(members)
    verdicts = [holds(records, compares) for compares, _ in members]
    after = dict(records)
    if not any(ok and ops for ok, (_, ops) in zip(verdicts, members, strict=True)):
        return after, revision, verdicts
    revision += 1
    for ok, (_, operations) in zip(verdicts, members, strict=True):
        for operation in operations if ok else ():
            key = operation[1]
            if operation[0] == "delete":
                after.pop(key, None)
            else:
                after[key] = (operation[2], after[key][1] if key in after else revision, revision)
    return after, revision, verdicts


def ranked(state: State) -> State:
    """Replace revisions by their ranks: states that differ only in numbers are one."""
    seen: set[int] = set()

    def collect(part: Any) -> None:
        kind = type(part)
        if kind is int:
            seen.add(part)
        elif kind is tuple:
            for inner in part:
                collect(inner)

    collect(state)
    seen.discard(0)
    rank = {revision: i + 1 for i, revision in enumerate(sorted(seen))}
    rank[0] = 0
    if len(rank) - 1 == max(rank):
        return state

    def replaced(part: Any) -> Any:
        kind = type(part)
        if kind is int:
            return rank[part]
        return tuple([replaced(inner) for inner in part]) if kind is tuple else part

    return replaced(state)


class Found(NamedTuple):
    """What exploring a model has shown; `what` is empty where all is well."""

    states: int
    what: str = ""
    trace: tuple[str, ...] = ()


def explore(model: Model) -> Found:
    """Visit every state, breadth first: none may be broken, and each must lead to a clean one."""
    first = model.start()
    parent: dict[State, tuple[State, str] | None] = {first: None}
    queue, back, ends = deque([first]), dict[State, list[State]](), list[State]()

    def trace(state: State, last: str) -> tuple[str, ...]:
        labels = [last]
        while (before := parent[state]) is not None:
            state, label = before
            labels.append(label)
        return tuple(reversed(labels))

    while queue:
        state = queue.popleft()
        if model.clean(state):
            ends.append(state)
        label = "?"
        try:
            for label, after in model.next(state):
                back.setdefault(after, []).append(state)
                if after not in parent:
                    parent[after] = (state, label)
                    queue.append(after)
                    model.check(after)
        except Broken as broken:
            return Found(len(parent), str(broken), trace(state, label))
    good = set(ends)
    queue = deque(ends)
    while queue:
        for before in back.get(queue.popleft(), ()):
            if before not in good:
                good.add(before)
                queue.append(before)
    for state in parent:
        if state not in good:
            what = "no clean end can be reached"
            return Found(len(parent), what, trace(state, "and from here on"))
    return Found(len(parent))


def wander(model: Model, *, seconds: float, steps: int, seed: int) -> Found:
    """Walk at random for some seconds."""
    choice = random.Random(seed).choice
    end, total = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        state, trace = model.start(), list[str]()
        for _ in range(steps):
            try:
                after = list(model.next(state))
                if not after:
                    break
                label, state = choice(after)
                trace.append(label)
                total += 1
                model.check(state)
            except Broken as broken:
                return Found(total, str(broken), tuple(trace))
    return Found(total)
