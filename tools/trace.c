/* SPDX-License-Identifier: MIT */
/* --trace FILE: the spans of all runs as a trace for Perfetto (ui.perfetto.dev) or
 * chrome://tracing: the caller's thread with its steps and items, other threads with their items,
 * and devices. */
#include "trace.h"
#include "os.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEVICE_TRACK = 10000 }; /* beyond all threads */

struct trace {
    struct at_os_file *file;
    struct at_os_mutex *lock;
    int64_t start;
    bool named[1025]; /* tracks of threads, and at the end the device's */
};

int trace_open(struct trace **out, const char *path, char *err, size_t size)
{
    struct trace *t = *out = calloc(1, sizeof *t);
    if (!t || !(t->lock = at_os_mutex_new())) {
        snprintf(err, size, "no memory for a trace");
        trace_discard(t);
        *out = NULL;
        return -1;
    }
    t->start = at_os_now();
    if (at_os_file_new(&t->file, path, err, size) < 0) {
        trace_discard(t);
        *out = NULL;
        return -1;
    }
    static const char head[] = "{\"displayTimeUnit\": \"ns\", \"traceEvents\": [\n"
                               "{\"name\": \"process_name\", \"ph\": \"M\", \"pid\": 1, "
                               "\"args\": {\"name\": \"attend\"}}";
    at_os_file_write(t->file, head, strlen(head));
    return 0;
}

static void free_all(struct trace *t)
{
    at_os_mutex_free(t->lock);
    free(t);
}

void trace_discard(struct trace *t)
{
    if (!t)
        return;
    at_os_file_discard(t->file);
    free_all(t);
}

int trace_close(struct trace *t, char *err, size_t size)
{
    at_os_file_write(t->file, "\n]}\n", 4);
    int status = at_os_file_finish(t->file, err, size);
    free_all(t);
    return status;
}

/* Text for a JSON string; names of nodes can hold anything. */
static void quote(char *to, size_t size, const char *text)
{
    size_t n = 0;
    for (; *text && n + 7 < size; text++)
        if ((unsigned char)*text < 0x20)
            n += (size_t)snprintf(to + n, size - n, "\\u%04x", (unsigned)*text);
        else {
            if (*text == '"' || *text == '\\')
                to[n++] = '\\';
            to[n++] = *text;
        }
    to[n] = 0;
}

/* Names a track when it is met first. */
static void name_track(struct trace *t, const attend_span *s, int track)
{
    char text[300], device[160];
    int last = (int)(sizeof t->named / sizeof t->named[0]) - 1;
    bool *named = &t->named[track < last ? track : last];
    if (*named)
        return;
    *named = true;
    quote(device, sizeof device, s->device);
    if (s->kind == ATTEND_SPAN_DEVICE)
        snprintf(text, sizeof text, "%s", device);
    else
        snprintf(text, sizeof text, "thread %d", track);
    char line[500];
    int n = snprintf(line, sizeof line,
                     ",\n{\"name\": \"thread_name\", \"ph\": \"M\", \"pid\": 1, \"tid\": %d, "
                     "\"args\": {\"name\": \"%s\"}}",
                     track, text);
    at_os_file_write(t->file, line, (size_t)n);
}

void trace_span(void *arg, const attend_span *s)
{
    static const char *const kind[] = {"step", "item", "device"};
    struct trace *t = arg;
    char line[900], label[300], item[40] = "";
    int track = s->kind == ATTEND_SPAN_DEVICE ? DEVICE_TRACK : s->thread;
    quote(label, sizeof label, s->label ? s->label : "");
    if (s->item >= 0)
        snprintf(item, sizeof item, ", \"item\": %" PRId64, s->item);
    int n =
        snprintf(line, sizeof line,
                 ",\n{\"name\": \"%s\", \"cat\": \"%s\", \"ph\": \"X\", \"pid\": 1, \"tid\": %d, "
                 "\"ts\": %.3f, \"dur\": %.3f, \"args\": {\"step\": %d, \"row\": \"%s/%s\", "
                 "\"label\": \"%s\"%s}}",
                 s->op, kind[s->kind], track, (double)(s->begin - t->start) / 1e3,
                 (double)(s->end - s->begin) / 1e3, s->step, s->device, s->row, label, item);
    at_os_mutex_lock(t->lock);
    name_track(t, s, track);
    at_os_file_write(t->file, line, (size_t)n);
    at_os_mutex_unlock(t->lock);
}
