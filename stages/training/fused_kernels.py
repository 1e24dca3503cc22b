"""Batch normalization, GELU and Adam as single kernels of TensorFlow, in training.

Keras composes all three of element-wise operations. TensorFlow runs each of these on its own: it
reads all values from memory and writes them back.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from stages.common.quiet_keras import keras


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization of images with TensorFlow's `FusedBatchNormV3`, as in Keras 2."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        fusable = len(inputs.shape) == 4 and self.axis in (-1, 3) and mask is None
        if not (training and self.trainable and fusable):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        channels = inputs.shape[-1]
        scale = self.gamma if self.scale else tf.ones(channels)
        offset = self.beta if self.center else tf.zeros(channels)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.convert_to_tensor(scale),
            offset=tf.convert_to_tensor(offset),
            mean=[],
            variance=[],
            epsilon=self.epsilon,
            is_training=True,
        )
        # The kernel returns the unbiased variance; Keras' moving average is of the biased one.
        count = tf.cast(tf.size(inputs) // channels, tf.float32)
        variance *= (count - 1) / count
        for average, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            average.assign(average * self.momentum + value * (1 - self.momentum))
        return outputs


def fused_gelu() -> Callable[[Any], Any]:
    """GELU (N, …) → (N, …) with its derivative, each compiled by XLA to one loop in float32."""
    import tensorflow as tf

    def normal_distribution(x: Any) -> Any:
        return 0.5 * (1 + tf.math.erf(x / math.sqrt(2)))

    @tf.function(jit_compile=True)  # type: ignore[untyped-decorator]
    def value(x: Any) -> Any:
        wide = tf.cast(x, tf.float32)
        return tf.cast(wide * normal_distribution(wide), x.dtype)

    @tf.function(jit_compile=True)  # type: ignore[untyped-decorator]
    def gradient(x: Any, upstream: Any) -> Any:
        wide = tf.cast(x, tf.float32)
        density = tf.exp(-0.5 * wide * wide) / math.sqrt(2 * math.pi)
        slope = normal_distribution(wide) + wide * density
        return tf.cast(slope * tf.cast(upstream, tf.float32), x.dtype)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def gelu(x: Any) -> Any:
        return value(x), lambda upstream: gradient(x, upstream)

    return gelu  # type: ignore[no-any-return]


class FusedAdam(keras.optimizers.Adam):
    """Adam with TensorFlow's `ResourceApplyAdam`, as in Keras 2."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        import tensorflow as tf

        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=self.beta_1**step,
            beta2_power=self.beta_2**step,
            lr=learning_rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


@contextmanager
def fused_layers(model: keras.Model) -> Iterator[None]:
    """Let a model's layers train with these kernels; afterwards it is plain Keras again.

    Swaps the layers' classes in place rather than building a second network that shares variables,
    so that checkpoints and the saved file do not change. Does nothing on other backends than
    TensorFlow.
    """
    layers = model._flatten_layers() if keras.backend.backend() == "tensorflow" else []
    normalizations, activations = [], []
    for layer in layers:
        if type(layer) is keras.layers.BatchNormalization and not layer.renorm:
            normalizations.append(layer)
        elif getattr(layer, "activation", None) is keras.activations.gelu:
            activations.append(layer)
    gelu = fused_gelu() if activations else None
    try:
        for layer in normalizations:
            layer.__class__ = FusedBatchNormalization
        for layer in activations:
            layer.activation = gelu
        yield
    finally:
        for layer in normalizations:
            layer.__class__ = keras.layers.BatchNormalization
        for layer in activations:
            layer.activation = keras.activations.gelu
