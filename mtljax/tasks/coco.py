"""COCO's mean average precision, as computed by pycocotools (the extra `detection`)."""

import contextlib
import io

import numpy as np
from jaxtyping import Bool, Float

THRESHOLDS = np.arange(50, 100, 5) / 100
"""IoU thresholds of a correct detection."""


def average_precision(
    truth: dict[str, np.ndarray], predicted: dict[str, np.ndarray], num_classes: int, most: int
) -> Float[np.ndarray, "10 C"]:
    """Returns the average precision per threshold and class; NaN for a class without objects.

    Objects of all sizes count, and the `most` best detections per image and class.

    Args:
      truth: `boxes` [N, n, 4] as (y0, x0, y1, x1), `classes` [N, n], -1 for padding.
      predicted: `boxes` [N, m, 4], `classes` [N, m], `scores` [N, m], 0 for padding.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        data = COCO()
        data.dataset = {
            "images": [{"id": i} for i in range(len(truth["classes"]))],
            "categories": [{"id": c} for c in range(num_classes)],
            "annotations": _entries(truth, truth["classes"] >= 0),
        }
        data.createIndex()
        results = COCO()
        valid = (predicted["scores"] > 0) & (predicted["classes"] >= 0)
        results.dataset = dict(data.dataset, annotations=_entries(predicted, valid))
        results.createIndex()
        evaluator = COCOeval(data, results, "bbox")
        evaluator.params.iouThrs = THRESHOLDS
        evaluator.params.areaRng, evaluator.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluator.params.maxDets = [most]
        evaluator.evaluate()
        evaluator.accumulate()
    precision = evaluator.eval["precision"][:, :, :, 0, 0]  # [threshold, recall, class]
    return np.where(precision >= 0, precision, np.nan).mean(1)


def _entries(boxes: dict[str, np.ndarray], valid: Bool[np.ndarray, "N n"]) -> list[dict]:
    entries: list[dict] = []
    for i, j in np.argwhere(valid):
        y0, x0, y1, x1 = (float(side) for side in boxes["boxes"][i, j])
        entry = {
            "id": len(entries) + 1,  # for pycocotools, id 0 means "not matched"
            "image_id": int(i),
            "category_id": int(boxes["classes"][i, j]),
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": (x1 - x0) * (y1 - y0),
            "iscrowd": 0,
        }
        if "scores" in boxes:
            entry["score"] = float(boxes["scores"][i, j])
        entries.append(entry)
    return entries
