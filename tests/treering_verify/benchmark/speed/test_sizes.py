"""The benchmarks of sizes and precision, on tiny shapes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from helpers.progress import silent

from treering_verify.benchmark.harness.scope import Scope
from treering_verify.benchmark.speed import sizes
from treering_verify.benchmark.speed.full_inversion import Precisions, _lowered, precisions_to_compare
from treering_verify.benchmark.speed.sizes import _SMALL, STABLE_DIFFUSION, Case, Size, cases, problem_at, work
from treering_verify.generation.generator import initial_noise
from treering_verify.inversion.decoder import METHODS, REFINED, in_precision, invert
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


def test_only_the_network_of_a_copy_runs_in_a_lower_precision(tiny_model: LatentModel) -> None:
    z, at = initial_noise(tiny_model.latent_shape, [0]), tiny_model.timesteps(2)[0]
    lowered = _lowered(tiny_model, "bfloat16")
    with torch.inference_mode():
        whole, half, same = (
            m.denoise(z, at, [None])[1] for m in (tiny_model, lowered, _lowered(tiny_model, "float32"))
        )
        assert torch.equal(tiny_model.encode(tiny_model.decode(z)), lowered.encode(lowered.decode(z)))
    assert torch.equal(whole, same) and half.dtype == torch.float32
    assert 0 < float((half - whole).norm() / whole.norm()) < 0.02


def test_float32_comes_first_and_compiling_last() -> None:
    assert precisions_to_compare(("bfloat16",), compiled=False) == [
        Precisions(),
        Precisions("bfloat16", "float32"),
        Precisions("float32", "bfloat16"),
        Precisions("bfloat16", "bfloat16"),
    ]
    assert [one.compiled for one in precisions_to_compare(("bfloat16",), compiled=True)] == [False] * 4 + [True] * 2


def test_cached_times_of_this_machine_are_not_measured_again(
    tiny_model: LatentModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Case] = []

    def seconds(size: Size, case: Case, device: str, budgets: tuple[int, ...], repeats: int) -> dict[int, float]:
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.append(case)
        return {steps: 1.0 + 0.5 * steps for steps in budgets}

    monkeypatch.setattr(sizes, "_seconds", seconds)
    monkeypatch.setattr(sizes, "_peak", lambda size, case, device, steps: None if case.tile else 7.0)
    scope = Scope(silent, quick=True, folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        sizes.measure(tiny_model, scope)
    first, asked = asked, []
    monkeypatch.setattr(sizes, "_seconds", lambda *a: asked.append(a[1]) or {n: 1.0 + 0.5 * n for n in a[3]})
    found = sizes.measure(tiny_model, scope).rows
    assert first + asked == cases(_SMALL, ("float32",)) and asked[-1].method == "gauss-newton"
    assert all(
        row["seconds_step"] == 0.5 and row["seconds_start"] == 1.0 for row in found if row["method"] != "encoder"
    )
    assert {row["peak_mib"] for row in found} == {7.0, None}
    assert all(row["published_seconds"] is None for row in found)  # they are of another size
