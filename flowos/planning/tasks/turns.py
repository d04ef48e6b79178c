"""In which order do numbered tasks take turns on numbered seats, so that the last one ends early?

The arithmetic below `multiplex`: a plan is an order of all tasks, producers first, and a seat for
each; then each task starts as soon as its seat is free and loaded and its inputs are there.
"""

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Final, NamedTuple

from flowos.planning.chance import scramble

_HEAT: Final = 1.5  # how much worse a try may at first be, in shares of a task
_OTHERS: Final = 4  # of so many tries one moves any task, the others one that all wait for
_LOST: Final = 0.25  # of what a seat's bitstream is worth, when another is loaded over it
_NEARLY: Final = 1e-9  # seconds lost in adding up


class Program(NamedTuple):
    """Tasks and seats by number.

    Attributes:
        run: Task -> seat -> seconds; on seats of another kind anything.
        seats: Task -> the seats of its kind.
        bitstream: Task -> number of its bitstream; 0 = it takes what is there.
        load: Bitstream -> seconds.
        inputs: Task -> (task, seconds from its end until its data are on another seat).
        outputs: The same, from the producer's side.
        free: Seat -> when it can begin.
        loaded: Seat -> bitstream at first; 0 = nothing.
        ranks: Task -> seconds from its start to the end of all, on average seats.
    """

    run: Sequence[Sequence[float]]
    seats: Sequence[Sequence[int]]
    bitstream: Sequence[int]
    load: Sequence[float]
    inputs: Sequence[Sequence[tuple[int, float]]]
    outputs: Sequence[Sequence[tuple[int, float]]]
    free: Sequence[float]
    loaded: Sequence[int]
    ranks: Sequence[float]


class Plan(NamedTuple):
    """An order of all tasks with their seats, and when the last one ends."""

    order: list[int]
    seats: list[int]
    seconds: float


def finish(
    program: Program, order: Sequence[int], seats: Sequence[int], ends: list[float]
) -> float:
    """Return when the last task ends, and note in `ends` when each does."""
    run, bitstream, load, inputs = program.run, program.bitstream, program.load, program.inputs
    free, loaded = list(program.free), list(program.loaded)
    last = 0.0
    for task in order:
        seat = seats[task]
        start = free[seat]
        wanted = bitstream[task]
        if wanted and wanted != loaded[seat]:
            start += load[wanted]
            loaded[seat] = wanted
        for source, delay in inputs[task]:
            there = ends[source] if seats[source] == seat else ends[source] + delay
            if there > start:
                start = there
        free[seat] = ends[task] = end = start + run[task][seat]
        if end > last:
            last = end
    return last


# -- list scheduling


class _Turn(NamedTuple):
    start: float
    end: float
    wanted: int  # 0 = it takes what is there
    left: int  # what is loaded afterwards


def inserted(program: Program, *, blind: bool = False) -> Plan:
    """Give the task with the most still to come the seat and the gap where it ends first.

    Args:
        program: What to plan.
        blind: Whether seats are chosen as if nothing had to be loaded, as a baseline.

    Source: Topcuoglu et al., TPDS 2002 (HEFT); the gap must hold the loads before and after.
    """
    run, load = program.run, program.load
    count = len(program.ranks)
    turns: list[list[_Turn]] = [[] for _ in program.free]
    starts, ends, seats = [0.0] * count, [0.0] * count, [0] * count
    if blind:
        load = [0.0] * len(load)
    for task in by_rank(program):
        wanted = program.bitstream[task]
        best = (float("inf"), 0, 0, 0)
        remote, near = _arrival(program.inputs[task], ends, seats)
        for seat in program.seats[task]:
            ready = near.get(seat, remote)
            length = run[task][seat]
            if ready + length >= best[0]:
                continue
            row = turns[seat]
            index = _first_open(row, ready)
            free, has = (
                (row[index - 1].end, row[index - 1].left)
                if index
                else (program.free[seat], program.loaded[seat])
            )
            while True:
                start = free + load[wanted] if wanted and wanted != has else free
                if ready > start:
                    start = ready
                end = start + length
                if index == len(row) or _fits(row[index], end, wanted or has, has, load):
                    break
                free, has = row[index].end, row[index].left
                index += 1
            if end < best[0]:
                best = (end, seat, index, wanted or has)
        end, seat, index, left = best
        ends[task], seats[task] = end, seat
        starts[task] = end - run[task][seat]
        turns[seat].insert(index, _Turn(starts[task], end, wanted, left))
    depth = _depths(program)
    order = sorted(range(count), key=lambda t: (starts[t], depth[t], ends[t]))
    return Plan(order, seats, finish(program, order, seats, ends))


