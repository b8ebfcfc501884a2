"""One run of an ablation, in a process of its own: train, judge, leave `metrics.json`.

`python -m mta_training.ablation.run SPEC.json` with the keys of `Spec`.  Killed, it goes on where
its last checkpoint was; done, it does nothing.
"""

from dataclasses import asdict, dataclass
import json
import os
from pathlib import Path
import resource
import sys
import time

from mta_perception.atomic_files import write_atomically
from mta_perception.orphans import end_with_parent
from mta_training.runs.recipe import Recipe
from mta_training.runs.run_directory import load_run


@dataclass(frozen=True)
class Spec:
    """What a run needs to know."""

    recipe: dict
    bags: list  # bag directories that train
    held_out: list  # ... that judge
    frames: int  # keyframes of each that are judged
    cache: str
    out: str
    threads: int

    @property
    def metrics(self):
        """Path of the result."""
        return Path(self.out) / 'metrics.json'


def perform(spec):
    """Train and judge; returns the metrics with `cost`."""
    from mta_training.data.scene_arrays import load_scene
    from mta_training.data.scene_cache import cache_scenes
    from mta_training.evaluation.report import judge
    from mta_training.evaluation.torch_frames import held_out_scene, judge_scenes
    from mta_training.training.bag_training import train_on_bags

    if spec.metrics.is_file():
        return json.loads(spec.metrics.read_text())
    out, recipe = Path(spec.out), Recipe.from_dict(spec.recipe)
    train_on_bags(
        [Path(bag) for bag in spec.bags],
        [],
        out,
        recipe,
        cache=spec.cache,
        resume=(out / 'last.pt').is_file(),
        threads=spec.threads,
        text_cache=spec.cache,
    )
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    model, language, recipe, state = load_run(out)
    held_out = [Path(bag) for bag in spec.held_out]
    scenes = [load_scene(path) for path in cache_scenes(held_out, spec.cache, recipe.model.image)]
    frames = judge_scenes(
        model, language, list(map(held_out_scene, scenes, held_out)), spec.frames
    )
    metrics = judge(frames)
    exported = sum(p.numel() for part in (model, language.llama) for p in part.parameters())
    learner = state['learner']
    metrics['cost'] = {
        'seconds_a_step': state['elapsed_s'] / state['step'],
        'steps': state['step'],
        'peak_mb': peak_mb,
        'exported_millions': exported / 1e6,
        'trained_millions': sum(value.numel() for value in learner.values()) / 1e6,
        'finished': time.strftime('%Y-%m-%d %H:%M:%S'),
    }
    write_atomically(spec.metrics, json.dumps(metrics, indent=1))
    return metrics


def write_spec(spec):
    """Write spec.json into the run's directory; returns its path."""
    path = Path(spec.out) / 'spec.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(asdict(spec), indent=1))
    return path


def main():
    """Entry point of the process."""
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    end_with_parent()
    perform(Spec(**json.loads(Path(sys.argv[1]).read_text())))


if __name__ == '__main__':
    main()
