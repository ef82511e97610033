"""Systems of the literature: each with its network, kernels, theorems, and what to observe."""
