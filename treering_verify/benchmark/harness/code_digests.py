"""Digests of the code that a benchmark measures, so that a stored result says whether it is older than that code.

Comments, docstrings, blank lines and trailing spaces do not count. The digests need no version control, and are the same
under every version of Python.
"""

from __future__ import annotations

import ast
import hashlib
import io
import tokenize
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

_PACKAGE = "treering_verify"


def code_digests(names: Iterable[str]) -> dict[str, str]:
    """Return a digest, 12 hexadecimal digits, of each module or package with all in it.

    Parameters
    ----------
    names : iterable of str
        Below `treering_verify`, such as ``inversion.decoder``, or ``treering_detectors`` and what is in it.

    Raises
    ------
    ModuleNotFoundError
        If there is no such module.
    """
    return {name: _digest(name) for name in names}


def _digest(name: str) -> str:
    root = _folder(name)
    files = sorted(root.rglob("*.py")) if root.is_dir() else [root.with_suffix(".py")]
    if not files or not files[0].is_file():
        raise ModuleNotFoundError(f"no module {name} in {_PACKAGE}")
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(root.parent).as_posix()}\0".encode())
        digest.update(_bare_file(file).encode())
    return digest.hexdigest()[:12]


def _folder(name: str) -> Path:
    if name.partition(".")[0] == "treering_detectors":
        import treering_detectors

        return Path(treering_detectors.__file__).parent.joinpath(*name.split(".")[1:])
    return Path(__file__).resolve().parents[2].joinpath(*name.split("."))


@cache
def _bare_file(file: Path) -> str:
    return bare(file.read_text(encoding="utf-8"))


def bare(source: str) -> str:
    """Return Python source without comments, docstrings, blank lines and trailing spaces."""
    before = source.split("\n")
    lines = [list(line) for line in before]

    def erase(top: int, left: int, bottom: int, right: int) -> None:
        for number in range(top, bottom + 1):
            line = lines[number - 1]
            first, last = (left if number == top else 0), (right if number == bottom else len(line))
            line[first:last] = " " * (last - first)

    def column(line: int, octets: int) -> int:
        return len(before[line - 1].encode()[:octets].decode())

    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            erase(*token.start, *token.end)
    for node in _docstrings(ast.parse(source)):
        assert node.end_lineno is not None and node.end_col_offset is not None
        end = node.end_lineno
        erase(node.lineno, column(node.lineno, node.col_offset), end, column(end, node.end_col_offset))
    return "\n".join(text for line in lines if (text := "".join(line).rstrip()))


def _docstrings(tree: ast.Module) -> Iterator[ast.Expr]:
    """Yield docstrings of modules, classes and functions, and the strings that document the constants before them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            pairs = zip(node.body, node.body[1:], strict=False)
            documented = [second for first, second in pairs if isinstance(first, ast.Assign | ast.AnnAssign)]
            for text in (*node.body[:1], *documented):
                value = text.value if isinstance(text, ast.Expr) else None
                if isinstance(text, ast.Expr) and isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield text
