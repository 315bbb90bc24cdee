# SPDX-License-Identifier: Apache-2.0
"""The recorder: what is written while a session runs."""
