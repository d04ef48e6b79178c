"""Does docs/write-a-scheduler.md lead from nothing to a scheduler that runs, word for word?"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flowos.planning.policy import Policy
from flowos.runtime.plugins import SEAM
from flowos.testing.schedulers import LAWS

PAGE = (Path(__file__).parent.parent.parent / "docs/write-a-scheduler.md").read_text()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_page_lists_every_law_and_every_question():
    for law, text in LAWS.items():
        assert f"| `{law}` | {text} |" in PAGE
    for method in SEAM:
        assert f"| `{method}(" in PAGE
        assert callable(getattr(Policy, method))


@pytest.mark.etcd
@pytest.mark.slow
def test_what_the_page_says_works(tmp_path):
    folder, target = tmp_path / "mine", tmp_path / "installed"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(blocks("toml")[0])
    module, tests = blocks("python")
    (folder / "my_scheduler.py").write_text(module)
    (folder / "test_my_scheduler.py").write_text(tests)
    (commands,) = blocks("sh")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FLOWOS_")} | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PIP_TARGET": str(target),  # not among the packages that these tests run with
        "PIP_NO_INDEX": "1",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTHONPATH": str(target),
        "FLOWOS_DATA_DIR": str(tmp_path / "data"),
    }

    def sh(command: str) -> str:
        done = subprocess.run(
            ["sh", "-ec", command],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, (command, done.stdout)
        return done.stdout

    said = {}
    try:
        for command in commands.splitlines():
            said[command] = sh(command)
    finally:
        subprocess.run(["flowos", "down"], env=environment, stderr=subprocess.DEVNULL, check=False)
    (row,) = [
        line
        for line in said["flowos scheduler plugins -o wide"].splitlines()
        if line.startswith("deadline")
    ]
    assert re.search(r"deadline +ok +2 .* my-scheduler 0.1 +my_scheduler +deadline-0, ", row)
    assert "14 passed" in sh(f"{sys.executable} -m pytest -q -p no:cacheprovider .")
