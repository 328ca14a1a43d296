"""Options that choose a model and how it is computed, shared by every command that needs one."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from treering_verify.models.source import DEVICES, DTYPES, ModelSource, size_of


def model_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options that choose a model and how it is computed; the function gets them as `model`, a `ModelSource`."""
    return _with_source(function, _NAME, *_COMPUTED)


def shape_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options that choose a model for the shape of its noise alone; the function gets them likewise."""
    return _with_source(function, _NAME)


def model_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make the model an argument instead, with all options beside it."""
    return _with_source(function, click.argument("model"), *_COMPUTED)


_NAME = click.option(
    "--model",
    default="landscape",
    show_default=True,
    help="'landscape', 'landscape-tiny', or a local folder, .safetensors file or hub id (treering models).",
)
_WHICH = (
    click.option("--revision", help="Branch, tag or commit of a model on the hub."),
    click.option("--size", help="Of the images, such as 768 or 768x512 (height x width); default: the model's."),
    click.option(
        "--frames", type=click.IntRange(1), help="Of videos, for models that make videos; default: the model's."
    ),
    click.option("--model-config", help="Folder or hub id whose configuration a single file goes by."),
)
_COMPUTED = (
    click.option("--variant", help="Of the weights' files, such as fp16."),
    click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True),
    click.option(
        "--dtype",
        type=click.Choice(DTYPES),
        default="auto",
        show_default=True,
        help="Of network and text encoders; the autoencoder is float32, but for --precision.",
    ),
    click.option(
        "--tile",
        type=click.IntRange(0),
        default=0,
        help="Pixels on a side of what the autoencoder sees at a time, to save memory; default: whole images.",
    ),
    click.option("--compile", "compiled", is_flag=True, help="Send networks through torch.compile first."),
)


def _with_source(
    function: Callable[..., Any], which: Callable[..., Any], *computed: Callable[..., Any]
) -> Callable[..., Any]:
    @wraps(function)
    def gathered(*args: Any, model: str, size: str | None, model_config: str | None, **kwargs: Any) -> Any:
        names = (
            ("revision", "frames", "variant", "device", "dtype", "tile", "compiled")
            if computed
            else ("revision", "frames")
        )
        fields = {name: kwargs.pop(name) for name in names}
        source = ModelSource(model, **fields, image_size=size_of(size) if size else None, configuration=model_config)
        return function(*args, model=source, **kwargs)

    for option in reversed((which, *_WHICH, *computed)):
        gathered = option(gathered)
    return gathered
