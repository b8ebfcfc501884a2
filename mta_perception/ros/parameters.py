"""The node's parameters: name, meaning, unit and range stand once, here.

Defaults of what config.py has are config.py's.  `params/perception.yaml` shows the same values to
people; a test holds it to them.  Parameters are read when the node is configured; a change while
it runs is refused with a reason.
"""

import os
from typing import NamedTuple

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)

from mta_perception.config import EgoMotionConfig, PipelineConfig, SyncConfig
from mta_perception.contract import BASE_FRAME, CAMERAS
from mta_perception.runtime.engines import ENGINES, EngineSettings
from mta_perception.runtime.engines import PRECISIONS as PRECISIONS_OF_DETECTOR
from mta_perception.runtime.speech import PRECISIONS, LanguageSettings
from mta_perception.sentences import MAX_AGE_S
from mta_perception.workers.look_ahead import MOST_S

BY_CORES, MOST_THREADS = 0, 4  # of detector_threads; more were never measured
MODELS_OWN = -1.0  # score_threshold: take the model's; ROS parameters know no None


class Spec(NamedTuple):
    """One parameter as it is declared."""

    name: str
    default: object
    description: str  # with its unit
    low: object = None  # inclusive; None: no range
    high: object = None
    choices: tuple = ()  # of a string; empty: any


