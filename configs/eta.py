"""ETA (arXiv 2108.04468): search by Hamming distance of hashed events, then attention.

    python launch/train.py --config=configs/eta.py                                  # synthetic log
    python launch/train.py --config=configs/eta.py:store=stores/mine

Settings as in configs/suan.py; configs/compare.py tunes the learning rate. Cost: on the synthetic log about a
minute on one H200.
"""

from suan_jax.config import Config, DataConfig, TrainConfig
from suan_jax.models.eta import Eta


def get_config(store: str = "", max_len: int = 100) -> Config:
    """ETA with 32-bit codes."""
    return Config(
        model=Eta(),
        data=DataConfig(store=store, max_len=max_len),
        train=TrainConfig(batch_size=256, epochs=1),
    )
