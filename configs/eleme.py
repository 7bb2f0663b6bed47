"""SUAN and its baselines on Ele.me's food delivery (Alibaba, Tianchi data set 131047).

The raw files: "Recommendation Data From Ele.me", https://tianchi.aliyun.com/dataset/131047 (sign in, accept,
unpack D1_0.csv to D8_9.csv, 16 GB each, into one folder; some of the parts will do, of two days at least).

    python launch/prepare.py --source=eleme --raw=eleme --out=stores/eleme --min_count=5
    python launch/train.py --config=configs/eleme.py --workdir=runs/eleme_suan
    python launch/train.py --config=configs/eleme.py --config.model.name=din --workdir=runs/eleme_din

Claim: SUAN is above DIN on this log, as published (arXiv 2508.15326, AUC): DIN .6363, CAN .6378, SoftSIM
.6399, HardSIM .6389, ETA .6398, TWIN .6410, BST .6600, HSTU .6631, SUAN .6669. Compare differences and not
levels: absolute numbers depend on the features, the histories and the ids that a preparation keeps.

Settings: the release's width 8, L 50, one epoch and ids seen 5 times; the optimizer is ours and not tuned on
this log. Not run yet. Cost, reckoned from the speeds in the README: 128 million examples, about 15 minutes of
one H200 for SUAN; the preparation reads 1.3 TB of text several times.
"""

from suan_jax.config import Config, DataConfig, TrainConfig
from suan_jax.models.suan import Suan


def get_config(store: str = "stores/eleme", max_len: int = 50, seed: int = 0) -> Config:
    """SUAN; `--config.model.name` puts another model in its place."""
    return Config(
        model=Suan(embedding_width=8),
        data=DataConfig(store=store, max_len=max_len, train_on="train+validation"),
        train=TrainConfig(batch_size=2048, epochs=1, seed=seed),
    )
