"""What the commands share: registration with help and errors, progress, groups of options, and the printing of verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from treering_verify.cli.inversion_options import Asked
from treering_verify.cli.model_options import model_option
from treering_verify.errors import UsageError, unknown
from treering_verify.inversion import noise
from treering_verify.inversion.decoder.registry import AUTO, METHODS
from treering_verify.watermark.patterns.registry import PATTERNS

if TYPE_CHECKING:
    _NameType = click.ParamType[str]
else:
    _NameType = click.ParamType  # generic from click 8.2 on, and for type checkers only


class NameOf(_NameType):
    """A name, one of those that a function lists; they are asked for when help, completion or a value needs them.

    Parameters
    ----------
    names : callable
        Returns all names; it must import nothing heavy.
    """

    name = "name"

    def __init__(self, names: Callable[[], Iterable[str]]) -> None:
        self._names = names

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """List the names, as click does for a choice."""
        return f"[{'|'.join(self._names())}]"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse a name that does not exist, naming the one that was likely meant."""
        known = tuple(self._names())
        if value not in known:
            self.fail(unknown(param.name if param and param.name else self.name, value, known), param, ctx)
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete a name."""
        return [CompletionItem(name) for name in self._names() if name.startswith(incomplete)]


keys_option = click.option(
    "--key",
    "keys",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    help="Key file, index, or folder of *.json key files; repeatable.",
)


def key_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options that choose a family of keys; the function gets them as `family`, for `Key.generate` or `Family.choose`."""

    @wraps(function)
    def gathered(*args: Any, channels: str | None, **kwargs: Any) -> Any:
        family = {name: kwargs.pop(name) for name in ("pattern", "inner_radius", "outer_radius")}
        return function(*args, family={**family, "channels": _numbers(channels) if channels else None}, **kwargs)

    return _with_options(
        gathered,
        click.option("--pattern", type=NameOf(lambda: PATTERNS), default="random", show_default=True),
        click.option("--channels", help="Latent channels, such as 0,3; default: all."),
        click.option(
            "--inner-radius", type=int, help="First ring, in bins from DC; default by pattern (random 4, rings 3, ...)."
        ),
        click.option("--outer-radius", type=int, help="Last ring; default by pattern (random 9, rings 12, ...)."),
    )


def verdict_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options of what is asked of images, and how answers are given: alpha, style, fail_on."""
    return _with_options(
        function,
        click.option(
            "--alpha",
            type=click.FloatRange(0, 1, min_open=True, max_open=True),
            default=1e-6,
            show_default=True,
            help="False-positive rate per image, all keys.",
        ),
        click.option(
            "--format", "style", type=click.Choice(["text", "json", "jsonl"]), default="text", show_default=True
        ),
        click.option("--fail-on", type=click.Choice(["detected", "no-evidence", "inconclusive"]), multiple=True),
    )


def inversion_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options of how images are taken back to their noise; the function gets `model`, and `inversion`, an `Asked`."""
    return _inversion_options(function, 16, None)


def audit_inversion_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make the same options, but for a batch size that is None where it is to be found by trying."""
    return _inversion_options(function, None, "Images at a time; default: found by trying.")


def _inversion_options(
    function: Callable[..., Any], batch_size: int | None, batch_help: str | None
) -> Callable[..., Any]:

    @wraps(function)
    def gathered(*args: Any, **kwargs: Any) -> Any:
        return function(*args, inversion=Asked.gather(kwargs), **kwargs)

    return _with_options(
        gathered,
        click.option(
            "--inversion",
            type=NameOf(lambda: (AUTO, *METHODS)),
            default="auto",
            show_default=True,
            help="Decoder inversion; auto: the model's best.",
        ),
        click.option(
            "--noise-inversion",
            type=NameOf(lambda: (noise.AUTO, *noise.METHODS)),
            default="auto",
            show_default=True,
            help="Noise inversion; auto: the model's best.",
        ),
        click.option("--steps", type=click.IntRange(0), default=10, show_default=True, help="Noise inversion steps."),
        click.option(
            "--batch-size", type=click.IntRange(1), default=batch_size, show_default=batch_help is None, help=batch_help
        ),
        click.option(
            "--precision",
            type=click.Choice(["float32", "bfloat16", "float16"]),
            default="float32",
            show_default=True,
            help="Of the autoencoder; 16 bits pay where the device multiplies them.",
        ),
        click.option(
            "--profile",
            type=click.Path(path_type=Path),
            help="Of treering models check, or a folder of them: decides the four above, and what 'no evidence' needs.",
        ),
        click.option("--allow-weak", is_flag=True, help="Say 'no evidence' even below the profile's floor."),
        model_option,
    )


def search_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options of the search for what was done to an image; the function gets them as `search`, a `Search` or None."""

    @wraps(function)
    def gathered(*args: Any, search: str, search_budget: int, **kwargs: Any) -> Any:
        from treering_verify.detection.search.geometry import KINDS
        from treering_verify.detection.search.search import Search

        kinds = KINDS if search == "all" else tuple(search.split(","))
        wanted = None if search == "none" else Search(kinds, search_budget)
        return function(*args, search=wanted, **kwargs)

    return _with_options(
        gathered,
        click.option(
            "--search",
            default="all",
            show_default=True,
            help="Where an image shows no key as it is: all, none, or some of flip,rotation,crop and, of videos, time. "
            "p is corrected.",
        ),
        click.option(
            "--search-budget",
            type=click.IntRange(0),
            default=2,
            show_default=True,
            help="Guesses per image for which it is turned back and inverted again.",
        ),
    )


def given(*names: str) -> list[str]:
    """Return those of a command's options, by the names of its function, that stand on the command line."""
    context = click.get_current_context()
    return [
        option.opts[0]
        for option in context.command.params
        if option.name in names and context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE
    ]


def _with_options(function: Callable[..., Any], *options: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(options):
        function = option(function)
    return function


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--channels {text!r} is not a list of numbers such as 0,3") from None
