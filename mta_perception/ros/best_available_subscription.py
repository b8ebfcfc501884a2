"""A subscription that hears every publisher, and reliably where all of them offer it.

Best effort is heard from everybody, but of six cameras whose process runs on Fast DDS' small
default segment half the images are lost on the way; reliable is not heard from drivers that
publish with sensor data QoS.  So the publishers decide.
"""

from rcl_interfaces.msg import SetParametersResult

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ModuleNotFoundError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

# Humble has no best_available; there the parameter is system_default.
UNSETTLED = getattr(ReliabilityPolicy, 'BEST_AVAILABLE', ReliabilityPolicy.SYSTEM_DEFAULT)
RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT


class BestAvailableSubscription:
    """Keep last, volatile.  Call `follow_publishers` now and then, in the executor's thread.

    The parameter qos_overrides.<topic>.subscription.reliability is best_available by default
    (system_default on Humble); reliable or best_effort settles it for good.
    """

    def __init__(self, node, message_type, topic, callback, depth):
        self._node, self._kind, self._callback, self._depth = node, message_type, callback, depth
        self._topic = node.resolve_topic_name(topic)
        self._follows = False  # the publishers decide, not a parameter
        # Where nobody publishes yet: whoever begins with best effort loses his first images only.
        self._reliability = self._offered() or RELIABLE
        self._subscription = self._subscribe()

    def follow_publishers(self):
        """Subscribe anew where the publishers offer something else by now."""
        offered = self._offered()
        if self._follows and offered not in (None, self._reliability):
            self._reliability = offered
            self.close()
            self._subscription = self._subscribe()

    def close(self):
        """End the subscription."""
        self._node.destroy_subscription(self._subscription)

    def _offered(self):
        """What all publishers offer; None where there are none."""
        publishers = self._node.get_publishers_info_by_topic(self._topic)
        if not publishers:
            return None
        reliable = all(one.qos_profile.reliability == RELIABLE for one in publishers)
        return RELIABLE if reliable else BEST_EFFORT

    def _subscribe(self):
        qos = QoSProfile(depth=self._depth, reliability=UNSETTLED)
        return self._node.create_subscription(
            self._kind,
            self._topic,
            self._callback,
            qos,
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=self._on_incompatible, use_default_callbacks=False
            ),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(
                callback=self._settle
            ),
        )

    def _settle(self, qos):
        """The reliability in force, after the parameters have had their say."""
        self._follows = qos.reliability == UNSETTLED
        if self._follows:
            qos.reliability = self._reliability
        return SetParametersResult(successful=True)

    def _on_incompatible(self, event):
        if not self._follows:
            self._node.get_logger().warning(
                f'{self._topic}: a publisher does not offer the QoS that qos_overrides asks for '
                f'({event.last_policy_kind!r}); nothing will be heard from it'
            )
