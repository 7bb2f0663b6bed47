"""DIN and others on TaobaoAd_x1 (Taobao's advertising, as prepared for DMR, Lyu et al., AAAI 2020).

The raw files: train.csv and test.csv of https://huggingface.co/datasets/reczoo/TaobaoAd_x1, published by
RecZoo (https://github.com/reczoo/Datasets).

    python launch/prepare.py --source=taobao_ad_x1 --raw=TaobaoAd_x1 --out=stores/taobao_ad_x1 --min_count=10
    python launch/train.py --config=configs/taobao_ad_x1.py --workdir=runs/taobao_x1_din
    python launch/train.py --config=configs/taobao_ad_x1.py --config.model.name=bst --workdir=bst

Published by BARS, gAUC / AUC / log loss: DIN .5765 / .6524 / .1924, BST .5763 / .6511 / .1928. Absolute
numbers differ by preprocessing: a gap to these numbers may be the preparation's, the optimizer's or the
validation split's, so compare models within one harness.

Settings: the benchmark's batch 8192, learning rate 1e-3, width 32 and clip 10. Not the benchmark's: tables
take row-wise Adagrad without L2 (there Adam with 5e-6), the rate stays constant (there a tenth after an
evaluation without gain), and the checkpoint evaluated is the best on our validation split (there on the test
split). Not run yet. Cost, reckoned from the speeds in the README: 40 million examples, 3 minutes of one H200,
hours of two CPU cores.
"""

from suan_jax.config import CheckpointConfig, Config, DataConfig, OptimizerConfig, TrainConfig
from suan_jax.models.din import Din


def get_config(store: str = "stores/taobao_ad_x1", max_len: int = 50, seed: int = 0) -> Config:
    """DIN; `--config.model.name` puts another model in its place."""
    return Config(
        model=Din(embedding_width=32),
        data=DataConfig(store=store, max_len=max_len),
        optimizer=OptimizerConfig(
            learning_rate=1e-3,
            schedule="constant",
            clip=10.0,
            embedding_learning_rate=0.05,
            embedding_init=0.01,
        ),
        train=TrainConfig(batch_size=8192, epochs=2, eval_every=1000, seed=seed),
        checkpoint=CheckpointConfig(best="gauc"),
    )
