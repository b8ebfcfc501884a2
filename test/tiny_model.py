"""A model directory small enough to be worked out by hand: real ONNX graphs with the contract's
inputs and outputs.

Detector: `object_features[q]` is the mean brightness of each camera times its mask; the x, y, z of
box q are q plus the translation of ego_prev_from_ego_now; `bev` is 1 + history_valid * history_bev
/ 2. Captioner: the words are "a b c"; where the box's length is above 0 they start at "c", and
where its width is above 0 a "d" follows (which is known from the cache alone).
"""

import hashlib

import numpy as np
import onnx
from onnx import numpy_helper
from tokenizers import Tokenizer, decoders, models
import yaml

from mta_perception import contract

WIDTH, HEIGHT, QUERIES = 64, 48, 3
VOCABULARY = ['<unk>', '<s>', '</s>', 'a', 'b', 'c', 'd']
SCORES = (0.9, 0.6, 0.1)  # of the queries, each for the class of its own number

DETECTOR = """<ir_version: 9, opset_import: ["" : 18]>
detector (uint8[1,6,48,64,3] images, float[1,6,3,4] image_from_ego, float[1,6] camera_mask,
          float[1,2,4,4] history_bev, float[1] history_valid, float[1,4,4] ego_prev_from_ego_now)
 => (float[1,3,10] class_logits, float[1,3,10] boxes, float[1,3,6] object_features,
     float[1,2,4,4] bev)
{
  pixels = Cast <to = 1> (images)
  over = Constant <value_ints = [2, 3, 4]> ()
  brightness = ReduceMean <keepdims = 0> (pixels, over)
  seen = Mul (brightness, camera_mask)
  one = Constant <value_ints = [1]> ()
  seen_row = Unsqueeze (seen, one)
  repeats = Constant <value_ints = [1, 3, 1]> ()
  object_features = Tile (seen_row, repeats)

  zero = Constant <value_ints = [0]> ()
  three = Constant <value_ints = [3]> ()
  four = Constant <value_ints = [4]> ()
  two = Constant <value_ints = [2]> ()
  column = Slice (ego_prev_from_ego_now, three, four, two)
  top = Slice (column, zero, three, one)
  shift = Transpose <perm = [0, 2, 1]> (top)
  used = ReduceSum <keepdims = 0> (image_from_ego)
  nothing = Constant <value_float = 0.0> ()
  unused = Mul (used, nothing)
  shifted = Add (shift, unused)
  padding = Constant <value_ints = [0, 0, 0, 0, 0, 7]> ()
  shift_boxes = Pad (shifted, padding)
  boxes = Add (constant_boxes, shift_boxes)
  class_logits = Identity (constant_logits)

  half = Constant <value_float = 0.5> ()
  halved = Mul (history_bev, half)
  remembered = Mul (halved, history_valid)
  full = Constant <value_float = 1.0> ()
  bev = Add (remembered, full)
}"""

QFORMER = """<ir_version: 9, opset_import: ["" : 18]>
qformer (float[count,6] object_features, float[count,10] boxes, float[count,10] class_logits,
         float[2,4,4] bev) => (float[count,2,3] prefix)
{
  flat = MatMul (boxes, weights)
  shape = Constant <value_ints = [0, 2, 3]> ()
  prefix = Reshape (flat, shape)
}"""

# Place 0 of the prefix starts at "c", place 1 adds a "d"; both are remembered in the keys.
LANGUAGE = """<ir_version: 9, opset_import: ["" : 18]>
language (float[count,prefix_size,3] prefix, int64[count,tokens] token_ids,
          float[1,count,1,past,1] past_keys, float[1,count,1,past,1] past_values)
 => (float[count,7] logits, float[1,count,1,all,1] keys, float[1,count,1,all,1] values)
{
  last_axis = Constant <value_ints = [-1]> ()
  per_place = ReduceSum <keepdims = 0> (prefix, last_axis)
  words = Cast <to = 1> (token_ids)
  nothing = Constant <value_float = 0.0> ()
  blank = Mul (words, nothing)
  entries = Concat <axis = 1> (per_place, blank)
  axes = Constant <value_ints = [0, 2, 4]> ()
  new = Unsqueeze (entries, axes)
  keys = Concat <axis = 3> (past_keys, new)
  values = Concat <axis = 3> (past_values, new)

  zero = Constant <value_ints = [0]> ()
  one = Constant <value_ints = [1]> ()
  two = Constant <value_ints = [2]> ()
  time_axis = Constant <value_ints = [3]> ()
  first = Slice (keys, zero, one, time_axis)
  second = Slice (keys, one, two, time_axis)
  flat_shape = Constant <value_ints = [-1, 1]> ()
  start = Reshape (first, flat_shape)
  more = Reshape (second, flat_shape)

  end = Constant <value_ints = [9223372036854775807]> ()
  last_word = Slice (token_ids, last_axis, end, one)
  word_axis = Constant <value_ints = [1]> ()
  word = Squeeze (last_word, word_axis)
  plain = Gather <axis = 0> (follows, word)
  at_start = Gather <axis = 0> (start_change, word)
  at_end = Gather <axis = 0> (end_change, word)
  start_part = Mul (start, at_start)
  end_part = Mul (more, at_end)
  sum = Add (plain, start_part)
  logits = Add (sum, end_part)
}"""


