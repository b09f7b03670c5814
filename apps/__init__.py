"""The two applications. They run from a clone: `python -m apps.mnist`, `python -m apps.rnn_sin_cos`."""
