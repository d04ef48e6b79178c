"""A scheduler process whose decisions take 2 ms longer on demand, as if each asked a solver.

Usage: slow.py --name N --endpoints E --data-dir D; SIGUSR1 makes it slow, SIGUSR2 fast again.
"""

import argparse
import logging
import signal
import sys
import time
from typing import Any

from flowos.model.placement import Decision, Unplaceable
from flowos.runtime.clock import SystemClock
from flowos.runtime.processes import Supervisor, scheduler_process
from flowos_schedulers.batch import Batch
from flowos_store import EtcdStore

SLOW_SECONDS = 0.002


class Deliberate(Batch):
    """The policy `batch`, with a pause in every decision."""

    seconds = 0.0

    def plan(self, *arguments: Any, **options: Any) -> Decision | Unplaceable:
        """Decide, after a pause."""
        if self.seconds:
            time.sleep(self.seconds)
        return super().plan(*arguments, **options)


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--endpoints", required=True)
    parser.add_argument("--data-dir", default="")
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    supervisor = Supervisor(EtcdStore([chosen.endpoints]), SystemClock())
    supervisor.stop_on_signals()

    def ready() -> None:
        logging.getLogger("flowos").info("%s is in step with the cell", chosen.name)

    policy = Deliberate()

    def slow(number: int, _: object) -> None:
        policy.seconds = SLOW_SECONDS if number == signal.SIGUSR1 else 0.0

    signal.signal(signal.SIGUSR1, slow)
    signal.signal(signal.SIGUSR2, slow)
    supervisor.run(lambda s: scheduler_process(s, policy, chosen.name, ready=ready))
    supervisor.store.close()


if __name__ == "__main__":
    main()
