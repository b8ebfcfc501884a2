"""The model card: what a model was trained on and what was measured, nothing else."""

_TEMPLATE = """# {name}

Six cameras and a memory in, 3D boxes of ten nuScenes classes {sentences}out.
Architecture: {backbone} (six {image_width}x{image_height} images),
BEV {cells}x{cells} x {channels} with temporal and spatial deformable attention{captioner}.
{millions:.1f} M parameters in all. {precision}

## Training

{training}

## Measured on held-out scenes, through the exported files

{metrics}

mAP and NDS by the official nuScenes code. CIDEr (0 to 10), BLEU and ROUGE-L: every ground-truth
object with a caption counts, one that was not found (within 2 m) with 0; `found_*` are over the
found ones alone, `BLEU_4_corpus` takes the others as empty sentences. `published_*`: boxes above
the score threshold, right where their class is and an object within 2 m; `right_at_score`: how
many of the boxes with such a score are right, on `score_frames` frames of other drives.

## Limits

{limits}
"""

_CAPTIONER = """, Q-Former, a Llama-architecture language
model of {millions:.1f} M parameters with its own tokeniser"""
_FOREIGN = """, Q-Former; its sentences are spoken
by {name} ({millions:.1f} M parameters), a directory of weights that is no part of this model"""
_NOT_MEASURED = 'Not measured: the model was exported without evaluation bags.'


_PRECISION = {
    'fp32': 'All graphs compute in float32.',
    'int8': 'The detector computes in 8 bits where that is faster (convolutions, linear layers '
    'over whole maps), else in float32. Weights have seven bits, so that x86 CPUs with VNNI and '
    'without compute the same and the numbers below hold for both (the export checks that no sum '
    'of two products can exceed 16 bits; docs/training.md has a run on an emulated Haswell).',
}


def model_card(
    config,
    parameters,
    language_parameters,
    training,
    metrics,
    limits,
    precision='fp32',
    float_metrics=None,
    speaker='',
):
    """Markdown text; `training` and `metrics` are flat dicts, `limits` a paragraph.

    `float_metrics` are those of the same model before it became int8; `speaker` is the name of a
    foreign language model.
    """
    return _TEMPLATE.format(
        name=config.name,
        backbone=_backbone(config),
        sentences='and one English sentence an object ' if language_parameters else '',
        captioner=(_FOREIGN if speaker else _CAPTIONER).format(
            name=speaker, millions=language_parameters / 1e6
        )
        if language_parameters
        else '',
        image_width=config.image.width,
        image_height=config.image.height,
        cells=config.bev.cells,
        channels=config.bev.channels,
        millions=parameters / 1e6,
        training=_table(training),
        precision=_PRECISION[precision],
        limits=limits,
        metrics=_table(metrics, float_metrics, precision) if metrics else _NOT_MEASURED,
    )


def _backbone(config):
    if config.detector != 'nano':
        return f'BEVFormer {config.detector.removeprefix("bevformer_").replace("_", ", ")}'
    if config.sees_photographs:
        return f'EfficientNet-Lite0, {config.decoder.queries} queries'
    return f'a ResNet of width {config.backbone.width}, {config.decoder.queries} queries'


def _table(values, before=None, precision='fp32'):
    """Markdown rows name, value and, with `before`, the float32 value beside it."""
    rows = ['| | |', '|---|---|']
    if before:
        rows = [f'| | {precision} | fp32 |', '|---|---|---|']
    for name, value in values.items():
        cells = [value, before.get(name, '')] if before else [value]
        rows.append(f'| {name} | {" | ".join(map(_text, cells))} |')
    return '\n'.join(rows)


def _text(value):
    if isinstance(value, dict):
        return ', '.join(f'{key} {_number(entry)}' for key, entry in value.items())
    return _number(value)


def _number(value):
    if isinstance(value, float):
        return f'{value:.0f}' if value > 1 and value == int(value) else f'{value:.3f}'
    return str(value)
