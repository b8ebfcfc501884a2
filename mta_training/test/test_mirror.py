"""Mirrored walks: what is exchanged fits together, and twice exchanged it is the same."""

import numpy as np
import torch

from mta_perception.contract import CAMERAS
from mta_perception.model.camera_image import ImageConfig
from mta_perception.model.nano.projection import project_points
from mta_training.data.batches import Place, SceneStream, make_batch
from mta_training.data.mirror import MIRRORED_CAMERAS, View, mirrored
from mta_training.synth.dataset.drawn_drive import draw_drive

IMAGE = ImageConfig(224, 128, 0.14)


def view_of(scene, frame):
    return View(
        scene.images[frame],
        scene.present[frame].astype(np.float32),
        scene.image_from_ego[frame],
        scene.boxes[frame],
        scene.captions[frame],
    )


def test_twice_mirrored_is_the_same():
    scene = draw_drive(3, 0, IMAGE, 1.0, world='street')
    view = view_of(scene, 1)
    again = mirrored(mirrored(view))
    assert again.captions == view.captions
    for name in ('images', 'camera_mask', 'boxes'):
        np.testing.assert_array_equal(getattr(again, name), getattr(view, name))
    np.testing.assert_allclose(again.image_from_ego, view.image_from_ego, rtol=1e-4, atol=1e-3)


def test_boxes_lie_on_the_same_pixels_in_the_mirror():
    scene = draw_drive(3, 0, IMAGE, 1.0, world='street')
    view = view_of(scene, 1)
    other = mirrored(view)
    size = (IMAGE.width, IMAGE.height)

    def seen(one):
        return project_points(
            torch.from_numpy(one.boxes[None, :, None, :3]),
            torch.from_numpy(one.image_from_ego[None]),
            torch.from_numpy(one.camera_mask[None]),
            size,
            1,
        )

    here, there = seen(view), seen(other)
    visible = here.visible[0, :, :, 0].numpy()
    assert visible.sum() > 5
    np.testing.assert_array_equal(there.visible[0, :, :, 0].numpy(), visible[MIRRORED_CAMERAS])
    x = here.xy[0, MIRRORED_CAMERAS, :, 0]
    expected = torch.stack([IMAGE.width - 1 - x[..., 0], x[..., 1]], -1)
    mask = torch.from_numpy(visible[MIRRORED_CAMERAS])
    torch.testing.assert_close(there.xy[0, :, :, 0][mask], expected[mask], rtol=1e-3, atol=0.05)
    for slot, twin in enumerate(MIRRORED_CAMERAS):
        assert CAMERAS[slot].endswith('left') == CAMERAS[twin].endswith('right')
        np.testing.assert_array_equal(other.images[slot], view.images[twin][:, ::-1])


def test_captions_tell_the_other_side():
    scene = draw_drive(3, 0, IMAGE, 1.0, world='street')
    texts = [text for text in scene.captions[1] if 'left' in text or 'right' in text]
    assert texts
    for before, after in zip(view_of(scene, 1).captions, mirrored(view_of(scene, 1)).captions):
        assert before.count('left') == after.count('right')
        assert before.count('right') == after.count('left')


def test_a_walk_is_mirrored_as_a_whole_and_its_motion_too():
    scene = draw_drive(3, 1, IMAGE, 2.0, world='street')
    stream = SceneStream([4], 6, seed=1, mirror=True)
    sides = set()
    before = [None] * 6
    for _ in range(30):
        for slot, (place,) in enumerate(stream.step()):
            if place.continues:
                assert place.mirrored == before[slot]
            before[slot] = place.mirrored
            sides.add(place.mirrored)
    assert sides == {True, False}
    plain, turned = (
        make_batch([scene], [Place(0, 2, True, mirrored=side)]) for side in (False, True)
    )
    now = np.append(scene.boxes[2][0, :3], 1.0)
    old = plain.ego_prev_from_ego_now[0].numpy() @ now
    aside = np.array([1.0, -1.0, 1.0, 1.0])
    np.testing.assert_allclose(
        turned.ego_prev_from_ego_now[0].numpy() @ (now * aside), old * aside, atol=1e-3
    )
    np.testing.assert_allclose(
        turned.depth[0].numpy(), plain.depth[0].numpy()[MIRRORED_CAMERAS][:, :, ::-1]
    )


def test_a_mirrored_stream_goes_on_where_it_was():
    stream = SceneStream([5, 7], 3, seed=2, mirror=True)
    for _ in range(5):
        stream.step()
    state = stream.state()
    rest = [stream.step() for _ in range(20)]
    again = SceneStream([5, 7], 3, seed=2, mirror=True)
    again.restore(state)
    assert [again.step() for _ in range(20)] == rest
