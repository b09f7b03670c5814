"""A recurrent net that reads sine and gives cosine: `python -m apps.rnn_sin_cos`."""
