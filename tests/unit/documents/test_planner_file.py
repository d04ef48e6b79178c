"""What an operator tells planners, read from files and tables of measured speeds."""

import json
from pathlib import Path

import pytest

from flowos.documents.planner_file import load_planner, planner_document
from flowos.model.errors import FileError
from flowos.model.rules import NO_RULES, PlannerRules
from flowos.planning.engines.weights import DEFAULT, Weights, weights_of
from tests.conftest import require

TRACES = Path(__file__).parents[4] / "shared" / "traces"


@pytest.fixture
def read(tmp_path):
    """Write a file and read it."""

    def reading(text, **tables):
        for name, lines in tables.items():
            (tmp_path / f"{name}.csv").write_text(lines)
        path = tmp_path / "planner.yaml"
        path.write_text(text)
        return load_planner(path, weights=Weights._fields)

    return reading


def test_empty_mapping_is_the_defaults(read):
    assert read("{}") == NO_RULES == PlannerRules()
    assert weights_of(read("{}")) == DEFAULT


def test_all_of_it_is_read_and_written_back(read):
    rules = read(
        "weights: {load: 1.5}\nspeeds: {bert: {A100: 2e3}}\nunits: {bert: samples}\n"
        "joule_seconds: 0.25\ncircuit_setup: 3ms\nwake: 1m\nreport: {seeds: 10, by: tune}\n"
    )
    assert rules == PlannerRules(
        weights={"load": 1.5},
        speeds={"bert": {"A100": 2000.0}},
        units={"bert": "samples"},
        joule_seconds=0.25,
        circuit_seconds=0.003,
        wake_seconds=60.0,
        report={"seeds": 10, "by": "tune"},
    )
    assert read(json.dumps(planner_document(rules))) == rules
    assert weights_of(rules) == DEFAULT._replace(load=1.5)


def test_of_several_rates_of_a_model_the_fastest_counts(read):
    table = (
        "engine_model,work_type,scenario,unit,rate_per_engine\n"
        "A,bert,offline,samples/s,3\nA,bert,server,samples/s,2\nB,bert,offline,samples/s,\n"
    )
    rules = read("speeds_from: t.csv", t=table)
    assert rules.speeds == {"bert": {"A": 3.0}}
    assert rules.units == {"bert": "samples"}


def test_rates_of_one_engine_count_in_a_table_by_model(read):
    table = (
        "work_type,num_engines,k80,v100,v100_unconsolidated,k80_rel_v100,v100_spread_penalty\n"
        "lm,1,2,5,5,0.4,1\nlm,2,4,9,3,0.4,0.3\nbig,1,0,7,7,0,1\n"
    )
    rules = read("speeds_from: t.csv", t=table)
    assert rules.speeds == {"lm": {"K80": 2.0, "V100": 5.0}, "big": {"V100": 7.0}}


def test_what_the_file_itself_says_has_the_last_word(read):
    table = "engine_model,work_type,rate_per_engine\nA,bert,3\nB,bert,4\n"
    rules = read("speeds_from: t.csv\nspeeds: {bert: {A: 30}}", t=table)
    assert rules.speeds == {"bert": {"A": 30.0, "B": 4.0}}


def test_model_that_the_table_does_not_have_is_named_with_the_nearest(read):
    table = "engine_model,work_type,rate_per_engine\nA100-SXM,bert,3\n"
    with pytest.raises(FileError, match="did you mean A100-SXM"):
        read("speeds_from: {file: t.csv, models: {A100: A100-SMX}}", t=table)


@pytest.mark.parametrize(
    "table",
    ["", "a,b\n1,2\n", "engine_model,work_type\nA,bert\n"],
)
def test_other_table_is_refused(read, table):
    with pytest.raises(FileError, match="is no table of speeds"):
        read("speeds_from: t.csv", t=table)


@pytest.mark.parametrize("rate", ["-1", "nan", "inf", "fast", "1e30"])
def test_rate_that_is_none_is_refused_with_its_line(read, rate):
    table = f"engine_model,work_type,rate_per_engine\nA,bert,3\nB,bert,{rate}\n"
    with pytest.raises(FileError, match=r"t\.csv:3: "):
        read("speeds_from: t.csv", t=table)


@pytest.mark.parametrize(
    ("table", "work", "model", "rate"),
    [
        ("engine_throughput_mlperf.csv", "bert", "H100-SXM-80GB", 9109.5),
        ("gavel_throughput.csv", "CycleGAN", "V100", 4.42609),
    ],
)
def test_measured_tables_can_be_read_as_they_are(read, table, work, model, rate):
    require("traces", (TRACES / table).exists(), "shared/traces lies beside the project")
    rules = read(f"speeds_from: {TRACES / table}")
    assert rules.speeds[work][model] == rate
