"""SKELETON runtime/onnx.py — signatures fixed.

OnnxDetector(manifest, threads=2): __call__(images (6,H,W,3) uint8, image_from_ego (6,3,4),
camera_mask (6,), history: memory.History) -> detections.DetectorOutputs.  Raises ManifestError as built.
"""
