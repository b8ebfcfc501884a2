"""The simulated world as training data without end: scenes drawn while the network learns.

Worker processes draw scenes in the order of their numbers; a few dozen of them are in use at a
time, each frame is shown a few times, then the next scene takes the place of the oldest.  Which
scenes are in use depends on the number of frames shown alone: the same seed gives the same run,
however fast the scenes come, and a run that outpaces them waits.
"""

from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
import multiprocessing
import os
from pathlib import Path
import shutil
import tempfile
import threading

from mta_training.data.batches import SceneStream
from mta_training.data.scene_arrays import load_scene
from mta_training.synth.dataset.drawn_drive import begin_drawing, draw_into

WORLD = 'world-'  # begin of the names of folders with drawn scenes


class World:
    """Scenes by number, drawn ahead by `workers` processes; use it in a `with`.

    settings: recipe.World; image: model.camera_image.ImageConfig; folder: where drawn scenes lie
    until they have been used, 2 MB a frame.  ahead: scenes drawn before they are in use; None = a
    few more than there are workers.
    """

    def __init__(self, settings, image, workers=0, folder=None, ahead=None):
        self.settings, self.image = settings, image
        self.workers = workers or max(1, (os.cpu_count() or 2) - 1)
        self.ahead = self.workers + 4 if ahead is None else ahead
        self.folder = Path(tempfile.mkdtemp(prefix=WORLD, dir=folder))
        self.drawn, self.coming, self.next = {}, {}, 0
        self.lock = threading.Lock()
        # Fresh interpreters: a forked one would inherit OpenCV's threads in whatever state.
        context = multiprocessing.get_context('spawn')
        self.pool = ProcessPoolExecutor(self.workers, context, begin_drawing)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pool.shutdown(wait=True, cancel_futures=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def words(self):
        """What a run learns from, for its checkpoint and model card."""
        return f'world {self.settings.seed} ({self.settings.kind}), {self.next} scenes drawn'

    def stream(self, slots, seed):
        """A SceneStream over the scenes in use."""
        return SceneStream([self.settings.frames], slots, seed=seed, alive=self.settings.alive)

    def __getitem__(self, number):
        """SceneArrays of a scene; waits until it is drawn."""
        with self.lock:
            if number not in self.drawn:
                self._ask(number)
                self.drawn[number] = load_scene(self._wait(number))
                self._forget(number - 2 * self.settings.window)
            return self.drawn[number]

    def first(self, count):
        """The first scenes, as a list."""
        return [self[number] for number in range(count)]

    def _ask(self, number):
        """Let this scene, those in use beside it and some to come be drawn."""
        settings = self.settings
        begin = max(self.next, number - settings.window)
        end = max(number + 1, settings.window) + self.ahead
        for wanted in [number, *range(begin, end)]:
            if wanted not in self.coming and wanted not in self.drawn:
                self.coming[wanted] = self.pool.submit(
                    draw_into,
                    self.folder,
                    settings.seed,
                    wanted,
                    self.image,
                    settings.seconds,
                    world=settings.kind,
                )
        self.next = max(self.next, end)

    def _wait(self, number):
        try:
            return self.coming.pop(number).result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                'a process that draws scenes was killed, most likely for want of memory; go on '
                'with --resume and fewer --draw-workers.'
            ) from error

    def _forget(self, before):
        for number in [number for number in self.drawn if number < before]:
            del self.drawn[number]
            shutil.rmtree(self.folder / str(number), ignore_errors=True)
