"""Function space: what a kernel predicts of training, in closed form or by iteration."""

from ntkflow.prediction.conjugate_gradients import (
    Regression as Regression,
    kernel_regression as kernel_regression,
)
from ntkflow.prediction.gaussian_process import Posterior as Posterior, gp_posterior as gp_posterior
from ntkflow.prediction.mse import (
    Prediction as Prediction,
    gradient_descent_mse as gradient_descent_mse,
    gradient_flow_mse as gradient_flow_mse,
)
