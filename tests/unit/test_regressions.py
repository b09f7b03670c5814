"""Every bug of the four original libraries is a named test: a table of all of them, and those that stand nowhere else.

M is the original mtorch, P PyDyNet, R Rhitta_GPU, G gradflow. A test of this file has its bare name, another one the
file in front.
"""

import ast
from pathlib import Path

import numpy
import pytest

from mtorch import SGD, Adam, Module, Sequential, layers

TABLE = {
    "M: the input gradient is divided by out_dim": "test_protocol::test_the_input_gradient_is_not_divided_by_out_dim",
    "M: Sequential.backward returns nothing": "test_protocol::test_sequential_backward_returns_the_input_gradient",
    "M: the returned dh0 is dh1": "test_recurrent::test_the_gradient_of_h0_is_that_of_h0_and_not_of_h1",
    "M: the RNN reuses the last step's cache for every step":
        "test_recurrent::test_every_step_goes_back_with_its_own_cache",
    "M: the LSTM uses c for the candidate":
        "test_recurrent::test_the_candidate_of_the_lstm_reads_h_and_its_gates_are_sigmoids",
    "M: the LSTM takes the cache of tanh from the wrong step":
        "test_recurrent::test_each_step_of_the_lstm_goes_back_through_the_tanh_of_its_own_cell_state",
    "M: the LSTM never clears its caches": "test_recurrent::test_caches_and_states_are_not_kept_from_call_to_call",
    "M: the Loss object is shared by all calls": "test_protocol::test_a_new_loss_does_not_overwrite_the_last",
    "M: the derivative of sigmoid is NaN below -710":
        "test_activations::test_regression_m_the_derivative_of_sigmoid_below_minus_710_is_zero",
    "P: col2im assigns where windows overlap": "test_conv::test_overlapping_windows_add_up_in_the_input_gradient",
    "P: the LSTM state is averaged over the batch": "test_recurrent::test_sequences_of_a_batch_do_not_mix",
    "P: the LSTM state is kept between calls": "test_recurrent::test_caches_and_states_are_not_kept_from_call_to_call",
    "P: the bias of a convolution is on the wrong axis": "test_conv::test_the_bias_stands_on_the_channel_axis",
    "P: one dropout mask for the whole batch":
        "test_dropout::test_regression_p_the_mask_is_drawn_for_each_sample_not_for_the_batch",
    "P: BatchNorm without eps": "test_norm::test_regression_p_batch_norm_has_an_eps",
    "P: LayerNorm over the batch axis": "test_norm::test_regression_p_layer_norm_is_over_features_not_over_the_batch",
    "P: fan_in and fan_out of a convolution are swapped":
        "test_initializers::test_regression_p_fan_in_and_fan_out_of_a_convolution_are_not_swapped",
    "P: SGD as it stands moves by 2 lr": "test_sgd_as_it_stands_moves_by_lr_times_the_gradient",
    "P: the schedules Exponential, Step and Cosine are wrong":
        "test_schedules::test_regression_p_exponential_step_and_cosine_are_functions_of_the_step_count",
    "P: attention that mixes no tokens": "test_attention::test_tokens_are_mixed",
    "P: the gradient of x - x is 2": "test_graph::test_x_minus_x_has_gradient_zero",
    "R: one kernel for all input channels": "test_conv::test_every_input_channel_has_a_kernel_of_its_own",
    "R: the embedding is frozen at construction": "test_an_embedding_reads_its_table_at_each_call_and_learns",
    "R: momentum climbs": "test_momentum_goes_down",
    "R: the LSTM's gates go through tanh": "test_recurrent::test_closed_gates_are_zero_and_not_minus_one",
    "R: max-pool points outside windows of negatives":
        "test_conv::test_a_max_pool_gradient_stays_inside_its_window_of_negatives",
    "R: the recursion limit ends sequences of 400 steps": "test_recurrent::test_400_steps_and_more_need_no_recursion",
    "R: the recursion limit ends deep graphs": "test_graph::test_2000_nodes_need_no_recursion",
    "R: Adam without bias correction": "test_the_first_step_of_adam_has_the_length_of_the_rate",
    "G: the backward of matmul is elementwise": "test_operators::test_matmul_backward_is_two_matrix_products",
    "G: no topological order, a + a three times gives 64": "test_graph::test_doubling_three_times_gives_eight",
    "G: the loader shows 16 of 100 samples": "test_data_loader::test_an_epoch_holds_every_sample_once",
    "operators: broadcasting is not undone":
        "test_operators::test_a_gradient_is_summed_over_every_axis_along_which_its_operand_was_stretched",
    "operators: a[i] with repeated indices": "test_operators::test_slice_is_numpys_and_repeated_entries_accumulate",
    "operators: Power at 0": "test_operators::test_whole_powers_have_exact_gradients_at_zero_and_for_negative_bases",
}  # fmt: skip

HERE = Path(__file__)


@pytest.mark.parametrize("bug", TABLE)
def test_every_bug_has_its_test(bug):
    file, name = TABLE[bug].split("::") if "::" in TABLE[bug] else (HERE.stem, TABLE[bug])
    tree = ast.parse((HERE.parent / f"{file}.py").read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{file} has no {name}"


def net():
    module = Module(Sequential(layers.Linear(1, 1, bias=False, dtype="float64")))
    weight = module.parameters()["0.weight"]
    weight.value[...] = 1.0
    return module, weight


def test_sgd_as_it_stands_moves_by_lr_times_the_gradient():
    module, weight = net()
    module(numpy.array([[3.0]]))
    module.backward(numpy.array([[1.0]]))
    SGD(module, 0.1).step()
    assert weight.value.item() == 1 - 0.1 * 3


def test_momentum_goes_down():
    """On w^2 / 2, with v := 0.5 v + w and w := w - 0.1 v, from w = 1."""
    module, weight = net()
    optimizer, seen = SGD(module, 0.1, momentum=0.5), []
    for _ in range(3):
        y = module(numpy.ones((1, 1)))
        module.backward(y)
        optimizer.step()
        seen.append(weight.value.item())
    numpy.testing.assert_allclose(seen, [0.9, 0.9 - 0.1 * (0.5 + 0.9), 0.76 - 0.1 * (0.5 * 1.4 + 0.76)], rtol=1e-14)


@pytest.mark.parametrize("scale", [1e-3, 1.0, -1e3])
def test_the_first_step_of_adam_has_the_length_of_the_rate(scale):
    """Without bias correction it is sqrt(10) times as long, since the averages start from zero."""
    module, weight = net()
    module(numpy.ones((1, 1)))
    module.backward(numpy.array([[scale]]))
    Adam(module, 0.01, eps=0).step()
    numpy.testing.assert_allclose(1 - weight.value.item(), 0.01 * numpy.sign(scale), rtol=1e-12)


def test_an_embedding_reads_its_table_at_each_call_and_learns():
    layer = layers.Embedding(3, 2, dtype="float64", rng=0)
    table = layer.weight.value.copy()
    assert (layer([2, 0]) == table[[2, 0]]).all()
    assert (layer([1]) == table[[1]]).all()
    layer.backward(numpy.ones((1, 2)))
    layer.step(0.5)
    assert (layer([0, 1, 2]) == table - [[0], [0.5], [0]]).all()
