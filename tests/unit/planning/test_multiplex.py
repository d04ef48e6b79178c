"""Programs with more tasks than engines take turns, and what each turn needs is counted."""

import random
from itertools import pairwise, permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from flowos.model.errors import SpecError
from flowos.model.placement import Unplaceable
from flowos.model.slice import Reason
from flowos.planning.tasks.multiplex import Costs, Flow, Schedule, Seat, Task, multiplex, numbered
from flowos.planning.tasks.turns import finish, inserted

NEARLY = 1e-6
FREE = Costs(load_seconds=0.0)


def fpgas(count, *bitstreams):
    loaded = [*bitstreams, *[""] * (count - len(bitstreams))]
    return [Seat(f"n{n}/fpga0", "fpga", "U250", loaded[n]) for n in range(count)]


def chain(*tasks, size_bytes=0):
    pairs = pairwise(tasks)
    return [Flow(one.name, (two.name,), size_bytes) for one, two in pairs]


def scheduled(tasks, flows, seats, costs=FREE, **how):
    found = multiplex(tasks, flows, seats, costs, **how)
    assert isinstance(found, Schedule), found
    hold_laws(tasks, flows, seats, costs, found)
    return found


def hold_laws(tasks, flows, seats, costs, schedule):
    """All that a schedule must keep, worked out from its runs alone."""
    runs = {run.task: run for run in schedule.runs}
    assert len(schedule.runs) == len(tasks)
    assert list(schedule.runs) == sorted(schedule.runs, key=lambda run: run.start)
    assert sorted(runs) == sorted(task.name for task in tasks)
    seat_of = {seat.engine: seat for seat in seats}
    task_of = {task.name: task for task in tasks}
    for run in runs.values():
        task, seat = task_of[run.task], seat_of[run.engine]
        assert task.kind == seat.kind
        took = task.by_model.get(seat.model, task.seconds)
        assert run.end == pytest.approx(run.start + took)
    check_turns(runs, seat_of, task_of, costs, schedule)
    check_flows(flows, runs, costs, schedule)
    last = max((run.end for run in runs.values()), default=0.0)
    assert schedule.seconds == last
    assert schedule.bound_seconds <= schedule.seconds
    assert schedule.in_space == (len({run.engine for run in runs.values()}) == len(tasks))


def check_turns(runs, seat_of, task_of, costs, schedule):
    loads = set()
    for engine, seat in seat_of.items():
        free = seat.free_in_seconds + (0.0 if seat.powered else costs.wake_seconds)
        loaded, wave, used = seat.bitstream, 0, False
        for run in (run for run in schedule.runs if run.engine == engine):
            wanted = task_of[run.task].bitstream
            assert run.loading >= free - NEARLY
            assert run.wave >= wave
            if wanted and wanted != loaded:
                assert (
                    run.start >= run.loading + costs.loads.get(wanted, costs.load_seconds) - NEARLY
                )
                assert run.wave > wave or not used
                loads.add((engine, run.wave))
                loaded = wanted
            assert schedule.waves[run.wave].bitstreams[engine] == loaded
            free, wave, used = run.end, run.wave, True
    said = {(engine, n) for n, wave in enumerate(schedule.waves) for engine in wave.loads}
    assert said == loads
    told = [(n, name) for n, wave in enumerate(schedule.waves) for name in wave.tasks]
    assert sorted(told) == sorted((run.wave, run.task) for run in runs.values())


def check_flows(flows, runs, costs, schedule):
    rate = costs.lane_bytes_per_second
    expected = set()
    for number, flow in enumerate(flows):
        source = runs[flow.source]
        delay = costs.circuit_seconds + (flow.size_bytes / rate if rate else 0)
        away = set()
        for name in flow.targets:
            target = runs[name]
            assert target.wave >= source.wave
            if target.engine == source.engine:
                assert target.start >= source.end - NEARLY
            else:
                assert target.start >= source.end + delay - NEARLY
                away.add(target.engine)
        if away:
            expected.add((source.wave, source.engine, tuple(sorted(away)), number))
    found = set()
    for n, wave in enumerate(schedule.waves):
        assert len({(c.source, c.targets) for c in wave.circuits}) == len(wave.circuits)
        for circuit in wave.circuits:
            assert wave.start <= circuit.up <= circuit.down <= wave.end + NEARLY
            assert circuit.size_bytes == sum(flows[number].size_bytes for number in circuit.flows)
            for number in circuit.flows:
                assert circuit.up <= runs[flows[number].source].end + NEARLY
                found.add((n, circuit.source, circuit.targets, number))
    assert found == expected


# -- laws


