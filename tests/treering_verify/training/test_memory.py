"""A model that remembers returns what the model returns, and runs each network once an item."""

from __future__ import annotations

import copy

import torch
from helpers.models import pipelines

import treering_verify as tv
from treering_verify.inversion.noise import naive
from treering_verify.inversion.recovery import recover_noise
from treering_verify.training.memory import Memory, remembering


def test_nothing_is_computed_twice_and_numbers_are_the_same() -> None:
    model = tv.from_pipeline(pipelines.stable_diffusion("v_prediction"))
    counted, passes = copy.copy(model), {"encode": 0, "decode": 0, "denoise": 0}

    def count(name: str) -> None:
        compute = getattr(model, name)

        def call(batch: torch.Tensor, *others: object) -> object:
            passes[name] += len(batch)
            return compute(batch, *others)

        setattr(counted, name, call)

    for name in passes:
        count(name)
    memory = Memory()
    kept = remembering(counted, memory)
    images = torch.rand(3, 3, *model.image_size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    classical = tv.InversionOptions(method="encoder", noise_method="naive")
    for inversion in (classical, tv.InversionOptions(), classical):
        found, _ = recover_noise(kept, images, inversion)
        torch.testing.assert_close(found, recover_noise(model, images, inversion)[0], rtol=1e-4, atol=1e-4)
    spent = dict(passes)
    recover_noise(kept, images[[2, 0, 0]], classical)
    assert passes == spent
    # Other times, conditions and guidance are other questions.
    with torch.inference_mode():  # as `recover_noise`: without it the last bits differ
        latent = kept.encode(images)
        naive(kept, latent, steps=10, conditions=["a cat", None, "a dog"])
        assert passes["denoise"] == spent["denoise"] + 2 * 10
        kept.denoise(latent, model.timesteps(10)[3], [None] * 3, 2.0)
    assert passes["denoise"] == spent["denoise"] + 2 * 10 + 3
    memory.clear()
    kept.encode(images)
    assert passes["encode"] == spent["encode"] + 3


def test_gradients_flow() -> None:
    model = tv.from_pipeline(pipelines.stable_diffusion("v_prediction"))
    kept = remembering(model, Memory())
    latent = torch.ones(1, *model.latent_shape, requires_grad=True)
    (gradient,) = torch.autograd.grad(kept.decode(latent).square().sum(), latent)
    assert bool(gradient.any())
