"""The notebooks of docs: their code runs, in a short form, and shows what their text says; their outputs are not stored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.notebooks import cells_of, run_notebook
from helpers.places import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
WALK, MATRICES = (ROOT / "docs" / "notebooks" / f"{name}.ipynb" for name in ("key_to_pvalue", "confusion_matrices"))


@pytest.fixture(autouse=True)
def _figures() -> Iterator[None]:
    """Draw into memory, and forget the figures afterwards."""
    import matplotlib

    matplotlib.use("Agg")
    yield
    from matplotlib import pyplot

    pyplot.close("all")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped(path: Path) -> None:
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells_of(path))


def test_one_image_is_walked_from_its_key_to_its_pvalue() -> None:
    names = run_notebook(WALK, KEYS=50)
    evidence, verdicts = names["evidence"], names["verdicts"]
    assert evidence["marked"].log10_pvalue < -20 and evidence["unmarked twin"].log10_pvalue > -4
    assert names["errors"]["default inversion"] < names["errors"]["encoder"] - 3
    assert names["agreement"] > 0.3 and max(map(abs, names["others"])) < 0.5
    for name, verdict in verdicts.items():
        assert verdict.best.log10_pvalue == pytest.approx(evidence[name].log10_pvalue, rel=1e-3)
    assert [verdict.verdict for verdict in verdicts.values()] == ["detected", "no evidence"]


def test_the_confusion_matrices_are_reproduced() -> None:
    names = run_notebook(MATRICES, EACH=1, ITERATIONS=1, KEYS=2, STEPS=10)
    assert str(names["published"]["SD 2.1", "encoder"].accuracy).startswith("186/300 = 62.0 %")
    assert {len(found) for found in names["predicted"].values()} == {3} and len(names["predicted"]) == 10
    perfect = {centred: names["predicted"][centred, "perfect inversion"] for centred in (False, True)}
    assert perfect == {False: ["2", "2", "3"], True: ["1", "2", "3"]}  # off centre, key 1 reads as key 2
    assert set().union(*names["predicted"].values()) <= {"1", "2", "3"}
    assert names["matrix"].labels == ("1", "2", "none") and names["matrix"].accuracy.trials == 5
    assert names["matrix"].accuracy.value == 1.0
