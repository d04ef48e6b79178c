"""What running a program costs: each task, the first task, planning, and a pipeline's chunks.

Baselines of the same run: a local Dask cluster of as many workers for tasks, and a bare copy through
shared memory between two processes, with two semaphores and nothing else, for chunks.
"""

import mmap
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from harness import Report as Figures
from harness import interleaved, options, seconds

from flowos.flowlet import Sink, Source, StreamTask, Task, held
from flowos.flowlet.cell import end_own, found, offer_of
from flowos.flowlet.graph import graph_of
from flowos.flowlet.planned import assigned
from flowos.flowlet.session import Slice
from flowos.flowlet.work import shipped

WORKERS = 2
SLOTS = 4


class Inc(Task):
    """Next to nothing."""

    def run(self, a: np.ndarray) -> np.ndarray:
        return a + 1


class Add(Task):
    """The same, of two."""

    def run(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a + b


class Chunks(StreamTask):
    """The same chunk again and again."""

    def __init__(self, count: int, size_bytes: int) -> None:
        super().__init__()
        self.count, self.size_bytes = count, size_bytes

    def run(self) -> Any:
        chunk = np.ones(self.size_bytes, np.uint8)
        for _ in range(self.count):
            yield chunk


class Taken(StreamTask):
    """Looks at one byte in each page of a chunk, and tells how long it took from first to last."""

    def run(self, chunks: Any) -> Any:
        began, total = 0.0, 0
        for chunk in chunks:
            began = began or time.monotonic()
            total += int(chunk[::4096].sum())
        yield np.array([time.monotonic() - began, total])


def chain(count: int) -> Task:
    """Return the end of a chain."""
    task: Task = Source(np.zeros(4))
    for _ in range(count):
        task = Inc(task)
    return task


def fan(count: int) -> Task:
    """Return the end of many tasks that one feeds, and that a tree adds up."""
    source = Source(np.zeros(4))
    level: list[Task] = [Inc(source) for _ in range(count // 2)]
    while len(level) > 1:
        level = [Add(*level[n : n + 2]) for n in range(0, len(level) - 1, 2)] + level[
            len(level) - len(level) % 2 :
        ]
    return level[0]


def tangle(count: int) -> Task:
    """Return the end of tasks that read from two earlier ones, as chance has it."""
    dice = random.Random(1)
    tasks: list[Task] = [Source(np.zeros(4)), Source(np.ones(4))]
    for _ in range(count - 1):
        tasks.append(Add(*dice.sample(tasks[-12:], 2)))
    return Add(*tasks[-2:])


def on_slice(make: Callable[[int], Task], count: int, warm: Slice) -> float:
    """Return microseconds for each task on a warm slice, all of `execute` included."""
    sink = Sink(make(count))
    result: list[Any] = []
    took = seconds(lambda: result.append(sink.execute(on=warm)))
    return 1e6 * took / len(result[0].tasks)


def on_dask(make: Callable[[int], Task], count: int, client: Any) -> float:
    """Return the same for Dask: the graph as its own delayed calls, gathered at the end."""
    graph = graph_of(Sink(make(count)))
    made: dict[int, Any] = {}
    calls = 0

    def run() -> None:
        nonlocal calls
        layer: dict[str, Any] = {}
        name = f"t{random.random()}"  # noqa: TID251  # a name that Dask has not seen
        for number, task in enumerate(graph.tasks):
            if isinstance(task, Sink):
                continue
            inputs = [f"{name}-{n}" for n, _ in graph.inputs[number]]
            if isinstance(task, Source):
                layer[f"{name}-{number}"] = task.data
            else:
                layer[f"{name}-{number}"] = (_added, *inputs)
                calls += 1
        end = f"{name}-{graph.inputs[-1][0][0]}"
        made[0] = client.get(layer, end)

    took = seconds(run)
    return 1e6 * took / calls


def _added(*arrays: np.ndarray) -> np.ndarray:
    return arrays[0] + 1 if len(arrays) == 1 else arrays[0] + arrays[1]


def first_task(warm: Slice) -> float:
    """Return milliseconds from `execute` to the first task's beginning."""
    sink = Sink(Inc(Source(np.zeros(4))))
    result = sink.execute(on=warm)
    return 1000 * min(ran.began for ran in result.tasks.values())


def cold_first_task() -> float:
    """Return the same with a slice of its own: asked for, placed, built, workers started."""
    sink = Sink(Inc(Source(np.zeros(4))))
    result = sink.execute()
    return 1000 * min(ran.began for ran in result.tasks.values())


def planned(make: Callable[[int], Task]) -> float:
    """Return milliseconds to build, check, write down and plan a thousand tasks."""
    offer = offer_of(found())

    def run() -> None:
        graph = graph_of(Sink(make(1000)))
        shipped(graph)
        assigned(graph, offer.engines, offer.free, degree_max=offer.degree_max)

    return 1000 * seconds(run)


# ------------------------------------------------------------------------------------ chunks


def pipeline(count: int, size_bytes: int, warm: Slice) -> float:
    """Return GB/s from a stage to the next."""
    sink = Sink(Taken(Chunks(count, size_bytes)))
    sink.execute(on=warm)
    return (count - 1) * size_bytes / float(sink.result[0]) / 1e9


def bare(count: int, size_bytes: int) -> float:
    """Return GB/s of two processes that share a ring of slots, and two semaphores."""
    spawn = multiprocessing.get_context("fork")
    filled, free = spawn.Semaphore(0), spawn.Semaphore(SLOTS)
    answer, tell = spawn.Pipe(duplex=False)
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        os.posix_fallocate(file.fileno(), 0, SLOTS * size_bytes)
        reader = spawn.Process(
            target=_read, args=(file.name, count, size_bytes, filled, free, tell), daemon=True
        )
        reader.start()
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[:1])
        memory = mmap.mmap(file.fileno(), SLOTS * size_bytes)
        slots = np.frombuffer(memory, np.uint8).reshape(SLOTS, size_bytes)
        chunk = np.ones(size_bytes, np.uint8)
        for number in range(count):
            free.acquire()
            slots[number % SLOTS][:] = chunk
            filled.release()
        took = float(answer.recv())
        reader.join()
        os.sched_setaffinity(0, cores)
    return (count - 1) * size_bytes / took / 1e9


def _read(path: str, count: int, size_bytes: int, filled: Any, free: Any, tell: Any) -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[1:2] or os.sched_getaffinity(0))
    with Path(path).open("rb") as file:
        memory = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    slots = np.frombuffer(memory, np.uint8).reshape(SLOTS, size_bytes)
    began, total = 0.0, 0
    for number in range(count):
        filled.acquire()
        began = began or time.monotonic()
        total += int(slots[number % SLOTS][::4096].sum())
        free.release()
    tell.send(time.monotonic() - began)


# ------------------------------------------------------------------------------------ all


def dask_client() -> Any:
    """Start a Dask cluster of as many workers, with one thread each; None = it is not installed."""
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        return None
    cluster = LocalCluster(
        n_workers=WORKERS, threads_per_worker=1, processes=True, dashboard_address=None,
        silence_logs=40, memory_limit=0,
    )  # fmt: skip
    return Client(cluster)


def main() -> None:
    """Measure and print."""
    chosen = options(__doc__ or "")
    rounds = 3 if chosen.quick else 7
    count = 300 if chosen.quick else 1000
    figures = Figures("Programs on this machine, median of interleaved rounds")
    kinds = {"chain": chain, "fan": fan, "tangle": tangle}
    rows: list[tuple[str, float, float]] = []
    client = dask_client()
    try:
        with held(engines={"cpu": WORKERS}) as warm:
            for name, make in kinds.items():
                on_slice(make, 20, warm)  # what is loaded once is loaded
                calls: list[Callable[[], float]] = [
                    lambda make=make: on_slice(make, count, warm)  # type: ignore[misc]
                ]
                if client is not None:
                    on_dask(make, 20, client)
                    calls.append(lambda make=make: on_dask(make, count, client))  # type: ignore[misc]
                ours, *theirs = interleaved(calls, rounds)
                dask = theirs[0] if theirs else None
                figures.add(f"task_{name}", ours, "us", baseline=dask, at_most=1000)
                if dask is not None:
                    figures.add(f"task_{name}_of_dask", ours / dask, "x", at_most=1.0)
                    rows.append((name, ours, dask))
            first = statistics.median(first_task(warm) for _ in range(3 * rounds))
            pipes: list[tuple[int, float, float]] = []
            for size in (1 << 18, 1 << 20, 1 << 22, 1 << 24):
                number = max(40, min(2000, (1 << 30) // size // (3 if chosen.quick else 1)))
                through, plain = interleaved(
                    [
                        lambda size=size, number=number: pipeline(number, size, warm),  # type: ignore[misc]
                        lambda size=size, number=number: bare(number, size),  # type: ignore[misc]
                    ],
                    rounds,
                )
                pipes.append((size, through, plain))
        cold = statistics.median(cold_first_task() for _ in range(rounds))
        figures.add("first_task_warm", first, "ms", baseline=cold, at_most=20)
        figures.add("first_task_cold", cold, "ms")
        for name, make in kinds.items():
            took = statistics.median(planned(make) for _ in range(rounds))
            figures.add(f"plan_1000_{name}", took, "ms", at_most=150)
        for size, through, plain in pipes:
            label = f"pipeline_{size // 1024}_KiB"
            figures.add(label, through, "GB/s", baseline=plain)
            figures.add(f"{label}_of_bare_copy", through / plain, "x", at_least=0.7)
    finally:
        if client is not None:
            client.cluster.close()
            client.close()
        end_own()
    figures.print(as_json=chosen.json)
    if not chosen.json:
        if not rows:
            print("Dask is not installed: pip install distributed", file=sys.stderr)

        def draw(axes: Any) -> None:
            at = np.arange(len(rows))
            axes.bar(at - 0.2, [ours for _, ours, _ in rows], 0.4, label="Flow OS")
            axes.bar(at + 0.2, [dask for *_, dask in rows], 0.4, label="Dask")
            axes.set_xticks(at, [name for name, *_ in rows])
            axes.set_ylabel("µs for each task")
            axes.set_ylim(bottom=0)
            axes.legend()

        figures.plot("flowlets", draw)
        if not chosen.quick:
            figures.save("flowlets")


if __name__ == "__main__":
    main()
