"""How does a monitoring system read what a scheduler does? As Prometheus text on a local port.

The names below are a contract: dashboards rely on them. Times are in seconds, as is usual there.
"""

import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from flowos.model.errors import FlowosError

if TYPE_CHECKING:
    from prometheus_client.core import Metric

HOST: Final = "127.0.0.1"  # for an exporter on the same machine; figures say who works on what

_COUNTERS: Final = {
    "commits": "Commits that happened",
    "conflicts": "Commits that conflicted",
    "plans": "Plans that were made",
    "placed": "Slices that were placed",
    "refused": "Commits that the store did not take",
    "repaired": "Plans of which only what a rival took was planned anew",
    "preemptions": "Slices that took over from others",
    "marks": "Marks that were put for slices that waited for long",
}
_BY_KEY: Final = {
    "conflicts_by_cause": ("cause", "Why commits conflicted"),
    "rejected_by_kind": ("kind", "Units that were lost to others"),
    "policy_failures": ("method", "Answers of the policy that could not be used"),
}
_SUMMARIES: Final = {
    "decision_ms": ("decision_seconds", 1000, "Time to plan one slice"),
    "commit_ms": ("commit_seconds", 1000, "Time from a request to its answer"),
    "attempts": ("attempts", 1, "Commits that a slice took"),
    "stale_revisions": ("stale_revisions", 1, "Revisions that the view was behind a commit"),
    "wait_seconds": ("wait_seconds", 1, "Time until a slice was placed"),
}
_QUANTILES: Final = {"p50": "0.5", "p99": "0.99"}


class Metrics:
    """Serves one process's last figures, over all its lives."""

    def __init__(self, port: int, scheduler: str) -> None:
        """Listen on a local port; nothing is shown before the first `tell`.

        Args:
            port: 1..65535; 0 = any that is free (see `port`).
            scheduler: The process's name.

        Raises:
            FlowosError: The library is not installed, or the port is taken.
        """
        try:
            from prometheus_client import CollectorRegistry, start_http_server
        except ImportError:
            raise FlowosError(
                "metrics need prometheus-client: pip install 'flowos[metrics]'"
            ) from None
        self._scheduler = scheduler
        self._figures: Mapping[str, Any] = {}
        registry = CollectorRegistry()
        registry.register(self)
        try:
            self._server, self._thread = start_http_server(port, HOST, registry)
        except OSError as error:
            raise FlowosError(
                f"metrics cannot be served on port {port}: {error.strerror}: name another one "
                "with --metrics-port"
            ) from None

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_port)

    def tell(self, figures: Mapping[str, Any]) -> None:
        """Show these figures from now on, as `Scheduling.figures_now` returns them."""
        self._figures = figures

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def collect(self) -> "Iterator[Metric]":
        """Yield what is known; called on the server's threads."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        figures = self._figures  # replaced as a whole
        if not figures:
            return
        names, values = ("scheduler", "policy"), (self._scheduler, str(figures["policy"]))
        for key, said in _COUNTERS.items():
            counter = CounterMetricFamily(f"flowos_scheduler_{key}", said, labels=names)
            counter.add_metric(values, figures[key])
            yield counter
        for key, (label, said) in _BY_KEY.items():
            counter = CounterMetricFamily(f"flowos_scheduler_{key}", said, labels=(*names, label))
            for what, count in figures[key].items():
                counter.add_metric((*values, what), count)
            yield counter
        for key, (name, per, said) in _SUMMARIES.items():
            gauge = GaugeMetricFamily(
                f"flowos_scheduler_{name}",
                f"{said}, of the last 1,000",
                labels=(*names, "quantile"),
            )
            for quantile, told in _QUANTILES.items():
                gauge.add_metric((*values, told), figures[key][quantile] / per)
            yield gauge
        for name, value, said in (
            ("queue", figures["queue"], "Slices that wait for this policy"),
            ("busy", figures["lately"]["busy"], "Part of the last 30 s spent planning, 0..1"),
        ):
            gauge = GaugeMetricFamily(f"flowos_scheduler_{name}", said, labels=names)
            gauge.add_metric(values, value)
            yield gauge
        gauge = GaugeMetricFamily(
            "flowos_scheduler_unit_rejected",
            "How often a unit was lost, of those lost most often; avoided = it is left alone",
            labels=(*names, "unit", "avoided"),
        )
        for lost in figures["rejected_units"]:
            avoided = "yes" if lost["avoided"] else "no"
            gauge.add_metric((*values, lost["unit"], avoided), lost["count"])
        yield gauge
