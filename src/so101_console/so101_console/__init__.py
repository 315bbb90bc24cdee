# SPDX-License-Identifier: Apache-2.0
"""The operator's web page."""
