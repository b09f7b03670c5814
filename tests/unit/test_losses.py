"""Losses: values by hand, what they refuse, who owns their arrays, and extremes."""

import math

import numpy
import pytest

import mtorch
from mtorch import (
    BackwardError,
    BCELoss,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    HuberLoss,
    KLDivLoss,
    L1Loss,
    Module,
    MSELoss,
    NLLLoss,
    ShapeMismatchError,
    SquareLoss,
    arrays,
    layers,
)
from mtorch.testing import strict

ELEMENTWISE = [SquareLoss, MSELoss, L1Loss, HuberLoss, BCELoss, BCEWithLogitsLoss, KLDivLoss]
ON_LABELS = [CrossEntropyLoss, NLLLoss]
RNG = numpy.random.default_rng(0)
PREDICTION = RNG.uniform(0.1, 0.9, (4, 3))
TARGET = RNG.uniform(0.1, 0.9, (4, 3))
LABELS = numpy.array([2, 0, 1, 1])


def target_of(cls):
    return LABELS if cls in ON_LABELS else TARGET


def log_softmax(row):
    high = max(row)
    total = math.log(math.fsum(math.exp(x - high) for x in row))
    return [x - high - total for x in row]


every_loss = pytest.mark.parametrize("cls", ELEMENTWISE + ON_LABELS)
label_loss = pytest.mark.parametrize("cls", ON_LABELS)


# ---------------------------------------------------------------------- values by hand


def test_values_by_hand():
    p, t = [[1.0, 2.0], [0.0, -1.0]], [[0.0, 4.0], [0.0, 1.0]]  # differences 1, -2, 0, -2
    assert SquareLoss()(p, t).value == 0.5 * (1 + 4 + 0 + 4) / 2
    assert SquareLoss(reduction="sum")(p, t).value == 4.5
    assert SquareLoss(reduction="none")(p, t).value.tolist() == [2.5, 2.0]
    assert MSELoss()(p, t).value == 9 / 4
    assert L1Loss()(p, t).value == 5 / 4
    assert HuberLoss()(p, t).value == (0.5 + 1.5 + 0 + 1.5) / 4
    assert HuberLoss(delta=2)(p, t).value == (0.5 + 2 + 0 + 2) / 4
    assert L1Loss()(p, t).grad.tolist() == [[0.25, -0.25], [0.0, -0.25]]
    assert HuberLoss(reduction="sum")(p, t).grad.tolist() == [[1.0, -1.0], [0.0, -1.0]]
    assert BCELoss()([0.5, 0.25], [1.0, 0.0]).value == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)
    assert BCEWithLogitsLoss()([0.0], [1.0]).value == pytest.approx(math.log(2))


def test_cross_entropy_of_equal_logits_is_the_logarithm_of_their_number():
    for classes in (2, 10, 100):
        loss = CrossEntropyLoss()(numpy.full((3, classes), 7.0), [0, 1, 1])
        assert loss.value == pytest.approx(math.log(classes), rel=1e-14)
        assert loss.grad[0, 0] == pytest.approx((1 / classes - 1) / 3)


@pytest.mark.parametrize("smoothing", [0, 0.3])
@pytest.mark.parametrize("weight", [None, [0.5, 1.0, 2.0]])
@pytest.mark.parametrize("ignored", [None, 0])
def test_cross_entropy_equals_its_naive_twin(smoothing, weight, ignored):
    w = weight or [1.0] * 3
    total = count = 0.0
    for row, label in zip(PREDICTION.tolist(), LABELS.tolist(), strict=True):
        if label == ignored:
            continue
        logarithms = log_softmax(row)
        q = [(1 - smoothing) * (k == label) + smoothing / 3 for k in range(3)]
        total -= sum(q[k] * w[k] * logarithms[k] for k in range(3))
        count += w[label]
    options = {"label_smoothing": smoothing, "weight": weight, "ignore_index": ignored}
    assert CrossEntropyLoss(**options)(PREDICTION, LABELS).value == pytest.approx(total / count, rel=1e-13)
    assert CrossEntropyLoss(**options, reduction="sum")(PREDICTION, LABELS).value == pytest.approx(total, rel=1e-13)


def test_one_hot_targets_and_labels_are_the_same_cross_entropy():
    one_hot = numpy.eye(3)[LABELS]
    a, b = CrossEntropyLoss()(PREDICTION, LABELS), CrossEntropyLoss()(PREDICTION, one_hot)
    assert a.value == pytest.approx(b.value, rel=1e-14)
    numpy.testing.assert_allclose(a.grad, b.grad, atol=1e-16)


