"""What rounding costs layer by layer, on a graph of two linear layers that numpy works out."""

import numpy as np
import pytest

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')

from mta_training.export import sensitivity

# The first activation is rounded to quarters and cut to [0, 63.75], the second one to steps of 2.
GRAPH = """<ir_version: 9, opset_import: ["" : 18]>
two (float[4,3] images) => (float[4,3] bev)
<float quarter = {0.25}, float coarse = {2.0}, uint8 zero = {0}, uint8 middle = {128}>
{
  first_q = QuantizeLinear (images, quarter, zero)
  first_dq = DequantizeLinear (first_q, quarter, zero)
  [one] hidden = MatMul (first_dq, one_weight)
  second_q = QuantizeLinear (hidden, coarse, middle)
  second_dq = DequantizeLinear (second_q, coarse, middle)
  [two] bev = MatMul (second_dq, two_weight)
}"""


@pytest.fixture
def graph(tmp_path):
    """(path, images (4, 3), weights): some images are below zero."""
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 1, (2, 3, 3)).astype(np.float32)
    model = onnx.parser.parse_model(GRAPH)
    for name, values in zip(('one_weight', 'two_weight'), weights):
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    onnx.checker.check_model(model)
    onnx.save(model, tmp_path / 'detector.onnx')
    images = rng.normal(3, 4, (4, 3)).astype(np.float32)
    assert images.min() < 0
    return tmp_path / 'detector.onnx', images, weights


def test_each_layer_is_charged_what_its_own_rounding_costs(graph):
    path, images, (one, two) = graph
    cut = np.clip(images, 0, 63.75)
    want = cut @ one @ two
    first = np.round(cut / 0.25) * 0.25 @ one @ two
    second = np.round(cut @ one / 2) * 2 @ two
    costs = sensitivity.layer_costs(path, [{'images': images}])

    def apart(got):
        return np.sqrt(np.square(got - want).mean() / np.square(want).mean())

    assert [layer.name for layer in costs.layers] == ['two', 'one']
    np.testing.assert_allclose(
        [layer.error for layer in costs.layers], [apart(second), apart(first)], rtol=1e-4
    )
    both = np.round(np.round(cut / 0.25) * 0.25 @ one / 2) * 2 @ two
    assert costs.whole == pytest.approx(apart(both), rel=1e-4)
