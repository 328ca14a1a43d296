"""The only formatter: verdicts, tables, findings and audits as text, JSON, figures or HTML.

`text` writes verdicts and tables; `keys`, `copies`, `calibrations`, `rechecks`, `models`, `fits` and `figures` write what
their commands give, and `chance` the sentences of an audit about it. `findings` defines the result of a benchmark, `panels`
draws it, `markdown` writes its tables, `benchmark` stores it, and `benchmark_page` renders the HTML report. `audit` renders
the report of an audit and exports its rows.
"""

from treering_verify.report.benchmark import Provenance, store_findings
from treering_verify.report.benchmark_page import write_report
from treering_verify.report.calibrations import calibration_record, format_calibration
from treering_verify.report.copies import format_attacks, format_copies
from treering_verify.report.figures import save_spectrum_figure
from treering_verify.report.keys import format_keys, key_records
from treering_verify.report.rechecks import format_recheck, recheck_record
from treering_verify.report.text import (
    FORMATS,
    count_unread,
    format_cell,
    format_pvalue,
    format_row,
    format_summary,
    format_table,
    format_text,
    format_verdicts,
    leading_zeros,
    table,
    to_json,
)

__all__ = [
    "FORMATS",
    "Provenance",
    "calibration_record",
    "count_unread",
    "format_attacks",
    "format_calibration",
    "format_cell",
    "format_copies",
    "format_keys",
    "format_pvalue",
    "format_recheck",
    "format_row",
    "format_summary",
    "format_table",
    "format_text",
    "format_verdicts",
    "key_records",
    "leading_zeros",
    "recheck_record",
    "save_spectrum_figure",
    "store_findings",
    "table",
    "to_json",
    "write_report",
]
