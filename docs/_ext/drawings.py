"""Drawing of an update of two tasks, as SVG in the colors of the page."""

import math

GRADIENTS = (2.0, 0.0), (-1.0, 1.0)
"""Gradients of the example in `examples`."""
SCALE, WIDTH, HEIGHT = 60, 300, 190
ORIGIN = 110, 150
LONGEST = 2.4
"""Length up to which an arrow fits."""


def draw_update(printed: str) -> str:
    """Draws the gradients, the directions that raise no loss, and the direction of the example.

    Args:
      printed: Output of the example, such as `[0.25 0.75]`.
    """
    x, y = (float(number) for number in printed.strip("[]").split())
    length = math.hypot(x, y)
    factor = min(1.0, LONGEST / length) if length else 0.0
    if y < 0:
        factor = min(factor, 0.5 / -y)
    inside = all(x * a + y * b >= -1e-3 for a, b in GRADIENTS)
    effect = "decreases the losses of both tasks" if inside else "increases the loss of one task"
    title = f"Two task gradients and the direction ({x:g}, {y:g}), which {effect}"
    lines = [
        f'<svg class="update" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" '
        f'aria-label="{title}">',
        f'<polygon class="cone" points="{_points((0, 0), (0, 2.4), (2.4, 2.4))}"/>',
        *(_arrow(gradient, f"g{i}", "gradient") for i, gradient in enumerate(GRADIENTS, 1)),
        _arrow((x * factor, y * factor), "d", "direction"),
        "</svg>",
    ]
    return "".join(lines)


def _place(x: float, y: float) -> tuple[float, float]:
    return ORIGIN[0] + SCALE * x, ORIGIN[1] - SCALE * y


def _points(*points: tuple[float, float]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in (_place(*point) for point in points))


def _arrow(end: tuple[float, float], name: str, style: str) -> str:
    (x0, y0), (x1, y1) = _place(0, 0), _place(*end)
    length = math.hypot(x1 - x0, y1 - y0) or 1.0
    dx, dy = (x1 - x0) / length, (y1 - y0) / length
    wings = [(x1 - 9 * dx + s * 4 * dy, y1 - 9 * dy - s * 4 * dx) for s in (1, -1)]
    tip = " ".join(f"{a:.1f},{b:.1f}" for a, b in [(x1, y1), *wings])
    return (
        f'<g class="{style}"><line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>'
        f'<polygon points="{tip}"/>'
        f'<text x="{x1 + 6:.1f}" y="{y1 + (14 if end[1] <= 0 else -4):.1f}">{name}</text></g>'
    )
