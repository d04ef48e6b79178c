"""Who serves which slices, as the operator's command says and shows it, and as submitting goes by it."""

import pytest

from flowos.model.codec import decode
from flowos.model.rules import PolicyRules

pytestmark = pytest.mark.etcd

RULES = """
default: service
ageing: 10m
assignments:
  - {policy: inference, kinds: [fpga], names: serve-*}
  - {policy: batch, engines_least: 4, preemptible: true}
settings:
  inference: {warm: 2}
"""


@pytest.fixture
def file(tmp_path):
    """Write a file and return its name."""

    def write(text, name="f.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def test_a_file_says_who_serves_what_and_show_says_it_again(still, file):
    assert still("cell", "policies", "show", "-o", "json").json == {
        "apiVersion": "flowos/v1",
        "kind": "Policies",
        "default": "batch",
        "ageing": "0s",
    }
    said = still("cell", "policies", "apply", file(RULES)).err.splitlines()
    assert said[0] == "policies: 2 assignments, service serves the rest"
    (record,) = still.store.read(["rule/policies"]).records
    assert decode(PolicyRules, record.value).settings == {"inference": {"warm": 2.0}}
    shown = ""
    for form in ("yaml", "json"):
        shown = still("cell", "policies", "show", "-o", form).out
        still("cell", "policies", "apply", file(shown, f"again.{form}"))
        assert still("cell", "policies", "show", "-o", form).out == shown
    again = still("cell", "policies", "apply", file(shown, "f.json")).err
    assert again.startswith("policies: unchanged\n")


def test_table_tells_in_words_which_slices_are_whose(still, file):
    still("cell", "policies", "apply", file(RULES))
    lines = still("cell", "policies", "show").lines
    assert any(
        "inference" in line and "with an engine of kind fpga, called serve-*" in line
        for line in lines
    )
    assert any(
        "batch" in line and "of 4 engines or more" in line and "yes" in line for line in lines
    )
    assert any("service" in line and "the rest" in line for line in lines)
    assert any(line.split() == ["inference", "warm", "2"] for line in lines)


def test_policies_that_nobody_serves_are_named_with_the_way_out(live, file):
    said = live("cell", "policies", "apply", file(RULES)).err
    for policy in ("inference", "service"):
        assert f"no scheduler serves {policy} now, so its slices wait" in said
        assert f"'flowos scheduler run {policy}'" in said
    assert "serves batch now" not in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("settings: {batch: {fare: 1}}", "did you mean fair?"),
        ("settings:\n  mpi:\n    leef: 1", ":3: "),
        ("assignments: [{policy: mpi, kind: gpu}]", "kinds"),
    ],
)
def test_what_cannot_be_meant_writes_nothing(still, file, text, said):
    assert said in still("cell", "policies", "apply", file(text), code=2).err
    assert not still.store.read(["rule/policies"]).records


def test_slices_that_name_no_policy_get_it_when_they_are_submitted(still, file):
    def submit(name, engines, *more):
        still("submit", "--name", name, "--engines", engines, *more)
        shown = still("slice", "show", name, "-o", "json").json
        return shown["policy"]

    assert submit("before", "gpu=1") == "batch"
    still("cell", "policies", "apply", file(RULES))
    assert submit("a", "gpu=1") == "service"
    assert submit("serve-a", "gpu=1") == "service"
    assert submit("serve-b", "fpga=1") == "inference"
    assert submit("b", "gpu=4") == "batch"
    assert submit("c", "gpu=4", "--policy", "mpi") == "mpi"
    found = still("slice", "show", "a", "-o", "json").json
    assert found["reason"] == "SchedulerDown"
