"""What the metrics of each kind should be: straight from their definitions, in float64 NumPy.

Each takes (task, outputs, labels) of a whole data set and shares no code with the library.
"""

import numpy as np
import sklearn.metrics
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

wide = lambda x: np.asarray(x, np.float64)
sigmoid = lambda x: 1 / (1 + np.exp(-wide(x)))


def _log_softmax(x, axis=-1):
    x = wide(x) - wide(x).max(axis, keepdims=True)
    return x - np.log(np.exp(x).sum(axis, keepdims=True))


def classification(task, outputs, labels):
    predicted = outputs.argmax(-1)
    seen = np.union1d(labels, predicted)
    return {
        "loss": -np.take_along_axis(_log_softmax(outputs), labels[:, None], 1).mean(),
        "accuracy": (predicted == labels).mean(),
        "macro_f1": sklearn.metrics.f1_score(labels, predicted, labels=seen, average="macro"),
    }


def regression(task, outputs, labels):
    error = wide(outputs) - wide(labels)
    spread = ((wide(labels) - wide(labels).mean(0)) ** 2).sum()
    return {
        "loss": ((error / task.scale) ** 2).mean(),
        "mae": np.abs(error).mean(),
        "rmse": np.sqrt((error**2).mean()),
        "r2": 1 - (error**2).sum() / spread,
        "accuracy": ((outputs < task.threshold) == (labels < task.threshold)).mean(),
    }


def multilabel(task, outputs, labels):
    p, known = sigmoid(outputs), labels >= 0
    of_class = [(labels[known[:, c], c], outputs[known[:, c], c]) for c in range(labels.shape[1])]
    precisions = [sklearn.metrics.average_precision_score(t, x) for t, x in of_class if t.any()]
    f1 = [sklearn.metrics.f1_score(t, x > 0) for t, x in of_class if t.any() or (x > 0).any()]
    return {
        "loss": -np.log(np.where(labels == 1, p, 1 - p)[known]).mean(),
        "map": np.mean(precisions),
        "f1": np.mean(f1),
    }


def segmentation(task, outputs, labels):
    keep = labels != task.ignore
    truth, predicted = labels[keep], outputs.argmax(-1)[keep]
    iou = np.full(task.num_classes, np.nan)
    for c in range(task.num_classes):
        either = ((truth == c) | (predicted == c)).sum()
        if either:
            iou[c] = ((truth == c) & (predicted == c)).sum() / either
    logs = _log_softmax(outputs)[keep]
    return {
        "loss": -logs[np.arange(len(truth)), truth].mean(),
        "miou": np.nanmean(iou),
        "pixel_accuracy": (truth == predicted).mean(),
        "iou": iou,
    }


def depth(task, outputs, labels):
    keep = np.isfinite(labels) & (labels > 0)
    t, raw = wide(labels[keep]), wide(outputs[keep])
    p = np.maximum(raw, task.floor)
    ratio = np.maximum(p / t, t / p)
    return {
        "loss": np.abs(raw - t).mean() / task.scale,
        "rmse": np.sqrt(((p - t) ** 2).mean()),
        "abs_err": np.abs(p - t).mean(),
        "abs_rel": (np.abs(p - t) / t).mean(),
        "log_rmse": np.sqrt(((np.log(p) - np.log(t)) ** 2).mean()),
        **{f"delta_{k}": (ratio < 1.25**k).mean() for k in (1, 2, 3)},
    }


def normals(task, outputs, labels):
    keep = (labels != 0).any(-1)
    unit = lambda x: wide(x[keep]) / np.linalg.norm(wide(x[keep]), axis=-1, keepdims=True)
    cosine = (unit(outputs) * unit(labels)).sum(-1)
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    return {
        "loss": (1 - cosine).mean(),
        "mean": angle.mean(),
        "median": np.median(angle),
        "rmse": np.sqrt((angle**2).mean()),
        **{f"within_{limit:g}": (angle < limit).mean() for limit in (11.25, 22.5, 30)},
    }


def _weighted_cross_entropy(task, outputs, labels):
    p, w = sigmoid(outputs), task.positive_weight
    return -2 * (w * labels * np.log(p) + (1 - w) * (1 - labels) * np.log(1 - p)).mean()


