"""The decoder inversions that benchmarks compare, by family, each with the iteration counts at which it is read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from treering_verify.benchmark.harness.scope import Scope
from treering_verify.inversion.decoder import DEFAULTS, METHODS, Settings, default_method, unstopped
from treering_verify.inversion.recovery import InversionOptions
from treering_verify.models import LatentModel, device_of
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
    precision: str = "float32"

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


PUBLISHED_STEPS = {"forward-step": 1.0, "inertial-km": 1.0, "adam": 0.01, "gradient": 0.1}
"""Step of each published method as its paper or, for the first two, as this toolkit sets it."""
SWEEP = {
    "forward-step": (0.3, 0.1, 0.03),
    "inertial-km": (0.3, 0.1, 0.03),
    "adam": (0.003, 0.001),
    "gradient": (0.03, 0.3),
}
"""Other steps of each published method, of which a sweep takes the best."""


def sixteen_bits(device: str) -> tuple[str, ...]:
    """Return the 16-bit precisions to measure on a device; processors have no units for float16."""
    return ("bfloat16",) if device == "cpu" else ("bfloat16", "float16")


def compared_precision(model: LatentModel, scope: Scope) -> str:
    """Return the 16-bit precision that is compared with 32 bits.

    A quick run compares none where the processor emulates 16 bits, which takes ten times as long.
    """
    device = device_of(model)
    emulate = not scope.quick if scope.emulate is None else scope.emulate
    return sixteen_bits(device)[-1] if emulate or device != "cpu" or not emulates_sixteen_bits() else ""


def emulates_sixteen_bits() -> bool:
    """Return whether this processor has no units that multiply in 16 bits, as far as torch knows."""
    import torch

    known = (getattr(torch.cpu, f"_is_{unit}_supported", None) for unit in ("avx512_bf16", "amx_tile"))
    return not any(supported() for supported in known if supported is not None)


def published(longest: int, sixteen: str = "") -> list[Variant]:
    """Return both published families as published: stopped by the budget alone, up to `longest` iterations.

    With `sixteen`, a 16-bit precision, the gradient-free rows of table 1 come in that precision too.
    """
    adam = _scheduled("adam", "adam .01 scheduled", GRADIENT_FREE, _upto(longest, 20, 50, 100, 200))
    lower = [replace(v, label=f"{v.label}, 16-bit", precision=sixteen) for v in adam if v.budgets[0] <= 50]
    return [
        Variant("encoder", BASELINE, "encoder", DEFAULTS["encoder"], (0,)),
        *_scheduled("gradient", "gradient .1 scheduled", GRADIENT, _upto(longest, 20, 30, 50, 100)),
        _long("gradient", _upto(longest, 20, 30, 50, 100), "gradient .01 fixed", GRADIENT, step=0.01),
        _long("forward-step", _upto(longest, *_FEW, 30, 50, 100), "forward-step", GRADIENT_FREE),
        _long("inertial-km", _upto(longest, *_FEW, 30, 50, 100), "inertial-km", GRADIENT_FREE),
        *adam,
        *(lower if sixteen else []),
    ]


def fixed_adam(longest: int) -> list[Variant]:
    """Return Adam with fixed steps, as in the paper's ablation."""
    budgets = _upto(longest, 20, 50, 100, 200)
    return [_long("adam", budgets, f"adam {step:g} fixed", GRADIENT_FREE, step=step) for step in (0.01, 0.002)]


def swept(longest: int, *, few: bool = False) -> dict[str, list[Variant]]:
    """Return, by the label of each published method of `published`, the same method with other steps.

    Scheduled methods have the budgets of the paper up to `longest`; fixed steps are read along one path. With `few`, methods
    without a schedule have one other step and few iterations, and the others the fixed steps that tables 1 and S2 have.
    """
    found: dict[str, list[Variant]] = {}
    for method in ("forward-step", "inertial-km"):
        steps, most = (SWEEP[method][:1], min(longest, 5)) if few else (SWEEP[method], longest)
        budgets = _upto(most, *_FEW, 30, 50, 100)
        found[method] = [_long(method, budgets, f"{method} {s:g}", GRADIENT_FREE, step=s) for s in steps]
    if few:
        gradient = [v for v in published(longest) if v.label == "gradient .01 fixed"]
        return {**found, "adam .01 scheduled": fixed_adam(longest), "gradient .1 scheduled": gradient}
    for method, family in (("adam", GRADIENT_FREE), ("gradient", GRADIENT)):
        label = f"{method} {f'{PUBLISHED_STEPS[method]:g}'.lstrip('0')} scheduled"
        found[label] = [
            replace(v, label=f"{method} {s:g} scheduled", settings=replace(v.settings, step=s))
            for s in SWEEP[method]
            for v in _scheduled(method, label, family, _upto(longest, 20, 50))
        ]
    return found


_FEW = (1, 2, 3, 5, 10, 20)


def _upto(longest: int, *budgets: int) -> tuple[int, ...]:
    return tuple(n for n in budgets if n <= longest) or (longest,)


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
    return named(METHODS.added)


def named(methods: Iterable[str]) -> list[Variant]:
    """Return methods by their names, each with its own default settings."""
    return [Variant(name, ADDED, name, DEFAULTS[name], (DEFAULTS[name].iterations,)) for name in methods]


def pipelines(model: LatentModel, scope: Scope) -> dict[str, InversionOptions]:
    """Return the inversions by which keys are classified: three published ones, the default, and those of `--method`.

    The published methods run their published number of iterations, without early stopping, 2 in a quick run. All but the
    default are followed by the `naive` noise inversion, since the published rules assume white noise.
    """

    def upto(method: str) -> Settings:
        settings = unstopped(DEFAULTS[method])
        return replace(settings, iterations=2) if scope.quick else settings

    return {
        "encoder": InversionOptions(method="encoder", noise_method="naive"),
        "gradient": InversionOptions(method="gradient", settings=upto("gradient"), noise_method="naive"),
        "gradient-free": InversionOptions(method="adam", settings=upto("adam"), noise_method="naive"),
        "ours": InversionOptions(),
        **{name: InversionOptions(method=name) for name in scope.methods},
    }


def _posterior(iterations: int) -> Variant:
    settings = replace(DEFAULTS["posterior-mode"], iterations=iterations)
    return Variant("posterior-mode", OURS, "posterior-mode", settings, (iterations,))


def _learned(*budgets: int) -> list[Variant]:
    return [Variant("learned", OURS, "learned", replace(DEFAULTS["learned"], iterations=n), (n,)) for n in budgets]
