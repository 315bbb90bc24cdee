from setuptools import find_packages, setup

package_name = 'drqv2_policy_node'

setup(
    name=package_name,
    version='0.1.0',
    packages=find_packages(exclude=['test']),
    package_data={package_name: ['py.typed', 'policies/*/*']},
    data_files=[
        ('share/ament_index/resource_index/packages', ['resource/' + package_name]),
        ('share/' + package_name, ['package.xml']),
    ],
    install_requires=['setuptools'],
    extras_require={'test': ['pytest']},
    zip_safe=False,
    maintainer='SO-101 HIL-SERL maintainers',
    maintainer_email='maintainers@so101-hilserl.example.org',
    description='DrQ-v2 policies: networks, RoboBase checkpoints, policy store, and the node that acts.',
    license='Apache-2.0',
    entry_points={
        'console_scripts': [
            'policy_node = drqv2_policy_node.policy_node:main',
            'convert_checkpoint = drqv2_policy_node.robobase.cli:main',
        ],
    },
)
