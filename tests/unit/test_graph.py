"""Graph: a table of nodes or a formula as one layer."""

import copy
import pickle
import weakref

import numpy
import pytest
from harness import assert_same, cotangent, host, run
from numpy.testing import assert_allclose, assert_array_equal

import mtorch
from mtorch import BackwardError, Buffer, Fork, Graph, Input, Layer, Parameter, Sequential, ShapeMismatchError, layers
from mtorch.layer import EMPTY
from mtorch.layers import Add, GetItem, Linear, Multiply, Split, Subtract, Tanh
from mtorch.testing import check_gradients, strict

rng = numpy.random.default_rng(0)
ONES = numpy.ones((2, 3))


def linear(i=3, o=3, **options):
    return Linear(i, o, dtype="float64", rng=rng, **options)


def parameter(*shape):
    return Parameter(rng.standard_normal(shape))


def holds_nothing(layer):
    return all(each._memory is EMPTY and each._returned is None for _, each in layer.walk())


class Spy(Layer):
    """y = x; counts its calls and watches its results."""

    def __init__(self, **options):
        super().__init__(**options)
        self.forwards = self.backwards = 0
        self.results, self.alive = [], []

    def forward(self, x):
        self.alive.append([r() is not None for r in self.results])
        self.forwards += 1
        y = x.copy()
        self.results.append(weakref.ref(y))
        return y

    def backward(self, output_grad):
        self.backwards += 1
        return output_grad


class Failing(Layer):
    """Raises in forward or backward, on demand."""

    where = "forward"

    def forward(self, x):
        if self.where == "forward":
            raise RuntimeError("as asked")
        return x

    def backward(self, output_grad):
        raise RuntimeError("as asked")


# ---------------------------------------------------------------------- the two ways to write one


def test_a_table_and_a_formula_are_the_same_graph():
    w = linear()
    table = Graph("x", {"h": (w, "x"), "y": (Add(), ("h", "x"))}, "y")
    x = Input("x")
    formula = Graph.of(w(x) + x)
    v = rng.standard_normal((4, 3))
    assert_array_equal(table(v), formula(v))
    g = rng.standard_normal((4, 3))
    assert_array_equal(table.backward(g), formula.backward(g))
    assert list(table.parameters()) == ["h.weight", "h.bias"]
    assert list(formula.parameters()) == ["linear.weight", "linear.bias"]


def test_one_value_is_bare_and_several_are_a_tuple_in_order_of_first_use():
    a, b = Input(), Input("b")
    graph = Graph.of((b * 2.0 - a, a))
    assert graph.inputs == ("b", "x")
    y, same = graph(([1.0, 2.0], [10.0, 20.0]))
    assert_array_equal(y, [-8, -16])
    assert_array_equal(same, [10, 20])
    db, da = graph.backward((numpy.ones(2), numpy.full(2, 5.0)))
    assert_array_equal(db, [2, 2])
    assert_array_equal(da, [4, 4])
    assert Graph.of((a * 1.0,))([3.0]).shape == (1,)
    with pytest.raises(ShapeMismatchError, match=r"expected a tuple of 2 \(b, x\), got \(2,\)"):
        graph(numpy.ones(2, "float32"))


def test_order_of_inputs_can_be_given():
    a, b = Input("a"), Input("b")
    assert Graph.of(b - a, inputs=(a, b))((1.0, 3.0)) == 2.0
    with pytest.raises(ValueError, match=r"met Input\('b'\), which is not among its inputs"):
        Graph.of(b - a, inputs=(a,))
    with pytest.raises(ValueError, match="never uses the input 'b'"):
        Graph.of(-a, inputs=(a, b))


def test_outputs_may_be_nested_and_may_be_inputs():
    a = Input("a")
    graph = Graph.of(((a, a * 2.0), a + 1.0))
    (same, double), more = graph([1.0])
    assert (same, double, more) == (1.0, 2.0, 2.0)
    assert graph.backward(((numpy.ones(1), numpy.ones(1)), numpy.ones(1))) == 4.0


