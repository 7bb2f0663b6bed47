"""SUAN and its baselines on Taobao's display advertising (Alibaba, Tianchi data set 56).

The raw files: "Ad Display/Click Data on Taobao.com", https://tianchi.aliyun.com/dataset/56 (sign in, accept,
unpack the four CSV files into one folder).

    python launch/prepare.py --source=taobao_ad --raw=taobao_ad --out=stores/taobao_ad --min_count=5
    python launch/train.py --config=configs/taobao_ad.py --workdir=runs/taobao_ad_suan
    python launch/train.py --config=configs/taobao_ad.py --config.model.name=din --workdir=runs/taobao_ad_din

Claim: SUAN is above DIN on this log, as published (arXiv 2508.15326, AUC): DIN .6198, CAN .6184, SoftSIM
.6212, HardSIM .6239, ETA .6220, TWIN .6215, BST .6370, HSTU .6397, SUAN .6472. Compare differences and not
levels: absolute numbers depend on the features, the histories and the ids that a preparation keeps.

Settings: the release's width 8, one epoch and ids seen 5 times; L and the optimizer are ours and not tuned on
this log. Not run yet. Cost, reckoned from the speeds in the README: 23 million examples, 3 to 5 minutes of
one H200 for SUAN, several hours of two CPU cores.
"""

from suan_jax.config import Config, DataConfig, TrainConfig
from suan_jax.models.suan import Suan


def get_config(store: str = "stores/taobao_ad", max_len: int = 100, seed: int = 0) -> Config:
    """SUAN; `--config.model.name` puts another model in its place."""
    return Config(
        model=Suan(embedding_width=8),
        data=DataConfig(store=store, max_len=max_len, train_on="train+validation"),
        train=TrainConfig(batch_size=2048, epochs=1, seed=seed),
    )
