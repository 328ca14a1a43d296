"""Measure a benchmark again with the methods of `--method`, each in place of the default inversion."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from treering_verify.benchmark.answers import answer_of
from treering_verify.benchmark.harness.scope import Scope
from treering_verify.inversion import decoder
from treering_verify.inversion.recovery import inverting_by
from treering_verify.models import LatentModel
from treering_verify.report.findings import Cell, Findings, Table

DEFAULT = "default"


def measure_by_each(measure: Callable[[LatentModel, Scope], Findings], model: LatentModel, scope: Scope) -> Findings:
    """Measure by the default inversion, and by each method of the scope; rows and tables say by which.

    A method is a decoder inversion, or a noise inversion. All have the same images, keys and attacks, so values can be
    compared image by image. Each has cached measurements of its own. After an interruption the findings are those of the
    methods that are done.
    """
    found: dict[str, Findings] = {}
    for name in (DEFAULT, *scope.methods):
        here = _scope(scope, name)
        try:
            with _inverting_by(name):
                found[name] = measure(model, here)
        except KeyboardInterrupt:
            if not found:
                scope.keep({"inversion": name, **row} for row in here.rows)
                raise
            break
    return _joined(found)


def _scope(scope: Scope, name: str) -> Scope:
    if name == DEFAULT:
        return replace(scope, methods=(), rows=[])

    @contextmanager
    def progress(what: str, count: int) -> Iterator[Callable[[], None]]:
        with scope.progress(f"{what}, by {name}", count) as advance:
            yield advance

    folder = scope.folder and scope.folder / f"by-{name}"
    return replace(scope, methods=(), rows=[], folder=folder, progress=progress)


@contextmanager
def _inverting_by(name: str) -> Iterator[None]:
    if name == DEFAULT:
        yield
        return
    kind = "method" if name in decoder.METHODS else "noise_method"
    with inverting_by(**{kind: name}):
        yield


def _joined(found: dict[str, Findings]) -> Findings:
    first = found[DEFAULT]
    tables: dict[tuple[str, tuple[str, ...]], Table] = {}
    for name, findings in found.items():
        for table in findings.tables:
            lines: tuple[tuple[Cell, ...], ...] = tuple((name, *line) for line in table.rows)
            same = tables.get((table.title, table.header))
            if same is None:
                title = table.title if name == DEFAULT else f"{table.title}, by {name}"
                tables[table.title, table.header] = Table(title, ("inversion", *table.header), lines, table.note)
            else:
                tables[table.title, table.header] = replace(same, rows=(*same.rows, *lines))
    figures = [
        figure if name == DEFAULT else replace(figure, title=f"{figure.title}, by {name}")
        for name, findings in found.items()
        for figure in findings.figures
    ]
    answers = {name: one.answer or answer_of(first.name, one.rows) for name, one in found.items()}
    return replace(
        first,
        rows=tuple({"inversion": name, **row} for name, findings in found.items() for row in findings.rows),
        tables=tuple(tables.values()),
        figures=tuple(figures),
        answer=" ".join(text if name == DEFAULT else f"By {name}: {text}" for name, text in answers.items() if text),
    )
