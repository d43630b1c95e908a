/* SPDX-License-Identifier: MIT */
/* What the tests of graphs, plans and execs share: seeded numbers, and running a small graph. */
#ifndef T_GRAPH_HELP_H
#define T_GRAPH_HELP_H

#include "core.h"
#include "tap.h"

/* splitmix64 (Steele, Lea, Flood 2014) */
uint64_t help_draw(uint64_t *state);
int64_t help_below(uint64_t *state, int64_t n);         /* [0, n) */
void help_normal(uint64_t *state, float *x, int64_t n); /* about mean 0, variance 1 */

/* A context with so many threads; bails where there is none. */
attend_ctx *help_context(int threads);

/* The plan of a graph on a device, "fuse" as in the options; bails with the graph's sentence. */
attend_plan *help_compile(attend_graph *g, const char *device, int fuse);

/* Does text hold part? Says both if not. */
bool help_holds(const char *text, const char *part, const char *name, ...) TAP_FORMAT(3, 4);

/* { "name", memory, bytes } and { "name", value } as bindings */
#define HELP_DATA(binding, memory)                                                                 \
    {                                                                                              \
        .name = binding, .data = memory, .bytes = (int64_t)sizeof(memory)                          \
    }
#define HELP_DIM(binding, number)                                                                  \
    {                                                                                              \
        .name = binding, .value = number                                                           \
    }

#endif
