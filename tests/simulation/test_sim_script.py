"""Does `make sim` show each thing that a seed breaks, with the command that shows it again?"""

import importlib.util
from functools import partial
from pathlib import Path

import pytest

import flowos_store.memory
from flowos.model.transaction import Put, Transaction
from tests.store import storm_of_streams
from tests.store.test_storm import TellsTwice

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "sim.py"


@pytest.fixture
def sim():
    spec = importlib.util.spec_from_file_location("flowos_sim_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_seed_has_a_line_with_a_digest_of_its_history_and_of_its_storm(sim, monkeypatch, capsys):
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    monkeypatch.setattr("sys.argv", ["sim.py", "--seed", "3", "--slices", "5"])
    assert sim.main() == 0
    line, last = capsys.readouterr().out.splitlines()
    assert line.startswith("seed     3: lawful")
    assert f"; storm {storm_of_streams.run(3)}" in line
    assert last.startswith("1 seeds in ")


class Scribbling(flowos_store.memory.MemoryStore):
    """Writes, once, what nobody asked for, and what breaks no law."""

    commits = 0

    def commit(self, transactions, **more):
        self.commits += 1
        if self.commits == 100:
            super().commit([Transaction((), (Put("nobody/x", b""),))])
        return super().commit(transactions, **more)


def test_a_history_without_a_serial_order_fails_with_its_replay(sim, monkeypatch):
    monkeypatch.setattr(flowos_store.memory, "MemoryStore", Scribbling)
    with pytest.raises(sim.Failed, match=r"(?s)no serial order: .*\nreplay: make sim SEED=1$"):
        sim.life(1, 10, lambda _line: None)


def test_a_watch_that_tells_what_is_not_so_fails_with_its_replay(sim, monkeypatch):
    mistaken = partial(storm_of_streams.run, subscription=TellsTwice)
    monkeypatch.setattr(storm_of_streams, "run", mistaken)
    with pytest.raises(sim.Failed, match=r"\nreplay: make sim SEED=1$"):
        sim.storm(1)
