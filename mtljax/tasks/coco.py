"""COCO's mean average precision, as computed by pycocotools (the extra `detection`)."""

import contextlib
import io

import numpy as np

from mtljax.utils.optional import require_installed

THRESHOLDS = np.arange(50, 100, 5) / 100
"""IoU from which a detection counts as right."""


def require_evaluator(name: str) -> None:
    """Raises ValueError with the command to install pycocotools, if it is missing."""
    require_installed("pycocotools", "detection", f"task {name!r}")


def average_precision(
    truth: dict[str, np.ndarray], found: dict[str, np.ndarray], num_classes: int, most: int
) -> np.ndarray:
    """Average precision [10 thresholds, C], objects of all sizes; NaN for a class without any.

    Args:
      truth: `boxes` [N, n, 4] as (y0, x0, y1, x1), `classes` [N, n], -1 for padding.
      found: `boxes` [N, m, 4], `classes` [N, m], `scores` [N, m]; a score of 0 is none.
      num_classes: C.
      most: Detections per image and class that count.
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
        answers = COCO()
        answers.dataset = dict(
            data.dataset,
            annotations=_entries(found, (found["scores"] > 0) & (found["classes"] >= 0)),
        )
        answers.createIndex()
        judge = COCOeval(data, answers, "bbox")
        judge.params.iouThrs = THRESHOLDS
        judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
        judge.params.maxDets = [most]
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][:, :, :, 0, 0]  # [threshold, recall, class]
    return np.where(precision >= 0, precision, np.nan).mean(1)


def _entries(boxes: dict[str, np.ndarray], known: np.ndarray) -> list[dict]:
    entries: list[dict] = []
    for i, j in np.argwhere(known):
        y0, x0, y1, x1 = (float(side) for side in boxes["boxes"][i, j])
        entry = {
            "id": len(entries) + 1,  # pycocotools takes id 0 for "not matched"
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
