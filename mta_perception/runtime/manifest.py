"""SKELETON runtime/manifest.py — signatures fixed, bodies being written.

Manifest.load(directory) -> Manifest (frozen dataclass): name, directory (Path), cameras, classes,
image (ImageSpec: width, height, scale), bev (BevSpec: half_extent_m, cells, channels), history_step_s,
score_threshold, max_detections, captioner (CaptionerSpec or None), files {name: sha256}, training, metrics,
licence; .path('detector.onnx').  Raises ManifestError (a ValueError).
"""


class ManifestError(ValueError):
    """The model directory does not fit this program."""
