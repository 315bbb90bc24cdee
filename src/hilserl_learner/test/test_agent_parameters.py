# SPDX-License-Identifier: Apache-2.0
"""Values of each agent reach the live learner; old names are understood in what is stored, and refused where given."""

from dataclasses import asdict
import json
from pathlib import Path

import pytest
import torch

from hilserl_learner.agents.common import agent_class, agent_config, AGENTS, make_agent, RENAMED
from hilserl_learner.errors import CheckpointError
from hilserl_learner.live.config import LearnerConfig, node_configs
from hilserl_learner.live.trainer import LiveTrainer
from hilserl_learner.training.settings import read_config, RunDirectory, Settings
from hilserl_learner.training.trainer import Trainer, TrainerConfig
from so101_interfaces_py.params import describe, from_mapping, ParameterError
from so101_interfaces_py.yaml_text import load_yaml

from .batches import random_batch, tiny_spec
from .experience import ACTION

SMALL = {'width': 8}
OWN = {
    'hil': {'prior_weight': 0.1},
    'hil_on_base': {'share_step': 0.2},
    'faithful': {'grad_clip': 0.1},
    'sac': {'temperature': 0.5},
    'bc': {'chunk': 4},
}
FILE = Path(__file__).resolve().parents[3] / 'config' / 'learner.yaml'
STORED = Path(__file__).parent / 'data' / 'run_with_old_names.json'


@pytest.mark.parametrize('name', AGENTS)
def test_the_live_learner_learns_with_the_values_of_the_agent_that_is_named(name, tmp_path):
    config = LearnerConfig(directory=str(tmp_path), agent=name, threads=1)
    live = LiveTrainer(
        config, TrainerConfig(capacity=100, demo_capacity=100), SMALL | OWN[name], lambda *_: None
    )
    assert live.trainer.agent.config == agent_config(name, SMALL | OWN[name])
    assert live.trainer.agent.config != agent_config(name, SMALL)
    live.close()


@pytest.mark.parametrize('name', AGENTS)
def test_the_learners_parameters_are_those_of_the_agent_that_is_named(name):
    assert node_configs({'agent': name, **OWN[name]})[2] is agent_class(name).config_type
    for other in AGENTS:
        if not OWN[other].keys() <= describe(agent_class(name).config_type).keys():
            with pytest.raises(ParameterError, match=f'{next(iter(OWN[other]))} of {other}; leave that out'):
                node_configs({'agent': name, **OWN[other]})


@pytest.mark.parametrize('name', AGENTS)
def test_the_parameter_file_leaves_the_choice_of_the_agent_free(name):
    sections = load_yaml(FILE.read_text()) or {}  # nothing but comments, as long as nobody has changed it
    node_configs({**sections.get('/**/learner_node', {}).get('ros__parameters', {}), 'agent': name})


@pytest.mark.parametrize('name', AGENTS)
def test_the_node_hands_the_values_of_the_agent_to_the_training_process(name, tmp_path, monkeypatch):
    rclpy = pytest.importorskip('rclpy')
    from rclpy.parameter import Parameter

    from hilserl_learner.live import node as learner_node

    given = {'directory': str(tmp_path / 'run'), 'agent': name, **OWN[name]}
    setups = []

    class Child:
        def __init__(self, setup):
            setups.append(json.loads(json.dumps(setup)))

        def close(self):
            pass

    monkeypatch.setattr(learner_node, 'TrainingProcess', Child)
    context = rclpy.Context()
    rclpy.init(context=context)
    try:
        overrides = [Parameter(key, value=value) for key, value in given.items()]
        node = learner_node.LearnerNode(context=context, parameter_overrides=overrides)
        node.close()
        node.destroy_node()
        assert setups[0]['agent'] == json.loads(json.dumps(asdict(agent_config(name, OWN[name]))))
        strange = [*overrides, Parameter('colour', value=1.0)]
        with pytest.raises(ParameterError, match='no parameter colour'):
            learner_node.LearnerNode(context=context, parameter_overrides=strange, namespace=name)
    finally:
        rclpy.shutdown(context=context)


def test_a_value_that_is_given_by_an_old_name_is_refused_with_the_new_one():
    for old, new in RENAMED.items():
        if any(new in describe(kind) for kind in (TrainerConfig, agent_class('hil').config_type)):
            for ask in (
                lambda name: Settings.with_options({name: '0.5'}),
                lambda name: node_configs({name: 0.5}),
            ):
                with pytest.raises(ParameterError, match=f'expected {new}, got {old}, .* set {new} instead'):
                    ask(old)


def test_a_run_that_was_begun_with_old_names_goes_on(tmp_path):
    """The file is what `so101 train --set light=1 --set hold_weight=0.2 ...` wrote when these names were in use."""
    (tmp_path / 'config.json').write_text(STORED.read_text())
    config = read_config(tmp_path)
    options = {'color_jitter': 1.0, 'table_randomization': 0.75, 'prior_weight': 0.2, 'prior_updates': 100}
    options |= {'ema_tau': 0.1, 'ema_growth_updates': 50, 'critic_warmup_updates': 7}
    assert config['agent_options'] == options
    agent_config(config['agent'], config['agent_options'])
    assert from_mapping(TrainerConfig, config['trainer']).grasp_penalty == 0.02
    now = Settings.with_options(
        {name: str(value) for name, value in (options | {'grasp_penalty': 0.02}).items()}
    )
    directory = RunDirectory(tmp_path, tiny_spec(), ACTION)
    directory.require_same(now.plain(), free=())
    with pytest.raises(CheckpointError, match=r"agent_options: .*'color_jitter': 1\.0.* before"):
        directory.require_same(Settings().plain(), free=())


def test_the_state_of_a_trainer_that_was_saved_with_old_names_is_taken_over():
    one, two = (
        Trainer(
            make_agent('hil', tiny_spec(), SMALL, seed=seed), tiny_spec(), ACTION, TrainerConfig(capacity=100)
        )
        for seed in (0, 1)
    )
    for seed in range(3):
        one.agent.update(random_batch(tiny_spec(), seed=seed))
    state = one.state_dict()
    before = {name.replace('.ema_', '.acting_'): value for name, value in state.items()}
    assert sum('acting' in name for name in before) > 10
    two.load_state_dict(before)
    after = two.state_dict()
    assert all(torch.equal(after[name], value) for name, value in state.items())


@pytest.mark.parametrize('content', [b'', b'[]', b'{', b'\xff', b'[' * 99_999, b'9' * 9_999])
def test_damaged_settings_of_a_run_get_a_sentence_with_the_name_of_the_file(tmp_path, content):
    (tmp_path / 'config.json').write_bytes(content)
    with pytest.raises(CheckpointError, match=r'config\.json'):
        read_config(tmp_path)