@pytest.mark.parametrize("smoothing", [0, 0.3])
@pytest.mark.parametrize("weight", [None, [0.5, 1.0, 2.0]])
def test_cross_entropy_with_class_probabilities_equals_its_naive_twin(smoothing, weight):
    given = numpy.random.default_rng(3).dirichlet(numpy.ones(3), len(PREDICTION))
    q = ((1 - smoothing) * given + smoothing / 3) * (weight or 1.0)
    losses = [-(q_row * log_softmax(row)).sum() for q_row, row in zip(q, PREDICTION.tolist(), strict=True)]
    options = {"label_smoothing": smoothing, "weight": weight}
    for reduction, expected in (("none", losses), ("sum", sum(losses)), ("mean", sum(losses) / len(losses))):
        loss = CrossEntropyLoss(**options, reduction=reduction)(PREDICTION, given)
        numpy.testing.assert_allclose(loss.value, expected, rtol=1e-13)


def test_negative_log_likelihood_after_log_softmax_is_cross_entropy():
    logarithms = numpy.array([log_softmax(row) for row in PREDICTION.tolist()])
    options = {"weight": [0.5, 1.0, 2.0], "ignore_index": 1}
    expected = CrossEntropyLoss(**options)(PREDICTION, LABELS).value
    assert NLLLoss(**options)(logarithms, LABELS).value == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("classes", [3, 40, 70])
def test_one_hot_by_transform_is_the_one_hot_target(classes):
    p, labels = RNG.standard_normal((5, classes)), RNG.integers(0, classes, 5)
    a, b = SquareLoss()(p, labels, transform=True), SquareLoss()(p, numpy.eye(classes)[labels])
    assert a.value == b.value and (a.grad == b.grad).all()
    c = SquareLoss(transform=True)(p, labels[:, None])
    assert c.value == a.value and (c.grad == a.grad).all()


# ---------------------------------------------------------------------- the Loss object and its arrays


@every_loss
def test_a_loss_of_an_earlier_call_is_not_overwritten_by_the_next(cls):
    """An original kept one Loss object and wrote each call into it."""
    loss_func = cls()
    first = loss_func(PREDICTION, target_of(cls))
    value, grad = first.value, first.grad.copy()
    second = loss_func(PREDICTION[::-1] * 0.5, target_of(cls))
    assert second is not first and second.value != value
    assert first.value == value and (first.grad == grad).all()
    assert not numpy.shares_memory(first.grad, second.grad)


@every_loss
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_the_gradient_belongs_to_the_caller(cls, reduction):
    target, prediction = target_of(cls), PREDICTION.copy()
    before, again = target.copy(), cls(reduction=reduction)(PREDICTION, target)
    loss = cls(reduction=reduction)(prediction, target)
    loss.grad[...] = 7  # before the value was read
    assert (numpy.asarray(loss.value) == numpy.asarray(again.value)).all()
    assert (prediction == PREDICTION).all() and (target == before).all()
    assert not numpy.shares_memory(loss.grad, prediction) and not numpy.shares_memory(loss.grad, target)


@every_loss
@pytest.mark.parametrize("dtype", ["float32", "float64", "longdouble"])
def test_the_value_is_a_float_and_the_gradient_keeps_the_dtype(cls, dtype):
    loss = cls()(PREDICTION.astype(dtype), target_of(cls))
    assert loss.grad.dtype == numpy.dtype(dtype) and loss.grad.shape == PREDICTION.shape
    assert isinstance(loss.value, float) or (dtype == "longdouble" and isinstance(loss.value, numpy.longdouble))


@every_loss
def test_equal_calls_give_equal_bits(cls):
    a, b = (cls()(PREDICTION.astype("float32"), target_of(cls)) for _ in range(2))
    assert a.value == b.value and (a.grad == b.grad).all()


def test_a_module_or_a_function_is_driven():
    module = Module(layers.Linear(3, 3, rng=0))
    for backward_func in (module, module.backward):
        module.zero_grad()
        SquareLoss(backward_func)(module(PREDICTION), TARGET).backward()
        assert module.parameters()["weight"].grad.any()
    assert MSELoss(lambda grad: grad)(PREDICTION, TARGET).backward().shape == (4, 3)


@every_loss
def test_a_loss_without_a_net_refuses_backward_and_says_so(cls):
    with pytest.raises(BackwardError, match=rf"make it as {cls.__name__}\(module\)"):
        cls()(PREDICTION, target_of(cls)).backward()


def test_without_reduction_backward_takes_the_cotangent_of_the_value():
    loss_func = CrossEntropyLoss(lambda grad: grad, reduction="none")
    weights = numpy.array([1.0, 0.0, -2.0, 0.5])
    loss = loss_func(PREDICTION, LABELS)
    assert loss.value.shape == (4,)
    grad = loss.backward(weights)
    one = CrossEntropyLoss(reduction="sum")
    numpy.testing.assert_allclose(grad[2], -2 * one(PREDICTION[2:3], LABELS[2:3]).grad[0], rtol=1e-14)
    numpy.testing.assert_allclose(loss_func(PREDICTION, LABELS).backward(weights.tolist()), grad)
    with pytest.raises(ValueError, match=r"CrossEntropyLoss: backward expected weights of the value's shape \(4,\)"):
        loss_func(PREDICTION, LABELS).backward()
    with pytest.raises(ShapeMismatchError, match=r"expected weights of shape \(4,\), got \(4, 1\)"):
        loss_func(PREDICTION, LABELS).backward(weights[:, None])
    with pytest.raises(ValueError, match="expected no weights"):
        CrossEntropyLoss(lambda grad: grad)(PREDICTION, LABELS).backward(1.0)


