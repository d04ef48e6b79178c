"""A whole cell in virtual time against a store that fails by a seed: `make sim SEED=n` replays it."""

import argparse
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SEEDS = "1-20"


def main() -> int:
    """Run the seeds that are asked for; 1 where any of them fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="one seed")
    parser.add_argument("--seeds", default=SEEDS, help="a range of seeds, e.g. 1-20")
    parser.add_argument("--slices", type=int, default=30, help="how many slices a user submits")
    parser.add_argument("--verbose", action="store_true", help="say all that happens")
    asked = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # Sets of names are gone through in an order of their own in each process, unless told.
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, *sys.argv])  # noqa: S606  # ourselves
    for folder in ("store", "schedulers", "."):
        sys.path.insert(0, str(ROOT / folder))
    from flowos.simulation.trial import Failure, Trial
    from flowos_schedulers.batch import Batch
    from flowos_store.memory import MemoryStore

    first, _, last = asked.seeds.partition("-")
    seeds = [asked.seed] if asked.seed is not None else range(int(first), int(last or first) + 1)
    failures = 0
    started = time.monotonic()
    for seed in seeds:
        trial = Trial(
            seed,
            new_store=MemoryStore,
            policy=Batch(),
            slices=asked.slices,
            say=print if asked.verbose else lambda _line: None,
        )
        try:
            print(trial.run().line, flush=True)
        except Failure as failure:
            failures += 1
            print(f"seed {seed:>5}: FAILED\n{failure}", flush=True)
    took = time.monotonic() - started
    print(f"{len(seeds)} seeds in {took:.1f} s, {failures} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
