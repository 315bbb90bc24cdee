# SPDX-License-Identifier: Apache-2.0
from setuptools import find_packages, setup

package_name = 'so101_bags'

setup(
    name=package_name,
    version='0.1.0',
    packages=find_packages(exclude=['test']),
    package_data={package_name: ['py.typed']},
    data_files=[
        ('share/ament_index/resource_index/packages', ['resource/' + package_name]),
        ('share/' + package_name, ['package.xml']),
    ],
    install_requires=['setuptools'],
    extras_require={'test': ['pytest']},
    zip_safe=False,
    maintainer='SO-101 HIL-SERL maintainers',
    maintainer_email='maintainers@so101-hilserl.example.org',
    description='Bags of the SO-101: read any rosbag2, write one that survives a crash, check, repair. No ROS needed.',
    license='Apache-2.0',
    entry_points={
        'console_scripts': [
            'bag_check = so101_bags.cli:check_main',
            'bag_fix = so101_bags.cli:fix_main',
        ],
    },
)
