"""What do a coordinator and its workers say to each other, and workers to workers?

Tasks are named by their number in the graph; an output by its task and port; a worker by the rank
of its engine in the slice. An epoch is one list of what everybody is to do: whatever is said of an
earlier one is void.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from flowos.flowlet.wire.values import Form

CLIENT: Final = -1  # the rank of the user's process

Output: TypeAlias = tuple[int, int]  # task, port


class Part(NamedTuple):
    """One task, as its worker needs to know it.

    Attributes:
        inputs: The outputs that go into it, by input port.
        outputs: How many it has.
        method: Which of its implementations runs.
        code: Which of the program's codes makes it.
        fields: What it was given, written down.
        functions: Codes of functions among these.
        limit_seconds: How long it may run; 0 = for ever.
        stream: Whether it works on chunks as they come.
        collected: The output ports that are also wanted whole.
        homes: Of a stream, by input port: the rank that its chunks come from; CLIENT = it is one
            value.
        readers: Of a stream, by output port: how many tasks read it in chunks.
    """

    number: int
    name: str
    inputs: tuple[Output, ...]
    outputs: int
    method: str
    code: str
    fields: bytes
    functions: tuple[str, ...] = ()
    limit_seconds: float = 0.0
    stream: bool = False
    collected: tuple[int, ...] = ()
    homes: tuple[int, ...] = ()
    readers: tuple[int, ...] = ()

    @property
    def whole(self) -> tuple[Output, ...]:
        """The inputs that come as one value each."""
        if not self.stream:
            return self.inputs
        return tuple(o for o, home in zip(self.inputs, self.homes, strict=True) if home == CLIENT)

    @property
    def ports(self) -> tuple[int, ...]:
        """The output ports that make a value each."""
        return self.collected if self.stream else tuple(range(self.outputs))


class Packet(NamedTuple):
    """A value on its way: in the message, in a segment, or as bytes that come right behind it.

    Attributes:
        size_bytes: How long it is.
        inline: Its bytes.
        segment: Its name.
        behind: Whether the bytes are the next that comes over the connection.
    """

    form: Form
    size_bytes: int
    inline: bytes | None = None
    segment: str = ""
    behind: bool = False


# -- coordinator to worker


class Program(NamedTuple):
    """All tasks of a worker, in all epochs to come, and whom it may meet.

    Attributes:
        peers: Rank -> (machine, address there, address from elsewhere).
        codes: Code -> what makes tasks of it.
        attempt: Of the slice: whose segments these are.
    """

    job: int
    parts: tuple[Part, ...]
    codes: Mapping[str, bytes]
    peers: Mapping[int, tuple[str, str, str]]
    attempt: str


class Go(NamedTuple):
    """What to do from now on.

    Attributes:
        run: Tasks, in an order that respects their flows.
        routes: Output -> the ranks it is to be sent to, as soon as it is there.
        results: Outputs to be sent to the coordinator.
        stays: Outputs to be kept, for later.
        fed: Tasks that do not run here: their outputs come from the coordinator.
    """

    job: int
    epoch: int
    run: tuple[int, ...]
    routes: Mapping[Output, tuple[int, ...]]
    results: frozenset[Output]
    stays: frozenset[Output]
    fed: frozenset[int] = frozenset()


class Feed(NamedTuple):
    """What a source gives."""

    job: int
    epoch: int
    task: int
    packet: Packet


class Recall(NamedTuple):
    """Begin nothing more, and say what you hold."""

    job: int
    epoch: int


class Drop(NamedTuple):
    """The job is over: forget all of it."""

    job: int


class Bye(NamedTuple):
    """End."""


# -- worker to coordinator


class Ready(NamedTuple):
    """A worker is there.

    Attributes:
        machine: Where it runs: workers of one machine share memory.
        local: Its address for these.
        remote: Its address for others.
        slain: What ran when its predecessor died: job, task and the signal, or none.
    """

    rank: int
    attempt: str
    pid: int
    machine: str
    local: str
    remote: str
    engine: str = ""
    slain: tuple[int, int, int] | None = None


class Done(NamedTuple):
    """Tasks have ended: number, monotonic second of the machine it began at, seconds it took."""

    job: int
    epoch: int
    tasks: tuple[tuple[int, float, float], ...]


class Result(NamedTuple):
    """An output that the user's process asked for."""

    job: int
    epoch: int
    output: Output
    packet: Packet


class Failed(NamedTuple):
    """A task cannot be done.

    Attributes:
        kind: raised | outputs | hung | memory | circuit | code | stream.
        message: In a sentence.
        traceback: The user's part of it, as Python prints it.
    """

    job: int
    epoch: int
    task: int
    kind: str
    message: str
    traceback: str = ""


class Arrived(NamedTuple):
    """Outputs of others have come that are to be kept for later."""

    job: int
    epoch: int
    outputs: tuple[Output, ...]


class Held(NamedTuple):
    """All that a worker holds, after a recall."""

    job: int
    epoch: int
    outputs: tuple[Output, ...]


# -- worker to worker


class Hello(NamedTuple):
    """Who calls; the first thing said over a connection."""

    rank: int


class Sent(NamedTuple):
    """An output, for whatever needs it there."""

    job: int
    epoch: int
    source: int
    output: Output
    packet: Packet


class Got(NamedTuple):
    """These outputs have arrived."""

    job: int
    epoch: int
    source: int
    outputs: tuple[Output, ...]


class Freed(NamedTuple):
    """These outputs are not needed there any more."""

    job: int
    epoch: int
    source: int
    outputs: tuple[Output, ...]


Message: TypeAlias = Any  # one of the above; each connection carries its own few
