from setuptools import find_packages, setup

package_name = 'so101_sim'

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
    description='The SO-101 in MuJoCo: tasks, environments, the twin behind the servo bus, and a simulated human.',
    license='Apache-2.0',
    entry_points={
        'console_scripts': [
            'twin_node = so101_sim.twin.node:main',
            'operator_node = so101_sim.human.node:main',
        ],
    },
)
