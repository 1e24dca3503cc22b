"""Batch normalization, GELU and Adam as single kernels of TensorFlow, in training.

Keras composes all three of element-wise operations. TensorFlow runs each of these on its own: it
reads all values from memory and writes them back. Frozen batch normalization needs no kernel: it is
part of the convolution before it.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from stages.common.quiet_keras import keras


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization of images with TensorFlow's `FusedBatchNormV3`, as in Keras 2."""

    folded = False  # into the convolution before it, while it is frozen

    def frozen_scale_and_offset(self) -> tuple[Any, Any] | None:
        """What a frozen layer multiplies its inputs by, and adds: two (C,) float32."""
        if self.trainable:
            return None
        scale = keras.ops.rsqrt(self.moving_variance + self.epsilon)
        if self.scale:
            scale *= self.gamma
        offset = -self.moving_mean * scale
        return scale, offset + self.beta if self.center else offset

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if self.folded and not self.trainable:
            return inputs
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


class FoldedConvolution(keras.layers.Conv2D):
    """A convolution, and while `frozen_scale_and_offset` has values, what comes after it.

    Frozen normalization scales and shifts each filter's outputs, as a scaled kernel does.
    """

    frozen_scale_and_offset: Callable[[], tuple[Any, Any] | None]

    def call(self, inputs: Any) -> Any:
        if not (factors := self.frozen_scale_and_offset()):
            return super().call(inputs)
        import tensorflow as tf

        scale, offset = factors
        # `_value`, as `value` would be rounded to bfloat16 once before it is scaled.
        kernel = self.kernel._value * scale
        if self.use_bias:
            offset += self.bias._value * scale
        outputs = self.convolution_op(inputs, tf.cast(kernel, inputs.dtype))
        return tf.nn.bias_add(outputs, tf.cast(offset, inputs.dtype))


def convolution_before(normalization: keras.Layer, outputs: list[Any]) -> keras.Layer | None:
    """The convolution that a layer normalizes, if nothing else, and none of `outputs`, uses it."""
    nodes = normalization._inbound_nodes
    if len(nodes) != 1 or normalization.axis not in (-1, 3):
        return None
    (tensor,) = nodes[0].input_tensors
    layer = tensor._keras_history.operation
    if type(layer) is not keras.layers.Conv2D or layer.data_format != "channels_last":
        return None
    once = len(layer._inbound_nodes) == len(layer._outbound_nodes) == 1
    used = not once or any(tensor is output for output in outputs)
    return None if used or layer.activation is not keras.activations.linear else layer


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
    outputs = [tensor for layer in layers for tensor in getattr(layer, "outputs", ())]
    normalizations, folded, activations = [], {}, []
    for layer in layers:
        if type(layer) is keras.layers.BatchNormalization and not layer.renorm:
            normalizations.append(layer)
            if convolution := convolution_before(layer, outputs):
                folded[layer] = convolution
        elif getattr(layer, "activation", None) is keras.activations.gelu:
            activations.append(layer)
    gelu = fused_gelu() if activations else None
    try:
        for layer in normalizations:
            layer.__class__ = FusedBatchNormalization
        for normalization, convolution in folded.items():
            normalization.folded = True
            convolution.__class__ = FoldedConvolution
            # Not the layer: Keras would track it as a part of the convolution.
            convolution.frozen_scale_and_offset = normalization.frozen_scale_and_offset
        for layer in activations:
            layer.activation = gelu
        yield
    finally:
        for normalization, convolution in folded.items():
            del normalization.folded, convolution.frozen_scale_and_offset
            convolution.__class__ = keras.layers.Conv2D
        for layer in normalizations:
            layer.__class__ = keras.layers.BatchNormalization
        for layer in activations:
            layer.activation = keras.activations.gelu
