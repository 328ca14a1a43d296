"""How numbers are written for people."""

from __future__ import annotations

import math

import pytest

from treering_verify.report import format_pvalue


@pytest.mark.parametrize(
    ("log10", "text"),
    [
        (math.log10(0.37), "0.37"),
        (math.log10(2.14e-58), "2.1e-58"),
        (math.log10(9.96e-41), "1.0e-40"),  # not 10.0e-41
        (-400.5, "3.2e-401"),
        (0.0, "1"),
    ],
)
def test_p_is_written_with_two_digits_however_small_it_is(log10: float, text: str) -> None:
    assert format_pvalue(log10) == text
