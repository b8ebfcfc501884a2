"""What GitHub runs and shows: it can be read, is pinned, and names what is there."""

from pathlib import Path
import re
import subprocess

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
GITHUB = REPOSITORY / '.github'
WORKFLOWS = sorted((GITHUB / 'workflows').glob('*.yaml'))
PYTHONS = ['3.10', '3.11', '3.12', '3.13', '3.14']
DISTRIBUTIONS = ['humble', 'jazzy', 'kilted', 'lyrical']


def read(path):
    return yaml.safe_load(path.read_text(encoding='utf-8'))


def steps_of(workflow):
    return [step for job in workflow['jobs'].values() for step in job['steps']]


@pytest.mark.parametrize('path', WORKFLOWS, ids=lambda path: path.stem)
def test_every_action_is_pinned_to_a_version(path):
    used = [step['uses'] for step in steps_of(read(path)) if 'uses' in step]
    assert used and all(re.fullmatch(r'[\w.-]+/[\w.-]+@v\d+\.\d+\.\d+', name) for name in used)


@pytest.mark.parametrize('path', WORKFLOWS, ids=lambda path: path.stem)
def test_every_script_is_valid_bash_and_names_what_is_there(path):
    targets = re.findall(r'^([a-z-]+):', (REPOSITORY / 'Makefile').read_text(), re.MULTILINE)
    scripts = [step['run'] for step in steps_of(read(path)) if 'run' in step]
    assert scripts
    for script in scripts:
        checked = subprocess.run(['bash', '-n'], input=script, text=True, capture_output=True)
        assert checked.returncode == 0, checked.stderr
        assert set(re.findall(r'^\s*make ([a-z-]+)', script, re.MULTILINE)) <= set(targets)
        for name in re.findall(r'(?:^|\s)(\.ci/\w+)', script):
            assert (REPOSITORY / name).is_file()


def test_the_matrices_are_what_is_supported():
    tests = read(GITHUB / 'workflows' / 'tests.yaml')['jobs']['python']
    assert tests['strategy']['matrix']['python'] == PYTHONS
    colcon = read(GITHUB / 'workflows' / 'ros.yaml')['jobs']['colcon']
    assert colcon['strategy']['matrix']['distribution'] == DISTRIBUTIONS
    table = next(
        line
        for line in (REPOSITORY / 'docs' / 'ros.md').read_text(encoding='utf-8').splitlines()
        if line.startswith('| | Humble')
    )
    assert [cell.strip().lower() for cell in table.strip('|').split('|')[1:]] == DISTRIBUTIONS


def test_issue_forms_have_what_github_asks_of_them():
    forms = [path for path in (GITHUB / 'ISSUE_TEMPLATE').glob('*.yml') if path.stem != 'config']
    assert len(forms) == 2
    for path in forms:
        form = read(path)
        assert form['name'] and form['description']
        identifiers = [field['id'] for field in form['body']]
        assert len(set(identifiers)) == len(identifiers)
        assert all(field['attributes']['label'] for field in form['body'])
