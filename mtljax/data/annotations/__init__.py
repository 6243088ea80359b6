"""Annotation files: COCO, Pascal VOC and YOLO."""
