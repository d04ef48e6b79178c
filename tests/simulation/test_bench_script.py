"""Does `make bench` run what can be run, go on after a failure, and tell goals that are missed?"""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "bench.py"
HEAD = 'import sys\nif __name__ == "__main__":\n    '


@pytest.fixture
def bench():
    spec = importlib.util.spec_from_file_location("flowos_bench_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[spec.name]


def figures(**oks):
    found = {
        name: {"value": 1, "unit": "s", "goal": "<= 1 s", "ok": ok} for name, ok in oks.items()
    }
    return json.dumps({"figures": found})


@pytest.fixture
def folder(bench, tmp_path, monkeypatch):
    (tmp_path / "parts.py").write_text("X = 1\n")
    (tmp_path / "broken.py").write_text(f"{HEAD}sys.exit('no trace here')\n")
    (tmp_path / "good.py").write_text(
        f"{HEAD}assert sys.argv[1:] == ['--quick', '--json']\n"
        f"    print('hello')\n    print({figures(a=True, b=None)!r})\n"
    )
    (tmp_path / "mute.py").write_text(f"{HEAD}print('nothing')\n")
    (tmp_path / "slow.py").write_text(f"{HEAD}print({figures(c=True, d=False)!r})\n")
    monkeypatch.setattr(bench, "FOLDER", tmp_path)
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    return tmp_path


def called(bench, monkeypatch, capsys, *words):
    monkeypatch.setattr("sys.argv", ["bench.py", *words])
    code = bench.main()
    return code, capsys.readouterr().out.splitlines()


def test_all_are_run_whatever_fails(bench, folder, monkeypatch, capsys):
    code, lines = called(bench, monkeypatch, capsys)
    assert code == 1
    told = [line.split() for line in lines]
    assert [row[0] for row in told[:6]] == ["BENCHMARK", "broken", "good", "mute", "slow", "all"]
    assert told[1][-1] == told[3][-1] == "FAILED"
    assert told[2][1:4] == ["1", "0", "2"]
    assert told[5][1:4] == ["2", "1", "4"]
    assert "failed: broken ended with 1: no trace here" in lines
    assert "failed: mute printed no figures" in lines
    assert "missed: slow d: 1 s, goal <= 1 s" in lines


def test_a_missed_goal_is_a_failure_only_where_that_is_asked_for(
    bench, folder, monkeypatch, capsys
):
    assert called(bench, monkeypatch, capsys, "--only", "slow")[0] == 0
    assert called(bench, monkeypatch, capsys, "--only", "slow", "--strict")[0] == 1
    code, (line,) = called(bench, monkeypatch, capsys, "--only", "good", "--strict", "--json")
    assert code == 0
    assert list(json.loads(line)["good"]["figures"]) == ["a", "b"]
    with pytest.raises(SystemExit, match="no benchmark has 'x' in its name"):
        called(bench, monkeypatch, capsys, "--only", "x")


def test_one_that_never_ends_is_ended(bench, folder):
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    assert bench.run(command, "x", timeout_s=0.2).failure == "was not done after 0.2 s"


def test_every_benchmark_of_ours_is_found(bench):
    found = {path.stem for path in bench.benchmarks(bench.FOLDER)}
    assert {"omega", "commit", "verify"} <= found
    assert "harness" not in found
