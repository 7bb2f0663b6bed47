"""LightSUAN (RecSys 2025, arXiv 2508.15326), SUAN with sparse attention, at one of this project's grades.

    python launch/train.py --config=configs/light_suan.py                                  # synthetic log
    python launch/train.py --config=configs/light_suan.py:max_len=1000,window=64,dilation=8,store=stores/mine

Settings as in configs/suan.py, found for SUAN. Cost: its attention scores half of SUAN's pairs at 100 events,
and at 1000, with window 64 and dilation 8, a quarter; the rest of a step is SUAN's.
"""

from suan_jax.config import Config, DataConfig, TrainConfig
from suan_jax.models.light_suan import LightSuan


def get_config(
    grade: int = 0, store: str = "", max_len: int = 100, window: int = 16, dilation: int = 4
) -> Config:
    """LightSUAN of a grade."""
    return Config(
        model=LightSuan(grade=grade, window=window, dilation=dilation),
        data=DataConfig(store=store, max_len=max_len),
        train=TrainConfig(batch_size=256, epochs=1),
    )
