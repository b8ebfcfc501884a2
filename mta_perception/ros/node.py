"""`perception_node`: six cameras in, boxes and captions out, as a ROS 2 lifecycle node.

This file is the shell: lifecycle, services, /diagnostics, start and end of the process.  What
comes in is in subscriptions.py, what runs in perception_workers.py, what goes out in
publishers.py.
"""

import gc
import signal
import sys
import threading
import time
import traceback
from typing import NamedTuple, Optional

from diagnostic_msgs.msg import DiagnosticArray
import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import Trigger

from mta_perception.pipeline.ego_motion import EgoMotion
from mta_perception.reasons import Code, Reason
from mta_perception.ros import diagnostics, parameters
from mta_perception.ros.conversions import header
from mta_perception.ros.environment import prepare
from mta_perception.ros.given_parameters import check_names
from mta_perception.ros.perception_workers import PerceptionWorkers
from mta_perception.ros.publishers import Outputs
from mta_perception.ros.questions import Questions
from mta_perception.ros.subscriptions import Inputs
from mta_perception.runtime.asking import OnnxAsker
from mta_perception.runtime.captioner import Captioner
from mta_perception.runtime.manifest import Manifest
from mta_perception.runtime.onnx import OnnxDetector
from mta_perception.runtime.speech import open_captioner
from mta_perception.share import model_directory
from mta_perception.workers.tally import Guard

NODE_NAME = 'mta_perception'
ANSWER_S = 0.5  # between the end of a node and that of its process
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
DONE, FAILED, WRONG_USAGE = 0, 1, 2


class LoadedModel(NamedTuple):
    """A model directory with its graphs open."""

    manifest: Manifest
    detector: OnnxDetector
    captioner: Optional[Captioner]
    asker: Optional[OnnxAsker] = None  # None: it answers no questions


def load_model(settings):
    """LoadedModel for a parameters.Parameters.  Raises ValueError, OSError."""
    manifest = Manifest.load(model_directory(settings.model))
    says = settings.captions and settings.max_captions > 0 and manifest.captioner is not None
    language, engine = parameters.language_settings(settings), parameters.engine_settings(settings)
    # First: what a foreign language model lacks is said before the detector's seconds.
    captioner = open_captioner(manifest, settings.caption_threads, language) if says else None
    threads = parameters.detector_threads(settings, parameters.cores())
    detector = OnnxDetector(manifest, threads, engine)
    asker = OnnxAsker(manifest, settings.caption_threads) if manifest.tasks else None
    return LoadedModel(manifest, detector, captioner, asker)


