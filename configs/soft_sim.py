"""SoftSIM (arXiv 2006.05639): soft search for the 50 most related events, then attention over them.

    python launch/train.py --config=configs/soft_sim.py                                  # synthetic log
    python launch/train.py --config=configs/soft_sim.py:store=stores/mine

Settings as in configs/suan.py; configs/compare.py tunes the learning rate. Cost: on the synthetic log about a
minute on one H200.
"""

from suan_jax.config import Config, DataConfig, TrainConfig
from suan_jax.models.sim import SoftSim


def get_config(store: str = "", max_len: int = 100) -> Config:
    """SIM with soft search."""
    return Config(
        model=SoftSim(),
        data=DataConfig(store=store, max_len=max_len),
        train=TrainConfig(batch_size=256, epochs=1),
    )
