"""Do a scheduler's figures come out as Prometheus text?"""

import socket
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flowos.model.errors import FlowosError
from flowos.runtime.metrics import Metrics
from flowos.runtime.scheduling import Scheduling
from tests.runtime.cells import small_cell, wanted
from tests.runtime.theatre import Theatre


@pytest.fixture
def served():
    metrics = Metrics(0, "batch-7")
    yield metrics
    metrics.close()


def read(metrics: Metrics) -> dict[tuple[str, str], float]:
    """Sample name and each of its labels -> value."""
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics.port}/metrics") as answer:
        text = answer.read().decode()
    return {
        (sample.name, label): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        for label in sample.labels.values()
    }


def test_nothing_is_shown_before_anything_is_known(served):
    assert read(served) == {}


def test_all_that_a_scheduler_has_done_is_shown(served):
    theatre = Theatre(small_cell(nodes=1))
    machine = theatre.scheduler().machine
    assert isinstance(machine, Scheduling)
    theatre.submit(wanted("a", gpus=1), wanted("b", gpus=1), wanted("c", gpus=1))
    theatre.settle()
    served.tell(machine.figures_now(10.0))
    shown = read(served)
    assert shown["flowos_scheduler_commits_total", "batch"] == 2
    assert shown["flowos_scheduler_placed_total", "batch"] == 2
    assert shown["flowos_scheduler_queue", "batch"] == 1
    assert shown["flowos_scheduler_attempts", "0.99"] == 1
    assert shown["flowos_scheduler_busy", "batch"] == 0


def test_what_was_lost_is_shown_by_cause_and_unit(served):
    theatre = Theatre(small_cell())
    machine = theatre.scheduler().machine
    assert isinstance(machine, Scheduling)
    machine._rejections.causes["engine taken"] += 3
    machine._rejections.units["engine/n0/gpu0"] += 3
    served.tell(machine.figures_now(10.0))
    shown = read(served)
    assert shown["flowos_scheduler_conflicts_by_cause_total", "engine taken"] == 3
    assert shown["flowos_scheduler_unit_rejected", "no"] == 3


def test_a_port_that_is_taken_is_said_in_one_sentence():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(FlowosError, match="--metrics-port"):
            Metrics(taken.getsockname()[1], "batch-0")
