"""Scripts that measure what no benchmark does: `decoding_speed`, `other_changes` (search), `report_again` (fits)."""
