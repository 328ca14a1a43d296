"""What the benchmark `shared` judged is kept, merged with what other machines judged, and not judged again."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pyarrow
import pyarrow.parquet
import pytest
from helpers.progress import silent

from treering_verify.benchmark import Scope, search_parts, shared, shared_trials
from treering_verify.benchmark.harness.shared_chains import CHAINS
from treering_verify.benchmark.shared_trials import INDEX, MARKED, TWIN, Trials
from treering_verify.errors import UsageError
from treering_verify.models import LatentModel
from treering_verify.results import DETECTED


@pytest.fixture
def trials(tiny_model: LatentModel, tmp_path: Path) -> Trials:
    return Trials(tiny_model, Scope(silent, folder=tmp_path / "cache" / "code"), 2, ("quick",))


def test_pages_are_judged_once_and_rows_of_other_machines_are_taken(
    trials: Trials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {truth: trials.rows(CHAINS[0], 0, truth) for truth in (MARKED, TWIN)}
    assert [row["search"] for row in found[MARKED]] == ["quick"] == [row["search"] for row in found[TWIN]]

    def judged(*_: object) -> Any:
        raise AssertionError("judged again")

    monkeypatch.setattr(shared_trials.Trials, "_judged", judged)
    assert trials.rows(CHAINS[0], 0, MARKED) == found[MARKED], "from the cache"
    row = found[MARKED][0]
    others = [row | {"image": 1}, row | {"image": 0, "version": "0.0.1"}, row | {"chain": "x", "model": "another"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(others), tmp_path / "shared-2.parquet")
    again = Trials(trials.model, trials.scope, 2, ("quick",))
    assert again.rows(CHAINS[0], 1, MARKED) == [row | {"image": 1}]
    with pytest.raises(AssertionError, match="judged again"):
        again.rows(CHAINS[0], 1, TWIN)
    found_by_quick = [row | {"image": 1, "verdict": DETECTED}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(found_by_quick), tmp_path / "shared-2.parquet")
    both = Trials(trials.model, trials.scope, 2, ("quick", "fast"))
    assert both.rows(CHAINS[0], 1, MARKED) == found_by_quick, "no level judges what a cheaper one found"


def test_rows_of_chains_that_were_not_chosen_are_taken_from_the_folder_once(trials: Trials, tmp_path: Path) -> None:
    (row,) = trials.rows(CHAINS[0], 0, MARKED)
    others = [row | {"chain": CHAINS[1].name}, row | {"chain": CHAINS[2].name, "search": "thorough"}]
    for name in ("shared.parquet", "shared-2.parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row, *others]), tmp_path / name)
    assert Trials(trials.model, trials.scope, 2, ("quick",)).rows_of_others(CHAINS[:1]) == others[:1]


def test_a_part_of_the_search_is_left_out_of_pages_that_quick_does_not_find() -> None:
    def row(image: int, search: str, verdict: str) -> dict[str, Any]:
        return {"group": "look", "chain": "colours inverted", "image": image, "search": search, "verdict": verdict}

    levels = ("thorough", *search_parts.PARTS)
    rows = [row(0, "quick", DETECTED), row(1, "quick", "no evidence")]
    rows += [row(1, name, "no evidence" if name == "without other colours" else DETECTED) for name in levels]
    (_, quick, whole, without, *others), everything = search_parts._by_group(rows).rows
    assert everything == ("all", quick, whole, without, *others)
    assert [rate.successes for rate in (quick, whole, without, *others)] == [1, 2, 1, 2, 2, 2, 2] and whole.trials == 2
    assert search_parts._by_chain(rows).rows == (("colours inverted", "2/2", 1, 2, 2, 2, 2),)


def test_chains_are_chosen_by_name_group_or_how_common_they_are() -> None:
    def names(*only: str, few: bool = False) -> list[str]:
        return [
            one.name for one in shared.chosen_chains(Scope(Mock(), quick=few, only=only), ("mirrored",), ("quick",))
        ]

    assert names("mirrored", "mirrored", few=True) == names(few=True) == ["mirrored"]
    assert names() == names("quick") == [one.name for one in CHAINS] and len(names("common")) == 26
    assert set(names("text", "caption above")) == {"caption above"} | {
        one.name for one in CHAINS if one.group == "text"
    }
    assert names("at .6 on a page of 3 x 2") == names("at 0.6 on a page of 3 x 2") == ["at .6 on a page of 3 x 2"]
    for part, kinds in (("fast", "quick"), ("texts", "a group")):
        with pytest.raises(UsageError, match=kinds):
            names(part)


def test_an_index_names_the_images_key_among_others(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_trials, "KEYS", 40)
    of_index = Trials(trials.model, trials.scope, 2, (INDEX,))
    (row,) = of_index.rows(CHAINS[0], 1, MARKED)
    assert row["search"] == INDEX and row["verdict"] in ("detected", "no evidence", "inconclusive", "another key")
    assert of_index._judge(INDEX, 1).test.keys_tried == 40