SPECS = (
    Spec(
        'autostart', True, 'Configure and activate at start; false: wait for a lifecycle manager.'
    ),
    Spec(
        'model',
        'nano',
        'Name of a model under models/, or the path of a directory with a manifest.yaml.',
    ),
    Spec(
        'cameras',
        list(CAMERAS),
        'Topic names of the six cameras, in the order of the model: '
        'front, front right, front left, back, back left, back right.',
    ),
    Spec(
        'transport',
        'compressed',
        'raw: <cam>/image_raw (sensor_msgs/Image); compressed: '
        '<cam>/image_raw/compressed (jpeg or png).',
        choices=('raw', 'compressed'),
    ),
    Spec(
        'images',
        'auto',
        'raw: as the sensor saw them, k and d of camera_info hold; rectified: p holds, nothing '
        'is undistorted; auto: rectified where the topic (remapped) is called image_rect..., '
        'else raw.',
        choices=('auto', 'raw', 'rectified'),
    ),
    Spec(
        'base_frame',
        BASE_FRAME,
        'Frame of the vehicle: x forward, y left, z up, on the ground '
        'under the rear axle. Detections are in it.',
    ),
    Spec(
        'ego_motion_source',
        'odom',
        'odom: topic odom (nav_msgs/Odometry); tf: /tf from odom_frame to base_frame.',
        choices=('odom', 'tf'),
    ),
    Spec(
        'odom_frame',
        'odom',
        'Frame fixed to the ground; only read when ego_motion_source is '
        'tf. Bags made from nuScenes call it map.',
    ),
    Spec(
        'level',
        'auto',
        "auto: the bird's-eye view lies level by roll and pitch of the ego motion, whatever the "
        'road does; off: it leans with base_frame. Detections are in base_frame either way.',
        choices=('auto', 'off'),
    ),
    Spec(
        'min_cameras',
        PipelineConfig.min_cameras,
        'Cameras that a step needs at least; with fewer it is dropped.',
        1,
        6,
    ),
    Spec(
        'max_spread_s',
        SyncConfig.max_spread_s,
        'Largest difference between the stamps of one set [s], a last resort: when in a round '
        'each camera fires is learnt.',
        0.001,
        1.0,
    ),
    Spec(
        'max_wait_s',
        SyncConfig.max_wait_s,
        'Longest wait for a late camera after the last image of a set has '
        'come [s]; an image that is sent again may take one period.',
        0.001,
        2.0,
    ),
    Spec(
        'dead_after_s',
        SyncConfig.dead_after_s,
        'A camera without an image for this long is waited for no more and '
        'its sector is reported as blind [s].',
        0.05,
        30.0,
    ),
    Spec(
        'odometry_wait_s',
        0.1,
        'Longest wait for odometry that comes after the images [s].',
        0.0,
        1.0,
    ),
    Spec(
        'odometry_max_extrapolation_s',
        EgoMotionConfig.max_extrapolation_s,
        'How far beyond its newest pose odometry is '
        'extrapolated [s]; farther, the frame is dropped.',
        0.0,
        0.5,
    ),
    Spec(
        'history_max_gap_s',
        PipelineConfig.history_max_gap_s,
        'Time without a frame after which the memory is dropped [s].',
        0.5,
        10.0,
    ),
    Spec(
        'score_threshold',
        MODELS_OWN,
        "Score below which an object is not reported, 0..1; -1: the model's own.",
        -1.0,
        1.0,
    ),
    Spec(
        'captions',
        True,
        'Sentences about the objects; false: none, and no language model is loaded.',
    ),
    Spec(
        'language_directory',
        '',
        'Directory with the weights of the language model, where the model speaks with a foreign '
        'one (Llama, InternLM2); the hash of each file must be that of the manifest.',
    ),
    Spec(
        'language_device',
        'cpu',
        'Where a foreign language model runs: cpu, cuda, or cuda:1 and so on.',
    ),
    Spec(
        'language_precision',
        'auto',
        'Of a foreign language model; auto: float32 on a CPU, bfloat16 on a GPU.',
        choices=PRECISIONS,
    ),
    Spec(
        'max_captions',
        24,
        'Objects captioned in one pass, of those whose sentence is wrong by now or missing: '
        'the nearest and fastest-changing first; fewer on a busy machine; 0: no captions.',
        0,
        100,
    ),
    Spec(
        'caption_max_age_s',
        MAX_AGE_S,
        'Age from which a sentence is not shown any more where its words are not those of our '
        'grammar [s]; words of ours hold as long as they are true.',
        0.1,
        60.0,
    ),
    Spec(
        'caption_look_ahead_s',
        -1.0,
        'Sentences are made for the moment at which they will first stand beside their box, so '
        'far behind their frame [s]; -1: learnt from what captions take.',
        -1.0,
        MOST_S,
    ),
    Spec(
        'marker_captions',
        20,
        'Objects with words in ~/markers: the nearest; never cones and barriers.',
        0,
        300,
    ),
    Spec('caption_rate', 5.0, 'Upper limit of caption passes per second [Hz].', 0.1, 30.0),
    Spec(
        'detector_threads',
        BY_CORES,
        f'CPU threads of the detector; 0: as many as there are cores, at most {MOST_THREADS}.',
        0,
        64,
    ),
    Spec(
        'engine',
        EngineSettings.engine,
        'What runs the detector; auto: onnxruntime; openvino has to be installed (the extra of '
        'this name).',
        choices=ENGINES,
    ),
    Spec(
        'device',
        EngineSettings.device,
        'Where the detector runs: cpu, cuda, tensorrt (the extra gpu), a further GPU as cuda:1.',
    ),
    Spec(
        'precision',
        EngineSettings.precision,
        'Of the detector; model: as its detector.onnx is; fp32: also of an int8 model that was '
        'exported with --keep-fp32; fp16: of tensorrt.',
        choices=PRECISIONS_OF_DETECTOR,
    ),
    Spec('decode_threads', PipelineConfig.decode_threads, 'Images decoded side by side.', 1, 16),
    Spec('caption_threads', 1, 'CPU threads of the caption models and of those asked.', 1, 64),
    Spec(
        'ask_timeout_s',
        2.0,
        'Longest time for an answer of ~/ask [s]; then it says that its deadline has passed.',
        0.05,
        30.0,
    ),
    Spec(
        'overlay_rate',
        5.0,
        'Upper limit of overlay pictures per second [Hz]; drawn only when somebody listens.',
        0.1,
        30.0,
    ),
    Spec(
        'diagnostics_rate',
        1.0,
        'How often /diagnostics is published [Hz]; read at start.',
        0.1,
        20.0,
    ),
    Spec('overlay_width', 1600, 'Width of the overlay picture [px].', 480, 3840),
    Spec('overlay_jpeg_quality', 80, 'JPEG quality of the overlay picture.', 10, 100),
)

NAMES = tuple(spec.name for spec in SPECS)


def declare(node):
    """Declare every parameter on `node` with its description and range."""
    for spec in SPECS:
        node.declare_parameter(spec.name, spec.default, _descriptor(spec))


def _descriptor(spec):
    descriptor = ParameterDescriptor(description=spec.description)
    if spec.low is not None and isinstance(spec.default, float):
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=float(spec.low), to_value=float(spec.high), step=0.0)
        ]
    elif spec.low is not None:
        descriptor.integer_range = [IntegerRange(from_value=spec.low, to_value=spec.high, step=1)]
    if spec.choices:
        descriptor.additional_constraints = f'one of: {", ".join(spec.choices)}'
    return descriptor


