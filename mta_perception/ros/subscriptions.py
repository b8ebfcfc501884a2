"""Everything the node hears: images, CameraInfo, transforms, odometry; frame sets come out.

All callbacks run in the executor's thread and only hand over: no image is decoded in it.  Receive
times are of the steady clock, since /clock may stand still, jump or be absent; stamps are only
ever those of the messages.
"""

from collections import deque
from functools import partial
import time
from typing import NamedTuple

from nav_msgs.msg import Odometry
import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from mta_perception.contract import CAMERAS
from mta_perception.foreign_text import shown
from mta_perception.frames import FrameSet
from mta_perception.lens import lens_of
from mta_perception.pipeline.calibrations import Rig
from mta_perception.pipeline.camera_sync import CameraSync
from mta_perception.pipeline.frozen_pictures import FrozenPictures
from mta_perception.reasons import Code, Reason, Refused
from mta_perception.ros import conversions, parameters
from mta_perception.ros.best_available_subscription import BestAvailableSubscription
from mta_perception.workers.tally import Rate, Tally

POLL_S = 0.02
FOLLOW_PUBLISHERS_S = 0.5
SWITCH_NS = 1_000_000_000  # how far ahead the stamps of a link may lie that gave the poses before
MOST_UNPLACED = 500  # odometry messages: ten seconds at 50 Hz
POSES = 'odometry'  # source of refused poses, be they of odom or /tf


class Job(NamedTuple):
    """One frame set with all that a step needs of the moment it was complete."""

    frames: FrameSet
    calibrations: dict  # camera -> CameraCalibration
    complete_s: float  # steady clock


