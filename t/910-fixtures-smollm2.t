#!/bin/sh
# SPDX-License-Identifier: MIT
# All cases of t/870 on the reference and every instruction set.
exec "${srcdir:-$(dirname "$0")/..}/t/870-fixtures-smollm2.t" all
