"""Does a whole cell keep its laws and come to rest whatever goes wrong, and would we see if not?"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flowos.model.errors import StoreError
from flowos.simulation.trial import Failure, Trial
from flowos.simulation.wire import Mishaps
from flowos_schedulers.batch import Batch
from flowos_store.memory import MemoryStore
from tests.simulation.planted import MISTAKES

ROOT = Path(__file__).parent.parent.parent
PATHS = os.pathsep.join(str(ROOT / folder) for folder in (".", "store", "schedulers"))
SEEDS = [str(seed) for seed in (*range(1, 31), 96)]  # 96: a grant in use when its answer is lost


def run(*words: str, hashing: str = "0") -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own: the order of its sets is a part of the seed."""
    environment = {**os.environ, "PYTHONPATH": PATHS, "PYTHONHASHSEED": hashing}
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )


def test_the_cell_keeps_its_laws_and_comes_to_rest_whatever_goes_wrong():
    done = run("scripts/sim.py", "--seeds", "1-8")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert sum("lawful" in line for line in lines) == 8
    assert lines[-1].endswith("0 failed")


def test_the_same_seed_is_the_same_run_byte_for_byte():
    one, other = (run("scripts/sim.py", "--seed", "5", "--verbose", hashing=h) for h in "12")
    assert one.stdout.splitlines()[:-1] == other.stdout.splitlines()[:-1]
    assert len(one.stdout.splitlines()) > 500
    assert "history " in one.stdout


def test_another_seed_is_another_run():
    done = run("scripts/sim.py", "--seeds", "5-6")
    digests = {line.rpartition(" ")[2] for line in done.stdout.splitlines() if "history" in line}
    assert len(digests) == 2


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_found(mistake):
    done = run("-m", "tests.simulation.planted", mistake, *SEEDS)
    assert done.returncode == 1, f"nobody noticed {mistake}\n{done.stdout}{done.stderr}"
    assert "Failure: seed" in done.stdout, done.stdout + done.stderr
    assert "replay: make sim SEED=" in done.stdout


def test_without_a_mistake_the_same_weather_breaks_nothing():
    done = run("-m", "tests.simulation.planted", "none", *SEEDS[:8])
    assert done.returncode == 0, done.stdout + done.stderr


def trial(seed: int = 3, **more) -> Trial:
    return Trial(seed, new_store=MemoryStore, policy=Batch(), slices=8, **more)


def test_a_broken_law_is_named_with_its_revision_the_last_transactions_and_the_replay():
    seen = trial()
    seen.timeline.after(
        5.0, lambda: seen.broken.append("law 'claims' is broken at revision 7: x: y")
    )
    with pytest.raises(Failure) as failure:
        seen.run()
    text = str(failure.value)
    assert "law 'claims' is broken at revision 7" in text
    assert "last transactions:\n  " in text
    assert text.endswith("replay: make sim SEED=3")


def test_every_write_is_handed_on_with_when_it_was_sent_and_answered():
    noted = []
    seen = trial(on_request=lambda *what: noted.append(what))
    report = seen.run()
    assert len(noted) == report.requests > 20
    for transactions, sent_at, outcome, answered_at in noted:
        assert answered_at >= sent_at >= 0
        if not isinstance(outcome, StoreError):
            assert len(outcome) == len(transactions)


def test_in_fair_weather_no_answer_is_lost():
    assert trial(mishaps=Mishaps()).site.mishaps == Mishaps()
    calm = trial(mishaps=Mishaps())
    calm._plan_disasters = lambda: None  # type: ignore[method-assign]
    report = calm.run()
    assert (report.unknown, report.deaths) == (0, 0)
