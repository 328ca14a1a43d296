"""The decoder inversions that benchmarks compare, by family, each with the iteration counts at which it is read."""

from __future__ import annotations

from dataclasses import dataclass, replace

from treering_verify.inversion.decoder import DEFAULTS, METHODS, Settings, default_method, unstopped
from treering_verify.models import LatentModel
from treering_verify.models.inverter import fitted

BASELINE, GRADIENT, GRADIENT_FREE, OURS, ADDED = "baseline", "gradient", "gradient-free", "ours", "added"
PUBLISHED = (BASELINE, GRADIENT, GRADIENT_FREE)


@dataclass(frozen=True)
class Variant:
    """A method with settings; `budgets` are the iteration counts to report, the last one being the longest run."""

    label: str
    family: str
    method: str
    settings: Settings
    budgets: tuple[int, ...]
    is_default: bool = False

    @property
    def one_point(self) -> bool:
        """Whether only the last iterate is a result: a schedule depends on its length, and fitted steps are one unit."""
        return self.settings.scheduled or self.method in ("learned", "filtered")


def _long(method: str, budgets: tuple[int, ...], label: str, family: str, **changes: float) -> Variant:
    settings = unstopped(replace(DEFAULTS[method], iterations=budgets[-1], scheduled=False))
    return Variant(label, family, method, replace(settings, **changes), budgets)  # type: ignore[arg-type]


def _scheduled(method: str, label: str, family: str, budgets: tuple[int, ...]) -> list[Variant]:
    """Return one variant per budget, since a schedule depends on the number of iterations."""
    return [
        Variant(label, family, method, replace(unstopped(DEFAULTS[method]), iterations=n, scheduled=True), (n,))
        for n in budgets
    ]


def published(longest: int) -> list[Variant]:
    """Return both published families as published: stopped by the budget alone, up to `longest` iterations."""

    def upto(*budgets: int) -> tuple[int, ...]:
        return tuple(n for n in budgets if n <= longest) or (longest,)

    few = (1, 2, 3, 5, 10, 20)
    return [
        Variant("encoder", BASELINE, "encoder", DEFAULTS["encoder"], (0,)),
        *_scheduled("gradient", "gradient .1 scheduled", GRADIENT, upto(20, 50, 100)),
        _long("gradient", upto(20, 50), "gradient .01 fixed", GRADIENT, step=0.01),
        _long("forward-step", upto(*few, 50), "forward-step", GRADIENT_FREE),
        _long("inertial-km", upto(*few), "inertial-km", GRADIENT_FREE),
        *_scheduled("adam", "adam .01 scheduled", GRADIENT_FREE, upto(20, 50)),
    ]


def stages_of(model: LatentModel) -> int:
    """Return how many steps the fitted filters of a model take; 0 if it carries none."""
    filters = fitted(model)
    return len(filters.stages) if filters else 0


def default(*, refined: bool, stages: int = 0) -> Variant:
    """Return the default of verification, early stopping included; `stages` as `stages_of` counts them."""
    method = default_method(refined=refined, filtered=stages > 0)
    settings = replace(DEFAULTS[method], iterations=stages) if stages else DEFAULTS[method]
    return Variant(f"{method} (default)", OURS, method, settings, (settings.iterations,), is_default=True)


def own(longest: int, *, refined: bool, stages: int = 0) -> list[Variant]:
    """Return the methods of this project, the default first, without bootstrap stopping; learned steps need a refiner."""
    few = tuple(n for n in (3, 5, 10, 20) if n <= longest)
    first = default(refined=refined, stages=stages)
    steps = (1, 2) if longest > few[0] else (1,)
    free = replace(DEFAULTS["gauss-newton"], iterations=steps[-1], early_stopping=False)
    return [
        first,
        _long("anderson", few, "anderson", OURS),
        Variant("gauss-newton", OURS, "gauss-newton", free, steps),
        *([v for v in _learned(1, 2, 3) if (v.method, v.budgets) != (first.method, first.budgets)] if refined else []),
        *([_posterior(min(50, 3 * longest))] if refined else []),
        *added(),
    ]


def attacked(longest: int, *, refined: bool, stages: int = 0) -> list[Variant]:
    """Return the methods that are compared on attacked images: the published ones, with their smallest budgets, and ours."""
    few = tuple(n for n in (3, 10) if n <= longest)
    smallest = min(20, longest)
    first = default(refined=refined, stages=stages)
    stopped = [Variant(m, OURS, m, DEFAULTS[m], (DEFAULTS[m].iterations,)) for m in ("forward-step", "anderson")]
    return [
        Variant("encoder", BASELINE, "encoder", DEFAULTS["encoder"], (0,)),
        *_scheduled("gradient", "gradient .1 scheduled", GRADIENT, (smallest,)),
        _long("forward-step", few, "forward-step, no stop", GRADIENT_FREE),
        _long("inertial-km", few, "inertial-km, no stop", GRADIENT_FREE),
        *_scheduled("adam", "adam .01 scheduled", GRADIENT_FREE, (smallest,)),
        first,
        *(v for v in stopped if v.method != first.method),
        *([v for v in _learned(1, 2, 3) if (v.method, v.budgets) != (first.method, first.budgets)] if refined else []),
        *([_posterior(min(50, 3 * longest))] if refined else []),
        *added(),
    ]


def added() -> list[Variant]:
    """Return the methods that users added, each with its own default settings."""
    return [Variant(name, ADDED, name, DEFAULTS[name], (DEFAULTS[name].iterations,)) for name in METHODS.added]


def _posterior(iterations: int) -> Variant:
    settings = replace(DEFAULTS["posterior-mode"], iterations=iterations)
    return Variant("posterior-mode", OURS, "posterior-mode", settings, (iterations,))


def _learned(*budgets: int) -> list[Variant]:
    return [Variant("learned", OURS, "learned", replace(DEFAULTS["learned"], iterations=n), (n,)) for n in budgets]
