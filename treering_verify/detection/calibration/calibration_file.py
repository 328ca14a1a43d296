"""Calibration files: the scores of unmarked images, for detectors whose own p-value or threshold cannot be trusted.

One JSON file, version 1. It names what it holds for (model, weights, size, family, inversion), lists digests of the images
that went in, and per detector and stratum (a way in which images were processed) one score per image, each under a key drawn
for that pair alone. It holds no key and no image, so it need not be secret; but whoever can change it can change verdicts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from treering_verify.errors import UsageError
from treering_verify.files import opened_regular, parsed_json, printable, write_atomic
from treering_verify.watermark.keys.key import Family

if TYPE_CHECKING:
    from PIL import Image

SCHEMA_VERSION = 1
CLEAN = "clean"
_TYPE = "treering calibration"
_LONGEST_NAME = 1000
_MAX_FILE_BYTES = 256 * 1024**2


@dataclass(frozen=True)
class Setting:
    """Everything that scores depend on beside the images and keys; a calibration holds for one setting.

    Attributes
    ----------
    model, weights : str
        Name, and digest of the weights.
    image_size : (height, width)
    family : Family
    inversion : dict
        Inversions and their settings, as text and numbers.
    version : str
        Version of this package.
    """

    model: str
    weights: str
    image_size: tuple[int, int]
    family: Family
    inversion: Mapping[str, str | int]
    version: str

    def differences(self, other: Setting) -> list[str]:
        """Return in words where another setting differs; nothing where a calibration of this one holds for it."""
        found = []
        if self.weights != other.weights:  # a folder may be named in several ways
            found.append(f"model {self.model} of weights {self.weights}, not {other.model} of weights {other.weights}")
        if self.image_size != other.image_size:
            found.append(f"images of {self.image_size}, not {other.image_size}")
        if self.family != other.family:
            found.append(f"keys of {self.family}, not of {other.family}")
        for name in sorted({*self.inversion, *other.inversion}):
            mine, its = self.inversion.get(name), other.inversion.get(name)
            if mine != its:
                found.append(f"{name.replace('_', '-')} {mine}, not {its}")
        if self.version != other.version:
            found.append(f"version {self.version} of treering-verify, not {other.version}")
        return found


@dataclass(frozen=True, eq=False)
class Calibration:
    """Scores of unmarked images, with which those of a suspect image are compared, and the setting that they hold for.

    Attributes
    ----------
    setting : Setting
    scores : dict
        Detector -> stratum -> (n,) float64: one score per image, under a fresh key each.
    digests : frozenset of str
        `digest` of every image in every stratum, and of those that the classifier learned from.
    resized : int
        Count of the n images that had another size and were fitted to the model's.
    residual : (low, high) or None
        Range of the decoder inversion's relative residual over all strata; None for an inversion that reports none.
    seed : int
        Public; keys and attacks were drawn from it.
    learned : dict or None
        `KeyClassifier.state`.
    training : int
        Count of images, marked and unmarked, that the classifier learned from.
    """

    setting: Setting
    scores: Mapping[str, Mapping[str, npt.NDArray[np.float64]]]
    digests: frozenset[str] = field(repr=False)
    resized: int
    residual: tuple[float, float] | None
    seed: int
    learned: Mapping[str, Any] | None = None
    training: int = 0

    def __post_init__(self) -> None:
        sizes = {scores.shape for strata in self.scores.values() for scores in strata.values()}
        if len(sizes) != 1 or len(shape := sizes.pop()) != 1 or min(shape) < 1:
            raise UsageError(
                "a calibration needs one score per image in each stratum: give the same images to all, and at least one"
            )
        if not all(np.isfinite(s).all() for strata in self.scores.values() for s in strata.values()):
            raise UsageError("a calibration's scores must be finite: leave out images that give none")
        if len({tuple(strata) for strata in self.scores.values()}) != 1:
            raise UsageError("a calibration needs the same strata for every detector: score all of them in each")

    @property
    def count(self) -> int:
        """Count n of images in each stratum; no p-value is below 1 / (n + 1)."""
        return len(next(iter(next(iter(self.scores.values())).values())))

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of the content, 64 hexadecimal digits, by which records name a calibration."""
        return _checksum(self._content())

    @property
    def strata(self) -> tuple[str, ...]:
        """Names of the strata: ``clean`` and attacks, as text."""
        return tuple(next(iter(self.scores.values())))

    @property
    def detectors(self) -> tuple[str, ...]:
        """Names of the calibrated detectors."""
        return tuple(self.scores)

    def save(self, path: str | Path) -> None:
        """Write the calibration to a file, whole or not at all.

        Raises
        ------
        UsageError
            If the file cannot be written.
        """
        text = json.dumps({**self._content(), "checksum": self.checksum}, allow_nan=False) + "\n"
        try:
            write_atomic(path, text.encode())
        except OSError as error:
            raise UsageError(f"cannot write {printable(str(path))}: {error.strerror}") from error

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a calibration from a file.

        Raises
        ------
        UsageError
            If the file is missing, damaged, or no calibration of a known version.
        """
        name = printable(str(path))
        try:
            with opened_regular(path) as file:
                content = parsed_json(file.read(_MAX_FILE_BYTES))
            if content.pop("checksum") != _checksum(content):
                raise UsageError(f"{name} is damaged, or was changed by hand: make it again with treering calibrate")
            if content["type"] != _TYPE or content["schema_version"] != SCHEMA_VERSION:
                raise ValueError
            return cls._parse(content)
        except OSError as error:
            raise UsageError(f"cannot read {name}: {error.strerror}") from error
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UsageError(
                f"{name} is not a calibration file of version {SCHEMA_VERSION}: make one with treering calibrate"
            ) from error

    @classmethod
    def _parse(cls, content: dict[str, Any]) -> Calibration:
        family = content["family"]
        height, width = map(index, content["image_size"])
        setting = Setting(
            _name(content["model"]),
            _name(content["weights"]),
            (height, width),
            Family(
                str(family["pattern"]),
                tuple(map(index, family["channels"])),
                index(family["inner_radius"]),
                index(family["outer_radius"]),
                tuple(map(index, family["latent_shape"])),  # type: ignore[arg-type]
            ),
            {_name(name): _choice(value) for name, value in content["inversion"].items()},
            _name(content["version"]),
        )
        scores = {
            _name(detector): {_name(name): np.array(values, dtype=np.float64) for name, values in strata.items()}
            for detector, strata in content["scores"].items()
        }
        residual = content["residual"]
        if residual is not None:
            low, high = map(float, residual)
            residual = (low, high)
        learned = content["learned"]
        if not isinstance(learned, dict | None):
            raise TypeError
        return cls(
            setting,
            scores,
            frozenset(map(str, content["digests"])),
            index(content["resized"]),
            residual,
            index(content["seed"]),
            learned,
            index(content["training"]),
        )

    def _content(self) -> dict[str, Any]:
        family = self.setting.family
        return {
            "type": _TYPE,
            "schema_version": SCHEMA_VERSION,
            "version": self.setting.version,
            "model": self.setting.model,
            "weights": self.setting.weights,
            "image_size": list(self.setting.image_size),
            "family": {
                "pattern": family.pattern,
                "channels": list(family.channels),
                "inner_radius": family.inner_radius,
                "outer_radius": family.outer_radius,
                "latent_shape": list(family.latent_shape),
            },
            "inversion": dict(self.setting.inversion),
            "images": self.count,
            "resized": self.resized,
            "residual": self.residual,
            "seed": self.seed,
            "strata": list(self.strata),
            "scores": {d: {s: values.tolist() for s, values in strata.items()} for d, strata in self.scores.items()},
            "learned": dict(self.learned) if self.learned is not None else None,
            "training": self.training,
            "digests": sorted(self.digests),
        }


def _name(value: object) -> str:
    """Return a text as it may be printed: files of calibrations may come from anybody."""
    return printable(str(value))[:_LONGEST_NAME]


def _choice(value: object) -> str | int:
    """Return a setting of an inversion, a text or a number."""
    if isinstance(value, int):
        return value
    if not isinstance(value, str):
        raise ValueError("a setting that is neither text nor number")
    return _name(value)


def digest(image: Image.Image) -> str:
    """Return the digest of an RGB image's pixels, 16 hexadecimal digits: that of any lossless file of the image."""
    content = f"{image.width}x{image.height}|".encode() + image.tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
