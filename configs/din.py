"""DIN (arXiv 1706.06978), the baseline that improvements are counted from, on any store.

    python launch/train.py --config=configs/din.py                                     # synthetic log
    python launch/train.py --config=configs/din.py:store=stores/kuairand_pure

Cost: about 6 minutes on two CPU cores on the synthetic log.
"""

from suan_jax.config import Config, DataConfig, TrainConfig
from suan_jax.models.din import Din


def get_config(store: str = "", max_len: int = 100) -> Config:
    """DIN with the paper's attention unit, without softmax."""
    return Config(
        model=Din(),
        data=DataConfig(store=store, max_len=max_len),
        train=TrainConfig(batch_size=1024, epochs=1),
    )
