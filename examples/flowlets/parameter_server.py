"""Train a small model with a parameter server, whose sums are made in the network.

    python parameter_server.py [WORKERS] [STEPS]

Each worker computes the gradient of a logistic regression on its part of the data; the server gets
their sum. Where the cell's switches can add, that is one stream into the server, however many
workers there are. The program is the whole training, unrolled: the planner sees all of it.
"""

import sys

import numpy as np

from flowos.flowlet import Sink, Source, Sum, Task

FEATURES, RATE = 20, 0.5


class Gradient(Task):
    """The gradient of the loss on one worker's data, and the loss behind it."""

    def run(self, weights: np.ndarray, data: np.ndarray) -> np.ndarray:
        features, labels = data[:, :-1], data[:, -1]
        predicted = 1 / (1 + np.exp(-features @ weights[:FEATURES]))
        loss = -np.mean(
            labels * np.log(predicted + 1e-9) + (1 - labels) * np.log(1 - predicted + 1e-9)
        )
        return np.append(features.T @ (predicted - labels) / len(labels), loss)


class Update(Task):
    """The server's step: new weights, and the mean loss behind them."""

    def __init__(self, weights: Task, gradients: Task, workers: int) -> None:
        super().__init__(weights, gradients)
        self.workers = workers

    def run(self, weights: np.ndarray, gradients: np.ndarray) -> np.ndarray:
        mean = gradients / self.workers
        return np.append(weights[:FEATURES] - RATE * mean[:FEATURES], mean[FEATURES])


def data_of(workers: int, rows: int = 500, seed: int = 1) -> tuple[list[np.ndarray], np.ndarray]:
    """Return each worker's rows, the label last, and the weights that made them."""
    dice = np.random.default_rng(seed)
    truth = dice.normal(size=FEATURES)
    parts = []
    for _ in range(workers):
        features = dice.normal(size=(rows, FEATURES))
        labels = (features @ truth + dice.normal(scale=0.5, size=rows) > 0).astype(float)
        parts.append(np.column_stack([features, labels]))
    return parts, truth


def program(workers: int, steps: int) -> tuple[list[Sink], list[np.ndarray]]:
    """Return a sink for the weights after each step, and the data."""
    parts, _ = data_of(workers)
    shards = [Source(part) for part in parts]
    weights: Task = Source(np.zeros(FEATURES + 1))
    sinks = []
    for _ in range(steps):
        gradients = [Gradient(weights, shard) for shard in shards]
        weights = Update(weights, Sum(*gradients), workers)
        sinks.append(Sink(weights))
    return sinks, parts


def main() -> None:
    """Train, and print the loss of each step."""
    workers = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 12
    from flowos.flowlet import execute

    sinks, _ = program(workers, steps)
    result = execute(*sinks)
    for step, sink in enumerate(sinks, 1):
        print(f"step {step:2d}  loss {sink.result[FEATURES]:.4f}")
    added = [name for name in result.tasks if name.endswith("in the network")]
    print(f"{len(added)} of {steps} sums were made in the network")


if __name__ == "__main__":
    main()
