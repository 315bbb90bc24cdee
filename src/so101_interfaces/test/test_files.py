# SPDX-License-Identifier: Apache-2.0
import os

import pytest

from so101_interfaces_py.files import open_file, read_file, read_text, require_file


@pytest.fixture(params=['pipe', 'folder', 'device', 'link to itself', 'nothing'])
def odd(request, tmp_path):
    path = tmp_path / 'odd'
    if request.param == 'pipe':
        os.mkfifo(path)
    elif request.param == 'folder':
        path.mkdir()
    elif request.param != 'nothing':
        path.symlink_to('/dev/zero' if request.param == 'device' else path)
    return path


@pytest.mark.parametrize('read', [open_file, read_file, read_text, require_file])
def test_what_is_no_plain_file_is_an_error_of_the_system_at_once(odd, read):
    before = os.listdir('/proc/self/fd')
    with pytest.raises(OSError, match='odd') as error:
        read(odd)
    assert error.value.strerror
    assert len(os.listdir('/proc/self/fd')) == len(before)


def test_a_plain_file_is_read_up_to_its_bound(tmp_path):
    path = tmp_path / 'plain'
    path.write_bytes(b'abc\xc3\xa9')
    assert read_file(path) == read_file(str(path), 5) == b'abc\xc3\xa9'
    assert read_text(path) == 'abcé'
    with pytest.raises(OSError, match='more than the 4 bytes'):
        read_file(path, 4)


def test_what_is_no_text_is_an_error_of_the_system_too(tmp_path):
    path = tmp_path / 'plain'
    path.write_bytes(b'abc\xff')
    with pytest.raises(OSError, match='no text'):
        read_text(path)
