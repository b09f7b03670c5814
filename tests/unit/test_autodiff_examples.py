"""The examples of the originals with automatic differentiation, through Graph; each also names a bug that they had."""

import numpy
from numpy.testing import assert_allclose, assert_array_equal

import mtorch
from mtorch import Graph, Input, Module, Parameter, Sequential, layers


def gradient(formula, *values):
    """d(sum of the formula) / d(values), in float64."""
    inputs = [Input(f"x{i}") for i in range(len(values))]
    graph = Graph.of(formula(*inputs), inputs=tuple(inputs), dtype="float64")
    y = graph(values if len(values) > 1 else values[0])
    return graph.backward(numpy.ones_like(y))


def test_log_x_plus_x():
    """PyDyNet's first example."""
    assert_allclose(gradient(lambda x: mtorch.log(x) + x, [1, 2, 3]), [2, 1.5, 4 / 3], rtol=1e-15)


def test_descent_to_the_minimum_of_a_function():
    """PyDyNet's second: log((x - 7)^2 + 10) from x = 1 with rate 2, 20 steps."""
    x = Input("x")
    graph = Graph.of(mtorch.log((x - 7.0) ** 2 + 10.0), dtype="float64")
    at = numpy.array(1.0)
    for _ in range(20):
        graph(at)
        at = at - 2 * graph.backward(1.0)
    assert abs(at - 6.9966) < 5e-5


def test_the_same_minimum_as_a_parameter_that_steps():
    class Point(Module):
        def __init__(self):
            super().__init__()
            self.x = Parameter(numpy.array(1.0))

        def forward(self, target):
            return mtorch.log((self.x - target) ** 2 + 10.0)

    point = Point()
    for _ in range(20):
        point(7.0)
        point.backward(1.0)
        point.step(2.0)
    assert abs(point.x.value - 6.9966) < 5e-5


def test_x_minus_x_is_flat():
    """PyDyNet gives 2."""
    assert_array_equal(gradient(lambda x: x - x, [1.0, -3.0]), [0, 0])


def test_doubling_three_times_is_eight():
    """gradflow gives 64: it answers a node again for each of its readers."""

    def doubled(a):
        for _ in range(3):
            a = a + a
        return a

    assert gradient(doubled, 5.0) == 8


def test_a_diamond():
    assert_allclose(gradient(lambda x: mtorch.exp(x) * x + x * x, [0.5, -1.0]), [1.5 * numpy.exp(0.5) + 1, -2.0])


def test_a_matrix_product():
    """gradflow's backward multiplies elementwise, which fits square matrices and is wrong."""
    a, b = numpy.array([[1.0, 2.0], [3.0, 4.0]]), numpy.array([[5.0, 6.0], [7.0, 8.0]])
    da, db = gradient(lambda a, b: a @ b, a, b)
    assert_array_equal(da, [[11, 15], [11, 15]])
    assert_array_equal(db, [[4, 4], [6, 6]])


def test_repeated_entries_of_an_index_add_up():
    assert_array_equal(gradient(lambda x: x[[0, 0, 2]] * 3.0, [1.0, 2.0, 3.0]), [6, 0, 3])


def test_powers_at_zero():
    assert_array_equal(gradient(lambda x: x**0 + x**1 + x**2, [0.0, 1.0]), [1, 3])


def test_broadcasting_adds_up_what_was_stretched():
    x, b = numpy.ones((4, 3)), numpy.ones((1, 3))
    dx, db = gradient(lambda x, b: x * b + b, x, b)
    assert_array_equal(dx, numpy.ones((4, 3)))
    assert_array_equal(db, [[8, 8, 8]])


def regression_data():
    """y = w x + noise, as gradflow generates it: 100 points; and the least squares that any fit can reach."""
    rng = numpy.random.default_rng(4)
    x = rng.uniform(-3, 3, (100, 1))
    y = 4.0 * x - 2.0 + rng.normal(0, 1.5, (100, 1))
    columns = numpy.concatenate([x, numpy.ones_like(x)], axis=1)
    _, residual, _, _ = numpy.linalg.lstsq(columns, y, rcond=None)
    return x, y, residual[0] / 2 * (1 - 1e-12)


def half_squares(net, x, y):
    return 0.5 * ((net.predict(x) - y) ** 2).sum()


def test_linear_regression_through_a_graph_reaches_the_least_squares():
    x, y, best = regression_data()
    given, target = Input("x"), Input("y")
    w, b = Parameter(numpy.zeros((1, 1))), Parameter(numpy.zeros(1))
    error = given @ w + b - target
    loss = Graph.of(mtorch.mean(error * error) / 2)
    for _ in range(200):
        loss((x, y))
        loss.backward_parameters(1.0)
        loss.step(0.1)
    assert best <= len(x) * loss.predict((x, y)) <= 1.01 * best


def test_linear_regression_through_a_sequential_reaches_the_least_squares():
    x, y, best = regression_data()
    net = Sequential(layers.Linear(1, 1, dtype="float64"))
    loss_func, optimizer = mtorch.SquareLoss(net.backward_parameters), mtorch.SGD(net, lr=0.1)
    for _ in range(200):
        loss_func(net(x), y).backward()
        optimizer.step()
    assert best <= half_squares(net, x, y) <= 1.01 * best
