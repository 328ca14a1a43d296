"""Train a network on top of a model's fitted noise filters, within a budget of time.

    own images --attack--> the default inversion --> inputs and estimate of the noise filters; a network adds what is missing

No key is read, so p-values stay exact. The network is taken only as far as it shows more of the noise on images that it did
not learn from, and under none of their attacks less.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from treering_verify.errors import UsageError
from treering_verify.models.filter_bank import CorrectedBank
from treering_verify.models.inverter import Inverter, without_network
from treering_verify.models.networks.correction import Correction
from treering_verify.training.attack_table import EXPERTS, OTHERS
from treering_verify.training.band import band_error, band_weights
from treering_verify.training.closed_form import check_same
from treering_verify.training.decoder_stages import evidence
from treering_verify.training.example_store import ExampleStore
from treering_verify.training.examples import FitOptions, Progress
from treering_verify.training.network_examples import EXAMPLES, make_examples, validation_examples
from treering_verify.training.trainer import Trainer

if TYPE_CHECKING:
    from treering_verify.models import LatentModel
    from treering_verify.training.example_store import Tensors

FOLDER, NAME = "training", "correction"  # of the subfolder, and of the checkpoint
_PARTS = ("inputs", "estimate", "noise")  # of examples
SHARES = (1.0, 0.75, 0.5, 0.25)  # of the network's output, that are tried
_FOR_EXAMPLES = 0.6  # of the budget
_LEAST_FILES = 2
_CPU = "cpu"


@dataclass(frozen=True)
class NetworkOptions:
    """How long the network on top of fitted filters is trained, and how large it is.

    Attributes
    ----------
    budget : float
        Seconds, of all runs together: 60 % make examples, and the rest trains.
    width, blocks : int
        Sizes of the network (`Correction`).
    batch_size : int
        Examples of a step.
    peak, decay : float
        Largest learning rate, and weight decay.
    seed : int
        Seed of the first weights and of the order of the examples.
    """

    budget: float = 1200.0
    width: int = 48
    blocks: int = 4
    batch_size: int = 16
    peak: float = 1e-3
    decay: float = 0.01
    seed: int = 4

    def __post_init__(self) -> None:
        if not self.budget > 0:
            raise UsageError(f"the budget is {self.budget:g} s: name a time, such as 20m or 2h")


def train_correction(
    model: LatentModel,
    inverter: Inverter,
    folder: str | Path,
    *,
    options: NetworkOptions | None = None,
    fit_options: FitOptions | None = None,
    attacks: Mapping[str, Sequence[str]] = EXPERTS,
    prompts: Sequence[str | None] | None = None,
    progress: Progress | None = None,
) -> Inverter:
    """Train a network on top of fitted noise filters, and return the filters with it, or without it if it does not pay.

    Parameters
    ----------
    model : LatentModel
        A model of images.
    inverter : Inverter
        Fitted to it, as `Inverter.load` reads it.
    folder : path
        The folder of the fit. Examples, checkpoint and log lie in its subfolder `training`; a run that was killed goes on
        there.
    options : NetworkOptions, optional
    fit_options, attacks, prompts, progress
        As `closed_form.fit` takes them.

    Returns
    -------
    Inverter
        Not saved yet. `facts["network"]` says what was trained, for how long, and what it brings by attack.

    Raises
    ------
    UsageError
        If an option is out of range, the inverter is of an autoencoder alone, or `folder` holds the training of another fit.
    """
    options, fit_options = options or NetworkOptions(), fit_options or FitOptions()
    bank = inverter.noise
    if bank is None:
        raise UsageError(
            "an autoencoder alone estimates no noise: a network on top needs a model that generates images"
        )
    texts = [text for some in attacks.values() for text in some] + list(OTHERS)
    filters = _filters(inverter)
    identity = _identity(filters, options, fit_options, texts, prompts)
    store = ExampleStore(Path(folder) / FOLDER, identity)
    tell = progress or (lambda what, done, total: None)

    validation = validation_examples(model, inverter, store, fit_options, attacks, prompts)
    allowed, spent = round(_FOR_EXAMPLES * options.budget), store.seconds()
    making = make_examples(model, inverter, store, fit_options, texts, prompts)
    while spent < allowed or len(store.files(EXAMPLES)) < _LEAST_FILES:
        next(making)
        spent = store.seconds()
        tell("seconds making examples", min(round(spent), allowed), allowed)

    network, steps = _trained(model, store, validation, options, options.budget - spent, tell)
    share, judged = _chosen_share(model, network, validation)
    facts = {
        **inverter.facts,
        "network": {
            "filters": filters,
            **{name: value for name, value in asdict(options).items() if name != "budget"},
            "budget": options.budget,
            "files": len(store.files(EXAMPLES)),
            "steps": steps,
            "share": share,
            "log10 p": judged,
        },
    }
    if not share:
        return replace(inverter, facts=facts)
    with torch.no_grad():
        for parameter in network.last.parameters():
            parameter.mul_(share)
    corrected = CorrectedBank(bank.scale, bank.weights, bank.bias, network.to(_CPU).requires_grad_(False).eval())
    return replace(inverter, noise=corrected, facts=facts, digest="")


def resumed(
    folder: str | Path, model: LatentModel, options: FitOptions, attacks: Mapping[str, tuple[str, ...]]
) -> Inverter | None:
    """Return the filters that a training in a folder is on top of, without a network; None if there is no training.

    Raises
    ------
    UsageError, ModelError
        If they are of another model, or were fitted in other sizes or to other attacks.
    """
    if not (Path(folder) / FOLDER).exists():
        return None
    found = Inverter.load(folder)
    check_same(found, model, options, attacks)
    return without_network(found)


def _filters(inverter: Inverter) -> str:
    """Return the digest of the filters as they were without a network."""
    return str(inverter.facts.get("network", {}).get("filters", inverter.digest))


def _identity(
    filters: str,
    options: NetworkOptions,
    fit_options: FitOptions,
    texts: Sequence[str],
    prompts: Sequence[str | None] | None,
) -> str:
    """Return a digest of what a training depends on; a longer budget goes on with the examples of a shorter one."""
    settings = {name: value for name, value in asdict(options).items() if name != "budget"}
    parts = [filters, settings, asdict(fit_options), list(texts), list(prompts or ())]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _trained(
    model: LatentModel,
    store: ExampleStore,
    validation: Mapping[str, Tensors],
    options: NetworkOptions,
    seconds: float,
    tell: Progress,
) -> tuple[Correction, int]:
    """Train a network for so many seconds of all runs, and return it with the average of its weights, and the steps taken.

    A checkpoint of another budget is left aside: the learning rate falls over the whole training.
    """
    device = getattr(model, "device", _CPU)
    weights = band_weights(*model.latent_shape[1:]).to(device)
    files = store.files(EXAMPLES)
    some = store.read(files[0])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = Correction(some["inputs"].shape[1], some["noise"].shape[1], options.width, options.blocks).to(device)

    def loss_of(step: int) -> Tensors:
        generator = torch.Generator().manual_seed(options.seed + step)
        batch = store.read(files[int(torch.randint(len(files), (1,), generator=generator))])
        pick = torch.randperm(len(batch["noise"]), generator=generator)[: options.batch_size]
        parts = [batch[name][pick].float().to(device) for name in _PARTS]
        if step % 2:  # mirrored images have, nearly, mirrored noise
            parts = [part.flip(-1) for part in parts]
        inputs, estimate, noise = parts
        return {"loss": band_error(estimate + network(inputs, estimate), noise, weights).mean()}

    trainer = Trainer(
        NAME,
        network,
        store.folder,
        peak=options.peak,
        decay=options.decay,
        label=f"{store.identity} {options.budget}",
        progress=tell,
    )
    trainer.run(
        loss_of, seconds=seconds, held_out=lambda average: {"dB": _change_of(average, validation, weights, device)}
    )
    return network, trainer.steps


def _change_of(
    network: torch.nn.Module, validation: Mapping[str, Tensors], weights: torch.Tensor, device: str
) -> torch.Tensor:
    """Return by how many dB a network changes the error on validation images."""
    before, after = torch.zeros(()), torch.zeros(())
    for some in validation.values():
        inputs, estimate, noise = (some[name].float().to(device) for name in _PARTS)
        with torch.inference_mode():
            before = before + band_error(estimate, noise, weights).mean().cpu()
            after = after + band_error(estimate + network(inputs, estimate), noise, weights).mean().cpu()
    return 10 * torch.log10(after / before)


def _chosen_share(
    model: LatentModel, network: Correction, validation: Mapping[str, Tensors]
) -> tuple[float, dict[str, list[float]]]:
    """Choose the share of a network that shows most of the noise on average, and under no attack less than the filters do.

    Returns
    -------
    share : float
        0 where every share does harm somewhere, or none brings anything.
    log10 : dict
        By attack, mean log10 p of the filters, and with the share, or with all of the network where no share is taken.
    """
    device = getattr(model, "device", _CPU)
    found: dict[float, dict[str, float]] = {share: {} for share in (0.0, *SHARES)}
    for text, some in validation.items():
        inputs, estimate, noise = (some[name].float().to(device) for name in _PARTS)
        with torch.inference_mode():
            addition = network(inputs, estimate)
        for share, log10 in found.items():
            log10[text] = evidence(model, (estimate + share * addition).cpu(), noise.cpu())
    plain = found[0.0]
    harmless = [share for share in SHARES if all(found[share][text] <= plain[text] for text in plain)]
    best = min([0.0, *harmless], key=lambda share: sum(found[share].values()))
    return best, {text: [round(plain[text], 1), round(found[best or 1.0][text], 1)] for text in plain}
