"""The stages of TPO: what learns and what stays, what heads teach, going on after a kill."""

from dataclasses import replace

import pytest

torch = pytest.importorskip('torch', reason='torch is only in the training environment')
pytest.importorskip('peft')

from toy_asked import FRAMES, SCENE, toy_asked, toy_questions
from toy_scenes import toy_scene

from mta_perception.model.asking import AskConfig
from mta_perception.model.config import LanguageConfig, MtaConfig
from mta_perception.model.mta_model import MtaModel
from mta_perception.model.tasks.config import MaskConfig, TasksConfig, TemporalConfig
from mta_perception.runtime.torch_detector import TorchDetector
from mta_training.tpo import stages
from mta_training.tpo.batches import asked, make_batch
from mta_training.tpo.frames import see
from mta_training.tpo.host import merged_language, word_tokenizer
from mta_training.tpo.live import LiveEyes
from mta_training.tpo.objective import parts_by_length
from mta_training.tpo.recipe import TRAINED, Stage, TpoRecipe
from mta_training.tpo.run_files import build_asker, load_asker, write_run

TASKS = TasksConfig(temporal=TemporalConfig(width=32, heads=4), mask=MaskConfig(width=32, heads=4))
STAGE = Stage(3, {'grounding': 1.0, 'mask': 1.0, 'track': 1.0, 'conversation': 1.0}, frames=1)


def toy_recipe(host='plain', **changes):
    small = TpoRecipe.tpo_smoke()
    asking = AskConfig(host=host, memory=9, objects=6, bev_stride=10, width=32, tasks=TASKS)
    return replace(small, stages=(STAGE,) * 4, asking=asking, **changes)


def toy_model(vocabulary):
    language = LanguageConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    return replace(MtaConfig.toy(), language=language)


@pytest.fixture
def run(tmp_path):
    """A function that makes a fresh run directory of a recipe and its Asker."""
    tokenizer = word_tokenizer([f'{q.text} {q.answer}' for q in toy_questions()])

    def make(recipe):
        model = toy_model(tokenizer.get_vocab_size())
        write_run(tmp_path / 'run', recipe, model, tokenizer, 'nowhere')
        torch.manual_seed(0)
        return tmp_path / 'run', build_asker(tmp_path / 'run', recipe, model)

    return make


def toy_batch(asker):
    config = asker.tasks.config
    scenes = {SCENE: toy_asked()}
    return make_batch(asker.host.vocabulary, config.heads, toy_questions(), scenes, config.memory)


@pytest.mark.parametrize('stage', TRAINED)
def test_what_is_frozen_stays_frozen(run, stage):
    recipe = toy_recipe()
    out, asker = run(recipe)
    before = {name: value.clone() for name, value in asker.named_parameters()}
    stages.train_stage(out, stage, asker, recipe, {SCENE: toy_asked()})
    changed = {
        stages.group_of(name)
        for name, value in asker.named_parameters()
        if not torch.equal(value, before[name])
    }
    assert changed == set(TRAINED[stage]) - {'detector'}  # there is none in torch here


def test_assignment_is_taught_by_words_alone(run):
    out, asker = run(toy_recipe())
    assert set(asker(toy_batch(asker), with_heads=False).terms) == {'words', 'assign'}
    seen, forward = [], asker.forward
    asker.forward = lambda batch, with_heads=True: (
        seen.append(with_heads) or forward(batch, with_heads)
    )
    recipe = toy_recipe()
    for stage, wanted in ((1, False), (2, True)):
        seen.clear()
        stages.train_stage(out, stage, asker, recipe, {SCENE: toy_asked()})
        # The first step also measures every term's gradient.
        assert seen.count(wanted) >= STAGE.steps


def gradients(asker, heads):
    """Length of the gradient of some heads' losses by group of parameters."""
    for parameter in asker.parameters():
        parameter.requires_grad_(True)
    asker.zero_grad()
    with torch.no_grad():  # LoRA begins with zeros: its A has no gradient before B is something
        for name, parameter in asker.named_parameters():
            if 'lora_B' in name:
                parameter.normal_(std=0.1)
    loss = asker(toy_batch(asker))
    sum(loss.terms[head] for head in heads).backward()
    found = {}
    for name, parameter in asker.named_parameters():
        group = 'qformer' if '.qformer.' in name else stages.group_of(name)
        if parameter.grad is not None:
            found[group] = found.get(group, 0.0) + float(parameter.grad.square().sum())
    return found


