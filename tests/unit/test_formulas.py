"""Formulas over parameters and buffers: the operators that expressions take, in a Module's forward and outside."""

import copy
import operator
import pickle

import numpy
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import mtorch
from mtorch import Buffer, Graph, Input, Module, Parameter, layers
from mtorch.graph import Expression
from mtorch.testing import check_gradients, strict

RNG = numpy.random.default_rng(0)
X = RNG.uniform(0.5, 1.5, (4, 3))
W, V = RNG.uniform(0.5, 1.5, (3, 3)), RNG.uniform(0.5, 1.5, (3, 3))
C = RNG.uniform(0.5, 1.5, (3, 3))

OPERATIONS = {
    "2.0 * w": lambda x, w, v: x @ (2.0 * w), "w * 2": lambda x, w, v: x @ (w * 2), "-w": lambda x, w, v: x @ (-w),
    "+w": lambda x, w, v: x @ (+w), "w * w": lambda x, w, v: x @ (w * w), "w.T": lambda x, w, v: x @ w.T,
    "w @ x": lambda x, w, v: w @ x.T, "x @ w + b": lambda x, w, v: x @ w + v[0], "w + v": lambda x, w, v: x @ (w + v),
    "w - 1": lambda x, w, v: x @ (w - 1), "1 - w": lambda x, w, v: x @ (1 - w), "w / v": lambda x, w, v: x @ (w / v),
    "1 / w": lambda x, w, v: x @ (1 / w), "w ** 2": lambda x, w, v: x @ (w**2), "w ** v": lambda x, w, v: x @ (w**v),
    "2 ** w": lambda x, w, v: x @ (2.0**w), "abs(w)": lambda x, w, v: x @ abs(-w), "w[0]": lambda x, w, v: x * w[0],
    "w[:, 1:]": lambda x, w, v: x @ w[:, 1:], "w[[0, 0, 2]]": lambda x, w, v: x @ w[[0, 0, 2]],
    "array * w": lambda x, w, v: x @ (C * w), "w * array": lambda x, w, v: x @ (w * C),
    "array + w": lambda x, w, v: x @ (C + w), "array @ w": lambda x, w, v: x @ (C @ w),
    "array - w": lambda x, w, v: x @ (C - w), "array / w": lambda x, w, v: x @ (C / w),
    "scalar * w": lambda x, w, v: x @ (numpy.float64(0.5) * w),
    "0-d array * w": lambda x, w, v: x @ (numpy.array(2.0) * w),
    "w ** scalar": lambda x, w, v: x @ (w ** numpy.float64(1.5)), "list + w": lambda x, w, v: x @ ([1.0, 2.0, 3.0] + w),
    "(2 w).T": lambda x, w, v: x @ (2 * w).T, "x.T": lambda x, w, v: (x.T * w[:, :1]).T @ v,
    "w v^T w": lambda x, w, v: x @ (w @ v.T @ w), "sum([w, v])": lambda x, w, v: x @ sum([w, v]),
    "x of w": lambda x, w, v: x * (w @ v)[0] - 0.5 * w[1] * v[2],
}  # fmt: skip


class Formula(Module):
    def __init__(self, formula, kind=Parameter, dtype="float64"):
        super().__init__()
        self.formula, self.w, self.v = formula, Parameter(W.astype(dtype)), kind(V.astype(dtype))

    def forward(self, x):
        return self.formula(x, self.w, self.v)


@pytest.mark.parametrize("kind", [Parameter, Buffer])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_formula_with_parameters_reads_like_one_with_arrays(name, kind):
    formula = OPERATIONS[name]
    module = Formula(formula, kind)
    assert_allclose(module(X), formula(X, W, V), rtol=1e-13)
    assert check_gradients(module, X) < 1e-8
    assert set(module.parameters()) == ({"w", "v"} if kind is Parameter else {"w"}) & set(module.parameters())


@pytest.mark.parametrize("name", ["array * w", "w.T", "w * w"])
def test_formulas_on_another_array_module_and_in_float32(name):
    module = Formula(OPERATIONS[name], dtype="float32")
    assert module(X).dtype == numpy.float32
    twin = module.to(xp=strict)
    assert_allclose(twin(strict.asarray(X.astype("float32"))).get(), OPERATIONS[name](X, W, V), rtol=1e-5)


def test_an_array_of_the_module_on_the_left_leaves_the_operator_to_the_parameter():
    w = Parameter(strict.asarray(W.astype("float32")))
    for made in (strict.asarray(C.astype("float32")) * w, w + strict.asarray(C.astype("float32"))):
        assert isinstance(made, Expression)


def test_a_layer_and_a_function_take_a_parameter():
    """Learned queries: the input of a layer is a parameter."""

    class Pooled(Module):
        def __init__(self):
            super().__init__()
            nn = layers.on(numpy, dtype="float64", rng=0)
            self.query, self.norm = Parameter(RNG.standard_normal((1, 2, 4))), nn.LayerNorm(4)
            self.attention = nn.MultiHeadAttention(4, 2)

        def forward(self, x):
            return self.attention(self.norm(self.query), x, mtorch.tanh(x))

    module = Pooled()
    assert module(RNG.standard_normal((3, 2, 4))).shape == (1, 2, 4)
    assert check_gradients(module, (3, 2, 4)) < 1e-6


