"""The engine for kernels: empirical ones of a finite network, and the limits of infinite width."""

from ntkflow.kernels.arccos import arccos_kernel as arccos_kernel
from ntkflow.kernels.blocks import in_blocks as in_blocks
from ntkflow.kernels.derivative import (
    ntk_derivative as ntk_derivative,
    ntk_time_derivative as ntk_time_derivative,
    third_order_kernel as third_order_kernel,
)
from ntkflow.kernels.dual import dual_activation as dual_activation
from ntkflow.kernels.empirical import (
    empirical_nngp as empirical_nngp,
    empirical_ntk as empirical_ntk,
    ntk_by_group as ntk_by_group,
    ntk_diagonal as ntk_diagonal,
    ntk_product as ntk_product,
)
from ntkflow.kernels.hermite import (
    hermite_coefficients as hermite_coefficients,
    hermite_norm as hermite_norm,
    hermite_tail as hermite_tail,
)
from ntkflow.kernels.infinite import infinite_width as infinite_width
from ntkflow.kernels.matrix_free import (
    Estimate as Estimate,
    Lanczos as Lanczos,
    LanczosExtremes as LanczosExtremes,
    effective_dimension as effective_dimension,
    function_trace as function_trace,
    lanczos as lanczos,
    lanczos_extremes as lanczos_extremes,
    log_determinant as log_determinant,
    spectral_density as spectral_density,
)
from ntkflow.kernels.monte_carlo import (
    MonteCarlo as MonteCarlo,
    monte_carlo_kernel as monte_carlo_kernel,
)
from ntkflow.kernels.operators import (
    KernelOperator as KernelOperator,
    kernel_operator as kernel_operator,
    ntk_operator as ntk_operator,
)
from ntkflow.kernels.recursion import (
    Kernels as Kernels,
    fully_connected as fully_connected,
    fully_connected_relu as fully_connected_relu,
)
from ntkflow.kernels.spectrum import (
    Extremes as Extremes,
    extreme_eigenvalues as extreme_eigenvalues,
    smallest_eigenvalue as smallest_eigenvalue,
)
