"""Text report of benchmarks/accelerator.py: table, acceptance criteria, and what is missing."""

from flops import peak_tflops

CRITERIA = [
    ("images/s, ViT-B/16 `ew`", "images", ("vit", "mtljax", "ew"), None, 4200),
    ("images/s, ResNet-50 `ew`", "images", ("resnet50", "mtljax", "ew"), None, 4500),
    ("ViT-B/16 `ew` over torch.compile", "speed", ("vit", "mtljax", "ew"),
     ("vit", "torch", "ew:compile"), 1.0),
    ("ResNet-50 `ew` over torch.compile", "speed", ("resnet50", "mtljax", "ew"),
     ("resnet50", "torch", "ew:compile"), 1.15),
    *[
        (f"{name}, {text}, x `ew`", what, (workload, "mtljax", variant + tasks),
         (workload, "mtljax", "ew" + tasks), limit)
        for name, workload, tasks in [
            ("ViT-B/16", "vit", ""),
            ("ResNet-50", "resnet50", ""),
            ("ResNet-18", "celeba", ":tasks=3"),
            ("NYUv2", "nyuv2", ""),
        ]
        for text, what, variant, limit in [
            ("exact T=3", "time", "pcgrad", 1.6),
            ("features", "time", "pcgrad:level=features", 1.05),
            ("memory T=3", "memory", "pcgrad", 2.0),
            ("memory of gramian", "memory", "pcgrad:jacobian=gramian", 1.4),
        ]
        if not tasks or text in ("exact T=3", "memory T=3")
    ],
    ("CelebA T=40 `pcgrad` over TorchJD", "speed", ("celeba", "mtljax", "pcgrad"),
     ("celeba", "torch", "torchjd"), 3.0),
    ("CelebA T=40 `pcgrad` over TorchJD, chunk 1", "speed", ("celeba", "mtljax", "pcgrad"),
     ("celeba", "torch", "torchjd:chunk=1"), 3.0),
    ("CelebA T=40 `pcgrad` over the loop", "speed", ("celeba", "mtljax", "pcgrad"),
     ("celeba", "torch", "loop"), 2.0),
    ("train loop over its step, JPEG files", "ratio", ("loop", "mtljax", "jpeg"), None, 0.97),
    ("five seeds over one", "slowdown", ("loop", "mtljax", "seeds"), None, 1.5),
]  # fmt: skip
"""(text, quantity, row, reference row or None, target); see `value_of`."""
LOWER_IS_BETTER = ("time", "memory", "slowdown")


def value_of(quantity, row, reference):
    """Returns the quantity of a criterion, from its rows."""
    if quantity == "images":
        return row["images_per_second"]
    if quantity in ("ratio", "slowdown"):
        return row["ratio"]
    if quantity == "memory":
        return row["peak_bytes"] / reference["peak_bytes"]
    if quantity == "time":
        return row["milliseconds"] / reference["milliseconds"]
    return reference["milliseconds"] / row["milliseconds"]


def criteria(rows):
    """Yields a line per criterion of which the rows were measured."""
    by_key = {(row["workload"], row["side"], row["variant"]): row for row in rows}
    for text, quantity, key, reference_key, target in CRITERIA:
        row, reference = by_key.get(key), by_key.get(reference_key)
        if row is None or (reference_key and reference is None):
            continue
        value = value_of(quantity, row, reference)
        lower = quantity in LOWER_IS_BETTER
        reached = value <= target if lower else value >= target
        sign, verdict = "<=" if lower else ">=", "reached" if reached else "NOT reached"
        yield f"{text:46}{value:9.2f}   {sign} {target:<6g} {verdict}"


def utilization(row, flops, peak):
    """Returns the model-FLOP utilization of a row, None if FLOPs or peak are unknown."""
    peak = peak or peak_tflops(row["device"])
    operations = flops.get(row["workload"])
    if not peak or not operations or "tasks=" in row["variant"]:
        return None
    return row["images_per_second"] * operations / (peak * 1e12)


def line(row, flops, peak):
    """Returns the line of a row in the table."""
    if "milliseconds" not in row:
        measured = ", ".join(f"{k} {v:.5g}" for k, v in row["measured"].items())
        return f"{row['workload']:12}{row['side']:8}{row['variant']:24}{measured}"
    used = utilization(row, flops, peak)
    low, high = row["spread"]
    memory = f"{row['peak_bytes'] / 2**30:.1f}" if row["peak_bytes"] else "-"
    return (
        f"{row['workload']:9}{row['side']:7}{row['variant']:24}{row['images_per_second']:8.0f}"
        f"{row['milliseconds']:8.1f}{(high - low) / row['milliseconds']:5.0%}"
        + (f"{used:6.1%}" if used else f"{'-':>6}")
        + f"{row['compile_seconds']:6.0f}{memory:>7}"
    )


def unequal(rows):
    """Yields a line per workload whose networks differ in their number of parameters."""
    for workload in dict.fromkeys(row["workload"] for row in rows):
        is_whole = lambda row: "parameters" in row and "tasks=" not in row["variant"]
        same = [row for row in rows if row["workload"] == workload and is_whole(row)]
        counts = {row["parameters"] for row in same}
        if len(counts) > 1:
            yield f"{workload}: the networks differ, {counts} parameters: not comparable"


def report(result, peak=None):
    """Returns the report, 80 columns wide."""
    rows, missing = result["rows"], result["not_measured"]
    flops = {row["workload"]: row["flops_per_image"] for row in rows if "flops_per_image" in row}
    lines = ["", ", ".join([*result["versions"], *result["devices"], result["date"]])]
    if result["small"]:
        lines.append("TINY SHAPES: these numbers say nothing about speed")
    lines.append(
        f"{'workload':9}{'side':7}{'variant':24}{'images/s':>8}{'ms/step':>8}{'+-':>5}{'MFU':>6}"
        f"{'comp':>6}{'GiB':>7}"
    )
    lines += [line(row, flops, peak) for row in rows]
    lines += ["", *unequal(rows)]
    lines += criteria(rows)
    if missing:
        lines.append("\nNot measured:")
    for row in missing:
        reason = " ".join(row["error"].split())[:160]
        lines.append(f"  {row['workload']} {row['side']} {row['variant']}: {reason}")
    return "\n".join(lines)
