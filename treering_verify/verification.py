"""Verify images: image -> latent -> noise_hat -> coefficients -> evidence -> verdict.

The p-value is exact for any image that does not depend on the key (DESIGN 4.3): whatever happens between the image and
the features, reading, resizing, both inversions, looks at the image only, and so can cost power but never validity. Over
several keys it is Holm-corrected, so alpha bounds the chance of *any* false detection in an image.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from treering_verify import decoder_inversion, noise_inversion
from treering_verify.errors import ImageError, UsageError
from treering_verify.files import printable
from treering_verify.images import fit, open_image, to_tensor
from treering_verify.key import Key
from treering_verify.models import LatentModel, load_model
from treering_verify.results import DETECTED, INCONCLUSIVE, NO_EVIDENCE, KeyEvidence, Verdict
from treering_verify.watermark import extract, features

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch
    from PIL import Image

    from detectors import Evidence

    Source = str | Path | bytes | Image.Image

DEFAULT_ALPHA = 1e-6


@dataclass(frozen=True)
class Pipeline:
    """How an image is taken back to its noise.

    Attributes
    ----------
    inversion : str
        Decoder-inversion method, one of `decoder_inversion.METHODS`, or "auto": the model's best.
    settings : Settings, optional
        Its settings; the method's defaults when left out.
    noise_method : str
        Noise-inversion method, one of `noise_inversion.METHODS`.
    steps : int
        Steps of the noise inversion.
    batch_size : int
        Images that go through the model together.
    precision : {"float32", "bfloat16", "float16"}
        Of the autoencoder's passes in the decoder inversion; latents stay float32.
    """

    inversion: str = decoder_inversion.AUTO
    settings: decoder_inversion.Settings | None = None
    noise_method: str = noise_inversion.DEFAULT_METHOD
    steps: int = noise_inversion.DEFAULT_STEPS
    batch_size: int = 16
    precision: str = "float32"

    def __post_init__(self) -> None:
        methods = (decoder_inversion.AUTO, *decoder_inversion.METHODS)
        if self.inversion not in methods:
            raise UsageError(f"no inversion {self.inversion!r}: choose one of {', '.join(methods)}")
        if self.noise_method not in noise_inversion.METHODS:
            raise UsageError(
                f"no noise inversion {self.noise_method!r}: choose one of {', '.join(noise_inversion.METHODS)}"
            )
        if self.precision not in decoder_inversion.PRECISIONS:
            raise UsageError(
                f"no precision {self.precision!r}: choose one of {', '.join(decoder_inversion.PRECISIONS)}"
            )
        if self.steps < 0 or self.batch_size < 1:
            raise UsageError("steps must be 0 or more, and batch_size 1 or more")


def problem_of(model: LatentModel, image: torch.Tensor) -> decoder_inversion.Problem:
    """Pose the decoder inversion of images (B, 3, H, W) under a model."""
    return decoder_inversion.Problem(image, model.encode, model.decode, model.refine)


def recover_noise(
    model: LatentModel, image: torch.Tensor, pipeline: Pipeline | None = None
) -> tuple[torch.Tensor, Any]:
    """Take images back to their noise.

    Parameters
    ----------
    model : LatentModel
    image : (B, 3, H, W) float32 in [-1, 1], of the model's size
    pipeline : Pipeline, optional

    Returns
    -------
    noise_hat : (B, C, h, w) float32
    inversion : Inversion
        The decoder inversion's result.
    """
    import torch

    pipeline = pipeline or Pipeline()
    problem = decoder_inversion.in_precision(problem_of(model, image), pipeline.precision)
    solution = decoder_inversion.invert(problem, pipeline.inversion, pipeline.settings)
    with torch.inference_mode():
        noise_hat = noise_inversion.invert(model, solution.latent, pipeline.noise_method, steps=pipeline.steps)
    return noise_hat, solution


def verify(
    source: Source,
    keys: Key | Sequence[Key],
    *,
    model: LatentModel | None = None,
    alpha: float = DEFAULT_ALPHA,
    pipeline: Pipeline | None = None,
    decoys: int = 0,
) -> Verdict:
    """Judge one image; see `verify_many`."""
    return next(iter(verify_many([source], keys, model=model, alpha=alpha, pipeline=pipeline, decoys=decoys)))


def verify_many(
    sources: Iterable[Source],
    keys: Key | Sequence[Key],
    *,
    model: LatentModel | None = None,
    alpha: float = DEFAULT_ALPHA,
    pipeline: Pipeline | None = None,
    decoys: int = 0,
) -> Iterator[Verdict]:
    """Judge images, lazily, batch by batch, one verdict per source in the order of the sources.

    Parameters
    ----------
    sources : iterable of paths, bytes or PIL images
        A source that cannot be read gives a verdict with status "error"; the others are still judged.
    keys : Key or sequence of Key
        All are tried; p-values are Holm-corrected over them.
    model : LatentModel, optional
        The embedded model when left out.
    alpha : float
        False-positive rate per image, over all keys together, 0 < alpha < 1.
    pipeline : Pipeline, optional
    decoys : int
        Decoy keys that cross-check the p-value of each image's strongest key (`detectors.decoy_checks`); 0: none.

    Yields
    ------
    Verdict

    Raises
    ------
    UsageError
        If there is no key, a key does not fit the model, or alpha or decoys is out of range.
    """
    model = model or load_model()
    pipeline = pipeline or Pipeline()
    chosen = fitting_keys(keys, model)
    if decoys < 0:
        raise UsageError(f"decoys is {decoys}: draw 0 or more")
    yield from judge_many(
        sources,
        lambda noise_hat: weigh(noise_hat, chosen, decoys),
        len(chosen),
        model=model,
        alpha=alpha,
        pipeline=pipeline,
    )


def fitting_keys(keys: Key | Sequence[Key], model: LatentModel) -> list[Key]:
    """Return keys as a list; UsageError if there is none, or one is made for another shape of noise than the model's."""
    chosen = [keys] if isinstance(keys, Key) else list(keys)
    if not chosen:
        raise UsageError("no key to look for: give at least one")
    for key in chosen:
        if key.latent_shape != model.latent_shape:
            raise UsageError(
                f"key {key.name!r} is made for noise {key.latent_shape}, model {model.name!r} has {model.latent_shape}: "
                "make a key for this model with treering keygen --model"
            )
    return chosen


