"""A few random faults; run.py tries them all, many times."""

import random

import pytest

from tests.faults.faults import FAULTS
from tests.faults.run import Harness

_FAULTS = [("killed", "prepare"), ("file_size_limit", "prepare"), ("damaged_checkpoint", "train")]


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
    return Harness(tmp_path_factory.mktemp("faults"), random.SystemRandom().randrange(10**6))


@pytest.mark.parametrize(("index", "name", "job"), [(index, *pair) for index, pair in enumerate(_FAULTS)])
def test_a_disturbed_job_comes_to_the_undisturbed_result(harness, index, name, job):
    (fault,) = [fault for fault in FAULTS if fault.act.__name__ == name and job in fault.jobs]
    done = harness.attempt(index, fault, job)
    assert done["findings"] == [], done
