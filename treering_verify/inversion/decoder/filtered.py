"""Linear filters that were fitted to one autoencoder in closed form: a few steps, each from all residuals so far."""

from __future__ import annotations

from treering_verify.errors import UsageError
from treering_verify.inversion.decoder.loop import encode
from treering_verify.inversion.decoder.problem import Problem, Settings, norm
from treering_verify.inversion.decoder.solution import Solution
from treering_verify.models.attack_statistics import statistics
from treering_verify.models.inverter import decoder_inputs

# A relative residual that is no reason for doubt, where E is nearly the inverse of D and the start's is next to nothing.
_HARMLESS = 0.1


def filtered_steps(problem: Problem, settings: Settings) -> Solution:
    """Invert the decoder by steps of the model's filters W: z_(k+1) = z_k + W_k [E(x), r(z_0), .., r(z_k), z_1 - z_0, ..].

    W_k is a linear map of k x k latent pixels, fitted by ridge regression to z_0 - z_k on images that the model made
    (`treering models fit`). There is one for each of several kinds of attack, and the image alone says how much of each is
    taken (`Solution.shares`). Cost: a decoder and an encoder pass a step, and one evaluation more, which is the safeguard
    of `learned_steps`: an item ends at its last point whose residual is finite and at most so many times the start's as the
    fit found usual under that kind of attack (`Inverter.bounds`, four at least), or a tenth of E(x). Where that is the
    start itself it "diverged". At most `settings.iterations` steps.

    Raises
    ------
    UsageError
        If the model carries no filters.
    """
    import torch

    filters = problem.filters
    if filters is None:
        raise UsageError(
            "this model carries no fitted filters: make them with treering models fit and name them with --inverter, or "
            "choose another decoder inversion, such as forward-step"
        )
    stages = filters.stages[: settings.iterations]
    with torch.inference_mode():
        start = encode(problem)
        scale = norm(start).clamp_min(1e-12)
        rows = torch.arange(len(start), device=start.device)
        points, residuals = [start], list[torch.Tensor]()
        shares = taken = None
        for k in range(len(stages) + 1):
            if problem.watch:
                problem.watch(k, rows, points[-1])
            output = problem.decode(points[-1])
            residuals.append(problem.encode(output) - start)  # r(z_k) = E(D(z_k)) - E(x)
            if shares is None:
                shares, taken = filters.shares(statistics(problem.image, start, residuals[0], output))
            if k < len(stages) and taken is not None:
                inputs = decoder_inputs(start, points, residuals, filters.activity)
                points.append(points[-1] + stages[k](inputs, taken))
        assert shares is not None and taken is not None  # the loop runs once at least
        trace = torch.stack([norm(residual) / scale for residual in residuals])
        bound = shares @ filters.bounds.to(shares.device)
        acceptable = trace <= (bound * trace[0]).clamp_min(_HARMLESS)  # False for NaN
        steps = torch.where(acceptable, torch.arange(len(points), device=rows.device)[:, None], 0).max(dim=0).values
        latent, remainder = (torch.stack(some)[steps, rows] for some in (points, residuals))
    return Solution(
        latent=latent.clone(),
        residual=trace[steps, rows],
        trace=trace,
        iterations=steps,
        status=tuple("refined" if k or not stages else "diverged" for k in steps.tolist()),
        shares=None if shares is None else shares.clone(),
        remainder=remainder.clone(),
    )
