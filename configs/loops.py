"""LoopCTR by the loops it is trained with and the loops it is inferred with, beside what its claim rests on.

Claim (to be checked, not assumed): trained with loops and inferred with none, LoopCTR ranks better than the
same model trained without loops. So differences are measured against LoopCTR(0/0), which costs the same at
inference. A gain of loops as such has to exceed that of as many blocks of their own, StackCTR(3).

    python launch/compare.py --config=configs/loops.py --workdir=runs/loops
    python launch/compare.py --config=configs/loops.py:store=stores/kuairand_pure --workdir=runs/kuai_loops

Writes what launch/compare.py does, and a table and a figure by loops. The headline, by which learning rates
are tuned, is of no loops; for StackCTR(3) it is of all of them, and so it is for the loss of the last depth
alone, whose other depths nothing trains. Data and settings are those of configs/compare.py.

Cost: 108 runs; a step of three loops takes about twice as long as one of none.
"""

from suan_jax.config import DataConfig, TrainConfig
from suan_jax.models.din import Din
from suan_jax.studies import CompareConfig
from suan_jax.studies.kuairand import EMBEDDING_WIDTH, on_kuairand

LOOPED = {"model.name": "loopctr", "model.trained_loops": 3}
ENTRIES = {
    "DIN": {"model.name": "din"},
    "HSTU": {"model.name": "hstu"},
    "SUAN": {"model.name": "suan"},
    "LoopCTR(0/0)": {**LOOPED, "model.trained_loops": 0},
    "LoopCTR(·/1)": {**LOOPED, "model.trained_loops": 1},
    "LoopCTR(·/2)": {**LOOPED, "model.trained_loops": 2},
    "LoopCTR(·/3)": LOOPED,
    "StackCTR(3)": {**LOOPED, "model.name": "stackctr", "model.inferred_loops": 3},
    "no hyper-connections": {**LOOPED, "model.streams": 1},
    "no experts": {**LOOPED, "model.experts": 1},
    "no experts (0/0)": {**LOOPED, "model.experts": 1, "model.trained_loops": 0},
    "last depth's loss": {**LOOPED, "model.inferred_loops": 3, "model.depth_weights": (0.0, 0.0, 0.0, 1.0)},
}


def get_config(store: str = "", max_len: int = 0) -> CompareConfig:
    """On the synthetic log, or on a store; `max_len` is 200 there, and 50 on a store, unless given."""
    if store:
        return CompareConfig(
            model=Din(embedding_width=EMBEDDING_WIDTH),
            **on_kuairand(store, max_len),
            entries=ENTRIES,
            reference="LoopCTR(0/0)",
        )
    return CompareConfig(
        model=Din(),
        data=DataConfig(max_len=max_len or 200),
        train=TrainConfig(batch_size=256),
        entries=ENTRIES,
        reference="LoopCTR(0/0)",
    )
