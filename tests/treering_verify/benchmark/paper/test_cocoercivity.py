"""Figure 3: panels of paths, their lines and theorems, beta, and what an interruption leaves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.progress import silent
from helpers.readings import reading

from treering_verify.benchmark import Scope
from treering_verify.benchmark.harness.laboratory import Laboratory
from treering_verify.benchmark.paper import cocoercivity
from treering_verify.benchmark.paper.parts import convergence
from treering_verify.benchmark.paper.readings import DEFAULT
from treering_verify.inversion.decoder import DEFAULTS, unstopped
from treering_verify.models import LatentModel


def test_a_quick_run_goes_as_far_along_the_path_as_the_published_setting() -> None:
    whole, quick = cocoercivity._plan(False, "bfloat16"), cocoercivity._plan(True, "bfloat16")
    assert [one.published for one in whole] == [True, True, True, False, False]
    for one, other in zip(whole[:2], quick[:2], strict=True):
        assert one.settings.step * one.last == pytest.approx(other.settings.step * other.last)
        assert one.settings.step * one.middle == pytest.approx(other.settings.step * other.middle)
    assert (whole[0].settings.step, whole[1].settings.momentum, whole[2].precision) == (0.001, 0.9, "bfloat16")


def test_a_panel_of_paths_has_a_line_with_an_interval_and_a_theorem_where_there_is_one() -> None:
    panel = cocoercivity._plan(False, "bfloat16")[0]
    beta = [1.0, 1.1, 1.2, 1.3]
    paths = cocoercivity.Paths(panel, beta, [4.0 - 2 * b for b in beta], [-25.0] * 4, [True] * 4)
    assert paths.line is not None and paths.line.slope == pytest.approx(-2.0)
    assert str(paths.holds).startswith("4/4")
    assert replace(paths, beta=[0.0001] * 4).line is None  # all at one place
    assert str(replace(paths, beta=[0.0001] * 4).holds).startswith("0/4")
    assert replace(paths, panel=cocoercivity._plan(False, "bfloat16")[2]).holds is None
    start, ours = reading("encoder", -22.0, 0), reading("encoder", -31.0, 0, DEFAULT)
    assert convergence._answer([paths], start, ours).startswith("Agrees: the slope is below 0 in 1 of 1 panels")
    rising = replace(paths, left=[2 * b for b in beta])
    text = convergence._answer([paths, rising], start, ours)
    assert text.startswith("Agrees in part") and "above 0 for forward-step, rho 0.001" in text


def test_beta_of_a_linear_map_is_that_of_its_eigenvalues(
    tiny_model: LatentModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Laboratory.open(tiny_model, Scope(silent, quick=True), 2)
    # E(D(z)) = z / 2: with T z = z / 2 - E(x), <T a - T b, a - b> / |T a - T b|^2 = 2 for all a and b.
    monkeypatch.setattr(tiny_model, "decode", lambda z: z, raising=False)
    monkeypatch.setattr(
        tiny_model, "encode", lambda x: x[:, :1].repeat(1, 4, 1, 1)[..., ::4, ::4] if x.shape[1] == 3 else x / 2
    )
    settings = replace(unstopped(DEFAULTS["forward-step"]), step=0.1, iterations=6)
    found = cocoercivity._measure(lab, range(2), cocoercivity.Panel("x", "forward-step", settings, 3, 6))
    np.testing.assert_allclose(found["beta"], 2.0, rtol=1e-4)
    assert found["falls"].all() and (found["left"] > 0).all()


def test_an_interrupted_figure_3_keeps_what_was_measured(
    tiny_model: LatentModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(unstopped(DEFAULTS["forward-step"]), step=0.1, iterations=3)
    monkeypatch.setattr(cocoercivity, "_plan", lambda *_: (cocoercivity.Panel("x", "forward-step", settings, 2, 3),))
    scope = Scope(silent, quick=True, folder=tmp_path)
    lab = Laboratory.open(tiny_model, scope, 6)
    whole, asked = cocoercivity._measure, []

    def once(lab: Laboratory, part: range, panel: cocoercivity.Panel) -> Any:
        asked.append(part)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return whole(lab, part, panel)

    monkeypatch.setattr(cocoercivity, "_measure", once)
    with pytest.raises(KeyboardInterrupt):
        cocoercivity.panels(lab, scope)
    (paths,) = cocoercivity.panels(lab, scope)
    assert asked == [range(0, 4), range(4, 6), range(4, 6)] and len(paths.beta) == 6
