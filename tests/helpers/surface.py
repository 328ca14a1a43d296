"""The command line's surface as text: a line for each command, argument and option, with its choices and default.

`python tests/helpers/surface.py` renews tests/treering_verify/cli/surface.txt, which a test compares with the commands.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

STORED = Path(__file__).resolve().parents[1] / "treering_verify" / "cli" / "surface.txt"


def lines(command: click.Command, path: str) -> Iterator[str]:
    """Yield the lines of a command and of the commands in it."""
    if " " in path:
        yield f"{path}: {command.get_short_help_str()}"
    for parameter in command.params:
        yield f"{path} {_named(parameter)} {' '.join(_facts(parameter))}".rstrip()
    for name, action in getattr(command, "actions", {}).items():
        yield from lines(action, f"{path} {name}")
    if isinstance(command, click.Group):
        for name in command.commands:
            yield from lines(command.commands[name], f"{path} {name}")


def _named(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Option):
        return " / ".join([*parameter.opts, *parameter.secondary_opts])
    return str(parameter.metavar or parameter.name).upper()


def _facts(parameter: click.Parameter) -> Iterator[str]:
    kind: Any = parameter.type
    names = getattr(kind, "names", None)
    limits = kind._describe_range() if isinstance(kind, click.IntRange | click.FloatRange) else ""
    flag = isinstance(parameter, click.Option) and parameter.is_flag
    yield "flag" if flag else "|".join(names) if names else f"{kind.name} {limits}".strip()
    if parameter.required:
        yield "required"
    if getattr(parameter, "multiple", False) or parameter.nargs == -1:
        yield "repeatable"
    default = parameter.default
    if not parameter.required and default is not None and default is not False and "UNSET" not in repr(default):
        yield f"default {default!r}"


if __name__ == "__main__":
    from treering_verify.cli.main import main

    STORED.write_text("\n".join(lines(main, "treering")) + "\n")
    print(STORED)
