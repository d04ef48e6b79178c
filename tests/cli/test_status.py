"""One screen of the whole cell, and what schedulers have done."""

import json

from flowos_cli.commands.stats import NOTHING_DONE, STATS
from flowos_cli.output import Output


def test_status_counts_engines_slices_and_who_is_alive(live):
    live("submit", "--engines", "gpu=15", "--name", "t", "--wait", "running")
    live("submit", "--engines", "gpu=2", "--name", "u")
    live("slice", "wait", "u", "--for", "allocated", "--timeout", "0.3", code=4)
    shown = live("status", "-o", "json").json
    gpus = next(row for row in shown["engines"] if row["kind"] == "gpu")
    assert (gpus["engines"], gpus["held"], gpus["free"]) == (16, 15, 1)
    assert shown["slices"] == {"pending": 1, "running": 1}
    assert shown["queue"] == [{"policy": "batch", "reason": "WaitingForEngines", "slices": 1}]
    assert shown["alive"] | {"leader": "controller-0"} == shown["alive"]
    assert (shown["alive"]["schedulers"], shown["alive"]["places"]) == (1, 6)
    assert shown["store"]["version"].startswith("3.")
    screen = live("status").out
    assert "1 of batch wait: WaitingForEngines" in screen
    assert max(map(len, screen.splitlines())) <= 80


def test_status_of_a_cell_without_processes_says_so(still):
    screen = still("status").out
    assert "none lives" in screen
    assert "agents at 0 of 6 places" in screen


def test_scheduler_stats_have_every_field_of_the_contract(live):
    live("submit", "--engines", "gpu=1", "--name", "t", "--wait", "running")

    def figures():
        (item,) = live("scheduler", "stats", "-o", "json").json["items"]
        return item

    while not figures()["commits"]:  # they are written once a second
        pass
    item = figures()
    assert (item["name"], item["policy"], item["commits"]) == ("batch-0", "batch", 1)
    fields = {
        "conflicts",
        "conflict_fraction",
        "plans_per_placed",
        "decision_ms",
        "commit_ms",
        "busy",
    }
    assert fields <= item.keys()
    assert item["decision_ms"].keys() == item["commit_ms"].keys() == {"p50", "p99"}
    (listed,) = live("scheduler", "ls", "-o", "json").json["items"]
    assert (listed["name"], listed["policy"]) == ("batch-0", "batch")


def test_scheduler_stats_say_what_one_more_process_would_do_and_why(live):
    (item,) = live("scheduler", "stats", "-o", "json").json["items"]
    assert item["one_more"] == "no matter"  # a cell where nothing waits
    assert "nothing waits" in item["advice"]
    wide = live("scheduler", "stats", "-o", "wide").lines
    assert "WHY 1 MORE" in wide[0]
    assert "nothing waits" in wide[1]
    assert {"conflicts_by_cause", "rejected_units", "attempts", "wait_seconds"} <= item.keys()


def test_top_is_for_terminals(still):
    assert "flowos status" in still("top", code=2).err


def test_status_takes_the_forms_that_lists_take(still):
    whole = still("status", "-o", "json").json
    (line,) = still("status", "-o", "jsonl").lines
    assert json.loads(line).keys() == whole.keys()
    assert still("status", "-o", "name").lines == [whole["cell"]]
    assert still("status", "-o", "wide").lines[0].startswith(f"cell {whole['cell']}")


def test_the_figures_of_schedulers_fit_a_terminal_of_80_columns(monkeypatch):
    busy = {
        **NOTHING_DONE, "name": "batch-12", "policy": "batch", "queue": 12_345, "commits": 123_456,
        "conflicts": 1_234, "conflict_fraction": 0.0123, "plans_per_placed": 1.0123,
        "decision_ms": {"p50": 0.023, "p99": 0.17}, "commit_ms": {"p50": 1.2, "p99": 14.0},
        "busy": 0.99, "one_more": "helps", "id": "batch-12@0123456789",
    }  # fmt: skip
    monkeypatch.setattr("flowos_cli.render.terminal_width", lambda: 80)
    lines = Output().lines(STATS, [busy])
    assert max(map(len, lines)) <= 80
    assert "123456" in lines[1]


def test_large_times_are_written_as_people_do():
    from flowos_cli.commands.stats import quantiles

    assert quantiles({"p50": 22.4, "p99": 123.6}) == "22/124"
    assert quantiles({"p50": 0.0321, "p99": 1.26}) == "0.032/1.3"
