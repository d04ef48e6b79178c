"""Do the examples run, on real processes, and come to what they should?"""

import importlib.util
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from flowos.drivers.local.devices import this_machine
from flowos.flowlet import execute

FOLDER = Path(__file__).parents[2] / "examples/flowlets"


def example(name: str) -> ModuleType:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name: str, *words: str, on: str = "alone", cwd: Path | None = None) -> str:
    """What an example prints."""
    done = subprocess.run(
        [sys.executable, "-m", "flowos_cli.main", "run", "--on", on, str(FOLDER / f"{name}.py"), *words],
        env={k: v for k, v in os.environ.items() if not k.startswith("FLOWOS_")},
        cwd=cwd, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("on", ["alone", "here", "dask"])
def test_founding_example(on):
    lines = run("founding", on=on).split()
    assert [bytes.fromhex(line) for line in lines] == [
        bytes(range(number, number + 16)) for number in range(10)
    ]


def test_word_count():
    text = (FOLDER / "data/alice.txt").read_text().lower()
    known = Counter("".join(c if c.isalpha() or c == "'" else " " for c in text).split())
    found = [line.split() for line in run("word_count").splitlines()]
    assert [(word, int(count)) for count, word in found] == known.most_common(10)


def test_image_pipeline_on_opencl_is_what_it_is_on_cpus(tmp_path):
    kinds = {device.kind for device in this_machine().devices}
    if "opencl" not in kinds:
        reason = "no OpenCL device: install pocl-opencl-icd"
        if os.environ.get("FLOWOS_REQUIRE"):
            pytest.fail(reason)
        pytest.skip(reason)
    out = run("image_pipeline", str(tmp_path / "edges.pgm"))
    assert "opencl0" in out
    pixels = np.frombuffer((tmp_path / "edges.pgm").read_bytes()[-256 * 256 :], np.uint8)
    sink = example("image_pipeline").program(example("image_pipeline").picture())
    sink.execute(on="here")
    wanted = 255 * sink.result / sink.result.max()
    assert np.abs(pixels.reshape(256, 256) - wanted).max() < 2


def test_parameter_server_sums_in_the_network_and_learns(cell, monkeypatch):
    module = example("parameter_server")
    monkeypatch.setitem(sys.modules, "parameter_server", module)
    monkeypatch.syspath_prepend(str(FOLDER))
    sinks, _ = module.program(4, 5)
    result = execute(*sinks)
    there = [sink.result for sink in sinks]
    execute(*sinks, on="here")
    np.testing.assert_allclose(there, [sink.result for sink in sinks], rtol=1e-9)
    losses = [weights[module.FEATURES] for weights in there]
    assert losses == sorted(losses, reverse=True)
    added = [ran for name, ran in result.tasks.items() if name.endswith("in the network")]
    assert len(added) == 5
    assert {ran.engine for ran in added} == {"fabric/0"}


def test_fir_stream_is_what_one_convolution_comes_to():
    module = example("fir_stream")
    before, after = module.program(20)
    execute(before, after, on="here")
    signal = np.concatenate(list(module.Signal(20).run()))
    low = module.LowPass(module.Signal(1))
    filtered = np.convolve(signal, low.taps)[: len(signal)][:: module.EVERY]
    np.testing.assert_allclose(after.result[0], np.mean(filtered**2), rtol=1e-9)
    assert f"power {before.result[0]:.4f} -> {after.result[0]:.4f}" in run("fir_stream", "20")
