"""The parts of the benchmarks of sizes and precisions, on tiny shapes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from treering_verify.benchmark.sizes import _SMALL, STABLE_DIFFUSION, Case, cases, problem_at, work
from treering_verify.benchmark.whole_way import Way, _lowered, ways
from treering_verify.decoder_inversion import METHODS, REFINED, in_precision, invert
from treering_verify.generation import initial_noise
from treering_verify.models import LatentModel


def test_the_autoencoder_has_stable_diffusions_own_layout() -> None:
    from diffusers import AutoencoderKL

    size = STABLE_DIFFUSION
    stages = len(size.channels)
    with torch.device("meta"):
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * stages,
            up_block_types=("UpDecoderBlock2D",) * stages,
            block_out_channels=size.channels,
            layers_per_block=size.layers,
        )
    assert sum(p.numel() for p in vae.parameters()) == 83_653_863  # as the published one


def test_every_method_that_is_not_trained_is_measured_and_takes_the_steps_that_it_is_told() -> None:
    chosen = cases(_SMALL, ("float32", "bfloat16"))
    assert {case.method for case in chosen} == set(METHODS) - set(REFINED)
    assert {case.tile for case in chosen} == {0, _SMALL.pixels // 2}
    for case in (Case("forward-step"), Case("gauss-newton"), Case("gradient", tile=_SMALL.tile)):
        problem = problem_at(_SMALL, case, "cpu")
        solution = invert(problem, case.method, case.settings(2))
        assert len(solution.trace) == 3 and solution.latent.isfinite().all()  # its middle attends: twice differentiable
        assert torch.equal(solution.latent, work(_SMALL, case, "cpu", 2)().latent)  # type: ignore[attr-defined]


def test_a_precision_is_that_of_whatever_device_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[tuple[str, torch.dtype]] = []

    @contextmanager
    def autocast(device: str, dtype: torch.dtype) -> Iterator[None]:
        entered.append((device, dtype))
        yield

    monkeypatch.setattr(torch, "autocast", autocast)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    problem = in_precision(problem_at(_SMALL, Case("encoder"), "cpu"), "float16")
    problem.encode(problem.image)  # which lies on the processor, as it does where the networks are on a GPU
    assert ("cuda", torch.float16) in entered and ("cpu", torch.float16) in entered


def test_the_network_alone_is_lowered_and_the_model_stays_as_it_is(tiny_model: LatentModel) -> None:
    z, at = initial_noise(tiny_model.latent_shape, [0]), tiny_model.timesteps(2)[0]
    lowered = _lowered(tiny_model, "bfloat16")
    with torch.inference_mode():
        whole, half, same = (
            m.denoise(z, at, [None])[1] for m in (tiny_model, lowered, _lowered(tiny_model, "float32"))
        )
        assert torch.equal(tiny_model.encode(tiny_model.decode(z)), lowered.encode(lowered.decode(z)))
    assert torch.equal(whole, same) and half.dtype == torch.float32
    assert 0 < float((half - whole).norm() / whole.norm()) < 0.02


def test_float32_is_the_first_way_and_compiling_comes_last() -> None:
    assert ways(("bfloat16",), compiled=False) == [
        Way(),
        Way("bfloat16", "float32"),
        Way("float32", "bfloat16"),
        Way("bfloat16", "bfloat16"),
    ]
    assert [way.compiled for way in ways(("bfloat16",), compiled=True)] == [False] * 4 + [True] * 2
