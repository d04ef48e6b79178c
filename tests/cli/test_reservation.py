"""Reservations as their operators make them: on real etcd, with real processes."""

import time
from datetime import UTC, datetime

import pytest


def ls(flowos, name="r"):
    items = flowos("reservation", "ls", "-o", "json").json["items"]
    return next((item for item in items if item["name"] == name), None)


def until(look, seconds=20.0):
    """Look until it is so."""
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, "it did not come true"


def test_a_window_opens_serves_its_tenant_and_is_removed(live):
    live("tenant", "set", "physics")
    live("reservation", "add", "r", "--engines", "gpu=4", "--tenant", "physics", "--why", "talk")
    until(lambda: ls(live)["held"] == 4)
    shown = ls(live)
    assert (shown["state"], shown["in_use"], shown["why"]) == ("open", 0, "talk")
    engine = shown["units"][0].partition("/")[2]
    assert live("engine", "show", engine, "-o", "json").json["state"] == "reserved"
    live("submit", "--engines", "gpu=1", "--name", "p", "--tenant", "physics", "--wait", "running")
    live("reservation", "rm", "r")
    until(lambda: not live("engine", "ls", "--state", "reserved", "-q").lines)
    assert ls(live) is None
    assert live("cell", "verify", "-o", "json").json["violations"] == []


def test_a_slice_of_the_tenant_goes_into_the_window_and_others_are_told_of_it(live):
    live("tenant", "set", "physics")
    gpus = len(live("engine", "ls", "--kind", "gpu", "-q").lines)
    live(
        "reservation", "add", "r", "--engines", f"gpu={gpus}", "--tenant", "physics", "--for", "2h"
    )
    until(lambda: ls(live)["held"] == gpus)
    live("submit", "--engines", "gpu=1", "--name", "other")
    until(lambda: live("slice", "show", "other", "-o", "json").json["reason"] == "ReservedForOther")
    told = live("explain", "other").out
    assert "reservation r keeps" in told
    assert "flowos reservation rm r" in told
    live("submit", "--engines", "gpu=2", "--name", "p", "--tenant", "physics", "--wait", "running")
    until(lambda: (ls(live)["in_use"], ls(live)["held"]) == (2, gpus - 2))
    assert ls(live)["slices"] == ["physics/p"]


def test_maintenance_keeps_a_node_and_its_engines(live):
    live("submit", "--engines", "gpu=1", "--name", "a", "--wait", "running")
    node = live("slice", "show", "a", "-o", "json").json["engines"][0]["node"]
    live("reservation", "add", "r", "--units", node, "--maintenance")
    until(lambda: ls(live)["held"] == len(ls(live)["units"]))
    assert f"node/{node}" in ls(live)["units"]
    until(lambda: live("slice", "show", "a", "-o", "json").json["phase"] == "running")
    assert live("slice", "show", "a", "-o", "json").json["engines"][0]["node"] != node


def test_a_planned_window_says_when(still):
    still("tenant", "set", "physics")
    until_at = datetime(2199, 5, 1, 8, 0, tzinfo=UTC)
    still(
        "reservation", "add", "r", "--units", "n0/gpu0,n1", "--tenant", "physics",
        "--from", "+2h", "--until", until_at.isoformat(), "--no-evict",
    )  # fmt: skip
    shown = ls(still)
    assert (shown["state"], shown["held"], shown["evict"]) == ("planned", 0, False)
    assert shown["until"] == "2199-05-01T08:00:00Z"
    assert "engine/n0/gpu0" in shown["units"]
    assert "engine/n1/gpu0" in shown["units"]
    assert "node/n1" not in shown["units"]
    assert "planned" in still("reservation", "ls").out


def test_engines_are_chosen_that_no_other_window_keeps_at_that_time(still):
    still("tenant", "set", "physics")
    gpus = len(still("engine", "ls", "--kind", "gpu", "-q").lines)
    add = ("reservation", "add")
    still(*add, "a", "--engines", f"gpu={gpus - 1}", "--tenant", "physics", "--for", "1h")
    still(*add, "b", "--engines", "gpu=1", "--tenant", "physics", "--for", "1h")
    assert not {*ls(still, "a")["units"]} & {*ls(still, "b")["units"]}
    said = still(*add, "c", "--engines", "gpu=1", "--tenant", "physics", "--for", "1h", code=2)
    assert f"1 gpu are asked for, 0 of {gpus} can be kept then" in said.err
    still(*add, "c", "--engines", f"gpu={gpus}", "--tenant", "physics", "--from", "+61m")


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (("--units", "n0/gpu0", "--tenant", "nobody"), "'flowos tenant set nobody' makes it"),
        (("--engines", "gpux=1", "--maintenance"), "no engines of kind 'gpux': it has "),
        (("--units", "n77", "--maintenance"), "there is no engine, node or switch n77"),
        (("--units", "n0", "--maintenance", "--until", "2020-01-01T00:00Z"), "is before"),
        (("--units", "n0", "--maintenance", "--from", "+2h", "--until", "+1h"), "it begins"),
        (("--units", "n0", "--maintenance", "--from", "soon"), "'soon' is no time"),
        (("--units", "n0", "--maintenance", "--for", "long"), "--for"),
        (("--units", "n0", "--maintenance", "--for", "1h", "--until", "+1h"), "--until or --for"),
        (
            (
                "--units",
                "n0",
            ),
            "--tenant T, or --maintenance",
        ),
        (("--maintenance",), "--engines gpu=8, or --units"),
        (("--engines", "gpu=x", "--maintenance"), "is no number of engines"),
        (("--engines", "gpu=9999", "--maintenance"), "can be kept then"),
        (("--units", "n0/gpu1", "--maintenance"), "n0/gpu1 is kept by reservation there"),
    ],
)
def test_what_cannot_be_kept_is_refused_in_one_sentence(still, more, what):
    still("reservation", "add", "there", "--units", "n0/gpu1", "--maintenance")
    said = still("reservation", "add", "r", *more, code=2)
    assert what in said.err
    assert ls(still) is None


def test_names_are_unique_and_what_is_not_there_cannot_be_removed(still):
    still("reservation", "add", "r", "--units", "n0", "--maintenance")
    again = still("reservation", "add", "r", "--units", "n1", "--maintenance", code=2)
    assert "there is a reservation r already" in again.err
    still("reservation", "add", "s", "--units", "n1", "--maintenance")
    assert "there is no reservation q" in still("reservation", "rm", "r", "q", code=2).err
    assert ls(still) is not None  # where one name is wrong, nothing is removed
    still("reservation", "rm", "r", "s")
    assert ls(still) is None
    assert "there is no reservation r" in still("reservation", "rm", "r", code=2).err
    assert (
        "no name for a reservation"
        in still("reservation", "add", "R/x", "--units", "n1", "--maintenance", code=2).err
    )
