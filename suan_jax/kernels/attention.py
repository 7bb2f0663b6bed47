"""Attention with relative biases in one pass: no array of pairs of tokens, forward or backward.

    softmax: softmax(scale · q kᵀ + w_pos[order_j − order_i + n − 1] + w_time[bucket(|t_i − t_j|)]) v
    silu:    Σ_j silu(scale · q kᵀ + w_pos[…] + w_time[…]) / divisor · v

One scalar bias serves all heads. Tokens are L history slots and then candidates; a token sees the first
`seen` slots and itself. With `window` k and `dilation` r it sees of those the ones for which o = order_i −
order_j is below k, or (o − (k − 1)) mod r = 0: pairs near and pairs far are computed in launches of their
own, the far ones grouped by slot modulo r, where they are dense, and merged. Blocks in which no query sees a
key are not visited.

The kernels are for NVIDIA GPUs, through Pallas and Triton; `reference.plain_attention` is what they compute.
The forward pass is that of FlashAttention-2 (arXiv 2307.08691), and so is the backward pass, which computes
the scores again; the sums for the bias tables are this project's, see `attention_tables`. Results do not
depend on the order in which programs run.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from suan_jax.kernels import time_cells
from suan_jax.kernels.attention_backward import backward_keys, backward_queries
from suan_jax.kernels.attention_forward import LOG2_E, forward
from suan_jax.kernels.attention_tables import backward_tables
from suan_jax.kernels.attention_tile import MASKED, Launch, Tile
from suan_jax.kernels.time_cells import BINS

KINDS = ("softmax", "silu")
MAX_HEAD_DIM = 128


class Tokens(NamedTuple):
    """What is known of each token.

    Attributes:
      seen_BxT: int32, how many of the leading slots, all of them history, the token sees beside itself; −1 at
        pads, which see nothing and are not seen. A history slot's is its index + 1.
      query_time_BxT: int32 seconds, 0 or more, −1 where unknown; read where the token is a query.
      key_time_BxT: likewise, read where it is a key.
    """

    seen_BxT: jax.Array
    query_time_BxT: jax.Array
    key_time_BxT: jax.Array


class Tiles(NamedTuple):
    """How the four kernels are cut."""

    forward: Tile
    queries: Tile
    keys: Tile
    tables: Tile


@dataclasses.dataclass(frozen=True)
class _Settings:
    """The arguments of `fused_attention` that are not arrays."""

    kind: str
    history: int
    scale: float
    divisor: float
    edges: tuple[int, ...]
    window: int
    dilation: int
    tiles: Tiles
    interpret: bool


def refusal(head_dim: int, dtype: jnp.dtype) -> str:
    """Why the kernels cannot run on the default device, or for such heads; empty if they can."""
    device = jax.devices()[0]
    if device.platform != "gpu" or "NVIDIA" not in device.device_kind.upper():
        return f"the device is {device.device_kind!r}, and the kernels are for NVIDIA GPUs"
    if float(device.compute_capability) < 8:
        return f"the GPU's compute capability is {device.compute_capability}, and the kernels need 8.0"
    if head_dim > MAX_HEAD_DIM:
        return f"a head is {head_dim} wide, and the kernels take at most {MAX_HEAD_DIM}"
    if jnp.dtype(dtype) not in (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float32)):
        return f"the dtype is {jnp.dtype(dtype).name}, and the kernels take bfloat16 or float32"
    return ""


def default_tiles(head_dim: int, dtype: jnp.dtype) -> Tiles:
    """Cuts for an H100: in bfloat16 the fastest of those tried at heads of 64, else such as fit."""
    if head_dim > 64 or jnp.dtype(dtype) == jnp.dtype(jnp.float32):
        small = Tile(32, 1, 4, 1, rows=4)
        return Tiles(small, small, small, small)
    return Tiles(Tile(64, 2, 4, 2), Tile(64, 2, 4, 2), Tile(64, 1, 4, 1), Tile(64, 1, 4, 2, rows=4))


def fused_attention(
    q_BxTxHxDh: jax.Array,
    k_BxTxHxDh: jax.Array,
    v_BxTxHxDh: jax.Array,
    tokens: Tokens,
    position_table: jax.Array | None,
    time_table: jax.Array | None,
    *,
    kind: str,
    history: int,
    scale: float,
    divisor: float = 1.0,
    edges: tuple[int, ...] = (),
    window: int = 0,
    dilation: int = 0,
    tiles: Tiles | None = None,
    interpret: bool = False,
) -> jax.Array:
    """The module's attention, differentiable in q, k, v and both tables.

    Args:
      q_BxTxHxDh: bfloat16 or float32; Dh at most `MAX_HEAD_DIM`.
      k_BxTxHxDh: likewise.
      v_BxTxHxDh: likewise.
      tokens: what is known of the tokens.
      position_table: w_pos, (2n − 1,) float32 with n > L, or None.
      time_table: w_time, float32, at least a weight for each bucket and a last one for unknown times, or
        None.
      kind: one of `KINDS`.
      history: L, at most T.
      scale: factor of q kᵀ.
      divisor: n of silu.
      edges: the smallest integer of each time bucket, from 0 and rising by a quarter at least, within int32.
      window: k, at least 1; 0 for full attention.
      dilation: r, at least 1; 0 for full attention.
      tiles: how the kernels are cut; None for `default_tiles`.
      interpret: whether to run without a GPU, slowly.

    Returns:
      (B, T, H, Dh) in the dtype of v; exactly zero for a query that sees no key.

    Raises:
      ValueError: if an argument is none of these.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}, expected one of {', '.join(KINDS)}")
    if bool(window) != bool(dilation) or window < 0 or dilation < 0:
        raise ValueError(f"window is {window} and dilation {dilation}, expected both 0 or both at least 1")
    if position_table is not None and position_table.shape[0] < 2 * history + 1:
        raise ValueError(
            f"the position table has {position_table.shape[0]} weights, expected {2 * history + 1} or more"
        )
    if time_table is not None and not 0 < len(edges) < min(time_table.shape[0], BINS):
        raise ValueError(f"there are {len(edges)} edges for {time_table.shape[0]} time weights")
    settings = _Settings(
        kind,
        history,
        float(scale),
        float(divisor),
        tuple(int(edge) for edge in edges),
        window,
        dilation,
        tiles or default_tiles(q_BxTxHxDh.shape[-1], q_BxTxHxDh.dtype),
        interpret,
    )
    return _attention(settings, q_BxTxHxDh, k_BxTxHxDh, v_BxTxHxDh, position_table, time_table, tokens)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(settings, q, k, v, position_table, time_table, tokens):
    return _attention_forward(settings, q, k, v, position_table, time_table, tokens)[0]


