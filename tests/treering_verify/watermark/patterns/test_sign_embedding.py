"""The two schemes that carry bits: Gaussian Shading with its messages, and the pseudorandom code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.markings import SECRET, SHAPE, keys_of, recovered, white

from treering_verify.cli.main import main
from treering_verify.detection.messages import decode_many, with_message
from treering_verify.errors import UsageError
from treering_verify.watermark.embedding import embed, key_evidence
from treering_verify.watermark.keys.key import Key
from treering_verify.watermark.patterns import pseudorandom_code as parity
from treering_verify.watermark.patterns import sign_embedding as whole
from treering_verify.watermark.patterns.gaussian_shading import read_message


def test_a_message_is_read_from_noise_and_needs_only_the_cipher() -> None:
    key = with_message(Key.generate(SHAPE, pattern="gaussian-shading", seed=4), "user 12345, 2026-11-25")
    marked = embed(white(1, *SHAPE), key)
    other = with_message(key, b"\xff" * 22)  # as long
    for deviation, limit in ((0.0, -900), (0.6, -200)):
        noise_hat = marked + deviation * white(1, *SHAPE, seed=8)
        message, evidence = read_message(recovered(noise_hat, other)[0], other.numbers)
        assert message == b"user 12345, 2026-11-25"
        assert evidence.log10_pvalue < limit
        # Without the message, the evidence is less than with it.
        assert key_evidence(noise_hat, key)[0].log10_pvalue < evidence.log10_pvalue
    _, evidence = read_message(recovered(white(1, *SHAPE), key)[0], key.numbers)
    assert evidence.log10_pvalue > -4


def test_the_keystream_is_chacha20_of_rfc_8439() -> None:
    # Section 2.4.2 of the RFC begins at counter 1: the second block of 64 bytes.
    nonce = bytes.fromhex("000000000000004a00000000")
    stream = whole.stream(bytes(range(32)), int.from_bytes(nonce, "big"), 128)
    plain = b"Ladies and Gentlemen of the class of '99: If I could offer you o"
    cipher = bytes(a ^ b for a, b in zip(plain, stream[64:], strict=True))
    assert cipher.hex().startswith("6e2e359a2568f98041ba0728dd0d6981")


def test_messages_that_do_not_fit_are_refused() -> None:
    shading, random = Key.generate(SHAPE, pattern="gaussian-shading", seed=1), Key.generate(SHAPE, seed=1)
    with pytest.raises(UsageError, match="at most 32"):
        with_message(shading, "ä" * 17)
    for nothing in ("", b"a\0"):
        with pytest.raises(UsageError, match="empty or ends"):
            with_message(shading, nothing)
    with pytest.raises(UsageError, match="gaussian-shading --message"):
        with_message(random, "x")
    with pytest.raises(UsageError, match="gaussian-shading --message"):
        next(decode_many([], random))


def test_a_message_goes_through_the_command_line(tmp_path: Path) -> None:
    def run(*arguments: object) -> object:
        return CliRunner().invoke(main, [str(a) for a in arguments])

    key, folder = tmp_path / "mine.key.json", tmp_path / "images"
    (tmp_path / "secret").write_bytes(SECRET)  # how much of the noise comes back differs a lot between keys
    shading = ("keygen", "--from-secret", tmp_path / "secret", "--pattern", "gaussian-shading")
    (tmp_path / "text").write_text("edition 7\n")
    made = run(*shading, "--message-from", tmp_path / "text", "--output", key)
    assert made.exit_code == 0 and "4096 signs" in made.stderr and "edition" not in made.output
    assert run("generate", "--key", key, "--steps", 20, "--seed", 3, "--output", folder).exit_code == 0
    assert run("generate", "--unmarked", "--steps", 20, "--seed", 3, "--output", folder).exit_code == 0
    files = sorted(folder.glob("*.png"))
    records = [
        json.loads(line) for line in run("decode", *files, "--key", key, "--format", "jsonl").stdout.splitlines()
    ]
    assert [(r["verdict"], r["message"]) for r in records] == [("detected", "edition 7"), ("no evidence", "")]
    text = run("decode", files[0], "--key", key)
    assert "message 'edition 7'" in text.stdout
    assert run("verify", files[0], "--key", key, "--fail-on", "detected").exit_code == 1
    other = tmp_path / "other.key.json"
    assert run("keygen", "--output", other).exit_code == 0
    assert run("decode", files[0], "--key", other).exit_code == 2
    options = [str(each) for each in (*shading, "--message-from", "-", "--output", tmp_path / "piped")]
    assert CliRunner().invoke(main, options, input="edition 7\n").exit_code == 0
    assert (Key.load(tmp_path / "piped").numbers == Key.load(key).numbers).all()
    (tmp_path / "text").write_text("x" * 33)
    too_long = run(*shading, "--message-from", tmp_path / "text", "--output", tmp_path / "long")
    assert too_long.exit_code == 2 and not (tmp_path / "long").exists()


# --- the pseudorandom code --------------------------------------------------------------------------------------------


def test_every_codeword_passes_every_check_and_the_checks_are_independent() -> None:
    code = parity.code_of(SECRET, 512)
    free = 512 - len(code.pairs)
    assert sorted(code.order) == list(range(512))
    for j, (first, second) in enumerate(code.pairs.tolist()):
        # Each check has a position that no earlier one has: in this order they are in echelon form.
        assert first != second and max(first, second) < free + j
    pad = 1 - 2 * code.pad.astype(int)
    words = []
    for seed in range(5):
        bits = np.random.default_rng(seed).integers(0, 2, free).astype(np.uint8)
        word = parity.codeword_signs(code, bits)[code.order] * pad
        assert (word[free:] == word[code.pairs[:, 0]] * word[code.pairs[:, 1]]).all()
        words.append(word)
    assert np.abs(np.corrcoef(words)[np.triu_indices(5, 1)]).max() < 0.3


def test_the_published_bound_is_never_better_than_the_exact_test() -> None:
    (key,) = keys_of("pseudorandom-code", 1)
    marked = embed(white(4, *SHAPE), key)
    for deviation in (0.3, 0.6, 1.0):
        noise_hat = marked + deviation * white(4, *SHAPE, seed=7)
        published = parity.published_log10_pvalue(recovered(noise_hat, key), key.numbers)
        exact = np.array([e.log10_pvalue for e in key_evidence(noise_hat, key)])
        assert (exact < 0.97 * published).all()  # the rounding of weights may cost the exact test a little
