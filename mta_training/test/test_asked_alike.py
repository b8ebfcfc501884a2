"""What the node remembers and answers is what training saw and answered."""

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='torch is only in the training environment')

from asking_models import write_detector
from test_tpo_answers import asker as trained  # noqa: F401, a fixture
from toy_asked import FRAMES, ROWS, SCENE, toy_asked, toy_questions

from mta_perception.answers import SceneInputs
from mta_perception.detections import DetectorOutputs
from mta_perception.geometry import rigid_from_yaw
from mta_perception.model.config import MtaConfig
from mta_perception.pipeline.scene_memory import SceneMemory
from mta_perception.runtime.asking import OnnxAsker
from mta_perception.runtime.manifest import Manifest
from mta_training.export.task_graphs import add_tasks
from mta_training.tpo.answering import answer
from mta_training.tpo.frames import scene_tensors
from mta_training.tpo.host import merged_language


def inputs_of(frames, first, now):
    """SceneInputs of a window of SceneFrames, as training reads it."""
    scene = scene_tensors([(frames, first, now)], FRAMES)._asdict()
    return SceneInputs(*(scene[name].numpy() for name in SceneInputs._fields))


def test_a_live_memory_is_what_training_reads():
    poses = np.stack([rigid_from_yaw(0.05 * t, (2.0 * t, 0.1 * t, 0.0)) for t in range(FRAMES)])
    frames = toy_asked().frames._replace(world_from_ego=poses)
    memory = SceneMemory(ROWS, FRAMES)
    for t in range(FRAMES):
        outputs = DetectorOutputs(
            frames.class_logits[t].astype(np.float32),
            frames.boxes[t],
            frames.objects[t].astype(np.float32),
            frames.bev[t].astype(np.float32),
        )
        memory.observe(int(frames.stamps_ns[t]), poses[t], poses[t], outputs, {})
    live, wanted = memory.view().inputs, inputs_of(frames, 0, FRAMES - 1)
    for name in SceneInputs._fields:
        np.testing.assert_allclose(
            getattr(live, name), getattr(wanted, name), atol=1e-5, err_msg=name
        )


@pytest.mark.slow
def test_the_node_answers_as_torch_does(trained, tmp_path):  # noqa: F811
    toy = MtaConfig.toy()
    model = MtaConfig.from_dict(
        {**toy.to_dict(), 'language': vars(trained.host.language.config).copy()}
    )
    trained.eval()
    apart = add_tasks(
        trained.tasks,
        merged_language(trained.host),
        trained.host.vocabulary,
        model,
        write_detector(tmp_path / 'plain', toy),
        tmp_path / 'asks',
        half=False,
    )
    assert max(apart.values()) < 1e-4
    node, known = OnnxAsker(Manifest.load(tmp_path / 'asks')), toy_asked()
    for now in (FRAMES - 1, FRAMES - 3):
        questions = toy_questions(now)
        scene = inputs_of(known.frames, 0, now)
        for question, wanted in zip(questions, answer(trained, questions, {SCENE: known})):
            came = node(question.text, scene)
            assert came.heads == wanted.heads and came.pointed == wanted.pointed
            words = wanted.said.split()
            assert came.text == ' '.join(word for word in words if not word.startswith('<'))
            if wanted.box is not None:
                np.testing.assert_allclose(came.box, wanted.box, atol=1e-4)
            if wanted.spans is not None:
                np.testing.assert_allclose(came.saliency, wanted.saliency, atol=1e-4)
                if came.span is not None:
                    np.testing.assert_allclose(came.span, wanted.spans[0], atol=1e-3)
            if wanted.mask is not None:
                # Nothing shown is an empty mask, as it is judged.
                shown = np.zeros_like(wanted.mask) if came.mask is None else came.mask
                np.testing.assert_array_equal(shown, wanted.mask)
            if wanted.track is not None:
                np.testing.assert_allclose(came.track, wanted.track, atol=1e-4)
                np.testing.assert_array_equal(came.track_rows >= 0, wanted.seen)
