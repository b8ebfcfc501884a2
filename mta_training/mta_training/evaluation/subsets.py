"""Long-tail class groups and weather and light of scenes, as MTA's Table 3 divides nuScenes.

The groups are fixed lists (share of the objects of trainval: rare below 2 %, common to 20 %,
frequent above).  nuScenes has no field for weather or light: they are read out of the scene's
description by whole words, so that 'train' and 'terrain' are no rain; 'after rain' is rain.
"""

import re

import numpy as np

from mta_training.evaluation.nuscenes_metrics import evaluate_detections

GROUPS = {
    'rare': ('trailer', 'bus', 'construction_vehicle', 'motorcycle', 'bicycle'),
    'common': ('pedestrian', 'barrier', 'traffic_cone', 'truck'),
    'frequent': ('car',),
}
SUBSETS = ('sunny', 'rainy', 'day', 'night')
_RAIN = re.compile(r'\brain(y|ing)?\b', re.IGNORECASE)
_NIGHT = re.compile(r'\bnight\b', re.IGNORECASE)


def conditions(description):
    """('sunny' or 'rainy', 'day' or 'night') of a scene; sunny means no more than not rainy."""
    return (
        'rainy' if _RAIN.search(description) else 'sunny',
        'night' if _NIGHT.search(description) else 'day',
    )


def group_means(classes):
    """Mean AP of each group as (group -> mAP, group -> mAP over classes with ground truth).

    classes: as in evaluate.summary.  The first counts a class without ground truth as 0 like the
    devkit; the second is None for a group of which no class occurs.
    """
    official, present = {}, {}
    for group, names in GROUPS.items():
        official[group] = float(np.mean([classes[name]['AP'] for name in names]))
        there = [classes[name]['AP'] for name in names if classes[name]['ground_truth']]
        present[group] = float(np.mean(there)) if there else None
    return official, present


def judge_subsets(samples, descriptions, predictions):
    """Detection metrics in each of SUBSETS.

    samples, descriptions  lists of equal length
    predictions            sample token -> evaluate.Predictions
    Returns subset -> {'frames', 'mAP', 'NDS', 'mAP_present'}; None where there is no frame.
    """
    result = {}
    for subset in SUBSETS:
        chosen = [
            sample
            for sample, description in zip(samples, descriptions)
            if subset in conditions(description)
        ]
        metrics = {'mAP': None, 'NDS': None, 'mAP_present': None}
        if chosen:
            judged = evaluate_detections(
                chosen, {sample.token: predictions[sample.token] for sample in chosen}
            )
            metrics = {name: judged[name] for name in metrics}
        result[subset] = {'frames': len(chosen), **metrics}
    return result
