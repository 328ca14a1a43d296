from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from treering_detectors import holm

from treering_verify.attacks import parse
from treering_verify.detection import judge
from treering_verify.detection.evidence import evidence_of
from treering_verify.detection.verification import verify, verify_many
from treering_verify.errors import UsageError
from treering_verify.generation.generator import generate
from treering_verify.inversion.recovery import InversionOptions, recover_noise
from treering_verify.media.conversion import fit, to_tensor
from treering_verify.models import LatentModel, load_model
from treering_verify.report import format_text, to_json
from treering_verify.watermark.keys.key import Key


@pytest.fixture(scope="module")
def landscape() -> LatentModel:
    return load_model("landscape")


@pytest.fixture(scope="module")
def keys() -> list[Key]:
    return [Key.generate((4, 32, 32), name=f"k{i}", seed=i) for i in range(3)]


@pytest.fixture(scope="module")
def marked(landscape: LatentModel, keys: list[Key]) -> list[Image.Image]:
    return [g.image for g in generate(landscape, keys[1], seeds=range(700, 704), steps=20)]


@pytest.fixture(scope="module")
def unmarked(landscape: LatentModel) -> list[Image.Image]:
    return [g.image for g in generate(landscape, None, seeds=range(700, 704), steps=20)]


def test_marked_images_are_detected_under_the_key_that_marked_them(
    landscape: LatentModel, keys: list[Key], marked: list[Image.Image]
) -> None:
    attacked = [parse("jpeg:quality=50").apply(image) for image in marked]
    for verdict in verify_many(marked + attacked, keys, model=landscape):
        assert (verdict.verdict, verdict.key) == ("detected", "k1")
        assert verdict.best is not None and verdict.best.log10_adjusted < -6


def test_unmarked_twins_give_no_evidence(landscape: LatentModel, keys: list[Key], unmarked: list[Image.Image]) -> None:
    for verdict in verify_many(unmarked, keys, model=landscape):
        assert (verdict.status, verdict.verdict, verdict.key) == ("ok", "no evidence", "")


def test_a_verdict_does_not_depend_on_the_batch(
    landscape: LatentModel, keys: list[Key], marked: list[Image.Image], unmarked: list[Image.Image]
) -> None:
    images = [marked[0], unmarked[0], marked[1]]
    images_at_a_time = list(verify_many(images, keys, model=landscape))
    alone = list(verify_many(images, keys, model=landscape, inversion=InversionOptions(batch_size=1)))
    for a, b in zip(images_at_a_time, alone, strict=True):
        assert a.best is not None and b.best is not None
        assert a.best.statistic == pytest.approx(b.best.statistic, abs=1e-3)