def write_tiny_model(directory, **changes):
    """Write the model into `directory` and return it; `changes` replace top-level manifest
    keys."""
    directory.mkdir(parents=True, exist_ok=True)
    _save(
        directory / 'detector.onnx', DETECTOR, constant_logits=_logits(), constant_boxes=_boxes()
    )
    weights = np.zeros((10, 6), np.float32)
    weights[3, 0] = weights[4, 3] = 1.0  # length -> place 0, width -> place 1
    _save(directory / 'qformer.onnx', QFORMER, weights=weights)
    _save(directory / 'language.onnx', LANGUAGE, **_grammar())
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token='<unk>')
    )
    tokenizer.decoder = decoders.WordPiece(prefix='##', cleanup=False)
    tokenizer.save(str(directory / 'tokenizer.json'))
    write_manifest(directory, **changes)
    return directory


def write_manifest(directory, **changes):
    """manifest.yaml for the files in `directory`."""
    names = ('detector.onnx', 'qformer.onnx', 'language.onnx', 'tokenizer.json')
    values = {
        'contract_version': contract.CONTRACT_VERSION,
        'name': 'tiny',
        'cameras': list(contract.CAMERAS),
        'classes': list(contract.CLASSES),
        'image': {'width': WIDTH, 'height': HEIGHT, 'scale': 0.04},
        'bev': {'half_extent_m': 51.2, 'cells': 4, 'channels': 2},
        'box_code': ['x', 'y', 'z', 'length', 'width', 'height', 'sin', 'cos', 'vx', 'vy'],
        'history': {'step_s': 0.5},
        'decode': {'score_threshold': 0.2, 'max_detections': 100},
        'captioner': {
            'prefix_tokens': 2,
            'width': 3,
            'layers': 1,
            'heads': 1,
            'head_dim': 1,
            'vocabulary': len(VOCABULARY),
            'bos': 1,
            'eos': 2,
            'max_tokens': 10,
        },
        'files': {
            name: hashlib.sha256((directory / name).read_bytes()).hexdigest()
            for name in names
            if (directory / name).is_file()
        },
        'training': {'data': 'none'},
        'metrics': {},
        'licence': 'Apache-2.0',
        **changes,
    }
    values = {key: value for key, value in values.items() if value is not None}
    (directory / 'manifest.yaml').write_text(yaml.safe_dump(values, sort_keys=False))


def _save(path, text, **initializers):
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(
        numpy_helper.from_array(values.astype(np.float32), name)
        for name, values in initializers.items()
    )
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _logits():
    logits = np.full((1, QUERIES, len(contract.CLASSES)), -9.0)
    for query, score in enumerate(SCORES):
        logits[0, query, query] = np.log(score / (1 - score))
    return logits


def _boxes():
    boxes = np.zeros((1, QUERIES, 10))
    boxes[0, :, :3] = np.arange(QUERIES)[:, None]
    boxes[0, :, 3:6] = 4.0, 2.0, 1.5
    boxes[0, :, 7] = 1.0
    return boxes


def _grammar():
    """Logits of the next word after each word, and how the two places of the prefix change
    them."""
    size = len(VOCABULARY)
    follows, start_change, end_change = np.zeros((3, size, size))
    for word, after in (('<s>', 'a'), ('a', 'b'), ('b', 'c'), ('c', '</s>'), ('d', '</s>')):
        follows[VOCABULARY.index(word), VOCABULARY.index(after)] = 5.0
    start_change[VOCABULARY.index('<s>'), VOCABULARY.index('c')] = 20.0
    end_change[VOCABULARY.index('c'), VOCABULARY.index('d')] = 20.0
    return {'follows': follows, 'start_change': start_change, 'end_change': end_change}
