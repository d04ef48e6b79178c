"""Does the tutorial do what it says? Its programs are written down, and its commands are run."""

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs/flowlets.md").read_text()
FILE = re.compile(r"<!-- file: (\S+) -->\n```python\n(.*?)```", re.DOTALL)
CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)


def test_what_the_page_shows_is_what_happens(tmp_path):
    files = FILE.findall(PAGE)
    assert {name for name, _ in files} == {"founding.py", "words.py", "stream.py", "warm.py"}
    for name, text in files:
        (tmp_path / name).write_text(text)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FLOWOS_")}
    environment["HOME"] = str(tmp_path)  # no cell of this user's is in the way
    blocks = CONSOLE.findall(PAGE)
    assert len(blocks) == 5
    for block in blocks:
        command, _, shown = block.partition("\n")
        words = command.removeprefix("$ flowos ").split()
        done = subprocess.run(
            [sys.executable, "-m", "flowos_cli.main", *words],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.stdout, done.stderr, done.returncode) == (shown, "", 0), command
    assert (tmp_path / "founding.svg").read_text().startswith("<svg")
