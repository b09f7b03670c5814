"""The steps in JAX, as a user writes them: a pure function gives the loss, and one `jax.jit` holds loss, gradient and
update. Weights lie as JAX likes them: (in, out), and (height, width, in, out) over images (N, H, W, C).
"""

from functools import partial
from itertools import pairwise

import numpy as np

from .common import fill, fill_recurrent, labels, normal


def training(loss_of, values, data, lr, optimizer="SGD"):
    """`step()` for a loss of (values, *data). JAX may reuse the memory of the old values for the new ones."""
    import jax

    init, update = {"SGD": sgd, "Adam": adam}[optimizer](lr)
    values = jax.tree.map(jax.numpy.asarray, values)
    data = jax.tree.map(jax.numpy.asarray, data)
    state = init(values)

    @partial(jax.jit, donate_argnums=(0, 1))
    def train(values, state, *data):
        loss, grads = jax.value_and_grad(loss_of)(values, *data)
        return *update(values, grads, state), loss

    def step():
        nonlocal values, state
        values, state, loss = train(values, state, *data)
        return float(loss)

    return step


def sgd(lr):
    from jax import tree

    def update(values, grads, state):
        return tree.map(lambda value, grad: value - lr * grad, values, grads), state

    return lambda values: (), update


def adam(lr, beta1=0.9, beta2=0.999, eps=1e-8):
    import jax.numpy as jnp
    from jax import tree

    def init(values):
        return tree.map(jnp.zeros_like, values), tree.map(jnp.zeros_like, values), jnp.zeros(())

    def update(values, grads, state):
        means, squares, steps = state
        steps = steps + 1
        means = tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, means, grads)
        squares = tree.map(lambda v, g: beta2 * v + (1 - beta2) * g * g, squares, grads)
        rate, root = lr / (1 - beta1**steps), jnp.sqrt(1 - beta2**steps)
        moved = tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) / root + eps), values, means, squares)
        return moved, (means, squares, steps)

    return init, update


def cross_entropy(scores, y):
    import jax

    return -jax.numpy.take_along_axis(jax.nn.log_softmax(scores), y[:, None], axis=1).mean()


# ---------------------------------------------------------------------- dense nets


def dense_values(widths, first=0):
    """(W, b) of each layer; `first`: the number of the first one in the other sides' net, which counts ReLUs too."""
    found = []
    for i, (a, b) in enumerate(pairwise(widths)):
        name = f"{first + 2 * i}"
        weight, bias = fill({f"{name}.weight": (b, a), f"{name}.bias": (b,)}).values()
        found.append((weight.T, bias))
    return found


def dense(values, x):
    import jax

    for w, b in values[:-1]:
        x = jax.nn.relu(x @ w + b)
    w, b = values[-1]
    return x @ w + b


def digit_net(widths, batch, lr):
    import jax

    def loss_of(values, x, target):
        return 0.5 * ((jax.nn.sigmoid(dense(values, x)) - target) ** 2).sum(axis=1).mean()

    target = np.eye(widths[-1], dtype=np.float32)[labels(batch)]
    return training(loss_of, dense_values(widths), (normal(batch, widths[0]), target), lr)


def mlp(widths, batch, lr, optimizer="SGD"):
    def loss_of(values, x, y):
        return cross_entropy(dense(values, x), y)

    data = normal(batch, widths[0]), labels(batch)
    return training(loss_of, dense_values(widths), data, lr, optimizer)


# ---------------------------------------------------------------------- images


