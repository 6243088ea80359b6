"""What each fusion costs: time of a training step and parameters, relative to `none`.

    python -m benchmarks.fusions [--size 32] [--batch 16] [--repeats 5]

A small cnn (for `task_prompt` a small ViT, compared with `none` on that ViT), three tasks, forward
and backward of the sum of their losses. Prints a table in Markdown.
"""

import argparse
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mtljax.models import FUSIONS, TRUNKS

TASKS = ("segmentation", "depth", "normals")
WIDTHS = {"pad_net": {"width": 64}}


class Probe(nn.Module):
    """A fusion and a linear head per task; gives the sum of the squared outputs."""

    fusion: nn.Module

    @nn.compact
    def __call__(self, image):
        features = self.fusion(image, train=True)
        heads = {task: nn.Dense(4, name=f"task_{task}") for task in features}
        return sum((heads[task](levels[-1]) ** 2).mean() for task, levels in features.items())


def measure(fusion: str, trunk: tuple, image: jax.Array, repeats: int) -> tuple[float, int]:
    """(seconds of the fastest step, number of parameters)."""
    options = WIDTHS.get(fusion, {})
    model = Probe(FUSIONS[fusion](trunk=trunk, tasks=TASKS, taps=1, **options))
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    # Drawn by NumPy: what the numbers are makes no difference here, and nothing is compiled for it.
    draw = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(draw.normal(scale=0.05, size=leaf.shape), leaf.dtype),
        dict(jax.eval_shape(model.init, keys, image)),
    )
    variables.pop("perturbations", None)
    params = variables.pop("params")

    @jax.jit
    def step(params, state):
        def loss(params):
            values = {"params": params, **state}
            rngs = {"dropout": keys["dropout"]}
            return model.apply(values, image, rngs=rngs, mutable=list(state))

        return jax.value_and_grad(loss, has_aux=True)(params)

    jax.block_until_ready(step(params, variables))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(step(params, variables))
        seconds.append(time.perf_counter() - start)
    return min(seconds), sum(leaf.size for leaf in jax.tree.leaves(params))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=32, help="height and width of the images")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5, help="steps, of which the fastest counts")
    args = parser.parse_args()
    image = jax.random.normal(jax.random.key(0), (args.batch, args.size, args.size, 3))
    trunks = {
        "cnn": TRUNKS["cnn"](widths=(16, 32, 64)),
        "vit": TRUNKS["vit_ti"](
            width=64, heads=2, depth=4, patch=args.size // 8, image_size=args.size
        ),
    }
    base = {name: measure("none", trunk, image, args.repeats) for name, trunk in trunks.items()}

    device = jax.devices()[0].device_kind
    print(f"{args.batch} images of {args.size} x {args.size}, 3 tasks, on {device}\n")
    print("| fusion | trunk | ms | time / none | parameters | parameters / none |")
    print("|---|---|---|---|---|---|")
    for fusion in FUSIONS:
        name = "vit" if fusion == "task_prompt" else "cnn"
        seconds, count = measure(fusion, trunks[name], image, args.repeats)
        time_ratio, size_ratio = seconds / base[name][0], count / base[name][1]
        print(
            f"| {fusion} | {name} | {1e3 * seconds:.1f} | {time_ratio:.2f} | {count:,} "
            f"| {size_ratio:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
