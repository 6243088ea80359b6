"""Fisher merging, RegMean and AdaMerging on small networks, against NumPy in float64."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from mtljax.merging import MERGES, Network, Problem
from mtljax.merging.adamerging import mean_entropy
from mtljax.merging.fisher import fisher_average, fisher_diagonal
from mtljax.merging.regmean import layer_inputs, read_grams, regression_mean
from mtljax.models.layers import conv
from mtljax.tasks import Classification, Edges, MultiLabel, Regression, Segmentation

KIND = Classification(name="kind", num_classes=3)


class Linear(nn.Module):
    """One shared linear layer whose outputs are those of all tasks."""

    tasks: tuple
    outputs: int

    @nn.compact
    def __call__(self, image, *, train):
        x = nn.Dense(self.outputs, name="shared", use_bias=False)(image)
        return {task.name: x for task in self.tasks}


def network(task, outputs, inputs=4, seed=0):
    kernel = np.random.default_rng(seed).standard_normal((inputs, outputs)).astype(np.float32)
    return Network(task, Linear((task,), outputs), {"params": {"shared": {"kernel": kernel}}})


def batches_of(images, labels, present=None):
    """Batches in the order of the examples, again and again."""
    present = np.ones(len(images), bool) if present is None else present

    def read(split, size, count):
        rows = itertools.cycle(range(len(images)))
        for _ in range(count):
            at = [next(rows) for _ in range(size)]
            yield {
                "image": images[at],
                "labels": {name: x[at] for name, x in labels.items()},
                "present": dict.fromkeys(labels, present[at]),
            }

    return read


def images_of(count, inputs=4, seed=1):
    return np.random.default_rng(seed).standard_normal((count, inputs)).astype(np.float32)


def test_fisher_information_of_a_softmax_layer_is_that_of_its_sampled_labels():
    net, images = network(KIND, 3), images_of(12)
    present = np.arange(12) % 3 != 0
    batches = batches_of(images, {"kind": np.zeros(12, np.int32)}, present)
    (diagonal,) = fisher_diagonal(net, batches, 12, seed=5).values()
    kernel, expected = net.variables["params"]["shared"]["kernel"].astype(np.float64), 0.0
    for i in np.flatnonzero(present):
        x = images[i].astype(np.float64)
        p = scipy.special.softmax(x @ kernel)
        key = jax.random.fold_in(jax.random.key(5), i)
        y = int(jax.random.categorical(key, jnp.asarray(images[i : i + 1] @ kernel))[0])
        expected = expected + np.outer(x, np.eye(3)[y] - p) ** 2
    np.testing.assert_allclose(diagonal, expected / present.sum(), rtol=1e-4)


def test_fisher_information_of_a_regression_is_that_of_its_labels():
    task = Regression(name="size", size=2, center=0.0, scale=1.0, kind="l2")
    net, images = network(task, 2), images_of(9)
    labels = np.random.default_rng(2).standard_normal((9, 2)).astype(np.float32)
    (diagonal,) = fisher_diagonal(net, batches_of(images, {"size": labels}), 9, 0).values()
    kernel = net.variables["params"]["shared"]["kernel"].astype(np.float64)
    gradients = [np.outer(x, x @ kernel - y) for x, y in zip(images, labels, strict=True)]
    np.testing.assert_allclose(diagonal, np.mean(np.square(gradients), axis=0), rtol=1e-4)


@pytest.mark.parametrize("normalize", [True, False])
def test_fisher_merging_is_the_weighted_average_of_the_paper(normalize):
    rng = np.random.default_rng(0)
    draw = lambda: {"a": rng.standard_normal((3, 4)), "b": rng.standard_normal(5)}
    tuned = [draw() for _ in range(3)]
    scales = (1.0, 1e-3, 1e3)
    diagonals = [{k: s * x**2 for k, x in draw().items()} for s in scales]
    merged = fisher_average(tuned, diagonals, normalize, 1e-6)
    weights = []
    for diagonal in diagonals:
        norm = np.linalg.norm(np.concatenate([x.ravel() for x in diagonal.values()]))
        weights.append(1 / (norm + 1e-6) if normalize else 1.0)
    for path in ("a", "b"):
        top = sum(
            w * (d[path] + 1e-6) * t[path]
            for w, d, t in zip(weights, diagonals, tuned, strict=True)
        )
        bottom = sum(w * (d[path] + 1e-6) for w, d in zip(weights, diagonals, strict=True))
        np.testing.assert_allclose(merged[path], top / bottom, rtol=1e-10)


def test_fisher_information_of_zero_gives_the_average():
    tuned = [{"w": np.full(3, value)} for value in (1.0, 2.0)]
    merged = fisher_average(tuned, [{"w": np.zeros(3)}] * 2, True, 1e-6)
    np.testing.assert_allclose(merged["w"], 1.5)


def test_regmean_minimizes_the_squared_distance_to_the_outputs_of_the_runs():
    inputs = [images_of(40, 5, seed) for seed in (1, 2, 3)]
    kernels = [
        network(KIND, 3, 5, seed).variables["params"]["shared"]["kernel"] for seed in (4, 5, 6)
    ]
    grams = [{"w/kernel": x.T.astype(np.float64) @ x / len(x)} for x in inputs]
    merged = regression_mean([{"w/kernel": k} for k in kernels], grams, alpha=1.0)
    outputs = [x @ k for x, k in zip(inputs, kernels, strict=True)]
    expected, *_ = np.linalg.lstsq(np.vstack(inputs), np.vstack(outputs), rcond=None)
    np.testing.assert_allclose(merged["w/kernel"], expected, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 0.9])
def test_regmean_scales_the_off_diagonal_entries(alpha):
    rng = np.random.default_rng(0)
    kernels = rng.standard_normal((2, 4, 3))
    grams = [x.T @ x for x in rng.standard_normal((2, 30, 4))]
    reduced = [alpha * g + (1 - alpha) * np.diag(np.diag(g)) for g in grams]
    total = sum(g @ k for g, k in zip(reduced, kernels, strict=True))
    runs = [{"w/kernel": k, "w/bias": np.full(3, float(i))} for i, k in enumerate(kernels)]
    merged = regression_mean(runs, [{"w/kernel": g} for g in grams], alpha)
    np.testing.assert_allclose(merged["w/kernel"], np.linalg.inv(sum(reduced)) @ total, rtol=1e-6)
    np.testing.assert_allclose(merged["w/bias"], 0.5)


def test_regmean_averages_the_weights_of_inputs_that_are_always_zero():
    gram = np.diag([2.0, 0.0])
    runs = [{"w/kernel": np.array([[1.0], [1.0]])}, {"w/kernel": np.array([[3.0], [5.0]])}]
    merged = regression_mean(runs, [{"w/kernel": gram}, {"w/kernel": 3 * gram}], 1.0)
    np.testing.assert_allclose(merged["w/kernel"], [[2.5], [3.0]], rtol=1e-6)


def test_gram_matrices_are_means_over_the_examples_with_a_label():
    net, images = network(KIND, 3), images_of(10)
    present = np.arange(10) % 2 == 0
    batches = batches_of(images, {"kind": np.zeros(10, np.int32)}, present)
    grams = read_grams(net, batches, examples=10, size=5)
    x = images[present].astype(np.float64)
    np.testing.assert_allclose(grams["shared/kernel"], x.T @ x / len(x), rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strides": 2},
        {"padding": "VALID", "strides": (2, 1)},
        {"kernel_dilation": 2},
        {"padding": 1},
        {"padding": ((1, 0), (2, 1))},
    ],
)
def test_a_convolution_is_the_product_of_its_patches_and_its_kernel(options):
    layer = conv(5, 3, use_bias=False, **options)
    image = np.random.default_rng(0).standard_normal((2, 9, 8, 4)).astype(np.float32)
    output, variables = layer.init_with_output(jax.random.key(0), image)
    kernel = variables["params"]["kernel"]
    product = layer_inputs(layer, image) @ kernel.reshape(-1, 5)
    np.testing.assert_allclose(product, output, atol=1e-5)


def test_layers_with_groups_have_no_gram_matrix():
    assert layer_inputs(conv(4, 3, feature_group_count=2), np.ones((1, 5, 5, 4))) is None
    assert layer_inputs(nn.LayerNorm(), np.ones((1, 5))) is None


@pytest.mark.parametrize("axis", [-1, (-2, -1)])
def test_a_general_linear_layer_is_the_product_of_its_inputs_and_its_kernel(axis):
    layer = nn.DenseGeneral((2, 3), axis=axis, use_bias=False)
    x = np.random.default_rng(0).standard_normal((2, 5, 4)).astype(np.float32)
    output, variables = layer.init_with_output(jax.random.key(0), x)
    kernel = variables["params"]["kernel"].reshape(-1, 6)
    product = (layer_inputs(layer, x) @ kernel).reshape(output.shape)
    np.testing.assert_allclose(product, output, atol=1e-5)


def entropies(p):
    return scipy.special.entr(p)


@pytest.mark.parametrize("present", [[True, True], [True, False], [False, False]])
def test_entropy_is_the_mean_over_the_examples_of_a_task(present):
    rng = np.random.default_rng(0)
    keep = np.flatnonzero(present)
    mean = lambda of_image: of_image[keep].mean() if len(keep) else 0.0
    logits = rng.standard_normal((2, 5)).astype(np.float32)
    maps = rng.standard_normal((2, 3, 4, 5)).astype(np.float32)
    softmax = lambda x: entropies(scipy.special.softmax(x.astype(np.float64), -1)).sum(-1)
    binary = lambda x: sum(
        entropies(scipy.special.expit(s * x.astype(np.float64))) for s in (1, -1)
    )
    cases = [
        (Classification(name="a", num_classes=5), logits, softmax(logits)),
        (Segmentation(name="a", num_classes=5), maps, softmax(maps).mean((1, 2))),
        (MultiLabel(name="a", num_classes=5), logits, binary(logits).sum(-1)),
        (Edges(name="a"), maps[..., 0], binary(maps[..., 0]).mean((1, 2))),
    ]
    for task, output, expected in cases:
        value = mean_entropy(task, jnp.asarray(output), jnp.asarray(present))
        np.testing.assert_allclose(value, mean(expected), rtol=1e-5, atol=1e-7)


def adaptive_problem(tasks=(KIND, Classification(name="other", num_classes=3))):
    """Two runs of a linear layer whose outputs all tasks read."""
    nets = [network(task, 3, seed=seed) for seed, task in enumerate(tasks, 1)]
    kernel = lambda net: {"shared/kernel": net.variables["params"]["shared"]["kernel"]}
    start = {"shared/kernel": np.zeros((4, 3), np.float32)}
    model, images = Linear(tasks, 3), images_of(16)
    forward = lambda shared, image: model.apply(
        {"params": {"shared": {"kernel": shared["shared/kernel"]}}}, image, train=False
    )
    labels = {task.name: np.zeros(16, np.int32) for task in tasks}
    return Problem(
        start=start,
        tuned=[kernel(net) for net in nets],
        networks=nets,
        batches=batches_of(images, labels),
        forward=forward,
    ), images


def total_entropy(problem, images, coefficients):
    """Sum over the two tasks, whose outputs are equal."""
    kernel = sum(
        c * run["shared/kernel"].astype(np.float64)
        for c, run in zip(coefficients, problem.tuned, strict=True)
    )
    return 2 * entropies(scipy.special.softmax(images @ kernel, -1)).sum(-1).mean()


@pytest.mark.parametrize("level", ["task", "layer"])
def test_adamerging_starts_with_adams_step_down_the_entropy(level):
    problem, images = adaptive_problem()
    (candidate,) = MERGES["adamerging"](
        level=level, steps=1, learning_rate=0.05, batch_size=16
    ).candidates(problem)
    found = candidate.settings["coefficients"]
    found = np.array(found if level == "task" else found["shared/kernel"])
    step = 1e-5 * np.eye(2)
    rise = [
        total_entropy(problem, images, 0.3 + h) - total_entropy(problem, images, 0.3 - h)
        for h in step
    ]
    np.testing.assert_allclose(found, 0.3 - 0.05 * np.sign(rise), atol=1e-3)
    expected = sum(c * run["shared/kernel"] for c, run in zip(found, problem.tuned, strict=True))
    np.testing.assert_allclose(candidate.shared["shared/kernel"], expected, atol=1e-3)


def test_adamerging_lowers_the_entropy_with_coefficients_between_0_and_1():
    problem, images = adaptive_problem()
    (candidate,) = MERGES["adamerging"](
        level="task", steps=60, learning_rate=0.05, batch_size=16
    ).candidates(problem)
    found = np.array(candidate.settings["coefficients"])
    assert ((found >= 0) & (found <= 1)).all()
    before = total_entropy(problem, images, [0.3, 0.3])
    assert total_entropy(problem, images, found) < 0.8 * before


def test_adamerging_refuses_tasks_without_probabilities_unless_they_imitate():
    size = Regression(name="size", size=3, center=0.0, scale=1.0)
    problem, _ = adaptive_problem((KIND, size))
    with pytest.raises(ValueError, match="which size does not predict.*others=imitate"):
        MERGES["adamerging"]().check((KIND, size))
    (candidate,) = MERGES["adamerging"](
        others="imitate", level="task", steps=40, learning_rate=0.05
    ).candidates(problem)
    # The outputs of both runs are the same layer's, so that imitation prefers the second run.
    first, second = candidate.settings["coefficients"]
    assert second > 0.3 > first
