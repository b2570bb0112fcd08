"""Slow numpy versions of the equations, written from the papers."""

import numpy as np
from scipy.special import erf


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def layer_norm(x, layer):
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + layer.eps) * weight + bias


def linear(x, layer):
    y = x @ layer.weight.detach().numpy().T
    return y if layer.bias is None else y + layer.bias.detach().numpy()


def gelu(x):
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


def literal_attention(x, context, attention):
    """softmax(x W_q (c W_k)^T / sqrt(d)) c W_v of each spot and head, one after the other."""
    q, k, v = linear(x, attention.query), linear(context, attention.key), linear(context, attention.value)
    width = q.shape[-1] // attention.n_heads
    z = np.zeros_like(q)
    for b in range(len(x)):
        for h in range(attention.n_heads):
            at = slice(h * width, (h + 1) * width)
            weights = softmax(q[b, :, at] @ k[b, :, at].T / np.sqrt(width))
            z[b, :, at] = weights @ v[b, :, at]
    return linear(z, attention.out)


def literal_block(x, block):
    y = layer_norm(x, block.norm1)
    x = x + literal_attention(y, y, block.attention)
    return x + linear(gelu(linear(layer_norm(x, block.norm2), block.expand)), block.contract)
