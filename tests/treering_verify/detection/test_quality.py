"""A file that a codec left too few bits is never 'no evidence', in verify, identify and audit alike."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from skimage import data

import treering_verify as tv
from tests.helpers import mixed_folder
from tests.helpers.images import encoded
from treering_verify.detection.decision import FEWEST_BITS
from treering_verify.media.compression import compression_of
from treering_verify.media.formats import register
from treering_verify.models import LatentModel
from treering_verify.watermark.keys.key import Key

SAMPLES = Path("samples")


def test_a_file_of_few_bits_is_inconclusive_in_all_three_and_a_better_copy_is_not(
    tiny_model: LatentModel, tmp_path: Path
) -> None:
    register()
    image = Image.open(SAMPLES / "unmarked-1.png").convert("RGB")
    assert image.size == tuple(tiny_model.image_size[::-1])
    for name, lowest, better in (("JPEG", 3, 50), ("WEBP", 0, 50), ("AVIF", 0, 60), ("JXL", 1, 60), ("HEIF", 1, 60)):
        for quality in (lowest, better):
            (tmp_path / f"{name}-{quality}.{name.lower()}").write_bytes(encoded(image, name, quality=quality))
    files = sorted(tmp_path.iterdir())
    keys = [Key.generate(tiny_model.latent_shape, seed=5)]
    judged = mixed_folder.judge(files, keys, tiny_model, "off", screening=None)
    assert not judged.disagreements()
    said = {file.stem: (v.verdict, v.code) for file, v in zip(files, judged.verified, strict=True)}
    poor = {file.stem for file in files if int(file.stem.split("-")[1]) <= 3}
    assert len(poor) == 5
    assert said == {name: ("inconclusive", "quality") if name in poor else ("no evidence", "") for name in said}
    assert all("find a better copy" in v.reason for v in judged.verified if v.code == "quality")


def test_a_mark_that_is_found_is_detected_whatever_the_quality(tiny_model: LatentModel) -> None:
    key = Key.generate(tiny_model.latent_shape, seed=5)
    poor = encoded(Image.open(SAMPLES / "unmarked-1.png").convert("RGB"), "JPEG", quality=1)
    assert tv.verify(poor, key, model=tiny_model, alpha=0.999_999, search="off").verdict == "detected"


def test_a_jpeg_of_busy_content_has_many_bits_and_a_bound_for_its_steps(tiny_model: LatentModel) -> None:
    key = Key.generate(tiny_model.latent_shape, seed=5)
    busy = Image.fromarray(data.gravel()).convert("RGB")
    for size, quality, code in ((128, 6, "quality"), (128, 12, ""), (64, 12, "quality"), (64, 40, ""), (512, 9, "")):
        file = encoded(busy.resize((size, size)), "JPEG", quality=quality)
        assert bits_of(file) > FEWEST_BITS["JPEG"]
        verdict = tv.verify(file, key, model=tiny_model, search="off")
        assert verdict.code == code and ("steps of" in verdict.reason) == bool(code)


def bits_of(file: bytes) -> float:
    found = compression_of(file)
    assert found is not None
    return found.bits / 1024


@pytest.mark.parametrize("turned", [False, True])
def test_bits_of_what_lies_outside_the_models_shape_do_not_count(tiny_model: LatentModel, turned: bool) -> None:
    """Of a page twice as long, half of the bits lie in the square that is judged."""
    image = Image.open(SAMPLES / "unmarked-1.png").convert("RGB")
    page = Image.new("RGB", (image.width, 2 * image.height))
    page.paste(image)
    page.paste(image, (0, image.height))
    page = page.rotate(90, expand=True) if turned else page
    key = Key.generate(tiny_model.latent_shape, seed=5)
    for quality, code in ((5, "quality"), (60, "size")):
        assert tv.verify(encoded(page, "JPEG", quality=quality), key, model=tiny_model, search="off").code == code
