"""A client that submits and waits: what a slice costs by way of the queue and a scheduler process."""

import time
from contextlib import ExitStack, closing

from commit_parts.cells import Bench, Mix, Spent, half_full
from commit_parts.direct import WARM, Rounds, Side, Window
from commit_parts.profiled import Profiled
from commit_parts.raw import Raw
from commit_parts.waiter import Waiter

from flowos.model.slice import SliceSpec


def queued(bench: Bench, *, rounds: int, slices: int, share: float) -> Side:
    """Submit and wait until it is seen allocated; cancel old ones; one at a time, half full.

    A scheduler, and those who free (see `direct`), are at work, each in a process of its own. The
    mix is that of `direct`: the rate counts the wall time of submissions, waits and cancellations.
    `first` is from the call of `submit` to the sight of the placement in the client's own watch.
    The raw side is what a client with a scheduler of its own would send: placement and release, a
    transaction each, to the same cell with the same processes at work.
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
        waiter = stack.enter_context(closing(Waiter(bench.store)))
        for turn in range(rounds + 1):
            measured = side if turn else Side()  # the first, small one warms up
            number = slices if turn else WARM
            releases = round(share * number)
            bench.settle()
            with bench.scheduler("raw") as scheduler:
                window.shrink(scheduler)  # what the queue has placed in the round before
                bench.settle()
                window.churn_raw(scheduler, raw, mix.take(number), releases, measured.raw)
            bench.settle()
            with Profiled(on=bool(turn)):
                churn(bench, waiter, mix.take(number), releases, window, measured.ours)
    return side


def churn(
    bench: Bench,
    waiter: Waiter,
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
            bench.client.submit([spec])
            waiter.placed(spec.id)
            into.first.append(time.perf_counter() - before)
            window.live.append(spec.id)
            if number >= without:
                before = time.perf_counter()
                bench.client.cancel(window.live.popleft())
                into.second.append(time.perf_counter() - before)
    into.add(len(specs), spent)