def edges(task, outputs, labels):
    thresholds = np.arange(1, task.thresholds + 1) / (task.thresholds + 1)
    distance = max(1, task.tolerance * np.hypot(*labels.shape[1:]))
    matched, predicted = np.zeros((2, len(labels), task.thresholds))
    for i, (p, t) in enumerate(zip(sigmoid(outputs), labels, strict=True)):
        for k, threshold in enumerate(thresholds):
            found = np.argwhere(p >= threshold)
            far = cdist(found, np.argwhere(t)) > distance
            matched[i, k] = (~far[linear_sum_assignment(far)]).sum()
            predicted[i, k] = len(found)
    true = labels.sum((1, 2))
    f = 2 * matched / (predicted + true[:, None])
    best = np.arange(len(labels)), f.argmax(1)
    return {
        "loss": _weighted_cross_entropy(task, outputs, labels),
        "ods": (2 * matched.sum(0) / (predicted.sum(0) + true.sum())).max(),
        "ois": 2 * matched[best].sum() / (predicted[best].sum() + true.sum()),
    }


def saliency(task, outputs, labels):
    f, iou = [], []
    for threshold in np.linspace(0.2, 0.9, 15):
        mask, truth = sigmoid(outputs) >= threshold, labels == 1
        rows = [
            [1.0] * 3
            if not m.any() and not t.any()
            else [(m & t).sum() / max(over.sum(), 1) for over in (m, t, m | t)]
            for m, t in zip(mask, truth, strict=True)
        ]
        precision, recall, overlap = np.mean(rows, 0)
        f.append(1.3 * precision * recall / max(0.3 * precision + recall, 1e-300))
        iou.append(overlap)
    return {
        "loss": _weighted_cross_entropy(task, outputs, labels),
        "max_f": max(f),
        "miou": max(iou),
    }


def keypoints(task, outputs, labels):
    height, width = outputs.shape[1:3]
    y, x = np.mgrid[:height, :width] + 0.5
    losses, distances = [], []
    for maps, points in zip(wide(outputs), labels, strict=True):
        for k, (py, px, visible) in enumerate(wide(points)):
            if not visible:
                continue
            heat = maps[..., k]
            square = (y - py / task.stride) ** 2 + (x - px / task.stride) ** 2
            wanted = np.exp(-square / (2 * task.sigma**2))
            wanted /= wanted.sum()
            log = _log_softmax(heat.ravel()).reshape(heat.shape)
            some = wanted > 0
            losses.append((wanted[some] * (np.log(wanted[some]) - log[some])).sum())
            row, column = np.unravel_index(heat.argmax(), heat.shape)
            moved = [
                _vertex(heat[:, column], row) + row + 0.5,
                _vertex(heat[row], column) + column + 0.5,
            ]
            distances.append(np.hypot(*(np.asarray(moved) * task.stride - (py, px))))
    share = np.asarray(distances) / (np.hypot(height, width) * task.stride)
    return {
        "loss": np.mean(losses),
        "nme": share.mean(),
        "pck": (share < task.limit).mean(),
        "auc": np.clip(1 - share / task.auc_limit, 0, None).mean(),
    }


def _vertex(line, at):
    if at in (0, len(line) - 1):
        return 0.0
    return -np.polyfit([-1, 0, 1], line[at - 1 : at + 2], 2)[1] / (
        2 * np.polyfit([-1, 0, 1], line[at - 1 : at + 2], 2)[0]
    )


def detection(task, outputs, labels):
    """COCO's rules: greedy matching by score, 101 recall levels, precision made monotone."""
    found = [_boxes(task, output) for output in wide(outputs)]
    result = np.full((10, task.num_classes), np.nan)
    for c in range(task.num_classes):
        truths = [wide(b[k == c]) for b, k in zip(labels["boxes"], labels["classes"], strict=True)]
        ranked = sorted(
            (-score, i, tuple(box))
            for i, boxes in enumerate(found)
            for score, kind, box in boxes
            if kind == c
        )
        if not sum(map(len, truths)):
            continue
        for t in range(10):
            result[t, c] = _average_precision(ranked, truths, 0.5 + 0.05 * t)
    return {
        "loss": _detection_loss(task, wide(outputs), labels),
        "map": np.nanmean(result),
        "map_50": np.nanmean(result[0]),
        "map_75": np.nanmean(result[5]),
    }


