"""Which figures there are, what each is measured by, and what it is to reach."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from commit_parts.cells import Bench
from commit_parts.direct import Side, direct, freed, gangs, scaled
from commit_parts.drain import Drained, Team, drain_once, engines_for, raw_placements, submit_all
from commit_parts.mirror import ENGINES, cold_start, events, make_history
from commit_parts.peers import Slurm
from commit_parts.queued import queued
from commit_parts.raw import Raw
from commit_parts.whole import ratio_of, two_switch_cell, whole_slices
from harness import Report

from flowos.model.cell import Cell

IN_FLIGHT = 16
HALF, BACKLOG, LARGE = "half", "backlog", "large"  # cells that figures may share in a quick run


@dataclass
class Run:
    """One run of the benchmark: what is asked for, and what is known so far.

    Attributes:
        quick: Whether it is to take less than a minute; then some figures share a cell.
        share: Of the placements that a release goes with: the rival's driver releases only once
            its window is full.
        profile: Where another process puts its profile.
        profiled: Which.
        slurm: The rival's figures.
        notes: Lines for people: what is behind the figures.
        etcd: The server's version.
    """

    quick: bool
    share: float
    profile: Path | None = None
    profiled: str = ""
    figures: Report = field(default_factory=lambda: Report("The speed of commits"))
    slurm: Slurm = field(default_factory=Slurm)
    notes: list[str] = field(default_factory=list)
    etcd: str = ""
    _shared: dict[str, Bench] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    @contextmanager
    def bench(self, cell: Cell | str, *, shared: str = "") -> Iterator[Bench]:
        """Yield a cell: a fresh one, or in a quick run one that other figures use too."""
        if shared and shared in self._shared:
            yield self._shared[shared]
            return
        bench = Bench(cell, profile=self.profile, profiled=self.profiled)
        if shared and self.quick:
            self.close()  # no more than one stays
            self._shared[shared] = self._stack.enter_context(bench)
            self.etcd = bench.etcd.version
            yield bench
        else:
            with bench:
                self.etcd = bench.etcd.version
                yield bench

    def close(self) -> None:
        """Stop what is shared."""
        self._shared.clear()
        self._stack.close()

    @property
    def rounds(self) -> int:
        """How often both sides take turns."""
        return 3 if self.quick else 5

    def note(self, text: str) -> None:
        """Keep a line for people."""
        self.notes.append(text)

    def side(self, name: str, side: Side) -> None:
        """Note what is behind a comparison."""
        for who, rounds in (
            ("ours", side.ours),
            ("raw", side.raw),
            ("raw alone", side.alone),
            ("beside others", side.busy),
        ):
            if rounds.rates:
                second = f", release {rounds.ms(0.5, rounds.second):.2f}" if rounds.second else ""
                self.note(
                    f"{name}: {who:<13} {rounds.rate:>6.0f}/s, p50 {rounds.ms(0.5):.2f} "
                    f"p99 {rounds.ms(0.99):.2f} ms{second}, client CPU {rounds.client_us:.0f} us "
                    f"a slice, rounds {' '.join(f'{rate:.0f}' for rate in rounds.rates)}"
                )


def run_gangs(run: Run) -> None:
    """Gangs of 64."""
    with run.bench("fat-tree:8000", shared=HALF) as bench:
        side = gangs(bench, rounds=run.rounds, slices=16 if run.quick else 50)
    run.side("gang64", side)
    add, rival = run.figures.add, run.slurm.gang64
    add("gang64", side.ours.rate, "1/s", baseline=rival, ratio_at_least=3)


def run_direct(run: Run) -> None:
    """A client with a scheduler of its own."""
    slices = 80 if run.quick else 600
    with run.bench("fat-tree:8000", shared=HALF) as bench:
        bench.start_freeing()
        before = bench.cpu_seconds()
        side = direct(bench, rounds=run.rounds, slices=slices, share=run.share)
        spent = {name: used - before[name] for name, used in bench.cpu_seconds().items()}
    run.side("direct_client", side)
    # Ours, the raw ones that are real too, and a window's worth to begin with.
    each = ", ".join(
        f"{name} {1e6 * used / (3 * run.rounds * slices + 900):.0f}" for name, used in spent.items()
    )
    run.note(f"direct_client: CPU of the others, us a slice about: {each}")
    add, rate = run.figures.add, side.ours.rate
    add("direct_client", rate, "1/s", baseline=side.raw.rate, ratio_at_least=0.7)
    add("direct_client_beside_others", side.busy.rate, "1/s", baseline=rate)
    add("direct_client_over_slurm", rate, "1/s", baseline=run.slurm.client, ratio_at_least=5)
    ack = side.ours.ms(0.5, side.ours.second)
    add("release_ack", ack, "ms", baseline=side.raw.ms(0.5), ratio_at_most=1.5)


def run_freed(run: Run) -> None:
    """How soon what is released is free."""
    with run.bench("fat-tree:8000", shared=HALF) as bench:
        side = freed(bench, rounds=2 if run.quick else 5, slices=15 if run.quick else 60)
    run.side("release_free", side)
    add, raw = run.figures.add, side.raw.ms(0.5)
    add("release_free", side.ours.ms(0.5), "ms", baseline=raw, ratio_at_most=6)


def run_queued(run: Run) -> None:
    """A client that goes through the queue."""
    slices = 50 if run.quick else 400
    with run.bench("fat-tree:8000", shared=HALF) as bench:
        side = queued(bench, rounds=run.rounds, slices=slices, share=run.share)
    run.side("queued_client", side)
    add, rate = run.figures.add, side.ours.rate
    add("queued_client", rate, "1/s", baseline=side.raw.rate, ratio_at_least=0.3)
    add("queued_client_over_slurm", rate, "1/s", baseline=run.slurm.client, ratio_at_least=2.5)
    spreads = [r.ms(0.99) / r.ms(0.5) for r in (side.ours, side.raw)]
    add("queued_p99_over_p50", spreads[0], "x", baseline=spreads[1], ratio_at_most=3)


def run_drain(run: Run) -> None:
    """One scheduler empties a full queue."""
    slices = 3_000 if run.quick else 20_000
    sample = 1_000 if run.quick else 5_000
    timings, drains = [], []
    for _ in range(1 if run.quick else 3):
        with run.bench(f"fat-tree:{engines_for(slices)}", shared=BACKLOG) as bench:
            submit_all(bench, slices, stem="b")
            steps = raw_placements(bench, sample)
            with closing(Raw(bench.etcd.endpoint)) as raw:
                timings.append(raw.in_flight(raw.copies(steps), IN_FLIGHT))
                drains.append(drain_once(bench, slices))
                bench.stop()
                timings.append(raw.in_flight(raw.copies(steps), IN_FLIGHT))
    baseline = sample / statistics.median(t.seconds for t in timings)
    cpu = statistics.median(t.cpu_seconds for t in timings)
    drained = sorted(drains, key=lambda d: d.from_start)[len(drains) // 2]
    run.note(
        f"drain: {drained.at_work:.0f}/s from the first placement on, scheduler CPU "
        f"{drained.cpu_us:.0f} us a slice (raw's client {1e6 * cpu / sample:.0f}), tenths "
        f"{' '.join(f'{rate:.0f}' for rate in drained.tenths)}"
    )
    add, rate = run.figures.add, drained.from_start
    add("drain", rate, "1/s", baseline=baseline, ratio_at_least=1.0)
    add("drain_over_slurm", rate, "1/s", baseline=run.slurm.drain, ratio_at_least=20)
    first, last = drained.tenths[0], drained.tenths[-1]
    add("last_tenth", last, "1/s", baseline=first, ratio_at_least=0.9)


def run_events(run: Run) -> None:
    """What a view follows."""
    slices = 2_000 if run.quick else 10_000
    with run.bench(f"fat-tree:{engines_for(slices)}", shared=BACKLOG) as bench:
        if not bench.store.read(["placement/"]).records:
            make_history(bench, slices)
        ours, bare = events(bench, rounds=run.rounds)
    run.figures.add("mirror_events", ours, "1/s", baseline=bare, at_least=20_000)


def run_cold(run: Run) -> None:
    """A scheduler's cold start on a large cell."""
    with run.bench(f"fat-tree:{ENGINES}", shared=LARGE) as bench:
        ours, raw = cold_start(bench, starts=1 if run.quick else 3)
    run.figures.add("mirror_step_seconds", ours, "s", baseline=raw, at_most=10)


