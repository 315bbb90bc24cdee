from setuptools import find_packages, setup

package_name = 'so101_session'

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
    description='Control clock, arbitration between policy and human, episodes, teleoperation, recording, LeRobot.',
    license='Apache-2.0',
    entry_points={
        'console_scripts': [
            'session_node = so101_session.session.node:main',
            'lerobot_node = so101_session.lerobot.node:main',
            'teleop_node = so101_session.teleop.node:main',
            'recorder_node = so101_session.recorder.node:main',
            'record = so101_session.recorder.cli:main',
            'teleop = so101_session.teleop.cli:main',
        ],
    },
)
