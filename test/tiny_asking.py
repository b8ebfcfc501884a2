"""tiny_model.py with task heads: graphs small enough to be worked out by hand.

The word of a question decides the token of its answer (`where` <box>, `when` <time>, `cover`
<mask>, `follow` <track>, `hello` none): each word's vote stays in the cache, and the votes are
counted where `<answer>` is the last word.  The pointer takes the object whose logits are highest,
and its box as it is; `nothing` in a question makes the pointer say none.  The span is the second
half of the memory, the mask the front half of the square.
"""

import hashlib

import numpy as np
import onnx
from onnx import numpy_helper
from tiny_model import QUERIES, write_manifest, write_tiny_model
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from mta_perception.contract import CLASSES
from mta_perception.runtime.task_spec import (
    ASK_LANGUAGE,
    ASK_PREFIX,
    ASK_TOKENIZER,
    TASK_WORDS,
    head_file,
)

WORDS = ['<pad>', '<s>', '</s>', '<unk>', '<answer>', '<slot>', '<here>', *TASK_WORDS.values()]
WORDS += 'where when cover follow hello nothing is the car there it'.split()
SIZE, FRAMES = len(WORDS), 9
ASKED_BY = {'where': '<box>', 'when': '<time>', 'cover': '<mask>', 'follow': '<track>'}

PREFIX = """<ir_version: 9, opset_import: ["" : 18]>
prefix (float[1,frames,3,6] objects, float[1,frames,3,10] own_boxes,
        float[1,frames,3,10] class_logits, float[1,frames,2] bev_mean, float[1,frames,6] ego,
        float[1,2,4,4] bev)
 => (float[1,frames,2] prefix, float[1,frames,2] frames, float[4,2] slots, float[frames,2] ages)
{
  nothing = Constant <value_float = 0.0> ()
  prefix = Mul (bev_mean, nothing)
  frames = Identity (bev_mean)
  slots = Identity (constant_slots)
  zero = Constant <value_ints = [0]> ()
  ages = Squeeze (prefix, zero)
}"""

# Cache: votes (heads 1, width V).  Hidden: [whether `nothing` was asked for, 0].
LANGUAGE = """<ir_version: 9, opset_import: ["" : 18]>
language (float[1,places,2] prefix, int64[1,tokens] token_ids, float[1,1,1,past,V] past_keys,
          float[1,1,1,past,V] past_values)
 => (float[1,V] logits, float[1,all,2] hidden, float[1,1,1,after,V] keys,
     float[1,1,1,after,V] values)
{
  zero = Constant <value_ints = [0]> ()
  one = Constant <value_ints = [1]> ()
  two = Constant <value_ints = [2]> ()
  three = Constant <value_ints = [3]> ()
  last = Constant <value_ints = [-1]> ()
  end = Constant <value_ints = [9223372036854775807]> ()
  word_votes = Gather <axis = 0> (votes, token_ids)
  size = Shape (prefix)
  soft_size = Slice (size, one, two)
  one_soft = Concat <axis = 0> (one, soft_size, one)
  soft_zero = ConstantOfShape (one_soft)
  all_soft = Concat <axis = 0> (one, soft_size, width)
  soft_votes = ConstantOfShape (all_soft)
  new_votes = Concat <axis = 1> (soft_votes, word_votes)
  axes = Constant <value_ints = [1, 2]> ()
  new = Unsqueeze (new_votes, axes)
  keys = Concat <axis = 3> (past_keys, new)
  values = Concat <axis = 3> (past_values, new)

  over = Constant <value_ints = [1, 2, 3]> ()
  all_votes = ReduceSum <keepdims = 0> (keys, over)
  padded = Concat <axis = 1> (no_word, token_ids)
  last_word = Slice (padded, last, end, one)
  word = Squeeze (last_word, one)
  plain = Gather <axis = 0> (follows, word)
  counts = Gather <axis = 0> (counted, word)
  voted = Mul (all_votes, counts)
  logits = Add (plain, voted)

  gone = MatMul (all_votes, is_nothing)
  row = Unsqueeze (gone, one)
  ones = Add (soft_zero, unit)
  word_ones = MatMul (word_votes, no_votes)
  word_units = Add (word_ones, unit)
  every = Concat <axis = 1> (ones, word_units)
  hidden = Mul (every, row)
}"""

REGION = """<ir_version: 9, opset_import: ["" : 18]>
region (float[1,2] e, float[1,3,6] objects, float[1,3,10] boxes, float[1,3,10] class_logits)
 => (float[1,4] pointer, float[1,10] code)
{
  last = Constant <value_ints = [-1]> ()
  best = ReduceMax <keepdims = 0> (class_logits, last)
  gone = MatMul (e, to_none)
  pointer = Concat <axis = 1> (best, gone)
  winner = ArgMax <axis = 1, keepdims = 0> (best)
  one = Constant <value_ints = [1]> ()
  picked = Gather <axis = 1> (boxes, winner)
  code = Squeeze (picked, one)
}"""

TEMPORAL = """<ir_version: 9, opset_import: ["" : 18]>
temporal (float[1,2] e, float[1,s,2] words, float[1,frames,2] frames)
 => (float[1,2,2] spans, float[1,2,2] logits, float[1,frames] saliency)
{
  last = Constant <value_ints = [-1]> ()
  saliency = ReduceSum <keepdims = 0> (frames, last)
  spans = Identity (constant_spans)
  logits = Identity (constant_logits)
}"""

