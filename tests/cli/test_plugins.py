"""`flowos scheduler plugins`, and what a plug-in of somebody else that is broken does: nothing."""

import json
from pathlib import Path

import pytest

from flowos.model.errors import SpecError, UnknownName
from flowos.runtime.plugins import installed, load, misfit, plugin_named
from flowos_cli.commands.plugins import policy_named
from flowos_cli.main import run
from flowos_schedulers.batch import Batch
from tests.faults.others import BAD, package

GOOD = "from flowos.planning.policy import Policy\nclass P(Policy):\n    '''Says what it does.'''\n"
# name -> (source, entry point's target, what is said)
BROKEN = {
    "syntax": ("def", "{m}:P", "SyntaxError"),
    "missing": ("import nothing_of_this_name", "{m}:P", "No module named 'nothing_of_this_name'"),
    "nothing": ("", "{m}:P", "has no attribute 'P'"),
    "exits": ("raise SystemExit(3)", "{m}:P", "SystemExit: 3"),
    "unmade": (GOOD + "    def __init__(self, x): pass", "{m}:P", "TypeError"),
    "number": ("P = 7", "{m}:P", "its name is None"),
    "nameless": (GOOD, "{m}:P", "its name is ''"),
    "other": (GOOD + "    name = 'another'", "{m}:P", "it calls itself 'another'"),
    "signs": (
        GOOD + "    name = 'signs'\n    def plan(self, spec): pass",
        "{m}:P",
        "plan(spec) cannot be asked as plan(pool, spec, *, seed, avoid)",
    ),
    "half": (
        "class P:\n    name = 'half'\n    reorders = backfills = False\n    settings = {}\n",
        "{m}:P",
        "it has no method order(waits)",
    ),
    "later": (
        GOOD + "    name = 'later'\n    async def feasible(self, spec, pool): pass",
        "{m}:P",
        "feasible is to answer when it is asked",
    ),
    "lawless": (
        GOOD + "    name = 'lawless'\n    def order(self, waits): return (0,)",
        "{m}:P",
        "orders_all",
    ),
}


@pytest.fixture
def others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where packages count as installed; no store is to be found."""
    folder = tmp_path / "others"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("FLOWOS_DATA_DIR", str(tmp_path / "none"))
    monkeypatch.delenv("FLOWOS_ENDPOINTS", raising=False)
    return folder


def listed(capsys, *words):
    capsys.readouterr()
    code = run(["scheduler", "plugins", "-o", "json", *words])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return code, {p["name"]: p for p in json.loads(said.out)["items"]}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_broken_plugin_is_one_sentence_with_its_package_and_breaks_nobody_else(
    name, others, capsys
):
    source, target, words = BROKEN[name]
    module = f"others_{name}"
    package(others, module, source, f"{name} = {target.format(m=module)}")
    assert run(["scheduler", "run", name]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("error: ")
    assert f"scheduler '{name}' of package {module} ({name} = {module}:P)" in said
    assert words in said
    assert isinstance(policy_named("batch"), Batch)
    assert run(["scheduler", "--help"]) == 0
    code, found = listed(capsys)
    assert code == 0
    assert found["batch"]["state"] == "ok"
    assert found[name]["state"] == ("ok" if name == "lawless" else "broken")
    assert {p["state"] for other, p in found.items() if other != name} == {"ok"}
    code, found = listed(capsys, "--check", name)
    assert code == 2
    assert found.keys() == {name}
    assert words in found[name]["problem"]


def test_what_is_installed_is_listed_without_a_store(others, capsys):
    package(
        others, "others_good", GOOD + "    name = 'good'", "good = others_good:P", version="2.1"
    )
    _, found = listed(capsys, "--check", "good")
    assert found["good"] == {
        "apiVersion": "flowos/v1",
        "name": "good",
        "package": "others_good",
        "version": "2.1",
        "module": "others_good",
        "purpose": "Says what it does.",
        "state": "ok",
        "checked": True,
        "broken": [],
        "problem": "",
        "runs": None,
    }
    assert run(["scheduler", "plugins"]) == 0
    table = capsys.readouterr().out
    assert "Says what it does." in table
    assert run(["scheduler", "plugins", "-o", "wide"]) == 0
    assert "others_good 2.1" in capsys.readouterr().out


def test_the_table_of_our_own_is_read_on_100_columns(others, capsys):
    assert run(["scheduler", "plugins"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAME", "STATE", "RUNS", "PURPOSE"]
    assert max(map(len, lines)) <= 100


def test_a_name_that_another_package_has_is_told_beside_the_table(others, capsys):
    package(others, "others_batch", GOOD + "    name = 'batch'", "batch = others_batch:P")
    assert run(["scheduler", "plugins", "batch"]) == 0
    said = capsys.readouterr()
    assert [line.split()[:2] for line in said.out.splitlines()[1:]] == [
        ["batch", "ok"],
        ["batch", "taken"],
    ]
    assert said.err == (
        "batch of package others_batch: package flowos has a scheduler of this name\n"
    )


def test_a_bad_one_that_behaves_when_it_is_tried_is_let_in(others):
    package(others, "flowos_bad", BAD, "bad = flowos_bad:Bad")
    assert policy_named("bad").name == "bad"


def test_looking_for_plugins_imports_none(others):
    package(others, "others_dear", "raise RuntimeError", "dear = others_dear:P")
    assert "dear" in {plugin.name for plugin in installed()}


def test_nobody_takes_the_name_of_one_that_ships(others, capsys):
    package(others, "a_thief", GOOD + "    name = 'batch'", "batch = a_thief:P")
    assert isinstance(policy_named("batch"), Batch)
    assert [p.taken_by for p in installed() if p.name == "batch"] == ["", "flowos"]
    assert run(["scheduler", "plugins"]) == 0
    assert "taken" in capsys.readouterr().out


def test_two_packages_with_one_name_are_refused(others):
    for module in ("others_one", "others_two"):
        package(others, module, GOOD + "    name = 'same'", f"same = {module}:P")
    with pytest.raises(SpecError, match=r"others_one and others_two.*pip uninstall others_two"):
        plugin_named("same")


def test_an_object_that_has_all_of_it_will_do(others):
    source = GOOD.replace("class P", "class Made") + "    name = 'made'\nP = Made()"
    package(others, "others_made", source, "made = others_made:P")
    assert load(plugin_named("made")).name == "made"


def test_a_name_that_nobody_has_is_told_with_those_there_are():
    with pytest.raises(UnknownName, match=r"there is no scheduler 'best': installed are .*batch"):
        plugin_named("best")


def test_what_ships_fits():
    assert misfit(Batch(), "batch") == ""


@pytest.mark.parametrize("text", ["0", "soon"])
def test_a_time_that_is_none_is_refused_before_anything_starts(others, capsys, text):
    assert run(["scheduler", "run", "batch", "--decision-timeout", text]) == 2
    assert text in capsys.readouterr().err
