"""The list of benchmarks: the question that each answers, where its module lies, and what it reproduces."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Literal

from treering_verify.benchmark.durations import DOCS, MINUTES
from treering_verify.benchmark.measured_code import MEASURES, TEST
from treering_verify.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from treering_verify.benchmark.harness.scope import Scope
    from treering_verify.models import LatentModel
    from treering_verify.report.findings import Findings

Group = Literal["paper", "detection", "robustness", "speed"]

GROUPS: dict[Group, str] = {
    "paper": "Decoder and noise inversion, as in Hong et al. (NeurIPS 2024)",
    "detection": "Detection, identification and false positives",
    "robustness": "Attacks, forgery and what a mark costs the image",
    "speed": "Time and memory",
}
"""Headings under which the benchmarks are listed."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: its name, its question, and the module that measures it.

    Attributes
    ----------
    name : str
        What the command line calls it; its files begin with it.
    group : {"paper", "detection", "robustness", "speed"}
    module : str
        Module of `treering_verify.benchmark` whose function `measure(model, scope)` returns the findings.
    question : str
        What it answers, in a sentence.
    published : str
        Table or figure of Hong et al. (NeurIPS 2024), or of another paper that is named, that it corresponds to.
    measures : tuple of str
        Modules and packages whose change makes a stored result old, beside the benchmark's own module.
    """

    name: str
    group: Group
    module: str
    question: str
    published: str = ""
    measures: tuple[str, ...] = ()

    @property
    def measured(self) -> tuple[str, ...]:
        """Return all modules and packages whose change makes a stored result old."""
        return f"benchmark.{self.module}", *self.measures

    @property
    def cached_code(self) -> tuple[str, ...]:
        """Return what cached measurements depend on: those of the group `paper` share images and paths."""
        return (*TEST, "benchmark.harness.laboratory") if self.group == "paper" else self.measured

    @property
    def cache_name(self) -> str:
        """Return the name of the folder of its cached measurements: other code has another one."""
        import hashlib

        from treering_verify.benchmark.harness.code_digests import code_digests

        return hashlib.sha256(repr(sorted(code_digests(self.cached_code).items())).encode()).hexdigest()[:12]

    def cache_beside(self, folder: Path | None) -> Path | None:
        """Return the folder of its cached measurements beside that of another benchmark; None if there is no cache."""
        return None if folder is None else folder.parent / self.cache_name

    def measure(self, model: LatentModel, scope: Scope) -> Findings:
        """Import the module and run its `measure`; no other benchmark is imported.

        Findings without an answer of their own get the one that their rows have.
        """
        from treering_verify.benchmark.answers import answer_of

        measure = import_module(f"treering_verify.benchmark.{self.module}").measure
        if scope.methods and self.name in BY_DEFAULT:
            from treering_verify.benchmark.by_method import measure_by_each

            return measure_by_each(measure, model, scope)
        found: Findings = measure(model, scope)
        return found if found.answer else replace(found, answer=answer_of(self.name, found.rows))


_ALL = (
    Benchmark(
        "paper",
        "paper",
        "paper.page",
        "What of the papers' tables and figures holds on this model, what does not, and why?",
        "tables 1, S1 and S2, figure 3, classification and editing; Tree-Ring's table 1 and SFWMark's means",
    ),
    Benchmark(
        "inversion",
        "paper",
        "paper.inversion",
        "How close to the true latent does each decoder inversion come, how fast, and in how much memory?",
        "tables 1 and S1",
    ),
    Benchmark(
        "ablation",
        "paper",
        "paper.ablation",
        "How do the optimiser and its step schedule change the error of the decoder inversion?",
        "table S2",
    ),
    Benchmark(
        "baseline",
        "paper",
        "paper.baseline",
        "How much of the gradient baseline's time and memory comes from its released implementation?",
        "table 1, gradient rows",
    ),
    Benchmark(
        "cocoercivity",
        "paper",
        "paper.cocoercivity",
        "Is an iterate closer to its limit where the residual is more cocoercive along the path, as the theorems suggest?",
        "figure 3",
    ),
    Benchmark(
        "classification",
        "paper",
        "paper.classification",
        "Which of several keys marked an image, or none, after each decoder inversion?",
        "the watermark classification table",
    ),
    Benchmark(
        "editing",
        "paper",
        "paper.editing",
        "How well does an edit preserve the background after each decoder inversion, and at what time?",
        "the editing figure",
    ),
    Benchmark(
        "pareto",
        "paper",
        "paper.pareto",
        "Which error does each decoder inversion reach in which time, on clean images?",
    ),
    Benchmark(
        "heldout",
        "paper",
        "paper.heldout",
        "Does any decoder inversion end with a larger error than its start, on an autoencoder that nothing was tuned on?",
    ),
    Benchmark(
        "noise",
        "paper",
        "paper.noise",
        "How close to the initial noise does each noise inversion come, from true and from recovered latents?",
    ),
    Benchmark(
        "readout",
        "paper",
        "paper.readout",
        "At which point of the inversion, from latent to noise, does a key show the most evidence?",
    ),
    Benchmark(
        "detection",
        "detection",
        "detection",
        "How often are marked images detected, and unmarked ones, at a false-positive rate fixed beforehand?",
    ),
    Benchmark(
        "uniformity",
        "detection",
        "uniformity",
        "Does an image without the key reach p <= alpha with probability alpha?",
    ),
    Benchmark(
        "search-uniformity",
        "detection",
        "search_uniformity",
        "Does a page without the key reach p <= alpha by a search with a probability of at most alpha?",
    ),
    Benchmark(
        "chance",
        "detection",
        "chance",
        "How many of many images does one key accuse by chance, and does what audits say of it agree with simulated keys?",
    ),
    Benchmark(
        "identification",
        "detection",
        "identification",
        "How long does it take to test all keys of an index, is the right one named, and what does the correction cost?",
    ),
    Benchmark(
        "agreement",
        "detection",
        "agreement",
        "How well do clean marked images agree with their keys, and from where on was a key fitted to the image?",
    ),
    Benchmark(
        "shared",
        "detection",
        "shared",
        "Which search finds images as people share them: in screenshots, frames, collages, cropped, turned, with text?",
    ),
    Benchmark(
        "search-parts",
        "detection",
        "search_parts",
        "What does each part of the search bring: other colours, angles, aspects, small images, guesses that are refined?",
    ),
    Benchmark(
        "coverage",
        "detection",
        "coverage",
        "At which sizes, crops, aspects and qualities does each level of the search find at least 95 % of marks?",
    ),
    Benchmark(
        "peers",
        "detection",
        "outside.peers",
        "What do other schemes' decisions find on the same images, and how many unmarked images do they flag?",
    ),
    Benchmark(
        "classifier",
        "detection",
        "robustness.classifier",
        "Does a classifier trained on other keys name the key of an image better than the exact test does?",
    ),
    Benchmark(
        "robustness",
        "robustness",
        "robustness.robustness",
        "How much of each pattern's evidence survives each attack, and how do attacks change false positives?",
        "Tree-Ring's table 1 and SFWMark's means",
    ),
    Benchmark(
        "survival",
        "robustness",
        "robustness.survival",
        "How many marks does the default of verify find after each of twelve attacks, and how many unmarked images?",
        "SFWMark's conditions",
    ),
    Benchmark(
        "over-exposure",
        "robustness",
        "robustness.over_exposure",
        "How many marks are found in images that are brightened until parts are white, with their restoration and without?",
        "SFWMark's brightness",
    ),
    Benchmark(
        "gain",
        "robustness",
        "robustness.gain",
        "Which marks does the model's default inversion find after each of twelve attacks that encoder and DDIM miss?",
        "SFWMark's conditions",
    ),
    Benchmark(
        "patterns",
        "robustness",
        "robustness.patterns",
        "How much evidence does each pattern give, clean and attacked, and is its p-value uniform without the key?",
    ),
    Benchmark(
        "annulus-pareto",
        "robustness",
        "robustness.annulus_pareto",
        "Which pattern, annulus and channels give the most evidence at the least cost to the image?",
    ),
    Benchmark(
        "forgery",
        "robustness",
        "robustness.forgery",
        "How many marked images of a key does an attacker need to forge the key, or to remove it?",
    ),
    Benchmark("quality", "robustness", "quality", "How much does a mark change the image, by pattern and annulus?"),
    Benchmark(
        "throughput",
        "speed",
        "speed.throughput",
        "How much faster is verification in batches, and how much time is spent outside the networks?",
    ),
    Benchmark(
        "audit",
        "speed",
        "speed.audit",
        "How much time does an audit add to the model's own, and does its memory grow with the number of files?",
    ),
    Benchmark(
        "screening",
        "speed",
        "speed.screening",
        "How many images of an audit does a screening pass decide, and which detections does it lose?",
    ),
    Benchmark(
        "precision",
        "speed",
        "speed.precision",
        "What do 16-bit precision and torch.compile change in time, memory, error and verdicts?",
        "table 1, 16-bit rows",
    ),
    Benchmark(
        "sizes",
        "speed",
        "speed.sizes",
        "How much time and memory do decoder inversions take on an autoencoder of Stable Diffusion's size?",
        "table 1, seconds and memory",
    ),
    Benchmark(
        "videos",
        "speed",
        "speed.videos",
        "How much memory does the decoder inversion of a video take, beside the gradient baseline's?",
        "table 1, memory of LaVie",
    ),
)

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: replace(benchmark, measures=MEASURES.get(benchmark.name, TEST)) for benchmark in _ALL
}
"""All benchmarks by name, in the order in which they are listed."""

BY_METHOD = (
    "inversion",
    "classification",
    "editing",
    "pareto",
    "heldout",
    "detection",
    "robustness",
    "precision",
    "sizes",
)
"""Benchmarks that compare decoder inversions, so that others can stand beside."""

BY_DEFAULT = (
    "uniformity",
    "identification",
    "agreement",
    "coverage",
    "patterns",
    "annulus-pareto",
    "classifier",
)
"""Benchmarks of the default inversion, which are measured again with another one in its place (`by_method`)."""


def check_methods(name: str, methods: Collection[str]) -> None:
    """Raise UsageError if a benchmark cannot measure these inversions beside its own."""
    from treering_verify.inversion.decoder import METHODS

    if methods and name not in (*BY_METHOD, *BY_DEFAULT):
        raise UsageError(
            f"{name} takes no --method: leave it out. These take it: {', '.join((*BY_METHOD, *BY_DEFAULT))}"
        )
    others = [method for method in methods if method not in METHODS]
    if others and name not in BY_DEFAULT:
        raise UsageError(
            f"{name} compares decoder inversions, and {others[0]} is a noise inversion. These take it: "
            f"{', '.join(BY_DEFAULT)}"
        )


SHARED = ("robustness", "survival", "forgery", "annulus-pareto")
"""Benchmarks that several processes may share."""


def format_group(group: Group) -> str:
    """Return the heading of a group and two lines for each benchmark: name and question, published source and minutes."""
    width = max(map(len, BENCHMARKS))
    lines = [f"{group}: {GROUPS[group]}"]
    for benchmark in (one for one in BENCHMARKS.values() if one.group == group):
        lines.append(f"  {benchmark.name:{width}}  {benchmark.question}")
        lines.append(f"  {'':{width}}  {'; '.join(_facts(benchmark))}")
    return "\n".join(lines)


def _facts(benchmark: Benchmark) -> Iterator[str]:
    quick, full = MINUTES.get(benchmark.name, (None, None))
    yield f"--quick: {_said(quick)}, full: {_said(full)}"
    if benchmark.published:
        yield f"published: {benchmark.published}"
    if benchmark.name in SHARED:
        yield "may be shared (--workers)"


def _said(minutes: float | None) -> str:
    if minutes is None:
        return "not timed"
    return "under 1 min" if minutes < 1 else f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def plan_of_docs(finished: Collection[str]) -> tuple[list[str], str]:
    """Return the benchmarks of `--preset docs` that are left to run, and a sentence that says how long they take."""
    left = [name for name in DOCS if name not in finished]
    parts = [f"{name} {_said(DOCS[name].minutes)}" for name in left]
    done = f"finished already: {', '.join(name for name in DOCS if name in finished)}. " if finished else ""
    whole = _said(sum(DOCS[name].minutes for name in left)) if left else "nothing"
    return left, f"{done}To run: {', '.join(parts) or 'none'}; together {whole} of one processor."
