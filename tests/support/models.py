"""Small trunks and fusions, and one compiled look at a whole model."""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mtljax.models import FUSIONS, TRUNKS, partition
from mtljax.models.partition import PERTURBATIONS, TASK_PREFIX, join

SMALL_TRUNKS = {
    "mlp": {"widths": (16, 8, 8)},
    "cnn": {"widths": (4, 8, 8), "blocks": 1},
    "rnn": {"width": 4},
    "resnet18": {"depths": (1, 1), "width": 4},
    "resnet34": {"depths": (1, 2), "width": 4, "output_stride": 8, "norm": "group"},
    "resnet50": {"depths": (1, 1), "width": 4, "stem": "small"},
    "resnet101": {"depths": (1, 1), "width": 4, "stem": "small", "norm": "none"},
    "segnet": {"widths": (4, 8), "depths": (1, 1)},
    "efficientnet_lite0": {"plan": (((1, 3, 1, 1, 8),), ((1, 3, 2, 2, 8),)), "head_width": 16},
    "vit_ti": {"width": 8, "heads": 2, "depth": 2, "stages": 2, "patch": 4, "image_size": 16},
    "vit_s": {"width": 8, "heads": 2, "depth": 1, "stages": 1, "patch": 8, "image_size": 32},
    "vit_b": {"width": 8, "heads": 1, "depth": 1, "stages": 1, "patch": 4, "image_size": 16},
    "convnext_t": {"widths": (8, 8), "depths": (1, 0), "patch": 2},
}
"""Arguments that make each trunk fit for 16 x 16 images and quick to compile."""

SMALL_FUSIONS = {
    "attention": {"heads": 2, "tokens": 4},
    "pad_net": {"width": 8},
    "mti_net": {"width": 16, "scales": 2},
    "invpt": {"width": 8, "scales": 2},
}
FITTING_TRUNK = {
    "mtan": "strided",
    "pad_net": "strided",
    "mti_net": "strided",
    "invpt": "strided",
    "task_prompt": "vit_ti",
}
"""What a fusion is tried on; one that is not named takes any features, and gets the mlp."""

IMAGE = (2, 16, 16, 3)
NAMES = ("depth", "edge", "class")

# Tests run each program once: the compiler's effort would cost more than it saves.
quick_jit = functools.partial(
    jax.jit,
    compiler_options={
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
    },
)


class StridedStage(nn.Module):
    """The quickest of all stages that give maps."""

    width: int

    @nn.compact
    def __call__(self, x, train):
        del train
        return nn.tanh(nn.Conv(self.width, (2, 2), strides=2)(x))


def small_trunk(name):
    if name == "strided":
        return tuple(StridedStage(width) for width in (4, 8))
    return TRUNKS[name](**SMALL_TRUNKS[name])


def small_fusion(name, trunk=None, tasks=NAMES, taps=2, **options):
    options = {**SMALL_FUSIONS.get(name, {}), **options}
    trunk = trunk or FITTING_TRUNK.get(name, "mlp")
    return FUSIONS[name](trunk=small_trunk(trunk), tasks=tasks, taps=taps, **options)


def small_image(key=0):
    return jax.random.normal(jax.random.key(key), IMAGE)


def shapes(module, *args, **options):
    """(outputs, variables) as shapes: nothing is computed."""
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    return jax.eval_shape(lambda *a: module.init_with_output(keys, *a, **options), *args)


def init(module, *args, **options):
    """Variables drawn by NumPy: the modules' own initialisers would each have to be compiled."""
    variables = dict(shapes(module, *args, **options)[1])
    variables.pop(PERTURBATIONS, None)
    draw = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.3 * draw.normal(size=leaf.shape), leaf.dtype), variables
    )


def init_for_real(module, *args, **options):
    """Variables as the modules start them."""
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = dict(quick_jit(lambda *a: module.init(keys, *a, **options))(*args))
    variables.pop(PERTURBATIONS, None)
    return variables


class ProbeHead(nn.Module):
    """A number per image from every stage that is handed over."""

    @nn.compact
    def __call__(self, features):
        parts = [nn.Dense(4)(x.mean(tuple(range(1, x.ndim - 1)))) for x in features]
        return jnp.tanh(jnp.concatenate(parts, -1)).sum(-1)


class ProbeNet(nn.Module):
    """A fusion with a small head per task; gives the tasks' losses [T]."""

    fusion: nn.Module

    @nn.compact
    def __call__(self, image):
        features = self.fusion(image, train=True)
        outputs = [ProbeHead(name=TASK_PREFIX + task)(x) for task, x in features.items()]
        return jnp.stack([(output - 3.0) ** 2 for output in outputs]).sum(1)


class ProbePoint(NamedTuple):
    """What one compiled pass says about a model of several tasks."""

    tasks: tuple[str, ...]
    shared: dict
    """Path -> the gradient of each task's loss, [T, ...]."""
    specific: dict


@functools.cache
def look(fusion: str) -> ProbePoint:
    """Gradients of the tasks' losses in training mode."""
    tasks = NAMES[:2]
    model = ProbeNet(small_fusion(fusion, tasks=tasks))
    variables = init(model, small_image())
    losses = losses_of(model, variables)

    def gradients(shared, specific):
        values, pull = jax.vjp(losses, shared, specific)
        return jax.vmap(pull)(jnp.eye(len(values)))

    return ProbePoint(tasks, *quick_jit(gradients)(*partition(variables["params"])))


def losses_of(model: nn.Module, variables: dict):
    """(shared, specific) -> losses [T] of one image batch, in training mode."""
    state = {name: value for name, value in variables.items() if name != "params"}

    def losses(shared, specific):
        values = {"params": join(shared, specific), **state}
        key = {"dropout": jax.random.key(2)}
        return model.apply(values, small_image(), rngs=key, mutable=list(state))[0]

    return losses
