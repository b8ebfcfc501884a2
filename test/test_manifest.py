"""Manifests that do not fit are refused in words that help."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
import pytest
import yaml

from mta_perception import contract
from mta_perception.atomic_files import sha256
from mta_perception.runtime.manifest import BevSpec, ImageSpec, Manifest, ManifestError

pytest.importorskip('onnx', reason='onnx comes with the training environment')
from tiny_model import write_manifest, write_tiny_model


@pytest.fixture
def directory(tmp_path):
    return write_tiny_model(tmp_path / 'tiny')


def test_a_whole_model_loads(directory):
    manifest = Manifest.load(directory)
    assert (manifest.name, manifest.history_step_s, manifest.max_detections) == ('tiny', 0.5, 100)
    assert manifest.image == ImageSpec(64, 48, 0.04)
    assert manifest.bev == BevSpec(51.2, 4, 2)
    assert manifest.captioner.eos == 2
    assert manifest.path('detector.onnx') == directory / 'detector.onnx'
    assert Manifest.load(directory / 'manifest.yaml') == manifest


def test_a_model_without_captioner_loads(directory):
    write_manifest(directory, captioner=None)
    assert Manifest.load(directory).captioner is None


@pytest.mark.parametrize(
    'stated, read', [('int8', 'int8'), ('fp32', 'fp32'), ('bf16', 'fp32'), (None, 'fp32')]
)
def test_precision_is_optional(directory, stated, read):
    write_manifest(directory, precision=stated)
    assert Manifest.load(directory).precision == read


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'contract_version': 2}, 'contract_version is 2, expected 1'),
        ({'cameras': list(contract.CAMERAS[::-1])}, 'cameras is .*in this order'),
        ({'classes': list(contract.CLASSES[:9])}, 'classes is'),
        (
            {'box_code': ['x', 'y', 'z', 'width', 'length', 'height', 'sin', 'cos', 'vx', 'vy']},
            'box_code is',
        ),
        ({'image': {'width': 64, 'height': -48, 'scale': 0.04}}, 'image.height is -48'),
        ({'image': {'width': 64, 'scale': 0.04}}, 'image.height is .nothing.'),
        ({'image': None}, 'image.width is .nothing.'),
        (
            {'bev': {'half_extent_m': float('nan'), 'cells': 4, 'channels': 2}},
            'half_extent_m is nan',
        ),
        ({'history': {'step_s': 0}}, 'history.step_s is 0'),
        ({'history': 0.5}, 'history.step_s is'),
        ({'decode': {'score_threshold': 0.2, 'max_detections': 1.5}}, 'max_detections is 1.5'),
        ({'files': {'qformer.onnx': '00'}}, 'files has no detector.onnx'),
        ({'captioner': {'prefix_tokens': 2}}, 'captioner.width is'),
    ],
)
def test_a_wrong_value_is_named(directory, changes, message):
    write_manifest(directory, **changes)
    with pytest.raises(ManifestError, match=message) as caught:
        Manifest.load(directory)
    assert 'manifest.yaml' in str(caught.value)


STRANGE = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats()
    | st.text(max_size=9)
    | st.lists(st.integers(), max_size=2)
    | st.dictionaries(st.text(max_size=3) | st.integers(), st.integers(), max_size=2)
)


def places_in(value, place=()):
    """Keys and indices that lead to everything inside a value."""
    yield place
    inner = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value) if isinstance(value, list) else inner
    for key, one in inner:
        yield from places_in(one, (*place, key))


def speak_with_another(directory):
    """Turn a model into one that speaks with a foreign language model."""
    (directory / 'adapter.safetensors').write_bytes(b'')
    path = directory / 'manifest.yaml'
    values = yaml.safe_load(path.read_text())
    values['files']['adapter.safetensors'] = sha256(directory / 'adapter.safetensors')
    values['captioner']['language'] = {
        'kind': 'transformers',
        'name': 'Llama',
        'prompt': 'Describe it.',
        'adapter_tokens': 3,
        'files': {'config.json': 'a', 'model.safetensors': 'b', 'tokenizer.json': 'c'},
    }
    path.write_text(yaml.safe_dump(values))


def test_a_foreign_language_model_is_read(directory):
    speak_with_another(directory)
    foreign = Manifest.load(directory).captioner.foreign
    assert (foreign.name, foreign.prompt, foreign.adapter_tokens) == ('Llama', 'Describe it.', 3)
    assert set(foreign.files) == {'config.json', 'model.safetensors', 'tokenizer.json'}


@pytest.mark.parametrize('foreign', [False, True])
@given(st.data())
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_a_manifest_says_it_is_taken_or_refused_in_one_line(directory, foreign, data):
    path = directory / 'manifest.yaml'
    if foreign and 'adapter_tokens' not in path.read_text():
        speak_with_another(directory)
    whole = path.read_text()
    values = yaml.safe_load(whole)
    *above, last = data.draw(st.sampled_from([one for one in places_in(values) if one]))
    inner = values
    for key in above:
        inner = inner[key]
    if data.draw(st.booleans()) or isinstance(inner, list):
        inner[last] = data.draw(STRANGE)
    else:
        del inner[last]
    path.write_text(yaml.safe_dump(values))
    try:
        Manifest.load(directory)
    except ManifestError as error:
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 1500
    finally:
        path.write_text(whole)


def test_weights_in_another_file_are_not_read(directory):
    """A graph may keep its tensors beside it, where no hash covers them."""
    import onnx

    from mta_perception.runtime.onnx import OnnxDetector

    path = directory / 'detector.onnx'
    graph = onnx.load(path)
    onnx.save(graph, path, save_as_external_data=True, location='w.bin', size_threshold=0)
    assert (directory / 'w.bin').stat().st_size
    write_manifest(directory)
    with pytest.raises(ManifestError, match='detector.onnx cannot be run'):
        OnnxDetector(Manifest.load(directory), 1)


def test_a_damaged_file_is_named(directory):
    damaged = bytearray((directory / 'language.onnx').read_bytes())
    damaged[100] ^= 1
    (directory / 'language.onnx').write_bytes(damaged)
    with pytest.raises(ManifestError, match='language.onnx has sha256 .* expects'):
        Manifest.load(directory)


def test_a_missing_file_is_named(directory):
    (directory / 'tokenizer.json').unlink()
    with pytest.raises(ManifestError, match='tokenizer.json is missing'):
        Manifest.load(directory)


def test_files_outside_the_directory_are_refused(directory):
    text = (directory / 'manifest.yaml').read_text()
    (directory / 'manifest.yaml').write_text(
        text.replace('training:', '  ../elsewhere.onnx: abc\ntraining:')
    )
    with pytest.raises(ManifestError, match='names of files beside the manifest'):
        Manifest.load(directory)


@pytest.mark.parametrize(
    'text, message',
    [
        ('', 'holds NoneType'),
        ('- a list', 'holds list'),
        ('a: [', 'is no YAML'),
        ('\x00', 'is no YAML'),
    ],
)
def test_something_else_than_a_manifest(directory, text, message):
    (directory / 'manifest.yaml').write_text(text)
    with pytest.raises(ManifestError, match=message):
        Manifest.load(directory)


def test_an_empty_or_missing_directory(tmp_path):
    for directory in (tmp_path, tmp_path / 'nowhere'):
        with pytest.raises(ManifestError, match='holds no manifest.yaml'):
            Manifest.load(directory)