def test_the_value_of_an_outcome_is_scaled_and_its_gradient_is_not():
    grad = numpy.full(2, 4.0)
    loss = MSELoss().outcome(numpy, numpy.float64(3), grad, factor=0.5)
    assert loss.value == 1.5 and loss.grad is grad


def test_the_repr_of_losses_names_what_is_set():
    assert repr(SquareLoss(transform=True)) == "SquareLoss(transform=True)"
    assert repr(HuberLoss(delta=2, reduction="sum")) == "HuberLoss(delta=2.0, reduction='sum')"
    options = {"weight": [1, 2], "ignore_index": -100, "label_smoothing": 0.1}
    assert repr(CrossEntropyLoss(**options)) == (
        "CrossEntropyLoss(weight=[1.0, 2.0], ignore_index=-100, label_smoothing=0.1)"
    )
    assert (
        repr(KLDivLoss(log_target=True, reduction="batchmean")) == "KLDivLoss(log_target=True, reduction='batchmean')"
    )
    assert repr(BCEWithLogitsLoss(pos_weight=2)) == "BCEWithLogitsLoss(pos_weight=2.0)"
    assert repr(MSELoss()([1.0], [0.0])) == "Loss(1.0)"


# ---------------------------------------------------------------------- shapes, kinds and layouts


@every_loss
def test_shapes_must_be_equal_and_nothing_broadcasts(cls):
    wrong = [LABELS[:3], LABELS[None], LABELS[:, None, None], numpy.zeros((4, 3), int)] if cls in ON_LABELS else [
        TARGET[:1], TARGET[:, :1], TARGET[0], TARGET.T, TARGET[None], 1.0
    ]  # fmt: skip
    for target in wrong:
        with pytest.raises(ShapeMismatchError, match=rf"^{cls.__name__}\(\) expected .*, got \("):
            cls()(PREDICTION, target)


def test_labels_beyond_64_bits_with_a_sign_are_named_as_they_came():
    labels = numpy.array([0, 2**64 - 100], "uint64")
    for loss in (CrossEntropyLoss(), CrossEntropyLoss(ignore_index=-100)):
        with pytest.raises(ValueError, match=str(2**64 - 100)):
            loss(numpy.zeros((2, 3), "float32"), labels)


@label_loss
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint64", ">i4", ">i8"])
def test_labels_are_integers_of_any_width(cls, dtype):
    expected = cls()(PREDICTION, LABELS)
    for labels in (LABELS.astype(dtype), LABELS.astype(dtype)[:, None]):
        loss = cls()(PREDICTION, labels)
        assert loss.value == expected.value and (loss.grad == expected.grad).all()
    assert cls(ignore_index=-100)(PREDICTION, LABELS.astype(dtype)).value == pytest.approx(expected.value)
    assert SquareLoss()(PREDICTION, LABELS.astype(dtype), transform=True).value > 0


@label_loss
def test_narrow_labels_meet_more_classes_than_they_can_name(cls):
    wide = RNG.standard_normal((4, 300))
    for options in ({}, {"ignore_index": 1}):
        expected = cls(**options)(wide, LABELS).value
        assert cls(**options)(wide, LABELS.astype("uint8")).value == expected
        device = cls(**options)(strict.asarray(wide), strict.asarray(LABELS.astype("uint8")))
        assert device.value == pytest.approx(expected)


@label_loss
def test_predictions_have_any_leading_axes(cls):
    assert cls()(PREDICTION[0], 2).value == pytest.approx(cls()(PREDICTION[:1], [2]).value)
    assert cls()(PREDICTION[0], [2]).grad.shape == (3,)
    deep = PREDICTION.reshape(2, 1, 2, 3)
    loss = cls(reduction="none")(deep, LABELS.reshape(2, 1, 2))
    assert loss.value.shape == (2, 1, 2) and loss.grad.shape == deep.shape
    numpy.testing.assert_allclose(loss.value.ravel(), cls(reduction="none")(PREDICTION, LABELS).value)
    with_one = cls(reduction="none")(deep, LABELS.reshape(2, 1, 2, 1))
    assert with_one.value.shape == (2, 1, 2)


@every_loss
def test_any_memory_layout_gives_the_same_loss(cls):
    expected = cls()(PREDICTION, target_of(cls))
    wide = numpy.zeros((8, 6))
    wide[::2, ::2] = PREDICTION
    for prediction in (numpy.asfortranarray(PREDICTION), wide[::2, ::2], PREDICTION[::-1].copy()[::-1]):
        loss = cls()(prediction, target_of(cls))
        assert loss.value == pytest.approx(expected.value, rel=1e-14)
        numpy.testing.assert_allclose(loss.grad, expected.grad, atol=1e-15)
    flat = numpy.broadcast_to(PREDICTION[:1], PREDICTION.shape)  # read-only, stride 0
    assert cls()(flat, target_of(cls)).value == cls()(flat.copy(), target_of(cls)).value


