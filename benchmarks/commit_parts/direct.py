"""A client with a scheduler of its own: what one slice costs from the call to the answer."""

import statistics
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

from commit_parts.cells import Bench, Mix, Spent, fill, fill_in_bulk, half_full, quantile
from commit_parts.profiled import Profiled
from commit_parts.raw import Raw, Timing, check_encoding, encoded, planned, released
from commit_parts.waiter import Waiter

from flowos.model import keys
from flowos.model.placement import Unplaceable
from flowos.model.slice import SliceSpec
from flowos.runtime.embedded import EmbeddedScheduler
from flowos_store import EtcdStore

WARM = 20


@dataclass
class Rounds:
    """What the rounds of one side came to.

    Attributes:
        rates: Slices a second, one for each round.
        cpu_us: Microseconds of the client's CPU for a slice, one for each round.
        first: Seconds of each placement's call.
        second: Seconds of each release's call.
    """

    rates: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    second: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.rates)

    @property
    def client_us(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.cpu_us)

    def ms(self, at: float, samples: list[float] | None = None) -> float:
        """A quantile of the placements' times, or of others, in milliseconds."""
        return 1000 * quantile(self.first if samples is None else samples, at)

    def add(self, slices: int, spent: "Spent | Timing") -> None:
        """Add a round."""
        self.rates.append(slices / spent.seconds)
        self.cpu_us.append(1e6 * spent.cpu_seconds / slices)


@dataclass
class Side:
    """Both sides of a comparison."""

    ours: Rounds = field(default_factory=Rounds)
    raw: Rounds = field(default_factory=Rounds)
    alone: Rounds = field(default_factory=Rounds)  # raw, of copies that nobody watches
    busy: Rounds = field(default_factory=Rounds)  # ours, while others build and free


class Window:
    """Live slices of one client; as new ones are placed beyond it, the oldest are released."""

    def __init__(self, bench: Bench, live: list[str]) -> None:
        """Take slices that are placed."""
        self._bench = bench
        self.live = deque(live)
        self.size = len(live)

    def churn(
        self, scheduler: EmbeddedScheduler, specs: list[SliceSpec], releases: int, into: Rounds
    ) -> None:
        """Place each, and release the oldest beside each of the last `releases`; a call for each."""
        without = len(specs) - releases
        with Spent() as spent:
            for number, spec in enumerate(specs):
                before = time.perf_counter()
                (placed,) = scheduler.place([spec])
                into.first.append(time.perf_counter() - before)
                if isinstance(placed, Unplaceable):
                    raise SystemExit(f"{spec.id}: {placed.sentence}")
                self.live.append(spec.id)
                if number >= without:
                    before = time.perf_counter()
                    scheduler.release([self.live.popleft()])
                    into.second.append(time.perf_counter() - before)
        into.add(len(specs), spent)
        self.shrink(scheduler)

    def churn_raw(
        self,
        scheduler: EmbeddedScheduler,
        raw: Raw,
        specs: list[SliceSpec],
        releases: int,
        into: Rounds,
    ) -> None:
        """Do the same by transactions that were built beforehand; the cell must be settled."""
        in_step(scheduler)
        slices = {r.key: r.modified for r in self._bench.store.read(["slice/"]).records}
        without = len(specs) - releases
        requests = []
        places = []
        for number, spec in enumerate(specs):
            places.append(len(requests))
            requests.append(encoded(planned(scheduler, spec).transaction))
            self.live.append(spec.id)
            if number >= without:
                oldest = self.live.popleft()
                step = released(scheduler, oldest, slices[keys.slice_(oldest)])
                requests.append(encoded(step.transaction))
        timing = raw.one_in_flight(requests)
        into.add(len(specs), timing)
        into.first += [timing.samples[at] for at in places]
        into.second += [s for at, s in enumerate(timing.samples) if at not in set(places)]
        in_step(scheduler)
        self.shrink(scheduler)

    def shrink(self, scheduler: EmbeddedScheduler) -> None:
        """Release what is over the window's size, in one call."""
        scheduler.release([self.live.popleft() for _ in range(len(self.live) - self.size)])


def direct(bench: Bench, *, rounds: int, slices: int, share: float) -> Side:
    """Place and release in a half full cell of 1,000 x 8.

    A round is `slices` calls of `place([spec])`; beside each of the last `share` of them is a call
    that releases the oldest slice. The rate is that of the placements, by the wall time of all
    these calls: the mix of the rival's driver, which ends jobs only once its window is full. What
    a round has placed beyond the window is released after it, and all is free before the next.

    A controller and an agent, each a process of its own, build what was placed and free what was
    released between the rounds. They stand for other machines' processors, so they pause in the
    rounds themselves; `busy` is a round in which they are at work on the same cores.

    The raw side sends the same placements and releases to the same cell; `alone` sends copies of
    placements that nobody watches.
    """
    side = Side()
    with ExitStack() as stack:
        raw = stack.enter_context(closing(Raw(bench.etcd.endpoint)))
        bench.start_freeing()
        scheduler = stack.enter_context(bench.scheduler("direct"))
        check_encoding(scheduler, bench.etcd.endpoint)
        mix = Mix(seed=2, stem="d")
        window = Window(bench, half_full(bench, scheduler, mix))
        for turn in range(rounds + 1):
            measured = side if turn else Side()  # the first, small one warms up
            number = slices if turn else WARM
            releases = round(share * number)
            bench.settle()
            with Profiled(on=bool(turn)), bench.elsewhere():
                window.churn(scheduler, mix.take(number), releases, measured.ours)
            bench.settle()
            with bench.elsewhere():
                window.churn_raw(scheduler, raw, mix.take(number), releases, measured.raw)
            bench.settle()
            window.churn(scheduler, mix.take(number), releases, measured.busy)
            bench.settle()
            alone(scheduler, raw, mix.take(number), measured.alone)
    return side


