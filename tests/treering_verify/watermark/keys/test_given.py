"""Keys and models are taken as callers have them: as objects, or by path and name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.places import SAMPLES

import treering_verify as tv
from treering_verify.detection.identification import identify
from treering_verify.errors import UsageError

IMAGE = SAMPLES / "marked-0.png"


@pytest.mark.parametrize("judge", [tv.verify, identify])
def test_a_key_may_be_a_path_and_a_model_a_name(judge: Callable[..., Any], sample_key: tv.Key, tmp_path: Path) -> None:
    path = tmp_path / "given.key.json"
    sample_key.save(path)
    by_name = judge(IMAGE, path, model="landscape")
    by_object = judge(IMAGE, sample_key, model=tv.load_model("landscape"))
    assert by_name.verdict == "detected"
    assert by_name.evidence == by_object.evidence


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda key: tv.verify(IMAGE, key, model=3), "model is of type int"),
        (lambda key: next(tv.generate("landscape", key, seeds=[1])), "model is of type str: load it"),
        (lambda key: tv.verify(IMAGE, None), "a key is of type NoneType: give a Key"),
        (lambda key: tv.Detector([key, 3]), "a key is of type int: give a Key"),
        (lambda key: tv.verify(IMAGE, []), "no key to look for"),
        (lambda key: tv.verify(IMAGE, tv.KeyIndex.from_keys([key])), "an index of keys: use identify"),
    ],
)
def test_what_is_neither_is_refused_by_its_type(
    call: Callable[[tv.Key], object], says: str, sample_key: tv.Key
) -> None:
    with pytest.raises(UsageError, match=says):
        call(sample_key)
