# SPDX-License-Identifier: Apache-2.0
"""What a person drives with: one interface, the same events, whatever is plugged in."""
