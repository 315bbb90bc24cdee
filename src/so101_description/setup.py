# SPDX-License-Identifier: Apache-2.0
from glob import glob

from setuptools import find_packages, setup

package_name = 'so101_description'

setup(
    name=package_name,
    version='0.1.0',
    packages=find_packages(exclude=['test']),
    # For Python, which finds the files next to its modules ...
    package_data={package_name: ['py.typed', 'assets/NOTICE.md', 'assets/meshes/*']},
    data_files=[
        ('share/ament_index/resource_index/packages', ['resource/' + package_name]),
        ('share/' + package_name, ['package.xml']),
        # ... and for ROS, which finds package://so101_description/meshes/... in share.
        (
            'share/' + package_name + '/meshes',
            [package_name + '/assets/NOTICE.md', *sorted(glob(package_name + '/assets/meshes/*.stl'))],
        ),
    ],
    install_requires=['setuptools'],
    extras_require={'test': ['pytest']},
    zip_safe=False,
    maintainer='SO-101 HIL-SERL maintainers',
    maintainer_email='maintainers@so101-hilserl.example.org',
    description='The SO-101 robot model: MJCF, URDF, TCP and camera presets, visual meshes.',
    license='Apache-2.0',
)
