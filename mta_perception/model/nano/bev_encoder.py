"""BEV encoder: lift camera features onto a grid around the car (BEVFormer, Li et al., ECCV 2022).

in   features        (B, N, C, h, w)  cameras in contract.CAMERAS order
     image_from_ego  (B, N, 3, 4)     pixels of the model-size image from metres in the ego frame
     camera_mask     (B, N)           0 removes a camera
     history         (B, C, Y, X)     remembered BEV, already in today's ego frame; `history_valid`
     (B,)
out  bev             (B, C, Y, X)     cell [iy, ix]: ix grows with +x (front), iy with +y (left)

The spatial attention starts as a fixed bilinear projection (offsets zero, head h looks at pillar
height h) and learns to look elsewhere: on little data that start decides (see docs/training.md).
"""

import torch
from torch import nn

from mta_perception.model.deformable import attend, project_map, ring_offsets, sample_map
from mta_perception.model.grid import cell_centres, metres_to_cells
from mta_perception.model.nano.projection import best_views, project_points, tall_map, tall_xy
from mta_perception.model.nano.pyramid import bin_positions, focal_lengths, share_of_bins


def warp_history(history_bev, ego_prev_from_ego_now, centres, config):
    """The remembered BEV (B, C, Y, X) read where today's cells were then; zero outside it."""
    rotation = ego_prev_from_ego_now[:, :2, :2].float()
    shift = ego_prev_from_ego_now[:, :2, 3].float()
    xy_prev = centres @ rotation.transpose(-1, -2) + shift[:, None]  # (B, YX, 2)
    return sample_map(history_bev, metres_to_cells(xy_prev, config)).view_as(history_bev)


def _smooth_start(centres, channels):
    """(Q, C) random waves over place, range and bearing: cells that are near start out alike.

    Independent random rows would have to be learned cell by cell.
    """
    distance = centres.norm(dim=-1, keepdim=True)
    place = torch.cat([centres, distance, 20.0 * centres / distance], dim=-1)
    waves = torch.randn(place.shape[-1], channels // 2) / (3.0 * 8.0 ** torch.rand(channels // 2))
    return torch.cat([(place @ waves).sin(), (place @ waves).cos()], dim=-1)


class TemporalSelfAttention(nn.Module):
    """Each cell reads yesterday's and today's BEV; the mean of the two is its answer."""

    def __init__(self, config):
        super().__init__()
        self.heads, self.points = config.heads, config.temporal_points
        channels = config.channels
        self.value = nn.Linear(channels, channels)
        self.offsets = nn.Linear(2 * channels, 2 * self.heads * self.points * 2)
        self.weights = nn.Linear(2 * channels, 2 * self.heads * self.points)
        self.output = nn.Linear(channels, channels)
        start = ring_offsets(self.heads, self.points).flatten()
        nn.init.zeros_(self.offsets.weight)
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)
        with torch.no_grad():
            self.offsets.bias.copy_(start.repeat(2))

    def forward(self, query, position, history, rows_xy):
        """query (B, Q, C), history (B, C, Y, X) in today's frame -> (B, Q, C).

        rows_xy (Q, 2 * heads * points * 2) holds a cell's own x, y once for each of its readings.
        """
        batch, count, channels = query.shape
        both = torch.cat([history.flatten(2).transpose(1, 2), query + position], dim=-1)
        shape = batch, count, 2, self.heads, self.points
        weights = self.weights(both).view(shape).float().softmax(-1)
        xy = (rows_xy + self.offsets(both).float()).view(*shape, 2)  # (B, Q, 2, H, P, 2)
        today = query.transpose(1, 2).reshape(history.shape)
        values = project_map(self.value, torch.cat([history, today.to(history.dtype)]))
        answer = attend(
            values,
            torch.cat([xy[:, :, 0], xy[:, :, 1]]),
            torch.cat([weights[:, :, 0], weights[:, :, 1]]),
        )  # (2B, Q, C)
        return self.output((answer[:batch] + answer[batch:]) / 2.0)


