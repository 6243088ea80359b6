"""Balancers as text: one expression of methods, `+` and `@`.

expression:  term + term + ...          `uw+cagrad:c=0.4`, see `chain`
term:        method @ combinator @ ...  `upgrad@preferred:2,1,1`; several from left to right
method:      `name:argument=value,...` or an expression in parentheses
"""

from collections.abc import Sequence

from mtljax.balancing import BALANCERS, COMBINATORS, Balancer, chain, preferred
from mtljax.utils.registry import choose, split_outside
from mtljax.utils.spec import to_text
from mtljax.utils.text import quoted

WRAPPERS = {name: make for name, make in COMBINATORS.items() if make is not chain}
"""Combinators of one balancer, which follow `@`."""


def balancer_from_text(text: str) -> Balancer:
    """Creates the balancer of an expression.

    Raises:
      ValueError: A name or argument is unknown or invalid, or a combinator refuses its balancer.

    Example:
      >>> balancer_from_text("uw+nash_mtl@every:10").spec.name
      'chain'
    """
    if not text.strip():
        raise ValueError("no balancer is named; write one such as ew or uw+cagrad")
    if text.count("(") != text.count(")"):
        raise ValueError(f"balancer {quoted(text)}: the parentheses are not in pairs")
    terms = _terms(text)
    if not all(term.strip() for term in terms):
        raise ValueError(
            f"balancer {quoted(text)}: '+' needs a method before and after it; write uw+cagrad"
        )
    balancers = [_term(term.strip(), text) for term in terms]
    return balancers[0] if len(balancers) == 1 else chain(*balancers)


def _terms(text: str) -> list[str]:
    """Splits an expression at each `+` that is not part of a number such as 1e+2."""
    may_begin_method = lambda char: not char or char == "(" or char.isspace() or char.isalpha()
    return split_outside(text, "+", is_next=may_begin_method)


def canonical_text(text: str) -> str:
    """The text that all spellings of an expression share; that of a single method is unchanged.

    Example:
      >>> canonical_text("uw + cagrad@every:10")
      'uw+cagrad@every:period=10'
    """
    spec = balancer_from_text(text).spec
    if spec is None or spec.name == text.partition(":")[0]:  # one method
        return text
    return to_text(spec)


def with_preference(text: str, preference: Sequence[float]) -> str:
    """Adds a preference to the text of a balancer, as its outermost combinator.

    Example:
      >>> with_preference("uw+cagrad", (0.5, 1.5))
      '(uw+cagrad)@preferred:0.5,1.5'
    """
    method = f"({text})" if len(_terms(text)) > 1 else text
    return f"{method}@{preferred.__name__}:{','.join(f'{p:.4g}' for p in preference)}"


def split_preference(text: str) -> tuple[str, tuple[float, ...] | None]:
    """Splits the text of a balancer into that without its outermost preference, and this.

    The train step of a balancer with a preference is the same for any: it is in the state.

    Example:
      >>> split_preference("epo:tolerance=0.01@preferred:0.5,1.5")
      ('epo:tolerance=0.01', (0.5, 1.5))
    """
    if preferred.__name__ not in text:
        return text, None
    spec = balancer_from_text(text).spec
    if spec is None or spec.name != preferred.__name__:
        return text, None
    return to_text(spec.arguments["balancer"]), tuple(map(float, spec.arguments["preference"]))


def _term(term: str, text: str) -> Balancer:
    method, *wrappers = (part.strip() for part in split_outside(term, "@"))
    if not method or not all(wrappers):
        raise ValueError(
            f"balancer {quoted(text)}: '@' needs a method before it and a combinator after it; "
            "write nash_mtl@every:10"
        )
    if method[0] == "(" and method[-1] == ")":
        balancer = balancer_from_text(method[1:-1])
    else:
        balancer = _method(method)
    for wrapper in wrappers:
        name = wrapper.partition(":")[0]
        if name in BALANCERS and name not in WRAPPERS:
            raise ValueError(
                f"balancer {quoted(text)}: {name} is a method, not a combinator; to chain it write "
                f"{method}+{wrapper}"
            )
        choice = choose("combinator", wrapper, WRAPPERS, hidden=("balancer",), positional=True)
        balancer = choice.build(balancer)
    return balancer


def _method(text: str) -> Balancer:
    name = text.partition(":")[0]
    if name in COMBINATORS and name not in BALANCERS:
        example = "uw+cagrad" if name == chain.__name__ else f"METHOD@{text}"
        raise ValueError(f"balancer {quoted(text)}: {name} is a combinator; write {example}")
    return choose("balancer", text, BALANCERS, positional=True).build()
