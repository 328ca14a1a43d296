"""Options of inversion: how an image's noise is estimated, option by option or by a model's profile."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from treering_verify.cli.command import option
from treering_verify.cli.options.keys import with_options
from treering_verify.cli.options.model import model_option
from treering_verify.cli.options.types import InputPath, Named
from treering_verify.errors import UsageError
from treering_verify.files import printable

if TYPE_CHECKING:
    from treering_verify.inversion.recovery import InversionOptions
    from treering_verify.models import LatentModel, ModelSource

_TOPIC = "Inversion"
_PROFILED = ("inversion", "noise_inversion", "steps", "precision")  # options that a profile decides

inverter_option = option(
    "--inverter",
    type=InputPath(),
    topic=_TOPIC,
    help="Folder of filters that treering models fit made for the model; default: MODEL/inverter of a local model.",
)


def inversion_options(
    function: Callable[..., Any], batch_size: int | None = 16, batch_help: str = "Images per batch."
) -> Callable[..., Any]:
    """Add options of model and inversion; the function gets `model`, and `inversion`, an `InversionChoice`."""

    @wraps(function)
    def gathered(*args: Any, **kwargs: Any) -> Any:
        kwargs["model"] = with_inverter(kwargs["model"], kwargs.pop("inverter"))
        return function(*args, inversion=InversionChoice.gather(kwargs), **kwargs)

    return with_options(
        gathered,
        option(
            "--inversion",
            type=Named("inversion", _methods),
            default="auto",
            topic=_TOPIC,
            help="Decoder inversion method; auto: the model's best.",
        ),
        option(
            "--noise-inversion",
            type=Named("noise inversion", _noise_methods),
            default="auto",
            topic=_TOPIC,
            help="Noise inversion method; auto: the model's best.",
        ),
        option("--steps", type=click.IntRange(0), default=10, topic=_TOPIC, help="Steps of the noise inversion."),
        option("--batch-size", type=click.IntRange(1), default=batch_size, topic=_TOPIC, help=batch_help),
        precision_option(_TOPIC),
        option(
            "--profile",
            type=InputPath(),
            topic=_TOPIC,
            help="Profile of the model, made by treering models check, or a folder of profiles. It sets the method, the "
            "noise inversion, the steps and the precision.",
        ),
        option(
            "--allow-weak",
            is_flag=True,
            topic=_TOPIC,
            help="Allow the verdict 'no evidence' for a model whose profile is too weak for it.",
        ),
        inverter_option,
        model_option,
    )


def audit_inversion_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the same options, but for a batch size that is found by trying when left out."""
    return inversion_options(function, None, "Images per batch; default: found by trials.")


def precision_option(topic: str) -> Callable[..., Any]:
    """Return the option --precision."""
    return option(
        "--precision",
        type=Named("precision", ("float32", "bfloat16", "float16")),
        default="float32",
        topic=topic,
        help="Autoencoder precision. 16-bit is faster only on hardware with native support.",
    )


@dataclass(frozen=True)
class InversionChoice:
    """Options of `InversionOptions`, a profile, or neither.

    Attributes
    ----------
    fields : dict
        Those of `InversionOptions`, but for the profile and the batch size.
    batch_size : int or None
        None: to be found by trying.
    profile : Path or None
        File, or folder of profiles.
    allow_weak : bool
    """

    fields: dict[str, Any]
    batch_size: int | None
    profile: Path | None = None
    allow_weak: bool = False

    @classmethod
    def gather(cls, options: dict[str, Any]) -> InversionChoice:
        """Take the options that belong here out of a command's.

        Raises
        ------
        UsageError
            If a profile and single options contradict each other.
        """
        context = click.get_current_context()
        default = click.core.ParameterSource.DEFAULT
        given = [name for name in _PROFILED if context.get_parameter_source(name) is not default]
        fields = {name: options.pop(name) for name in _PROFILED}
        fields["method"] = fields.pop("inversion")
        fields["noise_method"] = fields.pop("noise_inversion")
        chosen = cls(fields, options.pop("batch_size"), options.pop("profile"), options.pop("allow_weak"))
        if chosen.profile is None and chosen.allow_weak:
            raise UsageError("--allow-weak is about a weak profile: give --profile too, or leave --allow-weak out")
        if chosen.profile is not None and given:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise UsageError(
                f"the profile sets the inversion, and so does {flags} (on the command line, in the environment or in the "
                "configuration): leave one out"
            )
        if chosen.profile is not None:
            _check_profile(chosen.profile)
        return chosen

    def inversion(self, model: LatentModel, *, quiet: bool = False) -> InversionOptions:
        """Return the options for a loaded model; UsageError if the profile is not the model's. `quiet` offers no fit."""
        from treering_verify.inversion.recovery import InversionOptions
        from treering_verify.models.profile import Profile

        batch_size = self.batch_size or 1
        if not quiet and (offer := offered_fit(model)):
            click.echo(offer, err=True)
        if self.profile is None:
            return InversionOptions(**self.fields, batch_size=batch_size)
        profile = Profile.find(self.profile, model, allow_weak=self.allow_weak)
        click.echo(
            f"profile {printable(profile.name)}: inversion {profile.inversion}, noise inversion {profile.noise_method}, "
            f"steps {profile.steps}, precision {profile.precision}",
            err=True,
        )
        return InversionOptions.of(profile, batch_size=batch_size)


def with_inverter(model: ModelSource, folder: Path | None) -> ModelSource:
    """Return a model with the filters of a folder; UsageError if it can hold none, and loading says all else."""
    if folder is None:
        return model
    if not (folder / "config.json").is_file():
        shown = printable(str(folder))
        raise UsageError(f"{shown} is not an inverter: name a folder that treering models fit MODEL --output DIR made")
    return replace(model, inverter=str(folder))


def _check_profile(path: Path) -> None:
    """Raise UsageError if a path can be no profile, or folder of profiles; loading them says all else."""
    import json

    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise UsageError(
            f"no profile in {printable(str(path))}: make one with treering models check MODEL --output FILE"
        )
    for file in files:
        shown = printable(str(file))
        try:
            whole = json.loads(file.read_bytes()) if file.is_file() else None
        except OSError as error:
            raise UsageError(f"cannot read the profile {shown}: {error.strerror}") from error
        except (ValueError, RecursionError):
            whole = None
        if not isinstance(whole, dict):
            raise UsageError(f"{shown} is not a profile: make one with treering models check MODEL --output FILE")


def offered_fit(model: LatentModel) -> str:
    """Return a line that says how to fit a model whose inversion nothing was fitted to; "" for other models and videos."""
    from treering_verify.models import makes_videos
    from treering_verify.models.inverter import fitted

    if model.refine is not None or model.estimate is not None or fitted(model) is not None or makes_videos(model):
        return ""
    return (
        f"Note: nothing is fitted to {printable(model.name)}; treering models fit can make its marks easier to find, above "
        "all after compression (docs/fitting.md)"
    )


def _methods() -> Iterable[str]:
    from treering_verify.inversion.decoder.registry import AUTO, METHODS

    return (AUTO, *METHODS)


def _noise_methods() -> Iterable[str]:
    from treering_verify.inversion.noise import AUTO, METHODS

    return (AUTO, *METHODS)