def run_scale(run: Run) -> None:
    """Ten times as many nodes; in a quick run even 12.5 times, the cell of the cold start."""
    engines = ENGINES if run.quick else 80_000
    with (
        run.bench(f"fat-tree:{engines}", shared=LARGE) as large,
        run.bench("fat-tree:8000") as small,
    ):
        found = scaled(
            small,
            large,
            rounds=run.rounds,
            slices=60 if run.quick else 120,  # all on the half that is free
            share=run.share,
        )
    for nodes, rounds in ((1000, found[0]), (engines // 8, found[1])):
        run.note(
            f"scale: at {nodes:,} x 8 {rounds.rate:.0f}/s, p50 {rounds.ms(0.5):.2f} p99 "
            f"{rounds.ms(0.99):.2f} ms, client CPU {rounds.client_us:.0f} us a slice"
        )
    run.figures.add("scale", found[1].rate, "1/s", baseline=found[0].rate, ratio_at_least=0.77)


def run_whole(run: Run) -> None:
    """All that a slice can ask for."""
    with run.bench(two_switch_cell()) as bench:
        found = whole_slices(bench, rounds=run.rounds, slices=30 if run.quick else 80)
    whole, plain = found
    run.note(
        f"full_slice: median of the rounds' ratios {ratio_of(found):.2f}, client CPU "
        f"{whole.client_us:.0f} us a slice against {plain.client_us:.0f}"
    )
    run.figures.add("full_slice", whole.rate, "1/s", baseline=plain.rate, ratio_at_least=0.6)


def run_four(run: Run) -> None:
    """Four schedulers on one queue, also such as take 2 ms to decide."""
    found: dict[tuple[int, bool], list[Drained]] = defaultdict(list)
    backlog = {False: 600 if run.quick else 6_000, True: 200 if run.quick else 2_000}
    for _ in range(1 if run.quick else 3):
        with run.bench(f"fat-tree:{engines_for(2 * sum(backlog.values()))}") as bench:
            team = Team(bench)
            for size, slow in product((1, 4), (False, True)):
                team.grow(size)
                found[size, slow].append(team.drain(backlog[slow], slow=slow))
            bench.stop()
    best = {k: sorted(d, key=lambda x: x.from_start)[len(d) // 2] for k, d in found.items()}
    for (size, slow), drained in best.items():
        run.note(
            f"four_schedulers: {size}{' at 2 ms' if slow else ''} {drained.from_start:.0f}/s, "
            f"CPU of all {drained.cpu_us:.0f} us a slice, {drained.plans_per_placed:.2f} commits "
            "tried for each"
        )
    rates = {k: d.from_start for k, d in best.items()}
    add = run.figures.add
    base, slow_base = rates[1, False], rates[1, True]
    add("four_schedulers", rates[4, False], "1/s", baseline=base, ratio_at_least=0.8)
    add("four_schedulers_2ms", rates[4, True], "1/s", baseline=slow_base, ratio_at_least=2.5)
    add("plans_per_placed", best[4, False].plans_per_placed, "", at_most=1.10)


@dataclass(frozen=True)
class Part:
    """Figures that are measured together.

    Attributes:
        profiled: Which process is worth a profile; "" = this one.
    """

    names: tuple[str, ...]
    measure: Callable[[Run], None]
    profiled: str = ""


# In this order: those that share a cell come together.
PARTS = (
    Part(("gang64",), run_gangs),
    Part(("direct_client", "release_ack"), run_direct),
    Part(("release_free",), run_freed, "controller"),
    Part(("queued_client", "queued_p99_over_p50"), run_queued, "scheduler"),
    Part(("drain", "last_tenth"), run_drain, "scheduler"),
    Part(("mirror_events",), run_events),
    Part(("mirror_step_seconds",), run_cold, "scheduler"),
    Part(("scale",), run_scale),
    Part(("full_slice",), run_whole),
    Part(("four_schedulers", "four_schedulers_2ms", "plans_per_placed"), run_four, "scheduler"),
)
NAMES = [name for part in PARTS for name in part.names]
