"""TWIN (arXiv 2302.02352): search by the very scores that attention uses.

    python launch/train.py --config=configs/twin.py                                  # synthetic log
    python launch/train.py --config=configs/twin.py:store=stores/mine

Settings as in configs/suan.py; configs/compare.py tunes the learning rate. Cost: on the synthetic log about a
minute on one H200.
"""

from suan_jax.config import Config, DataConfig, TrainConfig
from suan_jax.models.twin import Twin


def get_config(store: str = "", max_len: int = 100) -> Config:
    """TWIN with its top 100."""
    return Config(
        model=Twin(),
        data=DataConfig(store=store, max_len=max_len),
        train=TrainConfig(batch_size=256, epochs=1),
    )