@pytest.mark.parametrize('head', ('region', 'temporal', 'mask', 'track'))
def test_every_head_teaches_language_model_connector_and_qformer(run, head):
    _, asker = run(toy_recipe(host='mta'))
    found = gradients(asker.eval(), [head])
    for group in ('lora', 'connector', 'qformer', 'tokens', 'heads'):
        assert found[group] > 0.0, group


def test_detached_heads_teach_no_language_model(run):
    _, asker = run(toy_recipe(detach=True))
    found = gradients(asker.eval(), ['region', 'mask', 'track', 'temporal'])
    assert found.get('lora', 0.0) == found.get('language', 0.0) == found.get('tokens', 0.0) == 0.0
    assert found['heads'] > 0.0


def test_a_killed_stage_goes_on_as_if_it_had_not_been(run, tmp_path):
    recipe, scenes = toy_recipe(), {SCENE: toy_asked()}
    out, asker = run(recipe)
    state = {name: value.clone() for name, value in asker.state_dict().items()}
    stages.train_stage(out, 2, asker, recipe, scenes)
    whole = {name: value.clone() for name, value in asker.state_dict().items()}
    asker.load_state_dict(state)

    class Killed(Exception):
        pass

    asked, count = stages._step, []

    def killed(*arguments):
        count.append(1)
        if len(count) == 3:
            raise Killed
        found = asked(*arguments)
        stages.save_stage(out, 2, arguments[0], arguments[1], len(count), 0)
        return found

    stages._step = killed
    try:
        with pytest.raises(Killed):
            stages.train_stage(out, 2, asker, recipe, scenes)
    finally:
        stages._step = asked
    _, again = run(recipe)
    told = stages.train_stage(out, 2, again, recipe, scenes, resume=True)
    assert told.steps == STAGE.steps
    for name, value in again.state_dict().items():
        torch.testing.assert_close(value, whole[name], msg=name)


def test_a_further_head_leaves_the_others_as_they_are(run):
    recipe = toy_recipe()
    without = replace(recipe.asking, tasks=replace(TASKS, mask=None))
    out, asker = run(replace(recipe, asking=without))
    stages.train_stage(out, 2, asker, recipe, {SCENE: toy_asked()})
    batch = toy_batch(asker)
    before = asker.eval().answer(asker.tell(batch), batch, 'region').pointer
    _, more = run(recipe)
    missing, unknown = more.load_state_dict(asker.state_dict(), strict=False)
    assert not unknown and all('mask' in name for name in missing)
    batch = toy_batch(more)
    after = more.eval().answer(more.tell(batch), batch, 'region').pointer
    torch.testing.assert_close(after, before)


