from setuptools import find_packages, setup

package_name = 'hilserl_learner'

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
    description='The learner: replay, bags, agents, trainer, checkpoints, and the node that learns live.',
    license='Apache-2.0',
    entry_points={
        'console_scripts': [
            'classifier_node = hilserl_learner.classifier.node:main',
            'learner_node = hilserl_learner.live.node:main',
            'trial_node = hilserl_learner.trial.node:main',
            'ingest = hilserl_learner.ingest.cli:main',
            'export = hilserl_learner.cli.export:main',
            'train = hilserl_learner.cli.train:main',
            'eval = hilserl_learner.cli.eval:main',
            'plot = hilserl_learner.cli.plot:main',
            'adapt = hilserl_learner.cli.adapt:main',
        ],
    },
)
