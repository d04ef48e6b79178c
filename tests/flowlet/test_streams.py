"""Do stages that see chunks come to what they come to in one process, in bounded memory?"""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowos.flowlet import (
    Concat,
    FileSink,
    FileSource,
    Sink,
    Source,
    StreamTask,
    TaskError,
    execute,
)
from tests.flowlet.conftest import segments
from tests.flowlet.programs import Chunks, Doubled, Fails, First, Inc, Length, Split
from tests.flowlet.test_execute import wait_for


def both(make) -> list[Any]:
    """What a program comes to on workers, and here."""
    found = []
    for on in (None, "here"):
        sinks = make()
        execute(*sinks, on=on)
        found.append([sink.result for sink in sinks])
    return found


def test_a_pipeline_comes_to_the_same_as_in_one_process(cell):
    there, here = both(lambda: [Sink(Length(Doubled(Doubled(Chunks(50, 1000)))))])
    assert there == here == [b"50 chunks, 200000"]


def test_chunks_grow_and_one_output_feeds_many(cell):
    def make():
        chunks = Chunks(20, 40_000, grow=True)
        doubled = Doubled(chunks)
        return [Sink(Length(doubled)), Sink(Length(chunks)), Sink(doubled), Sink(Concat(doubled))]

    there, here = both(make)
    for one, other in zip(there, here, strict=True):
        np.testing.assert_array_equal(one, other)
    assert there[0] == b"20 chunks, %d" % (2 * sum(40_000 * (n + 1) for n in range(20)))


def test_several_outputs_and_ordinary_tasks_before_and_after(cell):
    def make():
        split = Split(Inc(Source(np.arange(10.0))))
        return [Sink(Inc(split.out[0])), Sink(split.out[1])]

    there, here = both(make)
    np.testing.assert_array_equal(there[0], here[0])
    np.testing.assert_array_equal(there[1], np.arange(2.0, 11.0, 2.0))


def test_a_file_larger_than_the_rings_goes_through_in_chunks(cell, tmp_path):
    data = np.random.default_rng(1).bytes(3_000_001)
    (tmp_path / "in").write_bytes(data)
    sink = Sink(FileSink(FileSource(tmp_path / "in", chunk_bytes=100_000), tmp_path / "out"))
    sink.execute()
    assert sink.result == b"3000001"
    assert (tmp_path / "out").read_bytes() == data


def test_a_reader_that_has_enough_ends_what_feeds_it(cell):
    sink = Sink(First(Chunks(10**9, 1000)))
    sink.execute(timeout=20)
    assert len(sink.result) == 1000


@pytest.mark.parametrize("stage", [Doubled, Length], ids=["before", "after"])
def test_a_stage_that_fails_is_named(cell, stage):
    fails = Fails(Chunks(100, 1000)) if stage is Length else Fails(Doubled(Chunks(100, 1000)))
    with pytest.raises(TaskError, match=f"{fails.name} failed on box/cpu.: ") as caught:
        Sink(Length(fails)).execute(timeout=20)
    assert "this chunk is not to my taste" in str(caught.value)


def test_a_stage_that_is_no_generator_is_told(cell):
    class Plain(StreamTask):
        def run(self, chunks):
            return 3

    with pytest.raises(TaskError, match="its run\\(\\) is no generator"):
        Sink(Plain(Source(b"a"))).execute()


def test_a_pipeline_whose_stage_is_lost_runs_again(cell, tmp_path):
    mark = tmp_path / "mark"
    sink = Sink(Length(Doubled(Chunks(400, 10_000, seconds=0.002, mark=str(mark)))))
    thread = threading.Thread(target=sink.execute)
    thread.start()
    os.kill(int(wait_for(mark)[0]), signal.SIGKILL)
    thread.join(30)
    assert sink.result == b"400 chunks, 8000000"
    assert len(mark.read_text().splitlines()) == 2


def test_memory_is_bounded_by_the_rings(cell, tmp_path):
    """A slow reader holds a fast writer up: at no time is there more than a few chunks."""
    sizes: list[int] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.005):
            sizes.append(sum(_size(name) for name in segments(cell)))

    thread = threading.Thread(target=look)
    thread.start()
    sink = Sink(Length(Chunks(60, 1 << 20), seconds=0.005))
    sink.execute()
    stop.set()
    thread.join()
    assert sink.result == b"60 chunks, %d" % (60 << 20)
    assert 0 < max(sizes) <= 8 << 20


def _size(name: str) -> int:
    try:
        return Path("/dev/shm", name).stat().st_size
    except FileNotFoundError:
        return 0
