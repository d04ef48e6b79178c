"""Who serves which slices, read from files, and which rule is for which slice."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowos.documents.policies_file import load_policies, policies_document
from flowos.model.assignment import assigned, meant
from flowos.model.codec import decode, encode
from flowos.model.errors import FileError
from flowos.model.rules import NO_POLICIES, Assignment, PolicyRules
from flowos.model.slice import CircuitWish, EngineChoice, EngineRole, Shape, SliceSpec

KNOWN = {"batch": {"fair": 1.0}, "inference": {"warm": 1.0}}


@pytest.fixture
def read(tmp_path):
    """Write a file and read it."""

    def reading(text):
        path = tmp_path / "policies.yaml"
        path.write_text(text)
        return load_policies(path, known=KNOWN)

    return reading


def asked(*choices, name="t", tenant="default", shape=None, **more):
    roles = {f"r{n}": EngineRole((choice,)) for n, choice in enumerate(choices)}
    circuits = (CircuitWish(shape, tuple(roles)),) if shape else ()
    return SliceSpec(name, tenant, engines=roles, circuits=circuits, **{"policy": "", **more})


# ----------------------------------------------------------------------------------------- the file


def test_empty_mapping_is_the_defaults(read):
    assert read("{}") == NO_POLICIES


def test_all_of_it_is_read_and_written_back(read):
    rules = read(
        """
default: service
ageing: 10m
assignments:
  - {policy: inference, kinds: [fpga], names: serve-*}
  - {policy: mpi, engines_least: 16, tenants: [physics, vision]}
  - {policy: training, shapes: [ring, torus], preemptible: true}
settings:
  inference: {warm: 2}
  elsewhere: {whatever: 0.5}
