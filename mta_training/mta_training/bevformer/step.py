"""One step of training: history without gradient, then the present frame with it."""

import torch

from mta_perception.model.bevformer import History
from mta_perception.model.bevformer.visibility import find_visibility
from mta_training.losses.bevformer import detection_loss


def training_step(model, frames, targets, mask=None, average=float):
    """DetectionLoss of the last of `frames` (queue.Frame, oldest first) against `targets`.

    mask     (H, W) of augmentation.GridMask.draw for the present frame, None = whole images
    average  see losses.detection_loss
    """
    history = remember(model, frames[:-1])
    present = frames[-1]
    images = normalised(model, present.images)
    if mask is not None:
        images = images * torch.as_tensor(mask, device=images.device)
    output = model(
        images, present.image_from_lidar, present.ego, _continued(history, present.continues)
    )
    return detection_loss(output, targets, model.code_weights, average)


@torch.no_grad()
def remember(model, frames):
    """bev (B, Q, C) after these frames, None without frames; in evaluation mode throughout."""
    training = model.training
    model.eval()
    bev = None
    for frame in frames:
        features = model.features(normalised(model, frame.images))
        visibility = find_visibility(model.config, frame.image_from_lidar, frame.ego.camera_mask)
        bev = model.encoder(
            features, visibility, frame.ego.can_bus, _continued(bev, frame.continues)
        )
    model.train(training)
    return bev


def normalised(model, images):
    """(B, N, H, W, 3) RGB as stored, or images that are normalised already."""
    return model.normalise(images) if images.shape[-1] == 3 else images


def _continued(bev, continues):
    # Sample by sample; the published code lets the first of a batch decide for all.
    return None if bev is None else History(bev, continues.to(bev.device))
