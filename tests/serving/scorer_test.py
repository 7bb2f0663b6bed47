import csv
import dataclasses
import functools
import itertools
import time

import numpy as np
import pytest
from scipy.special import expit

from suan_jax.data.prepare_store import prepare_store
from suan_jax.errors import UserError
from suan_jax.serving import Scorer, User
from suan_jax.serving import request as request_module
from suan_jax.training.evaluation import Evaluation
from suan_jax.training.restore import restore_run
from tests.readme import block
from tests.serving.workdirs import synthetic_requests, write_run
from tests.training.runs import tiny


@pytest.fixture(scope="module")
def scorer(run):
    return Scorer(run)


@pytest.fixture(scope="module")
def requests(run):
    log = restore_run(run)[0].log
    return list(itertools.islice(synthetic_requests(log, "test"), 40))


def evaluated(workdir, split="test"):
    setup, state = restore_run(workdir)
    return Evaluation(setup).scores(state, split).logit


@pytest.mark.smoke
def test_logits_are_those_of_evaluation(run, scorer, requests):
    got = [scorer.logits(user, [candidate])[0] for user, candidate in requests]
    expected = evaluated(run)[: len(requests)]
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert np.std(got) > 0.1
    user, candidate = requests[0]
    score = scorer.score(user, [candidate])
    assert score[0] == pytest.approx(expit(expected[0]), abs=1e-5) and score.dtype == np.float32


def test_many_candidates_score_as_they_do_alone(scorer, requests, monkeypatch):
    monkeypatch.setattr(request_module, "SLOTS", (1, 4))
    user = requests[3][0]
    candidates = [candidate for _, candidate in requests[:9]]
    alone = [scorer.score(user, [candidate])[0] for candidate in candidates]
    np.testing.assert_allclose(scorer.score(user, candidates), alone, atol=1e-5)  # in parts of 4, 4 and 1
    assert np.std(alone) > 1e-3


def test_a_candidate_may_have_its_own_context(scorer, requests):
    user, candidate = requests[0]
    own = {**candidate, **user.context}
    bare = dataclasses.replace(user, context={})
    np.testing.assert_array_equal(scorer.score(user, [candidate]), scorer.score(bare, [own]))
    wrong = dataclasses.replace(user, context=dict.fromkeys(user.context, 1))
    np.testing.assert_array_equal(scorer.score(wrong, [own]), scorer.score(bare, [own]))
    assert scorer.score(wrong, [candidate]) != scorer.score(user, [candidate])


def test_events_come_in_any_order_and_later_ones_are_left_out(scorer, requests):
    user, candidate = requests[5]
    before = [event for event in user.history if event["time"] < user.time]
    assert 8 < len(before) < len(user.history)
    expected = scorer.score(user, [candidate])
    for history in (before[-8:], user.history[::-1]):
        changed = dataclasses.replace(user, history=history)
        np.testing.assert_array_equal(scorer.score(changed, [candidate]), expected)
    now = [*before, {**before[-1], "time": user.time + 0.5}]
    np.testing.assert_array_equal(scorer.score(dataclasses.replace(user, history=now), [candidate]), expected)
    second_earlier = [*before, {**before[-1], "time": user.time - 1}]
    changed = dataclasses.replace(user, history=second_earlier)
    assert scorer.score(changed, [candidate]) != expected


def test_what_is_missing_or_unknown_scores(scorer, requests):
    user, candidate = requests[0]
    scores = [
        scorer.score(User(time=user.time), [{}]),
        scorer.score(User(time=user.time, history=[{}]), [{}]),
        scorer.score(user, [{**candidate, "item": 10**12}]),
        scorer.score(user, [{**candidate, "item": -1}]),
        scorer.score(user, [{**candidate, "item": None}]),
        scorer.score(user, [candidate]),
    ]
    assert np.isfinite(scores).all()
    assert scores[2] == scores[3] != scores[5]