class Inputs:
    """The subscriptions of one activation."""

    def __init__(self, node, settings, ego_motion, guard, perception):
        """perception: PerceptionWorkers, which gets each image that may be used (`begin`) and each
        frame set (`offer`)."""
        self.settings = settings
        self.refused = Tally(node.get_logger().warning)  # messages that cannot be used, by Refusal
        self.sync = CameraSync(CAMERAS, parameters.sync_config(settings))
        self.ego_motion = ego_motion
        self.rig = Rig(settings.base_frame)
        self.unreadable = dict.fromkeys(CAMERAS, 0)  # camera -> images
        self.odometry_rate = Rate()
        self.frame_sets = Rate()
        self._perception = perception
        self._node, self._guard = node, guard
        self._said_places = set()  # cameras
        self.frozen = {}  # camera -> Reason, while it sends the same picture
        self._pictures, self._resets_seen = FrozenPictures(), 0
        self._unplaced = deque(maxlen=MOST_UNPLACED)  # odometry of a frame whose mount is unknown
        self._moving_link, self._not_before = None, 0  # frame that carries poses on /tf; stamp
        self.rectified = self._image_kinds()
        self._subscriptions = self._subscribe()
        self._image_subscriptions = self._subscribe_images()
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._timers = [
            node.create_timer(POLL_S, guard('sync timer', self._poll), clock=clock),
            node.create_timer(
                FOLLOW_PUBLISHERS_S, guard('qos timer', self._follow_publishers), clock=clock
            ),
        ]

    def close(self):
        """End all subscriptions."""
        for timer in self._timers:
            self._node.destroy_timer(timer)
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        for subscription in self._image_subscriptions:
            subscription.close()

    def image_topics(self):
        """[(camera, topic we listen to, topic of the other transport)]."""
        endings = ('image_raw', 'image_raw/compressed')
        ours, other = endings if self.settings.transport == 'raw' else endings[::-1]
        return [
            (camera, f'{name}/{ours}', f'{name}/{other}')
            for camera, name in zip(CAMERAS, self.settings.cameras)
        ]

    # -- subscriptions

    def _subscribe(self):
        """What an image needs comes before the images: of what arrives at once the executor takes
        them last, so that the first image finds its camera_info, transform and pose."""
        subscriptions = [
            self._listen(TFMessage, '/tf_static', self._on_static, depth=100, latched=True),
            self._listen(TFMessage, '/tf', self._on_transforms, depth=100),
        ]
        if self.settings.ego_motion_source == 'odom':
            subscriptions.append(self._listen(Odometry, 'odom', self._on_odometry, depth=100))
        return subscriptions + [
            self._listen(
                CameraInfo, f'{name}/camera_info', partial(self._on_camera_info, camera), depth=5
            )
            for camera, name in zip(CAMERAS, self.settings.cameras)
        ]

    def _listen(self, message_type, topic, callback, depth, latched=False):
        """Best effort, keep last, so that every publisher is heard; latched ones need reliable."""
        qos = QoSProfile(
            depth=depth,
            reliability=ReliabilityPolicy.RELIABLE if latched else ReliabilityPolicy.BEST_EFFORT,
            durability=(
                DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
            ),
        )
        return self._node.create_subscription(
            message_type,
            topic,
            self._guard(topic, callback),
            qos,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def _subscribe_images(self):
        image_type = Image if self.settings.transport == 'raw' else CompressedImage
        return [
            BestAvailableSubscription(
                self._node,
                image_type,
                topic,
                self._guard(topic, partial(self._on_image, camera)),
                depth=5,
            )
            for camera, topic, _ in self.image_topics()
        ]

    def _follow_publishers(self):
        for subscription in self._image_subscriptions:
            subscription.follow_publishers()

    # -- callbacks, in the executor's thread

    def _on_image(self, camera, message):
        received_ns = time.monotonic_ns()
        convert = (
            conversions.image_from_raw
            if self.settings.transport == 'raw'
            else conversions.image_from_compressed
        )
        try:
            image = convert(camera, message)._replace(received_ns=received_ns)
        except Refused as error:
            self.unreadable[camera] += 1
            self.refused.count_reason(error.reason, f'image of {camera}')
            return
        self.rig.set_frame(camera, message.header.frame_id.lstrip('/'))
        self._say_places()
        frozen = self._frozen_fault(image)
        if frozen is not None:
            self.refused.count_reason(frozen, f'image of {camera}')
            self._hand_over(self.sync.poll(time.monotonic_ns()))
            return
        self._perception.begin(image)
        self._hand_over(self.sync.add(image, time.monotonic_ns()))
        fault = self.sync.stamp_fault(camera)
        if fault is not None:
            self.refused.count_reason(fault, f'image of {camera}')

    def _frozen_fault(self, image):
        """The Reason why an image is a frozen one, None where it is not."""
        if self.ego_motion.resets != self._resets_seen:
            self._resets_seen = self.ego_motion.resets
            self._pictures.clear()
        fault = self._pictures.fault(image, self.ego_motion.newest_place)
        if fault is None:
            self.frozen.pop(image.camera, None)
        else:
            self.frozen[image.camera] = fault
        return fault

    def _poll(self):
        self._hand_over(self.sync.poll(time.monotonic_ns()))

    def _hand_over(self, frame_sets):
        calibrations = self.rig.calibrations
        for frames in frame_sets:
            self.frame_sets.tick()
            unknown = {
                camera: self.rig.missing[camera]
                for camera in frames.images
                if camera not in calibrations
            }
            if unknown:
                images = {
                    camera: image
                    for camera, image in frames.images.items()
                    if camera not in unknown
                }
                frames = frames._replace(images=images, missing={**frames.missing, **unknown})
            self._perception.offer(Job(frames, calibrations, time.monotonic()))

    def _on_camera_info(self, camera, message):
        try:
            lens = lens_of(message, rectified=self.rectified[camera][0])
        except Refused as error:
            self.rig.refuse_lens(camera, error.reason)
            self.refused.count_reason(error.reason, f'camera_info of {camera}')
            return
        if self.rig.set_lens(camera, lens):
            changed = Reason(
                Code.CALIBRATION_CHANGED,
                f'now {lens.width}x{lens.height}, focal length '
                f'{lens.intrinsics[0, 0]:.1f} px; the new one is used. '
                'Is there a second publisher?',
            )
            self.refused.count_reason(changed, f'camera_info of {camera}')
        self._say_places()

    def _say_places(self):
        """Log each camera that looks elsewhere than its place once, and again when mended and
        broken."""
        faults = self.rig.out_of_place
        for camera in faults.keys() - self._said_places:
            self.refused.count_reason(faults[camera], camera)
        self._said_places = set(faults)

    def _image_kinds(self):
        """camera -> (whether its images are rectified, how we know)."""
        if self.settings.images != 'auto':
            found = self.settings.images == 'rectified', 'parameter images'
            return dict.fromkeys(CAMERAS, found)
        topics = {
            camera: self._node.resolve_topic_name(topic)
            for camera, topic, _ in self.image_topics()
        }
        return {
            camera: (conversions.shows_rectified(topic), f'topic {topic}')
            for camera, topic in topics.items()
        }

    def _on_static(self, message):
        for item in message.transforms:
            self._take_transform(item, '/tf_static')

    def _take_transform(self, item, topic):
        """Put a TransformStamped into the tree; False where it is refused."""
        parent, child = _frames_of(item)
        try:
            value = conversions.rigid_from_transform(item.transform)
            self.rig.set_transform(parent, child, value, static=topic == '/tf_static')
        except Refused as error:
            self._refuse_transform(error, topic, parent, child)
            return False
        return True

    def _on_odometry(self, message):
        child = message.child_frame_id.lstrip('/')
        child_from_ego = self._child_from_ego(child)
        if child_from_ego is None:
            self._unplaced.append(message)
            self._note_pose(
                self.ego_motion.refuse(
                    Code.ODOMETRY_FRAME,
                    f'its child_frame_id is {shown(child)}, which no transform links to '
                    f'{self.settings.base_frame}. Publish its mount on /tf_static, or set '
                    'base_frame.',
                )
            )
            return
        while self._unplaced:  # the mount came late: none of what came before it is lost
            held = self._unplaced.popleft()
            if held.child_frame_id == message.child_frame_id:
                self._add_odometry(held, child_from_ego)
        self._note_pose(self._add_odometry(message, child_from_ego))

    def _add_odometry(self, message, child_from_ego):
        """None, or the Reason why the pose is refused."""
        xyz, xyzw = message.pose.pose.position, message.pose.pose.orientation
        return self.ego_motion.add_quaternion(
            conversions.stamp_ns(message.header.stamp),
            (xyz.x, xyz.y, xyz.z),
            (xyzw.x, xyzw.y, xyzw.z, xyzw.w),
            child_from_ego,
        )

    def _child_from_ego(self, child):
        """(4, 4) from base_frame to the frame that odometry is of, '' being ours; None where
        nothing links them."""
        base = self.settings.base_frame
        return self.rig.tree.lookup(child, base) if child not in ('', base) else np.eye(4)

    def _on_transforms(self, message):
        """Mounts, and poses from the moving link lowest in the chain odom_frame -> base_frame, at
        its stamps.

        Links above it (map -> odom, say) count with their newest value: they drift slowly.
        """
        for item in message.transforms:
            if self._take_transform(item, '/tf') and self.settings.ego_motion_source == 'tf':
                self._take_pose(item)

    def _take_pose(self, item):
        odom, base, tree = self.settings.odom_frame, self.settings.base_frame, self.rig.tree
        _, child = _frames_of(item)
        if child != tree.moving_child_below(odom, base):
            return
        stamp = conversions.stamp_ns(item.header.stamp)
        if child != self._moving_link:
            # Stamps of another link may lie ahead of these: they are not out of order for that.
            self._moving_link, self._not_before = child, self.ego_motion.newest_stamp_ns or 0
        if 0 <= self._not_before - stamp < SWITCH_NS:
            return
        world_from_ego = tree.lookup(odom, base)
        if world_from_ego is not None:
            self._note_pose(self.ego_motion.add(stamp, world_from_ego))

    def _refuse_transform(self, error, topic, parent, child):
        code, detail = error.reason
        self.refused.count_reason(
            Reason(code, f'{child} in {parent}: {detail}'), f'transform of {topic}'
        )

    def _note_pose(self, reason):
        """reason: why the pose was refused, None where it was taken."""
        if reason is None or reason.code is Code.DUPLICATE_STAMP:  # said twice is no fault
            self.odometry_rate.tick()
        else:
            self.refused.count_reason(reason, POSES)


def _frames_of(item):
    """(parent, child) of a TransformStamped."""
    return item.header.frame_id.lstrip('/'), item.child_frame_id.lstrip('/')