def _attention_forward(settings, q, k, v, position_table, time_table, tokens):
    tables = _tables(settings, position_table, time_table)
    outs, sums = [], []
    for launch in _launches(settings, q, position_table, time_table):
        out, log_sum = forward(
            launch, settings.tiles.forward, _arrays(launch, q, k, v, tokens), tables, settings.edges
        )
        outs.append(_unview(launch, out))
        sums.append(_unview(launch, jnp.transpose(log_sum, (0, 3, 1, 2))))
    out, log_sum = outs[0], sums[0]
    if len(outs) > 1 and settings.kind == "silu":
        out = outs[0] + outs[1]
    elif len(outs) > 1:
        log_sum = jnp.logaddexp2(sums[0], sums[1])
        shares = [jnp.where(s > MASKED / 2, jnp.exp2(s - log_sum), 0.0) for s in sums]
        out = sum(share[..., None] * part for share, part in zip(shares, outs, strict=True))
    out = out.astype(v.dtype)
    kept = (out, log_sum) if settings.kind == "softmax" else None
    return out, (q, k, v, position_table, time_table, tokens, kept)


def _attention_backward(settings, residual, out_gradient):
    q, k, v, position_table, time_table, tokens, kept = residual
    tables = _tables(settings, position_table, time_table)
    tiles, gradients = settings.tiles, []
    for launch in _launches(settings, q, position_table, time_table):
        arrays = _arrays(launch, q, k, v, tokens)
        arrays["out_gradient"] = _view(launch, out_gradient)
        if kept is not None:
            arrays["out"] = _view(launch, kept[0])
            arrays["log_sum"] = jnp.transpose(_view(launch, kept[1]), (0, 2, 3, 1))
        q_gradient, arrays["dots"] = backward_queries(launch, tiles.queries, arrays, tables, settings.edges)
        of_keys = backward_keys(launch, tiles.keys, arrays, tables)
        vectors = [_unview(launch, x) for x in (q_gradient, *of_keys)]
        position = time = None
        if tables:
            sums = backward_tables(launch, tiles.tables, arrays, tables, settings.edges)
            position = _position_gradient(launch, sums, tokens) if launch.max_tokens else None
            time = _time_gradient(sums["time"], time_table) if launch.timed else None
        gradients.append((*vectors, position, time))
    total = [None if parts[0] is None else sum(parts) for parts in zip(*gradients, strict=True)]
    like = (q, k, v, position_table, time_table)
    cast = [None if x is None else g.astype(x.dtype) for g, x in zip(total, like, strict=True)]
    return (*cast, None)


_attention.defvjp(_attention_forward, _attention_backward)


def _launches(settings, q, position_table, time_table) -> list[Launch]:
    regions = ("near", "far") if settings.window else ("all",)
    return [
        Launch(
            kind=settings.kind,
            tokens=q.shape[1],
            history=settings.history,
            head_dim=q.shape[-1],
            scale=settings.scale,
            divisor=settings.divisor,
            max_tokens=0 if position_table is None else (position_table.shape[0] + 1) // 2,
            timed=time_table is not None,
            region=region,
            window=settings.window,
            dilation=settings.dilation,
            interpret=settings.interpret,
        )
        for region in regions
    ]


