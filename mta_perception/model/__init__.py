"""The networks.  Everything here needs torch; the vehicle runs what is exported from it."""

from mta_perception.model.bevformer import BEVFormer, BEVFormerConfig

__all__ = ['BEVFormer', 'BEVFormerConfig']
