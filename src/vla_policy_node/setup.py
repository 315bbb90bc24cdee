from setuptools import find_packages, setup

package_name = 'vla_policy_node'

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
    description="A policy that acts through its own server, by GR00T's protocol, and a server of our policies.",
    license='Apache-2.0',
    entry_points={
        'console_scripts': [
            'vla_policy_node = vla_policy_node.vla_policy_node:main',
            'serve_policy = vla_policy_node.serving.cli:main',
        ],
    },
)
