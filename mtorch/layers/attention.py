"""Multi-head attention."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch import arrays, initializers
from mtorch.accelerate import accelerated
from mtorch.arrays import Array, Value, flat_rows, widened
from mtorch.checks import check_flag, check_memory, check_number, check_size
from mtorch.container import Container, Tape
from mtorch.errors import ShapeMismatchError
from mtorch.guards import NO_ARRAY
from mtorch.last_forward import OfLastForward
from mtorch.layers.dropout import Dropout
from mtorch.layers.linear import Linear
from mtorch.parameter import Parameter
from mtorch.states import Stateful, refuse_state, states_travel
from mtorch.tree import home_of


class MultiHeadAttention(Stateful, Container):
    """y = concat_h(P_h v_h) W_o^T + b_o with P_h = softmax(q_h k_h^T / sqrt(d) + mask), d = E / num_heads,
    q = query W_q^T + b_q,  k = key W_k^T + b_k,  v = value W_v^T + b_v, each split into heads along its last axis.

    Takes (query, key, value), or (query, key, value, mask), or x (T, N, E), which is all three; query (L, N, E), key
    and value (S, N, E). Returns y (L, N, E). in_proj_weight (3E, E) is W_q, W_k and W_v, one below the other.

    mask: booleans, True where a query may not see a key, or numbers added to the scores; (L, S) for all,
        (N, L, S) or (N, 1, S) for each sample, (N * num_heads, L, S) for each head as in torch. It has no gradient.
    causal: a query sees keys up to its own position only. A query that sees no key has P = 0, so that its y is b_o.
        The state that travels through `predict` is the keys and the values of all steps so far, (S, N, E) each.
    dropout: the share of the entries of P that are zeroed in training, before the product with v.
    keep_weights: leaves P (N, num_heads, L, S) of the last forward, before dropout, in `attention_weights`, until the
        next one. A predict leaves nothing there.

    Backward: for each head with c = P v, Z = q k^T / sqrt(d) + mask and dc, which the output projection returns,
        dv = P^T dc,  dP = dc v^T,  dZ = P (dP - sum over the keys of P dP), as in `Softmax`,
        dq = dZ k / sqrt(d),  dk = dZ^T q / sqrt(d),
    where dropout replaces P by what it kept, and dP by its own gradient. Then, and likewise for k and v,
        dW_q = dq^T query,  db_q = sum of dq over L and N,  dquery = dq W_q.

    Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762.
    """

    takes = ("floats", "floats", "floats", "any")
    keep_weights = False
    attention_weights = OfLastForward()

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0,
        bias: bool = True,
        *,
        causal: bool = False,
        keep_weights: bool = False,
        xp: ModuleType = numpy,
        dtype: Any = "float32",
        rng: Any = None,
    ):
        name = "MultiHeadAttention"
        e, heads = check_size(name, "embed_dim", embed_dim), check_size(name, "num_heads", num_heads)
        check_memory(name, 3 * e * e, embed_dim=e)
        if e % heads:
            raise ValueError(f"{name} expected num_heads that divide embed_dim = {e}, got {heads}")
        xp, dtype = home_of(name, xp, dtype)
        rng, options = initializers.as_generator(rng, name), {"xp": xp, "dtype": dtype}
        dropout = check_number(name, "dropout", dropout, least=0, most=1)
        drop, bias = Dropout(dropout, rng=rng, **options), check_flag(name, "bias", bias)
        out_proj = Linear(e, e, bias=bias, init=initializers.kaiming_uniform(a=5**0.5), rng=rng, **options)
        super().__init__((drop, out_proj))
        self.embed_dim, self.num_heads, self.head_dim = e, heads, e // heads
        self.causal = self.has_state = check_flag(name, "causal", causal)
        self.keep_weights = check_flag(name, "keep_weights", keep_weights)
        weight = initializers.xavier_uniform()(rng, (3 * e, e), e, 3 * e)
        self.in_proj_weight = Parameter(xp.asarray(weight, dtype=self.dtype))
        self.in_proj_bias = Parameter(xp.zeros(3 * e, dtype=self.dtype)) if bias else None
        self.dropout, self.out_proj = drop, out_proj

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        self.check_dim(known, -1, self.embed_dim)
        return {-1: self.embed_dim}

    def cast_input(self, x: Value) -> Value:
        if not isinstance(x, tuple) or len(x) != 4:
            return super().cast_input(x)
        mask = None if x[3] is None else arrays.as_numeric(self.xp, x[3], self)
        return *super().cast_input(x[:3]), mask

    @accelerated
    def forward(self, x: Value) -> Array:
        xp, scale, tape = self.xp, self.head_dim**-0.5, Tape(self)
        sources, mask = self.sources(x)
        q, k, v = (self.heads(widened(y)) for y in self._projected(sources))
        k, v, past = self.with_past(x, k, v)
        p = self.softmax(xp.matmul(q * scale, k.swapaxes(-1, -2)), self.mask_bias(mask, q, k, past))
        if self.keep_weights:
            self.attention_weights = p
        dropped = tape.call(self.dropout, p)
        c = xp.matmul(dropped, v)
        y = tape.call(self.out_proj, self.joined(c).astype(self.dtype, copy=False))
        self.remember(x, tape, q, k, v, p, dropped)
        return self.returns(y)

    @accelerated
    def backward(self, output_grad: Array) -> Value:
        g = self.cast_grad(output_grad)
        x, *memory = self.recall()
        sources, _ = self.sources(x)
        grads = self._projected_grads(g, sources, *memory)
        dx = tuple(self.xp.matmul(dy, w) for dy, w in zip(grads, self.weights(), strict=True))
        if x.__class__ is not tuple:
            return dx[0] + dx[1] + dx[2]
        return dx if len(x) == 3 else (*dx, None)

    @accelerated
    def backward_parameters(self, output_grad: Array) -> None:
        g = self.cast_grad(output_grad)
        x, *memory = self.recall()
        if self.trains_projection():
            self._projected_grads(g, self.sources(x)[0], *memory)
        else:
            memory[0].pull_parameters(g)

    def _projected(self, sources: tuple[Array, ...]) -> list[Array]:
        """The rows W_q query + b_q, W_k key + b_k and W_v value + b_v."""
        products = (self.xp.matmul(x, w.T) for x, w in zip(sources, self.weights(), strict=True))
        rows = [y.astype(self.dtype, copy=False) for y in products]
        if self.in_proj_bias is not None:
            rows = [y + b for y, b in zip(rows, self.in_proj_bias.value.reshape(3, -1), strict=True)]
        return rows

    def _projected_grads(
        self, g: Array, sources: tuple[Array, ...], tape: Tape, q: Array, k: Array, v: Array, p: Array, dropped: Array
    ) -> list[Array]:
        """The gradients of the projected rows; adds those of the parameters."""
        xp, scale = self.xp, self.head_dim**-0.5
        dc = widened(self.heads(tape.pull(g)))
        dv = xp.matmul(dropped.swapaxes(-1, -2), dc)  # in forward this was c = dropped v
        dp = tape.pull(xp.matmul(dc, v.swapaxes(-1, -2)))
        dz = p * (dp - (p * dp).sum(axis=-1, keepdims=True))  # in forward this was P = softmax(Z)
        dq = xp.matmul(dz, k) * scale  # in forward this was Z = q k^T / sqrt(d) + mask
        dk = xp.matmul(dz.swapaxes(-1, -2), q) * scale
        grads = [self.joined(each).astype(self.dtype, copy=False) for each in (dq, dk, dv)]
        rows = [flat_rows(dy) for dy in grads]  # in forward this was y = x W^T + b
        pairs = list(zip(rows, sources, strict=True))
        self.in_proj_weight.accumulate(lambda: xp.concatenate([xp.matmul(dy.T, flat_rows(x)) for dy, x in pairs]))
        if self.in_proj_bias is not None:
            self.in_proj_bias.accumulate(lambda: xp.concatenate([widened(dy).sum(axis=0) for dy in rows]))
        return grads

    def trains_projection(self) -> bool:
        """Whether W_q, W_k, W_v or their biases are trainable."""
        return self.in_proj_weight.trainable or (self.in_proj_bias is not None and self.in_proj_bias.trainable)

    def softmax(self, scores: Array, bias: Array | None) -> Array:
        """P = softmax(scores + bias) over the keys. A query that may see no key has a row of 0."""
        s = scores if bias is None else scores + bias
        e = self.xp.exp(s - self.xp.maximum(s.max(axis=-1, keepdims=True), forbidden(s.dtype) / 2))
        total = e.sum(axis=-1, keepdims=True)
        return e / (total + (total == 0))

    def weights(self) -> Array:
        """W_q, W_k and W_v."""
        return self.in_proj_weight.value.reshape(3, self.embed_dim, self.embed_dim)

    def heads(self, x: Array) -> Array:
        """(T, N, E) seen as (N, num_heads, T, d)."""
        return x.reshape(*x.shape[:2], self.num_heads, self.head_dim).transpose(1, 2, 0, 3)

    def joined(self, x: Array) -> Array:
        """(N, num_heads, T, d) as (T, N, E)."""
        n, _, length, _ = x.shape
        return x.transpose(2, 0, 1, 3).reshape(length, n, self.embed_dim)

    def sources(self, x: Value) -> tuple[tuple[Array, ...], Array | None]:
        """(query, key, value), and the mask; ShapeMismatchError where they do not fit together."""
        given = x if isinstance(x, tuple) else (x, x, x)
        sources = given[:3]
        fits = len(given) in (3, 4) and not any(s.__class__ in NO_ARRAY for s in sources)
        fits = fits and all(s.ndim == 3 and s.shape[2] == self.embed_dim for s in sources)
        fits = fits and sources[1].shape == sources[2].shape and sources[0].shape[1] == sources[1].shape[1]
        if not fits or not len(sources[1]):
            wanted = f"x (T, N, {self.embed_dim}) or (query (L, N, E), key (S, N, E), value (S, N, E)[, mask])"
            raise ShapeMismatchError(self, f"expected {wanted}, got {arrays.shape_value(x)}")
        return sources, given[3] if len(given) == 4 else None

    def with_past(self, x: Value, k: Array, v: Array) -> tuple[Array, Array, int]:
        """k and v, behind those of the steps before where a state travels, and the number of these."""
        if not states_travel(self):
            return k, v, 0
        if x.__class__ is tuple:
            if self.causal or x[0] is x[1]:
                refuse_state(self, "of a query, a key and a value nobody knows which steps came before")
            return k, v, 0
        if not self.causal:
            refuse_state(self, "a query attends to steps that come later")
        before = self.begin_with(None)
        if before is not None:
            n, size = len(k), self.embed_dim
            shapes = [getattr(part, "shape", ()) for part in before]
            if [shape[1:] for shape in shapes] != [(n, size)] * 2 or shapes[0] != shapes[1]:
                wanted = f"a state of two arrays (S, {n}, {size})"
                raise ShapeMismatchError(self, f"expected {wanted}, got {arrays.shape_value(before)}")
            k, v = (self.xp.concatenate((self.heads(a), b), axis=2) for a, b in zip(before, (k, v), strict=True))
        self.end_with((self.joined(k), self.joined(v)))
        return k, v, 0 if before is None else len(before[0])

    def mask_bias(self, mask: Array | None, q: Array, k: Array, past: int = 0) -> Array | None:
        """What is added to the scores (N, num_heads, L, S); the first query stands behind `past` keys."""
        (n, heads, length), size = q.shape[:3], k.shape[2]
        low = forbidden(q.dtype)
        bias = self.xp.triu(self.xp.full((length, size), low, dtype=q.dtype), 1 + past) if self.causal else None
        if mask is None:
            return bias
        if mask.dtype.kind == "b":
            mask = self.xp.where(mask, self.xp.asarray(low, q.dtype), self.xp.asarray(0, q.dtype))
        elif mask.dtype.kind == "f":
            mask = self.xp.maximum(widened(mask), low).astype(q.dtype)
        else:
            raise TypeError(f"{self!r} expected a mask of booleans or floats, got dtype {mask.dtype}")
        if mask.shape == (n * heads, length, size):
            mask = mask.reshape(n, heads, length, size)
        elif mask.shape in ((n, length, size), (n, 1, size)):
            mask = mask[:, None]
        elif mask.shape != (length, size):
            wanted = f"({length}, {size}), ({n}, {length} or 1, {size}) or ({n * heads}, {length}, {size})"
            raise ShapeMismatchError(self, f"expected a mask of shape {wanted}, got {mask.shape}")
        return mask if bias is None else mask + bias

    def details(self) -> str:
        dropout, causal = f", dropout={self.dropout.p:g}" * (self.dropout.p > 0), ", causal=True" * self.causal
        return f"{self.embed_dim}, {self.num_heads}{dropout}{causal}{', keep_weights=True' * self.keep_weights}"

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_attention_weights": None}

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Any, Any]]:
        options = {"xp": xp, "dtype": dtype, "rng": rng}

        def masked(xp: Any, rng: Any) -> Value:
            values = (xp.asarray(rng.standard_normal((size, 3, 4))) for size in (2, 5, 5))
            return *values, xp.asarray(rng.random((3, 2, 5)) < 0.4)

        yield cls(4, 2, **options), (3, 2, 4)
        yield cls(4, 1, bias=False, causal=True, **options), (4, 2, 4)
        yield cls(4, 2, dropout=0.3, **options), ((3, 2, 4), (5, 2, 4), (5, 2, 4))
        yield cls(4, 2, keep_weights=True, **options), masked


def forbidden(dtype: numpy.dtype) -> float:
    """What is added to the score of a key that a query may not see: exp of it is 0, yet differences stay finite."""
    return -1e30 if dtype.itemsize > 2 else -3e4
