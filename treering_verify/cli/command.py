"""Commands: help that groups options by topic, errors as one line on stderr with an exit code each."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial, wraps
from typing import Any, TextIO

import click

from treering_verify.errors import LimitedModelWarning, TreeringError

UNJUDGED, USAGE_ERROR, FOUND, INTERRUPTED = 3, 2, 1, 130

FIRST_TOPIC = "Options"


class Option(click.Option):
    """An option that belongs to a topic of its command's help, and whose environment variable is called after its flag."""

    def __init__(self, *flags: Any, topic: str = FIRST_TOPIC, **attributes: Any) -> None:
        super().__init__(*flags, **attributes)
        self.topic = topic

    @property
    def flag(self) -> str:
        """The long flag, without the dashes before it."""
        return max(self.opts, key=len).lstrip("-")

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return flags and help; the help ends with the choices, where they are too many to stand beside the flag."""
        own = self.help
        choices = getattr(self.type, "listed", ())  # of `options.types.Named`
        if choices:
            self.help = f"{own or ''} Choices: {', '.join(choices)}.".lstrip()
        try:
            return super().get_help_record(ctx)
        finally:
            self.help = own

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """Return the environment's value: --format of verify is TREERING_VERIFY_FORMAT."""
        if ctx.auto_envvar_prefix is None:
            return super().resolve_envvar_value(ctx)
        return os.environ.get(f"{ctx.auto_envvar_prefix}_{self.flag.replace('-', '_').upper()}") or None


option = partial(click.option, cls=Option)


class Command(click.Command):
    """A command whose help lists its options by topic, those that everyone needs first."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section for each topic, in the order in which they are declared."""
        topics: dict[str, list[tuple[str, str]]] = {FIRST_TOPIC: []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record:
                topics.setdefault(getattr(parameter, "topic", FIRST_TOPIC), []).append(record)
        for topic, records in topics.items():
            with formatter.section(topic):
                formatter.write_dl(records)


class CommandWithActions(Command):
    """A command whose first argument may name an action, which is a command of its own with other arguments."""

    actions: dict[str, click.Command]

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Return the context of the action that is named first, or of this command."""
        action = getattr(self, "actions", {}).get(args[0]) if args else None
        if action is None:
            return super().make_context(info_name, args, parent, **extra)
        return action.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)


class Group(click.Group):
    """A group whose help lists its commands in sections."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.sections: dict[str, tuple[click.Command, ...]] = {}

    def add_section(self, title: str, *commands: click.Command) -> None:
        """Add commands under a title."""
        for command in commands:
            self.add_command(command)
        self.sections[title] = commands

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section for each title, in the order in which they were added."""
        width = max(len(name) for name in self.commands)
        for title, commands in self.sections.items():
            rows = [(str(command.name).ljust(width), command.get_short_help_str()) for command in commands]
            with formatter.section(title):
                formatter.write_dl(rows)


def command(
    example: str, group: click.Group | None = None, name: str | None = None, cls: type[Command] = Command
) -> Callable[[Callable[..., Any]], click.Command]:
    """Return a decorator that makes a command of a function; its errors become exit codes.

    Parameters
    ----------
    example : str
        A runnable call, with which the help ends.
    group : click.Group, optional
        What the command is added to.
    name : str, optional
        The function's name when left out.
    cls : type
        Kind of the command.
    """

    def register(function: Callable[..., Any]) -> click.Command:
        @wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            with reported_errors():
                return function(*args, **kwargs)

        make = group.command if group else click.command
        return make(name or function.__name__, cls=cls, epilog=f"Example: {example}")(guarded)

    return register


@contextmanager
def reported_errors() -> Iterator[None]:
    """Turn this package's errors and Ctrl-C into one line on stderr and an exit code each, its warnings into a line."""
    try:
        with _plain_warnings():
            yield
    except TreeringError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(USAGE_ERROR)
    except KeyboardInterrupt:
        with suppress(OSError):  # of a terminal that was closed
            click.echo("Interrupted.", err=True)
        sys.exit(INTERRUPTED)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    import warnings

    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, LimitedModelWarning):
                click.echo(f"Note: {message}", err=True)
            else:
                others(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        warnings.simplefilter("always", LimitedModelWarning)
        yield
