"""Who attends to whom in LightSUAN: recent tokens, and every r-th one before them (arXiv 2508.15326).

Positions are counted back from the candidate. With o = back_j − back_i, token i attends to token j iff
0 ≤ o < k (local), or o ≥ k and (o − (k − 1)) mod r = 0 (dilated). A candidate has position 0 and sees itself
and the events before it by the same rule, never another candidate.

Its pairs fall into parts, each dense groups of N queries that attend to S keys of their own, so that no
(T, T) matrix exists and L events cost O(L·(k + (L − k) / r)·D):

    local     blocks of k events, to their own block and the one before
    dilated   with the keys moved on by k − 1 slots, "o − (k − 1) is a multiple of r" reads "in the same class
              of slots mod r": r classes, each strictly causal in itself
    events    the candidates, to the events that the rule leaves them
    own       each candidate, to itself
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from suan_jax.batch import Batch
from suan_jax.layers import masking

Parts = dict[str, jax.Array]
"""Part to one value for each of its pairs, broadcastable to (B, groups, N, S)."""


def sees(offset: np.ndarray | jax.Array, window: int, dilation: int) -> np.ndarray | jax.Array:
    """Whether a token attends to the one `offset` positions before it: the rule of the module docstring."""
    dilated = (offset - (window - 1)) % dilation == 0
    return (offset >= 0) & ((offset < window) | dilated)


def seen_offsets(length: int, window: int, dilation: int) -> np.ndarray:
    """The offsets, 1 to `length`, at which a candidate sees events; increasing, int32."""
    offset = np.arange(1, length + 1, dtype=np.int32)
    return offset[sees(offset, window, dilation)]


@struct.dataclass
class Pattern:
    """Which token of a batch attends to which.

    Attributes:
      window: k.
      dilation: r.
      slots_BxS: history slots that may be seen by a row's candidates, int32; negative for none.
      visible_BxM: how many events each candidate sees.
      masks: the pairs that attend, bool.
      events_attend: whether the events attend, too, or only the candidates.
    """

    window: int = struct.field(pytree_node=False)
    dilation: int = struct.field(pytree_node=False)
    slots_BxS: jax.Array
    visible_BxM: jax.Array
    masks: Parts
    events_attend: bool = struct.field(pytree_node=False, default=True)


def sparse_pattern(
    batch: Batch, window: int, dilation: int, one_request: bool, events_attend: bool = True
) -> Pattern:
    """The pattern of a batch's tokens.

    Args:
      batch: its histories and candidates.
      window: k, at least 1.
      dilation: r, at least 1.
      one_request: whether all candidates of a row see the same events. Each then costs a pair for every event
        that it attends to; candidates of different times cost a pair for every event of the row.
      events_attend: whether the events attend, too, or only the candidates.
    """
    length = batch.history_mask.shape[1]
    offsets = seen_offsets(length, window, dilation)
    slots_BxS = masking.seen_length(batch)[:, None] - offsets
    if len(offsets) == length or not (one_request or batch.candidate_mask.shape[1] == 1):
        slots_BxS = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), batch.history_mask.shape)
    pattern = Pattern(window, dilation, slots_BxS, batch.visible, {}, events_attend)
    valid_BxT = jnp.concatenate([batch.history_mask, batch.candidate_mask], axis=1)
    masks = {
        name: part.sees & part.queries(valid_BxT)[..., :, None] & part.keys(valid_BxT)[..., None, :]
        for name, part in parts_of(pattern, length).items()
    }
    return pattern.replace(masks=masks)


def computed_pairs(
    length: int, window: int, dilation: int, candidates: int = 1, one_request: bool = True
) -> int:
    """Pairs that `sparse_attention` scores in a row of `length` slots, 2·D multiply-adds each.

    The other arguments are as in `sparse_pattern`.
    """
    tokens = jax.ShapeDtypeStruct((1, length + candidates), bool)
    slots = length - seen_offsets(length, window, dilation)
    if not (one_request or candidates == 1):
        slots = np.arange(length)
    pattern = Pattern(window, dilation, slots[None], np.full((1, candidates), length), {})
    return sum(
        jax.eval_shape(part.queries, tokens).size * jax.eval_shape(part.keys, tokens).shape[2]
        for part in parts_of(pattern, length).values()
    )


def visible_pairs(lengths: np.ndarray, window: int, dilation: int) -> np.ndarray:
    """Pairs of tokens that attend, for so many events and a candidate; int64."""
    before = np.arange(np.max(lengths) + 1)
    per_token = 1 + np.minimum(before, window - 1) + np.maximum(before - (window - 1), 0) // dilation
    return np.cumsum(per_token)[np.asarray(lengths)]


class Part(NamedTuple):
    """One kind of pairs.

    Attributes:
      queries: takes the queries' values out of (B, T, ...), to (B, groups, N, ...).
      keys: likewise those of the keys, (B, groups, S, ...).
      ungroup: takes (B, groups, N, ...) back to one value per history slot, or per candidate; tokens that the
        part lacks get the value given.
      offset: positions from query to key, broadcastable to (B, groups, N, S).
      sees: the rule at those offsets, within this part.
    """

    queries: Callable[[jax.Array], jax.Array]
    keys: Callable[[jax.Array], jax.Array]
    ungroup: Callable[[jax.Array, float], jax.Array]
    offset: np.ndarray | jax.Array
    sees: np.ndarray | jax.Array


def parts_of(pattern: Pattern, length: int) -> dict[str, Part]:
    """The parts of `length` history slots and the candidates after them, less those without pairs."""
    window, dilation = pattern.window, pattern.dilation
    parts = {"local": _local(window, length)} if pattern.events_attend else {}
    if pattern.events_attend and length - window >= dilation:
        parts["dilated"] = _dilated(window, dilation, length)
    if pattern.slots_BxS.shape[1]:
        parts["events"] = _events(pattern, length)
    zero = np.zeros((1, 1, 1, 1), np.int32)
    each = Part(
        lambda x: x[:, length:, None], lambda x: x[:, length:, None], lambda x, _: x[:, :, 0], zero, zero == 0
    )
    return {**parts, "own": each}


def _local(window: int, length: int) -> Part:
    block = min(window, length)

    def queries(x: jax.Array) -> jax.Array:
        return _fold(x[:, :length], block)

    def keys(x: jax.Array) -> jax.Array:
        own = queries(x)
        if own.shape[1] == 1:
            return own
        before = jnp.concatenate([jnp.zeros_like(own[:, :1]), own[:, :-1]], axis=1)
        return jnp.concatenate([before, own], axis=2)

    span = block if block == length else 2 * block
    offset = np.arange(block)[:, None] + span - block - np.arange(span)
    return Part(
        queries,
        keys,
        lambda x, _: x.reshape(x.shape[0], -1, *x.shape[3:])[:, :length],
        offset[None, None],
        ((offset >= 0) & (offset < window))[None, None],
    )


def _dilated(window: int, dilation: int, length: int) -> Part:
    first = window - 1  # the slot that sees the first one at the far end of its window

    def classes(x: jax.Array) -> jax.Array:
        return jnp.swapaxes(_fold(x, dilation), 1, 2)

    def ungroup(x: jax.Array, fill: float) -> jax.Array:
        x = jnp.swapaxes(x, 1, 2).reshape(x.shape[0], -1, *x.shape[3:])[:, : length - first]
        return jnp.pad(x, ((0, 0), (first, 0), *[(0, 0)] * (x.ndim - 2)), constant_values=fill)

    steps = np.arange(-(-(length - first) // dilation))
    steps = steps[:, None] - steps
    return Part(
        lambda x: classes(x[:, first:length]),
        lambda x: classes(x[:, : length - first]),
        ungroup,
        (first + dilation * steps)[None, None],
        (steps > 0)[None, None],
    )


def _events(pattern: Pattern, length: int) -> Part:
    slots_BxS = pattern.slots_BxS
    offset = pattern.visible_BxM[:, None, :, None] - slots_BxS[:, None, None, :]

    def keys(x: jax.Array) -> jax.Array:
        if slots_BxS.shape[1] == length:
            return x[:, None, :length]
        index = jnp.maximum(slots_BxS, 0).reshape(*slots_BxS.shape, *[1] * (x.ndim - 2))
        return jnp.take_along_axis(x[:, :length], index, axis=1)[:, None]

    rule = (offset > 0) & sees(offset, pattern.window, pattern.dilation) & (slots_BxS >= 0)[:, None, None]
    return Part(lambda x: x[:, None, length:], keys, lambda x, _: x[:, 0], offset, rule)


def _fold(x: jax.Array, size: int) -> jax.Array:
    """(B, N, ...) to (B, ceil(N / size), size, ...), zeros behind."""
    more = -x.shape[1] % size
    x = jnp.pad(x, ((0, 0), (0, more), *[(0, 0)] * (x.ndim - 2)))
    return x.reshape(x.shape[0], -1, size, *x.shape[2:])
