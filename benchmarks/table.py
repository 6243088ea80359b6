"""Writes the README's table of balancers: from the code, and from costs that were measured.

python benchmarks/steps.py --tasks 3 --balancers all --level parameters --save docs/costs.json
python benchmarks/table.py
"""

import json
from pathlib import Path

from mtljax.balancing import BALANCERS
from mtljax.balancing.describe import describe

ROOT = Path(__file__).parent.parent
COSTS = ROOT / "docs" / "costs.json"
START, END = "<!-- balancers: written by benchmarks/table.py -->\n", "<!-- end of balancers -->\n"


def table() -> str:
    """The table in Markdown, a row per balancer."""
    costs = json.loads(COSTS.read_text())
    rows = ["| balancer | paper | reads | step, x `ew` |", "| --- | --- | --- | --- |"]
    for name in BALANCERS:
        told = describe(name)
        cost = f"{costs[name]:.2f}" if name in costs else "not measured"
        rows.append(f"| `{name}` | {told.papers or '-'} | {told.needs.value} | {cost} |")
    return "\n".join(rows) + "\n"


def with_table(readme: str) -> str:
    """The README with the table as it should be now."""
    before, _, rest = readme.partition(START)
    _, _, after = rest.partition(END)
    return before + START + table() + END + after


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(with_table(path.read_text()))