def _first_open(row: Sequence[_Turn], ready: float) -> int:
    """Return the first turn that could be waited for; before it all ends too early to matter."""
    index = len(row)
    while index and row[index - 1].start > ready:
        index -= 1
    return index


def _fits(turn: _Turn, end: float, left: int, before: int, load: Sequence[float]) -> bool:
    """Whether a turn that has its time already can follow on one that is put before it."""
    if left == before or turn.wanted == left:
        return end <= turn.start
    if not turn.wanted:
        return False  # it, or one after it, counts on what was there
    return end + load[turn.wanted] <= turn.start


def by_rank(program: Program) -> list[int]:
    """Return all tasks, producers first, those with most still to come first."""
    depth = _depths(program)
    return sorted(range(len(depth)), key=lambda t: (-program.ranks[t], depth[t], t))


def _depths(program: Program) -> list[int]:
    """Return how many tasks come before each one, on the longest way; ranks alone can be alike."""
    depth = [0] * len(program.inputs)
    waiting = [len(inputs) for inputs in program.inputs]
    open_ones = [task for task, count in enumerate(waiting) if not count]
    for task in open_ones:
        for target, _ in program.outputs[task]:
            depth[target] = max(depth[target], depth[task] + 1)
            waiting[target] -= 1
            if not waiting[target]:
                open_ones.append(target)
    return depth


def listed(program: Program, stick: float, *, alone: bool = False) -> Plan | None:
    """Let each seat, as it becomes free, keep to its bitstream unless another task is urgent.

    Args:
        program: What to plan.
        stick: How much more urgent, in loads, another task must be.
        alone: Whether each seat takes one task at most.

    Returns:
        None if `alone` and there are too few seats.
    """
    run, load, ranks = program.run, program.load, program.ranks
    count = len(ranks)
    free, loaded = list(program.free), list(program.loaded)
    ends, seats, order = [0.0] * count, [-1] * count, [0] * 0
    waiting = [len(sources) for sources in program.inputs]
    arrivals: dict[int, _Arrival] = {}
    # The tasks whose producers have turns, by the bitstream they want and their kind, which is
    # the first of its seats; the most urgent first.
    ready: dict[tuple[int, int], list[tuple[float, int]]] = {}
    open_seats = {own[0]: list(own) for own in program.seats}

    def offer(task: int) -> None:
        arrivals[task] = _arrival(program.inputs[task], ends, seats)
        key = (program.seats[task][0], program.bitstream[task])
        heappush(ready.setdefault(key, []), (-ranks[task], task))

    for task in range(count):
        if not waiting[task]:
            offer(task)
    while ready:
        choices = [seat for kind in {kind for kind, _ in ready} for seat in open_seats[kind]]
        if not choices:
            return None
        here = min(choices, key=free.__getitem__)
        now, has = free[here], loaded[here]
        best_key, best_worth = None, -float("inf")
        for key, heap in ready.items():
            if here not in open_seats[key[0]]:
                continue
            wanted, (rank, task) = key[1], heap[0]
            worth = -rank
            if wanted and wanted != has:
                worth -= stick * load[wanted]
            remote, near = arrivals[task]
            arrived = near.get(here, remote)
            if arrived > now:
                worth -= arrived - now
            if worth > best_worth:
                best_key, best_worth = key, worth
        assert best_key is not None, "some task wants the seat"
        task = heappop(ready[best_key])[1]
        if not ready[best_key]:
            del ready[best_key]
        kind, wanted = best_key
        remote, near = arrivals[task]
        best = (float("inf"), float("inf"), here)
        for seat in open_seats[kind]:
            start, cost = free[seat], 0.0
            if wanted and wanted != loaded[seat]:
                start += load[wanted]
                cost = _LOST * stick * load[wanted]
            end = max(start, near.get(seat, remote)) + run[task][seat]
            if end + cost <= best[0] and (end + cost, end, seat) < best:
                best = (end + cost, end, seat)
        _, end, seat = best
        free[seat] = ends[task] = end
        seats[task] = seat
        loaded[seat] = wanted or loaded[seat]
        order.append(task)
        if alone:
            open_seats[kind].remove(seat)
        for target, _ in program.outputs[task]:
            waiting[target] -= 1
            if not waiting[target]:
                offer(target)
    return Plan(order, seats, finish(program, order, seats, ends)) if len(order) == count else None


class _Arrival(NamedTuple):
    """When a task's inputs are there: on most seats, and on those where some come from."""

    remote: float
    near: dict[int, float]


_AT_ONCE: Final = _Arrival(0.0, {})


def _arrival(
    inputs: Sequence[tuple[int, float]], ends: Sequence[float], seats: Sequence[int]
) -> _Arrival:
    if not inputs:
        return _AT_ONCE
    near: dict[int, float] = {}
    for here in {seats[source] for source, _ in inputs}:
        near[here] = max([ends[s] if seats[s] == here else ends[s] + delay for s, delay in inputs])
    return _Arrival(max([ends[source] + delay for source, delay in inputs]), near)


