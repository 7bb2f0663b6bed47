"""LoopCTR (arXiv 2604.19550): trained with n loops of one block, scored with any number up to n.

Claim (to be checked, not assumed): trained with loops and scored with none, a model ranks better than the
same model trained without loops, at the same operations per example.

    python launch/train.py --config=configs/loopctr.py                                # LoopCTR(0/3)
    python launch/train.py --config=configs/loopctr.py --config.model.inferred_loops=3 # LoopCTR(3/3)
    python launch/train.py --config=configs/loopctr.py:loops=0                        # LoopCTR(0/0)
    python launch/train.py --config=configs/loopctr.py:model=stackctr                 # unshared blocks
    python launch/train.py --config=configs/loopctr.py:grade=2,store=stores/mine

Controls: `--config.model.streams=1` for plain residuals, `--config.model.experts=1` for no mixture of
experts, `--config.model.depth_weights="(0.0, 0.0, 0.0, 1.0)"` for the loss of the last depth alone.

Settings as in configs/suan.py. Cost: a step computes n loops and n + 1 exits and heads, whatever it is scored
with.
"""

from suan_jax.config import Config, DataConfig, TrainConfig
from suan_jax.errors import UserError
from suan_jax.models.loopctr import LoopCtr, StackCtr

MODELS = {"loopctr": LoopCtr, "stackctr": StackCtr}


def get_config(
    grade: int = 1, store: str = "", max_len: int = 100, loops: int = 3, model: str = "loopctr"
) -> Config:
    """LoopCTR of a grade, or its control of unshared blocks."""
    if model not in MODELS:
        raise UserError(f"model is {model!r}, expected one of {', '.join(MODELS)}")
    return Config(
        model=MODELS[model](grade=grade, trained_loops=loops),
        data=DataConfig(store=store, max_len=max_len),
        train=TrainConfig(batch_size=256, epochs=1),
    )
