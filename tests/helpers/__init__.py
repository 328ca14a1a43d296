"""What the tests share.

Models: the package `models`, and `calibrations`. Files: `images`, `audits`, `audit_rows`, and the package `hostile`.
`markings` has keys of every pattern, `readings` what the page of the papers reads, and `stored` checks what a benchmark
leaves; `browser` (a headless Chromium), `notebooks`, `progress`, `leaks` and `places` are small tools. Scripts: the package
`measuring`, `behaviour`, `floors`, `fragments`, `import_graph`, `mixed_folder`, `startup`, `surface`.
"""
