"""Which rows and columns each ablation has, and the paper's numbers for them.

Tables 1 to 7 are MTA's (arXiv 2411.10639), with the same rows and columns; the others measure what
it leaves open.  A row without changes is a method that is not ours: its numbers are the paper's.
"""

from typing import NamedTuple, Optional

OFF = {'alignment': {'bla': 'off', 'dca': 'off'}}
ONLY_BLA = {'alignment': {'dca': 'off'}}
ONLY_DCA = {'alignment': {'bla': 'off'}}
NO_CAPTIONS = {**OFF, 'captions': {'start': 1.0}}


class Row(NamedTuple):
    """One line: the recipe's changes, and what the paper has in each column."""

    name: str
    changes: Optional[dict]
    paper: tuple = ()
    only: tuple = ()  # conditions (subsets.SUBSETS) of the scenes that train
    against: str = ''  # the row it is compared with, seed by seed; '' = the first that is trained


class Table(NamedTuple):
    """columns: name -> path into `report.judge`'s dict (or the run's `cost`) and a factor."""

    title: str
    columns: dict
    rows: tuple
    note: str = ''


# The paper's C, B, M, R at IoU k are TOD3Cap's evaluator, times 100.
_AT_HALF = {
    'C@.5': ('captions/tod3cap/0.5/CIDEr', 100),
    'B4@.5': ('captions/tod3cap/0.5/BLEU_4', 100),
}
_DETECTION = {'NDS': ('detection/NDS', 100), 'mAP': ('detection/mAP', 100)}
# Ours beside them: what the strict protocol says, and whether the sentences are true.
_STRICT = {
    'C strict 2 m': ('captions/strict/centre_2m/CIDEr', 100),
    'C of the found': ('captions/strict/centre_2m/found_CIDEr', 100),
    'hallucinated %': ('hallucination/any', 100),
    'strict %': ('hallucination/any_strict', 100),
}
_SHORT = {**_AT_HALF, **_DETECTION, **_STRICT}
_BASELINE = Row('TOD3Cap-style baseline', OFF, (108.7, 46.7, 37.7, 26.6))


def _caption_columns():
    names = {'C': 'CIDEr', 'B': 'BLEU_4', 'M': 'METEOR', 'R': 'ROUGE_L'}
    return {
        f'{short}{k}': (f'captions/tod3cap/{value}/{name}', 100)
        for k, value in (('.25', '0.25'), ('.5', '0.5'))
        for short, name in names.items()
    }


def _errors():
    return {name: (f'detection/{name}', 1) for name in ('mATE', 'mASE', 'mAOE', 'mAVE', 'mAAE')}


def _shares(name, base):
    return tuple(
        Row(
            f'{method}, {int(100 * share)} % {name}',
            {**changes, 'captions': {name: share}} if share else changes,
            against='' if method == 'baseline' else f'baseline, {int(100 * share)} % {name}',
        )
        for share in base
        for method, changes in (('baseline', OFF), ('MTA', {}))
    )


# A pretrained detector fits one size only.
_FROM_NOTHING = {'start': '', 'schedule': {'backbone_rate': 1.0, 'freeze_norm': False}}

_LIGHT = {'weights': {'detection': 1.0, 'language': 1.0}}

