"""The command as a process: what it imports, how it ends, and what it says without a store."""

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from contextlib import contextmanager
from pathlib import Path

import pytest

from flowos.model.transaction import Put, Transaction

PROGRAM = [sys.executable, "-m", "flowos_cli.main"]
LOADED = "import sys; from flowos_cli.main import run; run({arguments}); print(*sys.modules, file=sys.stderr)"


def loaded(*arguments, environment=None):
    """The modules that are there after a command has run."""
    code = LOADED.format(arguments=list(arguments))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    return set(done.stderr.splitlines()[-1].split())


def test_help_imports_nothing_of_the_commands():
    plain = set(
        subprocess.run(
            [sys.executable, "-c", "import sys, click; print(*sys.modules)"],
            capture_output=True, text=True, check=True,
        ).stdout.split()
    )  # fmt: skip
    found = loaded("--help")
    assert not found & {
        "grpc",
        "pydantic",
        "rich",
        "yaml",
        "etcd3",
        "flowos_store",
        "flowos.model.view",
    }
    # What click itself takes counts most; of our own there are three modules and little else.
    assert {m for m in found if m.startswith("flowos")} <= {
        "flowos", "flowos.model", "flowos.model.errors", "flowos_cli", "flowos_cli.lazy", "flowos_cli.main",
    }  # fmt: skip
    assert len(found - plain) < 100


def test_slice_ls_imports_no_loop_no_planner_and_no_screen(still):
    found = loaded("slice", "ls", environment=dict(os.environ))
    assert "flowos.model.view" in found
    assert not found & {
        "rich",
        "yaml",
        "flowos.runtime.client",
        "flowos.planning.engines.pool",
        "flowos.verify",
    }


def test_help_of_every_command_ends_well(still):
    from flowos_cli.main import cli

    def commands(group, words=()):
        import click

        for word in group.list_commands(None):
            command = group.get_command(None, word)
            yield (*words, word)
            if isinstance(command, click.Group):
                yield from commands(command, (*words, word))

    found = [words for words in commands(cli) if words[0] not in ("up", "down", "replay")]
    assert len(found) > 40
    for words in found:
        assert still(*words, "--help").out.startswith("Usage: ")


@pytest.mark.parametrize(
    "arguments",
    ["ls", "status", "engine ls", "cell show", "cell verify", "submit --engines gpu=1", "cancel t"],
)
def test_without_a_store_every_command_ends_with_5(arguments, capsys, monkeypatch):
    from flowos_cli.main import run

    monkeypatch.delenv("FLOWOS_ENDPOINTS", raising=False)
    nobody = ["--endpoints", "127.0.0.1:9", "--connect-timeout", "0.2"]
    assert run([*arguments.split(), *nobody]) == 5
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(r"error: no etcd answered at 127.0.0.1:9 in 0.2 s: .*\n", said.err)


def test_without_a_cell_in_the_folder_the_way_out_is_said(tmp_path, capsys, monkeypatch):
    from flowos_cli.main import run

    monkeypatch.delenv("FLOWOS_ENDPOINTS", raising=False)
    assert run(["ls", "--data-dir", str(tmp_path)]) == 5
    assert "flowos up" in capsys.readouterr().err


