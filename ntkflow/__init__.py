"""How over-parameterized networks learn: kernels, training of many seeds, and theory, in JAX."""