def _detection_loss(task, outputs, labels):
    losses = []
    for output, boxes, classes in zip(outputs, labels["boxes"], labels["classes"], strict=True):
        heat = np.zeros((*output.shape[:2], task.num_classes))
        middles, error = set(), 0.0
        for box, c in zip(wide(boxes)[classes >= 0], classes[classes >= 0], strict=True):
            low, high = box[:2] / task.stride, box[2:] / task.stride
            h, w = high - low
            y, x = np.floor((low + high) / 2).astype(int)
            # Shifted by r both ways, the box shares (h - r)(w - r) with itself: IoU 0.7.
            r = np.roots([1, -(h + w), h * w * (1 - 1.4 / 1.7)]).min()
            rows, columns = np.mgrid[: heat.shape[0], : heat.shape[1]]
            bell = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * ((2 * r + 1) / 6) ** 2))
            heat[..., c] = np.maximum(heat[..., c], bell)
            middles.add((y, x, c))
            wanted = np.concatenate([np.log([h, w]), (low + high) / 2 - (y, x)])
            error += np.abs(output[y, x, task.num_classes :] - wanted).sum()
        p = sigmoid(output[..., : task.num_classes])
        at = np.zeros(heat.shape, bool)
        at[tuple(zip(*middles, strict=True))] = True
        error -= ((1 - p[at]) ** 2 * np.log(p[at])).sum()
        error -= ((1 - heat[~at]) ** 4 * p[~at] ** 2 * np.log(1 - p[~at])).sum()
        losses.append(error / (classes >= 0).sum())
    return np.mean(losses)


def _boxes(task, output):
    """(score, class, box) of the best local maxima of one image."""
    found = []
    height, width = output.shape[:2]
    for y in range(height):
        for x in range(width):
            around = output[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2, : task.num_classes]
            half = np.exp(output[y, x, -4:-2]) / 2
            middle = output[y, x, -2:] + (y, x)
            box = np.concatenate([middle - half, middle + half]) * task.stride
            for c in range(task.num_classes):
                if output[y, x, c] == around[..., c].max():
                    found.append((sigmoid(output[y, x, c]), c, box))
    return sorted(found, key=lambda entry: -entry[0])[: task.most]


def _average_precision(ranked, truths, threshold):
    free = [np.ones(len(boxes), bool) for boxes in truths]
    hits = []
    for _, i, box in ranked:
        overlaps = np.asarray([_iou(box, truth) for truth in truths[i]])
        overlaps = np.where(free[i], overlaps, -1) if len(overlaps) else overlaps
        hit = len(overlaps) > 0 and overlaps.max() >= threshold
        if hit:
            free[i][overlaps.argmax()] = False
        hits.append(hit)
    true = np.cumsum(hits)
    recall, precision = true / sum(map(len, truths)), true / np.arange(1, len(hits) + 1)
    best = [precision[recall >= level - 1e-12] for level in np.linspace(0, 1, 101)]
    return np.mean([p.max() if len(p) else 0.0 for p in best])


def _iou(a, b):
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    both = max(height, 0) * max(width, 0)
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])
    return both / (area(a) + area(b) - both)


def reconstruction(task, outputs, labels):
    a, b = np.clip(wide(outputs), 0, task.peak) / task.peak, wide(labels) / task.peak
    steps = np.arange(-5, 6)
    weights = np.exp(-(steps[:, None] ** 2 + steps**2) / (2 * 1.5**2))
    weights /= weights.sum()
    window = lambda x: np.lib.stride_tricks.sliding_window_view(x, (11, 11), (1, 2))
    over = lambda x: (x * weights).sum((-2, -1))
    wa, wb = window(a), window(b)
    ma, mb = over(wa), over(wb)
    da, db = wa - ma[..., None, None], wb - mb[..., None, None]
    similar = (2 * ma * mb + 1e-4) / (ma**2 + mb**2 + 1e-4)
    similar *= (2 * over(da * db) + 9e-4) / (over(da**2) + over(db**2) + 9e-4)
    return {
        "loss": np.abs(wide(outputs) - wide(labels)).mean() / task.peak,
        "psnr": (-10 * np.log10(((a - b) ** 2).mean((1, 2, 3)))).mean(),
        "ssim": similar.mean(),
    }
