"""What an audit keeps of detected images for its reports: the strongest and the weakest, as they were, and bounded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from helpers.audits import noisy_image
from helpers.images import smooth
from PIL import Image
from safetensors.numpy import save

from treering_verify.detection.exhibits import FOLDER, MOST, Kept, KeptFolder, part_of, read_exhibit
from treering_verify.detection.search.page import Page
from treering_verify.detection.search.placement import Placement
from treering_verify.results import KeyEvidence

NOISE = torch.randn((4, 8, 8), generator=torch.Generator().manual_seed(1))


def kept_in(state: Path, settings_id: str) -> Kept:
    return Kept(settings_id, KeptFolder(state / FOLDER, settings_id).put)


def add(kept: Kept, number: int) -> str:
    digest = f"{number:064x}"
    evidence = KeyEvidence("k", "f", 0.5, -10.0 - number, -9.0 - number, 100)
    kept.add(digest, evidence, smooth(300, 200), smooth(50, 50), NOISE)
    return digest


def test_the_strongest_and_the_weakest_are_kept_in_any_order_and_over_a_restart(tmp_path: Path) -> None:
    order = np.random.default_rng(3).permutation(60).tolist()
    kept = kept_in(tmp_path, "s")
    for number in order[:30]:
        add(kept, number)
    kept = kept_in(tmp_path, "s")
    for number in [*order[30:], *order[:5]]:
        add(kept, number)
    names = sorted(int(path.stem, 16) for path in (tmp_path / FOLDER).iterdir())
    assert names == [*range(MOST // 2), *range(60 - MOST // 2, 60)]


def test_what_is_kept_is_read_as_it_was_whatever_the_order_in_memory(tmp_path: Path) -> None:
    kept = kept_in(tmp_path, "s")
    last = NOISE[None].to(memory_format=torch.channels_last)[0]
    kept.add("a" * 64, KeyEvidence("k", "f", 0.5, -10.0, -9.0, 100), smooth(300, 200), None, last)
    found = read_exhibit(tmp_path, "a" * 64, "s")
    assert found and found.noise_hat is not None and found.part == b"" and found.page.startswith(b"\xff\xd8")
    assert np.allclose(found.noise_hat, NOISE.numpy(), atol=2e-3)
    assert read_exhibit(tmp_path, "a" * 64, "other") is None and read_exhibit(tmp_path, "b" * 64, "s") is None


def test_of_other_settings_or_damaged_nothing_is_kept(tmp_path: Path) -> None:
    add(kept_in(tmp_path, "old"), 1)
    (tmp_path / FOLDER / f"{2:064x}.safetensors").write_bytes(b"\xff" * 100)
    kept = kept_in(tmp_path, "new")
    assert list((tmp_path / FOLDER).iterdir()) == []
    assert read_exhibit(tmp_path, add(kept, 3), "new")


def test_a_file_that_anybody_wrote_is_no_way_out_of_the_folder_and_no_damage(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    facts = {"facts": json.dumps({"log10_adjusted": -9.0, "log10_pvalue": -9.0, "settings_id": "s"})}
    arrays = {"page": np.zeros(3, np.uint8), "noise_hat": np.full((4, 8, 8), np.nan, np.float16)}
    (tmp_path / "secret.safetensors").write_bytes(save(arrays, facts))
    assert read_exhibit(tmp_path, "../secret", "s") is None
    for number, data in enumerate(
        (save(arrays, facts), save(arrays, facts)[:-9], b"", b"\x08" + bytes(7) + b"[[[[[[[[")
    ):
        (tmp_path / FOLDER / f"{number:064x}.safetensors").write_bytes(data)
        assert read_exhibit(tmp_path, f"{number:064x}", "s") is None


def test_the_part_is_cut_where_the_placement_is_and_turned_back() -> None:
    page, inside = smooth(400, 300), noisy_image(7)
    page.paste(inside.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((96, 96)), (200, 120))  # mirrored left to right
    placement = Placement(248, 168, 96, 96, mirrored=True)
    shown = part_of(Page((page,)), placement.record((400, 300), (128, 128)), (128, 128))
    found, wanted = (np.asarray(image, float) for image in (shown, inside))
    assert np.abs(found - wanted).mean() < 20 < np.abs(found[:, ::-1] - wanted).mean()
