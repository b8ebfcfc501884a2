"""`make audit`: what this project is made of, and what is known against it.

Writes OUT/sbom.json (CycloneDX: every package of .venv, every file of every shipped model with its
sha256), then asks PyPI for known vulnerabilities of the pinned packages (pip-audit).
Exit codes: 0 nothing known, 1 something known or not to be found out.
"""

import argparse
import json
from pathlib import Path
import subprocess
import sys
import venv

REPOSITORY = Path(__file__).resolve().parent.parent
TOOLS = REPOSITORY / '.venv-audit'
LIST = REPOSITORY / 'requirements' / 'audit.txt'
PINS = REPOSITORY / 'requirements' / 'pins.txt'


def main():
    """Write the bill of materials, then audit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default=REPOSITORY / 'audit')
    out = parser.parse_args().out
    install()
    out.mkdir(parents=True, exist_ok=True)
    run(
        'cyclonedx-py',
        'environment',
        REPOSITORY / '.venv',
        '--of',
        'JSON',
        '-o',
        out / 'sbom.json',
    )
    add_models(out / 'sbom.json')
    print(f'written: {out / "sbom.json"}', flush=True)
    sys.exit(run('pip-audit', '-r', PINS, '--no-deps', '--disable-pip', check=False))


def install():
    """The tools, in an environment of their own: they are no part of what they look at."""
    done = TOOLS / LIST.name
    if done.is_file() and done.read_text() == LIST.read_text():
        return
    venv.create(TOOLS, clear=True, with_pip=True)
    run('pip', 'install', '--quiet', '-r', LIST)
    done.write_text(LIST.read_text())


def run(program, *arguments, check=True):
    """Run one of the tools; its exit code."""
    return subprocess.run([TOOLS / 'bin' / program, *arguments], check=check).returncode


def add_models(path):
    """Add the shipped models: manifest.yaml has the hash of each file."""
    sys.path.insert(0, str(REPOSITORY))
    from mta_perception.atomic_files import sha256
    from mta_perception.runtime.manifest import Manifest

    bill = json.loads(path.read_text())
    for manifest in sorted((REPOSITORY / 'models').glob('*/manifest.yaml')):
        model = Manifest.load(manifest.parent)  # checks every hash
        files = sorted(one for one in manifest.parent.iterdir() if one.is_file())
        bill['components'].append(
            {
                'type': 'machine-learning-model',
                'bom-ref': f'model:{model.name}',
                'name': model.name,
                'components': [
                    {
                        'type': 'file',
                        'bom-ref': f'model:{model.name}/{file.name}',
                        'name': file.name,
                        'hashes': [{'alg': 'SHA-256', 'content': sha256(file)}],
                    }
                    for file in files
                ],
            }
        )
    path.write_text(json.dumps(bill, indent=2) + '\n')


if __name__ == '__main__':
    main()
