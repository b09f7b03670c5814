"""PyTorch: modules, state dicts and optimizers of the one library as those of the other."""
