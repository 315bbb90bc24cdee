# SPDX-License-Identifier: Apache-2.0
"""Rigs for tests and benchmarks: stages, probes, feeders, servers. Not part of the product."""
