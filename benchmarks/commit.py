"""How fast slices are committed, beside what bare etcd does with the same bytes, and beside Slurm.

Each figure has a cell of its own in an etcd on disk with fsync. Ours and the baseline take turns;
what is shown is the median of the rounds. The client's CPU for a slice is shown too: it is what can
be trusted on a machine that does other things as well.

    python benchmarks/commit.py [--quick] [--json] [--only NAME,..] [--no-slurm] [--profile NAME]
"""

import argparse
import cProfile
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

from commit_parts.figures import NAMES, PARTS, Run
from commit_parts.peers import slurm
from commit_parts.profiled import Profiled, show
from harness import PICTURES

SLURM_WINDOW = (
    888  # slices that hold half of 1,000 x 8: what its driver has placed without releases
)


def main() -> None:
    """Measure and print."""
    chosen = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # stop what was started all the same
    if chosen.profile:
        profile(chosen)
        return
    parts = [p for p in PARTS if not chosen.only or set(chosen.only) & set(p.names)]
    churned = 100 if chosen.quick else 600
    run = Run(chosen.quick, share=churned / (churned + SLURM_WINDOW))
    if not chosen.no_slurm:
        with _Told("Slurm"):
            run.slurm = slurm(nodes=1000, slices=churned, backlog=200 if chosen.quick else 1600)
            if not chosen.quick:
                large = slurm(nodes=10_000, slices=100, backlog=0, occupied=0.05)
                run.note(f"Slurm at 10,000 x 8, 5 % full: {large.client}/s, p50 {large.p50_ms} ms")
    try:
        for part in parts:
            with _Told(", ".join(part.names)):
                part.measure(run)
    finally:
        run.close()
    run.figures.print(as_json=chosen.json)
    if chosen.json:
        return
    print(f"  etcd {run.etcd} on a disk, with fsync")
    print("\n".join(f"  {note}" for note in run.notes))
    if len(parts) == len(PARTS):  # the file says whether the run was a quick one
        run.figures.save("commit", notes=run.notes, quick=run.quick, etcd=run.etcd)
        run.figures.plot("commit", run.figures.draw_goals, folder=PICTURES)


def profile(chosen: argparse.Namespace) -> None:
    """Measure one part and print where its time goes: here, or in the process that matters."""
    part = next(part for part in PARTS if chosen.profile in part.names)
    who = chosen.of or part.profiled or "here"
    with tempfile.TemporaryDirectory() as folder:
        elsewhere = Path(folder) / "profile"
        run = Run(chosen.quick, share=0.4, profile=elsewhere, profiled=who)
        if who == "here":
            Profiled.profiler = cProfile.Profile()
        try:
            part.measure(run)
        finally:
            run.close()  # its processes write their profiles when they end
        run.figures.print(as_json=False)
        print("\n".join(f"  {note}" for note in run.notes))
        show(Profiled.profiler or elsewhere)


class _Told:
    """Says on stderr how long a part took, and how much CPU, that of ended processes included."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        self._before, self._cpu = time.perf_counter(), _cpu()

    def __exit__(self, *_: object) -> None:
        took, cpu = time.perf_counter() - self._before, _cpu() - self._cpu
        print(f"  {self._what}: {took:.1f} s, CPU {cpu:.1f} s", file=sys.stderr, flush=True)


def _cpu() -> float:
    found = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in found)


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
    parser.add_argument(
        "--of",
        choices=("here", "scheduler", "controller", "agent"),
        help="whose profile; default: who matters most",
    )
    chosen = parser.parse_args()
    unknown = set(chosen.only) - set(NAMES)
    if unknown:
        parser.error(f"there is no figure {', '.join(sorted(unknown))}: {', '.join(NAMES)}")
    return chosen


if __name__ == "__main__":
    main()
