"""CAN (arXiv 2011.05625): co-action of candidate and event through weights that each id owns.

    python launch/train.py --config=configs/can.py                                  # synthetic log
    python launch/train.py --config=configs/can.py:store=stores/mine

Settings as in configs/suan.py; configs/compare.py tunes the learning rate. Cost: on the synthetic log about a
minute on one H200.
"""

from suan_jax.config import Config, DataConfig, TrainConfig
from suan_jax.models.can import Can


def get_config(store: str = "", max_len: int = 100) -> Config:
    """CAN on top of DIN's interest."""
    return Config(
        model=Can(),
        data=DataConfig(store=store, max_len=max_len),
        train=TrainConfig(batch_size=256, epochs=1),
    )
