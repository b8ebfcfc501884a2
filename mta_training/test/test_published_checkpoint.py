"""`mta-train import-bevformer`: published files become ours, or nothing is written."""

from dataclasses import replace
import os
from pathlib import Path
import pickle
import re
import sys
import zipfile

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from small_bevformer import small_config, small_model
import yaml

from mta_perception.model import BEVFormer, BEVFormerConfig
from mta_perception.model.bevformer.attention import weighted_rows
from mta_perception.model.bevformer.config import Quirks
from mta_perception.model.bevformer.detector import BevFormerDetector
from mta_perception.model.bevformer.official import name_table, official_name
from mta_perception.model.config import ImageConfig, MtaConfig
from mta_perception.pipeline.bev_memory import ABSENT, History
from mta_perception.runtime.manifest import Manifest
from mta_perception.runtime.onnx import OnnxDetector
from mta_perception.runtime.torch_detector import TorchDetector
from mta_training.bevformer.checkpoint import (
    CARD,
    WEIGHTS,
    find_config,
    import_checkpoint,
    load_imported,
    official_shapes,
    read_checkpoint,
)
from mta_training.commands import cli
from mta_training.export import graphs, model_directory
from mta_training.export.parity import detector_parity


def published_state(model, prefix=''):
    """state_dict under the published names."""
    return {prefix + official_name(name): tensor for name, tensor in model.state_dict().items()}


@pytest.fixture(scope='module')
def small():
    return small_model(small_config(name='small-test'))


@pytest.fixture(scope='session')
def tiny_file(tmp_path_factory):
    """A file as published: tiny, with what a training loop leaves beside the weights."""
    torch.manual_seed(0)
    model = BEVFormer(BEVFormerConfig.tiny(official=True))
    path = tmp_path_factory.mktemp('published') / 'bevformer_tiny_epoch_24.pth'
    torch.save(
        {
            'meta': {
                'epoch': 24,
                'iter': np.int64(84408),
                'mmdet_version': '2.14.0',
                'lr': np.float32(2e-4),
                'CLASSES': ('car', 'truck'),
                'config': 'model = dict(...)',
                'seed': 0,
            },
            'state_dict': published_state(model),
            'optimizer': {'state': {0: {'step': 3, 'exp_avg': torch.zeros(2)}}},
        },
        path,
    )
    return path


