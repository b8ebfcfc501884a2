"""The simulated world as training data without end: scenes drawn while the network learns.

Worker processes draw scenes in the order of their numbers; a window of them is in use at a time,
each frame is shown a few times, then the next scene takes the place of the oldest.  Which scenes
are in use depends on the number of frames shown alone: the same seed gives the same run, however
fast the scenes come, and a run that outpaces them waits.  With `times: 0` it never waits: all that
has been drawn so far, up to the window, is in use, and the same seed gives another run.
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

    settings: settings.World; image: model.camera_image.ImageConfig; folder: where drawn scenes lie
    until they have been used, 2 MB a frame.  ahead: scenes drawn before they are in use; None = a
    few more than there are workers.
    """

    def __init__(self, settings, image, workers=0, folder=None, ahead=None):
        self.settings, self.image = settings, image
        self.workers = workers or max(1, (os.cpu_count() or 2) - 1)
        self.ahead = self.workers + 4 if ahead is None else ahead
        self.folder = Path(tempfile.mkdtemp(prefix=WORLD, dir=folder))
        self.drawn, self.coming, self.next, self.ready = {}, {}, 0, 0
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

    def stream(self, slots, seed, mirror=False):
        """A SceneStream over the scenes in use."""
        alive = self.settings.alive if self.settings.times else self.alive_now
        return SceneStream([self.settings.frames], slots, seed=seed, alive=alive, mirror=mirror)

    def alive_now(self, _):
        """Numbers of the scenes drawn so far, the newest of them; lets more be drawn."""
        with self.lock:
            while self._is_drawn(self.ready):
                self.ready += 1
            self._ask_to(self.ready + self.ahead + self.workers)
        return self.settings.last(max(self.settings.first, self.ready))

    def _is_drawn(self, number):
        return number in self.drawn or (number in self.coming and self.coming[number].done())

    def __getitem__(self, number):
        """SceneArrays of a scene; waits until it is drawn."""
        with self.lock:
            if number not in self.drawn:
                self._ask(number)
                self.drawn[number] = load_scene(self._wait(number))
                # What left the window may still be walked through by a few slots.
                newest = max(self.drawn)
                self._forget(newest - self.settings.window - min(self.settings.window, 64))
            return self.drawn[number]

    def first(self, count):
        """The first scenes, as a list."""
        return [self[number] for number in range(count)]

    def _ask(self, number):
        """Let this scene, those in use beside it and some to come be drawn."""
        self._draw(number)
        self.next = max(self.next, number - self.settings.window)
        self._ask_to(max(number + 1, self.settings.first) + self.ahead)

    def _ask_to(self, end):
        for number in range(self.next, end):
            self._draw(number)
        self.next = max(self.next, end)

    def _draw(self, number):
        if number in self.coming or number in self.drawn:
            return
        settings = self.settings
        self.coming[number] = self.pool.submit(
            draw_into,
            self.folder,
            settings.seed,
            number,
            self.image,
            settings.seconds,
            world=settings.kind,
        )

    def _wait(self, number):
        try:
            return self.coming.pop(number).result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                'a process that draws scenes was killed, most likely for want of memory; go on '
                'with --resume and fewer --draw-workers.'
            ) from error

    def _forget(self, before):
        passed = [number for number, scene in self.coming.items() if scene.done()]
        for number in [number for number in (*self.drawn, *passed) if number < before]:
            self.drawn.pop(number, None)
            self.coming.pop(number, None)
            shutil.rmtree(self.folder / str(number), ignore_errors=True)
