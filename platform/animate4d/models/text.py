"""Text encoders behind one interface: captions to states for cross-attention and one pooled vector."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from animate4d.core.errors import ModelError
from animate4d.models.config import MVVDMConfig
from animate4d.models.vocabulary import STOP_WORDS, WORDS


@dataclass(frozen=True, slots=True)
class TextStates:
    """Encoded captions.

    Attributes:
        states: `[B, L, d]`.
        pooled: `[B, d]`.
    """

    states: torch.Tensor
    pooled: torch.Tensor


class TextEncoder(Protocol):
    """Captions to `TextStates`; the empty caption is the unconditional one."""

    def __call__(self, captions: Sequence[str]) -> TextStates:
        """Encode."""


def stem(word: str) -> str:
    """Cut English endings so that "walk", "walks", "walking" and "walked" become one word; crude and stable.

    >>> stem("bouncing"), stem("bounces"), stem("running"), stem("flies")
    ('bounc', 'bounc', 'run', 'fli')
    """
    for ending in ("ing", "ed", "es", "s", "e"):
        base = word.removesuffix(ending)
        if base != word and len(base) >= 3 and re.search("[aeiouy]", base):
            word = base
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiouls":
        word = word[:-1]
    return word[:-1] + "i" if word.endswith("y") and len(word) >= 3 else word


def split_words(caption: str) -> list[str]:
    """Return the stems of a caption's words in order, without articles and other stop words."""
    words = re.findall(r"[a-z0-9]+", caption.lower())
    return [stem(word) for word in words if word not in STOP_WORDS]


class WordTableEncoder(nn.Module):
    """A trainable vector per word. Row 0 is padding and the empty caption; unknown words share hashed rows at the end.

    Rows of unknown words start at zero, so a word never trained says nothing rather than something random.
    """

    def __init__(self, dim: int, *, slots: int, buckets: int, words: Sequence[str]) -> None:
        super().__init__()
        self.slots, self.buckets = slots, buckets
        self.words = tuple(dict.fromkeys(stem(word) for word in words))
        self.row_of = {word: row for row, word in enumerate(self.words, start=1)}
        self.table = nn.Embedding(1 + len(self.words) + buckets, dim)
        self.position = nn.Parameter(torch.zeros(slots, dim))
        self.importance = nn.Linear(dim, 1, bias=False)
        with torch.no_grad():
            self.importance.weight.zero_()
            self.table.weight[1 + len(self.words) :] = 0

    def tokenize(self, captions: Sequence[str]) -> torch.Tensor:
        """Return `[B, slots]` int64 rows; captions longer than the slots are cut."""
        rows = torch.zeros(len(captions), self.slots, dtype=torch.int64)
        for index, caption in enumerate(captions):
            for slot, word in enumerate(split_words(caption)[: self.slots]):
                hashed = 1 + len(self.words) + zlib.crc32(word.encode()) % self.buckets
                rows[index, slot] = self.row_of.get(word, hashed)
        return rows

    def forward(self, captions: Sequence[str]) -> TextStates:
        """Encode captions."""
        return self.encode_rows(self.tokenize(captions))

    def encode_rows(self, rows: torch.Tensor) -> TextStates:
        """Encode `[B, slots]` table rows; the pooled vector is a mean over words, weighted by learned importance."""
        rows = rows.to(self.table.weight.device)
        vectors = self.table(rows)
        said = rows > 0
        said[:, 0] |= ~said.any(1)
        share = self.importance(vectors)[..., 0].masked_fill(~said, -torch.inf).softmax(1)
        return TextStates(vectors + self.position, (vectors * share[..., None]).sum(1))


class CLIPTextEncoder(nn.Module):
    """CLIP's text model, frozen: last hidden state after the final norm, 77 tokens."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from transformers import CLIPTextModel, CLIPTokenizer

        if not folder.is_dir():
            raise ModelError(
                f"text encoder not found at {folder}: expected folders tokenizer and text_encoder "
                "(published with stable-diffusion-v1-5)"
            )
        self.tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        # float32 said aloud: transformers would keep a half-precision file's type, and the network runs in float32.
        self.model = CLIPTextModel.from_pretrained(
            folder / "text_encoder", local_files_only=True, dtype=torch.float32
        ).requires_grad_(False)

    def forward(self, captions: Sequence[str]) -> TextStates:
        """Encode captions."""
        tokens = self.tokenizer(
            list(captions), padding="max_length", truncation=True, max_length=77, return_tensors="pt"
        )
        with torch.no_grad():
            encoded = self.model(tokens.input_ids.to(self.model.device))
        return TextStates(encoded.last_hidden_state, encoded.pooler_output)


def make_text_encoder(config: MVVDMConfig, words: Sequence[str] = WORDS) -> nn.Module:
    """Build the text encoder a configuration names; `words` is the vocabulary of a word table.

    Raises:
        ModelError: CLIP's folder is missing.
    """
    if config.text == "words":
        return WordTableEncoder(config.text_dim, slots=config.text_slots, buckets=config.text_buckets, words=words)
    if config.text_path is None:
        raise ModelError("model.text_path is not set: text clip needs the local folder with tokenizer and text_encoder")
    return CLIPTextEncoder(Path(config.text_path))
