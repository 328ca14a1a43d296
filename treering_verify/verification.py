"""Verify images: image -> latent -> noise_hat -> coefficients -> evidence -> verdict.

The p-value is exact for any image that does not depend on the key (DESIGN 4.3): whatever happens between the image and
the features, reading, resizing, both inversions, looks at the image only, and so can cost power but never validity. Over
several keys it is Holm-corrected, so alpha bounds the chance of *any* false detection in an image. What `search` finds was
done to the picture's geometry is corrected for all that was searched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from treering_verify import decoder_inversion, noise_inversion
from treering_verify.errors import ImageError, UsageError
from treering_verify.files import printable
from treering_verify.hypotheses import undo
from treering_verify.images import fit, open_image, to_tensor
from treering_verify.key import Key
from treering_verify.models import LatentModel, load_model
from treering_verify.patterns import PATTERNS
from treering_verify.results import DETECTED, INCONCLUSIVE, NO_EVIDENCE, KeyEvidence, Verdict
from treering_verify.search import Guess, Search, as_it_is, confirm, guess
from treering_verify.watermark import extract, features, weigh_key

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from detectors import Evidence

    Source = str | Path | bytes | Image.Image

DEFAULT_ALPHA = 1e-6
DEFAULT_SEARCH = Search()


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
    search: Search | None = DEFAULT_SEARCH,
    decoys: int = 0,
) -> Verdict:
    """Judge one image; see `verify_many`."""
    judged = verify_many([source], keys, model=model, alpha=alpha, pipeline=pipeline, search=search, decoys=decoys)
    return next(iter(judged))


def verify_many(
    sources: Iterable[Source],
    keys: Key | Sequence[Key],
    *,
    model: LatentModel | None = None,
    alpha: float = DEFAULT_ALPHA,
    pipeline: Pipeline | None = None,
    search: Search | None = DEFAULT_SEARCH,
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
    search : Search, optional
        What may have been done to a picture's geometry, tried on pictures that are not detected as they are; None
        tries nothing, and spares the correction for it: a factor of 2 for pictures as they are.
    decoys : int
        Decoy keys that cross-check the p-value of each image's strongest key (`detectors.decoy_checks`); 0: none. They
        check the picture as it is, so nothing is searched then.

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

    def weigh_images(noise_hat: torch.Tensor, image: torch.Tensor) -> list[tuple[KeyEvidence, ...]]:
        if search is None or decoys:
            return weigh(noise_hat, chosen, decoys)
        return weigh_searched(noise_hat, image, chosen, search, partial(_recover_in_batches, model, pipeline), alpha)

    yield from judge_many(sources, weigh_images, len(chosen), model=model, alpha=alpha, pipeline=pipeline)


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
    weigh_images: Callable[[torch.Tensor, torch.Tensor], Sequence[tuple[KeyEvidence, ...]]],
    keys_tried: int,
    *,
    model: LatentModel,
    alpha: float,
    pipeline: Pipeline,
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
        If alpha is out of range.
    """
    if not 0 < alpha < 1:
        raise UsageError(f"alpha is {alpha}: choose a false-positive rate between 0 and 1, such as 1e-6")
    remaining = iter(sources)
    while batch := list(islice(remaining, pipeline.batch_size)):
        yield from _judge(batch, weigh_images, keys_tried, model, alpha, pipeline)


