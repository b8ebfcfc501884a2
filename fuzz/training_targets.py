"""What mta_training reads from elsewhere: tables, drives, checkpoints, recipes, caches."""

from functools import partial
import gzip
import io
import json
import os
from pathlib import Path
import shutil
import sys

from mutations import mutated_bytes, mutated_json, mutated_yaml
import numpy as np
from run import Target
import torch
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / 'mta_training' / 'test'))  # datasets made by hand

from test_pandaset import write_sequence
from tiny_dataset import VERSION, write_dataset

from mta_perception.bags.bag_files import BagError
from mta_perception.plain_yaml import YamlError
from mta_training.bevformer.checkpoint import read_checkpoint
from mta_training.conversion.convert import convert
from mta_training.conversion.nuscenes_scene import rebuilt_caption
from mta_training.conversion.pandaset import import_pandaset
from mta_training.conversion.table_fields import TABLES, DatasetError
from mta_training.conversion.table_index import build_index
from mta_training.data.scene_arrays import CacheError, SceneArrays, load_scene, save_scene
from mta_training.evaluation.nuscenes_metrics import EvaluationError
from mta_training.evaluation.result_files import read_results
from mta_training.runs.recipe import Recipe
from mta_training.tensor_files import TensorFileError, read_tensors
from mta_training.tpo.frames import read_frames
from mta_training.tpo.recipe import TpoRecipe


def training_targets(folder):
    """Every Target of mta_training; folder: for good inputs that are files."""
    dataset = write_dataset(folder / 'dataset', scenes=1)
    (bag,) = convert(dataset, folder / 'bags', workers=1, progress=False)
    return [
        *(*_tables(dataset), _pandaset(folder), *_checkpoints(), *_texts(bag)),
        *(_cache(folder), _seen(folder), _asking_recipe()),
    ]


def _tables(dataset):
    for name in TABLES:
        seed = (dataset / VERSION / f'{name}.json').read_bytes()
        yield Target(
            f'{name}.json',
            (DatasetError,),
            [seed],
            mutated_json,
            partial(_read_table, dataset, Path(VERSION) / f'{name}.json'),
            0.1,
        )
    captions = Path('captions') / 'final_caption_bbox_token.json'
    yield Target(
        'captions of TOD3Cap',
        (DatasetError,),
        [(dataset / captions).read_bytes()],
        mutated_json,
        partial(_read_index, dataset, captions),
        1.0,
    )


def _read_table(dataset, name, data, folder):
    """The whole way: a scene whose table is wrong, to a bag."""
    convert(_with(dataset, name, data, folder), folder / 'bags', workers=1, progress=False)


def _read_index(dataset, name, data, folder):
    root = _with(dataset, name, data, folder)
    build_index(root, VERSION, folder / 'index.db', rebuilt_caption)


def _with(dataset, name, data, folder):
    root = shutil.copytree(dataset, folder / 'set', copy_function=os.link)
    (root / name).unlink()  # it is a link to the good one
    (root / name).write_bytes(data)
    return root


def _pandaset(folder):
    sequence = write_sequence(folder / 'pandaset' / '007')
    names = ['lidar/poses.json', 'lidar/timestamps.json', 'annotations/cuboids/01.json.gz']
    names += ['camera/front_camera/intrinsics.json', 'camera/front_camera/poses.json']
    seeds = []
    for name in names:
        content = (sequence / name).read_bytes()
        text = gzip.decompress(content) if name.endswith('.gz') else content
        seeds.append(json.dumps([name, json.loads(text)]).encode())
    return Target(
        'pandaset', (DatasetError,), seeds, mutated_json, partial(_read_pandaset, sequence), 0.3
    )


def _read_pandaset(sequence, data, folder):
    try:
        name, value = json.loads(data.decode('utf-8', 'replace'))
    except (ValueError, TypeError):
        return
    known = [path.relative_to(sequence).as_posix() for path in sequence.rglob('*.json*')]
    if name not in known:
        return
    root = shutil.copytree(sequence, folder / 'set' / '007', copy_function=os.link)
    (root / name).unlink()
    text = json.dumps(value).encode('utf-8', 'replace')
    (root / name).write_bytes(gzip.compress(text) if name.endswith('.gz') else text)
    import_pandaset(root.parent, folder / 'out')


def _checkpoints():
    state = {'a.weight': torch.ones(3, 2), 'b.bias': torch.arange(4)}
    seeds = []
    for content in (state, {'state_dict': state, 'meta': {'epoch': 3}}):
        for zipped in (True, False):
            file = io.BytesIO()
            torch.save(content, file, _use_new_zipfile_serialization=zipped)
            seeds.append(file.getvalue())
    yield Target('checkpoint', (TensorFileError,), seeds, mutated_bytes, _read_tensors, 2.0)
    yield Target(
        'published checkpoint',
        (ValueError,),  # named in one line, as all that the command line expects
        seeds,
        mutated_bytes,
        _read_published,
        1.0,
    )


