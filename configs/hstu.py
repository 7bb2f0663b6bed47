"""HSTU (arXiv 2402.17152) as a ranker, at one of this project's grades.

    python launch/train.py --config=configs/hstu.py                                  # synthetic log
    python launch/train.py --config=configs/hstu.py:grade=1,store=stores/mine

Settings as in configs/suan.py; configs/compare.py tunes the learning rate. Cost: on the synthetic log about a
minute on one H200.
"""

from suan_jax.config import Config, DataConfig, TrainConfig
from suan_jax.models.hstu import Hstu


def get_config(grade: int = 0, store: str = "", max_len: int = 100) -> Config:
    """HSTU of a grade."""
    return Config(
        model=Hstu(grade=grade),
        data=DataConfig(store=store, max_len=max_len),
        train=TrainConfig(batch_size=256, epochs=1),
    )