@pytest.mark.parametrize("cls", [MSELoss, L1Loss, HuberLoss, BCELoss, BCEWithLogitsLoss])
def test_a_single_number_is_a_prediction(cls):
    loss = cls()(numpy.array(0.25), 0.75)
    assert isinstance(loss.value, float) and isinstance(loss.grad, numpy.ndarray) and loss.grad.shape == ()


def test_lists_and_integers_are_predictions():
    assert MSELoss()([[1, 2]], [[1, 0]]).value == 2.0
    assert MSELoss()([[1, 2]], [[1, 0]]).grad.dtype == numpy.float32
    assert MSELoss()(numpy.array([1.0], ">f8"), [0.0]).grad.dtype == numpy.float64


@every_loss
def test_what_is_no_array_of_numbers_is_a_typed_error_that_names_the_loss(cls):
    good = target_of(cls)
    for bad in ("text", object(), (PREDICTION, PREDICTION), PREDICTION * 1j, [[1.0], [1.0, 2.0]]):
        with pytest.raises((TypeError, ValueError), match=cls.__name__):
            cls()(bad, good)
        with pytest.raises((TypeError, ValueError), match=cls.__name__):
            cls()(PREDICTION, bad)


@label_loss
def test_float_labels_are_an_error(cls):
    for labels in (LABELS.astype(float), LABELS[:, None].astype("float32"), [0.0, 1.0, 2.0, 1.0], LABELS > 0):
        with pytest.raises(TypeError, match=rf"{cls.__name__}\(\) expected integer labels, got dtype"):
            cls()(PREDICTION, labels)
    with pytest.raises(TypeError, match="SquareLoss"):
        SquareLoss()(PREDICTION, LABELS.astype(float), transform=True)


# ---------------------------------------------------------------------- labels out of range, ignored and weighted


@pytest.mark.parametrize("wrong", [-1, 3, 100, -(2**40)])
def test_a_label_out_of_range_is_an_error_that_names_the_loss(wrong):
    labels = LABELS.copy()
    labels[2] = wrong
    for cls in ON_LABELS:
        for options in ({}, {"ignore_index": 1}, {"ignore_index": -100}, {"weight": [1, 1, 1]}):
            with pytest.raises(ValueError, match=rf"{cls.__name__}\(.*\) expected labels in \[0, 3\), got {wrong}"):
                cls(**options)(PREDICTION, labels)
    with pytest.raises(ValueError, match=rf"SquareLoss\(.*\) expected labels in \[0, 3\), got {wrong}"):
        SquareLoss(transform=True)(PREDICTION, labels)


@label_loss
@pytest.mark.parametrize("ignored", [-100, 1, 77])
def test_an_ignored_label_counts_for_nothing(cls, ignored):
    labels = LABELS.copy()
    labels[1] = ignored
    keep = labels != ignored
    expected = cls()(PREDICTION[keep], labels[keep])
    loss = cls(ignore_index=ignored)(PREDICTION, labels)
    assert loss.value == pytest.approx(expected.value, rel=1e-14)
    numpy.testing.assert_allclose(loss.grad[keep], expected.grad, atol=1e-16)
    assert not loss.grad[~keep].any()


@label_loss
def test_nothing_to_average_is_an_error_but_a_sum_of_nothing_is_zero(cls):
    ignored = numpy.full(4, -100)
    with pytest.raises(ValueError, match="nothing to average"):
        cls(ignore_index=-100)(PREDICTION, ignored)
    with pytest.raises(ValueError, match="nothing to average"):
        cls(weight=[0, 0, 1])(PREDICTION, [0, 1, 1, 0])
    loss = cls(ignore_index=-100, reduction="sum")(PREDICTION, ignored)
    assert loss.value == 0 and not loss.grad.any()


@every_loss
def test_an_empty_batch_has_no_mean(cls):
    empty, target = PREDICTION[:0], target_of(cls)[:0]
    with pytest.raises(ValueError, match="nothing to average"):
        cls()(empty, target)
    assert cls(reduction="sum")(empty, target).value == 0
    loss = cls(reduction="none")(empty, target)
    assert loss.value.shape[0] == 0 and loss.grad.shape == (0, 3)


def test_soft_targets_with_an_ignored_class_are_refused():
    for label in (0, 1):
        with pytest.raises(ValueError, match="cannot ignore"):
            CrossEntropyLoss(ignore_index=label)(PREDICTION, TARGET)
    assert CrossEntropyLoss(ignore_index=-100)(PREDICTION, TARGET).value > 0


def test_a_weight_of_positives_broadcasts_to_the_prediction_and_never_enlarges_it():
    for weight in ([1, 2], numpy.ones((2, 4, 3)), numpy.ones((3, 1))):
        with pytest.raises(ShapeMismatchError, match=r"expected a pos_weight that broadcasts to \(4, 3\), got"):
            BCEWithLogitsLoss(pos_weight=weight)(PREDICTION, TARGET)


