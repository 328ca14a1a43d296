"""Tokenizer and text encoder of `landscape-sd`: byte-level BPE in CLIP's format, and a small CLIP text transformer.

The encoder learns, before the diffusion network, to tell the attributes of a scene from its caption. Then it is fixed, as
Stable Diffusion's is.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from treering_verify.files import write_atomic
from treering_verify.training.landscape.recipe import autocast
from treering_verify.training.landscape_sd.attributes import ATTRIBUTES, draw_attributes, scene_generator
from treering_verify.training.landscape_sd.captions import caption, words
from treering_verify.training.trainer import Trainer

LENGTH = 40  # tokens of a prompt, both ends included
WIDTH = 96
_START, _END = "<|startoftext|>", "<|endoftext|>"
_LAST = "</w>"
_TEXT_FROM = 5_000_000  # batches of captions start here


def byte_symbols() -> list[str]:
    """Return the character that stands for each byte in CLIP's vocabularies, in the order of bytes.

    Printable bytes of Latin-1 stand for themselves, the others for the characters from U+0100 on.
    """
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def learn_merges(vocabulary: list[str]) -> list[tuple[str, str]]:
    """Return the BPE merges after which each word is one token: the most frequent pair first, then by alphabet."""
    split = [[*word[:-1], word[-1] + _LAST] for word in vocabulary]
    merges = list[tuple[str, str]]()
    while True:
        pairs = Counter(pair for parts in split for pair in pairwise(parts))
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        split = [_merged(parts, best) for parts in split]


def _merged(parts: list[str], pair: tuple[str, str]) -> list[str]:
    found, i = [], 0
    while i < len(parts):
        joined = tuple(parts[i : i + 2]) == pair
        found.append("".join(pair) if joined else parts[i])
        i += 2 if joined else 1
    return found


def build_tokenizer() -> CLIPTokenizer:
    """Return the tokenizer: every byte is a token, so any prompt has tokens; words of the captions have one each."""
    return CLIPTokenizer(vocab=_vocabulary(), merges=learn_merges(words()), model_max_length=LENGTH)


def _vocabulary() -> dict[str, int]:
    symbols = byte_symbols()
    merged = ["".join(pair) for pair in learn_merges(words())]
    tokens = dict.fromkeys([*symbols, *(symbol + _LAST for symbol in symbols), *merged, _START, _END])
    return {token: number for number, token in enumerate(tokens)}


def save_tokenizer(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write a tokenizer as transformers does, and as `vocab.json` and `merges.txt`, which older versions read."""
    tokenizer.save_pretrained(folder)
    vocabulary = json.dumps(_vocabulary(), ensure_ascii=False) + "\n"
    merges = "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in learn_merges(words()))
    for name, text in (("vocab.json", vocabulary), ("merges.txt", merges)):
        write_atomic(folder / name, text.encode())


def build_text_encoder() -> CLIPTextModel:
    """Return an untrained text encoder of .3 M parameters."""
    vocabulary = _vocabulary()
    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=WIDTH,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        projection_dim=WIDTH,
        bos_token_id=vocabulary[_START],
        eos_token_id=vocabulary[_END],
        pad_token_id=vocabulary[_END],
    )
    return CLIPTextModel(config)


def tokens(tokenizer: Any, prompts: list[str]) -> torch.Tensor:
    """Return the tokens of prompts, (B, LENGTH), as Stable Diffusion's pipeline makes them."""
    found: torch.Tensor = tokenizer(
        prompts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
    ).input_ids
    return found


class Teller(torch.nn.Module):
    """A text encoder and linear heads that tell a scene's attributes from the mean of the states of its caption."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = build_text_encoder()
        self.heads = torch.nn.ModuleList(torch.nn.Linear(WIDTH, len(values)) for values in ATTRIBUTES.values())

    def forward(self, ids: torch.Tensor) -> list[torch.Tensor]:
        """Return logits by attribute, (B, values)."""
        states = self.encoder(input_ids=ids).last_hidden_state
        # The end's state alone would do; the mean makes the words' states carry what they stand for.
        summary = states.mean(dim=1)
        return [head(summary) for head in self.heads]


def told_batch(tokenizer: Any, stream: str, index: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return tokens of captions, and the attributes, -100 where a caption does not tell them."""
    g = scene_generator(stream, _TEXT_FROM + index)
    attributes = draw_attributes(count, g)
    prompts, targets = [], attributes.clone()
    for i, row in enumerate(attributes.tolist()):
        text, told = caption(row, g)
        prompts.append(text)
        for column, name in enumerate(ATTRIBUTES):
            if name not in told:
                targets[i, column] = -100
    return tokens(tokenizer, prompts), targets


def telling_loss(teller: Any, ids: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the cross-entropy of the told attributes, and the share of them that are told rightly."""
    with autocast():
        logits = teller(ids)
    losses, right, total = [], 0.0, 0.0
    for column, logit in enumerate(logits):
        target = targets[:, column]
        told = target >= 0
        if bool(told.any()):
            losses.append(F.cross_entropy(logit.float(), target, ignore_index=-100))
            right += float((logit.argmax(dim=1) == target)[told].sum())
            total += float(told.sum())
    return {"loss": torch.stack(losses).mean(), "right": torch.tensor(right / max(total, 1.0))}


def train_text_encoder(work: Path, *, steps: int, batch: int) -> CLIPTextModel:
    """Train the text encoder, or resume, and return the EMA."""
    tokenizer = build_tokenizer()
    torch.manual_seed(2)
    trainer = Trainer("text", Teller(), work, steps=steps, peak=1e-3, decay=0.01)
    judged = told_batch(tokenizer, "test", 0, 256)
    trainer.run(
        lambda step: telling_loss(trainer.model, *told_batch(tokenizer, "train", step, batch)),
        held_out=lambda model: telling_loss(model, *judged),
    )
    teller: Any = trainer.model
    encoder: CLIPTextModel = teller.encoder.requires_grad_(False)
    return encoder
