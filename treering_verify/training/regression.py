"""Ridge regression of images on k x k neighbourhoods of other images: a convolution in closed form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

    from treering_verify.models.filter_bank import FilterBank

# Penalties tried, in units of the inputs' power: below the first, sums in float32 are no longer exact enough; the last
# leaves the base alone, for targets that the inputs say nothing about.
RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e6)
_MOST_CELLS = 2048  # of an image that take part; drawn at random where a latent has more
_MOST_ROWS = 1700  # inputs of a regression: its time grows with their third power, and so many take seconds
VALIDATION = 4  # every fourth image chooses the penalty
# Of filters drawn to those of each channel alone: the penalty of these, and how much more neighbours pay than the cell.
_OWN_RIDGE, _FAR = 1e-3, 30.0
# Shares of a step that are tried, and by how many dB the error of an image may grow: a third of what three steps may add.
SHARES, WORSE = (1.0, 0.5, 0.25, 0.0), 0.03


class Fit(NamedTuple):
    """A fitted filter of one expert.

    Attributes
    ----------
    scale : (C_in,) float32
        Root mean square of each input channel.
    weights : (C_out, C_in, k, k) float32
        In units of `scale`.
    bias : (C_out,) float32
    side : int
        The neighbourhood that validation chose; weights beyond it are zero.
    ridge : float
        The penalty that validation chose.
    explained : float
        Share of the target's power that the filter explains on the validation images.
    share : float
        Share of the regression's weights that is taken; 0 where the filter does nothing.
    apart : tuple of (weights, bias)
        The same filter as each of four quarters of the images would be given by the other three, image i lying in quarter
        i % 4; empty unless asked for.
    """

    scale: torch.Tensor
    weights: torch.Tensor
    bias: torch.Tensor
    side: int
    ridge: float
    explained: float
    share: float = 1.0
    apart: tuple[tuple[torch.Tensor, torch.Tensor], ...] = ()

    def facts(self) -> dict[str, Any]:
        """Return what validation chose, and what the filter explains there, JSON-ready."""
        found = {"kernel": self.side, "ridge": self.ridge, "explained": round(self.explained, 4)}
        return found if self.share == 1 else {**found, "share": self.share}


def fit_filter(
    inputs: torch.Tensor,
    target: torch.Tensor,
    kernel: int,
    *,
    base: torch.Tensor | None = None,
    harmless: bool = False,
    own: bool = False,
    apart: bool = False,
    seed: int = 0,
) -> Fit:
    """Fit target = W * inputs + b, with the penalty and the neighbourhood that are best on every fourth image.

    Minimises |target - W * inputs - b|^2 + n ridge |W - a base|^2 over neighbourhoods of inputs in units of their scale, up
    to `kernel` on a side, where a is the best factor of `base` alone, by channel. All images take part in the last fit.

    Parameters
    ----------
    inputs : (n, C_in, h, w)
    target : (n, C_out, h, w)
    kernel : int
        Largest k, odd; smaller where the inputs have many channels (`reach`).
    base : (C_out, C_in), optional
        A pointwise filter that W is drawn to, such as the naive estimate; zero when left out.
    harmless : bool
        Whether the filter is a step that may not make an image worse: of its weights the largest share is taken, down to
        none, at which no validation image ends more than 0.03 dB above its start.
    own : bool
        Whether W is drawn to the filter that each output has from its own channel of every group of inputs, and weights
        of neighbours to nothing else 30 times as much as those of the cell: for many channels and few images.
    apart : bool
        Whether to return `Fit.apart` too. Penalty and neighbourhood are chosen on each quarter in turn then.
    seed : int
        Seed of the draw of the cells that take part, where a latent has more than 2048.
    """
    import torch

    count, channels = inputs.shape[:2]
    kernel = reach(channels, kernel)
    scale = inputs.float().square().mean(dim=(0, 2, 3)).sqrt().clamp_min(1e-6)
    held = [i for i in range(count) if i % VALIDATION == VALIDATION - 1] if count >= VALIDATION else []
    fitting = [i for i in range(count) if i not in held]
    generator = torch.Generator().manual_seed(seed)

    def moments_of(images: list[int]) -> _Moments:
        return _moments(inputs, target, images, scale, kernel, generator)

    quarters = [moments_of(list(range(k, count, VALIDATION))) for k in range(VALIDATION)] if apart else []
    train = _sum(quarters[:-1]) if apart else moments_of(fitting)
    check = quarters[-1] if apart else moments_of(held) if held else train
    start = torch.zeros(len(train.gram), target.shape[1], dtype=torch.float64)
    if base is not None:
        centres = torch.arange(channels) * kernel**2 + kernel**2 // 2
        start[centres] = (base * scale).T.double()

    rows_of = {side: _within(channels, kernel, side) for side in range(1, kernel + 1, 2)}
    prices = torch.full((len(train.gram),), _FAR if own else 1.0, dtype=torch.float64)
    prices[rows_of[1]] = 1.0

    def solved(moments: _Moments, side: int, ridge: float) -> torch.Tensor:
        rows = rows_of[side]
        if own:
            drawn = _own_filters(moments, rows, kernel)
        else:
            power = (start * (moments.gram @ start)).sum(dim=0).clamp_min(1e-12)
            drawn = start * ((start * moments.cross).sum(dim=0) / power)
        whole = drawn.clone()
        gram, left = moments.gram[rows][:, rows], (moments.cross - moments.gram @ drawn)[rows]
        whole[rows] += _solve(gram, left, ridge * prices[rows], float(moments.cells))
        return whole

    others = [_sum(quarters[:k] + quarters[k + 1 :]) for k in range(len(quarters))]
    tried = list(zip(others, quarters, strict=True)) if apart else [(train, check)]

    def error_of(side: int, ridge: float, share: float = 1.0) -> float:
        return sum(_error(judge, share * solved(some, side, ridge)) for some, judge in tried)

    side, ridge = min(((side, ridge) for side in rows_of for ridge in RIDGES), key=lambda each: error_of(*each))
    share = 1.0
    if harmless:
        share = _harmless_share(solved(train, side, ridge), inputs, target, held or fitting, scale, kernel)
    both = _sum([train, check]) if held else train

    def shaped(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        taken = (share * weights).float()
        return taken[:-1].T.reshape(-1, channels, kernel, kernel), taken[-1]

    weights, bias = shaped(solved(both, side, ridge))
    return Fit(
        scale,
        weights,
        bias,
        side,
        ridge,
        1 - error_of(side, ridge, share) / max(sum(float(judge.power) for _, judge in tried), 1e-30),
        share,
        tuple(shaped(solved(one, side, ridge)) for one in others),
    )


def reach(channels: int, kernel: int) -> int:
    """Return the largest side of a filter, at most `kernel`: 5 for up to 67 input channels, 3 for up to 188."""
    return next(side for side in range(kernel, 0, -2) if side == 1 or channels * side**2 < _MOST_ROWS)


def bank_of(fits: list[Fit]) -> FilterBank:
    """Return one bank of the experts' filters, all in the same units."""
    import torch

    from treering_verify.models.filter_bank import FilterBank

    scale = torch.stack([fit.scale for fit in fits]).square().mean(dim=0).sqrt()
    weights = torch.stack([fit.weights * (scale / fit.scale)[None, :, None, None] for fit in fits])
    return FilterBank(scale, weights, torch.stack([fit.bias for fit in fits]))


