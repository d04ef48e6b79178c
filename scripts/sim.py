"""A whole cell in virtual time against a store that fails by a seed: `make sim SEED=n` replays it.

Each seed is a cell's life, whose history must have a serial order, and a storm of broken streams
that the store's own watch goes through. A line a seed, with a digest of each: the same seed, the
same line.
Where the seed is even, its users ask for all that a shared cell offers.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
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

    first, _, last = asked.seeds.partition("-")
    seeds = [asked.seed] if asked.seed is not None else range(int(first), int(last or first) + 1)
    failures = 0
    started = time.monotonic()
    for seed in seeds:
        try:
            line = life(seed, asked.slices, print if asked.verbose else lambda _line: None)
            print(f"{line}; storm {storm(seed)}", flush=True)
        except Failed as failed:
            failures += 1
            print(f"seed {seed:>5}: FAILED\n{failed}", flush=True)
    took = time.monotonic() - started
    print(f"{len(seeds)} seeds in {took:.1f} s, {failures} failed")
    return 1 if failures else 0


class Failed(Exception):
    """What a seed broke, and how to see it again."""


def life(seed: int, slices: int, say: Callable[[str], None]) -> str:
    """Play a cell's life, and find the serial order of its history; return a line."""
    from flowos.simulation.trial import Failure, Trial
    from flowos_schedulers.batch import Batch
    from flowos_store.memory import MemoryStore
    from tests.plugins.serial import Contradiction, Recording, Witness, explained

    recording = Recording()
    trial = Trial(
        seed,
        new_store=MemoryStore,
        policy=Batch(),
        slices=slices,
        shared=seed % 2 == 0,
        on_request=recording.note,
        say=say,
    )
    witness = Witness(trial.store)
    try:
        report = trial.run()
        explained(recording, witness)
    except Failure as failure:
        raise Failed(str(failure)) from None
    except Contradiction as contradiction:
        said = f"the history has no serial order: {contradiction}"
        raise Failed(f"{said}\nreplay: make sim SEED={seed}") from None
    finally:
        witness.close()
    return report.line


def storm(seed: int) -> str:
    """Have the store's watch go through a storm; return the digest of what it said."""
    from tests.store.storm_of_streams import StormBroken, run

    try:
        return run(seed)
    except StormBroken as broken:
        raise Failed(f"{broken}\nreplay: make sim SEED={seed}") from None


if __name__ == "__main__":
    sys.exit(main())
