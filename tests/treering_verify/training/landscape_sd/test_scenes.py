"""Captioned scenes: they are reproducible, show what their attributes say, and their captions tell it in known words."""

from __future__ import annotations

import pytest
import torch

from treering_verify.training.landscape_sd.attributes import ATTRIBUTES, DESERTS, code, draw_attributes, scene_generator
from treering_verify.training.landscape_sd.captions import caption, captions, main, words
from treering_verify.training.landscape_sd.scenes import render
from treering_verify.training.landscape_sd.text import (
    LENGTH,
    Teller,
    build_tokenizer,
    byte_symbols,
    learn_merges,
    telling_loss,
    tokens,
    told_batch,
)


def rows(count: int, **values: str) -> torch.Tensor:
    """Return `count` equal scenes: hills by day without anything else, but for the values."""
    plain = {"time": "day", "land": "hills", "season": "summer", "trees": "none", "water": "none", "sky": "clear"}
    said = {**plain, "side": "left", "style": "natural", **values}
    return torch.tensor([[code(name, said[name]) for name in ATTRIBUTES]] * count)


def shown(**values: str) -> torch.Tensor:
    return render(4, stream="test", index=5, size=32, attributes=rows(4, **values))[0]


def test_a_batch_is_a_function_of_stream_and_index() -> None:
    images, attributes = render(3, stream="test", index=1, size=32)
    again, same = render(3, stream="test", index=1, size=32)
    assert images.shape == (3, 3, 32, 32) and float(images.min()) >= 0 and float(images.max()) <= 1
    assert torch.equal(images, again) and torch.equal(attributes, same)
    for stream, index in (("train", 1), ("test", 2)):
        assert not torch.equal(render(3, stream=stream, index=index, size=32)[0], images)


def test_scenes_show_their_attributes() -> None:
    plain = shown()
    grey = shown(style="monochrome")
    assert float((grey - grey.mean(dim=1, keepdim=True)).abs().max()) < 1e-5 < float(plain.std(dim=1).mean())
    assert float(shown(time="night").mean()) < 0.4 * float(plain.mean())
    assert float(shown(season="winter")[:, :, 20:].mean()) > 1.2 * float(plain[:, :, 20:].mean())
    forest, lake = shown(trees="forest"), shown(water="lake")
    assert float(forest[:, :, 16:28].mean()) < 0.9 * float(plain[:, :, 16:28].mean())
    assert float(lake[:, 2, 22:26].mean()) > 1.2 * float(plain[:, 2, 22:26].mean()), "water is bluer than grass"
    right = shown(side="right")
    brighter = (plain[..., :8, :] - right[..., :8, :]).mean(dim=(0, 1, 2))
    assert float(brighter[:10].mean()) > 0 > float(brighter[-10:].mean())


def test_deserts_have_one_season_and_no_trees() -> None:
    drawn = draw_attributes(400, torch.Generator().manual_seed(0))
    names = list(ATTRIBUTES)
    desert = torch.isin(drawn[:, names.index("land")], torch.tensor([code("land", name) for name in DESERTS]))
    assert 0 < int(desert.sum()) < 400
    for name in ("season", "trees"):
        column = drawn[:, names.index(name)]
        assert int(column[desert].max()) == 0 and set(column[~desert].tolist()) == {0, 1, 2}


def test_captions_tell_the_scene_and_nothing_else() -> None:
    g = torch.Generator().manual_seed(0)
    (row,) = rows(1, time="night", land="mountains", water="lake", style="sepia", side="right").tolist()
    for text, told in (caption(row, g) for _ in range(50)):
        assert ("sepia" in text) == ("style" in told)
        assert any(word in text for word in ("mountain", "peaks"))
        assert any(word in text for word in ("lake", "water")) == ("water" in told)
        assert any(word in text for word in ("night", "moonlight", "stars")) == ("time" in told)
        assert ("right" in text) == ("side" in told) and "sun " not in text and "left" not in text
        assert not any(word in text for word in ("desert", "dawn", "snow", "forest", "fog"))
    (overcast,) = rows(1, sky="overcast").tolist()
    assert all("sun" not in caption(overcast, g)[0].split() for _ in range(30))
    drawn = draw_attributes(5, torch.Generator().manual_seed(3))
    first, again = (captions(drawn, torch.Generator().manual_seed(4)) for _ in range(2))
    assert first == again and len(set(first)) > 1


def test_captions_are_printed_one_a_line_for_a_fit(capsys: pytest.CaptureFixture[str]) -> None:
    main(["5"])
    lines = capsys.readouterr().out.splitlines()
    assert len(set(lines)) == 5 and set(" ".join(lines).replace(",", "").split()) <= set(words())


# --- the tokenizer and what is learned of captions --------------------------------------------------------------------


def test_words_of_captions_are_one_token_and_captions_fit() -> None:
    tokenizer = build_tokenizer()
    assert all(len(tokenizer(word).input_ids) == 3 for word in words())
    drawn = captions(draw_attributes(300, scene_generator("test", 7)), torch.Generator().manual_seed(1))
    assert max(len(ids) for ids in tokenizer(drawn).input_ids) <= LENGTH
    unknown = tokenizer.unk_token_id
    assert all(ids.count(unknown) == 1 for ids in tokenizer(drawn).input_ids), "the end, and no unknown token"


@pytest.mark.parametrize("prompt", ["", "Zebra, quixotic!", "Ünïcode 漢字 🙂", "\x00\x1f tab\t", "mountains " * 100])
def test_any_prompt_has_tokens(prompt: str) -> None:
    tokenizer = build_tokenizer()
    ids = tokens(tokenizer, [prompt])
    assert ids.shape == (1, LENGTH) and int(ids[0, 0]) == tokenizer.bos_token_id
    assert int((ids == tokenizer.eos_token_id).sum()) >= 1
    text = tokenizer.decode(ids[0], skip_special_tokens=True)
    assert text.replace(" ", "").startswith(prompt.lower().replace(" ", "").strip()[:40])


def test_bytes_have_characters_of_their_own() -> None:
    symbols = byte_symbols()
    assert len(set(symbols)) == 256 and not any(symbol.isspace() for symbol in symbols)
    assert symbols[ord("a")] == "a" and symbols[0] == "\u0100" and symbols[ord(" ")] == "\u0120"


def test_merges_join_the_most_frequent_pair_first() -> None:
    assert learn_merges(["abc", "abd", "xab"]) == [
        ("a", "b"),
        ("a", "b</w>"),
        ("ab", "c</w>"),
        ("ab", "d</w>"),
        ("x", "ab</w>"),
    ]
    assert learn_merges(["aaa", "aab"])[0] == ("a", "a"), "pairs of a word may overlap"


def test_only_what_a_caption_tells_is_asked_for() -> None:
    ids, targets = told_batch(build_tokenizer(), "test", 0, 16)
    again, same = told_batch(build_tokenizer(), "test", 0, 16)
    assert torch.equal(ids, again) and torch.equal(targets, same)
    assert bool((targets[:, list(ATTRIBUTES).index("land")] >= 0).all()) and bool((targets == -100).any())
    torch.manual_seed(0)
    teller = Teller()
    optimiser = torch.optim.Adam(teller.parameters(), lr=3e-3)
    losses = []
    for _ in range(4):
        loss = telling_loss(teller, ids, targets)["loss"]
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.95 * losses[0]
    assert float(teller.encoder.get_input_embeddings().weight.grad.abs().sum()) > 0
