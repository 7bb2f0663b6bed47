import dataclasses

import pytest

from suan_jax.config import SyntheticConfig
from suan_jax.data.synthetic import SyntheticLog
from suan_jax.data.synthetic.block_cache import VARIABLE
from suan_jax.errors import UserError
from tests.data.synthetic_test import same

SMALL = SyntheticConfig(users=600, events=20, impressions=6, items=1024)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def _generating(monkeypatch):
    """Indices of the blocks that are generated from here on."""
    made, generate = [], SyntheticLog._generate
    monkeypatch.setattr(SyntheticLog, "_generate", lambda self, i: made.append(i) or generate(self, i))
    return made


@pytest.mark.smoke
def test_a_block_is_generated_once_for_all_logs_of_one_config(cache, monkeypatch):
    fresh = SyntheticLog(SMALL, 10).block(1)
    made = _generating(monkeypatch)
    kept = SyntheticLog(SMALL, 10).block(1)
    assert same(kept, fresh) and made == []
    assert [field.name for field in dataclasses.fields(kept)] == list(vars(kept))
    monkeypatch.delenv(VARIABLE)
    assert same(SyntheticLog(SMALL, 10).block(1), fresh) and made == [1]


def test_logs_that_differ_share_nothing(cache):
    logs = [SyntheticLog(SMALL, 10), SyntheticLog(SMALL, 20), SyntheticLog(SMALL)]
    logs += [SyntheticLog(dataclasses.replace(SMALL, **{name: 1025})) for name in vars(SMALL)]
    for log in logs:
        log.block(0)
    assert len(list(cache.glob("*/0.npz"))) == len(logs)


@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda _: b""])
def test_a_damaged_block_is_made_anew(cache, monkeypatch, damage):
    fresh = SyntheticLog(SMALL).block(0)
    (file,) = cache.glob("*/*")
    file.write_bytes(damage(file.read_bytes()))
    made = _generating(monkeypatch)
    assert same(SyntheticLog(SMALL).block(0), fresh) and made == [0]
    assert same(SyntheticLog(SMALL).block(0), fresh) and made == [0]
    assert list(cache.glob("*/*")) == [file]


def test_a_cache_that_cannot_be_written_is_named(cache):
    cache.write_text("a file")
    with pytest.raises(UserError, match=rf"the cache of {VARIABLE} cannot be written \(.*{cache}"):
        SyntheticLog(SMALL).block(0)
