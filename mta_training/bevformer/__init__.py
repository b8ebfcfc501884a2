"""How the published BEVFormer is trained; `mta_training.train` is the recipe of our own nano."""

from mta_training.bevformer.step import training_step

__all__ = ['training_step']