def _harmless_share(
    weights: torch.Tensor,
    inputs: torch.Tensor,
    target: torch.Tensor,
    images: list[int],
    scale: torch.Tensor,
    kernel: int,
) -> float:
    """Return the largest share of a step at which the error of no image grows; `target` is what the images lack."""
    import torch

    worst = torch.zeros(len(SHARES), dtype=torch.float64)
    for i in images:
        step = weights.T.float() @ _columns(inputs[i : i + 1].float() / scale[:, None, None], kernel)
        missing = target[i].float().flatten(1)
        left = torch.stack([(missing - share * step).double().square().sum() for share in SHARES])
        worst = torch.maximum(worst, left / left[-1].clamp_min(1e-30))
    limit = 10 ** (WORSE / 10)
    return next(share for share, ratio in zip(SHARES, worst.tolist(), strict=True) if ratio <= limit or not share)


class _Moments(NamedTuple):
    """Sums over cells, float64: X X^T, X Y^T, |Y|^2, and their count."""

    gram: torch.Tensor
    cross: torch.Tensor
    power: torch.Tensor
    cells: torch.Tensor


def _sum(parts: list[_Moments]) -> _Moments:
    return _Moments(*(sum(some[1:], start=some[0]) for some in zip(*parts, strict=True)))


def _moments(
    inputs: torch.Tensor,
    target: torch.Tensor,
    images: list[int],
    scale: torch.Tensor,
    kernel: int,
    generator: torch.Generator,
) -> _Moments:
    """Sum up over images one at a time: memory does not grow with their number."""
    import torch

    rows = inputs.shape[1] * kernel**2 + 1
    gram = torch.zeros(rows, rows, dtype=torch.float64)
    cross = torch.zeros(rows, target.shape[1], dtype=torch.float64)
    power, cells = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for i in images:
        x, y = _columns(inputs[i : i + 1].float() / scale[:, None, None], kernel), target[i].float().flatten(1)
        if x.shape[1] > _MOST_CELLS:
            pick = torch.randperm(x.shape[1], generator=generator)[:_MOST_CELLS]
            x, y = x[:, pick], y[:, pick]
        gram += (x @ x.T).double()
        cross += (x @ y.T).double()
        power += y.double().square().sum()
        cells += x.shape[1]
    return _Moments(gram, cross, power, cells)


