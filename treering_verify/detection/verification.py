"""Verify images: image -> latent -> noise_hat -> coefficients -> evidence -> verdict.

The p-value is exact for any image that does not depend on the key (DESIGN 4.3): whatever happens between the image and
the features, reading, resizing, both inversions, looks at the image only, and so can cost power but never validity. Over
several keys it is Holm-corrected, so alpha bounds the chance of *any* false detection in an image. What `search` finds was
done to the image's geometry, or to a video's beginning, is corrected for all that was searched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from treering_verify.detection.evidence import evidence_of, searched_evidence
from treering_verify.detection.search.search import Search
from treering_verify.detection.search.video_offsets import Timeline
from treering_verify.errors import ImageError, UsageError
from treering_verify.files import printable
from treering_verify.inversion.recovery import InversionOptions, recover_in_batches, recover_noise, together
from treering_verify.media.images import fit, open_image, to_tensor
from treering_verify.media.videos import read_video
from treering_verify.models import LatentModel, load_model, makes_videos
from treering_verify.models.profile import check_profile
from treering_verify.results import DETECTED, INCONCLUSIVE, NO_EVIDENCE, KeyEvidence, Verdict
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from treering_verify.media.videos import VideoSource

    Source = str | Path | bytes | Image.Image

DEFAULT_ALPHA = 1e-6
DEFAULT_SEARCH = Search()
LITTLE_VISIBLE = 0.08
"""Share of the image below which its mark would be missed too often for 'no evidence' (docs/search.md)."""


def verify(
    source: Source | VideoSource,
    keys: Key | Sequence[Key],
    *,
    model: LatentModel | None = None,
    alpha: float = DEFAULT_ALPHA,
    pipeline: InversionOptions | None = None,
    search: Search | None = DEFAULT_SEARCH,
    decoys: int = 0,
) -> Verdict:
    """Judge one image; see `verify_many`."""
    judged = verify_many([source], keys, model=model, alpha=alpha, pipeline=pipeline, search=search, decoys=decoys)
    return next(iter(judged))


def verify_many(
    sources: Iterable[Source | VideoSource],
    keys: Key | Sequence[Key],
    *,
    model: LatentModel | None = None,
    alpha: float = DEFAULT_ALPHA,
    pipeline: InversionOptions | None = None,
    search: Search | None = DEFAULT_SEARCH,
    decoys: int = 0,
) -> Iterator[Verdict]:
    """Judge images, lazily, batch by batch, one verdict per source in the order of the sources.

    Parameters
    ----------
    sources : iterable of paths, bytes or PIL images
        Where the model makes videos, what `video_files.read_video` takes.
        A source that cannot be read gives a verdict with status "error"; the others are still judged.
    keys : Key or sequence of Key
        All are tried; p-values are Holm-corrected over them.
    model : LatentModel, optional
        The embedded model when left out.
    alpha : float
        False-positive rate per image, over all keys together, 0 < alpha < 1.
    pipeline : Pipeline, optional
        `InversionOptions.of(profile)` where the model was checked (`Profile.load`).
    search : Search, optional
        What may have been done to an image's geometry or a video's beginning, tried on those that are not detected as
        they are; None tries nothing, and spares the correction for it: a factor of 2 for images as they are.
    decoys : int
        Decoy keys that cross-check the p-value of each image's strongest key (`treering_detectors.decoy_checks`); 0: none.
        They check the image as it is, so nothing is searched then.

    Yields
    ------
    Verdict

    Raises
    ------
    UsageError
        If there is no key, a key or the profile does not fit the model, alpha or decoys is out of range, or what is to be
        searched does not exist in what the model makes.
    """
    model = model or load_model()
    pipeline = pipeline or InversionOptions()
    chosen = fitting_keys(keys, model)
    if decoys < 0:
        raise UsageError(f"decoys is {decoys}: draw 0 or more")
    timeline = Timeline.of(model)
    if search is not None:
        search.check_time(model.name, timeline)

    def find_evidence(noise_hat: torch.Tensor, image: torch.Tensor) -> list[tuple[KeyEvidence, ...]]:
        if search is None or decoys:
            return evidence_of(noise_hat, chosen, decoys)
        again = partial(recover_in_batches, model, pipeline)
        return searched_evidence(noise_hat, image, chosen, search, again, alpha, timeline)

    yield from judge_many(sources, find_evidence, len(chosen), model=model, alpha=alpha, pipeline=pipeline)


def fitting_keys(keys: Key | Sequence[Key], model: LatentModel) -> list[Key]:
    """Return keys as a list; UsageError if there is none, or one is made for another shape of noise than the model's."""
    chosen = [keys] if isinstance(keys, Key) else list(keys)
    if not chosen:
        raise UsageError("no key to look for: give at least one")
    for key in chosen:
        check_shape(f"key {key.name!r}", key.latent_shape, model)
    return chosen


def check_shape(label: str, latent_shape: tuple[int, int, int], model: LatentModel) -> None:
    """UsageError if what is called so is made for another shape of noise than the model's."""
    if latent_shape != model.latent_shape:
        raise UsageError(
            f"{label} is made for noise {latent_shape}, model {model.name!r} has {model.latent_shape}: "
            "make a key for this model with treering keygen --model"
        )


