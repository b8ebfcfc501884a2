"""A GPU's times, by its own events: BEVFormer tiny as a whole frame, a language model of 1B.

Run where there is one: `python bench/gpu.py`; it needs torch, numba and transformers, no ROS and
no weights (all are random, of the real shapes).  Baseline of the frame is the published
formulation in float32; visibility is known beforehand in our forms, as on the road, where the rig
stands still.
"""

from functools import partial

from bevformer import motion, network, rig
from language_shapes import SHAPES
from report import Row, report
import torch

from mta_perception.model import BEVFormerConfig
from mta_perception.model.bevformer import History
from mta_perception.model.bevformer.reference import published_visibility, slow_copy
from mta_perception.model.bevformer.visibility import find_visibility

REPEATS, WARM_UP = 50, 10
OBJECTS, PREFIX, TOKENS = 8, 24, 24


def timed_on_device(function, repeats=REPEATS, warm_up=WARM_UP):
    """Milliseconds of each call by CUDA events."""
    for _ in range(warm_up):
        function()
    samples = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        function()
        end.record()
        torch.cuda.synchronize()
        samples.append(start.elapsed_time(end))
    return samples


def graphed(function):
    """The same as one CUDA graph: no launch waits for the CPU."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay


def _moved(value):
    """Tensors of nested tuples and lists on the GPU."""
    if isinstance(value, torch.Tensor):
        return value.cuda()
    if isinstance(value, tuple) and hasattr(value, '_fields'):
        return type(value)(*map(_moved, value))
    if isinstance(value, (list, tuple)):
        return type(value)(map(_moved, value))
    return value


@torch.no_grad()
def whole_frame():
    """Six images to boxes of tiny."""
    config = BEVFormerConfig.tiny()
    ours = network(config).eval().requires_grad_(False)
    slow = slow_copy(ours, 'published').cuda()
    ours = ours.cuda()
    image, matrices = config.image, rig(config)
    images = torch.randn(1, 6, 3, image.height, image.width, device='cuda')
    cells = config.bev_cells**2
    history = _moved(
        History(torch.randn(1, cells, config.channels), torch.ones(1, dtype=torch.bool))
    )
    can_bus, on_device = motion().cuda(), matrices.cuda()
    known = _moved(find_visibility(config, matrices))

    def frame(model, tables, kind=torch.float32):
        tables = published_visibility(config, on_device) if tables is None else tables
        with torch.autocast('cuda', kind, enabled=kind != torch.float32):
            features = model.features(images)
        features = [level.float() for level in features]
        with torch.autocast('cuda', kind, enabled=kind != torch.float32):
            return model.decoder(model.encoder(features, tables, can_bus, history))

    rows = []

    def measure(name, function):
        rows.append(Row(name, timed_on_device(function)))

    torch.set_float32_matmul_precision('highest')
    measure('published, float32', partial(frame, slow, None))
    measure('ours, float32', partial(frame, ours, known))
    torch.set_float32_matmul_precision('high')
    measure('ours, tf32', partial(frame, ours, known))
    measure('ours, bfloat16', partial(frame, ours, known, torch.bfloat16))
    for name, kind in (('tf32', torch.float32), ('bfloat16', torch.bfloat16)):
        try:
            measure(f'ours, {name}, CUDA graph', graphed(partial(frame, ours, known, kind)))
        except RuntimeError as error:  # what a graph cannot hold, such as constants of the CPU
            print(f'ours, {name}: no CUDA graph ({str(error).splitlines()[0][:150]})')
    report('BEVFormer tiny, six images to boxes', rows)


@torch.no_grad()
def captions():
    """Sentences of eight objects by a language model as large as Llama-3.2-1B."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device('cuda'):
        model = LlamaForCausalLM(LlamaConfig(**SHAPES['Llama-3.2-1B'])).to(torch.bfloat16).eval()
    rows = []
    for objects in (1, OBJECTS, 4 * OBJECTS):
        prefix = torch.randn(objects, PREFIX, 2048, device='cuda', dtype=torch.bfloat16)
        ids = torch.ones(objects, PREFIX, dtype=torch.int64, device='cuda')

        def generate(prefix=prefix, ids=ids):
            model.generate(
                inputs_embeds=prefix,
                attention_mask=ids,
                max_new_tokens=TOKENS,
                min_new_tokens=TOKENS,
                do_sample=False,
                pad_token_id=0,
            )

        rows.append(
            Row(f'{objects} sentences of {TOKENS} tokens', timed_on_device(generate, 5, 2))
        )
    size = sum(weight.numel() * 2 for weight in model.parameters())
    print(f'floor: {size / 1e9:.2f} GB of weights are read for each of {TOKENS} tokens')
    report('Llama of 1B, random weights, bfloat16', rows)


def main():
    if not torch.cuda.is_available():
        raise SystemExit('no CUDA device is here; bench/bevformer.py measures the CPU.')
    print(torch.cuda.get_device_name(), torch.__version__)
    whole_frame()
    captions()


if __name__ == '__main__':
    main()
