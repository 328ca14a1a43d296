"""Filters that are fitted to one model: image -> latent -> noise estimate, by linear maps of a few latent pixels.

`treering models fit` makes an `Inverter`, and `inversion.filtered` runs it. It holds, for each of a few kinds of attack (the
experts), linear filters on k x k neighbourhoods of what the model's own passes return, and a rule that says from the image
alone how much of each expert to take. No key takes part in the fit or in the rule, so p-values stay exact.

The arithmetic is here, the model's passes are not: every method takes tensors and returns tensors.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from treering_verify.errors import ModelError, UsageError
from treering_verify.files import printable, write_atomic
from treering_verify.models.checks.json_files import parsed_object, read_regular
from treering_verify.models.filter_bank import Activity, Chooser, CorrectedBank, FilterBank
from treering_verify.models.protocol import LatentModel
from treering_verify.models.weights import fingerprint

if TYPE_CHECKING:
    import torch

KIND = "treering inverter"
VERSION, CORRECTED, GATED = 1, 3, 4  # the second has a network, the third a gate and an activity
CONFIG, WEIGHTS, CARD = "config.json", "filters.safetensors", "README.md"
_LEARNED = ("screen", "refine", "estimate")  # networks beside the model, which the filters do not use
_AUTOENCODER = "autoencoder"  # field of the tie of filters that were fitted to an autoencoder alone
# Weights are digested once, not for each use.
_FINGERPRINTS: WeakKeyDictionary[LatentModel, dict[bool, str]] = WeakKeyDictionary()
_MOST_BYTES = 1 << 28
LEAST_BOUND = 4.0  # of `Inverter.bounds`, as for learned steps
_BOUNDS = "guard.bounds"
_RULE = ("mean", "deviation", "weights", "bias")  # of a chooser
_NETWORK = "network"  # of the noise filters
_MOST_WIDTH, _MOST_BLOCKS = 1024, 64


@dataclass(frozen=True, eq=False)
class Inverter:
    """Fitted filters of one model; it is found in a folder by `load`.

    Attributes
    ----------
    experts : tuple of str
        Names of the kinds of attack that filters were fitted to.
    chooser : Chooser
    stages : tuple of FilterBank
        Decoder inversion: stage k maps `decoder_inputs` at z_k to z_(k+1) - z_k, z_0 being E(x).
    screen : FilterBank or None
        The noise from the first stage's inputs: no pass of the diffusion network.
    noise : FilterBank or None
        The noise from `noise_inputs`, with a network on top if it is a `CorrectedBank`. None, as `screen`, where an
        autoencoder was fitted alone.
    bounds : (J,) float32
        How often the residual of E(x) each expert's residuals may be, before the decoder inversion falls back.
    steps : int
        Steps of the naive noise inversion that `noise` takes points from.
    points : tuple of int
        Those points, ascending: k is what k steps have made of the latent.
    tie : dict
        What the filters belong to: fingerprints of weights and sampler, image size, latent shape, tile.
    facts : dict
        How they were fitted, and what the held-out report says.
    digest : str
        Digest of weights and configuration, 16 hexadecimal digits: what records call the filters.
    gate : Chooser or None
        Shares of the experts' steps in the decoder inversion, and last of no step at all. Without one the chooser's shares
        are taken.
    activity : Activity or None
        By which the stages' filters differ from place to place. It comes with a gate.
    """

    experts: tuple[str, ...]
    chooser: Chooser
    stages: tuple[FilterBank, ...]
    screen: FilterBank | None
    noise: FilterBank | None
    bounds: torch.Tensor
    steps: int
    points: tuple[int, ...]
    tie: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    digest: str = ""
    gate: Chooser | None = None
    activity: Activity | None = None

    def shares(self, statistics: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return how much of each expert is taken, (B, J) each: of its noise filters, and of its decoder inversion.

        The first sum to 1. So do the second, which are the same, unless there is a gate.
        """
        kinds = self.chooser(statistics)
        return kinds, kinds if self.gate is None else self.gate(statistics)[:, :-1]

    def save(self, folder: str | Path, card: str = "") -> Inverter:
        """Write weights (float16), configuration and card into a folder; return the filters as they will be read.

        Raises
        ------
        UsageError
            If the folder cannot be written.
        """
        from safetensors.torch import save

        target, data = Path(folder), save({name: part.half() for name, part in _tensors(self).items()})
        config = json.dumps({**_config(self), "facts": self.facts}, indent=2) + "\n"
        try:
            target.mkdir(parents=True, exist_ok=True)
            write_atomic(target / WEIGHTS, data)
            write_atomic(target / CARD, card.encode())
            write_atomic(target / CONFIG, config.encode())  # last: a folder without it holds no inverter
        except OSError as error:
            raise UsageError(f"cannot write {printable(str(target))}: {error.strerror}") from error
        return self.load(target)

    @classmethod
    def load(cls, folder: str | Path) -> Inverter:
        """Read the filters of a folder.

        Raises
        ------
        ModelError
            If there are none, they are damaged, or of another version.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        source, shown = Path(folder), printable(str(folder))
        try:
            config, data = (_read(source / name) for name in (CONFIG, WEIGHTS))
            record = parsed_object(config)
            if record.get("type") != KIND:
                raise ModelError(f"{shown} holds no inverter: make one with treering models fit MODEL --output DIR")
            if record["version"] not in (VERSION, GATED, CORRECTED):
                raise ModelError(f"the inverter {shown} is of version {record['version']}: fit the model again")
            found = _from_parts(record, {name: part.float() for name, part in load(data).items()})
        except OSError as error:
            raise ModelError(
                f"cannot read the inverter {shown}: {error.strerror}; make one with treering models fit MODEL --output DIR"
            ) from error
        except (ValueError, LookupError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
            raise ModelError(f"the inverter {shown} is damaged ({error!r:.80}): fit the model again") from error
        return replace(found, digest=_digest(found, data))

    def differences(self, model: LatentModel) -> list[str]:
        """Return what is different about the model that the filters were fitted to; empty for that model."""
        mine, theirs = self.tie, tie_of(model, alone=_AUTOENCODER in self.tie)
        return [f"{name} {mine.get(name)}, not {theirs[name]}" for name in theirs if mine.get(name) != theirs[name]]

    def check(self, model: LatentModel) -> None:
        """Raise ModelError, with the reason, unless the filters were fitted to this model as it is loaded."""
        if differences := self.differences(model):
            raise ModelError(
                f"the inverter (of {printable(str(self.facts.get('model', 'another model')))}) was fitted to "
                f"{printable('; '.join(differences))}: load the model as it was fitted, or fit {printable(model.name)} as "
                "you load it with treering models fit"
            )


def decoder_inputs(
    start: torch.Tensor,
    points: Sequence[torch.Tensor],
    residuals: Sequence[torch.Tensor],
    activity: Activity | None = None,
) -> torch.Tensor:
    """Return the inputs of a stage: E(x), its residual, and the steps and residuals of the points after it.

    Parameters
    ----------
    start : (B, C, h, w)
        E(x), which is the first point too.
    points, residuals : sequences of (B, C, h, w)
        z_0 .. z_k and r(z) = E(D(z)) - E(x) at each.
    activity : Activity, optional
        That of filters which differ from place to place: these read all of it once more, times the activity of E(x).
    """
    import torch

    steps = [point - start for point in points[1:]]
    inputs = torch.cat([start, *residuals, *steps], dim=1)
    return activity.weighted(inputs, start.shape[1]) if activity else inputs


def noise_inputs(trajectory: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the inputs of the noise filter: the latent, and how each point differs from the one before, (B, P C, h, w).

    Parameters
    ----------
    trajectory : sequence of P tensors (B, C, h, w)
        The latent, and the points of the noise inversion that are read. Their differences are less alike than they are.
    """
    import torch

    steps = [later - earlier for earlier, later in pairwise(trajectory)]
    return torch.cat([trajectory[0], *steps], dim=1)


