"""The decisions of other schemes on the same images: marked by each, their unmarked twins, and photographs."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from treering_detectors import Rate

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.cache import cached
from treering_verify.benchmark.harness.keyed_images import render_noise
from treering_verify.benchmark.harness.laboratory import chunks
from treering_verify.benchmark.harness.scope import SEEDS, Scope
from treering_verify.benchmark.harness.unmarked_images import photographs
from treering_verify.benchmark.outside import mark_diffusion
from treering_verify.detection.calibration.registry import CHI_SQUARE, DETECTORS, DISTANCE
from treering_verify.detection.evidence import evidence_of
from treering_verify.detection.judge import DEFAULT_ALPHA
from treering_verify.generation.generator import initial_noise
from treering_verify.inversion.recovery import InversionOptions, recover_noise
from treering_verify.media.conversion import to_tensor
from treering_verify.models import LatentModel
from treering_verify.models.weights import fingerprint
from treering_verify.report.findings import Cell, Findings, Table
from treering_verify.version import __version__
from treering_verify.watermark.embedding import embed
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch
    from PIL import Image

    Score = Callable[[torch.Tensor], npt.NDArray[np.float64]]

_PUBLISHED = InversionOptions(method="encoder", noise_method="naive", steps=50)
_OWN_CODE = "own implementation"
MARKED, TWIN, PHOTOGRAPH, CALIBRATION = "marked", "unmarked twin", "photograph", "calibration"
WHITE = "white noise"
_WHITE_SAMPLES = 200


@dataclass(frozen=True, eq=False)
class Peer:
    """A scheme: how it marks noise, scores noise estimates (larger: more likely marked), and decides.

    `threshold` is the score from which on it decides for marked; None fits it to unmarked images of other seeds.
    """

    name: str
    code: str
    rule: str
    mark: Callable[[torch.Tensor], torch.Tensor]
    score: Score
    threshold: float | None
    inversion: InversionOptions = _PUBLISHED


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Mark the same noise by each scheme; each decides on its own images, the unmarked twins and photographs."""
    count, first = scope.images(8, 100), SEEDS["peers"]
    peers, absent = _peers(model, count, first)
    noise = initial_noise(model.latent_shape, range(first, first + count))
    others = initial_noise(model.latent_shape, range(first + (1 << 20), first + (1 << 20) + count))
    white = initial_noise(model.latent_shape, range(first + (2 << 20), first + (2 << 20) + _WHITE_SAMPLES))
    shipped = photographs(model, count, first)
    installed = _digest(*(np.asarray(photograph) for photograph in shipped))  # scikit-image's are there or not
    unmarked: dict[str, Callable[[range], list[Image.Image]]] = {
        TWIN: cache(partial(_rendered, model, noise)),
        PHOTOGRAPH: lambda some: shipped[some.start : some.stop],
        CALIBRATION: cache(partial(_rendered, model, others)),
    }
    parts = chunks(count, model)
    shared: dict[InversionOptions, dict[str, torch.Tensor]] = {}
    rows = scope.rows
    lines: list[tuple[Cell, ...]] = []
    inversions = list(dict.fromkeys(peer.inversion for peer in peers))
    with scope.progress("Images, by scheme", len(parts) * (len(peers) + 3 * len(inversions))) as advance:
        for peer in peers:
            estimates = _Estimates(model, scope, peer.inversion, parts, advance)
            if peer.inversion not in shared:
                shared[peer.inversion] = {
                    kind: estimates.of(kind, installed, drawn)[0] for kind, drawn in unmarked.items()
                }
            marked = peer.mark(noise)
            drawn = partial(_rendered, model, marked)
            found, seconds = estimates.of(MARKED, _digest(marked.numpy()), drawn)
            known = {MARKED: found, **shared[peer.inversion], WHITE: white}
            scores = {kind: peer.score(noise_hat) for kind, noise_hat in known.items()}
            threshold = float(scores[CALIBRATION].max()) if peer.threshold is None else peer.threshold
            flagged = {kind: values > threshold for kind, values in scores.items() if kind != CALIBRATION}
            rows += [
                {
                    "method": peer.name,
                    "code": peer.code,
                    "truth": kind,
                    "image": i,
                    "score": float(scores[kind][i]),
                    "threshold": threshold,
                    "flagged": bool(decided[i]),
                }
                for kind, decided in flagged.items()
                for i in range(len(decided))
            ]
            rates = [Rate(int(decided.sum()), len(decided)) for decided in flagged.values()]
            lines.append((peer.name, peer.code, peer.rule, *rates, f"{seconds:.3f}"))
    lines += [(name, "not installed", how, None, None, None, None, None) for name, how in absent]
    return Findings(
        "peers",
        BENCHMARKS["peers"].question,
        tuple(rows),
        (
            Table(
                "Decisions of each scheme",
                (
                    "scheme",
                    "code",
                    "decision",
                    "marked, detected",
                    "twins",
                    "photographs",
                    "white noise",
                    "s / image",
                ),
                tuple(lines),
                "The same initial noise is marked by each scheme; twins are generated from the noise as it was. "
                "Of twins, photographs and white noise the table counts what is taken for marked, wrongly. "
                "Photographs: crops of those that scikit-learn and scikit-image ship. Each image has its own key, but for "
                "MarkDiffusion, whose pattern is one for all. Fitted thresholds: the largest score of "
                f"{count} unmarked images of other seeds. All but ours invert by the encoder and 50 naive steps, as "
                "published. Seconds: of both inversions. "
                "Intervals: Clopper-Pearson, 95 %.",
            ),
        ),
        seeds=f"{first} onwards",
        count=f"{count} of each kind",
        answer=_answer(rows),
    )


