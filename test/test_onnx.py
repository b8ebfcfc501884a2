"""The engines on real ONNX files: what goes in, what comes out, what is refused."""

from pathlib import Path

import numpy as np
import pytest

from mta_perception.detections import CaptionInputs
from mta_perception.pipeline.bev_memory import History
from mta_perception.runtime.captioner import OnnxCaptioner
from mta_perception.runtime.manifest import Manifest, ManifestError
from mta_perception.runtime.onnx import OnnxDetector

pytest.importorskip('onnx', reason='onnx comes with the training environment')
from tiny_model import HEIGHT, WIDTH, write_manifest, write_tiny_model

NANO = Path(__file__).parents[1] / 'models' / 'nano'
ABSENT = History(None, False, np.eye(4), 0.0)


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp('models') / 'tiny')


def _images(*brightness):
    images = np.zeros((6, HEIGHT, WIDTH, 3), np.uint8)
    images[:] = np.reshape(brightness, (6, 1, 1, 1))
    return images


def test_detector_gets_images_mask_and_history(directory):
    detector = OnnxDetector(Manifest.load(directory), threads=1)
    motion = np.eye(4)
    motion[:3, 3] = 3.0, -1.0, 0.5
    history = History(np.full((2, 4, 4), 8.0, np.float32), True, motion, 0.5)
    images = _images(10, 20, 30, 40, 50, 60)
    outputs = detector(images, np.zeros((6, 3, 4)), [1, 1, 0, 1, 1, 1], history)
    np.testing.assert_allclose(outputs.object_features[1], [10, 20, 0, 40, 50, 60], rtol=1e-5)
    np.testing.assert_allclose(outputs.boxes[2, :3], [5.0, 1.0, 2.5])
    np.testing.assert_allclose(outputs.bev, 1.0 + 8.0 / 2)
    assert outputs.class_logits.shape == (3, 10)


def test_absent_history_is_zeros_and_a_flag(directory):
    detector = OnnxDetector(Manifest.load(directory), threads=1)
    stale = History(np.full((2, 4, 4), np.nan, np.float32), False, np.eye(4), 0.0)
    for history in (ABSENT, stale):
        outputs = detector(_images(*range(6)), np.zeros((6, 3, 4)), np.ones(6), history)
        np.testing.assert_allclose(outputs.bev, 1.0)


def test_detector_that_does_not_fit_its_manifest_is_refused(directory, tmp_path):
    other = write_tiny_model(tmp_path / 'tiny')
    write_manifest(other, bev={'half_extent_m': 51.2, 'cells': 5, 'channels': 2})
    with pytest.raises(ManifestError, match=r'history_bev.*1, 2, 4, 4.*1, 2, 5, 5.*Export'):
        OnnxDetector(Manifest.load(other))


def test_detector_without_an_output_is_refused(tmp_path):
    import onnx

    other = write_tiny_model(tmp_path / 'tiny')
    model = onnx.load(other / 'detector.onnx')
    model.graph.output.pop(2)
    onnx.save(model, other / 'detector.onnx')
    write_manifest(other)
    with pytest.raises(ManifestError, match='no output "object_features"'):
        OnnxDetector(Manifest.load(other))


def test_file_that_is_no_graph_is_refused(tmp_path):
    other = write_tiny_model(tmp_path / 'tiny')
    (other / 'detector.onnx').write_bytes(b'no graph at all')
    write_manifest(other)
    with pytest.raises(ManifestError, match='detector.onnx cannot be run'):
        OnnxDetector(Manifest.load(other))


@pytest.mark.skipif(not (NANO / 'manifest.yaml').is_file(), reason='models/nano is not there')
def test_the_shipped_detector_says_the_same_with_any_number_of_threads():
    manifest, rng = Manifest.load(NANO), np.random.default_rng(0)
    size = manifest.image.height, manifest.image.width
    images = rng.integers(0, 255, (6, *size, 3), dtype=np.uint8)
    projections = np.concatenate([np.diag([250.0, 250.0, 1.0]), np.ones((3, 1))], axis=1)
    given = images, np.stack([projections] * 6), np.ones(6), ABSENT
    first, *others = (OnnxDetector(manifest, threads)(*given) for threads in (1, 2, 3, 5))
    for other in others:
        for name, outputs in first._asdict().items():
            np.testing.assert_array_equal(getattr(other, name), outputs, err_msg=name)


