import inspect
import itertools

import numpy as np
import pytest

from suan_jax.evaluation import adaptive, depths, metrics

_EXAMPLES = 200_000


@pytest.fixture(scope="module")
def clicks():
    """Logits N(0, .8²) and labels drawn from them."""
    random = np.random.default_rng(10)
    logit = random.normal(0, 0.8, _EXAMPLES)
    return random, (random.uniform(size=_EXAMPLES) < 1 / (1 + np.exp(-logit))).astype(np.float32), logit


@pytest.mark.smoke
def test_no_other_choice_of_depths_ranks_better_than_the_oracle():
    random = np.random.default_rng(1)
    label, logits = np.array([1, 0, 1, 0, 0, 1]), random.normal(size=(3, 6))
    choices = itertools.product(range(3), repeat=6)
    best = max(metrics.auc(label, logits[list(choice), range(6)]) for choice in choices)
    assert metrics.auc(label, depths.oracle(label, logits)) == best
    expected = [max(logits[:, i]) if label[i] else min(logits[:, i]) for i in range(6)]
    np.testing.assert_array_equal(depths.oracle(label, logits), expected)


@pytest.mark.parametrize(("deviation", "gain"), [(0.02, 0.013), (0.05, 0.032), (0.10, 0.062)])
def test_noise_alone_gains_what_is_known(clicks, deviation, gain):
    random, label, logit = clicks
    copies = depths.gaussian_control(logit, 4, deviation, random)
    got = metrics.auc(label, depths.oracle(label, copies)) - metrics.auc(label, logit)
    assert got == pytest.approx(gain, abs=0.003)
    assert depths.disagreement(copies) == pytest.approx(deviation, rel=0.01)


def test_depths_that_are_noise_have_no_headroom_over_the_controls(clicks):
    random, label, logit = clicks
    found = depths.headroom(label, depths.gaussian_control(logit, 4, 0.07, random))
    assert found.oracle - found.mean > 0.03
    assert found.gaussian == pytest.approx(found.oracle, abs=0.001)
    assert found.shuffled == pytest.approx(found.oracle, abs=0.001)
    assert found.disagreement == pytest.approx(0.07, rel=0.01)


def test_an_oracle_does_not_see_which_depth_is_right(clicks):
    """A depth that knows half of the labels is worth a lot; the oracle gains less than from noise."""
    random, label, logit = clicks
    knows = np.where(random.uniform(size=_EXAMPLES) < 0.5, 0.5 * (2 * label - 1), 0.0)
    logits = np.stack([logit, logit + knows])
    found = depths.headroom(label, logits)
    assert found.mean > metrics.auc(label, logit) + 0.05
    assert found.oracle < found.shuffled and found.oracle < found.gaussian


def test_depths_that_disagree_where_it_matters_have_headroom(clicks):
    """Noise that moves undecided examples alone gains more than the same noise anywhere."""
    random, label, logit = clicks
    copies = depths.gaussian_control(logit, 4, 0.1, random)
    found = depths.headroom(label, np.where(np.abs(logit) < 0.4, copies, logit))
    assert found.oracle > found.shuffled + 0.005


def test_the_shuffled_control_keeps_means_and_the_form_of_the_disagreement():
    random = np.random.default_rng(2)
    logits = random.normal(size=(3, 500)) + np.array([[0.0], [4.0], [9.0]])
    control = depths.shuffled_control(logits, random)
    np.testing.assert_allclose(control.mean(0), logits.mean(0))
    differences, others = (np.sort(x - x.mean(0), axis=1) for x in (logits, control))
    np.testing.assert_allclose(differences, others)
    assert np.abs(control - logits).max() > 0.5
    # An offset between depths is no information, and the oracle cannot tell: this control can.
    label = (random.uniform(size=500) < 0.5).astype(np.float32)
    score = random.normal(size=500)
    found = depths.headroom(label, np.stack([score, score + 1.0]))
    assert found.shuffled == found.oracle
    assert abs(found.gaussian - found.oracle) > 0.01


@pytest.fixture(scope="module")
def settling(clicks):
    """Logits of three loops: easy examples keep theirs, hard ones start near zero and come to know."""
    random, label, logit = clicks
    label, logit = label[:40_000], logit[:40_000]
    hard = random.uniform(size=40_000) < 0.5
    known = np.array([[0.0], [0.5], [0.8], [1.0]])
    noise = random.normal(0, 0.02, (4, 40_000)) * (1 - known)
    easy = np.where(np.abs(logit) < 0.15, np.sign(logit) * 0.15, logit)
    return label, np.where(hard, known * logit + noise, easy), hard


def _curve(label, logits, scores, at, flops=(1.0, 2.0, 3.0, 4.0), exit_flops=0.5):
    return adaptive.curve(label, logits, scores, at, flops, exit_flops)


