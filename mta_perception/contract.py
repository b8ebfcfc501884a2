"""What training, export and node must agree on.  Imports nothing.

Frames: `ego` is ROS base_link (x forward, y left, z up, metres, REP 103), which is also the
nuScenes ego frame; `lidar` is nuScenes LIDAR_TOP; `global` the nuScenes map frame = ROS `map`/odom
frame.
"""

CONTRACT_VERSION = 1

# The order is part of every trained model (BEVFormer indexes camera embeddings by it).
CAMERAS = (
    'cam_front',
    'cam_front_right',
    'cam_front_left',
    'cam_back',
    'cam_back_left',
    'cam_back_right',
)

# BEVFormer's label order; it differs from the nuScenes devkit's.
CLASSES = (
    'car',
    'truck',
    'construction_vehicle',
    'bus',
    'trailer',
    'barrier',
    'motorcycle',
    'bicycle',
    'pedestrian',
    'traffic_cone',
)

# Evaluation range per class, nuScenes detection_cvpr_2019 [m].
CLASS_RANGE_M = {
    'car': 50.0,
    'truck': 50.0,
    'construction_vehicle': 50.0,
    'bus': 50.0,
    'trailer': 50.0,
    'barrier': 30.0,
    'motorcycle': 40.0,
    'bicycle': 40.0,
    'pedestrian': 40.0,
    'traffic_cone': 30.0,
}

# RGB used wherever a class is drawn.
CLASS_COLOURS = {
    'car': (255, 158, 0),
    'truck': (255, 99, 71),
    'construction_vehicle': (233, 150, 70),
    'bus': (255, 127, 80),
    'trailer': (255, 140, 0),
    'barrier': (112, 128, 144),
    'motorcycle': (255, 61, 99),
    'bicycle': (220, 20, 60),
    'pedestrian': (60, 120, 255),
    'traffic_cone': (47, 200, 79),
}

# Which detections a new model's manifest tells the node to publish, and so which are captioned.
DECODE = {'score_threshold': 0.2, 'max_detections': 100}

BASE_FRAME = 'base_link'


class BoxCode:
    """Last axis of `boxes`: a box in the ego frame at the reference stamp."""

    CENTER = slice(0, 3)  # x, y, z of the geometric centre [m]
    SIZE = slice(3, 6)  # length, width, height [m]
    HEADING = slice(6, 8)  # sin, cos of the yaw about z
    VELOCITY = slice(8, 10)  # vx, vy over ground, axes of the ego frame [m/s]
    WIDTH = 10


def optical_frame(camera: str) -> str:
    """TF frame of a camera: x right, y down, z forward (REP 103 optical)."""
    return f'{camera}_optical'


def nuscenes_channel(camera: str) -> str:
    """nuScenes sensor channel of a contract camera, `cam_front` -> `CAM_FRONT`."""
    return camera.upper()
