"""A cell of 100,000 engines: how fast it is read and loaded, and how fast a scheduler is in step.

Baselines of the same run: loading against one put a request with one in flight (measured on 3,000
keys, scaled); being in step against reading the same keys and decoding nothing.
"""

import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import Report as Figures
from harness import options, seconds

from flowos.documents.cell_file import cell_json
from flowos.documents.presets import file_or_preset
from flowos.model.cell import Cell
from flowos.model.codec import encode
from flowos.model.transaction import Put, Transaction
from flowos.runtime.loading import load_cell_into
from flowos.runtime.scheduling import SCHEDULER_FOLLOWS
from flowos_store import EmbeddedEtcd, EtcdStore

ENGINES = 100_000
SAMPLE_KEYS = 3_000


def csv_text(engines: int) -> str:
    """Return a cell file in the traces' CSV form, 8 engines a node."""
    rows = ["node_id,engine_type,engine_model,engines,cpu_cores,mem_gib,pod,rack,basis"]
    rows += [f"n{n:05},gpu,A100,8,128,1024,,,made" for n in range(engines // 8)]
    return "\n".join(rows) + "\n"


def put_one_by_one(store: EtcdStore, cell: Cell) -> float:
    """Return what loading would take with one put a request, in seconds for the whole cell."""
    things = list(cell.things())
    values = [encode(thing) for thing in things[:SAMPLE_KEYS]]
    before = time.perf_counter()
    for number, value in enumerate(values):
        store.commit([Transaction((), (Put(f"bench/{number}", value),))])
    return (time.perf_counter() - before) / len(values) * len(things)


def get_in_step(endpoint: str, answers: Any) -> None:  # a queue
    """Be a scheduler process until its view is complete and its planner's index is built."""
    from flowos.model.view import CellView
    from flowos.planning.engines.pool import Pool

    before = time.perf_counter()
    store = EtcdStore([endpoint])
    view = CellView()
    Pool(view)
    reading = store.read(SCHEDULER_FOLLOWS)
    read_at = time.perf_counter()
    view.load(reading.records)
    view.progressed(reading.revision)
    watch = store.watch(SCHEDULER_FOLLOWS, after=reading.revision, deliver=lambda _message: None)
    done = time.perf_counter()
    # Not getrusage: its maximum is inherited from the process that started this one.
    status = Path("/proc/self/status").read_text()
    peak_mib = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    answers.put((done - before, read_at - before, peak_mib, len(view.cell.engines)))
    watch.close()
    store.close()


def main() -> None:
    """Measure and print."""
    chosen = options(__doc__ or "")
    sources = {"preset": lambda _folder: file_or_preset(f"fat-tree:{ENGINES}")}
    if not chosen.quick:
        sources["json"] = lambda folder: file_or_preset(str(folder / "cell.json"))
    sources["csv"] = lambda folder: file_or_preset(str(folder / "cell.csv"))
    figures = Figures("A cell of 100,000 engines")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "cell.csv").write_text(csv_text(ENGINES))
        if not chosen.quick:
            (folder / "cell.json").write_text(cell_json(file_or_preset(f"fat-tree:{ENGINES}")))
        for source, read in sources.items():
            with EmbeddedEtcd(folder / f"etcd-{source}") as etcd:
                store = EtcdStore([etcd.endpoint])
                cells: list[Cell] = []
                reading = seconds(lambda read=read, cells=cells: cells.append(read(folder)))  # type: ignore[misc]
                baseline = put_one_by_one(store, cells[0])
                loading = seconds(lambda store=store, cells=cells: load_cell_into(store, cells[0]))  # type: ignore[misc]
                figures.add(f"load_{source}", reading + loading, "s", baseline=baseline, at_most=15)
                answers: Any = multiprocessing.get_context("spawn").Queue()
                process = multiprocessing.get_context("spawn").Process(
                    target=get_in_step, args=(etcd.endpoint, answers)
                )
                process.start()
                in_step, bare, peak_mib, engines = answers.get(timeout=60)
                process.join()
                assert engines == ENGINES, engines
                figures.add(f"in_step_{source}", in_step, "s", baseline=bare, at_most=10)
                figures.add(f"memory_{source}", peak_mib, "MiB", at_most=400)
                store.close()
    figures.print(as_json=chosen.json)
    if not chosen.json:
        figures.plot("scale", lambda axes: bars(axes, figures))


def bars(axes: Any, figures: Figures) -> None:  # matplotlib has no types here
    """Draw seconds beside their baselines."""
    shown = {n: f for n, f in figures.figures.items() if f.unit == "s"}
    places = range(len(shown))
    axes.barh([p + 0.2 for p in places], [f.value for f in shown.values()], 0.4, label="ours")
    axes.barh(
        [p - 0.2 for p in places], [f.baseline for f in shown.values()], 0.4, label="baseline"
    )
    axes.set_yticks(list(places), list(shown))
    axes.set_xlabel("seconds")
    axes.set_xscale("log")
    axes.legend()


if __name__ == "__main__":
    main()
