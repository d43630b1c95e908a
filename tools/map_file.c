/* SPDX-License-Identifier: MIT */
/* Weights that something else computed, with the names of its tokens, for a picture: those of a
 * model in training, of an encoder that a decoder looks at, of additive attention. */
#include "map.h"
#include "os.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* A file's lines, which are cut out of a copy that label[0] begins; the last may end without '\n'.
 */
static int read_lines(struct map *m, const char *path, char ***out, int64_t *n)
{
    struct at_os_map map;
    char err[320];
    if (at_os_map_file(&map, path, err, sizeof err) < 0)
        return cmd_fail(m->l, NULL, "%s", err);
    int64_t most = 1;
    for (size_t i = 0; i < map.size; i++)
        most += ((const char *)map.data)[i] == '\n';
    char *text = malloc(map.size + 1), **line = calloc((size_t)most, sizeof *line);
    if (!text || !line) {
        free(text);
        free(line);
        at_os_unmap(&map);
        return cmd_fail(m->l, path, "no memory for %" PRId64 " lines", most);
    }
    memcpy(text, map.data, map.size);
    text[map.size] = 0;
    *out = line;
    line[0] = text;
    *n = 0;
    for (char *at = text, *end = text + map.size; at < end; at += strlen(at) + 1) {
        at[strcspn(at, "\n")] = 0;
        line[(*n)++] = at;
    }
    at_os_unmap(&map);
    return *n > 0 ? CMD_DONE : cmd_fail(m->l, path, "it names no tokens");
}

static int read_labels(struct map *m)
{
    const char *both = cmd_value(m->l, "--labels"), *comma = both ? strchr(both, ',') : NULL;
    char first[1024];
    if (!both)
        return cmd_wrong(m->l, "--labels is missing: which tokens are these?");
    size_t n = comma ? (size_t)(comma - both) : strlen(both);
    if (n >= sizeof first)
        return cmd_wrong(m->l, "--labels: a name of %zu bytes is too long", n);
    memcpy(first, both, n);
    first[n] = 0;
    int status = read_lines(m, first, &m->label, &m->n);
    m->column = m->label;
    m->ncol = m->n;
    if (status == CMD_DONE && comma) {
        m->column = NULL;
        status = read_lines(m, comma + 1, &m->column, &m->ncol);
    }
    return status;
}

/* Four axes, and as many rows and columns as have names: what is beyond was padding. */
static int shape_cells(struct map *m)
{
    attend_shape *s = &m->cells.shape;
    int64_t dim[4] = {1, 1, 1, 1};
    if (m->cells.type != ATTEND_F32 || s->rank < 2 || s->rank > 4)
        return cmd_fail(m->l, cmd_value(m->l, "--weights"), "%s of %d axes; want f32 of 2 to 4",
                        attend_type_name(m->cells.type), s->rank);
    memcpy(dim + 4 - s->rank, s->dim, (size_t)s->rank * sizeof *dim);
    if (dim[2] < m->n || dim[3] < m->ncol)
        return cmd_fail(m->l, cmd_value(m->l, "--weights"),
                        "%" PRId64 " x %" PRId64 " weights for %" PRId64 " x %" PRId64 " tokens",
                        dim[2], dim[3], m->n, m->ncol);
    float *w = m->cells.data;
    for (int64_t i = 0, to = 0; i < dim[0] * dim[1]; i++)
        for (int64_t r = 0; r < m->n; r++)
            for (int64_t c = 0; c < m->ncol; c++)
                w[to++] = w[(i * dim[2] + r) * dim[3] + c];
    *s = ATTEND_SHAPE(dim[0], dim[1], m->n, m->ncol);
    return CMD_DONE;
}

int map_read_files(struct map *m)
{
    char err[320];
    int status = read_labels(m);
    if (status != CMD_DONE)
        return status;
    if (attend_npy_read(cmd_value(m->l, "--weights"), &m->cells, err, sizeof err) < 0)
        return cmd_fail(m->l, NULL, "%s", err);
    return shape_cells(m);
}

void map_free(struct map *m)
{
    const bool files = cmd_has(m->l, "--weights");
    if (m->column != m->label && m->column) {
        free(m->column[0]);
        free(m->column);
    }
    for (int64_t i = 0; m->label && i < (files ? 1 : m->n); i++)
        free(m->label[i]);
    free(m->label);
    attend_free(m->cells.data);
}
