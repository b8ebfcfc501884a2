"""Install mta_training: this folder is the package itself, hence the package_dir."""
from setuptools import find_packages, setup

PACKAGE = 'mta_training'
# `test` is left out: it is for this folder, not for the machine the package is installed on.
SUBPACKAGES = [f'{PACKAGE}.{name}' for name in find_packages(exclude=['test', 'test.*'])]

setup(
    name=PACKAGE,
    version='0.1.0',
    description='Synthetic world, nuScenes conversion, training and evaluation of mta_perception.',
    author='The mta_perception authors',
    author_email='maintainers@mta-perception.example.org',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=[PACKAGE, *SUBPACKAGES],
    package_dir={PACKAGE: '.'},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (f'share/{PACKAGE}', ['package.xml']),
    ],
    zip_safe=False,
    entry_points={
        'console_scripts': [
            'mta-train = mta_training.cli:main',
        ],
    },
)
