"""Model folders made to do harm: none of their code runs, and each is refused by name, soon, and before it takes memory."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.hostile import models as hostile_models
from helpers.hostile.models import MODELS, edit
from helpers.models import pipelines

from treering_verify.errors import ModelError
from treering_verify.models import ModelSource, check_source, latent_shape, load_model
from treering_verify.models.checks.limits import check_config
from treering_verify.models.checks.tensor_files import numbers_in

# Those that hung, or took gigabytes, before there were limits: loaded in a process that can be stopped.
HANGING = tuple(name for name in MODELS if "FIFO" in name or "million" in name or "many" in name or "wider" in name)
LOADING = """
import sys, time
from pathlib import Path
from treering_verify.errors import ModelError
from treering_verify.models import load_model
import resource
resource.setrlimit(resource.RLIMIT_DATA, (6 * 2**30,) * 2)
for folder in sys.argv[1:]:
    try:
        load_model(folder)
        print("loaded", flush=True)
    except ModelError as error:
        print(error, flush=True)
"""
PATIENCE = 300  # seconds for all of them together, imports included, on a busy machine


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "model"
    pipelines.stable_diffusion().save_pretrained(folder)
    return folder


@pytest.fixture
def canaries(tmp_path: Path) -> Path:
    folder = tmp_path / "canaries"
    folder.mkdir()
    return folder


def test_the_folder_that_the_others_are_made_of_loads(sound: Path) -> None:
    check_source(ModelSource(str(sound)))
    assert load_model(sound).latent_shape == (4, pipelines.CELLS, pipelines.CELLS)


@pytest.mark.parametrize("name", sorted(set(MODELS) - set(HANGING)))
def test_a_hostile_folder_is_refused_by_name_and_its_code_never_runs(
    name: str, sound: Path, canaries: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = hostile_models.make(name, sound, tmp_path / "model", canaries)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))  # what a command does that is run in the folder as `python -m`
    with pytest.raises(ModelError, match=MODELS[name].message) as caught:
        load_model(folder)
    assert str(caught.value).isprintable()
    assert list(canaries.iterdir()) == []


def test_folders_that_would_hang_or_fill_memory_are_refused_in_time(
    sound: Path, canaries: Path, tmp_path: Path
) -> None:
    folders = [hostile_models.make(name, sound, tmp_path / f"model{i}", canaries) for i, name in enumerate(HANGING)]
    done = subprocess.run(
        [sys.executable, "-c", LOADING, *map(str, folders)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(HANGING) >= 15, done.stderr[-2000:]
    wrong = [
        (name, line) for name, line in zip(HANGING, lines, strict=True) if not re.search(MODELS[name].message, line)
    ]
    assert wrong == []


@pytest.mark.parametrize("name", ["an index that is a FIFO", "unet of the folder", "images of a million cells"])
def test_a_command_tells_of_the_folder_before_torch_is_imported(
    name: str, sound: Path, canaries: Path, tmp_path: Path, sample_key: object
) -> None:
    folder = hostile_models.make(name, sound, tmp_path / "model", canaries)
    (tmp_path / "images").mkdir()
    key = tmp_path / "sample.key.json"
    program = "import sys\nfrom treering_verify.cli.main import main\nmain(sys.argv[1:])"
    for command in (
        ("verify", str(tmp_path / "images"), "--key", str(key)),
        ("audit", str(tmp_path / "images"), "--key", str(key), "--output", str(tmp_path / "out")),
        ("generate", "--output", str(tmp_path / "made"), "--key", str(key)),
    ):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", program, *command, "--model", str(folder)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        said = "".join(line for line in done.stderr.splitlines() if not line.startswith("import time:"))
        assert done.returncode == 2, said
        assert re.search(MODELS[name].message, " ".join(said.split())), said
        assert not re.search(r"import time:.*\| +(torch|diffusers|transformers)$", done.stderr, re.MULTILINE)
    assert list(canaries.iterdir()) == []


EVERYWHERE = """
import json, os, sys
from click.testing import CliRunner
from treering_verify.cli.main import main
for folder in sys.argv[3:]:
    os.chdir(folder)
    sys.path[:] = [folder, *(place for place in sys.path if not place.startswith(sys.argv[2]))]
    done = CliRunner().invoke(main, [*json.loads(sys.argv[1]), "--model", folder])
    ended = done.exception is None or isinstance(done.exception, SystemExit)
    print(json.dumps([done.exit_code if ended else repr(done.exception), done.output[-300:]]), flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("command", ["verify", "generate", "audit", "models check"])
def test_no_command_runs_code_of_any_folder(
    command: str, sound: Path, canaries: Path, tmp_path: Path, sample_key: object
) -> None:
    names = sorted(MODELS)
    folders = [hostile_models.make(name, sound, tmp_path / f"model{i}", canaries) for i, name in enumerate(names)]
    (tmp_path / "images").mkdir()
    images, key = str(tmp_path / "images"), str(tmp_path / "sample.key.json")
    words = {
        "verify": ["verify", images, "--key", key],
        "generate": ["generate", "--output", str(tmp_path / "made"), "--key", key],
        "audit": ["audit", images, "--key", key, "--output", str(tmp_path / "out")],
        "models check": ["models", "check"],
    }[command]
    done = subprocess.run(
        [sys.executable, "-c", EVERYWHERE, json.dumps(words), str(tmp_path), *map(str, folders)],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(names), done.stderr[-2000:]
    assert [(name, *line) for name, line in zip(names, lines, strict=True) if line[0] != 2] == []
    assert list(canaries.iterdir()) == []


# --- a class-conditional folder ---------------------------------------------------------------------------------------


@pytest.fixture
def conditional(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


@pytest.mark.parametrize(
    ("path", "changes", "message"),
    [
        ("unet/config.json", {"layers_per_block": 10**6}, "layers_per_block is 1000000"),
        ("unet/config.json", {"block_out_channels": [8192, 8192]}, "unet/config.json asks for .* do not belong"),
        ("vae/config.json", {"block_out_channels": [8192] * 3}, "vae/config.json asks for .* do not belong"),
        ("estimator/config.json", {"width": 8192}, "estimator/config.json asks for .* do not belong"),
        ("refiner/config.json", {"blocks": 10**6}, "blocks is 1000000"),
        ("screen/config.json", {"auto_map": {"AutoModel": "my.My"}}, "screen/config.json: auto_map"),
        ("model_index.json", {"classes": "dawn"}, "classes is not a list"),
        ("model_index.json", {"classes": [1, 2, 3]}, "classes is not a list"),
        ("unet/config.json", {"num_class_embeds": 10**9}, "num_class_embeds is 1000000000"),
    ],
)
def test_a_class_conditional_folder_has_the_same_limits(
    path: str, changes: dict[str, object], message: str, conditional: Path
) -> None:
    edit(conditional / path, **changes)
    with pytest.raises(ModelError, match=message):
        load_model(conditional)


def test_names_of_classes_reach_nobody_unescaped(conditional: Path) -> None:
    edit(conditional / "model_index.json", classes=["dawn", "\x1b]0;owned\x07", "dusk"])
    assert load_model(conditional).classes == ("dawn", r"\x1b]0;owned\x07", "dusk")


def test_fitted_filters_that_are_a_fifo_do_not_hang(conditional: Path) -> None:
    import os

    from treering_verify.models.inverter import Inverter

    (conditional / "inverter").mkdir()
    os.mkfifo(conditional / "inverter" / "config.json")
    with pytest.raises(ModelError, match="not a regular file"):
        Inverter.load(conditional / "inverter")


def test_shapes_are_read_with_the_same_limits(sound: Path, canaries: Path, tmp_path: Path) -> None:
    folder = hostile_models.make("images of a million cells", sound, tmp_path / "model", canaries)
    with pytest.raises(ModelError, match="sample_size is 1000000000"):
        latent_shape(folder)


# --- what stays possible ----------------------------------------------------------------------------------------------


def test_links_within_the_folder_and_into_the_hubs_cache_are_followed(sound: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "0123"
    blobs.mkdir(parents=True)
    shutil.copytree(sound, snapshot)
    for number, path in enumerate(sorted(p for p in snapshot.rglob("*") if p.is_file())):
        path.rename(blobs / str(number))
        path.symlink_to(Path("../" * len(path.relative_to(snapshot).parents)) / ".." / "blobs" / str(number))
    assert load_model(snapshot).latent_shape == (4, pipelines.CELLS, pipelines.CELLS)
    shutil.move(blobs, tmp_path / "elsewhere")
    blobs.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match="is a link out"):
        load_model(snapshot)


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_weights_in_several_files_load(part: str, sound: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(sound, tmp_path / "model"))
    (weights,) = (folder / part).glob("*.safetensors")
    tensors = load_file(weights)
    names = sorted(tensors)
    table = {}
    for number, some in enumerate((names[::2], names[1::2]), 1):
        file = f"{weights.stem}-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in some}, folder / part / file, metadata={"format": "pt"})
        table.update(dict.fromkeys(some, file))
    weights.unlink()
    listed = {"metadata": {"total_size": sum(t.numel() * 4 for t in tensors.values())}, "weight_map": table}
    (folder / part / f"{weights.name}.index.json").write_text(json.dumps(listed))
    assert load_model(folder).latent_shape == (4, pipelines.CELLS, pipelines.CELLS)


# Fields of published models that come nearest to a limit.
PUBLISHED: dict[str, dict[str, object]] = {
    "the network of SDXL": {
        "_class_name": "UNet2DConditionModel",
        "block_out_channels": [320, 640, 1280],
        "layers_per_block": 2,
        "transformer_layers_per_block": [1, 2, 10],
        "attention_head_dim": [5, 10, 20],
        "projection_class_embeddings_input_dim": 2816,
        "sample_size": 128,
    },
    "the transformer of Stable Diffusion 3.5 large": {
        "_class_name": "SD3Transformer2DModel",
        "attention_head_dim": 64,
        "num_attention_heads": 38,
        "num_layers": 38,
        "pos_embed_max_size": 192,
        "patch_size": 2,
        "sample_size": 128,
        "joint_attention_dim": 4096,
    },
    "the transformer of PixArt-sigma at 2048 pixels": {
        "num_attention_heads": 16,
        "attention_head_dim": 72,
        "num_layers": 28,
        "patch_size": 2,
        "sample_size": 256,
    },
    "the transformer of FLUX.1": {"num_layers": 19, "num_single_layers": 38, "axes_dims_rope": [16, 56, 56]},
    "the transformer of Wan 2.1 14B": {
        "num_layers": 40,
        "ffn_dim": 13824,
        "num_attention_heads": 40,
        "attention_head_dim": 128,
        "patch_size": [1, 2, 2],
        "rope_max_seq_len": 1024,
    },
    "the transformer of Sana at 4096 pixels": {
        "num_attention_heads": 70,
        "attention_head_dim": 32,
        "num_layers": 20,
        "caption_channels": 2304,
        "patch_size": 1,
        "sample_size": 128,
    },
    "the transformer of Z-Image": {
        "all_patch_size": [2],
        "dim": 3840,
        "n_layers": 30,
        "cap_feat_dim": 2560,
        "axes_dims": [32, 48, 48],
        "axes_lens": [1536, 512, 512],
    },
    "the transformer of FLUX.2": {
        "num_layers": 8,
        "num_single_layers": 48,
        "joint_attention_dim": 15360,
        "rope_theta": 2000,
    },
    "the transformer of Qwen-Image": {"num_layers": 60, "num_attention_heads": 24, "axes_dims_rope": [16, 56, 56]},
    "Qwen2.5-VL 7B": {
        "max_position_embeddings": 128000,
        "rope_theta": 1000000.0,
        "vision_config": {"depth": 32, "fullatt_block_indexes": [7, 15, 23, 31], "out_hidden_size": 3584},
    },
    "Qwen3 4B": {
        "num_hidden_layers": 36,
        "vocab_size": 151936,
        "max_position_embeddings": 40960,
        "rope_theta": 1000000,
    },
    "Gemma 2 2B": {"num_hidden_layers": 26, "vocab_size": 256000, "max_position_embeddings": 8192},
    "T5 XXL": {"d_ff": 10240, "d_model": 4096, "num_layers": 24, "num_decoder_layers": 24, "vocab_size": 32128},
    "UMT5 XXL": {"d_ff": 10240, "d_model": 4096, "num_layers": 24, "vocab_size": 256384},
    "the tokenizer of T5": {
        "model_max_length": 1000000000000000019884624838656,
        "special_tokens_map_file": "/home/somebody/.cache/special_tokens_map.json",
        "extra_ids": 100,
        "additional_special_tokens": [f"<extra_id_{i}>" for i in range(300)],
    },
    "a sampler with its own betas": {"num_train_timesteps": 1000, "trained_betas": [0.01] * 1000},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_configurations_of_published_models_pass_the_limits(name: str) -> None:
    check_config(PUBLISHED[name], name)


def test_numbers_in_a_file_are_counted(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(3, 5), "b": torch.zeros(7, dtype=torch.bfloat16)}, tmp_path / "w.safetensors")
    assert numbers_in(tmp_path / "w.safetensors", "w") == 22
