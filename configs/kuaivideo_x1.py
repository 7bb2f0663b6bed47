"""DIN and others on KuaiVideo_x1 (short videos, as prepared for ALPINE, Li et al., MM 2019).

The raw files: train.csv and test.csv of https://huggingface.co/datasets/reczoo/KuaiVideo_x1, published by
RecZoo (https://github.com/reczoo/Datasets).

    python launch/prepare.py --source=kuaivideo_x1 --raw=KuaiVideo_x1 --out=stores/kuaivideo_x1 --min_count=10
    python launch/train.py --config=configs/kuaivideo_x1.py --workdir=runs/kuaivideo_din
    python launch/train.py --config=configs/kuaivideo_x1.py --config.model.name=bst --workdir=bst

Published by BARS, gAUC / AUC / log loss: DIN .6696 / .7495 / .4321, BST .6690 / .7484 / .4338, DMIN .6726 /
.7508 / .4302, all with visual embeddings, which are not read here. Absolute numbers differ by preprocessing:
a gap to these numbers may be the preparation's, the optimizer's or the validation split's, so compare models
within one harness.

Settings: the benchmark's batch 8192, learning rate 1e-3, width 64 and clip 10. Not the benchmark's: tables
take row-wise Adagrad without L2 (there Adam with 1e-4), the rate stays constant (there a tenth after an
evaluation without gain), and the checkpoint evaluated is the best on our validation split (there on the test
split). Not run yet. Cost, reckoned from the speeds in the README: 20 million examples, 2 minutes of one H200,
hours of two CPU cores.
"""

from suan_jax.config import CheckpointConfig, Config, DataConfig, OptimizerConfig, TrainConfig
from suan_jax.models.din import Din


def get_config(store: str = "stores/kuaivideo_x1", max_len: int = 100, seed: int = 0) -> Config:
    """DIN; `--config.model.name` puts another model in its place."""
    return Config(
        model=Din(embedding_width=64),
        data=DataConfig(store=store, max_len=max_len),
        optimizer=OptimizerConfig(
            learning_rate=1e-3,
            schedule="constant",
            clip=10.0,
            embedding_learning_rate=0.05,
            embedding_init=0.01,
        ),
        train=TrainConfig(batch_size=8192, epochs=2, eval_every=500, seed=seed),
        checkpoint=CheckpointConfig(best="gauc"),
    )
