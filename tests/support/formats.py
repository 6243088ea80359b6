"""Writers of `support.contents` in every format that a source reads."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow_datasets as tfds
import tifffile
from PIL import Image
from support.contents import CONTENTS, MAPS, NAMES, SPLITS, TASKS, H, W, label_of, points_of
from support.datasets import builder_like, encoded, made


def save(pixels, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, pixels)
    elif path.suffix == ".tif":  # 16 bits, whose 65535 is white
        tifffile.imwrite(path, pixels.astype(np.uint16) * 257, photometric="rgb")
    else:
        Image.fromarray(pixels).save(path)
    return path


def file_of(content):
    """Name of the image: PNG of 8 bits, TIFF of 16 bits, or an array file."""
    return content["name"] + (".png", ".tif", ".npy")[int(content["name"][-1]) % 3]


def save_maps(root):
    """Writes images and maps; returns the cells of each row."""
    rows = []
    for content in CONTENTS:
        save(content["pixels"], root / "images" / file_of(content))
        row = {"image": file_of(content), "split": content["split"]}
        for name in MAPS:
            row[name] = f"{name}/{content['name']}.{'npy' if name == 'normals' else 'png'}"
            save(content[name], root / row[name])
        rows.append(row)
    return rows


def nested_rows(rows):
    """Returns the rows of formats with lists: labels as Hugging Face `datasets` has them."""
    for row, content in zip(rows, CONTENTS, strict=True):
        objects = content["objects"]
        points = points_of(*objects[0][1:]) if len(objects) == 1 else []
        row |= {
            "kind": NAMES[objects[0][0]] if objects else None,
            "weight": content["weight"],
            "angles": content["angles"],
            "classes": sorted({NAMES[kind] for kind, *_ in objects}),
            "keypoints": [points[:3], points[3:]] if points else None,
            "boxes": {
                "boxes": [[y0, x0, y1, x1] for _, x0, y0, x1, y1 in objects],
                "classes": [NAMES[kind] for kind, *_ in objects],
            },
        }
    return rows


def csv(root):
    """A table of numbers, words and file names, with boxes in a COCO file beside it."""
    columns = ["image", "split", *MAPS, *NAMES, "keypoints", "kind", "weight", "yaw", "roll"]
    lines = [",".join(columns)]
    for row, content in zip(save_maps(root), CONTENTS, strict=True):
        objects = content["objects"]
        points = points_of(*objects[0][1:]) if len(objects) == 1 else []
        row |= {name: int(any(o[0] == i for o in objects)) for i, name in enumerate(NAMES)}
        row["keypoints"] = " ".join(
            str(min(p, 1) if i % 3 == 2 else p) for i, p in enumerate(points)
        )
        row["kind"] = NAMES[objects[0][0]] if objects else ""
        row |= {"weight": content["weight"], "yaw": content["angles"][0]}
        row["roll"] = content["angles"][1]
        lines.append(",".join(str(row[column]) for column in columns))
    (root / "labels.csv").write_text("\n".join(lines))
    (root / "boxes.json").write_text(json.dumps(coco_of(SPLITS)))
    labels = {"boxes": "boxes.json", "classes": "cat,dog,owl", "angles": "yaw,roll"}
    return f"folder:'{root}'", labels


def json_lines(root):
    rows = nested_rows(save_maps(root))
    (root / "labels.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return f"folder:'{root}'", {}


def parquet(root):
    pq.write_table(pa.Table.from_pylist(nested_rows(save_maps(root))), root / "labels.parquet")
    return f"folder:'{root}'", {}


def parquet_with_images(root):
    """Images and maps in the cells, one table per split."""
    rows = []
    for content in CONTENTS:
        images = {"image": "pixels", **{name: name for name in MAPS if name != "normals"}}
        cells = {
            column: {"bytes": encoded(content[key]).read(), "path": None}
            for column, key in images.items()
        }
        rows.append({**cells, "normals": content["normals"].tolist()})
    rows = nested_rows(rows)
    (root / "data").mkdir()
    for split in SPLITS:
        chosen = [r for r, c in zip(rows, CONTENTS, strict=True) if c["split"] == split]
        pq.write_table(pa.Table.from_pylist(chosen), root / f"data/{split}-00000-of-00001.parquet")
    return f"folder:'{root}',table='data/*.parquet'", {}


def coco_of(splits, *, with_points=False):
    images, annotations = [], []
    for content in CONTENTS:
        if content["split"] not in splits:
            continue
        size = {"height": H, "width": W}
        images.append({"id": len(images), "file_name": file_of(content), **size})
        for kind, x0, y0, x1, y1 in content["objects"]:
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": images[-1]["id"],
                    "category_id": 10 * kind,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
                }
                | ({"keypoints": points_of(x0, y0, x1, y1)} if with_points else {})
            )
    categories = [{"id": 10 * i, "name": name} for i, name in enumerate(NAMES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco(root):
    for content in CONTENTS:
        save(content["pixels"], root / content["split"] / file_of(content))
    for split in SPLITS:
        file = root / "annotations" / f"instances_{split}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(coco_of([split], with_points=True)))
    return f"coco:'{root}'", {}


def voc(root):
    for content in CONTENTS:
        name = content["name"]
        save(content["pixels"], root / "JPEGImages" / file_of(content))
        save(content["masks"], root / "SegmentationClass" / f"{name}.png")
        text = f"<annotation><size><width>{W}</width><height>{H}</height></size>"
        for kind, x0, y0, x1, y1 in content["objects"]:
            box = f"<xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
            text += f"<object><name>{NAMES[kind]}</name><bndbox>{box}</bndbox></object>"
        (root / "Annotations").mkdir(exist_ok=True)
        (root / "Annotations" / f"{name}.xml").write_text(text + "</annotation>")
        (root / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
        with (root / f"ImageSets/Main/{content['split']}.txt").open("a") as file:
            file.write(f"{name}\n")
    return f"voc:'{root}'", {}


def yolo(root, form="box"):
    for content in CONTENTS:
        split, lines = content["split"], []
        save(content["pixels"], root / "images" / split / file_of(content))
        for kind, x0, y0, x1, y1 in content["objects"]:
            box = [(x0 + x1) / 2 / W, (y0 + y1) / 2 / H, (x1 - x0) / W, (y1 - y0) / H]
            points = points_of(x0, y0, x1, y1)
            values = {
                "box": box,
                "polygon": [x0 / W, y0 / H, x1 / W, y0 / H, x1 / W, y1 / H, x0 / W, y1 / H],
                "pose": box + [p / (W, H, 1)[i % 3] for i, p in enumerate(points)],
            }[form]
            lines.append(" ".join(map(str, [kind, *values])))
        labels = root / "labels" / split / f"{content['name']}.txt"
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_text("\n".join(lines))
    shape = "kpt_shape: [2, 3]\n" if form == "pose" else ""
    (root / "data.yaml").write_text(
        f"train: images/train\nval: images/val\ntest: images/test\n{shape}names: [cat, dog, owl]\n"
    )
    return f"yolo:'{root}'", {}


def yolo_polygons(root):
    return yolo(root, "polygon")


def yolo_poses(root):
    return yolo(root, "pose")


def class_folders(root):
    for content in CONTENTS:
        if content["objects"]:
            folder = root / content["split"] / NAMES[content["objects"][0][0]]
            save(content["pixels"], folder / file_of(content))
    for split in SPLITS:
        for name in NAMES:
            (root / split / name).mkdir(exist_ok=True)
    return f"class_folders:'{root}'", {"kind": "class"}


def tensorflow_datasets(root):
    image = lambda channels, dtype=np.uint8: tfds.features.Image(
        shape=(H, W, channels), dtype=dtype, encoding_format="png"
    )
    classes = tfds.features.ClassLabel(names=list(NAMES))
    boxes = {"bbox": tfds.features.BBoxFeature(), "label": classes}
    tensor = lambda *shape: tfds.features.Tensor(shape=shape, dtype=np.float32)
    features = {
        "image": image(3),
        "kind": classes,
        "weight": tensor(),
        "angles": tensor(2),
        "classes": dict.fromkeys(NAMES, np.bool_),
        **{name: image(1) for name in ("masks", "edges", "saliency")},
        "depth": image(1, np.uint16),
        "normals": tensor(H, W, 3),
        "picture": image(3),
        "keypoints": tensor(2, 3),
        "boxes": tfds.features.Sequence(boxes),
    }
    counts = dict.fromkeys(SPLITS, 6)

    def example(rng, i):
        content = CONTENTS[example.number]
        example.number += 1
        objects = content["objects"]
        points = points_of(*objects[0][1:]) if len(objects) == 1 else [0] * 6
        label = label_of(content, "kind")
        return {
            "image": encoded(content["pixels"]),
            "kind": -1 if label is None else int(label),
            "weight": np.float32(content["weight"]),
            "angles": np.asarray(content["angles"], np.float32),
            "classes": {name: any(NAMES[o[0]] == name for o in objects) for name in NAMES},
            **{n: encoded(content[n]) for n in MAPS if n != "normals"},
            "normals": content["normals"],
            "keypoints": np.asarray(points, np.float32).reshape(2, 3),
            "boxes": [
                {"bbox": tfds.features.BBox(y0 / H, x0 / W, y1 / H, x1 / W), "label": kind}
                for kind, x0, y0, x1, y1 in objects
            ],
        }

    example.number = 0
    features = tfds.features.FeaturesDict(features)
    made(builder_like("contents", "1.0.0", features, counts, example), root)
    return f"tfds:contents,data_dir='{root}',validation=val", {}


def npz(root):
    """Arrays of the labels that no image lacks, without names for parts."""
    names = [n for n in TASKS if n not in ("kind", "keypoints", "boxes")]
    labels = {n: np.stack([label_of(content, n) for content in CONTENTS]) for n in names}
    np.savez(root / "a.npz", image=np.stack([c["pixels"] for c in CONTENTS]), **labels)
    return f"arrays:file='{root / 'a.npz'}'", {}


ANNOTATED = ("boxes", "classes")
FORMATS = {
    csv: tuple(TASKS),
    json_lines: tuple(TASKS),
    parquet: tuple(TASKS),
    parquet_with_images: tuple(TASKS),
    tensorflow_datasets: tuple(TASKS),
    npz: tuple(name for name in TASKS if name not in ("kind", "keypoints", "boxes")),
    coco: (*ANNOTATED, "masks", "keypoints"),
    voc: (*ANNOTATED, "masks"),
    yolo: ANNOTATED,
    yolo_polygons: (*ANNOTATED, "masks"),
    yolo_poses: (*ANNOTATED, "keypoints"),
    class_folders: ("kind",),
}
"""Function that writes a format in a folder, and returns the source and {task: label} -> the tasks
that the format can express."""
