"""Trunks that carry the factory call that created them."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec

import flax.linen as nn

from mtljax.models.trunks.base import Stages
from mtljax.utils.spec import Spec

P = ParamSpec("P")


class Trunk(tuple[nn.Module, ...]):
    """Stages of a trunk, as a tuple with a `spec`.

    Attributes:
      spec: Factory call that created the trunk, for the text form in config.json.
    """

    spec: Spec


def with_spec(make: Callable[P, Stages]) -> Callable[P, Trunk]:
    """Decorates a trunk factory so that its trunks carry a `spec`."""
    signature = inspect.signature(make)

    @functools.wraps(make)
    def factory(*args: P.args, **kwargs: P.kwargs) -> Trunk:
        trunk = Trunk(make(*args, **kwargs))
        trunk.spec = Spec(make.__name__, signature.bind(*args, **kwargs).arguments)
        return trunk

    return factory


def preset(
    make: Callable[P, Stages], **defaults: Any
) -> Callable[[Callable[[], None]], Callable[P, Trunk]]:
    """Decorates a declaration to be a trunk factory: `make` with other default arguments.

    The factory has the name and docstring of the declaration and the parameters of `make`.
    """

    def decorate(declaration: Callable[[], None]) -> Callable[P, Trunk]:
        build: Callable[P, Stages] = functools.partial(make, **defaults)
        signature = inspect.signature(build)

        @functools.wraps(declaration)
        def factory(*args: P.args, **kwargs: P.kwargs) -> Stages:
            return build(*args, **kwargs)

        factory.__annotations__ = make.__annotations__
        vars(factory)["__signature__"] = signature
        return with_spec(factory)

    return decorate