def test_raw_values_of_a_prepared_log(tmp_path, monkeypatch):
    """From the rows of a CSV file themselves to what evaluation says of the store made of them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_log").mkdir()
    (tmp_path / "my_log" / "impressions.csv").write_text(block("csv", "ann"))
    (tmp_path / "my_spec.py").write_text(block("python", "get_spec"))
    prepare_store("logs", "my_log", "store", "my_spec.py")
    run = write_run(tmp_path / "run", tiny(arguments=f"model=suan,store={tmp_path / 'store'}"))
    scorer = Scorer(run)
    rows = [
        {**row, "time": np.datetime64(row["time"]).astype("datetime64[s]").astype(int)}
        for row in csv.DictReader((tmp_path / "my_log" / "impressions.csv").open())
    ]
    got = []
    for row in rows:
        past = [
            {"article": r["article"], "section": r["section"], "action": int(r["clicked"]), "time": r["time"]}
            for r in rows
            if r["user"] == row["user"] and r["time"] < row["time"]
        ]
        user = User(row["time"], past, {"user": row["user"]}, {"device": row["device"]})
        got.append(float(scorer.logits(user, [{"article": row["article"], "section": row["section"]}])[0]))
    expected = np.concatenate([evaluated(run, split) for split in ("train", "validation", "test")])
    assert len(got) == len(expected) == 16
    np.testing.assert_allclose(np.sort(got), np.sort(expected), atol=1e-5)
    articles = ["a1", "a2", "a3", "a4", "a9", "b9", None]
    scores = scorer.logits(User(rows[0]["time"]), [{"article": article} for article in articles])
    assert scores[4] == scores[5] != scores[6] and len(set(scores.tolist())) > 3


def test_a_kept_history_scores_as_a_pass_over_it(scorer, requests, monkeypatch):
    monkeypatch.setattr(request_module, "SLOTS", (1, 4))
    for user, candidate in requests[:3]:
        cache = scorer.encode(user)
        np.testing.assert_allclose(
            scorer.score(cache, [candidate]), scorer.score(user, [candidate]), atol=1e-5
        )
    candidates = [candidate for _, candidate in requests[:9]]
    user = dataclasses.replace(user, history=past(user))
    cache, expected = scorer.encode(user), scorer.score(user, candidates)
    np.testing.assert_allclose(scorer.score(cache, candidates), expected, atol=1e-5)
    later = dataclasses.replace(user, time=user.time + 30_000)
    cached = scorer.score(cache.at(later.time), candidates)
    np.testing.assert_allclose(cached, scorer.score(later, candidates), atol=1e-5)
    assert np.abs(cached - expected).max() > 1e-4
    other = scorer.score(cache.at(user.time, {}), candidates)
    np.testing.assert_allclose(
        other, scorer.score(dataclasses.replace(user, context={}), candidates), atol=1e-5
    )
    assert cache.nbytes > 0


def past(user):
    return [event for event in user.history if event["time"] < user.time]


def test_a_kept_history_is_not_read_past_an_event_that_it_lacks(scorer, requests):
    user, candidate = requests[5]
    first = min(event["time"] for event in user.history if event["time"] >= user.time)
    assert first > user.time
    cache, later = scorer.encode(user), dataclasses.replace(user, time=first)
    expected = scorer.score(later, [candidate])  # an event at the very moment is not read yet
    np.testing.assert_allclose(scorer.score(cache.at(first), [candidate]), expected, atol=1e-5)
    with pytest.raises(
        UserError, match=f"time is {first + 1}, expected at most {first}, the time of an event"
    ):
        cache.at(first).at(first + 1)
    with pytest.raises(UserError, match="context has 'item', which is no feature there"):
        cache.at(first, {"item": 1})


def test_a_kept_history_has_no_earlier_moment_and_some_models_keep_none(scorer, requests, tmp_path):
    user, candidate = requests[0]
    cache = scorer.encode(user)
    with pytest.raises(UserError, match=f"time is 5, expected {user.time} or later"):
        cache.at(5)
    one_moment = dataclasses.replace(cache, moment_refusal="config.model.name is 'hstu', whose reason")
    assert one_moment.at(user.time).user == cache.user
    with pytest.raises(UserError, match="a kept history holds for one moment: config"):
        one_moment.at(user.time + 1)
    din = Scorer(write_run(tmp_path / "din", tiny(arguments="model=din")))
    with pytest.raises(UserError, match="histories cannot be kept: config"):
        din.encode(user)
    assert 0 < din.score(user, [candidate])[0] < 1


def test_a_kept_history_is_of_one_checkpoint(run, scorer, requests, tmp_path):
    user, candidate = requests[0]
    cache, again = scorer.encode(user), Scorer(run)
    np.testing.assert_allclose(again.score(cache, [candidate]), scorer.score(user, [candidate]), atol=1e-5)
    other = Scorer(write_run(tmp_path / "other", tiny("train.seed=5", arguments="model=suan")))
    with pytest.raises(UserError, match="the history was kept by the model of another checkpoint"):
        other.score(cache, [candidate])


_EVENT = {"time": 5, "item": 3}
_NEST = functools.reduce(lambda inner, _: [inner], range(980), 3)  # as deep as JSON is read


@pytest.mark.parametrize(
    ("user", "candidates", "message"),
    [
        (User(time=None), [{}], "time is missing"),
        (User(time="now"), [{}], "time is 'now', expected seconds"),
        (User(time=1_709_300_000_000), [{}], "time is 1709300000000, expected seconds"),
        ({"time": 9}, [{}], "the user is a dict, expected a suan_jax.serving.User"),
        (None, [{}], "the user is a NoneType, expected a suan_jax.serving.User"),
        (User(9), [], "candidates is empty"),
        (User(9), {"item": 3}, "candidates is a dict, expected a list"),
        (User(9), [3], "candidates has a int, expected names with values"),
        (User(9), [{"itm": 3}], "candidates has 'itm', which is no feature there, the nearest is 'item'"),
        (User(9), [{"item": "x"}], "candidates: item is 'x', expected an id, an integer"),
        (User(9), [{"item": [3]}], r"candidates: item is \[3\], expected an id"),
        (User(9), [{"freshness": "x"}], "candidates: freshness is 'x', expected a number"),
        (User(9, history=_EVENT), [{}], "history is a dict, expected a list"),
        (User(9, history=[{**_EVENT, "time": "x"}]), [{}], "history: time is 'x', expected seconds"),
        (User(9, history=[{"clicked": 1}]), [{}], "history has 'clicked', which is no feature there"),
        (User(9, profile={"item": 1}), [{}], r"user \(profile\) has 'item', which is no feature there"),
        (User(9, profile={"age": "x"}), [{}], r"user \(profile\): age is 'x', expected an id"),
        (User(9, context={"item": 1}), [{}], "context has 'item', which is no feature there"),
        (User(9, context={"hour": "x"}), [{}], "context: hour is 'x', expected an id"),
        (
            User(9, context={"freshness": 10**400}),
            [{}],
            "context: freshness is 1000.*, expected a number of at",
        ),
        (
            User(9),
            [{"freshness": -(10**400)}],
            "candidates: freshness is -1000.*, expected a number of at most",
        ),
        (User(9), [{}, {"freshness": 1e29}], r"candidates: freshness is 1e\+29, expected a number less than"),
        (User(9), [{"freshness": "\ud800"}], r"candidates: freshness is '\\ud800', expected a number"),
        (User(9), [{"\ud800": 1}], r"candidates has '\\ud800', which is no feature there"),
        (User(9), [{"item": 10**5000}], "candidates: item is a int of too many digits, expected an id"),
        (User(9), [{"item": _NEST}], r"candidates: item is \[\[\[.*, expected an id"),
        (User(9), [{"m" * 10**7: 1}], "candidates has 'mmm"),
        (User("9" * 10**6), [{}], "time is '999"),
    ],
)
def test_mistakes_are_one_short_sentence(scorer, user, candidates, message):
    start = time.perf_counter()
    with pytest.raises(UserError, match=message) as caught:
        scorer.score(user, candidates)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250
    assert time.perf_counter() - start < 1
