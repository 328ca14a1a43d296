"""Options of verdicts: how many false positives are accepted, and how answers are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treering_verify.cli.command import option
from treering_verify.cli.options.keys import with_options
from treering_verify.cli.options.types import Alpha, Named

alpha_option = option(
    "--alpha", type=Alpha(), default=1e-6, help="False-positive rate per image, over all keys together."
)


def fail_on_option(*more: str) -> Callable[..., Any]:
    """Return the option --fail-on; `more` are what it can name beside verdicts."""
    return option(
        "--fail-on",
        type=Named("verdict", ("detected", "no-evidence", "inconclusive", *more)),
        multiple=True,
        help="Exit with 1 if this verdict occurs; repeatable.",
    )


def format_option(*formats: str) -> Callable[..., Any]:
    """Return the option --format of a command that prints; the function gets it as `style`."""
    return option("--format", "style", type=Named("format", formats), default=formats[0], help="Output format.")


def verdict_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add alpha, style and fail_on."""
    return with_options(function, alpha_option, format_option("text", "json", "jsonl"), fail_on_option())
