"""A scheduler process with a queue of its own that thinks for as long as it is told.

Usage: contender.py --name N --queue Q --think SECONDS --endpoints E --data-dir D
"""

import argparse
import logging
import sys
import time
from collections.abc import Collection

from flowos.model.placement import Decision, Unplaceable
from flowos.model.slice import SliceSpec
from flowos.planning.engines.pool import Pool
from flowos.runtime.clock import SystemClock
from flowos.runtime.processes import Supervisor, scheduler_process
from flowos_schedulers.batch import Batch
from flowos_store import EtcdStore


class Thinking(Batch):
    """The policy `batch`, with a pause in every plan."""

    def __init__(self, queue: str, seconds: float) -> None:
        """Serve a queue."""
        self.name = queue
        self.seconds = seconds

    def plan(
        self, pool: Pool, spec: SliceSpec, *, seed: int, avoid: Collection[str]
    ) -> Decision | Unplaceable:
        """Decide, after a pause; what is decided on is as it was before."""
        found = super().plan(pool, spec, seed=seed, avoid=avoid)
        time.sleep(self.seconds)
        return found


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser()
    for word in ("--name", "--queue", "--endpoints"):
        parser.add_argument(word, required=True)
    parser.add_argument("--think", type=float, default=0.0)
    parser.add_argument("--data-dir", default="")
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    supervisor = Supervisor(EtcdStore([chosen.endpoints]), SystemClock())
    supervisor.stop_on_signals()

    def ready() -> None:
        logging.getLogger("flowos").info("%s is in step with the cell", chosen.name)

    policy = Thinking(chosen.queue, chosen.think)
    supervisor.run(lambda s: scheduler_process(s, policy, chosen.name, ready=ready))
    supervisor.store.close()


if __name__ == "__main__":
    main()
