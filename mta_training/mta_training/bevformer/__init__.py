"""How the published BEVFormer is trained; `mta_training.training` is the recipe of our nano."""

from mta_training.bevformer.step import training_step

__all__ = ['training_step']