def judge_many(
    sources: Iterable[Source],
    weigh_noise: Callable[[torch.Tensor], Sequence[tuple[KeyEvidence, ...]]],
    keys_tried: int,
    *,
    model: LatentModel,
    alpha: float,
    pipeline: Pipeline,
) -> Iterator[Verdict]:
    """Judge images, lazily, batch by batch, by whatever weighs their noise.

    Parameters
    ----------
    sources : iterable of paths, bytes or PIL images
    weigh_noise : callable
        noise_hat (B, C, h, w) -> per image the evidence, strongest first, at least one.
    keys_tried : int
        Keys that the evidence is corrected for.
    model, alpha, pipeline
        As `verify_many`.

    Yields
    ------
    Verdict
        One per source, in order.

    Raises
    ------
    UsageError
        If alpha is out of range.
    """
    if not 0 < alpha < 1:
        raise UsageError(f"alpha is {alpha}: choose a false-positive rate between 0 and 1, such as 1e-6")
    remaining = iter(sources)
    while batch := list(islice(remaining, pipeline.batch_size)):
        yield from _judge(batch, weigh_noise, keys_tried, model, alpha, pipeline)


def _judge(
    sources: list[Source],
    weigh_noise: Callable[[torch.Tensor], Sequence[tuple[KeyEvidence, ...]]],
    keys_tried: int,
    model: LatentModel,
    alpha: float,
    pipeline: Pipeline,
) -> list[Verdict]:
    import torch

    started = time.perf_counter()
    paths = [str(s) if isinstance(s, (str, Path)) else "" for s in sources]
    read: list[tuple[torch.Tensor, str] | ImageError] = []
    for source in sources:
        try:
            image, note = fit(open_image(source), model.image_size)
            read.append((to_tensor(image), note))
        except ImageError as error:
            read.append(error)
    good = [i for i, item in enumerate(read) if not isinstance(item, ImageError)]
    answers: dict[int, tuple[tuple[KeyEvidence, ...], float, str]] = {}
    if good:
        image_batch = torch.cat([item[0] for item in read if not isinstance(item, ImageError)])
        noise_hat, solution = recover_noise(model, image_batch, pipeline)
        evidence = weigh_noise(noise_hat)
        for row, i in enumerate(good):
            answers[i] = (evidence[row], float(solution.residual[row]), solution.status[row])
    seconds = (time.perf_counter() - started) / len(sources)
    verdicts = []
    for i, item in enumerate(read):
        if isinstance(item, ImageError):
            verdict = Verdict(
                paths[i], "error", INCONCLUSIVE, alpha, item.code, printable(item.reason), seconds=seconds
            )
        else:
            found, residual, status = answers[i]
            answer, code, reason = _decide(found, alpha, item[1], status)
            verdict = Verdict(
                paths[i],
                "ok",
                answer,
                alpha,
                code,
                reason,
                found,
                item[1],
                residual,
                status not in _UNSETTLED,
                seconds,
                keys_tried,
            )
        verdicts.append(verdict)
    return verdicts


