"""Foreign texts in messages of ours: short, on one line, without control characters."""

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from mta_perception.foreign_text import printable, shown
from mta_perception.workers.tally import Tally

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
)


@given(VALUES | st.just('x' * 10**6) | st.just([['deep'] * 999] * 999))
@settings(max_examples=100, deadline=None)
def test_a_foreign_value_is_shown_on_one_short_line(value):
    assert len(shown(value)) < 4000 and '\n' not in shown(value)


@given(st.text(), st.integers(1, 50))
def test_any_text_is_printable_and_no_longer(text, most):
    said = printable(text, most)
    assert len(said) <= most and said.isprintable()
    if len(text) <= most and text.isprintable():
        assert said == text


@pytest.mark.parametrize('bad', ['\x1b[2J', '\r', '\x07', '\u202e', '\x00', '\x9b31m'])
def test_nothing_moves_the_cursor_or_turns_the_line_round(bad):
    assert bad[0] not in printable(f'a{bad}b')
    lines = []
    Tally(lines.append).count('image of cam_front', f'frame {bad * 1000}')
    assert len(lines) == 1 and lines[0].isprintable() and len(lines[0]) < 700