@some.composite
def programs(draw):
    count = draw(some.integers(1, 9))
    kinds = draw(some.sampled_from([("fpga",), ("fpga", "gpu")]))
    seconds = some.integers(0, 20)
    tasks = []
    for n in range(count):
        kind = draw(some.sampled_from(kinds))
        bitstream = draw(some.sampled_from(["", "a", "b", "c"])) if kind == "fpga" else ""
        by_model = {"slow": draw(seconds)} if draw(some.booleans()) else {}
        tasks.append(Task(f"t{n}", kind, draw(seconds), bitstream, by_model))
    flows = []
    for source in range(count - 1):
        targets = draw(some.sets(some.integers(source + 1, count - 1), max_size=3))
        if targets:
            names = tuple(f"t{n}" for n in sorted(targets))
            flows.append(Flow(f"t{source}", names, draw(some.integers(0, 9))))
    if flows and draw(some.booleans()):
        flows.append(flows[-1]._replace(size_bytes=2))
    seats = [
        Seat(
            f"{kind}{n}",
            kind,
            draw(some.sampled_from(["", "slow"])),
            draw(some.sampled_from(["", "a", "b"])) if kind == "fpga" else "",
            draw(some.booleans()),
            draw(some.integers(0, 9)),
        )
        for kind in kinds
        for n in range(draw(some.integers(1, 4)))
    ]
    costs = Costs(
        draw(some.integers(0, 6)),
        {"c": draw(some.integers(0, 12))},
        draw(some.integers(0, 9)),
        draw(some.sampled_from([0.0, 0.5])),
        draw(some.sampled_from([0.0, 2.0])),
    )
    return tasks, flows, seats, costs


@settings(max_examples=150, deadline=None)
@given(programs(), some.integers(0, 5))
def test_every_schedule_keeps_the_laws(program, seed):
    scheduled(*program, seed=seed, tries=60)


@settings(max_examples=60, deadline=None)
@given(programs(), some.booleans())
def test_insertion_alone_keeps_producers_first(program, blind):
    numbers = numbered(*program)
    plan = inserted(numbers, blind=blind)
    at = {task: n for n, task in enumerate(plan.order)}
    assert sorted(plan.order) == list(range(len(program[0])))
    for task, sources in enumerate(numbers.inputs):
        assert all(at[source] < at[task] for source, _ in sources)


def earliest(tasks, flows, seats, costs):
    """The least end over all orders and seats."""
    numbers = numbered(tasks, flows, seats, costs)
    ends = [0.0] * len(tasks)
    best = float("inf")
    for order in permutations(range(len(tasks))):
        place = {task: n for n, task in enumerate(order)}
        if any(place[s] > place[t] for t, into in enumerate(numbers.inputs) for s, _ in into):
            continue
        for chosen in product(*numbers.seats):
            best = min(best, finish(numbers, order, chosen, ends))
    return best


def small_program(seed):
    rng = random.Random(seed)
    tasks = [Task(f"t{n}", "fpga", rng.randint(1, 9), rng.choice("aabbc")) for n in range(6)]
    flows = [
        Flow(f"t{rng.randrange(n)}", (f"t{n}",), rng.randint(0, 4))
        for n in range(1, 6)
        if rng.random() < 0.7
    ]
    costs = Costs(rng.randint(1, 5), circuit_seconds=0.5, lane_bytes_per_second=2.0)
    return tasks, flows, fpgas(2, "a", "b"), costs


def test_six_tasks_on_two_engines_end_as_early_as_can_be_or_nearly():
    late = []
    for seed in range(15):
        program = small_program(seed)
        best = earliest(*program)
        found = scheduled(*program)
        assert found.bound_seconds <= best
        late.append(found.seconds / best - 1)
    assert min(late) >= -NEARLY
    assert late.count(0.0) >= 12
    assert sum(late) / len(late) <= 0.01


def test_counting_loads_ends_at_least_8_percent_sooner_than_not():
    gains = []
    for seed in range(20):
        rng = random.Random(seed)
        tasks = [
            Task(f"t{n}", "fpga", rng.uniform(2, 8), f"b{rng.randrange(6)}") for n in range(60)
        ]
        flows = [Flow(f"t{rng.randrange(n // 8 * 8)}", (f"t{n}",), 10**8) for n in range(8, 60)]
        program = (tasks, flows, fpgas(6, "b0", "b1"), Costs(3.0, lane_bytes_per_second=1e9))
        blind = inserted(numbered(*program), blind=True).seconds
        gains.append(1 - scheduled(*program).seconds / blind)
    assert sum(gains) / len(gains) >= 0.08


# -- what is decided


def test_tasks_that_fit_run_in_space():
    tasks = [Task(name, "fpga", 5.0, name) for name in "abc"]
    found = scheduled(tasks, [], fpgas(3), Costs(2.0))
    assert found.in_space
    assert found.seconds == 7.0
    assert len(found.waves) == 1


def test_waiting_for_an_engine_of_its_own_loses_to_sharing_one():
    tasks = [Task(name, "fpga", 5.0, "x") for name in "ab"]
    seats = [*fpgas(1, "x"), Seat("n9/fpga0", "fpga", "U250", "x", free_in_seconds=60.0)]
    found = scheduled(tasks, [], seats)
    assert not found.in_space
    assert found.seconds == 10.0


