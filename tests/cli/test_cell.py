"""Loading a cell, looking at it, writing it down and verifying its shared state."""

import json

import pytest
import yaml

from flowos.documents.presets import preset
from flowos.model import keys
from flowos.model.errors import StillContended
from flowos.model.transaction import Delete, Put, Transaction
from flowos.runtime import loading
from flowos.runtime.loading import LOADING, load_cell_into


def test_cell_init_loads_everything_and_the_totals(empty):
    said = empty("cell", "init", "fic-small")
    assert said.out == ""
    assert "24 engines" in said.err
    shown = empty("cell", "show", "-o", "json").json
    assert shown["engines"] == 24
    assert shown["kinds"]["gpu"] == {"engines": 16, "models": {"A100": 16}}
    assert shown["source"] == "fic-small"
    assert len(empty.store.read(["engine/"]).records) == 24
    assert not empty.store.read([LOADING]).records


def test_export_reads_back_as_the_same_cell(empty, tmp_path):
    empty("cell", "init", "fic")
    first = {form: empty("cell", "export", "-o", form).out for form in ("yaml", "json")}
    assert yaml.safe_load(first["yaml"]) == json.loads(first["json"])
    for form, text in first.items():
        file = tmp_path / f"cell.{form}"
        file.write_text(text)
        empty("cell", "init", str(file), "--replace")
        assert empty("cell", "export", "-o", form).out == text


def test_second_cell_is_refused_unless_it_replaces_the_first(still, written):
    with written(still.store) as count:
        said = still("cell", "init", "expether", code=2)
    assert count == [0]
    assert "--replace" in said.err
    still("cell", "init", "expether", "--replace")
    assert still("cell", "show", "-o", "json").json["engines"] == 12
    assert {r.key for r in still.store.read(["bitstream/"]).records} == set()


@pytest.mark.parametrize("use", ["submit --engines gpu=1 --name t", "engine drain n0/gpu0"])
def test_cell_in_use_is_not_replaced(still, written, use):
    still(*use.split())
    with written(still.store) as count:
        said = still("cell", "init", "expether", "--replace", code=2)
    assert count == [0]
    assert "in use by" in said.err


def test_half_loaded_cell_is_no_cell_and_the_next_load_cleans_up(empty, monkeypatch):
    class Killed(Exception):
        pass

    def die(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(loading, "_finish", die)
        with pytest.raises(Killed):
            load_cell_into(empty.store, preset("fic"))
    assert empty.store.read(["engine/"]).records
    assert "no cell" in empty("ls", code=2).err
    assert "no cell" in empty("submit", "--engines", "gpu=1", code=2).err
    empty("cell", "init", "fic-small")
    assert empty("cell", "show", "-o", "json").json["engines"] == 24
    assert len(empty.store.read(["engine/"]).records) == 24


def test_loader_that_was_overtaken_stops_and_the_other_cell_stands(empty, monkeypatch):
    finish = loading._finish

    def overtaken(store, *rest):
        with monkeypatch.context() as patch:
            patch.setattr(loading, "_finish", finish)
            load_cell_into(empty.store, preset("fic-small"))
        return finish(store, *rest)

    monkeypatch.setattr(loading, "_finish", overtaken)
    with pytest.raises(StillContended):
        load_cell_into(empty.store, preset("fic"))
    assert empty("cell", "show", "-o", "json").json["engines"] == 24


def test_progress_ends_with_all_that_is_written(empty):
    told = []
    load_cell_into(empty.store, preset("fic"), progress=lambda done, of: told.append((done, of)))
    assert told[-1][0] == told[-1][1] == 1 + 5 + 2 + 16 + 32 + 256 + 320


def test_wrong_cell_file_is_named_and_nothing_is_written(empty, tmp_path, written):
    file = tmp_path / "cell.yaml"
    file.write_text("kind: Cell\nnodes: [{name: n0, engnes: []}]\n")
    with written(empty.store) as count:
        assert f"{file}:2" in empty("cell", "init", str(file), code=2).err
        assert "neither a file nor a preset" in empty("cell", "init", "fick", code=2).err
        assert "cannot be read" in empty("cell", "init", "no/such.yaml", code=2).err
    assert count == [0]


def test_verify_has_every_field_of_the_contract(live):
    live("submit", "--engines", "gpu=1", "--run-for", "1ms", "--wait", "done")
    now = live("cell", "verify", "-o", "json").json
    assert now["from"] == now["to"] == now["revision"]
    assert now["checked"] == {"engines": 24, "slices": 1, "revisions": 1}
    assert now["violations"] == []
    past = live("cell", "verify", "--history", "-o", "json").json
    assert past["from"] < past["to"]
    assert past["checked"]["revisions"] == past["to"] - past["from"] + 1
    assert past["violations"] == []
    assert "every law holds" in live("cell", "verify").out


def test_verify_ends_with_6_where_a_law_is_broken(live):
    live("submit", "--engines", "gpu=1", "--name", "t", "--wait", "running")
    live.stop()
    claim = live.store.read(["claim/engine/"]).records[0]
    live.store.commit([Transaction((), (Delete(claim.key),))])
    said = live("cell", "verify", "-o", "json", code=6)
    assert {violation["law"] for violation in said.json["violations"]}
    assert claim.key.removeprefix("claim/") in live("cell", "verify", code=6).out


def test_verify_of_no_cell_is_refused(empty):
    assert "cell init" in empty("cell", "verify", code=2).err
    assert empty("cell", "verify", "--history", "--follow", code=2).out == ""


def test_cell_loaded_by_an_older_hand_is_shown_too(still):
    info = {"apiVersion": "flowos/v1", "name": "main"}
    still.store.commit([Transaction((), (Put(keys.INFO, json.dumps(info).encode()),))])
    assert still("cell", "show", "-o", "json").json["source"] == ""
