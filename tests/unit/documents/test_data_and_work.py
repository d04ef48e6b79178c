"""Where a slice's data lies and what it computes, as its file says it."""

import json

import pytest

from flowos.documents.slice_file import parse_slice
from flowos.documents.slice_writing import dump_slice
from flowos.model.codec import decode, encode
from flowos.model.errors import FileError
from flowos.model.slice import Constraints, Data, HostRole, SliceSpec, Work

WHOLE = """
name: near
engines:
  workers: {kind: gpu, count: 4}
  reducer: {kind: fpga}
hosts:
  reader: {count: 1, cpu: 4, at: n3}
data:
  - {at: n3/nvme0, bytes: 40GB, to: workers, estimated: true, lanes: 2, share: 0.25}
  - {at: n4, bytes: 1GiB, to: reducer}
work:
  workers: {type: bert, amount: 1e6}
  reducer: {type: LM (batch size 10), amount: 2.5}
constraints: {max_hops: 4, prefer: frugal}
"""


def one(text):
    (spec,) = parse_slice(text, "near.yaml")
    return spec


def test_all_of_it_is_read():
    spec = one(WHOLE)
    assert spec.data == (
        Data("n3/nvme0", 40 * 10**9, "workers", estimated=True, lanes=2, share_millis=250),
        Data("n4", 2**30, "reducer"),
    )
    assert spec.work == {"workers": Work("bert", 1e6), "reducer": Work("LM (batch size 10)", 2.5)}
    assert spec.constraints == Constraints(max_hops=4, prefer="frugal")
    assert spec.hosts["reader"] == HostRole(4000, 0, 1, "n3")


def test_what_is_written_out_reads_back_and_so_does_the_record():
    spec = one(WHOLE)
    assert one(json.dumps(dump_slice(spec))) == spec
    assert decode(SliceSpec, encode(spec)) == spec


def test_type_of_work_may_be_named_without_data_and_without_an_amount():
    spec = one("name: a\nengines: {w: {kind: gpu}}\nwork: {w: {type: bert}}")
    assert (spec.work, spec.data) == ({"w": Work("bert", 0.0)}, ())
    assert dump_slice(spec)["work"] == {"w": {"type": "bert"}}
    assert one(json.dumps(dump_slice(spec))) == spec
    assert decode(SliceSpec, encode(spec)) == spec


def test_record_of_a_slice_without_them_is_as_it_was():
    spec = one("name: a\nengines: {w: {kind: gpu}}\nconstraints: {max_hops: 2}")
    record = json.loads(encode(spec))
    assert {"data", "work"}.isdisjoint(record)
    assert "prefer" not in record["constraints"]
    assert decode(SliceSpec, encode(spec)) == spec


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("to: reducer", "to: reduce", 'data[1].to: there is no role "reduce": did you mean'),
        ("to: reducer", "to: reader", 'data[1].to: there is no role "reader"'),
        ("bytes: 1GiB", "bytes: 1", "data[1].bytes: 1 has no unit"),
        ("bytes: 1GiB, ", "", "data[1]: bytes is missing"),
        ("at: n4", "at: n4/a/b", "is neither an engine nor a node"),
        ("at: n4", "share: 0.5, at: n4", "data[1].share: n4 is no engine to share"),
        ("n4, bytes: 1GiB, to: reducer", "n3/nvme0, bytes: 1GiB, to: workers", "twice"),
        ("lanes: 2", "lanes: 0", "data[0].lanes: 0 is out of range"),
        ("lanes: 2", "lane: 2", 'there is no field "lane": did you mean lanes?'),
        ("estimated: true", "estimated: maybe", "is not a truth value"),
        ("  workers: {type", "  worker: {type", 'work.worker: there is no role "worker"'),
        ("amount: 1e6", "amount: 0", "0 is no amount of work: write a number above 0"),
        ("amount: 1e6", "amount: many", "is no amount of work"),
        ("type: bert, ", "", "work.workers: type is missing"),
        ("type: bert", 'type: " "', "work.workers.type: is empty"),
        ("frugal", "cheap", "constraints.prefer: "),
        ("count: 1, cpu: 4", "count: 2, cpu: 4", "hosts.reader.at: names one node"),
    ],
)
def test_what_cannot_be_meant_is_said_with_its_place(old, new, told):
    assert WHOLE.count(old) == 1
    with pytest.raises(FileError) as raised:
        one(WHOLE.replace(old, new))
    assert told in str(raised.value)
    assert str(raised.value).startswith("near.yaml:")


def test_more_data_than_a_slice_can_have_is_refused():
    entries = [{"at": f"n{n}", "bytes": "1GB", "to": "w"} for n in range(65)]
    with pytest.raises(FileError, match="65 entries: write at most 64"):
        one(json.dumps({"name": "a", "engines": {"w": {"kind": "gpu"}}, "data": entries}))
