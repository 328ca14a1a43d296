"""A few steps of a network that was trained to invert one decoder, from the residual and the misfit."""

from __future__ import annotations

from treering_verify.errors import UsageError
from treering_verify.inversion.decoder.loop import encode
from treering_verify.inversion.decoder.problem import Problem, Settings, norm
from treering_verify.inversion.decoder.solution import Solution

_WORST = 4.0  # `python -m treering_verify.training.landscape.measure --learned-steps`: "residual of the true latent"


def learned_steps(problem: Problem, settings: Settings) -> Solution:
    """Invert the decoder by steps of the model's refiner N: z <- z + N(E(x), z, r(z), x, D(z)).

    N was trained to return E[z_0 | x] - z. Cost: one decoder, one encoder and one (small) refiner pass a step, one of the
    diffusion network for each noise level that the refiner asks for, and one evaluation more, which reports the residual and
    is the safeguard: an item ends at its last point whose residual is finite and at most four times the start's; where that
    is the start itself it "diverged". The residual may grow below that bound, and does where an image was attacked: solving
    E(D(z)) = E(x) then fits the attack too (docs/findings.md). Needs a model that has a refiner. Fails under attacks that
    its training lacked. On images of other models its latent means nothing, but the p-value stays exact, because the
    latent depends on the image alone.

    Raises
    ------
    UsageError
        If the model has no refiner.
    """
    import torch

    if problem.refine is None:
        raise UsageError("this model has no refiner: choose another decoder inversion, such as forward-step")
    start = encode(problem)
    scale = norm(start).clamp_min(1e-12)
    z, points, trace = start, [], []
    rows = torch.arange(len(start), device=start.device)
    with torch.inference_mode():
        for k in range(settings.iterations + 1):
            if problem.watch:
                problem.watch(k, rows, z)
            output = problem.decode(z)
            residual = problem.encode(output) - start  # r(z_k) = E(D(z_k)) - E(x)
            points.append(z)
            trace.append(norm(residual) / scale)
            if k < settings.iterations:
                z = z + problem.refine(start, z, residual, problem.image, output)
    residuals = torch.stack(trace)
    acceptable = residuals <= _WORST * residuals[0]  # False for NaN
    steps = torch.where(acceptable, torch.arange(len(points), device=rows.device)[:, None], 0).max(dim=0).values
    return Solution(
        latent=torch.stack(points)[steps, rows],
        residual=residuals[steps, rows],
        trace=residuals,
        iterations=steps,
        status=tuple("refined" if k or not settings.iterations else "diverged" for k in steps.tolist()),
    )