def _objects(lengths, widths):
    boxes = np.zeros((len(lengths), 10), np.float32)
    boxes[:, 3], boxes[:, 4] = lengths, widths
    count = len(boxes)
    return CaptionInputs(
        np.zeros((count, 6), np.float32),
        boxes,
        np.zeros((count, 10), np.float32),
        np.zeros((2, 4, 4), np.float32),
    )


def test_captions_end_each_in_their_own_time(directory):
    captioner = OnnxCaptioner(Manifest.load(directory))
    # The first to end is the first row: the others' caches must not slip into its place.
    captions = captioner.caption(_objects([1, 0, 0, 1, 0], [0, 0, 1, 1, 0]))
    assert [caption.text for caption in captions] == ['c', 'a b c', 'a b c d', 'c d', 'a b c']
    assert all(0.0 < caption.score <= 1.0 for caption in captions)


def test_caption_of_a_batch_equals_captions_one_by_one(directory):
    captioner = OnnxCaptioner(Manifest.load(directory))
    objects = _objects([0, 1, 0, 1, 0], [1, 0, 0, 1, 0])
    together = captioner.caption(objects)
    alone = [captioner.caption(objects.take([row]))[0] for row in range(5)]
    assert [caption.text for caption in together] == [caption.text for caption in alone]
    np.testing.assert_allclose(
        [caption.score for caption in together], [caption.score for caption in alone], rtol=1e-6
    )


def test_caption_score_is_the_mean_probability_of_its_words(directory):
    captioner = OnnxCaptioner(Manifest.load(directory))
    score = captioner.caption(_objects([0], [0]))[0].score
    expected = np.exp(5.0) / (np.exp(5.0) + 6.0)  # of each word and of the end, seven words
    assert score == pytest.approx(expected, rel=1e-5)


def test_captions_stop_at_max_tokens(tmp_path):
    other = write_tiny_model(tmp_path / 'tiny')
    spec = {
        'prefix_tokens': 2,
        'width': 3,
        'layers': 1,
        'heads': 1,
        'head_dim': 1,
        'vocabulary': 7,
        'bos': 1,
        'eos': 2,
        'max_tokens': 2,
    }
    write_manifest(other, captioner=spec)
    captions = OnnxCaptioner(Manifest.load(other)).caption(_objects([0, 1], [0, 0]))
    assert [caption.text for caption in captions] == ['a b', 'c']


def test_no_objects_no_captions(directory):
    assert OnnxCaptioner(Manifest.load(directory)).caption(_objects([], [])) == []


def test_captioner_that_does_not_fit_its_manifest_is_refused(tmp_path):
    other = write_tiny_model(tmp_path / 'tiny')
    spec = {
        'prefix_tokens': 2,
        'width': 4,
        'layers': 1,
        'heads': 1,
        'head_dim': 1,
        'vocabulary': 7,
        'bos': 1,
        'eos': 2,
        'max_tokens': 2,
    }
    write_manifest(other, captioner=spec)
    with pytest.raises(ManifestError, match=r'prefix.*any, 2, 4'):
        OnnxCaptioner(Manifest.load(other))
    write_manifest(other, captioner={**spec, 'width': 3, 'vocabulary': 8})
    with pytest.raises(ManifestError, match='knows 7 tokens'):
        OnnxCaptioner(Manifest.load(other))


@pytest.mark.skipif(not (NANO / 'manifest.yaml').is_file(), reason='models/nano is not there')
def test_the_shipped_model_runs():
    manifest = Manifest.load(NANO)
    detector = OnnxDetector(manifest)
    images = np.zeros((6, manifest.image.height, manifest.image.width, 3), np.uint8)
    outputs = detector(images, np.zeros((6, 3, 4)), np.zeros(6), ABSENT)
    assert all(np.isfinite(part).all() for part in outputs)
    inputs = CaptionInputs(
        outputs.object_features[:2], outputs.boxes[:2], outputs.class_logits[:2], outputs.bev
    )
    assert len(OnnxCaptioner(manifest).caption(inputs)) == 2
