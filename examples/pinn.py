"""A net solves u'' = -u with u(0) = 0 and u(pi / 2) = 1, trained by SciPy's L-BFGS. The solution is sin(x).

The second derivative is a difference quotient of the net itself, so that its gradient is one backward over x - h, x and
x + h: with the residual r = (u(x - h) - 2 u(x) + u(x + h)) / h^2 + u(x), dr/du is (1, h^2 - 2, 1) / h^2.

Lagaris, Likas & Fotiadis, "Artificial neural networks for solving ordinary and partial differential equations", 1998.
"""

import sys

import numpy

from mtorch import Module, Sequential, layers

try:
    from scipy.optimize import minimize
except ImportError:
    sys.exit("this example needs SciPy: pip install scipy")

h = 0.02
x = numpy.linspace(0, numpy.pi / 2, 40)[:, None]
points = numpy.concatenate((x - h, x, x + h, [[0.0], [numpy.pi / 2]]))
nn = layers.on(numpy, dtype="float64", rng=0)
module = Module(Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1)))


def error_and_gradient(vector):
    module.from_vector(vector)
    module.zero_grad()
    u = module(points)
    before, here, after = u[:120].reshape(3, 40, 1)
    r = (before - 2 * here + after) / h**2 + here
    ends = u[120:] - [[0.0], [1.0]]
    dr = 2 * r / len(r)
    module.backward(numpy.concatenate((dr / h**2, dr * (1 - 2 / h**2), dr / h**2, 20 * ends)))
    return (r * r).mean() + 10 * (ends * ends).sum(), module.gradient_vector()


found = minimize(error_and_gradient, module.to_vector(), jac=True, method="L-BFGS-B", options={"maxiter": 2000})
module.from_vector(found.x)
error = abs(module.predict(x) - numpy.sin(x)).max()
print(f"{found.nit} iterations, {found.nfev} gradients, largest difference to sin(x): {error:.1e}")
assert error < 1e-3
