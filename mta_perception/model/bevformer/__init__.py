"""BEVFormer in plain PyTorch; docs/bevformer.md tells how it relates to the published code."""

from mta_perception.model.bevformer.config import BEVFormerConfig
from mta_perception.model.bevformer.history import History
from mta_perception.model.bevformer.network import BEVFormer, Ego, Output

__all__ = ['BEVFormer', 'BEVFormerConfig', 'Ego', 'History', 'Output']
