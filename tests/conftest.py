"""Eight virtual CPU devices for every test, and no compile cache of the user's."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["MTLJAX_CACHE"] = "off"

import jax

jax.config.update("jax_num_cpu_devices", 8)
