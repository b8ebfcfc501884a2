"""What a detector's result costs, and which query found which object; chosen by the detector.

nano       dense heatmap and boxes, Hungarian matching of each layer; heads that only training
           has: objects in the image, an object's colour
BEVFormer  the published set loss (losses/bevformer.py)

A criterion belongs to a detector as the losses of DETR do to it.  It is made here and not beside
the network, because the vehicle has no losses.
"""

from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import nn

from mta_perception.model.bevformer.detector import our_order
from mta_perception.model.nano.detection_decoder import codes_from_boxes
from mta_perception.model.nano.detector import NanoDetector
from mta_training.losses.bevformer import Targets
from mta_training.losses.bevformer import detection_loss as published_loss
from mta_training.losses.bevformer_codes import in_range, lidar_codes
from mta_training.losses.dense_targets import image_targets, pad_objects
from mta_training.losses.look import ColourHead, colour_loss
from mta_training.losses.nano import assign, detection_loss, match
from mta_training.losses.perspective import PerspectiveHead, depth_loss, perspective_loss


class DetectionLoss(NamedTuple):
    """Losses of a batch, and which query is which object."""

    terms: dict  # name -> tensor, unweighted but for the further heads' shares
    log: dict  # name -> float
    matches: list  # per frame (queries (m,), objects (m,)) of the last decoder layer


class Criterion(Protocol):
    """The losses of one kind of detector."""

    heads: nn.Module | None  # what is trained with it and never exported

    def __call__(self, result, batch, processes) -> DetectionLoss:
        """Of a DetectorResult on a data.batches.Batch."""

    def match(self, found, targets) -> tuple:
        """(queries (m,), objects (m,)) of one frame: a DetectorResult without batch axis and a
        data.targets.Targets."""


def detection_criterion(detector, weights, bf16=True):
    """The Criterion of a `model.detector.Detector`; weights: settings.Weights."""
    if isinstance(detector, NanoDetector):
        return NanoCriterion(detector.config, weights, bf16)
    return PublishedCriterion(detector)


class NanoCriterion:
    """Detection loss of all stages, and what the heads that only training has are told."""

    def __init__(self, config, weights, bf16):
        self.config, self.weights, self.bf16 = config, weights, bf16
        self.heads = nn.ModuleDict({'perspective': PerspectiveHead(config.bev.channels)})
        if weights.colour:
            self.heads['colour'] = ColourHead(config.bev.channels)

    def __call__(self, result, batch, processes):
        """As Criterion's."""
        image, stages, weights = self.config.image, result.stages, self.weights
        device = result.bev.device
        view = batch.image_from_ego, batch.camera_mask
        goals = image_targets(
            pad_objects(batch.targets, device), *view, image, self.config.backbone.stride
        )
        with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
            perspective = perspective_loss(
                self.heads['perspective'], stages.image_features, goals, processes
            )
        detection = detection_loss(stages.decoder, batch.targets, self.config.bev, processes)
        terms = {'detection': detection.total, 'perspective': weights.perspective * perspective}
        log = {**detection.parts, 'perspective': perspective}
        if stages.depth_logits is not None:
            known = goals.depth if batch.depth is None else batch.depth
            depth = depth_loss(stages.depth_logits, known, view[0], image, processes)
            terms['depth'], log['depth'] = weights.depth * depth, depth
        if 'colour' in self.heads:
            colour = colour_loss(
                self.heads['colour'],
                stages.decoder.appearance,
                detection.matches,
                batch.captions,
                processes,
            )
            terms['colour'], log['colour'] = weights.colour * colour, colour
        log['detection'] = detection.total
        return DetectionLoss(
            terms,
            {name: float(torch.as_tensor(value).detach()) for name, value in log.items()},
            detection.matches,
        )

    def match(self, found, targets):
        """As Criterion's."""
        return match(found.class_logits, codes_from_boxes(found.boxes), targets)


class PublishedCriterion:
    """BEVFormer's set loss on what stands inside its range."""

    heads = None

    def __init__(self, detector):
        self.detector = detector

    def __call__(self, result, batch, processes):
        """As Criterion's."""
        targets, inside = zip(*map(self._in_range, batch.targets))
        device = result.bev.device
        loss = published_loss(
            result.stages,
            [Targets(*(part.to(device) for part in frame)) for frame in targets],
            self.detector.network.code_weights,
            processes.mean,
        )
        matches = [
            (queries, own[objects]) for (queries, objects), own in zip(loss.matches, inside)
        ]
        parts = {'detection': loss.total, 'score': loss.scores[-1], 'box': loss.boxes[-1]}
        return DetectionLoss(
            {'detection': loss.total},
            {name: float(value.detach()) for name, value in parts.items()},
            matches,
        )

    def match(self, found, targets):
        """As Criterion's."""
        targets, inside = self._in_range(targets)
        queries, objects = assign(
            found.class_logits, found.codes, targets.labels, our_order(targets.codes)
        )
        return queries, inside[objects]

    def _in_range(self, frame):
        """Targets in published codes of the objects inside the range, and which those are."""
        boxes = frame.boxes.numpy()
        inside = np.flatnonzero(in_range(boxes, self.detector.network.config))
        codes = torch.from_numpy(lidar_codes(boxes[inside]))
        return Targets(codes, frame.labels[inside]), inside
