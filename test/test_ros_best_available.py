"""A subscription that follows what publishers offer: nobody goes unheard."""

import time

import pytest

pytest.importorskip('rclpy')

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import String

from mta_perception.commands.processes import free_domain
from mta_perception.ros.best_available_subscription import BestAvailableSubscription

RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT
TOPIC = '/somewhere/image'
WAIT_S = 20.0


class Listener:
    """A node with one subscription, and publishers of its own to try it."""

    def __init__(self, overrides=()):
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=free_domain())
        self.node = rclpy.create_node(
            'listener', context=self.context, parameter_overrides=list(overrides)
        )
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.heard = set()
        self.subscription = BestAvailableSubscription(
            self.node, String, TOPIC, lambda message: self.heard.add(message.data), depth=5
        )

    def publisher(self, reliability):
        return self.node.create_publisher(
            String, TOPIC, QoSProfile(depth=5, reliability=reliability)
        )

    def hears(self, text, publisher, within_s=WAIT_S):
        """Publish text until it is heard; False where it never is."""
        end = time.monotonic() + within_s
        while time.monotonic() < end and text not in self.heard:
            self.subscription.follow_publishers()
            publisher.publish(String(data=text))
            self.executor.spin_once(timeout_sec=0.05)
        return text in self.heard

    def offered(self):
        return {
            one.qos_profile.reliability for one in self.node.get_subscriptions_info_by_topic(TOPIC)
        }

    def close(self):
        self.subscription.close()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def listener(request):
    made = Listener(getattr(request, 'param', ()))
    yield made
    made.close()


@pytest.mark.parametrize('reliability', [RELIABLE, BEST_EFFORT])
def test_a_publisher_of_either_kind_is_heard(listener, reliability):
    assert listener.hears('first', listener.publisher(reliability))
    assert listener.offered() == {reliability}


def test_one_best_effort_publisher_among_reliable_ones_turns_it_back(listener):
    reliable, best_effort = listener.publisher(RELIABLE), listener.publisher(BEST_EFFORT)
    assert listener.hears('from the reliable one', reliable)
    assert listener.hears('from the other', best_effort)
    assert listener.offered() == {BEST_EFFORT}
    listener.node.destroy_publisher(best_effort)
    assert listener.hears('the reliable one again', reliable)


@pytest.mark.parametrize(
    'listener',
    [[Parameter(f'qos_overrides.{TOPIC}.subscription.reliability', value='reliable')]],
    indirect=True,
)
def test_a_parameter_settles_it(listener):
    assert not listener.hears('best effort', listener.publisher(BEST_EFFORT), within_s=1.5)
    assert listener.offered() == {RELIABLE}
