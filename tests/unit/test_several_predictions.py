"""Losses of several predictions: what they drive, what they refuse, and extremes."""

import numpy
import pytest

from mtorch import CosineEmbeddingLoss, Module, ShapeMismatchError, TripletMarginLoss, layers, optim
from mtorch.testing import strict

RNG = numpy.random.default_rng(0)
A, P, N = (RNG.standard_normal((4, 3)) for _ in range(3))
SIGNS = numpy.array([1, -1, -1, 1])


class Twins(Module):
    """One net for both inputs."""

    def __init__(self):
        super().__init__()
        self.net = layers.Linear(3, 2, rng=0, dtype="float64")

    def forward(self, x, y):
        return self.net(x), self.net(y)


class Triplets(Module):
    def __init__(self):
        super().__init__()
        self.net = layers.Linear(3, 2, rng=0, dtype="float64")

    def forward(self, a, p, n):
        return self.net(a), self.net(p), self.net(n)


def test_a_net_of_several_outputs_is_driven():
    """The gradients of the calls of one layer add up: those of the weight by finite differences of the loss."""
    for module, loss_func, inputs, target in (
        (Twins(), CosineEmbeddingLoss, (A, P), (SIGNS,)),
        (Triplets(), TripletMarginLoss, (A, P, N), ()),
    ):
        driven = loss_func(module)
        loss = driven(module(*inputs), *target)
        assert isinstance(loss.grad, tuple) and [g.shape for g in loss.grad] == [(4, 2)] * len(inputs)
        loss.backward()
        weight = module.parameters()["net.weight"]
        got = weight.grad.copy()
        for index in numpy.ndindex(weight.value.shape):
            middle, values = weight.value[index], []
            for h in (1e-5, -1e-5):
                weight.value[index] = middle + h
                values.append(driven(module.predict(*inputs), *target).value)
            weight.value[index] = middle
            assert got[index] == pytest.approx((values[0] - values[1]) / 2e-5, abs=1e-7)


def test_training_brings_together_what_belongs_together():
    module = Triplets()
    loss_func, optimizer = TripletMarginLoss(module, margin=2.0), optim.Adam(module, lr=0.05)
    before = loss_func(module.predict(A, A + 0.1 * P, N)).value
    for _ in range(60):
        loss_func(module(A, A + 0.1 * P, N)).backward()
        optimizer.step()
    assert loss_func(module.predict(A, A + 0.1 * P, N)).value < 0.2 * before


def test_without_reduction_backward_takes_a_weight_for_each_item():
    for loss_func, given in ((TripletMarginLoss, ((A, P, N),)), (CosineEmbeddingLoss, ((A, P), SIGNS))):
        loss = loss_func(lambda grad: grad, reduction="none")(*given)
        assert loss.value.shape == (4,)
        weights = numpy.array([1.0, 0.0, -2.0, 0.5])
        for got, grad in zip(loss.backward(weights), loss.grad, strict=True):
            numpy.testing.assert_array_equal(got, grad * weights[:, None])
        with pytest.raises(ShapeMismatchError, match=r"expected weights of shape \(4,\), got \(4, 1\)"):
            loss.backward(weights[:, None])


def test_predictions_of_other_shapes_and_numbers_are_refused():
    for given in ((A, P), ((A, P),), ((A, P, N), SIGNS), (A, P, N, SIGNS), (A, None, N), (A,)):
        with pytest.raises(TypeError, match=r"TripletMarginLoss\(\) expected 3 arrays, got \d arguments"):
            TripletMarginLoss()(*given)
    for given in ((A, P), ((A, P),), ((A,), SIGNS), ((A, P, N), SIGNS)):
        with pytest.raises(
            TypeError, match=r"CosineEmbeddingLoss\(\) expected 2 arrays and a target, got \d arguments"
        ):
            CosineEmbeddingLoss()(*given)
    with pytest.raises(ShapeMismatchError, match=r"predictions of one shape, got \(4, 3\) and \(3, 3\)"):
        TripletMarginLoss()(A, P, N[:3])
    with pytest.raises(ShapeMismatchError, match=r"K >= 1"):
        TripletMarginLoss()(1.0, 2.0, 3.0)
    with pytest.raises(TypeError, match="convert it"):
        TripletMarginLoss()(A, P, strict.asarray(N))
    with pytest.raises(ValueError, match="nothing to average"):
        TripletMarginLoss()(A[:0], P[:0], N[:0])
    assert TripletMarginLoss(reduction="sum")(A[:0], P[:0], N[:0]).value == 0


