# SPDX-License-Identifier: Apache-2.0
from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from so101_driver.bus import protocol
from so101_driver.emulator.faults import Fault, FaultInjector, FaultRates

ANSWER = protocol.build(3, 0, bytes(15))


def outcomes(seed, rates, count=2000):
    injector = FaultInjector(seed)
    injector.set_rates(rates)
    return [injector.answer(3, ANSWER) for _ in range(count)]


def test_a_perfect_wire_changes_nothing():
    injector = FaultInjector()
    [delivery] = injector.answer(3, ANSWER)
    assert delivery.data == ANSWER
    assert delivery.delay_s == 0.0
    assert not injector.request_is_lost()


def test_the_same_seed_gives_the_same_faults():
    rates = FaultRates(drop=0.1, corrupt=0.1, truncate=0.1, delay=0.1, noise=0.1)
    assert outcomes(7, rates) == outcomes(7, rates)
    assert outcomes(7, rates) != outcomes(8, rates)


@pytest.mark.parametrize('share', [0.01, 0.05, 0.2])
def test_the_share_of_bad_packets_is_what_was_asked_for(share):
    results = outcomes(1, FaultRates.bad_packets(share), 20_000)
    bad = sum(not got or got[0].data != ANSWER for got in results)
    assert bad / 20_000 == pytest.approx(share, rel=0.2)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000))
def test_corruption_changes_exactly_one_byte_and_truncation_only_cuts(seed):
    injector = FaultInjector(seed)
    injector.inject(Fault.CORRUPT)
    injector.inject(Fault.TRUNCATE)
    [corrupt], [cut] = injector.answer(3, ANSWER), injector.answer(3, ANSWER)
    assert sum(a != b for a, b in zip(corrupt.data, ANSWER, strict=True)) == 1
    assert 0 < len(cut.data) < len(ANSWER)
    assert ANSWER.startswith(cut.data)


def test_faults_on_demand_hit_the_chosen_servo_only_as_often_as_asked():
    injector = FaultInjector()
    injector.inject('drop', servo_id=3, count=2)
    assert len(injector.answer(1, ANSWER)) == 1
    assert injector.answer(3, ANSWER) == []
    assert injector.answer(3, ANSWER) == []
    assert len(injector.answer(3, ANSWER)) == 1


def test_noise_and_delay_keep_the_answer():
    injector = FaultInjector()
    injector.inject('noise')
    injector.inject('delay', delay_s=0.5)
    [noisy], [late] = injector.answer(3, ANSWER), injector.answer(3, ANSWER)
    assert noisy.data.endswith(ANSWER)
    assert len(noisy.data) > len(ANSWER)
    assert (late.data, late.delay_s) == (ANSWER, 0.5)


def test_clearing_ends_every_fault():
    injector = FaultInjector()
    injector.set_rates(drop=1.0, deaf=1.0)
    injector.mute([1])
    injector.inject('drop', count=5)
    injector.clear()
    assert len(injector.answer(3, ANSWER)) == 1
    assert not injector.is_muted(1)
    assert not injector.request_is_lost()


@pytest.mark.parametrize(
    'rates', [{'drop': 1.5}, {'noise': -0.1}, {'drop': 0.6, 'corrupt': 0.6}, {'delay_s': -1.0}], ids=str
)
def test_impossible_rates_are_refused(rates):
    with pytest.raises(ValueError, match='got'):
        FaultRates(**rates)
