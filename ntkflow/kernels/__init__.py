"""The engine for kernels: empirical ones of a finite network, and the limits of infinite width."""

from ntkflow.kernels.empirical import empirical_nngp as empirical_nngp
from ntkflow.kernels.empirical import empirical_ntk as empirical_ntk
from ntkflow.kernels.empirical import ntk_product as ntk_product
from ntkflow.kernels.spectrum import Extremes as Extremes
from ntkflow.kernels.spectrum import extreme_eigenvalues as extreme_eigenvalues
from ntkflow.kernels.spectrum import smallest_eigenvalue as smallest_eigenvalue
