"""A detector that learns from what is asked: stage 3 of a run, "all unfrozen".

The frame of now is seen anew at each step, with gradients; the frames before it stay as they were
seen last, and what is seen now takes its place in that memory.  Norms keep their statistics.  Only
a run (`mta-train train`) has a detector in torch; a model directory's stays as it is.
"""

import torch
from torch import nn

from mta_training.data.batches import Place
from mta_training.data.batches import make_batch as make_frames
from mta_training.data.scene_arrays import every_step, load_scene
from mta_training.data.scene_cache import cache_scene
from mta_training.tpo.batches import find_at


class LiveEyes(nn.Module):
    """A detector and the images of the scenes it sees."""

    def __init__(self, detector, arrays):
        """detector: a torch module as model.detector; arrays: {name: SceneArrays} of the scenes'
        key frames."""
        super().__init__()
        self.detector, self.arrays = detector, arrays

    @classmethod
    def of_bags(cls, detector, paths, image, cache):
        """Of bags whose decoded images are kept in `cache`."""
        scenes = {p.name: every_step(load_scene(cache_scene(p, cache, image))) for p in paths}
        return cls(detector, scenes)

    def train(self, mode=True):
        """As nn.Module's; norms stay as they are."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def see(self, windows, scenes):
        """DetectorResult of the last frame of each window (scene, first, now).

        What it sees becomes the memory of `scenes` ({name: batches.Asked}), without gradients.
        """
        places = [Place(index, now, now > 0) for index, (_, _, now) in enumerate(windows)]
        batch = make_frames([self.arrays[name] for name, _, _ in windows], places)
        history = [
            torch.from_numpy(scenes[name].frames.bev[max(now - 1, 0)]).float()
            for name, _, now in windows
        ]
        result = self.detector(
            batch.images,
            batch.image_from_ego,
            batch.camera_mask,
            torch.stack(history),
            batch.history_valid,
            batch.ego_prev_from_ego_now,
        )
        for index, (name, _, now) in enumerate(windows):
            remember(scenes[name], now, result, index)
        return result


def best_queries(result, count):
    """Indices (B, count) of the queries with the highest logits, best first."""
    return result.class_logits.float().amax(-1).topk(count, dim=-1).indices


def remember(known, now, result, index):
    """Put what was seen in frame `now` of an Asked in the place of what was seen there before."""
    frames = known.frames
    best = best_queries(result, frames.boxes.shape[1])[index]
    with torch.no_grad():
        frames.objects[now] = result.object_features[index, best].float().numpy()
        frames.boxes[now] = result.boxes[index, best].float().numpy()
        frames.class_logits[now] = result.class_logits[index, best].float().numpy()
        frames.bev[now] = result.bev[index].float().numpy()
        frames.bev_mean[now] = result.bev[index].float().mean((1, 2)).numpy()
    find_at(known, now)


def with_gradients(scene, result):
    """A Scene whose frame of now is that of a DetectorResult, so that gradients reach it."""
    best = best_queries(result, scene.objects.shape[2])
    rows = torch.arange(len(best))[:, None]

    def last(memory, now):
        return torch.cat([memory[:, :-1], now.float().unsqueeze(1)], dim=1)

    boxes = result.boxes[rows, best]
    return scene._replace(
        objects=last(scene.objects, result.object_features[rows, best]),
        own_boxes=last(scene.own_boxes, boxes),
        boxes=last(scene.boxes, boxes),
        class_logits=last(scene.class_logits, result.class_logits[rows, best]),
        bev_mean=last(scene.bev_mean, result.bev.mean((2, 3))),
        bev=result.bev.float(),
    )
