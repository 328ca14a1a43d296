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
        [keys.index]
        dtype = "float32"

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
    values = {name: value for name, value in tables.items() if not isinstance(value, dict)}
    for name in values:
        if not any(name in _options(command) for command in _commands(group)):
            raise UsageError(f"{where}: no command has an option --{printable(name)}")
    return _defaults(group, {name: value for name, value in tables.items() if isinstance(value, dict)}, values, where)


def _defaults(
    group: click.Group, tables: dict[str, Any], general: dict[str, Any], where: str
) -> dict[str, dict[str, Any]]:
    for name in tables:
        if name not in group.commands:
            raise UsageError(f"{where}: no command {printable(name)!r}; there are {', '.join(group.commands)}")
    defaults: dict[str, dict[str, Any]] = {}
    for name, command in group.commands.items():
        table = tables.get(name, {})
        if not isinstance(table, dict):
            raise UsageError(f"{where}: {name} is a command: write its options under [{name}]")
        if isinstance(command, click.Group):
            defaults[name] = _defaults(command, table, general, where)
            continue
        options = _options(command)
        for option in table:
            if option not in options:
                known = ", ".join(sorted(options))
                raise UsageError(f"{where}: {name} has no option --{printable(option)}; it has {known}")
        chosen = {option: value for option, value in general.items() if option in options} | table
        defaults[name] = {options[option]: value for option, value in chosen.items()}
    return defaults


def _commands(group: click.Group) -> list[click.Command]:
    """All commands, those of groups within the group too."""
    return [
        found
        for command in group.commands.values()
        for found in (_commands(command) if isinstance(command, click.Group) else [command])
    ]


def _options(command: click.Command) -> dict[str, str]:
    """Long option without its dashes -> parameter name."""
    return {
        flag.removeprefix("--"): str(option.name)
        for option in command.params
        if isinstance(option, click.Option)
        for flag in option.opts
        if flag.startswith("--")
    }
