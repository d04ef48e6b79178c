"""What the operations page promises to explain is what the programs say, word for word."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from flowos.runtime.trouble import Kind
from flowos_cli.main import cli
from flowos_store.failures import REFUSED, UNCONNECTED

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/operations.md").read_text()
VARIES = "…"


def literals() -> Iterator[str]:
    """Every text in the sources, with … for what is put in."""
    for folder in ("flowos", "store", "cli"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield re.sub(r"%[sd]", VARIES, node.value)
                elif isinstance(node, ast.JoinedStr):
                    yield text_of(node)


def text_of(node: ast.Constant | ast.JoinedStr) -> str:
    """A literal's text, with … for what is put in."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return "".join(str(part.value) if isinstance(part, ast.Constant) else VARIES for part in parts)


TEXTS = list(literals())
QUOTED = re.findall(r"^\| `(.+?)` \|", PAGE.partition("## What messages mean")[2], re.MULTILINE)
ENDS = re.findall(r"(?:ends with|says the same|`) ?`([a-z][^`]+ again)`", PAGE)


@pytest.mark.parametrize("phrase", [*QUOTED, *ENDS])
def test_what_the_page_quotes_is_said_by_a_program(phrase):
    pattern = re.compile(".*".join(re.escape(part) for part in phrase.split(VARIES)), re.DOTALL)
    assert [text for text in TEXTS if pattern.search(text)], phrase


def test_the_page_quotes_a_good_deal():
    assert len(QUOTED) > 40
    assert len(ENDS) >= 5


@pytest.mark.parametrize("way", sorted({way for _, _, way in REFUSED}))
def test_every_way_out_of_a_refusal_is_on_the_page(way):
    assert f"`{way}`" in PAGE


@pytest.mark.parametrize("why", sorted({why for _, why in UNCONNECTED}))
def test_every_reason_for_no_connection_is_on_the_page(why):
    assert f"`{why}`" in PAGE


def test_every_reason_for_no_answer_is_on_the_page():
    function = next(
        node
        for node in ast.walk(ast.parse((ROOT / "store/flowos_store/failures.py").read_text()))
        if isinstance(node, ast.FunctionDef) and node.name == "reason"
    )
    said = [
        text_of(node.value)
        for node in ast.walk(function)
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Constant | ast.JoinedStr)
    ]
    assert len(said) >= 4
    missing = [text for text in said if text.strip(f"{VARIES}: ") and f"`{text}`" not in PAGE]
    assert missing == []


@pytest.mark.parametrize("kind", Kind)
def test_every_trouble_is_on_the_page_with_its_end(kind):
    assert f"`{kind.meaning}`" in PAGE
    assert f"`{kind.end}`" in PAGE


def test_every_warning_of_a_process_is_on_the_page():
    calls = [
        node
        for path in sorted((ROOT / "flowos/runtime").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("warning", "error", "exception", "info")
        and getattr(node.func.value, "id", "") == "LOG"
    ]
    said = [
        re.sub(r"%[sd]", VARIES, str(call.args[0].value))
        for call in calls
        if isinstance(call.args[0], ast.Constant)
    ]
    assert len(said) >= 6
    assert [text for text in said if f"`{text}`" not in PAGE] == []


COMMANDS = sorted(set(re.findall(r"`(flowos [a-z][a-z -]*)", PAGE)))


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_on_the_page_is_one(line):
    found: click.Command = cli
    context = click.Context(cli)
    for word in line.split()[1:]:
        if word.startswith("-"):
            options = {name for p in found.params for name in p.opts}
            assert word in options, line
        elif isinstance(found, click.Group):
            inner = found.get_command(context, word)
            assert inner is not None, line
            found = inner
    assert not isinstance(found, click.Group), line
