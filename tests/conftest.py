"""Models for the tests, built here: tiny, random, and loaded by the code that loads real ones."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # before torch is imported
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))

from treering_verify.models import LatentModel, load_model
from treering_verify.watermark.keys.key import Key

CLASSES = ["dawn", "noon", "dusk"]
LONGEST = (
    "test_benchmark",
    "test_examples",
    "test_search",
    "test_run",
    "test_behaviour",
    "test_notebooks",
    "test_package",
)
"""Files, so that none is begun last."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: workers take whole files, and end together then."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(scope="session", autouse=True)
def _signals_as_in_a_terminal() -> None:
    """Under nohup, and in a script's background, signals are ignored that tests of audits send."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a random model with 4 x 32 x 32 latents and 128-pixel images, in the layout of diffusers."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DModel

    from treering_verify.models.networks.estimator import Estimator
    from treering_verify.models.networks.refiner import Refiner

    folder = tmp_path_factory.mktemp("models") / "tiny"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(8, 8, 8),
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=128,
            scaling_factor=1.5,
            mid_block_add_attention=False,
        )
        unet = UNet2DModel(
            sample_size=32,
            in_channels=4,
            out_channels=4,
            layers_per_block=1,
            block_out_channels=(8, 8),
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
            norm_num_groups=4,
            add_attention=False,
            num_class_embeds=len(CLASSES) + 1,
        )
    Refiner(latent_channels=4, factor=4, width=8, blocks=1).save(folder / "refiner")
    Estimator(latent_channels=4, steps=2, points=(0, 2), width=8, blocks=1).save(folder / "estimator")
    Estimator(latent_channels=4, steps=10, points=(0,), width=8, blocks=1).save(folder / "screen")
    scheduler = DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )
    index: dict[str, object] = {"_class_name": "TinyPipeline", "classes": CLASSES}
    for name, part in (("vae", vae), ("unet", unet), ("scheduler", scheduler)):
        part.save_pretrained(folder / name)
        index[name] = ["diffusers", type(part).__name__]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_folder: Path) -> LatentModel:
    """Return the tiny model, read back from its folder."""
    return load_model(tiny_folder)


@pytest.fixture
def sample_key(tmp_path: Path) -> Key:
    """Return the samples' key, from a copy that only its owner can read: git does not keep that."""
    copy = tmp_path / "sample.key.json"
    shutil.copyfile(Path(__file__).parents[1] / "samples" / copy.name, copy)
    copy.chmod(0o600)
    return Key.load(copy)
