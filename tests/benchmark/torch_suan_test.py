import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")

from suan_jax.benchmark import torch_attention, torch_suan  # noqa: E402
from suan_jax.benchmark.training_step import host_batches, set_up_step  # noqa: E402
from suan_jax.models.suan import Suan  # noqa: E402


@pytest.fixture(scope="module")
def setup():
    return set_up_step(Suan(layers=2, width=16, heads=2, head=(8, 4)), 5, 8, 1024)


def test_it_has_our_parameters(setup):
    model = torch_suan.TorchSuan(setup.config.model, setup.log.schema, 5)
    tables = {id(p) for p in model.tables.parameters()}
    own = sum(p.numel() for p in model.parameters() if id(p) not in tables)
    assert own == sum(leaf.size for leaf in jax.tree.leaves(setup.abstract.params))


def test_no_token_sees_the_future_and_steps_lower_the_loss(setup):
    [batch, *_] = host_batches(setup)
    model = torch_suan.TorchSuan(setup.config.model, setup.log.schema, 5)
    bias = model.bias(torch_suan.inputs(batch)["age"])
    assert bias.shape == (8, 1, 6, 6)
    np.testing.assert_array_equal(torch.isinf(bias[0, 0]).numpy(), np.triu(np.ones((6, 6), bool), 1))
    losses = []
    original = torch_suan.TorchSuan.forward

    def recorded(self, inputs):
        losses.append(original(self, inputs))
        return losses[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_suan.TorchSuan, "forward", recorded)
        step = torch_suan.stepper(setup.config.model, setup.log.schema, [batch], compiled=False)
        for number in range(120):
            step(number)
    assert losses[-1].item() < 0.7 * losses[0].item()


def test_its_attention_is_causal_softmax():
    q, k, v, weight = np.random.default_rng(0).standard_normal((4, 2, 5, 3, 16), np.float32)
    out = torch_attention._attention(*(torch_attention.tensor(x, torch.float32) for x in (q, k, v)))
    expected = jax.nn.dot_product_attention(q, k, v, is_causal=True)
    np.testing.assert_allclose(out.cpu().numpy(), expected, rtol=1e-4, atol=1e-5)
    for call in (torch_attention.forward(q, k, v), torch_attention.with_gradients(q, k, v, weight)):
        jax.block_until_ready(call(0))