_UNSETTLED = ("budget", "diverged")


def _decide(evidence: tuple[KeyEvidence, ...], alpha: float, note: str, status: str) -> tuple[str, str, str]:
    """Verdict, code and reason. A p-value at or under alpha counts whatever was done to the image before."""
    if evidence[0].log10_adjusted <= np.log10(alpha):
        return DETECTED, "", ""
    if status == "diverged":
        reason = "the decoder inversion found nothing better than its start: the model may not be the image's"
        return INCONCLUSIVE, "not_converged", reason
    if note:
        reason = f"{note}: a picture of another size was cut or scaled since, which hides a mark; find the original"
        return INCONCLUSIVE, "size", reason
    return NO_EVIDENCE, "", ""


def weigh(noise_hat: torch.Tensor, keys: Sequence[Key], decoys: int = 0) -> list[tuple[KeyEvidence, ...]]:
    """Exact test of every key on noise_hat, (B, C, h, w): per image all keys, the strongest first, Holm-adjusted.

    With `decoys`, that many decoy keys cross-check the strongest key's p-value.
    """
    from detectors import cosine_tests

    estimates = [features(extract(noise_hat, key), key) for key in keys]
    results = [cosine_tests(a, key.numbers) for a, key in zip(estimates, keys, strict=True)]
    named = [(key.name, key.fingerprint) for key in keys]
    ranked = [
        rank([(*names, result[row]) for names, result in zip(named, results, strict=True)], len(keys))
        for row in range(len(noise_hat))
    ]
    return _checked(ranked, estimates, results, decoys) if decoys else ranked


def _checked(
    ranked: list[tuple[KeyEvidence, ...]],
    estimates: Sequence[npt.NDArray[np.float64]],
    results: Sequence[list[Evidence]],
    decoys: int,
) -> list[tuple[KeyEvidence, ...]]:
    """Add the decoys' check of each image's strongest key; keys with as many numbers share the decoys."""
    from detectors import decoy_checks

    strongest = [min(range(len(results)), key=lambda k: results[k][row].log10_pvalue) for row in range(len(ranked))]
    checked = list(ranked)
    for degrees in {results[k][0].degrees_of_freedom for k in strongest}:
        rows = [row for row, k in enumerate(strongest) if results[k][0].degrees_of_freedom == degrees]
        seen = np.stack([estimates[strongest[row]][row] for row in rows])
        checks = decoy_checks(seen, [results[strongest[row]][row] for row in rows], decoys)
        for row, check in zip(rows, checks, strict=True):
            checked[row] = (replace(ranked[row][0], decoys=check), *ranked[row][1:])
    return checked


def rank(found: Sequence[tuple[str, str, Evidence]], keys_tried: int) -> tuple[KeyEvidence, ...]:
    """Order the evidence of one image, the strongest first, and adjust it by Holm for all keys tried.

    Parameters
    ----------
    found : sequence of (name, fingerprint, Evidence)
        Of the keys with the smallest p-values; the earlier first among equals.
    keys_tried : int
        Count of all, also of those that are not in `found`.
    """
    from detectors import holm_leading

    ordered = sorted(found, key=lambda item: item[2].log10_pvalue)  # a stable order
    adjusted = holm_leading([evidence.log10_pvalue for _, _, evidence in ordered], keys_tried)
    return tuple(
        KeyEvidence(name, fingerprint, e.statistic, e.log10_pvalue, float(log10), e.degrees_of_freedom)
        for (name, fingerprint, e), log10 in zip(ordered, adjusted, strict=True)
    )
