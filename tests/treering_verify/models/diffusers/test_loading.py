"""Loading pipelines: from folders, files and the hub, in safetensors only, and with no code but our own."""

from __future__ import annotations

import json
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import diffusers
import huggingface_hub
import pytest
import torch
from helpers.models import pipelines
from safetensors.torch import save_file

import treering_verify as tv
from treering_verify.errors import ModelError, UsageError
from treering_verify.models import ModelSource, latent_shape, load_model
from treering_verify.models.source import size_of


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    pipelines.stable_diffusion().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """Return a copy that a test may damage."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)


def test_a_folder_needs_no_network_and_is_in_evaluation_mode(saved: Path, no_network: None) -> None:
    pipe = tv.models.load_pipeline(saved, device="cpu")
    assert type(pipe).__name__ == "StableDiffusionPipeline" and not pipe.unet.training
    assert pipe.unet.dtype == torch.float32
    assert latent_shape(ModelSource(str(saved), image_size=(48, 80))) == (4, 24, 40)


def test_a_variant_and_a_dtype_are_chosen(folder: Path) -> None:
    half = pipelines.stable_diffusion().to(torch.float16)
    half.save_pretrained(folder, variant="fp16")
    for path in folder.rglob("*.safetensors"):
        if ".fp16." not in path.name:
            path.unlink()
    with pytest.raises(ModelError, match=r"the variant fp16 only: choose it with --variant fp16 \(variant='fp16'"):
        load_model(folder)
    pipe = tv.models.load_pipeline(folder, variant="fp16", dtype="bfloat16", device="cpu")
    assert pipe.unet.dtype == pipe.text_encoder.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("name", "meant"),
    [("KolorsPipeline", ""), ("StableDifusionXLPipeline", "did you mean StableDiffusionXLPipeline?")],
)
def test_a_class_that_is_not_supported_is_named_in_one_line(name: str, meant: str, folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": name}))
    with pytest.raises(ModelError, match=f"class {name} is not supported: {re.escape(meant)}") as refused:
        load_model(folder)
    said = str(refused.value).removeprefix(str(folder))
    assert "\n" not in said and len(said) < 160


def test_settings_of_diffusers_are_as_they_were(saved: Path) -> None:
    import transformers

    voices: list[Any] = [diffusers.utils.logging, transformers.utils.logging]
    before = [(voice.get_verbosity(), voice.is_progress_bar_enabled()) for voice in voices]
    load_model(saved)
    with pytest.raises(ModelError):
        load_model(saved, revision="none", variant="none")
    assert [(voice.get_verbosity(), voice.is_progress_bar_enabled()) for voice in voices] == before


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
def test_pickled_weights_are_never_read(part: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("something was unpickled"))
    (weights,) = (folder / part).glob("*.safetensors")
    weights.rename(weights.with_name("pytorch_model.bin" if part == "text_encoder" else f"{weights.stem}.bin"))
    with pytest.raises(ModelError, match=f"weights of {part} are pickled"):
        load_model(folder)


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "model.bin"])
def test_a_pickled_file_is_never_read(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(ModelError, match="never read"):
        load_model(tmp_path / name)


def test_code_that_comes_with_a_model_never_runs(folder: Path) -> None:
    ran = folder / "ran"
    code = f"from pathlib import Path\nPath({str(ran)!r}).touch()\nclass MyUNet: pass\n"
    for place in (folder / "mine.py", folder / "unet" / "mine.py"):
        place.write_text(code)
    index = json.loads((folder / "model_index.json").read_text())
    for changes in (
        {"unet": ["mine", "MyUNet"]},
        {"_class_name": ["mine", "MyUNet"]},
        {"_class_name": "MyPipeline"},
    ):
        (folder / "model_index.json").write_text(json.dumps({**index, **changes}))
        with pytest.raises(ModelError):
            load_model(folder)
    assert not ran.exists()


def test_damaged_weights_are_refused(folder: Path) -> None:
    (weights,) = (folder / "unet").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot load"):
        load_model(folder)


def test_a_hub_id_is_fetched_as_safetensors_and_without_code(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def download(name: str, **options: Any) -> str:
        asked.append((name, options))
        return str(saved)

    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", download)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda _, path, **options: str(saved / path))
    monkeypatch.setattr("treering_verify.models.diffusers.loading.must_be_cached", lambda name: False)
    model = load_model("somebody/some-model", revision="v2", variant=None)
    assert model.name == "somebody/some-model"
    ((name, options),) = asked
    assert name == "somebody/some-model" and options["revision"] == "v2"
    assert options["use_safetensors"] is True and options["trust_remote_code"] is False


def test_what_was_not_fetched_before_is_refused_offline(
    monkeypatch: pytest.MonkeyPatch, no_network: None, tmp_path: Path
) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for ask in (load_model, latent_shape):
        with pytest.raises(ModelError, match="HF_HUB_OFFLINE=1 reads what was fetched before"):
            ask("somebody/some-model")


def test_a_model_that_has_left_the_hub_is_told_of_with_what_to_do(no_network: None) -> None:
    with pytest.raises(ModelError, match=r"left the hub.*local folder.*sd2-community"):
        load_model("stabilityai/stable-diffusion-2-1")


@pytest.mark.parametrize(
    ("tensor", "kind", "configuration"),
    [
        ("cond_stage_model.x", "StableDiffusionPipeline", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
        ("conditioner.embedders.1.x", "StableDiffusionXLPipeline", "stabilityai/stable-diffusion-xl-base-1.0"),
        ("text_encoders.clip_l.x", "StableDiffusion3Pipeline", "stabilityai/stable-diffusion-3-medium-diffusers"),
    ],
)
def test_a_single_file_is_told_by_its_tensors(
    tensor: str, kind: str, configuration: str, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file({tensor: torch.zeros(1)}, tmp_path / "model.safetensors")
    asked: list[dict[str, Any]] = []
    fetched: list[str] = []

    def file_of(place: str, path: str, **_: object) -> str:
        fetched.append(place)
        return str(saved / path)

    def folder_of(place: str, allow_patterns: list[str], **_: object) -> str:
        fetched.append(place)
        assert not any(pattern.endswith(("*", "py", "bin", "safetensors")) for pattern in allow_patterns)
        return str(saved)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", file_of)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", folder_of)
    monkeypatch.setattr("treering_verify.models.diffusers.loading.must_be_cached", lambda name: False)

    def from_single_file(name: str, **options: Any) -> Any:
        asked.append(options)
        return pipelines.stable_diffusion()

    monkeypatch.setattr(getattr(diffusers, kind), "from_single_file", from_single_file)
    tv.models.load_pipeline(tmp_path / "model.safetensors")
    tv.models.load_pipeline(tmp_path / "model.safetensors", model_config=str(saved))
    assert set(fetched) == {configuration}
    assert [options["config"] for options in asked] == [str(saved)] * 2  # checked, and never fetched again by diffusers
    source = ModelSource(str(tmp_path / "model.safetensors"), model_config=str(saved))
    assert latent_shape(source) == (4, pipelines.CELLS, pipelines.CELLS)


def test_a_single_file_of_something_else_is_refused(tmp_path: Path) -> None:
    save_file({"lora.down": torch.zeros(1)}, tmp_path / "lora.safetensors")
    with pytest.raises(ModelError, match="no complete model"):
        load_model(tmp_path / "lora.safetensors")


def test_sizes_devices_and_dtypes_are_checked(saved: Path, tiny_folder: Path) -> None:
    assert size_of("768") == (768, 768) and size_of("768x512") == (768, 512)
    with pytest.raises(UsageError, match="not an image size"):
        size_of("big")
    with pytest.raises(UsageError, match="no device 'tpu'"):
        load_model(saved, device="tpu")
    with pytest.raises(UsageError, match="no dtype"):
        load_model(saved, dtype="int8")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="no device cuda here"):
            load_model(saved, device="cuda")
        with pytest.raises(UsageError, match="no device cuda here"):
            load_model(tiny_folder, device="cuda")
    for options in ({"dtype": "float16"}, {"image_size": (64, 64)}):
        with pytest.raises(UsageError, match="leave"):
            load_model(tiny_folder, **options)
        with pytest.raises(UsageError, match="leave"):
            latent_shape(ModelSource(str(tiny_folder), **options))
