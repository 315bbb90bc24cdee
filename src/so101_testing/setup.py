# SPDX-License-Identifier: Apache-2.0
from setuptools import find_packages, setup

package_name = 'so101_testing'

setup(
    name=package_name,
    version='0.1.0',
    packages=find_packages(exclude=['test']),
    package_data={package_name: ['py.typed', 'data/*.json']},
    data_files=[
        ('share/ament_index/resource_index/packages', ['resource/' + package_name]),
        ('share/' + package_name, ['package.xml']),
    ],
    install_requires=['setuptools'],
    extras_require={'test': ['pytest']},
    zip_safe=False,
    maintainer='SO-101 HIL-SERL maintainers',
    maintainer_email='maintainers@so101-hilserl.example.org',
    description='Rigs for tests and benchmarks: graphs, probes, feeders. Not part of the product.',
    license='Apache-2.0',
)
