"""Writes the table of balancers in README.md, from the code and measured costs.

export GLIBC_TUNABLES=... (`mtljax.utils.memory.ALLOCATOR`, as the program does)
python benchmarks/steps.py --tasks 3 --balancers all --level parameters \\
    --save mtljax/balancing/costs.json
python benchmarks/table.py
"""

from pathlib import Path

from mtljax.balancing import FAMILIES, describe
from mtljax.cli.tables import combinator_letters

ROOT = Path(__file__).parent.parent
START, END = "<!-- balancers: written by benchmarks/table.py -->\n", "<!-- end of balancers -->\n"


def table() -> str:
    """Markdown: a table for each family, with one row per balancer, and the legend."""
    letters = combinator_letters()
    lines = []
    for family, makes in FAMILIES.items():
        lines += [f"**{family}**", "", "| balancer | paper | reads | step, x `ew` | takes |"]
        lines.append("| --- | --- | --- | --- | --- |")
        for name in (make.__name__ for make in makes):
            found = describe(name)
            cost = "not measured" if found.cost is None else f"{found.cost:.2f}"
            takes = "".join(letters[combinator] for combinator in found.combinators)
            cells = f"`{name}`", found.papers or "-", found.needs.value, cost, takes
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    legend = ", ".join(f"{letter} `{name}`" for name, letter in letters.items())
    note = f"Combinators that take a balancer: {legend}; a chain takes it as its last member."
    return "\n".join([*lines, note, ""])


def with_table(readme: str) -> str:
    """Returns the README with an up-to-date table."""
    before, _, rest = readme.partition(START)
    _, _, after = rest.partition(END)
    return before + START + table() + END + after


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(with_table(path.read_text()))
