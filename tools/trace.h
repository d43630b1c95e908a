/* SPDX-License-Identifier: MIT */
/* A file of spans, for --trace. */
#ifndef TRACE_H
#define TRACE_H

#include <stddef.h>

#include "attend.h"

struct trace;
/* 0, or a negative number and a sentence. */
int trace_open(struct trace **t, const char *path, char *err, size_t size);
/* For attend_ctx_opts.trace; arg is the trace. */
void trace_span(void *arg, const attend_span *span);
/* Puts the file in its place and frees t. */
int trace_close(struct trace *t, char *err, size_t size);
void trace_discard(struct trace *t); /* NULL is fine */

#endif
