import pytest

from tests.serving.workdirs import write_run
from tests.training.runs import tiny


@pytest.fixture(scope="package")
def run(tmp_path_factory):
    """A work directory of SUAN with tables in bfloat16, which saw a quarter of the negatives."""
    workdir = tmp_path_factory.mktemp("serving") / "run"
    settings = "data.negative_rate=0.25", "optimizer.embedding_dtype=bfloat16"
    return write_run(workdir, tiny(*settings, arguments="model=suan"))