"""
    )
    assert rules == PolicyRules(
        assignments=(
            Assignment("inference", kinds=("fpga",), names=("serve-*",)),
            Assignment("mpi", tenants=("physics", "vision"), engines_least=16),
            Assignment("training", shapes=("ring", "torus"), preemptible=True),
        ),
        default="service",
        ageing_seconds=600.0,
        settings={"inference": {"warm": 2.0}, "elsewhere": {"whatever": 0.5}},
    )
    assert read(json.dumps(policies_document(rules))) == rules
    assert decode(PolicyRules, encode(rules)) == rules


@pytest.mark.parametrize(
    ("text", "line", "problem", "hint"),
    [
        ("assignment: []", 1, "there is no field", "assignments"),
        ("default: [batch]", 1, "must be text", "write"),
        ("ageing: soon", 1, "soon", "write"),
        ("assignments: {}", 1, "must be a list", "[...]"),
        ("assignments:\n  - {kinds: [gpu]}", 2, "policy is missing", "add policy"),
        ("assignments:\n  - {policy: mpi, shape: ring}", 2, "no field", "shapes"),
        ("assignments:\n  - {policy: mpi, shapes: rign}", 2, "there is no shape", "ring"),
        ("assignments:\n  - {policy: mpi, engines_least: 0}", 2, "out of range", "1 to"),
        ("assignments:\n  - {policy: mpi, preemptible: 1}", 2, "no", "true or false"),
        (
            "assignments:\n  - {policy: mpi}\n  - {policy: batch, kinds: [gpu]}",
            3,
            "is never come to, for the assignment in line 2 is about every slice",
            "put it before",
        ),
        ("settings:\n  inference: 3", 2, "must be a mapping", "{warm: 2}"),
        (
            "settings:\n  inference:\n    wram: 3",
            3,
            "policy inference has no setting",
            "did you mean warm?",
        ),
        ("settings:\n  inference:\n    warm: -1", 3, "no value of a setting", "from 0 on"),
        ("settings:\n  inference:\n    warm: true", 3, "no value of a setting", "from 0 on"),
    ],
)
def test_what_cannot_be_meant_names_the_line_and_the_way_out(read, text, line, problem, hint):
    with pytest.raises(FileError) as caught:
        read(text)
    assert caught.value.line == line
    assert problem in str(caught.value)
    assert hint in str(caught.value)


# ----------------------------------------------------------------------------------------- the rule


GPU, FPGA = EngineChoice("gpu", count=4), EngineChoice("fpga")


@pytest.mark.parametrize(
    ("assignment", "yes", "no"),
    [
        (Assignment("p"), asked(GPU), None),
        (Assignment("p", tenants=("a", "b")), asked(GPU, tenant="b"), asked(GPU, tenant="c")),
        (Assignment("p", names=("x", "train-*")), asked(GPU, name="train-1"), asked(GPU)),
        (Assignment("p", kinds=("fpga",)), asked(GPU, FPGA), asked(GPU)),
        (Assignment("p", engines_least=5), asked(GPU, FPGA), asked(GPU)),
        (
            Assignment("p", shapes=("ring",)),
            asked(GPU, shape=Shape.RING),
            asked(GPU, shape=Shape.ALL),
        ),
        (Assignment("p", tenants=("a",), kinds=("gpu",)), asked(GPU, tenant="a"), asked(GPU)),
    ],
)
def test_an_assignment_is_about_slices_for_which_all_that_it_says_holds(assignment, yes, no):
    assert meant(assignment, yes)
    assert no is None or not meant(assignment, no)


def test_the_first_match_counts_and_the_default_serves_the_rest():
    rules = PolicyRules(
        (Assignment("inference", kinds=("fpga",)), Assignment("mpi", engines_least=4)), "service"
    )
    assert assigned(asked(GPU, FPGA), rules).policy == "inference"
    assert assigned(asked(GPU), rules).policy == "mpi"
    assert assigned(asked(EngineChoice("gpu")), rules).policy == "service"
    assert assigned(asked(GPU), None).policy == "batch"


def test_a_slice_that_names_a_policy_keeps_it_and_all_else():
    rules = PolicyRules((Assignment("mpi", preemptible=True),))
    assert assigned(asked(GPU, policy="stream"), rules) == asked(GPU, policy="stream")


def test_slices_of_a_kind_give_way_by_rule_and_none_is_made_to_stay():
    rules = PolicyRules((Assignment("batch", tenants=("s",), preemptible=True),), "service")
    assert assigned(asked(GPU, tenant="s"), rules).preemptible
    assert not assigned(asked(GPU), rules).preemptible
    assert assigned(asked(GPU, preemptible=True), rules).preemptible
    stays = PolicyRules((Assignment("batch", tenants=("s",)),))
    assert assigned(asked(GPU, tenant="s", preemptible=True), stays).preemptible


# --------------------------------------------------------------------------------------- any of them


WORDS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
LISTS = st.lists(WORDS, max_size=3).map(tuple)
NUMBERS = st.integers(0, 10**9).map(float) | st.floats(1e-6, 1e9)


@st.composite
def rules(draw):
    found = draw(
        st.lists(
            st.builds(
                Assignment,
                policy=WORDS,
                tenants=LISTS,
                kinds=LISTS,
                names=LISTS,
                engines_least=st.integers(0, 10**6),
                shapes=st.lists(st.sampled_from([str(s) for s in Shape]), max_size=2).map(tuple),
                preemptible=st.booleans(),
            ),
            max_size=4,
        )
    )
    # One that is about every slice may only come last.
    bare = [a == Assignment(a.policy, preemptible=a.preemptible) for a in found]
    kept = found[: bare.index(True) + 1] if True in bare else found
    return PolicyRules(
        assignments=tuple(kept),
        default=draw(WORDS),
        ageing_seconds=draw(st.integers(0, 10**6).map(float)),
        settings=draw(
            st.dictionaries(WORDS, st.dictionaries(st.just("warm"), NUMBERS), max_size=2)
        ),
    )


def written(value, folder):
    path = folder / "rules.json"
    path.write_text(json.dumps(value))
    return path


@given(said=rules())
def test_any_rules_are_written_and_read_back(said, tmp_path_factory):
    path = written(policies_document(said), tmp_path_factory.getbasetemp())
    assert load_policies(path, known={}) == said


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["policy", "kinds", "batch", "warm", "engines_least", "shapes", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


@given(
    value=st.dictionaries(
        st.sampled_from(["default", "ageing", "assignments", "settings"]), VALUES, min_size=1
    )
)
def test_whatever_a_file_says_is_read_or_refused_by_a_sentence(value, tmp_path_factory):
    path = written(value, tmp_path_factory.getbasetemp())
    with suppress(FileError):  # anything else fails the test
        found = load_policies(path, known=KNOWN)
        assert decode(PolicyRules, encode(found)) == found
