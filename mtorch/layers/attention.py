"""Multi-head attention."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch import arrays, initializers
from mtorch.arrays import Array, Value, flat_rows, ones
from mtorch.checks import check_flag, check_number, check_size
from mtorch.container import Container, Tape
from mtorch.errors import ShapeMismatchError
from mtorch.kernels.attention import attention, attention_grad, causal_bias, forbidden, pairs, stacked
from mtorch.kernels.memory import empty_on
from mtorch.kernels.threads import product
from mtorch.layer import NO_ARRAY, home_of
from mtorch.layers.dropout import Dropout
from mtorch.layers.linear import Linear
from mtorch.parameter import Parameter


class MultiHeadAttention(Container):
    """y = concat_h(P_h v_h) W_o^T + b_o with P_h = softmax(q_h k_h^T / sqrt(d) + mask), d = E / num_heads.

    Takes (query, key, value), or (query, key, value, mask), or x (T, N, E), which is all three; query (L, N, E), key
    and value (S, N, E). Returns y (L, N, E). The rows of in_proj_weight (3E, E) make q, k and v, in this order.

    mask: booleans, True where a query may not see a key, or numbers added to the scores; (L, S) for all,
        (N, L, S) or (N, 1, S) for each sample, (N * num_heads, L, S) for each head as in torch. It has no gradient.
    causal: a query sees keys up to its own place only. One that may see nothing has P = 0, so that its y is b_o.
    dropout: the share of the entries of P that are zeroed in training, before they meet v.

    Backward: y is linear in P and v, so dP = dc v^T and dv = P^T dc for dc, the gradient of the heads' results; the
    softmax takes out of dP its mean under P, dS = P (dP - sum_S P dP); then dq = dS k / sqrt(d), dk = dS^T q / sqrt(d).

    Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762.
    """

    takes = ("floats", "floats", "floats", "any")
    new_grad = True

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0,
        bias: bool = True,
        *,
        causal: bool = False,
        xp: ModuleType = numpy,
        dtype: Any = "float32",
        rng: Any = None,
    ):
        name = "MultiHeadAttention"
        e, heads = check_size(name, "embed_dim", embed_dim), check_size(name, "num_heads", num_heads)
        if e % heads:
            raise ValueError(f"{name} expected num_heads that divide embed_dim = {e}, got {heads}")
        xp, dtype = home_of(name, xp, dtype)
        rng, options = initializers.as_generator(rng, name), {"xp": xp, "dtype": dtype}
        dropout = check_number(name, "dropout", dropout, least=0, most=1)
        thin, bias = Dropout(dropout, rng=rng, **options), check_flag(name, "bias", bias)
        out_proj = Linear(e, e, bias=bias, init=initializers.kaiming_uniform(a=5**0.5), rng=rng, **options)
        super().__init__((thin, out_proj))
        self.embed_dim, self.num_heads, self.causal = e, heads, check_flag(name, "causal", causal)
        weight = initializers.xavier_uniform()(rng, (3 * e, e), e, 3 * e)
        self.in_proj_weight = Parameter(xp.asarray(weight, dtype=self.dtype))
        self.in_proj_bias = Parameter(xp.zeros(3 * e, dtype=self.dtype)) if bias else None
        self.thin, self.out_proj = thin, out_proj

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        self.check_dim(known, -1, self.embed_dim)
        return {-1: self.embed_dim}

    def cast_input(self, x: Value) -> Value:
        if not isinstance(x, tuple) or len(x) != 4:
            return super().cast_input(x)
        mask = None if x[3] is None else arrays.as_numeric(self.xp, x[3], self)
        return *super().cast_input(x[:3]), mask

    def forward(self, x: Value) -> Array:
        xp = self.xp
        sources, mask = self._sources(x)
        q, k, v = self._projected(sources)
        p = attention(xp, q, k, self._bias(mask, q, k))
        tape = Tape(self)
        thinned = tape.call(self.thin, p)
        length, n = sources[0].shape[:2]
        context = empty_on(xp, (length, n, self.embed_dim), p.dtype)
        xp.matmul(thinned, v, out=self._heads(context))
        y = tape.call(self.out_proj, context)
        self.remember(x, tape, q, k, v, p, thinned)
        return y

    def backward(self, output_grad: Array) -> Value:
        x, *rest = self.recall()
        sources, _ = self._sources(x)
        grads = self._projected_grads(sources, output_grad, *rest)
        w, e = self.in_proj_weight.value, self.embed_dim
        if len(sources) == 1:
            return product(grads[0], w).reshape(x.shape)
        ws = (w[i * e : (i + 1) * e] for i in range(3))
        found = tuple(product(g, w).reshape(s.shape) for g, w, s in zip(grads, ws, sources, strict=True))
        return found if len(x) == 3 else (*found, None)

    def backward_parameters(self, output_grad: Array) -> None:
        x, *rest = self.recall()
        self._projected_grads(self._sources(x)[0], output_grad, *rest)

    def _projected_grads(
        self, sources: tuple[Array, ...], output_grad: Array, tape: Tape, *saved: Array
    ) -> tuple[Array, ...]:
        """Adds the gradients of the input projection; returns those of its results, as rows, one array a source."""
        xp, e = self.xp, self.embed_dim
        q, k, v, p, thinned = saved
        dc = self._heads(tape.pull(output_grad))
        dp = tape.pull(pairs(xp, dc, v))
        if len(sources) == 1:
            found = empty_on(xp, (*sources[0].shape[:2], 3 * e), p.dtype)
            parts, grads = (found[..., i * e : (i + 1) * e] for i in range(3)), (flat_rows(found),)
        else:
            parts = tuple(empty_on(xp, source.shape, p.dtype) for source in sources)
            grads = tuple(map(flat_rows, parts))
        dq, dk, dv = map(self._heads, parts)
        attention_grad(xp, q, k, p, dp, dq, dk)
        xp.matmul(thinned.swapaxes(-1, -2), dc, out=dv)
        factors = [(g.T, flat_rows(x)) for g, x in zip(grads, sources, strict=True)]
        self.in_proj_weight.accumulate_result(stacked, xp, product, factors)
        if self.in_proj_bias is not None:
            factors = [(ones(xp, len(g), g.dtype), g) for g in grads]
            self.in_proj_bias.accumulate_result(stacked, xp, xp.dot, factors)
        return grads

    def _sources(self, x: Value) -> tuple[tuple[Array, ...], Array | None]:
        """(x,) or (query, key, value), and the mask; ShapeMismatchError where they do not fit together."""
        given = x if isinstance(x, tuple) else (x,)
        sources = given[:3]
        fits = len(given) in ((3, 4) if given is x else (1,)) and not any(s.__class__ in NO_ARRAY for s in sources)
        fits = fits and all(s.ndim == 3 and s.shape[2] == self.embed_dim for s in sources)
        if fits and len(sources) == 3:
            fits = sources[1].shape == sources[2].shape and sources[0].shape[1] == sources[1].shape[1]
        if not fits or 0 in sources[-1].shape[:1]:
            wanted = f"x (T, N, {self.embed_dim}) or (query (L, N, E), key (S, N, E), value (S, N, E)[, mask])"
            raise ShapeMismatchError(self, f"expected {wanted}, got {arrays.shape_value(x)}")
        return sources, given[3] if len(given) == 4 else None

    def _projected(self, sources: tuple[Array, ...]) -> list[Array]:
        """q, k and v by head, views of (., N, E)."""
        w, b, e = self.in_proj_weight.value, self.in_proj_bias, self.embed_dim
        step = 3 * e // len(sources)
        parts = []
        for i, source in enumerate(sources):
            rows = product(flat_rows(source), w[i * step : (i + 1) * step].T)
            if b is not None:
                rows += b.value[i * step : (i + 1) * step]
            rows = rows.reshape(source.shape[:2] + (step,))
            parts += [rows[..., j : j + e] for j in range(0, step, e)]
        return [self._heads(part) for part in parts]

    def _heads(self, x: Array) -> Array:
        """(T, N, E) seen as (N, H, T, d)."""
        return x.reshape(*x.shape[:2], self.num_heads, self.embed_dim // self.num_heads).transpose(1, 2, 0, 3)

    def _bias(self, mask: Array | None, q: Array, k: Array) -> Array | None:
        """What is added to the scores (N, H, L, S)."""
        n, heads, length, size = *q.shape[:3], k.shape[2]
        bias = causal_bias(self.xp, length, size, q.dtype) if self.causal else None
        if mask is None:
            return bias
        low = forbidden(q.dtype)
        if mask.dtype.kind == "b":
            mask = self.xp.where(mask, self.xp.asarray(low, q.dtype), self.xp.asarray(0, q.dtype))
        elif mask.dtype.kind == "f":
            mask = self.xp.maximum(mask, low).astype(q.dtype)
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
        dropout, causal = f", dropout={self.thin.p:g}" * (self.thin.p > 0), ", causal=True" * self.causal
        return f"{self.embed_dim}, {self.num_heads}{dropout}{causal}"

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Any, Any]]:
        options = {"xp": xp, "dtype": dtype, "rng": rng}

        def masked(xp: Any, rng: Any) -> Value:
            values = (xp.asarray(rng.standard_normal((size, 3, 4))) for size in (2, 5, 5))
            return *values, xp.asarray(rng.random((3, 2, 5)) < 0.4)

        yield cls(4, 2, **options), (3, 2, 4)
        yield cls(4, 1, bias=False, causal=True, **options), (4, 2, 4)
        yield cls(4, 2, dropout=0.3, **options), ((3, 2, 4), (5, 2, 4), (5, 2, 4))
        yield cls(4, 2, **options), masked
