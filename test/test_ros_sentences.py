"""What is shown beside a box is true while the car is fast and the captioner slow; a real node.

The detector is a hand-made graph that knows where twenty standing objects are from how bright the
pictures are, so that they pass as the car drives; the words are the shipped captioner's own.
"""

import hashlib
import shutil
import time

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vision_msgs', reason='interface packages are not built here')
pytest.importorskip('mta_msgs', reason='interface packages are not built here')
onnx = pytest.importorskip('onnx')

from ros_car import HEIGHT, WIDTH, Car, jpeg, model_directory, stamp_ns, start_node
import yaml

from mta_perception.bags.recording import RecordedCaption
from mta_perception.bags.shown_sentences import beside_boxes, truth_of_sentences
from mta_perception.commands.processes import free_domain
from mta_perception.contract import CAMERAS, CLASSES
from mta_perception.sentences import (
    claims_of,
    contradictions,
    distance_of,
    short_form,
    tolerance_m,
)

STREET_M = 140.0  # from black pictures to white ones
SLOW_S = 0.7  # of a pass of the captioner
OBJECTS = [  # class, x, y in the world
    # Without features the captioner takes everything for a truck: the others test the refusal.
    (('truck', 'truck', 'pedestrian', 'truck', 'traffic_cone')[k % 5], 9.0 * k - 10.0, side)
    for k, side in zip(range(20), (3.5, -3.5, 7.0, -6.0) * 5)
]
SLOW_NODE = f"""
import sys, time
from mta_perception.runtime.captioner import OnnxCaptioner
quick = OnnxCaptioner.caption
def slow(self, *given):
    time.sleep({SLOW_S})
    return quick(self, *given)
OnnxCaptioner.caption = slow
from mta_perception.ros.node import main
sys.exit(main())
"""

DETECTOR = """<ir_version: 9, opset_import: ["" : 18]>
detector (uint8[1,6,{height},{width},3] images, float[1,6,3,4] image_from_ego,
          float[1,6] camera_mask, float[1,{channels},{cells},{cells}] history_bev,
          float[1] history_valid, float[1,4,4] ego_prev_from_ego_now)
 => (float[1,{count},10] class_logits, float[1,{count},10] boxes,
     float[1,{count},{features}] object_features, float[1,{channels},{cells},{cells}] bev)
{{
  first = Constant <value_ints = [80, 80]> ()
  last = Constant <value_ints = [160, 240]> ()
  rows_and_columns = Constant <value_ints = [2, 3]> ()
  middle = Slice (images, first, last, rows_and_columns)
  pixels = Cast <to = 1> (middle)
  over = Constant <value_ints = [1, 2, 3, 4]> ()
  brightness = ReduceMean <keepdims = 0> (pixels, over)
  driven = Mul (brightness, back_per_level)
  boxes = Add (constant_boxes, driven)
  class_logits = Identity (constant_logits)
  object_features = Identity (constant_features)
  nothing = Constant <value_float = 0.0> ()
  bev = Mul (history_bev, nothing)
  unused_1 = ReduceSum <keepdims = 0> (image_from_ego)
  unused_2 = ReduceSum <keepdims = 0> (camera_mask)
  unused_3 = ReduceSum <keepdims = 0> (history_valid)
  unused_4 = ReduceSum <keepdims = 0> (ego_prev_from_ego_now)
}}"""


def write_model(folder):
    """The shipped captioner behind a detector that knows the street."""
    source = model_directory()
    manifest = yaml.safe_load((source / 'manifest.yaml').read_text())
    if 'captioner' not in manifest:
        pytest.skip('the model has no captioner')
    folder.mkdir()
    for name in ('qformer.onnx', 'language.onnx', 'tokenizer.json'):
        shutil.copy(source / name, folder / name)
    qformer = onnx.load(source / 'qformer.onnx', load_external_data=False).graph
    features = next(node for node in qformer.input if node.name == 'object_features')
    width = features.type.tensor_type.shape.dim[1].dim_value
    boxes, logits = np.zeros((1, len(OBJECTS), 10)), np.full((1, len(OBJECTS), 10), -6.0)
    for row, (name, x, y) in enumerate(OBJECTS):
        boxes[0, row] = x, y, 0.8, 4.0, 1.9, 1.6, 0.0, 1.0, 0.0, 0.0
        logits[0, row, CLASSES.index(name)] = 2.0
    back = np.zeros(10)
    back[0] = -STREET_M / 255
    text = DETECTOR.format(
        height=manifest['image']['height'],
        width=manifest['image']['width'],
        channels=manifest['bev']['channels'],
        cells=manifest['bev']['cells'],
        count=len(OBJECTS),
        features=width,
    )
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(values, np.float32), name)
        for name, values in (
            ('constant_boxes', boxes),
            ('constant_logits', logits),
            ('constant_features', np.zeros((1, len(OBJECTS), width))),
            ('back_per_level', back),
        )
    )
    onnx.save(model, folder / 'detector.onnx')
    digest = hashlib.sha256((folder / 'detector.onnx').read_bytes()).hexdigest()
    manifest['files']['detector.onnx'] = digest
    (folder / 'manifest.yaml').write_text(yaml.safe_dump(manifest, sort_keys=False))
    return folder


