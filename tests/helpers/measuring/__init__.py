"""Scripts that measure what no benchmark does.

`audit_cost` (beside another checkout), `autoencoder_gain` and `report_again` (fits), `decoding_speed`, `mistakes` (of
commands), `other_changes`, `pages` and `covered_pages` (search), `quality_bounds` (of compressed files). `result` makes a
stored result of what one prints (`fragments.py measure`), and `sentences` finds figures on pages.
"""
