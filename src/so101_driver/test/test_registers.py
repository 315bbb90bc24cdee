# SPDX-License-Identifier: Apache-2.0
from hypothesis import given
from hypothesis import strategies as st
import pytest

from so101_driver.bus.registers import (
    Area,
    BAUD_RATES,
    decode_sign_magnitude,
    encode_sign_magnitude,
    Reg,
    ServoError,
    TABLE_SIZE,
    TICKS_PER_TURN,
    wrap_ticks,
)

registers = st.sampled_from(list(Reg))


def test_no_two_registers_overlap():
    taken = [address for reg in Reg for address in range(reg.address, reg.end)]
    assert len(taken) == len(set(taken))
    assert max(taken) < TABLE_SIZE


def test_areas_follow_the_addresses():
    for reg in Reg:
        expected = Area.EEPROM if reg.address < 40 else Area.SRAM if reg.address < 80 else Area.FACTORY
        assert reg.area is expected, reg


@pytest.mark.parametrize(
    ('reg', 'address', 'size'),
    [
        (Reg.MODEL_NUMBER, 3, 2),
        (Reg.P_COEFFICIENT, 21, 1),
        (Reg.D_COEFFICIENT, 22, 1),
        (Reg.I_COEFFICIENT, 23, 1),
        (Reg.HOMING_OFFSET, 31, 2),
        (Reg.TORQUE_ENABLE, 40, 1),
        (Reg.GOAL_POSITION, 42, 2),
        (Reg.TORQUE_LIMIT, 48, 2),
        (Reg.LOCK, 55, 1),
        (Reg.PRESENT_POSITION, 56, 2),
        (Reg.PRESENT_CURRENT, 69, 2),
        (Reg.MAXIMUM_ACCELERATION, 85, 1),
    ],
    ids=lambda value: getattr(value, 'name', value),
)
def test_registers_lie_where_the_vendor_says(reg, address, size):
    assert (reg.address, reg.size) == (address, size)


def test_baud_rates_are_the_vendors_not_the_misprinted_ones():
    assert [BAUD_RATES[code] for code in (5, 6, 7)] == [76_800, 57_600, 38_400]


@given(registers, st.data())
def test_encode_and_decode_are_inverse(reg, data):
    value = data.draw(st.integers(reg.minimum, reg.maximum))
    encoded = reg.encode(value)
    assert len(encoded) == reg.size
    assert reg.decode(encoded) == value


@given(registers, st.integers(1, 100_000), st.booleans())
def test_values_out_of_range_are_refused_with_a_sentence(reg, excess, below):
    value = reg.minimum - excess if below else reg.maximum + excess
    with pytest.raises(ValueError, match=rf'{reg.name} .*takes .*got {value}'):
        reg.encode(value)


@given(registers)
def test_every_default_fits_its_register(reg):
    assert reg.decode(reg.encode(reg.default)) == reg.default


def test_decoding_a_wrong_number_of_bytes_is_refused():
    with pytest.raises(ValueError, match='PRESENT_POSITION holds 2 bytes, got 1'):
        Reg.PRESENT_POSITION.decode(b'\x01')


@given(st.integers(0, 32767))
def test_F4_a_negative_position_keeps_its_sign_and_its_size(magnitude):
    raw = (0x8000 | magnitude).to_bytes(2, 'little')
    assert Reg.PRESENT_POSITION.decode(raw) == -magnitude


def test_F4_minus_hundred_is_not_read_as_32868():
    assert Reg.PRESENT_POSITION.decode(bytes((0x64, 0x80))) == -100
    assert Reg.HOMING_OFFSET.decode(bytes((0x64, 0x08))) == -100
    assert Reg.PRESENT_LOAD.decode(bytes((0x64, 0x04))) == -100


@given(st.integers(-40_000, 40_000))
def test_F4_wrapping_gives_the_same_angle_on_one_turn(ticks):
    wrapped = wrap_ticks(ticks)
    assert 0 <= wrapped < TICKS_PER_TURN
    assert (wrapped - ticks) % TICKS_PER_TURN == 0


@given(st.integers(2, 15), st.data())
def test_F4_a_magnitude_that_would_reach_the_sign_bit_is_refused(sign_bit, data):
    too_much = data.draw(st.integers(1 << sign_bit, 1 << 17))
    for value in (too_much, -too_much):
        with pytest.raises(ValueError, match='wrap or reject'):
            encode_sign_magnitude(value, sign_bit)


@given(st.integers(0, 0xFFFF))
def test_sign_magnitude_decodes_every_word_within_its_range(raw):
    for sign_bit in (10, 11, 15):
        assert abs(decode_sign_magnitude(raw, sign_bit)) < 1 << sign_bit


def test_all_faults_of_an_error_byte_are_named():
    assert ServoError(0x24).sentence == 'temperature, overload'
    assert ServoError(0).sentence == 'none'
    assert 'reserved bits 0x50' in ServoError(0x51).sentence
