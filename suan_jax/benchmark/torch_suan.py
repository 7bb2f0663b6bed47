"""SUAN's training step in PyTorch, as one would write it there: the other side of a comparison. Needs torch.

The same sizes, parameters and inputs as `models.suan` of one candidate a row and full histories, in which
nothing is masked but the future; the same head; autocast to bfloat16 on a GPU. The time bias is an embedding
of the bucket of each pair, added to the position bias and given to `scaled_dot_product_attention`. The
optimizer is AdamW, fused, over dense parameters and whole tables, after clipping.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from suan_jax.batch import HOURS_OF_WEEK, Batch, hour_of_week
from suan_jax.benchmark.torch_attention import Pending, device
from suan_jax.layers.time_buckets import TABLE_ROWS
from suan_jax.layers.tokens import shared_names
from suan_jax.models.suan import Suan
from suan_jax.schema import GROUPS, PAD, Schema

Inputs = dict[str, torch.Tensor]
_BUCKET = 0.301
_CLIP = 10.0


def inputs(batch: Batch) -> Inputs:
    """A NumPy batch of full histories and one candidate a row, as tensors on PyTorch's device."""
    arrays = {f"{group}/{name}": ids for group in GROUPS for name, ids in batch.group(group).items()}
    age = np.append(batch.history_age, batch.candidate_age, axis=1)
    arrays |= {"age": age, "hour": hour_of_week(batch, age, np.ones_like(age, bool))}
    arrays |= {"dense": batch.dense[:, 0], "label": batch.label[:, 0]}
    floats = ("dense", "label")
    return {
        name: torch.from_numpy(np.array(array, np.float32 if name in floats else np.int64)).to(device())
        for name, array in arrays.items()
    }


