"""A few steps of a network that was trained to undo one decoder, from the residual and the misfit."""

from __future__ import annotations

from treering_verify.decoder_inversion.driver import encode
from treering_verify.decoder_inversion.problem import Problem, Settings, norm
from treering_verify.errors import UsageError
from treering_verify.results import Inversion

_WORST = (
    4.0  # chosen by `python -m treering_verify.models.landscape.measure --learned-steps`, "residual of the true latent"
)


def learned(problem: Problem, settings: Settings) -> Inversion:
    """Learned steps: z <- z + N(E(x), z, r(z), x, D(z)), N being the model's refiner, trained to give E[z_0 | x] - z.

    Cost: one decoder, one encoder and one (small) refiner pass a step, one of the diffusion network for each noise
    level that the refiner looks at, and one evaluation more, which reports the residual and guards: an item whose
    residual ends at more than four times the start's, or not finite, goes back to the start ("diverged"). The
    residual may grow below that, and does where an image was attacked: the equation E(D(z)) = E(x) then asks for the
    attack too (docs/findings.md). Needs a model that has a refiner. Fails under attacks that its training did not
    see. On images that are not the model's its answer means nothing, but the p-value stays exact, as it looks at the
    image only.

    Raises
    ------
    UsageError
        If the model has no refiner.
    """
    import torch

    if problem.refine is None:
        raise UsageError("this model has no refiner: choose another inversion, or train one (models/landscape)")
    start = encode(problem)
    scale = norm(start).clamp_min(1e-12)
    z, trace = start, []
    rows = torch.arange(len(start))
    with torch.inference_mode():
        for k in range(settings.iterations + 1):
            if problem.watch:
                problem.watch(k, rows, z)
            output = problem.decode(z)
            residual = problem.encode(output) - start
            trace.append(norm(residual) / scale)
            if k < settings.iterations:
                z = z + problem.refine(start, z, residual, problem.image, output)
    kept = trace[-1] <= _WORST * trace[0]  # False for NaN
    wide = kept.view(-1, *[1] * (z.ndim - 1))
    steps = torch.where(kept, settings.iterations, 0)
    return Inversion(
        latent=torch.where(wide, z, start),
        residual=torch.where(kept, trace[-1], trace[0]),
        trace=torch.stack(trace),
        iterations=steps,
        status=tuple("refined" if k else "diverged" for k in kept.tolist()),
    )
