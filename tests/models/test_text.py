from __future__ import annotations

from pathlib import Path

import pytest
import torch

from animate4d.core.errors import ModelError
from animate4d.models.config import paper
from animate4d.models.text import CLIPTextEncoder, WordTableEncoder, make_text_encoder, split_words, stem


@pytest.mark.parametrize(
    "forms",
    [
        ("bounce", "bounces", "bouncing", "bounced"),
        ("walk", "walks", "walking", "walked"),
        ("run", "runs", "running"),
        ("sway", "sways", "swaying"),
        ("fly", "flies", "flying"),
        ("wag", "wags", "wagging"),
        ("stretch", "stretches", "stretching"),
    ],
)
def test_forms_of_a_verb_share_a_stem(forms: tuple[str, ...]):
    assert len({stem(form) for form in forms}) == 1


def test_different_verbs_keep_different_stems():
    verbs = ["bounce", "bend", "sway", "swing", "spin", "shake", "stretch", "wave", "walk", "wag", "open", "crawl"]
    assert len({stem(verb) for verb in verbs}) == len(verbs)


def test_captions_lose_articles_and_case():
    assert split_words("A red Fox, running on the spot!") == [stem(word) for word in ("red", "fox", "running", "spot")]


def encoder(**sizes: int) -> WordTableEncoder:
    return WordTableEncoder(8, **({"slots": 4, "buckets": 3} | sizes), words=("fox", "walk", "jump"))


def test_known_words_have_rows_and_unknown_ones_share_buckets():
    table = encoder()
    rows = table.tokenize(["a walking fox", "zorp", "", "fox fox fox fox fox fox"])
    assert rows.shape == (4, 4)
    assert rows[0].tolist() == [table.row_of["walk"], table.row_of["fox"], 0, 0]
    assert rows[1, 0] > len(table.words)
    assert rows[2].tolist() == [0] * 4
    assert torch.equal(table.tokenize(["zorp"]), rows[1:2])


def test_an_unknown_word_says_nothing_until_trained():
    states = encoder()(["zorp"])
    assert torch.equal(states.pooled, torch.zeros(1, 8))


def test_pooled_text_is_the_mean_over_words_and_the_empty_caption_is_row_zero():
    table = encoder()
    states = table(["walking fox", ""])
    rows = table.table.weight
    expected = (rows[table.row_of["walk"]] + rows[table.row_of["fox"]]) / 2
    torch.testing.assert_close(states.pooled[0], expected)
    torch.nn.init.normal_(table.importance.weight, std=9.0)
    torch.testing.assert_close(table(["walking"]).pooled[0], rows[table.row_of["walk"]])
    torch.testing.assert_close(table([""]).pooled[0], rows[0])
    torch.testing.assert_close(states.pooled[1], rows[0])
    assert states.states.shape == (2, 4, 8)


def test_missing_clip_is_named(tmp_path: Path):
    with pytest.raises(ModelError, match="text_path is not set"):
        make_text_encoder(paper())
    with pytest.raises(ModelError, match=r"not found at .*nowhere"):
        CLIPTextEncoder(tmp_path / "nowhere")


def test_clip_wrapper_returns_last_hidden_states(tmp_path: Path):
    import json

    from transformers import CLIPTextConfig, CLIPTextModel

    tokens = {"<|startoftext|>": 0, "<|endoftext|>": 1} | {f"{c}</w>": i + 2 for i, c in enumerate("abcdefgh")}
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "vocab.json").write_text(json.dumps(tokens))
    (tmp_path / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    config = CLIPTextConfig(
        vocab_size=10, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    CLIPTextModel(config).save_pretrained(tmp_path / "text_encoder")
    states = CLIPTextEncoder(tmp_path)(["a b", ""])
    assert states.states.shape == (2, 77, 16)
    assert not states.states.requires_grad
