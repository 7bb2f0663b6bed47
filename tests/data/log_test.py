import numpy as np
import pytest

from suan_jax.config import DataConfig, SyntheticConfig
from suan_jax.data.log import open_log, with_truth
from tests.data.random_log import random_log


@pytest.mark.smoke
def test_only_evaluation_is_told_the_logit_at_length():
    data = DataConfig(synthetic=SyntheticConfig(users=20, events=30, impressions=5), max_len=10)
    log = open_log(data)
    trained, evaluated = log.block(0), with_truth(log, data).block(0)
    assert set(trained.truth) == {"unlimited"} and set(evaluated.truth) == {"unlimited", "at_length"}
    np.testing.assert_array_equal(trained.label, evaluated.label)
    for name, ids in trained.event.items():
        np.testing.assert_array_equal(ids, evaluated.event[name])


def test_a_log_of_another_kind_stays_itself():
    log = random_log(0)
    assert with_truth(log, DataConfig()) is log
