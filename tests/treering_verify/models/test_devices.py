"""Where a model computes, and in which precision; the slow ones need a GPU, and are skipped where there is none."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.models import pipelines, video_pipelines
from helpers.models.pipelines import relative

import treering_verify as tv
from treering_verify.audit.cluster.worker import on_its_device
from treering_verify.audit.judge import AuditJudge
from treering_verify.benchmark.harness.scope import hardware
from treering_verify.generation.generator import initial_noise
from treering_verify.inversion.decoder import METHODS, REFINED, Problem, Settings, invert
from treering_verify.inversion.recovery import InversionOptions, recover_noise
from treering_verify.media.conversion import to_tensor
from treering_verify.models import (
    LatentModel,
    MovableModel,
    autoencoder,
    device_of,
    from_pipeline,
    load_model,
    makes_videos,
    movable,
    native_noise,
)
from treering_verify.models.precision import ieee


@pytest.fixture(scope="module")
def landscape() -> LatentModel:
    return load_model("landscape")


FAMILIES: dict[str, Callable[[], Any]] = {
    "stable-diffusion": pipelines.stable_diffusion,
    "stable-diffusion-xl": pipelines.stable_diffusion_xl,
    "stable-diffusion-3": pipelines.stable_diffusion_3,
    "flux": pipelines.flux,
    "pixart": pipelines.pixart,
    "dit": pipelines.dit,
    "rectified-flow": pipelines.rectified_flow,
    "animatediff": video_pipelines.animatediff,
    "wan": video_pipelines.wan,
}
on_a_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no GPU here: run make test-slow where there is one"
)


@contextmanager
def inputs_of(*networks: torch.nn.Module) -> Iterator[list[str]]:
    """Note on which devices networks are asked."""
    seen: list[str] = []

    def note(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.extend(x.device.type for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor))

    hooks = [network.register_forward_pre_hook(note, with_kwargs=True) for network in networks]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def switches() -> list[str]:
    return [getattr(torch.backends.cudnn, "conv").fp32_precision, torch.backends.cuda.matmul.fp32_precision]  # noqa: B009


def moved(model: LatentModel, device: str) -> MovableModel:
    assert movable(model)
    return copy.deepcopy(model).to(device)


# --- anywhere ---------------------------------------------------------------------------------------------------------


def test_networks_are_asked_where_the_model_is_and_images_stay_where_they_are(
    tiny_model: LatentModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autoencoder, "full_precision", lambda like: nullcontext())  # which does not know that device
    model: Any = moved(tiny_model, "meta")  # a device without numbers, so answers cannot come back from it
    image, z = torch.zeros(1, 3, *model.image_size), torch.zeros(1, *model.latent_shape)
    network = [model._vae.encoder, model._vae.decoder, model._unet, model.refine.first, model.estimate.first]
    asked: list[tuple[torch.nn.Module, Callable[[], Any]]] = [
        (network[0], lambda: model.encode(image)),
        (network[1], lambda: model.decode(z)),
        (network[2], lambda: model.denoise(z, model.timesteps(2)[0], [None])),
        (network[3], lambda: model.refine(z, z, z, image, image)),
        (network[4], lambda: model.estimate([z] * 3)),
    ]
    for part, ask in asked:
        with inputs_of(part) as seen, pytest.raises((NotImplementedError, RuntimeError), match="meta"):
            ask()
        assert seen and set(seen) == {"meta"}
    assert device_of(model) == "meta" and device_of(tiny_model) == "cpu"
    assert tiny_model.encode(image).device.type == "cpu"


def test_a_worker_moves_the_model_of_its_judge_once(tiny_model: LatentModel) -> None:
    model, key = moved(tiny_model, "cpu"), tv.Key.generate(tiny_model.latent_shape, seed=1)
    judge = AuditJudge.of([key], model, 1e-6, InversionOptions())
    assert on_its_device(judge).model is model and device_of(model) == "cpu"
    told = judge.on(model, "meta")
    assert device_of(on_its_device(told).model) == "meta"
    assert {p.device.type for p in vars(model)["_unet"].parameters()} == {"meta"}


def test_a_class_conditional_model_is_on_the_processor_unless_told_otherwise(tiny_folder: Path) -> None:
    assert device_of(load_model(tiny_folder)) == device_of(load_model(tiny_folder, device="cpu")) == "cpu"
    assert "threads" in hardware(accelerated=False) and hardware(accelerated=False) in hardware(accelerated=True)


def test_a_pipeline_says_where_it_computes() -> None:
    model = from_pipeline(pipelines.stable_diffusion())
    assert device_of(model) == "cpu" and movable(model) and model.to("cpu") is model


def test_inversions_multiply_float32_as_such_and_switches_are_put_back() -> None:
    before, seen = switches(), list[list[str]]()

    def decode(z: torch.Tensor) -> torch.Tensor:
        seen.append(switches())
        return z * 2

    problem = Problem(torch.ones(1, 3, 4, 4), lambda x: x / 2, decode)
    for method in METHODS:
        if method not in REFINED:
            invert(problem, method, Settings(iterations=2, step=0.1, memory=2, inner=2))
    assert len(seen) >= len(METHODS) - len(REFINED) and all(pair == ["ieee", "ieee"] for pair in seen)
    assert switches() == before != ["ieee", "ieee"]
    with pytest.raises(ZeroDivisionError), ieee():
        raise ZeroDivisionError
    assert switches() == before
    first, second = ieee(), ieee()  # of two threads, say: the first to begin is the first to end
    with first:
        second.__enter__()
    assert switches() == ["ieee", "ieee"]
    second.__exit__(None, None, None)
    assert switches() == before


def test_a_callers_own_switches_are_left_as_they_were() -> None:
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    try:
        products.allow_tf32, convolutions.allow_tf32 = True, False
        with ieee():
            assert switches() == ["ieee", "ieee"]
        assert products.allow_tf32 and not convolutions.allow_tf32
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


def test_an_embedded_network_is_computed_in_float32_also_where_the_processor_has_units_for_16_bits(
    tiny_model: LatentModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    unet = tiny_model._unet  # type: ignore[attr-defined]
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    handle = unet.register_forward_pre_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    try:
        tiny_model.denoise(torch.zeros(1, *tiny_model.latent_shape), tiny_model.timesteps(2)[0], [None])
    finally:
        handle.remove()
    assert seen == [False]  # one image has one p, on whatever machine


# --- on a GPU ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@on_a_gpu
@pytest.mark.parametrize("method", [method for method in METHODS if method != "filtered"])
def test_a_gpu_inverts_the_embedded_decoder_as_the_processor_does(landscape: LatentModel, method: str) -> None:
    made = list(tv.generate(landscape, None, seeds=[1, 2], steps=10))
    pixels = torch.cat([to_tensor(one.image) for one in made])
    there, here = moved(landscape, "cuda"), landscape
    inversion = InversionOptions(
        method=method, settings=Settings(iterations=2, step=0.01, memory=2, inner=2, scheduled=True)
    )
    found, wanted = (recover_noise(model, pixels, inversion) for model in (there, here))
    assert relative(found[1].latent, wanted[1].latent) < 1e-3 and relative(found[0], wanted[0]) < 3e-3
    assert found[0].device.type == "cpu"


@pytest.mark.slow
@on_a_gpu
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["float32", "auto"])
def test_every_family_marks_and_verifies_on_a_gpu(family: str, dtype: str, tmp_path: Path) -> None:
    pipe = FAMILIES[family]()
    pipe.save_pretrained(tmp_path / "model")
    videos = family in video_pipelines.SIZE
    size, frames = (video_pipelines.SIZE[family], video_pipelines.FRAMES[family]) if videos else (None, None)
    model = load_model(tmp_path / "model", device="cuda", dtype=dtype, image_size=size, frames=frames)
    assert device_of(model).startswith("cuda")
    kept = video_pipelines.kept_channels(family) if videos else pipelines.KEPT
    key = tv.Key.generate(model.latent_shape, channels=kept, seed=1)
    told: Any = {"seeds": [3], "steps": 8, "prompts": None if model.classes else ["a cat"]}
    assert tv.verify(first(model, key, told), key, model=model, search=None).verdict == "detected"
    assert tv.verify(first(model, None, told), key, model=model, search=None, alpha=1e-3).verdict == "no evidence"
    if family == "dit":
        return  # its pipeline takes no latents=
    assert native_noise(pipe.to("cuda"), initial_noise(model.latent_shape, [0])).device.type == "cuda"


def first(model: LatentModel, key: tv.Key | None, told: dict[str, Any]) -> Any:
    if makes_videos(model):
        return next(iter(tv.generation.generate_videos(model, key, **told))).frames
    return next(iter(tv.generate(model, key, **told))).image


@pytest.mark.slow
@on_a_gpu
def test_an_audits_worker_judges_on_a_gpu(landscape: LatentModel) -> None:
    from treering_verify.audit.inputs.reading import Reading
    from treering_verify.audit.judge import judge_batch

    key = tv.Key.generate(landscape.latent_shape, seed=1)
    (marked,) = tv.generate(landscape, key, seeds=[3], steps=10)
    model = moved(landscape, "cpu")
    judge = AuditJudge(model, AuditJudge.of([key], model, 1e-6, InversionOptions()).indexes, device="cuda")
    pixels = ((to_tensor(marked.image)[0] + 1) * 127.5).round().to(torch.uint8).movedim(0, -1).numpy()
    (row,) = judge_batch(on_its_device(judge), [Reading("marked.png", "ok", pixels=pixels)])
    assert row.verdict == "detected" and device_of(model) == "cuda"
