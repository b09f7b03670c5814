"""One vector of all parameters, buffers by name, and state dicts that fit in part."""

import numpy
import pytest

from mtorch import Buffer, Module, MSELoss, Sequential, ShapeMismatchError, layers


def net():
    return Module(
        Sequential(
            layers.Linear(3, 4, rng=0, dtype="float64"), layers.Tanh(), layers.Linear(4, 2, rng=1, dtype="float64")
        )
    )


def test_a_vector_holds_the_values_in_the_order_of_the_parameters():
    module = net()
    vector = module.to_vector()
    assert vector.tolist() == [x for p in module.parameters().values() for x in p.value.ravel()]
    vector[:] = 0
    assert module.to_vector().any()  # it is a copy
    module.from_vector(numpy.arange(26))
    assert module.to_vector().tolist() == list(range(26))
    assert module.parameters()["0.bias"].value.tolist() == [12, 13, 14, 15]


def test_the_gradient_vector_lies_as_the_values_do():
    module = net()
    assert module.gradient_vector().tolist() == [0] * 26
    x, t = numpy.random.default_rng(0).standard_normal((2, 5, 3)), numpy.ones((5, 2))
    x = x[0]
    loss = MSELoss(module)(module(x), t)
    loss.backward()
    g, v, eps = module.gradient_vector(), module.to_vector(), 1e-6
    for i in (0, 13, 25):
        found = []
        for sign in (1, -1):
            moved = v.copy()
            moved[i] += sign * eps
            module.from_vector(moved)
            found.append(MSELoss()(module.predict(x), t).value)
        assert g[i] == pytest.approx((found[0] - found[1]) / (2 * eps), rel=1e-6)


def test_frozen_parameters_are_not_in_the_vector():
    module = net()
    module.parameters()["0.weight"].trainable = False
    kept = module.parameters()["0.weight"].value.copy()
    assert module.to_vector().shape == module.gradient_vector().shape == (14,)
    module.from_vector(numpy.zeros(14))
    assert (module.parameters()["0.weight"].value == kept).all()


@pytest.mark.parametrize("wrong", [numpy.zeros(25), numpy.zeros((26, 1)), numpy.zeros(0)])
def test_a_vector_of_another_size_is_refused_and_changes_nothing(wrong):
    module, before = net(), net().to_vector()
    with pytest.raises(ShapeMismatchError, match="expected a vector of 26 entries"):
        module.from_vector(wrong)
    assert (module.to_vector() == before).all()


def test_a_module_without_parameters_has_an_empty_vector():
    module = Module(layers.Tanh())
    assert module.to_vector().shape == module.gradient_vector().shape == (0,)
    module.from_vector([])


def test_buffers_have_dotted_names_and_a_shared_one_appears_once():
    norm = layers.BatchNorm1d(3)
    module = Module(Sequential(layers.Linear(3, 3), norm, norm))
    assert list(module.buffers()) == ["1.running_mean", "1.running_var", "1.num_batches_tracked"]
    assert all(isinstance(buffer, Buffer) for buffer in module.buffers().values())
    assert module.buffers()["1.running_mean"] is norm.running_mean


def test_a_state_dict_that_fits_in_part_is_taken_in_part_and_the_rest_is_told():
    module, other = net(), net()
    state = other.state_dict()
    state["0.weight"] += 1
    state["2.weight"] = numpy.zeros((5, 4))
    del state["2.bias"]
    state["3.weight"] = numpy.zeros(1)
    with pytest.raises(ValueError, match="missing: 2.bias; unexpected: 3.weight; wrong shape: 2.weight"):
        module.load_state_dict(state)
    before = module.state_dict()
    assert module.load_state_dict(state, strict=False) == {
        "missing": ["2.bias"],
        "unexpected": ["3.weight"],
        "wrong shape": ["2.weight has shape (5, 4), expected (2, 4)"],
    }
    after = module.state_dict()
    assert (after["0.weight"] == state["0.weight"]).all()
    assert all((after[name] == before[name]).all() for name in ("0.bias", "2.weight", "2.bias"))
    with pytest.raises(TypeError, match="strict"):
        module.load_state_dict(state, strict="no")


def test_scipy_minimises_a_network():
    optimize = pytest.importorskip("scipy.optimize", reason="SciPy is not installed")
    module = net()
    rng = numpy.random.default_rng(0)
    x = rng.standard_normal((20, 3))
    t = numpy.tanh(x[:, :2] + x[:, 1:])
    loss_func = MSELoss(module)

    def value_and_gradient(vector):
        module.from_vector(vector)
        module.zero_grad()
        loss = loss_func(module(x), t)
        loss.backward()
        return loss.value, module.gradient_vector()

    found = optimize.minimize(value_and_gradient, module.to_vector(), jac=True, method="L-BFGS-B")
    module.from_vector(found.x)
    assert loss_func(module.predict(x), t).value == found.fun < 1e-2
