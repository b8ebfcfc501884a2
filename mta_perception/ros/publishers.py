"""The node's publishers, and what goes out on them after a step.

Publishers are lifecycle publishers: silent unless the node is active.  Publishing from worker
threads is safe in rclpy.
"""

import cv2
from diagnostic_msgs.msg import DiagnosticArray
from mta_msgs.msg import HistoryState, ObjectCaptionArray
from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String
from vision_msgs.msg import Detection3DArray, LabelInfo
from visualization_msgs.msg import Marker, MarkerArray

from mta_perception.contract import CLASSES
from mta_perception.ros import conversions, diagnostics
from mta_perception.ros.answer_markers import answer_markers
from mta_perception.ros.markers import Markers

CLEARING_S = 0.3  # patience with readers that are to clear their screens


class Outputs:
    """Results in, messages out; made once for the life of the node."""

    def __init__(self, node):
        self._node = node
        self._detections = self._publisher(Detection3DArray, '~/detections')
        self._captions = self._publisher(ObjectCaptionArray, '~/captions')
        self._caption_text = self._publisher(String, '~/caption_text')
        self._markers = self._publisher(MarkerArray, '~/markers')
        self._overlay = self._publisher(CompressedImage, '~/overlay/compressed', depth=2)
        self._labels = self._publisher(LabelInfo, '~/labels', depth=1, latched=True)
        self._history = self._publisher(HistoryState, '~/history')
        self._latency = self._publisher(DiagnosticArray, '~/latency')
        self._answer_markers = self._publisher(MarkerArray, '~/answer_markers')
        self._drawn = Markers()

    def _publisher(self, message_type, topic, depth=10, latched=False):
        qos = QoSProfile(
            depth=depth,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=(
                DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
            ),
        )
        return self._node.create_lifecycle_publisher(
            message_type,
            topic,
            qos,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def wants_overlay(self):
        """Somebody listens to the overlay."""
        return self._overlay.get_subscription_count() > 0

    def wants_objects(self):
        """Somebody listens to what shows objects with words."""
        shown = self._markers, self._caption_text
        return any(publisher.get_subscription_count() for publisher in shown)

    def wants_sentences(self):
        """Somebody listens to anything that has sentences in it."""
        listened = self._captions.get_subscription_count() > 0
        return listened or self.wants_objects() or self.wants_overlay()

    def publish_labels(self, threshold):
        """What the class ids mean; latched, so once is enough."""
        stamp = self._node.get_clock().now().nanoseconds
        self._labels.publish(conversions.labels_message(stamp, threshold))

    def publish_detections(self, result, frame_id):
        """~/detections and ~/history of a StepResult, also where it found nothing; each where
        anybody listens."""
        detections, memory = result.detections, result.history
        if self._detections.get_subscription_count():
            self._detections.publish(
                conversions.detections_message(
                    result.stamp_ns,
                    frame_id,
                    detections.boxes,
                    [CLASSES[label] for label in detections.labels],
                    detections.scores,
                    result.track_ids,
                )
            )
        if self._history.get_subscription_count():
            self._history.publish(
                conversions.history_message(
                    result.stamp_ns,
                    frame_id,
                    memory.length,
                    memory.age_s if memory.valid else None,
                    memory.resets,
                    memory.last_reset_ns,
                    memory.last_reason,
                )
            )

    def publish_markers(self, stamp_ns, frame_id, objects, most_captions):
        """~/markers of DrawnObjects, where anybody listens."""
        if self._markers.get_subscription_count():
            self._markers.publish(self._drawn.message(stamp_ns, frame_id, objects, most_captions))

    def publish_words_again(self, stamp_ns, frame_id, objects, most_captions):
        """The words of ~/markers alone, where new sentences came for the boxes shown."""
        if self._markers.get_subscription_count():
            self._markers.publish(self._drawn.words(stamp_ns, frame_id, objects, most_captions))

    def publish_caption_text(self, objects):
        """~/caption_text of DrawnObjects, where anybody listens."""
        if self._caption_text.get_subscription_count():
            self._caption_text.publish(String(data=conversions.caption_lines(objects)))

    def publish_captions(self, stamp_ns, frame_id, entries, true_ns):
        """~/captions, where anybody listens; the rest as conversions.captions_message takes it."""
        if self._captions.get_subscription_count():
            self._captions.publish(
                conversions.captions_message(stamp_ns, frame_id, entries, true_ns)
            )

    def publish_overlay(self, stamp_ns, frame_id, picture, quality):
        """picture: (H, W, 3) RGB."""
        encoded, jpeg = cv2.imencode(
            '.jpg', cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
        )
        if encoded:
            self._overlay.publish(conversions.jpeg_message(stamp_ns, frame_id, jpeg))

    def publish_latency(self, stamp_ns, frame_id, spans_ms, latency):
        """~/latency, where anybody listens: times of a frame and of the newest ones.

        spans_ms: stage -> milliseconds of the frame stamped stamp_ns.  latency: latency.Latency.
        """
        if self._latency.get_subscription_count():
            values = {f'{stage}_ms': float(value) for stage, value in spans_ms.items()}
            status = 'latency', diagnostics.OK, latency.stamps, {**values, **latency.values()}
            self._latency.publish(
                diagnostics.diagnostics_message(
                    conversions.header(stamp_ns, frame_id), self._node.get_name(), '', [status]
                )
            )

    def publish_answer(self, answer, frame_id, half_extent_m):
        """~/answer_markers of an answers.Answer, where anybody listens."""
        if self._answer_markers.get_subscription_count():
            self._answer_markers.publish(answer_markers(answer, frame_id, half_extent_m))

    def clear_markers(self):
        """Take everything off the screen, before the node falls silent."""
        self._markers.publish(self._drawn.forget())
        if self._answer_markers.get_subscription_count():
            self._answer_markers.publish(MarkerArray(markers=[Marker(action=Marker.DELETEALL)]))
        self._markers.wait_for_all_acked(Duration(seconds=CLEARING_S))
