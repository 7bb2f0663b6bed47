"""A few random faults; run.py tries them all, many times."""

import random

import pytest

from tests.faults.run import PAIRS, Harness

_FAULTS = [("killed", "prepare"), ("file_size_limit", "prepare"), ("damaged_checkpoint", "train")]


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
    return Harness(tmp_path_factory.mktemp("faults"), random.SystemRandom().randrange(10**6))


@pytest.mark.parametrize(("name", "job"), _FAULTS)
def test_a_disturbed_job_comes_to_the_undisturbed_result(harness, name, job):
    # By the index in run.py, so that what it tells to repeat is this fault of this job.
    index = [(fault.act.__name__, job) for fault, job in PAIRS].index((name, job))
    done = harness.attempt(index, *PAIRS[index])
    assert done["findings"] == [], done
