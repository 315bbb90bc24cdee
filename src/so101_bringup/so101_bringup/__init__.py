# SPDX-License-Identifier: Apache-2.0
"""Starts the SO-101 stack: the workspace, the stack as data, the command line."""