def tie_of(model: LatentModel, *, alone: bool = False) -> dict[str, Any]:
    """Return what ties filters to a model: its weights, sampler, sizes and tiles, JSON-ready.

    Parameters
    ----------
    model : LatentModel
    alone : bool
        Whether the filters belong to its autoencoder, and so to every model that has it.
    """
    digests = _FINGERPRINTS.setdefault(model, {})
    if alone not in digests:
        digests[alone] = fingerprint(model, only=("_vae",)) if alone else fingerprint(model, without=_LEARNED)
    owner = (
        {_AUTOENCODER: digests[True], "scale": _scale(model)}
        if alone
        else {"weights": digests[False], "sampler": _configured(model)}
    )
    sizes = {"image_size": list(model.image_size), "latent_shape": list(model.latent_shape), "tile": model.tile}
    return {**owner, **sizes}


def _scale(model: LatentModel) -> list[Any]:
    """Return how an autoencoder's latents are shifted and scaled."""
    config = getattr(getattr(model, "_vae", None), "config", {})
    return [config.get(name) for name in ("scaling_factor", "shift_factor", "latents_mean", "latents_std")]


def _configured(model: LatentModel) -> str:
    """Return a digest of what changes a model's numbers beside its weights: its scheduler, and its latents' scale."""
    parts = {}
    for name in ("_scheduler", "_vae"):
        config = dict(getattr(getattr(model, name, None), "config", {}))
        parts[name] = {key: value for key, value in config.items() if not key.startswith("_")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def fitted(model: LatentModel) -> Inverter | None:
    """Return the filters that a model carries, or None."""
    return getattr(model, "inverter", None)


def carrying(model: LatentModel, inverter: Inverter | None) -> LatentModel:
    """Return a model that shares everything with another but carries these filters, or none; the other stays as it is."""
    other = copy.copy(model)
    other.inverter = inverter  # type: ignore[attr-defined]
    return other


def without_network(inverter: Inverter) -> Inverter:
    """Return the filters alone, where a network lies on top of them; others as they are."""
    bank = inverter.noise
    if not isinstance(bank, CorrectedBank):
        return inverter
    return replace(inverter, noise=FilterBank(bank.scale, bank.weights, bank.bias), digest="")


def attach(model: LatentModel, folder: str | Path) -> LatentModel:
    """Read the filters of a folder and let the model carry them; return the model.

    Raises
    ------
    ModelError
        If there are none, or they were fitted to another model.
    """
    found = Inverter.load(folder)
    found.check(model)
    model.inverter = found  # type: ignore[attr-defined]
    return model


def _tensors(inverter: Inverter) -> dict[str, torch.Tensor]:
    """Return all tensors of an inverter, by name."""
    banks = {**{f"stage{k}": bank for k, bank in enumerate(inverter.stages)}}
    banks.update({name: bank for name in ("screen", "noise") if (bank := getattr(inverter, name)) is not None})
    parts = {
        f"{name}.{field}": getattr(bank, field)
        for name, bank in banks.items()
        for field in ("scale", "weights", "bias")
    }
    rules = {"chooser": inverter.chooser, **({"gate": inverter.gate} if inverter.gate else {})}
    rule = {f"{name}.{field}": getattr(one, field) for name, one in rules.items() for field in _RULE}
    bank = inverter.noise
    network = bank.network.state_dict() if isinstance(bank, CorrectedBank) else {}
    learned = {f"{_NETWORK}.{name}": part for name, part in network.items()}
    return {name: part.contiguous() for name, part in {**parts, **rule, **learned, _BOUNDS: inverter.bounds}.items()}


def _config(inverter: Inverter) -> dict[str, Any]:
    """Return what gives the numbers their meaning, JSON-ready."""
    bank = inverter.noise
    network = {_NETWORK: dict(bank.network.config)} if isinstance(bank, CorrectedBank) else {}
    return {
        "type": KIND,
        "version": CORRECTED if network else GATED if inverter.gate else VERSION,
        "experts": list(inverter.experts),
        "stages": len(inverter.stages),
        "steps": inverter.steps,
        "points": list(inverter.points),
        "tie": inverter.tie,
        **({"activity": list(inverter.activity)} if inverter.activity else {}),
        **network,
    }


def _digest(inverter: Inverter, data: bytes) -> str:
    meaning = json.dumps(_config(inverter), sort_keys=True).encode()
    return hashlib.sha256(hashlib.sha256(data).digest() + meaning).hexdigest()[:16]


def _from_parts(record: dict[str, Any], parts: dict[str, torch.Tensor]) -> Inverter:
    import torch

    def bank(name: str) -> FilterBank:
        return FilterBank(*(parts[f"{name}.{field}"] for field in ("scale", "weights", "bias")))

    def rule(name: str) -> Chooser:
        return Chooser(*(parts[f"{name}.{field}"] for field in _RULE))

    experts, points = tuple(map(str, record["experts"])), tuple(map(int, record["points"]))
    found = Inverter(
        experts=experts,
        chooser=rule("chooser"),
        stages=tuple(bank(f"stage{k}") for k in range(int(record["stages"]))),
        screen=bank("screen") if "screen.weights" in parts else None,
        noise=_with_network(bank("noise"), record, parts) if "noise.weights" in parts else None,
        bounds=parts[_BOUNDS] if _BOUNDS in parts else torch.full((len(experts),), LEAST_BOUND),
        steps=int(record["steps"]),
        points=points,
        tie=dict(record["tie"]),
        facts=dict(record["facts"]),
        gate=rule("gate") if record["version"] == GATED else None,
        activity=Activity(*map(float, record["activity"])) if record["version"] == GATED else None,
    )
    _check_shapes(found)
    return found


def _with_network(bank: FilterBank, record: dict[str, Any], parts: dict[str, torch.Tensor]) -> FilterBank:
    """Return the noise filters with the network that a record describes, or as they are; ValueError if it does not fit."""
    if record["version"] != CORRECTED:
        return bank
    import torch

    from treering_verify.models.networks.correction import Correction

    config = {name: int(record[_NETWORK][name]) for name in ("inputs", "latent_channels", "width", "blocks")}
    sizes = config["inputs"], config["latent_channels"]
    if sizes != (len(bank.scale), bank.bias.shape[1]):
        raise ValueError(f"the network has {sizes} channels, which do not fit the filters")
    if not (0 < config["width"] <= _MOST_WIDTH and 0 <= config["blocks"] <= _MOST_BLOCKS):
        raise ValueError("the network is larger than any that a fit makes")
    with torch.random.fork_rng(devices=[]):  # first weights are drawn and overwritten
        network = Correction(**config).requires_grad_(False).eval()
    own = {name: part for name, part in parts.items() if name.startswith(f"{_NETWORK}.")}
    network.load_state_dict({name.removeprefix(f"{_NETWORK}."): part for name, part in own.items()})
    return CorrectedBank(bank.scale, bank.weights, bank.bias, network)


def _check_shapes(inverter: Inverter) -> None:
    """ValueError unless every part has the shape that the configuration says, and finite numbers."""
    import torch

    channels, count = int(inverter.tie["latent_shape"][0]), len(inverter.experts)
    times = 2 if inverter.activity else 1
    inputs = {f"stage{k}": times * 2 * channels * (k + 1) for k in range(len(inverter.stages))}
    inputs |= {"screen": 2 * channels, "noise": channels * (1 + len(inverter.points))}
    parts = _tensors(inverter)
    for name, wide in inputs.items():
        if f"{name}.weights" in parts:
            kernel = parts[f"{name}.weights"].shape[-1]
            expected = {
                "scale": (wide,),
                "weights": (count, channels, wide, kernel, kernel),
                "bias": (count, channels),
            }
            for part, shape in expected.items():
                if tuple(parts[f"{name}.{part}"].shape) != shape:
                    raise ValueError(f"{name}.{part} has shape {tuple(parts[f'{name}.{part}'].shape)}, not {shape}")
    rules = [(inverter.chooser, count), *([(inverter.gate, count + 1)] if inverter.gate else [])]
    fit = all(rule.weights.shape == (rows, len(rule.mean)) and rule.bias.shape == (rows,) for rule, rows in rules)
    if not fit or inverter.bounds.shape != (count,):
        raise ValueError("the chooser, the gate or the bounds do not fit the experts")
    numbers = torch.tensor(inverter.activity or (0.0, 1.0))
    if (
        not all(bool(part.isfinite().all()) for part in (*parts.values(), numbers))
        or not inverter.stages
        or numbers[1] <= 0
    ):
        raise ValueError("numbers are missing or not finite")


def _read(path: Path) -> bytes:
    return read_regular(path, _MOST_BYTES)
