/* SPDX-License-Identifier: MIT */
/* Attention maps as one HTML page that needs nothing else: the text of map_page.html with the data
 * in its place. */
#include "map.h"
#include "os.h"
#include "page.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

struct page {
    const struct map *m;
    struct at_os_file *file;
};

static void put(struct page *p, const char *text)
{
    at_os_file_write(p->file, text, strlen(text));
}

/* As a string of a script: "</script>" must not be in it. */
static void put_string(struct page *p, const char *text)
{
    put(p, "\"");
    for (const char *c = text; *c; c++) {
        char code[12];
        if ((unsigned char)*c < 0x20 || strchr("<>&\"\\", *c))
            snprintf(code, sizeof code, "\\u%04x", (unsigned)*c);
        else
            snprintf(code, sizeof code, "%c", *c);
        put(p, code);
    }
    put(p, "\"");
}

static void put_list(struct page *p, char *const *text, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        put(p, i ? "," : "[");
        put_string(p, text[i]);
    }
    put(p, "]");
}

static unsigned level(float weight)
{
    return (unsigned)lrintf(255 * sqrtf(fminf(fmaxf(weight, 0), 1)));
}

/* Bytes in base 64 (RFC 4648). */
static void put_cells(struct page *p)
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const float *w = p->m->cells.data;
    const int64_t n = p->m->cells.bytes / (int64_t)sizeof *w;
    for (int64_t i = 0; i < n; i += 3) {
        unsigned b[3] = {0, 0, 0};
        for (int k = 0; k < 3 && i + k < n; k++)
            b[k] = level(w[i + k]);
        char four[4] = {digit[b[0] >> 2], digit[(b[0] & 3) << 4 | b[1] >> 4],
                        digit[(b[1] & 15) << 2 | b[2] >> 6], digit[b[2] & 63]};
        for (int64_t k = n - i; k < 3; k++)
            four[k + 1] = '=';
        at_os_file_write(p->file, four, 4);
    }
}

static void put_data(struct page *p)
{
    const struct map *m = p->m;
    const int64_t *dim = m->cells.shape.dim;
    char text[200];
    put(p, "const data = {model: ");
    put_string(p, m->model);
    snprintf(text, sizeof text,
             ", layers: %" PRId64 ", heads: %" PRId64 ", rows: %" PRId64 ", cols: %" PRId64
             ",\nentropy: [",
             dim[0], dim[1], dim[2], dim[3]);
    put(p, text);
    for (int64_t i = 0; i < dim[0] * dim[1]; i++) {
        snprintf(text, sizeof text, "%s%.4f", i ? "," : "", map_entropy(m, i / dim[1], i % dim[1]));
        put(p, text);
    }
    put(p, "],\ntokens: ");
    put_list(p, m->label, m->n);
    if (m->column != m->label) {
        put(p, ",\ncolumns: ");
        put_list(p, m->column, m->ncol);
    }
    put(p, ",\nmap: \"");
    put_cells(p);
    put(p, "\"};");
}

int map_write_page(const struct map *m, const char *file)
{
    char err[320];
    struct page p = {.m = m};
    const char *text = page_text[PAGE_MAP], *place = strstr(text, PAGE_MARK);
    if (at_os_file_new(&p.file, file, err, sizeof err) < 0)
        return cmd_fail(m->l, NULL, "%s", err);
    at_os_file_write(p.file, text, (size_t)(place - text));
    put_data(&p);
    put(&p, place + strlen(PAGE_MARK));
    if (at_os_file_finish(p.file, err, sizeof err) < 0)
        return cmd_fail(m->l, NULL, "%s", err);
    return CMD_DONE;
}
