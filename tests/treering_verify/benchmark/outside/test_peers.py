"""Decisions of other schemes: what is not installed is said, and an installed package decides itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.progress import silent
from helpers.stored import check_storing
from treering_detectors import Rate

from treering_verify.benchmark import Scope
from treering_verify.benchmark.outside import mark_diffusion, peers
from treering_verify.models import LatentModel


def test_each_scheme_decides_on_its_own_marks_the_twins_and_photographs(
    tiny_model: LatentModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(mark_diffusion, "installed_version", lambda: "")
    monkeypatch.setattr(peers, "_WHITE_SAMPLES", 20)
    scope = Scope(silent, count=2, folder=tmp_path)
    found = peers.measure(tiny_model, scope)
    check_storing(found, tmp_path / "stored")
    with monkeypatch.context() as patched:
        for name in ("recover_noise", "render_noise"):
            patched.setattr(peers, name, None)  # what is cached is neither generated nor inverted again
        again = peers.measure(tiny_model, replace(scope, rows=[]))
    assert again == found
    (table,) = found.tables
    assert table.rows[-1][:2] == ("MarkDiffusion", "not installed") and "pip install markdiffusion" in str(
        table.rows[-1][2]
    )
    assert {row["code"] for row in found.rows} == {"this toolkit", "own implementation"}
    for line in table.rows[:-1]:
        rates = [cell for cell in line if isinstance(cell, Rate)]
        flagged = [row["flagged"] for row in found.rows if row["method"] == line[0]]
        assert [rate.trials for rate in rates] == [2, 2, 2, 20] and sum(flagged) == sum(
            rate.successes for rate in rates
        )
    assert found.answer.startswith("Ours detects ") and found.answer.endswith(".")


def test_an_installed_package_of_another_release_is_no_failure(
    tiny_model: LatentModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_release(model: LatentModel) -> None:
        raise AttributeError("no TRUtils")

    monkeypatch.setattr(mark_diffusion, "installed_version", lambda: "9.9")
    monkeypatch.setattr(mark_diffusion, "TreeRing", other_release)
    _, absent = peers._peers(tiny_model, 2, 0)
    assert absent == [("MarkDiffusion", "9.9 is installed, and cannot be used (AttributeError: no TRUtils)")]


def test_an_installed_package_marks_and_decides_itself(
    tiny_model: LatentModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    class TreeRing:
        threshold = 50.0

        def __init__(self, model: LatentModel) -> None:
            pass

        def mark(self, noise: object) -> object:
            return noise

        def decide(self, noise_hat: list[object], kind: str) -> object:
            return np.ones(len(noise_hat)) * (1 if kind == "p_value" else -1)

    monkeypatch.setattr(mark_diffusion, "installed_version", lambda: "1.0.2")
    monkeypatch.setattr(mark_diffusion, "TreeRing", TreeRing)
    schemes, absent = peers._peers(tiny_model, 2, 0)
    assert absent == [] and {peer.code for peer in schemes[-2:]} == {"markdiffusion 1.0.2"}
    decided = {peer.name.rpartition(" ")[2]: list(peer.score([1, 2]) > peer.threshold) for peer in schemes[-2:]}
    assert decided == {"distance": [False, False], "p-value": [True, True]}
