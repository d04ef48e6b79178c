"""After whom, as which of an array and how much of it at once: read from a slice file, or refused."""

import pytest

from flowos.documents.slice_file import Defaults, parse_slice
from flowos.documents.slice_options import slice_from_options
from flowos.documents.slice_terms import MEMBERS_MAX, cycle_in
from flowos.documents.slice_writing import dump_slice
from flowos.model.errors import FileError
from flowos.model.slice import Dependency, Member, Once, SliceSpec


def read(
    more: str, name: str = "t", engines: str = "workers: {kind: gpu, count: 4}"
) -> list[SliceSpec]:
    return parse_slice(f"name: {name}\nengines: {{{engines}}}\n{more}\n", "s.yaml")


def one(more: str, **of: str) -> SliceSpec:
    (spec,) = read(more, **of)
    return spec


TWO = "workers: {kind: gpu, count: 4}, disks: {kind: nvme, count: 2}"


def test_every_term_is_read():
    spec = one(
        "depends_on: [a, other/b, {on: c, once: ended}, {on: d, once: running}]\n"
        "min: {workers: 2}\ncommit: incremental\npreemptible: true\ngrace: 30s\nreservation: nightly"
    )
    assert spec.depends_on == (
        Dependency("default/a"),
        Dependency("other/b"),
        Dependency("default/c", Once.ENDED),
        Dependency("default/d", Once.RUNNING),
    )
    assert (spec.least, spec.commit) == ({"workers": 2}, "incremental")
    assert (spec.preemptible, spec.run.grace_seconds, spec.reservation) == (True, 30.0, "nightly")


def test_one_slice_is_waited_for_without_a_list_and_in_the_own_tenant():
    assert one("tenant: vision\ndepends_on: a").depends_on == (Dependency("vision/a"),)
    assert one("depends_on: {on: a, once: ended}").depends_on == (Dependency("default/a", Once.ENDED),)  # fmt: skip


def test_a_slice_that_may_begin_with_less_takes_what_fits():
    spec = one("min: 3")
    assert (spec.least, spec.commit) == ({"workers": 3}, "incremental")


@pytest.mark.parametrize(
    ("written", "indexes", "parallel"),
    [
        ("3", [0, 1, 2], 0),
        ('"3"', [0, 1, 2], 0),
        ("{count: 3, first: 5}", [5, 6, 7], 0),
        ("{count: 3, parallel: 2}", [0, 1, 2], 2),
        ("2-4", [2, 3, 4], 0),
        ("0-99%10", list(range(100)), 10),
        ("1,3,5-9:2%1", [1, 3, 5, 7, 9], 1),
        ("3%2", [0, 1, 2], 2),
    ],
)
def test_an_array_is_so_many_slices_with_the_indexes_that_are_written(written, indexes, parallel):
    specs = read(f"array: {written}")
    assert [spec.name for spec in specs] == [f"t-{index}" for index in indexes]
    size = len(indexes)
    assert [s.array for s in specs] == [Member("t", i, size, parallel) for i in indexes]


def test_all_of_an_array_ask_for_the_same():
    specs = read("array: 3\npriority: 7\ndepends_on: a")
    assert len({(s.priority, s.depends_on, str(s.engines)) for s in specs}) == 1


@pytest.mark.parametrize(
    "more",
    [
        "depends_on: [a, {on: x/b, once: ended}]",
        "min: 2",
        "commit: gang",
        "preemptible: true\ngrace: 90s",
        "reservation: r1",
        "array: {of: u, index: 7, count: 9, parallel: 3}\nname: u-7",
    ],
)
def test_what_is_written_reads_back_as_the_same(more):
    text = f"engines: {{workers: {{kind: gpu, count: 4}}}}\n{more}"
    text = text if "name:" in text else f"name: t\n{text}"
    (spec,) = parse_slice(text, "s.yaml")
    assert parse_slice(dump_slice(spec), "again") == [spec]


def test_each_of_an_array_reads_back_alone():
    specs = read("array: 5-8%2")
    assert [parse_slice(dump_slice(spec), "again") for spec in specs] == [[s] for s in specs]


