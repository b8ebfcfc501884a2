"""A detector in torch behind the call of `runtime.onnx.OnnxDetector`."""

from typing import Any, cast

import torch
from torch import nn

from mta_perception.detections import DetectorOutputs, Floats, Past
from mta_perception.frames import Pixels
from mta_perception.geometry import Array


class TorchDetector:
    """One frame in, raw outputs out, on whichever device the detector is."""

    def __init__(self, detector: nn.Module, bf16: bool = True) -> None:
        """detector: one that meets `model.detector.Detector`, set to evaluation here.

        bf16: under autocast, as it is trained; geometry and boxes stay float32.
        """
        self._detector, self._bf16 = detector.eval(), bf16
        self._device = next(detector.parameters()).device
        shape = cast(tuple[int, ...], detector.memory_shape)
        self._no_history = torch.zeros(shape, device=self._device)

    def __call__(
        self, images: Pixels, image_from_ego: Floats, camera_mask: Floats, history: Past
    ) -> DetectorOutputs:
        """As OnnxDetector's."""
        found = self.detect(images, image_from_ego, camera_mask, history)
        return DetectorOutputs(
            *(getattr(found, name).cpu().numpy() for name in DetectorOutputs._fields)
        )

    def detect(
        self, images: Pixels, image_from_ego: Floats, camera_mask: Floats, history: Past
    ) -> Any:
        """The same as a DetectorResult of the one sample; its tensors stay on the device."""
        inputs = (
            self._on_device(images),
            self._on_device(image_from_ego).float(),
            self._on_device(camera_mask).float(),
            self._on_device(history.bev) if history.valid else self._no_history,
            torch.tensor(float(history.valid), device=self._device),
            self._on_device(history.ego_prev_from_ego_now).float(),
        )
        autocast = torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16)
        with torch.no_grad(), autocast:
            result = self._detector(*(part[None] for part in inputs))
        return result.sample(0)

    def _on_device(self, values: Pixels | Floats | Array | torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(values).to(self._device)
