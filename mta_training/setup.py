"""Install mta_training: with colcon as an ament_python package, or with pip."""

from setuptools import find_packages, setup

PACKAGE = 'mta_training'

setup(
    name=PACKAGE,
    version='0.1.0',
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
    entry_points={'console_scripts': ['mta-train = mta_training.commands.cli:main']},
)