class RMSNorm(nn.Module):
    """γ · x / (sqrt(mean(x²)) + ε)."""

    def __init__(self, width: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalises (..., D)."""
        wide = x.float()
        return (self.scale * wide / (wide.square().mean(-1, keepdim=True).sqrt() + 1e-6)).to(x.dtype)


class Attention(nn.Module):
    """Projections around PyTorch's attention."""

    def __init__(self, width: int, source: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.out = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.key, self.value = (nn.Linear(source, width, bias=False) for _ in range(2))

    def forward(
        self, x: torch.Tensor, y: torch.Tensor, bias: torch.Tensor | None, causal: bool
    ) -> torch.Tensor:
        """Queries from x, keys and values from y; `bias` is added to the scores."""
        q, k, v = (
            z.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for z in (self.query(x), self.key(y), self.value(y))
        )
        bias = None if bias is None else bias.to(q.dtype)
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=causal)
        return self.out(out.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A Unified Attention Block."""

    def __init__(self, width: int, heads: int, row: int):
        super().__init__()
        self.norms = nn.ModuleList(RMSNorm(width) for _ in range(3))
        self.attention, self.cross = Attention(width, width, heads), Attention(width, row, heads)
        self.squeeze = nn.Linear(width, max(width // 4, 1), bias=False)
        self.self_weight, self.cross_weight = (
            nn.Linear(max(width // 4, 1), width, bias=False) for _ in range(2)
        )
        self.gate, self.value = (nn.Linear(width, 3 * width) for _ in range(2))
        self.project = nn.Linear(3 * width, width)

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None, profile: torch.Tensor) -> torch.Tensor:
        """The next states (B, T, D) of tokens."""
        x0 = self.norms[0](x)
        x1 = self.norms[1](self.attention(x0, x0, bias, causal=bias is None) + x0)
        c = self.cross(x1, profile, None, causal=False)
        pooled = (x1 + c)[:, :-1].float().mean(1, keepdim=True)
        z = torch.relu(self.squeeze(pooled))
        weight = torch.sigmoid(self.self_weight(z) - self.cross_weight(z))
        x2 = self.norms[2](weight * x1 + (1 - weight) * c + x1)
        return self.project(functional.silu(self.gate(x2)) * self.value(x2)) + x2


class Dice(nn.Module):
    """p x + α (1 − p) x with p = sigmoid(BatchNorm(x))."""

    def __init__(self, width: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(width))
        self.norm = nn.BatchNorm1d(width, eps=1e-8, affine=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Activates (B, C)."""
        return x * (self.alpha + (1 - self.alpha) * torch.sigmoid(self.norm(x)))


class TorchSuan(nn.Module):
    """SUAN on full histories.

    Attributes:
      tables: the embedding tables, by the schema's names.
    """

    def __init__(self, config: Suan, schema: Schema, max_len: int):
        super().__init__()
        size, row = config.size(schema), config.embedding_width
        self.schema, self.position_bias, self.time_bias = schema, None, None
        self.tables = nn.ModuleDict(
            {name: nn.Embedding(count, row, padding_idx=PAD) for name, count in schema.tables.items()}
        )
        if config.position_bias:
            self.position_bias = nn.Parameter(torch.zeros(2 * max_len + 1))
        if config.time_bias:
            self.time_bias = nn.Embedding(TABLE_ROWS, 1)
            nn.init.zeros_(self.time_bias.weight)
        features = len(schema.history) * row
        self.project = nn.Linear(features, size.width) if features != size.width else nn.Identity()
        self.hours, self.hour = nn.Embedding(HOURS_OF_WEEK + 1, row), nn.Linear(row, size.width)
        self.position = nn.Parameter(0.02 * torch.randn(max_len + 1, size.width))
        self.blocks = nn.ModuleList(Block(size.width, size.heads, row) for _ in range(size.layers))
        beside = len(schema.profile) + len(schema.candidate) + len(schema.context)
        widths = (size.width + beside * row + len(schema.dense), *config.head)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), Dice(after)]
        self.head = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, inputs: Inputs) -> torch.Tensor:
        """The mean log loss of a batch of `inputs`."""
        rows = {
            group: {
                f.name: self.tables[f.table](inputs[f"{group}/{f.name}"]) for f in self.schema.group(group)
            }
            for group in GROUPS
        }
        history, candidate = rows["history"], rows["candidate"]
        like = next(iter(candidate.values()))
        shared = shared_names(self.schema)
        tokens = torch.cat(
            [
                torch.cat([row, candidate[name] if name in shared else torch.zeros_like(like)], 1)
                for name, row in history.items()
            ],
            -1,
        )
        x = self.project(tokens) + self.hour(self.hours(inputs["hour"])) + self.position.flip(0)
        profile = torch.stack(list(rows["profile"].values()), 1)
        bias = self.bias(inputs["age"])
        for block in self.blocks:
            x = block(x, bias, profile)
        beside = [*rows["profile"].values()]
        beside += [row[:, 0] for group in ("candidate", "context") for row in rows[group].values()]
        logit = self.head(torch.cat([x[:, -1], *beside, inputs["dense"]], -1))[:, 0]
        return functional.binary_cross_entropy_with_logits(logit.float(), inputs["label"])

    def bias(self, age: torch.Tensor) -> torch.Tensor | None:
        """Both biases and the mask of the future, (B, 1, T, T); None without biases."""
        if self.position_bias is None and self.time_bias is None:
            return None
        slot = torch.arange(age.shape[1], device=age.device)
        offset = slot - slot[:, None]
        bias = torch.zeros(offset.shape, device=age.device)
        if self.position_bias is not None:
            bias = self.position_bias[offset + len(slot) - 1]
        if self.time_bias is not None:
            delta = (age[:, :, None] - age[:, None, :]).abs().clamp(min=1)
            bucket = (delta.float().log() / _BUCKET).long()
            bias = bias + self.time_bias(bucket)[..., 0]
        bias = bias.masked_fill(offset > 0, -math.inf)
        return bias.expand(age.shape[0], *offset.shape)[:, None]


def stepper(config: Suan, schema: Schema, batches: list[Batch], compiled: bool) -> Callable[[int], Pending]:
    """Training steps of the model `config`, in turns on `batches`.

    Args:
      config: SUAN's settings.
      schema: of single-valued features, every one of a candidate's also of the history's.
      batches: NumPy batches, moved to the device here.
      compiled: whether by `torch.compile`.
    """
    torch.manual_seed(0)
    model = TorchSuan(config, schema, batches[0].history_mask.shape[1]).to(device())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
    run = torch.compile(model) if compiled else model
    given = [inputs(batch) for batch in batches]
    dtype = torch.bfloat16 if config.dtype == "bfloat16" else None

    def call(number: int) -> Pending:
        with torch.autocast(device().type, dtype, enabled=dtype is not None):
            loss = run(given[number % len(given)])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), _CLIP)
        optimizer.step()
        return Pending()

    return call
