"""A looped model of a few parameters, in the config file of a run of seconds."""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn
from tiny_config import get_config as tiny

from suan_jax.layers import masking
from suan_jax.layers.dense import Dense
from suan_jax.layers.head import Head, head_macs
from suan_jax.models import Loops, ModelDefinition, Output, register
from suan_jax.schema import Schema

_WIDTH = 6


@register
@dataclasses.dataclass
class Looped(ModelDefinition):
    """A mean pool, x += tanh(x W) n times, and one head at every depth; depth l's weight is ∝ l + 1."""

    name: str = "looped"
    trained_loops: int = 2
    inferred_loops: int = 1

    def module(self, schema: Schema, max_len: int) -> nn.Module:
        return LoopedModule(self, schema)

    def loops(self) -> Loops:
        return Loops(self.trained_loops, self.inferred_loops)

    def _flops(self, schema: Schema, loops: int, heads: int) -> float:
        head = head_macs(schema, _WIDTH, self.embedding_width, self.head)
        entry = 2 * self.embedding_width * _WIDTH
        return 2.0 * (entry + loops * _WIDTH**2 + heads * head)

    def flops_per_example(self, schema, max_len):
        return self._flops(schema, self.inferred_loops, 1)

    def training_flops_per_example(self, schema, max_len):
        return 3 * self._flops(schema, self.trained_loops, self.trained_loops + 1)

    def useful_flops(self, schema, lengths):
        return self.flops_per_example(schema, 0)


class LoopedModule(nn.Module):
    config: Looped
    schema: Schema

    @nn.compact
    def __call__(self, rows, batch, train, loops=None, all_depths=False):
        config = self.config
        item = self.schema.history[0].name
        visible_BxMxL = masking.candidate_visibility(batch)
        total = jnp.einsum("BML,BLd->BMd", visible_BxMxL.astype(jnp.float32), rows["history"][item])
        mean = total / jnp.maximum(visible_BxMxL.sum(-1, keepdims=True), 1)
        x = Dense(_WIDTH, name="entry")(jnp.concatenate([mean, rows["candidate"][item]], -1))
        loop = Dense(_WIDTH, name="loop")
        head = Head(self.schema, config.head, config.batch_norm_momentum, name="head")
        every = train or all_depths
        last = config.trained_loops if every else config.inferred_loops if loops is None else loops
        logits = []
        for depth in range(last + 1):
            if depth or self.is_initializing():
                x = x + jnp.tanh(loop(x))
            if every or depth == last:
                logits.append(head(x, rows, batch, train))
        if not every:
            return Output(logits[-1])
        weights = jnp.arange(1.0, len(logits) + 1)
        return Output(
            logits[config.inferred_loops],
            jnp.stack(logits),
            weights / weights.sum(),
            diagnostics={"state_norm": jnp.sqrt(jnp.mean(x**2))},
        )


def get_config(loops: int = 2, store: str = ""):
    config = tiny(store=store)
    config.model = Looped(head=(8,), embedding_width=4, trained_loops=loops, inferred_loops=min(1, loops))
    return config
