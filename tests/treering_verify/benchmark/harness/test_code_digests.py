"""Digests of code: what runs counts, and what people read does not."""

from __future__ import annotations

import pytest

from treering_verify.benchmark import BENCHMARKS
from treering_verify.benchmark.harness.code_digests import bare, code_digests

CODE = '''"""A module."""

LIMIT = 3  # a comment
"""Documents the limit."""


class One:
    """A class."""

    def two(self):
        """Return a text.

        In more lines, with \u00e9.
        """
        return "# no comment"  # one
'''


def test_comments_docstrings_and_blank_lines_do_not_count() -> None:
    assert bare(CODE) == 'LIMIT = 3\nclass One:\n    def two(self):\n        return "# no comment"'


@pytest.mark.parametrize(("old", "new"), [("LIMIT = 3", "LIMIT = 4"), ("# no comment", "# another"), ("self", "other")])
def test_whatever_runs_counts(old: str, new: str) -> None:
    assert bare(CODE) != bare(CODE.replace(old, new))


def test_a_package_has_a_digest_of_all_in_it_and_a_name_without_code_none() -> None:
    found = code_digests(("inversion", "inversion.noise", "treering_detectors.exact"))
    assert len(set(found.values())) == 3 and all(len(digest) == 12 for digest in found.values())
    assert code_digests(("inversion",)) == {"inversion": found["inversion"]}
    with pytest.raises(ModuleNotFoundError, match=r"no module inversion\.no_such"):
        code_digests(("inversion.no_such",))


def test_every_benchmark_names_code_that_exists() -> None:
    for benchmark in BENCHMARKS.values():
        assert benchmark.measures and code_digests(benchmark.measured)
