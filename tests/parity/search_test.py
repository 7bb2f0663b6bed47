"""What candidates retrieve, against the search models that FuxiCTR's package ships beside its layers."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from suan_jax.layers.retrieval import gather_events, top_k
from suan_jax.layers.target_attention import TargetPool, TargetQuery, target_scores
from suan_jax.models.eta import hamming_distance, hash_codes
from tests.parity.carried import REASON, assert_close, assert_same, carry, normal, torch

eta = pytest.importorskip("model_zoo.LongCTR.ETA.ETA", reason=REASON)
sim = pytest.importorskip("model_zoo.LongCTR.SIM.SIM", reason=REASON)
twin = pytest.importorskip("model_zoo.LongCTR.TWIN.TWIN", reason=REASON)
features = pytest.importorskip("fuxictr.features", reason=REASON)
B, L, D, K, BITS = 4, 12, 8, 5, 16
MASK = np.arange(L) < np.array([12, 3, 7, 12])[:, None]


def test_eta_retrieves_events_at_the_same_distances():
    # Which of several events at one distance comes first, PyTorch leaves open; here it is the most recent.
    target, history, projection = normal(0, B, D), normal(1, B, L, D), normal(2, D, BITS)

    @jax.jit
    def search(target, history):
        codes = hash_codes(target[:, None], projection), hash_codes(history, projection)
        distance = hamming_distance(*codes, MASK[:, None])
        return distance[:, 0], top_k(-distance, MASK[:, None], K)

    distance, found = search(target, history)
    model = SimpleNamespace(
        reuse_hash=True, hash_bits=BITS, lsh_hash=lambda *arguments: eta.ETA.lsh_hash(None, *arguments)
    )
    arguments = (projection[None], target, history, MASK)
    rows, mask = eta.ETA.topk_retrieval(model, *map(torch.from_numpy, arguments), K)
    np.testing.assert_array_equal(found.mask_BxMxK[:, 0].sum(-1), mask.sum(-1))
    # The slot of each row that theirs retrieved, found by its contents.
    slots = (rows.numpy()[:, :, None] == history[:, None]).all(-1).argmax(-1)
    ours, theirs = (
        np.take_along_axis(np.asarray(distance), np.asarray(index), axis=-1)
        for index in (found.index_BxMxK[:, 0], slots)
    )
    np.testing.assert_array_equal(ours, theirs)


def test_twin_attends_over_the_events_of_its_highest_scores():
    # With one head: each of FuxiCTR's heads searches for itself, here one set serves all heads.
    query, key, value, out = (normal(seed, D, D) / 2 for seed in range(4))
    theirs = twin.MultiHeadTopKAttention(D, 0, attention_dim=D, topk=K, num_heads=1)
    kernels = ((theirs.W_q, query), (theirs.W_h, key), (theirs.W_v, value), (theirs.W_o, out))
    for linear, kernel in kernels:
        carry(linear.weight, kernel.T)

    def apply(target, history):
        params = {"query": query[:, None], "key": key[:, None]}
        q = TargetQuery(1, D, D).apply({"params": params}, target[:, None]) * D**-0.5
        scores = target_scores(q, history[:, None])
        found = top_k(scores[:, :, 0], MASK[:, None], K)
        events = gather_events(history, found.index_BxMxK)
        params = {"value": value[:, None], "out": out[None]}
        pool = TargetPool(1, D)
        return pool.apply({"params": params}, target_scores(q, events), found.mask_BxMxK, events)[:, 0]

    mask = torch.from_numpy(MASK)
    assert_same(apply, lambda q, e: theirs(q, e, mask), normal(8, B, D), normal(9, B, L, D))


def test_sim_scores_agree_and_its_pads_beat_events_of_negative_score():
    # FuxiCTR multiplies scores by the mask, so a pad scores 0 and is retrieved before an event of a negative
    # score. Here what the mask excludes comes last, and only valid events count.
    columns = features.FeatureMap("log", "")
    columns.features = {"item": {"type": "categorical", "source": "item", "vocab_size": 50}}
    columns.default_emb_dim = D
    settings = {
        "optimizer": "adam",
        "loss": "binary_crossentropy",
        "verbose": 0,
        "model_root": "",
        "metrics": [],
    }
    theirs = sim.SIM(
        columns, embedding_dim=D, attention_dim=D, num_heads=1, topk=K, short_seq_len=K, **settings
    )
    query, key, table = (normal(seed, rows, D) for seed, rows in ((0, D), (1, D), (2, 50)))
    carry(theirs.W_a.weight, query.T)
    carry(theirs.W_b.weight, key.T)
    carry(theirs.embedding_layer.embedding_layer.embedding_layers["item"].weight, table)
    seen = []
    theirs.long_attention.register_forward_hook(lambda module, inputs, output: seen.append(inputs))
    items = np.random.default_rng(3).integers(0, 50, (B, L + 1))
    theirs(({}, {"item": torch.from_numpy(items.ravel())}, torch.from_numpy(MASK)))
    _, rows, mask = seen[0]

    q = TargetQuery(1, D, D).apply(
        {"params": {"query": query[:, None], "key": key[:, None]}}, table[items[:, -1:]]
    )
    scores = np.asarray(target_scores(q, table[items[:, None, :-1]]))[:, 0, 0]
    slots = torch.from_numpy(scores * MASK).topk(K).indices
    assert_close(np.take_along_axis(table[items[:, :-1]], slots.numpy()[..., None], axis=1), rows)
    found = top_k(scores[:, None], MASK[:, None], K).mask_BxMxK[:, 0]
    np.testing.assert_array_equal(found.sum(-1), np.minimum(MASK.sum(-1), K))
    assert (mask.numpy().sum(-1) < found.sum(-1)).any()
