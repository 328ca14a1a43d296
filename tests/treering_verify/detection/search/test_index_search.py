"""The right key among a thousand is found on a page, at a place that the page alone suggests."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from helpers.audits import noisy_image
from helpers.places import SAMPLES
from PIL import Image, ImageOps
from treering_detectors import clopper_pearson

import treering_verify as tv
from treering_verify.benchmark.harness.shared_images import (
    caption,
    collage,
    framed,
    meme,
    overlap,
    screenshot,
    text_page,
)
from treering_verify.detection.identification import IndexTest, identify
from treering_verify.detection.search import index_search
from treering_verify.detection.search.frames import boxes, drawn_sizes
from treering_verify.detection.search.grid import DIRECT, IDENTITY
from treering_verify.detection.search.index_search import search_index
from treering_verify.detection.search.page import Page
from treering_verify.detection.search.settings import LEVELS, MOST_KEYS, Search
from treering_verify.detection.verification import KeyTest, verify
from treering_verify.generation.generator import generate
from treering_verify.media.conversion import fit, to_tensor
from treering_verify.media.images import open_image
from treering_verify.models import LatentModel
from treering_verify.watermark.keys.index import KeyIndex
from treering_verify.watermark.keys.index_file import Block, write_index
from treering_verify.watermark.keys.key import Family, Key

SHAPE = (4, 32, 32)
SIZE = (128, 128)
KEYS, RIGHT = 1000, 617


def made(path: Path, family: Family, count: int, own: np.ndarray | None = None, seed: int = 5) -> KeyIndex:
    numbers = np.random.default_rng(seed).standard_normal((count, family.degrees_of_freedom))
    if own is not None:
        numbers[RIGHT] = own
    write_index(
        path,
        family,
        count,
        [Block([f"k{i}" for i in range(count)], [f"{i:016x}" for i in range(count)], numbers)],
        "float32",
    )
    return KeyIndex.load(path)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> KeyIndex:
    folder = tmp_path_factory.mktemp("index")
    copy = Path(shutil.copyfile(SAMPLES / "sample.key.json", folder / "sample.key.json"))
    copy.chmod(0o600)
    key = tv.Key.load(copy)
    return made(folder / "keys.index", key.family, KEYS, key.numbers)


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    return [
        open_image(SAMPLES / name) for name in ("marked-0.png", "unmarked-0.png", "unmarked-1.png", "photograph.png")
    ]


def cropped(image: Image.Image) -> Image.Image:
    return image.crop((19, 6, 121, 108)).resize(SIZE, Image.Resampling.BICUBIC)


CASES: dict[str, Callable[[list[Image.Image]], Image.Image]] = {
    "mirrored": lambda images: ImageOps.mirror(images[0]),
    "turned by 90 degrees": lambda images: images[0].transpose(Image.Transpose.ROTATE_90),
    "colours inverted": lambda images: ImageOps.invert(images[0]),
    "border": lambda images: framed(images, 0, border=1 / 16)[0],
    "caption": lambda images: caption(images, 0)[0],
    "screenshot at 1:1": lambda images: screenshot(images, 0, page=(3.1, 2.3), width=1)[0],
    "screenshot, enlarged, mirrored": lambda images: ImageOps.mirror(screenshot(images, 0, page=(6, 4), width=2.3)[0]),
    "collage": lambda images: collage(
        [images[0].resize(SIZE), *(one.resize(SIZE) for one in images[1:])], 0, columns=2, rows=2
    )[0],
    "cropped to .8": lambda images: cropped(images[0]),
    "meme on a page": lambda images: screenshot(
        [meme([images[0].resize((256, 256))], 0, lines=2)[0]], 0, page=(1.5, 1.7), width=1
    )[0],
}

MORE = ("mirrored", "turned by 90 degrees", "border", "screenshot at 1:1", "collage")
"""Cases that go the way of others: of what else is turned, framed or a screenshot, and of the collage below."""


@pytest.mark.parametrize("case", [pytest.param(name, marks=[pytest.mark.slow] * (name in MORE)) for name in CASES])
def test_the_right_key_of_a_thousand_is_found(case: str, index: KeyIndex, images: list[Image.Image]) -> None:
    verdict = identify(CASES[case](images), index, model=tv.load_model("landscape"), top=3)
    assert verdict.verdict == "detected" and verdict.best is not None
    assert verdict.best.key == f"k{RIGHT}" and verdict.best.log10_adjusted < -15
    assert verdict.best.hypothesis and len(verdict.evidence) == 3
    record = verdict.record()["search"]
    assert record["candidates"] is not None and record["windows"] >= 8


def test_verify_searches_for_many_keys_as_for_an_index(images: list[Image.Image], sample_key: Key) -> None:
    keys = [Key.generate(SHAPE, name=f"other-{seed}", seed=seed) for seed in range(MOST_KEYS)] + [sample_key]
    verdict = verify(CASES["mirrored"](images), keys, model=tv.load_model("landscape"), search="quick")
    assert (verdict.key, verdict.evidence[0].hypothesis) == ("sample", "mirrored")
    assert verdict.record()["search"]["candidates"] is not None and len(verdict.evidence) == len(keys)
    assert not KeyTest(keys, decoys=9).searched and not KeyTest(keys[1:]).searched
    assert not KeyTest([*keys, replace(sample_key, name="twin")]).searched, "one key twice is no index"


def test_several_images_of_a_collage_are_named(index: KeyIndex, images: list[Image.Image]) -> None:
    model = tv.load_model("landscape")
    numbers = np.asarray(index.entries(np.array([5]))[2][0], dtype=np.float64)
    (made,) = generate(model, Key.of(index.family, "k5", numbers), seeds=[3])
    page, _ = collage([images[1], made.image, images[0], images[2]], 1, columns=2, rows=2)
    verdict = identify(page, index, model=model, top=3)
    found = {one.key: one.placement for one in verdict.evidence if one.log10_adjusted < -6}
    assert set(found) == {"k5", f"k{RIGHT}"}
    assert all(found.values()), "each with its box"


def test_an_unmarked_page_names_no_key_and_says_what_was_left_out(index: KeyIndex, images: list[Image.Image]) -> None:
    verdict = identify(screenshot(images, 2, page=(3, 2), width=1)[0], index, model=tv.load_model("landscape"))
    assert verdict.verdict in ("no evidence", "inconclusive") and verdict.best is not None
    record = verdict.record()["search"]
    assert record["level"] == "fast" and record["candidates"] > 0 and record["left_out"]
    assert verdict.code == "size" and "32 keys or fewer" in verdict.reason


def test_boxes_are_found_from_the_page_alone(images: list[Image.Image]) -> None:
    small = [one.resize(SIZE) for one in images]
    for page, true in (
        caption(small, 0),
        framed(small, 0, border=1 / 64),
        screenshot(small, 0, page=(3, 2), width=1),
        collage(small, 0, columns=2, rows=2, quality=90),
    ):
        found = boxes(Page((page,)), SIZE, 8)
        assert true is not None and len(found) <= 8
        corners = [(one.corners.min(axis=0), one.corners.max(axis=0)) for one in found]
        assert max(overlap((*low, *high), true) for low, high in corners) > 0.97
    assert boxes(Page((Image.new("RGB", (300, 200), "white"),)), SIZE, 8) == []
    assert boxes(Page((images[3].resize(SIZE),)), SIZE, 8) == boxes(Page((images[3].resize(SIZE),)), SIZE, 8)


def test_few_photographs_show_very_clear_boxes_and_what_was_put_together_does(images: list[Image.Image]) -> None:
    folder = Path(str(skimage.data.__file__)).parent  # its files that need no download
    names = sorted(path.name for path in folder.iterdir() if path.suffix in (".png", ".jpg"))
    assert len(names) > 15
    shown = {name for name in names if drawn_sizes(Page((open_image(folder / name),)), SIZE, 0.35)}
    assert shown <= {"motorcycle_left.png", "motorcycle_right.png", "brick.png"}, "straight lines by chance"
    assert drawn_sizes(Page((noisy_image(1),)), SIZE, 0.35) == [], "a mosaic"
    small = [one.resize(SIZE) for one in images]
    for page, true in (
        framed(small, 0, border=1 / 64),
        screenshot(small, 0, page=(3, 2), width=1),
        collage(small, 0, columns=2, rows=2, quality=90),
        collage(small, 0, columns=2, rows=1),
    ):
        assert true is not None
        size = (true[2] - true[0]) / SIZE[0]
        assert min(abs(np.log(one / size)) for one in drawn_sizes(Page((page,)), SIZE, 0.35)) < 0.02


@pytest.mark.parametrize("level", LEVELS)
def test_the_weights_of_all_windows_sum_to_one_with_the_identity(level: str, tiny_model: LatentModel) -> None:
    page = Page((text_page(300, 200),))
    found, places = boxes(page, SIZE, 4), index_search._crops(page, SIZE, LEVELS[level].crops)
    counts = index_search._counts(len(found), len(places))
    estimates = index_search.Estimates(tiny_model, lambda images: images)
    own = index_search.NoiseMap(torch.zeros(SHAPE), torch.ones(32, 32), (0.25, 0.25))
    never = lambda: False  # noqa: E731
    made = Counter(one.kind for one in index_search._framed(tiny_model, page, own, estimates, found, never))
    made += Counter(one.kind for one in index_search._cropped(tiny_model, page, places, never))
    assert made == counts, "each window is counted"
    assert IDENTITY + DIRECT + sum(index_search._SHARES.values()) == 1


def test_more_keys_are_looked_for_in_fewer_windows() -> None:
    afforded = [index_search._afforded(LEVELS["fast"], keys) for keys in (100, 10**5, 10**6, 10**9)]
    assert afforded[0] == (LEVELS["fast"].boxes, LEVELS["fast"].crops) and afforded[-1] == (1, 1)
    assert afforded == sorted(afforded, reverse=True)


def test_keys_that_marked_nothing_are_found_no_more_often_than_alpha(
    tiny_model: LatentModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All keys of an index are kept, so that each gives a p-value of its own."""
    count = 80
    monkeypatch.setattr(index_search, "_BEST", count)
    best: list[float] = []
    photograph = open_image(SAMPLES / "photograph.png").resize(SIZE)
    for page in (screenshot([photograph], 0, page=(2, 1.5), width=1)[0], photograph):
        image = to_tensor(fit(page, tiny_model.image_size)[0])
        noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(8))
        invert = lambda images, noise=noise: noise.expand(len(images), *SHAPE)  # noqa: E731
        test = IndexTest([made(tmp_path / f"{len(best)}.index", Family.choose(SHAPE), count, seed=len(best))])
        targets, done = search_index(tiny_model, Page((page,)), image, noise, test, Search("quick"), invert, 1e-300)
        assert done.windows > 500 and len({one.name for one in targets}) == count
        best += [one.log10_pvalue if one else 0.0 for one in done.found]
    for alpha in (0.5, 0.2, 0.05):
        reached = sum(log10 <= math.log10(alpha) for log10 in best)
        assert clopper_pearson(reached, len(best), 0.999)[0] <= alpha * (1 - IDENTITY)
