"""Both ways to read a record accept the same bytes and give the same values."""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowos.model.cell import Bitstream, Domain, Engine, Link, Node, Switch, Tenant
from flowos.model.codec import decode_few, decode_many, encode
from flowos.model.errors import SpecError
from flowos.model.placement import Observed, Order, Placement, Report, Session
from flowos.model.slice import Slice, Waiting

KINDS = [
    Bitstream, Domain, Engine, Link, Node, Observed, Order, Placement, Report, Session, Slice,
    Switch, Tenant, Waiting,
]  # fmt: skip

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


def of(hint: Any) -> Any:
    """Return a strategy for a field of this type; every field of a record is drawn."""
    origin, arguments = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        record: Any = hint
        hints = get_type_hints(record)
        return st.builds(record, **{f.name: of(hints[f.name]) for f in fields(hint)})
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return st.lists(of(arguments[0]), max_size=2).map(tuple)
        return st.tuples(*map(of, arguments))
    if origin is not None and issubclass_of_mapping(origin):
        return st.dictionaries(of(arguments[0]), of(arguments[1]), max_size=2)
    if origin is not None:
        return st.one_of(*map(of, arguments))
    if hint is float:
        return st.floats(allow_nan=False, allow_infinity=False)
    return st.text(max_size=4) if hint is str else st.from_type(hint)


def issubclass_of_mapping(origin):
    return isinstance(origin, type) and issubclass(origin, Mapping)


def outcome(decode, kind, value):
    try:
        return decode(kind, value)
    except SpecError:
        return "refused"


def places(document, path=()):
    """Yield the path of every value in a document."""
    yield path
    items = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document)
        if isinstance(document, list)
        else ()
    )
    for key, value in items:
        yield from places(value, (*path, key))


def changed(document, path, value):
    """Return the document with another value at a path."""
    if not path:
        return value
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[path[0]] = changed(copy[path[0]], path[1:], value)
    return copy


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_a_record_is_read_alike_by_both_readers(kind, data):
    record = data.draw(of(kind))
    written = encode(record)
    assert decode_few(kind, written) == decode_many(kind, written) == record


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_a_record_with_one_wrong_value_is_judged_alike_by_both_readers(kind, data):
    document = json.loads(encode(data.draw(of(kind))))
    path = data.draw(st.sampled_from(list(places(document))))
    wrong = json.dumps(changed(document, path, data.draw(anything))).encode()
    assert outcome(decode_few, kind, wrong) == outcome(decode_many, kind, wrong)


@pytest.mark.parametrize("kind", KINDS)
@given(name=st.text(max_size=5), value=anything)
def test_an_unknown_field_is_refused_by_both_readers(kind, name, value):
    wrong = json.dumps({f"x{name}x": value}).encode()
    assert outcome(decode_few, kind, wrong) == outcome(decode_many, kind, wrong) == "refused"


@pytest.mark.parametrize("value", [b"", b"{", b"\xff", b"nothing", b"[1", b"[" * 100_000])
def test_what_is_no_json_is_refused_by_both_readers(value):
    assert outcome(decode_few, Slice, value) == outcome(decode_many, Slice, value) == "refused"