def test_merged_lora_says_the_same(run):
    out, asker = run(toy_recipe())
    gradients(asker.eval(), ['region'])  # leaves LoRA with an effect
    words = torch.randn(2, 5, 32)
    prefix, present = torch.randn(2, 3, 32), torch.ones(2, 3, dtype=torch.bool)
    rows = torch.tensor([0, 1])
    with torch.no_grad():
        said = asker.host(asker.host.read(prefix, present), rows, words)
        plain = merged_language(asker.host)
        none = torch.zeros(2, 0, dtype=torch.long)
        merged = plain(torch.cat([prefix, words], 1), none)
    torch.testing.assert_close(merged.logits[:, 3:], said.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(merged.hidden[:, 3:], said.hidden, atol=1e-4, rtol=1e-4)


def test_short_questions_are_read_apart_and_say_the_same(run):
    _, asker = run(toy_recipe())
    scenes = {SCENE: toy_asked()}
    short, *_, track, _, _ = toy_questions()
    batch = make_batch(
        asker.host.vocabulary, asker.tasks.config.heads, [track, *6 * [short]], scenes, FRAMES
    )
    assert [part.tolist() for part in parts_by_length(batch.lengths.tolist())] == [
        [1, 2, 3, 4, 5, 6], [0]
    ]  # fmt: skip
    assert [part.tolist() for part in parts_by_length([7, 8, 7])] == [[0, 1, 2]]
    assert [part.tolist() for part in parts_by_length([9])] == [[0]]
    asker.eval()
    with torch.no_grad():
        read = asker.read(batch.scene)
        words = asker._fill_slots(asker.host.embed(batch.ids), batch)
        wanted, told = asker.host(read.seen, batch.rows, words), asker.tell(batch, read)
    for row, length in enumerate(batch.lengths):
        for one, other in ((wanted.logits, told.logits), (wanted.hidden, told.hidden)):
            torch.testing.assert_close(one[row, :length], other[row, :length])


def test_a_saved_stage_is_read_back(run):
    recipe = toy_recipe()
    out, asker = run(recipe)
    stages.train_stage(out, 1, asker, recipe, {SCENE: toy_asked()})
    again, found, _ = load_asker(out)
    assert found == recipe
    for name, value in again.state_dict().items():
        assert torch.equal(value, asker.state_dict()[name]), name


@pytest.fixture
def live():
    """A function that gives an untrained toy detector its drive, and the Asked of what it sees."""

    def make(model):
        arrays = toy_scene(model, frames=FRAMES, objects=3)
        known = toy_asked()
        count = known.frames.boxes.shape[1]
        torch.manual_seed(1)
        detector = MtaModel(model).detector.eval()
        # As an untrained decoder is, its queries know of no image.
        for parameter in detector.parameters():
            with torch.no_grad():
                parameter.add_(0.05 * torch.randn_like(parameter))
        frames = see(arrays._replace(name=SCENE), TorchDetector(detector, bf16=False), count)
        frames = frames._replace(name=SCENE, stamps_ns=known.facts.stamps_ns)
        return LiveEyes(detector, {SCENE: arrays}), asked(frames, known.facts)

    return make


@pytest.mark.parametrize('head', ('region', 'temporal', 'mask', 'track'))
def test_in_stage_3_every_head_teaches_the_bev_encoder(run, live, head):
    _, asker = run(toy_recipe())
    eyes, known = live(toy_model(asker.host.language.config.vocab_size))
    asker.eyes = eyes
    stages.prepare(asker, 3)
    asker.eval()
    batch = stages._batch(asker, toy_questions(), {SCENE: known})
    asker(batch).terms[head].backward()
    encoder = [p for n, p in asker.named_parameters() if n.startswith('eyes.detector.bev_encoder')]
    assert sum(float(p.grad.square().sum()) for p in encoder if p.grad is not None) > 0.0
    assert all(p.grad is None for p in eyes.detector.backbone.parameters())


def test_only_stage_3_changes_the_detector(run, live):
    recipe = toy_recipe()
    out, asker = run(recipe)
    eyes, known = live(toy_model(asker.host.language.config.vocab_size))
    for stage, changes in ((2, False), (3, True)):
        asker.eyes = eyes
        before = {name: value.clone() for name, value in eyes.named_parameters()}
        stages.train_stage(out, stage, asker, recipe, {SCENE: known})
        changed = {n for n, value in eyes.named_parameters() if not torch.equal(value, before[n])}
        assert bool(changed) == changes
        assert not any('.backbone.' in name for name in changed)


def test_what_is_seen_anew_is_what_was_seen(run, live):
    _, asker = run(toy_recipe())
    eyes, known = live(toy_model(asker.host.language.config.vocab_size))
    before = {
        name: value.copy() for name, value in known.frames._asdict().items() if name != 'name'
    }
    known.frames.bev_mean[-1] = 7.0  # what was kept beside it has to follow
    eyes.eval().see([(SCENE, 0, FRAMES - 1)], {SCENE: known})
    for name in ('objects', 'boxes', 'class_logits', 'bev', 'bev_mean'):
        after = getattr(known.frames, name).astype(float)
        assert abs(after - before[name].astype(float)).max() < 0.02, name


def test_drives_in_which_nothing_can_be_asked_are_refused():
    """Instead of drawing for ever."""
    scene = toy_asked()
    short = scene._replace(facts=scene.facts._replace(objects=()))
    stage = Stage(3, {'track': 1.0}, frames=1)
    with pytest.raises(ValueError, match='no question of track'):
        stages.Questions({SCENE: short}, stage, 0).at(0)
