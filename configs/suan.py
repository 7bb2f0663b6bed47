"""SUAN (RecSys 2025, arXiv 2508.15326) at one of this project's grades, on any store.

Grade 0 is the released size: 2 layers, 2 heads, embeddings of width 8, the token as wide as its features.

    python launch/train.py --config=configs/suan.py                                    # synthetic log
    python launch/train.py --config=configs/suan.py:grade=1,store=stores/mine

Settings: one pass in small batches with a falling learning rate; of twelve pairs of rates tried on the
synthetic log's validation split, the best. Cost: grade 0 on the synthetic log takes a minute on one H200,
and about 20 minutes on two CPU cores.
"""

from suan_jax.config import Config, DataConfig, TrainConfig
from suan_jax.models.suan import Suan


def get_config(grade: int = 0, store: str = "", max_len: int = 100) -> Config:
    """SUAN of a grade."""
    return Config(
        model=Suan(grade=grade),
        data=DataConfig(store=store, max_len=max_len),
        train=TrainConfig(batch_size=256, epochs=1),
    )
