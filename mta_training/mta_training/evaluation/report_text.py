"""The report of an evaluation as Markdown, and its short form for a terminal."""

from rich.table import Table

from mta_perception.contract import CLASSES

_ERRORS = ('ATE', 'ASE', 'AOE', 'AVE', 'AAE')
_CAPTION_COLUMNS = ('CIDEr', 'BLEU_4', 'METEOR', 'ROUGE_L')
_HALLUCINATION = {
    'any': 'class, side, motion or grammar (the next four)',
    'wrong_class': 'names another class',
    'wrong_sector': 'names another side of the car',
    'wrong_motion': 'names another motion',
    'unparsable': 'no sentence of the caption grammar',
    'any_strict': 'any of these four and the three below (strict)',
    'wrong_colour': 'names another colour',
    'wrong_place': 'names another place',
    'wrong_relation': 'names another neighbour, or another side of it',
}
_INFORMATION = {
    'reversed_motion': 'standing said to move, or the reverse (share)',
    'colour_accuracy': 'right colour (share)',
    'distance_accuracy': 'distance within a tenth (share)',
    'distance_error_m': 'mean error of the distance [m]',
}
_DISTANCES = {
    'objects': 'true objects',
    'recall': 'recall',
    'boxes': 'boxes',
    'precision': 'precision',
    'any': 'hallucinated',
    'wrong_motion': 'motion wrong',
    'colour_accuracy': 'colour right',
    'distance_accuracy': 'distance right',
}
_NOTES = """
CIDEr is CIDEr-D, 0 to 10 (papers print it times 10 or 100); the other scores are 0 to 1.
`strict`: m@k = (1/N) sum of m over the objects found at k, N = ground truths; one to one, same
class, true rotated 3D IoU or 2 m between centres. `tod3cap`: as TOD3Cap's released evaluator, N =
predictions; its overlap looks at sizes alone. The two must not be compared with each other; see
docs/evaluation.md.
""".strip()


def number(value, digits=3):
    """'0.123'; '-' for what does not exist."""
    if value is None:
        return '-'
    return str(value) if isinstance(value, (int, str)) else f'{value:.{digits}f}'


def rows_of_captions(captions):
    """Rows (protocol, matched at, N, matched share, scores..., CIDEr of the found) as text."""
    rows = []
    for protocol, parts in captions.items():
        for threshold, scores in parts.items():
            count, share = (
                (scores['objects'], scores['found'])
                if 'objects' in scores
                else (scores['predictions'], scores['kept'])
            )
            rows.append(
                [
                    protocol,
                    threshold,
                    number(count),
                    number(share),
                    *(_score(scores, name) for name in _CAPTION_COLUMNS),
                    number(scores.get('found_CIDEr')),
                ]
            )
    return rows


def _score(scores, name):
    if name == 'METEOR' and scores[name] is None:
        return 'absent (no Java)'
    return number(scores[name])


def _table(head, rows):
    return '\n'.join(
        [
            '| ' + ' | '.join(head) + ' |',
            '|' + '---|' * len(head),
            *('| ' + ' | '.join(row) + ' |' for row in rows),
        ]
    )


def markdown(result, plots):
    """The report; plots: file names beside it."""
    detection = result['detection']
    parts = [
        '# Evaluation',
        f'{result["frames"]} keyframes. Detection by the official nuScenes '
        'code; `mAP_present` is the mean over classes that have ground truth (the official '
        'mAP counts the others as 0).',
        '## Detection',
        _table(
            ['mAP', 'NDS', 'mAP_present', *(f'm{name}' for name in _ERRORS)],
            [
                [
                    number(detection[name])
                    for name in ('mAP', 'NDS', 'mAP_present', *(f'm{name}' for name in _ERRORS))
                ]
            ],
        ),
        _table(
            ['class', 'ground truth', 'AP', *_ERRORS],
            [
                [
                    name,
                    number(detection['classes'][name]['ground_truth']),
                    *(number(detection['classes'][name][key]) for key in ('AP', *_ERRORS)),
                ]
                for name in CLASSES
            ],
        ),
        '## Long tail, weather, light',
        _table(
            ['group', 'mAP', 'mAP_present'],
            [
                [name, number(value), number(result['groups_present'][name])]
                for name, value in result['groups'].items()
            ],
        ),
        _table(
            ['subset', 'frames', 'mAP', 'NDS', 'mAP_present'],
            [
                [name, *(number(entry[key]) for key in ('frames', 'mAP', 'NDS', 'mAP_present'))]
                for name, entry in result['subsets'].items()
            ],
        ),
        '## Captions',
        *_captions(result),
    ]
    parts += [f'![{name}]({name})' for name in plots]
    return '\n\n'.join(parts) + '\n'


def _captions(result):
    if result['captions'] is None:
        return [f'Caption metrics are absent: {result["captions_absent"]}.']
    judged = result['hallucination']
    return [
        _table(
            ['protocol', 'matched at', 'N', 'matched', *_CAPTION_COLUMNS, 'CIDEr of found'],
            rows_of_captions(result['captions']),
        ),
        _NOTES,
        '## Hallucination',
        f'Over the {judged["objects"]} objects that were found within 2 m.',
        _table(
            ['the caption', 'share'],
            [[words, number(judged[name])] for name, words in _HALLUCINATION.items()],
        ),
        _table(
            ['for information', ''],
            [[words, number(judged[name])] for name, words in _INFORMATION.items()],
        ),
        '## Near and far',
        'Of what is published; found and right within 2 m.',
        _table(
            ['metres', *_DISTANCES.values()],
            [
                [
                    f'{ring["from_m"]:.0f} to {ring["to_m"]:.0f}',
                    *(number(ring[name]) for name in _DISTANCES),
                ]
                for ring in result['distances']
            ],
        ),
    ]


def terminal_tables(result):
    """rich Tables: detection with subsets, captions, hallucination."""
    table = Table(title=f'Detection, {result["frames"]} keyframes')
    for name in ('', 'frames', 'mAP', 'NDS', 'mAP_present'):
        table.add_column(name, justify='right' if name else 'left')
    rows = {
        'all': {'frames': result['frames'], **result['detection']},
        **result['subsets'],
        **{
            name: {'mAP': value, 'mAP_present': result['groups_present'][name]}
            for name, value in result['groups'].items()
        },
    }
    for name, entry in rows.items():
        table.add_row(
            name, *(number(entry.get(key)) for key in ('frames', 'mAP', 'NDS', 'mAP_present'))
        )
    tables = [table]
    if result['captions'] is not None:
        table = Table(title='Captions')
        # Fits into 80 columns; the report has CIDEr of the found ones too.
        for name in ('', 'at', 'N', 'matched', *_CAPTION_COLUMNS):
            table.add_column(name, justify='right' if name else 'left', no_wrap=True)
        for row in rows_of_captions(result['captions']):
            table.add_row(*(cell.replace('absent (no Java)', 'no Java') for cell in row[:-1]))
        tables.append(table)
        table = Table('said of found objects', 'share', title='Hallucination')
        for name, words in _HALLUCINATION.items():
            table.add_row(words, number(result['hallucination'][name]))
        tables.append(table)
    return tables
