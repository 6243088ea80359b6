"""Which form of the same function a layer takes: the one that is fast here, or the standard one."""

import jax

standard_forms = jax.make_user_context(False)
"""Inside `with standard_forms(True):` layers are traced as one operation each, as other programs
know them: convolution, maximum over windows. It is part of what `jax.jit` remembers a trace by."""


def cpu_forms() -> bool:
    """Whether layers should take the forms that are fast on CPUs."""
    return jax.default_backend() == "cpu" and not standard_forms.value
