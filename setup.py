"""Install mta_perception: with colcon as an ament_python package, or with pip."""

from pathlib import Path
import xml.etree.ElementTree as ElementTree

from setuptools import find_packages, setup

PACKAGE = 'mta_perception'
# What launch, the node and the demo look up in the package's share directory once it is installed.
SHARED_FOLDERS = ('launch', 'params', 'rviz', 'models')


def shared_files():
    """(target folder, files) for every file below SHARED_FOLDERS, the tree kept as it is."""
    here = Path(__file__).parent
    folders = {}
    for name in SHARED_FOLDERS:
        for path in sorted((here / name).rglob('*')):
            if path.is_file() and '__pycache__' not in path.parts:
                relative = path.relative_to(here)
                target = f'share/{PACKAGE}/{relative.parent.as_posix()}'
                folders.setdefault(target, []).append(relative.as_posix())
    return sorted(folders.items())


# The version is written in package.xml alone: colcon and bloom read it there.
version = ElementTree.parse(Path(__file__).parent / 'package.xml').findtext('version')

setup(
    name=PACKAGE,
    version=version,
    description='Six cameras in, 3D boxes and sentences about them out: a ROS 2 perception node.',
    author='The mta_perception authors',
    author_email='maintainers@mta-perception.example.org',
    license='Apache-2.0',
    python_requires='>=3.10',
    # mta_training lies inside this folder but is a package of its own; it must not be swallowed.
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (f'share/{PACKAGE}', ['package.xml']),
        *shared_files(),
    ],
    zip_safe=False,
    # What is imported at run time and is on PyPI; ROS 2 itself is in package.xml alone. The same
    # list as in docs/ros.md; test_dependencies.py holds both against the imports that are made.
    install_requires=[
        'numpy>=1.23',
        'onnxruntime>=1.17',
        'opencv-python-headless>=4.5,<5',
        'pillow>=10.1',
        'pyyaml>=5.4',
        'rich>=11',
        'rosbags>=0.10',
        'scipy>=1.8',
        'tokenizers>=0.15',
        'typer>=0.19',
    ],
    # By this extra `colcon test` knows that the tests are pytest's.
    extras_require={
        # For models that speak with a foreign language model (Llama, InternLM2) alone.
        'language': ['safetensors', 'torch', 'transformers>=5'],
        # Engines of the detector (docs/ros.md); the first takes the place of onnxruntime.
        'gpu': ['onnxruntime-gpu[cuda,cudnn]>=1.21'],
        'openvino': ['openvino>=2024.4'],
        'test': ['hypothesis', 'pytest<9'],
    },
    entry_points={
        'console_scripts': [
            'perception_node = mta_perception.ros.start:main',
            'mta = mta_perception.commands.cli:main',
        ]
    },
)
