from __future__ import annotations

import numpy as np
import pytest
import torch

from treering_verify.errors import UsageError
from treering_verify.generation.generator import generate, initial_noise
from treering_verify.models import LatentModel
from treering_verify.watermark.embedding import extract, key_coefficients
from treering_verify.watermark.keys.key import Key


def test_an_image_does_not_depend_on_its_batch(tiny_model: LatentModel) -> None:
    alone = next(generate(tiny_model, None, seeds=[5], steps=2))
    together = list(generate(tiny_model, None, seeds=[3, 4, 5, 6], steps=2, batch_size=3))[2]
    assert {**together.sidecar, "time": ""} == {**alone.sidecar, "time": ""}
    assert np.abs(np.asarray(together.image, int) - np.asarray(alone.image, int)).max() <= 1
    assert torch.equal(together.noise, alone.noise)


def test_marked_and_unmarked_twins_differ_in_the_keys_bins_only(tiny_model: LatentModel) -> None:
    key = Key.generate(tiny_model.latent_shape, channels=(1,), seed=1)
    (marked,), (unmarked,) = (list(generate(tiny_model, k, seeds=[9], steps=1)) for k in (key, None))
    difference = torch.fft.fft2((marked.noise - unmarked.noise).double(), norm="ortho").abs()
    assert difference[[0, 2, 3]].max() < 1e-5
    assert int((difference[1] > 1e-4).sum()) == key.degrees_of_freedom  # two numbers a bin, and two bins a pair
    assert np.allclose(extract(marked.noise[None], key)[0], key_coefficients(key), atol=1e-5)


def test_each_image_may_have_a_key_of_its_own_whatever_its_batch(tiny_model: LatentModel) -> None:
    keys = [Key.generate(tiny_model.latent_shape, name=f"k{i}", seed=i) for i in range(3)]
    made = list(generate(tiny_model, keys, seeds=[7, 7, 8], steps=1, batch_size=2))
    assert [one.sidecar["key"] for one in made] == ["k0", "k1", "k2"]
    assert [one.sidecar["fingerprint"] for one in made] == [key.fingerprint for key in keys]
    for one, key, seed in zip(made, keys, [7, 7, 8], strict=True):
        (alone,) = generate(tiny_model, key, seeds=[seed], steps=1)
        assert torch.equal(one.noise, alone.noise) and {**one.sidecar, "time": ""} == {**alone.sidecar, "time": ""}
    assert not torch.equal(made[0].noise, made[1].noise)
    for wrong in (keys[:2], []):
        with pytest.raises(UsageError, match="keys for 3 seeds: give one key for all, or one per seed"):
            list(generate(tiny_model, wrong, seeds=[7, 7, 8], steps=1))


def test_the_sidecar_names_what_made_the_image_and_holds_no_secret(tiny_model: LatentModel) -> None:
    key = Key.generate(tiny_model.latent_shape, name="mine", seed=1)
    (made,) = generate(tiny_model, key, seeds=[9], steps=1, guidance=1.0, prompts=[tiny_model.classes[0]])
    assert made.sidecar["fingerprint"] == key.fingerprint
    assert (made.sidecar["seed"], made.sidecar["steps"], made.sidecar["class"]) == (9, 1, tiny_model.classes[0])
    assert not any(str(abs(number))[:8] in str(made.sidecar) for number in key.numbers)


def test_noise_is_unit_normal_and_a_function_of_the_seed_alone() -> None:
    noise = initial_noise((4, 32, 32), [1, 2, 1])
    assert torch.equal(noise[0], noise[2])
    assert not torch.equal(noise[0], noise[1])
    assert abs(float(noise.var()) - 1) < 0.05


@pytest.mark.parametrize(
    "options",
    [
        {"seeds": [-1]},
        {"seeds": [1], "guidance": float("nan")},
        {"seeds": [1], "prompts": []},
        {"seeds": [1], "steps": 0},
    ],
)
def test_values_out_of_range_are_refused(tiny_model: LatentModel, options: dict) -> None:
    with pytest.raises(UsageError):
        list(generate(tiny_model, None, **{"steps": 1, **options}))


def test_an_unknown_class_is_refused_with_the_known_ones(tiny_model: LatentModel) -> None:
    with pytest.raises(UsageError, match=tiny_model.classes[0]):
        list(generate(tiny_model, None, seeds=[1], prompts=["no such class"], steps=1))