NODES = {"h": (Linear(3, 3), "x"), "y": (Tanh(), "h")}
MISTAKES = {
    "an unknown operand": ("x", {"y": (Tanh(), "z")}, "y", ValueError, "node 'y' of Graph takes 'z'"),
    "an operand below": ("x", {"y": (Tanh(), "z"), "z": (Tanh(), "x")}, "y", ValueError, "takes 'z', which is not"),
    "itself as operand": ("x", {"y": (Tanh(), "y")}, "y", ValueError, "takes 'y', which is not defined above it"),
    "an unknown output": ("x", NODES, "z", ValueError, "output 'z'"),
    "an unused node": ("x", NODES | {"z": (Tanh(), "h")}, "y", ValueError, "never uses the node 'z'"),
    "an unused input": (("x", "u"), NODES, "y", ValueError, "never uses the input 'u'"),
    "an unused parameter": ("x", NODES | {"p": Parameter(ONES)}, "y", ValueError, "never uses the node 'p'"),
    "a name twice": ("h", NODES, "y", ValueError, "different names"),
    "an input twice": (("x", "x"), NODES, "y", ValueError, "different names"),
    "no nodes": ("x", {}, "x", ValueError, "at least one node"),
    "no inputs": ((), NODES, "y", TypeError, "names of inputs"),
    "no layer": ("x", {"y": ("x", Tanh())}, "y", TypeError, r"node 'y' of Graph must be \(layer, operand\)"),
    "a class": ("x", {"y": (Tanh, "x")}, "y", TypeError, "must be"),
    "a list as operand": ("x", {"y": (Add(), ["x", "x"])}, "y", TypeError, "node 'y' of Graph takes names"),
    "numbers as names": (1, NODES, "y", TypeError, "names of inputs"),
    "two dtypes": ("x", {"h": (linear(), "x"), "y": (Linear(3, 3), "h")}, "y", ValueError, "one array module"),
    "a parameter of another dtype": (
        "x", {"h": (Linear(3, 3), "x"), "y": (Add(), ("h", Parameter(ONES)))}, "y", ValueError, "float64"),
    "layers that do not fit": (
        "x", {"h": (Linear(3, 4), "x"), "y": (Linear(3, 2), "h")}, "y", ShapeMismatchError, "expected 3 entries"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_found_at_construction(mistake):
    inputs, nodes, outputs, error, text = MISTAKES[mistake]
    with pytest.raises(error, match=text):
        Graph(inputs, nodes, outputs)


def test_a_formula_must_be_one():
    x = Input("x")
    for wrong in (3.0, [x], None, (x, "y"), Tanh()):
        with pytest.raises(TypeError, match="expected an expression"):
            Graph.of(wrong)
    with pytest.raises(ValueError, match="two inputs named 'x'"):
        Graph.of(x + Input("x"))
    with pytest.raises(ValueError, match="at least one Input"):
        Graph.of(mtorch.exp(parameter(2)))
    with pytest.raises(ValueError, match="at least one node"):
        Graph.of(x)
    with pytest.raises(TypeError, match="Input expected a name"):
        Input(3)


# ---------------------------------------------------------------------- expressions


def test_a_call_with_an_expression_returns_an_expression_and_computes_nothing():
    x, spy = Input("x"), Spy()
    y = spy(x)
    assert isinstance(y, mtorch.graph.Expression) and spy.forwards == 0
    assert isinstance(Sequential(spy)(y), mtorch.graph.Expression)
    assert isinstance(Add()((x, numpy.ones(3))), mtorch.graph.Expression)


X = numpy.array([[0.5, 1.5, 2.0], [1.0, 0.25, 3.0]])
P, C = Parameter(numpy.array([1.5, 2.0, 0.5])), numpy.array([[2.0, 1.0, 3.0]])
OPERATIONS = {
    "p + x": lambda x, p: p + x, "p - x": lambda x, p: p - x, "p * x": lambda x, p: p * x, "p / x": lambda x, p: p / x,
    "p ** x": lambda x, p: p**x, "x ** p": lambda x, p: x**p, "x + p": lambda x, p: x + p, "x - p": lambda x, p: x - p,
    "x * p": lambda x, p: x * p, "x / p": lambda x, p: x / p, "x @ p": lambda x, p: x @ p,
    "p @ x.T": lambda x, p: p @ (mtorch.transpose(x, (1, 0)) if not isinstance(x, numpy.ndarray) else x.T),
    "number + x": lambda x, p: 2 + x * p, "number - x": lambda x, p: 2 - x * p, "number * x": lambda x, p: 2.5 * x * p,
    "number / x": lambda x, p: 2 / x * p, "number ** x": lambda x, p: 2.0 ** (x * p), "x ** 3": lambda x, p: x**3 * p,
    "x / number": lambda x, p: x / 4 - p, "array * x": lambda x, p: C * x * p, "x * array": lambda x, p: x * C * p,
    "array - x": lambda x, p: C - x * p, "array / x": lambda x, p: C / x * p,
    "array @ x": lambda x, p: C[:, :2] @ x * p, "x @ array": lambda x, p: x @ C.T * p,
    "array ** x": lambda x, p: C**x * p, "x ** array": lambda x, p: x**C * p,
    "scalar * x": lambda x, p: numpy.float64(3.0) * x * p, "x ** scalar": lambda x, p: x ** numpy.float64(1.5) * p,
    "list + x": lambda x, p: x * p + [1.0, 2.0, 3.0], "-x": lambda x, p: -x * p, "+x": lambda x, p: +x * p,
    "abs(x)": lambda x, p: abs(x * p), "sum([x, x])": lambda x, p: sum([x, x * p]), "x[0]": lambda x, p: x[0] * p,
    "x[..., ::2]": lambda x, p: (x * p)[..., ::2], "x[[0, 0, 1]]": lambda x, p: (x * p)[[0, 0, 1]],
    "x[None]": lambda x, p: (x * p)[None, :, -1],
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_python_operators_mean_what_they_mean_for_arrays(name):
    graph = Graph.of(OPERATIONS[name](Input("x"), P))
    assert_allclose(graph(X), OPERATIONS[name](X, P.value), rtol=1e-14)
    assert check_gradients(graph, X) < 1e-8 and len(graph.parameters()) == 1


def test_an_expression_refuses_what_it_cannot_know():
    x = Input("x")
    with pytest.raises(TypeError, match="no truth value"):
        bool(x)
    with pytest.raises(TypeError, match="no known length"):
        a, b = x
    with pytest.raises(TypeError, match="unsupported operand"):
        x + "text"
    with pytest.raises(TypeError, match="unsupported operand"):
        x * True
    with pytest.raises(TypeError):
        numpy.exp(x)
    with pytest.raises(TypeError, match="Slice expected"):
        x[x]
    with pytest.raises(TypeError, match="real numbers"):
        Tanh()((x, "text"))
    assert "Tanh" in repr(Tanh()(x)) and repr(x) == "Input('x')"


def test_tuples_are_unpacked_where_their_length_is_known():
    x = Input("x")
    a, b = mtorch.split(x, 2, axis=-1)
    c, d = Sequential(Tanh(), Fork(Tanh(), Linear(1, 1)))(a)
    e, f = Graph.of((x * 2.0, x * 3.0))(b)
    graph = Graph.of(c + d * 2.0 + e + f)
    assert check_gradients(graph, (4, 2)) < 1e-8
    assert Graph.of(mtorch.split(x, 3, axis=0)[-1])(numpy.arange(3.0)) == 2.0
    with pytest.raises(IndexError, match="a tuple of 3, got the index 3"):
        mtorch.split(x, 3, axis=0)[3]


def test_one_expression_serves_several_graphs():
    x = Input("x")
    y = mtorch.exp(x * 0.1)
    single, double = Graph.of(y), Graph.of(y, dtype="float64")
    for graph in (single, double, single):
        z = graph(1.0)
        assert z.dtype == graph.dtype and abs(z - numpy.exp(0.1)) < 2 * numpy.finfo(graph.dtype).eps
    twin = single.to(dtype="float64")
    assert abs(twin(1.0) - numpy.exp(0.1)) < 1e-15  # the constant is cast from what was given


# ---------------------------------------------------------------------- gradients


def test_x_minus_x_has_gradient_zero():
    """A named bug of PyDyNet: it gives 2."""
    x = Input("x")
    for graph in (Graph.of(x - x), Graph("x", {"y": (Subtract(), ("x", "x"))}, "y")):
        assert_array_equal(graph(ONES), 0 * ONES)
        assert_array_equal(graph.backward(ONES.astype("float32")), 0 * ONES)


def test_doubling_three_times_gives_eight():
    """A named bug of gradflow: without a topological order it gives 64."""
    a = Input("x")
    for _ in range(3):
        a = a + a
    graph = Graph.of(a)
    assert graph(1.0) == 8
    assert graph.backward(numpy.float32(1.0)) == 8


def test_a_diamond_sums_over_both_ways():
    x = Input("x")
    h = mtorch.square(x)
    graph = Graph.of(h * 3.0 + mtorch.exp(h) * h, dtype="float64")
    v = rng.standard_normal(5)
    s = v * v
    graph(v)
    assert_allclose(graph.backward(numpy.ones(5)), (3 + numpy.exp(s) * (1 + s)) * 2 * v)


def test_inputs_that_go_ways_of_their_own_meet_at_the_end():
    a, b = Input("a"), Input("b")
    x, y = rng.standard_normal((2, 3))
    assert_allclose(Graph.of(Tanh(dtype="float64")(a) - mtorch.exp(b))((x, y)), numpy.tanh(x) - numpy.exp(y))


def test_a_tuple_of_one_stays_a_tuple():
    x = Input("x")
    value = rng.standard_normal((2, 3))
    graph = Graph.of(mtorch.concat((x,), axis=0) * 1.0, dtype="float64")
    assert_array_equal(graph(value), value)
    assert_array_equal(graph.backward(value), value)


def test_nodes_and_outputs_build_the_same_graph_again():
    for graph, _ in Graph.examples(xp=numpy, dtype="float64", rng=numpy.random.default_rng(0)):
        again = Graph(graph.inputs, graph.nodes, graph.outputs)
        assert list(again.nodes.items()) == list(graph.nodes.items()) and again.outputs == graph.outputs
        assert list(map(id, again.parameters().values())) == list(map(id, graph.parameters().values()))
        assert repr(again) == repr(graph)


def test_names_that_the_graph_gives_avoid_those_that_are_taken():
    weight = parameter(3)
    nodes = {"parameter0": (Tanh(dtype="float64"), "x"), "parameter1": (Tanh(dtype="float64"), "parameter0")}
    graph = Graph(["x"], nodes | {"y": (layers.Add(), ("parameter1", weight))}, "y")
    assert graph.parameters() == {"parameter2": weight}


def test_many_readers_of_one_value_add_up_without_touching_anybodys_gradient():
    x = Input("x")
    h = Spy()(x)
    graph = Graph.of((h, h, h, Spy()(h), h * 1.0, h), dtype="float64")
    graph(ONES)
    grads = tuple(rng.standard_normal((2, 3)) for _ in range(6))
    before = copy.deepcopy(grads)
    assert_allclose(graph.backward(grads), sum(grads))
    assert_same(grads, before)


def test_a_layer_in_many_nodes_collects_all_its_gradients():
    w = linear()
    x = Input("x")
    graph = Graph.of(w(mtorch.tanh(w(x))) * w(x))
    assert check_gradients(graph, (4, 3), "longdouble") < 1e-10
    assert list(graph.parameters()) == ["linear.weight", "linear.bias"]
    assert sorted(graph.state_dict()) == sorted(f"linear{i}.{n}" for i in ("", 1, 2) for n in ("weight", "bias"))


def test_a_shared_parameter_is_one_parameter():
    p = parameter(3)
    x = Input("x")
    graph = Graph.of(mtorch.exp(mtorch.multiply(p, 0.5)) * x + mtorch.square(p))
    assert list(graph.parameters()) == ["parameter0"] and graph.parameters()["parameter0"] is p
    assert check_gradients(graph, (4, 3), "longdouble") < 1e-10
    w = linear(bias=False)
    tied = Graph.of(w(x) @ w.weight)
    assert list(tied.parameters()) == ["linear.weight"] and list(tied.state_dict()) == ["linear.weight"]
    assert check_gradients(tied, (4, 3), "longdouble") < 1e-10


def test_parameters_of_the_graph_move_freeze_and_forget():
    p, q = parameter(3), parameter(3)
    q.trainable = False
    graph = Graph("x", {"scale": p, "h": (Multiply(), ("x", "scale")), "y": (Add(), ("h", q))}, "y")
    assert list(graph.parameters()) == ["scale", "parameter1"]
    before, frozen = p.value.copy(), q.value.copy()
    graph(ONES)
    graph.backward(ONES)
    assert_array_equal(p.grad, [2, 2, 2])
    graph.step(0.1)
    assert_allclose(p.value, before - 0.2)
    assert_array_equal(q.value, frozen)
    graph(ONES)
    graph.backward(ONES)
    graph.zero_grad()
    graph.step(1.0)
    assert_allclose(p.value, before - 0.2)


def test_a_parameter_that_no_gradient_reaches_rests():
    mask, x = Parameter(numpy.zeros((3, 3))), Input("x")  # attention gives its mask no gradient
    net = Graph.of(layers.MultiHeadAttention(4, 2, dtype="float64", rng=rng)((x, x, x, mask)))
    optimizer = mtorch.Adam(net, lr=1.0, weight_decay=0.5)
    for backward in (net.backward, net.backward_parameters):
        backward(net(numpy.ones((3, 2, 4))))
        moved = {name: p.value.copy() for name, p in net.parameters().items() if p.has_grad}
        assert len(moved) == 4 and not mask.has_grad and not mask.grad.any()
        optimizer.step()
        assert not mask.value.any() and all((net.parameters()[name].value != old).any() for name, old in moved.items())


def test_unused_parts_of_a_tuple_have_zero_gradient():
    x = Input("x")
    parts = Split(3, -1)(x)
    one = Graph.of(parts[1] * 2.0, dtype="float64")
    one(numpy.ones((2, 3)))
    assert_array_equal(one.backward(numpy.ones((2, 1))), [[0, 2, 0], [0, 2, 0]])
    both = Graph.of((parts[0] + parts[0], parts), dtype="float64")
    assert check_gradients(both, (2, 6)) < 1e-8
    nested = Fork(Fork(Tanh(), linear()), linear(3, 2))(x)
    assert check_gradients(Graph.of(GetItem(1)(nested[0]) * 2.0), (4, 3)) < 1e-8


def test_an_input_may_be_a_tuple():
    pair = Input("pair")
    graph = Graph.of(GetItem(0)(pair) * 2.0 + GetItem(0)(pair), dtype="float64")
    graph((ONES, ONES))
    first, second = graph.backward(ONES)
    assert_array_equal(first, 3 * ONES)
    assert_array_equal(second, 0 * ONES)
    table = Graph("pair", {"y": (Add(dtype="float64"), "pair")}, "y")
    assert check_gradients(table, ((2, 3), (3,))) < 1e-8


def test_2000_nodes_need_no_recursion():
    deep(2000)


@pytest.mark.slow
def test_20000_nodes_need_no_recursion():
    deep(20000)


def deep(count):
    x, w = Input("x"), linear(1, 1)
    h = w(x)
    for i in range(count // 2):
        h = mtorch.tanh(h) if i % 2 else h + x * 1e-3
    graph = Graph.of(h)
    del h
    v = ONES[:, :1]
    y = graph(v)
    twin, read = copy.deepcopy(graph), pickle.loads(pickle.dumps(graph))
    dx = graph.backward(y)
    for each in (twin, read):
        assert_array_equal(each.backward(y), dx)
    assert "nodes" in repr(graph) and list(graph.parameters()) == ["linear.weight", "linear.bias"]
    assert_array_equal(graph.predict(v), y)
    graph.eval().step(0.1)
    graph.discard()
    assert holds_nothing(graph)


# ---------------------------------------------------------------------- what all containers promise


def test_errors_name_the_node():
    x = Input("x")
    inner = Graph("x", {"h": (Tanh(), "x"), "bad": (Add(), ("h", "x"))}, "bad")
    graph = Graph("x", {"t": (layers.Transpose((1, 0)), "x"), "g": (Add(), ("t", "x")), "y": (inner, "g")}, "y")
    with pytest.raises(ShapeMismatchError) as caught:
        graph(ONES)
    assert caught.value.__notes__ == ["in node 'g' of Graph"]
    with pytest.raises(ShapeMismatchError) as caught:
        graph.predict(ONES)
    assert caught.value.__notes__ == ["in node 'g' of Graph"]
    failing = Failing()
    failing.where = "backward"
    outer = Graph.of(Sequential(Tanh(), failing)(x) * 2.0)
    y = outer(ONES)
    with pytest.raises(RuntimeError) as caught:
        outer.backward(y)
    notes = caught.value.__notes__
    assert notes[:2] == ["in layer 1 of Sequential", "in node 'sequential' of Graph"] and "discarded" in notes[2]
    assert holds_nothing(outer)
    with pytest.raises(BackwardError):
        outer.backward(y)


class Counting(Layer):
    """y = x; counts its forwards in a buffer."""

    def __init__(self, **options):
        super().__init__(**options)
        self.count = Buffer(numpy.zeros((), dtype="int64"))

    def forward(self, x):
        self.count.value = self.count.value + 1
        return x

    def backward(self, output_grad):
        return output_grad


def test_a_forward_that_fails_leaves_no_memory_and_restores_buffers():
    failing, counting = Failing(), Counting()
    graph = Graph.of(failing(Linear(3, 3)(counting(Input("x")))))
    with pytest.raises(RuntimeError, match="as asked"):
        graph(ONES)
    assert holds_nothing(graph) and counting.count.value == 0
    failing.where = "backward"
    graph(ONES)
    assert counting.count.value == 1


def test_backward_leaves_out_what_nobody_wants():
    before, after, constant, beside = Spy(), Spy(), Spy(), Spy()
    x = Input("x")
    h = after(Linear(3, 3)(before(x))) + beside(x)
    graph = Graph.of(h + constant(layers.Exp()((x[0] - x[0]) * 0.0)))
    y = graph(ONES)
    graph.backward_parameters(y)
    assert (before.backwards, after.backwards, beside.backwards, constant.backwards) == (0, 1, 0, 0)
    graph.backward(graph(ONES))
    assert (before.backwards, after.backwards, beside.backwards, constant.backwards) == (1, 2, 1, 1)
    table = {"c": numpy.ones(3), "k": (constant, "c"), "y": (Add(), ("x", "k"))}
    graph = Graph("x", table, ("y", "k"))
    graph.backward(graph(ONES))
    assert constant.backwards == 1


def test_a_straight_stretch_stops_at_its_first_parameters():
    first, middle, last = Spy(), Spy(), Spy()
    x = Input("x")
    w, v = Linear(3, 3, rng=0), Linear(3, 3, rng=1)
    chain = last(v(middle(w(first(x)))))
    graph = Graph.of(chain + chain, xp=numpy)
    twin = copy.deepcopy(graph)
    graph.backward_parameters(graph(ONES))
    assert (first.backwards, middle.backwards, last.backwards) == (0, 1, 1)
    assert graph.backward(graph(ONES)).shape == (2, 3)
    assert (first.backwards, middle.backwards, last.backwards) == (1, 2, 2)
    twin.backward(twin(ONES))
    for mine, other in zip(graph.parameters().values(), twin.parameters().values(), strict=True):
        assert_allclose(mine.grad, 2 * other.grad, rtol=1e-6)
    first.forwards = 0
    assert_array_equal(graph.predict(ONES), twin.predict(ONES))
    with pytest.raises(ShapeMismatchError) as caught:
        graph.predict(ONES[:, :2])
    assert caught.value.__notes__ == ["in node 'linear' of Graph"]


def test_backward_parameters_gives_what_backward_gives():
    x, y, p = Input("x"), Input("y"), parameter(3)
    a, b = Split(2, -1)(linear(3, 4)(x) * 0.5)
    graph = Graph.of(mtorch.tanh(linear(2, 3)(a - b)) * p + y)
    value = (rng.standard_normal((4, 3)), rng.standard_normal((4, 3)))
    _, _, expected = run(graph, value)
    graph.backward_parameters(cotangent(graph(value)))
    for name, each in graph.parameters().items():
        assert_array_equal(each.grad, expected[name])


def test_values_are_let_go_when_their_last_reader_has_read_them():
    spy = Spy()
    x = Input("x")
    h = x
    for _ in range(5):
        h = spy(h)
    graph = Graph.of(h)
    graph.predict(ONES)
    assert [sum(alive) for alive in spy.alive] == [0, 1, 1, 1, 1]
    spy.results.clear()
    spy.alive.clear()
    graph(ONES)
    assert [sum(alive) for alive in spy.alive] == [0, 1, 1, 1, 1]


def test_predict_uses_eval_mode_keeps_nothing_and_leaves_a_pending_backward():
    x = Input("x")
    graph = Graph.of(layers.Dropout(0.5, rng=0)(linear()(x)) + x)
    y = graph(ONES)
    assert_array_equal(graph.predict(ONES), graph.predict(ONES))
    assert all(each.training for _, each in graph.walk())
    graph.backward(y)
    assert holds_nothing(graph)
    graph.eval()
    assert_array_equal(graph(ONES), graph.predict(ONES))


def test_a_graph_is_a_layer_among_layers():
    x, y = Input("x"), Input("y")
    pair = Graph.of((x * y, mtorch.tanh(linear()(x))))
    net = Sequential(Fork(linear(), Tanh()), pair, layers.Concat(-1), Graph.of(linear(6, 2)(x) * 2.0))
    assert check_gradients(net, (4, 3), "longdouble") < 1e-10
    assert "1.linear.weight" in net.state_dict() and "3.linear.bias" in net.state_dict()
    assert net.to(dtype="float32").predict(ONES).dtype == numpy.float32


def test_neighbours_that_do_not_fit_are_found_through_a_graph():
    x = Input("x")
    with pytest.raises(ShapeMismatchError) as caught:
        Sequential(Linear(3, 4), Graph.of(mtorch.tanh(Linear(5, 2)(x))))
    assert caught.value.__notes__ == ["in node 'linear' of Graph", "in layer 1 of Sequential"]
    with pytest.raises(ShapeMismatchError):
        Sequential(Graph.of(Linear(3, 4)(x)), Linear(5, 2))
    h = Linear(3, 4)(x)
    three = Parameter(numpy.ones(3, "float32"))
    for misfit in (Linear(5, 2)(h * 2.0 + 1.0), h + Linear(3, 5)(x), h * numpy.ones(3), three - h):
        with pytest.raises(ShapeMismatchError):
            Graph.of(misfit)
    for fits in (h + Linear(3, 1)(x), h * numpy.ones((4, 1)), Linear(5, 2)(Linear(3, 1)(x) * numpy.ones(5)), h @ h):
        Graph.of(fits)


def test_copies_do_not_share():
    x = Input("x")
    graph = Graph.of(linear()(x) * parameter(3))
    graph(ONES)
    twin = copy.deepcopy(graph)
    graph.step(0.1)
    twin.backward(ONES)
    assert all(not p.has_grad for p in graph.parameters().values())
    assert all(p.has_grad for p in twin.parameters().values())


def test_an_optimizer_drives_a_graph():
    x = Input("x")
    graph = Graph.of(mtorch.tanh(linear()(x)) @ parameter(3, 2))
    optimizer, loss = mtorch.Adam(graph, lr=0.05), mtorch.MSELoss(graph)
    v, t = rng.standard_normal((8, 3)), rng.uniform(-0.5, 0.5, (8, 2))
    losses = []
    for _ in range(60):
        each = loss(graph(v), t)
        each.backward()
        optimizer.step()
        losses.append(each.value)
    assert losses[-1] < 0.3 * losses[0]


# ---------------------------------------------------------------------- input casting


class Ids(Layer):
    """y_n = table[id_n] * weight_n of a tuple (ids, weight)."""

    def __init__(self, **options):
        super().__init__(**options)
        self.table = Parameter(self.xp.asarray(numpy.arange(12.0).reshape(4, 3), dtype=self.dtype))

    takes = ("ids", "floats")

    def forward(self, x):
        ids, weight = x
        if ids.dtype.kind not in "iu":
            raise TypeError(f"ids, got {ids.dtype}")
        self.remember(ids, weight)
        return self.table.value[ids] * weight

    def backward(self, output_grad):
        ids, weight = self.recall()
        grad = self.xp.zeros_like(self.table.value)
        mtorch.arrays.scatter_add(self.xp, grad, ids, output_grad * weight)
        self.table.accumulate(grad)
        return None, (output_grad * self.table.value[ids]).sum(-1, keepdims=True)


@pytest.mark.parametrize("xp", [numpy, strict])
def test_an_input_is_admitted_as_the_layer_that_computes_with_it_admits_it(xp):
    ids, x = Input("ids"), Input("x")
    looked_up = Ids(xp=xp)((ids[:, 0], x))
    graph = Graph.of(looked_up * 2.0 + Linear(1, 3, xp=xp, rng=0)(x))
    y = graph((numpy.array([[1, 9], [3, 9]]), xp.asarray([[1], [2]])))
    assert y.dtype == numpy.float32 and y.shape == (2, 3)
    dids, dx = graph.backward(xp.ones((2, 3), "float64"))
    assert dids is None and dx.shape == (2, 1) and dx.dtype == numpy.float32
    with pytest.raises(TypeError, match="integer ids, got dtype float"):
        graph((xp.ones((2, 2)), xp.ones((2, 1))))


def test_ids_lengths_and_masks_reach_their_layers_through_a_graph():
    ids, lengths, mask = Input("ids"), Input("lengths"), Input("mask")
    nn = layers.on(numpy, dtype="float64", rng=0)
    h = nn.Embedding(9, 4)(ids[:, :, 0])
    state, y = nn.GRU(4, 4, return_state=True)((None, h, lengths))
    graph = Graph.of((nn.MultiHeadAttention(4, 2)((y, y, y, mask)), state))
    words = numpy.random.default_rng(1).integers(0, 9, (5, 3, 2))
    words[..., 1] = 77  # never read
    value = words, [5, 2, 3], numpy.tri(5, dtype=bool)
    out, last = graph(value)
    assert out.shape == (5, 3, 4) and last.shape == (1, 3, 4) and out.dtype == numpy.float64
    grads = graph.backward((out, last))
    assert grads == (None, None, None)
    assert check_gradients(graph, lambda xp, rng: tuple(map(numpy.asarray, value))) < 1e-7
    with pytest.raises(TypeError, match="integer"):
        graph((words, [5.0, 2.0, 3.0], value[2]))
    with pytest.raises(ValueError, match="lengths"):
        graph((words, [6, 2, 3], value[2]))


def test_a_mask_in_a_graph_keeps_its_kind_and_is_refused_as_the_layer_refuses_it():
    attend, x = layers.MultiHeadAttention(4, 2, rng=0), rng.standard_normal((3, 2, 4))
    graph = Graph(["x", "mask"], {"y": (attend, ("x", "x", "x", "mask"))}, "y")
    for call in (attend, lambda value: graph((x, value[3]))):
        with pytest.raises(TypeError, match="expected a mask of booleans or floats, got dtype int64"):
            call((x, x, x, numpy.ones((3, 3), "int64")))


def test_a_cell_in_a_formula_is_unpacked_and_its_state_goes_on():
    cell, x = layers.LSTMCell(3, 3, dtype="float64", rng=0), Input("x")
    state, outputs = cell.initial_state(4), []
    for t in range(3):
        state, y = cell((state, x[t]))
        outputs.append(y[None])
    unrolled = Graph.of(mtorch.concat(outputs, axis=0))
    v = rng.standard_normal((3, 4, 3))
    assert_allclose(unrolled(v), mtorch.Recurrent(cell)(v))
    assert check_gradients(unrolled, v, "longdouble") < 1e-10


def test_integer_inputs_of_computing_layers_become_floats_and_lists_are_taken():
    x = Input("x")
    graph = Graph.of(layers.Transpose((1, 0))(x) * 2)
    assert graph([[1, 2], [3, 4]]).dtype == numpy.float32
    for wrong in (object(), "text", [[1.0], [2.0, 3.0]], numpy.array([1j])):
        with pytest.raises((TypeError, ValueError)):
            graph(wrong)


def test_parts_of_a_tuple_are_admitted_each_in_its_kind():
    pair = Input("pair")
    graph = Graph.of(Ids()((GetItem(0)(pair), GetItem(-1)(pair))))
    assert graph(([1, 2], [[1], [2]])).shape == (2, 3)
    grads = graph.backward(numpy.ones((2, 3)))
    assert grads[0] is None and grads[1].shape == (2, 1)
    graph = Graph.of(Ids()((GetItem(-1)(pair), GetItem(0)(pair))))
    assert graph(([[1], [2]], [1, 2])).shape == (2, 3)


def test_ids_that_are_a_part_of_a_tuple_are_checked_by_the_call():
    pair = Input("pair")
    graph = Graph.of(layers.Embedding(4, 3, xp=strict)(GetItem(0)(pair)) * GetItem(1)(pair))
    with pytest.raises(ValueError, match=r"expected ids in \[0, 4\), got 4"):
        graph(([1, 4], [[1], [2]]))


def test_constants_among_operands_are_admitted_as_inputs_are():
    x = Input("x")
    beside = mtorch.concat((x, [[1], [2]], numpy.ones((2, 1))), axis=1)
    graph = Graph.of(Ids(dtype="float64")((numpy.array([1, 3]), x)) + beside)
    assert graph(numpy.ones((2, 1))).dtype == numpy.float64
    assert check_gradients(graph, (2, 1)) < 1e-8
    assert list(graph.state_dict()) == ["ids.table"]
    assert_same(host(graph.to(dtype="float32").predict(numpy.ones((2, 1)))), graph.predict(numpy.ones((2, 1))))


def test_constants_given_on_the_host_move_to_the_graphs_array_module():
    x = Input("x")
    graph = Graph.of(mtorch.concat((x, numpy.ones((2, 1))), axis=1) * numpy.ones(2), xp=strict)
    assert_array_equal(graph(strict.zeros((2, 1))).get(), [[0, 1], [0, 1]])


def test_array_module_and_dtype_come_from_the_parameters_or_are_asked_for():
    x = Input("x")
    assert Graph.of(mtorch.exp(x)).dtype == numpy.float32
    assert Graph.of(mtorch.exp(x), dtype="float64").dtype == numpy.float64
    assert Graph.of(mtorch.exp(Tanh(dtype="float64")(x) * 0.5)).dtype == numpy.float64
    assert Graph.of(Tanh(dtype="float64")(mtorch.exp(x * 0.5))).dtype == numpy.float64
    assert Graph.of(x * parameter(3)).dtype == numpy.float64
    assert Graph.of(Tanh()(linear()(x))).dtype == numpy.float64
    graph = Graph.of(mtorch.exp(x * numpy.ones(3)), xp=strict)
    assert type(graph(strict.ones(3))) is strict.ndarray
    with pytest.raises(ValueError, match="one array module and dtype"):
        Graph.of(linear()(x), dtype="float32")
    with pytest.raises(ValueError, match="one array module and dtype"):
        Graph.of(linear()(x), xp=strict)
    with pytest.raises(TypeError, match="lives on mtorch.testing.strict"):
        graph(numpy.ones(3))


def test_a_graph_on_a_strict_array_module_computes_the_same_without_waiting():
    x, y = Input("x"), Input("y")

    def build(xp):
        nn = layers.on(xp, rng=0)
        a, b = mtorch.split(nn.Linear(3, 4)(x), 2, axis=-1)
        return Graph.of(mtorch.softmax(a * b[:, [0, 0]] / 2.0) @ numpy.ones((2, 3)) - y)

    value = rng.standard_normal((4, 3)).astype("float32"), rng.standard_normal(3).astype("float32")
    expected = run(build(numpy), value)
    graph, given = build(strict), tuple(map(strict.asarray, value))
    with strict.count_synchronisations() as places:
        out = graph(given)
        graph.backward(out)
    assert places == []
    got = run(build(strict), given)
    assert_same(got[0], expected[0], 1e-5)
    assert_same(got[1], expected[1], 1e-5)