def _answer(rows: list[dict[str, Any]]) -> str:
    """Return a sentence with the rates of our scheme, and of the one with most false positives."""

    def rate(name: str, *truths: str) -> Rate:
        some = [row["flagged"] for row in rows if row["method"] == name and row["truth"] in truths]
        return Rate(sum(some), len(some))

    others = (TWIN, PHOTOGRAPH)
    names = list(dict.fromkeys(row["method"] for row in rows))
    worst = max(names, key=lambda name: rate(name, *others).value)
    ours = f"Ours detects {rate(names[0], MARKED)} of its marked images and flags {rate(names[0], *others)} unmarked"
    if rate(worst, *others).successes == 0:
        return f"{ours}. No scheme flags an unmarked image here."
    return f"{ours}. Most unmarked images are flagged by {worst}: {rate(worst, *others)}."


def _peers(model: LatentModel, count: int, first: int) -> tuple[list[Peer], list[tuple[str, str]]]:
    """Return the schemes that can run here, ours first, and name and advice of those that are not installed."""

    def keyed(
        name: str, code: str, rule: str, pattern: str, score: str, threshold: float | None, **options: Any
    ) -> Peer:
        keys = [Key.generate(model.latent_shape, pattern=pattern, seed=first + i) for i in range(count)]

        def mark(noise: torch.Tensor) -> torch.Tensor:
            import torch

            return torch.cat([embed(one, key) for one, key in zip(noise.split(1), keys, strict=True)])

        def scored(noise_hat: torch.Tensor) -> npt.NDArray[np.float64]:
            pairs = zip(noise_hat.split(1), cycle(keys), strict=False)
            if score == "exact":
                return np.array([-evidence_of(one, [key])[0][0].log10_pvalue for one, key in pairs])
            return np.array([DETECTORS[score](one, [key])[0, 0] for one, key in pairs])

        return Peer(name, code, rule, mark, scored, threshold, **options)

    exact = -float(np.log10(DEFAULT_ALPHA))
    fitted = "mean distance, threshold fitted"
    peers = [
        keyed(
            "ours",
            "this toolkit",
            f"exact p <= {DEFAULT_ALPHA:g}",
            "random",
            "exact",
            exact,
            inversion=InversionOptions(),
        ),
        keyed("Tree-Ring, p-value", _OWN_CODE, "non-central chi-square p <= .01", "rings", CHI_SQUARE, 2.0),
        keyed("Tree-Ring, distance", _OWN_CODE, fitted, "rings", DISTANCE, None),
        keyed("RingID", _OWN_CODE, fitted, "mixed-rings", DISTANCE, None),
        keyed("SFWMark HSTR", _OWN_CODE, fitted, "centre-rings", DISTANCE, None),
        keyed("SFWMark HSQR", _OWN_CODE, fitted, "centre-signs", DISTANCE, None),
        keyed(
            "Gaussian Shading", _OWN_CODE, f"agreeing signs, p <= {DEFAULT_ALPHA:g}", "gaussian-shading", "exact", exact
        ),
    ]
    release = mark_diffusion.installed_version()
    if not release:
        return peers, [("MarkDiffusion", f"pip install {mark_diffusion.PACKAGE}, in an environment of its own")]
    try:
        tree_ring = mark_diffusion.TreeRing(model)
    except (ImportError, RuntimeError, AttributeError, TypeError, KeyError) as error:  # RuntimeError: of diffusers
        return peers, [
            ("MarkDiffusion", f"{release} is installed, and cannot be used ({type(error).__name__}: {error})")
        ]
    for kind, rule in (("l1_distance", f"its distance < {tree_ring.threshold:g}"), ("p_value", "its p < .01")):

        def decided(noise_hat: torch.Tensor, kind: str = kind) -> npt.NDArray[np.float64]:
            return tree_ring.decide(noise_hat, kind)

        name = f"MarkDiffusion's Tree-Ring, {'distance' if kind == 'l1_distance' else 'p-value'}"
        peers.append(Peer(name, f"markdiffusion {release}", rule, tree_ring.mark, decided, 0.0))
    return peers, []


@dataclass(frozen=True, eq=False)
class _Estimates:
    """Noise estimates by one inversion, cached for a few images at a time."""

    model: LatentModel
    scope: Scope
    inversion: InversionOptions
    parts: list[range]
    advance: Callable[[], None]

    def of(self, kind: str, source: str, drawn: Callable[[range], list[Image.Image]]) -> tuple[torch.Tensor, float]:
        """Return the noise estimates of images and seconds per image; images whose estimates are cached are not drawn.

        `source` is what the images depend on, beside the seeds of the benchmark.
        """
        import torch

        found, weights = [], fingerprint(self.model)
        for some in self.parts:

            def measure(some: range = some) -> dict[str, npt.NDArray[np.float64]]:
                pixels = torch.cat([to_tensor(image) for image in drawn(some)])
                begun = time.perf_counter()
                noise_hat = recover_noise(self.model, pixels, self.inversion)[0]
                return {"noise_hat": noise_hat.numpy(), "seconds": np.array(time.perf_counter() - begun)}

            facts = (weights, __version__, SEEDS["peers"], kind, source, self.inversion, some)
            found.append(cached(self.scope.folder, "estimates", facts, measure))
            self.advance()
        noise_hat = torch.from_numpy(np.concatenate([part["noise_hat"] for part in found]))
        return noise_hat, sum(float(part["seconds"]) for part in found) / len(noise_hat)


def _rendered(model: LatentModel, noise: torch.Tensor, some: range) -> list[Image.Image]:
    return render_noise(model, noise[some.start : some.stop], some.start)


def _digest(*arrays: npt.NDArray[Any]) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
