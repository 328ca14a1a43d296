"""One trainer: its steps are those of a plain loop, to the bit, and it goes on where it was stopped or killed."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from treering_verify.errors import UsageError
from treering_verify.training import trainer as module
from treering_verify.training.example_store import ExampleStore
from treering_verify.training.trainer import LOG, Trainer, learning_rate


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Conv2d(2, 8, 3), torch.nn.SiLU(), torch.nn.Conv2d(8, 1, 3))
    return layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def loss(model: torch.nn.Module, step: int) -> torch.Tensor:
    inputs = torch.randn(4, 2, 9, 9, generator=torch.Generator().manual_seed(step))
    return (model(inputs) - inputs[:, :1, 2:-2, 2:-2]).square().mean()


def trained(folder: Path, steps: int = 12, stop: int | None = None) -> Trainer:
    one = Trainer("part", network(), folder, steps=steps, peak=1e-2, decay=0.01)

    def loss_of(step: int) -> dict[str, torch.Tensor]:
        if step == stop:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"loss": loss(one.model, step)}

    one.run(loss_of, checks=4)
    return one


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_its_steps_are_those_of_a_plain_loop_to_the_bit(tmp_path: Path) -> None:
    """AdamW with betas of .9 and .99, gradients of norm 1 at most, and an average that follows faster at first."""
    model, steps = network(), 12
    average = copy.deepcopy(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.99), weight_decay=0.01)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = learning_rate(step, steps, 1e-2)
        optimiser.zero_grad()
        loss(model, step).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        share = 1 - min(0.999, (2 + step) / (11 + step))
        with torch.no_grad():
            for mean, parameter in zip(average.parameters(), model.parameters(), strict=True):
                mean.lerp_(parameter, share)
    found = trained(tmp_path)
    assert same(found.model, average) and same(found.ema, average) and not same(model, average)
    assert not found.model.training


def test_a_killed_training_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    code = f"import sys; sys.path[:0] = {sys.path!r}; from pathlib import Path; from {__name__} import trained; "
    code += f"trained(Path({str(tmp_path / 'b')!r}), stop=8)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert [path.name for path in sorted((tmp_path / "b").iterdir())] == [LOG, "part.safetensors"]
    whole, resumed = trained(tmp_path / "a"), trained(tmp_path / "b")
    assert same(whole.model, resumed.model)
    log = [json.loads(line) for line in (tmp_path / "b" / LOG).read_text().splitlines()]
    assert [line["step"] for line in log] == [3, 6, 9, 12] and {line["steps"] for line in log} == {12}


def test_held_out_losses_are_logged_of_the_average(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trainer = Trainer("line", torch.nn.Linear(1, 1), tmp_path, steps=4, peak=0.1, decay=0.0)
    judged: list[torch.nn.Module] = []

    def held_out(model: torch.nn.Module) -> dict[str, torch.Tensor]:
        judged.append(model)
        return {"loss": model(torch.ones(1)).square().sum()}

    trainer.run(lambda _: {"loss": trainer.model(torch.ones(1)).square().sum()}, checks=2, held_out=held_out)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [2, 4] and judged == [trainer.ema] * 2
    assert log[-1]["held-out loss"] == pytest.approx(float(trainer.ema(torch.ones(1)).square().sum()))
    assert log[0]["loss"] > log[1]["loss"]


def test_a_time_gives_the_steps_and_another_label_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_seconds_of", lambda work: work() or 0.5)
    told: list[tuple[str, int, int]] = []

    def run(label: str, seconds: float) -> Trainer:
        one = Trainer(
            "part", network(), tmp_path, peak=1e-2, decay=0.0, label=label, progress=lambda *said: told.append(said)
        )
        one.run(lambda step: {"loss": loss(one.model, step)}, seconds=seconds)
        return one

    first = run("20 s", 20)
    assert first.step == first.steps == 40 and len(told) == 20 and told[-1][1:] == (40, 40)
    again = run("20 s", 1000)
    assert len(told) == 20 and again.steps == 40 and same(first.model, again.model)
    assert run("1 s", 1).steps == 20  # the least


def test_examples_are_made_once_whole_and_of_one_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def compute() -> dict[str, torch.Tensor]:
        made.append(1)
        return {"a": torch.arange(4.0)}

    store = ExampleStore(tmp_path, "one")
    assert torch.equal(store.get("x-1", compute)["a"], store.get("x-1", compute)["a"]) and made == [1]
    with pytest.raises(ZeroDivisionError):
        store.get("x-2", lambda: {"a": torch.ones(1) * (1 // 0)})
    assert store.files("x") == [tmp_path / "x-1.safetensors"] and store.seconds() >= 0
    other = ExampleStore(tmp_path, "two")
    for read in (other.seconds, lambda: other.get("x-1", compute)):
        with pytest.raises(UsageError, match="another model, fit or settings"):
            read()
    (tmp_path / "x-1.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UsageError, match="damaged"):
        store.seconds()


def test_tensors_are_read_in_the_layout_in_which_they_were_written(tmp_path: Path) -> None:
    """Convolutions of one layout round otherwise than those of the other, and a resumed recipe would end elsewhere."""
    plain = torch.randn(2, 3, 4, 5)
    written = {"plain": plain, "last": plain.to(memory_format=torch.channels_last), "part": plain[:, ::2]}
    read = ExampleStore(tmp_path).get("x", lambda: written)
    assert all(torch.equal(read[name], written[name]) for name in written)
    assert [read[name].stride() == one.stride() for name, one in written.items()] == [True, True, False]


def test_as_many_examples_stay_in_memory_as_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from treering_verify.training import example_store

    monkeypatch.setattr(example_store, "_MOST_BYTES", 40)
    store = ExampleStore(tmp_path)
    for i in range(3):
        store.get(f"x-{i}", lambda i=i: {"a": torch.full((4,), float(i))})  # type: ignore[misc]
    kept = [store.read(path) for path in store.files("x")]
    assert [float(one["a"][0]) for one in kept] == [0, 1, 2]
    assert store.read(store.files("x")[2]) is kept[2] and store.read(store.files("x")[0]) is not kept[0]