def _columns(image: torch.Tensor, kernel: int) -> torch.Tensor:
    """Return the neighbourhood of every cell, and a one: (1, C, h, w) -> (C k^2 + 1, h w)."""
    import torch
    from torch.nn import functional

    padded = functional.pad(image, (kernel // 2,) * 4, mode="replicate")
    columns = functional.unfold(padded, kernel)[0]
    return torch.cat([columns, torch.ones_like(columns[:1])])


def _within(channels: int, kernel: int, side: int) -> torch.Tensor:
    """Return the rows of `_columns` that lie within side x side around the cell, and the row of ones."""
    import torch

    inner = torch.arange(kernel).sub(kernel // 2).abs() <= side // 2
    taps = (inner[:, None] & inner[None, :]).flatten().repeat(channels)
    return torch.cat([taps, torch.ones(1, dtype=torch.bool)]).nonzero().flatten()


def _own_filters(moments: _Moments, rows: torch.Tensor, kernel: int) -> torch.Tensor:
    """Return the filters that each output has from its own channel of every group of inputs alone."""
    import torch

    found = torch.zeros_like(moments.cross)
    outputs, constant = found.shape[1], rows == len(found) - 1
    for channel in range(outputs):
        mine = rows[(rows // kernel**2 % outputs == channel) | constant]
        prices = torch.full((len(mine),), _OWN_RIDGE, dtype=torch.float64)
        cross = moments.cross[mine, channel : channel + 1]
        found[mine, channel] = _solve(moments.gram[mine][:, mine], cross, prices, float(moments.cells))[:, 0]
    return found


def _solve(gram: torch.Tensor, cross: torch.Tensor, ridges: torch.Tensor, count: float) -> torch.Tensor:
    """Return (X X^T + n diag(ridges))^-1 X Y^T, the bias unpenalised: (rows, C_out)."""
    import torch

    penalty = ridges * count
    penalty[-1] = 1e-12 * count
    return torch.linalg.solve(gram + torch.diag(penalty), cross)


def _error(moments: _Moments, weights: torch.Tensor) -> float:
    """Return the squared error of a filter from the sums alone: |Y|^2 - 2 <W, X Y^T> + <W, X X^T W>."""
    return float(moments.power - 2 * (weights * moments.cross).sum() + (weights * (moments.gram @ weights)).sum())
