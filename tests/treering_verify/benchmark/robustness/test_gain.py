"""Encoder and DDIM, closed form and networks are compared on the same images, where a model has them."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
import torch
from treering_detectors import Mean

from treering_verify.benchmark.harness.conditions import CLEAN, Condition
from treering_verify.benchmark.robustness import gain
from treering_verify.generation.generator import generate
from treering_verify.inversion.recovery import InversionOptions, recover_noise
from treering_verify.media.conversion import to_tensor
from treering_verify.models import LatentModel, load_model
from treering_verify.models.filter_bank import CorrectedBank
from treering_verify.models.inverter import carrying, fitted
from treering_verify.models.networks.correction import Correction
from treering_verify.watermark.keys.key import Key


def filtered() -> LatentModel:
    return load_model("landscape-tiny")


def corrected(model: LatentModel) -> LatentModel:
    """Return a model with a network on top of its filters that adds .5."""
    inverter = fitted(model)
    assert inverter is not None and inverter.noise is not None
    bank = inverter.noise
    network = Correction(len(bank.scale), bank.bias.shape[1], width=4, blocks=1).requires_grad_(False)
    network.last.bias.fill_(0.5)
    return carrying(model, replace(inverter, noise=CorrectedBank(bank.scale, bank.weights, bank.bias, network)))


def test_a_model_is_judged_in_the_ways_that_it_has(tiny_model: LatentModel) -> None:
    both = carrying(tiny_model, fitted(filtered()))
    neither = carrying(filtered(), None)
    expected = {
        (gain.ENCODER, gain.CLOSED_FORM): filtered(),
        (gain.ENCODER, gain.CLOSED_FORM, gain.NETWORKS): corrected(filtered()),
        (gain.ENCODER, gain.NETWORKS): tiny_model,
        (gain.ENCODER, gain.DEFAULT): neither,
    }
    assert all(tuple(gain.ways_of(model)) == names for names, model in expected.items())
    assert tuple(gain.ways_of(both)) == (gain.ENCODER, gain.CLOSED_FORM, gain.NETWORKS)
    assert fitted(gain.ways_of(both)[gain.NETWORKS][0]) is None


def test_the_closed_form_is_the_filters_alone_and_the_default_has_the_network() -> None:
    plain = filtered()
    model = corrected(plain)
    ways = gain.ways_of(model)
    pixels = to_tensor(next(iter(generate(model, None, seeds=[3], steps=2))).image)
    usual, _ = recover_noise(plain, pixels, InversionOptions())
    alone, _ = recover_noise(ways[gain.CLOSED_FORM][0], pixels, ways[gain.CLOSED_FORM][1])
    network, _ = recover_noise(ways[gain.NETWORKS][0], pixels, ways[gain.NETWORKS][1])
    assert torch.equal(alone, usual)
    torch.testing.assert_close(network, usual + 0.5, rtol=1e-4, atol=1e-3)


def test_each_image_is_judged_in_every_way_and_the_table_has_every_pair() -> None:
    model = corrected(filtered())
    keys = [Key.generate(model.latent_shape, seed=1)]
    images = [one.image for one in generate(model, keys, seeds=[5], steps=4)]
    clean = Condition(CLEAN, CLEAN)
    (found,) = gain._judged(model, clean, images, keys, range(1))
    assert found["closed form"] < found["encoder and DDIM"] < -6 and found["networks"] < -6
    rows = [found, {**found, "encoder and DDIM": -1.0}, {**found, "closed form": 0.0, "blank": True}]
    rows = [{**row, "condition": CLEAN} for row in rows]
    table = gain._table(rows, [clean], [])
    assert table.title == "Found by encoder and DDIM, closed form and networks"
    assert [len(line) for line in (table.header, *table.rows)] == [10] * 4
    cells = dict(zip(table.header, table.rows[0], strict=True))
    assert cells["only closed form, only encoder and DDIM; McNemar's p"] == "1, 1; 1"
    changes = gain._changes(rows, [clean])
    assert changes.header == ("condition", *(f"{new} less {old}" for old, new in combinations(gain.WAYS[:3], 2)))
    value = changes.rows[0][1]
    assert isinstance(value, Mean) and value.value == pytest.approx(
        sum(row["closed form"] - row["encoder and DDIM"] for row in rows) / 3
    )
    assert cells["only networks, only encoder and DDIM; McNemar's p"] == "1, 0; 1"
