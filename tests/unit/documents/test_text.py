"""YAML and JSON are read strictly: what could mean two things is refused, with its line."""

from decimal import Decimal

import pytest
import yaml

from flowos.documents.text import parse, read_text
from flowos.documents.yaml_text import FASTEST, parse_yaml
from flowos.model.errors import FileError

LOADERS = [pytest.param(yaml.SafeLoader, id="pure"), pytest.param(FASTEST, id="fastest")]


def refused(text: str, path: str = "a.yaml") -> FileError:
    with pytest.raises(FileError) as caught:
        parse(text, path)
    assert str(caught.value).startswith(path)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("loader", LOADERS)
def test_yaml_gives_plain_values(loader):
    text = (
        'a: [1, -2, 1.10, "no", null, true]\nb: {c: text, off: 0}\nd: "010"\ne: |\n  two\n  lines\n'
    )
    (document,) = parse_yaml(text, "a.yaml", loader)
    assert document.value == {
        "a": [1, -2, Decimal("1.10"), "no", None, True],
        "b": {"c": "text", "off": 0},
        "d": "010",
        "e": "two\nlines\n",
    }
    assert str(document.value["a"][2]) == "1.10"


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    "word",
    [
        "no",
        "Yes",
        "ON",
        "010",
        "0x1F",
        "0o17",
        "12:30:00",
        "1_000",
        "2026-11-22",
        ".inf",
        ".nan",
        "=",
    ],
)
def test_a_word_that_means_two_things_is_refused(loader, word):
    with pytest.raises(FileError) as caught:
        parse_yaml(f"a: 1\nb: [x,\n  {word}]\n", "a.yaml", loader)
    assert caught.value.line == 3
    assert word in caught.value.problem
    assert caught.value.hint


@pytest.mark.parametrize(
    "word", ["0..15", "n{0..3}", "sha256:12e4", "1h30m", "nordic", "1.2.3", "-"]
)
def test_a_word_that_means_one_thing_is_text(word):
    (document,) = parse(f'a: "{word}"\nb: {word}\n' if word != "-" else 'a: "-"\nb: "-"', "a.yaml")
    assert document.value == {"a": word, "b": word}


@pytest.mark.parametrize("word", ["+e5", ".e5", "-", "..", "1e", "+", "e5", "1.2.3"])
def test_a_word_that_only_looks_like_a_number_is_text(word):
    (document,) = parse(f"a: [{word}]" if word != "-" else "a: ['-']", "a.yaml")
    assert document.value == {"a": [word]}


@pytest.mark.parametrize("loader", LOADERS)
def test_a_double_key_names_the_line_of_the_second(loader):
    with pytest.raises(FileError, match=r'a\.yaml:3: the key "x" stands twice here: keep one'):
        parse_yaml("x: 1\ny: 2\nx: 3\n", "a.yaml", loader)


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: &x 1\nb: *x\n", 2, "alias *x"),
        ("a: 1\nb: !!python/name:os.system x\n", 2, "tag"),
        ("a: 1\nb: ! x\n", 2, "the tag !"),
        ("a: 1\n8: x\n", 2, "key 8 is not text"),
        ("a: 1\n? [b]\n: x\n", 2, "key a list is not text"),
        ("a: 1\nb: [1, 2\nc: 3\n", 3, "is not YAML"),
        ("a: 1\n\tb: 2\n", 2, "is not YAML"),
        ("a: " + "9" * 100, 1, "too long"),
        ("a: 1\nb: 1e99999999999999999999", 2, "too long"),
        ("[" * 100_000, 1, "too deeply"),
        ("- " * 100_000, 1, "too deeply"),
        ("a: \x07", 0, "is not YAML"),
        ("a: \ud800", 0, "is not YAML"),
    ],
)
def test_what_is_not_read_is_refused_with_its_line(loader, text, line, words):
    with pytest.raises(FileError) as caught:
        parse_yaml(text, "a.yaml", loader)
    assert (caught.value.line, words in caught.value.problem) == (line, True), caught.value


