"""Is any unit ever held twice? Scheduler processes on a real etcd, killed now and then, all watched.

Four schedulers, a controller and agents are processes of their own; slices of 1 to 4 GPUs, some of
them rings, some parts of a GPU, are submitted faster than there is room, so that all is contended.
A scheduler is killed (SIGKILL) every few seconds and another one started. Every revision of all
placements is read by a watch and held against a ledger that shares no code with the product; in the
end the product's own checker goes through the history that is kept.

The same on the memory store, in virtual time: benchmarks/beyond.py --only holds --placements 1000000

    python benchmarks/holds.py [--quick] [--json] [--placements N]
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import time
from itertools import groupby

from commit_parts.cells import Bench
from harness import Report
from holds_parts.ledger import Ledger

from flowos.model.slice import CircuitWish, EngineChoice, EngineRole, Run, Shape, SliceSpec
from flowos.model.transaction import Changes, WatchMessage

CELL = "fat-tree:256"
SCHEDULERS = 4
GROUP = 50
BACKLOG = 400  # slices that wait or run: far more than there is room for
KILL_SECONDS = 5.0
STILL_SECONDS = 60.0  # without any end: something is stuck
RUN_SECONDS = 0.05


def main() -> None:
    """Measure and print."""
    given = _options()
    number = 2_000 if given.quick else given.placements
    report = Report(f"Holds on etcd: {number} slices, {SCHEDULERS} scheduler processes")
    with Bench(CELL) as bench:
        found = _Run(bench, number, seed=given.seed)
        found.play()
        verified = _verified(bench)
    ledger = found.ledger
    for line in ledger.double[:10]:
        print(line, file=sys.stderr)
    report.add("placements_checked", len(ledger.placed), "slices", at_least=number)
    report.add("revisions_checked", ledger.revisions, "")
    report.add("double_holds", len(ledger.double), "units", at_most=0)
    report.add("left_held", ledger.held, "units", at_most=0)
    report.add("ended_otherwise", found.otherwise, "slices", at_most=0)
    report.add("violations_in_history", verified, "", at_most=0)
    report.add("kills", found.kills, "")
    report.add("slices_per_s", number / found.seconds, "1/s")
    report.print(as_json=given.json)
    if not (given.json or given.quick):
        report.save("holds")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="2,000 slices, under 50 s")
    parser.add_argument("--json", action="store_true", help="print figures as JSON")
    parser.add_argument("--placements", type=int, default=50_000, help="how many slices")
    parser.add_argument(
        "--seed", type=int, default=1, help="of what is asked for and who is killed"
    )
    return parser.parse_args()


class _Run:
    """One run: who submits, who kills, and who watches."""

    def __init__(self, bench: Bench, number: int, *, seed: int) -> None:
        self._bench = bench
        self._number = number
        self._dice = random.Random(seed)
        nodes = bench.cell.nodes.values()
        self.ledger = Ledger({node.name: (node.cpu_millis, node.memory_bytes) for node in nodes})
        self.kills = 0
        self.seconds = 0.0
        self.otherwise = 0
        self._ended: set[str] = set()

    def play(self) -> None:
        """Start all, submit, kill, and wait for the last end."""
        bench = self._bench
        watch = bench.store.watch(
            ("placement/", "slice/"),
            after=bench.store.read(["cell/"]).revision,
            deliver=self._heard,
        )
        schedulers = [self._scheduler(n) for n in range(SCHEDULERS)]
        bench.start("agent", "--driver", "sim", "--delay", "none=0")
        bench.start("controller", "--idle-off", "0")
        bench.await_step()
        began = moved = killed = time.monotonic()
        submitted = last = 0
        try:
            while (ended := len(self._ended)) < self._number:
                now = time.monotonic()
                if ended != last:
                    last, moved = ended, now
                if now - moved > STILL_SECONDS:
                    raise SystemExit(
                        f"{ended} of {self._number} ended, none for {STILL_SECONDS:g} s"
                    )
                if submitted < self._number and submitted - ended < BACKLOG:
                    count = min(GROUP, self._number - submitted)
                    bench.client.submit([self._spec(submitted + n) for n in range(count)])
                    submitted += count
                    continue
                if now - killed > KILL_SECONDS:
                    killed = now
                    victim = self._dice.randrange(SCHEDULERS)
                    schedulers[victim] = self._replaced(schedulers[victim], victim)
                if sys.stderr.isatty():
                    print(f"\r{ended} of {self._number} ended ", end="", file=sys.stderr)
                time.sleep(0.01)
            self.seconds = time.monotonic() - began
            deadline = time.monotonic() + STILL_SECONDS
            while self.ledger.held and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            watch.close()
            if sys.stderr.isatty():
                print(file=sys.stderr)

    def _scheduler(self, number: int) -> subprocess.Popen[bytes]:
        return self._bench.start("scheduler", "batch", "--name", f"batch-{number}")

    def _replaced(self, victim: subprocess.Popen[bytes], number: int) -> subprocess.Popen[bytes]:
        """Kill a scheduler in the midst of whatever it does, and start another one."""
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        self.kills += 1
        return self._scheduler(number)

    def _spec(self, number: int) -> SliceSpec:
        dice = self._dice
        if dice.random() < 0.2:
            choice, circuits = EngineChoice("gpu", share_millis=dice.choice((250, 500))), ()
        else:
            count = dice.choice((1, 1, 2, 3, 4))
            choice = EngineChoice("gpu", count=count)
            ring = count > 1 and dice.random() < 0.5
            circuits = (CircuitWish(Shape.RING, ("w",)),) if ring else ()
        return SliceSpec(
            f"s{number}", engines={"w": EngineRole((choice,))}, circuits=circuits,
            run=Run(for_seconds=RUN_SECONDS),
        )  # fmt: skip

    def _heard(self, message: WatchMessage) -> None:
        if not isinstance(message, Changes):
            return
        for revision, group in groupby(message.changes, key=lambda change: change.modified):
            changes = list(group)
            placements = [
                (change.key.removeprefix("placement/"), change.value)
                for change in changes
                if change.key.startswith("placement/")
            ]
            if placements:
                self.ledger.revision(revision, placements)
            for change in changes:
                if change.key.startswith("slice/") and change.value is not None:
                    end = json.loads(change.value).get("end")
                    if end is not None and change.key not in self._ended:
                        self._ended.add(change.key)
                        self.otherwise += end["phase"] != "done"


def _verified(bench: Bench) -> int:
    """Return how many laws the product's own checker finds broken in what is kept of the history."""
    words = ["cell", "verify", "--history", "-o", "json", "--endpoints", bench.etcd.endpoint]
    done = subprocess.run(
        [sys.executable, "-m", "flowos_cli.main", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 6):
        raise SystemExit(done.stderr)
    return len(json.loads(done.stdout)["violations"])


if __name__ == "__main__":
    main()