def check_changes(parameters, configured):
    """SetParametersResult for an on-set callback.

    configured: the node has read its parameters, so that a change would not be seen.
    """
    specs = {spec.name: spec for spec in SPECS}
    for parameter in parameters:
        spec = specs.get(parameter.name)
        if spec is None:
            continue
        if configured:
            return SetParametersResult(
                successful=False,
                reason=(
                    f'{parameter.name} is read when the node is configured; clean the node up '
                    '(lifecycle transition cleanup), set it, and configure it again.'
                ),
            )
        if spec.choices and parameter.value not in spec.choices:
            return SetParametersResult(
                successful=False,
                reason=(
                    f'{parameter.name} is "{parameter.value}", expected one of: '
                    f'{", ".join(spec.choices)}.'
                ),
            )
    return SetParametersResult(successful=True)


def read(node):
    """Parameters: every parameter's value.

    Raises ValueError where a choice or the cameras cannot be used.
    """
    values = {spec.name: node.get_parameter(spec.name).value for spec in SPECS}
    for spec in SPECS:
        if spec.choices and values[spec.name] not in spec.choices:
            raise ValueError(
                f'parameter {spec.name} is "{values[spec.name]}", expected one of: '
                f'{", ".join(spec.choices)}.'
            )
    values['cameras'] = tuple(name.rstrip('/') for name in values['cameras'])
    for name in ('base_frame', 'odom_frame'):  # tf2 knows no leading slash
        values[name] = values[name].strip().lstrip('/')
        if not values[name]:
            raise ValueError(f'parameter {name} is empty, expected the name of a frame.')
    _check_cameras(values['cameras'])
    return Parameters(**values)


def sync_config(parameters):
    """SyncConfig of a node's Parameters."""
    return SyncConfig(
        max_spread_s=parameters.max_spread_s,
        max_wait_s=parameters.max_wait_s,
        dead_after_s=parameters.dead_after_s,
        # Above the trigger offsets that max_spread_s allows.
        jump_s=max(SyncConfig.jump_s, 2.5 * parameters.max_spread_s),
    )


def ego_motion_config(parameters):
    """EgoMotionConfig of a node's Parameters."""
    return EgoMotionConfig(max_extrapolation_s=parameters.odometry_max_extrapolation_s)


def pipeline_config(parameters):
    """PipelineConfig of a node's Parameters."""
    threshold = parameters.score_threshold
    return PipelineConfig(
        min_cameras=parameters.min_cameras,
        score_threshold=threshold if threshold >= 0 else None,
        history_max_gap_s=parameters.history_max_gap_s,
        decode_threads=parameters.decode_threads,
        has_spare_cores=cores() > detector_threads(parameters, cores()),
        level=parameters.level == 'auto',
    )


def language_settings(parameters):
    """LanguageSettings of a node's Parameters.  Raises ValueError."""
    return LanguageSettings(
        parameters.language_directory,
        parameters.language_device,
        parameters.language_precision,
    )


def engine_settings(parameters):
    """EngineSettings of a node's Parameters.  Raises ValueError."""
    return EngineSettings(parameters.engine, parameters.device, parameters.precision)


def cores():
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


def detector_threads(parameters, of_cores):
    """CPU threads of the detector on a machine of so many cores."""
    if parameters.detector_threads == BY_CORES:
        return min(of_cores, MOST_THREADS)
    return parameters.detector_threads


def _check_cameras(names):
    """The position decides which camera of the model a topic feeds."""
    if len(names) != len(CAMERAS) or len({name.lstrip('/') for name in names}) != len(names):
        raise ValueError(
            f'parameter cameras has {len(names)} names, {len(set(names))} of them '
            f'different: {list(names)}. Expected one name for each of '
            f'{", ".join(CAMERAS)}, in this order.'
        )
    misplaced = [
        name
        for camera, name in zip(CAMERAS, names)
        if name.lstrip('/') in CAMERAS and name.lstrip('/') != camera
    ]
    if misplaced:
        raise ValueError(
            f'parameter cameras has {", ".join(misplaced)} out of place: '
            f'{list(names)}. The order is part of the model: {", ".join(CAMERAS)}.'
        )


Parameters = NamedTuple('Parameters', [(spec.name, type(spec.default)) for spec in SPECS])