# -- improvement


def improved(
    program: Program, plan: Plan, bound: float, seed: int, tries: int, *, alone: bool
) -> Plan:
    """Move tasks, most often such as all wait for, to other turns and seats, while tries last.

    Args:
        program: What to plan.
        plan: Where to begin.
        bound: No plan ends sooner; reaching it ends the search.
        seed: Another number tries other moves.
        tries: How many.
        alone: Whether each seat takes one task at most; then tasks change seats only.
    """
    now = best = plan
    ends = [0.0] * len(plan.order)
    finish(program, now.order, now.seats, ends)
    critical = _critical(program, now, ends)
    slack = _HEAT * plan.seconds / len(plan.order)
    for turn in range(tries):
        if best.seconds <= bound:
            break
        bits = scramble(seed, turn)
        among = critical if (bits >> 40) % _OTHERS else now.order
        task = among[bits % len(among)]
        move = _reseated if alone else _moved
        order, seats = move(program, now, task, bits >> 16)
        seconds = finish(program, order, seats, ends)
        patience = slack * (1 - turn / tries) * (bits >> 54) / 1024
        if seconds <= now.seconds + patience:
            now = Plan(order, seats, seconds)
            if seconds < best.seconds:
                best = now
            critical = _critical(program, now, ends)
    return best


def _moved(program: Program, plan: Plan, task: int, bits: int) -> tuple[list[int], list[int]]:
    """Return the order and seats with a task elsewhere, or a row of its bitstream elsewhere."""
    order, seats = plan.order, plan.seats[:]
    choices = program.seats[task]
    seat = choices[bits % len(choices)]
    kind = bits >> 8 & 7
    if kind == 0:  # all of the row of one bitstream, in the order that they have
        was = seats[task]
        for other in _row_of(program, plan, task):
            seats[other] = seat
            if seat == was:
                break
        return order, seats
    if kind <= 2:
        seat = seats[task]
    order = order[:]
    at = order.index(task)
    low = high = at
    sources = {source for source, _ in program.inputs[task]}
    targets = {target for target, _ in program.outputs[task]}
    while low and order[low - 1] not in sources:
        low -= 1
    while high + 1 < len(order) and order[high + 1] not in targets:
        high += 1
    to = low + (bits >> 12) % (high - low + 1)
    if kind >= 5:  # beside one of its own bitstream on that seat, if there is any
        wanted = program.bitstream[task]
        alike = [
            place
            for place in range(low, high + 1)
            if place != at
            and seats[order[place]] == seat
            and program.bitstream[order[place]] == wanted
        ]
        if alike:
            to = alike[(bits >> 12) % len(alike)]
    del order[at]
    order.insert(to, task)
    seats[task] = seat
    return order, seats


def _row_of(program: Program, plan: Plan, task: int) -> list[int]:
    """Return the tasks in turn on one seat, around this one, that share its bitstream."""
    wanted, seat = program.bitstream[task], plan.seats[task]
    row: list[int] = []
    for other in plan.order:
        if plan.seats[other] != seat:
            continue
        if program.bitstream[other] == wanted:
            row.append(other)
        elif task in row:
            break
        else:
            row = []
    return row


def _reseated(program: Program, plan: Plan, task: int, bits: int) -> tuple[list[int], list[int]]:
    """Return the seats with a task on another, whose task, if any, takes this one's."""
    seats = plan.seats[:]
    choices = program.seats[task]
    seat = choices[bits % len(choices)]
    if seat in seats:
        seats[seats.index(seat)] = seats[task]
    seats[task] = seat
    return plan.order, seats


def _critical(program: Program, plan: Plan, ends: Sequence[float]) -> list[int]:
    """Return the tasks that the last end waits for, one after the other."""
    seats, run = plan.seats, program.run
    before: dict[int, int] = {}
    latest: dict[int, int] = {}
    for task in plan.order:
        seat = seats[task]
        if seat in latest:
            before[task] = latest[seat]
        latest[seat] = task
    task = max(plan.order, key=ends.__getitem__)
    found = [task]
    while True:
        seat = seats[task]
        start = ends[task] - run[task][seat]
        causes = [
            (ends[s] if seats[s] == seat else ends[s] + delay, s)
            for s, delay in program.inputs[task]
        ]
        held = max(causes, default=(-1.0, -1))
        if held[0] < start - _NEARLY:  # not for data: for the seat, if anyone had it
            if task not in before:
                return found
            held = (start, before[task])
        elif held[1] < 0:
            return found
        task = held[1]
        found.append(task)
