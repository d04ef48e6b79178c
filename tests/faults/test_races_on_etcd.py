"""Are the worst races that are known as bad with real processes on a real etcd as they are said to be?"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.etcd
@pytest.mark.parametrize("name", ["all want most of the cell", "one queue for all"])
def test_a_race_that_was_found_breaks_no_law_and_is_no_worse(name):
    words = ["benchmarks/conflicts.py", "--on-etcd", name, "--rounds", "3", "--json"]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)["figures"]
    word = name.replace(" ", "_") + "_on_etcd"
    assert figures[f"{word}_violations"]["value"] == 0
    # Each scheduler loses once for each slice of another one at most, whatever the order.
    assert 0 <= figures[word]["value"] <= 4.0


def test_a_case_that_is_not_known_is_named_with_those_that_are():
    words = ["benchmarks/conflicts.py", "--on-etcd", "no such case"]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no case is called 'no such case': one of all want most of the cell" in done.stderr
