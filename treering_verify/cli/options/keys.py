"""Options of keys: which keys are tried, and the pattern of new ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from treering_verify.cli.command import FIRST_TOPIC, option
from treering_verify.cli.options.types import InputPath, Named
from treering_verify.errors import UsageError

if TYPE_CHECKING:
    from treering_verify.models import ModelSource
    from treering_verify.watermark.keys.index import KeyIndex
    from treering_verify.watermark.keys.key import Key

KEY_HELP = "Key file, folder of key files, or index of keys; repeatable."


def key_option(
    required: bool = True,
    topic: str = FIRST_TOPIC,
    help: str = KEY_HELP,
) -> Callable[..., Any]:
    """Return the option --key; the function gets the paths as `keys`."""
    return option("--key", "keys", multiple=True, required=required, type=_KEY_PATH, topic=topic, help=help)


def pattern_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add options that choose a family of keys; the function gets `family`, for `Key.generate` or `Family.choose`."""

    @wraps(function)
    def gathered(*args: Any, channels: str | None, **kwargs: Any) -> Any:
        family = {name: kwargs.pop(name) for name in ("pattern", "inner_radius", "outer_radius")}
        return function(*args, family={**family, "channels": _numbers(channels) if channels else None}, **kwargs)

    return with_options(
        gathered,
        option(
            "--pattern", type=Named("pattern", _patterns), default="random", topic=_TOPIC, help="Watermark pattern."
        ),
        option("--channels", topic=_TOPIC, help="Latent channels that carry the key, such as 0,3; default: all."),
        option(
            "--inner-radius",
            type=int,
            topic=_TOPIC,
            help="First ring, in Fourier bins from the centre; default: the pattern's (random 4, rings 3, ...).",
        ),
        option(
            "--outer-radius",
            type=int,
            topic=_TOPIC,
            help="Last ring, in Fourier bins; default: the pattern's (random 9, rings 12, ...).",
        ),
    )


def secret_option(help: str, topic: str = FIRST_TOPIC) -> Callable[..., Any]:
    """Return the option --from-secret, which derives keys."""
    return option("--from-secret", type=InputPath(), topic=topic, help=help)


def with_options(function: Callable[..., Any], *options: Callable[..., Any]) -> Callable[..., Any]:
    """Add options to a function, so that help lists them in the order in which they are given."""
    for each in reversed(options):
        function = each(function)
    return function


def given(*names: str) -> list[str]:
    """Return the flags of those options, by the names of the function's parameters, that stand on the command line."""
    context = click.get_current_context()
    return [
        each.opts[0]
        for each in context.command.params
        if each.name in names and context.get_parameter_source(each.name) is click.core.ParameterSource.COMMANDLINE
    ]


def only_key(paths: tuple[Path, ...]) -> Key:
    """Return the key that paths name; UsageError if they name several, or an index."""
    from treering_verify.watermark.keys.index import KeyIndex, read_keys

    found = read_keys(paths)
    if len(found) != 1 or isinstance(found[0], KeyIndex):
        raise UsageError("this command takes one key: give one --key FILE, and no index")
    return found[0]


def check_fit(keys: Iterable[Key | KeyIndex], model: ModelSource) -> None:
    """Raise UsageError if a key does not fit an embedded model; whether it fits another is checked once that is loaded."""
    from treering_verify.models import EMBEDDED, latent_shape
    from treering_verify.watermark.keys import checks

    if model.name in EMBEDDED:
        checks.check_fit(keys, latent_shape(model), model.name)


_TOPIC = "Pattern of the key"
_KEY_PATH = click.Path(path_type=Path)  # what is wrong with a key file is told when it is opened


def _patterns() -> Iterable[str]:
    from treering_verify.watermark.patterns.registry import PATTERNS

    return PATTERNS


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--channels {text!r} is not a list of numbers such as 0,3") from None
