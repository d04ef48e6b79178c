"""Whatever is given to the readers, they answer with a value or say in a SpecError why not."""

import json
import random
from pathlib import Path
from typing import Any

import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from flowos.documents.cell_file import cell_json, load_cell
from flowos.documents.presets import preset
from flowos.documents.slice_file import parse_slice
from flowos.documents.slice_options import slice_from_options
from flowos.documents.slice_writing import dump_slice
from flowos.documents.text import parse
from flowos.documents.yaml_text import FASTEST, parse_yaml
from flowos.model.cell import Cell
from flowos.model.codec import decode, encode
from flowos.model.errors import SpecError
from flowos.model.slice import SliceSpec

EXAMPLES = Path(__file__).parents[2] / "examples"
CELLS = [path.read_text() for path in sorted((EXAMPLES / "cells").glob("*.yaml"))]
SLICES = [path.read_text() for path in sorted((EXAMPLES / "slices").glob("*.yaml"))]
CELL_JSON = cell_json(preset("fic-small"))
CSV = "node_id,engine_type,engine_model,engines,cpu_cores,mem_gib,pod,rack,basis\n" + "".join(
    f"n{number},gpu,T4,2,64,{number}.5,p,r{number % 2},published\n" for number in range(6)
)

# Words that mean something to the readers, so that chance meets them.
WORDS = sorted(
    {
        word
        for text in (*CELLS, *SLICES)
        for word in text.replace(",", " ").replace(":", " ").split()
    }
    | {"no", "010", "1.10", "12:30:00", "~", "null", "-", "{0..3}", "{i%0}", "*x", "&x", "!!set"}
    | {
        "9" * 50,
        "1e999999999",
        "-1",
        "0",
        "\x00",
        "\ud800",
        "\U0001f600",
        "<<",
        "n0/gpu0",
        "sw0:99999",
    }
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(WORDS)
)
keys = st.sampled_from(WORDS) | st.text(max_size=8)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=6)
)


def check_answer(error: SpecError, path: str) -> None:
    """An error ends the command with 2, names the file, and says the way out."""
    assert error.exit_code == 2
    assert error.hint
    assert error.where.startswith((path, "standard input")) or not error.where


def checked_cell(path: str, text: str, fabric: str = "") -> Cell | None:
    try:
        cell = load_cell(path, text=text, fabric=fabric)
    except SpecError as error:
        check_answer(error, path)
        return None
    # What was accepted survives its export.
    assert load_cell("again.json", text=cell_json(cell)) == cell
    return cell


def checked_slices(path: str, text: str | dict[str, Any]) -> list[SliceSpec]:
    try:
        specs = parse_slice(text, path)
    except SpecError as error:
        check_answer(error, path)
        return []
    for spec in specs:
        assert parse_slice(dump_slice(spec), "again") == [spec]
        assert decode(SliceSpec, encode(spec)) == spec
    return specs


@st.composite
def mutated(draw: st.DrawFn, texts: list[str]) -> str:
    """A valid text in which some pieces were replaced, doubled, or left out."""
    text = draw(st.sampled_from(texts))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        to = draw(st.integers(at, min(len(text), at + 40)))
        instead = draw(
            st.sampled_from([*WORDS, "", text[at:to] * 2, "{", "]", "\n", "  ", '"', ": "])
        )
        text = text[:at] + instead + text[to:]
    return text


@given(st.text())
@example("[" * 50_000)
@example("? " * 50_000)
@example('"\\ud800"')
@example("%YAML 9.9\n---\na")
def test_any_text_is_read_or_refused(text: str):
    for path in ("s.yaml", "s.json", "s.csv", "-"):
        checked_cell(path, text)
        checked_slices(path, text)


@given(mutated(CELLS))
def test_a_damaged_cell_file_is_read_or_refused(text: str):
    checked_cell("c.yaml", text)


@given(mutated([CELL_JSON]))
def test_a_damaged_json_cell_is_read_or_refused(text: str):
    checked_cell("c.json", text)


@given(mutated([CSV]), st.sampled_from(["", "rack", "nodes:2", "nodes:0", "\x00"]))
def test_a_damaged_csv_cell_is_read_or_refused(text: str, fabric: str):
    checked_cell("c.csv", text, fabric)


@given(mutated(SLICES))
def test_a_damaged_slice_file_is_read_or_refused(text: str):
    checked_slices("s.yaml", text)


@st.composite
def damaged(draw: st.DrawFn, document: Any) -> Any:
    """A valid document with a value put somewhere where it may not belong."""
    document = json.loads(json.dumps(document))
    inner = document
    while isinstance(inner, dict | list) and inner:
        places: list[Any] = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        place = draw(st.sampled_from(places))
        if not isinstance(inner[place], dict | list) or not inner[place] or draw(st.booleans()):
            inner[place] = draw(values)
            break
        inner = inner[place]
    if isinstance(inner, dict) and draw(st.booleans()):
        inner[draw(keys)] = draw(scalars)
    return document


SLICE_DOCUMENTS = [document.value for text in SLICES for document in parse(text, "s.yaml")]


@given(
    st.sampled_from(SLICE_DOCUMENTS)
    .map(lambda d: json.loads(json.dumps(d, default=str)))
    .flatmap(damaged)
)
def test_a_slice_with_a_value_out_of_place_is_read_or_refused(document: Any):
    if isinstance(document, dict):
        checked_slices("s.sdk", document)
    checked_slices("s.json", json.dumps(document))
    checked_slices("s.json", json.dumps(document, ensure_ascii=False))


@given(damaged(json.loads(CELL_JSON)))
def test_a_cell_with_a_value_out_of_place_is_read_or_refused(document: Any):
    checked_cell("c.json", json.dumps(document))


@given(values)
def test_any_yaml_or_json_is_read_or_refused(value: Any):
    checked_slices("s.json", json.dumps(value))
    checked_cell("c.json", json.dumps(value))
    text = yaml.safe_dump(value, allow_unicode=True)
    checked_slices("s.yaml", text)
    checked_cell("c.yaml", text)


@given(mutated([*CELLS, *SLICES]) | st.text())
@example("!")
def test_both_parsers_of_yaml_read_alike(text: str):
    def read(loader: Any) -> Any:
        try:
            return [document.value for document in parse_yaml(text, "a.yaml", loader)]
        except SpecError:
            return None

    pure, fastest = read(yaml.SafeLoader), read(FASTEST)
    # Where only one of them refuses, they judge rare signs differently; they never read apart.
    assert pure == fastest or pure is None or fastest is None


@given(
    st.text() | st.sampled_from(["gpu=8", "gpu=1,fpga=2@x", "gpu=0.5"]), st.text() | st.just("ring")
)
def test_any_options_make_a_slice_or_are_refused(engines: str, circuits: str):
    try:
        (spec,) = slice_from_options(engines, circuits, rng=random.Random(0))
    except SpecError as error:
        check_answer(error, "")
        return
    assert parse_slice(dump_slice(spec), "again") == [spec]
