"""Calibration: p is never below 1/(n + 1), is valid for images like the unmarked ones, and is withheld elsewhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers.calibrations import (
    COUNT,
    DETECTORS,
    FAMILY,
    JPEG,
    QUICK,
    SHAPE,
    judged,
    unmarked_images,
)
from PIL import Image

from treering_verify.cli.main import main
from treering_verify.detection.calibration import build
from treering_verify.detection.calibration.build import calibrate
from treering_verify.detection.calibration.calibration_file import CLEAN, Calibration, digest
from treering_verify.detection.calibration.registry import DEFAULT_ATTACKS
from treering_verify.detection.calibration.scores import score
from treering_verify.detection.calibration.verify import verify_calibrated
from treering_verify.errors import UsageError
from treering_verify.generation.generator import generate
from treering_verify.media.conversion import save_png
from treering_verify.models import LatentModel
from treering_verify.report import calibration_record, format_calibration, format_text, to_json
from treering_verify.watermark.embedding import embed, groups
from treering_verify.watermark.keys.key import Family, Key


def test_every_detector_has_one_score_per_image_in_every_stratum(calibration: Calibration) -> None:
    assert calibration.detectors == DETECTORS and calibration.strata == (CLEAN, JPEG)
    assert all(len(s) == COUNT for strata in calibration.scores.values() for s in strata.values())
    assert len(calibration.digests) == 2 * COUNT + 16 and calibration.training == 16
    assert calibration.residual is not None
    assert calibration.resized == 0 and 0 < calibration.residual[0] < calibration.residual[1]


@pytest.mark.parametrize("detector", DETECTORS)
def test_pvalues_of_images_like_the_calibrations_are_valid_and_never_below_one_over_n_plus_one(
    calibration: Calibration, tiny_model: LatentModel, detector: str
) -> None:
    verdicts = judged(unmarked_images(1_000, 20), calibration, tiny_model, detector)
    answered = [v for v in verdicts if v.code != "outside"]
    assert len(answered) >= 14  # each is outside with probability at most 2 / 20
    pvalues = np.array([v.pvalue for v in answered])
    assert pvalues.min() >= 1 / (COUNT + 1) - 1e-12
    assert (pvalues <= 0.2).sum() <= 11  # a valid p: 4 expected at most; the calibration's own chance is in it too
    for verdict in answered:
        worst = calibration.scores[detector]
        assert verdict.best is not None
        counts = [1 + int((scores >= verdict.best.statistic).sum()) for scores in worst.values()]
        assert verdict.pvalue == pytest.approx(max(counts) / (COUNT + 1))
        assert worst[verdict.best.stratum] is not None


def test_a_key_in_the_noise_scores_higher_by_every_detector(calibration: Calibration) -> None:
    keys = [Key.generate(SHAPE, name=f"k{i}", seed=i) for i in range(3)]
    noise = torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(5))
    marked = embed(noise, keys[1]) + 0.5 * torch.randn(noise.shape, generator=torch.Generator().manual_seed(6))
    for detector in DETECTORS:
        # The tiny model's images hold nothing of a key; weights that trust every ring stand in for learned ones.
        learned = {**(calibration.learned or {}), "weights": [1.0] * (groups(FAMILY).max() + 1)}
        found = score(detector, marked, keys, learned)
        assert found.shape == (6, 3) and (found.argmax(axis=1) == 1).all()
        assert found[:, 1].min() > score(detector, noise, keys, learned).max()


def test_images_unlike_the_calibrations_are_inconclusive(calibration: Calibration, tiny_model: LatentModel) -> None:
    (known,) = unmarked_images(4, 1)
    again = Image.fromarray(np.asarray(known))
    large = unmarked_images(1_000, 1)[0].resize((256, 256))
    codes = []
    # A random autoencoder's residual says nothing of the image, so the range is made narrow, and the image stays as it is.
    narrow = replace(calibration, residual=(0.0, 1e-9))
    found = judged(unmarked_images(1_000, 1), narrow, tiny_model) + judged([again, large], calibration, tiny_model)
    for verdict in found:
        codes.append(verdict.code)
        assert verdict.verdict == "inconclusive" and verdict.pvalue == 1 and verdict.reason
        assert verdict.record()["log10_pvalue"] == 0
    assert codes == ["outside", "in_calibration", "size"]
    resized = replace(calibration, resized=COUNT)
    assert judged(unmarked_images(1_000, 1), resized, tiny_model)[0].code == "size"


def test_an_attacked_copy_of_a_calibration_image_is_recognised_too(
    calibration: Calibration, tiny_model: LatentModel
) -> None:
    from treering_verify.attacks import parse

    copy = parse(JPEG).apply(unmarked_images(4, 1)[0], seed=7)
    assert digest(copy) in calibration.digests
    assert judged([copy], calibration, tiny_model)[0].code == "in_calibration"


def test_another_model_family_inversion_or_version_is_refused_with_the_difference(
    calibration: Calibration, tiny_model: LatentModel
) -> None:
    key = Key.generate(SHAPE, seed=1)
    setting = calibration.setting
    for changed, message in [
        (replace(setting, weights="0" * 16), "weights"),
        (replace(setting, image_size=(64, 64)), "images of"),
        (replace(setting, family=Family.choose(SHAPE, pattern="rings")), "rings"),
        (replace(setting, inversion={**setting.inversion, "steps": 10}), "steps 10, not 2"),
        (replace(setting, version="0.0.1"), "0.0.1"),
    ]:
        with pytest.raises(UsageError, match=message):
            next(
                verify_calibrated(
                    unmarked_images(0, 1),
                    key,
                    replace(calibration, setting=changed),
                    "distance",
                    model=tiny_model,
                    alpha=0.5,
                    inversion=QUICK,
                )
            )


def test_an_alpha_that_the_images_cannot_reach_is_refused_also_for_many_keys(
    calibration: Calibration, tiny_model: LatentModel
) -> None:
    keys = [Key.generate(SHAPE, name=f"k{i}", seed=i) for i in range(5)]
    for alpha, message in ((1e-6, "never below 0.25"), (0.1, "calibrate on 49 images")):
        with pytest.raises(UsageError, match=message):
            next(
                verify_calibrated(
                    unmarked_images(0, 1), keys, calibration, "distance", model=tiny_model, alpha=alpha, inversion=QUICK
                )
            )
    without = replace(calibration, scores={"distance": calibration.scores["distance"]})
    with pytest.raises(UsageError, match="classifier-images"):
        judged(unmarked_images(0, 1), without, tiny_model, "classifier")


def test_repeated_and_unreadable_images_are_left_out_and_named(tiny_model: LatentModel, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    one, other = unmarked_images(0, 2)
    made, skipped = calibrate(
        [one, tmp_path / "broken.png", one, other], FAMILY, model=tiny_model, inversion=QUICK, attacks=(JPEG,)
    )
    assert made.count == 2
    assert [s.code for s in skipped] == ["not_an_image", "repeated"]
    with pytest.raises(UsageError, match="no image"):
        calibrate([tmp_path / "broken.png"], FAMILY, model=tiny_model)
    with pytest.raises(UsageError, match="twice"):
        calibrate([one], FAMILY, model=tiny_model, attacks=(JPEG, JPEG))


def test_no_attacks_stand_for_the_images_as_they_are_alone(tiny_model: LatentModel) -> None:
    made, _ = calibrate(unmarked_images(0, 2), FAMILY, model=tiny_model, inversion=QUICK, attacks=())
    assert made.strata == (CLEAN,)
    made, _ = calibrate(unmarked_images(0, 2), FAMILY, model=tiny_model, inversion=QUICK)
    assert made.strata == (CLEAN, *DEFAULT_ATTACKS)


def test_images_under_keys_of_their_own_are_those_that_generate_makes(tiny_model: LatentModel) -> None:
    key = Key.generate(SHAPE, seed=4)
    batched = build.generate_under([key, None, key], 40, tiny_model, steps=3)
    alone = [next(generate(tiny_model, k, seeds=[40 + i], steps=3)).image for i, k in enumerate([key, None, key])]
    for a, b in zip(batched, alone, strict=True):
        assert np.abs(np.asarray(a).astype(int) - np.asarray(b)).max() <= 1


def test_scores_do_not_depend_on_the_batch(tiny_model: LatentModel) -> None:
    batched, alone = (
        calibrate(
            unmarked_images(0, 5), FAMILY, model=tiny_model, attacks=(), inversion=replace(QUICK, batch_size=size)
        )[0]
        for size in (5, 2)
    )
    for detector, strata in batched.scores.items():
        np.testing.assert_allclose(strata[CLEAN], alone.scores[detector][CLEAN], rtol=1e-2, atol=1e-3)


def test_the_summary_says_thresholds_within_reach_and_which_stratum_decides(calibration: Calibration) -> None:
    lines = "\n".join(format_calibration(calibration))
    assert "decides" in lines and "never below 0.05" in lines and " 1 %" not in lines
    record = json.loads(json.dumps(to_json(calibration_record(calibration)), allow_nan=False))
    assert {t["target"] for t in record["thresholds"]} == {0.1, 0.05}
    for detector in DETECTORS:
        at = [t for t in record["thresholds"] if t["detector"] == detector and t["target"] == 0.1]
        (worst,) = [t for t in at if t["decides"]]
        assert worst["threshold"] == max(t["threshold"] for t in at)
        assert all(t["false_positive_rate_low"] < 0.1 < t["false_positive_rate_high"] for t in at)


def test_calibrate_and_verify_from_the_command_line(tiny_folder: Path, tmp_path: Path) -> None:
    def run(*arguments: object) -> Any:
        return CliRunner().invoke(main, [str(a) for a in arguments])

    folder, file, key = tmp_path / "unmarked", tmp_path / "c.json", tmp_path / "k.json"
    folder.mkdir()
    for i, image in enumerate(unmarked_images(0, 12)):
        save_png(image, folder / f"{i}.png")
    (folder / "0.json").write_text("{}")
    quick = ["--model", tiny_folder, "--inversion", "encoder", "--steps", 1]
    made = run("calibrate", folder, "--output", file, "--attack", JPEG, *quick)
    assert made.exit_code == 0, made.output
    assert "chi-square, distance" in made.stderr and "12 images in 2 strata" in made.stdout
    assert run("calibrate", folder, "--output", file, "--clean-only", *quick).exit_code == 2
    again = run("calibrate", folder, "--output", file, "--clean-only", "--overwrite", "--format", "json", *quick)
    assert json.loads(again.stdout)["strata"] == [CLEAN]
    assert run("keygen", "--output", key, "--model", tiny_folder).exit_code == 0
    ask = ["verify", folder / "3.png", "--key", key, *quick]
    judged = run(*ask, "--calibration", file, "--detector", "distance", "--alpha", 0.1, "--format", "jsonl")
    record = json.loads(judged.stdout)
    assert (record["verdict"], record["code"], record["detector"]) == ("inconclusive", "in_calibration", "distance")
    assert record["calibration"]["images"] == 12 and record["path"] == str(folder / "3.png")
    assert json.loads(run(*ask, "--format", "jsonl").stdout)["detector"] == "exact-cosine"
    for options, message in [
        (["--detector", "distance"], "needs --calibration"),
        (["--calibration", file], "needs no calibration"),
        (["--calibration", file, "--detector", "distance", "--decoys", 5, "--alpha", 0.1], "--decoys"),
        (["--calibration", file, "--detector", "distance"], "never below 0.077"),
        (["--calibration", tmp_path / "none", "--detector", "distance"], "cannot read"),
        (["--calibration", file, "--detector", "distance", "--alpha", 0.1, "--steps", 3], "steps 1, not 3"),
    ]:
        refused = run(*ask, *options)
        assert refused.exit_code == 2 and message in refused.stderr, refused.output


def test_text_says_what_a_calibrated_p_rests_on(calibration: Calibration, tiny_model: LatentModel) -> None:
    verdict = next(v for v in judged(unmarked_images(1_000, 5), calibration, tiny_model) if not v.code)
    assert verdict.best is not None
    text = format_text(verdict)
    assert f"chi-square {verdict.best.statistic:.4g}" in text and "19 images a stratum" in text


@pytest.mark.slow
def test_marked_images_of_the_embedded_model_are_found_by_every_calibrated_detector() -> None:
    from treering_verify.models import load_model

    model = load_model("landscape")
    unmarked = [g.image for g in generate(model, None, seeds=range(600, 640), steps=20)]
    calibration, _ = calibrate(unmarked, FAMILY, model=model, attacks=("jpeg:quality=50",), classifier_images=16)
    key = Key.generate(SHAPE, seed=98)
    marked = [g.image for g in generate(model, key, seeds=range(700, 708), steps=20)]
    for detector in ("chi-square", "classifier"):
        verdicts = list(verify_calibrated(marked, key, calibration, detector, model=model, alpha=0.05))
        assert sum(v.verdict == "detected" for v in verdicts) >= 6
