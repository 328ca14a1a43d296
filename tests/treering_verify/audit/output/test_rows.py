from __future__ import annotations

import os

import pytest

from treering_verify.audit.output.rows import Row, count, from_table, schema, to_table

ROWS = [
    Row(
        "a.png", "ok", 1e-6, "s", verdict="detected", key="k", log10_pvalue=-400.0, log10_adjusted=-399.0, residual=0.5
    ),
    Row("b\udcff\n\x1b.png", "error", 1e-6, "s", code="corrupt", reason="why"),
    Row("c", "skipped", 1e-6, "s", code="fifo"),
    Row("\\xff.png", "ok", 1e-6, "s", verdict="no evidence", log10_pvalue=0.0, log10_adjusted=0.0),
    Row("é\u202e.png", "ok", 1e-6, "s", verdict="inconclusive", code="size"),
]


@pytest.mark.parametrize("with_q_values", [False, True])
def test_rows_come_back_from_a_table_as_they_were(with_q_values: bool) -> None:
    table = to_table(ROWS, with_q_values)
    assert table.schema.equals(schema(with_q_values))
    assert from_table(table) == ROWS


def test_a_name_that_is_not_utf8_is_text_and_bytes() -> None:
    records = to_table(ROWS).to_pylist()
    assert records[1]["path"] == "b\\xff\n\x1b.png" and records[1]["path_bytes"] == os.fsencode(ROWS[1].path)
    assert records[3]["path"] == "\\xff.png" and records[3]["path_bytes"] is None  # a name that looks like it


def test_pvalues_are_rounded_up_where_floats_end() -> None:
    record = ROWS[0].record()
    assert record["pvalue"] == record["pvalue_adjusted"] == 1e-307 and record["log10_pvalue"] == -400
    assert ROWS[1].record()["pvalue"] is None and ROWS[1].record()["verdict"] is None


def test_verdicts_are_counted_of_judged_rows_only() -> None:
    assert count(ROWS) == {
        "status:ok": 3,
        "status:error": 1,
        "status:skipped": 1,
        "verdict:detected": 1,
        "verdict:no evidence": 1,
        "verdict:inconclusive": 1,
        "code:corrupt": 1,
        "code:fifo": 1,
        "code:size": 1,
    }
