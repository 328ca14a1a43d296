"""Options of generation: steps, guidance and prompt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from treering_verify.cli.command import option
from treering_verify.cli.options.keys import with_options

_TOPIC = "Generation"


def generation_options(steps: int) -> Callable[..., Any]:
    """Return a decorator that adds steps, with this default, guidance and prompt."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        return with_options(
            function,
            option("--steps", type=click.IntRange(1), default=steps, topic=_TOPIC, help="Diffusion steps."),
            option(
                "--guidance",
                type=click.FloatRange(0),
                default=2.0,
                topic=_TOPIC,
                help="Classifier-free guidance scale.",
            ),
            option("--prompt", topic=_TOPIC, help="Prompt, or class name, of all images; default: classes take turns."),
        )

    return add
