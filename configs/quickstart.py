"""Any model on a small synthetic click log, in minutes on two CPU cores.

Claim: the whole path works here, from log to table; the model stays below the best possible AUC, which this
log knows, and so little data leaves it far below.

    python launch/train.py --config=configs/quickstart.py
    python launch/train.py --config=configs/quickstart.py --config.model.name=din --workdir=runs/din

Cost: about 4 minutes on two CPU cores, compilation included.
"""

from suan_jax.config import Config, DataConfig, SyntheticConfig, TrainConfig
from suan_jax.models.suan import Suan


def get_config() -> Config:
    """The quickstart."""
    return Config(
        model=Suan(head=(128, 64)),
        data=DataConfig(synthetic=SyntheticConfig(users=6144, items=4096), max_len=50),
        train=TrainConfig(batch_size=256, epochs=1),
    )