def test_watch_tells_each_change_and_ends_well_on_interrupt(live):
    watching = subprocess.Popen(
        [*PROGRAM, "ls", "-w", "-o", "jsonl", "--columns", "name,phase"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert watching.stdout is not None
        live("submit", "--engines", "gpu=1", "--name", "t", "--wait", "running")
        seen: list[dict[str, str]] = []
        while not seen or seen[-1]["phase"] != "running":
            seen.append(json.loads(watching.stdout.readline()))
        assert {item["name"] for item in seen} == {"t"}
        watching.send_signal(signal.SIGINT)
        _, said = watching.communicate(timeout=10)
        assert (watching.returncode, said) == (0, "")
    finally:
        watching.kill()


@contextmanager
def on_a_terminal(*arguments, columns=80, **variables):
    """Run the command on a terminal; give its process and a function that reads up to a text."""
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = os.environ | {"TERM": "xterm", **variables}
    running = subprocess.Popen(
        [*PROGRAM, *arguments], stdin=terminal, stdout=terminal, stderr=terminal, env=environment
    )
    os.close(terminal)
    seen = b""

    def read_to(text):
        nonlocal seen
        while text not in seen.decode(errors="replace"):
            seen += os.read(screen, 10_000)
        return seen.decode()

    try:
        yield running, read_to, screen
    finally:
        running.kill()
        running.wait()
        os.close(screen)


def test_top_is_live_and_q_ends_it_with_the_terminal_as_it_was(still):
    with on_a_terminal("top") as (running, read_to, screen):
        assert "none lives" in read_to("q ends")
        still("submit", "--engines", "gpu=1", "--name", "newcomer")
        read_to("newcomer")
        os.write(screen, b"q")
        said = read_to("\x1b[?1049l")
        assert running.wait(timeout=10) == 0
        assert said.rstrip().endswith("\x1b[?25h\x1b[?1049l")


def test_colours_are_for_terminals_that_want_them(still):
    still("submit", "--engines", "gpu=1", "--name", "t")
    with on_a_terminal("ls") as (_, read_to, _):
        assert "\x1b[33mpending" in read_to("SchedulerDown")
    with on_a_terminal("ls", NO_COLOR="1") as (_, read_to, _):
        assert "\x1b" not in read_to("SchedulerDown")


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_screens_keep_within_the_terminal(still, columns):
    still("submit", "--engines", "gpu=1", "--name", "n" * 40, "--priority", "99")
    for arguments in (
        ["ls"],
        ["engine", "ls"],
        ["status"],
        ["slice", "show", "n"],
    ):
        with on_a_terminal(*arguments, columns=columns, NO_COLOR="1") as (running, read_to, _):
            with contextlib.suppress(OSError):  # what is read after the end
                read_to("never said")
            running.wait(timeout=10)
            with contextlib.suppress(OSError):
                lines = read_to("").splitlines()
            assert max(map(len, lines)) <= columns


def test_show_and_lists_are_redrawn_in_place(still):
    still("submit", "--engines", "gpu=1", "--name", "t")
    with on_a_terminal("slice", "show", "t", "-w") as (running, read_to, _):
        read_to("SchedulerDown")
        still("slice", "hold", "t")
        read_to("Held")
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=10) == 0


def test_followed_verification_ends_with_6_after_a_violation(still):
    following = subprocess.Popen(
        [*PROGRAM, "cell", "verify", "--follow", "-o", "json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert following.stderr is not None
        assert following.stdout is not None
        assert "following" in following.stderr.readline()
        still.store.commit([Transaction((), (Put("claim/engine/n0/gpu0", b'["a/b","c",[]]'),))])
        violation = json.loads(following.stdout.readline())
        following.send_signal(signal.SIGINT)
        said, _ = following.communicate(timeout=10)
        assert following.returncode == 6
        assert violation in json.loads(said)["violations"]
    finally:
        following.kill()


def test_interrupted_wait_ends_with_130_after_it_told_a_person_how_far_it_is(still):
    still("submit", "--engines", "gpu=1", "--name", "t")
    screen, terminal = pty.openpty()
    waiting = subprocess.Popen([*PROGRAM, "slice", "wait", "t"], stderr=terminal)
    os.close(terminal)
    try:
        assert os.read(screen, 100).strip() == b"default/t: waits"
        waiting.send_signal(signal.SIGINT)
        assert waiting.wait(timeout=10) == 130
    finally:
        waiting.kill()
        os.close(screen)


def complete(line, **variables):
    """What the shell is offered at the end of a line."""
    environment = os.environ | {
        "_FLOWOS_COMPLETE": "bash_complete",
        "COMP_WORDS": f"flowos {line}",
        "COMP_CWORD": str(len(f"{line}|".split())),
        **variables,
    }
    done = subprocess.run(PROGRAM, capture_output=True, text=True, env=environment, check=False)
    assert done.stderr == ""
    return [answer.removeprefix("plain,") for answer in done.stdout.split()]


def test_completion_knows_words_and_never_says_an_error():
    assert complete("sl") == ["slice"]
    assert "explain" in complete("slice ")
    assert complete("slice show ", FLOWOS_ENDPOINTS="127.0.0.1:9") == []
    assert complete("engine drain ", FLOWOS_ENDPOINTS="no endpoint at all") == []


def test_completion_knows_live_names(still, monkeypatch):
    import click

    from flowos_cli.commands import completion

    monkeypatch.setattr(completion, "ANSWER_SECONDS", 10)
    for name in ("train-1", "train-2", "other"):
        still("submit", "--engines", "gpu=1", "--name", name)

    argument = click.Argument(["name"])

    def offered(family, start, **said):
        context = click.Context(click.Command("any"))
        context.params = {"endpoints": still.endpoint, "cell_name": still.cell, **said}
        return [item.value for item in completion.live(family)(context, argument, start)]

    assert offered("slice", "tr") == ["train-1", "train-2"]
    assert offered("slice", "tr", names=("train-1",)) == ["train-2"]
    assert offered("engine", "n0/g") == [f"n0/gpu{n}" for n in range(4)]
    assert offered("tenant", "") == ["default"]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("submit --policy s", ["service", "stream"]),
        ("ls --policy m", ["mpi"]),
        ("scheduler run t", ["training"]),
        ("scheduler plugins b", ["batch"]),
        ("up --scheduler inf", ["inference"]),
    ],
)
def test_completion_knows_installed_policies(line, offered):
    assert complete(line) == offered


@pytest.mark.parametrize(
    ("line", "family"),
    [
        ("submit --tenant ", "tenant"),
        ("submit --reservation ", "rule/reservation"),
        ("submit --depends-on ", "slice"),
        ("ls --tenant ", "tenant"),
        ("slice update --tenant ", "tenant"),
        ("reservation add r --tenant ", "tenant"),
        ("reservation rm ", "rule/reservation"),
        ("slice release ", "slice"),
        ("slice events ", "slice"),
    ],
)
def test_completion_asks_for_names_of_the_right_kind(line, family, monkeypatch):
    from click.shell_completion import ShellComplete

    from flowos_cli.commands import completion
    from flowos_cli.main import cli

    asked = []

    def ask(names, kind, *_more):
        asked.append(kind)
        names.put([])

    monkeypatch.setattr(completion, "_ask", ask)
    monkeypatch.setattr(completion, "ANSWER_SECONDS", 10)
    ShellComplete(cli, {}, "flowos", "_FLOWOS_COMPLETE").get_completions(line.split(), "")
    assert asked == [family]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_names_the_command(shell, capsys):
    from flowos_cli.main import run

    assert run(["completion", shell]) == 0
    assert "_FLOWOS_COMPLETE" in capsys.readouterr().out


def test_no_command_is_drawn_by_another_module_than_render():
    cli = Path(__file__).parents[2] / "cli/flowos_cli"
    drawing = [
        p.name
        for p in cli.rglob("*.py")
        if re.search(r"^\s*(from|import) rich", p.read_text(), re.MULTILINE)
    ]
    assert drawing == ["render.py"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "cell reservation ls",
            "there is no command 'flowos cell reservation': did you mean 'flowos reservation'?",
        ),
        ("reservatoin ls", "there is no command 'flowos reservatoin': did you mean"),
        ("tenant xyz", "there is no command 'flowos tenant xyz': 'flowos tenant --help' lists all"),
        ("--wat", "there is no option --wat: 'flowos --help' says more"),
        ("submit --tenat x", "there is no option --tenat: did you mean --tenant?"),
        ("ls --wat", "there is no option --wat: did you mean --watch?"),
        ("reservation rm", "NAME... is missing: 'flowos reservation rm --help' says more"),
        ("scheduler run", "NAME[=N] is missing: 'flowos scheduler run --help' says more"),
        (
            "tenant set t --weight 0",
            "--weight: 0 is not in the range 1<=x<=1000000: 'flowos tenant set --help' says more",
        ),
        (
            "slice update t --priority x",
            "--priority: 'x' is not a valid integer: 'flowos slice update --help' says more",
        ),
        (
            "slice update t --time-limit 1x",
            '--time-limit: "1x" is not a duration: write seconds, or such as',
        ),
        ("ls -o csv", "--output: 'csv' is not one of 'table', 'wide', 'json'"),
        ("slice history --since x", "--since: x is no time: write such as 2h"),
        ("ls a b", "got unexpected extra arguments (a b): 'flowos ls --help' says more"),
        ("ls --qqq", "there is no option --qqq: 'flowos ls --help' says more"),
        ("ls --tenant", "option '--tenant' requires an argument"),
        ("slice update", "name at least one slice"),
        ("cancel", "name the slices to cancel, or say --all"),
    ],
)
def test_wrong_words_and_options_are_one_sentence_with_the_way_out(words, said, capsys):
    from flowos_cli.main import run

    assert run(words.split()) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.startswith(f"error: {said}")
    assert found.err.count("\n") == 1


def test_a_group_alone_says_what_it_has(capsys):
    from flowos_cli.main import run

    assert run(["reservation"]) == 2
    assert "Keep units during a window." in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        *("up", "submit", "ls", "explain", "cancel", "slice show", "slice wait", "slice events"),
        *(
            "slice hold",
            "slice release",
            "slice update",
            "slice history",
            "tenant set",
            "tenant ls",
        ),
        *(
            "reservation add",
            "reservation ls",
            "reservation rm",
            "scheduler run",
            "scheduler stats",
        ),
        *("scheduler plugins", "cell policies apply"),
    ],
)
def test_help_has_an_example_on_a_line_of_its_own(words, capsys):
    from flowos_cli.main import run

    assert run([*words.split(), "--help"]) == 0
    about = capsys.readouterr().out.partition("Options:")[0].partition("\n")[2]
    assert re.search(rf"^ +flowos {words}\b", about, re.MULTILINE)
