"""What a command line says about how images are taken back to their noise: options one by one, or a model's profile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from treering_verify.errors import UsageError
from treering_verify.files import printable

if TYPE_CHECKING:
    from treering_verify.inversion.recovery import InversionOptions
    from treering_verify.models import LatentModel

PROFILED = ("inversion", "noise_inversion", "steps", "precision")
"""Options that a profile decides."""


@dataclass(frozen=True)
class Asked:
    """Options of `InversionOptions`, a profile, or neither.

    Attributes
    ----------
    fields : dict
        Of `InversionOptions`, but for the profile and the batch size.
    batch_size : int or None
        None: to be found by trying.
    given : tuple of str
        Those of `PROFILED` that the command line, the environment or the configuration names.
    profile : Path or None
        File, or folder of profiles.
    allow_weak : bool
    """

    fields: dict[str, Any]
    batch_size: int | None
    given: tuple[str, ...] = ()
    profile: Path | None = None
    allow_weak: bool = False

    @classmethod
    def gather(cls, options: dict[str, Any]) -> Asked:
        """Take the options that belong here out of a command's."""
        context = click.get_current_context()
        default = click.core.ParameterSource.DEFAULT
        given = tuple(name for name in PROFILED if context.get_parameter_source(name) is not default)
        fields = {name: options.pop(name) for name in PROFILED}
        fields["method"] = fields.pop("inversion")
        fields["noise_method"] = fields.pop("noise_inversion")
        return cls(fields, options.pop("batch_size"), given, options.pop("profile"), options.pop("allow_weak"))

    def inversion(self, model: LatentModel) -> InversionOptions:
        """Pipeline for a loaded model.

        Raises
        ------
        UsageError
            If a profile and single options contradict each other, or the profile is not the model's.
        """
        from treering_verify.inversion.recovery import InversionOptions
        from treering_verify.models.profile import Profile

        batch_size = self.batch_size or 1
        if self.profile is None:
            if self.allow_weak:
                raise UsageError("--allow-weak lifts a profile's floor: give --profile too, or leave it out")
            return InversionOptions(**self.fields, batch_size=batch_size)
        if self.given:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in self.given)
            raise UsageError(
                f"a profile says how images are taken back, and so does {options} (on the command line, in the environment "
                "or in the configuration): leave one out"
            )
        profile = Profile.find(self.profile, model, allow_weak=self.allow_weak)
        click.echo(
            f"profile {printable(profile.name)}: inversion {profile.inversion}, noise inversion {profile.noise_method}, "
            f"steps {profile.steps}, precision {profile.precision}",
            err=True,
        )
        return InversionOptions.of(profile, batch_size=batch_size)
