"""How fast slices are committed, beside what bare etcd does with the same bytes, and beside Slurm.

Every figure has a cell of its own in an etcd on disk with fsync. Ours and the baseline take turns;
what is shown is the median of the rounds. Client CPU for a slice is shown too: it is what is left
of a measurement on a machine that does other things as well.

    python benchmarks/commit.py [--quick] [--json] [--only NAME,...] [--no-slurm] [--profile NAME]
"""

import argparse
import cProfile
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from commit_parts.cells import Bench
from commit_parts.direct import Side, direct
from commit_parts.drain import drain_once, engines_for, raw_placements
from commit_parts.peers import Slurm, slurm
from commit_parts.profiled import Profiled, show
from commit_parts.queued import queued
from commit_parts.raw import Raw
from harness import Report


@dataclass
class Run:
    """One run of the benchmark: what is asked for, and what is known so far."""

    quick: bool
    share: float = 0.4  # of the placements that a release goes with
    profile: Path | None = None
    figures: Report = field(default_factory=lambda: Report("The speed of commits"))
    slurm: Slurm = field(default_factory=Slurm)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Keep a line for people."""
        self.notes.append(text)

    def side(self, name: str, side: Side) -> None:
        """Note what is behind a comparison."""
        for who, rounds in (("ours", side.ours), ("raw", side.raw), ("raw alone", side.alone)):
            if rounds.rates:
                second = f", then {rounds.ms(0.5, rounds.second):.2f}" if rounds.second else ""
                self.note(
                    f"{name}: {who:<9} {rounds.rate:>7.0f}/s, p50 {rounds.ms(0.5):.2f} "
                    f"p99 {rounds.ms(0.99):.2f} ms{second}, client CPU {rounds.client_us:.0f} us "
                    f"a slice, rounds {' '.join(f'{rate:.0f}' for rate in rounds.rates)}"
                )


def run_direct(run: Run) -> None:
    """direct_client, release_ack."""
    side = direct(rounds=3 if run.quick else 5, slices=150 if run.quick else 600, share=run.share)
    run.side("direct_client", side)
    add, rate = run.figures.add, side.ours.rate
    add("direct_client", rate, "1/s", baseline=side.raw.rate, ratio_at_least=0.7)
    add("direct_client_over_slurm", rate, "1/s", baseline=run.slurm.client, ratio_at_least=5)
    ack = side.ours.ms(0.5, side.ours.second)
    add("release_ack", ack, "ms", baseline=side.raw.ms(0.5), ratio_at_most=1.5)


def run_queued(run: Run) -> None:
    """queued_client, queued_p99_over_p50."""
    side = queued(
        rounds=3 if run.quick else 5,
        slices=80 if run.quick else 400,
        share=run.share,
        profile=run.profile,
    )
    run.side("queued_client", side)
    add, rate = run.figures.add, side.ours.rate
    add("queued_client", rate, "1/s", baseline=side.raw.rate, ratio_at_least=0.3)
    add("queued_client_over_slurm", rate, "1/s", baseline=run.slurm.client, ratio_at_least=2.5)
    spreads = [r.ms(0.99) / r.ms(0.5) for r in (side.ours, side.raw)]
    add("queued_p99_over_p50", spreads[0], "x", baseline=spreads[1], ratio_at_most=3)


def run_drain(run: Run) -> None:
    """drain, last_tenth."""
    slices = 5_000 if run.quick else 20_000
    sample = 1_500 if run.quick else 5_000
    with Bench(f"fat-tree:{engines_for(sample)}") as bench:
        raw = Raw(bench.etcd.endpoint)
        steps = raw_placements(bench, sample)
        timings = [raw.in_flight(raw.copies(steps), 16) for _ in range(3)]
        raw.close()
    timing = sorted(timings, key=lambda t: t.seconds)[1]
    baseline = sample / timing.seconds
    with Bench(f"fat-tree:{engines_for(slices)}", profile=run.profile) as bench:
        drained = drain_once(bench, slices, profiled=True)
        bench.stop()
    run.note(
        f"drain: {drained.at_work:.0f}/s from the first placement on, scheduler CPU "
        f"{drained.cpu_us:.0f} us a slice (raw's client {1e6 * timing.cpu_seconds / sample:.0f}), "
        f"tenths {' '.join(f'{rate:.0f}' for rate in drained.tenths)}"
    )
    add = run.figures.add
    add("drain", drained.from_start, "1/s", baseline=baseline, ratio_at_least=1.0)
    add("drain_over_slurm", drained.from_start, "1/s", baseline=run.slurm.drain, ratio_at_least=20)
    first, last = drained.tenths[0], drained.tenths[-1]
    add("last_tenth", last, "1/s", baseline=first, ratio_at_least=0.9)


@dataclass(frozen=True)
class Part:
    """Figures that are measured together."""

    names: tuple[str, ...]
    measure: Callable[[Run], None]
    own_process: bool = True  # what is worth a profile happens in this process


PARTS = (
    Part(("direct_client", "release_ack"), run_direct),
    Part(("queued_client", "queued_p99_over_p50"), run_queued, own_process=False),
    Part(("drain", "last_tenth"), run_drain, own_process=False),
)
NAMES = [name for part in PARTS for name in part.names]


def main() -> None:
    """Measure and print."""
    chosen = options()
    profile = None
    if chosen.profile:
        part = next(part for part in PARTS if chosen.profile in part.names)
        parts = [part]
        if part.own_process:
            Profiled.profiler = cProfile.Profile()
        else:
            profile = Path(f"/tmp/flowos-commit-{os.getpid()}.profile")  # noqa: S108
    else:
        parts = [part for part in PARTS if not chosen.only or set(chosen.only) & set(part.names)]
    run = Run(chosen.quick, profile=profile)
    if not chosen.no_slurm and not chosen.profile:
        run.slurm = slurm(
            nodes=1000, slices=160 if chosen.quick else 600, backlog=400 if chosen.quick else 1600
        )
    for part in parts:
        before = time.perf_counter()
        part.measure(run)
        took = time.perf_counter() - before
        print(f"  ({', '.join(part.names)}: {took:.1f} s)", file=sys.stderr)
    run.figures.print(as_json=chosen.json)
    if not chosen.json:
        print("\n".join(f"  {note}" for note in run.notes))
    if Profiled.profiler is not None:
        show(Profiled.profiler)
    elif profile is not None:
        show(profile)
        profile.unlink()


def options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="under 50 s")
    parser.add_argument("--json", action="store_true", help="print figures as JSON, no plots")
    parser.add_argument("--only", type=lambda t: t.split(","), default=[], metavar="NAME,..")
    parser.add_argument("--no-slurm", action="store_true", help="leave the rival out")
    parser.add_argument("--profile", choices=NAMES, metavar="NAME", help="profile one figure")
    chosen = parser.parse_args()
    unknown = set(chosen.only) - set(NAMES)
    if unknown:
        parser.error(f"there is no figure {', '.join(sorted(unknown))}: {', '.join(NAMES)}")
    return chosen


if __name__ == "__main__":
    main()