def test_each_verdict_comes_once_it_is_judged_with_seconds_of_its_own(
    landscape: LatentModel, keys: list[Key], unmarked: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[float] = []
    search_page = judge.search_page

    def watched(*given: object) -> object:
        started = time.perf_counter()
        done = search_page(*given)  # type: ignore[arg-type]
        searched.append(time.perf_counter() - started)
        return done

    monkeypatch.setattr(judge, "search_page", watched)
    verdicts = verify_many([unmarked[0], unmarked[1].resize((512, 512))], keys, model=landscape)
    first = next(verdicts)
    assert len(searched) == 1, "the second image is searched after the first verdict was given"
    second = next(verdicts)
    assert len(searched) == 2 and next(verdicts, None) is None
    assert first.seconds >= searched[0] and second.seconds >= searched[1]
    assert first.seconds < searched[0] + second.seconds, "its own search, and half of what both shared"


def test_one_bad_file_costs_only_itself(
    landscape: LatentModel, keys: list[Key], marked: list[Image.Image], tmp_path: Path
) -> None:
    good, bad, missing = tmp_path / "good.png", tmp_path / "bad.png", tmp_path / "missing.png"
    marked[0].save(good)
    bad.write_bytes(good.read_bytes()[:2000])
    verdicts = list(verify_many([bad, good, missing], keys, model=landscape))
    assert [(v.status, v.verdict, v.code) for v in verdicts] == [
        ("error", None, "cut_short"),
        ("ok", "detected", ""),
        ("error", None, "not_found"),
    ]
    assert all(json.dumps(to_json(v.record()), allow_nan=False) for v in verdicts)


def test_another_size_is_no_evidence_where_it_was_searched_and_inconclusive_else(
    landscape: LatentModel, keys: list[Key], marked: list[Image.Image], unmarked: list[Image.Image]
) -> None:
    larger = [image.resize((256, 256), Image.Resampling.LANCZOS) for image in (marked[0], unmarked[0])]
    found, lost = verify_many(larger, keys, model=landscape)
    assert found.verdict == "detected" and "resized" in found.note
    assert (lost.verdict, lost.code) == ("no evidence", "")
    (unsearched,) = verify_many([unmarked[0].crop((0, 0, 128, 96))], keys, model=landscape, search=None)
    assert (unsearched.verdict, unsearched.code) == ("inconclusive", "size") and "--search quick" in unsearched.reason


def test_holm_in_logarithms_agrees_with_the_detectors_holm(keys: list[Key]) -> None:
    noise = torch.randn(5, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    for evidence in evidence_of(noise, keys):
        raw = [10**e.log10_pvalue for e in evidence]
        assert [10**e.log10_adjusted for e in evidence] == pytest.approx(list(holm(raw)))


@pytest.fixture(scope="module", params=[None, "jpeg:quality=30"])
def photographs(landscape: LatentModel, request: pytest.FixtureRequest) -> torch.Tensor:
    """Noise_hat of photographs, as they are and attacked."""
    from skimage import data

    crops = []
    for photograph in (data.astronaut(), data.coffee(), data.chelsea(), data.rocket()):
        whole = Image.fromarray(photograph)
        for left in (0, 90):
            crops.append(fit(whole.crop((left, 40, left + 256, 296)), (128, 128))[0])
    if request.param:
        crops = [parse(request.param).apply(crop) for crop in crops]
    return recover_noise(landscape, torch.cat([to_tensor(crop) for crop in crops]))[0]


@pytest.mark.parametrize("pattern", ["random", "rings"])
def test_p_is_uniform_for_inverted_photographs(photographs: torch.Tensor, pattern: str) -> None:
    count = len(photographs)
    drawn = [Key.generate((4, 32, 32), pattern=pattern, channels=(1,), seed=10_000 + i) for i in range(40 * count)]
    pvalues = [10 ** evidence_of(photographs[i % count][None], [key])[0][0].log10_pvalue for i, key in enumerate(drawn)]
    assert stats.kstest(pvalues, "uniform").pvalue > 0.01
    assert min(pvalues) > 1e-6


def test_bad_requests_say_what_to_do(landscape: LatentModel, keys: list[Key]) -> None:
    image = Image.new("RGB", (128, 128))
    with pytest.raises(UsageError, match="at least one"):
        verify(image, [], model=landscape)
    with pytest.raises(UsageError, match="between 0 and 1"):
        verify(image, keys, model=landscape, alpha=0.0)
    with pytest.raises(UsageError, match="keygen --model"):
        verify(image, Key.generate((4, 64, 64), seed=1), model=landscape)
    with pytest.raises(UsageError, match="forward-step"):
        InversionOptions(method="magic")
    with pytest.raises(UsageError, match="naive, exact, heun"):
        InversionOptions(noise_method="magic")


def test_an_image_of_one_colour_gets_a_verdict(landscape: LatentModel, keys: list[Key]) -> None:
    for colour in ("black", "white", "grey"):
        verdict = verify(Image.new("RGB", (128, 128), colour), keys, model=landscape)
        assert verdict.verdict in ("no evidence", "inconclusive")
        assert verdict.best is not None and np.isfinite(verdict.best.statistic)


def test_decoys_cross_check_the_strongest_key_of_each_image(
    landscape: LatentModel, keys: list[Key], marked: list[Image.Image], unmarked: list[Image.Image]
) -> None:
    rings = Key.generate((4, 32, 32), name="rings", pattern="rings", seed=5)
    verdicts = list(verify_many([marked[0], *unmarked[:3]], [*keys, rings], model=landscape, decoys=2_000))
    for verdict in verdicts:
        assert verdict.best is not None and verdict.best.decoys is not None
        assert verdict.best.decoys.log10_exact == verdict.best.log10_pvalue
        assert [e.decoys for e in verdict.evidence[1:]] == [None] * 3
        record = json.loads(json.dumps(to_json(verdict.record()), allow_nan=False))["decoys"]
        assert record["count"] == 2_000 and record["agreement"] == verdict.best.decoys.agreement != "disagrees"
        line = format_text(verdict).splitlines()[-1]
        assert f"{record['reached']} of 2000" in line and "agrees with the exact" in line
    assert "as far as it sees" in format_text(verdicts[0])
    assert "decoys" not in verify(unmarked[0], keys, model=landscape).record()
    with pytest.raises(UsageError, match="decoys"):
        verify(unmarked[0], keys, model=landscape, decoys=-1)
