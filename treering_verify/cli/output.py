"""Registration of commands, exit codes, progress, and the printing of verdicts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, TextIO

import click

from treering_verify.errors import LimitedModelWarning, TreeringError

if TYPE_CHECKING:
    from treering_verify.results import Verdict


USAGE_ERROR, UNJUDGED, FOUND, INTERRUPTED = 2, 3, 1, 130


def command_of(group: click.Group | None) -> Callable[[str], Callable[[Callable[..., Any]], click.Command]]:
    """Return a decorator, given an example, that makes a command of a group; of None, one that is added later."""

    def command(example: str) -> Callable[[Callable[..., Any]], click.Command]:
        """Register a command whose help ends with a runnable example and whose errors exit with 2."""

        def register(function: Callable[..., Any]) -> click.Command:
            @wraps(function)
            def guarded(*args: Any, **kwargs: Any) -> Any:
                with reported_errors():
                    return function(*args, **kwargs)

            make = group.command if group else click.command
            return make(epilog=f"Example: {example}")(guarded)

        return register

    return command


@contextmanager
def reported_errors() -> Iterator[None]:
    """Turn this package's errors and Ctrl-C into one line on stderr and the exit code of each, its warnings into a line."""
    try:
        with _plain_warnings():
            yield
    except TreeringError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(USAGE_ERROR)
    except KeyboardInterrupt:
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


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[], None]]:
    """Progress bar on stderr, with time left; none without a terminal. Yields the function that counts one."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda: bar.advance(task)


def print_verdicts(
    verdicts: Iterable[Verdict],
    total: int,
    description: str,
    style: str,
    fail_on: tuple[str, ...],
    matches: bool = False,
) -> None:
    """Print verdicts as they come in, with a progress bar, and exit with 1 or 3 where their answers ask for it."""
    from treering_verify.report import format_verdicts

    seen: set[str] = set()
    with progress(description, total) as advance:

        def watched() -> Iterator[Verdict]:
            for verdict in verdicts:
                seen.update((verdict.status, verdict.verdict.replace(" ", "-") if verdict.status == "ok" else ""))
                advance()
                yield verdict

        for line in format_verdicts(watched(), style, matches):
            click.echo(line)
    if seen.intersection(fail_on):
        sys.exit(FOUND)
    if "error" in seen:
        sys.exit(UNJUDGED)
