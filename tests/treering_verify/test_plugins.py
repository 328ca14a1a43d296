"""Registries: names, errors, what users add in Python. Entry points of a real package: test_extending.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from treering_verify.attacks import ATTACKS, MODEL_ATTACKS, Attack
from treering_verify.detection.calibration.registry import DETECTORS
from treering_verify.errors import UnknownNameError, UsageError
from treering_verify.inversion import noise
from treering_verify.inversion.decoder import METHODS
from treering_verify.models import FAMILIES
from treering_verify.plugins import Registry
from treering_verify.watermark.patterns import PATTERNS

REGISTRIES = (METHODS, noise.METHODS, PATTERNS, ATTACKS, MODEL_ATTACKS, DETECTORS, FAMILIES)


@pytest.fixture
def registry() -> Registry[Callable[..., float]]:
    return Registry("root", "treering_verify.nobody", {"square": "math:sqrt", "absolute": abs}, reserved=("auto",))


@pytest.mark.parametrize("of", REGISTRIES, ids=lambda of: of.group)
def test_every_built_in_name_can_be_loaded_and_is_of_its_kind(of: Registry[object]) -> None:
    assert set(of.built_in) <= set(of)
    for name in of.built_in:
        assert not isinstance(of[name], str) and of._fits(of[name]), name


def test_a_name_is_imported_when_it_is_asked_for(registry: Registry[Callable[..., float]]) -> None:
    assert registry._values["square"] == "math:sqrt" and "square" in registry and len(registry) == 2
    assert registry["square"](9.0) == 3.0
    assert list(registry) == ["square", "absolute"] and registry.added == ()


def test_an_unknown_name_is_a_usage_error_with_the_likely_one(registry: Registry[Callable[..., float]]) -> None:
    with pytest.raises(UsageError, match=r"^no root 'sqare': did you mean square. Choose one of square, absolute$"):
        registry["sqare"]
    with pytest.raises(UsageError, match="no root 'x': choose one of auto, square, absolute"):
        registry.check("x", "auto")
    registry.check("auto", "auto")
    assert registry.get("x") is None and "x" not in registry
    with pytest.raises(UnknownNameError):
        del registry["x"]


def test_users_add_and_remove(registry: Registry[Callable[..., float]]) -> None:
    registry["cube"] = lambda x: x ** (1 / 3)
    assert registry["cube"](8.0) == 2.0 and registry.added == ("cube",)
    del registry["cube"]
    assert "cube" not in registry and registry.added == ()


@pytest.mark.parametrize("name", ["auto", "", "a b", "a:b", "-x", "a,b", "a+b", "x" * 65])
def test_names_that_no_command_line_takes_are_refused(registry: Registry[Callable[..., float]], name: str) -> None:
    with pytest.raises(UsageError, match=r"is not a name for an algorithm .root."):
        registry[name] = abs


@pytest.mark.parametrize("of", REGISTRIES, ids=lambda of: of.group)
def test_what_is_of_another_kind_is_refused(of: Registry[object]) -> None:
    with pytest.raises(UsageError, match=f"mine is of type int, and no {of.kind}: docs/extending.md"):
        of["mine"] = 7
    assert "mine" not in of


@pytest.fixture
def doubled() -> Iterator[None]:
    def double(image: object, *, times: int = 2, seed: int = 0) -> object:
        """Nothing, so often."""
        return image

    ATTACKS["double"] = double
    yield
    del ATTACKS["double"]


def test_an_attack_that_was_added_has_text_parameters_and_any_number(doubled: None) -> None:
    assert str(Attack("double", {"times": 10**9})) == "double:times=1000000000"
    with pytest.raises(UsageError, match=r"times .a whole number, default 2"):
        Attack("double", {"times": 0.5})


def test_a_function_without_a_seed_is_no_attack() -> None:
    with pytest.raises(UsageError, match="and no attack"):
        ATTACKS["mine"] = lambda image: image
