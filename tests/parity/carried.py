"""What parity tests share: PyTorch, FuxiCTR if asked for, and the comparison of a function in both worlds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

REASON = "the other libraries are not installed: pip install -e '.[parity]'"

torch = pytest.importorskip("torch", reason=REASON)


def fuxictr_layers():
    """FuxiCTR's layers; the module that asks is skipped where they are not installed."""
    return pytest.importorskip("fuxictr.pytorch.layers", reason=REASON)


def normal(seed, *shape):
    """Standard normal float32 values."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def carry(parameter, value):
    """Writes an array into a parameter or buffer of PyTorch, of the same shape."""
    value = torch.from_numpy(np.array(value, np.float32))
    assert parameter.shape == value.shape
    with torch.no_grad():
        parameter.copy_(value)


def random_variables(module, *arguments):
    """Variables of a Flax module called with `arguments`: random parameters, running variances above 0.1."""
    shapes = jax.eval_shape(lambda key: nn.meta.unbox(module.init(key, *arguments)), jax.random.key(0))
    leaves, tree = jax.tree.flatten_with_path(shapes)
    return jax.tree.unflatten(tree, [_leaf(seed, *leaf) for seed, leaf in enumerate(leaves)])


def _leaf(seed, path, shape):
    value = 0.4 * normal(seed, *shape.shape)
    return np.abs(value) + 0.1 if path[-1].key == "var" else value


def assert_close(ours, theirs, atol=1e-5):
    """Compares an array of JAX with a tensor of PyTorch, relative to the largest value if that is above 1."""
    theirs = theirs.detach().numpy()
    np.testing.assert_allclose(np.asarray(ours), theirs, rtol=0, atol=atol * max(1, np.abs(theirs).max()))


def assert_same(ours, theirs, *inputs, atol=1e-5):
    """Compares outputs, and gradients of a random projection of the outputs with respect to every input.

    `ours` takes and returns arrays of JAX, `theirs` tensors of PyTorch.
    """
    tensors = [torch.tensor(x, requires_grad=True) for x in inputs]
    expected = theirs(*tensors)
    weight = normal(99, *expected.shape)
    expected.backward(torch.from_numpy(weight))

    @jax.jit
    def run(inputs, weight):
        out, pull = jax.vjp(ours, *inputs)
        return out, pull(weight)

    out, gradients = run([jnp.asarray(x) for x in inputs], weight)
    assert_close(out, expected, atol)
    for gradient, tensor in zip(gradients, tensors, strict=True):
        assert_close(gradient, tensor.grad, atol)


def carry_dense(theirs, params):
    """Carries a Dense over to a Linear; a bias that ours lacks is zero."""
    kernel = params["kernel"]
    carry(theirs.weight, kernel.T)
    carry(theirs.bias, params.get("bias", np.zeros(kernel.shape[1])))


def carry_statistics(theirs, stats):
    """Carries running statistics over to a BatchNorm1d."""
    carry(theirs.running_mean, stats["mean"])
    carry(theirs.running_var, stats["var"])


def carry_dice(theirs, params, stats):
    """Carries a Dice over to FuxiCTR's."""
    carry(theirs.alpha, params["alpha"])
    carry_statistics(theirs.bn, stats["norm"])


def carry_interest(theirs, params, stats):
    """Carries a `TargetInterest` of two hidden layers over to FuxiCTR's DIN_Attention."""
    first, dice_0, second, dice_1, last = theirs.attention_layer.mlp
    carry_dense(first, {"kernel": params["kernel"].reshape(-1, first.out_features), "bias": params["bias"]})
    carry_dice(dice_0, params["dice_0"], stats["dice_0"])
    carry_dense(second, params["dense_0"])
    carry_dice(dice_1, params["dice_1"], stats["dice_1"])
    carry_dense(last, params["dense_1"])


def carry_block(theirs, params):
    """Carries BST's block over to a TransformerEncoderLayer; the biases of its attention are zero."""
    attention = params["attention"]
    width = attention["query"].shape[0]
    kernels = [attention[name].reshape(width, width).T for name in ("query", "key", "value")]
    carry(theirs.self_attn.in_proj_weight, np.concatenate(kernels))
    carry(theirs.self_attn.in_proj_bias, np.zeros(3 * width))
    carry_dense(theirs.self_attn.out_proj, {"kernel": attention["out"].reshape(width, width)})
    carry_dense(theirs.linear1, params["hidden"])
    carry_dense(theirs.linear2, params["out"])
    for norm, name in ((theirs.norm1, "norm_1"), (theirs.norm2, "norm_2")):
        carry(norm.weight, params[name]["scale"])
        carry(norm.bias, params[name]["bias"])
        norm.eps = 1e-6  # PyTorch's default is 1e-5
