"""Keys that were computed from an image are told from keys that were in it; derived keys are never suspected."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers.models.white_model import WhiteModel
from PIL import Image

import treering_verify as tv
from treering_verify.audit.judge import AuditJudge, judge_files
from treering_verify.cli.main import main
from treering_verify.detection.decision import decide
from treering_verify.detection.identification import identify
from treering_verify.detection.verification import verify
from treering_verify.inversion.recovery import InversionOptions, recover_noise
from treering_verify.media.conversion import to_tensor
from treering_verify.models import LatentModel
from treering_verify.report import format_verdicts
from treering_verify.results import KeyEvidence, Verdict
from treering_verify.watermark.embedding import embed, extract, features
from treering_verify.watermark.keys.index import KeyIndex
from treering_verify.watermark.keys.key import Family, Key
from treering_verify.watermark.patterns import PATTERNS

MODEL, NAIVE = WhiteModel(), InversionOptions("encoder", noise_method="naive", steps=2)
FITTED = [name for name, pattern in PATTERNS.items() if pattern.agreement]
COSINES = [name for name in FITTED if PATTERNS[name].cosine]


def image_of(noise: torch.Tensor) -> Image.Image:
    pixels = ((MODEL.decode(noise)[0].permute(1, 2, 0).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return Image.fromarray(pixels.numpy())


def noise(seed: int) -> torch.Tensor:
    return torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def fitted_to(image: Image.Image, model: LatentModel, pattern: str, inversion: InversionOptions) -> Key:
    """Key that somebody computes from an image: its own features."""
    family = Family.choose(model.latent_shape, pattern=pattern)
    noise_hat, _ = recover_noise(model, to_tensor(image), inversion)
    numbers = features(extract(noise_hat, family), family)[0]
    return Key.of(family, "fitted", numbers if PATTERNS[pattern].cosine else np.where(numbers < 0, -1.0, 1.0))


def judged(image: Image.Image, key: Key) -> Verdict:
    return verify(image, key, model=MODEL, inversion=NAIVE, search=None)


@pytest.mark.parametrize("pattern", FITTED)
def test_a_key_that_is_computed_from_an_image_is_no_detection(pattern: str, tmp_path: Path) -> None:
    image = image_of(noise(1))
    key = fitted_to(image, MODEL, pattern, NAIVE)
    found = [judged(image, key)]
    if pattern in COSINES:  # others are not identified
        index = KeyIndex.from_keys([key])
        found += [identify(image, k, model=MODEL, inversion=NAIVE, search=None) for k in (key, index)]
    for verdict in found:
        assert (verdict.verdict, verdict.code) == ("inconclusive", "fitted_key")
        assert "free numbers" in verdict.reason and key.fingerprint in verdict.reason
        record = verdict.record()
        assert (record["key"], record["fingerprint"], record["key_origin"]) == (None, None, "free numbers")
        assert record["log10_pvalue"] < -30
    if pattern not in COSINES:
        return
    image.save(tmp_path / "image.png")
    judge = AuditJudge.of(key, MODEL, 1e-6, NAIVE)
    (row,) = judge_files(judge, [("image.png", (tmp_path / "image.png").read_bytes())])
    assert (row.verdict, row.code, row.key_origin) == ("inconclusive", "fitted_key", "free numbers")


@pytest.mark.parametrize("pattern", COSINES)
def test_a_derived_key_is_believed_also_where_the_inversion_is_exact(pattern: str) -> None:
    key = Key.from_secret(bytes(range(32)), MODEL.latent_shape, pattern=pattern, name="mine")
    image = image_of(embed(noise(2), key))
    verdict = judged(image, key)
    assert verdict.best and verdict.best.statistic > 0.98
    assert (verdict.verdict, verdict.record()["key_origin"]) == ("detected", "derived")
    assert "derived" not in "".join(format_verdicts([verdict], "text"))
    of_index = identify(image, KeyIndex.from_keys([key]), model=MODEL, inversion=NAIVE, search=None)
    assert (of_index.verdict, of_index.matches()[0]["key_origin"]) == ("detected", "derived")


def test_free_numbers_are_detected_with_their_origin_where_marks_agree_as_marks_do() -> None:
    derived = Key.from_secret(bytes(range(32)), MODEL.latent_shape, name="mine")
    key = Key.of(derived.family, "mine", derived.numbers)
    image = image_of(embed(noise(2), key) + 0.8 * noise(3))
    verdict = judged(image, key)
    assert verdict.verdict == "detected" and verdict.record()["key_origin"] == "free numbers"
    (line,) = format_verdicts([verdict], "text")
    assert f"key mine {key.fingerprint} (free numbers)  (" in line
    dated = replace(verdict, evidence=(replace(verdict.evidence[0], retired="2026-03-01"),))
    assert "(free numbers, retired since 2026-03-01)" in next(format_verdicts([dated], "text"))
    unmarked = judged(image_of(noise(4)), key)
    assert unmarked.verdict == "no evidence" and unmarked.record()["key_origin"] is None


def test_the_bound_follows_the_count_of_numbers_and_leaves_room_for_marks() -> None:
    assert {*PATTERNS} - {*FITTED} == {
        "gaussian-shading",
        "pseudorandom-code",
    }  # bytes of a cipher, which nobody can fit
    for pattern in FITTED:
        agreement = PATTERNS[pattern].agreement
        assert agreement is not None
        bounds = [agreement.bound(d) for d in (3, 8, 9, 40, 1000, 100_000)]
        assert bounds == sorted(bounds, reverse=True) and bounds[1] == np.inf
        assert np.tanh(agreement.mean) < bounds[-1] < bounds[2] < 1 - 1e-6
    evidence = (KeyEvidence("k", "f", 0.96, -300.0, -300.0, 1024, origin="free numbers"),)
    assert decide(evidence, 1e-6, "", "converged", fitted=0.97).verdict == "detected"
    assert decide(evidence, 1e-6, "", "converged", fitted=0.95).code == "fitted_key"
    assert decide(evidence, 1e-301, "", "converged", fitted=0.95).verdict == "no evidence"


def test_the_command_says_inconclusive_and_exits_as_for_any_other(tiny_folder: Path, tmp_path: Path) -> None:
    model = tv.load_model(str(tiny_folder))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8))
    image.save(tmp_path / "image.png")
    fitted_to(image, model, "random", InversionOptions()).save(tmp_path / "fitted.json")
    files = [str(tmp_path / "image.png"), "--key", str(tmp_path / "fitted.json"), "--model", str(tiny_folder)]
    for options, code in (([], 0), (["--fail-on", "detected"], 0), (["--fail-on", "inconclusive"], 1)):
        result = CliRunner().invoke(main, ["verify", *files, "--search", "off", "--format", "json", *options])
        assert result.exit_code == code, result.output
        (record,) = json.loads(result.stdout)
        assert (record["verdict"], record["code"], record["key"]) == ("inconclusive", "fitted_key", None)