def test_an_escape_beyond_unicode_is_refused_by_both_parsers():
    for loader in (yaml.SafeLoader, FASTEST):
        with pytest.raises(FileError, match="is not YAML"):
            parse_yaml('a: "\\U0011ffff"', "a.yaml", loader)


def test_every_place_of_a_yaml_document_knows_its_line():
    text = "a: 1\n---\nnodes:\n  - name: n0\n    engines:\n      - {name: x}\n      - {name: y,\n         kind: z}\n"
    _, document = parse(text, "a.yaml")
    lines = {
        (): 3,
        ("nodes",): 3,
        ("nodes", 0): 4,
        ("nodes", 0, "engines"): 5,
        ("nodes", 0, "engines", 1): 7,
        ("nodes", 0, "engines", 1, "kind"): 8,
        ("nodes", 0, "engines", 9, "kind"): 5,
        ("nodes", 0, "missing"): 4,
    }
    assert {place: document.line_of(place) for place in lines} == lines


def test_every_place_of_a_json_document_knows_its_line():
    text = '{"a": [1,\n {"b": "}]",\n  "c": {\n "d": 2}}],\n "e": 3}\n'
    (document,) = parse(text, "a.json")
    lines = {
        ("a", 0): 1,
        ("a", 1): 2,
        ("a", 1, "c"): 3,
        ("a", 1, "c", "d"): 4,
        ("a", 1, "x"): 2,
        ("e",): 5,
        ("a", 7): 1,
        ("e", 0): 5,
    }
    assert {place: document.line_of(place) for place in lines} == lines


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('{"a": 1,\n "b": {"c": 1,\n "c": 2}}', 3, 'key "c" stands twice'),
        ('{"a": {"c": 1},\n "c": {"x": ":{"},\n "c": 2}', 3, 'key "c" stands twice'),
        ('{"a": 1,\n "b": NaN}', 2, "NaN is no number"),
        ('{"a": 1,\n "b": 1' + "0" * 200 + ".5}", 2, "is no number"),
        ('{"a": 1,\n "b": 1e99999999999999999999}', 2, "is no number"),
        ('{"a": 1' + "0" * 5000 + "}", 0, "thousands of digits"),
        ('{"a": 1,\n "b" 2}', 2, "is not JSON"),
        ('{"a": 1,}', 1, "is not JSON"),
        ("", 1, "is not JSON"),
        ("[" * 100_000, 0, "too deeply"),
    ],
)
def test_json_is_refused_with_its_line(text, line, words):
    error = refused(text, "a.json")
    assert (error.line, words in error.problem) == (line, True), error


def test_standard_input_is_told_apart_by_its_first_signs():
    assert parse('{"a": 1.10}', "-")[0].value == {"a": Decimal("1.10")}
    assert parse("{a: 1}", "-")[0].value == {"a": 1}
    assert parse("a: 1", "-")[0].value == {"a": 1}
    with pytest.raises(FileError, match=r"^standard input:1: "):
        parse("a: no", "-")


def test_empty_documents_are_left_out():
    assert [document.value for document in parse("---\n---\na: 1\n---\n", "a.yaml")] == [{"a": 1}]


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    missing = tmp_path / "missing.yaml"
    with pytest.raises(FileError, match=r"missing.yaml: cannot be read: No such file"):
        read_text(missing)
    with pytest.raises(FileError, match="cannot be read"):
        read_text(tmp_path)
    with pytest.raises(FileError, match="is no file name"):
        read_text("a\x00b")


def test_a_file_that_is_not_utf8_names_the_line(tmp_path):
    file = tmp_path / "latin.yaml"
    file.write_bytes(b"a: 1\nb: \xe9t\xe9\n")
    with pytest.raises(FileError, match=r"latin.yaml:2: byte 8 is not UTF-8"):
        read_text(file)


def test_a_mark_before_the_first_sign_is_read_over(tmp_path):
    file = tmp_path / "marked.json"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert parse(read_text(file), file)[0].value == {"a": 1}
