"""HardSIM (arXiv 2006.05639): the 50 most recent events of the candidate's category, then attention.

    python launch/train.py --config=configs/hard_sim.py                                  # synthetic log
    python launch/train.py --config=configs/hard_sim.py:store=stores/mine

Settings as in configs/suan.py; configs/compare.py tunes the learning rate. Cost: on the synthetic log about a
minute on one H200.
"""

from suan_jax.config import Config, DataConfig, TrainConfig
from suan_jax.models.sim import HardSim


def get_config(store: str = "", max_len: int = 100) -> Config:
    """SIM with hard search."""
    return Config(
        model=HardSim(),
        data=DataConfig(store=store, max_len=max_len),
        train=TrainConfig(batch_size=256, epochs=1),
    )