def alone(scheduler: EmbeddedScheduler, raw: Raw, specs: Sequence[SliceSpec], into: Rounds) -> None:
    """Send copies of placements that nobody watches, one after the other."""
    in_step(scheduler)
    steps = [planned(scheduler, spec) for spec in specs]
    timing = raw.one_in_flight(raw.copies([step.transaction for step in steps]))
    for step in steps:
        scheduler.view.retract(step.identifier)
    into.add(len(specs), timing)
    into.first += timing.samples


def freed(bench: Bench, *, rounds: int, slices: int) -> Side:
    """Release a slice and wait until another client sees its units free: its placement is gone.

    One at a time, in a half full cell of 1,000 x 8; the agent's simulated steps take no time. The
    raw side sends placements, one at a time, on copies that nobody watches.
    """
    side = Side()
    with ExitStack() as stack:
        raw = stack.enter_context(closing(Raw(bench.etcd.endpoint)))
        bench.start_freeing()
        scheduler = stack.enter_context(bench.scheduler("direct"))
        mix = Mix(seed=4, stem="f")
        live = deque(half_full(bench, scheduler, mix))
        other = stack.enter_context(closing(EtcdStore([bench.etcd.endpoint])))
        waiter = Waiter(other)
        bench.settle()
        for turn in range(rounds + 1):
            measured = side if turn else Side()
            with Spent() as spent:
                for _ in range(slices):
                    name = live.popleft()
                    before = time.perf_counter()
                    scheduler.release([name])
                    waiter.gone(name)
                    measured.ours.first.append(time.perf_counter() - before)
            measured.ours.add(slices, spent)
            alone(scheduler, raw, mix.take(slices), measured.raw)
    return side


def gangs(bench: Bench, *, rounds: int, slices: int) -> Side:
    """Place gangs of 64 engines on 8 nodes, nearly empty, with a window of 10 live ones.

    As in `direct`, with a release beside each placement, which is the rival's mix here. The cell
    is 1,000 x 8, and empty again afterwards.
    """
    side = Side()
    with ExitStack() as stack:
        raw = stack.enter_context(closing(Raw(bench.etcd.endpoint)))
        bench.start_freeing()
        scheduler = stack.enter_context(bench.scheduler("direct"))
        mix = Mix(seed=7, stem="l")
        window = Window(bench, fill(scheduler, mix, 640, gang=64))
        for turn in range(rounds + 1):
            measured = side if turn else Side()
            number = slices if turn else 3
            bench.settle()
            specs = [mix.of(64) for _ in range(number)]
            with Profiled(on=bool(turn)), bench.elsewhere():
                window.churn(scheduler, specs, number, measured.ours)
            bench.settle()
            specs = [mix.of(64) for _ in range(number)]
            with bench.elsewhere():
                window.churn_raw(scheduler, raw, specs, number, measured.raw)
        nodes = {len(p.ordered) for p in bench.placements().values() if p.held}
        assert nodes == {8}, nodes
        bench.settle()
        scheduler.release(list(window.live))
        bench.settle()
    return side


def scaled(
    small: Bench, large: Bench, *, rounds: int, slices: int, share: float
) -> tuple[Rounds, Rounds]:
    """Return the rounds of `direct` in a small and a large cell, half full, nobody else at work.

    What is released is not freed here: the cells have more than enough room for what is placed.

    Args:
        small: 1,000 x 8.
        large: Ten times as much, or more.
        rounds: How many, in turns.
        slices: Of each round.
        share: Of them that a release goes with.
    """
    found = (Rounds(), Rounds())
    with ExitStack() as stack:
        sides = []
        for bench in (small, large):
            window = Window(bench, fill_in_bulk(bench))
            scheduler = stack.enter_context(bench.scheduler("direct"))
            mix = Mix(seed=8, stem="s")
            window.churn(scheduler, mix.take(WARM), WARM // 2, Rounds())
            sides.append((window, scheduler, mix))
        for _ in range(rounds):
            for (window, scheduler, mix), into in zip(sides, found, strict=True):
                with Profiled(on=into is found[1]):
                    window.churn(scheduler, mix.take(slices), round(share * slices), into)
    return found


def in_step(scheduler: EmbeddedScheduler) -> None:
    """Let a scheduler take in what its watch has brought: it does so before it plans."""
    impossible = Mix(stem="none").of(10**6)
    time.sleep(0.05)
    (said,) = scheduler.place([impossible])
    assert isinstance(said, Unplaceable)