MASK = """<ir_version: 9, opset_import: ["" : 18]>
mask (float[1,2] e, float[1,2,4,4] bev, float[1,3,6] objects, float[1,3,10] boxes,
      float[1,3,10] class_logits)
 => (float[1,16,16] mask, float[1] iou, float[1] present)
{
  mask = Identity (constant_mask)
  iou = Constant <value_floats = [0.5]> ()
  present = Constant <value_floats = [1.0]> ()
}"""

TRACK = """<ir_version: 9, opset_import: ["" : 18]>
track (float[1,frames,2] e, float[1,frames,3,6] objects, float[1,frames,3,10] boxes,
       float[1,frames,3,10] class_logits)
 => (float[1,frames,4] pointer, float[1,frames,10] code)
{
  last = Constant <value_ints = [-1]> ()
  two = Constant <value_ints = [2]> ()
  zero = Constant <value_ints = [0]> ()
  one = Constant <value_ints = [1]> ()
  best = ReduceMax <keepdims = 0> (class_logits, last)
  gone = MatMul (e, to_none)
  pointer = Concat <axis = 2> (best, gone)
  first = Slice (boxes, zero, one, two)
  code = Squeeze (first, two)
}"""


def write_tiny_asking(directory, **changes):
    """Write the model into `directory` and return it; `changes` replace manifest keys."""
    write_tiny_model(directory)
    end, size = WORDS.index('</s>'), SIZE
    votes, follows, counted = np.zeros((3, size, size), np.float32)
    for word, token in ASKED_BY.items():
        votes[WORDS.index(word), WORDS.index(token)] = 10.0
    votes[WORDS.index('hello'), WORDS.index('it')] = 10.0
    votes[WORDS.index('nothing'), WORDS.index('<pad>')] = 1.0  # counted in the hidden state alone
    counted[WORDS.index('<answer>')] = 1.0
    follows[:, end] = 8.0
    follows[WORDS.index('<answer>'), end] = 0.0
    follows[WORDS.index('<answer>'), WORDS.index('there')] = 5.0
    to_none = np.array([[100.0], [0.0]])
    gone = np.zeros((size, 1))
    gone[WORDS.index('<pad>')] = 1.0
    _save(directory / ASK_PREFIX, PREFIX, constant_slots=np.zeros((4, 2)))
    _save(
        directory / ASK_LANGUAGE,
        LANGUAGE.replace('V]', f'{size}]'),
        votes=votes,
        follows=follows,
        counted=counted,
        is_nothing=gone,
        no_votes=np.zeros((size, 1)),
        unit=np.array([1.0, 0.0]),
        width=np.array([size], np.int64),
        no_word=np.array([[WORDS.index('<pad>')]], np.int64),
    )
    _save(directory / head_file('region'), REGION, to_none=to_none)
    spans = np.array([[[0.25, 0.5], [0.75, 0.5]]])
    likely = np.array([[[-3.0, 3.0], [3.0, -3.0]]])
    _save(
        directory / head_file('temporal'), TEMPORAL, constant_spans=spans, constant_logits=likely
    )
    mask = np.full((1, 16, 16), -1.0)
    mask[..., 8:] = 1.0  # x > 0
    _save(directory / head_file('mask'), MASK, constant_mask=mask)
    _save(directory / head_file('track'), TRACK, to_none=to_none)
    _tokenizer().save(str(directory / ASK_TOKENIZER))
    names = ('detector.onnx', 'qformer.onnx', 'language.onnx', 'tokenizer.json')
    names += (ASK_PREFIX, ASK_LANGUAGE, ASK_TOKENIZER, *map(head_file, TASK_WORDS))
    files = {name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in names}
    write_manifest(directory, **{'files': files, 'tasks': tasks(), **changes})
    return directory


def tasks(**changes):
    """`tasks:` of its manifest."""
    return {
        'heads': {head: WORDS.index(word) for head, word in TASK_WORDS.items()},
        'memory': FRAMES,
        'objects': QUERIES,
        'frame_width': 2,
        'language': {
            'width': 2,
            'layers': 1,
            'heads': 1,
            'head_dim': SIZE,
            'vocabulary': SIZE,
            'bos': 1,
            'eos': 2,
            'answer': 4,
            'unknown': 3,
            'never': [0, 1, 4, 5, 6],
            'max_words': 20,
            'max_tokens': 6,
        },
        'least_moment': 0.5,
        'most_unknown': 0.3,
        'least_word': 0.25,
        **changes,
    }


def _tokenizer():
    tokenizer = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token='<unk>')
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix='##', cleanup=True)
    return tokenizer


def _save(path, text, **initializers):
    model = onnx.parser.parse_model(text)
    for name, values in initializers.items():
        values = np.asarray(values)
        kind = np.int64 if values.dtype == np.int64 else np.float32
        model.graph.initializer.append(numpy_helper.from_array(values.astype(kind), name))
    onnx.checker.check_model(model)
    onnx.save(model, path)


assert len(CLASSES) == 10
