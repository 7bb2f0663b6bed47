"""Attention with relative biases in a few passes, in a bounded memory for pairs of tokens.

    softmax: softmax(scale · q kᵀ + w_pos[order_j − order_i + n − 1] + w_time[bucket(|t_i − t_j|)]) v
    silu:    Σ_j silu(scale · q kᵀ + w_pos[…] + w_time[…]) / divisor · v

One scalar bias serves all heads. Tokens are L history slots and then candidates; a token sees the first
`seen` slots and itself. With `window` k and `dilation` r it sees of those the ones for which o = order_i −
order_j is below k, or (o − (k − 1)) mod r = 0: pairs near and pairs far are computed in launches of their
own, the far ones grouped by slot modulo r, where they are dense, and merged. Blocks in which no query sees a
key are not visited.

The biases of pairs, and in the backward pass the gradients of their scores for every group of heads, are
written out in the dtype of q, for so many rows of the batch at a time that they fill at most `workspace`
bytes. The parts of sparse attention are merged from that dtype, too.

The kernels are for NVIDIA GPUs, through Pallas and Triton; `reference.plain_attention` is what they compute.
The forward pass is that of FlashAttention-2 (arXiv 2307.08691), and so is the backward pass, which computes
the scores again; the sums for the bias tables are this project's, see `attention_tables`. Results do not
depend on the order in which programs run.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from suan_jax.kernels import time_cells
from suan_jax.kernels.attention_backward import backward_keys, backward_queries
from suan_jax.kernels.attention_bias import fill
from suan_jax.kernels.attention_forward import LOG2_E, forward
from suan_jax.kernels.attention_tables import reach, table_gradients
from suan_jax.kernels.attention_tile import MASKED, Cut, Launch, largest_divisor
from suan_jax.kernels.time_cells import BINS

KINDS = ("softmax", "silu")
MAX_HEAD_DIM = 128
WORKSPACE = 1 << 30  # bytes


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
    """How the five kernels are cut, all into tiles of `block` queries and as many keys."""

    block: int
    biases: Cut = Cut()
    forward: Cut = Cut()
    queries: Cut = Cut()
    keys: Cut = Cut()
    tables: Cut = Cut()


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
    workspace: int
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
        return Tiles(32, tables=Cut(rows=4))
    return Tiles(64, Cut(), Cut(stages=2), Cut(heads=2, stages=2), Cut(stages=2), Cut(rows=4))


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
    workspace: int = WORKSPACE,
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
      workspace: most bytes of arrays of pairs at a time, unless one row of the batch takes more. Under
        `jax.vmap` every run has as much.
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
        workspace,
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
        arrays = _arrays(launch, q, k, v, tokens)

        def run(first: jax.Array, rows: int, launch=launch, arrays=arrays) -> tuple:
            biases = fill(launch, settings.tiles.biases, arrays, tables, first, rows, q.dtype)
            return forward(launch, settings.tiles.forward, arrays, biases, first), ()

        (out, log_sum), _ = _by_rows(settings, launch, q.shape[0], q.dtype.itemsize, run)
        outs.append(_unview(launch, out))
        sums.append(_unview(launch, jnp.transpose(log_sum, (0, 3, 1, 2))))
    out, log_sum = outs[0], sums[0]
    if len(outs) > 1 and settings.kind == "silu":
        out = sum(part.astype(jnp.float32) for part in outs)
    elif len(outs) > 1:
        log_sum = jnp.logaddexp2(sums[0], sums[1])
        shares = [jnp.where(s > MASKED / 2, jnp.exp2(s - log_sum), 0.0) for s in sums]
        out = sum(share[..., None] * part for share, part in zip(shares, outs, strict=True))
    out = out.astype(v.dtype)
    kept = (out, log_sum) if settings.kind == "softmax" else None
    return out, (q, k, v, position_table, time_table, tokens, kept)


def _attention_backward(settings, residual, out_gradient):
    q, k, v, position_table, time_table, tokens, kept = residual
    tables, tiles = _tables(settings, position_table, time_table), settings.tiles
    gradients = []
    for launch in _launches(settings, q, position_table, time_table):
        arrays = _arrays(launch, q, k, v, tokens)
        arrays["out_gradient"] = _view(launch, out_gradient)
        if kept is not None:
            arrays["out"] = _view(launch, kept[0])
            arrays["log_sum"] = jnp.transpose(_view(launch, kept[1]), (0, 2, 3, 1))

        if launch.timed:
            arrays |= reach(launch, arrays, settings.edges)

        def run(first: jax.Array, rows: int, launch=launch, arrays=arrays) -> tuple:
            biases = fill(launch, tiles.biases, arrays, tables, first, rows, q.dtype)
            of = backward_queries(launch, tiles.queries, arrays, biases, first, keep_slopes=bool(tables))
            of_keys = backward_keys(launch, tiles.keys, arrays, biases, of.get("dots"), first)
            sums = {}
            if tables:
                sums = table_gradients(launch, tiles.tables, arrays, settings.edges, of["slopes"], first)
            return (of["gradient"], *of_keys), sums

        groups = q.shape[2] // largest_divisor(q.shape[2], tiles.queries.heads)
        pair_bytes = q.dtype.itemsize * (1 + groups * bool(tables)) + 4 / tiles.tables.rows
        vectors, sums = _by_rows(settings, launch, q.shape[0], pair_bytes, run)
        if launch.timed:
            sums["time"] = _time_gradient(sums["time"], time_table)
        parts = (*(_unview(launch, x) for x in vectors), sums.get("position"), sums.get("time"))
        gradients.append(parts)
    like = (q, k, v, position_table, time_table)
    total = [
        None if x is None else sum(part.astype(jnp.float32) for part in parts).astype(x.dtype)
        for x, *parts in zip(like, *gradients, strict=True)
    ]
    return (*total, None)


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
            block=settings.tiles.block,
            region=region,
            window=settings.window,
            dilation=settings.dilation,
            interpret=settings.interpret,
        )
        for region in regions
    ]


def _by_rows(settings: _Settings, launch: Launch, size: int, pair_bytes: float, run: Any) -> tuple:
    """`run(first, rows)` for as many rows of the batch at a time as the workspace holds.

    Args:
      settings: of the attention.
      launch: what is computed.
      size: B.
      pair_bytes: what a pair of tokens needs.
      run: takes the first row, (1,) int32, and the number of rows; returns arrays with a first axis of rows,
        and a tree of sums over rows.

    Returns:
      The arrays of all rows, and the sums.
    """
    most = max(int(settings.workspace / (pair_bytes * launch.classes * launch.padded**2)), 1)
    rows = -(-size // -(-size // most))  # in as many turns as it takes, about equal ones
    turns, rest = divmod(size, rows)
    if turns == 1 and not rest:
        return run(jnp.zeros((1,), jnp.int32), rows)
    firsts = jnp.arange(turns, dtype=jnp.int32)[:, None] * rows
    by_row, sums = jax.lax.map(functools.partial(run, rows=rows), firsts)
    by_row = jax.tree.map(lambda x: x.reshape(turns * rows, *x.shape[2:]), by_row)
    sums = jax.tree.map(lambda x: x.sum(0), sums)
    if rest:
        last, more = run(jnp.full((1,), turns * rows, jnp.int32), rest)
        by_row = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), by_row, last)
        sums = jax.tree.map(jnp.add, sums, more)
    return by_row, sums


def _tables(settings, position_table, time_table) -> dict[str, jax.Array]:
    """What `fill` takes, for softmax to the base 2."""
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