class PerceptionNode(LifecycleNode):
    """See the head of this file; `start` configures and activates it."""

    def __init__(self):
        super().__init__(NODE_NAME)
        parameters.declare(self)
        self._check_given_parameters()
        self.add_on_set_parameters_callback(
            lambda changes: parameters.check_changes(changes, self._settings is not None)
        )
        self._guard = Guard(self.get_logger().error)
        self._settings = self._model = self._inputs = self._perception = None
        self._began_s, self.ended_s = time.monotonic(), None
        self._outputs, self._had_twins = Outputs(self), 0
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self.create_timer(
            1.0 / self.get_parameter('diagnostics_rate').value,
            self._guard('diagnostics', self._publish_diagnostics),
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        self.create_service(Trigger, '~/reset_history', self._on_reset_history)
        self._questions = Questions(self, self._outputs)

    def _check_given_parameters(self):
        """Raises ValueError for a misspelt one; names those that are nothing of this node."""
        # rclpy has no public list of what -p and --params-file gave; a test holds the name.
        given = self._parameter_overrides
        declared = {name for name in given if self.has_parameter(name)}
        known = declared.union(parameters.NAMES, ('use_sim_time',))
        foreign = check_names(given, sorted(known))
        if foreign:
            self.get_logger().warning(f'not a parameter of this node: {", ".join(foreign)}')

    def start(self):
        """Configure and activate; False where one of them fails, which the log then explains."""
        return self.trigger_configure() == SUCCESS and self.trigger_activate() == SUCCESS

    def close(self):
        """End workers and subscriptions; for the end of the process."""
        self._stop_running()

    def guarded(self, name, function):
        """`function` that cannot end the node: see tally.Guard."""
        return self._guard(name, function)

    # -- lifecycle

    def on_configure(self, state):
        """Read the parameters, load the model."""
        try:
            settings = parameters.read(self)
            self._model = load_model(settings)
            detector = self._model.detector
            seconds = detector.warm_up()
        except (ValueError, OSError) as error:
            return self._fail(f'cannot be configured: {error}')
        except Exception:  # rclpy would turn it into a silent failure
            return self._fail(f'cannot be configured:\n{traceback.format_exc()}')
        self.get_logger().info(f'detector in {detector.engine}, warm after {seconds:.2f} s')
        self._settings = settings
        return super().on_configure(state)

    def on_activate(self, state):
        """Start the workers, then listen."""
        result = super().on_activate(state)
        try:
            self._start_running()
        except Exception as error:
            self._stop_running()
            super().on_deactivate(state)
            expected = isinstance(error, ValueError)
            return self._fail(
                f'cannot be activated: {error if expected else traceback.format_exc()}'
            )
        manifest = self._model.manifest
        self.get_logger().info(
            f'active: model {manifest.name} from {manifest.directory}, '
            f'{self._settings.transport} images, ego motion from '
            f'{self._settings.ego_motion_source}'
        )
        return result

    def on_deactivate(self, state):
        """Stop listening, end the workers, clear the screen."""
        self._stop_running()
        return super().on_deactivate(state)

    def on_cleanup(self, state):
        """Forget the model and the parameters."""
        self._settings = self._model = None
        gc.collect()  # see _stop_running
        return super().on_cleanup(state)

    def on_shutdown(self, state):
        """The end: the process follows."""
        self._stop_running()
        self._settings = self._model = None
        self.ended_s = time.monotonic()
        return super().on_shutdown(state)

    def has_ended(self):
        """Whether it was shut down, and who asked for it had the time to hear the answer."""
        return self.ended_s is not None and time.monotonic() - self.ended_s > ANSWER_S

    def _twins(self):
        """How many other nodes have this node's full name."""
        own = self.get_name(), self.get_namespace()
        return max(0, self.get_node_names_and_namespaces().count(own) - 1)

    def _fail(self, words):
        self.get_logger().error(words)
        return FAILURE

    def _start_running(self):
        settings = self._settings
        ego_motion = EgoMotion(parameters.ego_motion_config(settings))
        self._perception = PerceptionWorkers(
            self._model,
            settings,
            ego_motion,
            self._outputs,
            self._guard,
            self.get_logger().warning,
            lambda: self.get_clock().ros_time_is_active,
        )
        self._questions.start(self._model, settings, self._perception)
        self._inputs = Inputs(self, settings, ego_motion, self._guard, self._perception)
        self._outputs.publish_labels(self._perception.score_threshold)

    def _stop_running(self):
        if self._inputs is not None:
            self._inputs.close()
        self._questions.stop()
        if self._perception is not None:
            self._perception.close()
            self._outputs.clear_markers()
        self._inputs = self._perception = None
        # Workers, frames and model know each other: left to itself the collector would come some
        # activations, or models of hundreds of megabytes, later.
        gc.collect()

    # -- services

    def _on_reset_history(self, _, response):
        response.success = self._perception is not None
        if response.success:
            self._perception.ask_for_reset(Reason(Code.RESET_REQUESTED))
            response.message = 'the memory is dropped before the next frame'
        else:
            response.message = 'the node is not running; activate it first'
        return response

    # -- diagnostics

    def _publish_diagnostics(self):
        twins = self._twins()
        if twins and not self._had_twins:
            self.get_logger().error(diagnostics.twin_words(twins))
        self._had_twins = twins
        wrong_transport = self._wrong_transport() if self._inputs is not None else {}
        if not self._diagnostics.get_subscription_count():
            return
        statuses = [diagnostics.process_status(self._guard.errors, self._began_s, twins)]
        if self._inputs is not None:
            statuses = (
                diagnostics.running_statuses(
                    self._inputs, self._perception, self._questions.worker, wrong_transport
                )
                + statuses
            )
        hardware_id = self._model.manifest.name if self._model else ''
        stamp = self.get_clock().now().nanoseconds
        self._diagnostics.publish(
            diagnostics.diagnostics_message(
                header(stamp, ''), self.get_name(), hardware_id, statuses
            )
        )

    def _wrong_transport(self):
        """camera -> Reason, for cameras whose images are published, but the other way."""
        reasons = {}
        for camera, *topics in self._inputs.image_topics():
            ours, other = (self.resolve_topic_name(topic) for topic in topics)
            if camera in self._inputs.rig.frames_seen() or self.count_publishers(ours):
                continue
            if self.count_publishers(other):
                wanted = 'raw' if self._settings.transport == 'compressed' else 'compressed'
                reasons[camera] = Reason(
                    Code.WRONG_TRANSPORT,
                    f'nobody publishes {ours}, but {other} is there: set the '
                    f'parameter transport to {wanted}',
                )
        if reasons:
            self._inputs.refused.count_reason(next(iter(reasons.values())), 'images')
        return reasons


def main(args=None):
    """Run the node until SIGINT or SIGTERM; returns the exit code."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        prepare()
        # Not rclpy's own handlers: they take the context away from under the workers.
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = PerceptionNode()
    except OSError as error:
        return _complain(error, FAILED)
    except (
        InvalidParameterTypeException,
        InvalidParameterValueException,
        RuntimeError,
        ValueError,
    ) as error:
        # RuntimeError: rclpy's for --ros-args and QoS overrides that it cannot read. ValueError: a
        # misspelt parameter.
        return _complain(error, WRONG_USAGE)
    try:
        return _spin(node, stop)
    finally:
        node.close()
        node.destroy_node()
        rclpy.try_shutdown()


def _complain(error, code):
    print(f'{NODE_NAME}: {error}', file=sys.stderr)
    return code


def _spin(node, stop):
    """Until `stop` is set; whatever a callback raises is counted and shown, not fatal."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    spin_once = node.guarded('executor', executor.spin_once)
    try:
        if node.get_parameter('autostart').value and not node.start():
            return FAILED
        while not stop.is_set() and rclpy.ok() and not node.has_ended():
            spin_once(0.2)
        return DONE
    finally:
        executor.shutdown()


if __name__ == '__main__':
    sys.exit(main())
