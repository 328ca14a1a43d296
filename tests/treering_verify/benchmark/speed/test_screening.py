"""The screening benchmark: decisions, losses and rates from the p-values of two passes."""

from __future__ import annotations

import numpy as np
from treering_detectors import Rate

from treering_verify.benchmark.speed.screening import _by_keys, _decided, _line
from treering_verify.detection.screening import Screening


def test_an_image_is_lost_where_the_gate_or_the_shared_alpha_keeps_back_what_the_full_inversion_shows() -> None:
    first = np.array([-9.0, -0.5, -3.0, -3.0, -3.0])
    full = np.array([-20.0, -20.0, -20.0, -5.0, -6.001])
    rows = _decided("clean", "marked", "latent", range(5), first, full)
    assert [row["decided_by"] for row in rows] == ["first", "first", "full", "full", "full"]
    assert [row["detected"] for row in rows] == [True, False, True, False, False]
    assert [row["detected_in_full"] for row in rows] == [True, True, True, False, True]
    rows += _decided("clean", "unmarked", "latent", range(5), np.array([-0.1, -0.2, -0.3, -0.4, -1.5]), np.zeros(5))
    line = _line(rows, "latent", "clean", {"latent": 0.1, "full": 0.5})
    assert line[2:6] == (Rate(2, 5), Rate(4, 5), Rate(2, 4), Rate(0, 5))
    assert line[6:] == ("40 %", "80 %", f"{1 / 0.4:.2f}", f"{1 / 0.2:.2f}", "2.00")


def test_with_more_keys_a_weak_mark_no_longer_passes_the_gate() -> None:
    first, full = np.array([-80.0, -3.0, -3.0]), np.array([-90.0, -20.0, -6.5])
    rows = _decided("clean", "marked", "latent", range(3), first, full)
    lines = {line[0]: line[1:] for line in _by_keys(rows, Screening("latent")).rows}
    assert lines["1"] == (Rate(3, 3), Rate(3, 3), Rate(0, 3), Rate(0, 3), "33 %")
    assert lines["10"] == (Rate(2, 3), Rate(2, 3), Rate(0, 2), Rate(0, 2), "33 %")  # the third is below alpha no more
    assert lines["1,000"] == (Rate(1, 3), Rate(2, 3), Rate(1, 2), Rate(0, 2), "100 %")  # the second's first p is 1
