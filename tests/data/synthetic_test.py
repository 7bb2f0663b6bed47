import dataclasses
import hashlib
import math
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from suan_jax.config import SyntheticConfig
from suan_jax.data.synthetic import FORM, SyntheticLog, click, slots, timeline, world
from suan_jax.errors import UserError
from suan_jax.schema import SPLITS

ROOT = pathlib.Path(__file__).parents[2]
SMALL = SyntheticConfig(users=600, events=60, impressions=12, items=3000, seed=3)
PINNED = "bb77e2e7ae12c60563bb831d52448d0148f7933b6c97d5dad0474f047de4be57"


def columns(block):
    for field in dataclasses.fields(block):
        value = getattr(block, field.name)
        yield from value.items() if isinstance(value, dict) else [(field.name, value)]


def checksum(block):
    digest = hashlib.sha256()
    for name, values in columns(block):
        digest.update(f"{name} {values.dtype} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def same(a, b):
    return all(np.array_equal(x, y) for (_, x), (_, y) in zip(columns(a), columns(b), strict=True))


def auc(label, score):
    order = np.argsort(score, kind="stable")
    rank = np.empty(len(score))
    rank[order] = np.arange(1, len(score) + 1)
    ones = label.sum()
    return (rank[label == 1].sum() - ones * (ones + 1) / 2) / (ones * (len(label) - ones))


@pytest.fixture(scope="module")
def block():
    return SyntheticLog(SMALL, max_len=20).block(0)


def reference(block, impression, max_len, seed, items):
    """The documented formula, one example and one behaviour at a time, from visible columns alone."""

    def eps(tag, *keys):
        return float(world.effect(seed, tag, *(np.array([key]) for key in keys))[0])

    def kernel(age, half_life):
        return 1 / (1 + (age / half_life) ** 2)

    row = int(np.searchsorted(block.impression_offsets, impression, side="right")) - 1
    person = {name: int(ids[row]) - 2 for name, ids in block.profile.items()}
    scene = {name: int(ids[impression]) - 2 for name, ids in block.context.items()}
    x = {name: int(ids[impression]) - 2 for name, ids in block.candidate.items()}
    c, s = x["category"], x["subcategory"]
    now = int(block.time[impression])
    past = [
        {
            "age": now - int(block.event_time[e]),
            **{name: int(ids[e]) - 2 for name, ids in block.event.items()},
        }
        for e in range(block.event_offsets[row], block.event_offsets[row + 1])
        if block.event_time[e] < now
    ][-max_len if max_len else None :]

    z = -2.2 + 0.45 * eps(20, x["item"]) + 0.4 * eps(21, x["item"], person["age"] * 2 + person["gender"])
    z += (
        0.3 * eps(10, scene["hour"] // 4, c) + 0.25 * eps(11, scene["scenario"], c) - 0.15 * scene["position"]
    )
    z += 0.3 * (eps(12, person["age"], c) + eps(13, person["gender"], c) + eps(14, person["city"], s))
    z += 0.3 * eps(15, person["price_sensitivity"], x["price"])
    late, each = x["item"] // 256 - items // 256 // 2, items // 256
    if late >= 0:
        arrival = math.ceil((late + 1) * 112 * 86400 / (each - each // 2))
        z += 0.5 * eps(16, person["age"]) / (1 + max(now - 1_672_617_600 - arrival, 0) / (7 * 86400))

    buys = {"category": -1, "subcategory": -1}
    for j, e in enumerate(past):
        for level, last in buys.items():
            if e["action"] == 4 and e[level] == x[level]:
                buys[level] = max(last, j)
    period = math.floor((6 + 30 * float(world.uniform(seed, 2, np.array([s]))[0])) * 86400)
    half_short = [2, 3, 4, 6, 8, 12][person["age"]] * 3600
    half_long = [24, 18, 12, 8][person["activity"]] * 86400
    short = long = department = back = about = step = steps = run = 0.0
    previous = None
    for j, e in enumerate(past):
        if e["category"] // 8 != c // 8:
            continue
        value = [0.3, 0.6, 0.8, 1.0, 0.8][e["action"]]
        department += value * kernel(e["age"], half_long)
        if previous is not None and previous != e["category"]:
            recent = kernel(e["age"], 86400)
            steps += recent
            step += recent * eps(3, c, previous % 8 * 8 + e["category"] % 8)
        previous = e["category"]
        if e["category"] != c:
            continue
        match = 1.0 if e["subcategory"] == s else 0.35
        match += 0.5 * (e["brand"] == x["brand"]) + (e["item"] == x["item"])
        if e["subcategory"] == s and j <= buys["subcategory"]:
            match *= 0.1
        short += match * value * kernel(e["age"], half_short)
        long += match * value * kernel(e["age"], half_long)
        if j > buys["category"]:
            run += kernel(e["age"], 86400)
        y = e["age"] / period - 1
        if e["subcategory"] == s and -0.5 <= y < 0.5:
            weight = [0.15, 0.3, 0.4, 0.6, 1.0][e["action"]]
            about += weight
            back += weight * (1 - 12 * y * y)
    z += 1.7 * short / (1 + short) + 2.8 * long / (0.4 + department) + 2.2 * back / (0.3 + about)
    return z + 1.8 * step / (0.25 + steps) - 1.8 * run / (3 + run)


@pytest.mark.parametrize("name, max_len", [("unlimited", None), ("at_length", 20)])
def test_truth_is_the_documented_function_of_visible_columns(block, name, max_len):
    for impression in range(0, len(block.label), 23):
        expected = reference(block, impression, max_len, SMALL.seed, SMALL.items)
        assert block.truth[name][impression] == pytest.approx(expected, abs=2e-6)


def test_at_length_is_unlimited_where_the_history_fits(block):
    fits = block.visible <= 20
    assert 0 < fits.mean() < 1
    assert np.array_equal(block.truth["at_length"][fits], block.truth["unlimited"][fits])
    assert (block.truth["at_length"][~fits] != block.truth["unlimited"][~fits]).any()


def test_labels_are_drawn_from_truth():
    log = SyntheticLog(SyntheticConfig(users=4096, events=60, impressions=12, items=3000))
    blocks = [log.block(index) for index in range(log.num_blocks)]
    label = np.concatenate([block.label for block in blocks])
    p = 1 / (1 + np.exp(-np.concatenate([block.truth["unlimited"] for block in blocks]).astype(np.float64)))
    assert 0.15 < label.mean() < 0.3
    assert 0.75 < auc(label, p) < 0.88
    for part in [np.arange(len(p)), *np.array_split(np.argsort(p), 10)]:
        sd = math.sqrt((p[part] * (1 - p[part])).sum()) / len(part)
        assert abs((label[part] - p[part]).mean()) < 4 * sd


@pytest.mark.smoke
def test_block_is_well_formed(block):
    schema = SyntheticLog(SMALL).schema
    events, impressions = block.event_offsets[-1], block.impression_offsets[-1]
    sizes = {"history": (block.event, events), "candidate": (block.candidate, impressions)}
    sizes |= {"context": (block.context, impressions), "profile": (block.profile, len(block.user))}
    for group, (ids, size) in sizes.items():
        assert set(ids) == {feature.name for feature in schema.group(group)}
        for feature in schema.group(group):
            values = ids[feature.name]
            assert values.shape == (size,) and values.dtype == np.int32
            assert values.min() >= 2 and values.max() < schema.tables[feature.table]
    assert block.dense.shape == (impressions, len(schema.dense)) and block.dense.dtype == np.float32
    assert block.label.dtype == block.split.dtype == np.uint8 and block.user.dtype == np.int64
    assert all(truth.dtype == np.float32 for truth in block.truth.values())
    for begin, end, first, last in zip(
        block.event_offsets,
        block.event_offsets[1:],
        block.impression_offsets,
        block.impression_offsets[1:],
        strict=False,
    ):
        event_time, time = block.event_time[begin:end], block.time[first:last]
        assert (np.diff(event_time) >= 0).all() and (np.diff(time) > 0).all()
        assert np.array_equal(np.searchsorted(event_time, time, side="left"), block.visible[first:last])


def test_a_click_becomes_a_behaviour_before_the_next_impression(block):
    row = np.repeat(np.arange(len(block.user)), np.diff(block.impression_offsets))
    clicked = np.flatnonzero(block.label)
    event = block.event_offsets[row[clicked]] + block.visible[clicked]
    assert np.array_equal(block.event["item"][event], block.candidate["item"][clicked])
    assert np.array_equal(block.event_time[event], block.time[clicked] + 1)
    assert (block.event["action"] == world.CLICK + 2).sum() == len(clicked)


@pytest.mark.smoke
def test_access_is_random_and_the_bytes_are_pinned(block):
    log = SyntheticLog(SMALL, max_len=20)
    last = log.block(1)
    assert same(log.block(0), block) and same(log.block(1), last) and not same(block, last)
    assert checksum(block) == PINNED, f"{FORM} is frozen: another result needs another name"


def test_bytes_do_not_depend_on_the_cpu():
    code = (
        "from tests.data.synthetic_test import *; print(checksum(SyntheticLog(SMALL, max_len=20).block(0)))"
    )
    features = "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX X86_V3 X86_V4 ASIMDHP"
    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": features, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-c", code]
    result = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.split()[-1] == PINNED


def test_labels_do_not_depend_on_max_len(block):
    other = SyntheticLog(SMALL).block(0)
    assert set(other.truth) == {"unlimited"}
    assert np.array_equal(other.label, block.label)
    assert np.array_equal(other.truth["unlimited"], block.truth["unlimited"])


def test_another_seed_is_another_world(block):
    other = SyntheticLog(dataclasses.replace(SMALL, seed=4)).block(0)
    assert not np.array_equal(other.candidate["item"], block.candidate["item"])
    items = np.arange(1000)
    brand, _ = world.World(3, 3000).brand_and_price(items)
    other_brand, _ = world.World(4, 3000).brand_and_price(items)
    assert (brand != other_brand).mean() > 0.5


@pytest.mark.parametrize(
    "users, events, impressions", [(1, 5, 1), (600, 60, 12), (1500, 0, 1), (520, 30, 150)]
)
def test_counts_and_splits_by_time(users, events, impressions):
    log = SyntheticLog(SyntheticConfig(users=users, events=events, impressions=impressions, items=1024))
    blocks = [log.block(index) for index in range(log.num_blocks)]
    for index, split in enumerate(SPLITS):
        counts = log.counts(split)
        assert counts.dtype == np.int64
        assert counts.tolist() == [int((block.split == index).sum()) for block in blocks]
    day = np.concatenate([block.time - world.START for block in blocks]) / world.DAY
    split = np.concatenate([block.split for block in blocks])
    assert np.array_equal(split, np.digitize(day, [95, 99]))
    rank = np.concatenate([block.rank for block in blocks])
    assert len(rank) == users and (np.diff(rank) > 0).all() and rank[-1] < 1


def test_full_blocks_hold_the_mean_and_split_as_documented():
    log = SyntheticLog(SyntheticConfig(users=1024, impressions=20))
    counts = {split: log.counts(split).sum() for split in SPLITS}
    assert sum(counts.values()) == 1024 * 20
    shares = [counts[split] / (1024 * 20) for split in SPLITS]
    assert shares == pytest.approx([0.805, 0.044, 0.150], abs=0.003)


@pytest.mark.smoke
def test_a_log_of_ten_billion_impressions_opens_and_reads_anywhere():
    log = SyntheticLog(SyntheticConfig(users=500_000_000, events=20, items=1_000_000_000))
    assert sum(int(log.counts(split).sum()) for split in SPLITS) == pytest.approx(10**10, rel=1e-3)
    block = log.block(log.num_blocks - 1)
    assert block.user[-1] == 499_999_999 and block.rank[-1] < 1


def test_items_arrive_and_are_heavy_tailed(block):
    log = SyntheticLog(SyntheticConfig(users=2048, events=60, impressions=12, items=3000))
    blocks = [log.block(index) for index in range(log.num_blocks)]
    item = np.concatenate([block.candidate["item"] for block in blocks])
    split = np.concatenate([block.split for block in blocks])
    assert len(np.setdiff1d(item[split == 2], item[split == 0])) > 20
    counts = np.sort(np.bincount(item))[::-1]
    assert counts[:30].sum() > 0.05 * counts.sum() and (counts == 0).sum() > 0
    length = np.concatenate([np.diff(block.event_offsets) for block in blocks])
    assert length.min() < 10 and length.max() > 4 * length.mean()


def parts_auc(weights, max_len=None, labels=None, events=200, blocks=3):
    fixed = world.World(0, 20_000, weights)
    logits, drawn = [], []
    for index in range(blocks):
        t = timeline.generate(fixed, events, 20, timeline.Draws(0, index), 512)
        if labels is not None:
            t.chance = np.where(labels[index], 0.0, np.inf)
        clicks = click.draw(fixed, t, slots.arrange(fixed, t), max_len)
        drawn.append(clicks.label)
        logits.append(clicks.logit if max_len is None else clicks.logit_at_length)
    return auc(np.concatenate(drawn), np.concatenate(logits)), drawn


@pytest.mark.parametrize(
    "least, part",
    [
        (0.01, ["item", "item_segment"]),
        (0.01, ["hour", "scenario", "position"]),
        (0.01, ["profile", "price", "fresh"]),
        (0.05, ["short", "long"]),
        (0.01, ["back"]),
        (0.04, ["chain", "fatigue", "satiation"]),
    ],
)
def test_every_part_of_the_logit_is_worth_auc(least, part):
    whole, labels = parts_auc(world.Weights())
    without, _ = parts_auc(dataclasses.replace(world.Weights(), **dict.fromkeys(part, 0.0)), labels=labels)
    assert whole - without > least


def test_longer_histories_keep_helping():
    _, labels = parts_auc(world.Weights(), events=600, blocks=1)
    scores = [parts_auc(world.Weights(), n, labels, 600, 1)[0] for n in (10, 50, 200, 1000)]
    assert np.diff(scores).min() > 0.01


def test_exp_is_exact_to_the_last_bits():
    x = np.linspace(-40, 40, 10_001)
    assert np.allclose(world.exp(x), np.exp(x), rtol=4e-16, atol=0)


@pytest.mark.smoke
@pytest.mark.parametrize("field, value", [("users", 0), ("impressions", 0), ("items", 1000), ("seed", -1)])
def test_a_size_out_of_range_is_named(field, value):
    with pytest.raises(UserError, match=f"data.synthetic.{field} is {value}, expected"):
        SyntheticLog(dataclasses.replace(SMALL, **{field: value}))
