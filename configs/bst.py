"""BST (arXiv 1905.06874): a transformer over history and candidate.

    python launch/train.py --config=configs/bst.py                                  # synthetic log
    python launch/train.py --config=configs/bst.py:store=stores/mine

Settings as in configs/suan.py; configs/compare.py tunes the learning rate. Cost: on the synthetic log about a
minute on one H200.
"""

from suan_jax.config import Config, DataConfig, TrainConfig
from suan_jax.models.bst import Bst


def get_config(store: str = "", max_len: int = 100) -> Config:
    """BST with one block."""
    return Config(
        model=Bst(),
        data=DataConfig(store=store, max_len=max_len),
        train=TrainConfig(batch_size=256, epochs=1),
    )