class SpatialCrossAttention(nn.Module):
    """Each cell reads the cameras that see its pillar, at a few heights per camera."""

    def __init__(self, config, depth_told=False):
        super().__init__()
        self.heads, self.layers = config.heads, len(config.pillar_heights_m)
        channels = config.channels
        self.value = nn.Linear(channels, channels)
        self.offsets = nn.Linear(channels, self.heads * self.layers * 2)
        self.weights = nn.Linear(channels, self.heads * self.layers)
        self.camera_weights = nn.Sequential(
            nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, self.heads * self.layers)
        )
        self.output = nn.Linear(channels, channels)
        for layer in (self.offsets, self.weights, self.camera_weights[2]):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            for head in range(self.heads):
                self.weights.bias[head * self.layers + head % self.layers] = 3.0
        self.gate = None
        if depth_told:
            # How much of a reading counts whatever its depth, and how much by its share of the
            # depth told there (FB-BEV, Li et al., ICCV 2023).
            self.gate = nn.Parameter(torch.tensor([[0.3, 2.0]]).repeat(self.heads, 1))

    def forward(self, query, features, views, geometry, depth_share=None):
        """query (B, Q, C), features (B, N, C, h, w), geometry (B, Q, K, 5), depth_share (B, Q, K,
        Z) -> (B, Q, C)."""
        batch, count, cameras = views.camera.shape
        height = features.shape[-2]
        offsets = self.offsets(query).view(batch, count, 1, self.heads, self.layers, 2).float()
        weights = self.weights(query).unsqueeze(2) + self.camera_weights(geometry)
        weights = weights.unflatten(-1, (self.heads, self.layers)).float().softmax(-1)
        # A point behind the camera has no pixel: it counts as zero, like one outside the image.
        weights = weights * (views.depth > 0.1).float().unsqueeze(3) * views.valid[..., None, None]
        if self.gate is not None:
            always, by_depth = self.gate.float().unsqueeze(-1).unbind(1)  # (heads, 1)
            weights = weights * (always + by_depth * depth_share.unsqueeze(3))
        xy = tall_xy(views.camera[..., None, None], views.xy.unsqueeze(3) + offsets, height)
        values = project_map(self.value, tall_map(features))  # bias fills zero rows
        values = values * tall_map(torch.ones_like(features[:, :, :1]))
        flat = batch, count * cameras, self.heads, self.layers
        answer = attend(values, xy.reshape(*flat, 2), weights.reshape(flat))
        seen_by = views.valid.sum(-1, keepdim=True).clamp(min=1.0)
        return self.output(answer.view(batch, count, cameras, -1).sum(2) / seen_by)


class EncoderLayer(nn.Module):
    """Temporal attention, spatial attention, feed-forward; norm after each."""

    def __init__(self, config, depth_told=False):
        super().__init__()
        channels = config.channels
        self.temporal = TemporalSelfAttention(config)
        self.spatial = SpatialCrossAttention(config, depth_told)
        self.feedforward = nn.Sequential(
            nn.Linear(channels, config.feedforward),
            nn.ReLU(),
            nn.Linear(config.feedforward, channels),
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))

    def forward(self, query, position, history, rows_xy, features, views, geometry, depth_share):
        """One pass over all cells: (B, Q, C) -> (B, Q, C)."""
        query = self.norms[0](query + self.temporal(query, position, history, rows_xy))
        query = self.norms[1](query + self.spatial(query, features, views, geometry, depth_share))
        return self.norms[2](query + self.feedforward(query))


