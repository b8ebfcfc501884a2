"""One call of the node's ~/ask service."""

import os
from typing import Any

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
