"""What a looped model reports of its calls: how its streams grow and which experts its tokens choose."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from suan_jax.layers.experts import RouterLoad


def stream_norms(h_BxCxTxNxD: jax.Array, valid_BxT: jax.Array) -> dict[str, jax.Array]:
    """Root mean square, over valid tokens and streams, of ‖H[s]‖ after each call: `stream_norm_0` and on."""
    square_BxCxT = jnp.mean(jnp.sum(jnp.square(jax.lax.stop_gradient(h_BxCxTxNxD)), axis=-1), axis=-1)
    total_C = jnp.sum(jnp.where(valid_BxT[:, None], square_BxCxT, 0.0), axis=(0, 2))
    norm_C = jnp.sqrt(total_C / jnp.maximum(jnp.sum(valid_BxT), 1))
    return {f"stream_norm_{depth}": norm for depth, norm in enumerate(norm_C)}


def expert_shares(loads: dict[str, dict[str, RouterLoad]]) -> dict[str, jax.Array]:
    """Share of tokens that chose each expert, by call (from 1) and router: `load_attention_1_0` and on."""
    shares = {}
    for sublayer in ("attention", "feed_forward") if loads else ():
        mean_CxE = sum(block[sublayer].shares() for block in loads.values()) / len(loads)
        for call, expert in np.ndindex(mean_CxE.shape):
            shares[f"load_{sublayer}_{call + 1}_{expert}"] = mean_CxE[call, expert]
    return shares
