"""The forms of lists and shows: what goes where, and that nothing is cut or coloured for scripts."""

import json

import pytest
import yaml

from flowos_cli import render
from flowos_cli.render import Column


def test_table_off_a_terminal_is_whole_and_plain(still):
    name = "n" * 60
    still("submit", "--engines", "gpu=1", "--name", name)
    titles, row = still("ls").lines
    assert titles.split()[:3] == ["NAME", "TENANT", "PHASE"]
    assert row.split()[0] == name
    assert "\x1b" not in titles + row


def test_forms_tell_the_same(still):
    for name in ("a", "b"):
        still("submit", "--engines", "gpu=1", "--name", name)
    items = still("ls", "-o", "json").json
    assert yaml.safe_load(still("ls", "-o", "yaml").out) == items
    assert [json.loads(line) for line in still("ls", "-o", "jsonl").lines] == items["items"]
    assert still("ls", "-o", "name").lines == still("ls", "-q").lines == ["a", "b"]
    assert len(still("ls", "-o", "wide").lines[0]) > len(still("ls").lines[0])
    assert len(still("ls", "--no-headers").lines) == 2


def test_columns_choose_columns_and_fields(still):
    still("submit", "--engines", "gpu=1", "--name", "a")
    assert still("ls", "--columns", "phase,name,exit_code").lines == [
        "PHASE    NAME  EXIT CODE",
        "pending  a     -",
    ]
    assert still("ls", "--columns", "name,phase", "-o", "jsonl").json == {
        "name": "a",
        "phase": "pending",
    }
    said = still("ls", "--columns", "name,fase", code=2)
    assert "there is no column 'fase'" in said.err
    assert "phase" in said.err
    assert said.out == ""


def test_names_and_another_form_exclude_each_other(still):
    assert "-q" in still("ls", "-q", "-o", "json", code=2).err
    assert "'xml' is not one of" in still("ls", "-o", "xml", code=2).err


@pytest.mark.parametrize(
    "arguments",
    [
        ("engine", "ls"),
        ("switch", "ls"),
        ("circuit", "ls"),
        ("bitstream", "ls"),
        ("tenant", "ls"),
        ("power", "show"),
        ("scheduler", "ls"),
        ("scheduler", "stats"),
        ("cell", "presets"),
        ("slice", "ls"),
    ],
)
def test_every_list_is_items_below_the_version(still, arguments):
    found = still(*arguments, "-o", "json").json
    assert found.keys() == {"apiVersion", "items"}
    assert found["apiVersion"] == "flowos/v1"
    still(*arguments)
    still(*arguments, "-o", "wide")
    still(*arguments, "-q")


def test_widest_column_is_cut_on_a_narrow_terminal():
    columns = [Column("name", lambda i: i["name"]), Column("what", lambda i: i["what"])]
    items = [{"name": "a" * 10, "what": "b" * 40}]
    lines = render.table(columns, items, width=30)
    assert max(map(len, lines)) == 30
    assert lines[1] == "a" * 10 + "  " + "b" * 17 + "…"


def test_control_characters_of_a_text_do_not_reach_the_terminal():
    columns = [Column("name", lambda i: i["name"])]
    assert render.table(columns, [{"name": "a\x1b[2Jb"}], headers=False) == ["a?[2Jb"]


def test_cut_line_keeps_its_colours_and_its_width():
    line = render.paint("abcdef", "good", colour=True) + "ghi"
    cut = render.shortened(line, 5)
    assert render.width_of(cut) == 5
    assert cut.startswith("\x1b[32mabcd")
    assert render.shortened(line, 9) == line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0, "0s"), (119, "119s"), (200, "3m"), (7300, "2h"), (2e5, "2d")],
)
def test_ages_are_short(seconds, text):
    assert render.age(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (512, "512 B"), (1536, "1.5 KiB"), (40 * 2**30, "40 GiB")]
)
def test_amounts_have_binary_units(count, text):
    assert render.amount(count) == text


def test_every_part_of_a_bar_is_seen():
    assert render.bar([(1, "held"), (1, "off")], 10_000, 10, colour=False) == "█▓" + "░" * 8
    assert render.bar([(0, "held")], 0, 4, colour=False) == "░░░░"


def test_the_last_column_may_go_on_below_where_a_terminal_is_narrow():
    name = Column("name", lambda i: i["name"])
    columns = (name, Column("what", lambda i: i["what"], wraps=True))
    said = {"a": "one two three four five", "b": "six", "c": ""}
    items = [{"name": key, "what": what} for key, what in said.items()]
    assert render.table(columns, items, width=20) == [
        "NAME  WHAT",
        "a     one two three",
        "      four five",
        "b     six",
        "c",
    ]
    assert "a     one two three four five" in render.table(columns, items)
    cut = (name, Column("what", lambda i: i["what"]))
    assert render.table(cut, items, width=20)[1] == "a     one two three…"


@pytest.mark.parametrize("module", ["history", "reservation", "events"])
def test_what_many_look_at_fits_a_terminal_of_100_columns(module):
    at = 1_795_413_467.26
    items = {
        "history": {
            "name": "train-resnet50", "tenant": "default", "number": 12, "engines": ["n0/gpu0"] * 128,
            "from_at": at, "until_at": at + 86_000, "engine_hours": 12_345.678,
            "watt_hours": 123_456.7, "ended": "queued again",
        },
        "reservation": {
            "name": "night-shift", "state": "planned", "tenants": [],
            "from": "2026-12-01T08:00:00Z", "until": "2026-12-01T11:00:00Z",
            "units": ["engine/n0/gpu0"] * 16, "held": 16, "in_use": 12, "in_the_way": ["default/base"],
        },
        "events": {
            "revision": 123_456, "at": at, "phase": "provisioning", "reason": "BehindHigherPriority",
            "what": "reservation fans keeps 8 of the units that it fits on for maintenance, until then",
        },
    }  # fmt: skip
    from flowos_cli.commands import events, history, reservation

    listing = {
        "history": history.LINES,
        "reservation": reservation.RESERVATIONS,
        "events": events.EVENTS,
    }[module]
    columns = [column for column in listing.columns if not column.wide]
    lines = render.table(columns, [items[module]], width=100)
    assert max(map(len, lines)) <= 100
    assert "…" not in "".join(lines)
