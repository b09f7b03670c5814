"""What Clip, Where, Take and PReLU refuse, and their functions on plain data."""

import numpy
import pytest

import mtorch
from mtorch import MSELoss, Sequential, ShapeMismatchError, layers
from mtorch.testing import strict

Q = numpy.arange(12.0, dtype="float32").reshape(4, 3)


def test_functions_compute_plain_data():
    assert mtorch.take(Q, [0, 2, 1, 1]).tolist() == [0, 5, 7, 10]
    assert mtorch.take(Q[:2], [[0, 0], [2, 1]]).tolist() == [[0, 0], [5, 4]]
    assert mtorch.where([True, False, True], [1.0, 2.0, 3.0], -1).tolist() == [1, -1, 3]
    assert mtorch.clip([-2.0, 0.5, 9.0], 0, 1).tolist() == [0, 0.5, 1]
    assert mtorch.clip(Q, max=1).max() == 1 and mtorch.clip(Q, 5).min() == 5
    assert mtorch.sin(0.0) == 0 and mtorch.cos([0.0]).tolist() == [1]
    for y in (mtorch.take(Q, [0, 0, 0, 0]), mtorch.where(Q > 3, Q, 0), mtorch.clip(Q, 0, 1), mtorch.sin(Q)):
        assert y.dtype == numpy.float32


@pytest.mark.parametrize("xp", [numpy, strict])
@pytest.mark.parametrize("ids", [[0, 1, 3, 0], [0, -1, 0, 0], numpy.array([[0], [0], [200], [0]], "uint8")])
def test_take_refuses_an_id_out_of_range(xp, ids):
    with pytest.raises(ValueError, match=r"Take\(\) expected ids in \[0, 3\), got"):
        layers.Take(xp=xp)(xp.asarray(Q), ids)


def test_an_id_out_of_range_on_a_device_is_raised_at_the_next_host_read():
    layer = layers.Take(xp=strict)
    with strict.count_synchronisations() as places:
        y = layer(strict.asarray(Q), strict.asarray(numpy.array([0, 3, 1, 1])))
        loss = MSELoss(layer)(y, strict.zeros(4, "float32"))
    assert places == [] and numpy.isnan(y.get()).tolist() == [False, True, False, False]
    with pytest.raises(ValueError, match=r"Take\(\) expected ids in \[0, 3\)"):
        loss.value  # noqa: B018  it is read
    assert layer(strict.asarray(Q), [0, 0, 0, 0]).get().tolist() == [0, 3, 6, 9]


@pytest.mark.parametrize("ids", [[0.0, 1.0, 0.0, 0.0], Q[:, 0], [True] * 4])
def test_take_refuses_ids_that_are_no_integers(ids):
    with pytest.raises(TypeError, match="Take.*integer ids"):
        layers.Take()(Q, ids)


@pytest.mark.parametrize("x, ids", [(Q, [0, 1]), (Q, 0), (Q, numpy.zeros((4, 2, 1), int)), (1.0, 0), (Q, [[0] * 4])])
def test_take_refuses_ids_that_do_not_name_rows(x, ids):
    with pytest.raises(ShapeMismatchError, match="Take.*expected ids of shape"):
        layers.Take()(x, ids)


@pytest.mark.parametrize("kind, wanted", [(layers.Take, r"\(x, ids\)"), (layers.Where, r"\(condition, a, b\)")])
@pytest.mark.parametrize("x", [Q, (Q,), (Q, None, Q), (None, None), (Q, Q, Q, Q)])
def test_another_number_of_operands_is_refused(kind, wanted, x):
    with pytest.raises(ValueError if isinstance(x, tuple) else ShapeMismatchError, match=wanted):
        kind().forward(x)


def test_where_refuses_floats_as_condition_and_shapes_that_do_not_fit():
    with pytest.raises(TypeError, match=r"Where\(\) expected a condition of booleans or integers, got float32"):
        layers.Where()(Q, Q, Q)
    with pytest.raises(ShapeMismatchError, match=r"Where\(\).*got \(4, 3\), \(2,\) and \(\)"):
        layers.Where()(Q > 1, numpy.zeros(2), 0.0)


def test_clip_refuses_bounds_that_are_none():
    with pytest.raises(ValueError, match="Clip expected a bound"):
        layers.Clip()
    with pytest.raises(TypeError, match="Clip expected a number as min"):
        layers.Clip("0")
    with pytest.raises(ValueError, match="Clip expected a finite max"):
        layers.Clip(max=numpy.nan)
    assert repr(layers.Clip(0, None)) == "Clip(min=0.0, max=None)"


def test_prelu_checks_its_channels_at_construction_of_a_net_and_in_every_call():
    with pytest.raises(ShapeMismatchError, match=r"PReLU\(3\) expected input of shape \(N, 3, ...\), got \(2, 4\)"):
        layers.PReLU(3)(numpy.zeros((2, 4)))
    with pytest.raises(ValueError, match="expected 4 entries on axis 1"):
        Sequential(layers.Conv2d(1, 3, 3), layers.PReLU(4))
    for options in ({"num_parameters": 0}, {"init": numpy.nan}):
        with pytest.raises(ValueError, match="PReLU expected"):
            layers.PReLU(**options)
