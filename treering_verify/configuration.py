"""Options from a TOML file: what a team sets once, beneath what the environment and the command line say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from treering_verify.errors import UsageError
from treering_verify.files import printable


def read_defaults(path: Path, group: click.Group) -> dict[str, dict[str, Any]]:
    """Read a TOML file as the commands' default values, in the form of click's ``default_map``.

    A table is a command, its keys are that command's options without the dashes before them; a key outside any table holds
    for every command that has such an option, and a command's own table goes before it::

        model = "landscape"
        [verify]
        alpha = 1e-9
        key = ["2025.key.json", "2026.key.json"]

    Parameters
    ----------
    path : Path
    group : click.Group
        Whose commands and options may be named.

    Returns
    -------
    dict
        Command -> parameter -> value; click checks types and ranges when the command runs.

    Raises
    ------
    UsageError
        If the file cannot be read, is no TOML, or names a command or an option that does not exist.
    """
    import tomllib

    where = printable(str(path))
    try:
        tables = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise UsageError(f"cannot read {where}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{where} is not TOML: {error}") from error
    options = {name: _options(command) for name, command in group.commands.items()}
    defaults: dict[str, dict[str, Any]] = {name: {} for name in options}
    for name, value in tables.items():
        if isinstance(value, dict):
            continue
        takers = [command for command, known in options.items() if name in known]
        if not takers:
            raise UsageError(f"{where}: no command has an option --{printable(name)}")
        for command in takers:
            defaults[command][options[command][name]] = value
    for command, table in tables.items():
        if not isinstance(table, dict):
            continue
        if command not in options:
            raise UsageError(f"{where}: no command {printable(command)!r}; there are {', '.join(options)}")
        for name, value in table.items():
            if name not in options[command]:
                known = ", ".join(sorted(options[command]))
                raise UsageError(f"{where}: {command} has no option --{printable(name)}; it has {known}")
            defaults[command][options[command][name]] = value
    return defaults


def _options(command: click.Command) -> dict[str, str]:
    """Long option without its dashes -> parameter name."""
    return {
        flag.removeprefix("--"): str(option.name)
        for option in command.params
        if isinstance(option, click.Option)
        for flag in option.opts
        if flag.startswith("--")
    }