TABLES = {
    '1': Table(
        'Dense captioning (Table 1)',
        {**_caption_columns(), **_STRICT},
        (
            Row('Scan2Cap', None, (60.6, 41.5, 28.4, 58.6, 62.5, 39.2, 26.4, 56.5)),
            Row('X-Trans2Cap', None, (99.8, 45.9, 35.5, 66.8, 92.2, 43.3, 34.7, 65.7)),
            Row('Vote2Cap-DETR', None, (110.1, 48.0, 44.4, 67.8, 98.4, 46.1, 41.3, 65.1)),
            Row('TOD3Cap-style baseline', OFF, (113.1, 48.7, 49.8, 68.0, 108.7, 46.7, 47.8, 65.3)),
            Row('MTA', {}, (122.8, 49.4, 50.3, 68.7, 118.7, 47.6, 48.4, 66.2)),
        ),
        'The numbers of the paper are with Llama 3.2; other language models by the config.',
    ),
    '2': Table(
        'Detection (Table 2)',
        {**_DETECTION, **_errors()},
        (
            Row('detector alone', NO_CAPTIONS, (37.4, 26.8, 0.903, 0.292, 0.611, 0.573, 0.221)),
            Row('TOD3Cap-style baseline', OFF, (37.7, 26.6, 0.895, 0.290, 0.584, 0.570, 0.219)),
            Row('MTA', {}, (38.9, 27.9, 0.878, 0.285, 0.595, 0.541, 0.213)),
        ),
    ),
    '3': Table(
        'Long tail, weather, light: mAP (Table 3)',
        {
            'all': ('detection/mAP', 100),
            **{name: (f'groups/{name}', 100) for name in ('rare', 'common', 'frequent')},
            **{name: (f'subsets/{name}/mAP', 100) for name in ('sunny', 'rainy', 'day', 'night')},
            'night, present classes': ('subsets/night/mAP_present', 100),
        },
        (
            Row('detector alone', NO_CAPTIONS, (26.8, 17.6, 33.3, 47.4, 26.7, 28.8, 27.0, 12.6)),
            Row('TOD3Cap-style baseline', OFF, (26.6, 17.1, 33.3, 47.7, 26.4, 28.8, 26.8, 12.4)),
            Row('MTA', {}, (27.9, 18.9, 34.2, 47.9, 27.7, 29.7, 28.1, 13.1)),
        ),
    ),
    '4': Table(
        'What each alignment adds (Table 4)',
        _SHORT,
        (
            _BASELINE,
            Row('+ BLA', ONLY_BLA, (111.9, 46.4, 38.9, 27.7)),
            Row('+ DCA', ONLY_DCA, (113.6, 46.4, 38.7, 27.5)),
            Row('MTA (both)', {}, (118.7, 47.6, 38.9, 27.9)),
        ),
    ),
    '5': Table(
        'Which Q-Former block BLA aligns (Table 5, BLA alone)',
        _SHORT,
        (
            Row('first', {'alignment': {'dca': 'off', 'bla_layer': 1}}, (111.2, 46.4, 38.4, 27.3)),
            Row('middle', ONLY_BLA, (111.9, 46.4, 38.9, 27.7)),
            Row('last', {'alignment': {'dca': 'off', 'bla_layer': -1}}, (107.7, 45.8, 37.9, 27.1)),
        ),
    ),
    '6': Table(
        'Objective of BLA (Table 6, BLA alone)',
        _SHORT,
        (
            Row('CLIP', {'alignment': {'dca': 'off', 'bla': 'clip'}}, (110.6, 46.4, 38.8, 27.6)),
            Row('MSE', ONLY_BLA, (111.9, 46.4, 38.9, 27.7)),
            Row(
                'cosine', {'alignment': {'dca': 'off', 'bla': 'cosine'}}, (110.3, 46.3, 38.5, 27.3)
            ),
        ),
    ),
    '7': Table(
        'Objective of DCA (Table 7, DCA alone)',
        _SHORT,
        (
            Row('CLIP', ONLY_DCA, (113.6, 46.4, 38.7, 27.5)),
            Row('MSE', {'alignment': {'bla': 'off', 'dca': 'mse'}}, (112.4, 46.3, 38.0, 27.2)),
            Row(
                'cosine', {'alignment': {'bla': 'off', 'dca': 'cosine'}}, (113.1, 46.4, 38.3, 27.5)
            ),
        ),
    ),
    'balance': Table(
        "How heavy BLA is, and the scale in DCA's softmax",
        _SHORT,
        (
            Row('TOD3Cap-style baseline', OFF),
            *(
                Row(f'MTA, BLA weighs {weight:g}', {'weights': {'bla': weight}})
                for weight in (1.0, 0.1, 0.01)
            ),
            Row('BLA 0.1, DCA ten times as heavy', {'weights': {'bla': 0.1, 'dca': 0.1}}),
            Row(
                'BLA 0.1, no scale in the softmax',
                {'weights': {'bla': 0.1}, 'alignment': {'scaled': False}},
            ),
        ),
        'What the first table 4 asked for; docs/results.md.',
    ),
    'noise': Table(
        'Missing and wrong captions',
        _SHORT,
        (*_shares('missing', (0.0, 0.1, 0.3, 0.6)), *_shares('wrong', (0.1, 0.3, 0.6))),
    ),
    'backbone': Table(
        'Size of backbone and language model',
        _SHORT,
        tuple(
            Row(
                f'{method}, {what}',
                {**changes, 'model': size, **_FROM_NOTHING},
                against='' if method == 'baseline' else f'baseline, {what}',
            )
            for what, size in (
                ('half the backbone', {'backbone': {'width': 16}}),
                ('backbone', {'backbone': {'width': 32}}),
                (
                    'half the language model',
                    {'language': {'hidden_size': 128, 'intermediate_size': 256}},
                ),
                (
                    'twice the language model',
                    {'language': {'hidden_size': 512, 'intermediate_size': 1024}},
                ),
            )
            for method, changes in (('baseline', OFF), ('MTA', {}))
        ),
        'Every run starts from nothing: a pretrained detector fits one backbone only.',
    ),
    'oracle': Table(
        'What text could teach the detector at most',
        _SHORT,
        (
            Row('L_lm only', {**OFF, **_LIGHT}),
            *(
                Row(
                    f'+ auxiliary at {share:g}',
                    {
                        'alignment': {**OFF['alignment'], 'oracle': True},
                        'weights': {**_LIGHT['weights'], 'shares': {'oracle': share}},
                    },
                )
                for share in (0.1, 0.25, 0.5)
            ),
        ),
        'The aligned token tells noun, distance and motion of the true caption outright, its '
        "gradient in the detector so many times as long as the detection loss's. "
        'For --config mta.',
    ),
    'alignment': Table(
        'Does alignment help, and is it what the texts say?',
        _SHORT,
        (
            Row('L_lm only', OFF),
            Row('+ BLA', ONLY_BLA),
            Row('+ DCA', ONLY_DCA),
            Row('MTA (both)', {}),
            Row('MTA, texts shuffled', {'alignment': {'shuffled': True}}),
        ),
        "Shuffled: each caption has another one's embedding. For --config mta.",
    ),
    'cost': Table(
        'What alignment costs while training',
        {
            's a step': ('cost/seconds_a_step', 1),
            'peak memory [MB]': ('cost/peak_mb', 1),
            'trained parameters [M]': ('cost/trained_millions', 1),
            'exported parameters [M]': ('cost/exported_millions', 1),
        },
        (
            Row('TOD3Cap-style baseline', OFF),
            Row('+ BLA', ONLY_BLA),
            Row('+ DCA', ONLY_DCA),
            Row('MTA (both)', {}),
        ),
    ),
    'domain': Table(
        'Trained by day in the dry, tested elsewhere: mAP',
        {
            'all': ('detection/mAP', 100),
            'present classes': ('detection/mAP_present', 100),
            'car': ('detection/classes/car/AP', 100),
            **{name: (f'subsets/{name}/mAP', 100) for name in ('day', 'night', 'sunny', 'rainy')},
            'C of the found': ('captions/strict/centre_2m/found_CIDEr', 100),
        },
        (
            Row('TOD3Cap-style baseline', OFF, only=('day', 'sunny')),
            Row('MTA', {}, only=('day', 'sunny')),
        ),
        'Only scenes by day without rain train; all held-out scenes are judged, which may be of '
        'another dataset (--val-bags).',
    ),
}