def judge_many(
    sources: Iterable[Source | VideoSource],
    find_evidence: Callable[[torch.Tensor, torch.Tensor], Sequence[tuple[KeyEvidence, ...]]],
    keys_tried: int,
    *,
    model: LatentModel,
    alpha: float,
    pipeline: InversionOptions,
) -> Iterator[Verdict]:
    """Judge images, lazily, batch by batch, by whatever weighs them.

    Parameters
    ----------
    sources : iterable of paths, bytes or PIL images
    weigh_images : callable
        noise_hat (B, C, h, w) and image (B, 3, H, W) -> per image the evidence, strongest first, at least one.
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
        If alpha is out of range, or the profile is another model's.
    """
    if not 0 < alpha < 1:
        raise UsageError(f"alpha is {alpha}: choose a false-positive rate between 0 and 1, such as 1e-6")
    weakness = check_profile(pipeline.profile, model, alpha, keys_tried)
    remaining = iter(sources)
    while batch := list(islice(remaining, together(model, pipeline))):
        yield from _judge(batch, find_evidence, keys_tried, model, alpha, pipeline, weakness)


def _judge(
    sources: list[Source | VideoSource],
    find_evidence: Callable[[torch.Tensor, torch.Tensor], Sequence[tuple[KeyEvidence, ...]]],
    keys_tried: int,
    model: LatentModel,
    alpha: float,
    pipeline: InversionOptions,
    weakness: str,
) -> list[Verdict]:
    import torch

    started = time.perf_counter()
    paths = [str(s) if isinstance(s, (str, Path)) else "" for s in sources]
    read: list[tuple[torch.Tensor, str] | ImageError] = []
    for source in sources:
        try:
            read.append(_read(source, model))
        except ImageError as error:
            read.append(error)
    good = [i for i, item in enumerate(read) if not isinstance(item, ImageError)]
    answers: dict[int, tuple[tuple[KeyEvidence, ...], float, str, float]] = {}
    if good:
        image_batch = torch.cat([item[0] for item in read if not isinstance(item, ImageError)])
        noise_hat, solution = recover_noise(model, image_batch, pipeline)
        evidence = find_evidence(noise_hat, image_batch)
        for row, i in enumerate(good):
            answers[i] = (evidence[row], float(solution.residual[row]), solution.status[row], solution.visible[row])
    seconds = (time.perf_counter() - started) / len(sources)
    profile = pipeline.profile.digest if pipeline.profile else ""
    verdicts = []
    for i, item in enumerate(read):
        if isinstance(item, ImageError):
            verdict = Verdict(
                paths[i],
                "error",
                INCONCLUSIVE,
                alpha,
                item.code,
                printable(item.reason),
                seconds=seconds,
                profile=profile,
            )
        else:
            found, residual, status, visible = answers[i]
            answer, code, reason = decide(found, alpha, item[1], status, weakness, visible)
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
                profile=profile,
                visible=visible,
            )
        verdicts.append(verdict)
    return verdicts


def _read(source: Source | VideoSource, model: LatentModel) -> tuple[torch.Tensor, str]:
    """Image or video as a model takes it, and what was done to it for that."""
    if makes_videos(model):
        return read_video(source, model.frames, model.image_size)
    if isinstance(source, Sequence) and not isinstance(source, str | bytes):
        raise UsageError(f"{model.name} judges images: give one at a time, or a model that makes videos")
    image, note = fit(open_image(source), model.image_size)
    return to_tensor(image), note


_UNSETTLED = ("budget", "diverged")


def decide(
    evidence: tuple[KeyEvidence, ...], alpha: float, note: str, status: str, weakness: str = "", visible: float = 1.0
) -> tuple[str, str, str]:
    """Verdict, code and reason. A p-value at or under alpha counts whatever was done to the image before.

    Parameters
    ----------
    evidence : tuple of KeyEvidence
        Strongest first, at least one.
    alpha : float
    note : str
        What was done to the image first (`Verdict.note`).
    status : str
        How the decoder inversion ended (`Solution.status`).
    weakness : str
        Why marks of this model would be missed (`Profile.weakness`), or "".
    shown : float
        Share of the image that shows anything (`Solution.visible`).
    """
    if evidence[0].log10_adjusted <= np.log10(alpha):
        return DETECTED, "", ""
    if weakness:
        return INCONCLUSIVE, "weak_model", weakness
    if status == "diverged":
        reason = "the decoder inversion found nothing better than its start: the model may not be the image's"
        return INCONCLUSIVE, "not_converged", reason
    if visible < LITTLE_VISIBLE:
        reason = (
            f"{visible:.1%} of the image shows anything, the rest is one colour: too little to tell; find the original"
        )
        return INCONCLUSIVE, "little_visible", reason
    if note:
        what = "an image of another size, or a video of another length, was cut or scaled since"
        reason = f"{note}: {what}, which hides a mark; find the original"
        return INCONCLUSIVE, "size", reason
    return NO_EVIDENCE, "", ""
