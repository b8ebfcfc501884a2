"""SKELETON runtime/captioner.py — signatures fixed.

Caption(NamedTuple): text str, score float.
OnnxCaptioner(manifest, threads=1): caption(inputs: detections.CaptionInputs) -> list[Caption].
detections.CaptionInputs(object_features (K,F), boxes (K,10), class_logits (K,10), bev (C,Y,X)); .take(rows).
"""
