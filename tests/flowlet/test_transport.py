"""Does data go only where a circuit goes, and also to a machine that shares no memory?"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from flowos.flowlet import Concat, Sink, Source, Sum, graph_of
from flowos.flowlet.coordinating.workers import Came, Workers
from flowos.flowlet.planned import assigned
from flowos.flowlet.wire.links import APART
from flowos.flowlet.work import shipped, work_of
from flowos.model.cell import Engine
from tests.flowlet.programs import Chunks, Doubled, Inc, Length

ENGINES = [Engine("n", f"c{n}", "cpu") for n in range(3)]
ATTEMPT = f"transport-{os.getpid()}"
ROOT = Path(__file__).parents[2]


@contextmanager
def workers(folder: Path, circuits: list[tuple[int, int]], **more: str) -> Iterator[Workers]:
    """Three workers, started by hand, with these circuits between them."""
    names = [engine.id for engine in ENGINES]
    peers, laid = folder / "peers.json", folder / "circuits.json"
    peers.write_text(json.dumps([{"rank": r, "engine": e} for r, e in enumerate(names)]))
    laid.write_text(
        json.dumps([{"sources": [names[a]], "targets": [names[b]]} for a, b in circuits])
    )
    there = Workers()
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "flowos.flowlet.worker"],
            cwd=ROOT,
            env=os.environ
            | there.environment()
            | {"FLOWOS_RANK": str(rank), "FLOWOS_ATTEMPT": ATTEMPT}
            | {"FLOWOS_PEERS": str(peers), "FLOWOS_CIRCUITS": str(laid), **more},
        )
        for rank in range(len(ENGINES))
    ]
    try:
        assert there.await_all(len(ENGINES), lambda: "") == ""
        yield there
    finally:
        there.close()
        assert [process.wait(10) for process in started] == [0, 0, 0]


def run(there: Workers, sink: Sink) -> Came:
    graph = graph_of(sink)
    work = work_of(graph, assigned(graph, ENGINES), *shipped(graph), number=there.next_job())
    return there.run(work, wire=lambda _wires: None)


def spread() -> Sink:
    """Something that sends from each rank to rank 0."""
    return Sink(Concat(*[Inc(Source(np.full(50_000, n))) for n in range(6)]))


ALL = [(a, b) for a in range(3) for b in range(3) if a != b]


def test_without_a_circuit_nothing_is_sent(tmp_path):
    with workers(tmp_path, [c for c in ALL if c != (1, 0)]) as there:
        came = run(there, spread())
        assert came.gave_up is not None
        assert came.gave_up.kind == "circuit"
        assert "the slice holds no circuit from n/c1 to n/c0" in came.gave_up.message
        assert came.results == {}


def test_without_a_circuit_no_stream_is_opened(tmp_path):
    with workers(tmp_path, []) as there:
        came = run(there, Sink(Length(Doubled(Chunks(10, 10)))))
        assert came.gave_up is not None
        assert "holds no circuit from" in came.gave_up.message


def test_circuits_are_looked_at_when_something_is_sent(tmp_path):
    with workers(tmp_path, []) as there:
        assert run(there, spread()).gave_up is not None
        names = [engine.id for engine in ENGINES]
        laid = [{"sources": [names[a]], "targets": [names[b]]} for a, b in ALL]
        part = tmp_path / "circuits.part"  # as drivers do: it may be read at any moment
        part.write_text(json.dumps(laid))
        part.rename(tmp_path / "circuits.json")
        came = run(there, spread())
        assert came.gave_up is None


@pytest.mark.parametrize("apart", [False, True], ids=["shared-memory", "tcp"])
def test_data_is_the_same_over_memory_and_over_the_network(tmp_path, apart, monkeypatch):
    more = {APART: "1"} if apart else {}
    with workers(tmp_path, ALL, **more) as there:
        for sink, wanted in (
            (spread(), np.repeat(np.arange(1, 7), 50_000)),
            (Sink(Sum(*[Inc(Source(np.full(9, n))) for n in range(6)])), np.full(9, 21)),
            (Sink(Length(Doubled(Chunks(20, 100_000)))), b"20 chunks, 4000000"),
        ):
            came = run(there, sink)
            assert came.gave_up is None
            (result,) = came.results.values()
            np.testing.assert_array_equal(result, wanted)
    assert not list(Path("/dev/shm").glob(f"flowos-{ATTEMPT}-*"))


def test_who_does_not_know_the_secret_is_not_heard(tmp_path):
    from multiprocessing import AuthenticationError

    from flowos.flowlet.wire.links import connect

    with workers(tmp_path, ALL) as there:
        address = there.environment()["FLOWOS_PROGRAM"]
        with pytest.raises(AuthenticationError):
            connect(address, b"not the secret")
        assert run(there, spread()).gave_up is None