def _judge(
    sources: list[Source],
    weigh_images: Callable[[torch.Tensor, torch.Tensor], Sequence[tuple[KeyEvidence, ...]]],
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
        evidence = weigh_images(noise_hat, image_batch)
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
            answer, code, reason = decide(found, alpha, item[1], status)
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


def decide(evidence: tuple[KeyEvidence, ...], alpha: float, note: str, status: str) -> tuple[str, str, str]:
    """Verdict, code and reason. A p-value at or under alpha counts whatever was done to the image before.

    Parameters
    ----------
    evidence : tuple of KeyEvidence
        Strongest first, at least one.
    alpha : float
    note : str
        What was done to the image first (`Verdict.note`).
    status : str
        How the decoder inversion ended (`Inversion.status`).
    """
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
    """Test every key on noise_hat, (B, C, h, w): per image all keys, the strongest first, Holm-adjusted.

    With `decoys`, that many decoy keys cross-check the strongest key's p-value.
    """
    tests = _tests(noise_hat, keys)
    ranked = [
        rank([(key.name, key.fingerprint, e) for key, e in zip(keys, row, strict=True)], len(keys)) for row in tests
    ]
    return _checked(ranked, tests, noise_hat, keys, decoys) if decoys else ranked


def _checked(
    ranked: list[tuple[KeyEvidence, ...]],
    tests: Sequence[list[Evidence]],
    noise_hat: torch.Tensor,
    keys: Sequence[Key],
    decoys: int,
) -> list[tuple[KeyEvidence, ...]]:
    """Add the decoys' check of each image's strongest key; keys with as many numbers share the decoys.

    Raises
    ------
    UsageError
        If a key's pattern is not tested by the cosine.
    """
    from detectors import decoy_checks

    for key in keys:
        if not PATTERNS[key.pattern].cosine:
            raise UsageError(f"decoys check the cosine test, and {key.pattern} has another: leave decoys out")
    strongest = [min(range(len(keys)), key=lambda k: row[k].log10_pvalue) for row in tests]
    checked = list(ranked)
    for degrees in {keys[k].degrees_of_freedom for k in strongest}:
        rows = [row for row, k in enumerate(strongest) if keys[k].degrees_of_freedom == degrees]
        chosen = [(noise_hat[row : row + 1], keys[strongest[row]]) for row in rows]
        seen = np.concatenate([features(extract(noise, key), key) for noise, key in chosen])
        checks = decoy_checks(seen, [tests[row][strongest[row]] for row in rows], decoys)
        for row, check in zip(rows, checks, strict=True):
            checked[row] = (replace(ranked[row][0], decoys=check), *ranked[row][1:])
    return checked


def weigh_searched(
    noise_hat: torch.Tensor,
    image: torch.Tensor,
    keys: Sequence[Key],
    search: Search,
    again: Callable[[torch.Tensor], torch.Tensor],
    alpha: float,
) -> list[tuple[KeyEvidence, ...]]:
    """As `weigh`, and where no key reaches alpha search for what was done to the picture.

    Parameters
    ----------
    noise_hat : (B, C, h, w)
    image : (B, 3, H, W)
        The pictures that it was recovered from.
    keys : sequence of Key
    search : Search
    again : callable
        Pictures (n, 3, H, W) -> their noise (n, C, h, w), for any n.
    alpha : float
        A picture in which a key reaches it is not searched any further.
    """
    found = [[as_it_is(*one) for one in zip(row, keys, strict=True)] for row in _tests(noise_hat, keys)]
    ranked = [_rank_guesses(row, keys) for row in found]

    def improve(row: int, position: int, better: Guess) -> None:
        if better.evidence.log10_pvalue < found[row][position].evidence.log10_pvalue:
            found[row][position] = better
            ranked[row] = _rank_guesses(found[row], keys)

    def unsettled(row: int) -> bool:
        return ranked[row][0].log10_adjusted > np.log10(alpha)

    dear: list[tuple[int, int, Guess]] = []
    for row in filter(unsettled, range(len(noise_hat))):
        guesses = [
            (position, one)
            for position, some in enumerate(guess(noise_hat[row], keys, search))
            for one in some
            if one.evidence.log10_pvalue < 0  # a p-value of 1 promises nothing
        ]
        guesses.sort(key=lambda item: item[1].evidence.log10_pvalue)
        for position, one in guesses:
            improve(row, position, one)
        if unsettled(row):
            dear += [(row, position, one) for position, one in guesses[: search.budget]]
    if dear:
        import torch

        undone = again(torch.cat([undo(image[row : row + 1], one.hypothesis) for row, _, one in dear]))
        for (row, position, one), noise in zip(dear, undone, strict=True):
            improve(row, position, confirm(noise, keys[position], one))
    return ranked


def _tests(noise_hat: torch.Tensor, keys: Sequence[Key]) -> list[list[Evidence]]:
    """Test every key on noise_hat, (B, C, h, w): per image, in the order of the keys, uncorrected."""
    return [list(row) for row in zip(*(weigh_key(noise_hat, key) for key in keys), strict=True)]


def _rank_guesses(guesses: Sequence[Guess], keys: Sequence[Key]) -> tuple[KeyEvidence, ...]:
    named = [(key.name, key.fingerprint, one.evidence) for key, one in zip(keys, guesses, strict=True)]
    said = {(key.name, key.fingerprint): one.hypothesis.changes for key, one in zip(keys, guesses, strict=True)}
    return tuple(replace(e, hypothesis=said[e.key, e.fingerprint]) for e in rank(named, len(keys)))


def _recover_in_batches(model: LatentModel, pipeline: Pipeline, image: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.cat([recover_noise(model, part, pipeline)[0] for part in image.split(pipeline.batch_size)])


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
