"""FuxiCTR's side of the comparison: models assembled from its layers, for its own trainer. Needs its package.

FuxiCTR (Zhu et al., arXiv 2009.05794) ships layers, embeddings and a base class that trains; its models are
classes of a model zoo beside the package. These follow the papers with those layers and that base class.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import DIN_Attention, FeatureEmbeddingDict, MLP_Block
from fuxictr.pytorch.models import BaseModel
from torch import nn

from suan_jax.batch import Batch
from suan_jax.models import bst, din
from suan_jax.models.model import ModelDefinition
from suan_jax.schema import PAD, Schema

Inputs = dict[str, torch.Tensor]
_MAX_GRADIENT_NORM = 10.0  # as its `fit` sets
_LABEL = "label"


def feature_map(schema: Schema, max_len: int, width: int) -> FeatureMap:
    """The schema in FuxiCTR's terms: history and candidate share tables, and PAD is a zero row."""
    result = FeatureMap("benchmark", "")
    result.labels, result.default_emb_dim = [_LABEL], width
    for feature in (*schema.profile, *schema.candidate):
        rows = schema.tables[feature.table]
        result.features[feature.name] = {"type": "categorical", "vocab_size": rows, "padding_idx": PAD}
    for feature in schema.history:
        result.features[_history(feature.name)] = {
            **result.features[feature.name],
            "type": "sequence",
            "max_len": max_len,
            "share_embedding": feature.name,
        }
    return result


def inputs(batch: Batch) -> Inputs:
    """The batch, one candidate a row, as tensors in memory."""
    columns = {name: ids[:, 0] for name, ids in batch.candidate.items()} | batch.profile
    columns |= {_history(name): ids for name, ids in batch.history.items()}
    return {name: torch.from_numpy(np.array(ids, np.int64)) for name, ids in columns.items()} | {
        _LABEL: torch.from_numpy(np.array(batch.label[:, 0]))
    }


def _history(name: str) -> str:
    return f"{name}_history"


class SequenceModel(BaseModel):
    """[interest ‖ profile ‖ candidate] to an MLP, where `interest` is what a model makes of the history."""

    def __init__(
        self, schema: Schema, max_len: int, width: int, head: Sequence[int], interest_width: int, plain: bool
    ):
        """Makes all but the interest; a subclass then makes that, and calls `finish`.

        Args:
          schema: the features, all of them single-valued, those of a history and its candidate the same.
          max_len: L.
          width: of an embedding.
          head: widths of the MLP.
          interest_width: of the interest.
          plain: FuxiCTR's own MLP, of ReLU alone, in place of this library's, of BatchNorm and Dice.
        """
        features = feature_map(schema, max_len, width)
        super().__init__(features, verbose=0, model_root="", metrics=["AUC"])
        self.shared = [feature.name for feature in schema.candidate]
        self.beside = [feature.name for feature in (*schema.profile, *schema.candidate)]
        self.embedding = FeatureEmbeddingDict(features, width)
        self.head = MLP_Block(
            input_dim=interest_width + len(self.beside) * width,
            hidden_units=list(head),
            hidden_activations="ReLU" if plain else "Dice",
            output_dim=1,
            output_activation=self.output_activation,
            batch_norm=not plain,
        )

    def finish(self) -> None:
        """Initial values and the optimizer, Adam over every parameter and whole tables."""
        self.compile("adam", "binary_crossentropy", lr=1e-3)
        self.reset_parameters()
        self._max_gradient_norm = _MAX_GRADIENT_NORM
        self.train()

    def forward(self, batch: Inputs) -> dict[str, torch.Tensor]:
        """Probabilities (B, 1), as `y_pred`."""
        ids = self.get_inputs(batch)
        rows = self.embedding(ids)
        candidate = torch.cat([rows[name] for name in self.shared], dim=-1)
        history = torch.cat([rows[_history(name)] for name in self.shared], dim=-1)
        mask = ids[_history(self.shared[0])] != PAD
        parts = [self.interest(candidate, history, mask), *(rows[name] for name in self.beside)]
        return {"y_pred": self.head(torch.cat(parts, dim=-1))}

    def interest(self, candidate: torch.Tensor, history: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """What a model makes of the history (B, L, K), its mask (B, L) and the candidate (B, K)."""
        raise NotImplementedError


class Din(SequenceModel):
    """DIN (arXiv 1706.06978)."""

    def __init__(
        self,
        schema: Schema,
        max_len: int,
        width: int,
        head: Sequence[int],
        attention_hidden: Sequence[int],
        plain: bool,
    ):
        """As for `SequenceModel`, with the widths of the attention's MLP."""
        item_width = len(schema.candidate) * width
        super().__init__(schema, max_len, width, head, item_width, plain)
        self.attention = DIN_Attention(
            item_width, attention_units=list(attention_hidden), hidden_activations="Dice"
        )
        self.finish()

    def interest(self, candidate: torch.Tensor, history: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """See `SequenceModel`."""
        return self.attention(candidate, history, mask)


class Bst(SequenceModel):
    """BST (arXiv 1905.06874), with PyTorch's post-norm block, learned positions beside the features, and the
    candidate's last state."""

    def __init__(
        self,
        schema: Schema,
        max_len: int,
        width: int,
        head: Sequence[int],
        layers: int,
        heads: int,
        plain: bool,
    ):
        """As for `SequenceModel`, with the number of blocks and of their heads."""
        token_width = (len(schema.candidate) + 1) * width
        super().__init__(schema, max_len, width, head, token_width, plain)
        self.position = nn.Embedding(max_len + 1, width)
        block = nn.TransformerEncoderLayer(
            token_width, heads, 4 * token_width, dropout=0.0, activation=nn.LeakyReLU(), batch_first=True
        )
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.finish()

    def interest(self, candidate: torch.Tensor, history: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """See `SequenceModel`."""
        tokens = torch.cat([history, candidate[:, None]], dim=1)
        position = self.position.weight.expand(len(tokens), -1, -1)
        hidden = nn.functional.pad(~mask, (0, 1))
        return self.blocks(torch.cat([tokens, position], dim=-1), src_key_padding_mask=hidden)[:, -1]


def of(definition: ModelDefinition, schema: Schema, max_len: int, plain: bool) -> SequenceModel:
    """FuxiCTR's counterpart of a model, in the same sizes; `plain` as for `SequenceModel`."""
    sizes = (schema, max_len, definition.embedding_width, definition.head)
    if isinstance(definition, din.Din):
        return Din(*sizes, definition.attention_hidden, plain)
    if isinstance(definition, bst.Bst):
        size = definition.size(schema)
        return Bst(*sizes, size.layers, size.heads, plain)
    raise TypeError(f"no counterpart of {definition.name}")
