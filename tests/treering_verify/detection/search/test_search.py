"""An image is found on a page wherever it lies, with a p-value that has paid for the search."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import mixed_folder
from helpers.images import encoded
from helpers.mixed_folder import screenshot
from helpers.places import SAMPLES
from PIL import Image
from treering_detectors import clopper_pearson

import treering_verify as tv
from treering_verify.benchmark.harness.shared_images import beside_squares
from treering_verify.detection.search.frames import drawn_sizes
from treering_verify.detection.search.grid import DIRECT, IDENTITY, SHARES, affordable, passes
from treering_verify.detection.search.matching import Matcher, Shape
from treering_verify.detection.search.noise_map import NoiseMap, estimate
from treering_verify.detection.search.page import Page
from treering_verify.detection.search.placement import Placement
from treering_verify.detection.search.refinement import Lattice, read, refined
from treering_verify.detection.search.search import search_page
from treering_verify.detection.search.settings import LEVELS, Search, search_of
from treering_verify.detection.search.target import Target
from treering_verify.errors import UsageError
from treering_verify.media.conversion import to_tensor
from treering_verify.media.images import open_image
from treering_verify.models import LatentModel
from treering_verify.watermark.embedding import embed

SHAPE = (4, 32, 32)
SIZE = (128, 128)
BICUBIC = Image.Resampling.BICUBIC


def noise(seed: int, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def target_of(key: tv.Key) -> Target:
    return Target(key.name, key.fingerprint, key.family, key.numbers)


@pytest.fixture(scope="module")
def marked() -> Image.Image:
    return open_image(SAMPLES / "marked-0.png")


# --- matching -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "change"),
    [
        (Shape(32, 32, 0, False), lambda z: z),
        (Shape(32, 32, 0, True), lambda z: z.flip(-1)),
        (Shape(32, 32, 90, False), lambda z: torch.rot90(z, 1, (-2, -1))),
        (Shape(32, 32, 180, True), lambda z: z.flip(-2)),
        (Shape(32, 32, 270, True), lambda z: torch.rot90(z.flip(-1), 3, (-2, -1))),
    ],
)
def test_a_keys_pattern_is_found_where_it_lies_in_larger_noise(shape: Shape, change: object) -> None:
    key = tv.Key.generate(SHAPE, seed=9)
    large = noise(3, (4, 60, 70))
    large[:, 11:43, 23:55] = change(embed(noise(6)[None], key)[0])  # type: ignore[operator]
    others = [
        Shape(size, size, degrees, mirrored)
        for size in (28, 32)
        for degrees in (0, 90, 180, 270)
        for mirrored in (False, True)
    ]
    # A page of 280 x 240 pixels, four to a cell.
    matcher = Matcher(NoiseMap(large, torch.ones(60, 70), (0.25, 0.25)), key.family, others)
    best = max(matcher.best([key.numbers])[0], key=lambda match: match.score)
    assert others[best.shape] == shape
    assert (best.placement.x, best.placement.y) == (4 * 39, 4 * 27)
    target = target_of(key)
    assert target.log10_pvalues(read(matcher.noise, target, [best.placement]))[0] < -200


def test_a_key_in_some_channels_is_read_in_those() -> None:
    key = tv.Key.generate(SHAPE, seed=9, channels=(1, 3))
    noise_map = NoiseMap(embed(noise(6)[None], key)[0], torch.ones(32, 32), (0.25, 0.25))
    matcher, target = Matcher(noise_map, key.family, [Shape(32, 32, 0, False)]), target_of(key)
    ((best,),) = matcher.best([key.numbers])
    assert target.log10_pvalues(read(matcher.noise, target, [best.placement]))[0] < -200


def test_quiet_noise_beside_loud_is_found_and_pays_a_part_of_the_weight() -> None:
    key = tv.Key.generate(SHAPE, seed=9)
    large = 6 * noise(3, (4, 60, 100))
    large[:, 11:43, 60:92] = embed(noise(6)[None], key)[0]
    shapes = [Shape(size, size, degrees, False) for size in (28, 32) for degrees in (0, 90, 180, 270)]
    matcher = Matcher(NoiseMap(large, torch.ones(60, 100), (0.25, 0.25)), key.family, shapes)
    matches = matcher.best([key.numbers])[0]
    best = max(matches, key=lambda match: match.score)
    assert (best.placement.x, best.placement.y) == (4 * 76, 4 * 27)
    target = target_of(key)
    assert target.log10_pvalues(read(matcher.noise, target, [best.placement]))[0] < -100
    for index in range(len(shapes)):
        assert sum(match.share for match in matches if match.shape == index) <= 1


@pytest.mark.parametrize("colours", [2, pytest.param(6, marks=pytest.mark.slow)])
def test_an_image_beside_what_is_louder_than_images_is_found(
    sample_key: tv.Key, marked: Image.Image, colours: int
) -> None:
    page, box = beside_squares([marked], 0, colours=colours)
    verdict = tv.verify(page, sample_key, model=tv.load_model("landscape"))
    assert verdict.record()["placement"]["box"] == list(box or ())
    assert verdict.verdict == "detected"


def test_several_keys_are_matched_as_each_alone() -> None:
    keys = [tv.Key.generate(SHAPE, seed=seed).numbers for seed in (9, 10, 11)]
    shapes = [Shape(size, 32, degrees, m) for size in (32, 37) for degrees in (0, 10, 180, 190) for m in (False, True)]
    matcher = Matcher(
        NoiseMap(noise(3, (4, 44, 50)), torch.ones(44, 50), (0.25, 0.25)), tv.Key.generate(SHAPE, seed=9).family, shapes
    )
    together = matcher.best(keys)
    for key, found in zip(keys, together, strict=True):
        (alone,) = matcher.best([key])
        assert sorted(match.shape for match in found) == list(range(len(shapes)))
        for one, other in zip(found, alone, strict=True):
            assert (one.shape, one.placement, one.places) == (other.shape, other.placement, other.places)
            assert one.score == pytest.approx(other.score, abs=1e-4)


def test_what_lies_half_outside_is_found_too_and_an_empty_map_gives_nothing() -> None:
    key = tv.Key.generate(SHAPE, seed=9)
    left = embed(noise(6)[None], key)[0][:, :, 14:]
    shapes = [Shape(32.0, 32.0, 0, False)]
    ((best,),) = Matcher(NoiseMap(left, torch.ones(32, 18), (0.25, 0.25)), key.family, shapes).best([key.numbers])
    assert (best.placement.x, best.placement.y) == (8, 64)
    assert best.places < 65 * 51
    nothing = NoiseMap(torch.zeros(4, 32, 18), torch.ones(32, 18), (0.25, 0.25))
    assert Matcher(nothing, key.family, shapes).best([key.numbers]) == [[]]


def test_refining_climbs_to_the_place_and_stays_on_the_lattice() -> None:
    key = tv.Key.generate(SHAPE, seed=9)
    large = noise(3, (4, 64, 64))
    large[:, 10:42, 20:52] = embed(noise(6)[None], key)[0]
    noise_map, target = NoiseMap(large, torch.ones(64, 64), (0.25, 0.25)), target_of(key)
    lattice = Lattice(Placement(4 * 36 + 3, 4 * 26 - 2, 134, 134), (32, 32), turned=False, stretched=False)
    found = refined(noise_map, target, lattice, lattice.guess)
    assert math.hypot(found.x - 144, found.y - 104) < 1 and abs(found.width / 128 - 1) < 0.02
    assert lattice.at(lattice.nearest(found)) == found


def test_a_lattice_counts_every_placement_that_refining_can_give() -> None:
    rng = np.random.default_rng(0)
    for lattice in (
        Lattice(Placement(70, 60, 130, 130), (32, 32), turned=False, stretched=False),
        Lattice(Placement(70, 60, 130, 128, 90.0), (32, 32), turned=False, stretched=True),
    ):
        steps = rng.integers(-12, 13, (4000, 5)) * (1, 1, 0.6, 0.6, 0)
        if not lattice.stretched:
            steps[:, 3] = steps[:, 2]
        placed = [lattice.at(row) for row in steps.astype(np.int64)]
        aligned = {one for place in placed for one in lattice.aligned(place, (140, 133), SIZE)}
        assert 20 < len(aligned) <= lattice.count - 25**2 * (17 if not lattice.stretched else 17**2)


# --- weights --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS.values(), ids=LEVELS)
@pytest.mark.parametrize("page", [(128, 128), (400, 300), (64, 48), (228, 128), (1080, 2340)])
def test_the_weights_of_all_hypotheses_sum_to_one_with_the_identity(page: tuple[int, int], level: object) -> None:
    key = tv.Key.generate(SHAPE, seed=1)
    planned = passes(page, SIZE, key, level)  # type: ignore[arg-type]
    total = sum(guess.weight for one in planned for guess in one.guesses)
    assert IDENTITY + DIRECT + sum(SHARES.values()) == 1
    assert 0 < total <= sum(SHARES.values()) + 1e-9
    for one in planned:
        for guess in one.guesses:
            size = math.sqrt(guess.width * guess.height) * one.scale
            least = 0.7 if guess.group == "turned" else 0.79
            assert least <= size / 128 <= 1.2, "each map has about the model's cells for what it is searched for"
    afforded = affordable(planned, SIZE, level)  # type: ignore[arg-type]
    assert afforded and planned[: len(afforded)][0] == afforded[0]


def test_turned_images_are_looked_for_on_the_canvas_that_holds_them_and_cut_to_what_they_fill(
    marked: Image.Image,
) -> None:
    key = tv.Key.generate(SHAPE, seed=1)
    for degrees in (12, 42, 132):
        canvas = marked.rotate(degrees, expand=True).size
        c, s = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
        for page, size in ((canvas, 128), ((128, 128), 128 * (c + s))):
            planned = passes(page, SIZE, key, LEVELS["fast"])
            some = [one for done in planned for one in done.guesses if abs(one.degrees - degrees) < 1e-6]
            assert any(abs(one.width / size - 1) < 0.03 and one.mirrored is m for m in (False, True) for one in some)


@pytest.mark.parametrize("level", ["quick", pytest.param("fast", marks=pytest.mark.slow)])
def test_the_searched_p_is_never_more_often_small_than_it_says(tiny_model: LatentModel, level: str) -> None:
    """Keys that marked nothing, on pages with and without structure, all stages together."""
    keys = [tv.Key.generate(tiny_model.latent_shape, seed=s) for s in range(60)]
    targets = [target_of(key) for key in keys]
    best: list[float] = []
    for page in (screenshot(open_image(SAMPLES / "marked-1.png")), open_image(SAMPLES / "photograph.png")):
        image = to_tensor(page.resize(SIZE))
        invert = lambda images: noise(7, (len(images), *tiny_model.latent_shape))  # noqa: E731
        done = search_page(tiny_model, Page((page,)), image, noise(8), targets, Search(level), invert, 1e-300)
        assert done.windows > 10_000
        best += [found.log10_pvalue if found else 0.0 for found in done.found]
    for alpha in (0.5, 0.2, 0.05):
        count = sum(log10 <= math.log10(alpha) for log10 in best)
        assert clopper_pearson(count, len(best), 0.999)[0] <= alpha * (1 - IDENTITY)


# --- settings -------------------------------------------------------------------------------------------------------------


def test_settings_are_levels_seconds_or_off() -> None:
    assert search_of("off") is None and search_of(None) is None
    assert search_of("fast") == Search("fast") == search_of(Search("fast"))
    assert search_of("12.5") == search_of(12.5) == Search("thorough", 12.5)
    for wrong in ("sloppy", "-1", 0):
        with pytest.raises(UsageError, match=r"off|more than 0"):
            search_of(wrong)
    with pytest.raises(UsageError, match="quick, fast, thorough"):
        Search("all")


# --- verdicts -------------------------------------------------------------------------------------------------------------


def test_a_sample_on_a_page_is_detected_in_its_box_and_another_key_is_not(
    sample_key: tv.Key, marked: Image.Image
) -> None:
    model, page = tv.load_model("landscape"), screenshot(marked)
    plain = tv.verify(page, sample_key, model=model, search="off")
    assert plain.verdict == "inconclusive" and plain.code == "size" and plain.search is None
    found = tv.verify(page, sample_key, model=model)
    assert found.verdict == "detected" and found.best is not None
    assert found.record()["placement"]["box"] == [31, 43, 159, 171]
    assert found.record()["hypothesis"] == "in the box 31, 43 to 159, 171"
    assert found.best.log10_adjusted < -100
    foreign = tv.verify(page, tv.Key.generate(SHAPE, seed=77), model=model)
    assert foreign.verdict == "no evidence" and foreign.record()["placement"] is None
    record = foreign.record()["search"]
    assert record["level"] == "fast" and record["hypotheses"] > 100 and record["fills_page"]
    covered = record["covered"]
    assert covered["share"] == 1 and covered["sizes"][0] < 1 < covered["sizes"][1] and covered["angles"] > 4


def test_parts_of_a_page_without_structure_are_not_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tv.load_model("landscape")
    page = torch.full((1, 3, 256, 896), 0.4)
    page[..., :250, :250] = to_tensor(open_image(SAMPLES / "photograph.png").resize((250, 250)))
    calls: list[int] = []
    encode = type(model).encode
    monkeypatch.setattr(type(model), "encode", lambda self, image: calls.append(image.shape[-1]) or encode(self, image))
    found = estimate(model, page, torch.ones(1, 1, 256, 896))
    assert len(calls) == 2 and found.shape == (1, 4, 64, 224), "of four tiles, two reach what the page shows"
    assert found[..., 120:].abs().max() == 0 < found[..., :60].abs().min()


def test_an_image_that_is_detected_as_it_is_is_not_searched_and_pays_a_factor_of_two(
    sample_key: tv.Key, marked: Image.Image
) -> None:
    model = tv.load_model("landscape")
    plain, searched = (tv.verify(marked, sample_key, model=model, search=search) for search in ("off", "fast"))
    assert searched.search is None and plain.best is not None and searched.best is not None
    assert searched.best.log10_pvalue == plain.best.log10_pvalue - math.log10(IDENTITY)


def test_a_sheet_of_boxes_that_are_too_small_for_a_level_is_inconclusive_and_found_by_the_next(
    sample_key: tv.Key, marked: Image.Image
) -> None:
    model = tv.load_model("landscape")
    unmarked = open_image(SAMPLES / "unmarked-1.png")
    sheet = Image.new("RGB", (286, 286), "white")
    for i in range(16):
        small = (marked if i == 5 else unmarked).resize((64, 64), Image.Resampling.LANCZOS)
        sheet.paste(small, (6 + i % 4 * 70, 6 + i // 4 * 70))
    verdict = tv.verify(sheet, sample_key, model=model)
    assert (verdict.verdict, verdict.code) == ("inconclusive", "boxes") and "--search thorough" in verdict.reason
    boxes = verdict.record()["search"]["unsearched_boxes"]
    assert boxes[0] == 0.5 and "0.50" in verdict.reason
    found = tv.verify(sheet, sample_key, model=model, search="thorough")
    assert found.verdict == "detected" and found.record()["placement"]["box"] == [76, 76, 140, 140]
    photograph = open_image(SAMPLES / "photograph.png").resize((350, 350))
    assert drawn_sizes(Page((photograph,)), SIZE, 0.35) == []


@pytest.mark.parametrize("quality", [3, 10])
def test_blocks_of_a_codec_are_no_boxes_and_an_image_between_them_is_one(quality: int) -> None:
    from skimage import data

    photograph = Image.fromarray(data.chelsea())
    coded = Image.open(io.BytesIO(encoded(photograph, "JPEG", quality=quality)))
    assert drawn_sizes(Page((coded.convert("RGB"),)), SIZE, 0.35) == []
    for left in (96, 97):  # on the grid of blocks, and beside it
        photograph.paste("white", (84, 60, 234, 210))
        photograph.paste(open_image(SAMPLES / "unmarked-1.png"), (left, left - 24))
        coded = Image.open(io.BytesIO(encoded(photograph, "JPEG", quality=20)))
        assert any(abs(size - 1) < 0.05 for size in drawn_sizes(Page((coded.convert("RGB"),)), SIZE, 0.35))


def test_a_pattern_that_is_not_in_the_spectrum_is_not_searched_and_pays_nothing(tiny_model: LatentModel) -> None:
    other = tv.Key.generate(SHAPE, pattern="gaussian-shading", seed=3)
    photograph = open_image(SAMPLES / "photograph.png")
    inversion = tv.InversionOptions(method="encoder", steps=1)
    plain, searched = (
        tv.verify(photograph, other, model=tiny_model, inversion=inversion, search=search) for search in ("off", "fast")
    )
    assert searched.search is None and plain.pvalue == searched.pvalue


def test_verify_identify_and_audit_find_the_same_in_one_folder(
    sample_key: tv.Key, marked: Image.Image, tmp_path: Path
) -> None:
    kinds = [name for name in list(mixed_folder.KINDS)[:19] if name not in ("turned", "enlarged", "photograph")]
    files = mixed_folder.fill(tmp_path, len(kinds), [marked], kinds)
    judged = mixed_folder.judge(files, [sample_key], tv.load_model("landscape"), screening=None)
    assert not judged.disagreements()
    assert [v.verdict for v in judged.verified].count("detected") == 3
    assert [v.verdict for v in judged.verified].count(None) == 11
    for verdict, other, row in zip(judged.verified, judged.identified, judged.rows, strict=True):
        if verdict.verdict is None:
            assert row.status != "ok" and verdict.record()["verdict"] is row.record()["verdict"] is None
            continue
        assert verdict.best and other.best
        # Batches of other sizes round differently.
        assert verdict.best.log10_adjusted == pytest.approx(other.best.log10_adjusted, rel=1e-3, abs=1e-3)
        assert verdict.best.log10_adjusted == pytest.approx(row.log10_adjusted, rel=1e-3, abs=1e-3)
        assert (verdict.record()["hypothesis"] or None) == row.hypothesis
        assert (verdict.search is None) == (row.search is None)


def test_an_answer_that_differs_is_named(sample_key: tv.Key, marked: Image.Image, tmp_path: Path) -> None:
    model = tv.load_model("landscape")
    judged = mixed_folder.judge(mixed_folder.fill(tmp_path, 1, [marked]), [sample_key], model, "off", screening=None)
    assert not judged.disagreements()
    for change in ({"status": "error"}, {"verdict": "no evidence"}, {"code": "size"}, {"key": "other"}):
        (line,) = replace(judged, rows=[replace(judged.rows[0], **change)]).disagreements()  # type: ignore[arg-type]
        assert line.startswith("000000-as-it-is.png: ") and "audit" in line


@pytest.mark.slow
def test_the_three_agree_on_two_hundred_mixed_files(tmp_path: Path) -> None:
    judged = mixed_folder.judge_mixed(tmp_path, 200)
    print(judged.seconds)
    assert len(judged.answers()) == 200 and not judged.disagreements()