def command(monkeypatch, capsys, *arguments):
    """Exit code, standard output, standard error."""
    monkeypatch.setattr(sys, 'argv', ['mta-train', 'import-bevformer', *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr()
    return ended.value.code or 0, printed.out, printed.err


def test_published_tiny_file_is_known_and_keeps_every_number(
    tiny_file, tmp_path, monkeypatch, capsys
):
    out = tmp_path / 'models' / 'tiny'
    code, text, error = command(monkeypatch, capsys, tiny_file, '--out', out)
    assert code == 0, error
    assert 'BEVFormer tiny: images 800 x 480, 50 x 50 cells' in text
    assert 'epoch 24, iter 84408, mmdet_version 2.14.0' in text and '643 tensors' in text
    assert sorted(path.name for path in out.iterdir()) == [WEIGHTS, CARD]

    card = yaml.safe_load((out / CARD).read_text())
    assert card['source']['file'] == tiny_file.name and card['parameters'] == 33_521_147
    assert BEVFormerConfig.from_dict(card['config']) == BEVFormerConfig.tiny(official=True)
    model = load_imported(out)
    assert model.config == BEVFormerConfig.tiny(official=True) and not model.training
    theirs = torch.load(tiny_file, weights_only=False)['state_dict']
    for name, tensor in published_state(model).items():
        assert torch.equal(tensor, theirs[name]), name


def test_old_weights_get_both_references(small, tmp_path):
    torch.save(published_state(small), tmp_path / 'a.pth')
    import_checkpoint(
        tmp_path / 'a.pth', tmp_path / 'out', configs=[small.config], shift_both_references=True
    )
    assert load_imported(tmp_path / 'out').config == small.config.with_quirks(
        shift_both_references=True
    )


def test_sizes_are_told_apart_and_others_refused(small):
    for make in (BEVFormerConfig.tiny, BEVFormerConfig.small, BEVFormerConfig.base):
        config = make(official=True)
        state = {
            name: torch.empty(shape, device='meta')
            for name, shape in official_shapes(config).items()
        }
        state.pop('pts_bbox_head.bev_embedding.weight')  # the rest is enough
        assert find_config(state) == config
    with pytest.raises(ValueError, match=r'no checkpoint of BEVFormer: .* of the \d+ names'):
        find_config(published_state(small))
    with pytest.raises(ValueError, match=r'2 tensors: backbone \(2\)'):
        find_config({'backbone.a': torch.zeros(1), 'backbone.b': torch.zeros(1)})


@pytest.mark.parametrize('prefix', ['', 'module.'])
@pytest.mark.parametrize('bare', [True, False])
def test_bare_and_wrapped_forms_are_the_same(small, tmp_path, prefix, bare):
    state = published_state(small, prefix)
    torch.save(state if bare else {'state_dict': state, 'meta': None}, tmp_path / 'a.pth')
    card = import_checkpoint(tmp_path / 'a.pth', tmp_path / 'out', configs=[small.config])
    assert ('bare' in card['source']['form']) == bare
    for name, tensor in load_imported(tmp_path / 'out').state_dict().items():
        assert torch.equal(tensor, small.state_dict()[name]), name


def test_format_before_torch_1_6_and_half_precision(small, tmp_path):
    state = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in published_state(small).items()
    }
    torch.save(state, tmp_path / 'a.pth', _use_new_zipfile_serialization=False)
    import_checkpoint(tmp_path / 'a.pth', tmp_path / 'out', configs=[small.config])
    model = load_imported(tmp_path / 'out')
    assert model.encoder.embedding.dtype == torch.float32
    assert torch.equal(model.encoder.embedding, small.encoder.embedding.half().float())


def test_every_fault_is_named_and_nothing_written(small, tmp_path):
    state = published_state(small)
    missing, wrong = 'pts_bbox_head.query_embedding.weight', 'img_backbone.conv1.weight'
    del state[missing]
    state[wrong] = torch.zeros(8, 3, 5, 5)
    state['pts_bbox_head.anchors'] = torch.zeros(3)
    torch.save({'state_dict': state}, tmp_path / 'broken.pth')
    with pytest.raises(ValueError, match='broken.pth: this is no state_dict') as error:
        import_checkpoint(tmp_path / 'broken.pth', tmp_path / 'out', configs=[small.config])
    assert f'missing: {missing};' in str(error.value)
    assert 'unexpected: pts_bbox_head.anchors;' in str(error.value)
    assert f'{wrong} (8, 3, 5, 5), expected (8, 3, 7, 7)' in str(error.value)
    assert not (tmp_path / 'out').exists()


def test_numbers_that_are_none_are_refused(small, tmp_path):
    state = published_state(small)
    name = 'pts_bbox_head.transformer.level_embeds'
    state[name] = state[name] / 0.0
    torch.save(state, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=f'not finite in {name}'):
        import_checkpoint(tmp_path / 'a.pth', tmp_path / 'out', configs=[small.config])
    assert not (tmp_path / 'out').exists()


class _Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize('zipped', [True, False])
def test_a_file_that_would_run_code_is_refused(tmp_path, monkeypatch, capsys, zipped):
    victim = tmp_path / 'victim'
    torch.save(
        {'state_dict': {'a': torch.zeros(1)}, 'meta': _Malicious(victim)},
        tmp_path / 'evil.pth',
        _use_new_zipfile_serialization=zipped,
    )
    code, _, error = command(monkeypatch, capsys, tmp_path / 'evil.pth', '--out', tmp_path / 'out')
    assert code == 1 and len(error.strip().splitlines()) == 1
    assert 'evil.pth is refused' in error and 'mkdir' in error and 'would have to run' in error
    assert not victim.exists() and not (tmp_path / 'out').exists()


def _truncated(path):
    torch.save({'a': torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:900])


@pytest.mark.parametrize(
    'write, reason',
    [
        (lambda path: path.write_text('<html>Quota exceeded</html>'), 'no checkpoint of PyTorch'),
        (lambda path: path.write_bytes(b''), 'no checkpoint of PyTorch'),
        (_truncated, 'no checkpoint of PyTorch'),
        (lambda path: path.write_bytes(pickle.dumps({'a': 1})), 'no checkpoint of PyTorch'),
        (lambda path: zipfile.ZipFile(path, 'w').close(), 'no checkpoint of PyTorch'),
        (lambda path: torch.save([1], path), 'holds a list'),
        (lambda path: torch.save({}, path), 'it is empty'),
        (lambda path: torch.save({'state_dict': [1]}, path), 'not names and tensors: list'),
        (lambda path: torch.save({'weights': 3.0}, path), 'not names and tensors: weights'),
        (lambda path: torch.save(torch.nn.Linear(2, 2), path), 'torch.nn.modules.linear.Linear'),
    ],
)
def test_other_files_are_refused_with_the_reason(tmp_path, write, reason):
    write(tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=reason):
        read_checkpoint(tmp_path / 'a.pth')


def test_a_disk_that_fails_leaves_nothing_half_written(small, tmp_path, monkeypatch):
    torch.save(published_state(small), tmp_path / 'a.pth')
    import_checkpoint(tmp_path / 'a.pth', tmp_path / 'out', configs=[small.config])
    before = {path.name: path.read_bytes() for path in (tmp_path / 'out').iterdir()}

    def full(*_, **__):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(Path, 'write_text', full)
    with pytest.raises(OSError, match='No space'):
        import_checkpoint(tmp_path / 'a.pth', tmp_path / 'out', configs=[small.config])
    assert {path.name: path.read_bytes() for path in (tmp_path / 'out').iterdir()} == before


def test_a_directory_that_is_not_whole_is_refused(small, tmp_path):
    with pytest.raises(FileNotFoundError, match='has no card.yaml'):
        load_imported(tmp_path)
    torch.save(published_state(small), tmp_path / 'a.pth')
    out = tmp_path / 'out'
    import_checkpoint(tmp_path / 'a.pth', out, configs=[small.config])
    card = (out / CARD).read_text()
    (out / CARD).write_text(card.replace('format: 1', 'format: 7'))
    with pytest.raises(ValueError, match='format 7; this program reads 1'):
        load_imported(out)
    (out / CARD).write_text(card)
    with (out / WEIGHTS).open('ab') as file:
        file.write(b'\0')
    with pytest.raises(ValueError, match='sha256 differs'):
        load_imported(out)


def test_config_comes_back_from_plain_values():
    for make in (
        BEVFormerConfig.tiny,
        BEVFormerConfig.small,
        BEVFormerConfig.base,
        BEVFormerConfig.nano,
    ):
        values = make(official=True).to_dict()
        assert BEVFormerConfig.from_dict(yaml.safe_load(yaml.safe_dump(values))) == make(True)
    del values['image']['bgr']
    values['image']['brg'] = True
    with pytest.raises(ValueError, match='ImageConfig lacks bgr and has the unknown brg'):
        BEVFormerConfig.from_dict(values)


def test_document_has_every_name_and_every_quirk():
    text = (Path(__file__).parents[2] / 'docs' / 'bevformer.md').read_text()
    for theirs, ours in name_table():
        assert f'| `{theirs}` | `{ours}` |' in text
    for quirk in Quirks.__dataclass_fields__:
        assert f'| `{quirk}`' in text
    with torch.device('meta'):
        names = BEVFormer(BEVFormerConfig.base()).state_dict()
    for name in names:  # the first row that fits says the published name
        for theirs, ours in name_table():
            found = re.fullmatch(_pattern(ours), name)
            if found:
                for part in found.groups():
                    theirs = re.sub(r'N|\*', part, theirs, count=1)
                assert theirs == official_name(name)
                break
        else:
            pytest.fail(f'{name} is in no row')


def _pattern(row):
    return re.escape(row).replace('N', r'(\d+)').replace(r'\*', '(.*)')


def test_export_uses_the_same_sum():
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(50, 8, generator=generator)
    row = torch.randint(0, 50, (20, 12), generator=generator)
    share = torch.rand(20, 12, generator=generator)
    gathered = weighted_rows(table, row, share, gather=True)
    assert float((gathered - weighted_rows(table, row, share)).abs().max()) < 1e-5


def test_a_graph_that_fits_no_memory_is_not_exported(tmp_path):
    with torch.device('meta'):
        network = BEVFormer(BEVFormerConfig.base(official=True))
    detector = BevFormerDetector.around(network)
    config = MtaConfig.bevformer('base_official')
    with pytest.raises(ValueError, match=r'not exported. .* base as a graph would copy \d\.\d GB'):
        graphs.export_detector(config, detector, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('published', [pytest.param(False, marks=pytest.mark.slow), True])
def test_onnx_equals_torch_with_moving_ego_and_history(tmp_path, published):
    """Through the vehicle's own door: one camera dead, with and without a history."""
    network = small_config()
    if published:
        network = replace(network, quirks=Quirks.published(shift_both_references=True))
    detector = BevFormerDetector.around(small_model(network)).eval()
    config = of_size(network)
    graphs.export_detector(config, detector, tmp_path)
    assert max(detector_parity(config, detector, tmp_path)) < 1e-3
    exported = model_directory.Exported(config, detector)
    values = model_directory.manifest(exported, tmp_path, {}, {})
    (tmp_path / 'manifest.yaml').write_text(yaml.safe_dump(values))
    manifest = Manifest.load(tmp_path)
    assert manifest.captioner is None and manifest.pairs.pillar_points == 4
    onnx, torched = OnnxDetector(manifest, 1), TorchDetector(detector, bf16=False)
    inputs = graphs.example_inputs(config, seed=3)
    bev = inputs['history_bev'][0]
    answers = []
    for past in (History(bev, True, inputs['ego_prev_from_ego_now'][0], 0.5), ABSENT):
        call = inputs['images'][0], inputs['image_from_ego'][0], inputs['camera_mask'][0], past
        got, want = onnx(*call), torched(*call)
        for name in ('class_logits', 'boxes', 'object_features', 'bev'):
            difference = np.abs(getattr(got, name) - np.asarray(getattr(want, name))).max()
            assert difference < 1e-3, f'{name}: {difference:.1e}'
        answers.append(got.bev)
    assert np.abs(answers[0] - answers[1]).max() > 1e-2  # history matters


def of_size(network):
    """MtaConfig around a BEVFormerConfig of any size."""
    image = network.image
    config = MtaConfig.bevformer('nano')
    return replace(
        config,
        image=ImageConfig(image.width, image.height, image.scale),
        bev=replace(config.bev, cells=network.bev_cells, channels=network.channels),
    )


@pytest.mark.slow
def test_a_published_file_becomes_a_model_that_the_vehicle_runs(
    tiny_file, tmp_path, monkeypatch, capsys
):
    code, *_ = command(monkeypatch, capsys, tiny_file, '--out', tmp_path / 'tiny')
    assert code == 0
    arguments = ['export', '--run', tmp_path / 'tiny', '--out', tmp_path / 'model']
    monkeypatch.setattr(sys, 'argv', ['mta-train', *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    output = capsys.readouterr()
    assert ended.value.code == 0, output.err
    assert 'parity_boxes' in output.out
    manifest = Manifest.load(tmp_path / 'model')
    detector = OnnxDetector(manifest, 2)
    image = manifest.image
    frame = np.zeros((6, image.height, image.width, 3), np.uint8)
    found = detector(frame, graphs.surround_view(image), np.ones(6, np.float32), ABSENT)
    assert found.boxes.shape == (900, 10) and np.isfinite(found.boxes).all()
    assert 'bevformer_tiny_epoch_24.pth' in (tmp_path / 'model' / 'MODEL_CARD.md').read_text()
    arguments += ['--int8']
    monkeypatch.setattr(sys, 'argv', ['mta-train', *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1 and 'int8 is for nano' in capsys.readouterr().err