def _read_tensors(data, folder):
    (folder / 'last.pt').write_bytes(data)
    read_tensors(folder / 'last.pt')


def _read_published(data, folder):
    (folder / 'published.pth').write_bytes(data)
    read_checkpoint(folder / 'published.pth')


def _texts(bag):
    recipe = {'base': 'nano', 'schedule': {'minutes': 3}, 'weights': {'bla': 0.1}}
    recipe |= {'captions': {'start': 0.5, 'objects': 6}, 'world': {'seed': 1}}
    whole = yaml.safe_dump({'base': 'nano', **Recipe.nano().to_dict()}).encode()
    yield Target(
        'recipe',
        (ValueError, YamlError),
        [yaml.safe_dump(recipe).encode(), whole],
        mutated_yaml,
        _read_recipe,
        1.0,
    )
    from mta_perception.bags.scene_bag import SceneBag

    box = {
        'translation': [0.0, 1.0, 2.0],
        'size': [1.0, 2.0, 3.0],
        'rotation': [1.0, 0.0, 0.0, 0.0],
        'velocity': [0.0, 0.0],
        'detection_name': 'car',
        'detection_score': 0.5,
        'attribute_name': '',
        'caption': 'A red car.',
    }
    tokens = [sample.token for sample in SceneBag(bag).samples]
    results = {
        'meta': {'use_camera': True},
        'results': {token: [{'sample_token': token, **box}] for token in tokens},
    }
    yield Target(
        'result file',
        (EvaluationError, BagError),
        [json.dumps(results).encode()],
        mutated_json,
        partial(_read_results, bag),
        0.2,
    )


def _read_recipe(data, folder):
    (folder / 'recipe.yaml').write_bytes(data)
    Recipe.load(str(folder / 'recipe.yaml'))


def _read_results(bag, data, folder):
    (folder / 'results.json').write_bytes(data)
    read_results(folder / 'results.json', [bag], 3)


def _cache(folder):
    frames = 2
    scene = SceneArrays(
        'scene',
        np.zeros((frames, 6, 8, 8, 3), np.uint8),
        np.ones((frames, 6), bool),
        np.zeros((frames, 6, 3, 4), np.float32),
        np.stack([np.eye(4)] * frames),
        ['a', 'b'],
        [np.zeros((1, 10), np.float32)] * frames,
        [np.zeros(1, np.int64)] * frames,
        [['x'], ['y']],
        np.arange(frames),
    )
    path = save_scene(scene, folder / 'cache')
    images = (path / 'images.npy').read_bytes()
    return Target(
        'training cache',
        (CacheError,),
        [(path / 'facts.npz').read_bytes()],
        mutated_bytes,
        partial(_read_cache, images),
        1.0,
    )


def _read_cache(images, data, folder):
    (folder / 'images.npy').write_bytes(images)
    (folder / 'facts.npz').write_bytes(data)
    load_scene(folder)


def _seen(folder):
    frames, rows = 2, 3
    with open(folder / 'seen.npz', 'wb') as file:
        np.savez(
            file,
            name='scene',
            stamps_ns=np.arange(frames),
            world_from_ego=np.stack([np.eye(4)] * frames),
            objects=np.zeros((frames, rows, 8), np.float16),
            boxes=np.zeros((frames, rows, 10), np.float32),
            class_logits=np.zeros((frames, rows, 10), np.float16),
            bev=np.zeros((frames, 4, 5, 5), np.float16),
        )
    seed = (folder / 'seen.npz').read_bytes()
    return Target('seen scene', (CacheError,), [seed], mutated_bytes, _read_seen, 1.0)


def _read_seen(data, folder):
    (folder / 'seen.npz').write_bytes(data)
    read_frames(folder / 'seen.npz')


def _asking_recipe():
    own = {'base': 'tpo_nano', 'stages': {3: {'steps': 9, 'mixture': {'grounding': 1.0}}}}
    whole = {'base': 'tpo_nano', **json.loads(json.dumps(TpoRecipe.tpo_nano().to_dict()))}
    return Target(
        'recipe of tpo',
        (ValueError, YamlError),
        [yaml.safe_dump(one).encode() for one in (own, whole)],
        mutated_yaml,
        _read_asking_recipe,
        1.0,
    )


def _read_asking_recipe(data, folder):
    (folder / 'recipe.yaml').write_bytes(data)
    TpoRecipe.load(str(folder / 'recipe.yaml'))