def test_a_divergence_by_hand():
    p, q = [[0.5, 0.5], [1.0, 0.0]], [[0.25, 0.75], [0.5, 0.5]]
    expected = 0.5 * math.log(2) + 0.5 * math.log(2 / 3) + math.log(2)
    logarithms = numpy.log(q)
    assert KLDivLoss(reduction="sum")(logarithms, p).value == pytest.approx(expected)
    assert KLDivLoss(reduction="batchmean")(logarithms, p).value == pytest.approx(expected / 2)
    assert KLDivLoss()(logarithms, p).value == pytest.approx(expected / 4)
    with numpy.errstate(divide="ignore"):
        loss = KLDivLoss(log_target=True, reduction="batchmean")(logarithms, numpy.log(p))
    assert loss.value == pytest.approx(expected / 2)


def test_weights_of_another_number_of_classes_are_refused():
    for cls in ON_LABELS:
        with pytest.raises(ShapeMismatchError, match=r"expected a weight of shape \(3,\), got \(2,\)"):
            cls(weight=[1, 2])(PREDICTION, LABELS)
    with pytest.raises(ShapeMismatchError, match="K >= 1"):
        CrossEntropyLoss()(numpy.zeros((3, 0)), [0, 0, 0])


@pytest.mark.parametrize(
    "make, error, text",
    [
        (lambda: MSELoss(reduction="avg"), ValueError, "MSELoss expected reduction"),
        (lambda: MSELoss(3), TypeError, "MSELoss expected a module or a function"),
        (lambda: HuberLoss(delta=0), ValueError, "HuberLoss expected delta > 0, got 0"),
        (lambda: HuberLoss(delta=math.nan), ValueError, "delta"),
        (lambda: HuberLoss(delta=math.inf), ValueError, "delta"),
        (lambda: HuberLoss(delta="1"), TypeError, "HuberLoss expected a number as delta"),
        (lambda: MSELoss(reduction="batchmean"), ValueError, "MSELoss expected reduction"),
        (lambda: KLDivLoss(reduction="avg"), ValueError, "KLDivLoss expected reduction in .*batchmean"),
        (lambda: KLDivLoss(log_target=1), TypeError, "KLDivLoss expected log_target to be True or False"),
        (lambda: BCEWithLogitsLoss(pos_weight=-1), ValueError, "BCEWithLogitsLoss expected pos_weight to be finite"),
        (lambda: BCEWithLogitsLoss(pos_weight=[math.nan]), ValueError, "BCEWithLogitsLoss expected pos_weight"),
        (lambda: BCEWithLogitsLoss(pos_weight="2"), TypeError, "BCEWithLogitsLoss pos_weight"),
        (lambda: CrossEntropyLoss(label_smoothing=1.1), ValueError, "label_smoothing >= 0 and label_smoothing <= 1"),
        (lambda: CrossEntropyLoss(label_smoothing=-0.1), ValueError, "label_smoothing"),
        (lambda: CrossEntropyLoss(label_smoothing=math.nan), ValueError, "label_smoothing"),
        (lambda: CrossEntropyLoss(ignore_index=1.0), TypeError, "CrossEntropyLoss expected an integer ignore_index"),
        (lambda: NLLLoss(weight=[[1.0]]), ValueError, "NLLLoss expected weight"),
        (lambda: NLLLoss(weight=[1.0, math.nan]), ValueError, "NLLLoss expected weight"),
        (lambda: NLLLoss(weight=[1.0, -1.0]), ValueError, "NLLLoss expected weight"),
        (lambda: NLLLoss(weight="ab"), TypeError, "NLLLoss"),
    ],
)
def test_bad_options_are_refused_at_construction(make, error, text):
    with pytest.raises(error, match=text):
        make()


# ---------------------------------------------------------------------- extremes


def test_what_has_probability_0_adds_nothing_to_a_divergence():
    x = numpy.array([0.0, -numpy.inf, numpy.inf, numpy.nan])
    with numpy.errstate(all="raise"):
        assert KLDivLoss(reduction="none")(x, numpy.zeros(4)).value.tolist() == [0, 0, 0, 0]
        assert KLDivLoss(log_target=True, reduction="none")(x, numpy.full(4, -numpy.inf)).value.tolist() == [0, 0, 0, 0]
        assert numpy.isnan(KLDivLoss(reduction="none")([0.0, 0.0], [numpy.nan, -1.0]).value).all()