def test_chain_stays_where_its_data_is():
    tasks = [Task(f"t{n}", "fpga", 1.0, "x") for n in range(4)]
    costs = Costs(1.0, circuit_seconds=0.5, lane_bytes_per_second=1.0)
    found = scheduled(tasks, chain(*tasks, size_bytes=3), fpgas(4, *"xxxx"), costs)
    assert found.seconds == 4.0
    assert len({run.engine for run in found.runs}) == 1
    assert found.waves[0].circuits == ()


def test_tasks_of_one_bitstream_run_one_after_the_other():
    tasks = [Task(f"t{n}", "fpga", 1.0, "ab"[n % 2]) for n in range(10)]
    found = scheduled(tasks, [], fpgas(1, "a"), Costs(30.0))
    assert found.seconds == 40.0
    assert [wave.bitstreams["n0/fpga0"] for wave in found.waves] == ["a", "b"]
    assert [wave.loads for wave in found.waves] == [(), ("n0/fpga0",)]


def test_load_begins_while_the_data_are_on_their_way():
    tasks = [Task("a", "fpga", 4.0, "x"), Task("b", "gpu", 1.0), Task("c", "fpga", 2.0, "y")]
    flows = [Flow("a", ("b",), 6), Flow("b", ("c",), 6)]
    seats = [*fpgas(1, "x"), Seat("n1/gpu0", "gpu")]
    found = scheduled(tasks, flows, seats, Costs(10.0, lane_bytes_per_second=2.0))
    c = next(run for run in found.runs if run.task == "c")
    assert (c.loading, c.start) == (4.0, 14.0)  # data are there at 4 + 3 + 1 + 3 = 11
    up = [(circuit.source, circuit.up, circuit.down) for w in found.waves for circuit in w.circuits]
    assert up == [("n0/fpga0", 4.0, 7.0), ("n1/gpu0", 8.0, 11.0)]


def test_engine_that_sleeps_is_woken_only_where_that_pays():
    asleep = Seat("n1/fpga0", "fpga", "U250", powered=False)
    tasks = [Task(name, "fpga", 4.0) for name in "ab"]
    seats = [*fpgas(1), asleep]
    soon = scheduled(tasks, [], seats, Costs(wake_seconds=3.0))
    late = scheduled(tasks, [], seats, Costs(wake_seconds=9.0))
    assert (soon.seconds, late.seconds) == (7.0, 8.0)
    assert {run.engine for run in late.runs} == {"n0/fpga0"}


def test_slower_model_takes_what_the_faster_one_has_no_time_for():
    tasks = [Task(f"t{n}", "gpu", 2.0, by_model={"old": 6.0}) for n in range(4)]
    seats = [Seat("n0/gpu0", "gpu", "new"), Seat("n1/gpu0", "gpu", "old")]
    found = scheduled(tasks, [], seats)
    assert found.seconds == 6.0
    assert sum(run.engine == "n1/gpu0" for run in found.runs) == 1


def test_flow_to_several_engines_is_one_circuit():
    tasks = [Task(name, "fpga", 2.0, name) for name in "abc"]
    flows = [Flow("a", ("b", "c"), 4)]
    found = scheduled(tasks, flows, fpgas(3, *"abc"), Costs(9.0, lane_bytes_per_second=4.0))
    (circuit,) = found.waves[0].circuits
    assert (circuit.source, circuit.targets) == ("n0/fpga0", ("n1/fpga0", "n2/fpga0"))
    assert found.seconds == 5.0


def test_same_arguments_give_the_same_schedule():
    program = small_program(3)
    assert multiplex(*program, seed=4) == multiplex(*program, seed=4)


def test_nothing_to_do_is_done_at_once():
    assert multiplex([], [], []) == Schedule((), (), 0.0, 0.0, in_space=True)


# -- what is refused


def test_task_without_an_engine_of_its_kind_waits():
    found = multiplex([Task("a", "gpu", 1.0)], [], fpgas(2))
    assert isinstance(found, Unplaceable)
    assert found.reason is Reason.WAITING_FOR_ENGINES
    assert found.sentence == "task a runs on a gpu, and none is free or will be"


@pytest.mark.parametrize(
    ("names", "flows", "sentence"),
    [
        ("aba", [], "task a is there twice: give each task a name of its own"),
        ("ab", [("a", "c")], "a flow names task c, which is not there: name one of the tasks"),
        (
            "abc",
            [("a", "b"), ("b", "a"), ("b", "c")],
            "task a is in, or before, a cycle of flows: a program's flows go one way",
        ),
    ],
)
def test_programs_that_make_no_sense_are_refused(names, flows, sentence):
    tasks = [Task(name, "fpga", 1.0) for name in names]
    with pytest.raises(SpecError) as refusal:
        multiplex(tasks, [Flow(one, (two,)) for one, two in flows], fpgas(1))
    assert str(refusal.value) == sentence