def test_a_penalty_of_parameters_alone_is_an_output():
    class Penalised(Module):
        def __init__(self):
            super().__init__()
            self.w = Parameter(W)

        def forward(self, x):
            return x @ self.w, mtorch.sum(self.w**2)

    module = Penalised()
    y, penalty = module(X)
    assert penalty == pytest.approx((W**2).sum()) and y.shape == X.shape
    module.backward((numpy.zeros_like(y), numpy.array(1.0)))
    assert_allclose(module.parameters()["w"].grad, 2 * W)


# ---------------------------------------------------------------------- outside a trace


def test_outside_a_trace_operators_make_expressions_and_compute_nothing():
    w = Parameter(W)
    for made in (2.0 * w, -w, w * w, w.T, w @ W, W @ w, w[0], w**2, abs(w), layers.Tanh(dtype="float64")(w)):
        assert isinstance(made, Expression)
        with pytest.raises(TypeError, match="no truth value"):
            bool(made)
    assert_array_equal(w.value, W) and not w.has_grad
    graph = Graph.of(Input("x") @ (2.0 * w).T)
    assert_allclose(graph(X), X @ (2 * W).T)
    with pytest.raises(ValueError, match="at least one Input"):
        Graph.of(2.0 * w)


@pytest.mark.parametrize("kind", [Parameter, Buffer])
def test_a_parameter_stays_what_it_was(kind):
    """Truth, identity, copies, and no iteration; a statement such as `w *= 2` would lose it, and is an error."""
    w, v = kind(W), kind(W)
    assert w and w == w and w != v and (w == W) is False and len({w, v}) == 2 and w in [v, w]
    assert not hasattr(w, "__dict__") and not hasattr(w, "__len__")
    for twin in (copy.copy(w), copy.deepcopy(w), pickle.loads(pickle.dumps(w))):
        assert_array_equal(twin.value, W)
    for wrong in (
        lambda: iter(w),
        lambda: list(w),
        lambda: w + "text",
        lambda: w * True,
        lambda: w < v,
        lambda: len(w),
    ):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(TypeError):
        w[0] = 1.0


@pytest.mark.parametrize("sign", ["+=", "-=", "*=", "/=", "@=", "**="])
def test_a_parameter_does_not_turn_into_an_expression(sign):
    layer = layers.Linear(3, 2)
    weight = layer.weight
    with pytest.raises(TypeError, match=r"Parameter\(\(2, 3\), float32\) does not change in place: write `w.value"):
        exec(f"layer.weight {sign} 2.0")
    assert layer.weight is weight
    layer.weight.value *= 2.0
    x = Input("x")
    x *= 2.0  # an expression is no variable that training needs
    assert isinstance(x, Expression)


# ---------------------------------------------------------------------- transposes, modules


def test_transpose_without_axes_reverses_all():
    layer, x = layers.Transpose(), numpy.arange(24.0, dtype="float32").reshape(2, 3, 4)
    assert_array_equal(layer(x), x.T)
    assert_array_equal(layer.backward(x.T), x)
    assert layer.infer_shape({-1: 4, 1: 3}) == {0: 4, -2: 3} and repr(layer) == "Transpose()"
    assert_array_equal(mtorch.transpose(x), x.T)


@pytest.mark.parametrize("input_grad", [False, True])
def test_the_gradients_of_a_module_are_checked_whatever_its_input_grad(input_grad):
    class Skip(Module):
        def __init__(self):
            super().__init__(input_grad=input_grad)
            self.fc = layers.Linear(3, 3, rng=0)

        def forward(self, x):
            return mtorch.tanh(self.fc(x)) + x

    wrapped = Module(mtorch.Sequential(layers.Linear(3, 2, rng=0), layers.Tanh()), input_grad=input_grad)
    for module in (Skip(), wrapped, Module(wrapped, input_grad=input_grad)):
        assert check_gradients(module, (4, 3)) < 1e-6
        assert module.input_grad is input_grad  # it works on a copy


def test_a_wrong_layer_in_a_module_is_found():
    class Wrong(layers.Identity):
        def backward(self, output_grad):
            return 2 * super().backward(output_grad)

    for module in (Module(Wrong()), Module(mtorch.Sequential(layers.Linear(3, 3, rng=0), Wrong()))):
        with pytest.raises(mtorch.testing.GradientError):
            check_gradients(module, (4, 3))


def test_a_module_is_indexed_like_its_sequential():
    net = mtorch.Sequential(layers.Linear(3, 2), layers.Tanh())
    module = Module(net)
    assert module[0] is net[0] and module[-1] is net.layers[1] and list(module) == list(net)
    assert Module(module)[0] is net[0]
    with pytest.raises(IndexError):
        module[2]
    with pytest.raises(TypeError, match="not subscriptable"):
        Module(layers.Tanh())[0]


@pytest.mark.parametrize("compare", [operator.lt, operator.le, operator.gt, operator.ge])
def test_an_expression_cannot_be_compared_and_says_what_to_use(compare):
    for x, other in ((Input("x"), 0), (Input("x") * 2, Input("y"))):
        with pytest.raises(TypeError, match="cannot be compared: .* use maximum, minimum, clip, relu or abs"):
            compare(x, other)


@pytest.mark.parametrize(
    "name, ours", [("cat", "concat"), ("gather", "take"), ("manual_seed", "seed"), ("nn", "layers")]
)
def test_a_name_of_torch_is_answered_with_ours(name, ours):
    with pytest.raises(AttributeError, match=f"has no attribute '{name}': it is mtorch.{ours}$"):
        getattr(mtorch, name)
    assert hasattr(mtorch, ours)
    with pytest.raises(AttributeError, match="has no attribute 'nothing_like_it'$"):
        _ = mtorch.nothing_like_it
