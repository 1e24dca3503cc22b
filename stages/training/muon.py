"""Muon: steps of equal size in all directions of a convolution's kernel.

Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/. `keras.optimizers.Muon` is for 2-D
variables only, and trains the others with Adam.
"""

from typing import Any

from stages.common.quiet_keras import keras

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the polynomial that moves singular values towards 1
BIASES = ("bias", "beta")  # Keras' names of the offsets of layers and of batch normalization
ITERATIONS = 3  # enough for small networks, as in airbench94_muon.py of the same author


def orthogonalize(matrix: Any) -> Any:
    """The matrix (M, N) with its singular values moved close to 1, by Newton-Schulz iterations."""
    rows, columns = matrix.shape
    x = matrix if rows <= columns else keras.ops.transpose(matrix)
    x = x / (keras.ops.norm(x) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        square = x @ keras.ops.transpose(x)
        x = a * x + (b * square + c * square @ square) @ x
    return x if rows <= columns else keras.ops.transpose(x)


class Muon(keras.optimizers.SGD):
    """SGD with Nesterov momentum; the kernels of convolutions (H, W, C, filters) by Muon.

    Their learning rate is `kernel_lr_multiplier` times that of the other variables, their momentum
    `kernel_momentum`; the learning rate of biases is multiplied by `bias_lr_multiplier`. Before
    each step a kernel is scaled to a norm of √filters, so that the size of a step relative to the
    kernel depends on the learning rate alone.
    """

    def __init__(
        self,
        *,
        kernel_lr_multiplier: float,
        kernel_momentum: float,
        bias_lr_multiplier: float,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.kernel_lr_multiplier, self.kernel_momentum = kernel_lr_multiplier, kernel_momentum
        self.bias_lr_multiplier = bias_lr_multiplier

    def build(self, variables: Any) -> None:
        if self.built:
            return
        super().build(variables)
        if not self.momentums:  # SGD without momentum has none
            self.momentums: list[Any] = [
                self.add_variable_from_reference(variable, name="momentum")
                for variable in variables
            ]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        if len(variable.shape) != 4:
            # On TensorFlow, `variable` is not Keras' variable and has another name.
            if self._trainable_variables[index].name in BIASES:
                learning_rate = learning_rate * self.bias_lr_multiplier
            super().update_step(gradient, variable, learning_rate)
            return
        filters = variable.shape[-1]
        velocity = self.momentums[index]
        momentum = self.kernel_momentum * velocity + gradient
        self.assign(velocity, momentum)
        direction = gradient + self.kernel_momentum * momentum
        step = keras.ops.reshape(
            orthogonalize(keras.ops.reshape(direction, (-1, filters))), variable.shape
        )
        kernel = variable * (filters**0.5 / keras.ops.norm(keras.ops.reshape(variable, (-1,))))
        self.assign(variable, kernel - learning_rate * self.kernel_lr_multiplier * step)
