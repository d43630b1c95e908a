/* SPDX-License-Identifier: MIT */
/* Writes ONNX files for tests: gen_onnx.h. */
#include "gen_onnx.h"
#include "tap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void gen_msg_free(struct gen_msg *m)
{
    free(m->data);
    *m = (struct gen_msg){0};
}

static void put(struct gen_msg *m, const void *data, size_t size)
{
    if (m->size + size > m->room) {
        m->room = 2 * (m->size + size);
        m->data = realloc(m->data, m->room);
        if (!m->data)
            bail("no memory");
    }
    if (size)
        memcpy(m->data + m->size, data, size);
    m->size += size;
}

static void put_varint(struct gen_msg *m, uint64_t x)
{
    unsigned char bytes[10];
    size_t n = 0;
    do {
        bytes[n++] = (unsigned char)((x & 0x7f) | (x > 0x7f ? 0x80 : 0));
        x >>= 7;
    } while (x);
    put(m, bytes, n);
}

static void put_key(struct gen_msg *m, int field, unsigned wire)
{
    put_varint(m, (uint64_t)field << 3 | wire);
}

void gen_msg_int(struct gen_msg *m, int field, int64_t x)
{
    put_key(m, field, 0);
    put_varint(m, (uint64_t)x);
}

void gen_msg_float(struct gen_msg *m, int field, float x)
{
    put_key(m, field, 5);
    put(m, &x, sizeof x);
}

void gen_msg_bytes(struct gen_msg *m, int field, const void *data, size_t size)
{
    put_key(m, field, 2);
    put_varint(m, size);
    put(m, data, size);
}

void gen_msg_text(struct gen_msg *m, int field, const char *s)
{
    gen_msg_bytes(m, field, s, strlen(s));
}

void gen_msg_add(struct gen_msg *m, int field, struct gen_msg *inner)
{
    gen_msg_bytes(m, field, inner->data, inner->size);
    gen_msg_free(inner);
}

struct gen_msg gen_onnx_info(const char *name, int type, int rank, const int64_t *dim)
{
    struct gen_msg info = {0}, any = {0}, tensor = {0}, shape = {0};
    for (int d = 0; d < rank; d++) {
        struct gen_msg extent = {0};
        if (dim[d] < 0)
            gen_msg_text(&extent, 2, "n");
        else
            gen_msg_int(&extent, 1, dim[d]);
        gen_msg_add(&shape, 1, &extent);
    }
    gen_msg_int(&tensor, 1, type);
    gen_msg_add(&tensor, 2, &shape);
    gen_msg_add(&any, 1, &tensor);
    gen_msg_text(&info, 1, name);
    gen_msg_add(&info, 2, &any);
    return info;
}

struct gen_msg gen_onnx_tensor(const char *name, int type, int rank, const int64_t *dim,
                               const void *data, size_t size)
{
    struct gen_msg t = {0};
    for (int d = 0; d < rank; d++)
        gen_msg_int(&t, 1, dim[d]);
    gen_msg_int(&t, 2, type);
    gen_msg_text(&t, 8, name);
    gen_msg_bytes(&t, 9, data, size);
    return t;
}

/* The names of a list with commas. */
static void put_names(struct gen_msg *node, int field, char *list)
{
    if (strcmp(list, "~") == 0)
        return;
    for (char *next; list; list = next) {
        next = strchr(list, ',');
        if (next)
            *next++ = 0;
        gen_msg_text(node, field, strcmp(list, "-") == 0 ? "" : list);
    }
}

struct gen_msg gen_onnx_node(const char *words)
{
    char op[64], name[64], in[128], out[128];
    struct gen_msg node = {0};
    if (sscanf(words, "%63s %63s %127s %127s", op, name, in, out) != 4)
        bail("no node: %s", words);
    put_names(&node, 1, in);
    put_names(&node, 2, out);
    gen_msg_text(&node, 3, strcmp(name, "-") == 0 ? "" : name);
    gen_msg_text(&node, 4, op);
    return node;
}

static struct gen_msg attribute(const char *name, int type)
{
    struct gen_msg a = {0};
    gen_msg_text(&a, 1, name);
    gen_msg_int(&a, 20, type);
    return a;
}

void gen_onnx_set_int(struct gen_msg *node, const char *name, int64_t x)
{
    struct gen_msg a = attribute(name, 2);
    gen_msg_int(&a, 3, x);
    gen_msg_add(node, 5, &a);
}

void gen_onnx_set_float(struct gen_msg *node, const char *name, float x)
{
    struct gen_msg a = attribute(name, 1);
    gen_msg_float(&a, 2, x);
    gen_msg_add(node, 5, &a);
}

void gen_onnx_set_ints(struct gen_msg *node, const char *name, int n, const int64_t *x)
{
    struct gen_msg a = attribute(name, 7);
    for (int k = 0; k < n; k++)
        gen_msg_int(&a, 8, x[k]);
    gen_msg_add(node, 5, &a);
}

struct gen_msg gen_onnx_model(struct gen_msg *graph, int64_t opset)
{
    struct gen_msg model = {0}, set = {0};
    gen_msg_int(&model, 1, 10);
    gen_msg_add(&model, 7, graph);
    gen_msg_int(&set, 2, opset);
    gen_msg_add(&model, 8, &set);
    return model;
}
