"""Codes are the protocol: each is documented and made somewhere, and nothing reads a detail."""

import ast
from pathlib import Path
import pickle
import re

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest
from ros_car import lines_that_repeat

from mta_perception.pipeline.images import ImageError
from mta_perception.reasons import Code, Reason
from mta_perception.workers.tally import Refusal, Tally

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = sorted((REPOSITORY / 'mta_perception').rglob('*.py'))
READING = {'split', 'rsplit', 'partition', 'rpartition', 'startswith', 'endswith', 'find'}
READING |= {'index', 'removeprefix', 'removesuffix', 'match', 'search', 'strip', 'splitlines'}


def test_the_document_lists_every_code_with_its_meaning_and_no_other():
    text = (REPOSITORY / 'docs' / 'reasons.md').read_text(encoding='utf-8')
    _, *tables = text.split('| code | meaning |')
    rows = re.findall(r'^\| `([^`]+)` \| (.+) \|$', '\n'.join(tables), re.MULTILINE)
    assert sorted(code for code, _ in rows) == sorted(code.value for code in Code)


def test_no_two_codes_share_a_value():
    assert list(Code.__members__) == [code.name for code in Code]


def test_every_code_is_made_somewhere():
    made = set()
    for path in SOURCES:
        if path.name != 'reasons.py':
            made.update(re.findall(r'\bCode\.([A-Z_]+)', path.read_text(encoding='utf-8')))
    assert made == set(Code.__members__)


def details_read(source):
    """Lines of `source` where a detail is compared, searched or cut up."""

    def is_detail(node):
        return any(
            isinstance(inner, ast.Attribute) and inner.attr == 'detail' for inner in ast.walk(node)
        )

    lines = []
    for node in ast.walk(ast.parse(source)):
        reads = (
            isinstance(node, (ast.Compare, ast.Subscript))
            or isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in READING
        )
        if reads and is_detail(node):
            lines.append(node.lineno)
    return lines


@pytest.mark.parametrize(
    'source, found',
    [
        ("if 'gap' in reason.detail: pass", [1]),
        ("words = reason.detail.split(': ')", [1]),
        ('first = reason.detail[0]', [1]),
        ("re.match('gap', reason.detail)", [1]),
        ("say(f'dropped: {reason.detail}')", []),
    ],
)
def test_reading_a_detail_would_be_found(source, found):
    assert details_read(source) == found


def test_no_code_reads_a_detail():
    read = {
        path.name: lines
        for path in SOURCES
        if (lines := details_read(path.read_text(encoding='utf-8')))
    }
    assert read == {}


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(Code), st.text(), st.text())))
def test_rewording_details_changes_no_key(worded):
    """worded: (code, detail, the same said differently)."""
    tallies = Tally(str), Tally(str)
    for code, *details in worded:
        for tally, detail in zip(tallies, details):
            tally.count_reason(Reason(code, detail))
            tally.count_reason(Reason(code, detail), source='odometry')
    assert tallies[0].counts() == tallies[1].counts()
    seen = {code for code, *_ in worded}
    assert set(tallies[0].counts()) == seen | {Refusal('odometry', code) for code in seen}


def test_a_reason_reads_as_code_and_detail_in_every_form():
    reason = Reason(Code.POSE_JUMPED, 'by 5 m')
    assert f'{reason}' == str(reason) == 'pose jumped: by 5 m'
    assert f'{reason.code}' == str(reason.code) == 'pose jumped'
    assert str(Reason(Code.LATE)) == 'late'


def test_an_error_keeps_its_reason_on_the_way_through_another_process():
    error = pickle.loads(pickle.dumps(ImageError(Code.CORRUPT_IMAGE, 'jpeg')))
    assert type(error) is ImageError and error.reason == Reason(Code.CORRUPT_IMAGE, 'jpeg')
    assert str(error) == 'corrupt image: jpeg'


def test_a_log_line_that_gives_its_reason_twice_is_found():
    good = '[WARN] [node]: /cam_front/image_raw: wrong image size (number 3): 10x10, expected 9x9'
    bad = '[WARN] [node]: no transform: no transform from "x" to base_link'
    again = '[WARN] [node]: cam_back: corrupt image: jpeg without a header (corrupt image)'
    assert lines_that_repeat('\n'.join([good, bad, again])) == [bad, again]
