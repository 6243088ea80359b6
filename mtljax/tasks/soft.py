"""How far predicted probabilities are from a teacher's: what tasks with logits distil by."""

import jax
import optax
from jaxtyping import Array, Float


def softmax_distance(
    output: Float[Array, "B ... C"], target: Float[Array, "B ... C"], temperature: float
) -> Float[Array, " B"]:
    """T^2 KL(softmax(target / T) || softmax(output / T)), its mean over all places of an image.

    The factor T^2 keeps the gradient's size, which falls with 1 / T^2.

    References:
      Hinton et al., 2015, arXiv:1503.02531
    """
    log = lambda x: jax.nn.log_softmax(x / temperature, -1)
    divergence = optax.losses.kl_divergence_with_log_targets(log(output), log(target))
    return temperature**2 * _over_image(divergence)


def sigmoid_distance(
    output: Float[Array, "B ..."], target: Float[Array, "B ..."], temperature: float
) -> Float[Array, " B"]:
    """The same for questions of yes or no, each a distribution of its own."""
    output, target = output / temperature, target / temperature
    cross = lambda x: optax.sigmoid_binary_cross_entropy(x, jax.nn.sigmoid(target))
    return temperature**2 * _over_image(cross(output) - cross(target))


def _over_image(x: Float[Array, "B ..."]) -> Float[Array, " B"]:
    return x.reshape(x.shape[0], -1).mean(-1)