def _tables(settings, position_table, time_table) -> dict[str, jax.Array]:
    """The tables that a kernel reads, for softmax to the base 2."""
    unit = LOG2_E if settings.kind == "softmax" else 1.0
    tables = {}
    if position_table is not None:
        tables["position"] = position_table.astype(jnp.float32) * unit
    if time_table is not None:
        edge, base = time_cells.cells(settings.edges)
        weights = time_table.astype(jnp.float32) * unit
        after = np.minimum(base + 1, len(settings.edges) - 1)
        base, after = (np.append(x[:-1], time_table.shape[0] - 1) for x in (base, after))
        tables |= {"edge": jnp.asarray(edge), "low": weights[base], "high": weights[after]}
        more = BINS - len(settings.edges)
        edges = np.append(settings.edges, [time_cells.LAST] * more)
        tables["edges"] = jnp.asarray(edges, jnp.int32)
        tables["weight"] = jnp.append(weights[: len(settings.edges)], jnp.broadcast_to(weights[-1], (more,)))
    return tables


def _arrays(launch: Launch, q, k, v, tokens: Tokens) -> dict[str, jax.Array]:
    seen = tokens.seen_BxT
    arrays = {"q": q, "k": k, "v": v, "query_time": tokens.query_time_BxT, "key_time": tokens.key_time_BxT}
    arrays = {name: _view(launch, array) for name, array in arrays.items()}
    # A pad added by the view must stay one.
    arrays["seen"] = _view(launch, seen + 1) - 1
    # Pads between events would still be skipped one by one; blocks beyond the last event are not visited.
    arrays["length"] = jnp.max(seen[:, : launch.history], axis=1, initial=0)
    return arrays


def _view(launch: Launch, x: jax.Array) -> jax.Array:
    """(B, T, …) as (B, U, R, …), with zeros at the end where R does not divide T."""
    more = launch.rows * launch.classes - launch.tokens
    if more:
        x = jnp.pad(x, [(0, 0), (0, more)] + [(0, 0)] * (x.ndim - 2))
    return x.reshape(x.shape[0], launch.rows, launch.classes, *x.shape[2:])


def _unview(launch: Launch, x: jax.Array) -> jax.Array:
    """The inverse of `_view`."""
    x = x.reshape(x.shape[0], launch.rows * launch.classes, *x.shape[3:])
    return x[:, : launch.tokens]


def _time_gradient(total: jax.Array, time_table: jax.Array) -> jax.Array:
    used = min(time_table.shape[0] - 1, BINS - 1)
    return jnp.zeros(time_table.shape, jnp.float32).at[:used].set(total[:used]).at[-1].set(total[-1])


def _position_gradient(launch: Launch, sums: dict[str, jax.Array], tokens: Tokens) -> jax.Array:
    total = jnp.zeros((2 * launch.max_tokens - 1,), jnp.float32)
    for class_, diagonals in enumerate(_diagonal_sums(sums["position"])):
        # Diagonal d of the views is a difference of rows, and every class of keys has a shift of its own.
        shift = (class_ - (launch.window - 1)) % launch.classes - class_
        back = (np.arange(diagonals.shape[0]) - diagonals.shape[0] // 2) * launch.classes + shift
        place = back + launch.max_tokens - 1
        kept = np.flatnonzero((place >= 0) & (back <= 0))  # no query sees a later key
        total = total.at[place[kept]].add(diagonals[kept], unique_indices=True)
    if "candidates" in sums:
        total += _candidate_positions(launch, sums["candidates"], tokens)
    return total


def _diagonal_sums(pairs_RxNxN: jax.Array) -> jax.Array:
    """The sums over i of [r, i, i + d] at place d + N, (R, 2·N)."""
    classes, size, _ = pairs_RxNxN.shape
    # Rows turned round and one longer than they are read: each is one to the left of the one before.
    askew = jnp.pad(pairs_RxNxN[:, ::-1], ((0, 0), (0, 0), (1, size)))
    askew = askew.reshape(classes, size * (2 * size + 1))[:, : 2 * size * size]
    return askew.reshape(classes, size, 2 * size).sum(1)


def _candidate_positions(launch: Launch, rows_BxMxT: jax.Array, tokens: Tokens) -> jax.Array:
    """The sums of the candidates' rows, each shifted to its own order."""
    length, middle = launch.history, launch.max_tokens - 1
    rows_BxMxT = rows_BxMxT[:, :, : launch.tokens]
    order_BxM = jnp.maximum(tokens.seen_BxT[:, length:], 0)
    # A difference order_j − order_i from −L to −1 comes from slot order_i + difference; 0 is the candidate
    # itself.
    slot_BxMxL = order_BxM[:, :, None] + jnp.arange(-length, 0)
    values_BxMxL = jnp.take_along_axis(rows_BxMxT, jnp.maximum(slot_BxMxL, 0), axis=2, mode="clip")
    history_L = jnp.where(slot_BxMxL >= 0, values_BxMxL, 0.0).sum((0, 1))
    own = jnp.einsum("bmm->", rows_BxMxT[:, :, length:])
    total = jnp.zeros((2 * launch.max_tokens - 1,), jnp.float32)
    return total.at[middle - length : middle].set(history_L).at[middle].set(own)