def conv(x, w, stride=1, padding="VALID"):
    from jax import lax

    return lax.conv_general_dilated(x, w, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def pool(x):
    from jax import lax

    return lax.reduce_window(x, -np.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def conv_values(name, out, channels, size):
    weight, bias = fill({f"{name}.weight": (out, channels, size, size), f"{name}.bias": (out,)}).values()
    return weight.transpose(2, 3, 1, 0), bias


def after_images(values, channels, side):
    """Dense values whose first layer has read images as (N, C, H, W), for images as (N, H, W, C)."""
    (w, b), *others = values
    return [(w.reshape(channels, side, side, -1).transpose(1, 2, 0, 3).reshape(w.shape), b), *others]


def cnn(batch, lr):
    import jax

    values = {
        "conv": [conv_values("0", 32, 1, 3), conv_values("2", 64, 32, 3)],
        "dense": after_images(dense_values((9216, 128, 10), first=6), 64, 12),
    }

    def loss_of(values, x, y):
        for w, b in values["conv"]:
            x = jax.nn.relu(conv(x, w) + b)
        return cross_entropy(dense(values["dense"], pool(x).reshape(len(x), -1)), y)

    return training(loss_of, values, (normal(batch, 1, 28, 28).reshape(batch, 28, 28, 1), labels(batch)), lr)


def lenet(batch, lr):
    import jax

    values = {
        "conv": [conv_values("1", 6, 1, 5), conv_values("4", 16, 6, 5)],
        "dense": after_images(dense_values((400, 120, 84, 10), first=8), 16, 5),
    }

    def loss_of(values, x, y):
        for (w, b), padding in zip(values["conv"], ("SAME", "VALID"), strict=True):
            x = jax.nn.relu(pool(conv(x, w, padding=padding) + b))
        return cross_entropy(dense(values["dense"], x.reshape(len(x), -1)), y)

    return training(loss_of, values, (normal(batch, 784).reshape(batch, 28, 28, 1), labels(batch)), lr)


def resnet(batch, lr):
    """16 channels, then blocks of 32, 32, 64 and 64; in each a sum of two ways.

    It leaves out the running statistics, some hundred numbers that only evaluation reads.
    """
    import jax
    import jax.numpy as jnp

    def normed(name, a, b, size):
        """A convolution without bias, and scale and shift of the normalisation after it."""
        prefix, _, last = name.rpartition(".")
        norm = f"{prefix}.{int(last) + 1}".lstrip(".")
        shapes = {f"{name}.weight": (b, a, size, size), f"{norm}.weight": (b,), f"{norm}.bias": (b,)}
        weight, scale, shift = fill(shapes).values()
        return weight.transpose(2, 3, 1, 0), scale, shift

    blocks, strides = [], (2, 1, 2, 1)
    for i, (a, b, stride) in enumerate(zip((16, 32, 32, 64), (32, 32, 64, 64), strides, strict=True)):
        name = f"{4 + 2 * i}"
        block = [normed(f"{name}.body.0", a, b, 3), normed(f"{name}.body.3", b, b, 3)]
        blocks.append([*block, normed(f"{name}.shortcut.0", a, b, 1)] if stride > 1 else block)
    values = {"first": normed("1", 1, 16, 3), "blocks": blocks, "dense": dense_values((64, 10), first=14)}

    def conv_norm(values, x, stride=1):
        w, scale, shift = values
        x = conv(x, w, stride, [(len(w) // 2, len(w) // 2)] * 2)
        mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
        return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * scale + shift

    def loss_of(values, x, y):
        x = jax.nn.relu(conv_norm(values["first"], x))
        for (one, two, *shortcut), stride in zip(values["blocks"], strides, strict=True):
            around = conv_norm(shortcut[0], x, stride) if shortcut else x
            x = jax.nn.relu(conv_norm(two, jax.nn.relu(conv_norm(one, x, stride))) + around)
        return cross_entropy(dense(values["dense"], jnp.mean(x, axis=(1, 2))), y)

    return training(loss_of, values, (normal(batch, 784).reshape(batch, 28, 28, 1), labels(batch)), lr)


# ---------------------------------------------------------------------- sequences


def recurrent(kind, size, lr):
    """`lax.scan` over time; the products with the inputs of all steps stand before it."""
    import jax
    import jax.numpy as jnp

    t, n, d, h = size
    values = [value.T for value in fill_recurrent(kind, size)]
    sigmoid, tanh = jax.nn.sigmoid, jnp.tanh

    def rnn(state, a, product):
        return tanh(a + product(state)), None

    def gru(state, a, product):
        r, z, new = jnp.split(a, 3, axis=1)
        r_h, z_h, new_h = jnp.split(product(state), 3, axis=1)
        z = sigmoid(z + z_h)
        return (1 - z) * tanh(new + sigmoid(r + r_h) * new_h) + z * state, None

    def lstm(state, a, product, cell):
        i, f, g, o = jnp.split(a + product(state), 4, axis=1)
        cell = sigmoid(f) * cell + sigmoid(i) * tanh(g)
        return sigmoid(o) * tanh(cell), cell

    def loss_of(values, x, target):
        w, u, b, b_h, v, c = values
        zeros = jnp.zeros((n, h), np.float32)

        def move(states, a):
            state, cell = states
            memory = (cell,) if kind == "LSTM" else ()
            states = {"RNN": rnn, "GRU": gru, "LSTM": lstm}[kind](state, a, lambda s: s @ u + b_h, *memory)
            return states, states[0]

        _, y = jax.lax.scan(move, (zeros, zeros if kind == "LSTM" else None), x @ w + b)
        return ((y @ v + c - target) ** 2).mean()

    return training(loss_of, values, (normal(t, n, d), normal(t, n, d, seed=1)), lr)


def transformer_block(n, t, e, heads, lr):
    import jax
    import jax.numpy as jnp

    values = fill(
        {
            "0.body.0.weight": (e,),
            "0.body.0.bias": (e,),
            "0.body.1.in_proj_weight": (3 * e, e),
            "0.body.1.in_proj_bias": (3 * e,),
            "0.body.1.out_proj.weight": (e, e),
            "0.body.1.out_proj.bias": (e,),
            "1.body.0.weight": (e,),
            "1.body.0.bias": (e,),
            "1.body.1.weight": (4 * e, e),
            "1.body.1.bias": (4 * e,),
            "1.body.4.weight": (e, 4 * e),
            "1.body.4.bias": (e,),
        }
    )
    values = [value.T for value in values.values()]

    def norm(x, scale, shift):
        x = x - x.mean(axis=-1, keepdims=True)
        return x * jax.lax.rsqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5) * scale + shift

    def attention(x, w, b, out, c):
        q, k, v = jnp.moveaxis((x @ w + b).reshape(t, n, 3, heads, e // heads), 2, 0)
        weights = jax.nn.softmax(jnp.einsum("inhd,jnhd->nhij", q, k) / (e // heads) ** 0.5)
        return jnp.einsum("nhij,jnhd->inhd", weights, v).reshape(t, n, e) @ out + c

    def loss_of(values, x, target):
        x = x + attention(norm(x, *values[:2]), *values[2:6])
        w, b, w2, b2 = values[8:]
        x = x + jax.nn.relu(norm(x, *values[6:8]) @ w + b) @ w2 + b2
        return ((x - target) ** 2).mean()

    return training(loss_of, values, (normal(t, n, e), normal(t, n, e, seed=1)), lr)
