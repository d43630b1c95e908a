#!/bin/sh
# SPDX-License-Identifier: MIT
# t/450 for all architectures.
exec sh "${srcdir:-$(dirname "$0")/..}/t/450-offline.t" slow
