"""Detector and captioner of one configuration; the one place that knows which detector that is."""

from torch import nn

from mta_perception.model.bevformer.detector import BevFormerDetector
from mta_perception.model.nano.detector import NanoDetector
from mta_perception.model.qformer import QFormer


def build_detector(config):
    """The `detector.Detector` that MtaConfig.detector names, with fresh weights."""
    return (NanoDetector if config.detector == 'nano' else BevFormerDetector)(config)


class MtaModel(nn.Module):
    """Detector and captioner with the sizes of one MtaConfig; the language model is beside them.

    That one is frozen, and may be a foreign one: see `mta_training.language.frozen_llama`.
    """

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.detector = build_detector(config)
        self.qformer = QFormer(config, self.detector.object_feature_width)
