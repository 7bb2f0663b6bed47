"""Mixtures of experts: a router's gates, attention and feed-forward behind them, and the balance loss.

A token's gate of an expert is its router's softmax probability itself if the expert is among the token's top
k, else 0. It is not divided by the sum over those chosen: at k = 1 that would be the constant 1, and the
router would learn nothing from the task. No expert has a capacity, which would let candidates compete.

All experts are computed for all tokens and weighted by the gates: with few experts that is one large product
in place of many small ones. What is counted as operations is what runs.

The balance loss is that of the Switch Transformer (arXiv 2101.03961, equations 4 to 6), for k experts and any
number of calls. The gate, no capacity, and counting all calls of a router together are this project's
decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from suan_jax.layers.attention import kernel_into_heads

Mix = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


@struct.dataclass
class RouterLoad:
    """What a router did to valid tokens, as sums: those of several calls add up.

    Attributes:
      chosen_E: (E,) float32, tokens that chose each expert.
      probability_E: (E,) float32, Σ over tokens of each expert's probability.
      tokens: () float32, number of tokens.
    """

    chosen_E: jax.Array
    probability_E: jax.Array
    tokens: jax.Array

    def shares(self) -> jax.Array:
        """f, the share of tokens that chose each expert, (E,) or, of stacked loads, (..., E); sums to k."""
        return self.chosen_E / jnp.maximum(self.tokens, 1.0)[..., None]

    def balance(self) -> jax.Array:
        """E/k · Σ_i f_i P_i with P the mean probabilities, (): 1 at perfect balance, 0 without a token."""
        experts, tokens = self.chosen_E.shape[-1], jnp.maximum(self.tokens, 1.0)
        chosen = jnp.maximum(jnp.sum(self.chosen_E), 1.0) / tokens  # k
        return experts / chosen * jnp.sum(self.shares() * self.probability_E / tokens)


def add_loads(first: RouterLoad, second: RouterLoad) -> RouterLoad:
    """The load of two calls, or two sets of calls, of one router."""
    return jax.tree.map(jnp.add, first, second)


def sum_loads(stacked: RouterLoad) -> RouterLoad:
    """The load of all calls of one router, from loads stacked along a first axis."""
    return jax.tree.map(lambda x: jnp.sum(x, axis=0), stacked)


def balance_loss(routers: Sequence[RouterLoad]) -> jax.Array:
    """The mean over routers of `RouterLoad.balance`; each load is the sum over all calls of its router."""
    return jnp.mean(jnp.stack([load.balance() for load in routers]))


class Router(nn.Module):
    """Gates from softmax(x W), computed in float32; a single expert has gate 1 and no parameters.

    Attributes:
      experts: E.
      top_k: k, experts a token chooses.
    """

    experts: int
    top_k: int

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array, valid_BxT: jax.Array) -> tuple[jax.Array, RouterLoad]:
        """Gates (B, T, E) float32, zero at experts not chosen; and the load, pads left out."""
        x_BxTxD = x_BxTxD.astype(jnp.float32)
        if self.experts == 1:
            p_BxTxE = jnp.ones((*x_BxTxD.shape[:-1], 1))
        else:
            init = nn.with_logical_partitioning(nn.initializers.lecun_normal(), ("embed", "experts"))
            kernel = self.param("kernel", init, (x_BxTxD.shape[-1], self.experts), jnp.float32)
            # The highest precision, for a choice must not depend on the hardware's idea of a product.
            p_BxTxE = jax.nn.softmax(jnp.einsum("btd,de->bte", x_BxTxD, kernel, precision="highest"))
        index_BxTxK = jax.lax.top_k(jax.lax.stop_gradient(p_BxTxE), self.top_k)[1]
        chosen_BxTxE = jax.nn.one_hot(index_BxTxK, self.experts).sum(-2)
        valid_BxTx1 = valid_BxT[:, :, None]
        load = RouterLoad(
            chosen_E=jnp.sum(jnp.where(valid_BxTx1, chosen_BxTxE, 0.0), (0, 1)),
            probability_E=jnp.sum(jnp.where(valid_BxTx1, p_BxTxE, 0.0), (0, 1)),
            tokens=jnp.sum(valid_BxT).astype(jnp.float32),
        )
        return p_BxTxE * chosen_BxTxE, load


class ExpertAttention(nn.Module):
    """Attention with W_Q and W_K dense, and W_V and W_O per expert, behind one router; no biases.

    V_j = Σ_e r_je x_j W_V^e by the gates of the key's token, O_i = Σ_e r_ie a_i W_O^e by those of the
    query's.

    Attributes:
      heads: H; divides D.
      experts: E.
      top_k: k.
      dtype: dtype of the products.
    """

    heads: int
    experts: int
    top_k: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x_BxTxD: jax.Array,
        valid_BxT: jax.Array,
        mix: Mix,
        memory_BxSxD: jax.Array | None = None,
        valid_BxS: jax.Array | None = None,
    ) -> tuple[jax.Array, RouterLoad]:
        """Attends from x to itself, or to `memory`.

        Args:
          x_BxTxD: states of the queries.
          valid_BxT: False at pads, which stay out of the router's load.
          mix: from q (B, T, H, Dh), k and v (B, S, H, Dh) to what the heads read, (B, T, H, Dh).
          memory_BxSxD: states of the keys; None for x itself, whose tokens then are routed once.
          valid_BxS: False at pads of `memory`.

        Returns:
          (B, T, D) in `dtype`, and the router's load.
        """
        width = x_BxTxD.shape[-1]
        split = (self.heads, width // self.heads)
        route = Router(self.experts, self.top_k, name="router")
        gate_BxTxE, load = route(x_BxTxD, valid_BxT)
        keys, key_gate_BxSxE = x_BxTxD, gate_BxTxE
        if memory_BxSxD is not None:
            key_gate_BxSxE, memory_load = route(memory_BxSxD, valid_BxS)
            keys, load = memory_BxSxD, add_loads(load, memory_load)
        x, keys = x_BxTxD.astype(self.dtype), keys.astype(self.dtype)
        w_query, w_key = (kernel_into_heads(self, name, width, *split) for name in ("query", "key"))
        q_BxTxHxDh = jnp.einsum("btc,chd->bthd", x, w_query.astype(self.dtype))
        k_BxSxHxDh = jnp.einsum("bsc,chd->bshd", keys, w_key.astype(self.dtype))
        init = nn.initializers.lecun_normal(in_axis=1, out_axis=(2, 3), batch_axis=0)
        init = nn.with_logical_partitioning(init, ("experts", "embed", "heads", "kv"))
        value = self.param("value", init, (self.experts, width, *split), jnp.float32).astype(self.dtype)
        gated_BxSxExD = keys[:, :, None] * key_gate_BxSxE.astype(self.dtype)[..., None]
        v_BxSxHxDh = jnp.einsum("bsec,echd->bshd", gated_BxSxExD, value)
        a_BxTxHxDh = mix(q_BxTxHxDh, k_BxSxHxDh, v_BxSxHxDh)
        init = nn.initializers.lecun_normal(in_axis=(1, 2), out_axis=3, batch_axis=0)
        init = nn.with_logical_partitioning(init, ("experts", "heads", "kv", "embed"))
        out = self.param("out", init, (self.experts, *split, width), jnp.float32).astype(self.dtype)
        gated_BxTxExHxDh = a_BxTxHxDh[:, :, None] * gate_BxTxE.astype(self.dtype)[..., None, None]
        return jnp.einsum("btehd,ehdc->btc", gated_BxTxExHxDh, out), load


class ExpertFeedForward(nn.Module):
    """Σ_e r_e gelu(x W_1^e) W_2^e, without biases.

    Attributes:
      hidden: width of an expert's hidden layer.
      experts: E.
      top_k: k.
      dtype: dtype of the products.
    """

    hidden: int
    experts: int
    top_k: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array, valid_BxT: jax.Array) -> tuple[jax.Array, RouterLoad]:
        """(B, T, D) in `dtype`, and the router's load; `valid` is False at pads, which stay out of it."""
        width = x_BxTxD.shape[-1]

        def kernel(name: str, shape: tuple[int, int], axes: tuple[str, str]) -> jax.Array:
            init = nn.initializers.lecun_normal(in_axis=1, out_axis=2, batch_axis=0)
            init = nn.with_logical_partitioning(init, ("experts", *axes))
            return self.param(name, init, (self.experts, *shape), jnp.float32).astype(self.dtype)

        gate_BxTxE, load = Router(self.experts, self.top_k, name="router")(x_BxTxD, valid_BxT)
        into = kernel("hidden", (width, self.hidden), ("embed", "mlp"))
        hidden_BxTxExF = jax.nn.gelu(jnp.einsum("btc,ecf->btef", x_BxTxD.astype(self.dtype), into))
        hidden_BxTxExF = hidden_BxTxExF * gate_BxTxE.astype(self.dtype)[..., None]
        out = kernel("out", (self.hidden, width), ("mlp", "embed"))
        return jnp.einsum("btef,efc->btc", hidden_BxTxExF, out), load


def router_macs(experts: int, width: int) -> int:
    """Multiply-adds of a router for one token."""
    return experts * width if experts > 1 else 0


def projection_macs(experts: int, width: int) -> int:
    """Multiply-adds of Q and O, or of K and V, in `ExpertAttention` for one token, its router's apart."""
    return (1 + experts) * width**2


def feed_forward_macs(experts: int, width: int, hidden: int) -> int:
    """Multiply-adds of `ExpertFeedForward` for one token."""
    return router_macs(experts, width) + 2 * experts * width * hidden