@pytest.mark.parametrize(
    ("more", "problem", "way_out"),
    [
        ("depends_on: t", "depends_on: t waits for itself", "name another slice"),
        ("depends_on: [a, default/a]", "depends_on[1]: names default/a twice", "leave one"),
        ("depends_on: [A]", 'depends_on[0]: "A" names no slice', "write such as prepare"),
        ("depends_on: [a/b/c]", "names no slice", "vision/prepare"),
        ("depends_on: [{on: a, once: never}]", '"never" is unknown', "done, ended, running"),
        ("depends_on: [{once: done}]", "on is missing", "add on"),
        (f"depends_on: [{', '.join(f'a{n}' for n in range(101))}]", "names 101 slices", "at most 100"),
        ("array: 0", "0 is out of range", f"1 to {MEMBERS_MAX}"),
        ("array: 5000", "5000 is out of range", f"1 to {MEMBERS_MAX}"),
        ("array: 0-999999999", "has 1000000000 slices", f"1 to {MEMBERS_MAX}"),
        ("array: 9-1", "the range 9-1 is backwards", "write 1-9"),
        ("array: 1,1-2", "has an index twice", "write such as 10"),
        ("array: ten", '"ten" is no array', "0-99%10 for ten at once"),
        ("array: 0-3%0", "lets none of them run", "write %1 or more"),
        ("array: 0-3%x", "is no array", "0-99%10"),
        ("array: {of: u, index: 3, count: 9}", "t is not of array u by its name", "name it u-3"),
        ("array: {of: t, index: 1, count: 9, first: 2}", "belongs to a whole array", "leave it"),
        ("array: 3\ndepends_on: t", "waits for itself", "name another"),
        ("array: 3\ndepends_on: t-1", "its own array is waited for, by default/t-1", "of its own"),
        ("min: 5", "workers can begin with 5 engines, but asks for 4", "write 1 to 4"),
        ("min: {workers: 0}", "0 is no number of engines", "write 1 to 4"),
        ("min: {worker: 1}", 'there is no role "worker"', "did you mean workers?"),
        ("min: 2\ncommit: gang", "a gang takes all or nothing", "leave min out"),
        ("commit: some", '"some" is unknown', "gang, incremental"),
        (
            "commit: incremental\ncircuits: [{torus: workers, dims: [2, 2]}]",
            "commit: the torus of workers needs all of its engines at once",
            "use ring, all or star",
        ),
        (
            "min: 1\ncircuits: [{explicit: workers, links: [[0, 1]]}]",
            "min: the explicit of workers needs all",
            "leave it out",
        ),
        ("preemptible: often", "is not a truth value", "write true or false"),
        ("grace: soon", "grace", ""),
        ("reservation: No_1", '"No_1" is not possible here', "small letters"),
    ],
)  # fmt: skip
def test_a_term_that_cannot_be_meant_is_refused_with_its_place_and_the_way_out(
    more, problem, way_out
):
    with pytest.raises(FileError) as caught:
        read(more)
    error = caught.value
    assert problem in str(error)
    assert way_out in error.hint
    assert error.line


def test_min_says_of_which_role_where_there_are_several():
    with pytest.raises(FileError, match="does not say of which role: there are 2"):
        one("min: 2", engines=TWO)
    assert one("min: {disks: 1}", engines=TWO).least == {"disks": 1}


def test_a_name_leaves_room_for_the_indexes():
    with pytest.raises(FileError, match="has 64 characters, and names have 63 at most: use a name of up to 59"):  # fmt: skip
        read("array: 1000", name="n" * 60)
    assert len(read("array: 1000", name="n" * 59)) == 1000


def documents(**waits: str) -> str:
    return "---\n".join(
        f"name: {name}\nengines: {{w: {{kind: gpu}}}}\n{more}\n" for name, more in waits.items()
    )


def test_slices_that_wait_for_each_other_are_refused():
    text = documents(a="depends_on: b", b="depends_on: c", c="depends_on: [x, a]")
    with pytest.raises(FileError) as caught:
        parse_slice(text, "s.yaml")
    said = str(caught.value)
    assert "default/a waits for default/b, default/b waits for default/c" in said
    assert said.startswith("s.yaml:3: depends_on: ")


def test_a_cycle_through_an_array_is_found():
    text = documents(a="depends_on: t", t="array: 50\ndepends_on: b", b="depends_on: a")
    with pytest.raises(FileError, match="default/t waits for default/b"):
        parse_slice(text, "s.yaml")
    through_member = documents(a="depends_on: t-7", t="array: 50\ndepends_on: a")
    with pytest.raises(FileError, match="waits for"):
        parse_slice(through_member, "s.yaml")


def test_many_that_wait_without_a_cycle_are_fine():
    specs = parse_slice(documents(a="", b="depends_on: a", c="depends_on: [a, b]"), "s.yaml")
    assert cycle_in(specs) == []


def test_what_is_said_on_the_command_line_goes_before_the_document():
    over = {"tenant": "vision", "array": "0-1", "depends_on": [{"on": "p", "once": "ended"}]}
    specs = parse_slice(
        "name: t\ntenant: x\nengines: {w: {kind: gpu}}\ndepends_on: a",
        "s.yaml",
        Defaults(over=over),
    )
    assert [s.id for s in specs] == ["vision/t-0", "vision/t-1"]
    assert {s.depends_on for s in specs} == {(Dependency("vision/p", Once.ENDED),)}


def test_options_make_an_array_too():
    specs = slice_from_options("gpu=1", name="t", defaults=Defaults(over={"array": "0-9%3"}))
    assert len(specs) == 10
    assert specs[9].array == Member("t", 9, 10, 3)
