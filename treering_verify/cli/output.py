"""Progress on stderr, and the printing of verdicts."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from treering_verify.cli.command import FOUND, UNJUDGED

if TYPE_CHECKING:
    from treering_verify.results import Verdict

_PATIENCE = 3.0  # seconds before progress is shown: what is done by then needs none


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a progress bar on stderr from the third second on; none without a terminal. Yields what counts one."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    # What is printed meanwhile goes above the bar, where stdout is the same terminal; elsewhere it stays on stdout.
    bar = Progress(console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty())
    task = bar.add_task(description, total=total)
    timer = threading.Timer(_PATIENCE, bar.start)
    timer.daemon = True
    timer.start()
    try:
        yield lambda: bar.advance(task)
    finally:
        timer.cancel()
        timer.join()
        if bar.live.is_started:
            bar.stop()


def print_verdicts(
    verdicts: Callable[[], Iterable[Verdict]],
    total: int,
    description: str,
    style: str,
    fail_on: tuple[str, ...],
    matches: bool = False,
) -> None:
    """Print verdicts as they come in, with a progress bar, and exit with 1 or 3 where their answers ask for it.

    `verdicts` is called once progress can be shown: it loads the model.
    """
    from treering_verify.report import format_verdicts

    seen: set[str] = set()
    with progress(description, total) as advance:

        def watched() -> Iterator[Verdict]:
            for verdict in verdicts():
                seen.update((verdict.status, (verdict.verdict or "").replace(" ", "-")))
                advance()
                yield verdict

        for line in format_verdicts(watched(), style, matches):
            click.echo(line)
    if seen.intersection(fail_on):
        sys.exit(FOUND)
    if "error" in seen:
        sys.exit(UNJUDGED)
