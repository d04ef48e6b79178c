"""Can a picture of a program be read, whatever the program?"""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from flowos.flowlet import AddBytewise, Concat, Sink, Source, execute

SVG = "{http://www.w3.org/2000/svg}"


def drawing(sink: Sink, folder: Path) -> ET.Element:
    execute(sink, on="here", picture=folder / "p.svg")
    return ET.parse(folder / "p.svg").getroot()


def texts(root: ET.Element) -> list[str]:
    return [text.text or "" for text in root.iter(f"{SVG}text")]


def boxes(root: ET.Element) -> list[ET.Element]:
    return [rect for rect in root.iter(f"{SVG}rect") if rect.find(f"{SVG}title") is not None]


def founding(count: int) -> Sink:
    first = Source(bytes(4))
    return Sink(Concat(*[AddBytewise(first, Source(bytes([n] * 4))) for n in range(count)]))


@pytest.mark.parametrize("name", ['<&>"', "a\x1b[31m", "line\nbreak", "\ud800", "ä × 試"])
def test_any_name_is_text_in_it(tmp_path, name):
    root = drawing(Sink(Concat(Source(b"a"), name=name)), tmp_path)
    assert len(boxes(root)) == 3
    said = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    assert said in texts(root)


def test_few_tasks_are_drawn_one_by_one_with_their_lines(tmp_path):
    sink = founding(3)
    root = drawing(sink, tmp_path)
    assert len(boxes(root)) == 3 + 1 + 3 + 2
    titles = [title.text or "" for title in root.iter(f"{SVG}title")]
    assert f"{sink.name} {sink.made_at}" in titles
    assert len(list(root.iter(f"{SVG}path"))) == 6 + 3 + 1


def test_many_tasks_of_one_depth_are_drawn_as_one_box_with_their_number(tmp_path):
    root = drawing(founding(100), tmp_path)
    assert len(boxes(root)) == 12 + 12 + 2
    assert {"89 more", "90 more"} <= set(texts(root))


def test_all_that_is_drawn_is_inside_and_no_boxes_overlap(tmp_path):
    root = drawing(founding(100), tmp_path)
    width, height = float(root.get("width", "")), float(root.get("height", ""))
    seen: set[tuple[float, float]] = set()
    for box in boxes(root):
        x, y, w, h = (float(box.get(key, "")) for key in ("x", "y", "width", "height"))
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height
        assert all(abs(x - a) >= w or abs(y - b) >= h for a, b in seen)
        seen.add((x, y))


def test_it_needs_nothing_from_elsewhere(tmp_path):
    text = ET.tostring(drawing(founding(3), tmp_path), encoding="unicode")
    assert text.count("http") == text.count("http://www.w3.org/2000/svg")
    assert "prefers-color-scheme: dark" in (tmp_path / "p.svg").read_text()
