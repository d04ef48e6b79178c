"""Which one sentence says what is wrong with a command line, and the way out?"""

import difflib

import click


def sentence(error: click.ClickException) -> str:
    """Return a mistake in words or options as every other error is told.

    Args:
        error: What click found, or a command itself. The latter names the way out already.

    Returns:
        "--weight: 0 is not in the range 1<=x<=9: 'flowos tenant set --help' says more"
    """
    if not isinstance(error, click.UsageError):
        return _plain(error.format_message())
    if isinstance(error, click.MissingParameter):
        return f"{_parameter(error)} is missing{_help(error)}"
    if isinstance(error, click.BadParameter):
        found = f"{_parameter(error)}: {_plain(error.message)}"
        return found if ": " in error.message else found + _help(error)
    if isinstance(error, click.NoSuchOption):
        near = difflib.get_close_matches(error.option_name, error.possibilities or (), 1)
        found = f"there is no option {error.option_name}"
        return f"{found}: did you mean {near[0]}?" if near else found + _help(error)
    said = error.format_message()
    # Click's own sentences begin with a capital letter and end with a point.
    return _plain(said) + _help(error) if said[:1].isupper() else said


def _parameter(error: click.BadParameter) -> str:
    """Return "--tenant" or "NAME", as the help has it."""
    if error.param is None:
        return str(error.param_hint or "a value").strip("'")
    if isinstance(error.param, click.Option):
        return max(error.param.opts, key=len)
    return error.param.make_metavar(error.ctx) if error.ctx else str(error.param.name)


def _plain(text: str) -> str:
    text = text.strip().rstrip(".")
    return text[:1].lower() + text[1:]


def _help(error: click.UsageError) -> str:
    return f": '{error.ctx.command_path} --help' says more" if error.ctx else ""