def pictures_at(x):
    """camera -> JPEG, grey; their mean brightness says how far the car has come."""
    levels = np.full(len(CAMERAS), round(x / STREET_M * 255 * len(CAMERAS)) // len(CAMERAS))
    levels[: round(x / STREET_M * 255 * len(CAMERAS)) % len(CAMERAS)] += 1
    return {
        camera: jpeg(np.full((HEIGHT, WIDTH, 3), level, np.uint8))
        for camera, level in zip(CAMERAS, levels)
    }


def test_no_sentence_on_the_screen_is_wrong_with_a_slow_captioner_and_a_fast_ego(tmp_path):
    from std_msgs.msg import String
    from visualization_msgs.msg import MarkerArray

    domain = free_domain()
    with start_node(
        tmp_path,
        domain,
        {
            'model': write_model(tmp_path / 'street'),
            'score_threshold': 0.3,
            'max_captions': 24,
            'marker_captions': 50,
            'dead_after_s': 5.0,
            'odometry_wait_s': 1.0,
        },
        program=('-c', SLOW_NODE),
    ):
        car = Car(domain)
        try:
            car.listen_to_node()
            markers = car.listen(MarkerArray, 'mta_perception/markers')
            texts = car.listen(String, 'mta_perception/caption_text')
            car.wait_for_node()
            x = 0.0
            still_ns = drive(car, x, 0.0, 25)  # stands: words come, and stay true
            drive(car, x, 14.0, 30)
            x += 14.0 * 30 * car.period_s
            drive(car, x, 0.0, 5)
            time.sleep(1.0)
        finally:
            car.close()
    classes = {
        (stamp_ns(message.header.stamp), one.id): one.results[0].hypothesis.class_id
        for message in car.detections
        for one in message.detections
    }
    beside = beside_boxes([array.markers for array in markers], classes)
    captions = [
        RecordedCaption(
            stamp_ns(message.header.stamp),
            0,
            one.detection_id,
            one.class_id,
            one.caption,
            (one.position.x, one.position.y),
        )
        for message in car.captions
        for one in message.captions
    ]
    found = truth_of_sentences(beside, captions)
    print(found)
    assert found['sentences_shown'] > 20 and found['sentences_wrong'] == 0
    assert 0 < found['objects_without_sentence'] < len(beside), 'the short form was shown as well'
    standing = [
        one
        for one in beside
        if one.stamp_ns == still_ns
        and one.class_name == 'truck'
        and distance_of(one.box) < 50
        and one.text != short_form(one.class_name, one.box)
    ]
    assert len(standing) >= 2, 'with time enough there are sentences'
    cones = [one for one in beside if one.class_name == 'traffic_cone']
    assert cones and not any(one.text for one in cones)
    check_captions(car)
    check_texts(texts)


def drive(car, x, speed, rounds):
    """`rounds` in lockstep with the node from `x` on; returns the last stamp."""
    for _ in range(rounds):
        x += speed * car.period_s
        began = time.monotonic()
        car.step(data=pictures_at(x), xy=(x, 0.0))
        time.sleep(max(0.0, car.period_s - (time.monotonic() - began)))
    return car.stamp_ns


def check_captions(car):
    """~/captions has each sentence once, for the stamp it is true for and the place of then."""
    told = [(message.header.stamp, one) for message in car.captions for one in message.captions]
    keys = [(one.detection_id, stamp_ns(frame)) for frame, one in told]
    assert len(keys) == len(set(keys)) > 5
    known = {
        (one.id, stamp_ns(message.header.stamp))
        for message in car.detections
        for one in message.detections
    }
    assert known.issuperset(keys)
    for frame, one in told:
        assert 0 <= stamp_ns(one.stamp) - stamp_ns(frame) <= 1_000_000_000
        box = np.array([one.position.x, one.position.y, 0, 0, 0, 0, 0, 1, 0, 0])
        assert contradictions(claims_of(one.caption), one.class_id, box) == []


def check_texts(texts):
    """~/caption_text: one line an object, 'car 7, 14.2 m: ...', with words that are true."""
    sentences = 0
    for line in '\n'.join(message.data for message in texts).splitlines():
        head, words = line.split(': ', 1)
        distance = float(head.split(', ')[1].removesuffix(' m'))
        claims = claims_of(words)
        if claims.distance_m is None:
            assert abs(float(words.split(', ')[1].removesuffix(' m')) - distance) <= 0.6
        else:
            sentences += 1
            assert abs(claims.distance_m - distance) <= tolerance_m(distance) + 0.05
    assert sentences > 20
