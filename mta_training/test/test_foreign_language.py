"""A foreign language model from training to the runtime: exported, opened, equal word by word."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('peft')
pytest.importorskip('onnxscript')

from foreign_models import small_llama, write_internlm2, write_llama
from safetensors.torch import load_file, save_file
from small_language import open_gates
from toy_scenes import toy_scene
from training_cases import silent, small_recipe, toy_scenes
import yaml

from mta_perception.detections import CaptionInputs
from mta_perception.model.config import MtaConfig
from mta_perception.runtime.captioner import OnnxCaptioner, StoppedError
from mta_perception.runtime.manifest import Manifest, ManifestError
from mta_perception.runtime.speech import LanguageSettings, language_directory, open_captioner
from mta_perception.runtime.torch_captioner import TorchCaptioner
from mta_training.export import model_directory
from mta_training.export.foreign_language import ForeignLanguage
from mta_training.language import small_model
from mta_training.language.frozen_llama import CaptionLanguage
from mta_training.runs.run_directory import load_run
from mta_training.training import loop

PROMPT = 'Describe: the car'
MOST = 12  # words


@pytest.fixture(scope='module', params=['llama', 'internlm2'])
def spoken(request, exported, tmp_path_factory):
    """(MtaModel, CaptionLanguage, model directory, directory of the weights)."""
    model, _, own, _ = exported
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = small_model.train_tokenizer(toy_scene(MtaConfig.toy(), 1, 6).captions[0])
    if request.param == 'llama':
        weights = write_llama(folder / 'weights', tokenizer, max_shard_size='100KB')
    else:
        llama = small_llama(tokenizer, model.config.language.hidden_size, 4)
        llama.lm_head.weight.data[2] *= 3.0  # so that some sentences end
        weights = write_internlm2(llama, tokenizer, folder / 'weights')
    language = open_gates(
        CaptionLanguage.from_directory(
            weights, adapter_len=4, dtype='float32', prompt=PROMPT, max_tokens=MOST
        )
    )
    foreign, directory = ForeignLanguage(language, weights, PROMPT), folder / 'model'
    write_directory(model, foreign, own, directory)
    difference = foreign.parity(directory)
    print('largest difference of a log probability:', difference)
    assert difference < 1e-3
    return model, language, directory, weights


def write_directory(model, foreign, graphs, directory):
    """A model directory as the export makes it, with graphs that are there already: of the same
    width."""
    directory.mkdir()
    for name in ('detector.onnx', 'qformer.onnx'):
        shutil.copy(graphs / name, directory)
    foreign.write(directory)
    exported = model_directory.Exported(model.config, model.detector, foreign=foreign)
    values = model_directory.manifest(exported, directory, {}, {})
    (directory / 'manifest.yaml').write_text(yaml.safe_dump(values))


def some_objects(model, count, seed=0):
    rng = np.random.default_rng(seed)
    wide = model.detector.object_feature_width
    return CaptionInputs(
        *(rng.normal(0, 2, (count, columns)).astype(np.float32) for columns in (wide, 10, 10)),
        rng.normal(0, 1, model.config.bev.shape).astype(np.float32),
    )


def opened(spoken):
    _, _, directory, weights = spoken
    return open_captioner(Manifest.load(directory), 1, LanguageSettings(str(weights)))


def steps_to_the_end(rows):
    return {len(row) for row in rows}


def test_words_are_those_of_training_token_by_token(spoken):
    model, language, *_ = spoken
    generator = torch.Generator().manual_seed(3)
    # Far from each other, so that the rows differ and end at different steps.
    prefix = 3 * torch.randn(24, 6, language.hidden_size, generator=generator)
    wanted = language.generate_ids(prefix)
    captioner = opened(spoken)
    rows, spoken_of = captioner.words(prefix.numpy())
    assert rows == wanted
    assert len(steps_to_the_end(rows)) > 2, 'the test needs rows that leave the batch'
    assert [len(values) for values in spoken_of] == [min(len(row) + 1, MOST) for row in rows]
    alone = [captioner.words(prefix[i : i + 1].numpy())[0][0] for i in range(24)]
    assert alone == rows


def test_sentences_are_those_of_offline_evaluation(spoken):
    model, language, *_ = spoken
    inputs = some_objects(model, 9)
    with torch.no_grad():
        prefix = model.qformer(*map(torch.from_numpy, inputs))
    captions = opened(spoken).caption(inputs)
    assert [caption.text for caption in captions] == language.generate(prefix)
    assert all(0.0 < caption.score <= 1.0 for caption in captions)
    assert opened(spoken).caption(inputs.take(np.zeros(9, bool))) == []


def test_a_pass_that_nobody_waits_for_ends_at_the_next_word(spoken, exported):
    for captioner in (opened(spoken), open_captioner(Manifest.load(exported[2]))):
        left = iter([True, True, True, False])
        with pytest.raises(StoppedError):
            captioner.caption(some_objects(spoken[0], 24), lambda left=left: next(left))
        assert len(captioner.caption(some_objects(spoken[0], 2))) == 2


def test_the_adapter_is_in_the_words(spoken, tmp_path):
    _, language, directory, weights = spoken
    copy = shutil.copytree(directory, tmp_path / 'copy')
    adapter = load_file(copy / 'adapter.safetensors')
    save_file({name: value * 0.0 for name, value in adapter.items()}, copy / 'adapter.safetensors')
    _say_the_hash_again(copy, 'adapter.safetensors')
    prefix = torch.randn(8, 6, language.hidden_size, generator=torch.Generator().manual_seed(5))
    silent_one = open_captioner(Manifest.load(copy), 1, LanguageSettings(str(weights)))
    assert silent_one.words(prefix.numpy())[0] != language.generate_ids(prefix)


def _say_the_hash_again(directory, name):
    from mta_perception.atomic_files import sha256

    path = directory / 'manifest.yaml'
    values = yaml.safe_load(path.read_text())
    values['files'][name] = sha256(directory / name)
    path.write_text(yaml.safe_dump(values))


def test_weights_are_not_in_the_model_directory(spoken):
    _, language, directory, weights = spoken
    names = {path.name for path in directory.iterdir()}
    assert names == {'detector.onnx', 'qformer.onnx', 'adapter.safetensors', 'manifest.yaml'}
    foreign = Manifest.load(directory).captioner.foreign
    files = {path.name for path in weights.glob('*.safetensors')} | {'config.json'}
    assert set(foreign.files) == {*files, 'tokenizer.json'}
    assert (foreign.name, foreign.prompt) == ('weights', PROMPT)


def remove(name):
    return lambda folder: (folder / name).unlink()


def change(folder):
    path = folder / 'config.json'
    path.write_text(path.read_text() + ' ')


def change_weights(folder):
    path = sorted(folder.glob('*.safetensors'))[0]
    state = load_file(path)
    name = sorted(state)[0]
    save_file({**state, name: state[name] + 1e-3}, path, {'format': 'pt'})


@pytest.mark.parametrize(
    'damage, words',
    [
        (shutil.rmtree, 'is no directory, expected that of the language model weights'),
        (remove('tokenizer.json'), 'lacks the tokenizer, .*lists as tokenizer.json'),
        (remove('config.json'), 'lacks config.json, which'),
        (change, 'config.json has sha256'),
        (change_weights, 'safetensors has sha256 .* damaged, or not of the weights'),
    ],
)
def test_weights_that_are_not_those_of_the_training_are_refused_with_the_mend(
    spoken, tmp_path, damage, words
):
    *_, directory, weights = spoken
    copy = shutil.copytree(weights, tmp_path / 'copy')
    damage(copy)
    with pytest.raises(ManifestError, match=words) as caught:
        open_captioner(Manifest.load(directory), 1, LanguageSettings(str(copy)))
    assert 'captions:=false' in str(caught.value) and 'language_directory' in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_model_whose_directory_nobody_named_says_so(spoken):
    with pytest.raises(ManifestError, match='language_directory:=DIR.*captions:=false'):
        open_captioner(Manifest.load(spoken[2]))


def test_files_beside_those_of_the_manifest_are_not_read(spoken, tmp_path):
    *_, directory, weights = spoken
    copy = shutil.copytree(weights, tmp_path / 'copy')
    (copy / 'model.safetensors.index.json').write_text('{"weight_map": {"a": "../other"}}')
    (copy / 'zz.safetensors').write_bytes(b'no tensors')
    (copy / 'generation_config.json').write_text('{"do_sample": true}')
    (copy / 'pytorch_model.bin').write_bytes(b'cos\nsystem\n')
    (copy / 'tokenizer_config.json').write_text('{"auto_map": {"AutoTokenizer": "evil.Evil"}}')
    (copy / 'evil.py').write_text('raise SystemExit("executed")')
    captioner = open_captioner(Manifest.load(directory), 1, LanguageSettings(str(copy)))
    inputs = some_objects(spoken[0], 3)
    assert captioner.caption(inputs) == opened(spoken).caption(inputs)


def test_what_config_json_names_beside_sizes_does_nothing(tmp_path):
    """An attention that is loaded from a hub, code of its own, another number format."""
    from mta_perception.runtime.torch_llama import load_llama

    tokenizer = small_model.train_tokenizer(['a car'])
    weights = write_llama(tmp_path / 'weights', tokenizer)
    plain = load_llama(weights, torch.float32)
    config = json.loads((weights / 'config.json').read_text())
    config |= {
        'attn_implementation': 'someone/kernel',
        '_attn_implementation': 'someone/kernel',
        'auto_map': {'AutoModelForCausalLM': 'evil.Evil'},
        'quantization_config': {'quant_method': 'gptq', 'bits': 4},
        'output_attentions': True,
    }
    (weights / 'config.json').write_text(json.dumps(config))
    (weights / 'evil.py').write_text('raise SystemExit("executed")')
    other = load_llama(weights, torch.float32)
    ids = torch.tensor([[1, 5, 6]])
    with torch.no_grad():
        torch.testing.assert_close(other(ids).logits, plain(ids).logits)
    assert other.config._attn_implementation == 'sdpa'


@pytest.mark.parametrize(
    'changes, words',
    [
        ({'kind': 'pickle'}, 'language.kind is .pickle., expected one of onnx, transformers'),
        ({'prompt': 3}, 'language.prompt is 3'),
        ({'name': ''}, 'language.name is'),
        ({'adapter_tokens': 0}, 'adapter_tokens is 0'),
        ({'files': {}}, 'language.files is'),
        ({'files': {'config.json': 'a', 'pytorch_model.bin': 'b'}}, 'each of them .json or'),
        ({'files': {'config.json': 'a', 'modeling.py': 'b', 'x.safetensors': 'c'}}, 'each of'),
        ({'files': {'config.json': 'a', '../x.safetensors': 'c'}}, 'names of files of one folder'),
        ({'files': {'x.safetensors': 'c'}}, 'expected config.json and weights'),
    ],
)
def test_a_manifest_that_names_something_else_is_refused(spoken, tmp_path, changes, words):
    copy = shutil.copytree(spoken[2], tmp_path / 'copy')
    values = yaml.safe_load((copy / 'manifest.yaml').read_text())
    values['captioner']['language'] |= changes
    (copy / 'manifest.yaml').write_text(yaml.safe_dump(values))
    with pytest.raises(ManifestError, match=words):
        Manifest.load(copy)


@pytest.mark.parametrize(
    'name, value, words',
    [
        ('width', 3, 'captioner.width is 3, the language model in .* has'),
        ('layers', 7, 'captioner.layers is 7'),
        ('adapter_tokens', 5, 'adapter_prompt is .*, expected .5'),
        ('vocabulary', 9999, 'captioner.vocabulary is 9999'),
    ],
)
def test_sizes_that_are_not_those_of_the_weights_are_refused(spoken, tmp_path, name, value, words):
    *_, directory, weights = spoken
    copy = shutil.copytree(directory, tmp_path / 'copy')
    values = yaml.safe_load((copy / 'manifest.yaml').read_text())
    part = values['captioner']
    (part['language'] if name in part['language'] else part)[name] = value
    (copy / 'manifest.yaml').write_text(yaml.safe_dump(values))
    if name == 'width':
        words = 'qformer.onnx: output "prefix"'  # seen before the weights are
    with pytest.raises(ManifestError, match=words):
        open_captioner(Manifest.load(copy), 1, LanguageSettings(str(weights)))


@pytest.mark.parametrize(
    'given, words',
    [
        ({'device': 'gpu'}, 'language_device is .gpu., expected cpu, cuda'),
        ({'device': 'cuda:x'}, 'language_device'),
        ({'precision': 'int8'}, 'language_precision is .int8., expected one of'),
        ({'precision': 'bfloat16'}, 'language_device cpu: a CPU computes in float32'),
    ],
)
def test_a_device_that_there_cannot_be_is_refused(given, words):
    with pytest.raises(ValueError, match=words):
        LanguageSettings('somewhere', **given)


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_a_gpu_that_is_not_there_is_an_error_and_no_swap(spoken):
    *_, directory, weights = spoken
    with pytest.raises(ManifestError, match='language_device is cuda:1, and torch .* no GPU here'):
        open_captioner(Manifest.load(directory), 1, LanguageSettings(str(weights), 'cuda:1'))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no GPU')
@pytest.mark.parametrize('precision', ['auto', 'bfloat16', 'float16', 'float32'])
def test_on_a_gpu_the_words_are_sentences_of_the_same_kind(spoken, precision):
    *_, directory, weights = spoken
    settings = LanguageSettings(str(weights), 'cuda', precision)
    captioner = open_captioner(Manifest.load(directory), 1, settings)
    inputs = some_objects(spoken[0], 6)
    captions, wanted = captioner.caption(inputs), opened(spoken).caption(inputs)
    assert len(captions) == 6
    if precision == 'float32':
        assert [one.text for one in captions] == [one.text for one in wanted]


@pytest.mark.parametrize('precision, near', [('bfloat16', 0.5), ('float16', 0.1)])
def test_in_half_precision_first_words_are_nearly_those_of_float32(spoken, precision, near):
    """What a GPU computes in; a CPU can, too, and would find a number of the wrong kind."""
    _, language, directory, weights = spoken
    captioner = TorchCaptioner(Manifest.load(directory), weights, 1, 'cpu', precision)
    generator = torch.Generator().manual_seed(4)
    prefix = torch.randn(16, 6, language.hidden_size, generator=generator).numpy()
    rows, spoken_of = captioner.words(prefix, 1)
    exact_rows, exact = opened(spoken).words(prefix, 1)
    same = [i for i in range(16) if rows[i] == exact_rows[i]]
    assert len(same) >= 12
    for i in same:
        assert spoken_of[i][0] == pytest.approx(exact[i][0], abs=near)
    assert len(captioner.caption(some_objects(spoken[0], 3))) == 3


def test_without_torch_the_sentence_names_the_extra(spoken):
    *_, directory, weights = spoken
    code = (
        'import sys\n'
        'class Blocker:\n'
        '    def find_spec(name, path=None, target=None):\n'
        '        if name.split(".")[0] in ("torch", "transformers", "safetensors"):\n'
        '            raise ModuleNotFoundError(name, name=name)\n'
        'sys.meta_path.insert(0, Blocker)\n'
        'from mta_perception.runtime.manifest import Manifest\n'
        'from mta_perception.runtime.speech import LanguageSettings, open_captioner\n'
        f'open_captioner(Manifest.load({str(directory)!r}), 1, LanguageSettings({str(weights)!r}))'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "pip install safetensors torch 'transformers>=5'" in last and 'ManifestError' in last


def test_our_own_language_model_needs_no_directory(exported):
    _, _, directory, _ = exported
    manifest = Manifest.load(directory)
    values = yaml.safe_load((directory / 'manifest.yaml').read_text())
    assert values['captioner']['language'] == {'kind': 'onnx'}
    assert manifest.captioner.foreign is None and language_directory(manifest, '') is None
    assert isinstance(open_captioner(manifest), OnnxCaptioner)


def test_a_tokenizer_of_another_form_comes_with_the_export(spoken, tmp_path):
    """InternLM2 has tokenizer.model alone: what sentencepiece makes of it is exported."""
    model, language, _, weights = spoken
    copy = shutil.copytree(weights, tmp_path / 'weights')
    (copy / 'tokenizer.json').unlink()
    foreign = ForeignLanguage(language, copy, PROMPT)
    write_directory(model, foreign, spoken[2], tmp_path / 'model')
    manifest = Manifest.load(tmp_path / 'model')
    assert 'tokenizer.json' in manifest.files
    assert 'tokenizer.json' not in manifest.captioner.foreign.files
    captioner = open_captioner(manifest, 1, LanguageSettings(str(copy)))
    inputs = some_objects(model, 3)
    assert captioner.caption(inputs) == opened(spoken).caption(inputs)


@pytest.mark.slow
def test_a_run_with_a_foreign_language_model_goes_from_training_to_the_runtime(tmp_path):
    tokenizer = small_model.train_tokenizer(
        text for scene in toy_scenes() for frame in scene.captions for text in frame if text
    )
    weights = write_llama(tmp_path / 'weights', tokenizer)
    recipe = small_recipe(
        language={'model': str(weights), 'adapter_tokens': 4}, schedule={'steps': 4}
    )
    loop.run(toy_scenes(), [], tmp_path / 'run', recipe, threads=1, say=silent)
    out = tmp_path / 'model'
    found = model_directory.export(tmp_path / 'run', out)
    assert found['parity_boxes'] < 1e-3 and found['parity_language'] < 1e-3
    assert 'weights (0.' in (out / 'MODEL_CARD.md').read_text()
    model, language, *_ = load_run(tmp_path / 'run', foreign_dtype='float32')
    captioner = open_captioner(Manifest.load(out), 1, LanguageSettings(str(weights)))
    inputs = some_objects(model, 5)
    with torch.no_grad():
        wanted = language.generate(model.qformer(*map(torch.from_numpy, inputs)))
    assert [caption.text for caption in captioner.caption(inputs)] == wanted
