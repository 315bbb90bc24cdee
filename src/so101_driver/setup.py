from setuptools import find_packages, setup

package_name = 'so101_driver'

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
    description='Driver of the SO-101: servo bus, calibration, safety gate, camera, virtual arm.',
    license='Apache-2.0',
    entry_points={
        'console_scripts': [
            'arm_node = so101_driver.arm_node:main',
            'camera_node = so101_driver.camera_node:main',
            'virtual_arm = so101_driver.emulator.__main__:serve_calibrated',
        ]
    },
)
