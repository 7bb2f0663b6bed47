"""DIN and others on AmazonElectronics_x1 (reviews; as prepared for DIN, Zhou et al., KDD 2018).

The raw files: train.csv and test.csv of https://huggingface.co/datasets/reczoo/AmazonElectronics_x1,
published by RecZoo (https://github.com/reczoo/Datasets).

    python launch/prepare.py --source=amazon_electronics_x1 --raw=amazon --out=stores/amazon --min_count=1
    python launch/train.py --config=configs/amazon_electronics_x1.py --workdir=runs/amazon_din
    python launch/train.py --config=configs/amazon_electronics_x1.py --config.model.name=bst --workdir=bst

Published by BARS, gAUC / AUC / log loss: DIN .8835 / .8860 / .4302, BST .8841 / .8864 / .4301, DIEN .8856 /
.8888 / .4257. Absolute numbers differ by preprocessing: a gap to these numbers may be the preparation's, the
optimizer's or the validation split's, so compare models within one harness.

Settings: the benchmark's batch 1024, learning rate 5e-4, width 64 and clip 10. Not the benchmark's: tables
take row-wise Adagrad without L2 (there Adam with 5e-3), the rate stays constant (there a tenth after an
evaluation without gain), and the checkpoint evaluated is the best on our validation split (there on the test
split). Not run yet. Cost, reckoned from the speeds in the README: 4.4 million examples, a minute of one H200,
half an hour of two CPU cores.
"""

from suan_jax.config import CheckpointConfig, Config, DataConfig, OptimizerConfig, TrainConfig
from suan_jax.models.din import Din


def get_config(store: str = "stores/amazon", max_len: int = 100, seed: int = 0) -> Config:
    """DIN; `--config.model.name` puts another model in its place."""
    return Config(
        model=Din(embedding_width=64),
        data=DataConfig(store=store, max_len=max_len),
        optimizer=OptimizerConfig(
            learning_rate=5e-4,
            schedule="constant",
            clip=10.0,
            embedding_learning_rate=0.05,
            embedding_init=0.01,
        ),
        train=TrainConfig(batch_size=1024, epochs=2, eval_every=1000, seed=seed),
        checkpoint=CheckpointConfig(best="gauc"),
    )
