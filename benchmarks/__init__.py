"""Step times of mtorch beside PyTorch's and beside the same step written by hand in plain NumPy.

`python -m benchmarks` prints the table; `python -m benchmarks --help` lists the options.
"""
