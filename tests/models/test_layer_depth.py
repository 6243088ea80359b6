"""How far each parameter is from the heads, against tables made by hand."""

import jax
import pytest
from support.models import shapes

from mtljax.models import FUSIONS, TRUNKS, build, partition
from mtljax.models.layer_depth import layer_distances, stage_distances
from mtljax.tasks import Classification

TASKS = (Classification(name="a", num_classes=2), Classification(name="b", num_classes=2))

TABLES = {
    # Three stages of two convolutions.
    "cnn": ({}, 32, {
        "trunk_0/Conv_0": (6, 3), "trunk_0/Norm_0": (6, 3), "trunk_0/Conv_1": (5, 3),
        "trunk_1/Conv_0": (4, 2), "trunk_1/Norm_1": (3, 2),
        "trunk_2/Conv_0": (2, 1), "trunk_2/Norm_0": (2, 1), "trunk_2/Conv_1": (1, 1),
    }),
    # The stem, then eight blocks.
    "resnet18": ({}, 64, {
        "trunk_0/stem": (9, 4), "trunk_0/stem_norm": (9, 4),
        "trunk_0/block_0": (8, 4), "trunk_0/block_1": (7, 4),
        "trunk_1/block_0": (6, 3), "trunk_1/block_1": (5, 3),
        "trunk_2/block_0": (4, 2), "trunk_2/block_1": (3, 2),
        "trunk_3/block_0": (2, 1), "trunk_3/block_1": (1, 1),
    }),
    # As in BEiT: the embedding at depth + 1, block i at depth - i, the last norm with the heads.
    "vit_ti": ({"depth": 6, "stages": 3}, 32, {
        "trunk_0/patches": (7, 3), "trunk_0/class_token": (7, 3), "trunk_0/position": (7, 3),
        "trunk_0/block_0": (6, 3), "trunk_0/block_1": (5, 3),
        "trunk_1/block_0": (4, 2), "trunk_1/block_1": (3, 2),
        "trunk_2/block_0": (2, 1), "trunk_2/block_1": (1, 1),
        "trunk_2/norm": (0, 1),
    }),
    # Groups of blocks within a stage; the last convolution with the heads.
    "efficientnet_lite0": ({}, 64, {
        "trunk_0/stem": (17, 5), "trunk_0/block_0_0": (16, 5),
        "trunk_1/block_0_0": (15, 4), "trunk_1/block_0_1": (14, 4),
        "trunk_2/block_0_0": (13, 3), "trunk_2/block_0_1": (12, 3),
        "trunk_3/block_0_0": (11, 2), "trunk_3/block_0_2": (9, 2), "trunk_3/block_1_0": (8, 2),
        "trunk_3/block_1_2": (6, 2),
        "trunk_4/block_0_0": (5, 1), "trunk_4/block_0_3": (2, 1), "trunk_4/block_1_0": (1, 1),
        "trunk_4/head": (0, 1),
    }),
}  # fmt: skip
"""{trunk: (arguments, size of the image, {module: (distance, turn)})}"""


def layout(trunk, fusion, size, **arguments):
    """(paths of all parameters, layer_distances, stage_distances)."""
    model = build(TRUNKS[trunk](**arguments), FUSIONS[fusion], TASKS)
    image = jax.ShapeDtypeStruct((2, size, size, 3), "float32")
    paths = [p for part in partition(shapes(model, image, train=False)[1]["params"]) for p in part]
    stage_of = model.fusion.stage_of
    return paths, layer_distances(paths, stage_of), stage_distances(paths, stage_of)


@pytest.mark.parametrize("trunk", TABLES)
def test_distances_and_turns_are_those_of_a_table(trunk):
    arguments, size, table = TABLES[trunk]
    paths, away, turn = layout(trunk, "none", size, **arguments)
    for module, expected in table.items():
        found = {(away[p], turn[p]) for p in paths if p.startswith(f"fusion/{module}")}
        assert found == {expected}, module
    heads = [path for path in paths if path.startswith("task_")]
    assert heads
    assert {(away[path], turn[path]) for path in heads} == {(0, 0)}
    assert set(away.values()) == set(range(max(away.values()) + 1))


@pytest.mark.parametrize(
    ("fusion", "modules"),
    [
        ("cross_stitch", {"a_trunk_0": (3, 3), "b_trunk_1": (2, 2), "a_unit_0": (0, 0)}),
        ("mmoe", {"trunk_1": (2, 2), "expert_3_0": (1, 1), "task_a": (0, 0)}),
        ("cgc", {"trunk_0": (3, 3), "shared_expert_2_0": (1, 1), "task_a/expert_0": (1, 1)}),
        ("ltb", {"root": (3, 3), "node_1_0": (2, 2), "node_2_1": (1, 1), "choice_2": (0, 0)}),
    ],
)
def test_copies_of_a_stage_are_as_far_as_the_stage(fusion, modules):
    paths, away, turn = layout("mlp", fusion, 4, widths=(4, 4, 4))
    for module, expected in modules.items():
        found = {(away[p], turn[p]) for p in paths if p.startswith(f"fusion/{module}")}
        assert found == {expected}, module


def test_layers_that_are_not_there_do_not_count():
    paths = ["fusion/trunk_0/block_0/kernel", "fusion/trunk_2/block_5/kernel", "task_a/kernel"]
    stage_of = FUSIONS["none"](trunk=(), tasks=(), taps=1).stage_of
    assert list(layer_distances(paths, stage_of).values()) == [2, 1, 0]
    assert list(stage_distances(paths, stage_of).values()) == [2, 1, 0]


def test_a_model_without_stages_is_refused():
    with pytest.raises(ValueError, match="need trainable parameters"):
        layer_distances(["Dense_0/kernel", "task_a/kernel"], lambda module: None)