class BevEncoder(nn.Module):
    """Learned cell queries, refined by `layers` passes over history and cameras."""

    def __init__(self, config, image, stride, depth_told=False):
        super().__init__()
        self.config, self.stride = config, stride
        self.image_size = image.width, image.height
        centres = cell_centres(config)
        self.embedding = nn.Parameter(_smooth_start(centres, config.channels))
        self.position = nn.Parameter(_smooth_start(centres, config.channels))
        self.layers = nn.ModuleList(EncoderLayer(config, depth_told) for _ in range(config.layers))
        heights = torch.tensor(config.pillar_heights_m)
        pillars = torch.cat(
            [
                centres[:, None].expand(-1, len(heights), -1),
                heights[None, :, None].expand(len(centres), -1, 1),
            ],
            dim=-1,
        )  # (Q, Z, 3)
        self.register_buffer('centres', centres, persistent=False)
        self.register_buffer('pillars', pillars, persistent=False)
        self.register_buffer('grid_xy', metres_to_cells(centres, config), persistent=False)

    def forward(
        self,
        features,
        image_from_ego,
        camera_mask,
        history_bev,
        history_valid,
        ego_prev_from_ego_now,
        depth=None,
    ):
        """Features (B, N, C, h, w), remembered BEV in *its own* frame -> bev (B, C, Y, X).

        depth (B, N, D, h, w): share of each bin of depth (`pyramid.bin_positions`).
        """
        batch, cells = features.shape[0], self.config.cells
        pillars = self.pillars.expand(batch, -1, -1, -1)
        projection = project_points(
            pillars, image_from_ego, camera_mask, self.image_size, self.stride
        )
        views = best_views(projection, self.config.cameras_per_cell)
        geometry = self._geometry(views)  # (B, Q, K, 5)
        depth_share = None
        if depth is not None:
            depth_share = self._depth_share(depth.float(), views, focal_lengths(image_from_ego))
        query = self.embedding.expand(batch, -1, -1)  # (B, Q, C)
        blank = query.transpose(1, 2).reshape(batch, -1, cells, cells)
        warped = warp_history(history_bev, ego_prev_from_ego_now, self.centres, self.config)
        history = torch.where(history_valid.view(-1, 1, 1, 1) > 0.5, warped, blank)
        readings = 2 * self.config.heads * self.config.temporal_points
        rows_xy = self.grid_xy.repeat(1, readings)  # why rows: see `deformable._normalised`
        for layer in self.layers:
            query = layer(
                query, self.position, history, rows_xy, features, views, geometry, depth_share
            )
        return query.transpose(1, 2).reshape(batch, -1, cells, cells).float()

    def _depth_share(self, depth, views, focal):
        """How much of the depth told where a pillar's point appears is the point's own
        (B, Q, K, Z)."""
        bins, height = depth.shape[2], depth.shape[-2]
        xy = tall_xy(views.camera.unsqueeze(-1), views.xy, height)
        told = sample_map(tall_map(depth), xy)  # (B, D, Q, K, Z)
        own_focal = focal.gather(1, views.camera.flatten(1)).view(views.camera.shape)
        place = bin_positions(views.depth, own_focal.unsqueeze(-1), self.image_size[0], bins)
        return (told * share_of_bins(place, bins).permute(0, 4, 1, 2, 3)).sum(1)

    def _geometry(self, views):
        """How a cell looks in a camera (B, Q, K, 5): range, place in the image, size."""
        width, height = self.image_size[0] / self.stride, self.image_size[1] / self.stride
        depth = views.depth[..., 0].clamp(min=0.1)
        u, v = views.xy[..., 0, 0] / width - 0.5, views.xy[..., 0, 1] / height - 0.5
        tall = (views.xy[..., 0, 1] - views.xy[..., -1, 1]) / height
        seen = views.valid > 0.5
        return torch.stack(
            [
                torch.where(seen, depth.log() - 3.0, 0.0),
                u.clamp(-2, 2),
                v.clamp(-2, 2),
                tall.clamp(-2, 2),
                1.0 / depth.clamp(min=1.0),
            ],
            dim=-1,
        )
