# SPDX-License-Identifier: Apache-2.0
"""What each package imports is what its package.xml declares."""

import ast
from pathlib import Path
import sys
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = {path.parent.name: path.parent for path in sorted(ROOT.glob('src/*/package.xml'))}
OF_MODULE = {'so101_interfaces_py': 'so101_interfaces', 'rosidl_runtime_py': 'rosidl_runtime_py'}
"""Modules that have another name than the package that they come from."""

ROSDEP = {
    'numpy': 'python3-numpy',
    'cv2': 'python3-opencv',
    'yaml': 'python3-yaml',
    'serial': 'python3-serial',
    'msgpack': 'python3-msgpack',
    'zmq': 'python3-zmq',
}
"""Keys of rosdep for modules that Ubuntu packages."""

FROM_ROS = {
    *(
        'rclpy',
        'rcl_interfaces',
        'builtin_interfaces',
        'std_msgs',
        'std_srvs',
        'sensor_msgs',
        'geometry_msgs',
    ),
    *('diagnostic_msgs', 'visualization_msgs', 'tf2_msgs', 'ament_index_python', 'launch', 'launch_ros'),
    *('rosidl_runtime_py', 'rosidl_parser', 'rpyutils', 'rosbag2_py', 'cv_bridge', 'unique_identifier_msgs'),
}
"""What ROS 2 itself has; everything else comes from requirements/."""


def declared(package):
    """The dependencies of a package, by the kind of their element."""
    root = ElementTree.parse(PACKAGES[package] / 'package.xml').getroot()
    return {
        kind: {e.text for e in root.iter(kind)}
        for kind in ('depend', 'exec_depend', 'test_depend', 'build_depend')
    }


def imported(package):
    """The names that product code of a package imports, the package itself left out."""
    names = set()
    for path in PACKAGES[package].rglob('*.py'):
        if {'test', 'build', 'install'} & set(
            path.relative_to(PACKAGES[package]).parts
        ) or path.name == 'setup.py':
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition('.')[0])
    found = {OF_MODULE.get(name, name) for name in names} - set(sys.stdlib_module_names)
    return found - {package}


@pytest.mark.parametrize('package', PACKAGES)
def test_what_a_package_imports_is_declared(package):
    wanted = {ROSDEP.get(name, name) for name in imported(package)}
    wanted &= set(PACKAGES) | FROM_ROS | set(ROSDEP.values())
    if package == 'so101_testing':
        wanted -= set(PACKAGES)  # their tests depend on it, and colcon knows no such circles
    there = declared(package)
    assert wanted - there['depend'] - there['exec_depend'] == set()


def test_up_to_bringup_is_all_of_the_product():
    waiting, found = ['so101_bringup'], set()
    while waiting:
        package = waiting.pop()
        if package in PACKAGES and package not in found:
            found.add(package)
            there = declared(package)
            waiting += there['depend'] | there['exec_depend'] | there['build_depend']
    assert set(PACKAGES) - found <= {'so101_testing'}
