"""Which figures there are, what each is measured by, and what it is to reach."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from commit_parts.cells import Bench
from commit_parts.direct import Side, direct, freed, gangs, scaled
from commit_parts.drain import Drained, drain_by, drain_once, engines_for, raw_placements
from commit_parts.mirror import cold_start, events
from commit_parts.peers import Slurm
from commit_parts.queued import queued
from commit_parts.raw import Raw
from commit_parts.whole import ratio_of, whole_slices
from harness import Report


@dataclass
class Run:
    """One run of the benchmark: what is asked for, and what is known so far.

    Attributes:
        quick: Whether it is to take less than a minute.
        share: Of the placements that a release goes with: the rival's driver releases only once
            its window is full.
        profile: Where another process puts its profile.
        slurm: The rival's figures.
        notes: Lines for people: what is behind the figures.
        etcd: The server's version.
    """

    quick: bool
    share: float
    profile: Path | None = None
    figures: Report = field(default_factory=lambda: Report("The speed of commits"))
    slurm: Slurm = field(default_factory=Slurm)
    notes: list[str] = field(default_factory=list)
    etcd: str = ""

    @property
    def rounds(self) -> int:
        """How often both sides take turns."""
        return 3 if self.quick else 5

    def note(self, text: str) -> None:
        """Keep a line for people."""
        self.notes.append(text)

    def side(self, name: str, side: Side) -> None:
        """Note what is behind a comparison."""
        for who, rounds in (("ours", side.ours), ("raw", side.raw), ("raw alone", side.alone)):
            if rounds.rates:
                second = f", release {rounds.ms(0.5, rounds.second):.2f}" if rounds.second else ""
                self.note(
                    f"{name}: {who:<9} {rounds.rate:>6.0f}/s, p50 {rounds.ms(0.5):.2f} "
                    f"p99 {rounds.ms(0.99):.2f} ms{second}, client CPU {rounds.client_us:.0f} us "
                    f"a slice, rounds {' '.join(f'{rate:.0f}' for rate in rounds.rates)}"
                )


def run_direct(run: Run) -> None:
    """A client with a scheduler of its own."""
    side = direct(rounds=run.rounds, slices=150 if run.quick else 600, share=run.share)
    run.side("direct_client", side)
    add, rate = run.figures.add, side.ours.rate
    add("direct_client", rate, "1/s", baseline=side.raw.rate, ratio_at_least=0.7)
    add("direct_client_over_slurm", rate, "1/s", baseline=run.slurm.client, ratio_at_least=5)
    ack = side.ours.ms(0.5, side.ours.second)
    add("release_ack", ack, "ms", baseline=side.raw.ms(0.5), ratio_at_most=1.5)


def run_freed(run: Run) -> None:
    """How soon what is released is free."""
    side = freed(rounds=2 if run.quick else 5, slices=15 if run.quick else 60)
    run.side("release_free", side)
    add, raw = run.figures.add, side.raw.ms(0.5)
    add("release_free", side.ours.ms(0.5), "ms", baseline=raw, ratio_at_most=6)


def run_queued(run: Run) -> None:
    """A client that goes through the queue."""
    slices = 80 if run.quick else 400
    side = queued(rounds=run.rounds, slices=slices, share=run.share, profile=run.profile)
    run.side("queued_client", side)
    add, rate = run.figures.add, side.ours.rate
    add("queued_client", rate, "1/s", baseline=side.raw.rate, ratio_at_least=0.3)
    add("queued_client_over_slurm", rate, "1/s", baseline=run.slurm.client, ratio_at_least=2.5)
    spreads = [r.ms(0.99) / r.ms(0.5) for r in (side.ours, side.raw)]
    add("queued_p99_over_p50", spreads[0], "x", baseline=spreads[1], ratio_at_most=3)


def run_drain(run: Run) -> None:
    """One scheduler empties a full queue."""
    slices = 5_000 if run.quick else 20_000
    sample = 1_500 if run.quick else 5_000
    timings, drains = [], []
    with Bench(f"fat-tree:{engines_for(sample)}") as bench:
        run.etcd = bench.etcd.version
        raw = Raw(bench.etcd.endpoint)
        steps = raw_placements(bench, sample)
        for _ in range(1 if run.quick else 3):
            timings.append(raw.in_flight(raw.copies(steps), 16))
            with Bench(f"fat-tree:{engines_for(slices)}", profile=run.profile) as full:
                drains.append(drain_once(full, slices, profiled=True))
                full.stop()
            timings.append(raw.in_flight(raw.copies(steps), 16))
        raw.close()
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


def run_scale(run: Run) -> None:
    """Ten times as many nodes."""
    small, large = scaled(
        rounds=run.rounds,
        slices=100 if run.quick else 400,
        share=run.share,
        fill_by=64 if run.quick else 0,
    )
    for name, rounds in (("1,000", small), ("10,000", large)):
        run.note(
            f"scale: at {name} x 8 {rounds.rate:.0f}/s, p50 {rounds.ms(0.5):.2f} p99 "
            f"{rounds.ms(0.99):.2f} ms, client CPU {rounds.client_us:.0f} us a slice"
        )
    run.figures.add("scale", large.rate, "1/s", baseline=small.rate, ratio_at_least=0.77)


def run_gangs(run: Run) -> None:
    """Gangs of 64."""
    side = gangs(rounds=run.rounds, slices=25 if run.quick else 100)
    run.side("gang64", side)
    add, rival = run.figures.add, run.slurm.gang64
    add("gang64", side.ours.rate, "1/s", baseline=rival, ratio_at_least=3)


def run_whole(run: Run) -> None:
    """All that a slice can ask for."""
    found = whole_slices(rounds=run.rounds, slices=30 if run.quick else 80)
    whole, plain = found
    run.note(
        f"full_slice: median of the rounds' ratios {ratio_of(found):.2f}, client CPU "
        f"{whole.client_us:.0f} us a slice against {plain.client_us:.0f}"
    )
    run.figures.add("full_slice", whole.rate, "1/s", baseline=plain.rate, ratio_at_least=0.6)


def run_four(run: Run) -> None:
    """Four schedulers on one queue."""
    one, four = _one_and_four(1_500 if run.quick else 6_000, 0.0, run)
    add = run.figures.add
    add("four_schedulers", four.from_start, "1/s", baseline=one.from_start, ratio_at_least=0.8)
    add("plans_per_placed", four.plans_per_placed, "", at_most=1.10)


def run_four_slow(run: Run) -> None:
    """Four schedulers that take 2 ms to decide."""
    one, four = _one_and_four(400 if run.quick else 2_000, 2.0, run)
    add = run.figures.add
    add("four_schedulers_2ms", four.from_start, "1/s", baseline=one.from_start, ratio_at_least=2.5)


def _one_and_four(slices: int, decision_ms: float, run: Run) -> tuple[Drained, Drained]:
    found: tuple[list[Drained], list[Drained]] = ([], [])
    for _ in range(1 if run.quick else 3):
        for processes, drains in zip((1, 4), found, strict=True):
            with Bench(f"fat-tree:{engines_for(slices)}") as bench:
                drains.append(drain_by(bench, slices, processes, decision_ms=decision_ms))
                bench.stop()
    one, four = (sorted(d, key=lambda x: x.from_start)[len(d) // 2] for d in found)
    name = "four_schedulers" + (f" at {decision_ms:g} ms" if decision_ms else "")
    for number, drained in ((1, one), (4, four)):
        run.note(
            f"{name}: {number} at {drained.from_start:.0f}/s, CPU of all {drained.cpu_us:.0f} us "
            f"a slice, {drained.plans_per_placed:.2f} commits tried for each"
        )
    return one, four


def run_cold(run: Run) -> None:
    """A scheduler's cold start on a large cell."""
    ours, raw = cold_start(starts=1 if run.quick else 3, profile=run.profile)
    run.figures.add("mirror_step_seconds", ours, "s", baseline=raw, at_most=10)


def run_events(run: Run) -> None:
    """What a view follows."""
    ours, bare = events(rounds=run.rounds, slices=2_000 if run.quick else 10_000)
    run.figures.add("mirror_events", ours, "1/s", baseline=bare, at_least=20_000)


@dataclass(frozen=True)
class Part:
    """Figures that are measured together.

    Attributes:
        here: Whether what is worth a profile happens in this process.
    """

    names: tuple[str, ...]
    measure: Callable[[Run], None]
    here: bool = True


PARTS = (
    Part(("direct_client", "release_ack"), run_direct),
    Part(("release_free",), run_freed, here=False),
    Part(("queued_client", "queued_p99_over_p50"), run_queued, here=False),
    Part(("drain", "last_tenth"), run_drain, here=False),
    Part(("scale",), run_scale),
    Part(("gang64",), run_gangs),
    Part(("full_slice",), run_whole),
    Part(("four_schedulers", "plans_per_placed"), run_four, here=False),
    Part(("four_schedulers_2ms",), run_four_slow, here=False),
    Part(("mirror_step_seconds",), run_cold, here=False),
    Part(("mirror_events",), run_events),
)
NAMES = [name for part in PARTS for name in part.names]
