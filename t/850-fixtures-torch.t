#!/bin/sh
# SPDX-License-Identifier: MIT
# The cases of torch through `attend sdpa`, on the devices named, or every one that is here.
. "${srcdir:-$(dirname "$0")/..}/t/fixtures.sh"
run_cases torch "$@"
