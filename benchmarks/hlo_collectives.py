"""Collectives of a compiled program, read from the text of its HLO."""

import math
import re
from typing import NamedTuple

BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s64": 8, "u64": 8}
"""Bytes per element; 4 for other types."""
KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
TRANSPARENT = ("bitcast", "copy", "reshape", "transpose", "convert", "get-tuple-element")
HEAD = re.compile(r"^(?:ENTRY )?%([\w.-]+) \(.*\{$")
LINE = re.compile(r"^\s+(?:ROOT )?%([\w.-]+) = (.*)$")
SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")


class Collective(NamedTuple):
    """One array of a collective."""

    kind: str
    """One of `KINDS`; an all-reduce of which each device keeps its part only is a reduce-scatter,
    which GPU and TPU compilers make of it (XLA's ReduceScatterCreator; CPU has no such pass)."""
    shape: tuple[int, ...]
    """Shape of the result, before it is sliced."""
    bytes: int
    """Size of the entire array: of the result of an all-gather, the operand of a reduction."""
    devices: int
    """Devices that take part."""

    @property
    def sent(self) -> float:
        """Bytes that each device sends by the ring algorithm, the least possible."""
        passes = 2 if self.kind == "all-reduce" else 1
        if self.kind == "collective-permute":
            return self.bytes
        return passes * (self.devices - 1) / self.devices * self.bytes


class _Instruction(NamedTuple):
    shapes: list[tuple[str, tuple[int, ...]]]
    op: str
    operands: list[str]
    attributes: str


def collectives(text: str) -> list[Collective]:
    """Returns the collectives of a compiled program, `compiled.as_text()`.

    A collective in a loop counts once.
    """
    module = {name: _instructions(lines) for name, lines in _computations(text)}
    found = []
    for computation in module.values():
        for name, (shapes, op, _, attributes) in computation.items():
            kind = op.removesuffix("-start")
            if kind not in KINDS:
                continue
            count = _group_size(attributes)
            for i, (dtype, shape) in enumerate(shapes):
                size = math.prod(shape) * BYTES.get(dtype, 4)
                actual = kind
                if kind == "reduce-scatter":
                    size *= count
                elif kind == "all-reduce":
                    results = _parts(computation, name, i, len(shapes))
                    if all(_is_sliced(module, computation, result) for result in results):
                        actual = "reduce-scatter"
                found.append(Collective(actual, shape, size, count))
    return [collective for collective in found if collective.devices > 1]


def _computations(text):
    """Yields (name, lines) of each computation."""
    name, lines = None, []
    for line in text.splitlines():
        if match := HEAD.match(line):
            name, lines = match[1], []
        elif line.startswith("}"):
            yield name, lines
        elif name is not None:
            lines.append(line)


def _instructions(lines):
    parsed = {}
    for line in lines:
        if match := LINE.match(line):
            shape, rest = _split(match[2])
            op, _, rest = rest.partition("(")
            operands, attributes = _until_closed(rest)
            found = [
                (dtype, tuple(int(n) for n in dims.split(",") if n))
                for dtype, dims in SHAPE.findall(shape)
            ]
            names = re.findall(r"%([\w.-]+)", operands) if op != "parameter" else [operands]
            parsed[match[1]] = _Instruction(found, op.strip(), names, attributes)
    return parsed


def _split(text):
    """Splits `type op(...)` after the type, which may be a tuple."""
    if not text.startswith("("):
        shape, _, rest = text.partition(" ")
        return shape, rest
    inner, rest = _until_closed(text[1:])
    return inner, rest.strip()


def _until_closed(text):
    """Splits text at the parenthesis that closes an open one before it."""
    depth = 1
    for i, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return text[:i], text[i + 1 :]
    raise ValueError(f"unbalanced parentheses in HLO: {text[:80]}")


def _group_size(attributes):
    """Returns the number of devices of each replica group, in any of the three notations."""
    if match := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return len(match[1].split(","))
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]<=", attributes):
        return int(match[1])
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", attributes):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
        return math.prod(int(sizes[name]) for name in re.findall(r"'(\w+)'", match[2]))
    if match := re.search(r"source_target_pairs=\{\{", attributes):
        return 2
    raise ValueError(f"unknown replica groups in HLO: {attributes[:120]}")


def _parts(computation, name, index, count):
    """Returns the names of the i-th result of an instruction."""
    if count == 1:
        return [name]
    return [
        user
        for user, instruction in computation.items()
        if instruction.op == "get-tuple-element"
        and instruction.operands == [name]
        and re.search(rf"index={index}\b", instruction.attributes)
    ]


def _is_sliced(module, computation, name):
    """Returns True if each use of a value is a slice at an offset that depends on the device."""
    users = [(u, i) for u, i in computation.items() if name in i.operands and i.op != "parameter"]
    return bool(users) and all(
        instruction.op == "dynamic-slice"
        or (instruction.op in TRANSPARENT and _is_sliced(module, computation, user))
        or (instruction.op == "fusion" and _is_sliced_inside(module, instruction, name))
        for user, instruction in users
    )


def _is_sliced_inside(module, fusion, name):
    callee = module[re.search(r"calls=%([\w.-]+)", fusion.attributes)[1]]
    positions = {str(i) for i, operand in enumerate(fusion.operands) if operand == name}
    parameters = [
        inner
        for inner, instruction in callee.items()
        if instruction.op == "parameter" and instruction.operands[0] in positions
    ]
    return all(_is_sliced(module, callee, parameter) for parameter in parameters)