def test_a_target_is_1_or_minus_1_for_each_pair():
    for target in ([1, 0, 1, 1], [1.0, -1.0, 0.5, 1.0], numpy.array([1, 255, 1, 1], "uint8"), [1, numpy.nan, 1, 1]):
        with pytest.raises(ValueError, match=r"CosineEmbeddingLoss\(\) expected targets of 1 and -1, got"):
            CosineEmbeddingLoss()(A, P, target)
    for target in (SIGNS[:3], SIGNS[:, None], 1):
        with pytest.raises(ShapeMismatchError, match=r"expected a target of shape \(4,\), got"):
            CosineEmbeddingLoss()(A, P, target)
    x, y = strict.asarray(A), strict.asarray(P)
    assert CosineEmbeddingLoss()(x, y, SIGNS).value == pytest.approx(CosineEmbeddingLoss()(A, P, SIGNS).value)
    with strict.count_synchronisations() as places:
        loss = CosineEmbeddingLoss()(x, y, strict.asarray(SIGNS + 1))
    assert places == []
    with pytest.raises(ValueError, match="expected targets of 1 and -1"):
        loss.value  # noqa: B018  it is read


def test_half_precision_and_mixed_precision_compute_in_the_first_predictions_dtype():
    half = TripletMarginLoss()(*(x.astype("float16") for x in (A, P, N)))
    assert {g.dtype.name for g in half.grad} == {"float32"}
    mixed = TripletMarginLoss()(A.astype("float32"), P, N)
    assert {g.dtype.name for g in mixed.grad} == {"float32"}


@pytest.mark.parametrize("scale", [1e30, 1e-30, 0.0])
def test_predictions_of_any_size_overflow_nothing(scale):
    a, p, n = ((scale * x).astype("float32") for x in (A, P, N))
    with numpy.errstate(all="raise", under="ignore"):
        losses = [CosineEmbeddingLoss()(a, p, SIGNS), TripletMarginLoss(swap=True)(a, p, n)]
        losses += [TripletMarginLoss(p=3.5, eps=0)(a, p, n), TripletMarginLoss(p=1, eps=0)(a, p, n)]
    for loss in losses:
        assert numpy.isfinite(loss.value) and all(numpy.isfinite(g).all() for g in loss.grad)
    if scale == 1e30:
        assert losses[0].value == pytest.approx(CosineEmbeddingLoss()(A, P, SIGNS).value, rel=1e-5)


@pytest.mark.parametrize(
    "make, error, text",
    [
        (lambda: TripletMarginLoss(margin=0), ValueError, "TripletMarginLoss expected margin > 0"),
        (lambda: TripletMarginLoss(p=0.5), ValueError, "TripletMarginLoss expected p >= 1"),
        (lambda: TripletMarginLoss(eps=-1), ValueError, "TripletMarginLoss expected eps >= 0"),
        (lambda: TripletMarginLoss(swap=1), TypeError, "TripletMarginLoss expected swap to be True or False"),
        (lambda: CosineEmbeddingLoss(margin="0"), TypeError, "CosineEmbeddingLoss expected a number as margin"),
        (lambda: CosineEmbeddingLoss(reduction="batchmean"), ValueError, "CosineEmbeddingLoss expected reduction"),
    ],
)
def test_bad_options_are_refused_at_construction(make, error, text):
    with pytest.raises(error, match=text):
        make()


def test_the_repr_names_what_is_set():
    assert repr(TripletMarginLoss()) == "TripletMarginLoss()"
    assert repr(TripletMarginLoss(p=1, swap=True, reduction="sum")) == (
        "TripletMarginLoss(p=1.0, swap=True, reduction='sum')"
    )
    assert repr(CosineEmbeddingLoss(margin=0.5)) == "CosineEmbeddingLoss(margin=0.5)"
