"""The engine for kernels: empirical ones of a finite network, and the limits of infinite width."""

from ntkflow.kernels.arccos import arccos_kernel as arccos_kernel
from ntkflow.kernels.dual import dual_activation as dual_activation
from ntkflow.kernels.empirical import empirical_nngp as empirical_nngp
from ntkflow.kernels.empirical import empirical_ntk as empirical_ntk
from ntkflow.kernels.empirical import ntk_product as ntk_product
from ntkflow.kernels.fully_connected import Kernels as Kernels
from ntkflow.kernels.fully_connected import fully_connected as fully_connected
from ntkflow.kernels.fully_connected import fully_connected_relu as fully_connected_relu
from ntkflow.kernels.spectrum import Extremes as Extremes
from ntkflow.kernels.spectrum import extreme_eigenvalues as extreme_eigenvalues
from ntkflow.kernels.spectrum import smallest_eigenvalue as smallest_eigenvalue
