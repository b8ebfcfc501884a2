"""Files from strangers: whatever lies in one that a command opens, nothing of it runs, and what
is wrong is said in one line that names the file."""

import io
import os
from pathlib import Path
import pickle
import shutil

from command_line import one_line
import numpy as np
import pytest

torch = pytest.importorskip('torch')

from test_tpo_stages import toy_model, toy_recipe
from training_cases import small_recipe
import yaml

from mta_training.data.scene_arrays import CacheError
from mta_training.tensor_files import TensorFileError, read_tensors
from mta_training.tpo.frames import read_frames
from mta_training.tpo.host import word_tokenizer
from mta_training.tpo.run_files import (
    build_asker,
    read_recipe,
    read_stage,
    save_stage,
    take_up,
    write_run,
)
from mta_training.training import bag_training


class Marker:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def saved(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def objects(marker):
    """An array that cannot be written but pickled."""
    array = np.empty(1, object)
    array[0] = marker
    return array


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def yaml_call(marker):
    return f'name: !!python/object/apply:os.mkdir ["{marker.path}"]\n'.encode()


TENSORS = {
    'pickle': pickle.dumps,
    'pickle, protocol 0': lambda marker: pickle.dumps(marker, 0),
    'torch.save': saved,
    'in a checkpoint': lambda marker: saved({'model': {'x': torch.zeros(1)}, 'stream': marker}),
    'npy': lambda marker: npy(objects(marker)),
    'no marker, no checkpoint': lambda marker: saved({'x': torch.zeros(1)}),
    'no marker, text': lambda marker: b'version https://git-lfs.github.com/spec/v1\n',
    'no marker, cut': lambda marker: saved({'model': {'x': torch.zeros(99)}})[:-80],
}
NUMPY = {
    'npz of objects': lambda marker: npz(facts=objects(marker), words=objects(marker)),
    'pickle': pickle.dumps,
    'npy of objects': lambda marker: npy(objects(marker)),
    'no marker, cut': lambda marker: npz(words=np.zeros(99))[:-40],
}


@pytest.fixture
def marker(tmp_path):
    """The Marker, which must have left nothing."""
    one = Marker(tmp_path / 'code_was_run')
    yield one
    assert not Path(one.path).exists(), 'code from a file was run'


def test_the_poison_works(tmp_path):
    """What the other tests rest on."""
    pickle.loads(TENSORS['pickle'](Marker(tmp_path / 'one')))
    np.load(io.BytesIO(NUMPY['npz of objects'](Marker(tmp_path / 'two'))), allow_pickle=True)[
        'facts'
    ]
    yaml.unsafe_load(yaml_call(Marker(tmp_path / 'three')))
    torch.load(
        io.BytesIO(TENSORS['in a checkpoint'](Marker(tmp_path / 'four'))), weights_only=False
    )
    assert len(list(tmp_path.iterdir())) == 4


@pytest.fixture(scope='module')
def trained(bags, tmp_path_factory):
    """A run of two steps with its recipe, language model and caches."""
    out = tmp_path_factory.mktemp('trained') / 'run'
    recipe = small_recipe(schedule={'steps': 2}, alignment={'bla': 'mse'})
    bag_training.train_on_bags(
        bags[:1], [], out, recipe, cache=out / 'cache', resume=False, text_cache=out / 'cache'
    )
    return out


@pytest.fixture
def run(trained, tmp_path):
    """A copy to poison."""
    return shutil.copytree(trained, tmp_path / 'run')


def commands_on(run, bags, tmp_path):
    """Command lines that open a run directory."""
    out = tmp_path / 'out'
    return {
        'eval': ('eval', '--run', run, '--bags', bags, '--out', out, '--frames', 1),
        'export': ('export', '--run', run, '--out', out),
        'resume': (
            *('train', '--bags', bags, '--out', run, '--resume', '--steps', 3),
            *('--config', run / 'recipe.yaml'),
        ),
        'start': ('train', '--bags', bags, '--out', out, '--config', 'smoke', '--start', run),
        'ablate': (
            *('ablate', '--table', 'cost', '--bags', bags, '--out', out, '--config', 'smoke'),
            *('--start', run, '--steps', 1, '--seeds', 1),
        ),
    }


@pytest.mark.parametrize(
    'command, poison',
    [
        *(('eval', poison) for poison in TENSORS),
        *(
            (command, poison)
            for command in ('export', 'resume', 'start')
            for poison in ('in a checkpoint', 'no marker, cut')
        ),
    ],
)
def test_a_checkpoint_is_read_as_data(mta_train, run, bags, tmp_path, marker, command, poison):
    for path in run.glob('*.pt'):
        if path.name != 'language.pt':
            path.write_bytes(TENSORS[poison](marker))
    code, _, error = mta_train(*commands_on(run, bags[0].parent, tmp_path)[command])
    assert code == 1, error
    one_line(error.strip().splitlines()[-1], 'last.pt')


@pytest.mark.slow
def test_runs_of_an_ablation_read_it_as_data_too(mta_train, run, bags, tmp_path, marker):
    """They are processes of their own: each log ends with the line."""
    (run / 'last.pt').write_bytes(TENSORS['in a checkpoint'](marker))
    code, _, error = mta_train(*commands_on(run, bags[0].parent, tmp_path)['ablate'])
    assert code == 1 and 'see ' in error
    logs = list((tmp_path / 'out' / 'runs').glob('*/log.txt'))
    assert logs
    for log in logs:
        assert 'last.pt' in log.read_text().strip().splitlines()[-1]


@pytest.mark.parametrize('poison', TENSORS)
def test_a_language_model_is_read_as_data(mta_train, run, bags, tmp_path, marker, poison):
    (run / 'language.pt').write_bytes(TENSORS[poison](marker))
    code, _, error = mta_train(*commands_on(run, bags[0].parent, tmp_path)['eval'])
    assert code == 1, error
    one_line(error.strip().splitlines()[-1], 'language.pt')


@pytest.mark.parametrize('text', [b'', b'{}', b'\x00', b'{"version": "1.0", "model": 7}'])
@pytest.mark.parametrize('command', ['eval', 'resume'])
def test_a_damaged_tokenizer_is_named(mta_train, run, bags, tmp_path, command, text):
    (run / 'tokenizer.json').write_bytes(text)
    code, _, error = mta_train(*commands_on(run, bags[0].parent, tmp_path)[command])
    assert code == 1, error
    one_line(error.strip().splitlines()[-1], 'tokenizer.json')


@pytest.mark.parametrize('poison', TENSORS)
def test_a_published_checkpoint_is_read_as_data(mta_train, tmp_path, marker, poison):
    (tmp_path / 'strange.pth').write_bytes(TENSORS[poison](marker))
    code, _, error = mta_train('import-bevformer', tmp_path / 'strange.pth', '--out', 'x')
    assert code == 1, error
    one_line(error, 'strange.pth')


@pytest.mark.parametrize('poison', NUMPY)
@pytest.mark.parametrize('file', ['facts.npz', 'images.npy'])
def test_a_training_cache_is_read_as_data(mta_train, run, bags, tmp_path, marker, file, poison):
    for path in (run / 'cache').rglob(file):
        path.write_bytes(NUMPY[poison](marker))
    arguments = (
        '--out',
        tmp_path / 'new',
        '--cache',
        run / 'cache',
        '--config',
        run / 'recipe.yaml',
    )
    code, _, error = mta_train('train', '--bags', bags[0].parent, *arguments)
    assert code == 1, error
    one_line(error.strip().splitlines()[-1], 'the cached scene is damaged', run / 'cache')


@pytest.mark.parametrize('poison', NUMPY)
def test_a_cache_of_embeddings_is_made_again(mta_train, run, bags, tmp_path, marker, poison):
    for path in run.rglob('minilm.npz'):
        path.write_bytes(NUMPY[poison](marker))
    arguments = ('--bags', bags[0].parent, '--out', tmp_path / 'new', '--cache', run / 'cache')
    code, _, error = mta_train('train', *arguments, '--config', run / 'recipe.yaml')
    assert code == 0, error
    assert 'embedding captions' in error


def test_yaml_is_read_as_data(mta_train, run, bags, tmp_path, marker):
    (tmp_path / 'recipe.yaml').write_bytes(yaml_call(marker))
    arguments = ('--bags', bags[0].parent, '--out', tmp_path / 'out')
    code, _, error = mta_train('train', *arguments, '--config', tmp_path / 'recipe.yaml')
    assert code == 1, error
    one_line(error, 'recipe.yaml')
    bag = shutil.copytree(bags[0], tmp_path / 'bag')
    (bag / 'metadata.yaml').write_bytes(yaml_call(marker))
    code, _, error = mta_train('inspect', bag)
    assert code == 1, error
    one_line(error, 'metadata.yaml')
    model = tmp_path / 'model'
    model.mkdir()
    (model / 'manifest.yaml').write_bytes(yaml_call(marker))
    code, _, error = mta_train(
        *('eval', '--model', model, '--bags', bags[0].parent, '--out', tmp_path / 'out')
    )
    assert code == 1, error
    one_line(error, 'manifest.yaml')


def test_a_file_that_is_none_is_named(tmp_path):
    os.mkfifo(tmp_path / 'pipe.pt')
    for path in (tmp_path, tmp_path / 'pipe.pt', tmp_path / 'none.pt'):
        with pytest.raises(TensorFileError, match=path.name):
            read_tensors(path)


@pytest.fixture
def asked(tmp_path):
    """A run of `mta-train tpo` with a stage that was never trained."""
    recipe, tokenizer = toy_recipe(), word_tokenizer(['where is the car', '<box>'])
    model = toy_model(tokenizer.get_vocab_size())
    write_run(tmp_path / 'asked', recipe, model, tokenizer, 'nowhere')
    asker = build_asker(tmp_path / 'asked', recipe, model)
    optimizer = torch.optim.AdamW(asker.parameters())
    save_stage(tmp_path / 'asked', 1, asker, optimizer, 3, 9, ended=True)
    return tmp_path / 'asked'


@pytest.mark.parametrize('poison', TENSORS)
def test_a_run_that_can_be_asked_is_read_as_data(mta_train, asked, tmp_path, marker, poison):
    (asked / 'stage1' / 'last.pt').write_bytes(TENSORS[poison](marker))
    code, _, error = mta_train('tpo-export', '--run', asked, '--out', tmp_path / 'out')
    assert code == 1, error
    one_line(error.strip().splitlines()[-1], 'last.pt')


@pytest.mark.parametrize(
    'change',
    [
        lambda state: state.pop('optimizer'),
        lambda state: state.update(optimizer=[1]),
        lambda state: state.update(optimizer={'state': {}, 'param_groups': []}),
        lambda state: state['asker'].popitem(),
        lambda state: state['asker'].update(more=torch.zeros(1)),
    ],
)
def test_a_stage_of_another_network_is_refused(asked, change):
    state = read_stage(asked, 1)
    change(state)
    recipe, model, _ = read_recipe(asked)
    asker = build_asker(asked, recipe, model)
    with pytest.raises(ValueError, match='last.pt'):
        take_up(asked, 1, state, asker, torch.optim.AdamW(asker.parameters()))


@pytest.mark.parametrize('name', ['recipe.yaml', 'detector.yaml', 'tokenizer.json'])
@pytest.mark.parametrize('text', [b'', b'- 1', b'name: 3', None])
def test_what_describes_such_a_run_is_read_as_data(mta_train, asked, tmp_path, marker, name, text):
    (asked / name).write_bytes(yaml_call(marker) if text is None else text)
    code, _, error = mta_train('tpo-export', '--run', asked, '--out', tmp_path / 'out')
    assert code == 1, error
    one_line(error.strip().splitlines()[-1])


@pytest.mark.parametrize('poison', NUMPY)
def test_what_was_seen_of_a_scene_is_read_as_data(tmp_path, marker, poison):
    (tmp_path / 'seen.npz').write_bytes(NUMPY[poison](marker))
    with pytest.raises(CacheError, match='seen.npz.*is damaged'):
        read_frames(tmp_path / 'seen.npz')
