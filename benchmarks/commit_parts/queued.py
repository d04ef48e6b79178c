"""A client that submits and waits: what a slice costs by way of the queue and a scheduler process."""

import time
from contextlib import ExitStack, closing

from commit_parts.cells import Bench, Mix, Spent, half_full
from commit_parts.direct import WARM, Rounds, Side, Window
from commit_parts.profiled import Profiled
from commit_parts.raw import Raw

from flowos.model.slice import SliceSpec
from flowos.runtime.slice_queue import SliceQueue


def queued(bench: Bench, *, rounds: int, slices: int, share: float) -> Side:
    """Submit and wait until it is seen allocated; cancel old ones; one at a time, half full.

    A scheduler is at work in a process of its own; those who free pause as in `direct`. The
    mix is that of `direct`: the rate counts the wall time of submissions, waits and cancellations.
    `first` is from the call of `submit` to the return of `wait`: the placement was seen in the
    client's own watch.
    The raw side is what a client with a scheduler of its own would send: placement and release, a
    transaction each, to the same cell.
    """
    side = Side()
    with ExitStack() as stack:
        raw = stack.enter_context(closing(Raw(bench.etcd.endpoint)))
        mix = Mix(seed=3, stem="q")
        with bench.scheduler("fill") as scheduler:
            window = Window(bench, half_full(bench, scheduler, mix))
        bench.start("scheduler", "batch")
        bench.start_freeing()
        bench.await_step()
        ours = stack.enter_context(bench.client.queue())
        for turn in range(rounds + 1):
            measured = side if turn else Side()  # the first, small one warms up
            number = slices if turn else WARM
            releases = round(share * number)
            bench.settle()
            with bench.scheduler("raw") as scheduler:
                window.shrink(scheduler)  # what the queue has placed in the round before
                bench.settle()
                with bench.elsewhere():
                    window.churn_raw(scheduler, raw, mix.take(number), releases, measured.raw)
            bench.settle()
            with Profiled(on=bool(turn)), bench.elsewhere():
                churn(bench, ours, mix.take(number), releases, window, measured.ours)
    return side


def churn(
    bench: Bench,
    ours: SliceQueue,
    specs: list[SliceSpec],
    releases: int,
    window: Window,
    into: Rounds,
) -> None:
    """Go through the queue with each slice; cancel the oldest beside each of the last `releases`."""
    without = len(specs) - releases
    with Spent() as spent:
        for number, spec in enumerate(specs):
            before = time.perf_counter()
            ours.submit([spec])
            ours.wait(spec.id, "allocated", timeout_seconds=30)
            into.first.append(time.perf_counter() - before)
            window.live.append(spec.id)
            if number >= without:
                before = time.perf_counter()
                bench.client.cancel(window.live.popleft())
                into.second.append(time.perf_counter() - before)
    into.add(len(specs), spent)
