"""Profiles: the results of a model's self-test in a file, which verification uses to qualify 'no evidence'.

`treering models check` writes a profile (`detection.self_test`). It holds the settings that detect marks of this model best,
and the p-values that they reach. If a model loses its own marks, its marked images look unmarked. With a profile, 'no
evidence' then becomes `inconclusive`. Detections do not change, since p is exact for every model.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from treering_verify.errors import UsageError
from treering_verify.files import printable
from treering_verify.models.precision import Precision, precision_of
from treering_verify.models.protocol import LatentModel
from treering_verify.models.weights import dtypes, fingerprint

FLOOR = -6.0
"""Largest log10 p of the median marked image of a self-test with which 'no evidence' is a verdict."""
KIND = "treering self-test"
PROFILE_VERSION = 1
_MOST_BYTES = 1 << 20
_WEIGHTS: WeakKeyDictionary[LatentModel, str] = WeakKeyDictionary()  # gigabytes are hashed once, not for every image


@dataclass(frozen=True)
class Profile:
    """What a self-test found out about a model (`treering models check`), by which verification chooses its settings.

    Attributes
    ----------
    name : str
        Name of the file.
    digest : str
        Digest of its content, 16 hexadecimal digits, which identifies it in records.
    model : str
        Name of the model.
    weights, dtypes : str
        Fingerprint of its weights, and their precision. In another precision the model counts as another.
    latent_shape : (C, h, w)
        Shape of its noise.
    image_size : (H, W)
        Size of its images.
    tile : int
        Side of the autoencoder's tiles in pixels; 0: whole images.
    inversion, noise_method, precision : str
    steps : int
        Settings of `InversionOptions` that detected most.
    log10_marked : float
        log10 p of the median marked image with these settings.
    allow_weak : bool
        Whether 'no evidence' stays a verdict above the floor; not in the file.
    """

    name: str
    digest: str
    model: str
    weights: str
    dtypes: str
    latent_shape: tuple[int, int, int]
    image_size: tuple[int, int]
    tile: int
    inversion: str
    noise_method: str
    steps: int
    precision: Precision
    log10_marked: float
    allow_weak: bool = False

    @classmethod
    def load(cls, path: str | Path, *, allow_weak: bool = False) -> Profile:
        """Read a profile from a file.

        Raises
        ------
        UsageError
            If the file cannot be read, or is not a profile of this version.
        """
        shown = printable(str(path))
        try:
            with open(path, "rb") as file:
                data = file.read(_MOST_BYTES + 1)
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot read the profile {shown}: {getattr(error, 'strerror', error)}") from error
        try:
            record = json.loads(data) if len(data) <= _MOST_BYTES else None
            if not isinstance(record, dict) or record.get("type") != KIND:
                raise UsageError(f"{shown} is not a profile: make one with treering models check ID --output FILE")
            if record["schema_version"] != PROFILE_VERSION:
                raise UsageError(f"the profile {shown} is of version {record['schema_version']}: check the model again")
            profile = _profile_of(record, Path(path).name, hashlib.sha256(data).hexdigest()[:16])
        except (ValueError, LookupError, TypeError) as error:
            raise UsageError(f"the profile {shown} is damaged ({error!r}): check the model again") from error
        return replace(profile, allow_weak=allow_weak)

    @classmethod
    def find(cls, path: str | Path, model: LatentModel, *, allow_weak: bool = False) -> Profile:
        """Read the profile of a model from a file, or from a folder of profiles.

        Raises
        ------
        UsageError
            If the file is for another model, or the folder does not have exactly one profile of this model.
        """
        if not Path(path).is_dir():
            profile = cls.load(path, allow_weak=allow_weak)
            profile.check(model)
            return profile
        profiles = [cls.load(file, allow_weak=allow_weak) for file in sorted(Path(path).glob("*.json"))]
        found = [profile for profile in profiles if not profile.differences(model)]
        if len(found) == 1:
            return found[0]
        shown, name = printable(str(path)), printable(model.name)
        if found:
            several = ", ".join(printable(profile.name) for profile in found)
            raise UsageError(f"{shown} holds several profiles of {name}, {several}: keep one, or name it")
        raise UsageError(
            f"none of the {len(profiles)} profiles in {shown} is of {name} as it is loaded here: make one with "
            f"treering models check {name} --output {shown}/NAME.json, with the same options of the model"
        )

    def differences(self, model: LatentModel) -> list[str]:
        """Return how a model differs from the tested one, in words; empty if it does not."""
        if model not in _WEIGHTS:
            _WEIGHTS[model] = fingerprint(model)
        pairs = (
            ("images of", "x".join(map(str, self.image_size)), "x".join(map(str, model.image_size))),
            ("noise of", "x".join(map(str, self.latent_shape)), "x".join(map(str, model.latent_shape))),
            ("weights in", self.dtypes, dtypes(model)),
            ("tiles of", str(self.tile), str(model.tile)),
            ("weights", self.weights, _WEIGHTS[model]),
        )
        return [f"{what} {printable(mine)}, not {theirs}" for what, mine, theirs in pairs if mine != theirs]

    def check(self, model: LatentModel) -> None:
        """Raise UsageError, with the reason, if the profile is not of this model as it is loaded."""
        differences = self.differences(model)
        if differences:
            raise UsageError(
                f"the profile {printable(self.name)} ({printable(self.model)}) is for {'; for '.join(differences)}: load "
                f"the model as it was checked, or check {printable(model.name)} as you load it: treering models check"
            )

    def weakness(self, alpha: float, keys: int) -> str:
        """Return why marks of this model may be missed at alpha with so many keys; "" if not, or with `allow_weak`."""
        floor = min(FLOOR, math.log10(alpha / max(1, keys)))
        if self.allow_weak or self.log10_marked <= floor:
            return ""
        among = f" over {keys} keys" if keys > 1 else ""
        return (
            f"in this model's own test ({printable(self.name)}) the median marked image was found at p "
            f"{10**self.log10_marked:.1e}, not at {10**floor:.0e} or below{among}: a mark may be there and not be seen"
        )

    def record(self) -> dict[str, Any]:
        """Return a dict for JSON that identifies the profile in results, with its log10 p."""
        return {
            "digest": self.digest,
            "model": self.model,
            "log10_marked": self.log10_marked,
            "allow_weak": self.allow_weak,
        }


def check_profile(profile: Profile | None, model: LatentModel, alpha: float, keys: int) -> str:
    """Check that a profile, if any, is of this model, and return its `weakness`; "" without a profile."""
    if profile is None:
        return ""
    profile.check(model)
    return profile.weakness(alpha, keys)


def _profile_of(record: dict[str, Any], name: str, digest: str) -> Profile:
    chosen = record["recommended"]
    channels, height, width = map(int, record["latent_shape"])
    rows, columns = map(int, record["image_size"])
    found = float(chosen["log10_marked"])
    if not math.isfinite(found):
        raise ValueError("log10_marked is not finite")
    return Profile(
        name=name,
        digest=digest,
        model=str(record["model"]),
        weights=str(record["weights"]),
        dtypes=str(record["dtypes"]),
        latent_shape=(channels, height, width),
        image_size=(rows, columns),
        tile=int(record["tile"]),
        inversion=str(chosen["inversion"]),
        noise_method=str(chosen["noise_inversion"]),
        steps=int(chosen["steps"]),
        precision=precision_of(str(chosen["precision"])),
        log10_marked=found,
    )
