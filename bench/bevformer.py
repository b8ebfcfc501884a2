"""BEVFormer's attention in three forms, same weights and inputs, outputs compared; two threads.

`published`: cells found and copied per frame and camera, grid_sample; baseline.  `dense`: every
cell asks every camera.  `ours`: pairs, one compiled loop, products by oneDNN, the first look of
the queries at each other kept.  The floor is what the matrix products of the network would take at
the machine's own speed for large ones; the counter leaves the attention between queries out.
"""

from functools import partial
import time

import numpy as np
from report import Row, report, timed_in_turn
import torch
from torch.utils.flop_counter import FlopCounterMode

from mta_perception.model import BEVFormer, BEVFormerConfig
from mta_perception.model.bevformer import Ego, History
from mta_perception.model.bevformer.reference import published_visibility, slow_copy
from mta_perception.model.bevformer.visibility import find_visibility

REPEATS, THREADS, TOLERANCE = 9, 2, 1e-4
FORMS = ('published', 'dense')


def rig(config):
    """(1, 6, 4, 4) pixels of the padded image from the lidar frame; near nuScenes' cameras."""
    matrices = np.tile(np.eye(4), (1, 6, 1, 1))
    for camera, degrees in enumerate((0, -55, 55, 180, 110, -110)):
        focal = (809.0 if camera == 3 else 1260.0) * config.image.scale
        intrinsics = np.array(
            [
                [focal, 0, config.image.width / 2],
                [0, focal, config.image.content_height / 2],
                [0, 0, 1],
            ]
        )
        yaw = np.radians(degrees)
        forward = np.array([-np.sin(yaw), np.cos(yaw), 0.0])
        rotation = np.stack([[np.cos(yaw), np.sin(yaw), 0.0], [0, 0, -1], forward])
        matrices[0, camera, :3] = intrinsics @ np.c_[rotation, -rotation @ (0.8 * forward)]
    return torch.from_numpy(matrices).float()


def network(config):
    """Random weights everywhere: a zero layer would make all forms agree for nothing."""
    torch.manual_seed(0)
    model = BEVFormer(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return model


def motion():
    """(1, 18) can_bus of a car that drives and turns."""
    can_bus = torch.randn(1, 18) * 0.2
    can_bus[0, [0, 1, 16, 17]] = torch.tensor([3.0, 0.4, 1.2, 4.0])
    return can_bus


def encode_and_decode():
    """Encoder and decoder of tiny on given image features."""
    config = BEVFormerConfig.tiny()
    ours = network(config).eval().requires_grad_(False)
    cells = config.bev_cells**2
    features = [torch.randn(1, 6, config.channels, 15, 25)]
    can_bus, matrices = motion(), rig(config)
    history = History(torch.randn(1, cells, config.channels), torch.ones(1, dtype=torch.bool))
    visibility = find_visibility(config, matrices)  # once per calibration

    @torch.no_grad()
    def run(model, tables=visibility):
        tables = published_visibility(config, matrices) if tables is None else tables
        bev = model.encoder(features, tables, can_bus, history)
        return bev, model.decoder(bev)

    slow = {form: slow_copy(ours, form) for form in FORMS}
    bev, decoded = run(ours)
    for form, model in slow.items():
        other_bev, other = run(model)
        difference = max(
            float((one - two).abs().max()) for one, two in ((other_bev, bev), *zip(other, decoded))
        )
        if not difference < TOLERANCE:
            raise RuntimeError(f'{form} differs from ours by {difference:.1e}')
        print(
            f'{form} and ours differ by {difference:.1e} at most ({decoded.queries.shape[2]} '
            'queries)'
        )
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        # With gradients on, the library multiplies, whose products can be counted.
        ours.decoder(ours.encoder(features, visibility, can_bus, history))
    flops = counter.get_total_flops()
    samples = timed_in_turn(
        [partial(run, slow['published'], None), partial(run, slow['dense']), partial(run, ours)],
        REPEATS,
    )
    rows = list(map(Row, ('published, per frame', 'dense', 'ours'), samples))
    speed = product_speed()
    rows.append(
        Row(f'floor: {flops / 1e9:.1f} GFLOP at {speed / 1e9:.0f} GFLOP/s', [flops / speed * 1e3])
    )
    report('BEVFormer tiny, encoder and decoder', rows)


def product_speed():
    """FLOP/s of a large matrix product, best of some."""
    a, b = torch.randn(2500, 512), torch.randn(512, 512)
    best = min(_seconds(lambda: a @ b) for _ in range(20))
    return 2 * a.shape[0] * b.numel() / best


def _seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def training_step():
    """Forward and backward of nano with a history, images included."""
    config = BEVFormerConfig.nano()
    ours = network(config).train()
    image = config.image
    images = torch.randn(1, 6, 3, image.height, image.width)
    history = History(
        torch.randn(1, config.bev_cells**2, config.channels), torch.ones(1, dtype=torch.bool)
    )
    given = images, rig(config), Ego(motion()), history

    def step(model):
        output = model(*given)
        model.zero_grad(set_to_none=True)
        (output.class_logits.square().mean() + output.box_codes.square().mean()).backward()

    models = [*(slow_copy(ours, form) for form in FORMS), ours]
    samples = timed_in_turn([partial(step, model) for model in models], REPEATS)
    report('BEVFormer nano, one training step', list(map(Row, (*FORMS, 'ours'), samples)))


def main():
    torch.set_num_threads(THREADS)
    encode_and_decode()
    training_step()


if __name__ == '__main__':
    main()