def test_thresholds_go_from_all_loops_to_as_few_as_can_be(settling):
    label, logits, _ = settling
    for scores, fewest in (
        (adaptive.change_scores(logits), 1),
        (adaptive.fit_gate(logits).scores(logits), 0),
    ):
        rows = _curve(label, logits, scores, adaptive.thresholds(scores, 5))
        mean_depths = [row["mean_depth"] for row in rows]
        assert mean_depths == sorted(mean_depths, reverse=True)
        assert (mean_depths[0], mean_depths[-1]) == (3, fewest)
        for row, depth in ((rows[0], 3), (rows[-1], fewest)):
            assert row["auc"] == row["random_auc"] == metrics.auc(label, logits[depth])
            assert row["random_flops"] == depth + 1
            assert row["flops"] == depth + 1 + 0.5 * depth  # every exit on the way
            assert row["shares"] == [float(index == depth) for index in range(4)]


def test_thresholds_are_evenly_spaced_in_mean_depth():
    scores = np.random.default_rng(3).exponential(size=(3, 5000)) ** 4
    means = [adaptive.stop_depth(scores, threshold).mean() for threshold in adaptive.thresholds(scores, 7)]
    np.testing.assert_allclose(means, np.linspace(3, 0, 7), atol=0.02)


def test_examples_stop_once_their_logit_has_settled():
    logits = np.array([[0.0, 0.0, 0.0], [1.0, 0.1, 1.0], [1.05, 5.0, 2.0], [9.0, 9.0, 3.0]])
    depth = adaptive.stop_depth(adaptive.change_scores(logits), 0.2)
    np.testing.assert_array_equal(depth, [2, 1, 3])
    np.testing.assert_array_equal(adaptive.stop_depth(adaptive.change_scores(logits), 0.0), [3, 3, 3])


def test_a_gate_knows_who_will_change_and_beats_random_depths(settling):
    label, logits, hard = settling
    half = len(label) // 2
    gate = adaptive.fit_gate(logits[:, :half])
    scores = gate.scores(logits[:, half:])
    remaining = np.abs(logits[-1] - logits[0])[half:]
    # All that the first logit tells: the mean of what remains, in narrow bins of it.
    bins = np.digitize(logits[0, half:], np.quantile(logits[0, half:], np.linspace(0.01, 0.99, 99)))
    known = (np.bincount(bins, remaining) / np.maximum(np.bincount(bins), 1))[bins]
    assert np.corrcoef(scores[0], remaining)[0, 1] > 0.95 * np.corrcoef(known, remaining)[0, 1] > 0.3
    assert scores[0][hard[half:]].mean() > 10 * np.abs(scores[0][~hard[half:]]).mean()
    rows = _curve(label[half:], logits[:, half:], scores, adaptive.thresholds(scores, 7))
    middle = [row for row in rows if 0.5 < row["mean_depth"] < 2.5]
    assert len(middle) >= 4
    for row in middle:
        assert row["gain"] > 5 * row["gain_se"] > 0
        assert row["gain"] == row["auc"] - row["random_auc"]


def test_a_gate_reads_no_label_and_nothing_that_is_still_to_come(settling):
    _, logits, _ = settling
    assert set(inspect.signature(adaptive.fit_gate).parameters) == {"depths_DxN", "seed"}
    gate = adaptive.fit_gate(logits)
    some = logits[:, :100]
    for depth in range(3):
        later = some.copy()
        later[depth + 1 :] += 7.0
        before = gate.scores(some)[: depth + 1]
        np.testing.assert_array_equal(gate.scores(later)[: depth + 1], before)
        change = adaptive.change_scores(some)[: depth + 1]
        np.testing.assert_array_equal(adaptive.change_scores(later)[: depth + 1], change)


def test_a_gate_is_the_same_in_chunks_and_fits_a_sample(settling, monkeypatch):
    _, logits, _ = settling
    gate = adaptive.fit_gate(logits)
    whole = gate.scores(logits[:, :1000])
    monkeypatch.setattr(adaptive, "_CHUNK", 300)
    np.testing.assert_allclose(gate.scores(logits[:, :1000]), whole, rtol=1e-10)
    monkeypatch.setattr(adaptive, "_SAMPLE", 20_000)
    sample = adaptive.fit_gate(logits).scores(logits[:, :1000])
    assert np.abs(sample - whole).max() < 0.1 and (sample != whole).any()


def test_random_assignment_has_the_same_depths_but_not_the_same_examples(clicks):
    """One depth is right for one half, the other for the other: a rule that knows wins by all there is."""
    random, label, logit = clicks
    first = np.arange(_EXAMPLES) % 2 == 0
    wrong = random.normal(size=_EXAMPLES)
    logits = np.stack([np.where(first, logit, wrong), np.where(first, wrong, logit)])
    row = _curve(label, logits, first[None] * -1.0, [0.0], flops=(1.0, 3.0))[0]
    assert row["mean_depth"] == 0.5
    assert row["auc"] == metrics.auc(label, logit)
    assert row["random_auc"] < 0.75 * row["auc"] + 0.25 * 0.5
    assert (row["random_flops"], row["flops"]) == (2.0, 2.25)


def test_one_loop_leaves_the_change_rule_no_choice(clicks):
    _, label, logit = clicks
    scores = adaptive.change_scores(np.stack([logit, -logit]))
    rows = _curve(label, np.stack([logit, -logit]), scores, adaptive.thresholds(scores), flops=(1.0, 2.0))
    assert [row["mean_depth"] for row in rows] == [1.0]
