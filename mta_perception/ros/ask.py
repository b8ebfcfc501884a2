"""One call of the node's ~/ask service."""

import os
from typing import Any

import numpy as np

from mta_perception.answers import Answer, AnsweredBox
from mta_perception.ros.environment import prepare


def ask_node(instruction: str, node_name: str = '/mta_perception', timeout_s: float = 10.0) -> Any:
    """The Ask response of the running node.  Raises RuntimeError where none answers in time."""
    prepare()
    from mta_msgs.srv import Ask
    import rclpy

    rclpy.init()
    node = rclpy.create_node('mta_ask')
    try:
        service = f'{node_name.rstrip("/")}/ask'
        client = node.create_client(Ask, service)
        if not client.wait_for_service(timeout_sec=timeout_s):
            raise RuntimeError(
                f'no service {service} within {timeout_s:.0f} s. Is the node running, under this '
                f'name and in ROS_DOMAIN_ID={os.environ.get("ROS_DOMAIN_ID", "0")}? '
                'Name it with --node.'
            )
        future = client.call_async(Ask.Request(instruction=instruction))
        rclpy.spin_until_future_complete(node, future, timeout_sec=timeout_s)
        if not future.done():
            raise RuntimeError(
                f'{service} did not answer within {timeout_s:.0f} s; '
                'give it longer with --timeout.'
            )
        return future.result()
    finally:
        node.destroy_node()
        rclpy.shutdown()


def answer_of(response: Any) -> tuple[Answer, float]:
    """(Answer of a successful Ask response, half the side of its mask [m]).

    Boxes of more than one stamp are a track.
    """
    stamp_ns = _ns(response.boxes.header.stamp)
    boxes = tuple(_box(one) for one in response.boxes.detections)
    is_track = len({one.stamp_ns for one in boxes}) > 1
    grid = response.bev_mask
    mask = None
    if grid.info.width:
        mask = np.array(grid.data).reshape(grid.info.height, grid.info.width) > 0
    span = _ns(response.span_start), _ns(response.span_end)
    found = Answer(
        response.text,
        stamp_ns=stamp_ns,
        boxes=() if is_track else boxes,
        track=boxes if is_track else (),
        span_ns=span if any(span) else None,
        mask=mask,
    )
    return found, grid.info.resolution * grid.info.width / 2.0


def _box(detection: Any) -> AnsweredBox:
    center, size = detection.bbox.center, detection.bbox.size
    yaw = 2.0 * np.arctan2(center.orientation.z, center.orientation.w)
    place = center.position.x, center.position.y, center.position.z
    sizes = size.x, size.y, size.z
    box = np.array([*place, *sizes, np.sin(yaw), np.cos(yaw), 0.0, 0.0], np.float32)
    best = detection.results[0].hypothesis
    return AnsweredBox(box, best.class_id, best.score, detection.id, _ns(detection.header.stamp))


def _ns(stamp: Any) -> int:
    return int(stamp.sec * 1_000_000_000 + stamp.nanosec)
