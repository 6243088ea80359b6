"""Writes the table of balancers in README.md, from the code and measured costs.

python benchmarks/steps.py --tasks 3 --balancers all --level parameters --save docs/costs.json
python benchmarks/table.py
"""

import json
from pathlib import Path

from mtljax.balancing import BALANCERS, describe

ROOT = Path(__file__).parent.parent
COSTS = ROOT / "docs" / "costs.json"
START, END = "<!-- balancers: written by benchmarks/table.py -->\n", "<!-- end of balancers -->\n"


def table() -> str:
    """Markdown table with one row per balancer."""
    costs = json.loads(COSTS.read_text())
    rows = ["| balancer | paper | reads | step, x `ew` |", "| --- | --- | --- | --- |"]
    for name in BALANCERS:
        description = describe(name)
        papers, needs = description.papers or "-", description.needs.value
        cost = f"{costs[name]:.2f}" if name in costs else "not measured"
        rows.append(f"| `{name}` | {papers} | {needs} | {cost} |")
    return "\n".join(rows) + "\n"


def with_table(readme: str) -> str:
    """Returns the README with an up-to-date table."""
    before, _, rest = readme.partition(START)
    _, _, after = rest.partition(END)
    return before + START + table() + END + after


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(with_table(path.read_text()))
