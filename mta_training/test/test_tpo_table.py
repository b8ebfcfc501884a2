"""`mta-train tpo-table`: every row is a recipe of its own, runs share their start and go on."""

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='torch is only in the training environment')

from toy_asked import toy_asked, toy_questions

from mta_training.ablation import tpo_table
from mta_training.ablation.tpo_rows import FULL, GROUP_OF, ROWS, scaled
from mta_training.tpo.answering import Shown
from mta_training.tpo.recipe import TpoRecipe
from mta_training.tpo.textual import as_text, read_text


def changed(name, recipe=None):
    row = next(row for row in ROWS if row.name == name)
    return row.change(recipe or TpoRecipe.tpo_nano())


def test_every_row_is_another_recipe():
    recipes = {row.name: (row.change(TpoRecipe.tpo_nano()), row.stage) for row in ROWS}
    assert len({str(made) for made in recipes.values()}) == len(ROWS)
    for recipe, _ in recipes.values():
        assert TpoRecipe.from_dict(recipe.to_dict()) == recipe
        # A head is there if and only if something is asked of it.
        for head, group in GROUP_OF.items():
            if not recipe.textual:
                assert (group in recipe.stages[2].mixture) == (head in recipe.asking.heads)


def test_a_row_asks_what_it_has_as_often_as_the_full_method():
    full, alone = changed(FULL).stages[3], changed('mask alone').stages[3]
    assert alone.mixture == {'mask': full.mixture['mask']}
    of_masks = full.steps * full.mixture['mask'] / sum(full.mixture.values())
    assert alone.steps == round(of_masks)
    half = scaled(TpoRecipe.tpo_nano(), dict.fromkeys(('conversation', 'choice'), 0.5)).stages[3]
    assert half.mixture['choice'] == full.mixture['choice'] / 2
    assert half.mixture['mask'] / sum(half.mixture.values()) * half.steps == pytest.approx(
        of_masks, abs=1.0
    )


def test_rows_begin_from_one_conversation():
    bases = {row.name: str(tpo_table._base_of(row.change(TpoRecipe.tpo_nano()))) for row in ROWS}
    other = bases.pop('the other host')
    assert len(set(bases.values())) == 1 and other not in bases.values()


def test_what_is_said_in_numbers_is_read_back():
    known, questions = toy_asked(), toy_questions()
    box, time = questions[0], questions[5]
    said = as_text(box, known)
    assert said.kind == 'talk' and '<' not in said.answer
    shown = read_text(box, Shown(said.answer, (), (0, 8)))
    true = known.facts.track('car').boxes[box.now]
    assert shown.heads == ('region',) and np.abs(shown.box[:2] - true[:2]).max() <= 0.5
    shown = read_text(time, Shown(as_text(time, known).answer, (), (0, 8)))
    np.testing.assert_array_equal(shown.spans, [[2.0, 6.0]])
    assert as_text(questions[2], known).answer == questions[2].answer  # not there
    assert read_text(box, Shown('i cannot tell', (), (0, 8))).box is None
    assert as_text(questions[3], known) is questions[3]  # masks are not said


def test_a_span_before_the_window_is_read_in_the_windows_frames():
    """A window may begin later than the question's memory."""
    time = toy_questions()[5]
    shown = read_text(time, Shown('2 5', (), (1, 8)))
    np.testing.assert_array_equal(shown.spans, [[1.0, 5.0]])
