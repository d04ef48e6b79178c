"""A scheduler process whose every decision takes a while longer, as one that asks a solver would.

Usage: slow.py --name N --decision-ms M --endpoints E --data-dir D
"""

import argparse
import logging
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from flowos.model.placement import Decision, Unplaceable
from flowos.runtime.clock import SystemClock
from flowos.runtime.processes import Supervisor, scheduler_process
from flowos_schedulers.batch import Batch
from flowos_store import EtcdStore


@dataclass
class Deliberate:
    """The policy `batch`, with a pause in every decision."""

    seconds: float
    inner: Batch = field(default_factory=Batch)
    name: str = Batch.name

    def order(self, *arguments: Any) -> tuple[int, ...]:
        """Return the place in the queue."""
        return self.inner.order(*arguments)

    def plan(self, *arguments: Any, **options: Any) -> Decision | Unplaceable:
        """Decide, after a pause."""
        if self.seconds:
            time.sleep(self.seconds)
        return self.inner.plan(*arguments, **options)


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--decision-ms", type=float, default=0.0)
    parser.add_argument("--endpoints", required=True)
    parser.add_argument("--data-dir", default="")
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    supervisor = Supervisor(EtcdStore([chosen.endpoints]), SystemClock())
    supervisor.stop_on_signals()

    def ready() -> None:
        logging.getLogger("flowos").info("%s is in step with the cell", chosen.name)

    policy = Deliberate(chosen.decision_ms / 1000)
    supervisor.run(lambda s: scheduler_process(s, policy, chosen.name, ready=ready))
    supervisor.store.close()


if __name__ == "__main__":
    main()