def test_a_weighted_logit_may_be_infinite_on_the_side_that_has_no_weight():
    logits, target = numpy.array([1e30, -1e30]), numpy.array([1.0, 0.0])
    beyond = BCEWithLogitsLoss(pos_weight=3.0, reduction="none").terms(numpy, numpy.array([-numpy.inf]), numpy.zeros(1))
    assert not numpy.isnan(beyond[1]).any()
    with numpy.errstate(all="raise", under="ignore"):
        loss = BCEWithLogitsLoss(pos_weight=3.0, reduction="none")
        assert loss(logits, target).value.tolist() == [0, 0]
        assert loss(logits, target[::-1]).value == pytest.approx([1e30, 3e30], rel=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logits_of_any_size_overflow_nothing(dtype):
    big = numpy.array([[1e30, -1e30, 0.0], [-1e30, -1e30, -1e30], [1e30, 1e30, 1e30]], dtype)
    loss = CrossEntropyLoss(reduction="none")(big, [0, 1, 2])
    numpy.testing.assert_allclose(loss.value, [0, math.log(3), math.log(3)], rtol=1e-6)
    numpy.testing.assert_allclose(loss.grad[0], 0)
    numpy.testing.assert_allclose(CrossEntropyLoss(reduction="none")(big, [1, 1, 2]).value[0], 2e30, rtol=1e-6)
    for options in ({"label_smoothing": 0.1}, {"weight": [1, 2, 3]}):
        assert numpy.isfinite(CrossEntropyLoss(**options)(big, [0, 1, 2]).grad).all()
    soft = CrossEntropyLoss()(big, numpy.full((3, 3), 1 / 3))
    assert math.isfinite(soft.value) and numpy.isfinite(soft.grad).all()
    ones = numpy.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    loss = BCEWithLogitsLoss(reduction="none")(big, ones)
    numpy.testing.assert_allclose(loss.value[0], [0, 0, math.log(2)], rtol=1e-6)
    numpy.testing.assert_allclose(loss.value[2], [1e30, 0, 0], rtol=1e-6)
    numpy.testing.assert_allclose(loss.grad, (big > 0) + 0.5 * (big == 0) - ones)
    assert math.isfinite(HuberLoss()(big, numpy.zeros((3, 3))).value)
    assert math.isfinite(L1Loss()(big, numpy.zeros((3, 3))).value)


def test_minus_infinity_is_a_logit_of_an_impossible_class():
    loss = CrossEntropyLoss()([[0.0, -math.inf, 0.0]], [0])
    assert loss.value == pytest.approx(math.log(2)) and loss.grad[0].tolist() == pytest.approx([-0.5, 0, 0.5])


@pytest.mark.parametrize("target", [[0], [[1.0, 0.0, 0.0]]])
def test_minus_infinity_beside_the_target_counts_for_nothing_in_labels_and_probabilities(target):
    loss = CrossEntropyLoss()([[0.0, -math.inf, 0.0]], target)
    assert loss.value == pytest.approx(math.log(2)) and loss.grad[0].tolist() == pytest.approx([-0.5, 0, 0.5])
    certain = CrossEntropyLoss()([[-math.inf, 0.0, 0.0]], target)
    assert certain.value == math.inf and certain.grad[0].tolist() == [-1, 0.5, 0.5]


@pytest.mark.parametrize("row", [[math.inf, 0.0, 1.0], [-math.inf] * 3, [math.inf, -math.inf, 0.0]])
def test_a_row_that_has_no_softmax_gives_nan_in_its_own_row_and_no_warning(row):
    for target in ([0, 1], [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]):
        loss = CrossEntropyLoss()(numpy.array([row, [0.0, 0.0, 0.0]]), target)
        assert math.isnan(loss.value)
        assert numpy.isnan(loss.grad[0]).all() and numpy.isfinite(loss.grad[1]).all()


@pytest.mark.parametrize("xp", [numpy, strict])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_an_infinite_logit_that_agrees_with_its_target_costs_nothing(xp, reduction):
    x, t = [math.inf, -math.inf, math.inf], [1.0, 0.0, 1.0]
    loss = BCEWithLogitsLoss(reduction=reduction)(xp.asarray(x), xp.asarray(t))
    assert numpy.all(loss.value == 0)
    assert arrays.as_numpy(loss.grad).tolist() == [0, 0, 0]


def test_an_infinite_logit_that_disagrees_costs_infinity():
    x, t = numpy.array([math.inf, -math.inf, math.inf, -math.inf, math.nan]), numpy.array([0.0, 1.0, 0.25, 0.25, 0.0])
    loss = BCEWithLogitsLoss(reduction="none")(x, t)
    assert loss.value[:4].tolist() == [math.inf] * 4 and math.isnan(loss.value[4])
    assert loss.grad[:4].tolist() == [1, -1, 0.75, -0.25] and math.isnan(loss.grad[4])
    single = BCEWithLogitsLoss()(numpy.array(math.inf), numpy.array(1.0))
    assert single.value == 0 and single.grad == 0


def test_classes_masked_by_minus_infinity_cost_nothing_where_they_are_not_asked_for():
    """In every loss of logits: such a class has probability 0, so that the others share 1."""
    x, rest = numpy.array([[1.0, -math.inf, 3.0]]), numpy.array([[1.0, 3.0]])
    want = CrossEntropyLoss()(rest, [1])
    log_softmax = layers.LogSoftmax(dtype="float64")
    for loss in (
        CrossEntropyLoss()(x, [2]),
        CrossEntropyLoss(weight=[1.0, 2.0, 1.0])(x, [2]),
        CrossEntropyLoss()(x, numpy.array([[0.0, 0.0, 1.0]])),
    ):
        assert loss.value == pytest.approx(want.value, rel=1e-12)
        assert loss.grad[0, [0, 2]] == pytest.approx(want.grad[0], rel=1e-12) and loss.grad[0, 1] == 0
    loss = NLLLoss()(log_softmax(x), [2])
    assert loss.value == pytest.approx(want.value, rel=1e-12)
    grad = log_softmax.backward(loss.grad)
    assert grad[0, [0, 2]] == pytest.approx(want.grad[0], rel=1e-12) and grad[0, 1] == 0
    assert CrossEntropyLoss()(x, [1]).value == math.inf
    assert NLLLoss()(log_softmax.predict(x), [1]).value == math.inf


def test_logits_whose_difference_overflows_are_a_certain_choice():
    x = numpy.array([[3e38, -3e38, 0.0]], "float32")
    assert CrossEntropyLoss()(x, [0]).value == 0 and CrossEntropyLoss()(x, [1]).value == math.inf


@label_loss
@pytest.mark.parametrize("options", [{}, {"weight": [1.0, 2.0, 0.5]}])
@pytest.mark.parametrize("whatever", [math.nan, math.inf, -math.inf])
def test_an_ignored_row_contributes_nothing_whatever_stands_in_it(cls, options, whatever):
    bad = PREDICTION.copy()
    bad[0] = whatever
    labels = [-1, *LABELS[1:]]
    for reduction in ("mean", "sum", "none"):
        for smoothing in ({}, {"label_smoothing": 0.2}) if cls is CrossEntropyLoss else ({},):
            loss_func = cls(ignore_index=-1, reduction=reduction, **options, **smoothing)
            got, wanted = loss_func(bad, labels), loss_func(PREDICTION, labels)
            assert numpy.array_equal(got.value, wanted.value) and numpy.array_equal(got.grad, wanted.grad)
            assert not got.grad[0].any()
            bad_too = bad.copy()
            bad_too[1] = math.nan  # this row counts
            assert numpy.isnan(loss_func(bad_too, labels).value).any()


def test_an_infinite_logit_is_infinitely_wrong_about_what_is_not_certain():
    x = numpy.array([math.inf, -math.inf, math.inf, -math.inf])
    loss = BCEWithLogitsLoss(reduction="none")(x, [0.0, 1.0, 0.5, 0.5])
    assert loss.value.tolist() == [math.inf] * 4 and loss.grad.tolist() == [1, -1, 0.5, -0.5]


@pytest.mark.parametrize("dtype", ["float32", "float64", "longdouble"])
def test_probabilities_of_zero_and_one_are_finite(dtype):
    p = numpy.array([0.0, 0.0, 1.0, 1.0, 1e-45], dtype)
    loss = BCELoss(reduction="none")(p, [0.0, 1.0, 0.0, 1.0, 1.0])
    numpy.testing.assert_allclose(loss.value[:4].astype(float), [0, 100, 100, 0])
    numpy.testing.assert_allclose(loss.grad[:4].astype(float), [0, -1e12, 1e12, 0], rtol=1e-6)
    assert loss.value[4] <= 100 + 1e-4 and numpy.isfinite(loss.grad).all()


def test_losses_of_float16_neither_overflow_nor_divide_by_zero():
    p = numpy.full((300, 300), 5, "float16")
    for cls in (MSELoss, L1Loss, HuberLoss, SquareLoss):
        assert math.isfinite(cls()(p, p - 4).value) and math.isfinite(cls(reduction="sum")(p, p - 4).value)
    loss = BCELoss(reduction="none")(numpy.array([0.0, 0.0, 1.0, 1.0], "float16"), [0.0, 1.0, 0.0, 1.0])
    assert loss.value.tolist() == [0, 100, 100, 0] and numpy.isfinite(loss.grad).all()
    net = Module(layers.Linear(3, 2, dtype="float16", rng=0))
    labels = numpy.zeros(70_000, int)
    loss = CrossEntropyLoss(net)(net(numpy.zeros((70_000, 3))), labels)
    assert loss.value == pytest.approx(math.log(2), rel=1e-3)
    loss.backward()
    grad = net.parameters()["bias"].grad
    assert grad.dtype == numpy.float16 and grad == pytest.approx(numpy.array([-0.5, 0.5]), rel=0.1)


@pytest.mark.parametrize("wrong", [-0.01, 1.01, math.nan, math.inf])
def test_values_that_are_no_probabilities_are_refused(wrong):
    bad = PREDICTION.copy()
    bad[1, 1] = wrong
    with pytest.raises(ValueError, match=r"BCELoss\(\) expected predictions in \[0, 1\], got"):
        BCELoss()(bad, TARGET)
    with pytest.raises(ValueError, match=r"BCELoss\(\) expected targets in \[0, 1\], got"):
        BCELoss()(PREDICTION, bad)


def test_a_nan_prediction_gives_a_nan_loss():
    bad = PREDICTION.copy()
    bad[0, 0] = math.nan
    for cls in (SquareLoss, MSELoss, L1Loss, HuberLoss, BCEWithLogitsLoss, *ON_LABELS):
        assert math.isnan(cls(reduction="sum")(bad, target_of(cls)).value) or cls is NLLLoss


# ---------------------------------------------------------------------- devices


@label_loss
def test_host_labels_are_checked_and_then_moved_to_the_predictions_device(cls):
    prediction = strict.asarray(PREDICTION)
    for labels in (LABELS, LABELS.tolist(), LABELS.astype("int8")[:, None]):
        with strict.count_synchronisations() as places:
            loss = cls()(prediction, labels)
        assert places == [] and type(loss.grad) is strict.ndarray
        assert type(loss.value) is float and loss.value == pytest.approx(cls()(PREDICTION, LABELS).value)
    with pytest.raises(ValueError, match=rf"{cls.__name__}\(\) expected labels in \[0, 3\), got 3"):
        cls()(prediction, [0, 1, 2, 3])


@pytest.mark.parametrize("options", [{}, {"ignore_index": -100}, {"weight": [1.0, 2.0, 3.0]}])
@label_loss
def test_wrong_labels_on_a_device_are_told_when_the_value_is_read(cls, options):
    prediction = strict.asarray(PREDICTION)
    for wrong in (-1, 3):
        labels = strict.asarray(numpy.array([0, 1, wrong, 2]))
        with strict.count_synchronisations() as places:
            loss = cls(**options)(prediction, labels)
        assert places == []
        with pytest.raises(ValueError, match=rf"{cls.__name__}\(.*\) expected labels in \[0, 3\)"):
            float(loss.value)
    with strict.count_synchronisations() as places:
        assert cls(**options)(prediction, strict.asarray(LABELS)).value > -10
    assert len(places) == 1


def test_other_faults_on_a_device_are_told_when_the_value_is_read():
    prediction, ignored = strict.asarray(PREDICTION), strict.asarray(numpy.full(4, -100))
    with pytest.raises(ValueError, match="nothing to average"):
        float(CrossEntropyLoss(ignore_index=-100)(prediction, ignored).value)
    with pytest.raises(ValueError, match=r"BCELoss\(\) expected predictions in \[0, 1\]"):
        float(BCELoss()(prediction * 2.0, prediction).value)
    with pytest.raises(ValueError, match="SquareLoss.* expected labels"):
        float(SquareLoss()(prediction, strict.asarray(LABELS + 1), transform=True).value)


@every_loss
def test_targets_of_another_array_module_are_refused_with_the_fix(cls):
    target = strict.asarray(target_of(cls))
    with pytest.raises(TypeError, match=rf"{cls.__name__}\(\) lives on numpy, .*x\.get\(\)"):
        cls()(PREDICTION, target)
    if cls not in ON_LABELS:
        with pytest.raises(TypeError, match=rf"{cls.__name__}\(\) lives on .*asarray\(x\)"):
            cls()(strict.asarray(PREDICTION), TARGET)


def test_every_public_loss_is_a_name_of_the_package():
    for name in mtorch.losses.__all__:
        assert getattr(mtorch, name) is getattr(mtorch.losses, name)


@pytest.mark.parametrize("cls", [SquareLoss, MSELoss, L1Loss, HuberLoss])
def test_a_long_sum_of_float32_keeps_its_digits(cls):
    """BLAS adds one after the other, which is off by 4e-5 here."""
    prediction = numpy.full((1000, 1000), 0.1, "float32")
    exact = cls()(prediction.astype("float64"), numpy.zeros((1000, 1000))).value
    assert cls()(prediction, numpy.zeros_like(prediction)).value == pytest.approx(exact, rel=5e-7)


@pytest.mark.parametrize("shape", [(), (1,), (1024,), (3, 1024), (67, 101), (7, 5, 300)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_squares_of_any_number_and_order_of_entries(shape, order):
    rng = numpy.random.default_rng(0)
    p, t = (numpy.asarray(rng.standard_normal(shape), order=order) for _ in range(2))
    for reduction, value, grad in (
        ("mean", ((p - t) ** 2).mean(), 2 * (p - t) / max(p.size, 1)),
        ("sum", ((p - t) ** 2).sum(), 2 * (p - t)),
        ("none", (p - t) ** 2, 2 * (p - t)),
    ):
        loss = MSELoss(reduction=reduction)(p, t)
        numpy.testing.assert_allclose(loss.value, value, rtol=1e-13)
        numpy.testing.assert_allclose(loss.grad, grad, rtol=1e-13)
        assert loss.grad.shape == shape and (reduction != "none" or numpy.shape(loss.value) == shape)
        if shape and reduction != "none":
            assert SquareLoss(reduction="sum")(p, t).value == pytest.approx(0.5 * ((p - t) ** 2).sum(), rel=1e-13)
