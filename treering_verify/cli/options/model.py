"""Options of models: which model, and how it is computed."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from treering_verify.cli.command import option
from treering_verify.cli.options.types import ModelName, Named
from treering_verify.models.source import DEVICES, DTYPES, ModelSource, size_of

_TOPIC = "Model"


def model_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add options that choose a model and how it is computed; the function gets them as `model`, a `ModelSource`."""
    return _with_source(function, _NAME, *_COMPUTED)


def shape_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add options that choose a model for the shape of its noise alone; the function gets them likewise."""
    return _with_source(function, _NAME)


def model_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make the model an argument instead, with all options beside it."""
    return _with_source(function, click.argument("model", type=ModelName()), *_COMPUTED)


_NAME = option(
    "--model",
    type=ModelName(),
    default="landscape",
    help="Embedded model (landscape, landscape-tiny, landscape-sd), local folder, .safetensors file, or hub id.",
)
_WHICH = (
    option("--revision", topic=_TOPIC, help="Branch, tag or commit of a model on the hub."),
    option("--image-size", topic=_TOPIC, help="Image size, 768 or HEIGHTxWIDTH; default: the model's."),
    option("--frames", type=click.IntRange(1), topic=_TOPIC, help="Frames of a video; default: the model's."),
    option("--model-config", topic=_TOPIC, help="Folder or hub id with the configuration of a single weights file."),
)
_COMPUTED = (
    option("--variant", topic=_TOPIC, help="Variant of the weights files, such as fp16."),
    option("--device", type=Named("device", DEVICES), default="auto", topic=_TOPIC, help="Device to compute on."),
    option(
        "--dtype",
        type=Named("dtype", DTYPES),
        default="auto",
        topic=_TOPIC,
        help="Precision of the denoiser and text encoders; auto: 16-bit on a GPU. For the autoencoder see --precision.",
    ),
    option(
        "--tile",
        type=click.IntRange(0),
        default=0,
        topic=_TOPIC,
        help="Tile size of the autoencoder in pixels, to save memory; 0: whole images.",
    ),
    option("--compiled", is_flag=True, topic=_TOPIC, help="Compile the networks with torch.compile first."),
)


def _with_source(
    function: Callable[..., Any], which: Callable[..., Any], *computed: Callable[..., Any]
) -> Callable[..., Any]:
    @wraps(function)
    def gathered(*args: Any, model: str, image_size: str | None, **kwargs: Any) -> Any:
        from treering_verify.models import check_source

        names: tuple[str, ...] = ("revision", "frames", "model_config")
        if computed:
            names += ("variant", "device", "dtype", "tile", "compiled")
        fields = {name: kwargs.pop(name) for name in names}
        source = ModelSource(model, **fields, image_size=size_of(image_size) if image_size else None)
        check_source(source)
        return function(*args, model=source, **kwargs)

    for each in reversed((which, *_WHICH, *computed)):
        gathered = each(gathered)
    return gathered
