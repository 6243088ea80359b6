"""Distillation losses between predicted probabilities, for tasks with logits."""

import jax
import optax
from jaxtyping import Array, Float


def softmax_distance(
    output: Float[Array, "B ... C"], target: Float[Array, "B ... C"], temperature: float
) -> Float[Array, " B"]:
    """T^2 KL(softmax(target / T) || softmax(output / T)), averaged over the positions of an image.

    The factor T^2 compensates the gradient's dependence on T, 1 / T^2.

    References:
      Hinton et al., 2015, arXiv:1503.02531
    """
    log = lambda x: jax.nn.log_softmax(x / temperature, -1)
    divergence = optax.losses.kl_divergence_with_log_targets(log(output), log(target))
    return temperature**2 * _image_mean(divergence)


def sigmoid_distance(
    output: Float[Array, "B ..."], target: Float[Array, "B ..."], temperature: float
) -> Float[Array, " B"]:
    """`softmax_distance` for binary logits, each of which is a separate distribution."""
    output, target = output / temperature, target / temperature
    cross = lambda x: optax.sigmoid_binary_cross_entropy(x, jax.nn.sigmoid(target))
    return temperature**2 * _image_mean(cross(output) - cross(target))


def _image_mean(x: Float[Array, "B ..."]) -> Float[Array, " B"]:
    return x.reshape(x.shape[0], -1).mean(-1)
